"""A history adds up what runs report, keeps failures, and loses nothing to a kill."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz import store
from fuzz.case import Case
from fuzz.cells import cell_of
from fuzz.history import HISTORY, History, HistoryError, Recording, RunInfo, new_run_id, schema
from fuzz.jobs.maps import FailureMap
from fuzz.jobs.totals import MAX_FAULTS, CellSum, Row, Totals
from fuzz.process.journal import Journal, Mark
from fuzz.runner import Result
from fuzz.store import Failure
from fuzz.verdict import Finding, Signature, Verdict
from tests.fuzz.fake_backend import case_of

WIDTHS = (1, 7, 20, 33)


def info(**changes: object) -> RunInfo:
    plain = RunInfo(
        new_run_id(), "night", 7, "cuda", "H200", 4, {"torch": "2.13"}, revision="f00", notes=("n",)
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def result(number: int, *, target: str = "right", ratio: float | None = None) -> Result:
    """A judged case of a number's own; every fifth fails, every seventh cannot be run."""
    case = case_of(target, cols=WIDTHS[number % len(WIDTHS)], seed=number)
    if number % 7 == 6:
        return Result(case, Verdict(case.case_id, "skip", reason="not here"))
    ratio = (number % 11) / 8 if ratio is None else ratio
    finding = Finding("values_within_bound", "base", "y", "y is wrong", "everywhere", ratio, (0,))
    fails = number % 5 == 4
    verdict = Verdict(
        case.case_id,
        "fail" if fails else "pass",
        (finding,) if fails else (),
        ratios={"y": ratio},
        seconds={"kernel": 0.5},
    )
    return Result(case, verdict, keys=((f"n_cols {case.n_cols}",),))


def totals_of(numbers: range, **how: str) -> Totals:
    totals = Totals()
    for number in numbers:
        totals.add(result(number, **how))  # type: ignore[arg-type]
    return totals


def failure(
    *, confirmed: int = 3, cols: int = 20, region: str = "everywhere", target: str = "right"
) -> Failure:
    case = case_of(target, cols=cols)
    return Failure(
        Signature(target, "y", "values_within_bound", "single", region),
        case,
        case,
        "0" * 16,
        (Finding("values_within_bound", "base", "y", "y is wrong", region, math.inf),),
        "cpu",
        "cpu",
        {"numpy": "2"},
        "2026-01-01T00:00:00+00:00",
        confirmed,
        3,
    )


PICTURE = FailureMap(2, 3, ((0.5, math.inf, 1.5), (0.0, 0.0, 0.25)), 128, "y of a case")


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / HISTORY) as made:
        yield made


def check_sums(history: History, expected: Totals, run: str | None = None) -> None:
    """The history holds these sums."""
    assert {(r.target, r.dtype): (r.executed, r.failed, r.skipped) for r in history.rows(run)} == {
        key: (row.executed, row.failed, row.skipped.total()) for key, row in expected.rows.items()
    }
    assert history.cells(run) == expected.cells
    assert history.widths(run) == expected.widths
    assert {(s.target, s.dtype, s.output): (s.bins, s.largest) for s in history.spread(run)} == {
        (*key, output): (dict(bins), row.ratios[output])
        for key, row in expected.rows.items()
        for output, bins in row.spread.items()
    }


# --- sums -----------------------------------------------------------------------------------------


