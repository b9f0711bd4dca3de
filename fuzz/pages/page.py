"""The page: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import datetime
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fuzz.pages import coverage, grid, spread, trend, words
from fuzz.pages.data import PageData, read
from fuzz.pages.failures import MOST_NAME, Failures, failures_of
from fuzz.pages.nights import Night

TEMPLATES = Path(__file__).parent / "templates"

MAX_BYTES = 2_000_000
"""A page that is larger is made again with fewer targets."""

MOST_TARGETS = (20, 10, 5, 2)
"""Targets that have charts: beyond, the page would be one for nobody. Then, what it is cut to."""

MOST_OUTPUTS = 40
"""Charts of a target's output."""

MOST_DTYPES = 4
"""Strips of such a chart."""

MOST_NIGHTS = 30
"""Rows of the table of nights."""

MOST_NOTES = 8
"""Of the last night; the table of nights has MOST_BRIEF of each."""

MOST_BRIEF = 2

MOST_NOTE = 300
"""Characters of a note."""


@dataclass(frozen=True)
class Verdict:
    """The first thing that a reader reads. ``state`` is good, bad, or doubt: nothing was found,
    but something went wrong."""

    state: str
    line: str
    scope: str
    last: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """What is another than the night before."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Strip:
    """The numbers behind one strip of a histogram."""

    output: str
    dtype: str
    cases: str
    quantiles: tuple[str, ...]
    largest: str
    beyond: int


@dataclass(frozen=True)
class Distribution:
    """An output of a target: its histograms and their numbers."""

    target: str
    output: str
    picture: Markup
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class NightRow:
    """A night of the table."""

    started: str
    kind: str
    shards: str
    duration: str
    cases: str
    failed: int
    skipped: str
    faulty: int
    rate: str
    outcome: str
    device: str
    revision: str
    seeds: str
    notes: tuple[str, ...]


def write_report(history: Path, path: Path, *, now: datetime.datetime | None = None) -> str:
    """Write the page of a history, and return its verdict in one line.

    Raises: UsageError where there is no history or no place to write to, HistoryError for a
    history that cannot be read.
    """
    data = read(history)
    text = render(data, now or datetime.datetime.now(datetime.UTC))
    # Whoever reads the page while it is written sees the one before.
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=".", suffix=".tmp", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    written = Path(file.name)
    # A temporary file is its owner's alone; a report is for everyone whom the folder lets in.
    written.chmod(0o644)
    written.replace(path)
    return verdict_of(data, failures_of(data)).line


def render(data: PageData, now: datetime.datetime) -> str:
    """The text of the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Escaping alone does not make control characters text.
        finalize=lambda value: words.clean(value) if type(value) is str else value,
    )
    template = environment.get_template("page.html.jinja")
    whole = _whole(data, now)
    found = spread.histograms(data.spread, data.last_spread)
    text = ""
    for most in MOST_TARGETS:
        text = template.render({**whole, **_by_target(data, found, data.targets[:most])})
        if len(text.encode("utf-8")) < MAX_BYTES:
            break
    return text


