"""The measurement with a fake backend: what is found, what is lost, and what a second run does."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fuzz.jobs.setup import UsageError
from fuzz.power import job, show
from fuzz.power.catalogue import load
from fuzz.power.job import PowerResult, PowerSettings
from fuzz.power.log import FILE
from fuzz.power.results import Measured
from tests.fuzz.fake_backend import BACKEND, WRONG_FROM
from tests.fuzz.processes import abandoned_segments, own_segments

FAULTS = Path(__file__).with_name("fake_catalogue.py")


class Heard:
    """A listener that notes what was measured anew."""

    def __init__(self, then: Callable[[Measured], None] = lambda _: None) -> None:
        self.new: list[str] = []
        self._then = then

    def started(self, result: PowerResult) -> None: ...

    def progress(self, result: PowerResult) -> None: ...

    def done(self, measured: Measured) -> None:
        self.new.append(measured.fault)
        self._then(measured)


def measure(
    out: Path, names: Sequence[str], heard: Heard | None = None, **changes: object
) -> PowerResult:
    settings = PowerSettings(
        faults=FAULTS,
        only=tuple(f"{name}_fault" for name in names),
        budget=12,
        seeds=2,
        device="cpu",
        workers=2,
        # A crash costs a process each time it is looked for.
        shrink=False,
        out=out,
        backend=BACKEND,
    )
    return job.run(replace(settings, **changes), heard or Heard())


def text_of(result: PowerResult) -> str:
    console = Console(width=160, record=True, file=Path(os.devnull).open("w"), highlight=False)  # noqa: SIM115
    show.print_power(console, result)
    return console.export_text()


@pytest.fixture(scope="module", autouse=True)
def same_sources() -> Iterator[None]:
    """The sources are whatever they are; one may be saved in an editor meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "digest_of_sources", lambda: "0123456789ab")
        yield


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> PowerResult:
    """A fault that is found at once, a correct kernel, a crash, and one that no CPU shows."""
    out = tmp_path_factory.mktemp("power")
    return measure(out, ("wrong_tail", "right", "segfault", "ages"))


def of(result: PowerResult, name: str) -> Measured:
    return next(m for m in result.measured if m.fault == f"{name}_fault")


def test_power_finds_a_fault_with_each_judge(measured: PowerResult) -> None:
    found = of(measured, "wrong_tail")
    assert found.status == "measured" and found.problems == ()
    assert [(a.judge, a.seed) for a in found.attempts] == [
        (judge, seed) for judge in ("bounds", "fixed", "assert_close", "uniform") for seed in (0, 1)
    ]
    assert all(attempt.found for attempt in found.attempts)
    first, *_ = found.of("bounds")
    assert first.by[0].startswith("wrong_tail / values_within_bound / y / single")
    assert found.of("fixed")[0].by == ("y",) and found.of("fixed")[0].cases == 1
    assert found.shrunk is None


def test_power_shrinks_what_the_first_seed_found(tmp_path: Path) -> None:
    result = measure(tmp_path, ("wrong_tail",), seeds=1, judges=("bounds",), shrink=True)
    shrunk = of(result, "wrong_tail").shrunk
    # The smallest case has the first wrong column and no other.
    assert shrunk is not None and shrunk.case["shape"][-1] == WRONG_FROM + 1
    assert shrunk.confirmed == shrunk.confirm_runs == 3


def test_power_finds_nothing_in_a_correct_kernel(measured: PowerResult) -> None:
    correct = of(measured, "right")
    assert not any(attempt.found for attempt in correct.attempts)
    assert [a.cases for a in correct.attempts] == [12, 12, 3, 3, 12, 12, 12, 12]


def test_power_counts_a_crash_as_found_by_every_judge(measured: PowerResult) -> None:
    crash = of(measured, "segfault")
    assert {(a.found, a.cases) for a in crash.attempts} == {(True, 1)}
    assert crash.of("assert_close")[0].by == ("crashed",)


