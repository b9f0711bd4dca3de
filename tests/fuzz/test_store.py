"""A stored failure is read back as it was, or refused with file, field and rule."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fuzz import store
from fuzz.case import Case, Plant, Recipe, TensorCase
from fuzz.store import Failure, StoreError, TargetFile
from fuzz.verdict import Finding, Signature
from tests.fuzz.fake_backend import case_of


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
            place = place[folder]
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
        ({"format": 2}, "format=2, this version reads format 1: written by a newer version"),
        ({"format": None}, "format=None, this version reads format 1"),
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
    for name in ("case", "signature", "inputs_digest", "case_id"):
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
