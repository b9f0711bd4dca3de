"""Which cases a campaign has, whoever runs them.

Batch i is of target i modulo their number, and its seed follows from the campaign's seed, the
target and the batch's number among those of the target: the number of runners plays no part.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from fuzz.case import Case
from fuzz.jobs.effort import Effort, choose
from fuzz.space.budget import GPU_BUDGET, GPU_FRAMES, INTERPRETER_BUDGET, Budget
from fuzz.space.frames import Frames
from fuzz.spec import TargetSpec
from fuzz.strategies import draw_cases

BATCH = {"cpu": 16, "cuda": 128}
"""Cases of a batch: about a second's work, so that no runner waits long for the last one."""


@dataclass(frozen=True)
class Batch:
    """Cases to judge: ``count`` of target ``specs[target]``, drawn from ``seed`` or given.

    ``effort`` chooses among more drawn ones. ``frames`` is the seed of the frames that they are
    variations of, where the device has such; None: the campaign's.
    """

    number: int
    target: int
    seed: int
    count: int
    cases: tuple[Case, ...] | None = None
    effort: Effort | None = None
    frames: int | None = None


class Batches(Protocol):
    """What a campaign hands out."""

    handed_out: int

    @property
    def left(self) -> int:
        """Cases that are planned and not handed out: 0 where time alone sets the limit."""

    def next(self) -> Batch | None:
        """The next batch, None when all cases are handed out."""


class Plan:
    """Which batches there are, in order."""

    def __init__(self, specs: tuple[TargetSpec, ...], *, seed: int, cases: int | None, batch: int):
        self._specs = specs
        self._seed = seed
        self._cases = cases
        if cases is not None:
            # Small campaigns get to every target too.
            batch = max(1, min(batch, math.ceil(cases / len(specs))))
        self._size = batch
        self._number = 0
        self.handed_out = 0

    def next(self) -> Batch | None:
        """The next batch, None when all cases are handed out."""
        count = self._size
        if self._cases is not None:
            count = min(count, self._cases - self.handed_out)
        if count <= 0:
            return None
        number = self._number
        target = number % len(self._specs)
        seed = batch_seed(self._seed, self._specs[target].name, number // len(self._specs))
        self._number += 1
        self.handed_out += count
        return Batch(number, target, seed, count)

    @property
    def left(self) -> int:
        """Cases that are planned and not handed out: 0 where time alone sets the limit."""
        return 0 if self._cases is None else self._cases - self.handed_out


def batch_seed(seed: int, target: str, number: int) -> int:
    """The seed of a target's batch: the same for any number of runners and any other targets."""
    text = f"{seed}/{target}/{number}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:6], "big")


def cases_of(batch: Batch, spec: TargetSpec, *, device: str, seed: int) -> Iterable[Case]:
    """The cases of a batch, drawn as they are asked for, in the campaign of a seed."""
    if batch.cases is not None:
        return batch.cases
    budget, frames = draw_limits(device, seed if batch.frames is None else batch.frames)
    effort = batch.effort
    count = batch.count if effort is None else effort.drawn_for(batch.count)
    drawn = draw_cases(spec, seed=batch.seed, count=count, budget=budget, frames=frames)
    return drawn if effort is None else choose(drawn, effort, batch.count)


def draw_limits(device: str, seed: int) -> tuple[Budget, Frames | None]:
    """What cases are drawn within on a device, in the campaign of a seed."""
    if device == "cpu":
        return INTERPRETER_BUDGET, None
    return GPU_BUDGET, Frames(seed, GPU_FRAMES)
