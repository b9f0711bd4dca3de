"""Which row widths were tried, where kernels go wrong: at powers of two and block borders."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from markupsafe import Markup

from fuzz.jobs.totals import CellSum, Width
from fuzz.pages import svg, words
from fuzz.pages.grid import Field, field_of

BANDS = 8
"""Columns of the picture for a factor of two."""

SINGLE = 16
"""Widths up to here have a column each."""

LEFT, RIGHT = 44.0, 18.0
TOP, UPPER, LOWER, BOTTOM = 16.0, 62.0, 46.0, 30.0
"""Heights: above, of largest error/bound, of the number of cases, below."""

MIDDLE = 12.0
"""Between the two parts."""

LEAST, MOST = -1, 4
"""Decades of error/bound that are shown; others lie at the ends."""

BORDERS = (
    "< block - 1",
    "block - 1",
    "block",
    "block + 1",
    "k·block - 1",
    "k·block",
    "k·block + 1",
    "other tail",
    "no block",
)
"""How a width lies against its block; k is 2 or more."""


Key = TypeVar("Key")
Sums = dict[Key, CellSum]


@dataclass(frozen=True)
class Coverage:
    """One target: its picture, its bands, and its widths against their blocks."""

    target: str
    picture: Markup
    bands: int
    untried: int
    borders: tuple[Field, ...]


def coverages(widths: Mapping[Width, CellSum], targets: Sequence[str]) -> list[Coverage]:
    """The coverage of each of these targets that has widths, on one axis."""
    bands: dict[str, Sums[int]] = {}
    borders: dict[str, Sums[str]] = {}
    end = 1
    for (target, n_cols, block), sums in widths.items():
        if target in targets and n_cols > 0 and sums.executed:
            end = max(end, n_cols)
            bands.setdefault(target, {}).setdefault(band_of(n_cols), CellSum()).merge(sums)
            of = borders.setdefault(target, {})
            of.setdefault(border_of(n_cols, block), CellSum()).merge(sums)
    most = max((s.executed for of in bands.values() for s in of.values()), default=1)
    tallest = max((s.executed for of in borders.values() for s in of.values()), default=0)
    due = {band_of(width) for width in (*range(1, min(SINGLE - 1, end) + 1), *_starts(end))}
    return [
        Coverage(
            target,
            _draw(target, bands[target], end, most),
            len(due),
            len(due - set(bands[target])),
            _fields(borders[target], tallest),
        )
        for target in targets
        if target in bands
    ]


def band_of(n_cols: int) -> int:
    """The column of a width: its own up to SINGLE, then BANDS for each factor of two."""
    if n_cols <= SINGLE:
        return n_cols
    return SINGLE + math.floor(BANDS * math.log2(n_cols / SINGLE))


def start_of(band: int) -> float:
    """The width at which a column begins."""
    return float(band) if band <= SINGLE else SINGLE * 2 ** ((band - SINGLE) / BANDS)


def border_of(n_cols: int, block: int | None) -> str:
    """How a width lies against its block."""
    if block is None:
        return "no block"
    times, rest = divmod(n_cols, block)
    if rest == 0:
        return "block" if times == 1 else "k·block"
    if rest == block - 1:
        return "block - 1" if times == 0 else "k·block - 1"
    if times == 0:
        return "< block - 1"
    if rest == 1:
        return "block + 1" if times == 1 else "k·block + 1"
    return "other tail"


def _fields(borders: Sums[str], most: int) -> tuple[Field, ...]:
    """A field for each of BORDERS; a target with one block a row has no widths beyond it."""
    groups = (BORDERS[:3], BORDERS[3:8], BORDERS[8:])
    due = {name for group in groups if any(name in borders for name in group) for name in group}
    whole = CellSum()
    for sums in borders.values():
        whole.merge(sums)
    usual = whole.failed / max(whole.executed, 1)
    return tuple(
        field_of(name, borders.get(name), most, usual) if name in due else Field("none")
        for name in BORDERS
    )


def _starts(end: int) -> Iterable[int]:
    """The least width of each column from SINGLE on."""
    for band in range(SINGLE, band_of(end) + 1):
        width = math.ceil(start_of(band))
        # Narrow columns hold no integer.
        if band_of(width) == band:
            yield width


def _draw(target: str, bands: dict[int, CellSum], end: int, most: int) -> Markup:
    axis = svg.LogAxis(1.0, start_of(band_of(end) + 1), LEFT, svg.WIDTH - RIGHT)
    height = svg.LogAxis(10.0**LEAST, 10.0**MOST, TOP + UPPER, TOP)
    base = TOP + UPPER + MIDDLE + LOWER
    # Powers of two, those of four with their names.
    parts = []
    for power in range(end.bit_length()):
        x = axis.at(2.0**power)
        parts.append(svg.line(x, TOP, x, base, "border" if power % 2 else "border strong"))
    good: list[tuple[float, float]] = []
    bad: list[tuple[float, float]] = []
    tried: list[tuple[float, float, float, float]] = []
    failed: list[tuple[float, float, float, float]] = []
    for band, count in sorted(bands.items()):
        first, last = axis.at(start_of(band)), axis.at(start_of(band + 1))
        where = bad if count.failed else good
        where.append(((first + last) / 2, height.at(max(count.worst, 10.0**LEAST))))
        tall = LOWER * math.log10(1 + count.executed) / math.log10(1 + most)
        bars = failed if count.failed else tried
        bars.append((first, base - tall, max(last - first - 0.4, 0.6), tall))
    parts += [
        svg.line(LEFT, height.at(1.0), svg.WIDTH - RIGHT, height.at(1.0), "bound"),
        svg.line(LEFT, base, svg.WIDTH - RIGHT, base, "base"),
        svg.boxes(tried, "last"),
        svg.boxes(failed, "last bad"),
        svg.dots(good, "dots"),
        svg.dots(bad, "dots bad"),
        svg.text(LEFT - 5, height.at(1.0) + 4, "bound", "e"),
        svg.text(LEFT - 5, TOP + 6, f"≥ {svg.decade(MOST)}", "e"),
        svg.text(LEFT, TOP - 6, "largest error/bound"),
        svg.text(LEFT - 5, base, "cases", "e"),
        svg.text(LEFT - 5, base - LOWER + 9, words.short(most), "e"),
    ]
    powers = range(0, end.bit_length(), 4)
    for power in powers:
        x = axis.at(2.0**power)
        parts.append(svg.text(x, base + 12, words.number(2**power), "m"))
    parts.append(svg.text((LEFT + svg.WIDTH - RIGHT) / 2, base + 25, "n_cols, powers of 2", "m"))
    return svg.picture(base + BOTTOM, _title(target, bands), *parts)


def _title(target: str, bands: dict[int, CellSum]) -> str:
    cases = sum(count.executed for count in bands.values())
    failed = [band for band, count in bands.items() if count.failed]
    said = f"Widths of {target}: {words.plural(cases, 'case')} in {len(bands)} bands"
    if failed:
        first, last = start_of(min(failed)), start_of(max(failed) + 1)
        said += f", failures from n_cols {words.number(math.ceil(first))}"
        said += f" to below {words.number(math.ceil(last))}"
    return said
