"""bfloat16 on the interpreter, which keeps it as uint16 bits.

Arithmetic on it is: widen, compute in a float that holds the exact result or is far finer, round
once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter as stock


def bf16_to_fp32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The values of bfloat16 bit patterns, exactly."""
    wide: NDArray[np.uint32] = np.left_shift(bits, np.uint32(16), dtype=np.uint32)
    return wide.view(np.float32)


def round_to_bf16(values: NDArray[Any], *, toward_zero: bool = False) -> NDArray[np.uint16]:
    """Round numbers to bfloat16, to nearest with ties to even unless ``toward_zero``.

    Dtypes: floats and integers of any width -> uint16 bit patterns.

    A NaN becomes 0x7FFF, the one NaN that PTX's conversion gives; overflow becomes Inf (or the
    largest finite value toward zero).
    """
    if values.dtype.kind in "iub":
        values = _integers_to_odd_fp64(values)
    narrow = _fp64_to_odd_fp32(values) if values.dtype == np.float64 else values
    numbers = np.ascontiguousarray(narrow, dtype=np.float32).reshape(narrow.shape)
    bits = numbers.view(np.uint32)
    if not toward_zero:
        # Just under half a unit of the kept bits, or exactly half where the last kept bit is odd:
        # the carry rounds to nearest even, through subnormals, and past the largest value to Inf.
        bits = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    kept = (bits >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(numbers), np.uint16(0x7FFF), kept)


def _fp64_to_odd_fp32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round to odd: toward zero, then the last bit set where that was inexact.

    A later rounding to fewer bits then equals one rounding of the original, which rounding to
    nearest twice does not.
    """
    nearest = values.astype(np.float32)
    bits = nearest.view(np.uint32)
    # Inf is one step beyond the largest finite value in bits too. Comparisons with NaN are false.
    bits = bits - (np.abs(nearest.astype(np.float64)) > np.abs(values))
    inexact = (bits.view(np.float32).astype(np.float64) != values) & ~np.isnan(values)
    result: NDArray[np.uint32] = (bits | inexact).astype(np.uint32)
    return result.view(np.float32)


def _integers_to_odd_fp64(values: NDArray[Any]) -> NDArray[np.float64]:
    """Exact up to 53 bits; longer integers have the last bit set where any beyond it is."""
    if values.dtype.itemsize < 8:
        return values.astype(np.float64)
    negative = values < 0
    magnitudes = np.where(negative, -values, values).astype(np.uint64)
    lost = magnitudes & np.uint64(0x7FF)
    kept = (magnitudes ^ lost) | (lost != 0).astype(np.uint64) << np.uint64(11)
    wide = np.where(magnitudes >> np.uint64(53) > 0, kept, magnitudes).astype(np.float64)
    return np.where(negative, -wide, wide)


def is_bf16(handle: Any) -> bool:
    """Whether a handle holds bfloat16 values.

    Stock results of comparisons are booleans under the operands' dtype, so the data decide too.
    """
    return bool(handle.data.dtype == np.uint16 and handle.dtype.scalar == tl.bfloat16)


def widened(handle: Any, dtype: Any, np_dtype: type[np.floating[Any]]) -> Any:
    """The same values in a wider float, where the handle holds bfloat16; else the handle."""
    if not is_bf16(handle):
        return handle
    return stock.TensorHandle(bf16_to_fp32(handle.data).astype(np_dtype, copy=False), dtype)


def narrowed(data: NDArray[Any]) -> Any:
    """A handle for the result of an operation on bfloat16: a boolean stays one."""
    if data.dtype == np.bool_:
        return stock.TensorHandle(data, tl.int1)
    return stock.TensorHandle(round_to_bf16(data), tl.bfloat16)
