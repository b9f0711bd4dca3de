"""The figures that the kernels are to reach, and whether they do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ln_kernels.benchmark.results import Measured, Report, Result

BIG_BYTES = 256 * 10**6
"""Tensors beyond this are in no cache: the memory's bandwidth decides."""

SHARES = ((32768, 0.92), (65536, 0.85), (262144, 0.60))
"""Least share of the bandwidth of a copy, by the width up to which it is asked for."""

LEAST_RATIO = 0.97
"""Least speed in units of the best competitor's on each shape; their geometric mean is >= 1."""


@dataclass(frozen=True)
class Verdict:
    """One target: how many figures were judged by it, the decisive one, and what missed it."""

    name: str
    judged: int
    figure: str
    misses: tuple[str, ...]

    @property
    def met(self) -> bool:
        """Whether all that was judged meets the target."""
        return not self.misses


def share_target(result: Result) -> float | None:
    """The share of a copy's bandwidth that a point is to reach, if any is asked for."""
    if result.fused_bytes <= BIG_BYTES:
        return None
    return next((share for width, share in SHARES if result.point.n_cols <= width), None)


def ratio_to_best(result: Result, side: Measured) -> float | None:
    """The best competitor's time over ours: above 1, ours is faster."""
    best = result.best_competitor()
    if best is None or best.timing is None or side.timing is None:
        return None
    return best.timing.ms / side.timing.ms


def verdicts(report: Report) -> list[Verdict]:
    """Every target for which something was measured."""
    ours = [
        (result, side)
        for result in report.results
        for side in result.sides
        if side.ours and side.timing is not None
    ]
    found: list[Verdict] = []
    width_before = 0
    for width, least in SHARES:
        within = [
            (r, s)
            for r, s in ours
            if share_target(r) is not None and width_before < r.point.n_cols <= width
        ]
        name = f"share of copy >= {least:g}, {width_before} < N <= {width}, > 256 MB"
        found += _least(name, within, lambda r, s: (r.gbps(s) or 0.0) / report.copy_gbps, least)
        width_before = width
    rated = [(r, s) for r, s in ours if ratio_to_best(r, s) is not None]
    name = f"speed in units of the best competitor's >= {LEAST_RATIO:g} on each shape"
    found += _least(name, rated, lambda r, s: ratio_to_best(r, s) or 0.0, LEAST_RATIO)
    found += _means(rated)
    found += _launches(report)
    return found


def _least(
    name: str,
    items: list[tuple[Result, Measured]],
    figure: Callable[[Result, Measured], float],
    least: float,
) -> list[Verdict]:
    if not items:
        return []
    figures = [(figure(result, side), result, side) for result, side in items]
    misses = tuple(
        f"{side.name} {result.point.dtype} {result.point.shape}: {value:.3f}{_rival(result)}"
        for value, result, side in sorted(figures, key=lambda item: item[0])
        if value < least
    )
    return [Verdict(name, len(figures), f"least {min(f[0] for f in figures):.3f}", misses)]


def _rival(result: Result) -> str:
    best = result.best_competitor()
    return "" if best is None else f" (best: {best.name}{'*' if best.status == 'stored' else ''})"


def _means(rated: list[tuple[Result, Measured]]) -> list[Verdict]:
    """The geometric mean of each kernel in each dtype."""
    if not rated:
        return []
    ratios: dict[str, list[float]] = {}
    for result, side in rated:
        ratio = ratio_to_best(result, side)
        assert ratio is not None, "only those that have one are rated"
        ratios.setdefault(f"{side.name} {result.point.dtype}", []).append(ratio)
    means = {
        name: math.exp(sum(math.log(r) for r in values) / len(values))
        for name, values in ratios.items()
    }
    misses = tuple(f"{name}: {mean:.3f}" for name, mean in means.items() if mean < 1.0)
    name = "geometric mean of these >= 1 for each kernel and dtype"
    return [Verdict(name, len(means), f"least {min(means.values()):.3f}", misses)]


def _launches(report: Report) -> list[Verdict]:
    """What a call costs the host against PyTorch eager."""
    ratios: dict[str, float] = {}
    for launches in report.launches:
        eager = launches.calls.get("eager")
        for name in launches.ours:
            if eager is not None and name in launches.calls:
                ratio = launches.calls[name].ms / eager.ms
                ratios[f"{name} {launches.point.dtype}"] = ratio
    if not ratios:
        return []
    misses = tuple(f"{name}: {ratio:.2f}" for name, ratio in ratios.items() if ratio > 1.0)
    name = "launch overhead in units of PyTorch eager's <= 1"
    return [Verdict(name, len(ratios), f"most {max(ratios.values()):.2f}", misses)]