def _whole(data: PageData, now: datetime.datetime) -> dict[str, Any]:
    """What the page shows of the history as a whole."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    failures = failures_of(data)
    return {
        "style": Markup(style),
        "script": Markup(script),
        "policy": _policy(style, script),
        "written": words.minute(now.isoformat()),
        "verdict": verdict_of(data, failures),
        "tiles": _tiles(data, failures),
        "changes": changes_of(data),
        "failures": failures,
        "charts": trend.charts(data),
        "nights": [_night_row(night) for night in data.nights[: -MOST_NIGHTS - 1 : -1]],
        "nights_left_out": max(0, len(data.nights) - MOST_NIGHTS),
        "nights_drawn": min(len(data.nights), trend.SHOWN),
        "environment": _environment(data.nights[-1]) if data.nights else {},
        "name": lambda text: words.clipped(text, MOST_NAME),
    }


def _by_target(
    data: PageData, found: list[spread.Histogram], targets: tuple[str, ...]
) -> dict[str, Any]:
    """What the page shows of these targets."""
    of_these = [histogram for histogram in found if histogram.target in targets]
    distributions = _distributions(of_these, targets, spread.scale_of(found))
    shown = sum(len(one.strips) for one in distributions)
    return {
        "targets": targets,
        "targets_left_out": len(data.targets) - len(targets),
        "distributions": distributions,
        "distributions_left_out": len(of_these) - shown,
        "cells": grid.cells_of(data.cells, targets),
        "coverages": coverage.coverages(data.widths, targets),
        "borders": coverage.BORDERS,
    }


def verdict_of(data: PageData, failures: Failures) -> Verdict:
    """What the page says first."""
    if not data.nights:
        return Verdict("doubt", "No night yet", "The history is empty.", "", ())
    warnings = _warnings(data.nights[-1])
    if failures.n_open:
        new = f", {words.number(failures.n_new)} of them new" if failures.n_new else ""
        if failures.n_new == failures.n_open:
            new = ", new" if failures.n_open == 1 else ", all new"
        line = f"{words.plural(failures.n_open, 'open failure')}{new}"
        state = "bad"
    else:
        line = "No open failure"
        state = "doubt" if warnings else "good"
    return Verdict(state, line, _scope(data), _last(data.nights[-1]), warnings)


def _scope(data: PageData) -> str:
    """What the history is of."""
    kinds = [night.kind for night in data.nights]
    n_nights = kinds.count("night")
    parts = [words.plural(n_nights, "night")] if n_nights else []
    if n_nights < len(kinds):
        parts.append(words.plural(len(kinds) - n_nights, "other run" if n_nights else "run"))
    cases = sum(night.executed for night in data.nights)
    since = words.day(data.nights[0].started)
    return f"{' and '.join(parts)} since {since}, {words.plural(cases, 'case')}"


def _last(night: Night) -> str:
    """How the last night went."""
    workers = sum(run.workers for run in night.runs)
    where = words.listed(night.devices, 2)
    shards = f", {words.plural(len(night.runs), 'shard')}" if night.shards > 1 else ""
    failed = f"{words.number(night.failed)} failing" if night.failed else "none failing"
    name = "Last night" if night.kind == "night" else f"Last run ({night.kind})"
    return (
        f"{name}, {words.minute(night.started)}: {words.plural(night.executed, 'case')}, {failed}, "
        f"in {words.duration(night.seconds)} on {where or 'an unknown device'} with "
        f"{words.plural(workers, 'runner')}{shards}"
    )


def _warnings(night: Night) -> tuple[str, ...]:
    """What makes the last night worth less than it looks."""
    found = []
    if night.outcome == "running":
        found.append("It has not ended: this is what it has done so far.")
    elif night.outcome != "ended":
        found.append(f"It was {night.outcome} before its end; what it had judged counts.")
    if night.missing:
        found.append(f"{night.missing} of {words.plural(night.shards, 'shard')} did not report.")
    if not night.executed:
        found.append("No case was executed.")
    if night.faulty:
        found.append(f"{words.plural(night.faulty, 'error')} of the tool itself; see its journals.")
    found += _noted([note for run in night.runs for note in run.notes], MOST_NOTES)
    return tuple(found)


def _noted(notes: list[str], most: int) -> list[str]:
    """The first notes, and how many there are beside them."""
    shown = [words.clipped(note, MOST_NOTE) for note in notes[:most]]
    left_out = len(notes) - len(shown)
    return [*shown, f"{words.plural(left_out, 'more note')}"] if left_out else shown


def _tiles(data: PageData, failures: Failures) -> list[tuple[str, str, str]]:
    """Name, number and what it means, of the numbers that matter."""
    if not data.nights:
        return []
    last = data.nights[-1]
    tried = sum(1 for sums in data.cells.values() if sums.executed)
    known = len(data.cells)
    speed = trend.speed(last)
    before = trend.speed(data.nights[-2]) if len(data.nights) > 1 else 0.0
    change = f"{100 * (speed / before - 1):+.0f} % on the night before" if before else "cases/s"
    return [
        ("Open failures", words.number(failures.n_open), f"{failures.n_fixed} fixed before"),
        ("Cases last night", words.number(last.executed), f"{words.number(last.failed)} failing"),
        ("Cases per second", trend.spoken(speed), change),
        ("Feature cells tried", words.share(tried, known), f"{tried:,} of {known:,} known"),
    ]


def changes_of(data: PageData) -> list[Change]:
    """What is new in the last night's surroundings."""
    if len(data.nights) < 2:
        return []
    before, after = data.nights[-2], data.nights[-1]
    pairs = [("revision", _revisions(before), _revisions(after))]
    pairs.append(("device", words.listed(before.devices, 2), words.listed(after.devices, 2)))
    for name in {**before.versions, **after.versions}:
        pairs.append((name, before.versions.get(name, ""), after.versions.get(name, "")))
    return [
        Change(name, old or words.NOTHING, new or words.NOTHING)
        for name, old, new in pairs
        if old != new
    ]


