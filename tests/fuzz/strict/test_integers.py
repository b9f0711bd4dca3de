"""Integer arithmetic: what wraps, what truncates, what does not raise."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter as stock

from tests.fuzz.strict.arrays import computed

if not isinstance(tl.sum, stock.InterpretedFunction):
    pytest.skip("the suite runs compiled", allow_module_level=True)

DTYPES = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8]


@triton.jit
def integers(a_ptr, b_ptr, y_ptr, BLOCK: tl.constexpr, HOW: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(a_ptr + at)
    b = tl.load(b_ptr + at)
    if HOW == "add":
        y = a + b
    elif HOW == "mul":
        y = a * b
    elif HOW == "literal":
        y = a * 77
    elif HOW == "floordiv":
        y = a // b
    elif HOW == "mod":
        y = a % b
    elif HOW == "cdiv":
        y = tl.cdiv(a, b)
    elif HOW == "shl":
        y = a << b
    elif HOW == "shr":
        y = a >> b
    elif HOW == "invert":
        y = ~a
    elif HOW == "umulhi":
        y = tl.umulhi(a, b)
    else:
        y = ((a > 0) + (b > 0)).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + at, y)


def operands(dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of limits, small numbers and random ones."""
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    limits = np.iinfo(kind)
    some = {0, 1, 2, 7, 100, limits.max, limits.max - 1, limits.min, limits.min + 1}
    some |= {number for number in (-1, -2, -7) if limits.min < 0}
    grid = np.meshgrid(*[np.array(sorted(some), dtype=kind)] * 2)
    a, b = (array.ravel() for array in grid)
    random = np.random.default_rng(3).integers(limits.min, limits.max, (2, 200), dtype=kind)
    return np.concatenate([a, random[0]]), np.concatenate([b, random[1]])


def exactly(a: np.ndarray, b: np.ndarray, function) -> np.ndarray:
    """The function of Python's integers, wrapped to the dtype of the operands."""
    bits = a.itemsize * 8
    low = np.iinfo(a.dtype).min
    values = (function(int(x), int(y)) for x, y in zip(a, b, strict=True))
    return np.array([(value - low) % 2**bits + low for value in values], dtype=a.dtype)


def truncated(x: int, y: int) -> int:
    """C's division."""
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("how", "function"),
    [
        ("add", lambda x, y: x + y),
        ("mul", lambda x, y: x * y),
        ("literal", lambda x, y: x * 77),
        ("floordiv", truncated),
        ("mod", lambda x, y: x - y * truncated(x, y)),
        ("invert", lambda x, y: ~x),
    ],
)
def test_integer_arithmetic_wraps_and_divides_like_c(dtype, how: str, function) -> None:
    a, b = operands(dtype)
    if how in ("floordiv", "mod"):
        b = np.where(b == 0, b.dtype.type(3), b)
    got = computed(integers, a, b, dtype=dtype, HOW=how)
    np.testing.assert_array_equal(got, exactly(a, b, function))


def test_ceiling_division_rounds_up_from_zero() -> None:
    a, b = np.array([7, 8, 9, 0, -7, -9]), np.array([4, 4, 4, 4, 4, 4])
    got = computed(integers, a, b, dtype=torch.int64, HOW="cdiv")
    # (a + 3) / 4, toward zero.
    assert got.tolist() == [2, 2, 3, 0, -1, -1]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_shifts_move_bits_out(dtype: torch.dtype) -> None:
    a, _ = operands(dtype)
    bits = a.itemsize * 8
    b = (np.arange(a.size) % bits).astype(a.dtype)
    for how, function in (("shl", lambda x, y: x << y), ("shr", lambda x, y: x >> y)):
        got = computed(integers, a, b, dtype=dtype, HOW=how)
        np.testing.assert_array_equal(got, exactly(a, b, function))
    # As on a GPU, which takes a shift by more for one by all bits.
    wide = np.full_like(a, bits + 3)
    assert not computed(integers, a, wide, dtype=dtype, HOW="shl").any()
    got = computed(integers, a, wide, dtype=dtype, HOW="shr")
    np.testing.assert_array_equal(got, np.where(a < 0, -1, 0).astype(a.dtype))


@pytest.mark.parametrize("how", ["floordiv", "mod"])
def test_division_by_zero_does_not_raise(how: str, recwarn: pytest.WarningsRecorder) -> None:
    a = np.array([1, -1, 0, 5], dtype=np.int32)
    b = np.array([0, 0, 0, 2], dtype=np.int32)
    got = computed(integers, a, b, dtype=torch.int32, HOW=how)
    assert got[3] == {"floordiv": 2, "mod": 1}[how]
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_umulhi_is_unsigned(dtype: torch.dtype) -> None:
    a, b = operands(dtype)
    bits = a.itemsize * 8
    mask = 2**bits - 1
    got = computed(integers, a, b, dtype=dtype, HOW="umulhi")
    want = exactly(a, b, lambda x, y: (x & mask) * (y & mask) >> bits)
    np.testing.assert_array_equal(got, want)


def test_one_bit_wraps() -> None:
    a, b = np.array([1, 1, -1, -1], np.int32), np.array([1, -1, 1, -1], np.int32)
    got = computed(integers, a, b, dtype=torch.int32, HOW="one_bit")
    assert got.tolist() == [0, 1, 1, 0]
