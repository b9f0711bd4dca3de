"""What the gate prints; the last line is the one to read first."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.text import Text

from fuzz.gating import wording
from fuzz.gating.outcome import Affected, CompileReport, GateFinding, GateResult

MOST_OUT = 4
"""Targets left out that have a line each; more are summed up by their reason."""

MOST_OF_A_KIND = 10
"""Findings of one kind that are shown whole; a kernel that is wrong everywhere has many more."""

MOST_CONCERNS = 8
"""Kernels that spill which have a line each."""

STYLES = {0: "bold green", 1: "bold red", 2: "bold magenta"}
"""Of the verdict, by exit code."""


def print_gate(console: Console, result: GateResult) -> None:
    """Targets, plan, findings, what compiling gave, notes, errors; and the verdict."""
    _say(console, f"head   {result.head}\nbase   {result.base}")
    surroundings = wording.surroundings(result)
    if surroundings:
        _say(console, f"on     {surroundings}")
    _print_targets(console, result.affected)
    _say(console, f"plan   {wording.plan(result)}")
    if result.regressions:
        _say(console, f"stored {wording.number(result.regressions, 'failure')} replayed")
    for _, group in groupby(wording.ordered(result.findings), key=lambda f: f.kind):
        for number, finding in enumerate(group):
            _print_finding(console, finding, result, brief=number >= MOST_OF_A_KIND)
    if result.compiled is not None:
        print_compiled(console, result.compiled)
    for note in result.notes:
        _say(console, f"note   {note}", style="yellow")
    for error in result.errors:
        _say(console, f"ERROR  {error}", style="bold magenta")
    if result.seconds:
        _say(console, f"took   {result.seconds:.0f} s; files: {result.out}")
    _say(console, wording.verdict(result), style=STYLES[result.exit_code])


def _print_targets(console: Console, affected: tuple[Affected, ...]) -> None:
    out = [target for target in affected if not target.included]
    summed = len(out) > MOST_OUT
    shown = [target for target in affected if target.included] + ([] if summed else out)
    width = max((len(target.target) for target in shown), default=0)
    for target in shown:
        where = "in " if target.included else "out"
        _say(console, f"{where}    {target.target:<{width}}  {target.reason}")
    if summed:
        for reason, names in wording.left_out(affected).items():
            _say(console, f"out    {wording.number(len(names), 'target')}: {reason}")


def _print_finding(
    console: Console, finding: GateFinding, result: GateResult, *, brief: bool
) -> None:
    command = wording.replay_command(finding, result.store)
    replay = f"replay: {command}" if command else ""
    if brief:
        _say(console, "  ".join(filter(None, (f"also {finding.signature}", replay))))
        return
    lines = Text()
    style = "bold red" if finding.blocks else "bold green" if finding.kind == "fixed" else "yellow"
    # Seen without colours too.
    kind = finding.kind.upper() if finding.blocks else finding.kind
    lines.append(f"{kind} ", style=style)
    lines.append(finding.signature, style="bold")
    details = (
        finding.message,
        finding.case,
        finding.detail,
        f"at {finding.place}" if finding.place is not None else "",
        replay,
    )
    for detail in filter(None, details):
        lines.append(f"\n  {detail}")
    console.print(lines, soft_wrap=True)


def print_compiled(console: Console, report: CompileReport) -> None:
    """What compiling gave: a summary, and the kernels that fail or spill."""
    _say(console, f"compiled {wording.compiled(report)}")
    concerns = wording.concerns(report)
    for concern in concerns[:MOST_CONCERNS]:
        place = f", at {concern.place}" if concern.place is not None else ""
        _say(console, f"  {concern.message}{place}", style="yellow")
    if len(concerns) > MOST_CONCERNS:
        _say(console, f"  and {len(concerns) - MOST_CONCERNS:,} more like these", style="yellow")
    for error in report.errors:
        _say(console, f"  ERROR {error}", style="bold magenta")


def _say(console: Console, line: str, *, style: str = "") -> None:
    console.print(Text(line, style=style), soft_wrap=True)
