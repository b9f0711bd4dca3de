"""A measurement on a screen and as JSON: progress, a line a fault, the tables."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fuzz.power.job import PowerResult
from fuzz.power.judges import JUDGES
from fuzz.power.results import Attempt, Measured, to_data
from fuzz.power.summary import Figures, by_class, figures, worst

FORMAT = 1
"""Version of the JSON result."""

PLAIN_EVERY = 15.0
"""Seconds between two lines of progress where no terminal can rewrite them."""

NEVER = "-"
"""Stands for the number of cases where a judge found nothing."""


class Show:
    """Shows a measurement while it runs. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[at_work]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("faults", total=None, at_work="")
        self._printed = time.monotonic()

    def __enter__(self) -> Show:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, result: PowerResult) -> None:
        """Say what is measured, where, and what is known from before."""
        settings, info = result.settings, result.info
        left = result.total - result.resumed
        lines = [
            f"{result.total} faults on {info.device} ({info.name}): {left} to measure, "
            f"{settings.seeds} seed{'s' * (settings.seeds != 1)}, at most {settings.budget} cases "
            f"each, {result.workers} at a time",
            f"results: {result.log.path}",
        ]
        self._say("\n".join(lines))
        for broken in result.log.broken:
            self._say(f"WARNING {broken}", "yellow")

    def progress(self, result: PowerResult) -> None:
        """Move the bar, or print a line now and then."""
        at_work = ", ".join(result.at_work)
        done = len(result.measured)
        if self._console.is_terminal:
            self._bar.update(self._task, total=result.total, completed=done, at_work=at_work)
        elif time.monotonic() - self._printed > PLAIN_EVERY:
            self._printed = time.monotonic()
            self._say(f"{done} of {result.total}, {result.seconds:.0f} s; at work: {at_work}")

    def done(self, measured: Measured) -> None:
        """One line for a fault."""
        if measured.status != "measured":
            self._say(f"{measured.fault}: {measured.status}: {measured.reason}", "bold magenta")
            return
        judges = dict.fromkeys(attempt.judge for attempt in measured.attempts)
        said = [f"{judge} {counts(measured.of(judge))}" for judge in judges]
        self._say(f"{measured.fault}: {', '.join(said)} ({measured.seconds:.0f} s)")
        for problem in measured.problems:
            self._say(f"ERROR {measured.fault}: {problem}", "bold magenta")

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)


def counts(attempts: Sequence[Attempt]) -> str:
    """The cases to detection, seed by seed."""
    return " ".join(f"{a.cases}{'*' * a.refused}" if a.found else NEVER for a in attempts)


def print_power(console: Console, result: PowerResult) -> None:
    """The table of faults, the table of classes, and what they amount to."""
    judges = result.settings.judges
    classes = by_class(result.measured)
    if classes:
        console.print(_faults_table(classes, judges))
        console.print(_classes_table(classes, judges))
        console.print(Text("\n".join(_legend(result))), soft_wrap=True)
    for item in result.measured:
        if item.status == "elsewhere":
            console.print(Text(f"not counted: {item.fault}: {item.reason}"), soft_wrap=True)
    for error in result.errors:
        console.print(Text(f"ERROR {error}", style="bold magenta"), soft_wrap=True)
    console.print(Text(conclusion(result), style="bold"), soft_wrap=True)


def _faults_table(classes: dict[str, list[Measured]], judges: Sequence[str]) -> Table:
    table = Table(title="cases to detection, seed by seed", pad_edge=False, title_justify="left")
    table.add_column("class")
    table.add_column("fault")
    for judge in judges:
        table.add_column(judge, justify="right")
    if "bounds" in judges:
        table.add_column("s", justify="right")
        table.add_column("found by")
    for kind, items in classes.items():
        for number, item in enumerate(items):
            cells = [kind if number == 0 else "", item.fault]
            cells += [counts(item.of(judge)) for judge in judges]
            if "bounds" in judges:
                hits = [a for a in item.of("bounds") if a.found]
                cells.append(f"{max(a.seconds for a in hits):.1f}" if hits else "")
                cells.append(", ".join(_checks(hits)))
            missed = "bounds" in judges and math.isinf(worst(item.of("bounds")))
            table.add_row(*map(Text, cells), style="bold red" if missed else "")
        table.add_section()
    return table


