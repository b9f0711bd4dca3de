"""Element-wise arithmetic: bfloat16, fused operations, extremes, subnormals, atomics."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

from fractions import Fraction

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter as stock

from fuzz.interpreter import StrictInterpreter
from fuzz.strict.bfloat16 import round_to_bf16
from fuzz.strict.faults import UnsupportedInInterpreter
from fuzz.strict.rounding import fma, round_fp32
from tests.fuzz.strict.arrays import (
    ALL_16_BITS,
    BF16,
    as_numpy,
    as_torch,
    assert_same_bits,
    computed,
    launched,
)

if not isinstance(tl.sum, stock.InterpretedFunction):
    pytest.skip("the suite runs compiled", allow_module_level=True)

# --- bfloat16 ------------------------------------------------------------------------------------


@triton.jit
def arithmetic(a_ptr, b_ptr, y_ptr, c_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    a = tl.load(a_ptr + at)
    b = tl.load(b_ptr + at)
    tl.store(y_ptr + at, a + b)
    tl.store(y_ptr + N + at, a - b)
    tl.store(y_ptr + 2 * N + at, a * b)
    tl.store(y_ptr + 3 * N + at, (a / b).to(tl.bfloat16))
    tl.store(y_ptr + 4 * N + at, -a)
    tl.store(y_ptr + 5 * N + at, tl.abs(a))
    tl.store(y_ptr + 6 * N + at, tl.maximum(a, b).to(tl.bfloat16))
    tl.store(y_ptr + 7 * N + at, tl.where(a < b, a, 1.5))
    tl.store(y_ptr + 8 * N + at, tl.full((N,), -2.75, tl.bfloat16))
    tl.store(y_ptr + 9 * N + at, tl.clamp(a, b, b + 1).to(tl.bfloat16))
    clamped = tl.clamp(a, b, b + 1, propagate_nan=tl.PropagateNan.ALL)
    tl.store(y_ptr + 10 * N + at, clamped.to(tl.bfloat16))
    tl.store(c_ptr + at, (a < b).to(tl.float32))
    tl.store(c_ptr + N + at, (a == b).to(tl.float32))
    tl.store(c_ptr + 2 * N + at, (a >= 0).to(tl.float32))


def test_bf16_arithmetic_rounds_each_operation_once() -> None:
    n = 4096
    random = np.random.default_rng(5)
    a, b = random.integers(0, 1 << 16, (2, n), dtype=np.uint16).view(BF16)
    # Close values, so that differences are exact and sums are ties.
    a[: n // 2] = random.integers(-300, 300, n // 2).astype(BF16)
    b[: n // 2] = (random.integers(-300, 300, n // 2) / 256).astype(BF16)
    b[:8] = a[:8]
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(a) & np.isfinite(b)
    a, b = np.where(finite, a, BF16(3)), np.where(finite, b, BF16(3))
    y = torch.empty(11, n, dtype=torch.bfloat16)
    c = torch.empty(3, n)
    launched(arithmetic, as_torch(a), as_torch(b), y, c, N=n)
    with np.errstate(all="ignore"):
        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        upper = (wide_b + 1).astype(BF16)
        want = [
            round_to_bf16(wide_a + wide_b).view(BF16),
            round_to_bf16(wide_a - wide_b).view(BF16),
            round_to_bf16(wide_a * wide_b).view(BF16),
            (a.astype(np.float32) / b.astype(np.float32)).astype(BF16),
            -a,
            np.abs(a),
            np.maximum(a, b),
            np.where(a < b, a, BF16(1.5)),
            np.full(n, -2.75, dtype=BF16),
            np.minimum(np.maximum(a, b), upper),
            np.minimum(np.maximum(a, b), upper),
        ]
    zero = np.zeros(n, dtype=BF16)
    for row, (got, expected) in enumerate(zip(as_numpy(y), want, strict=True)):
        # The sign of a zero is free in NumPy's maximum, and in the 0 - x of Triton 3.6's -x.
        free_sign = row in (4, 6, 9, 10)
        assert_same_bits(
            got + zero if free_sign else got, expected + zero if free_sign else expected
        )
    np.testing.assert_array_equal(c.numpy(), np.stack([a < b, a == b, a >= 0]).astype(np.float32))


@triton.jit
def matmul(a_ptr, b_ptr, y_ptr, N: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(y_ptr + at, tl.dot(tl.load(a_ptr + at), tl.load(b_ptr + at)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_dot_multiplies_values(dtype: torch.dtype) -> None:
    a, b = torch.arange(512.0).reshape(2, 16, 16).remainder(7).to(dtype)
    # A subnormal, of which a conversion may lose the exponent.
    a[0, 0] = torch.tensor(2.0**-9).to(dtype)
    y = torch.empty(16, 16)
    launched(matmul, a, b, y, N=16)
    assert torch.equal(y, a.float() @ b.float())


@triton.jit
def scaled_matmul(a_ptr, y_ptr):
    at = tl.arange(0, 32)[:, None] * 32 + tl.arange(0, 32)[None, :]
    a = tl.load(a_ptr + at)
    scale = tl.full((32, 1), 127, tl.uint8)
    tl.store(y_ptr + at, tl.dot_scaled(a, scale, "bf16", a, scale, "bf16"))


@triton.jit
def assembled(a_ptr, y_ptr):
    at = tl.arange(0, 32)
    a = tl.load(a_ptr + at)
    y = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [a], a.dtype, True, 1)
    tl.store(y_ptr + at, y)


@pytest.mark.parametrize(
    ("kernel", "name"), [(scaled_matmul, "tl.dot_scaled"), (assembled, "inline assembly .mov.b32")]
)
def test_operation_that_cannot_be_done_is_refused_by_name_and_line(kernel, name: str) -> None:
    x = torch.ones(32, 32, dtype=torch.bfloat16)
    with pytest.raises(UnsupportedInInterpreter, match=rf"{name}.*\[{kernel.__name__}, test_arith"):
        launched(kernel, x, torch.empty(32, 32))


# --- fused multiply-add --------------------------------------------------------------------------


@triton.jit
def fused_multiply_add(x_ptr, y_ptr, z_ptr, result_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    product = tl.fma(tl.load(x_ptr + at), tl.load(y_ptr + at), tl.load(z_ptr + at))
    tl.store(result_ptr + at, product)


def nearest_of(kind: type, exact: Fraction, near: float) -> bool:
    """Whether a finite number is the one of its format that an exact value rounds to."""
    distance = abs(exact - Fraction(near))
    array = np.array(near).astype(kind)
    for direction in (-np.inf, np.inf):
        other = np.nextafter(array, np.array(direction).astype(kind))
        if np.isfinite(other.astype(np.float64)):
            gap = abs(exact - Fraction(float(other)))
            even = int(array.view(f"u{array.itemsize}")) % 2 == 0
            if gap < distance or (gap == distance and not even):
                return False
    return True


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_fma_rounds_once(dtype: torch.dtype) -> None:
    kind = {torch.bfloat16: BF16, torch.float16: np.float16}.get(
        dtype, np.float32 if dtype == torch.float32 else np.float64
    )
    random = np.random.default_rng(8)
    n = 1024
    x, y = (1 + random.random((2, n))).astype(kind)
    product = x.astype(np.float64) * y.astype(np.float64)
    # Products just around a tie of the sum, tipped by what a wider float would drop; and ones that
    # nearly cancel.
    scale = np.where(np.arange(n) % 2, -1 - 2.0**-6, 2.0 ** -random.integers(4, 60, n))
    z = (product * scale).astype(kind)
    got = computed(fused_multiply_add, x, y, z, dtype=dtype)
    for one in zip(x, y, z, got, strict=True):
        a, b, c, result = (float(value) for value in one)
        assert nearest_of(kind, Fraction(a) * Fraction(b) + Fraction(c), result), one


@pytest.mark.parametrize(
    ("dtype", "x", "y", "z", "want"),
    [
        # 1.0625^2 = 1.12890625 is half way between two bfloat16: up, down, and to even.
        (BF16, 1.0625, 1.0625, 2.0**-70, 1.1328125),
        (BF16, 1.0625, 1.0625, -(2.0**-70), 1.125),
        (BF16, 1.0625, 1.0625, 0.0, 1.125),
        # (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24: half a unit of float32 in the last term.
        (np.float32, 1 + 2.0**-12, 1 + 2.0**-12, 2.0**-80, 1 + 2.0**-11 + 2.0**-23),
        (np.float32, 1 + 2.0**-12, 1 + 2.0**-12, -(2.0**-80), 1 + 2.0**-11),
        (np.float32, 1 + 2.0**-12, 1 + 2.0**-12, -1.0, 2.0**-11 + 2.0**-24),
        (np.float64, 1 + 2.0**-30, 1 + 2.0**-30, -1.0, 2.0**-29 + 2.0**-60),
        (np.float64, 1e300, 1e300, -np.inf, -np.inf),
        (np.float64, 1e300, 1e300, 0.0, np.inf),
        (np.float32, np.inf, 0.0, 1.0, np.nan),
        (np.float32, 1e30, 1e30, -1e30, np.inf),
    ],
)
def test_fma_of_hard_cases(dtype: type, x: float, y: float, z: float, want: float) -> None:
    operands = [np.array([value]).astype(dtype) for value in (x, y, z)]
    if dtype is BF16:
        got = fma(*(operand.view(np.uint16) for operand in operands)).view(BF16)
    else:
        with np.errstate(all="ignore"):
            got = fma(*operands)
    assert_same_bits(got, np.array([want]).astype(dtype))


@triton.jit
def integer_fma(x_ptr):
    x = tl.load(x_ptr + tl.arange(0, 4))
    tl.store(x_ptr + tl.arange(0, 4), tl.fma(x, x, x))


def test_fma_of_integers_is_refused() -> None:
    with pytest.raises(UnsupportedInInterpreter, match="fma of int32"):
        launched(integer_fma, torch.ones(4, dtype=torch.int32))


def test_directed_rounding_brackets_the_exact_value() -> None:
    exact = np.array([1 + 2.0**-30, -1 - 2.0**-30, 1e300, -1e300, 2.0**-200, 0.5, np.inf, np.nan])
    with np.errstate(over="ignore"):
        down, up, zero, near = (round_fp32(exact, d) for d in ("rd", "ru", "rz", "rn"))
    one, after = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    largest, tiny = np.finfo(np.float32).max, np.float32(2.0**-149)
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    assert_same_bits(down, np.array([one, -after, largest, -inf, 0, 0.5, inf, nan], np.float32))
    assert_same_bits(up, np.array([after, -one, inf, -largest, tiny, 0.5, inf, nan], np.float32))
    assert_same_bits(zero, np.array([one, -one, largest, -largest, 0, 0.5, inf, nan], np.float32))
    assert_same_bits(near, np.array([one, -one, inf, -inf, 0, 0.5, inf, nan], np.float32))


# --- extremes ------------------------------------------------------------------------------------


@triton.jit
def extremes(x_ptr, y_ptr, result_ptr, BLOCK: tl.constexpr, HOW: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    y = tl.load(y_ptr + at)
    if HOW == "max":
        result = tl.maximum(x, y)
    elif HOW == "min":
        result = tl.minimum(x, y)
    elif HOW == "max_nan":
        result = tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)
    elif HOW == "min_nan":
        result = tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)
    elif HOW == "builtin_max":
        result = max(x, y)
    elif HOW == "builtin_min":
        result = min(x, y)
    else:
        result = tl.clamp(x, y, y)
    tl.store(result_ptr + at, result.to(result_ptr.dtype.element_ty))


NAN, INF = np.nan, np.inf
LEFT = np.array([1, 2, NAN, 1, NAN, 0.0, -0.0, -0.0, INF, -1])
RIGHT = np.array([2, 1, 1, NAN, NAN, -0.0, 0.0, -0.0, NAN, -INF])
LARGER = np.array([2, 2, 1, 1, NAN, 0.0, 0.0, -0.0, INF, -1])
SMALLER = np.array([1, 1, 1, 1, NAN, -0.0, -0.0, -0.0, INF, -INF])
IS_NAN = np.isnan(LEFT) | np.isnan(RIGHT)


@pytest.mark.filterwarnings("ignore:builtin m.. on non-scalar:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:builtin m.. on non-scalar:UserWarning")
@pytest.mark.parametrize("kind", [np.float32, np.float16, BF16])
@pytest.mark.parametrize(
    ("how", "want"),
    [
        ("max", LARGER),
        ("min", SMALLER),
        ("builtin_max", LARGER),
        ("builtin_min", SMALLER),
        ("max_nan", np.where(IS_NAN, NAN, LARGER)),
        ("min_nan", np.where(IS_NAN, NAN, SMALLER)),
        # Between equal limits: a NaN among the values is dropped, one of the limits' too.
        ("clamp", np.where(np.isnan(RIGHT), LEFT, RIGHT)),
    ],
)
def test_extremes_drop_nan_and_order_zeros(kind: type, how: str, want: np.ndarray) -> None:
    x, y = LEFT.astype(kind), RIGHT.astype(kind)
    got = computed(extremes, x, y, dtype=as_torch(x).dtype, HOW=how)
    assert_same_bits(got, want.astype(kind))


# --- what one instruction does -------------------------------------------------------------------


@triton.jit
def one_instruction(x_ptr, y_ptr, BLOCK: tl.constexpr, HOW: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    if HOW == "sqrt":
        y = tl.sqrt(x)
    elif HOW == "rsqrt":
        y = tl.rsqrt(x)
    elif HOW == "floor":
        y = tl.floor(x)
    elif HOW == "ceil":
        y = tl.ceil(x)
    elif HOW == "exp2":
        y = tl.exp2(x)
    else:
        y = tl.math.sqrt_rn(x)
    tl.store(y_ptr + at, y)


@pytest.mark.parametrize(
    ("how", "x", "want"),
    [
        ("sqrt", [1e-40, 4.0, -1e-40], [0.0, 2.0, -0.0]),
        ("rsqrt", [1e-40, 4.0, 0.0], [INF, 0.5, INF]),
        ("floor", [-1e-40, 1e-40, -0.5], [-0.0, 0.0, -1.0]),
        ("ceil", [1e-40, -1e-40, 0.5], [0.0, -0.0, 1.0]),
        ("exp2", [-130.0, 3.0, -126.0], [0.0, 8.0, 2.0**-126]),
    ],
)
def test_subnormals_are_zeros_where_an_instruction_flushes_them(how, x, want) -> None:
    got = computed(one_instruction, np.array(x, dtype=np.float32), HOW=how)
    assert_same_bits(got, np.array(want, dtype=np.float32))


def test_subnormals_stay_where_they_do_on_a_gpu() -> None:
    x = np.array([2.0**-140, 2.0**-130], dtype=np.float32)
    got = computed(one_instruction, x, HOW="sqrt_rn")
    assert_same_bits(got, np.array([2.0**-70, 2.0**-65], dtype=np.float32))
    wide = computed(one_instruction, np.array([1e-310]), dtype=torch.float64, HOW="sqrt")
    assert wide[0] > 0


@triton.jit
def remainder(x_ptr, y_ptr, result_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(result_ptr + at, tl.load(x_ptr + at) % tl.load(y_ptr + at))


def test_float_remainder_is_what_a_rounded_quotient_leaves() -> None:
    x = np.array([7.5, -7.5, 7.5, 1e10, 5.0, INF, 3.0], dtype=np.float32)
    y = np.array([2.0, 2.0, -2.0, 3.0, INF, 2.0, 0.0], dtype=np.float32)
    got = computed(remainder, x, y)
    # fmod(1e10, 3) is 1; the quotient, of 24 bits, is 85 too small.
    assert_same_bits(got, np.array([1.5, -1.5, 1.5, 256.0, 5.0, NAN, NAN], np.float32))


# --- atomics -------------------------------------------------------------------------------------


@triton.jit
def accumulate(x_ptr, y_ptr, at_ptr, old_ptr, n, N: tl.constexpr):
    lanes = tl.arange(0, N)
    at = tl.load(at_ptr + lanes)
    old = tl.atomic_add(y_ptr + at, tl.load(x_ptr + lanes), mask=lanes < n)
    tl.store(old_ptr + lanes, old, mask=lanes < n)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_atomic_add_rounds_each_sum(dtype: torch.dtype) -> None:
    # Lanes that share an address add one after the other: 256 + 1 is 256 in bfloat16, each time.
    x = torch.tensor([1, 1, 1, 3, 5, 7, 9, 9], dtype=dtype)
    y = torch.tensor([256, 0.5, 0], dtype=dtype)
    at = torch.tensor([0, 0, 0, 1, 0, 1, 2, 2])
    old = torch.zeros(8, dtype=dtype)
    launched(accumulate, x, y, at, old, 7, N=8)
    if dtype == torch.bfloat16:
        assert y.tolist() == [260, 10.5, 9]
        assert old.tolist() == [256, 256, 256, 0.5, 256, 3.5, 0, 0]
    else:
        assert y.tolist() == [264, 10.5, 9]
        assert old.tolist() == [256, 257, 258, 0.5, 259, 3.5, 0, 0]


def test_bf16_atomic_add_of_all_values_rounds_to_nearest_even() -> None:
    a = ALL_16_BITS.view(BF16)
    with np.errstate(invalid="ignore"):
        a = a[np.isfinite(a)][:32768]
        b = np.roll(a, 12345)
        want = round_to_bf16(a.astype(np.float64) + b).view(BF16)
    y = as_torch(b.copy())
    old = torch.empty(32768, dtype=torch.bfloat16)
    launched(accumulate, as_torch(a.copy()), y, torch.arange(32768), old, 32768, N=32768)
    assert_same_bits(as_numpy(y), want)
    assert_same_bits(as_numpy(old), b)


@triton.jit
def exchange_larger(x_ptr, y_ptr):
    tl.atomic_max(y_ptr + tl.arange(0, 4), tl.load(x_ptr + tl.arange(0, 4)))


def test_bf16_atomic_that_does_not_exist_is_an_error() -> None:
    x, y = torch.ones(2, 4, dtype=torch.bfloat16)
    with StrictInterpreter(), pytest.raises(Exception, match=r"atomic_max|bfloat16|bf16"):
        exchange_larger[(1,)](x, y)


# --- comparisons ---------------------------------------------------------------------------------


@triton.jit
def store_in_rows_below(x_ptr, n_rows, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    # A scalar comparison, spread over a block of another one's results.
    below = (at < 3) & (tl.program_id(0) + 1 < n_rows)
    tl.store(x_ptr + tl.program_id(0) * BLOCK + at, 1.0, mask=below)


def test_scalar_comparison_masks_a_block() -> None:
    x = torch.zeros(2, 4)
    with StrictInterpreter():
        store_in_rows_below[(2,)](x, 2, BLOCK=4)
    assert x.tolist() == [[1, 1, 1, 0], [0, 0, 0, 0]]
