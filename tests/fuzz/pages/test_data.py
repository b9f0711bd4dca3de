"""A history is read as it is: shards as one night, sums of all and of the last night."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.history import History, RunInfo
from fuzz.jobs.totals import Row, Totals
from fuzz.pages.data import read
from fuzz.pages.nights import nights_of
from fuzz.process.journal import Mark
from tests.fuzz.pages.records import run_of


def shard(number: int, of: int, *, hour: int = 22, **changes: str | None) -> object:
    run = replace(run_of(f"{number} of {of} at {hour}", hour=hour), shard=number, shards=of)
    return replace(run, **changes)


def names(*runs: object) -> list[list[str]]:
    return [[run.id for run in night.runs] for night in nights_of(runs)]


def test_nights_join_shards_that_began_together() -> None:
    assert names(shard(2, 2), shard(1, 2, hour=21)) == [["1 of 2 at 21", "2 of 2 at 22"]]


def test_nights_keep_runs_apart_that_are_no_shards() -> None:
    runs = shard(1, 1, outcome="killed"), shard(1, 1, hour=23)
    assert names(*runs) == [["1 of 1 at 22"], ["1 of 1 at 23"]]


def test_nights_keep_shards_of_other_nights_and_kinds_apart() -> None:
    assert len(names(shard(1, 2, hour=2), shard(2, 2, hour=22))) == 2
    assert len(names(shard(1, 2), shard(2, 3))) == 2
    assert len(names(shard(1, 2), shard(2, 2, kind="run"))) == 2
    assert len(names(shard(1, 2), shard(1, 2, hour=23))) == 2


def test_nights_take_a_shard_that_was_run_again_for_one_of_the_night() -> None:
    assert len(names(shard(1, 2, outcome="killed"), shard(1, 2, hour=23))) == 1


def test_nights_know_what_is_missing() -> None:
    (night,) = nights_of([shard(1, 3), shard(3, 3, outcome="killed")])
    assert night.missing == 1
    assert night.outcome == "killed"


@pytest.fixture
def history(tmp_path: Path) -> Path:
    path = tmp_path / "history.sqlite"
    with History(path) as history:
        of_two = [{"shard": number, "shards": 2} for number in (1, 2)]
        for run, ratio, shards in (
            ("first", 0.25, {}),
            ("second", 3.0, of_two[0]),
            ("third", 0.5, of_two[1]),
        ):
            history.begin(RunInfo(run, "night", 1, "cpu", "Triton interpreter", 1, **shards))
            totals = Totals()
            totals.rows[("t", "float32")] = Row(
                executed=10, failed=1, ratios={"y": ratio}, spread={"y": Counter({-3: 4, 5: 6})}
            )
            totals.rows[("t", "float16")] = Row(executed=10, ratios={"y": 9.0})
            history.add(run, 0, totals, Mark())
            history.end(run)
    return path


def test_read_tells_the_last_night_from_all(history: Path) -> None:
    data = read(history)
    assert [run.id for night in data.nights for run in night.runs] == ["first", "second", "third"]
    assert len(data.nights) == 2
    assert {(row.dtype, row.executed) for row in data.rows} == {("float32", 30), ("float16", 30)}
    (all_of,) = (one for one in data.spread if one.dtype == "float32")
    (last,) = (one for one in data.last_spread if one.dtype == "float32")
    assert (all_of.bins, last.bins) == ({-3: 12, 5: 18}, {-3: 8, 5: 12})
    assert last.largest == 3.0


def test_read_takes_the_largest_of_float32_alone(history: Path) -> None:
    assert read(history).largest == {"first": 0.25, "second": 3.0, "third": 0.5}
