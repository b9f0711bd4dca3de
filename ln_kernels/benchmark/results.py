"""What was measured, as data that is written as it comes and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cattrs

from ln_kernels.benchmark.points import Point

FORMAT = 1
"""Of the JSON file."""

Status = Literal["measured", "stored", "refused", "wrong", "failed"]
"""measured here; stored: of a former measurement; refused: a competitor does not take the shape;
wrong: a wrong result, which has no speed; failed: one of this project's kernels raised."""


class ResultsError(Exception):
    """A file of results that cannot be read."""


@dataclass(frozen=True)
class Timing:
    """Median, 20th and 80th percentile in ms, of how many repetitions."""

    ms: float
    low_ms: float
    high_ms: float
    repetitions: int


@dataclass(frozen=True)
class Measured:
    """One implementation on one point."""

    name: str
    ours: bool
    status: Status
    timing: Timing | None = None
    note: str = ""


@dataclass(frozen=True)
class Result:
    """All implementations on one point, and what the operation costs."""

    point: Point
    flops: int
    decomposed_bytes: int
    fused_bytes: int
    sides: tuple[Measured, ...]
    copy: Timing | None = None
    """Of a copy that moves the fused bytes."""

    def of(self, name: str) -> Measured | None:
        """What was measured of an implementation, if it is among them."""
        return next((side for side in self.sides if side.name == name), None)

    def gbps(self, side: Measured) -> float | None:
        """The fused bytes over its time."""
        return None if side.timing is None else self.fused_bytes / side.timing.ms / 1e6

    def best_competitor(self) -> Measured | None:
        """The fastest that is not ours, stored figures included."""
        rivals = [s for s in self.sides if not s.ours and s.timing is not None]
        return min(rivals, key=lambda s: s.timing.ms if s.timing else 0.0, default=None)


@dataclass(frozen=True)
class Launches:
    """What a call costs the host on a tiny shape, by implementation, in ms."""

    point: Point
    ours: tuple[str, ...]
    calls: dict[str, Timing]


@dataclass
class Report:
    """A run of the benchmark."""

    date: str
    card: dict[str, Any]
    versions: dict[str, str]
    copies_gbps: list[float] = field(default_factory=list)
    absent: tuple[str, ...] = ()
    """Competitors that were asked for and are not installed."""
    planned: int = 0
    interrupted: bool = False
    lost: str = ""
    """Who lost the device to an error, and by which."""
    seconds: float = 0.0
    results: list[Result] = field(default_factory=list)
    launches: list[Launches] = field(default_factory=list)
    format: int = FORMAT

    @property
    def copy_gbps(self) -> float:
        """The bandwidth that shares are of: the best copy of the run; 0 where none was made."""
        return max(self.copies_gbps, default=0.0)

    @property
    def faults(self) -> list[tuple[Point, Measured]]:
        """Wrong results and kernels that raised."""
        return [
            (result.point, side)
            for result in self.results
            for side in result.sides
            if side.status in ("wrong", "failed")
        ]


def write(report: Report, path: Path) -> None:
    """Write the file in one step: who is killed leaves what there was."""
    text = json.dumps(cattrs.unstructure(report), indent=1)
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)  # noqa: PTH105


def read(path: Path) -> Report:
    """Read a file back.

    Raises: ResultsError.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT:
            raise ResultsError(f"{path}: format={found!r}, must be {FORMAT}")
        return cattrs.structure(data, Report)
    except (OSError, ValueError, cattrs.BaseValidationError) as error:
        raise ResultsError(f"{path}: {error}") from error


def merged(reports: Sequence[Report]) -> Report:
    """Runs on one kind of card with the same versions as one report, in the order given.

    Raises: ResultsError where they are not alike.
    """
    first = reports[0]
    for other in reports[1:]:
        if (other.card, other.versions) != (first.card, first.versions):
            raise ResultsError("the files to be read are of different cards or versions")
    return Report(
        date=" and ".join(dict.fromkeys(report.date for report in reports)),
        card=first.card,
        versions=first.versions,
        copies_gbps=[copy for report in reports for copy in report.copies_gbps],
        absent=tuple(dict.fromkeys(name for report in reports for name in report.absent)),
        planned=sum(report.planned for report in reports),
        interrupted=any(report.interrupted for report in reports),
        lost="; ".join(report.lost for report in reports if report.lost),
        seconds=sum(report.seconds for report in reports),
        results=[result for report in reports for result in report.results],
        launches=[launches for report in reports for launches in report.launches],
    )
