"""A night: former failures first, then what was tried least, all of it kept; and how it ends."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from fuzz import campaign, store
from fuzz.campaign import CampaignResult
from fuzz.cells import Cell, cell_of
from fuzz.history import HISTORY, History
from fuzz.jobs.setup import Settings, Setup, UsageError
from fuzz.jobs.totals import CellSum, Totals
from fuzz.night import NightSettings, base_seed, run, shard_seed, workers_of
from fuzz.nights import former, promise
from fuzz.nights.merge import merge_shards
from fuzz.nights.outcome import NightFailure, NightResult, Shard, TargetSum
from fuzz.nights.screen import night_verdict, print_night
from fuzz.nights.shards import end_shard, read_shard
from fuzz.process.journal import Mark
from fuzz.process.kernel_worker import DeviceInfo
from fuzz.process.lifecycle import THREAD_VARIABLES
from fuzz.store import FAILURES, Failure
from fuzz.strategies import INTERPRETER_BUDGET, draw_cases
from tests.fuzz.fake_backend import BACKEND, FIXED_FILE, spec_of
from tests.fuzz.nights.folders import begin, failure_of, unfinished_folder


@dataclass
class Witness:
    """A watcher that remembers, and may act on what it hears."""

    told: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    on_step: Callable[[], None] | None = None
    on_progress: Callable[[CampaignResult], None] | None = None

    def started(self, setup: Setup) -> None:
        self.told.append("started")

    def progress(self, result: CampaignResult) -> None:
        if self.on_progress is not None:
            self.on_progress(result)

    def failure(self, failure: Failure, path: Path) -> None:
        self.told.append(f"failure {failure.signature}")

    def error(self, text: str) -> None:
        self.errors.append(text)

    def stage(self, text: str) -> None:
        self.told.append(text)

    def step(self, text: str) -> None:
        self.told.append(text)
        if self.on_step is not None:
            self.on_step()


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "1")


def night(
    tmp_path: Path, *targets: str, watcher: Witness | None = None, **how: Any
) -> tuple[NightResult, Witness]:
    usual = NightSettings(
        cases=32,
        targets=targets,
        device="cpu",
        seed=1,
        workers=1,
        out=tmp_path / "out",
        regressions=tmp_path / "regressions",
        backend=BACKEND,
    )
    watcher = watcher or Witness()
    return run(replace(usual, **how), watcher), watcher


def screen(result: NightResult) -> str:
    console = Console(width=200, highlight=False)
    with console.capture() as captured:
        print_night(console, result)
    return captured.get()


# --- a whole night --------------------------------------------------------------------------------


def test_night_keeps_all_it_learnt(tmp_path: Path) -> None:
    result, witness = night(tmp_path, "right", "slow", cases=48)
    assert (result.exit_code, result.errors, result.faults) == (0, [], [])
    assert (result.executed, result.failed, result.not_reached, result.lost) == (48, 0, 0, 0)
    assert witness.told[0] == "a night, --seed 1 --shard 1/1"
    assert [t.target for t in result.targets] == ["right", "slow"]
    assert [t.executed for t in result.targets] == [32, 16]
    assert all(t.cells == t.new_cells > 5 for t in result.targets)
    with History(result.out / HISTORY) as history:
        (record,) = history.runs()
        cells = history.cells()
    assert (record.id, record.kind, record.outcome) == (result.run, "night", "ended")
    assert (record.executed, record.seed, record.workers) == (48, 1, 1)
    assert sum(sums.executed for sums in cells.values()) == 48
    assert len(cells) == sum(t.cells for t in result.targets)
    words = read_shard(result.out)
    assert words is not None
    assert (words.run, words.exit_code) == (result.run, 0)
    assert (words.executed, words.failed, words.skipped) == (48, 0, 0)
    assert screen(result).splitlines()[-1] == "Clean: no failure in 48 cases."


def test_night_needs_a_limit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of them must be given"):
        night(tmp_path, "right", cases=None)


def test_night_that_cannot_begin_says_no_last_words(tmp_path: Path) -> None:
    words = end_shard(NightResult("run", 1, out=tmp_path), executed=1, failed=0, skipped=0)
    with pytest.raises(UsageError, match="nonsense"):
        night(tmp_path, "nonsense", out=tmp_path)
    assert not words.exists()
    with History(tmp_path / HISTORY) as history:
        assert history.runs() == ()


def test_night_refuses_a_history_that_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / HISTORY).write_text("this is no database, and longer than its header" * 9)
    with pytest.raises(UsageError, match=HISTORY):
        night(tmp_path, "right")


def test_night_ends_in_time(tmp_path: Path) -> None:
    result, _ = night(tmp_path, "slow", cases=None, seconds=5.0)
    assert result.executed > 0
    assert result.not_reached < 32
    assert result.exit_code == 0


def test_night_leaves_time_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float | None] = []

    def run_plan(settings: Settings, *rest: Any, **how: Any) -> CampaignResult:
        given.append(settings.seconds)
        return campaign.run_plan(settings, *rest, **how)

    monkeypatch.setattr("fuzz.night.campaign", SimpleNamespace(run_plan=run_plan))
    for seconds in (100.0, 7200.0):
        night(tmp_path, "right", cases=1, seconds=seconds)
    assert [seconds is not None for seconds in given] == [True, True]
    assert 60.0 < float(given[0] or 0) <= 95.0
    assert 7100.0 < float(given[1] or 0) <= 7170.0


def test_night_of_cases_that_are_all_skipped_is_no_verdict(tmp_path: Path) -> None:
    result, _ = night(tmp_path, "right", "unsupported")
    assert result.exit_code == 2
    assert result.errors == ["unsupported: no case was executed: all 16 skipped"]
    assert night_verdict(result).startswith("No verdict: the tool could not do its job")


# --- effort ---------------------------------------------------------------------------------------


def tried(result: NightResult) -> dict[str, int]:
    with History(result.out / HISTORY) as history:
        return {name: sums.executed for name, sums in history.cells(result.run).items()}


def test_night_goes_to_the_cells_that_were_tried_least(tmp_path: Path) -> None:
    drawn = draw_cases(spec_of("right"), seed=1, count=2000, budget=INTERPRETER_BUDGET)
    cells = [cell for cell, _ in Counter(str(cell_of(case)) for case in drawn).most_common()]
    wanted = set(cells[:6])
    # An earlier night that tried all but a few.
    totals = Totals(cells={cell: CellSum(1000, 0, 0.1) for cell in cells[6:]})
    (tmp_path / "a").mkdir()
    with History(tmp_path / "a" / "out" / HISTORY) as history:
        earlier = begin(history, Shard())
        history.add(earlier, 0, totals, Mark())
        history.end(earlier)
    times = []
    for name in ("a", "b"):
        result, _ = night(tmp_path / name, "right", cases=96)
        times.append(sum(n for cell, n in tried(result).items() if cell in wanted))
    assert times[0] > 2 * times[1]


def test_night_is_the_same_for_the_same_seed_and_counts(tmp_path: Path) -> None:
    first, again = (night(tmp_path / name, "right", cases=40)[0] for name in ("a", "b"))
    assert first.run != again.run
    assert tried(first) == tried(again)


def test_shards_of_one_seed_draw_other_cases(tmp_path: Path) -> None:
    results = [
        night(tmp_path / str(i), "right", cases=16, seed=9, shard=Shard(i, 2))[0] for i in (1, 2)
    ]
    assert [result.seed for result in results] == [9, 9]
    assert tried(results[0]) != tried(results[1])
    merged = merge_shards([result.out for result in results], tmp_path / "all")
    assert (merged.exit_code, merged.executed) == (0, 32)


def test_seeds_are_new_each_night_and_others_for_each_shard() -> None:
    settings = NightSettings(cases=1)
    seeds = {base_seed(settings) for _ in range(20)}
    assert len(seeds) == 20
    assert all(0 <= seed < 10**9 for seed in seeds)
    assert base_seed(replace(settings, seed=5)) == 5
    assert shard_seed(5, Shard()) == 5
    assert len({shard_seed(5, Shard(i, 7)) for i in range(1, 8)}) == 7
    assert shard_seed(5, Shard(1, 2)) != shard_seed(5, Shard(1, 3))


# --- runners --------------------------------------------------------------------------------------


def setup_of(*gpus: str) -> Setup:
    info = DeviceInfo("cuda" if gpus else "cpu", "machine", gpus=gpus)
    return Setup(info, (spec_of("right"),), workers=3)


def test_runners_are_so_many_for_each_gpu() -> None:
    each = NightSettings(cases=1, workers_per_gpu=6)
    assert workers_of(each, setup_of("0", "1")) == 12
    assert workers_of(NightSettings(cases=1), setup_of("0", "1")) == 3
    assert workers_of(NightSettings(cases=1), setup_of()) == 3


@pytest.mark.parametrize(
    ("settings", "gpus", "told"),
    [
        (NightSettings(workers_per_gpu=2), (), "but device cpu has no GPU"),
        (NightSettings(workers_per_gpu=0), ("0",), "must be >= 1"),
        (NightSettings(workers_per_gpu=2, workers=4), ("0",), "but workers=4 is given too"),
    ],
)
def test_runners_that_cannot_be_are_refused(
    settings: NightSettings, gpus: tuple[str, ...], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        workers_of(settings, setup_of(*gpus))


# --- failures -------------------------------------------------------------------------------------


@pytest.fixture
def fixed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The target "shifted" is right once this file exists."""
    monkeypatch.setenv(FIXED_FILE, str(tmp_path / "fixed"))
    return tmp_path / "fixed"


