"""The gate's result as workflow commands: GitHub Actions shows them at lines of the sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fuzz.gating import wording
from fuzz.gating.outcome import GateFinding, GateResult, Place

MOST = 10
"""Of errors, and of warnings, that GitHub shows of one step."""

TITLE = "ln-fuzz gate"

Level = Literal["error", "warning"]


def workflow_commands(result: GateResult) -> list[str]:
    """Workflow commands, one a line: errors for what blocks, warnings for what should be seen.

    At most MOST of either; the last of them then says how many there are besides.
    """
    errors = [_command("error", TITLE, error) for error in result.errors]
    warnings = []
    for finding in wording.ordered(result.findings):
        title = f"{TITLE}: {finding.kind} in {finding.target}"
        if finding.blocks:
            errors.append(_command("error", title, _words(finding, result), finding.place))
        elif finding.kind in ("pre-existing", "spills more"):
            warnings.append(_command("warning", title, _words(finding, result), finding.place))
    warnings += [_command("warning", TITLE, note) for note in result.notes]
    if result.compiled is not None:
        for concern in wording.concerns(result.compiled):
            title = f"{TITLE}: {concern.kernel.target} on {concern.kernel.gpu}"
            warnings.append(_command("warning", title, concern.message, concern.place))
    return _capped("error", errors) + _capped("warning", warnings)


def _words(finding: GateFinding, result: GateResult) -> str:
    command = wording.replay_command(finding, result.store)
    replay = f"replay: {command}" if command else ""
    return "\n".join(filter(None, (finding.message, finding.case, finding.detail, replay)))


def _capped(level: Level, commands: Sequence[str]) -> list[str]:
    if len(commands) <= MOST:
        return list(commands)
    left = len(commands) - (MOST - 1)
    words = f"{left:,} more {level}s are in the summary of this job"
    return [*commands[: MOST - 1], _command(level, TITLE, words)]


def _command(level: Level, title: str, message: str, place: Place | None = None) -> str:
    properties = {"title": title}
    if place is not None:
        properties = {"file": place.file, "line": str(place.line), **properties}
    told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level} {told}::{_data(message)}"


def _data(text: str) -> str:
    # The percent sign first, because the others are written with it.
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
