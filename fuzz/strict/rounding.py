"""Results rounded once: fused multiply-add, and float32 in a direction of the caller's choice.

What is computed in a wider float and then narrowed is rounded twice, which shows where the first
rounding lands on a tie of the second. Rounding to odd (toward zero, then the last bit set where
that was inexact) never lands on a tie, so that a second rounding is the only one that shows.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fuzz.strict.bfloat16 import bf16_to_fp32, round_to_bf16

Direction = Literal["rn", "rz", "rd", "ru"]
"""To nearest even, toward zero, down, up: PTX's .rn, .rz, .rm and .rp."""

_SMALLEST_NORMAL = np.finfo(np.float32).tiny

_INFINITY = np.float32(np.inf)


def fma(x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> NDArray[Any]:
    """x * y + z, rounded once to the operands' own format.

    Dtypes: one of float16, float32, float64, or uint16 for the bits of bfloat16.
    """
    if z.dtype == np.float64:
        result: NDArray[np.float64] = _fma_exactly(x, y, z)
        return result
    if z.dtype == np.uint16:
        return round_to_bf16(odd_fma(*(bf16_to_fp32(operand) for operand in (x, y, z))))
    narrow: NDArray[Any] = odd_fma(x, y, z).astype(z.dtype)
    return narrow


def odd_fma(x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> NDArray[np.float64]:
    """x * y + z of numbers of at most 24 bits, rounded to odd as float64."""
    return odd_sum(x.astype(np.float64) * y, z.astype(np.float64))


def odd_sum(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of two float64, rounded to odd."""
    nearest = a + b
    part = nearest - a
    error = (a - (nearest - part)) + (b - part)
    even = nearest.view(np.int64) & 1 == 0
    wrong = (error != 0) & even & np.isfinite(nearest)
    odd: NDArray[np.float64] = np.nextafter(nearest, np.copysign(np.inf, error))
    return np.where(wrong, odd, nearest)


def _fma_of_one(x: float, y: float, z: float) -> float:
    x, y, z = float(x), float(y), float(z)
    if not np.isfinite((x, y, z)).all():
        # A finite product may overflow, but not against an infinity.
        product = 0.0 if np.isfinite((x, y)).all() else x * y
        return product + z
    total = x * y + z
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if exact == 0:
        # Nothing was rounded, and the sign of the zero is right.
        return total
    try:
        return float(exact)
    except OverflowError:
        return np.inf if exact > 0 else -np.inf


# float64 has no wider float to compute in. Few kernels use it.
_fma_exactly = np.vectorize(_fma_of_one, otypes=[np.float64])


def round_fp32(exact: NDArray[np.float64], direction: Direction) -> NDArray[np.float32]:
    """Round to float32. ``exact`` is to compare with every float32 as the true value does."""
    nearest: NDArray[np.float32] = exact.astype(np.float32)
    if direction == "rn":
        return nearest
    too_high, too_low = nearest > exact, nearest < exact
    if direction == "rz":
        too_high, too_low = too_high & (exact > 0), too_low & (exact < 0)
    if direction in ("rd", "rz"):
        nearest = np.where(too_high, np.nextafter(nearest, -_INFINITY), nearest)
    if direction in ("ru", "rz"):
        nearest = np.where(too_low, np.nextafter(nearest, _INFINITY), nearest)
    return nearest


def flushed(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subnormals become zeros of their sign: PTX's ``.ftz``, on operands and on results."""
    zeros = np.copysign(np.float32(0), numbers)
    return np.where(np.abs(numbers) < _SMALLEST_NORMAL, zeros, numbers)


def truncated_to_fp16(numbers: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round toward zero. Infinities stay, other overflow becomes the largest finite value."""
    nearest: NDArray[np.float16] = numbers.astype(np.float16)
    away = np.abs(nearest.astype(np.float32)) > np.abs(numbers)
    return np.where(away, np.nextafter(nearest, np.float16(0)), nearest)