def test_night_tells_new_failures_from_known_ones_and_marks_fixed(
    tmp_path: Path, fixed_file: Path
) -> None:
    first, _ = night(tmp_path, "shifted", cases=3)
    assert first.exit_code == 1
    assert {failure.kind for failure in first.failures} == {"new"}
    signatures = {failure.signature for failure in first.failures}

    second, witness = night(tmp_path, "shifted", cases=3)
    # Before anything is drawn.
    assert witness.told[1].startswith(f"replaying {len(signatures)} former failure")
    assert witness.told.index("fuzzing") > 1
    assert second.replayed == len(signatures)
    assert {f.signature for f in second.failures if f.kind == "known"} >= signatures
    assert second.fixed == []

    fixed_file.touch()
    # The history has all that is in the files.
    for path in (tmp_path / "out" / FAILURES).iterdir():
        path.unlink()
    third, _ = night(tmp_path, "shifted", cases=3)
    assert (third.exit_code, third.failures) == (0, [])
    assert len(third.fixed) == third.replayed
    assert set(third.fixed) >= signatures
    assert "fixed" in night_verdict(third)
    with History(tmp_path / "out" / HISTORY) as history:
        assert {record.fixed_run for record in history.failures()} == {third.run}

    fixed_file.unlink()
    fourth, _ = night(tmp_path, "shifted", cases=3)
    # What is fixed is not replayed; it is found anew.
    assert fourth.replayed == 0
    back = {f.signature for f in fourth.failures if f.kind == "back"}
    assert back
    with History(tmp_path / "out" / HISTORY) as history:
        assert all(r.is_open for r in history.failures() if r.signature in back)


