"""A stored failure is read back as it was, or refused with file, field and rule."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fuzz import store
from fuzz.case import Case, Plant, Recipe, TensorCase
from fuzz.contract import digest
from fuzz.store import Failure, StoreError, TargetFile, promote
from fuzz.verdict import Finding, Signature
from oracle.arithmetic import Arithmetic
from tests.fuzz.fake_backend import case_of, spec_of

DATA = Path(__file__).parent / "data"
# As each format was written. They are read for ever: none is ever written anew.
FORMATS = {number: DATA / f"failure-format-{number}.json" for number in (1, 2)}


def failure_of(case: Case | None = None, *, region: str = "tail columns") -> Failure:
    case = case or case_of("wrong_tail")
    finding = Finding(
        "values_within_bound", "base", "y", "y[0, 5]=1, but", region, math.inf, (0, 5)
    )
    return Failure(
        signature=Signature(case.target, "y", "values_within_bound", "single", region),
        case=case,
        original=replace(case, seed=99),
        inputs_digest="0123456789abcdef",
        findings=(finding, replace(finding, check="repeatable", ratio=2.5)),
        device="cpu",
        device_name="Triton interpreter",
        versions={"python": "3.11.7", "numpy": "2.4.6"},
        first_seen="2026-01-01T00:00:00+00:00",
        confirmed=3,
        confirm_runs=3,
        target_file=TargetFile("kernels/mine.py", "ab" * 32),
        contract=spec_of(case.target),
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return store.write(failure_of(), tmp_path)


def change(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text())
    for name, value in changes.items():
        *folders, last = name.split("__")
        place = data
        for folder in folders:
            place = place[int(folder) if folder.isdigit() else folder]
        place[last] = value
    path.write_text(json.dumps(data))


def test_store_reads_back_what_was_written(tmp_path: Path) -> None:
    x = TensorCase(
        "x", "bfloat16", (2, 3), (7, 1), 5, Recipe("normal", 1e4, 0.1, (Plant(3, "nan"),))
    )
    case = replace(
        case_of("right"), shape=(2, 3), tensors=(x,), flags={"group_size": None, "b": True}
    )
    failure = failure_of(case)
    path = store.write(failure, tmp_path)
    assert store.read(path) == failure
    assert path.name == f"{failure.id}.json"


def test_store_file_is_strict_json(written: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    data = json.loads(written.read_text(), parse_constant=refuse)
    assert data["format"] == store.FORMAT
    assert data["case_id"] == case_of("wrong_tail").case_id
    assert data["contract_digest"] == digest(spec_of("wrong_tail"))
    assert data["message"] == "y[0, 5]=1, but"


def test_store_id_tells_two_faults_of_one_case_apart(tmp_path: Path) -> None:
    paths = {store.write(failure_of(region=region), tmp_path) for region in ("one", "other")}
    assert len(paths) == 2
    assert {store.read(path).signature.region for path in paths} == {"one", "other"}


def test_store_known_failure_keeps_when_it_was_first_seen(written: Path) -> None:
    again = replace(failure_of(), first_seen="2027-01-01T00:00:00+00:00", confirmed=2)
    assert store.write(again, written.parent) == written
    seen = store.read(written)
    assert seen.first_seen == "2026-01-01T00:00:00+00:00"
    assert seen.confirmed == 2


def test_store_writes_over_an_unreadable_file_and_keeps_it(written: Path) -> None:
    written.write_text("{")
    store.write(failure_of(), written.parent)
    assert store.read(written) == failure_of()
    assert written.with_suffix(".unreadable").read_text() == "{"


def test_store_write_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    store.write(failure_of(), tmp_path)
    before = (tmp_path / f"{failure_of().id}.json").read_text()
    monkeypatch.setattr(store.Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        store.write(replace(failure_of(), confirmed=1), tmp_path)
    assert (tmp_path / f"{failure_of().id}.json").read_text() == before
    # What was begun is not taken for a failure.
    assert store.find(str(tmp_path), ()) == (tmp_path / f"{failure_of().id}.json",)


def test_store_refuses_a_truncated_file(written: Path) -> None:
    text = written.read_text()
    for length in (0, 1, len(text) // 2, len(text) - 3):
        written.write_text(text[:length])
        with pytest.raises(StoreError, match=rf"{written}: not valid JSON at line \d+"):
            store.read(written)


def test_store_refuses_what_is_not_text(written: Path) -> None:
    written.write_bytes(b"{\xff\xfe}")
    with pytest.raises(StoreError, match=rf"{written}: not UTF-8 text \(byte 1\)"):
        store.read(written)


def test_store_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        store.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 3}, "format=3, this version reads formats 1 to 2: written by a newer version"),
        ({"format": None}, "format=None, this version reads formats 1 to 2$"),
        ({"format": 0}, "format=0, this version reads formats 1 to 2$"),
        ({"format": True}, "format=True, this version reads formats 1 to 2$"),
        ({"format": "2"}, "format='2', this version reads formats 1 to 2$"),
        ({"case__format": 2}, "case: case.format=2, this version reads format 1"),
        ({"case__seed": 7}, "case_id='[0-9a-f]{12}', but the content has '[0-9a-f]{12}'"),
        ({"case_id": "000000000000"}, "case_id='000000000000', but the content has"),
        ({"id": "000000000000"}, "id='000000000000', but the content has"),
        ({"signature__region": "elsewhere"}, "id='[0-9a-f]{12}', but the content has"),
        ({"case": 3}, "case: case=int, must be a JSON object"),
        ({"case__launch": 3}, "case: case.launch=3, must be an object"),
        ({"original__shape": None}, "original: case.shape=None, must be a list"),
        ({"surprise": 1}, "surprise"),
        ({"inputs_digest": None}, "expected str @ failure.inputs_digest"),
        ({"confirmed": True}, "expected int @ failure.confirmed"),
        ({"findings": 3}, "findings"),
        # What an older format did not have cannot be in it.
        ({"format": 1}, "contract_digest: is no field of format 1$"),
        (
            {"contract__arithmetic__variance": "one_pass"},
            "contract_digest='[0-9a-f]{16}', but the content has '[0-9a-f]{16}': the file was",
        ),
        ({"contract_digest": "0" * 16}, "contract_digest='0000000000000000', but the content has"),
        ({"contract_digest": None}, "contract_digest=None, but the content has"),
        ({"contract": None}, "contract_digest='[0-9a-f]{16}', but the content has None"),
        ({"contract": 3}, "contract=3, must be an object"),
        ({"contract__name": "right"}, "contract.name='right', must be the case's target='wrong_"),
        ({"contract__surprise": 1}, "contract.surprise: is no field of TargetSpec"),
        (
            {"contract__args__0__role": "reference"},
            r"contract.args\[0\].role='reference', must be one of in, out, inout, scratch",
        ),
    ],
)
def test_store_refuses_what_was_changed(written: Path, changes: dict[str, Any], says: str) -> None:
    change(written, **changes)
    with pytest.raises(StoreError, match=says) as caught:
        store.read(written)
    assert str(caught.value).startswith(f"{written}: ")
    assert "\n" not in str(caught.value)


def test_store_refuses_a_missing_field(written: Path) -> None:
    data = json.loads(written.read_text())
    names = ("case", "signature", "inputs_digest", "case_id", "contract", "contract_digest")
    for name in (*names, "id", "format"):
        written.write_text(json.dumps({k: v for k, v in data.items() if k != name}))
        with pytest.raises(StoreError, match=name):
            store.read(written)


def test_store_refuses_what_is_no_object(written: Path) -> None:
    written.write_text("[]")
    with pytest.raises(StoreError, match="list found, must be a JSON object"):
        store.read(written)


def test_store_finds_by_id_file_and_folder(tmp_path: Path) -> None:
    folders = (tmp_path / "failures", tmp_path / "regressions")
    one = store.write(failure_of(), folders[0])
    other = store.write(failure_of(region="elsewhere"), folders[1])
    assert store.find(one.stem[:6], folders) == (one,)
    assert store.find(other.stem, folders) == (other,)
    assert store.find(str(one), ()) == (one,)
    assert store.find(str(folders[1]), ()) == (other,)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("0000", "id='0000': no such failure in"),
        ("abc", "id='abc', must have at least 4 digits"),
        ("nonsense.json", "'nonsense.json': no such file or folder, nor the id of a failure"),
    ],
)
def test_store_says_what_it_cannot_find(written: Path, name: str, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        store.find(name, (written.parent,))


def test_store_says_that_a_folder_is_empty(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no failure"):
        store.find(str(tmp_path), ())


def test_store_short_id_is_one_that_finds(tmp_path: Path) -> None:
    for name in ("abcdef012345", "abcdef112345", "bbcdef012345"):
        (tmp_path / f"{name}.json").write_text("{}")
    assert store.short_id("abcdef012345", (tmp_path,)) == "abcdef0"
    assert store.short_id("bbcdef012345", (tmp_path,)) == "bbcdef"
    with pytest.raises(StoreError, match=r"ambiguous: abcdef012345, abcdef112345"):
        store.find("abcdef", (tmp_path,))
    assert len(store.find("abcdef0", (tmp_path,))) == 1


# --- formats --------------------------------------------------------------------------------------


def test_store_has_a_file_of_every_format() -> None:
    assert list(FORMATS) == list(range(1, store.FORMAT + 1))
    for number, path in FORMATS.items():
        assert json.loads(path.read_text())["format"] == number


@pytest.mark.parametrize("number", FORMATS)
def test_store_reads_every_format_for_ever(number: int) -> None:
    before = FORMATS[number].read_bytes()
    failure = store.read(FORMATS[number])
    data = json.loads(before)
    assert (failure.id, failure.case.case_id) == (data["id"], data["case_id"])
    assert failure.case.target == "triton_layer_norm"
    assert failure.signature.check == "values_within_bound"
    assert (failure.confirmed, failure.confirm_runs) == (3, 3)
    # Reading rewrites nothing.
    assert FORMATS[number].read_bytes() == before


def test_store_format_1_did_not_know_the_contract() -> None:
    assert store.read(FORMATS[1]).contract is None


def test_store_format_2_knows_the_contract() -> None:
    spec = store.read(FORMATS[2]).contract
    assert spec is not None
    assert (spec.name, spec.launch.whole_row) == ("triton_layer_norm", True)
    assert spec.arithmetic == Arithmetic(uniform=True)


def test_store_writes_an_older_format_as_the_newest(tmp_path: Path) -> None:
    failure = store.read(FORMATS[1])
    path = store.write(failure, tmp_path)
    data = json.loads(path.read_text())
    assert (data["format"], data["contract"], data["contract_digest"]) == (store.FORMAT, None, None)
    assert store.read(path) == failure


def test_store_format_1_is_verified_too(tmp_path: Path) -> None:
    path = Path(shutil.copy(FORMATS[1], tmp_path))
    change(path, case__seed=7)
    with pytest.raises(StoreError, match="case_id='28280e43946d', but the content has"):
        store.read(path)
    shutil.copy(FORMATS[1], path)
    change(path, contract=json.loads(FORMATS[2].read_text())["contract"])
    with pytest.raises(StoreError, match="contract: is no field of format 1"):
        store.read(path)


def test_store_contract_is_verified_as_it_is_written(written: Path) -> None:
    # A name for people may change; how a number is spelled is part of what was written.
    change(written, contract__description="better said")
    assert store.read(written).contract == replace(spec_of("wrong_tail"), description="better said")
    change(written, contract__arithmetic__div_error=4)
    with pytest.raises(StoreError, match="contract_digest"):
        store.read(written)


def test_store_lays_a_file_out_for_people(written: Path) -> None:
    lines = written.read_text().splitlines()
    assert max(map(len, lines)) <= 2 * store.LINE
    assert lines[:2] == ["{", f' "format": {store.FORMAT},']
    starts = [line.split('"')[1] for line in lines[1:6]]
    assert starts == ["format", "id", "case_id", "contract_digest", "message"]
    assert ' "versions": {"python": "3.11.7", "numpy": "2.4.6"},' in lines
    assert '  "space": {' in lines
    assert '   "roundings": [],' in lines


@pytest.mark.parametrize(
    "value", [{}, [], {"a": []}, [[1.5, None], {"b": "x" * 200}], ["y" * 99, "y"], "z" * 200]
)
def test_store_layout_changes_no_value(value: Any) -> None:
    data = {"value": value, "list": [value, value]}
    assert json.loads(store._laid_out(data)) == data


# --- regressions ----------------------------------------------------------------------------------


def test_promote_keeps_a_failure_under_its_id(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    path = promote(written, folder)
    assert path == folder / f"{failure_of().id}.json"
    assert store.read(path) == failure_of()
    assert written.exists()


def test_promote_writes_the_newest_format(tmp_path: Path) -> None:
    path = promote(FORMATS[1], tmp_path)
    assert json.loads(path.read_text())["format"] == store.FORMAT
    assert store.read(path) == store.read(FORMATS[1])


def test_promote_says_that_it_is_there_already(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    path = promote(written, folder)
    with pytest.raises(StoreError, match=rf"^{written}: is kept already, as {path}$"):
        promote(written, folder)
    # Under a name that tells the fault, too.
    named = path.rename(folder / "unmasked-tail.json")
    with pytest.raises(StoreError, match=rf"is kept already, as {named}$"):
        promote(written, folder)


def test_promote_refuses_what_was_never_confirmed(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    for runs, tried in ((3, "0 of 3 runs"), (0, "not tried")):
        path = store.write(replace(failure_of(), confirmed=0, confirm_runs=runs), tmp_path)
        with pytest.raises(StoreError, match=rf"confirmed=0, must be >= 1 \({tried}\)"):
            promote(path, folder)
    assert not folder.exists()
    assert store.read(promote(path, folder, force=True)).confirmed == 0


def test_promote_keeps_a_report_of_a_sanitizer(tmp_path: Path) -> None:
    signature = Signature(
        "wrong_tail", "", "no_sanitizer_report", "single", "racecheck hazard mine.py:7"
    )
    path = store.write(replace(failure_of(), signature=signature, device="cuda"), tmp_path)
    assert store.read(promote(path, tmp_path / "kept")).signature == signature


def test_promote_refuses_what_it_cannot_read(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    change(written, inputs_digest=None)
    with pytest.raises(StoreError, match=rf"^{written}: .*failure.inputs_digest"):
        promote(written, folder)
    with pytest.raises(StoreError, match="No such file"):
        promote(tmp_path / "none.json", folder)
    assert not folder.exists()


def test_promote_overwrites_nothing_that_it_cannot_read(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "other.json").write_text("{")
    path = promote(written, folder)
    path.write_text("{")
    with pytest.raises(StoreError, match=rf"^{path}: not valid JSON"):
        promote(written, folder)
    assert path.read_text() == "{"


def test_promote_says_where_it_cannot_write(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.write_text("a file")
    with pytest.raises(StoreError, match=rf"^{folder}: File exists"):
        promote(written, folder)
