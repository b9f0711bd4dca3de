"""A run of the benchmark: point by point, each verified and then timed, written as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from ln_kernels.benchmark.competitors import forget_compiled
from ln_kernels.benchmark.costs import cost_of
from ln_kernels.benchmark.operations import OPERATIONS, Run, make_inputs
from ln_kernels.benchmark.points import LAUNCH_SHAPE, Point
from ln_kernels.benchmark.results import Launches, Measured, Report, Result, Timing
from ln_kernels.benchmark.sides import DeviceLost, Field, verified
from ln_kernels.benchmark.stored import stored

COPY = "copy"
"""The name under which a copy of the same bytes takes its turn."""


class Timer(Protocol):
    """What times runs; tests have one of their own."""

    def time(self, runs: dict[str, Run]) -> dict[str, Timing]:
        """Each run's time, all in turn."""

    def copy_gbps(self) -> float:
        """The bandwidth of a large copy."""

    def copy_run(self, n_bytes: int) -> Run:
        """A copy that moves this many bytes."""

    def launch_overhead(self, runs: dict[str, Run]) -> dict[str, Timing]:
        """What each call costs the host."""


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. No Exception: what a competitor raises is caught, this is not."""


Progress = Callable[[str], None]
"""Told what comes next."""


class Session:
    """Measures points into a report; ``save`` is called after each."""

    def __init__(
        self,
        report: Report,
        field: Field,
        timer: Timer | None,
        *,
        device: torch.device,
        interpreted: bool = False,
        save: Callable[[], None] = lambda: None,
    ):
        """Without a timer nothing is timed: correctness alone."""
        self._report = report
        self._field = field
        self._timer = timer
        self._device = device
        self._interpreted = interpreted
        self._save = save

    def run(
        self,
        points: Sequence[Point],
        *,
        progress: Progress = lambda _: None,
        done: Callable[[Result], None] = lambda _: None,
    ) -> None:
        """Measure all; when interrupted or where the device is lost, end with what there is."""
        began = time.perf_counter()
        self._report.planned = len(points)
        try:
            with torch.no_grad():
                self._run(points, progress, done)
        except Interrupted:
            self._report.interrupted = True
        except DeviceLost as error:
            self._report.lost = str(error)
        finally:
            self._report.seconds = time.perf_counter() - began
            self._save()

    def _run(
        self, points: Sequence[Point], progress: Progress, done: Callable[[Result], None]
    ) -> None:
        if self._timer is not None:
            progress("bandwidth of a copy")
            self._report.copies_gbps.append(self._timer.copy_gbps())
        for point in points:
            progress(str(point))
            result = self._point(point)
            self._report.results.append(result)
            self._save()
            done(result)
        if self._timer is None:
            return
        for operation, dtype in dict.fromkeys((p.operation, p.dtype) for p in points):
            point = Point("launch", operation, dtype, *LAUNCH_SHAPE)
            progress(f"launch overhead: {operation} {dtype}")
            self._report.launches.append(self._launches(point, self._timer))
            self._save()
        progress("bandwidth of a copy")
        self._report.copies_gbps.append(self._timer.copy_gbps())

    def _point(self, point: Point) -> Result:
        operation = OPERATIONS[point.operation]
        cost = cost_of(operation, point.dtype, point.n_rows, point.n_cols)
        forget_compiled()
        inputs = make_inputs(operation, point.dtype, point.n_rows, point.n_cols, self._device)
        every = self._field.sides(point.operation, inputs)
        right, rest = verified(every, operation, point.dtype, inputs, interpreted=self._interpreted)
        times: dict[str, Timing] = {}
        if self._timer is not None and right:
            runs = {side.name: side.run for side in right}
            times = self._timer.time({**runs, COPY: self._timer.copy_run(cost.fused_bytes)})
        measured = {
            **{s.name: Measured(s.name, s.ours, "measured", times.get(s.name)) for s in right},
            **{side.name: side for side in rest},
        }
        sides = [measured[side.name] for side in every]
        for name in self._field.absent:
            figure = stored(name, point, cost.fused_bytes, self._report.copy_gbps)
            if figure is not None:
                sides.append(figure)
        return Result(
            point, cost.flops, cost.bytes, cost.fused_bytes, tuple(sides), times.get(COPY)
        )

    def _launches(self, point: Point, timer: Timer) -> Launches:
        operation = OPERATIONS[point.operation]
        forget_compiled()
        inputs = make_inputs(operation, point.dtype, point.n_rows, point.n_cols, self._device)
        sides = self._field.sides(point.operation, inputs)
        right, _ = verified(sides, operation, point.dtype, inputs, interpreted=self._interpreted)
        calls = timer.launch_overhead({side.name: side.run for side in right})
        return Launches(point, tuple(s.name for s in right if s.ours), calls)
