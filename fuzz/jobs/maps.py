"""Where the wrong elements of a failing case sit: a coarse picture of error/bound.

It is made of the case as the campaign found it, and of what that very run returned. The shrunk
case is too small to show anything, and a fault that comes and goes may not come again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fuzz.case import Case
from fuzz.judging.evidence import Evidence, Returned, owed_rows
from fuzz.relations import HOW, expand
from fuzz.spec import TargetSpec
from fuzz.verdict import Bits, Finding, Observation
from oracle.formats import F64

MAX_ROWS = 32
MAX_COLS = 96
"""Patches at most: as many as a phone can show, and no more than 20 kB as text."""

DIGITS = 3
"""Of an error/bound: enough for a colour and for a number beside it."""


@dataclass(frozen=True)
class FailureMap:
    """The largest error/bound of each patch of an output's ``rows`` x ``cols`` elements.

    Infinite where bits are owed and others came, or nothing was written; NaN where nothing was
    owed. ``block`` is that of the launch; ``about`` says in words which output of what it shows.
    """

    rows: int
    cols: int
    grid: tuple[tuple[float, ...], ...]
    block: int | None
    about: str


@dataclass(frozen=True)
class Witnessed:
    """What the runs of a case did."""

    spec: TargetSpec
    case: Case
    values: dict[str, Bits]
    observations: tuple[Observation, ...]

    def evidence(self, *, interpreted: bool) -> Evidence:
        """The evidence that the case was judged by, made once more."""
        by_name = {run.name: run for run in expand(self.case)}
        runs = tuple(by_name[seen.run] for seen in self.observations)
        return Evidence(self.spec, self.case, runs, self.values, self.observations, interpreted)


class Latest:
    """A witness that remembers the case that was judged last."""

    def __init__(self) -> None:
        self._seen: Witnessed | None = None

    def __call__(
        self,
        spec: TargetSpec,
        case: Case,
        values: dict[str, Bits],
        observations: tuple[Observation, ...],
    ) -> None:
        """See a case."""
        self._seen = Witnessed(spec, case, values, observations)

    def of(self, case: Case) -> Witnessed | None:
        """What the runs of this case did, if it was the last one that was judged."""
        return self._seen if self._seen is not None and self._seen.case is case else None


def map_of(evidence: Evidence, finding: Finding) -> FailureMap | None:
    """The map of the output that a finding is about, None where it is not about elements."""
    returned = evidence.outputs.get(finding.run, {}).get(finding.output)
    if returned is None:
        return None
    with np.errstate(all="ignore"):
        ratios = _ratios(evidence, returned, finding)
    if ratios is None or ratios.size == 0:
        return None
    rows, cols = ratios.shape
    how = f" {HOW[finding.run]}" if finding.run in HOW else ""
    about = f"{finding.output} of case {evidence.case.case_id}{how}"
    return FailureMap(rows, cols, _pooled(ratios), evidence.case.launch.block, about)


def to_data(picture: FailureMap) -> dict[str, Any]:
    """A map as plain JSON values: infinity is "inf", NaN is null."""
    grid = [[_plain(ratio) for ratio in line] for line in picture.grid]
    return {
        "rows": picture.rows,
        "cols": picture.cols,
        "grid": grid,
        "block": picture.block,
        "about": picture.about,
    }


def from_data(data: dict[str, Any]) -> FailureMap:
    """The map of :func:`to_data`."""
    grid = tuple(tuple(math.nan if v is None else float(v) for v in line) for line in data["grid"])
    return replace(FailureMap(**data), grid=grid)


def _ratios(evidence: Evidence, returned: Returned, finding: Finding) -> F64 | None:
    """Error/bound of all elements of one output of one run, NaN where nothing is owed."""
    key = (finding.run, finding.output)
    ratios: F64 = np.full(returned.bits.shape, np.nan)
    rows, _ = owed_rows(returned.run)
    ratios[rows] = 0.0
    for judged in evidence.judged:
        if (judged.returned.run.name, judged.returned.output.name) == key:
            ratios[rows] = judged.comparison.ratio
    exact = {"outputs_fully_written": evidence.unwritten}.get(finding.check, evidence.unequal)
    if (mask := exact.get(key)) is not None:
        ratios[rows] = np.where(mask, np.inf, ratios[rows])
    if finding.check == "statistics_consistent":
        for item in evidence.unexplained:
            if item.judged.returned is returned:
                size = returned.bits.shape[1] // item.groups.shape[1]
                groups = np.repeat(item.groups, size, axis=1)
                ratios[rows] = np.where(groups, finding.ratio, ratios[rows])
    shown = np.nanmax(ratios, initial=0.0)
    return ratios if shown > 1.0 else None


def _pooled(ratios: F64) -> tuple[tuple[float, ...], ...]:
    for axis, most in enumerate((MAX_ROWS, MAX_COLS)):
        size = ratios.shape[axis]
        starts = np.arange(min(size, most)) * size // min(size, most)
        # As maximum, but a number counts more than a NaN.
        ratios = np.fmax.reduceat(ratios, starts, axis=axis)
    return tuple(tuple(_rounded(float(ratio)) for ratio in line) for line in ratios)


def _rounded(ratio: float) -> float:
    short = float(f"{ratio:.{DIGITS}g}")
    # What exceeds its bound must not look as if it did not.
    return 1.0 + 10.0 ** (1 - DIGITS) if short <= 1.0 < ratio else short


def _plain(ratio: float) -> float | str | None:
    if math.isnan(ratio):
        return None
    return ratio if math.isfinite(ratio) else "inf"
