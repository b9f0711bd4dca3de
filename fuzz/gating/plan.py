"""The cases of a gate: drawn once, written down, the same for the same two states of the sources.

A plan file says in its first line by what contracts cases are judged, and has one case in each of
the others. Its hash is in the report: two gates with one hash ran the same test.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fuzz import contract
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

FORMAT = 1
"""Version of a plan file."""

Owner = Literal["head", "base"]

OWNERS: tuple[Owner, ...] = ("head", "base")
"""Whose contract a case is judged by, in the order in which they are run."""


@dataclass(frozen=True)
class Unit:
    """A target of head and the contract by which it is judged: head's own, or base's."""

    spec: TargetSpec
    owner: Owner


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


def nominal_seconds(cases: int, device: str) -> float:
    """How long a gate of so many cases takes."""
    return cases / NOMINAL_RATE[device]


def draw_plan(
    units: tuple[Unit, ...],
    *,
    seed: int,
    cases: int,
    device: str,
    path: Path,
    progress: Callable[[int], None],
) -> GatePlan:
    """Draw a plan and write it to a file; ``progress`` is told how many cases it has so far.

    Each unit has some: where there are few cases, as many as every other.
    Raises: ValueError for a spec that no case can be drawn for.
    """
    budget, frames = draw_limits(device, seed)
    if cases < BATCH[device] * len(units):
        cases = math.ceil(cases / len(units)) * len(units)
    plan = Plan(tuple(u.spec for u in units), seed=seed, cases=cases, batch=BATCH[device])
    digest = hashlib.sha256()
    batches: list[tuple[int, int]] = []
    drawn = 0
    with path.open("w", encoding="utf-8") as file:

        def write(lines: list[str]) -> None:
            file.writelines(lines)
            digest.update("".join(lines).encode())

        write([_first_line(units)])
        while (batch := plan.next()) is not None:
            unit = units[batch.target]
            found = draw_cases(
                unit.spec, seed=batch.seed, count=batch.count, budget=budget, frames=frames
            )
            begin = f'{{"contract":"{unit.owner}","case":'
            lines = [f"{begin}{canonical_json(case)}}}\n" for case in found]
            write(lines)
            batches.append((batch.target, len(lines)))
            drawn += len(lines)
            progress(drawn)
    return GatePlan(path, digest.hexdigest()[:16], units, tuple(batches))


def _first_line(units: tuple[Unit, ...]) -> str:
    told = [
        {"target": u.spec.name, "contract": u.owner, "digest": contract.digest(u.spec)}
        for u in units
    ]
    return json.dumps({"format": FORMAT, "units": told}, separators=(",", ":")) + "\n"


class StoredBatches:
    """The batches of one contract's owner, read as they are asked for: a plan may be large.

    Use as a context manager. A batch names its target by its place in ``specs``.
    """

    def __init__(self, plan: GatePlan, owner: Owner) -> None:
        places = [number for number, unit in enumerate(plan.units) if unit.owner == owner]
        self.specs = tuple(plan.units[number].spec for number in places)
        self.cases = sum(count for number, count in plan.batches if number in places)
        self.handed_out = 0
        self._places = {number: place for place, number in enumerate(places)}
        self._batches = iter(enumerate(plan.batches))
        self._file = plan.path.open(encoding="utf-8")
        next(self._file)

    def __enter__(self) -> StoredBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def left(self) -> int:
        """Cases that are not handed out."""
        return self.cases - self.handed_out

    def next(self) -> Batch | None:
        """The next batch, None when all cases are handed out."""
        for number, (unit, count) in self._batches:
            lines = list(itertools.islice(self._file, count))
            if unit in self._places:
                self.handed_out += count
                cases = tuple(map(_case_of, lines))
                return Batch(number, self._places[unit], 0, count, cases)
        return None


def first_cases(plan: GatePlan, unit: int, most: int) -> Iterator[Case]:
    """Up to ``most`` cases of one unit."""
    with plan.path.open(encoding="utf-8") as file:
        next(file)
        for number, count in plan.batches:
            for line in itertools.islice(file, count):
                if number == unit and most > 0:
                    most -= 1
                    yield _case_of(line)
            if most == 0:
                return


def _case_of(line: str) -> Case:
    return from_json(json.loads(line)["case"])
