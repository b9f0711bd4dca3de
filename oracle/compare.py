"""Observed values against what is owed.

A kernel's value c lies in [y - e, y + e]; it stores the rounding of c. Rounding is monotone, so a
correct store lies between the roundings of both ends: no half ulp needs to be added, and overflow
to infinity is right exactly where an end overflows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oracle.bounds import Bounded, format_of
from oracle.formats import F64, power_below, round_to


@dataclass(frozen=True)
class Expected:
    """What a stored output must be: within [low, high], or non-finite where ``free``.

    ``tolerance`` is the distance from ``value`` that the bound and the store's rounding allow;
    it serves the ratio error/bound and the messages, the verdict is the interval's.
    """

    value: F64
    low: F64
    high: F64
    tolerance: F64
    free: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """Element by element: what is wrong and error/bound, at most 1 exactly where nothing is.

    ``value_wrong`` are finite values outside their interval; ``nonfinite_wrong`` are NaN or
    infinity where a finite value is owed, or the other way round, or infinity of the wrong sign.
    """

    value_wrong: npt.NDArray[np.bool_]
    nonfinite_wrong: npt.NDArray[np.bool_]
    ratio: F64

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """All wrong elements."""
        return self.value_wrong | self.nonfinite_wrong


def expect(bounded: Bounded, dtype: str) -> Expected:
    """The final conversion of the decomposition: the interval of right stores in ``dtype``.

    Raises: ValueError for a dtype that an fp64 oracle cannot judge.
    """
    fmt = format_of(dtype)
    value = bounded.value
    error = np.broadcast_to(bounded.error, value.shape)
    with np.errstate(all="ignore"):
        low, high = round_to(value - error, fmt), round_to(value + error, fmt)
        # Half the spacing of the format at the far end of the interval.
        half_ulp = fmt.u * np.maximum(power_below(np.abs(value) + error), fmt.smallest_normal)
    # A value that the kernel holds exactly and that the format can store has no room at all.
    exact = (low == value) & (high == value)
    tolerance = np.where(exact, 0.0, error + half_ulp)
    free = np.broadcast_to(bounded.free, value.shape)
    return Expected(value, low, high, tolerance, free)


def compare(observed: F64, expected: Expected, *, strict_nonfinite: bool = True) -> Comparison:
    """Judge observed values of the same shape.

    Where the reference is NaN a kernel owes NaN; where it is infinite, that infinity; any
    non-finite value will do where the expectation is free.
    ``strict_nonfinite=False`` (running-mean algorithms turn infinity into NaN) accepts any
    non-finite value for either.
    """
    value = expected.value
    with np.errstate(all="ignore"):
        inside = (observed >= expected.low) & (observed <= expected.high)
        distance = np.abs(observed - value)
        ratio = np.where(distance == 0.0, 0.0, distance / expected.tolerance)
    if inside.all() and (distance < np.inf).all():
        # The usual case: all is finite and right.
        none = np.zeros(inside.shape, dtype=np.bool_)
        return Comparison(none, none, np.minimum(ratio, 1.0))
    finite, owed_finite = np.isfinite(observed), np.isfinite(value)
    same_kind = np.where(np.isnan(value), np.isnan(observed), observed == value)
    same_kind |= expected.free & ~finite
    if not strict_nonfinite:
        same_kind = ~finite
    # An infinite store is right where an end of the interval overflows: `inside` knows.
    right = np.where(owed_finite, inside | (expected.free & ~finite), same_kind)
    # An infinite bound owes nothing at all, NaN included.
    right |= owed_finite & np.isinf(expected.tolerance) & expected.free
    wrong = ~right
    value_wrong = wrong & finite & owed_finite
    ratio = np.where(finite, ratio, 0.0)
    ratio = np.where(right, np.minimum(ratio, 1.0), np.maximum(ratio, np.nextafter(1.0, 2.0)))
    ratio = np.where(wrong & ~value_wrong, np.inf, ratio)
    return Comparison(value_wrong, wrong & ~value_wrong, ratio)
