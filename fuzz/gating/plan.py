"""The cases of a gate: drawn once, written down, the same for the same two states of the sources.

A plan file has one case a line, with the contract that the case is judged under. Its hash is in
the report: two gates with one hash ran the same test.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fuzz.case import Case, canonical_json, from_json
from fuzz.jobs.plan import BATCH, Batch, Plan, draw_limits
from fuzz.spec import TargetSpec
from fuzz.strategies import draw_cases

NOMINAL_RATE = {"cpu": 12.0, "cuda": 150.0}
"""Cases a second, compilation included, that a small machine reaches: 2 cores, or one GPU with 8
cores. The number of cases follows from the time that is given, never from the clock, so that a
gate that is run again runs the same cases."""

FEWEST = 40
"""Cases of a target, however little time is given: fewer find little."""

Contract = Literal["head", "base"]


@dataclass(frozen=True)
class Unit:
    """A target of head and the contract under which it is judged: head's own, or base's."""

    spec: TargetSpec
    contract: Contract


@dataclass(frozen=True)
class GatePlan:
    """A plan that was written. ``batches``: unit and number of cases of each, in file order."""

    path: Path
    digest: str
    units: tuple[Unit, ...]
    batches: tuple[tuple[int, int], ...]

    @property
    def cases(self) -> int:
        """Number of cases."""
        return sum(count for _, count in self.batches)


def size_of(units: int, device: str, seconds: float) -> int:
    """How many cases a gate of this length has."""
    return max(FEWEST * units, round(seconds * NOMINAL_RATE[device]))


def draw_plan(
    units: tuple[Unit, ...],
    *,
    seed: int,
    cases: int,
    device: str,
    path: Path,
    progress: Callable[[int], None],
) -> GatePlan:
    """Draw a plan and write it to a file; ``progress`` is told how many cases it has so far."""
    budget, frames = draw_limits(device, seed)
    plan = Plan(tuple(u.spec for u in units), seed=seed, cases=cases, batch=BATCH[device])
    digest = hashlib.sha256()
    batches: list[tuple[int, int]] = []
    drawn = 0
    with path.open("w", encoding="utf-8") as file:
        while (batch := plan.next()) is not None:
            unit = units[batch.target]
            lines = [
                f'{{"contract":"{unit.contract}","case":{canonical_json(case)}}}\n'
                for case in draw_cases(
                    unit.spec, seed=batch.seed, count=batch.count, budget=budget, frames=frames
                )
            ]
            file.writelines(lines)
            digest.update("".join(lines).encode())
            batches.append((batch.target, len(lines)))
            drawn += len(lines)
            progress(drawn)
    return GatePlan(path, digest.hexdigest()[:16], units, tuple(batches))


class StoredBatches:
    """The batches of a plan, read as they are asked for: a plan may be larger than memory likes.

    Use as a context manager.
    """

    def __init__(self, plan: GatePlan) -> None:
        self._plan = plan
        self._file = plan.path.open(encoding="utf-8")
        self._number = 0
        self.handed_out = 0

    def __enter__(self) -> StoredBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def left(self) -> int:
        """Cases that are not handed out."""
        return self._plan.cases - self.handed_out

    def next(self) -> Batch | None:
        """The next batch, None when all cases are handed out."""
        if self._number == len(self._plan.batches):
            return None
        unit, count = self._plan.batches[self._number]
        cases = tuple(_case_of(next(self._file)) for _ in range(count))
        batch = Batch(self._number, unit, 0, count, cases)
        self._number += 1
        self.handed_out += count
        return batch


def first_cases(plan: GatePlan, unit: int, most: int) -> Iterator[Case]:
    """Up to ``most`` cases of one unit."""
    with plan.path.open(encoding="utf-8") as file:
        for number, count in plan.batches:
            for _ in range(count):
                line = next(file)
                if number == unit and most > 0:
                    most -= 1
                    yield _case_of(line)
            if most == 0:
                return


def _case_of(line: str) -> Case:
    return from_json(json.loads(line)["case"])