def test_history_adds_up_what_runs_report(history: History) -> None:
    one, other = info(), info(kind="fuzz", shard=2, shards=3)
    history.begin(one)
    history.begin(other)
    history.add(one.id, 0, totals_of(range(40)), Mark(0, 100))
    history.add(one.id, 1, totals_of(range(30, 90)), Mark(0, 70))
    history.add(one.id, 0, totals_of(range(90, 140), target="wrong"), Mark(0, 200))
    history.add(other.id, 0, totals_of(range(60)), Mark(0, 100))
    of_one = totals_of(range(40))
    of_one.merge(totals_of(range(30, 90)))
    of_one.merge(totals_of(range(90, 140), target="wrong"))
    check_sums(history, of_one, one.id)
    of_all = totals_of(range(60))
    of_all.merge(of_one)
    check_sums(history, of_all)
    for target in ("right", "wrong"):
        history.found(one.id, failure(target=target))
    assert history.end(one.id) == []
    first, second = history.runs()
    assert (first.id, second.id) == (one.id, other.id)
    assert (first.executed, first.failed) == (of_one.executed, of_one.failed)
    assert (first.skipped, first.faulty) == (of_one.skipped, 0)
    assert first.keys == len(WIDTHS)
    assert first.part_seconds == {"kernel": of_one.executed / 2}
    assert 0 < first.seconds < 60
    assert (first.outcome, second.outcome, second.ended) == ("ended", None, None)
    assert first.ended is not None and first.started <= first.ended
    assert {name: getattr(first, name) for name in vars(one)} == vars(one)
    assert (second.kind, second.shard, second.shards) == ("fuzz", 2, 3)


def test_history_keeps_infinities_and_launches_without_a_block(history: History) -> None:
    run = info()
    history.begin(run)
    case = case_of("right")
    case = replace(case, launch=replace(case.launch, block=None))
    totals = Totals()
    totals.add(Result(case, Verdict(case.case_id, "pass", ratios={"y": math.inf, "mean": 0.0})))
    for _ in range(2):
        history.add(run.id, 0, totals, Mark())
    assert history.widths() == {("right", 20, None): CellSum(2, 0, math.inf)}
    assert history.cells()[str(cell_of(case))] == CellSum(2, 0, math.inf)
    assert {spread.output: spread.largest for spread in history.spread()} == {
        "y": math.inf,
        "mean": 0.0,
    }


def test_history_has_no_widths_of_inputs_that_must_be_refused(history: History) -> None:
    run = info()
    history.begin(run)
    case = replace(case_of("right"), refusal="x_integer")
    totals = Totals()
    totals.add(Result(case, Verdict(case.case_id, "pass")))
    history.add(run.id, 0, totals, Mark())
    assert history.widths() == {}
    assert sum(cell.executed for cell in history.cells().values()) == 1


def test_history_keeps_the_first_faults_of_the_harness_among_the_notes(history: History) -> None:
    run = info()
    history.begin(run)
    case = case_of("right")
    fault = Result(case, Verdict(case.case_id, "skip", reason="internal error"), fault="trace")
    for _ in range(3):
        totals = Totals()
        for _ in range(MAX_FAULTS - 2):
            totals.add(fault)
        history.add(run.id, 0, totals, Mark())
    (record,) = history.runs()
    assert record.faulty == 3 * (MAX_FAULTS - 2)
    assert len(record.notes) == MAX_FAULTS
    assert record.notes[:2] == ("n", f"case {case.case_id}: trace")


def test_history_knows_the_runs_that_were_begun_alone(history: History) -> None:
    with pytest.raises(ValueError, match="run_id='x', must be of a run that was begun"):
        history.add("x", 0, Totals(), Mark())


def test_history_views_have_the_columns_that_a_page_reads(history: History) -> None:
    views = {
        "rows": ["run", "target", "dtype", "executed", "failed", "skipped"],
        "spread": ["run", "target", "dtype", "output", "bin", "cases"],
        "largest": ["run", "target", "dtype", "output", "ratio"],
        "cells": ["run", "cell", "executed", "failed", "worst"],
        "widths": ["run", "target", "n_cols", "block", "executed", "failed", "worst"],
    }
    run = info()
    history.begin(run)
    history.add(run.id, 0, totals_of(range(9)), Mark())
    connection = sqlite3.connect(history.path)
    for view, columns in views.items():
        cursor = connection.execute(f"SELECT * FROM {view}")
        assert [column for column, *_ in cursor.description] == columns
        assert cursor.fetchone()[0] == run.id
    connection.close()


