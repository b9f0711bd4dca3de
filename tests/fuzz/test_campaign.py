"""A campaign accounts for every case, whatever happens to its processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fuzz import store
from fuzz.campaign import CampaignResult, run
from fuzz.cells import cell_of
from fuzz.history import HistoryError
from fuzz.jobs.maps import FailureMap
from fuzz.jobs.plan import Plan, batch_seed
from fuzz.jobs.setup import Settings, Setup, UsageError, default_workers
from fuzz.jobs.totals import MAX_FAULTS, REFUSED, CellSum, Row, Totals, bin_of
from fuzz.process.journal import Mark
from fuzz.process.kernel_worker import DeviceInfo
from fuzz.report import conclusion, result_json
from fuzz.runner import Result
from fuzz.store import Failure
from fuzz.verdict import Finding, Verdict
from tests.fuzz.fake_backend import BACKEND, UNFIT_BACKEND, WRONG_FROM, case_of, spec_of
from tests.fuzz.processes import (
    abandoned_segments,
    descendants,
    is_alive,
    own_segments,
    wait_until,
)

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Witness:
    """A listener that remembers."""

    failures: list[Failure] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    setup: Setup | None = None
    looks: int = 0

    def started(self, setup: Setup) -> None:
        self.setup = setup

    def progress(self, result: CampaignResult) -> None:
        self.looks += 1

    def failure(self, failure: Failure, path: Path) -> None:
        self.failures.append(failure)

    def error(self, text: str) -> None:
        self.errors.append(text)


@dataclass
class Keeper:
    """A recorder that remembers, until it cannot any more."""

    folders: list[Path] = field(default_factory=list)
    reports: list[tuple[int, Totals, Mark]] = field(default_factory=list)
    maps: dict[str, FailureMap | None] = field(default_factory=dict)
    breaks_after: int = 1 << 30

    def started(self, folder: Path) -> None:
        assert list(folder.iterdir()) == []
        self.folders.append(folder)

    def reported(self, runner: int, totals: Totals, mark: Mark) -> None:
        if len(self.reports) == self.breaks_after:
            raise HistoryError("history='somewhere': database or disk is full")
        self.reports.append((runner, totals, mark))

    def found(self, failure: Failure, where: FailureMap | None) -> None:
        self.maps[failure.id] = where


def settings_of(tmp_path: Path, *targets: str, **how: Any) -> Settings:
    usual = Settings(
        targets=targets, device="cpu", cases=8, seed=1, workers=1, out=tmp_path, backend=BACKEND
    )
    return replace(usual, **how)


def campaign(tmp_path: Path, *targets: str, **how: Any) -> tuple[CampaignResult, Witness]:
    witness = Witness()
    result = run(settings_of(tmp_path, *targets, **how), witness)
    assert own_segments() == []
    wait_until(lambda: not abandoned_segments())
    assert not [pid for pid in descendants(os.getpid()) if is_alive(pid) and is_ours(pid)]
    return result, witness


def is_ours(pid: int) -> bool:
    # The tracker of shared memory lives as long as this process.
    return b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def journals(tmp_path: Path) -> list[list[dict[str, Any]]]:
    paths = sorted(tmp_path.glob("runs/*/journal-*.jsonl"))
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]


# --- the plan -------------------------------------------------------------------------------------


def test_plan_takes_targets_in_turn_and_counts_what_it_hands_out() -> None:
    specs = (spec_of("right"), spec_of("slow"))
    plan = Plan(specs, seed=7, cases=25, batch=10)
    batches = []
    while (batch := plan.next()) is not None:
        batches.append(batch)
    assert [(b.number, b.target, b.count) for b in batches] == [(0, 0, 10), (1, 1, 10), (2, 0, 5)]
    assert plan.handed_out == 25
    assert plan.left == 0
    assert len({b.seed for b in batches}) == 3
    assert batches[2].seed == batch_seed(7, "right", 1)


def test_plan_of_few_cases_reaches_every_target() -> None:
    specs = tuple(spec_of(name) for name in ("right", "slow", "wrong_tail"))
    plan = Plan(specs, seed=7, cases=4, batch=100)
    counts = []
    while (batch := plan.next()) is not None:
        counts.append((batch.target, batch.count))
    assert counts == [(0, 2), (1, 2)] or {target for target, _ in counts} == {0, 1, 2}
    assert sum(count for _, count in counts) == 4


def test_plan_without_a_number_of_cases_never_ends() -> None:
    plan = Plan((spec_of("right"),), seed=7, cases=None, batch=10)
    assert sum(batch.count for _ in range(50) if (batch := plan.next())) == 500
    assert plan.left == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_batch_seed_is_for_ever(seed: int) -> None:
    assert batch_seed(seed, "layer_norm", 3) == [189974069263198, 67969362522507][seed]


def test_default_workers_fit_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_cores(cores: int, gpus: int) -> int:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
        names = tuple(str(i) for i in range(gpus))
        return default_workers(DeviceInfo("cuda" if gpus else "cpu", "", names))

    assert [with_cores(cores, 0) for cores in (1, 2, 64)] == [1, 2, 8]
    assert [with_cores(cores, 1) for cores in (1, 2, 6, 16)] == [1, 1, 3, 4]
    assert with_cores(64, 4) == 16


# --- what a campaign finds ------------------------------------------------------------------------


def test_campaign_of_right_kernels_is_clean(tmp_path: Path) -> None:
    result, witness = campaign(tmp_path, "right", cases=20)
    assert (result.planned, result.totals.executed, result.totals.failed) == (20, 20, 0)
    assert result.exit_code == 0
    assert not witness.failures
    assert not witness.errors
    assert witness.looks > 0
    row = result.totals.rows["right", "float32"]
    assert 0 < row.ratios["y"] < 1
    assert sum(result.totals.shares().values()) == pytest.approx(1)
    assert result.totals.keys
    (lines,) = journals(tmp_path)
    assert Counter(line["event"] for line in lines) == {"begin": 20, "end": 20}


def test_campaign_runs_the_same_cases_with_any_number_of_workers(tmp_path: Path) -> None:
    seen = []
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        result, _ = campaign(folder, "right", "slow", cases=30, workers=workers)
        assert result.totals.executed == 30
        files = journals(folder)
        assert len(files) == workers
        seen.append(sorted(x["id"] for lines in files for x in lines if x["event"] == "begin"))
    assert seen[0] == seen[1]
    assert len(seen[0]) == 30


def test_campaign_finds_shrinks_confirms_and_stores_a_fault_once(tmp_path: Path) -> None:
    result, witness = campaign(tmp_path, "wrong_tail", cases=40, workers=2)
    assert result.exit_code == 1
    assert result.totals.failed > 2
    signatures = [failure.signature for failure, _ in result.failures]
    assert len(signatures) == len(set(signatures))
    assert [failure for failure, _ in result.failures] == witness.failures
    found = {s.region: f for s, (f, _) in zip(signatures, result.failures, strict=True)}
    assert {s.check for s in signatures} == {"values_within_bound"}
    for failure, path in result.failures:
        assert store.read(path) == failure
        assert path.parent == tmp_path / store.FAILURES
        assert failure.confirmed == failure.confirm_runs == 3
        assert failure.case.n_cols <= failure.original.n_cols
        assert failure.versions["numpy"]
    smallest = min(found.values(), key=lambda f: f.case.n_cols)
    assert smallest.case.n_rows == 1
    assert smallest.case.n_cols <= 2 * WRONG_FROM + 2
    assert "cases fail: wrong_tail (values_within_bound of y)." in conclusion(result)


def test_campaign_says_that_a_fault_is_flaky(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "left"
    left.write_text("1")
    monkeypatch.setenv("LN_FUZZ_TEST_FLAKY", str(left))
    result, _ = campaign(tmp_path, "flaky", cases=4)
    assert result.exit_code == 1
    failures = [failure for failure, _ in result.failures]
    assert failures
    assert {(f.confirmed, f.confirm_runs) for f in failures} == {(0, 3)}
    assert all(f.case == f.original and f.findings for f in failures)


def test_campaign_confirms_in_a_process_of_its_own(tmp_path: Path) -> None:
    # Right in any fresh process, so that it is not confirmed, however often it was seen.
    result, _ = campaign(tmp_path, "ages", cases=8)
    assert result.totals.failed > 0
    failure = result.failures[0][0]
    assert (failure.confirmed, failure.confirm_runs) == (0, 3)


def test_campaign_survives_a_kernel_that_crashes_every_time(tmp_path: Path) -> None:
    result, _ = campaign(tmp_path, "segfault", cases=5)
    assert result.totals.executed == result.totals.failed == 5
    assert result.exit_code == 1
    (failure, _), *others = result.failures
    assert not others
    assert failure.signature.region == "crashed SIGSEGV"
    assert failure.confirmed == 3


# --- what a campaign cannot do --------------------------------------------------------------------


def test_campaign_counts_what_it_skips_and_fails_if_that_is_all(tmp_path: Path) -> None:
    result, _ = campaign(tmp_path, "unsupported", cases=6)
    assert (result.totals.executed, result.totals.skipped) == (0, 6)
    assert result.totals.rows["unsupported", "float32"].skipped == {"not on this moon": 6}
    assert result.exit_code == 2
    assert "no case was executed" in conclusion(result)


def test_campaign_with_a_fault_of_its_own_is_not_clean(tmp_path: Path) -> None:
    result, witness = campaign(tmp_path, "right", "broken_harness", cases=6)
    assert result.totals.executed == 3
    assert result.totals.skipped == 3
    assert result.exit_code == 2
    assert len(witness.errors) == 3
    assert "a fault of the harness itself" in witness.errors[0]


def test_campaign_loses_no_case_in_silence(tmp_path: Path) -> None:
    result, witness = campaign(tmp_path, "kills_its_engine", cases=6)
    assert result.totals.executed == 0
    assert result.lost == 6
    assert result.exit_code == 2
    assert "runner 0 died (exit code -9)" in witness.errors[0]


def test_campaign_goes_on_without_a_runner_that_died(tmp_path: Path) -> None:
    result, witness = campaign(tmp_path, "kills_its_engine", "right", cases=60, workers=2)
    assert result.lost > 0
    assert result.exit_code == 2
    assert all("died" in error for error in witness.errors)
    assert result.planned == 60


def test_campaign_ends_in_time(tmp_path: Path) -> None:
    began = time.monotonic()
    result, _ = campaign(tmp_path, "slow", cases=None, seconds=2.0)
    assert time.monotonic() - began < 6
    totals = result.totals
    assert totals.executed > 0
    assert totals.not_reached > 0
    assert result.planned == totals.executed + totals.not_reached
    assert result.exit_code == 0


def test_campaign_takes_whichever_limit_comes_first(tmp_path: Path) -> None:
    result, _ = campaign(tmp_path / "a", "right", cases=3, seconds=600.0)
    assert result.totals.executed == 3
    result, _ = campaign(tmp_path / "b", "slow", cases=100_000, seconds=2.0)
    assert result.planned == 100_000
    assert result.totals.not_reached > 90_000
    assert result.lost == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"targets": ("nonsense",)}, "target='nonsense', must be one of"),
        ({"device": "cuda"}, "device='cuda'"),
        ({"fixes": {"colour": "red"}}, "fix: .*colour"),
        ({"fixes": {"n_cols": "many"}}, "fix: .*n_cols"),
        ({"backend": UNFIT_BACKEND}, "a_dependency"),
        ({"cases": None}, "one of them must be given"),
    ],
)
def test_campaign_refuses_what_cannot_be_done(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    if changes.get("device") == "cuda":
        pytest.importorskip("torch")
    with pytest.raises(UsageError, match=says):
        run(settings_of(tmp_path, **{"targets": ("right",), **changes}), Witness())


def test_campaign_fixes_a_dimension(tmp_path: Path) -> None:
    campaign(tmp_path, "right", fixes={"n_cols": "17"})
    (lines,) = journals(tmp_path)
    widths = {line["case"]["shape"][-1] for line in lines if line["event"] == "begin"}
    assert widths == {17}


def test_campaign_without_targets_takes_the_default_ones(tmp_path: Path) -> None:
    _, witness = campaign(tmp_path, cases=2)
    assert witness.setup is not None
    assert [spec.name for spec in witness.setup.specs] == ["right", "wrong_tail"]


# --- what a campaign has recorded -----------------------------------------------------------------


def test_campaign_tells_its_recorder_every_report(tmp_path: Path) -> None:
    keeper, listener = Keeper(), Witness()
    how = settings_of(tmp_path, "right", "wrong_tail", cases=60, workers=2)
    result = run(how, listener, record=keeper)
    assert keeper.folders == [result.run_folder]
    told = Totals()
    marks: dict[int, list[Mark]] = {0: [], 1: []}
    for runner, totals, mark in keeper.reports:
        told.merge(totals)
        marks[runner].append(mark)
    assert (told.rows, told.cells) == (result.totals.rows, result.totals.cells)
    assert (told.executed, told.failed) == (60, result.totals.failed)
    # Too many to be kept by those who show a campaign.
    assert not result.totals.widths
    assert sum(width.executed for width in told.widths.values()) == 60
    assert set(told.failing) == {failure.signature for failure in listener.failures}
    for runner, seen in marks.items():
        size = (result.run_folder / f"journal-{runner}.jsonl").stat().st_size
        assert seen == sorted(seen)
        assert seen[-1] == Mark(0, size)
    assert keeper.maps.keys() == {failure.id for failure in listener.failures}
    for failure in listener.failures:
        where = keeper.maps[failure.id]
        assert where is not None
        # Of the case as it was found: the shrunk one has a row of a few columns.
        original = failure.original
        assert (where.rows, where.cols) == (original.n_rows, original.n_cols)
        assert original.case_id in where.about
        per_patch = original.n_cols / len(where.grid[0])
        wrong = [max(column) > 1 for column in zip(*where.grid, strict=True)]
        if failure.signature.region == "tail columns" and per_patch == 1:
            assert wrong == [column >= WRONG_FROM for column in range(original.n_cols)]
        assert any(wrong)


def test_campaign_whose_record_fails_goes_on_and_keeps_its_journals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzz.campaign.drop_before", lambda path, mark: dropped.append(mark))
    dropped: list[Mark] = []
    keeper, listener = Keeper(breaks_after=2), Witness()
    result = run(settings_of(tmp_path, "right", cases=80), listener, record=keeper)
    assert result.totals.executed == 80
    assert listener.errors == result.errors
    (error,) = result.errors
    assert error.startswith("history='somewhere': database or disk is full; the journals in ")
    assert str(result.run_folder) in error
    assert result.exit_code == 2
    assert len(keeper.reports) == 2
    # Nothing is dropped that was not recorded.
    assert dropped == [mark for _, _, mark in keeper.reports]


def test_campaign_without_a_recorder_drops_old_journals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzz.campaign.drop_before", lambda path, mark: dropped.append(path.name))
    dropped: list[str] = []
    campaign(tmp_path, "right", cases=20)
    assert set(dropped) == {"journal-0.jsonl"}


# --- how a campaign is ended ----------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
from fuzz.campaign import run
from fuzz.display import Display
from fuzz.report import make_console, print_result
from fuzz.jobs.setup import Settings
from tests.fuzz.fake_backend import BACKEND
if __name__ == "__main__":
    settings = Settings(
        targets=(sys.argv[2],), device="cpu", seconds=60.0, workers=2, out=Path(sys.argv[1]),
        backend=BACKEND,
    )
    console = make_console()
    with Display(console, settings) as display:
        result = run(settings, display)
    print_result(console, result)
    assert result.lost == 0
    sys.exit(result.exit_code)
"""