def _checks(hits: Sequence[Attempt]) -> list[str]:
    """The checks that found a fault, without target and place."""
    return list(dict.fromkeys(by.split(" / ")[1] for hit in hits for by in hit.by[:1]))


def _classes_table(classes: dict[str, list[Measured]], judges: Sequence[str]) -> Table:
    table = Table(
        title="share found, median and 95th percentile of cases to detection",
        pad_edge=False,
        title_justify="left",
    )
    table.add_column("class")
    table.add_column("faults", justify="right")
    for judge in judges:
        table.add_column(judge, justify="right")
    for kind, items in classes.items():
        table.add_row(*map(Text, _figures_cells(kind, items, judges)))
    table.add_section()
    every = [item for items in classes.values() for item in items]
    table.add_row(*map(Text, _figures_cells("all", every, judges)), style="bold")
    return table


def _figures_cells(kind: str, items: Sequence[Measured], judges: Sequence[str]) -> list[str]:
    cells = [kind, str(len(items))]
    for judge in judges:
        found = figures(items, judge)
        middle, late = (NEVER if n is None else n for n in (found.median, found.percentile_95))
        cells.append(f"{found.share:.0%}  {middle} / {late}")
    return cells


def _legend(result: PowerResult) -> list[str]:
    settings = result.settings
    lines = [f"{judge}: {JUDGES[judge].words}" for judge in settings.judges]
    lines.append(f"{NEVER}: not found, in {settings.budget} cases or a list that is shorter")
    found = [figures(result.measured, judge) for judge in settings.judges]
    if refused := sum(item.refused for item in found):
        lines.append(
            f"*: {refused} times the strict interpreter refused an access and left assert_close "
            f"nothing to judge: counted as found"
        )
    if alarms := sum(item.alarms for item in found):
        lines.append(
            f"{alarms} times assert_close rejects a case in which every element is within its "
            f"bound: false alarms, which count as nothing found"
        )
    return lines


def conclusion(result: PowerResult) -> str:
    """One line that says how it ended."""
    stopped = "Interrupted; the same command goes on from here. " if result.interrupted else ""
    done = [m for m in result.measured if m.status == "measured"]
    if "bounds" not in result.settings.judges:
        return f"{stopped}{len(done)} faults measured, {len(result.errors)} errors."
    said = f"{len(done) - len(result.missed)} of {len(done)} faults found with every seed"
    if result.missed:
        said += f"; not {', '.join(result.missed)}"
    return f"{stopped}{said}; {len(result.errors)} errors."


def result_json(result: PowerResult) -> dict[str, Any]:
    """The result for programs. A count of null means that it was not reached."""
    judges = result.settings.judges
    classes = by_class(result.measured)
    return {
        "format": FORMAT,
        "exit_code": result.exit_code,
        "settings": result.recorded,
        "expect": result.settings.expect,
        "workers": result.workers,
        "interrupted": result.interrupted,
        "seconds": result.seconds,
        "faults": [to_data(item) for item in result.measured],
        "total": {judge: _as_data(figures(result.measured, judge)) for judge in judges},
        "classes": {
            kind: {judge: _as_data(figures(items, judge)) for judge in judges}
            for kind, items in classes.items()
        },
        "missed": result.missed if "bounds" in judges else [],
        "errors": result.errors,
        "warnings": result.log.broken,
        "log": str(result.log.path),
    }


def _as_data(found: Figures) -> dict[str, Any]:
    return {**dataclasses.asdict(found), "share": found.share}
