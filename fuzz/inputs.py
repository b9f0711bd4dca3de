"""The values of a case's tensors: raw generator bits made into floats by exact arithmetic.

Only the raw integers of NumPy's bit generators are promised for ever, so values are built from
them with float32 additions, multiplications and divisions alone, which IEEE 754 fixes to the last
bit: no function of a maths library takes part. The same case gives the same bits everywhere.

No value depends on the layout, nor on the rows that follow it: a case that loses trailing rows
keeps the others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fuzz.case import Case, Plant, TensorCase
from fuzz.relations import Run, has_rows
from fuzz.verdict import Bits
from oracle.formats import FORMATS, Format

F32 = npt.NDArray[np.float32]
Lanes = npt.NDArray[np.unsignedinteger[Any]]

# A 64-bit word of the generator is cut into lanes in the order of a little-endian machine.
_WORD = np.dtype("<u8")
_LANE: dict[int, Any] = {16: np.dtype("<u2"), 32: np.dtype("<u4")}

_QUIET_NAN = {"float32": 0x7FC00000, "bfloat16": 0x7FC0, "float16": 0x7E00}


class Source:
    """The raw bits of one tensor, in rows: each row takes the same number of words.

    ``stream`` numbers independent sequences, for families that need bits of two kinds.
    """

    def __init__(
        self, generator: np.random.PCG64, seed: int, name: str, rows: int, cols: int
    ) -> None:
        self._generator = generator
        self._label = f"{seed}/{name}"
        self.rows = rows
        self.cols = cols

    def integers(
        self, bits: int, count: int = 1, *, cols: int | None = None, stream: int = 0
    ) -> list[Lanes]:
        """``count`` arrays of integers of 16 or 32 random bits, each of shape (rows, cols)."""
        cols = self.cols if cols is None else cols
        lanes_per_word = 64 // bits
        words = -(-count * cols // lanes_per_word)
        self._rewind(stream)
        raw = self._generator.random_raw(self.rows * words).astype(_WORD, copy=False)
        lanes = raw.view(_LANE[bits]).reshape(self.rows, lanes_per_word * words)
        return [lanes[:, i * cols : (i + 1) * cols] for i in range(count)]

    def _rewind(self, stream: int) -> None:
        # The state is the hash itself: nothing but PCG64's own step stands between the label and
        # the bits. The increment must be odd.
        state = hashlib.sha256(f"{self._label}/{stream}".encode()).digest()
        self._generator.state = {
            "bit_generator": "PCG64",
            "state": {
                "state": int.from_bytes(state[:16], "little"),
                "inc": int.from_bytes(state[16:], "little") | 1,
            },
            "has_uint32": 0,
            "uinteger": 0,
        }


def _sum_of_three(source: Source) -> npt.NDArray[np.uint32]:
    first, second, third = source.integers(16, 3)
    total = np.add(first, second, dtype=np.uint32)
    total += third
    return total


def _centred(sums: npt.NDArray[np.uint32]) -> F32:
    values = sums.astype(np.float32)
    # The middle of 0 ... 3 * 65535, exact in float32; no value is zero.
    values -= np.float32(98302.5)
    # The standard deviation is 2^15. Dividing by its neighbour fills all 24 bits of the
    # significand: multiples of a power of two would hide rounding errors in sums.
    values /= np.float32(32767.0)
    return values


def normal(source: Source, fmt: Format) -> F32:
    """Bell-shaped (the sum of three uniform integers), standard deviation 1, within +-3."""
    return _centred(_sum_of_three(source))


def sorted_rows(source: Source, fmt: Format) -> F32:
    """As normal, each row in ascending order."""
    # Integers are sorted, so that no order of equal floats (0.0, -0.0) is left to the machine.
    return _centred(np.sort(_sum_of_three(source), axis=1))


def _unit(source: Source, cols: int) -> F32:
    """Multiples of 2^-23 in [-1, 1), of shape (rows, cols)."""
    (bits,) = source.integers(32, cols=cols)
    # The shift keeps the sign: 24 bits, all of which float32 holds.
    steps = bits.view("<i4")
    steps >>= 8
    values = steps.astype(np.float32)
    values *= np.float32(2.0**-23)
    return values


def uniform(source: Source, fmt: Format) -> F32:
    """Uniform in [-1, 1), multiples of 2^-23."""
    return _unit(source, source.cols)


def outliers(source: Source, fmt: Format) -> F32:
    """As normal, but one element in 64 is 2^6 to 2^10 times as large."""
    (chosen,) = source.integers(16, stream=1)
    values = normal(source, fmt)
    where = np.nonzero(chosen & 63 == 0)
    values[where] *= np.array([64, 128, 256, 512, 1024], np.float32)[(chosen[where] >> 6) % 5]
    return values


def constant(source: Source, fmt: Format) -> F32:
    """One value a row, uniform in [-1, 1); with spread 0 every element is the mean."""
    return _unit(source, 1)


def zeros(source: Source, fmt: Format) -> F32:
    """Zero: every element is the mean."""
    return np.zeros((1, 1), np.float32)


def tiny(source: Source, fmt: Format) -> F32:
    """As normal, around the smallest normal numbers of the dtype, about half of them below."""
    return normal(source, fmt) * np.float32(fmt.smallest_normal)


def subnormal(source: Source, fmt: Format) -> F32:
    """Subnormal numbers of the dtype and zeros, of either sign."""
    (steps,) = source.integers(16)
    # Up to 2^(precision - 1) - 1 quanta are subnormal; 16 random bits are enough of them.
    bits = min(fmt.precision - 1, 15)
    signed = (steps >> (15 - bits)).astype(np.int32) - (1 << bits)
    signed += signed < 0
    return signed.astype(np.float32) * np.float32(fmt.quantum * 2.0 ** (fmt.precision - 1 - bits))


def near_overflow(source: Source, fmt: Format) -> F32:
    """Half to all of the dtype's largest finite value, of either sign, always finite."""
    values = uniform(source, fmt)
    values *= np.float32(0.5)
    values += np.copysign(np.float32(0.5), values)
    values *= np.float32(fmt.largest)
    return values


