"""Faults by judges as a picture: found early, late, with some seeds only, or not at all."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from fuzz.jobs.setup import UsageError
from fuzz.power.results import Attempt, Measured
from fuzz.power.summary import by_class, percentile, worst

EARLY = 5
"""Cases up to which a fault counts as found early: what a glance at a campaign takes."""

Grade = Literal["early", "late", "some seeds", "not found"]

# Of Okabe and Ito's palette, which readers with any colour vision tell apart; they also differ in
# lightness, and the number in each field says the same.
COLOURS: dict[Grade, str] = {
    "early": "#009E73",
    "late": "#F0E442",
    "some seeds": "#E69F00",
    "not found": "#FFFFFF",
}

ROW, COLUMN = 0.22, 1.25
"""Inches of a field."""

MARGINS = (4.2, 1.6)
"""Inches for the names of classes and faults, and for headings and legend."""


def check_plots() -> None:
    """Fail early where no picture can be made.

    Raises: UsageError.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "picture: needs matplotlib, which is not installed; pip install 'ln-fuzz[plots]'"
        )


def grade(attempts: Sequence[Attempt]) -> Grade:
    """How well a judge found a fault: as its worst seed did."""
    if not any(attempt.found for attempt in attempts):
        return "not found"
    most = worst(attempts)
    if math.isinf(most):
        return "some seeds"
    return "early" if most <= EARLY else "late"


def draw(measured: Sequence[Measured], judges: Sequence[str], title: str, path: Path) -> None:
    """Write the picture, in the format that the name of the file asks for.

    Raises: UsageError where there is nothing to draw, or for a format that is not known.
    """
    check_plots()
    from matplotlib.figure import Figure

    rows = [item for items in by_class(measured).values() for item in items]
    if not rows:
        raise UsageError("picture: no fault was measured, so there is nothing to draw")
    wide, high = MARGINS
    figure: Any = Figure(
        figsize=(wide + COLUMN * len(judges), high + ROW * len(rows)), layout="constrained"
    )
    axes = figure.add_subplot()
    for y, item in enumerate(rows):
        for x, judge in enumerate(judges):
            _field(axes, x, y, item.of(judge))
    axes.set_xlim(-0.5, len(judges) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(judges)), judges)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), [item.fault for item in rows], fontsize=7)
    axes.tick_params(length=0)
    _classes(axes, rows, len(judges))
    axes.set_title(title, fontsize=10)
    _legend(figure)
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise UsageError(f"picture={str(path)!r}: {error}") from error


def _field(axes: Any, x: int, y: int, attempts: Sequence[Attempt]) -> None:
    from matplotlib.patches import Rectangle

    found = grade(attempts)
    axes.add_patch(
        Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=COLOURS[found], edgecolor="#BBBBBB", lw=0.4)
    )
    counts = [float(a.cases) if a.found else math.inf for a in attempts]
    middle = percentile(counts, 50)
    mark = "*" if any(a.refused for a in attempts) else ""
    text = "-" if middle is None else f"{middle}{mark}"
    axes.text(x, y, text, ha="center", va="center", fontsize=7, color="black")


def _classes(axes: Any, rows: Sequence[Measured], width: int) -> None:
    """A line above each class, and its name at the right."""
    first = 0
    for y in range(1, len(rows) + 1):
        if y < len(rows) and rows[y].kind == rows[first].kind:
            continue
        axes.axhline(y - 0.5, color="black", lw=0.8)
        axes.text(
            width - 0.4,
            (first + y - 1) / 2,
            rows[first].kind,
            fontsize=8,
            va="center",
            ha="left",
            clip_on=False,
        )
        first = y


def _legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    words: dict[Grade, str] = {
        "early": f"found, each seed within {EARLY} cases",
        "late": "found with each seed",
        "some seeds": "found with some seeds only",
        "not found": "not found",
    }
    patches = [
        Patch(facecolor=COLOURS[name], edgecolor="#888888", label=text)
        for name, text in words.items()
    ]
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=2,
        fontsize=7,
        title="number: median of the cases to detection; *: the interpreter refused an access",
        title_fontsize=7,
        frameon=False,
    )