def start(tmp_path: Path, target: str) -> subprocess.Popen[str]:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "out"), target],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A terminal sends Ctrl-C to the whole group; so does this test.
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    # Until both runners have judged a case, or are inside one that never ends.
    at_least = 2 if target == "spin" else 3
    while sum(len(lines) >= at_least for lines in journals(tmp_path / "out")) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("target", "code"), [("slow", 0), ("spin", 2)])
def test_campaign_interrupted_ends_with_what_it_has(
    tmp_path: Path, target: str, code: int, number: int
) -> None:
    process = start(tmp_path, target)
    below = descendants(process.pid)
    began = time.monotonic()
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=20)
    assert time.monotonic() - began < 8
    assert process.returncode == code, output + errors
    assert "Interrupted." in output
    assert "LOST" not in output
    assert errors == ""
    # The tracker of shared memory is the last to go.
    wait_until(lambda: not any(is_alive(pid) for pid in below), seconds=2)
    assert abandoned_segments() == []
    lines = [line for lines in journals(tmp_path / "out") for line in lines]
    events = Counter(line["event"] for line in lines)
    assert events["begin"] == events["end"] + events["abandoned"]
    assert events["abandoned"] > 0


def test_campaign_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    process = start(tmp_path, "spin")
    below = descendants(process.pid)
    # Two engines, their two kernel processes, and the tracker of shared memory.
    assert len(below) >= 4
    process.kill()
    process.communicate()
    wait_until(lambda: not any(is_alive(pid) for pid in below))
    wait_until(lambda: not abandoned_segments())
    lines = [line for lines in journals(tmp_path / "out") for line in lines]
    assert lines[0]["event"] == "begin"


