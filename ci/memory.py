"""What a night takes of memory: all its processes together, and where a long one would end.

    python ci/memory.py --time 22m --json memory.json
    python ci/memory.py --time 5m --warm-up 60 --target layer_norm

Runs `ln-fuzz night` in a folder of its own and adds up, every few seconds, the PSS of it and of all
processes below it: memory that several of them share, such as torch's libraries and the segments
between them, counts once. A line is fitted to what follows the warm-up, and drawn out to the length
of a whole night. Exits with 1 where that exceeds ``--limit``, with 2 where the night itself could
not do its job, or was too short to say.

Options that are not its own go to the night.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent

LEVELS = ("main", "engines", "kernel processes")
"""By how far below the night a process is."""

LEAST_SAMPLES = 10
"""After the warm-up: a line through fewer says nothing."""

MIB = 2.0**20
HOUR = 3600.0


@dataclass(frozen=True)
class Sample:
    """What all processes take together, in MiB, so many seconds after the start."""

    seconds: float
    levels: tuple[float, ...]
    processes: int

    @property
    def total(self) -> float:
        """The sum over all levels."""
        return sum(self.levels)


@dataclass(frozen=True)
class Line:
    """A line through samples: MiB at the start, and MiB an hour with its standard error."""

    start: float
    slope: float
    error: float

    def at(self, hours: float) -> float:
        """MiB after so many hours."""
        return self.start + self.slope * hours


def sample(process: psutil.Process, seconds: float) -> Sample:
    """The memory of a process and of those below it; those that end meanwhile count nothing."""
    levels = [0.0] * len(LEVELS)
    count = 0
    for level, one in _tree(process, 0):
        try:
            taken = one.memory_full_info().pss / MIB
        except psutil.Error:
            continue
        levels[min(level, len(LEVELS) - 1)] += taken
        count += 1
    return Sample(seconds, tuple(levels), count)


def _tree(process: psutil.Process, level: int) -> Iterator[tuple[int, psutil.Process]]:
    yield level, process
    try:
        below = process.children()
    except psutil.Error:
        return
    for child in below:
        yield from _tree(child, level + 1)


def fit(seconds: Sequence[float], taken: Sequence[float]) -> Line:
    """The line of least squares.

    The error takes samples for independent, which they are not quite: it is rather too small.
    """
    hours, values = np.asarray(seconds) / HOUR, np.asarray(taken)
    centred = hours - hours.mean()
    spread = float((centred**2).sum())
    slope = float((centred * values).sum()) / spread
    start = float(values.mean() - slope * hours.mean())
    rest = values - start - slope * hours
    variance = float((rest**2).sum()) / (len(values) - 2)
    return Line(start, slope, math.sqrt(variance / spread))


def watch(process: subprocess.Popen[bytes], every: float) -> list[Sample]:
    """Samples of a process until it ends."""
    began = time.monotonic()
    watched = psutil.Process(process.pid)
    samples: list[Sample] = []
    while True:
        try:
            process.wait(every)
        except subprocess.TimeoutExpired:
            samples.append(sample(watched, time.monotonic() - began))
            _print(samples[-1])
        else:
            return samples


def summary(samples: list[Sample], options: argparse.Namespace) -> dict[str, Any] | None:
    """The lines of the whole and of its parts, None where there are too few samples."""
    warm = [one for one in samples if one.seconds >= options.warm_up]
    if len(warm) < LEAST_SAMPLES:
        return None
    seconds = [one.seconds for one in warm]
    lines = {"total": fit(seconds, [one.total for one in warm])}
    for level, name in enumerate(LEVELS):
        lines[name] = fit(seconds, [one.levels[level] for one in warm])
    return {
        "measure": "PSS",
        "seconds": seconds[-1],
        "warm_up": options.warm_up,
        "hours": options.hours,
        "limit": options.limit,
        "largest": max(one.total for one in samples),
        "expected": lines["total"].at(options.hours),
        "lines": {name: asdict(line) for name, line in lines.items()},
        "samples": [asdict(one) for one in samples],
    }


def print_summary(found: dict[str, Any]) -> None:
    """The figures as text."""
    print(
        f"{found['seconds']:.0f} s, of which {found['warm_up']:g} s of warm-up; at most "
        f"{found['largest']:.0f} MiB (PSS)"
    )
    for name, line in found["lines"].items():
        print(
            f"{name:17} {line['start']:7.0f} MiB, {line['slope']:+8.1f} +- {line['error']:.1f} "
            "MiB an hour"
        )
    print(
        f"after {found['hours']:g} h: {found['expected']:.0f} MiB expected, limit "
        f"{found['limit']:g} MiB"
    )


def _print(one: Sample) -> None:
    parts = ", ".join(f"{name} {taken:.0f}" for name, taken in zip(LEVELS, one.levels, strict=True))
    print(f"{one.seconds:7.1f} s  {one.total:7.1f} MiB  ({parts}; {one.processes} processes)")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--time", default="22m", help="length of the night")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two samples")
    parser.add_argument("--warm-up", type=float, default=300.0, help="seconds that are left out")
    parser.add_argument("--hours", type=float, default=2.0, help="length of a whole night")
    parser.add_argument("--limit", type=float, default=2048.0, help="MiB")
    parser.add_argument("--json", type=Path, help="write samples and lines for programs")
    options, others = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fuzz", "night", "--time", options.time, *others]
        with subprocess.Popen([*command, "--out", folder], cwd=ROOT) as process:
            samples = watch(process, options.every)
    if process.returncode not in (0, 1):
        print(f"the night ended with exit code {process.returncode}", file=sys.stderr)
        return 2
    found = summary(samples, options)
    if found is None:
        print(f"fewer than {LEAST_SAMPLES} samples after the warm-up", file=sys.stderr)
        return 2
    print_summary(found)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(found["expected"] > options.limit)


if __name__ == "__main__":
    sys.exit(main())
