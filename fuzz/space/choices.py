"""Random choices from one integer of entropy.

Cases are drawn from explicit tables of weights: how often a class is drawn is a promise that the
tests check. Hypothesis hands in the entropy; its own preference for small and special values
would bend the tables. The generator is Python's ``random.Random.random``, whose sequence is the
same in every version for the same integer; no function of a maths library takes part.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Table(Generic[T]):
    """Values with weights, at least one of them positive.

    Raises: ValueError for an empty table.
    """

    def __init__(self, *entries: tuple[float, T]) -> None:
        if not entries:
            raise ValueError("a table needs at least one entry")
        self.entries = entries
        self.values = tuple(value for _, value in entries)
        self.limits = tuple(itertools.accumulate(weight for weight, _ in entries))

    def where(self, keep: Callable[[T], bool]) -> Table[T]:
        """The entries whose value is kept, with the same weights.

        Raises: ValueError when none is.
        """
        return Table(*(entry for entry in self.entries if keep(entry[1])))


class Chooser:
    """A stream of choices; the same entropy gives the same ones."""

    def __init__(self, entropy: int) -> None:
        self._random = random.Random(entropy).random

    def below(self, limit: int) -> int:
        """An integer in 0 ... limit - 1."""
        return int(self._random() * limit)

    def between(self, low: int, high: int) -> int:
        """An integer in low ... high."""
        return low + int(self._random() * (high - low + 1))

    def octave(self, low: int, high: int) -> int:
        """An integer in low ... high, about as likely in each doubling of low (low >= 1)."""
        # A last octave that is less than half there joins the one before it.
        ratio = high // low
        octaves = max((ratio + ratio // 2).bit_length() - 1, 1)
        index = self.below(octaves)
        start = low << index
        end = high if index == octaves - 1 else 2 * start - 1
        return self.between(start, end)

    def chance(self, probability: float) -> bool:
        """True that often."""
        return self._random() < probability

    def any_of(self, values: Sequence[T]) -> T:
        """One of the values, all equally likely."""
        return values[int(self._random() * len(values))]

    def draw(self, table: Table[T]) -> T:
        """One of the table's values, by weight."""
        limits = table.limits
        return table.values[bisect.bisect_right(limits, self._random() * limits[-1])]

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """The values in random order."""
        result = list(values)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result