def test_night_finds_again_what_a_replay_did_not_show(tmp_path: Path, fixed_file: Path) -> None:
    first, _ = night(tmp_path, "shifted", cases=3)
    fixed_file.touch()

    class Mender(Witness):
        """Right while former failures are replayed, and wrong again after that."""

        def stage(self, text: str) -> None:
            if text == "fuzzing":
                fixed_file.unlink()

    second, _ = night(tmp_path, "shifted", cases=3, watcher=Mender())
    found = {failure.signature for failure in second.failures}
    assert second.replayed
    assert found & {failure.signature for failure in first.failures}
    assert not found & set(second.fixed)
    # It was seen to pass, if only an hour ago.
    assert "known" not in {failure.kind for failure in second.failures}


def test_night_replays_regressions(tmp_path: Path, fixed_file: Path) -> None:
    path = store.write(failure_of("shifted"), tmp_path / "regressions")
    first, _ = night(tmp_path, "shifted", cases=1)
    assert first.replayed == 1
    assert [f.kind for f in first.failures if f.path == path] == ["back"]
    # Of some targets, theirs alone.
    other, _ = night(tmp_path / "other", "right", cases=1, regressions=path.parent)
    assert (other.replayed, other.exit_code) == (0, 0)
    fixed_file.touch()
    third, _ = night(tmp_path / "third", "shifted", cases=1, regressions=path.parent)
    # It was never open in this history, so that nobody has fixed it now.
    assert (third.replayed, third.fixed, third.exit_code) == (1, [], 0)


