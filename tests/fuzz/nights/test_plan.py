"""The plan of a night: targets in turn, effort by what was tried, frames that change with time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fuzz.cells import Cell
from fuzz.jobs.plan import BATCH, Batch, batch_seed
from fuzz.jobs.totals import CellSum
from fuzz.nights.plan import CANDIDATES, KEPT_SETS, PERIOD, NightPlan, frames_seed
from tests.fuzz.fake_backend import spec_of

SPECS = (spec_of("right"), spec_of("slow"))


def plan(device: str = "cpu", seed: int = 7, clock: Callable[[], float] = lambda: 0.0) -> NightPlan:
    return NightPlan(SPECS, device=device, seed=seed, clock=clock)


def batches(night: NightPlan, count: int) -> list[Batch]:
    return [batch for _ in range(count) if (batch := night.next()) is not None]


def cell(target: str, family: str = "normal") -> str:
    return str(Cell(target, "float32", "tail", "contiguous", family, "-"))


def test_plan_takes_targets_in_turn_without_end() -> None:
    night = plan()
    found = batches(night, 5)
    assert [(b.number, b.target, b.count) for b in found] == [
        (n, n % 2, BATCH["cpu"]) for n in range(5)
    ]
    assert found[3].seed == batch_seed(7, "slow", 1)
    assert len({b.seed for b in found}) == 5
    assert night.handed_out == 5 * BATCH["cpu"]
    assert night.left == 0
    assert dict(night.reached) == {"right": 3 * BATCH["cpu"], "slow": 2 * BATCH["cpu"]}


def test_plan_of_some_cases_ends_with_them_and_reaches_every_target() -> None:
    night = NightPlan(SPECS, device="cpu", seed=7, cases=21)
    assert night.left == 21
    assert [(b.target, b.count) for b in batches(night, 9)] == [(0, 11), (1, 10)]
    assert (night.handed_out, night.left) == (21, 0)


def test_plan_hands_out_what_was_tried_of_the_target_alone() -> None:
    night = plan()
    night.learn({cell("right"): CellSum(5, 0, 0.5), cell("slow"): CellSum(7, 0, 0.95)}.items())
    first, second = batches(night, 2)
    assert first.effort is not None
    assert second.effort is not None
    assert first.effort.candidates == CANDIDATES["cpu"]
    assert (first.effort.tried, first.effort.near) == ({cell("right"): 5}, frozenset())
    assert (second.effort.tried, second.effort.near) == ({cell("slow"): 7}, {cell("slow")})


def test_plan_adds_up_what_is_told_and_leaves_what_was_handed_out() -> None:
    night = plan()
    (before,) = batches(night, 1)
    for _ in range(2):
        night.learn([(cell("right"), CellSum(3, 0, 0.1))])
    batches(night, 1)
    (after,) = batches(night, 1)
    assert before.effort is not None
    assert after.effort is not None
    assert before.effort.tried == {}
    assert after.effort.tried == {cell("right"): 6}


@pytest.mark.parametrize(
    ("worst", "near"), [(0.9, False), (0.901, True), (1.0, True), (1.001, False)]
)
def test_plan_holds_cells_for_near_that_are_within_the_bound(worst: float, near: bool) -> None:
    night = plan()
    night.learn([(cell("right"), CellSum(3, 0, worst))])
    (batch,) = batches(night, 1)
    assert batch.effort is not None
    assert (cell("right") in batch.effort.near) is near


def test_plan_does_not_count_what_was_skipped_as_tried() -> None:
    night = plan()
    night.learn([(cell("right"), CellSum(0, 0, 0.0))])
    (batch,) = batches(night, 1)
    assert batch.effort is not None
    assert batch.effort.tried == {}


def test_plan_follows_from_seed_and_counts() -> None:
    def told(seed: int) -> list[Batch]:
        night = plan(seed=seed)
        night.learn([(cell("right"), CellSum(3, 0, 0.95))])
        return batches(night, 4)

    assert told(1) == told(1)
    assert {b.seed for b in told(1)}.isdisjoint(b.seed for b in told(2))


def test_plan_has_no_frames_on_a_cpu() -> None:
    night = plan()
    assert [b.frames for b in batches(night, 3)] == [None] * 3
    assert not night.sets


def test_plan_draws_new_frames_with_time() -> None:
    now = 1000.0
    night = plan("cuda", clock=lambda: now)
    seen = []
    for period in range(5):
        now = 1000.0 + period * PERIOD
        early = batches(night, 2)
        now += PERIOD - 1
        late = batches(night, 2)
        assert {b.frames for b in early} == {b.frames for b in late}
        seen.append(early[0].frames)
    assert seen == [frames_seed(7, period) for period in range(5)]
    assert len(set(seen)) == 5
    # What a night promises is looked up in the frames that it had.
    assert dict(night.sets["slow"]) == dict.fromkeys(seen, 2 * BATCH["cuda"])


def test_frames_are_kept_ones_and_new_ones_in_turn() -> None:
    nights = [[frames_seed(seed, period) for period in range(12)] for seed in range(40)]
    kept = {number for night in nights for number in night[::2]}
    new = [number for night in nights for number in night[1::2]]
    assert len(kept) == KEPT_SETS
    assert len(set(new)) == len(new)
    assert kept.isdisjoint(new)
    # One night does not have the same twice, and another begins elsewhere.
    assert all(len(set(night)) == 12 for night in nights)
    assert nights[0][0] != nights[1][0]
