"""How the nights went, one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fuzz.pages import svg, words
from fuzz.pages.data import PageData
from fuzz.pages.nights import Night

SHOWN = 60
"""Nights of a picture: more would be thinner than a line."""

LEFT, RIGHT = 42.0, 6.0
TOP, HEIGHT, BOTTOM = 12.0, 84.0, 18.0

WIDEST = 24.0
"""Of a bar."""

PART, PART_LEFT, PART_RIGHT = 18.0, 70.0, 60.0
"""Height of a bar of the time's parts, and the room beside it."""

LEAST, MOST = -2, 6
"""Decades of error/bound; what lies outside is drawn at the ends."""


@dataclass(frozen=True)
class Chart:
    """A picture and its name."""

    name: str
    picture: Markup


def charts(data: PageData) -> list[Chart]:
    """How the last nights went, and what the time of the last one went into."""
    shown = data.nights[-SHOWN:]
    if not shown:
        return []
    n_open = _open_after(data)[-SHOWN:]
    found = [
        ("Cases", _bars(shown, [night.executed for night in shown], words.short)),
        ("Failing cases", _bars(shown, [n.failed for n in shown], words.short, bad=True)),
        ("Open failures", _bars(shown, n_open, words.short, bad=True)),
        ("Largest error/bound, float32", _ratios(shown, data.largest)),
        ("Cases per second", _bars(shown, [speed(night) for night in shown], spoken)),
    ]
    if seconds := {part: spent for part, spent in shown[-1].part_seconds.items() if spent}:
        found.append(("Where the runners' time went last", _parts(seconds)))
    return [Chart(name, picture) for name, picture in found]


def _open_after(data: PageData) -> list[int]:
    """How many failures were open after each night, as far as is known now: one that passed and
    came back counts as open all the time."""
    place = {run.id: i for i, night in enumerate(data.nights) for run in night.runs}
    counts = [0] * len(data.nights)
    for failure in data.failures:
        first = place.get(failure.first_run, 0)
        end = len(counts) if failure.fixed_run is None else place.get(failure.fixed_run, first)
        for i in range(first, end):
            counts[i] += 1
    return counts


def speed(night: Night) -> float:
    """Cases a second: shards run side by side."""
    return sum(run.executed / run.seconds for run in night.runs if run.seconds)


def spoken(value: float) -> str:
    """A speed in few characters."""
    return words.short(value) if value >= 10 else f"{value:.2g}"


def _parts(seconds: Mapping[str, float]) -> Markup:
    """What the runners' time went into: a bar for each part."""
    total = sum(seconds.values())
    room = svg.WIDTH - PART_LEFT - PART_RIGHT
    pieces = []
    for number, (part, spent) in enumerate(seconds.items()):
        y = PART * number
        length = max(room * spent / total, 1.0)
        pieces += [
            svg.text(PART_LEFT - 6, y + 13, part, "e"),
            svg.boxes([(PART_LEFT, y + 3, length, PART - 6)], "last"),
            svg.text(PART_LEFT + length + 6, y + 13, words.share(spent, total)),
        ]
    said = ", ".join(f"{part} {words.share(spent, total)}" for part, spent in seconds.items())
    return svg.picture(PART * len(seconds) + 4, said, *pieces)


def _bars(
    nights: Sequence[Night],
    values: Sequence[float],
    said: Callable[[float], str],
    *,
    bad: bool = False,
) -> Markup:
    top = nice(max(values))
    base = TOP + HEIGHT
    parts = [*_frame(nights), *_scale([(0.0, "0"), (0.5, said(top / 2)), (1.0, said(top))])]
    step = _step(nights)
    width = min(WIDEST, 0.7 * step)
    bars = [
        (_middle(i, step) - width / 2, base - HEIGHT * value / top, width, HEIGHT * value / top)
        for i, value in enumerate(values)
        if value
    ]
    parts.append(svg.boxes(bars, "last bad" if bad else "last"))
    title = _sequence(nights, [said(value) for value in values])
    return svg.picture(base + BOTTOM, title, *parts)


def _ratios(nights: Sequence[Night], largest: Mapping[str, float]) -> Markup:
    # Half-precision results peak at 1 whatever the kernel: they would hide all else.
    values = [
        max((largest[run.id] for run in night.runs if run.id in largest), default=None)
        for night in nights
    ]
    known = [value for value in values if value is not None]
    # The bound is always in it, and room above.
    top = min(max(_decades(max(known, default=0.0)), 1), MOST)
    axis = svg.LogAxis(10.0**LEAST, 10.0**top, TOP + HEIGHT, TOP)
    step = _step(nights)
    points = [
        (_middle(i, step), axis.at(value), value)
        for i, value in enumerate(values)
        if value is not None
    ]
    ticks = {LEAST: f"≤ {svg.decade(LEAST)}", 0: "bound", top: f"≥ {svg.decade(top)}"}
    marks = [(_share(axis, 10.0**exponent), name) for exponent, name in ticks.items()]
    bound = axis.at(1.0)
    parts = [
        *_frame(nights),
        *_scale(marks),
        svg.line(LEFT, bound, svg.WIDTH - RIGHT, bound, "bound"),
        svg.polyline([(x, y) for x, y, _ in points], "trend"),
        svg.dots([(x, y) for x, y, value in points if value <= 1], "dots large good"),
        svg.dots([(x, y) for x, y, value in points if value > 1], "dots large bad"),
    ]
    said = [words.NOTHING if value is None else words.ratio(value) for value in values]
    return svg.picture(TOP + HEIGHT + BOTTOM, _sequence(nights, said), *parts)


def _decades(value: float) -> int:
    return MOST if math.isinf(value) else math.ceil(math.log10(max(value, 1e-9)))


def _share(axis: svg.LogAxis, value: float) -> float:
    return (axis.at(value) - axis.first) / (axis.last - axis.first)


def _sequence(nights: Sequence[Night], said: Sequence[str]) -> str:
    return ", ".join(
        f"{words.day(night.started)} {value}" for night, value in zip(nights, said, strict=True)
    )


def _step(nights: Sequence[Night]) -> float:
    return (svg.WIDTH - LEFT - RIGHT) / len(nights)


def _middle(index: int, step: float) -> float:
    return LEFT + (index + 0.5) * step


def _frame(nights: Sequence[Night]) -> list[Markup]:
    """The base line, and the dates of the first and last night."""
    base = TOP + HEIGHT
    step = _step(nights)
    parts = [svg.line(LEFT, base, svg.WIDTH - RIGHT, base, "base")]
    # A date is about as wide as this many units.
    every = max(1, math.ceil(40 / step))
    for i in range(len(nights) - 1, -1, -every):
        parts.append(svg.text(_middle(i, step), base + 13, words.day(nights[i].started), "m"))
    return parts


def _scale(marks: Sequence[tuple[float, str]]) -> list[Markup]:
    parts = []
    for share, name in marks:
        y = TOP + HEIGHT * (1 - share)
        if share:
            parts.append(svg.line(LEFT, y, svg.WIDTH - RIGHT, y, "grid"))
        parts.append(svg.text(LEFT - 5, y + 4, name, "e"))
    return parts


def nice(value: float) -> float:
    """A round number that is not smaller, of which the half is round too."""
    if value <= 0:
        return 2.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 4, 6, 8, 10, 20) if power * step >= value)
