"""The report in the terminal: a line for each point as it comes, tables and verdicts at the end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ln_kernels.benchmark import figures
from ln_kernels.benchmark.results import Report, Result
from ln_kernels.benchmark.targets import Verdict, verdicts

PLAIN_WIDTH = 200
"""Columns of the output where there is no terminal."""

SHOWN_MISSES = 12
"""Of a target; the tables show them all."""

STYLES: dict[figures.Tone, str] = {"": "", "good": "green", "bad": "red"}


def make_console() -> Console:
    """A console on stdout, wide enough for the tables where there is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


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
        words = f"{figures.milliseconds(side.timing)} ms {share:.2f}{mark}"
        text.append(words, "bold" if side.ours else "")
    return text


def print_report(console: Console, report: Report) -> None:
    """Tables, faults, verdicts."""
    if report.copies_gbps:
        copies = ", ".join(f"{copy:.0f}" for copy in report.copies_gbps)
        console.print(f"\ndevice copy, read and written bytes: {copies} GB/s")
    for sheet in figures.sheets(report):
        console.print()
        console.print(_table(sheet))
    if figures.has_stored(report):
        console.print(figures.STORED)
    _print_faults(console, report)
    found = verdicts(report)
    if found:
        console.print("\ntargets")
    for verdict in found:
        _print_verdict(console, verdict)


def _table(sheet: figures.Sheet) -> Table:
    table = Table(title=sheet.title, title_justify="left", box=None, pad_edge=False)
    for name in sheet.columns:
        table.add_column(name, justify="left" if name in sheet.words else "right")
    for row in sheet.rows:
        table.add_row(*(Text(cell.text, STYLES[cell.tone]) for cell in row))
    return table


def _print_faults(console: Console, report: Report) -> None:
    """Wrong results and errors of our kernels; then what competitors refused."""
    for point, side in report.faults:
        words = f"{side.status.upper()}: {side.name}, {point}: {side.note}"
        console.print(Text(words, "red"), soft_wrap=True)
    refused: dict[tuple[str, str], list[str]] = {}
    for result in report.results:
        for side in result.sides:
            if side.status == "refused":
                where = f"{result.point.dtype} {result.point.shape}"
                refused.setdefault((side.name, side.note), []).append(where)
    for (name, note), places in refused.items():
        refusal = f"{name} refuses {', '.join(dict.fromkeys(places))}: {note}"
        console.print(Text(refusal), soft_wrap=True)
    if report.lost:
        console.print(Text(f"the device was lost to an error: {report.lost}", "bold red"))


def _print_verdict(console: Console, verdict: Verdict) -> None:
    word = Text("  met   " if verdict.met else "  MISSED", "green" if verdict.met else "red")
    word.append(f" {verdict.name}: {verdict.figure}, {verdict.judged} judged", "default")
    console.print(word)
    for miss in verdict.misses[:SHOWN_MISSES]:
        console.print(Text(f"           {miss}"))
    if len(verdict.misses) > SHOWN_MISSES:
        console.print(f"           and {len(verdict.misses) - SHOWN_MISSES} more")
