"""Figures of competitors that are not installed, from a former measurement, marked as such."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any

from ln_kernels.benchmark.points import Point
from ln_kernels.benchmark.results import Measured, Timing


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    text = resources.files("ln_kernels.benchmark").joinpath("stored.json").read_text("utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def stored(name: str, point: Point, fused_bytes: int, copy_gbps: float) -> Measured | None:
    """The figure that stands for a competitor on a point, if there is one.

    It is a share of the bandwidth of a copy on the card where it was measured, and is scaled by
    that of this run.
    """
    table = _table()
    if point.operation != table["operation"] or not copy_gbps:
        return None
    share = table["shares"].get(point.shape, {}).get(point.dtype, {}).get(name)
    if share is None:
        return None
    ms = fused_bytes / (share * copy_gbps) / 1e6
    note = f"stored: {share:g} of copy, {table['versions'][name]}, {table['measured']}"
    return Measured(name, False, "stored", Timing(ms, ms, ms, 0), note)