def test_history_takes_a_report_in_milliseconds_and_little_space(tmp_path: Path) -> None:
    """As a million cases leave it: two hundred thousand widths, ten thousand cells, all bins."""
    bins = dict.fromkeys(range(-1046, 300), 1)
    with History(tmp_path / HISTORY) as history:
        run = info()
        history.begin(run)
        for target in range(9):
            totals = Totals()
            for cell in range(1200):
                totals.cells[f"target_{target} | bfloat16 | below one block | {cell}"] = CellSum(1)
            for n_cols in range(25_000):
                totals.widths[f"target_{target}", n_cols, 1024] = CellSum(1, 0, 0.3)
            for dtype in ("float32", "bfloat16", "float16"):
                row = Row(1, 0, ratios={"y": 0.3, "mean": 0.1})
                for output in row.ratios:
                    row.spread[output] = bins.copy()  # type: ignore[assignment]
                totals.rows[f"target_{target}", dtype] = row
            history.add(run.id, 0, totals, Mark())
        report = totals_of(range(200))
        took = []
        for _ in range(20):
            began = time.perf_counter()
            history.add(run.id, 0, report, Mark())
            took.append(time.perf_counter() - began)
    assert sorted(took)[len(took) // 2] < 0.005
    assert (tmp_path / HISTORY).stat().st_size < 50e6


# --- failures -------------------------------------------------------------------------------------


def test_history_tells_when_a_failure_was_seen_and_fixed(history: History) -> None:
    runs = [info() for _ in range(5)]
    for run in runs:
        history.begin(run)
    signature = failure().signature

    def look() -> tuple[object, ...]:
        time.sleep(0.002)
        (seen,) = history.failures()
        return seen.first_run, seen.last_run, seen.times, seen.fixed_run, seen.is_open

    history.found(runs[0].id, failure(), PICTURE)
    assert look() == (runs[0].id, runs[0].id, 1, None, True)
    history.found(runs[0].id, failure())
    assert look() == (runs[0].id, runs[0].id, 1, None, True)
    history.found(runs[1].id, failure())
    assert look() == (runs[0].id, runs[1].id, 2, None, True)
    history.fixed(runs[2].id, signature)
    assert look() == (runs[0].id, runs[1].id, 2, runs[2].id, False)
    history.found(runs[3].id, failure())
    assert look() == (runs[0].id, runs[3].id, 3, None, True)
    history.fixed(runs[4].id, str(signature))
    assert look() == (runs[0].id, runs[3].id, 3, runs[4].id, False)
    (seen,) = history.failures()
    assert seen.first_seen < seen.last_seen < (seen.fixed_seen or "")
    assert (seen.signature, seen.target) == (str(signature), "right")
    assert (seen.failure, seen.map) == (failure(), PICTURE)


def test_history_shows_what_was_confirmed_or_is_the_newest(history: History) -> None:
    run = info()
    history.begin(run)

    def shown() -> int:
        (seen,) = history.failures()
        assert seen.id == seen.failure.id
        assert seen.map == PICTURE
        return seen.failure.case.n_cols

    history.found(run.id, failure(confirmed=0, cols=50), PICTURE)
    history.found(run.id, failure(confirmed=0, cols=40))
    assert shown() == 40
    history.found(run.id, failure(confirmed=2, cols=30))
    assert shown() == 30
    history.found(run.id, failure(confirmed=0, cols=20))
    assert shown() == 30
    history.found(run.id, failure(confirmed=3, cols=10))
    assert shown() == 10


def test_history_tells_of_failing_cases_that_nobody_came_to_shrink(history: History) -> None:
    run = info()
    history.begin(run)
    # Reported and found; and reported again afterwards, which is no news.
    history.add(run.id, 0, totals_of(range(10)), Mark())
    history.found(run.id, failure())
    history.add(run.id, 0, totals_of(range(10)), Mark())
    # Reported, and the runner died before it could say more.
    history.add(run.id, 0, totals_of(range(10), target="wrong"), Mark())
    assert [seen.target for seen in history.failures()] == ["right"]
    (said,) = history.end(run.id)
    seen = {seen.target: seen for seen in history.failures()}
    assert seen.keys() == {"right", "wrong"}
    assert seen["right"].failure == failure()
    (first, *_) = (r for r in map(wrong, range(10)) if r.verdict.status == "fail")
    found = seen["wrong"].failure
    assert (found.case, found.findings) == (first.case, first.verdict.findings)
    assert (found.confirmed, found.confirm_runs, found.device_name) == (0, 0, "H200")
    path = history.path.parent / store.FAILURES / f"{found.id}.json"
    assert store.read(path) == found
    assert said == f"run {run.id}: failure as it was found, not shrunk: {path}"
    assert history.runs()[0].notes[-1] == said


def wrong(number: int) -> Result:
    return result(number, target="wrong")


# --- recovery -------------------------------------------------------------------------------------


def die(history: History) -> None:
    """As if the process ended here: nothing is written any more, and its locks are free."""
    history.close()


def journalled(
    folder: Path, results: list[Result], *, runner: int = 0, reported: int = 0
) -> tuple[Path, Mark]:
    """A journal of these cases, one of them ahead; the mark is behind the first so many."""
    path, mark = folder / f"journal-{runner}.jsonl", Mark()
    with Journal(path) as journal:
        for number, one in enumerate(results):
            journal.begin(one.case)
            if number:
                journal.end(results[number - 1].verdict)
            if number == reported:
                mark = journal.mark
        journal.end(results[-1].verdict)
        # In flight when the process died.
        journal.begin(case_of("right", seed=10**6))
    return path, mark


@pytest.mark.parametrize("size", [0, 4000, 1 << 30])
@pytest.mark.parametrize("reported", [0, 1, 17, 39])
def test_history_recovers_what_the_journals_hold_beyond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: int, size: int
) -> None:
    monkeypatch.setattr("fuzz.process.journal.MAX_BYTES", size)
    monkeypatch.setattr("fuzz.history.recovery.CHUNK", 7)
    run, folder = info(), tmp_path / "runs" / "a"
    results = [result(number) for number in range(40)]
    history = History(tmp_path / HISTORY)
    history.begin(run)
    Recording(history, run.id).started(folder)
    _, mark = journalled(folder, results, reported=reported)
    journalled(folder, results[:5], runner=1)
    # The first report is one of two: the mark moves on with each.
    for part in (range(reported // 2), range(reported // 2, reported)):
        history.add(run.id, 0, totals_of(part), mark)
    die(history)
    expected = totals_of(range(40))
    expected.merge(totals_of(range(5)))
    with History(tmp_path / HISTORY) as history:
        said = history.recover(tmp_path)
        assert said[:2] == [
            f"run {run.id}: was killed",
            f"run {run.id}: {45 - reported} verdicts added that only its journals had",
        ]
        check_sums(history, expected)
        (record,) = history.runs()
        assert (record.outcome, record.executed) == ("killed", expected.executed)
        assert record.skipped == expected.skipped
        assert record.ended is not None
        assert list(record.notes[1:]) == said
        assert [seen.target for seen in history.failures()] == ["right"]
        assert history.recover(tmp_path) == []
        check_sums(history, expected)
    assert not list((tmp_path / "runs").glob("*.lock"))


def test_history_killed_while_it_recovers_recovers_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzz.history.recovery.CHUNK", 7)
    run, folder = info(), tmp_path / "runs" / "a"
    history = History(tmp_path / HISTORY)
    history.begin(run)
    history.set_folder(run.id, folder)
    journalled(folder, [result(number) for number in range(40)])
    die(history)
    add, calls = History.add, []

    def killed(*told: object) -> None:
        calls.append(told)
        if len(calls) == 3:
            raise KeyboardInterrupt
        add(*told)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, History(tmp_path / HISTORY) as history:
        patch.setattr(History, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            history.recover(tmp_path)
        assert sum(row.executed + row.skipped for row in history.rows()) == 14
    with History(tmp_path / HISTORY) as history:
        assert f"run {run.id}: 26 verdicts added that only its journals had" in history.recover(
            tmp_path
        )
        check_sums(history, totals_of(range(40)))


def test_history_that_ends_adds_what_a_dead_runner_had_not_reported(history: History) -> None:
    run, folder = info(), history.path.parent / "runs" / "a"
    history.begin(run)
    history.set_folder(run.id, folder)
    _, mark = journalled(folder, [result(number) for number in range(12)], reported=4)
    history.add(run.id, 0, totals_of(range(4)), mark)
    assert f"run {run.id}: 8 verdicts added that only its journals had" in history.end(run.id)
    check_sums(history, totals_of(range(12)))
    assert history.runs()[0].outcome == "ended"


def test_history_recovers_faults_of_the_harness_as_such(tmp_path: Path) -> None:
    run, folder = info(), tmp_path / "runs" / "a"
    history = History(tmp_path / HISTORY)
    history.begin(run)
    history.set_folder(run.id, folder)
    case = case_of("right")
    reason = "internal error (judge): KeyError: 'y'"
    journalled(folder, [Result(case, Verdict(case.case_id, "skip", reason=reason))])
    die(history)
    with History(tmp_path / HISTORY) as history:
        history.recover(tmp_path)
        (record,) = history.runs()
        assert (record.skipped, record.faulty) == (1, 1)
        assert f"case {case.case_id}: {reason}" in record.notes


def test_history_leaves_runs_alone_that_are_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzz.history.history.LAST_LINES", 0.2)
    run, folder = info(), tmp_path / "runs" / "a"
    history = History(tmp_path / HISTORY)
    history.begin(run)
    history.set_folder(run.id, folder)
    path, _ = journalled(folder, [result(0)])
    with History(tmp_path / HISTORY) as other:
        assert other.recover(tmp_path) == []
        # Its main process is gone, its runner is about to be.
        die(history)
        with Journal(path):
            (said,) = other.recover(tmp_path)
            assert "is left alone, its runner 0 still writes" in said
            assert other.runs()[0].ended is None
        assert len(other.recover(tmp_path)) == 2


def test_history_recovers_a_folder_that_was_moved(tmp_path: Path) -> None:
    run, home = info(), tmp_path / "shard"
    history = History(home / HISTORY)
    history.begin(run)
    history.set_folder(run.id, home / "runs" / "a")
    journalled(home / "runs" / "a", [result(number) for number in range(5)])
    die(history)
    home = home.rename(tmp_path / "moved")
    with History(home / HISTORY) as history:
        assert len(history.recover(home)) == 3
        check_sums(history, totals_of(range(5)))


def test_history_says_what_it_cannot_recover(tmp_path: Path) -> None:
    gone, torn, never = info(), info(), info()
    history = History(tmp_path / HISTORY)
    for run, name in ((gone, "gone"), (torn, "torn"), (never, "")):
        history.begin(run)
        if name:
            history.set_folder(run.id, tmp_path / "runs" / name)
    path, _ = journalled(tmp_path / "runs" / "torn", [result(number) for number in range(3)])
    size = path.stat().st_size
    with path.open("a") as file:
        file.write("what is this\n")
    die(history)
    with History(tmp_path / HISTORY) as history:
        said = history.recover(tmp_path)
        check_sums(history, totals_of(range(3)))
        assert {run.outcome for run in history.runs()} == {"killed"}
    assert f"run {gone.id}: its journals are gone: {tmp_path / 'runs' / 'gone'}" in said
    assert (
        f"run {torn.id}: {path}: byte {size}: no line of a journal; what follows there is lost"
    ) in said
    assert f"run {never.id}: was killed" in said


# --- several histories ----------------------------------------------------------------------------


def shard(folder: Path, number: int, numbers: range, target: str) -> RunInfo:
    """A history of one ended run with a failure, and of one that has not ended."""
    run = info(shard=number, shards=2)
    with History(folder / HISTORY) as history:
        history.begin(run)
        history.add(run.id, 0, totals_of(numbers, target=target), Mark(0, 5))
        history.found(run.id, failure(target=target), PICTURE)
        history.end(run.id)
        history.begin(info(id=f"unfinished {number}"))
        history.add(f"unfinished {number}", 0, totals_of(range(3)), Mark())
    return run


def test_history_merges_whole_runs_once(tmp_path: Path, history: History) -> None:
    own = info()
    history.begin(own)
    history.add(own.id, 0, totals_of(range(20)), Mark())
    history.found(own.id, failure())
    expected = totals_of(range(20))
    for number, target in ((1, "right"), (2, "wrong")):
        folder = tmp_path / str(number)
        run = shard(folder, number, range(10, 30), target)
        merged = history.merge_from(folder / HISTORY)
        assert (merged.new, merged.known) == ((run.id,), ())
        assert merged.unfinished == (f"unfinished {number}",)
        expected.merge(totals_of(range(10, 30), target=target))
        merged = history.merge_from(folder / HISTORY)
        assert (merged.new, merged.known) == ((), (run.id,))
        check_sums(history, expected)
        record = history.runs()[-1]
        assert (record.id, record.shard, record.outcome) == (run.id, number, "ended")
        check_sums(history, totals_of(range(10, 30), target=target), run.id)
    seen = {seen.target: seen for seen in history.failures()}
    assert (seen["right"].times, seen["wrong"].times) == (2, 1)
    assert seen["right"].first_run == own.id
    assert seen["wrong"].map == PICTURE


def test_history_merges_what_was_fixed(tmp_path: Path, history: History) -> None:
    own, other = info(), info()
    history.begin(own)
    history.found(own.id, failure())
    time.sleep(0.002)
    with History(tmp_path / "other" / HISTORY) as another:
        another.begin(other)
        another.fixed(other.id, failure().signature)
        another.end(other.id)
    history.merge_from(tmp_path / "other" / HISTORY)
    (seen,) = history.failures()
    assert seen.fixed_run == other.id


def test_history_is_read_while_it_is_written(tmp_path: Path, history: History) -> None:
    run = info()
    history.begin(run)
    with History(history.path, read_only=True) as reader:
        for count in range(1, 4):
            history.add(run.id, 0, totals_of(range(50)), Mark())
            (record,) = reader.runs()
            assert record.executed == count * totals_of(range(50)).executed
        with reader._database.reading() as connection:
            before = connection.execute("SELECT executed FROM runs").fetchone()
            history.add(run.id, 0, totals_of(range(50)), Mark())
            # At one moment, whatever is written meanwhile.
            assert connection.execute("SELECT executed FROM runs").fetchone() == before
        with pytest.raises(HistoryError, match="readonly"):
            reader.found(run.id, failure())


def test_history_of_two_runs_at_once_waits_for_the_other(tmp_path: Path, history: History) -> None:
    run, other_run = info(), info()
    history.begin(run)
    with History(history.path) as other:
        other.begin(other_run)
        for _ in range(5):
            history.add(run.id, 0, totals_of(range(10)), Mark())
            other.add(other_run.id, 0, totals_of(range(10)), Mark())
        assert sum(row.executed for row in history.rows()) == 10 * totals_of(range(10)).executed


# --- files that will not do -----------------------------------------------------------------------


def test_history_of_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / HISTORY
    History(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for read_only in (False, True):
        with pytest.raises(HistoryError, match=r"history\.sqlite': format=99, this version reads"):
            History(path, read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
def test_history_of_an_older_format_is_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    path, run = tmp_path / HISTORY, info()
    with History(path) as history:
        history.begin(run)
        history.add(run.id, 0, totals_of(range(10)), Mark())
        history.end(run.id)
    newer = (*schema.MIGRATIONS, ("ALTER TABLE runs ADD COLUMN colour TEXT DEFAULT 'red'",))
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    with History(path, read_only=read_only) as history:
        check_sums(history, totals_of(range(10)))
        with history._database.reading() as connection:
            assert connection.execute("SELECT colour FROM runs").fetchone() == ("red",)
            assert connection.execute("PRAGMA user_version").fetchone() == (len(newer),)
    with sqlite3.connect(path) as connection:
        (kept,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    assert kept == len(newer) - read_only


def test_history_refuses_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / HISTORY
    path.write_text("no database " * 1000)
    with pytest.raises(HistoryError, match=r"history\.sqlite': file is not a database"):
        History(path)
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs(title)")
    connection.close()
    with pytest.raises(HistoryError, match="is a database of another program"):
        History(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match=rf"{tmp_path}/file"):
        History(tmp_path / "file" / HISTORY)


def test_history_that_is_cut_off_is_refused(tmp_path: Path, history: History) -> None:
    folder = tmp_path / "cut"
    shard(folder, 1, range(300), "right")
    path = folder / HISTORY
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    before = history.runs()
    with pytest.raises(HistoryError, match=rf"{path}.*malformed"):
        history.merge_from(path)
    assert history.runs() == before


def as_nobody(ask: Callable[[], str]) -> str:
    """What a process says that has no rights: root may write where nobody may."""
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            words = ask()
        except HistoryError as error:
            words = f"HistoryError: {error}"
        os.write(theirs, words.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(theirs)
    words = os.read(ours, 1 << 16).decode()
    os.close(ours)
    return words


def test_history_in_a_folder_that_cannot_be_written_says_so() -> None:
    # Not below the folder of the tests, which is closed to others.
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / HISTORY
        with History(path) as history:
            run = info()
            history.begin(run)
            history.add(run.id, 0, totals_of(range(10)), Mark())
            history.end(run.id)
        for entry in (path, path.parent / "runs", path.parent):
            entry.chmod(0o444 if entry.is_file() else 0o555)

        def write() -> str:
            with History(path):
                return "opened"

        def look() -> str:
            with History(path, read_only=True) as history:
                return str(history.runs()[0].executed)

        said = as_nobody(write)
        assert said.startswith(f"HistoryError: history='{path}': ")
        assert "readonly" in said or "unable to open" in said
        assert as_nobody(look) == str(totals_of(range(10)).executed)
        path.parent.chmod(0o755)
        path.unlink()
        path.parent.chmod(0o555)
        assert as_nobody(write) == f"HistoryError: history='{path}': unable to open database file"
        path.parent.chmod(0o755)


def test_history_on_a_full_disk_says_so_and_keeps_what_it_had(history: History) -> None:
    run = info()
    history.begin(run)
    history.add(run.id, 0, totals_of(range(10)), Mark(0, 5))
    with history._database.reading() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
    big = Totals(widths={("right", n, 1024): CellSum(1) for n in range(50_000)})
    with pytest.raises(HistoryError, match=rf"history='{history.path}': database or disk is full"):
        history.add(run.id, 0, big, Mark(0, 9))
    check_sums(history, totals_of(range(10)))
    with history._database.reading() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
        assert connection.execute("SELECT offset FROM marks").fetchone() == (5,)
    history.add(run.id, 0, big, Mark(0, 9))
    assert len(history.widths()) > 50_000


def test_history_failure_that_cannot_be_read_is_named(history: History) -> None:
    run = info()
    history.begin(run)
    history.found(run.id, failure())
    with history._database.writing() as connection:
        data = json.dumps({"format": 99})
        connection.execute("UPDATE faults SET failure = ?", (data,))
    with pytest.raises(HistoryError, match=f"failure {failure().id} of the history: format=99"):
        history.failures()


def test_case_of_the_tests_is_what_they_take_it_for() -> None:
    case: Case = result(4).case
    assert (case.n_cols, case.launch.block, case.dtype) == (1, 32, "float32")