def test_power_does_not_count_what_needs_a_gpu(measured: PowerResult) -> None:
    assert (of(measured, "ages").status, of(measured, "ages").reason) == (
        "elsewhere",
        "needs a GPU",
    )
    data = show.result_json(measured)
    assert data["total"]["bounds"]["faults"] == 3
    assert data["missed"] == ["right_fault"] and data["exit_code"] == 0
    assert (data["classes"]["values"]["bounds"]["share"], data["format"]) == (0.5, 1)
    json.dumps(data, allow_nan=False)


def test_power_is_shown_in_tables(measured: PowerResult) -> None:
    text = text_of(measured)
    assert re.search(r"values +│ wrong_tail_fault +│ +\d+ \d+ │ +1 1 │", text)
    assert re.search(r"│ right_fault +│ +- - │", text)
    assert re.search(r"values +│ +2 │ +50%  \d+ / - │", text)
    assert "not counted: ages_fault: needs a GPU" in text
    assert "2 of 3 faults found with every seed; not right_fault; 0 errors." in text


def test_power_marks_what_the_interpreter_refused(measured: PowerResult) -> None:
    crash = of(measured, "segfault")
    by = tuple(
        replace(a, by=("out of bounds",)) if a.judge == "fixed" else a for a in crash.attempts
    )
    marked = replace(measured, measured=[replace(crash, attempts=by)])
    assert re.search(r"segfault_fault │ +1 1 │ +1\* 1\* │ +1 1 │", text_of(marked))
    assert "*: 2 times the strict interpreter refused" in text_of(marked)
    assert "*:" not in text_of(measured)


def test_power_expects_what_is_marked_visible(measured: PowerResult) -> None:
    strict = replace(measured, settings=replace(measured.settings, expect=True))
    assert strict.exit_code == 1
    others = [m for m in strict.measured if m.fault != "right_fault"]
    assert replace(strict, measured=others, total=3).exit_code == 0
    unmarked = [replace(m, expected=m.fault != "right_fault") for m in strict.measured]
    assert replace(strict, measured=unmarked).exit_code == 0


def test_power_goes_on_where_it_ended(measured: PowerResult) -> None:
    folder = measured.log.path.parent
    heard = Heard()
    again = measure(folder, ("wrong_tail", "right", "segfault", "ages"), heard)
    assert heard.new == [] and again.measured == measured.measured
    assert again.resumed == 4


def test_power_refuses_to_go_on_with_other_settings(measured: PowerResult) -> None:
    folder = measured.log.path.parent
    with pytest.raises(UsageError, match=r"measured with budget=12, not 13; name another folder"):
        measure(folder, ("right",), budget=13)
    with pytest.raises(UsageError, match=r"judges=\['bounds', .*\], not \['bounds'\]"):
        measure(folder, ("right",), judges=("bounds",))


def test_power_says_which_line_is_broken(measured: PowerResult, tmp_path: Path) -> None:
    lines = measured.log.path.read_text().splitlines()
    tail = next(n for n, line in enumerate(lines) if "wrong_tail_fault" in line)
    others = [line for n, line in enumerate(lines) if n != tail]
    # A line of nonsense, and one that was being written when the run was killed.
    (tmp_path / FILE).write_text("\n".join((*others, "{}", lines[tail][:80])))
    heard = Heard()
    again = measure(tmp_path, ("wrong_tail", "right", "segfault"), heard)
    assert heard.new == ["wrong_tail_fault"]
    assert [line.rpartition("power.jsonl, ")[2][:17] for line in again.log.broken] == [
        "line 3: left out:",
        "line 4: left out:",
    ]
    heard = Heard()
    measure(tmp_path, ("wrong_tail", "right", "segfault"), heard)
    assert heard.new == []


def test_power_measures_a_changed_fault_anew(measured: PowerResult, tmp_path: Path) -> None:
    log = tmp_path / FILE
    log.write_bytes(measured.log.path.read_bytes())
    changed = tmp_path / "changed.py"
    changed.write_text(FAULTS.read_text().replace('new: str = "wrong"', 'new: str = "worse"'))
    heard = Heard()
    measure(tmp_path, ("wrong_tail",), heard, faults=changed)
    assert heard.new == ["wrong_tail_fault"]