def test_night_takes_a_regression_that_cannot_be_read_for_an_error(tmp_path: Path) -> None:
    (tmp_path / "regressions").mkdir()
    (tmp_path / "regressions" / "broken.json").write_text("{")
    result, _ = night(tmp_path, "right", cases=8)
    assert result.exit_code == 2
    assert "broken.json: not valid JSON" in result.errors[0]


def test_former_failures_of_another_device_are_left_out(tmp_path: Path) -> None:
    own = failure_of()
    foreign = failure_of(region="everywhere", device="cuda")
    sanitized = failure_of()
    sanitized = replace(
        sanitized,
        signature=replace(
            sanitized.signature, check="no_sanitizer_report", region="memcheck invalid read"
        ),
    )
    for failure in (own, foreign, sanitized):
        store.write(failure, tmp_path / "regressions")
    with History(tmp_path / HISTORY) as history:
        unfinished_folder(tmp_path / "x", 1, 1)
        records = history.failures()
    found, notes = former.find_former(
        records, tmp_path / "regressions", tmp_path, device="cpu", targets=(), scratch=tmp_path
    )
    # A regression must hold wherever its target runs.
    assert {item.failure.signature for item in found if item.failure is not None} == {
        own.signature,
        foreign.signature,
    }
    assert notes == ["1 former failures not replayed: it takes memcheck, and with it a GPU"]


def test_former_failures_get_no_more_than_their_time(tmp_path: Path) -> None:
    paths = [store.write(failure_of(region=r), tmp_path) for r in ("a", "b")]
    formers = [former.Former(path, store.read(path)) for path in paths]
    replays = former.replay_former(
        formers, device="cpu", deadline=0.0, step=lambda text: None, backend=BACKEND
    )
    assert replays.replayed == 0
    assert replays.notes == ["2 former failures not replayed: there was no time"]


# --- what is promised -----------------------------------------------------------------------------


def test_night_that_misses_what_it_promised_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell("right", "float32", "tail", "contiguous", "no such family", "-")
    monkeypatch.setattr("fuzz.night.promised", lambda *_, **how: [cell])
    result, _ = night(tmp_path, "right", cases=8)
    assert result.missed == (str(cell),)
    assert result.exit_code == 2
    text = screen(result)
    assert f"MISSED {cell}" in text
    assert text.splitlines()[-1] == "No verdict: 1 promised cell not hit."
    with History(result.out / HISTORY) as history:
        notes = history.runs()[0].notes
    assert notes == ("0 of 1 promised cell hit", f"promised and not hit: {cell}")


def test_night_says_how_many_promised_cells_it_hit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promise, "EXPECTED", 1)
    result, _ = night(tmp_path, "right", cases=96)
    promises = result.targets[0].promised
    assert promises >= 3
    assert f"{promises} of {promises} promised ones hit" in screen(result)


