"""Reports of the benchmark with invented figures, and a timer that invents them."""

from collections.abc import Mapping

from ln_kernels.benchmark.costs import cost_of
from ln_kernels.benchmark.operations import OPERATIONS, Run
from ln_kernels.benchmark.points import Point
from ln_kernels.benchmark.results import Measured, Report, Result, Timing

VERSIONS = {"python": "3", "torch": "2", "triton": "3"}


def timing(ms: float) -> Timing:
    return Timing(ms, ms * 0.99, ms * 1.01, 20)


def result(
    n_rows: int, n_cols: int, times: Mapping[str, float], *, dtype: str = "bfloat16"
) -> Result:
    """A plain layer norm; of the names in `times` layer_norm is ours."""
    point = Point("chosen", "layer_norm", dtype, n_rows, n_cols)
    cost = cost_of(OPERATIONS["layer_norm"], dtype, n_rows, n_cols)
    sides = tuple(
        Measured(name, name == "layer_norm", "measured", timing(ms)) for name, ms in times.items()
    )
    return Result(point, cost.flops, cost.bytes, cost.fused_bytes, sides, timing(1.0))


def report(*results: Result, copy_gbps: float = 4000.0) -> Report:
    return Report(
        date="2026-11-30 07:00 UTC",
        card={"name": "a card", "fp32_gflops": 60000},
        versions=VERSIONS,
        copies_gbps=[copy_gbps],
        planned=len(results),
        results=list(results),
    )


class InventedTimer:
    """Runs everything once; each implementation is slower than the one before."""

    def __init__(self) -> None:
        self.timed: list[list[str]] = []

    def time(self, runs: Mapping[str, Run]) -> dict[str, Timing]:
        self.timed.append(list(runs))
        for run in runs.values():
            run()
        return {name: timing(1.0 + number) for number, name in enumerate(runs)}

    def copy_gbps(self) -> float:
        return 1000.0

    def copy_run(self, n_bytes: int) -> Run:
        return lambda: n_bytes

    def launch_overhead(self, runs: Mapping[str, Run]) -> dict[str, Timing]:
        return {name: timing(0.005) for name in runs}
