"""Float formats: unit roundoff, limits, and correctly rounded conversion.

Tensors travel as raw bits (uint16 for half precision, uint32 for float32). Here bits become fp64
values exactly, and fp64 values are rounded to a format to nearest, ties to even, with gradual
underflow and overflow to infinity, as IEEE 754 prescribes for a single conversion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Bits = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Format:
    """A binary float format: ``precision`` counts the hidden bit, ``min_exponent`` is that of the
    smallest normal number, ``max_exponent`` that of the largest finite one."""

    name: str
    precision: int
    min_exponent: int
    max_exponent: int
    bits: np.dtype[Any]

    @property
    def u(self) -> float:
        """Unit roundoff: the largest relative error of one rounding to nearest."""
        return 2.0**-self.precision

    @property
    def largest(self) -> float:
        """Largest finite value."""
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0**self.max_exponent

    @property
    def smallest_normal(self) -> float:
        """Smallest positive normal value."""
        return 2.0**self.min_exponent

    @property
    def quantum(self) -> float:
        """Smallest positive subnormal value; half of it is the rounding error of underflow."""
        return 2.0 ** (self.min_exponent - self.precision + 1)


FORMATS: dict[str, Format] = {
    "float32": Format("float32", 24, -126, 127, np.dtype(np.uint32)),
    "bfloat16": Format("bfloat16", 8, -126, 127, np.dtype(np.uint16)),
    "float16": Format("float16", 11, -14, 15, np.dtype(np.uint16)),
}


def decode(bits: Bits, dtype: str) -> F64:
    """The fp64 values of raw bits, exactly.

    Shapes: any. Dtypes: uint16 (float16, bfloat16) or uint32 (float32) -> float64.
    Raises: KeyError for a dtype that is not in FORMATS.
    """
    # Signalling NaN patterns are ordinary poison here: no warning when they are widened.
    with np.errstate(invalid="ignore"):
        if dtype == "bfloat16":
            return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        native = {"float16": np.float16, "float32": np.float32}[dtype]
        return bits.view(native).astype(np.float64)


def encode(values: F64, dtype: str) -> Bits:
    """The bits of fp64 values rounded to a format, to nearest with ties to even.

    Shapes: any. Dtypes: float64 -> uint16 or uint32.
    Raises: KeyError for a dtype that is not in FORMATS.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if dtype == "bfloat16":
            single = round_to(values, FORMATS[dtype]).astype(np.float32)
            return (single.view(np.uint32) >> 16).astype(np.uint16)
        native = {"float16": np.float16, "float32": np.float32}[dtype]
        return values.astype(native).view(FORMATS[dtype].bits)


def round_to(values: F64, fmt: Format) -> F64:
    """fp64 values rounded to ``fmt`` and kept in fp64; NaN stays NaN, overflow gives infinity."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if fmt.name == "float32":
            return values.astype(np.float32).astype(np.float64)
        if fmt.name == "float16":
            return values.astype(np.float16).astype(np.float64)
        # The spacing of the format at each value, never below that of its subnormals. Dividing
        # and multiplying by a power of two is exact, and rint rounds ties to even.
        spacing = np.maximum(power_below(values), fmt.smallest_normal) * (2.0 * fmt.u)
        rounded: F64 = np.rint(values / spacing) * spacing
        size = np.abs(rounded)
        # False for NaN and infinity too.
        if (size <= fmt.largest).all():
            return rounded
        finite = np.isfinite(values)
        overflow = finite & (size > fmt.largest)
        rounded = np.where(overflow, np.copysign(np.inf, values), rounded)
        return np.where(finite, rounded, values)


def power_below(values: F64) -> F64:
    """The largest power of two that is no larger than each |value|: its exponent bits alone.

    Zero and what is subnormal in fp64 give 0, infinity and NaN infinity.
    """
    # Exponents lie above the 52 bits of the significand and below the sign.
    return (values.view(np.int64) & np.int64(0x7FF << 52)).view(np.float64)
