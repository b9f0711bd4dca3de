"""Integers as compiled: what of a float fits into one, and arithmetic on one bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def truncated(numbers: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert floats to integers: toward zero, and to the nearest limit where they do not fit.

    As PTX's ``cvt.rzi``, which has no 8-bit form: those keep the low byte of 16 bits. A NaN becomes
    0, and the top bit alone where either side has 64 bits. Stock: whatever the CPU's instruction
    gives.
    """
    wide = np.dtype(f"{dtype.kind}2") if dtype.itemsize == 1 else dtype
    limits = np.iinfo(wide)
    # 2^63 - 1 is no float64, 2^63 is.
    too_high = numbers >= float(limits.max) + (1.0 if wide.itemsize < 8 else 0.0)
    too_low = numbers < float(limits.min)
    nan = np.isnan(numbers)
    result = np.where(too_high | too_low | nan, 0, numbers).astype(wide)
    result = np.where(too_high, wide.type(limits.max), result)
    result = np.where(too_low, wide.type(limits.min), result)
    if wide.itemsize == 8 or numbers.dtype == np.float64:
        top_bit = np.uint64(1 << (8 * wide.itemsize - 1)).astype(wide)
        result = np.where(nan, top_bit, result)
    return result.astype(dtype)


def one_bit(
    left: NDArray[np.bool_], right: NDArray[np.bool_], operation: Callable[..., Any]
) -> NDArray[np.bool_]:
    """An operation on one-bit integers, which wrap: 1 + 1 is 0. NumPy's booleans saturate."""
    wide = operation(left.astype(np.int8), right.astype(np.int8))
    bit: NDArray[np.bool_] = (wide & 1).astype(np.bool_)
    return bit


def high_half(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """The upper half of the bits of a product, both taken as unsigned; as the operands' dtype.

    Dtypes: integers of 32 or 64 bits.
    """
    bits = left.dtype.itemsize * 8
    a, b = (operand.view(f"u{operand.itemsize}").astype(np.uint64) for operand in (left, right))
    if bits == 32:
        short: NDArray[Any] = (a * b >> np.uint64(32)).astype(np.uint32).view(left.dtype)
        return short
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a_low, a_high, b_low, b_high = a & low, a >> half, b & low, b >> half
    middle = a_high * b_low + (a_low * b_low >> half)
    carried = a_low * b_high + (middle & low)
    high: NDArray[Any] = a_high * b_high + (middle >> half) + (carried >> half)
    return high.view(left.dtype)
