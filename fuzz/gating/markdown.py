"""The gate's result as Markdown, for the summary page of a GitHub Actions job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fuzz.gating import wording
from fuzz.gating.outcome import GateFinding, GateResult
from fuzz.jobs.markdown import code, plain, size

MAX_BYTES = 60_000
"""Of the page. GitHub refuses a step's summary of more than 1 MiB, and nobody reads that much."""

SPARE_ROW = 200
"""Bytes that a section keeps for the line that says what was left out."""


@dataclass(frozen=True)
class _Section:
    """A part of the page, whose rows may be too many for it. ``share``: of the page, at least."""

    share: float
    title: str
    heading: Sequence[str]
    rows: Sequence[str]


def markdown(result: GateResult) -> str:
    """The page, the verdict first; at most MAX_BYTES of UTF-8."""
    facts = [
        f"{result.head} against {result.base}",
        f"Plan {wording.plan(result)}",
        wording.surroundings(result),
    ]
    if result.regressions:
        facts.append(f"{wording.number(result.regressions, 'stored failure')} replayed")
    # Two spaces at the end of a line are a break.
    lines = [f"## ln-fuzz gate: {plain(wording.verdict(result))}", ""]
    page = "\n".join(lines + [f"{plain(fact)}  " for fact in facts if fact]) + "\n"
    whole = MAX_BYTES - size(page)
    room = 0.0
    for section in _sections(result):
        # What one leaves over is the next one's.
        room += section.share * whole
        text = _fitted(section, room)
        room -= size(text)
        page += text
    return page


def _sections(result: GateResult) -> list[_Section]:
    findings = wording.ordered(result.findings)
    blocking = [_finding_row(f, result) for f in findings if f.blocks]
    others = [_finding_row(f, result) for f in findings if not f.blocks]
    heading = _heading("", "Finding", "Case", "Place", "Replay")
    sections = [
        _Section(0.2, "Errors", (), [f"- {plain(error)}" for error in result.errors]),
        _Section(0.4, "Blocking", heading, blocking),
        _Section(0.1, "Notes", (), [f"- {plain(note)}" for note in result.notes]),
        _Section(0.1, "Targets", _heading("Target", "", "Why"), _target_rows(result)),
        _Section(0.1, "Not blocking", heading, others),
    ]
    if result.compiled is not None:
        report = result.compiled
        rows = [f"- {plain(wording.compiled(report))}"]
        rows += [f"- {plain(error)}" for error in report.errors]
        rows += [
            f"- {plain(concern.message)} {code(concern.place)}".rstrip()
            for concern in wording.concerns(report)
        ]
        sections.append(_Section(0.1, "Compiled", (), rows))
    return sections


def _target_rows(result: GateResult) -> list[str]:
    rows = [_row(plain(t.target), "in", plain(t.reason)) for t in result.affected if t.included]
    for reason, names in wording.left_out(result.affected).items():
        rows.append(_row(plain(", ".join(names)), "out", plain(reason)))
    return rows


def _finding_row(finding: GateFinding, result: GateResult) -> str:
    said = [f"<b>{plain(finding.signature)}</b>", plain(finding.message), plain(finding.detail)]
    return _row(
        plain(finding.kind),
        "<br>".join(filter(None, said)),
        plain(finding.case),
        code(finding.place),
        code(wording.replay_command(finding, result.store)),
    )


def _fitted(section: _Section, room: float) -> str:
    """A section with as many of its rows as there is room for, and how many there is not."""
    if not section.rows:
        return ""
    text = "\n".join(["", f"### {section.title}", "", *section.heading, ""])
    room -= size(text) + SPARE_ROW
    rows = []
    for row in section.rows:
        room -= size(row) + 1
        if room < 0:
            break
        rows.append(row)
    left = len(section.rows) - len(rows)
    text += "".join(f"{row}\n" for row in rows)
    return text + (f"\n{left:,} more left out here; the JUnit file has them all.\n" if left else "")


def _heading(*cells: str) -> tuple[str, str]:
    return _row(*cells), _row(*("---" for _ in cells))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
