"""What a night prints when it is over; the last line is the one to read first."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fuzz.nights.merge import MergeResult
from fuzz.nights.outcome import Kind, NightFailure, NightResult
from fuzz.report import replay_command

STYLES = {0: "bold green", 1: "bold red", 2: "bold magenta"}
"""Of the verdict, by exit code."""

WORDS: dict[Kind, str] = {"new": "NEW", "back": "BACK", "known": "known"}
"""Of a failure; capitals are seen without colours too."""

MOST_MISSED = 10
"""Cells not hit that have a line each."""

MOST_KNOWN = 10
"""Open failures that have lines of their own; a kernel that is wrong everywhere has many."""


def print_night(console: Console, result: NightResult) -> None:
    """Targets, failures, what was promised and not hit, notes, errors; and the verdict."""
    if result.targets:
        console.print(_table(result))
    for kind in WORDS:
        found = [failure for failure in result.failures if failure.kind == kind]
        most = MOST_KNOWN if kind == "known" else len(found)
        for failure in found[:most]:
            _print_failure(console, failure)
        if len(found) > most:
            _say(console, f"and {len(found) - most:,} more that are known", style="yellow")
    for signature in result.fixed:
        _say(console, f"fixed  {signature}", style="green")
    for cell in result.missed[:MOST_MISSED]:
        _say(console, f"MISSED {cell}", style="bold magenta")
    if len(result.missed) > MOST_MISSED:
        _say(console, f"and {len(result.missed) - MOST_MISSED:,} more", style="bold magenta")
    for note in result.notes:
        _say(console, f"note   {note}", style="yellow")
    for error in (*result.errors, *result.faults):
        _say(console, f"ERROR  {error}", style="bold magenta")
    for line in _sums(result):
        _say(console, line)
    _say(console, night_verdict(result), style=STYLES[result.exit_code])


def _table(result: NightResult) -> Table:
    table = Table(pad_edge=False)
    table.add_column("target")
    for heading in ("cases", "failing", "skipped", "cells", "new", "promised", "hit"):
        table.add_column(heading, justify="right")
    table.add_column("largest error/bound")
    for target in result.targets:
        counts = (
            target.executed,
            target.failed,
            target.skipped,
            target.cells,
            target.new_cells,
            target.promised,
            target.promised - len(target.missed),
        )
        ratios = ", ".join(f"{name} {ratio:.3g}" for name, ratio in sorted(target.largest.items()))
        table.add_row(*map(Text, (target.target, *(f"{count:,}" for count in counts), ratios)))
    return table


def _print_failure(console: Console, failure: NightFailure) -> None:
    lines = Text()
    word = WORDS[failure.kind]
    lines.append(f"{word:<6} ", style="yellow" if failure.kind == "known" else "bold red")
    lines.append(failure.signature, style="bold")
    lines.append(f"\n  {failure.message}")
    lines.append(f"\n  replay: {replay_command(failure.failure, failure.path)}")
    console.print(lines, soft_wrap=True)


def _sums(result: NightResult) -> list[str]:
    where = f"{result.device} ({result.device_name})"
    if result.gpus > 1:
        where += f", {result.gpus} GPUs"
    shares = ", ".join(f"{part} {share:.0%}" for part, share in result.shares.items())
    lines = [
        f"night  {result.run} on {where}, {_count(result.workers, 'runner')}, "
        f"--seed {result.seed} --shard {result.shard}",
        f"took   {result.seconds:.0f} s; {result.rate:,.1f} cases/s; "
        f"{_count(result.keys, 'specialisation')}; {_count(result.replayed, 'replay')} of former "
        "failures",
    ]
    if shares:
        lines.append(f"time   {shares}")
    if result.skipped or result.not_reached or result.lost:
        lines.append(
            f"cases  {result.executed:,} executed, {result.skipped:,} skipped, "
            f"{result.not_reached:,} not reached" + (f", {result.lost:,} LOST" * bool(result.lost))
        )
    cells = sum(target.cells for target in result.targets)
    new = sum(target.new_cells for target in result.targets)
    promises = sum(target.promised for target in result.targets)
    lines.append(
        f"cells  {cells:,} tried, {new:,} of them for the first time; "
        + (
            f"{promises - len(result.missed):,} of {promises:,} promised ones hit"
            if promises
            else "so short a night promises none"
        )
    )
    return lines


def night_verdict(result: NightResult) -> str:
    """One line that says how it ended."""
    stopped = "Interrupted. " if result.interrupted else ""
    counts = [
        _count(len(found), f"{kind} failure")
        for kind in WORDS
        if (found := [f for f in result.failures if f.kind == kind])
    ]
    if result.fixed:
        counts.append(f"{len(result.fixed)} fixed")
    seen = f"; {', '.join(counts)}" if counts else ""
    if result.exit_code == 2:
        return f"{stopped}No verdict: {_why(result)}{seen}."
    cases = f"{result.executed:,} cases"
    if result.exit_code == 1:
        return f"{stopped}Failures: {result.failed:,} of {cases}{seen}."
    return f"{stopped}Clean: no failure in {cases}{seen}."


def _why(result: NightResult) -> str:
    if result.errors or result.faulty or result.lost:
        return "the tool could not do its job, see the errors above"
    if not result.executed:
        return "no case was executed"
    return f"{_count(len(result.missed), 'promised cell')} not hit"


def print_merge(console: Console, result: MergeResult) -> None:
    """A line for each shard, what is missing, and the verdict."""
    for shard in result.shards:
        what = f"{shard.executed:,} cases, {shard.failed:,} failing"
        if shard.state == "whole":
            known = "" if shard.new else ", known already"
            _say(console, f"merged {shard.name}: {what}{known}")
        else:
            some = f" (merged: {what})" if shard.run else ""
            _say(console, f"{shard.state.upper()} {shard.name}: {shard.why}{some}", style=STYLES[2])
    for name in result.missing:
        _say(console, f"MISSING shard {name}", style=STYLES[2])
    for note in result.notes:
        _say(console, f"note   {note}", style="yellow")
    for error in result.errors:
        _say(console, f"ERROR  {error}", style=STYLES[2])
    _say(console, merge_verdict(result), style=STYLES[result.exit_code])


def merge_verdict(result: MergeResult) -> str:
    """One line that says how it ended."""
    whole = [shard for shard in result.shards if shard.state == "whole"]
    count = max((shard.count for shard in result.shards), default=0)
    cases = f"{result.failed:,} of {result.executed:,} cases fail"
    if result.exit_code == 2:
        if result.missing or result.errors or len(whole) < len(result.shards):
            return f"Not whole: {len(whole)} of {count or len(result.shards)} shards; {cases}."
        return f"No verdict: a shard ended with exit code 2; {cases}."
    if result.exit_code == 1:
        return f"Failures: {cases}, in {_count(len(whole), 'shard')}."
    return f"Clean: no failure in {result.executed:,} cases of {_count(len(whole), 'shard')}."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _say(console: Console, line: str, *, style: str = "") -> None:
    console.print(Text(line, style=style), soft_wrap=True)
