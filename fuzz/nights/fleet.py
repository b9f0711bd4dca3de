"""A night on a fleet: its shards handed out, and joined as they come back.

A fleet is whatever runs shards on other machines. All that is asked of it is in :class:`Fleet`;
:mod:`fuzz.nights.ray_fleet` is one. A shard knows nothing of the others, so that losing one costs
that one alone: it is handed out once more.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fuzz.nights.merge import MergeResult, add_shard, find_missing
from fuzz.nights.outcome import Shard
from fuzz.process.interrupts import counting_interrupts

TIMES = 2
"""Times that a shard is handed out. What is lost twice may be the fault of the shard itself."""

TICK = 0.5
"""Seconds between two looks at the fleet and at Ctrl-C."""

STOP_LIMIT = 60.0
"""Seconds in which shards may come back once they are told to end: more than a night takes for
that, and as much again for the way."""


@dataclass(frozen=True)
class Returned:
    """What became of a shard that was handed out. ``lost``: why there is no folder."""

    shard: Shard
    folder: Path | None = None
    lost: str = ""


class Fleet(Protocol):
    """Machines that run shards."""

    def hand_out(self, shard: Shard) -> None:
        """Have a shard run, now or once there is room for it."""

    def wait(self, seconds: float) -> list[Returned]:
        """Those that have come back, or were lost, since the last time; waits for the first."""

    def stop(self) -> None:
        """Have all shards end, and come back with what they have."""


class Teller(Protocol):
    """Who is told what a night is at."""

    def stage(self, text: str) -> None:
        """The night has come to this."""

    def step(self, text: str) -> None:
        """Progress inside a stage: replaces what was told before."""


def run_shards(fleet: Fleet, count: int, into: Path, teller: Teller) -> MergeResult:
    """Run a night in ``count`` shards, and join them in the history in ``into``.

    Folders of shards that are whole are removed, the others are kept to be looked at.
    Raises: UsageError where ``into`` cannot be written.
    """
    return _Night(fleet, count, into, teller).run()


class _Night:
    def __init__(self, fleet: Fleet, count: int, into: Path, teller: Teller) -> None:
        self._fleet = fleet
        self._teller = teller
        self._result = MergeResult(into)
        self._count = count
        self._times: dict[Shard, int] = {}
        self._under_way: set[Shard] = set()
        self._began = time.monotonic()
        self._told_to_stop: float | None = None

    def run(self) -> MergeResult:
        shards = [Shard(index, self._count) for index in range(1, self._count + 1)]
        for shard in shards:
            self._hand_out(shard)
        with counting_interrupts() as interrupts:
            while self._under_way:
                for item in self._fleet.wait(TICK):
                    self._take(item)
                if interrupts.count and self._told_to_stop is None:
                    self._told_to_stop = time.monotonic()
                    self._teller.stage("told to end, waiting for the shards")
                    self._fleet.stop()
                if interrupts.count > 1 or self._is_late():
                    break
                seconds = time.monotonic() - self._began
                self._teller.step(f"{len(self._under_way)} shards under way, {seconds:.0f} s")
        for shard in sorted(self._under_way, key=str):
            self._note(f"shard {shard} was given up: it did not end when it was told to")
        find_missing(self._result, self._count)
        return self._result

    def _hand_out(self, shard: Shard) -> None:
        self._times[shard] = self._times.get(shard, 0) + 1
        self._under_way.add(shard)
        self._fleet.hand_out(shard)

    def _take(self, item: Returned) -> None:
        self._under_way.discard(item.shard)
        if item.folder is not None:
            self._join(item.shard, item.folder)
        elif self._told_to_stop is not None:
            self._note(f"shard {item.shard} did not come back: {item.lost}")
        elif self._times[item.shard] < TIMES:
            self._note(f"shard {item.shard} was lost and is handed out again: {item.lost}")
            self._hand_out(item.shard)
        else:
            self._note(f"shard {item.shard} was lost {TIMES} times: {item.lost}")

    def _join(self, shard: Shard, folder: Path) -> None:
        merged = add_shard(folder, self._result)
        if merged.state == "whole":
            shutil.rmtree(folder)
        self._teller.stage(
            f"shard {shard} is back: {merged.executed:,} cases, {merged.failed:,} failing"
            + (f"; {merged.state}: {merged.why}" if merged.why else "")
        )

    def _is_late(self) -> bool:
        since = self._told_to_stop
        return since is not None and time.monotonic() - since > STOP_LIMIT

    def _note(self, text: str) -> None:
        self._result.notes.append(text)
        self._teller.stage(text)
