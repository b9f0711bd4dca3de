"""Which batches a night has: the targets in turn, each batch steered to the least tried cells."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Protocol

from fuzz.cells import Cell
from fuzz.jobs.effort import Effort
from fuzz.jobs.plan import BATCH, Batch, batch_seed
from fuzz.spec import TargetSpec

CANDIDATES = {"cpu": 8, "cuda": 3}
"""Cases drawn for each steered one. The interpreter takes a hundred times as long for a case as
drawing does; on a GPU drawing is what keeps an engine busy."""

NEAR = 0.9
"""Error/bound above which a cell counts as near the bound."""

PERIOD = 600.0
"""Seconds with the same frames on a GPU: six sets of 48 an hour, each about 200 kernels a target
and 0.15 s a kernel. With the built-in targets that is 8,000 compilations an hour at most, 20
minutes of one runner's time, and in disk space about a gigabyte of Triton's cache."""

KEPT_SETS = 16
"""Every other set of frames is one of these, the same ones every night: their kernels are in
Triton's cache after the first time, so that a night begins with cases and half of it compiles
nothing. The sets between them are new."""


class Tried(Protocol):
    """What is known of a cell: the sums of a report and those of a history have this."""

    @property
    def executed(self) -> int:
        """Cases that were run."""

    @property
    def worst(self) -> float:
        """The largest error/bound."""


class NightPlan:
    """Batches without end, or up to a number of cases; where time sets the limit, runners end."""

    def __init__(
        self,
        specs: tuple[TargetSpec, ...],
        *,
        device: str,
        seed: int,
        cases: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._specs = specs
        self._device = device
        self._seed = seed
        self._cases = cases
        self._size = BATCH[device]
        if cases is not None:
            # Small nights get to every target too.
            self._size = max(1, min(self._size, -(-cases // len(specs))))
        self._clock = clock
        self._began: float | None = None
        self._numbers = itertools.count()
        self._tried: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._near: defaultdict[str, set[str]] = defaultdict(set)
        self.handed_out = 0
        self.reached: Counter[str] = Counter()
        """Of each target, the cases handed out."""
        self.sets: defaultdict[str, Counter[int]] = defaultdict(Counter)
        """Of each target, the cases handed out by the seed of their frames; on a GPU alone."""

    def learn(self, cells: Iterable[tuple[str, Tried]]) -> None:
        """Count what was tried, of former runs or of this one; each case must be told once."""
        for name, sums in cells:
            if not sums.executed:
                continue
            target = Cell.parse(name).target
            tried = self._tried[target]
            tried[name] = tried.get(name, 0) + sums.executed
            if NEAR < sums.worst <= 1.0:
                self._near[target].add(name)

    @property
    def left(self) -> int:
        """Cases that are planned and not handed out: 0 where time alone sets the limit."""
        return 0 if self._cases is None else self._cases - self.handed_out

    def next(self) -> Batch | None:
        """The next batch, None when all cases are handed out."""
        count = self._size if self._cases is None else min(self._size, self.left)
        if count <= 0:
            return None
        number = next(self._numbers)
        target = number % len(self._specs)
        name = self._specs[target].name
        frames = self._frames()
        self.handed_out += count
        self.reached[name] += count
        if frames is not None:
            self.sets[name][frames] += count
        return Batch(
            number,
            target,
            batch_seed(self._seed, name, number // len(self._specs)),
            count,
            # Copies: the plan goes on learning.
            effort=Effort(
                CANDIDATES[self._device], dict(self._tried[name]), frozenset(self._near[name])
            ),
            frames=frames,
        )

    def _frames(self) -> int | None:
        if self._device == "cpu":
            return None
        now = self._clock()
        # The first batch begins the first period: what came before it takes no time off it.
        self._began = now if self._began is None else self._began
        return frames_seed(self._seed, int((now - self._began) // PERIOD))


def frames_seed(seed: int, period: int) -> int:
    """The seed of the frames of a period: kept ones and new ones in turn."""
    if period % 2 == 0:
        text = f"kept frames/{(seed + period // 2) % KEPT_SETS}"
    else:
        text = f"new frames/{seed}/{period}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
