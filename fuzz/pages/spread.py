"""How near to their bounds results come: the distribution of error/bound by output and dtype."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fuzz.history import SpreadSum
from fuzz.jobs.totals import bin_of, upper_end
from fuzz.pages import svg, words

PER_DECADE = 8
"""Columns of a histogram for a factor of ten."""

LEFT, RIGHT = 52.0, 48.0
STRIP = 42.0
EXACT = 9.0
"""Width of the columns of exact results and of infinite ones, which no logarithm places."""

GAP = 4.0
TOP, BOTTOM = 16.0, 30.0

LOWEST, HIGHEST = -4, 6
"""Decades beyond which cases are counted into the last column."""

QUANTILES = (0.5, 0.99, 0.999)


@dataclass(frozen=True)
class Histogram:
    """The cases of one output and dtype by bin, over all nights and of the last one.

    ``largest`` is the largest error/bound over all nights.
    """

    target: str
    output: str
    dtype: str
    bins: dict[int, int]
    last: dict[int, int]
    largest: float

    @property
    def cases(self) -> int:
        """How many there are."""
        return sum(self.bins.values())

    def quantile(self, part: float) -> float:
        """The error/bound that this part of the cases does not exceed."""
        left = math.ceil(part * self.cases)
        for index in sorted(self.bins):
            left -= self.bins[index]
            if left <= 0:
                return min(upper_end(index), self.largest)
        return self.largest

    @property
    def beyond(self) -> int:
        """Cases with an error/bound above 1."""
        return sum(count for index, count in self.bins.items() if index > bin_of(1.0))


@dataclass(frozen=True)
class Scale:
    """The axis that all histograms of a page share: decades from ``low`` to ``high``."""

    low: int
    high: int

    @property
    def columns(self) -> range:
        """The upper ends of the columns, as powers of 10 ** (1 / PER_DECADE)."""
        return range(self.low * PER_DECADE + 1, self.high * PER_DECADE + 1)


def histograms(spread: Iterable[SpreadSum], last: Iterable[SpreadSum]) -> list[Histogram]:
    """The histograms by target, output and dtype."""
    of_last = {(one.target, one.output, one.dtype): one.bins for one in last}
    found = {}
    for one in spread:
        key = (one.target, one.output, one.dtype)
        found[key] = Histogram(*key, one.bins, of_last.get(key, {}), one.largest)
    return [found[key] for key in sorted(found)]


def scale_of(found: Sequence[Histogram]) -> Scale:
    """An axis on which all of them fit, the bound in it."""
    ends = [
        math.log10(end)
        for histogram in found
        for index in histogram.bins
        if 0 < (end := upper_end(index)) < math.inf
    ]
    low = math.floor(min(ends, default=-3)) if ends else -3
    high = math.ceil(max(ends, default=1)) if ends else 1
    return Scale(min(max(low, LOWEST), -1), max(min(high, HIGHEST), 1))


def draw(strips: Sequence[Histogram], scale: Scale) -> Markup:
    """The histograms of one output, a strip for each dtype."""
    axis = _axis(scale)
    bottom = TOP + STRIP * len(strips)
    parts = []
    for exponent in range(scale.low, scale.high + 1):
        x = axis.at(10.0**exponent)
        parts.append(svg.line(x, TOP, x, bottom, "grid"))
    for number, histogram in enumerate(strips):
        parts += _strip(histogram, scale, axis, TOP + STRIP * (number + 1))
    bound = axis.at(1.0)
    parts += [
        svg.line(bound, TOP - 3, bound, bottom + 3, "bound"),
        svg.text(bound, TOP - 6, "bound", "m strong"),
        *_labels(scale, axis, bottom),
    ]
    return svg.picture(bottom + BOTTOM, _title(strips), *parts)


def columns_of(cases: Mapping[int, int], scale: Scale) -> Counter[int]:
    """Cases by column: those below the axis, exact ones among them, in the one before the first,
    infinite ones in the one behind the last."""
    first, last = scale.columns[0], scale.columns[-1]
    counts: Counter[int] = Counter()
    for index, count in cases.items():
        end = upper_end(index)
        if end == 0:
            column = first - 1
        elif math.isinf(end):
            column = last + 1
        else:
            column = min(max(math.ceil(PER_DECADE * math.log10(end)), first), last)
        if count:
            counts[column] += count
    return counts


def _axis(scale: Scale) -> svg.LogAxis:
    return svg.LogAxis(
        10.0**scale.low,
        10.0**scale.high,
        LEFT + EXACT + GAP,
        svg.WIDTH - RIGHT - EXACT - GAP,
    )


def _strip(histogram: Histogram, scale: Scale, axis: svg.LogAxis, base: float) -> list[Markup]:
    all_of = columns_of(histogram.bins, scale)
    last = columns_of(histogram.last, scale)
    tallest = math.log10(1 + max(all_of.values(), default=1))
    parts = [svg.line(LEFT, base, svg.WIDTH - RIGHT, base, "base")]
    for counts, class_ in ((all_of, "all"), (last, "last")):
        for beyond in (False, True):
            bars = (
                _bar(column, count, tallest, scale, axis, base)
                for column, count in sorted(counts.items())
                if (column > 0) == beyond
            )
            parts.append(svg.boxes(bars, f"{class_} bad" if beyond else class_))
    right = svg.WIDTH - RIGHT + 5
    worst = histogram.largest > 1
    parts += [
        svg.text(LEFT - 5, base - 12, histogram.dtype, "e strong"),
        svg.text(LEFT - 5, base - 1, words.short(histogram.cases), "e"),
        svg.text(right, base - 12, "largest"),
        svg.text(
            right, base - 1, words.ratio(histogram.largest, 2), "alarm" if worst else "strong"
        ),
    ]
    return parts


def _bar(
    column: int, count: int, tallest: float, scale: Scale, axis: svg.LogAxis, base: float
) -> tuple[float, float, float, float]:
    # A case in a million is a bar that can be seen.
    height = (STRIP - 10) * math.log10(1 + count) / tallest
    if column < scale.columns[0]:
        return LEFT, base - height, EXACT, height
    if column > scale.columns[-1]:
        return svg.WIDTH - RIGHT - EXACT, base - height, EXACT, height
    x = axis.at(10 ** ((column - 1) / PER_DECADE))
    width = axis.at(10 ** (column / PER_DECADE)) - x
    return x, base - height, max(width - 0.6, 0.6), height


def _labels(scale: Scale, axis: svg.LogAxis, bottom: float) -> list[Markup]:
    """The axis below the strips; every second decade where all would not fit."""
    step = 1 if scale.high - scale.low <= 6 else 2
    parts = [
        svg.text(axis.at(10.0**exponent), bottom + 12, svg.decade(exponent), "m")
        # The first one is too near to the 0 beside the axis.
        for exponent in range(scale.low + 1, scale.high + 1)
        if exponent % step == 0
    ]
    middle = (LEFT + svg.WIDTH - RIGHT) / 2
    parts += [
        svg.text(LEFT + EXACT / 2, bottom + 12, "0", "m"),
        svg.text(svg.WIDTH - RIGHT - EXACT / 2, bottom + 12, "∞", "m"),
        svg.text(middle, bottom + 25, "error/bound of a case", "m"),
    ]
    return parts


def _title(strips: Sequence[Histogram]) -> str:
    said = "; ".join(
        f"{h.dtype}: {words.plural(h.cases, 'case')}, median "
        f"{words.ratio(h.quantile(0.5))}, largest {words.ratio(h.largest)}"
        for h in strips
    )
    first = strips[0]
    return f"Distribution of error/bound of {first.output} of {first.target}. {said}"