def alternating(source: Source, fmt: Format) -> F32:
    """Magnitudes in [0.5, 1.5), the sign changes from column to column."""
    values = uniform(source, fmt)
    values *= np.float32(0.5)
    values += np.float32(1)
    np.negative(values[:, 1::2], out=values[:, 1::2])
    return values


def integers(source: Source, fmt: Format) -> F32:
    """Integers in -8 ... 8, so that sums and squares are exact in every format."""
    (bits,) = source.integers(16)
    scaled = np.multiply(bits, 17, dtype=np.uint32) >> 16
    return scaled.astype(np.float32) - np.float32(8)


def ramp(source: Source, fmt: Format) -> F32:
    """0, 1, ... 7, 0, 1, ... along the columns, one further in each row: easy on the eye."""
    # uint8 wraps at 256, a multiple of 8.
    rows, cols = (np.arange(n).astype(np.uint8) for n in (source.rows, source.cols))
    steps: F32 = ((rows[:, None] + cols) & 7).astype(np.float32)
    return steps


FAMILIES: dict[str, Callable[[Source, Format], F32]] = {
    "normal": normal,
    "uniform": uniform,
    "outliers": outliers,
    "constant": constant,
    "zeros": zeros,
    "tiny": tiny,
    "subnormal": subnormal,
    "near_overflow": near_overflow,
    "sorted": sorted_rows,
    "alternating": alternating,
    "integers": integers,
    "ramp": ramp,
}
"""Generators by name. Each gives a new float32 array that broadcasts to (rows, cols)."""


def make_values(case: Case) -> dict[str, Bits]:
    """The dense bits of every tensor that has a recipe, by name.

    Shapes: each tensor's logical shape, row-major; elements that share memory are equal.
    Dtypes: uint16 for half precision, uint32 for float32; uint64 zeros for what targets refuse.
    Raises: ValueError for an unknown family, and for a plant outside its tensor.
    """
    # Recipes may overflow a narrow dtype on purpose; Inf is then the value.
    generator = np.random.PCG64(0)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return {
            t.name: _tensor_values(t, case, generator)
            for t in case.tensors
            if t.values is not None and t.alias_of is None
        }


