"""Times on the device: events, a cold L2 cache, and all implementations in turn.

Between two repetitions a buffer larger than the L2 cache is written, as ``triton.testing.do_bench``
does. Unlike there the implementations take turns, so that clocks and temperature are the same for
all, and the device is given work before each round, so that the host, which queues the round
meanwhile, is never waited for: what the host costs is measured by itself.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ln_kernels.benchmark.operations import Run
from ln_kernels.benchmark.results import Timing

FLUSH_BYTES = 256 * 2**20
"""Several times the L2 cache of any GPU so far."""

COPY_BYTES = 2**30
"""Of the buffer whose copy gives the bandwidth: large against the L2 cache and a launch."""

MIN_ROUNDS, MAX_ROUNDS = 11, 200
"""Of the implementations in turn; fewer give no percentile, more no better median."""

MAX_HEAD_START = 256
"""Flushes before a round, at most: some 20 ms."""

LAUNCH_CALLS, LAUNCH_BLOCKS = 200, 11
"""Calls without synchronisation, and how often: CUDA queues about 1000 launches."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed, by linear interpolation."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def timing(values: Sequence[float]) -> Timing:
    """Median and spread."""
    return Timing(
        percentile(values, 0.5), percentile(values, 0.2), percentile(values, 0.8), len(values)
    )


class DeviceTimer:
    """Times runs on the current CUDA device."""

    def __init__(self, budget_ms: float):
        """``budget_ms`` is for the measuring of one implementation on one shape."""
        self._budget_ms = budget_ms
        self._flush = torch.empty(FLUSH_BYTES // 4, dtype=torch.int32, device="cuda")
        self._flush_ms = min(self._between(self._flush.zero_) for _ in range(5))

    def copy_run(self, n_bytes: int) -> Run:
        """A copy from device to device that moves this many bytes, half of them read."""
        source = torch.zeros(max(n_bytes // 2, 1), dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    def launch_overhead(self, runs: Mapping[str, Run]) -> dict[str, Timing]:
        """What a call costs the host in ms."""
        return launch_overhead(runs, torch.cuda.synchronize)

    def _between(self, run: Run) -> float:
        start, end = _events()
        start.record()
        run()
        end.record()
        end.synchronize()
        elapsed: float = start.elapsed_time(end)
        return elapsed

    def time(self, runs: Mapping[str, Run]) -> dict[str, Timing]:
        """Each run's time in ms, with a cold cache, all in turn."""
        names = list(runs)
        for run in runs.values():
            run()
        torch.cuda.synchronize()
        host_ms, device_ms = self._estimate(runs)
        # All of a round is queued while the device is still busy with these.
        head_start = min(math.ceil(host_ms / self._flush_ms), MAX_HEAD_START)
        round_ms = max(device_ms, host_ms) + head_start * self._flush_ms
        rounds = int(self._budget_ms * len(names) / round_ms)
        rounds = min(max(rounds, MIN_ROUNDS), MAX_ROUNDS)

        events: dict[str, list[tuple[Any, Any]]] = {n: [] for n in names}
        with _no_collection():
            for number in range(rounds):
                for _ in range(head_start):
                    self._flush.zero_()
                # Another one is first each time: none always follows the same.
                turn = number % len(names)
                for name in names[turn:] + names[:turn]:
                    start, end = _events()
                    self._flush.zero_()
                    start.record()
                    runs[name]()
                    end.record()
                    events[name].append((start, end))
            torch.cuda.synchronize()
        return {
            name: timing([start.elapsed_time(end) for start, end in pairs])
            for name, pairs in events.items()
        }

    def _estimate(self, runs: Mapping[str, Run]) -> tuple[float, float]:
        """(host, device) time in ms of one round, the flushes counted."""

        def once() -> None:
            for run in runs.values():
                self._flush.zero_()
                run()

        host: list[float] = []
        device: list[float] = []
        for _ in range(3):
            start, end = _events()
            began = time.perf_counter()
            start.record()
            once()
            end.record()
            host.append((time.perf_counter() - began) * 1e3)
            torch.cuda.synchronize()
            device.append(start.elapsed_time(end))
        return percentile(host, 0.5), percentile(device, 0.5)

    def copy_gbps(self) -> float:
        """GB/s of a copy from device to device, read and written bytes counted."""
        free, _ = torch.cuda.mem_get_info()
        size = min(COPY_BYTES, free // 4)
        ms = self.time({"copy": self.copy_run(2 * size)})["copy"].ms
        return 2 * size / ms / 1e6


def _events() -> tuple[Any, Any]:
    event: Any = torch.cuda.Event
    return event(enable_timing=True), event(enable_timing=True)


def launch_overhead(runs: Mapping[str, Run], synchronize: Callable[[], None]) -> dict[str, Timing]:
    """What a call costs the host in ms: many in a row that nobody waits for, all in turn."""
    values: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for run in runs.values():
        run()
    with _no_collection():
        for block in range(LAUNCH_BLOCKS):
            turn = block % len(names)
            for name in names[turn:] + names[:turn]:
                run = runs[name]
                synchronize()
                began = time.perf_counter()
                for _ in range(LAUNCH_CALLS):
                    run()
                values[name].append((time.perf_counter() - began) * 1e3 / LAUNCH_CALLS)
        synchronize()
    return {name: timing(parts) for name, parts in values.items()}


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of what is timed."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