# --- sums -----------------------------------------------------------------------------------------


def test_totals_have_a_row_for_invalid_inputs() -> None:
    sums = Totals()
    for refusal in (None, "float64_x"):
        case = replace(case_of("right"), refusal=refusal)
        sums.add(Result(case, Verdict(case.case_id, "pass")))
    assert {dtype: row.executed for (_, dtype), row in sums.rows.items()} == {
        "float32": 1,
        REFUSED: 1,
    }


def test_totals_keep_the_first_faults_only() -> None:
    case = case_of("right")
    result = Result(case, Verdict(case.case_id, "skip", reason="internal error"), fault="trace")
    sums = Totals()
    for _ in range(3):
        part = Totals()
        for _ in range(MAX_FAULTS - 1):
            part.add(result)
        sums.merge(part)
    assert sums.faulty == 3 * (MAX_FAULTS - 1)
    assert len(sums.faults) == MAX_FAULTS


def test_totals_count_by_cell_and_by_width() -> None:
    sums = Totals()
    case = case_of("right", cols=33)
    finding = Finding("values_within_bound", "base", "y", "wrong")
    for verdict in (
        Verdict(case.case_id, "pass", ratios={"y": 0.5, "mean": 0.75}),
        Verdict(case.case_id, "fail", (finding,), ratios={"y": 1.5}),
        Verdict(case.case_id, "fail", (finding,), ratios={"y": 1.25}),
        Verdict(case.case_id, "skip", reason="not here"),
    ):
        part = Totals()
        part.add(Result(case, verdict))
        sums.merge(part)
    assert sums.cells == {str(cell_of(case)): CellSum(3, 2, 1.5)}
    assert sums.widths == {("right", 33, 32): CellSum(3, 2, 1.5)}
    # The first failing case of each fault.
    assert {s.check: r.verdict.ratios["y"] for s, r in sums.failing.items()} == {
        "values_within_bound": 1.5
    }


