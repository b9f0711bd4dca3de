"""Whether a night was what it looks like: which cells it must have hit, and did not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from fuzz.cells import Cell, all_cells
from fuzz.jobs.effort import UNSTEERED
from fuzz.jobs.plan import draw_limits
from fuzz.jobs.totals import Totals
from fuzz.spec import TargetSpec

EXPECTED = 16
"""Cases that a cell must be expected to have before it is promised: one that is drawn as it should
be is missed once in nine million nights."""

LEAST_SAMPLE = 256
MOST_SAMPLE = 8000
"""Cases drawn to learn how common each cell is: three seconds a target at most."""

SIGMAS = 2.0
"""How far a share is taken to be below what was counted, in standard deviations of the count."""


def promised(
    spec: TargetSpec, totals: Totals, *, device: str, seed: int, sets: Mapping[int, int]
) -> list[Cell]:
    """The cells that a night must have tried, the most common first.

    They follow from the number of cases run, from how common each cell is among drawn cases and
    from the share of those that are not steered. ``sets``: cases by the seed of their frames,
    empty where the device has none. A dtype that this machine skips is not promised.
    """
    rows = {dtype: row for (target, dtype), row in totals.rows.items() if target == spec.name}
    drawn = sum(row.executed + row.skipped.total() for row in rows.values())
    if drawn / UNSTEERED < EXPECTED:
        # Not even a cell that every case is in.
        return []
    runs = {
        dtype: row.executed / (row.executed + row.skipped.total())
        for dtype, row in rows.items()
        if row.executed or row.skipped
    }
    size = max(LEAST_SAMPLE, min(drawn, MOST_SAMPLE))
    counts = _sample(spec, device, seed, sets, size)
    total = counts.total()
    found = []
    for cell, count in counts.most_common():
        share = (count - SIGMAS * math.sqrt(count)) / total
        if share * runs.get(cell.dtype, 1.0) * drawn / UNSTEERED >= EXPECTED:
            found.append(cell)
    return found


def _sample(
    spec: TargetSpec, device: str, seed: int, sets: Mapping[int, int], size: int
) -> Counter[Cell]:
    """Cells of about ``size`` drawn cases, from each set of frames as often as the night did."""
    counts: Counter[Cell] = Counter()
    handed_out = sum(sets.values())
    shares = {number: count / handed_out for number, count in sets.items()} or {seed: 1.0}
    for number, share in shares.items():
        budget, frames = draw_limits(device, number)
        counts.update(all_cells(spec, budget, frames, count=math.ceil(share * size)))
    return counts


def missed(cells: list[Cell], totals: Totals) -> list[str]:
    """The names of those cells that no case was run in."""
    tried = {name for name, sums in totals.cells.items() if sums.executed}
    return [name for name in map(str, cells) if name not in tried]
