"""What a night promises: cells that drawing cannot have missed, and is told of where it did."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest

from fuzz.case import Case
from fuzz.cells import Cell, cell_of
from fuzz.jobs.effort import Effort, choose
from fuzz.jobs.plan import draw_limits
from fuzz.jobs.totals import CellSum, Row, Totals
from fuzz.nights.promise import EXPECTED, missed, promised
from fuzz.spec import TargetSpec
from fuzz.strategies import draw_cases
from tests.fuzz.builders import LAYER_NORM
from tests.fuzz.fake_backend import spec_of

SPEC = spec_of("right")
STRIDED = replace(LAYER_NORM, refuses=())


def drawn(
    count: int, device: str = "cpu", frames: int = 0, spec: TargetSpec = SPEC
) -> tuple[Case, ...]:
    budget, framed = draw_limits(device, frames)
    return tuple(draw_cases(spec, seed=11, count=count, budget=budget, frames=framed))


def totals_of(cases: Iterable[Case]) -> Totals:
    """The sums of cases that pass."""
    totals = Totals()
    for case in cases:
        totals.row(case.target, case.dtype).executed += 1
        totals.cells.setdefault(str(cell_of(case)), CellSum()).merge(CellSum(1, 0, 0.5))
    return totals


def promises(totals: Totals) -> list[Cell]:
    return promised(SPEC, totals, device="cpu", seed=3, sets={})


def test_promise_of_a_plain_night_is_kept() -> None:
    totals = totals_of(drawn(4000))
    cells = promises(totals)
    assert len(cells) >= 10
    assert missed(cells, totals) == []


def test_promise_of_a_short_night_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.nights.promise._sample", None)
    assert promises(totals_of(drawn(2 * EXPECTED - 1))) == []


def test_promise_is_kept_where_everything_is_steered_elsewhere() -> None:
    cases = drawn(7500)
    # The worst for the common ones: they have been tried for years, all others never.
    tried = {str(cell): 10**6 for cell in promises(totals_of(cases[:3000]))}
    kept = totals_of(choose(iter(cases), Effort(3, tried), 3000))
    cells = promises(kept)
    assert len(cells) >= 3
    assert missed(cells, kept) == []


def test_promise_grows_with_the_cases_and_begins_with_the_most_common() -> None:
    few, more = (promises(totals_of(drawn(count))) for count in (1500, 4000))
    assert 0 < len(few) < len(more)
    assert promises(totals_of(drawn(40))) == []
    times = Counter(map(cell_of, drawn(4000)))
    common = {cell for cell, _ in times.most_common(3)}
    assert common & set(more[:4])


def test_promise_that_is_not_kept_is_told_by_cell() -> None:
    # A drawing, or a steering, that has lost a class of values.
    totals = totals_of(c for c in drawn(4000) if cell_of(c).family != "far mean")
    gone = missed(promises(totals), totals)
    assert gone
    assert {Cell.parse(name).family for name in gone} == {"far mean"}


def test_promise_counts_skipped_cases_for_nothing() -> None:
    totals = totals_of(drawn(3000))
    cells = promises(totals)
    for name in map(str, cells):
        totals.cells[name].executed = 0
    assert missed(cells, totals) == [str(cell) for cell in cells]


def test_promise_leaves_out_a_dtype_that_is_skipped() -> None:
    totals = Totals()
    totals.row(SPEC.name, "float32").skipped["not on this machine"] = 4000
    assert promises(totals) == []
    totals.rows[SPEC.name, "float32"].executed = 4000
    assert promises(totals)


def test_promise_is_of_the_target_alone() -> None:
    totals = totals_of(drawn(3000))
    before = promises(totals)
    totals.rows["slow", "float32"] = Row(executed=10**6)
    assert promises(totals) == before


def test_promise_on_a_gpu_is_of_the_frames_that_were_drawn() -> None:
    cases = (drawn(2500, "cuda", number, STRIDED) for number in (5, 6))
    totals = totals_of(itertools.chain(*cases))
    cells = promised(STRIDED, totals, device="cuda", seed=3, sets={5: 2500, 6: 2500})
    assert len(cells) >= 10
    assert missed(cells, totals) == []
    # Other frames have other cells: what they promise is not what these hit.
    others = promised(STRIDED, totals, device="cuda", seed=3, sets={8: 5000})
    assert missed(others, totals)