def test_totals_add_up() -> None:
    one, other = Totals(), Totals()
    one.rows["a", "float32"] = Row(3, 1, Counter(why=2), {"y": 0.5})
    other.rows["a", "float32"] = Row(4, 0, Counter(why=1, because=1), {"y": 0.25, "mean": 0.1})
    other.rows["b", "float16"] = Row(1, 1)
    other.not_reached = 5
    one.merge(other)
    assert (one.executed, one.failed, one.skipped, one.not_reached) == (8, 2, 4, 5)
    assert one.rows["a", "float32"].ratios == {"y": 0.5, "mean": 0.1}
    assert one.rows["a", "float32"].skipped == {"why": 3, "because": 1}


def test_quantiles_are_those_of_all_cases_to_two_percent() -> None:
    case = case_of("right")
    sums = Totals()
    for number in range(1, 2001):
        part = Totals()
        ratios = {"y": number / 2000, "sum": 0.0}
        part.add(Result(case, Verdict(case.case_id, "pass", ratios=ratios)))
        sums.merge(part)
    (row,) = sums.rows.values()
    assert row.quantile("y", 0.5) == pytest.approx(0.5, rel=0.02)
    assert 0.999 <= row.quantile("y", 0.999) <= row.quantile("y", 1.0) == 1.0
    assert row.quantile("sum", 0.999) == 0.0
    part = Totals()
    part.add(Result(case, Verdict(case.case_id, "fail", ratios={"y": float("inf")})))
    sums.merge(part)
    assert row.quantile("y", 0.999) <= 1.02 < row.quantile("y", 1.0) == float("inf")


def test_result_json_is_strict_and_complete(tmp_path: Path) -> None:
    result, _ = campaign(tmp_path, "right", "wrong_tail", cases=8)
    settings = settings_of(tmp_path)
    endless = Row(ratios={"y": float("inf")}, spread={"y": Counter((bin_of(float("inf")),))})
    result.totals.row("right", "float32").merge(endless)
    text = json.dumps(result_json(result, settings), allow_nan=False)
    data = json.loads(text)
    assert data["exit_code"] == 1
    assert data["planned"] == data["executed"] + data["skipped"] + data["not_reached"]
    assert {row["target"] for row in data["rows"]} == {"right", "wrong_tail"}
    assert data["failures"][0]["id"] == result.failures[0][0].id
    assert sum(data["shares"].values()) == pytest.approx(1)
    assert data["specialisation_keys"] > 0
