"""The tables of a report as text, for whoever draws them: terminal and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ln_kernels.benchmark.competitors import COMPETITORS
from ln_kernels.benchmark.results import Measured, Report, Result, Timing
from ln_kernels.benchmark.targets import ratio_to_best, share_target

Tone = Literal["", "good", "bad"]


@dataclass(frozen=True)
class Cell:
    """A field of a table; the tone says whether a target is met."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Sheet:
    """A table: a title, columns (those of numbers stand right), rows."""

    title: str
    columns: tuple[str, ...]
    words: frozenset[str]
    """The columns that hold no numbers."""
    rows: tuple[tuple[Cell, ...], ...]


STORED = "* stored: a former measurement stands for what is not installed here"


def sheets(report: Report) -> list[Sheet]:
    """Times of each operation in each dtype, what it costs, launch overhead."""
    found: list[Sheet] = []
    for operation, dtype in dict.fromkeys(
        (r.point.operation, r.point.dtype) for r in report.results
    ):
        results = [
            r for r in report.results if (r.point.operation, r.point.dtype) == (operation, dtype)
        ]
        if any(r.copy is not None for r in results):
            found.append(_speeds(results, f"{operation}, {dtype}", report.copy_gbps))
    if report.results:
        found.append(_costs(report.results))
    if report.launches:
        found.append(_launches(report))
    return found


def has_stored(report: Report) -> bool:
    """Whether a figure is not of this run."""
    return any(side.status == "stored" for result in report.results for side in result.sides)


def milliseconds(timing: Timing | None) -> str:
    """A median, with as many decimals as tell three digits apart."""
    if timing is None:
        return "-"
    return f"{timing.ms:.4f}" if timing.ms < 1 else f"{timing.ms:.3f}"


def _fixed(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _spread(timing: Timing) -> str:
    """How far the 20th and 80th percentile lie apart, in units of the median."""
    return f"{100 * (timing.high_ms - timing.low_ms) / timing.ms:.0f}%"


def _speeds(results: Sequence[Result], title: str, copy_gbps: float) -> Sheet:
    rivals = _rivals(side.name for r in results for side in r.sides)
    columns = (
        "shape",
        "kernel",
        "ms",
        "spread",
        "GB/s",
        "of copy",
        "of copy of its size",
        "x eager",
        "x best",
        "best",
        *(f"{name} ms" for name in rivals),
    )
    rows = tuple(
        (
            Cell(result.point.shape),
            Cell(side.name),
            *_speed(result, side, copy_gbps),
            *(_time(result.of(name)) for name in rivals),
        )
        for result in results
        for side in result.sides
        if side.ours
    )
    return Sheet(title, columns, frozenset({"kernel", "best"}), rows)


def _rivals(names: Iterable[str]) -> list[str]:
    there = set(names)
    return [name for name in COMPETITORS if name in there]


def _time(side: Measured | None) -> Cell:
    if side is None:
        return Cell("")
    if side.timing is None:
        return Cell(side.status, "bad" if side.status == "wrong" else "")
    return Cell(milliseconds(side.timing) + _mark(side))


def _mark(side: Measured) -> str:
    return "*" if side.status == "stored" else ""


def _speed(result: Result, side: Measured, copy_gbps: float) -> list[Cell]:
    if side.timing is None:
        return [Cell(side.status, "bad"), *[Cell("")] * 7]
    gbps = result.fused_bytes / side.timing.ms / 1e6
    share, least = gbps / copy_gbps, share_target(result)
    tone: Tone = "" if least is None else "good" if share >= least else "bad"
    eager, best = result.of("eager"), result.best_competitor()
    faster = eager.timing.ms / side.timing.ms if eager is not None and eager.timing else None
    same_size = None if result.copy is None else result.copy.ms / side.timing.ms
    return [
        Cell(milliseconds(side.timing)),
        Cell(_spread(side.timing)),
        Cell(f"{gbps:.0f}"),
        Cell(_fixed(share), tone),
        Cell(_fixed(same_size)),
        Cell(_fixed(faster)),
        Cell(_fixed(ratio_to_best(result, side))),
        Cell("" if best is None else best.name + _mark(best)),
    ]


def _costs(results: Sequence[Result]) -> Sheet:
    """Bytes and operations, each shape once."""
    columns = (
        "operation",
        "dtype",
        "shape",
        "MFLOP",
        "MB fused",
        "MB step by step",
        "FLOP/byte fused",
        "FLOP/byte step by step",
    )
    rows = tuple(
        tuple(
            Cell(text)
            for text in (
                result.point.operation,
                result.point.dtype,
                result.point.shape,
                _fixed(result.flops / 1e6),
                _fixed(result.fused_bytes / 1e6),
                _fixed(result.decomposed_bytes / 1e6),
                _fixed(result.flops / result.fused_bytes),
                _fixed(result.flops / result.decomposed_bytes),
            )
        )
        for result in results
    )
    return Sheet("cost", columns, frozenset({"operation", "dtype"}), rows)


def _launches(report: Report) -> Sheet:
    """A row for each of our kernels."""
    rivals = _rivals(name for launches in report.launches for name in launches.calls)
    rows = tuple(
        (
            Cell(name),
            Cell(launches.point.dtype),
            Cell(launches.point.shape),
            *(_microseconds(launches.calls.get(who)) for who in (name, *rivals)),
        )
        for launches in report.launches
        for name in launches.ours
    )
    columns = ("kernel", "dtype", "shape", "us", *(f"{name} us" for name in rivals))
    title = "launch overhead: what a call costs the host"
    return Sheet(title, columns, frozenset({"kernel", "dtype"}), rows)


def _microseconds(timing: Timing | None) -> Cell:
    return Cell("" if timing is None else f"{timing.ms * 1e3:.1f}")
