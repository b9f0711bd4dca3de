"""One mean and one rstd for a whole row: do its outputs have a common cause?

A stored y in half precision says little of the statistics behind it: half an ulp hides a fault of
them. All the columns of a row say more. Walked backwards through the steps after x_hat, the error
bound of each widening it, a stored value becomes an interval of (s - mean) * rstd; that is a strip
of the plane of all (rstd, mean * rstd), because s * rstd - mean * rstd is linear in them. A correct
kernel's own statistics lie in all the strips of the row and in the box that the bounds of both
leave. Where these have no point in common, no mean and rstd explain the row, whatever they are.

In that plane rho is the relative distance of rstd from its exact value, tau that of the mean in
units of x_hat. Of a strip, an upper and a lower limit of tau remain, both linear in rho. The least
upper limit is concave in rho, the largest lower one convex: the widest gap between them is found by
tangents from both sides, and where these meet below zero that is a proof.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from oracle.arithmetic import Arithmetic, RoundingPoint
from oracle.bounds import Mask, format_of
from oracle.compare import Expected
from oracle.formats import F64, power_below
from oracle.refs import Problem, Walk

Index = npt.NDArray[np.intp]

# Each further column narrows the statistics less than the one before. So where much informs, an
# evenly spread part is enough: this share of all elements, unless they are few, and of a row that
# is judged at least so many columns.
SHARE = 8
FEW = 1024
MIN_COLUMNS = 16

# Slopes, limits and tangents come of some ten fp64 roundings of numbers of that size.
MARGIN = 2.0**-46

# A step cuts off what was the narrowest; few rows need more than a dozen.
MAX_STEPS = 64

# How far the search for statistics that explain a row goes (rstd is then off by as much as it is
# large), and how fine it ends.
MAX_STRETCH = 2.0**20
STRETCH_STEPS = 12


@dataclass(frozen=True)
class Rows:
    """The observed y of some rows, what it owes, and how a kernel comes to it.

    Shapes: observed (n_rows, n_cols). ``dtype`` is that of the store.
    """

    walk: Walk
    problem: Problem
    arithmetic: Arithmetic
    observed: F64
    expected: Expected
    dtype: str


def unexplained(rows: Rows) -> Mask:
    """Groups of columns that no mean and rstd within their bounds explain.

    Judged is what is finite and has a finite bound. Kernels that may hold several means and rstds
    for one group are not: those that say so, and those that merge running means, which need not
    come out alike in all threads.

    Shapes: (n_rows, n_groups).
    """
    shape = rows.walk.rstd.value.shape[:2]
    found = np.zeros(shape[0] * shape[1], dtype=np.bool_)
    if rows.arithmetic.uniform and rows.arithmetic.variance != "welford" and found.size:
        with np.errstate(all="ignore"):
            box = _box_of(rows.walk)
            index = _informative(rows, box)
            if index.size:
                groups, strips = _strips_of(rows, index)
                found[groups] = _apart(strips, box.of(groups))
    return found.reshape(shape)


def stretch(rows: Rows, row: int, group: int) -> float:
    """How many times their bounds the errors of mean and rstd must be to explain a group.

    Infinite where no statistics at all explain it.
    """
    size = rows.problem.group_size
    number = row * rows.walk.rstd.value.shape[1] + group
    with np.errstate(all="ignore"):
        index = _bounded(rows, np.arange(number * size, (number + 1) * size))
        groups, strips = _strips_of(rows, index)
        box = _box_of(rows.walk).of(groups)
        high = 2.0
        while _apart(strips, box.stretched(high)).any():
            high *= 2.0
            if high > MAX_STRETCH:
                return math.inf
        low = high / 2.0
        for _ in range(STRETCH_STEPS):
            middle = (low + high) / 2.0
            if _apart(strips, box.stretched(middle)).any():
                low = middle
            else:
                high = middle
    return high


# --- the box ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Box:
    """abs(rho) <= width and abs(tau) <= reach * (1 + rho), group by group.

    ``usable`` where these are bounds, neither infinite nor 0: y is judged from known statistics.
    """

    width: F64
    reach: F64
    usable: Mask

    def of(self, groups: Index | Mask) -> _Box:
        return _Box(self.width[groups], self.reach[groups], self.usable[groups])

    def stretched(self, factor: float) -> _Box:
        return _Box(self.width * factor, self.reach * factor, self.usable)


def _box_of(walk: Walk) -> _Box:
    rstd, mean = walk.rstd, walk.mean
    value = rstd.value.reshape(-1)
    width = _flat(rstd.error, rstd.value) / value
    reach = np.zeros_like(value) if mean is None else _flat(mean.error, mean.value) * value
    return _Box(width, reach, np.isfinite(width + reach) & (width + reach > 0.0))


# --- the strips ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Strips:
    """tau <= over_slope * rho - over and tau >= under_slope * rho - under, column by column.

    Shapes: (groups, columns); limits that are infinitely far fill it up.
    """

    over_slope: F64
    over: F64
    under_slope: F64
    under: F64

    def of(self, groups: Index | Mask) -> _Strips:
        parts = (self.over_slope, self.over, self.under_slope, self.under)
        return _Strips(*(part[groups] for part in parts))


def _informative(rows: Rows, box: _Box) -> Index:
    """Flat indices of elements whose strips may cut the box, a part of them where they are many.

    Where both ends of what an element owes are stored as one value, all of the box leads to it.
    """
    size = rows.problem.group_size
    groups = np.flatnonzero(box.usable)
    if groups.size == 0:
        return groups
    says = (rows.expected.low != rows.expected.high).reshape(-1)
    room = max(FEW, says.size // SHARE)
    if np.count_nonzero(says) <= room:
        index = _bounded(rows, np.flatnonzero(says))
        counts = np.bincount(index // size)
        if np.count_nonzero(counts) * counts.max(initial=0) <= room:
            return index
    least = min(size, MIN_COLUMNS)
    groups = groups[_spread(groups.size, min(groups.size, max(room // least, 1)))]
    columns = _spread(size, min(size, max(room // groups.size, least)))
    index = (groups[:, None] * size + columns).reshape(-1)
    return _bounded(rows, index)


def _spread(count: int, kept: int) -> Index:
    """So many of the numbers below ``count``, evenly spread."""
    return np.arange(kept) * count // kept


def _bounded(rows: Rows, index: Index) -> Index:
    """The indices whose bound is finite: the others owe nothing."""
    finite = np.isfinite(rows.expected.tolerance.reshape(-1)[index])
    return np.asarray(index if finite.all() else index[finite])


def _strips_of(rows: Rows, index: Index) -> tuple[Index, _Strips]:
    """The groups that these elements are of, and their strips."""
    walk = rows.walk
    group = index // rows.problem.group_size
    low, high = _products(rows, index)
    distance, error = walk.s.value.reshape(-1)[index], _at(walk.s.error, index)
    if walk.mean is not None:
        mean = walk.mean.value.reshape(-1)
        distance = distance - mean[group]
        # Compilers may fuse the mean's last product with its subtraction, here and not there: it
        # is not rounded then, and the difference no multiple of the quantum before it is.
        fmt = format_of(rows.arithmetic.compute)
        size = np.abs(mean) + _flat(walk.mean.error, walk.mean.value)
        error = error + (fmt.u * size + fmt.quantum)[group]
    rstd = walk.rstd.value.reshape(-1)[group]
    over_slope, under_slope = (distance + error) * rstd, (distance - error) * rstd
    over, under = low - over_slope, high - under_slope
    says = np.isfinite(over) & np.isfinite(under)
    if not says.all():
        over, under = np.where(says, over, -np.inf), np.where(says, under, np.inf)

    counts = np.bincount(group)
    groups = np.flatnonzero(counts)
    shape = (groups.size, int(counts.max()))
    parts = (over_slope, over, under_slope, under)
    if index.size == shape[0] * shape[1]:
        return groups, _Strips(*(part.reshape(shape) for part in parts))
    row = (np.cumsum(counts > 0) - 1)[group]
    place = np.arange(group.size) - (np.cumsum(counts) - counts)[group]
    filled = [np.full(shape, empty) for empty in (0.0, -np.inf, 0.0, np.inf)]
    for part, values in zip(filled, parts, strict=True):
        part[row, place] = values
    return groups, _Strips(*filled)


def _products(rows: Rows, index: Index) -> tuple[F64, F64]:
    """Intervals of (s - mean) * rstd, of the kernel's own s, mean and rstd, that lead to y.

    The steps after them, each undone, from the last one to the first.
    """
    walk, problem, arithmetic = rows.walk, rows.problem, rows.arithmetic
    fmt = format_of(arithmetic.compute)
    underflow = fmt.quantum / 2
    column = index % rows.observed.shape[1]
    low, high = _before_store(rows.observed.reshape(-1)[index], rows)
    if walk.gate is not None:
        low, high = _before_rounding(low, high, fmt.u, underflow)
        gate, error = walk.gate.value.reshape(-1)[index], _at(walk.gate.error, index)
        low, high = _before_product(low, high, gate, error)
    low, high = _before_point("scaled", low, high, rows)
    if problem.bias is not None:
        low, high = _before_rounding(low, high, fmt.u, 0.0)
        low, high = low - problem.bias[column], high - problem.bias[column]
    if walk.weight is not None:
        low, high = _before_rounding(low, high, fmt.u, underflow)
        weight, error = walk.weight.value[column], _at(walk.weight.error, column)
        low, high = _before_product(low, high, weight, error)
    low, high = _before_point("x_hat", low, high, rows)
    # What divides by the deviation instead errs in each column on its own.
    relative = max(1.0, arithmetic.div_error) * fmt.u
    if walk.mean is not None:
        # s - mean has been rounded.
        relative += fmt.u
    return _before_rounding(low, high, relative, underflow)


def _before_store(stored: F64, rows: Rows) -> tuple[F64, F64]:
    """What is rounded to a stored value, ties included."""
    if _keeps(rows.dtype, rows.arithmetic.compute):
        return stored, stored
    fmt = format_of(rows.dtype)
    size = np.abs(stored)
    power = power_below(size)
    away = fmt.u * np.maximum(power, fmt.smallest_normal)
    # Below a power of two values lie twice as close.
    inwards = np.where((size == power) & (size > fmt.smallest_normal), away / 2.0, away)
    positive = stored > 0.0
    return stored - np.where(positive, inwards, away), stored + np.where(positive, away, inwards)


def _before_point(point: RoundingPoint, low: F64, high: F64, rows: Rows) -> tuple[F64, F64]:
    """Before one of the promised rounding points, of which a kernel need not make use."""
    dtype = rows.arithmetic.rounding(point)
    if dtype is None:
        return low, high
    fmt = format_of(rows.problem.dtype if dtype == "x" else dtype)
    return _before_rounding(low, high, fmt.u, fmt.quantum / 2)


def _before_rounding(low: F64, high: F64, relative: float, absolute: float) -> tuple[F64, F64]:
    """What errors of that size may carry into [low, high].

    What became ``a`` was a / (1 - relative) at most, and as far on the other side is far enough for
    errors that come one after the other too. A rounding to nearest errs by u / (1 + u) at most: u
    leaves u^2 for the errors of fp64.
    """
    low, high = low - absolute, high + absolute
    relative = relative / (1.0 - relative) if relative < 1.0 else math.inf
    return low - relative * np.abs(low), high + relative * np.abs(high)


def _before_product(low: F64, high: F64, factor: F64, error: F64) -> tuple[F64, F64]:
    """What a factor may carry into [low, high]: not finite, if the factor can be 0."""
    if not error.any():
        # The usual case, and the quicker way.
        low, high = low / factor, high / factor
        return np.minimum(low, high), np.maximum(low, high)
    positive, size = factor > 0.0, np.abs(factor)
    low, high = np.where(positive, low, -high), np.where(positive, high, -low)
    least, most = size - error, size + error
    says = least > 0.0
    low = np.where(says, low / np.where(low > 0.0, most, least), -np.inf)
    return low, np.where(says, high / np.where(high > 0.0, least, most), np.inf)


def _keeps(dtype: str, compute: str) -> bool:
    """Whether a format stores every value of the compute format as it is, if not as infinity."""
    store, fmt = format_of(dtype), format_of(compute)
    return store.u <= fmt.u and store.quantum <= fmt.quantum


def _at(part: npt.NDArray[Any], index: Index) -> npt.NDArray[Any]:
    """Elements of a part of a Bounded, in which a scalar stands for every element."""
    return part if part.ndim == 0 else np.asarray(part.reshape(-1)[index])


def _flat(part: npt.NDArray[Any], value: F64) -> npt.NDArray[Any]:
    """A part of a Bounded, element by element of its value."""
    return np.broadcast_to(part, value.shape).reshape(-1)


# --- the common point --------------------------------------------------------------------------


def _apart(strips: _Strips, box: _Box) -> Mask:
    """Groups whose strips and box provably have no point in common."""
    # No slope of a lower limit is above that of its upper one.
    steepest = np.maximum(strips.over_slope.max(axis=1), -strips.under_slope.min(axis=1))
    margin = MARGIN * (steepest + box.reach) * (1.0 + box.width)
    proven = np.zeros(steepest.size, dtype=np.bool_)
    groups, rho = np.arange(steepest.size), np.zeros(steepest.size)
    # Of each side the last tangent: where it touches, the gap there, its slope.
    left = right = np.full((3, steepest.size), np.nan)
    for _ in range(MAX_STEPS):
        gap, slope = _gap(strips, box, rho)
        tangent = np.stack((rho, gap, slope))
        left, right = np.where(slope > 0.0, tangent, left), np.where(slope > 0.0, right, tangent)
        rho, bound = _meeting(left, right, box)
        narrow, none = gap < -margin, bound < -margin
        proven[groups[narrow & none]] = True
        pending = narrow & ~none
        if not pending.any():
            break
        strips, box, margin = strips.of(pending), box.of(pending), margin[pending]
        groups, rho, left, right = (a[..., pending] for a in (groups, rho, left, right))
    return proven


def _gap(strips: _Strips, box: _Box, rho: F64) -> tuple[F64, F64]:
    """The gap between the limits of tau at rho, and the slope of a tangent of it."""
    reach = box.reach * (1.0 + rho)
    over = strips.over_slope * rho[:, None] - strips.over
    under = strips.under_slope * rho[:, None] - strips.under
    over, over_slope = _chosen(over, strips.over_slope, over.argmin(axis=1))
    under, under_slope = _chosen(under, strips.under_slope, under.argmax(axis=1))
    slope = np.where(over < reach, over_slope, box.reach)
    slope = slope - np.where(under > -reach, under_slope, -box.reach)
    return np.minimum(over, reach) - np.maximum(under, -reach), slope


def _chosen(limits: F64, slopes: F64, column: Index) -> tuple[F64, F64]:
    row = np.arange(column.size)
    return limits[row, column], slopes[row, column]


def _meeting(left: F64, right: F64, box: _Box) -> tuple[F64, F64]:
    """Where the tangents of both sides meet, or one an end of the box, and the gap there."""
    (a, gap_a, slope_a), (b, gap_b, slope_b) = left, right
    rho = a + (gap_b - gap_a + slope_b * (a - b)) / (slope_a - slope_b)
    rho = np.where(np.isnan(b), box.width, np.where(np.isnan(a), -box.width, rho))
    bound = np.where(np.isnan(a), gap_b + slope_b * (rho - b), gap_a + slope_a * (rho - a))
    return rho, bound
