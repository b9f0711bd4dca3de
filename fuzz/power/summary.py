"""The results in figures: how much each judge finds, and how soon, by class and in total."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fuzz.power.results import Attempt, Measured


@dataclass(frozen=True)
class Figures:
    """How one judge fared with some faults.

    ``faults`` were measured, ``found`` of them with every seed; ``attempts`` and ``hits`` count
    each seed by itself. ``median`` and ``percentile_95`` are of the cases to detection over all
    attempts; None: beyond the cases that there were. ``seconds`` are the median of the hits'.
    ``refused`` counts hits that the strict interpreter made by refusing an access.
    """

    faults: int
    found: int
    attempts: int
    hits: int
    median: int | None
    percentile_95: int | None
    seconds: float | None
    alarms: int
    refused: int

    @property
    def share(self) -> float:
        """The share of attempts that found their fault."""
        return self.hits / self.attempts if self.attempts else 0.0


def figures(measured: Iterable[Measured], judge: str) -> Figures:
    """The figures of one judge."""
    by_fault = [m.of(judge) for m in measured if m.status == "measured"]
    attempts = [attempt for some in by_fault for attempt in some]
    counts = [float(a.cases) if a.found else math.inf for a in attempts]
    seconds = sorted(a.seconds for a in attempts if a.found)
    return Figures(
        faults=len(by_fault),
        found=sum(all(a.found for a in some) for some in by_fault),
        attempts=len(attempts),
        hits=sum(a.found for a in attempts),
        median=percentile(counts, 50),
        percentile_95=percentile(counts, 95),
        seconds=seconds[(len(seconds) - 1) // 2] if seconds else None,
        alarms=sum(a.alarms for a in attempts),
        refused=sum(a.refused for a in attempts),
    )


def percentile(counts: Sequence[float], percent: int) -> int | None:
    """The smallest count that so many percent of all do not exceed; None: infinite, or no count."""
    if not counts:
        return None
    found = sorted(counts)[math.ceil(len(counts) * percent / 100) - 1]
    return int(found) if math.isfinite(found) else None


def by_class(measured: Sequence[Measured]) -> dict[str, list[Measured]]:
    """The faults that were measured, by class, in the order in which the classes come."""
    classes: dict[str, list[Measured]] = {}
    for item in measured:
        if item.status == "measured":
            classes.setdefault(item.kind, []).append(item)
    return classes


def worst(attempts: Sequence[Attempt]) -> float:
    """The most cases that any seed took; infinite where one found nothing."""
    return max((a.cases if a.found else math.inf for a in attempts), default=math.inf)
