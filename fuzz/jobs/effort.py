"""Which of the cases that could be run are: those of the least tried cells.

Rare cells are reached by drawing more cases than are run and keeping the best of every few: an
engine draws ten cases in the time that it takes to run one. Nothing is drawn until it fits, so
that a cell which cannot be reached costs nothing.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fuzz.case import Case
from fuzz.cells import cell_of

UNSTEERED = 2
"""One case of so many is kept as it was drawn. What is common in drawing is then tried whatever the
counts say, which is what a night's promises rest on."""

NEAR_WEIGHT = 4
"""Tries of a cell whose worst error/bound is near the bound count for so much less."""


@dataclass(frozen=True)
class Effort:
    """What a choice goes by: ``candidates`` drawn for each case that is kept, how often each cell
    was ``tried`` (by its name), and the cells whose worst error/bound is ``near`` the bound."""

    candidates: int
    tried: dict[str, int] = field(default_factory=dict)
    near: frozenset[str] = frozenset()

    def drawn_for(self, count: int) -> int:
        """Cases to draw where ``count`` are kept."""
        as_drawn = -(-count // UNSTEERED)
        return as_drawn + (count - as_drawn) * self.candidates


def choose(candidates: Iterable[Case], effort: Effort, count: int) -> Iterator[Case]:
    """At most ``count`` of the candidates, in the order in which they were drawn.

    The first of each :data:`UNSTEERED` as it comes, of the others the best of
    ``effort.candidates``: that of the cell with the fewest tries, the first of equals. What was
    kept counts as tried. The same for the same candidates and effort.
    """
    kept: Counter[str] = Counter()

    def tries(name: str) -> float:
        times = effort.tried.get(name, 0) + kept[name]
        return times / NEAR_WEIGHT if name in effort.near else times

    source = iter(candidates)
    for number in range(count):
        few = 1 if number % UNSTEERED == 0 else effort.candidates
        named = [(str(cell_of(case)), case) for case in itertools.islice(source, few)]
        if not named:
            return
        name, case = min(named, key=lambda item: tries(item[0]))
        kept[name] += 1
        yield case