# --- how it ends ----------------------------------------------------------------------------------


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_night_that_is_told_to_end_keeps_what_it_did(tmp_path: Path) -> None:
    killed = unfinished_folder(tmp_path / "out", 1, 1, executed=7)

    def at(result: CampaignResult) -> None:
        if result.totals.executed >= 5 and not result.interrupted:
            interrupt()

    result, _ = night(tmp_path, "slow", cases=5000, watcher=Witness(on_progress=at))
    assert result.interrupted
    assert 5 <= result.executed < 5000
    assert (result.exit_code, result.lost) == (0, 0)
    words = read_shard(result.out)
    assert words is not None
    assert words.interrupted
    with History(result.out / HISTORY) as history:
        first, second = history.runs()
    assert (second.outcome, second.executed) == ("interrupted", result.executed)
    # What another one had left was added first; its fate is not this one's.
    assert any(f"run {killed}: was killed" in note for note in result.notes)
    assert (first.outcome, first.executed, second.notes) == ("killed", 7, ())
    assert night_verdict(result).startswith("Interrupted. Clean")


def test_night_that_is_told_to_end_among_former_failures_ends_there(
    tmp_path: Path, fixed_file: Path
) -> None:
    for region in ("one", "another"):
        store.write(failure_of("shifted", region=region), tmp_path / "regressions")
    result, witness = night(tmp_path, "shifted", watcher=Witness(on_step=interrupt))
    assert result.interrupted
    assert "fuzzing" not in witness.told
    assert (result.replayed, result.executed, result.exit_code) == (1, 0, 2)


def test_night_whose_runner_dies_is_no_verdict(tmp_path: Path) -> None:
    result, _ = night(tmp_path, "kills_its_engine", cases=2)
    assert result.exit_code == 2
    assert "died" in result.errors[0]
    words = read_shard(result.out)
    assert words is not None
    assert words.exit_code == 2


@pytest.mark.parametrize(
    ("changes", "code", "verdict"),
    [
        ({}, 0, "Clean: no failure in 1,234 cases."),
        ({"failed": 3}, 1, "Failures: 3 of 1,234 cases."),
        ({"executed": 0}, 2, "No verdict: no case was executed."),
        ({"lost": 2, "failed": 3}, 2, "No verdict: the tool could not do its job, see the errors"),
        ({"fixed": ["a", "b"]}, 0, "Clean: no failure in 1,234 cases; 2 fixed."),
        ({"interrupted": True}, 0, "Interrupted. Clean: no failure in 1,234 cases."),
        (
            {"targets": [TargetSum("t", promised=3, missed=("c", "d"))]},
            2,
            "No verdict: 2 promised cells not hit.",
        ),
    ],
)
def test_night_ends_with_its_verdict(changes: dict[str, Any], code: int, verdict: str) -> None:
    result = replace(NightResult("run", 1, executed=1234), **changes)
    assert result.exit_code == code
    assert screen(result).splitlines()[-1].startswith(verdict)


def test_night_prints_failures_by_kind_and_few_of_those_that_are_known(tmp_path: Path) -> None:
    failures = [NightFailure("known", failure_of(region=str(n)), tmp_path, "m") for n in range(14)]
    failures += [
        NightFailure("back", failure_of(region="b"), tmp_path, "again wrong"),
        NightFailure("new", failure_of(region="n"), tmp_path, "wrong"),
    ]
    result = NightResult("run", 1, executed=10, failed=2, failures=failures)
    lines = screen(result).splitlines()
    starts = [line.split()[0] for line in lines if " / " in line]
    assert starts == ["NEW", "BACK", *["known"] * 10]
    assert "and 4 more that are known" in lines
    assert lines[-1] == (
        "Failures: 2 of 10 cases; 1 new failure, 1 back failure, 14 known failures."
    )
    assert any(line == "  again wrong" for line in lines)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="real kernels on a CPU")
def test_night_on_real_kernels(tmp_path: Path) -> None:
    settings = NightSettings(
        cases=16,
        targets=("layer_norm",),
        device="cpu",
        seed=3,
        workers=1,
        out=tmp_path,
        regressions=tmp_path / "none",
    )
    result = run(settings, Witness())
    assert (result.exit_code, result.failures) == (0, [])
    (target,) = result.targets
    assert target.executed == 16
    assert target.cells == target.new_cells > 8
    assert 0 < target.largest["y"] <= 1
