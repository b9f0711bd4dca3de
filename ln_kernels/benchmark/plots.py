"""Pictures of a report: bandwidth over width, and the roofline."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ln_kernels.benchmark.competitors import COMPETITORS
from ln_kernels.benchmark.results import Report, Result

# Okabe and Ito's colours, which readers with any colour vision tell apart, and two of Tol's.
OURS = ("#0072B2", "#56B4E9")
RIVALS = {
    "eager": "#000000",
    "compile": "#D55E00",
    "compile-default": "#E69F00",
    "liger": "#009E73",
    "fla": "#CC79A7",
    "fla-gate": "#882255",
    "quack": "#999933",
}
MARKS = "os^"
GREY = "#777777"

DPI = 150


def plots_available() -> bool:
    """Whether pictures can be made."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(report: Report, folder: Path) -> dict[str, Path]:
    """Write a picture of each operation, and the roofline; return them by their titles."""
    drawn: dict[str, Path] = {}
    timed = [result for result in report.results if result.copy is not None]
    for operation in dict.fromkeys(result.point.operation for result in timed):
        mine = [result for result in timed if result.point.operation == operation]
        path = folder / f"speed-{operation}.png"
        drawn[f"{operation}: bandwidth over width"] = path
        _bandwidth(report, mine, operation, path)
    if timed:
        path = folder / "roofline.png"
        drawn["roofline"] = path
        _roofline(report, timed, path)
    return drawn


def _bandwidth(report: Report, results: Sequence[Result], operation: str, path: Path) -> None:
    """GB/s over width, at the number of rows that most points have; a field for each dtype."""
    from matplotlib.figure import Figure

    n_rows = Counter(result.point.n_rows for result in results).most_common(1)[0][0]
    results = [result for result in results if result.point.n_rows == n_rows]
    dtypes = list(dict.fromkeys(result.point.dtype for result in results))
    figure: Any = Figure(figsize=(1.0 + 5.5 * len(dtypes), 5.0), layout="constrained")
    fields = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
    for axes, dtype in zip(fields, dtypes, strict=True):
        mine = sorted(
            (result for result in results if result.point.dtype == dtype),
            key=lambda result: result.point.n_cols,
        )
        _copies(axes, report, mine)
        _lines(axes, mine)
        axes.set_xscale("log", base=2)
        powers = sorted({1 << (r.point.n_cols.bit_length() - 1) for r in mine})
        axes.set_xticks(powers, [str(n) for n in powers], rotation=45)
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3, lw=0.5)
        axes.set_xlabel("columns")
        axes.set_title(dtype, fontsize=10)
    fields[0].set_ylabel("GB/s (each input read once, each output written once)", fontsize=9)
    figure.suptitle(f"{operation}, {n_rows} rows, {_where(report)}", fontsize=11)
    _legend(figure, fields)
    figure.savefig(path, dpi=DPI)


def _copies(axes: Any, report: Report, results: Sequence[Result]) -> None:
    axes.axhline(report.copy_gbps, color=GREY, lw=1, ls=":", label="large copy")
    axes.plot(
        [r.point.n_cols for r in results],
        [r.fused_bytes / r.copy.ms / 1e6 if r.copy else None for r in results],
        color=GREY,
        lw=1,
        ls="--",
        label="copy of the same bytes",
    )


def _lines(axes: Any, results: Sequence[Result]) -> None:
    names = dict.fromkeys(side.name for result in results for side in result.sides)
    ours = [s.name for s in results[0].sides if s.ours]
    for name in [*[n for n in COMPETITORS if n in names], *ours]:
        points = [
            (result.point.n_cols, result.gbps(side), side)
            for result in results
            if (side := result.of(name)) is not None and side.timing is not None
        ]
        if not points:
            continue
        mine = name in ours
        stored = all(side.status == "stored" for _, _, side in points)
        axes.plot(
            [width for width, _, _ in points],
            [gbps for _, gbps, _ in points],
            color=OURS[ours.index(name) % len(OURS)] if mine else RIVALS[name],
            lw=2.2 if mine else 1.2,
            # No line joins figures of another day.
            ls="none" if stored else "-",
            marker="o" if mine else "D" if stored else ".",
            ms=4.5 if mine or stored else 5,
            mfc="none" if stored else None,
            label=f"{name} (stored)" if stored else name,
        )


def _roofline(report: Report, results: Sequence[Result], path: Path) -> None:
    """FLOP/s over FLOP/byte of our kernels, below the roofs of memory and arithmetic."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(8.0, 6.0), layout="constrained")
    axes = figure.add_subplot()
    _roofs(axes, report, results)
    operations = list(dict.fromkeys(result.point.operation for result in results))
    dtypes = list(dict.fromkeys(result.point.dtype for result in results))
    palette = (*OURS, *(colour for name, colour in RIVALS.items() if name != "eager"))
    colours = dict(zip(operations, palette, strict=False))
    for result in results:
        colour = colours[result.point.operation]
        mark = MARKS[dtypes.index(result.point.dtype)]
        for side in result.sides:
            if side.ours and side.timing is not None:
                x, y = result.flops / result.fused_bytes, result.flops / side.timing.ms / 1e6
                axes.plot([x], [y], ls="none", marker=mark, ms=5, mfc="none", color=colour)
    for operation in operations:
        for dtype in dtypes:
            mine = [r for r in results if (r.point.operation, r.point.dtype) == (operation, dtype)]
            # The largest shape's: the parameters no longer count.
            largest = max(mine, key=lambda r: r.fused_bytes, default=None)
            if largest is not None:
                x = largest.flops / largest.decomposed_bytes
                y = x * report.copy_gbps
                axes.plot([x], [y], ls="none", marker="x", ms=7, color=colours[operation])
    # What the marks mean, each once: colours are operations, shapes of marks are dtypes.
    for operation in operations:
        axes.plot([], [], lw=4, color=colours[operation], label=operation)
    for dtype, mark in zip(dtypes, MARKS, strict=False):
        axes.plot([], [], ls="none", marker=mark, mfc="none", color="black", label=dtype)
    axes.plot([], [], ls="none", marker="x", color="black", label="a launch a step, at most")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOP/byte")
    axes.set_ylabel("GFLOP/s")
    axes.grid(alpha=0.3, lw=0.5)
    figure.suptitle(f"Roofline, {_where(report)}", fontsize=10)
    _legend(figure, [axes], columns=4)
    figure.savefig(path, dpi=DPI)


def _roofs(axes: Any, report: Report, results: Sequence[Result]) -> None:
    copy, peak = report.copy_gbps, report.card.get("fp32_gflops")
    intensities = [r.flops / n for r in results for n in (r.fused_bytes, r.decomposed_bytes)]
    low = min(intensities) / 2
    ridge = max(intensities) * 4 if peak is None else peak / copy
    axes.plot([low, ridge], [low * copy, ridge * copy], color=GREY, label=f"copy, {copy:.0f} GB/s")
    if peak is not None:
        label = f"fp32 by clock and lanes, {peak / 1e3:.0f} TFLOP/s"
        axes.plot([ridge, ridge * 4], [peak, peak], color=GREY, ls="--", label=label)


def _legend(figure: Any, fields: Sequence[Any], columns: int = 6) -> None:
    """One legend for all fields."""
    entries: dict[str, Any] = {}
    for axes in fields:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=min(len(entries), columns),
        fontsize=8,
        frameon=False,
    )


def _where(report: Report) -> str:
    """Card, versions and date."""
    versions = f"PyTorch {report.versions['torch']}, Triton {report.versions['triton']}"
    return f"{report.card['name']}, {versions}, {report.date.split()[0]}"
