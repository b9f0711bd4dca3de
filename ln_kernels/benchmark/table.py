"""The report in the terminal: a line for each point as it comes, tables and verdicts at the end."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ln_kernels.benchmark.competitors import COMPETITORS
from ln_kernels.benchmark.results import Measured, Report, Result, Timing
from ln_kernels.benchmark.targets import ratio_to_best, share_target, verdicts

PLAIN_WIDTH = 200
"""Columns of the output where there is no terminal."""

SHOWN_MISSES = 12


def make_console() -> Console:
    """A console on stdout, wide enough for the tables where there is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def milliseconds(timing: Timing | None) -> str:
    """A median, with as many decimals as tell three digits apart."""
    if timing is None:
        return "-"
    return f"{timing.ms:.4f}" if timing.ms < 1 else f"{timing.ms:.3f}"


def spread(timing: Timing) -> str:
    """How far the 20th and 80th percentile lie apart, in units of the median."""
    return f"{100 * (timing.high_ms - timing.low_ms) / timing.ms:.0f}%"


def line(result: Result, copy_gbps: float) -> Text:
    """A point in one line."""
    text = Text(f"{result.point!s:<34}")
    for side in result.sides:
        text.append(f"  {side.name} ")
        if side.timing is None:
            right = side.status == "measured"
            text.append("right" if right else side.status.upper(), "" if right else "bold red")
            continue
        share = (result.gbps(side) or 0.0) / copy_gbps
        mark = "*" if side.status == "stored" else ""
        text.append(
            f"{milliseconds(side.timing)} ms {share:.2f}{mark}", "bold" if side.ours else ""
        )
    return text


def print_faults(console: Console, report: Report) -> None:
    """Wrong results and errors of our kernels; then what competitors refused."""
    for point, side in report.faults:
        console.print(Text(f"{side.status.upper()}: {side.name}, {point}: {side.note}", "red"))
    refused: dict[tuple[str, str], list[str]] = {}
    for result in report.results:
        for side in result.sides:
            if side.status == "refused":
                where = f"{result.point.dtype} {result.point.shape}"
                refused.setdefault((side.name, side.note), []).append(where)
    for (name, note), where in refused.items():
        console.print(Text(f"{name} refuses {', '.join(dict.fromkeys(where))}: {note}"))
    if report.lost:
        console.print(Text(f"the device was lost to an error: {report.lost}", "bold red"))


def print_report(console: Console, report: Report) -> None:
    """Tables, launch overhead, verdicts."""
    if report.copies_gbps:
        copies = ", ".join(f"{copy:.0f}" for copy in report.copies_gbps)
        console.print(f"\ndevice copy, read and written bytes: {copies} GB/s")
    groups = dict.fromkeys((r.point.operation, r.point.dtype) for r in report.results)
    for operation, dtype in groups:
        results = [
            r for r in report.results if (r.point.operation, r.point.dtype) == (operation, dtype)
        ]
        if any(r.copy is not None for r in results):
            console.print()
            console.print(_speeds(results, f"{operation}, {dtype}", report.copy_gbps))
    if groups:
        console.print(_costs(report.results))
    if any(s.status == "stored" for r in report.results for s in r.sides):
        console.print("* stored: a former measurement stands for what is not installed here")
    if report.launches:
        console.print(_launches(report))
    print_faults(console, report)
    print_verdicts(console, report)


def _speeds(results: list[Result], title: str, copy_gbps: float) -> Table:
    rivals = _rivals(results)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("shape", justify="right")
    table.add_column("kernel")
    for name in ("ms", "spread", "GB/s", "of copy", "of copy of its size", "x eager", "x best"):
        table.add_column(name, justify="right")
    table.add_column("best")
    for name in rivals:
        table.add_column(f"{name} ms", justify="right")
    for result in results:
        for side in result.sides:
            if not side.ours:
                continue
            table.add_row(
                result.point.shape,
                side.name,
                *_speed(result, side, copy_gbps),
                *_times(result, rivals),
            )
    return table


def _rivals(results: Iterable[Result]) -> list[str]:
    there = {s.name for r in results for s in r.sides if not s.ours}
    return [name for name in COMPETITORS if name in there]


def _times(result: Result, rivals: list[str]) -> list[str]:
    cells: list[str] = []
    for name in rivals:
        side = result.of(name)
        if side is None:
            cells.append("")
        elif side.timing is None:
            cells.append(side.status)
        else:
            cells.append(milliseconds(side.timing) + ("*" if side.status == "stored" else ""))
    return cells


def _speed(result: Result, side: Measured, copy_gbps: float) -> list[str | Text]:
    if side.timing is None:
        return [Text(side.status, "bold red"), *[""] * 7]
    gbps = result.fused_bytes / side.timing.ms / 1e6
    least = share_target(result)
    share = Text(fixed(gbps / copy_gbps))
    if least is not None:
        share.stylize("green" if gbps / copy_gbps >= least else "red")
    eager, best = result.of("eager"), result.best_competitor()
    faster = eager.timing.ms / side.timing.ms if eager is not None and eager.timing else None
    same_size = None if result.copy is None else result.copy.ms / side.timing.ms
    ratio = ratio_to_best(result, side)
    rival = "" if best is None else best.name + ("*" if best.status == "stored" else "")
    return [
        milliseconds(side.timing),
        spread(side.timing),
        f"{gbps:.0f}",
        share,
        fixed(same_size),
        fixed(faster),
        fixed(ratio),
        rival,
    ]


def _costs(results: list[Result]) -> Table:
    """Bytes and operations, each shape once."""
    table = Table(title="\ncost", title_justify="left", box=None, pad_edge=False)
    for name in ("operation", "dtype", "shape"):
        table.add_column(name)
    for name in ("MFLOP", "MB fused", "MB step by step", "FLOP/byte fused"):
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(
            result.point.operation,
            result.point.dtype,
            result.point.shape,
            fixed(result.flops / 1e6, 1),
            fixed(result.fused_bytes / 1e6, 2),
            fixed(result.decomposed_bytes / 1e6, 2),
            fixed(result.flops / result.fused_bytes, 2),
        )
    return table


def _launches(report: Report) -> Table:
    """A row for each of our kernels."""
    there = {name for launches in report.launches for name in launches.calls}
    rivals = [name for name in COMPETITORS if name in there]
    title = "\nlaunch overhead: microseconds a call costs the host"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("kernel", "dtype", "shape"):
        table.add_column(name)
    for name in ("us", *rivals):
        table.add_column(name, justify="right")
    for launches in report.launches:
        for name in launches.ours:
            times = [launches.calls.get(who) for who in (name, *rivals)]
            cells = ["" if t is None else f"{t.ms * 1e3:.1f}" for t in times]
            table.add_row(name, launches.point.dtype, launches.point.shape, *cells)
    return table


def print_verdicts(console: Console, report: Report) -> None:
    """Each target with its decisive figure and what missed it."""
    found = verdicts(report)
    if found:
        console.print("\ntargets")
    for verdict in found:
        word = Text("  met   " if verdict.met else "  MISSED", "green" if verdict.met else "red")
        word.append(f" {verdict.name}: {verdict.figure}, {verdict.judged} judged", "default")
        console.print(word)
        for miss in verdict.misses[:SHOWN_MISSES]:
            console.print(Text(f"           {miss}"))
        if len(verdict.misses) > SHOWN_MISSES:
            console.print(f"           and {len(verdict.misses) - SHOWN_MISSES} more")
