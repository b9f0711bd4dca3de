"""A report as a page of Markdown: nothing of it is typed by hand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ln_kernels.benchmark import figures
from ln_kernels.benchmark.results import Report
from ln_kernels.benchmark.targets import verdicts

HOW = """\
Written by `python -m ln_kernels.bench --markdown`; not to be edited. Every element of every result
was judged by the oracle's bounds before anything was timed. Times are of device events, the median
of repetitions in which all implementations take turns; before each of them a buffer larger than the
L2 cache is written. *spread* is how far the 20th and 80th percentile lie apart. *GB/s* counts what
one launch must move (*MB fused*): each input read once, each output written once. *of copy* is that
in units of the bandwidth of a large device-to-device copy of the same run, *of copy of its size* in
units of a copy that moves the same bytes. *x eager* and *x best* are how many times faster than
PyTorch eager and than the fastest competitor."""


def page(report: Report, pictures: Mapping[str, Path], path: Path) -> str:
    """The page; ``pictures`` are shown by their titles, ``path`` is where the page will lie."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    copies = ", ".join(f"{copy:.0f}" for copy in report.copies_gbps)
    parts = [
        "# Speed",
        HOW,
        f"Measured {report.date} on {report.card['name']}; {versions}.",
    ]
    if report.copies_gbps:
        parts.append(f"Device copy, read and written bytes: {copies} GB/s.")
    if report.interrupted:
        parts.append(f"Interrupted after {len(report.results)} of {report.planned} points.")
    parts += ["## Targets", _verdicts(report)]
    for title, picture in pictures.items():
        parts.append(f"![{title}]({Path(os.path.relpath(picture, path.parent)).as_posix()})")
    for sheet in figures.sheets(report):
        parts += [f"## {sheet.title[0].upper()}{sheet.title[1:]}", _table(sheet)]
    if figures.has_stored(report):
        parts.append(figures.STORED.replace("*", r"\*"))
    return "\n\n".join(parts) + "\n"


def _verdicts(report: Report) -> str:
    lines: list[str] = []
    for verdict in verdicts(report):
        word = "met" if verdict.met else "**missed**"
        lines.append(f"- {word}: {_plain(verdict.name)}: {verdict.figure}, {verdict.judged} judged")
        lines += [f"  - {_plain(miss)}" for miss in verdict.misses]
    return "\n".join(lines) or "Nothing was judged."


def _table(sheet: figures.Sheet) -> str:
    lines = [
        _row(sheet.columns),
        _row("---" if name in sheet.words else "---:" for name in sheet.columns),
    ]
    for row in sheet.rows:
        lines.append(_row(f"**{c.text}**" if c.tone == "bad" else _plain(c.text) for c in row))
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return text.replace("*", r"\*").replace("<", "&lt;").replace("|", r"\|")
