"""Shards that never ran: histories, last words, and what a kill or a bad copy leaves of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fuzz.history import HISTORY, History, RunInfo, new_run_id
from fuzz.inputs import digest, make_values
from fuzz.jobs.totals import CellSum, Totals
from fuzz.nights.outcome import NightResult, Shard, TargetSum
from fuzz.nights.shards import end_shard
from fuzz.process.journal import Mark
from fuzz.store import Failure
from fuzz.verdict import Finding, Signature
from tests.fuzz.fake_backend import case_of, spec_of

CELL = "wrong_tail | float32 | below one block | contiguous | normal | -"


def failure_of(target: str = "wrong_tail", region: str = "tail columns", **how: str) -> Failure:
    case = case_of(target)
    usual = Failure(
        Signature(target, "y", "values_within_bound", "single", region),
        case,
        case,
        digest(make_values(case)),
        (
            Finding(
                "values_within_bound", "base", "y", f"y[3, 5] is wrong in {region}", region, 9.0
            ),
        ),
        "cpu",
        "Triton interpreter",
        {},
        "2026-11-20T22:00:00+00:00",
        3,
        3,
        contract=spec_of(target),
    )
    return replace(usual, **how)


def totals_of(executed: int, failed: int = 0) -> Totals:
    totals = Totals()
    row = totals.row("wrong_tail", "float32")
    row.executed, row.failed = executed, failed
    totals.cells[CELL] = CellSum(executed, failed, 0.5)
    return totals


def begin(history: History, shard: Shard) -> str:
    run = RunInfo(
        new_run_id(), "night", 7, "cpu", "machine", 2, shard=shard.index, shards=shard.count
    )
    history.begin(run)
    return run.id


def shard_folder(
    folder: Path, index: int, count: int, *, executed: int = 10, failure: Failure | None = None
) -> str:
    """A whole shard; returns its run's id."""
    shard = Shard(index, count)
    failed = int(failure is not None)
    with History(folder / HISTORY) as history:
        run = begin(history, shard)
        history.add(run, 0, totals_of(executed, failed), Mark())
        if failure is not None:
            history.found(run, failure)
        history.end(run)
    result = NightResult(run, 7, shard, executed=executed, failed=failed, out=folder)
    result.targets.append(TargetSum("wrong_tail", executed, failed))
    end_shard(result, executed=executed, failed=failed, skipped=0)
    return run


def unfinished_folder(folder: Path, index: int, count: int, *, executed: int = 10) -> str:
    """A shard whose process was killed; returns its run's id."""
    with History(folder / HISTORY) as history:
        run = begin(history, Shard(index, count))
        history.add(run, 0, totals_of(executed), Mark())
    return run
