"""The five 8-bit float formats, as uint8 codes: what they mean, and rounding to them.

Conversions are those of compiled code on an NVIDIA GPU that converts in hardware (Hopper). They
differ from the OCP and ml_dtypes conversions in three ways. Overflow, and an infinity, becomes the
largest finite value (PTX's ``.satfinite``). fp8e5 to bfloat16 is a multiplication of shifted bits,
which takes Inf and NaN for the finite values that follow 57344 (65536, 81920, 98304, 114688). And
fp8e4b15 rounds half up in magnitude, from a float16 that was itself truncated, and has neither Inf
nor NaN. The two AMD formats (fp8e4b8, fp8e5b16) saturate too, but make NaN of an infinity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import triton.language as tl
from numpy.typing import NDArray

from fuzz.strict.bfloat16 import bf16_to_fp32, round_to_bf16

_ALL_CODES = np.arange(256, dtype=np.uint8)


@dataclass(frozen=True)
class Float8:
    """One format: how codes are divided, and which of them are no numbers.

    ``largest`` is the code of the largest finite value, ``nan`` the one that a NaN becomes.
    ``unsigned_zero`` formats use the code of -0 as their only NaN.
    """

    mantissa: int
    bias: int
    largest: int
    nan: int
    infinity: int | None = None
    unsigned_zero: bool = False

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """The value of each of the 256 codes."""
        magnitude_codes = _ALL_CODES & 0x7F
        exponent = magnitude_codes >> self.mantissa
        fraction = (_ALL_CODES & ((1 << self.mantissa) - 1)).astype(np.float32)
        steps = fraction + np.where(exponent > 0, np.float32(1 << self.mantissa), np.float32(0))
        power = np.maximum(exponent, 1).astype(np.int32) - self.bias - self.mantissa
        magnitudes = np.ldexp(steps, power)
        magnitudes[magnitude_codes > self.largest] = np.nan
        if self.infinity is not None:
            magnitudes[magnitude_codes == self.infinity] = np.inf
        values = np.where(_ALL_CODES & 0x80, -magnitudes, magnitudes)
        if self.unsigned_zero:
            values[0x80] = np.nan
        single: NDArray[np.float32] = values.astype(np.float32)
        return single

    @cached_property
    def _ties(self) -> NDArray[np.float32]:
        """What lies half way between neighbours, from 0 up to the largest value; exact."""
        ladder = self.values[: self.largest + 1]
        return (ladder[:-1] + ladder[1:]) / np.float32(2)

    def encode(self, numbers: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Round to nearest even; to the largest value beyond it.

        Dtypes: float32 -> uint8 codes.
        """
        magnitudes = np.abs(numbers)
        below = np.searchsorted(self._ties, magnitudes, side="left")
        upto = np.searchsorted(self._ties, magnitudes, side="right")
        # On a tie the two differ by one, and the code that is even wins.
        codes = np.where(below % 2 == 0, below, upto).astype(np.uint8)
        codes = codes | np.where(np.signbit(numbers), np.uint8(0x80), np.uint8(0))
        lost = np.isnan(numbers)
        if self.unsigned_zero:
            codes = np.where(codes == 0x80, np.uint8(0), codes)
            lost = lost | np.isinf(numbers)
        return np.where(lost, np.uint8(self.nan), codes)


FP8E4NV = Float8(mantissa=3, bias=7, largest=0x7E, nan=0x7F)
FP8E5 = Float8(mantissa=2, bias=15, largest=0x7B, nan=0x7F, infinity=0x7C)
FP8E4B8 = Float8(mantissa=3, bias=8, largest=0x7F, nan=0x80, unsigned_zero=True)
FP8E5B16 = Float8(mantissa=2, bias=16, largest=0x7F, nan=0x80, unsigned_zero=True)

_FORMATS = {
    tl.float8e4nv: FP8E4NV,
    tl.float8e5: FP8E5,
    tl.float8e4b8: FP8E4B8,
    tl.float8e5b16: FP8E5B16,
}

_E4B15_LARGEST = np.float16(1.75)


def widen_fp8(codes: NDArray[np.uint8], source: tl.dtype) -> NDArray[np.float32]:
    """The values of fp8 codes as they are in float16 and float32, exactly."""
    if source == tl.float8e4b15:
        # The bits are those of a float16 without its low half; the top exponent is not special.
        bits = (codes.astype(np.uint16) & 0x80) << 8 | (codes.astype(np.uint16) & 0x7F) << 7
        return bits.view(np.float16).astype(np.float32)
    return _FORMATS[source].values[codes]


def widen_fp8_to_bf16(codes: NDArray[np.uint8], source: tl.dtype) -> NDArray[np.uint16]:
    """The bfloat16 bits that compiled code makes of fp8 codes."""
    if source == tl.float8e5:
        wide = codes.astype(np.uint16)
        shifted = ((wide & 0x80) << 8 | (wide & 0x7F) << 5).astype(np.uint16)
        return round_to_bf16(bf16_to_fp32(shifted) * np.float32(2.0**112))
    return round_to_bf16(widen_fp8(codes, source))


def round_to_fp8(numbers: NDArray[np.float32], target: tl.dtype) -> NDArray[np.uint8]:
    """Round to nearest even, to all formats but fp8e4b15.

    Dtypes: float32 -> uint8 codes. A float16 or bfloat16 is widened first, which is exact.
    """
    return _FORMATS[target].encode(numbers)


def truncate_to_fp8e5(halves: NDArray[np.float16]) -> NDArray[np.uint8]:
    """The upper byte of a float16: fp8e5 rounded toward zero."""
    nan = np.isnan(halves)
    return np.where(nan, np.uint8(0x7F), (halves.view(np.uint16) >> 8).astype(np.uint8))


def round_to_fp8e4b15(halves: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Round half up in magnitude, at most 1.75, which a NaN becomes too."""
    bits = np.fmin(np.abs(halves), _E4B15_LARGEST).view(np.uint16) * 2 + 0x80
    return ((bits | halves.view(np.uint16) & 0x8000) >> 8).astype(np.uint8)