def test_power_loses_one_fault_with_its_process(tmp_path: Path) -> None:
    before = set(own_segments())
    only = ("kills_its_engine", "segfault")
    result = measure(tmp_path, only, seeds=1, judges=("bounds",))
    assert of(result, "kills_its_engine").status == "error"
    assert of(result, "kills_its_engine").reason == "the measuring process died (exit code -9)"
    assert of(result, "segfault").of("bounds")[0].found
    assert result.exit_code == 2
    assert show.result_json(result)["total"]["bounds"]["faults"] == 1
    assert set(own_segments()) == before and abandoned_segments() == []
    heard = Heard()
    measure(tmp_path, only, heard, seeds=1, judges=("bounds",))
    assert heard.new == ["kills_its_engine_fault"]


def test_power_does_not_take_its_own_errors_for_finds(tmp_path: Path) -> None:
    only = ("broken_harness", "unsupported")
    result = measure(tmp_path, only, seeds=1, judges=("bounds", "assert_close"))
    broken, skipped = of(result, "broken_harness"), of(result, "unsupported")
    assert not any(a.found for a in (*broken.attempts, *skipped.attempts))
    assert [a.skipped for a in skipped.attempts] == [12, 12]
    assert result.exit_code == 2
    assert len(result.errors) == 1 and "a fault of the harness itself" in result.errors[0]


def test_power_keeps_what_was_done_when_interrupted(tmp_path: Path) -> None:
    def interrupt(_: Measured) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    only = ("segfault", "slow", "right")
    judges = {"seeds": 1, "judges": ("bounds",), "workers": 1}
    result = measure(tmp_path, only, Heard(interrupt), **judges)
    assert result.interrupted and result.exit_code == 2
    # The first of the catalogue: the others were not begun, or ended in their midst.
    assert [m.fault for m in result.measured] == ["right_fault"]
    assert "Interrupted; the same command goes on from here." in text_of(result)
    heard = Heard()
    again = measure(tmp_path, only, heard, **judges)
    assert sorted(heard.new) == ["segfault_fault", "slow_fault"]
    assert again.exit_code == 0 and abandoned_segments() == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"budget": 0}, "budget=0, must be >= 1"),
        ({"seeds": 0}, "seeds=0, must be >= 1"),
        ({"workers": 0}, "workers=0, must be >= 1"),
        ({"judges": ("bounds", "luck")}, "judges='luck', must be of bounds, fixed"),
        ({"judges": ("fixed", "fixed")}, "must name each judge once"),
        ({"judges": ("fixed",), "expect": True}, "expect: the judges must have bounds"),
        ({"only": ("segfalt_fault",)}, "no such fault in .*, did you mean segfault_fault?"),
        ({"kinds": ("luck",)}, "class='luck', must be one of values, ends, harness"),
        ({"only": ("right_fault",), "kinds": ("ends",)}, "no fault of these ids is of these"),
        ({"faults": Path("nowhere.py")}, "faults='nowhere.py': no such file"),
    ],
)
def test_power_refuses_wrong_settings(tmp_path: Path, changes, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        measure(tmp_path, (), **changes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("CATALOGUE = ()", "must have a tuple CATALOGUE of faults"),
        ("CATALOGUE = (1,)", r"must have a function plant\(fault, folder\)"),
        ("CATALOGUE = (1,)\nplant = print", r"CATALOGUE\[0\] has no id, target, kind"),
    ],
)
def test_catalogue_says_what_it_lacks(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "catalogue.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        load(path)


@pytest.mark.parametrize(
    ("was", "is_", "says"),
    [
        ('seen: str = "cpu"', 'seen: str = "tpu"', "wrong_tail_fault.seen='tpu', must be of cpu"),
        ("{self.target}_fault", "one_fault", "two faults with id='one_fault'"),
    ],
)
def test_catalogue_is_checked(tmp_path: Path, was: str, is_: str, says: str) -> None:
    path = tmp_path / "catalogue.py"
    path.write_text(FAULTS.read_text().replace(was, is_))
    with pytest.raises(UsageError, match=says):
        load(path)