def _tensor_values(tensor: TensorCase, case: Case, generator: np.random.PCG64) -> Bits:
    recipe = tensor.values
    assert recipe is not None
    if tensor.dtype not in FORMATS:
        # Nobody reads it: the target must refuse the dtype.
        return np.zeros(tensor.shape, np.uint64)
    if recipe.family not in FAMILIES:
        raise ValueError(
            f"{tensor.name}.values.family={recipe.family!r}, must be one of {', '.join(FAMILIES)}"
        )
    shared = any(s == 0 and n > 1 for n, s in zip(tensor.shape, tensor.strides, strict=True))
    shape = tensor.shape
    if shared:
        shape = tuple(
            1 if s == 0 and n > 1 else n for n, s in zip(shape, tensor.strides, strict=True)
        )
    lead = max(len(shape) - case.normalized_ndim, 0)
    rows, cols = math.prod(shape[:lead]), math.prod(shape[lead:])
    source = Source(generator, case.seed, tensor.name, rows, cols)
    values = FAMILIES[recipe.family](source, FORMATS[tensor.dtype])
    values *= np.float32(recipe.spread)
    values += np.float32(recipe.mean)
    bits = _round(values, tensor.dtype)
    if bits.shape != (rows, cols):
        bits = np.broadcast_to(bits, (rows, cols)).copy()
    bits = bits.reshape(shape)
    for plant in recipe.plants:
        _set_plant(bits, plant, tensor)
    return np.broadcast_to(bits, tensor.shape).copy() if shared else bits


def _round(values: F32, dtype: str) -> Bits:
    """The bits of float32 values in ``dtype``, as :func:`oracle.formats.encode` gives them.

    Not that function, which must round fp64 values: from float32, rounding to bfloat16 is four
    integer operations and 15 times as fast.
    """
    if dtype == "float32":
        return values.view(np.uint32)
    if dtype == "float16":
        return values.astype(np.float16).view(np.uint16)
    bits = values.view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    # Half a bfloat16 ulp, less one where the lower neighbour is even: a tie then stays below.
    rounded += bits
    rounded += 0x7FFF
    rounded >>= 16
    return rounded.astype(np.uint16)


def _set_plant(bits: Bits, plant: Plant, tensor: TensorCase) -> None:
    if not 0 <= plant.index < tensor.n_elements:
        raise ValueError(
            f"{tensor.name}.values.plants: index={plant.index}, "
            f"must be in 0 ... {tensor.n_elements - 1}"
        )
    where: Any = np.unravel_index(plant.index, tensor.shape)
    # An element of an expanded dim is every element of it.
    where = tuple(0 if n == 1 else i for i, n in zip(where, bits.shape, strict=True))
    bits[where] = _round(np.array([plant.value], np.float64).astype(np.float32), tensor.dtype)[0]


def run_values(run: Run, case: Case, values: dict[str, Bits]) -> dict[str, Bits]:
    """The values of a run from those of its base case: its rows, and NaN in the drowned ones.

    Shapes: those of the run's own tensors. Tensors that the run leaves alone are not copied.
    """
    if run.rows is None and run.drowned is None:
        return values
    return {name: _run_rows(run, case, name, bits) for name, bits in values.items()}


def _run_rows(run: Run, case: Case, name: str, bits: Bits) -> Bits:
    tensor = case.tensor_or_fail(name)
    if not has_rows(tensor, case):
        return bits
    rows = bits.reshape(case.n_rows, case.n_cols)
    if run.rows is not None:
        rows = rows[list(run.rows)]
    if run.drowned is not None and tensor.dtype in _QUIET_NAN:
        kept = rows[run.drowned]
        rows = np.full_like(rows, _QUIET_NAN[tensor.dtype])
        rows[run.drowned] = kept
    return rows.reshape(run.case.tensor_or_fail(name).shape)


def digest(values: dict[str, Bits]) -> str:
    """16 hex digits that name these values: SHA-256 of names, dtypes, shapes and bits."""
    hashed = hashlib.sha256()
    for name, bits in sorted(values.items()):
        stored = np.ascontiguousarray(bits, bits.dtype.newbyteorder("<"))
        hashed.update(f"{name} {stored.dtype.str} {stored.shape}\n".encode())
        hashed.update(stored.tobytes())
    return hashed.hexdigest()[:16]