def _revisions(night: Night) -> str:
    return words.listed(map(words.revision, night.revisions), 2)


def _distributions(
    found: list[spread.Histogram], targets: tuple[str, ...], scale: spread.Scale
) -> tuple[Distribution, ...]:
    strips: dict[tuple[str, str], list[spread.Histogram]] = {}
    for histogram in found:
        strips.setdefault((histogram.target, histogram.output), []).append(histogram)
    order = sorted(strips, key=lambda key: (targets.index(key[0]), key[1] != "y", key[1]))
    return tuple(
        Distribution(
            target,
            output,
            spread.draw(strips[target, output][:MOST_DTYPES], scale),
            tuple(_strip(h) for h in strips[target, output][:MOST_DTYPES]),
        )
        for target, output in order[:MOST_OUTPUTS]
    )


def _strip(histogram: spread.Histogram) -> Strip:
    return Strip(
        histogram.output,
        histogram.dtype,
        words.number(histogram.cases),
        tuple(words.ratio(histogram.quantile(part)) for part in spread.QUANTILES),
        words.ratio(histogram.largest),
        histogram.beyond,
    )


def _night_row(night: Night) -> NightRow:
    return NightRow(
        started=words.minute(night.started),
        kind=night.kind,
        shards=f"{len({run.shard for run in night.runs})} of {night.shards}",
        duration=words.duration(night.seconds),
        cases=words.number(night.executed),
        failed=night.failed,
        skipped=words.number(night.skipped),
        faulty=night.faulty,
        rate=trend.spoken(trend.speed(night)),
        outcome=night.outcome,
        device=words.listed(night.devices, 2),
        revision=_revisions(night),
        seeds=words.listed((str(run.seed) for run in night.runs), 4),
        notes=tuple(_noted([note for run in night.runs for note in run.notes], MOST_BRIEF)),
    )


def _environment(night: Night) -> dict[str, str]:
    """What ran, by name."""
    seeds = words.listed((str(run.seed) for run in night.runs), 8)
    return {
        "device": words.listed(night.devices, 4) or words.NOTHING,
        "runners": words.number(sum(run.workers for run in night.runs)),
        "revision": words.listed(night.revisions, 2) or words.NOTHING,
        "seed" if len(night.runs) == 1 else "seeds": seeds,
        **night.versions,
    }


def _policy(style: str, script: str) -> str:
    """What a browser may load and run: the page's own style and script, by their digests."""

    def digest(text: str) -> str:
        found = hashlib.sha256(text.encode()).digest()
        return f"'sha256-{base64.b64encode(found).decode()}'"

    return (
        f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
