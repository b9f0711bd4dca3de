import os

os.environ.setdefault("TRITON_INTERPRET", "1")

import ml_dtypes
import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter as stock
from triton.runtime.errors import InterpreterError
from triton.tools.tensor_descriptor import TensorDescriptor

from fuzz.interpreter import StrictInterpreter, UnsupportedTriton, _require_known
from fuzz.strict.bfloat16 import round_to_bf16
from fuzz.strict.faults import Access, OutOfBounds, UnsupportedInInterpreter
from fuzz.strict.regions import Region, Regions, Spans

if not isinstance(tl.sum, stock.InterpretedFunction):
    pytest.skip("the suite runs compiled", allow_module_level=True)

BF16 = ml_dtypes.bfloat16


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The same memory, with bfloat16 as ml_dtypes has it."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(BF16)
    return tensor.numpy()


def as_torch(array: np.ndarray) -> torch.Tensor:
    if array.dtype == BF16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def assert_same_bits(got: np.ndarray, want: np.ndarray) -> None:
    """Equal bit by bit, except that any NaN is as good as another."""
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    nan = np.isnan(want)
    np.testing.assert_array_equal(np.isnan(got), nan)
    as_bits = f"u{want.dtype.itemsize}"
    np.testing.assert_array_equal(got.view(as_bits)[~nan], want.view(as_bits)[~nan])


def region_of(name: str, tensor: torch.Tensor, *, writable: bool = True) -> Region:
    n_bytes = tensor.numel() * tensor.element_size()
    return Region.of_bytes(name, tensor.data_ptr(), n_bytes, writable=writable)


# --- conversions ---------------------------------------------------------------------------------


@triton.jit
def convert(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at).to(y_ptr.dtype.element_ty))


def converted(x: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    block = 1 << 16
    assert x.size % block == 0
    y = torch.empty(x.size, dtype=dtype)
    with StrictInterpreter():
        convert[(x.size // block,)](as_torch(x), y, BLOCK=block)
    return as_numpy(y)


# Every bfloat16 as the upper half, and what lies just around a tie as the lower: the whole range,
# subnormals, NaN of all kinds, and what overflows to Inf are among them.
ALL_16_BITS = np.arange(1 << 16, dtype=np.uint16)
AROUND_TIES = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=np.uint32)
FP32_AROUND_TIES = ((ALL_16_BITS.astype(np.uint32) << 16) | AROUND_TIES[:, None]).view(np.float32)


def test_fp32_to_bf16_rounds_to_nearest_even() -> None:
    x = FP32_AROUND_TIES.reshape(-1)
    with np.errstate(invalid="ignore"):
        want = x.astype(BF16)
    assert_same_bits(converted(x, torch.bfloat16), want)


def test_bf16_to_fp32_is_exact() -> None:
    x = ALL_16_BITS.view(BF16)
    assert_same_bits(converted(x, torch.float32), x.astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fp16_converts_as_ml_dtypes_does(dtype: torch.dtype) -> None:
    x = ALL_16_BITS.view(np.float16)
    with np.errstate(invalid="ignore"):
        want = x.astype(BF16 if dtype == torch.bfloat16 else np.float32)
    assert_same_bits(converted(x, dtype), want)


@pytest.mark.parametrize("source", [np.float32, BF16])
def test_conversion_to_fp16_rounds_to_nearest_even(source: type) -> None:
    x = FP32_AROUND_TIES.reshape(-1) if source is np.float32 else ALL_16_BITS.view(BF16)
    with np.errstate(over="ignore", invalid="ignore"):
        want = x.astype(np.float32).astype(np.float16)
    assert_same_bits(converted(x, torch.float16), want)


def test_fp64_to_bf16_rounds_once() -> None:
    # 1 + 2^-8 is a tie between two bfloat16 and 2^-40 tips it: float32 on the way would lose that.
    # 3.3895e38 is beyond the largest finite bfloat16 by less than half a unit; the next is a tie.
    ulp = 2.0**120
    largest = float(ml_dtypes.finfo(BF16).max)
    cases = {
        1 + 2.0**-8 + 2.0**-40: 1 + 2.0**-7,
        1 + 2.0**-8 - 2.0**-40: 1.0,
        1 + 2.0**-8: 1.0,
        -(1 + 2.0**-8 + 2.0**-40): -(1 + 2.0**-7),
        2.0**-134: 0.0,
        2.0**-134 + 2.0**-180: 2.0**-133,
        -(2.0**-200): -0.0,
        largest + ulp / 2: np.inf,
        largest + ulp / 2 - 2.0**80: largest,
        1e300: np.inf,
        -np.inf: -np.inf,
        np.nan: np.nan,
    }
    x = np.zeros(1 << 16)
    x[: len(cases)] = list(cases)
    want = np.zeros(1 << 16, dtype=BF16)
    want[: len(cases)] = list(cases.values())
    assert_same_bits(converted(x, torch.bfloat16), want)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.bool_])
def test_integer_to_bf16_goes_through_float32(dtype: type) -> None:
    x = np.arange(1 << 16).astype(dtype)
    if dtype in (np.int32, np.int64):
        x = x * np.array(-77777).astype(dtype)
    assert_same_bits(converted(x, torch.bfloat16), x.astype(np.float32).astype(BF16))


def test_bf16_to_integer_truncates() -> None:
    x = (np.arange(1 << 16) / 7 - 4000).astype(BF16)
    want = x.astype(np.float32).astype(np.int32)
    np.testing.assert_array_equal(converted(x, torch.int32), want)


@triton.jit
def convert_toward_zero(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at).to(tl.bfloat16, fp_downcast_rounding="rtz"))


def test_bf16_toward_zero_keeps_nan() -> None:
    x = torch.tensor([1 + 2.0**-8, 1 + 2.0**-7 - 2.0**-23, -(1 + 2.0**-8), torch.inf])
    x = torch.cat(
        [x, torch.tensor([0x7F800001, 0x7F7FFFFF], dtype=torch.int32).view(x.dtype), x[:2]]
    )
    y = torch.empty(8, dtype=torch.bfloat16)
    with StrictInterpreter():
        convert_toward_zero[(1,)](x, y, BLOCK=8)
    largest = torch.finfo(torch.bfloat16).max
    want = torch.tensor([1, 1, -1, torch.inf, torch.nan, largest, 1, 1], dtype=torch.bfloat16)
    assert_same_bits(as_numpy(y), as_numpy(want))


def test_round_to_bf16_keeps_shapes() -> None:
    for shape in [(), (1,), (2, 3), (0,)]:
        for dtype in (np.float32, np.float64, np.int32):
            assert round_to_bf16(np.ones(shape, dtype=dtype)).shape == shape
    strided = np.arange(12, dtype=np.float32).reshape(3, 4).T
    np.testing.assert_array_equal(round_to_bf16(strided).view(BF16), strided.astype(BF16))


# --- bfloat16 arithmetic -------------------------------------------------------------------------


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
    with StrictInterpreter():
        arithmetic[(1,)](as_torch(a), as_torch(b), y, c, N=n)
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
        # The sign of a zero is free in a maximum, as in PTX, and in the 0 - x of Triton 3.6's -x.
        free_sign = row in (4, 6, 9, 10)
        assert_same_bits(
            got + zero if free_sign else got, expected + zero if free_sign else expected
        )
    np.testing.assert_array_equal(c.numpy(), np.stack([a < b, a == b, a >= 0]).astype(np.float32))


@triton.jit
def matmul(a_ptr, b_ptr, y_ptr, N: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(y_ptr + at, tl.dot(tl.load(a_ptr + at), tl.load(b_ptr + at)))


def test_bf16_dot_multiplies_values() -> None:
    a, b = torch.arange(512.0).reshape(2, 16, 16).remainder(7).to(torch.bfloat16)
    y = torch.empty(16, 16)
    with StrictInterpreter():
        matmul[(1,)](a, b, y, N=16)
    assert torch.equal(y, a.float() @ b.float())


@triton.jit
def fused_multiply_add(x_ptr, y_ptr):
    x = tl.load(x_ptr + tl.arange(0, 4))
    tl.store(y_ptr + tl.arange(0, 4), tl.fma(x, x, x))


@triton.jit
def running_sum(x_ptr, y_ptr):
    x = tl.load(x_ptr + tl.arange(0, 4))
    tl.store(y_ptr + tl.arange(0, 4), tl.associative_scan(x, 0, take_right))


@triton.jit
def accumulate(x_ptr, y_ptr):
    tl.atomic_add(y_ptr + tl.arange(0, 4), tl.load(x_ptr + tl.arange(0, 4)))


@pytest.mark.parametrize(
    ("kernel", "operation"),
    [(fused_multiply_add, "fma"), (running_sum, "scan"), (accumulate, "atomic")],
)
def test_bf16_operation_that_would_be_wrong_is_refused_by_name(kernel, operation: str) -> None:
    x, y = torch.ones(2, 4, dtype=torch.bfloat16)
    with (
        StrictInterpreter(),
        pytest.raises(UnsupportedInInterpreter, match=f"{operation}.*bfloat16"),
    ):
        kernel[(1,)](x, y)
    x, y = torch.ones(2, 4)
    with StrictInterpreter():
        kernel[(1,)](x, y)


# --- reductions ----------------------------------------------------------------------------------


@triton.jit
def sums(x_ptr, y_ptr, M: tl.constexpr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :])
    tl.store(y_ptr + tl.arange(0, M), tl.sum(x, axis=1))
    tl.store(y_ptr + M + tl.arange(0, N), tl.sum(x, axis=0))
    tl.store(y_ptr + M + N, tl.sum(x))
    tl.store(y_ptr + M + N + 1 + tl.arange(0, M)[:, None], tl.sum(x, axis=1, keep_dims=True))


def by_halves(x: np.ndarray) -> np.ndarray:
    """The sum over the last axis, rounded to the array's dtype at each step."""
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        x = x[..., :half] + x[..., half:]
    return x[..., 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16])
def test_sum_rounds_to_its_dtype_at_each_step_of_a_tree(dtype: type) -> None:
    m, n = 4, 512
    random = np.random.default_rng(6)
    x = (random.random((m, n)) + 1).astype(dtype)
    y = torch.empty(2 * m + n + 1, dtype=as_torch(x).dtype)
    with StrictInterpreter():
        sums[(1,)](as_torch(x), y, M=m, N=n)
    rows = by_halves(x)
    want = np.concatenate([rows, by_halves(x.T), [by_halves(x.reshape(-1))], rows])
    assert_same_bits(as_numpy(y), want.astype(dtype))


def test_sum_of_integers_is_exact() -> None:
    x = torch.arange(32, dtype=torch.int32).reshape(4, 8)
    y = torch.empty(17, dtype=torch.int32)
    with StrictInterpreter():
        sums[(1,)](x, y, M=4, N=8)
    assert y.tolist() == [*x.sum(1), *x.sum(0), x.sum(), *x.sum(1)]


@triton.jit
def sum_four(x_ptr, y_ptr):
    tl.store(y_ptr, tl.sum(tl.load(x_ptr + tl.arange(0, 4))).to(tl.float32))


def test_sum_of_float8_is_refused() -> None:
    x = torch.ones(4).to(torch.float8_e5m2)
    with StrictInterpreter(), pytest.raises(UnsupportedInInterpreter, match="sum of fp8e5"):
        sum_four[(1,)](x, torch.zeros(1))


@triton.jit
def extremes(x_ptr, y_ptr, i_ptr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    tl.store(y_ptr, tl.max(x, axis=0).to(tl.bfloat16))
    tl.store(y_ptr + 1, tl.min(x, axis=0).to(tl.bfloat16))
    tl.store(y_ptr + 2, tl.reduce(x, 0, larger))
    tl.store(i_ptr, tl.argmax(x, axis=0))
    tl.store(i_ptr + 1, tl.argmin(x, axis=0))


@triton.jit
def larger(a, b):
    return tl.maximum(a, b)


def test_bf16_extremes_compare_values() -> None:
    # As bits, every negative number is larger than every positive one.
    x = torch.tensor([0.5, -3, 2, -0.25, 1, -7, 0, 2], dtype=torch.bfloat16)
    y = torch.empty(3, dtype=torch.bfloat16)
    index = torch.empty(2, dtype=torch.int32)
    with StrictInterpreter():
        extremes[(1,)](x, y, index, N=8)
    assert y.tolist() == [2, -7, 2]
    assert index.tolist() == [2, 5]


@triton.jit
def plus(a, b):
    return a + b


@triton.jit
def take_right(a, b):
    return b


@triton.jit
def merge(n_a, mean_a, m2_a, n_b, mean_b, m2_b):
    n = n_a + n_b
    delta = mean_b - mean_a
    share = n_b / n
    return n, mean_a + delta * share, m2_a + m2_b + delta * delta * n_a * share


@triton.jit
def reduce_by_functions(x_ptr, y_ptr, M: tl.constexpr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :])
    count, mean, m2 = tl.reduce((x * 0 + 1, x, x * 0), 1, merge)
    at = tl.arange(0, M)
    tl.store(y_ptr + at, count)
    tl.store(y_ptr + M + at, mean)
    tl.store(y_ptr + 2 * M + at, m2)
    tl.store(y_ptr + 3 * M + at, tl.reduce(x, 1, take_right))
    tl.store(y_ptr + 4 * M + tl.arange(0, N), tl.reduce(x, 0, take_right))
    last = tl.reduce(x, 1, take_right, keep_dims=True)
    tl.store(y_ptr + 4 * M + N + at[:, None], last)
    tl.store(y_ptr + 5 * M + N + at, tl.reduce(x, 1, plus))


def test_reduction_by_a_function_takes_blocks_in_order() -> None:
    m, n = 4, 1024
    x = np.random.default_rng(7).random((m, n), dtype=np.float32) + 1
    y = torch.empty(6 * m + n)
    with StrictInterpreter():
        reduce_by_functions[(1,)](as_torch(x), y, M=m, N=n)
    count, mean, m2, last = y[: 4 * m].numpy().reshape(4, m)
    assert count.tolist() == [n] * m
    np.testing.assert_allclose(mean, x.mean(1, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(m2 / n, x.var(1, dtype=np.float64), rtol=1e-5)
    # Associative, not commutative: the order of the elements shows.
    np.testing.assert_array_equal(last, x[:, -1])
    np.testing.assert_array_equal(y[4 * m : 4 * m + n].numpy(), x[-1])
    np.testing.assert_array_equal(y[4 * m + n : 5 * m + n].numpy(), x[:, -1])
    while x.shape[1] > 1:
        x = x[:, 0::2] + x[:, 1::2]
    np.testing.assert_array_equal(y[5 * m + n :].numpy(), x[:, 0])


# --- undefined lanes -----------------------------------------------------------------------------


@triton.jit
def masked_copy(x_ptr, y_ptr, n, HAS_OTHER: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    if HAS_OTHER:
        x = tl.load(x_ptr + at, mask=at < n, other=0)
    else:
        x = tl.load(x_ptr + at, mask=at < n)
    tl.store(y_ptr + at, x)


@pytest.mark.parametrize(("poison", "byte"), [("nan", 0xFF), ("huge", 0x7B), ("-huge", 0xFB)])
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int64]
)
def test_undefined_lanes_hold_the_poison(poison, byte: int, dtype: torch.dtype) -> None:
    x, y = torch.ones(2, 8, dtype=dtype)
    with StrictInterpreter(poison=poison):
        masked_copy[(1,)](x, y, 3, HAS_OTHER=False, BLOCK=8)
    assert y[:3].tolist() == [1, 1, 1]
    assert set(y[3:].view(torch.uint8).tolist()) == {byte}
    if dtype.is_floating_point:
        assert torch.isnan(y[3:]).all() if poison == "nan" else torch.isfinite(y).all()


@pytest.mark.parametrize(("poison", "value"), [("nan", True), ("huge", False), ("-huge", False)])
def test_undefined_booleans_differ_between_nan_and_huge(poison, value: bool) -> None:
    x, y = torch.tensor([[True, False, True, False]] * 2)
    with StrictInterpreter(poison=poison):
        masked_copy[(1,)](x, y, 2, HAS_OTHER=False, BLOCK=4)
    assert y.tolist() == [True, False, value, value]
    assert set(y.view(torch.uint8).tolist()) <= {0, 1}


def test_lanes_with_other_hold_other() -> None:
    x, y = torch.ones(2, 8)
    with StrictInterpreter():
        masked_copy[(1,)](x, y, 3, HAS_OTHER=True, BLOCK=8)
    assert y.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


@triton.jit
def masked_exchange(x_ptr, y_ptr, n):
    at = tl.arange(0, 4)
    tl.store(y_ptr + at, tl.atomic_add(x_ptr + at, 1.0, mask=at < n))


def test_atomic_gives_poison_where_masked() -> None:
    x, y = torch.zeros(2, 4)
    with StrictInterpreter(poison="huge"):
        masked_exchange[(1,)](x, y, 2)
    assert x.tolist() == [1, 1, 0, 0]
    assert y[:2].tolist() == [0, 0]
    assert y[2:].view(torch.int32).tolist() == [0x7B7B7B7B] * 2


# --- out of bounds -------------------------------------------------------------------------------


@triton.jit
def copy_from(x_ptr, y_ptr, x_from, y_from, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + x_from + at, mask=at < n, other=0.0)
    tl.store(y_ptr + y_from + at, x, mask=at < n)


@triton.jit
def add_from(x_ptr, start):
    tl.atomic_add(x_ptr + start + tl.arange(0, 4), 1.0)


@triton.jit
def swap_from(x_ptr, start):
    tl.atomic_cas(x_ptr + start, 0, 1)


@triton.jit
def store_at(x_ptr, at):
    tl.store(x_ptr + at, 1.0)  # the line to be named


@triton.jit
def store_in_device_function(x_ptr, y_ptr):
    store_at(y_ptr, tl.program_id(1) * 3)


def test_read_past_the_end_names_the_access() -> None:
    x, y = torch.ones(20), torch.ones(32)
    with StrictInterpreter(), pytest.raises(OutOfBounds) as raised:
        copy_from[(1,)](x, y, 8, 0, 15, BLOCK=16)
    access = raised.value.access
    assert access == Access(
        kernel="copy_from",
        action="read",
        file=__file__,
        line=copy_from.fn.__code__.co_firstlineno + 3,
        text="x = tl.load(x_ptr + x_from + at, mask=at < n, other=0.0)",
        program=(0, 0, 0),
        region="x_ptr",
        element=20,
        dtype="float32",
        n_bad=3,
        n_lanes=15,
        read_only=False,
    )
    assert str(raised.value) == (
        "read outside 'x_ptr', at element 20 (float32), 3 of 15 lanes [copy_from, program "
        f"(0, 0, 0), test_interpreter.py:{access.line}: {access.text}]"
    )


@pytest.mark.parametrize("y_from", [24, -1, 1 << 40])
def test_write_out_of_bounds_is_not_performed(y_from: int) -> None:
    x, y = torch.zeros(16), torch.ones(32)
    with StrictInterpreter(), pytest.raises(OutOfBounds) as raised:
        copy_from[(1,)](x, y, 0, y_from, 16, BLOCK=16)
    assert (raised.value.access.action, raised.value.access.region) == ("write", "y_ptr")
    assert y.eq(1).all()


def test_masked_lanes_may_point_anywhere() -> None:
    x, y = torch.arange(6.0), torch.zeros(6)
    with StrictInterpreter():
        copy_from[(1,)](x, y, 0, 0, 6, BLOCK=16)
        copy_from[(1,)](x, y, 1 << 40, -(1 << 40), 0, BLOCK=16)
    assert torch.equal(x, y)


@pytest.mark.parametrize(("kernel", "dtype"), [(add_from, torch.float32), (swap_from, torch.int32)])
@pytest.mark.parametrize("start", [8, -1])
def test_atomic_out_of_bounds_is_not_performed(kernel, dtype: torch.dtype, start: int) -> None:
    memory = torch.zeros(32, dtype=dtype)
    regions = Regions([region_of("middle", memory[8:16])])
    with StrictInterpreter(regions=regions):
        kernel[(1,)](memory[8:16], 0)
        before = memory.clone()
        with pytest.raises(OutOfBounds, match=r"^atomic outside 'middle', at element"):
            kernel[(1,)](memory[8:16], start)
    assert torch.equal(memory, before)
    assert before.any()


def test_fault_in_a_device_function_names_its_line_and_the_program() -> None:
    x, y = torch.zeros(64), torch.zeros(8)
    with StrictInterpreter(), pytest.raises(OutOfBounds) as raised:
        store_in_device_function[(2, 4, 1)](x, y)
    access = raised.value.access
    assert access.kernel == "store_in_device_function"
    assert access.text == "tl.store(x_ptr + at, 1.0)  # the line to be named"
    assert access.line == store_at.fn.__code__.co_firstlineno + 2
    assert (access.program, access.region, access.element) == ((0, 3, 0), "y_ptr", 9)


def test_read_of_an_empty_tensor_names_it() -> None:
    x, y = torch.empty(0), torch.zeros(4)
    with (
        StrictInterpreter(),
        pytest.raises(OutOfBounds, match="read outside 'x_ptr', at element 1"),
    ):
        copy_from[(1,)](x, y, 1, 0, 1, BLOCK=1)


@triton.jit
def read_far(x_ptr, y_ptr, far, HOW: tl.constexpr):
    rows = tl.arange(0, 4)
    cols = tl.arange(0, 8)
    if HOW == "broadcast":
        pointers = x_ptr + far + rows[:, None] * 8 + cols[None, :]
    elif HOW == "expand":
        pointers = (x_ptr + far + rows * 8)[:, None] + cols[None, :]
    elif HOW == "cast":
        pointers = (x_ptr + far).to(tl.pointer_type(tl.int32)) + rows[:, None]
    else:
        pointers = x_ptr + far
        pointers += rows
        pointers += 8
    tl.store(y_ptr, tl.sum(tl.load(pointers).to(tl.float32)))


@pytest.mark.parametrize("how", ["broadcast", "expand", "cast", "advance"])
def test_access_far_off_is_charged_to_the_argument_it_was_computed_from(how: str) -> None:
    memory = torch.zeros(4096)
    x, between, y = memory[:32], memory[1024:3000], memory[4000:]
    regions = Regions([region_of("x", x), region_of("between", between), region_of("y", y)])
    with StrictInterpreter(regions=regions):
        read_far[(1,)](x, y, 0, HOW=how)
        with pytest.raises(OutOfBounds) as raised:
            read_far[(1,)](x, y, 3500, HOW=how)
    assert raised.value.access.region == "x"
    assert raised.value.access.element == (3508 if how == "advance" else 3500)


@triton.jit
def copy_in_tuple(pair, n):
    at = tl.arange(0, 8)
    tl.store(pair[1] + at, tl.load(pair[0] + at, mask=at < n, other=0.0))


def test_tensors_in_a_tuple_are_arguments_too() -> None:
    pair = torch.ones(6), torch.zeros(8)
    with StrictInterpreter():
        copy_in_tuple[(1,)](pair, 6)
        with pytest.raises(OutOfBounds, match=r"read outside 'pair\[0\]', at element 6"):
            copy_in_tuple[(1,)](pair, 8)
    assert pair[1].tolist() == [1] * 6 + [0] * 2


@triton.jit
def copy_from_descriptor(x, y_ptr):
    at = tl.arange(0, 8)[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(y_ptr + at, x.load([0, 0]))


def test_base_of_a_host_descriptor_is_an_argument_too() -> None:
    x, y = torch.arange(32.0).reshape(8, 4), torch.zeros(8, 4)
    with StrictInterpreter():
        copy_from_descriptor[(1,)](TensorDescriptor.from_tensor(x, [8, 4]), y)
    assert torch.equal(x, y)


def test_default_memory_is_the_whole_storage() -> None:
    memory = torch.arange(32.0)
    y = torch.zeros(32)
    with StrictInterpreter():
        copy_from[(1,)](memory[8:16], y[4:8], -8, -4, 16, BLOCK=16)
        assert y[:16].tolist() == list(range(16))
        with pytest.raises(OutOfBounds) as raised:
            copy_from[(1,)](memory[8:16], y, 16, 0, 16, BLOCK=16)
    # Counted from where the argument begins, not its storage.
    assert (raised.value.access.element, raised.value.access.n_bad) == (24, 8)


def test_gap_between_declared_rows_is_out_of_bounds() -> None:
    memory = torch.zeros(4, 16)
    x = torch.ones(16)
    start = memory.data_ptr()
    rows = start + 64 * np.arange(4, dtype=np.uint64)[:, None] + np.array([0, 40], dtype=np.uint64)
    regions = Regions([Region("rows", rows, origin=start)])
    with StrictInterpreter(regions=regions):
        copy_from[(1,)](x, memory, 0, 16, 10, BLOCK=16)
        with pytest.raises(OutOfBounds) as raised:
            copy_from[(1,)](x, memory, 0, 32, 11, BLOCK=16)
        access = raised.value.access
        assert (access.region, access.element, access.n_bad) == ("rows", 42, 1)
    assert memory.sum() == 10


def test_read_only_memory_may_be_read_not_written() -> None:
    memory = torch.arange(32.0)
    x, y = memory[:16], memory[16:]
    regions = Regions([region_of("x", x, writable=False), region_of("y", y)])
    with StrictInterpreter(regions=regions):
        copy_from[(1,)](x, y, 0, 0, 16, BLOCK=16)
        for kernel in (
            lambda: copy_from[(1,)](y, x, 0, 0, 16, BLOCK=16),
            lambda: add_from[(1,)](x, 0),
        ):
            with pytest.raises(OutOfBounds, match="to read-only 'x', at element 0") as raised:
                kernel()
            assert raised.value.access.read_only
    assert memory.tolist() == [*range(16), *range(16)]


def test_argument_apart_from_declared_memory_counts_with_its_storage() -> None:
    memory = torch.zeros(32)
    scratch = torch.ones(16)
    with StrictInterpreter(regions=Regions([region_of("y", memory[:16])])) as strict:
        copy_from[(1,)](scratch, memory, 0, 0, 16, BLOCK=16)
        # An argument in the same storage as declared memory has only what is declared.
        with pytest.raises(OutOfBounds):
            copy_from[(1,)](scratch, memory[16:], 0, 0, 16, BLOCK=16)
        strict.allow(region_of("z", memory[16:]))
        copy_from[(1,)](scratch, memory[16:], 0, 0, 16, BLOCK=16)
        strict.configure()
        copy_from[(1,)](scratch, memory, 0, 8, 16, BLOCK=16)
    assert memory.eq(1).all()


def test_access_across_the_end_of_a_region_is_out_of_bounds() -> None:
    memory = torch.zeros(8)
    regions = Regions([Region.of_bytes("x", memory.data_ptr(), 30)])
    with StrictInterpreter(regions=regions):
        store_at_start = store_in_device_function
        store_at_start[(1, 3)](memory, memory)
        with pytest.raises(OutOfBounds):
            copy_from[(1,)](memory, memory, 0, 0, 8, BLOCK=8)


@triton.jit
def gather(index_ptr, x_ptr, y_ptr, n):
    at = tl.arange(0, 4)
    index = tl.load(index_ptr + at, mask=at < n)
    tl.store(y_ptr + at, tl.load(x_ptr + index))


@pytest.mark.parametrize("poison", ["nan", "huge", "-huge"])
def test_undefined_index_leads_out_of_bounds(poison) -> None:
    index, x, y = torch.zeros(4, dtype=torch.int64), torch.ones(4), torch.zeros(4)
    with StrictInterpreter(poison=poison):
        gather[(1,)](index, x, y, 4)
        with pytest.raises(OutOfBounds) as raised:
            gather[(1,)](index, x, y, 2)
    assert (raised.value.access.n_bad, raised.value.access.n_lanes) == (2, 4)


@triton.jit
def copy_by_descriptor(x_ptr, y_ptr, n_rows, N: tl.constexpr, BLOCK: tl.constexpr):
    x = tl.make_tensor_descriptor(x_ptr, [n_rows, N], [N, 1], [BLOCK, N])
    y = tl.make_tensor_descriptor(y_ptr, [n_rows, N], [N, 1], [BLOCK, N])
    y.store([0, 0], x.load([0, 0]))


def test_descriptor_accesses_are_checked() -> None:
    x, y = torch.arange(24.0).reshape(6, 4), torch.zeros(6, 4)
    with StrictInterpreter():
        copy_by_descriptor[(1,)](x, y, 6, N=4, BLOCK=8)
        with pytest.raises(OutOfBounds, match="read outside 'x_ptr', at element 24"):
            copy_by_descriptor[(1,)](x, y, 7, N=4, BLOCK=8)
    assert torch.equal(x, y)


# --- look-up -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_spans_agree_with_a_byte_map(seed: int) -> None:
    random = np.random.default_rng(seed)
    starts = random.integers(0, 200, random.integers(0, 12))
    pairs = np.stack([starts, starts + random.integers(0, 24, starts.size)], axis=1).astype(
        np.uint64
    )
    spans = Spans([pairs[::2], pairs[1::2]])
    allowed = np.zeros(400, dtype=bool)
    for start, stop in pairs:
        allowed[start:stop] = True
    addresses = np.arange(300, dtype=np.uint64)
    for n_bytes in (1, 2, 4, 8):
        want = np.array([not allowed[a : a + n_bytes].all() for a in range(300)])
        np.testing.assert_array_equal(spans.outside(addresses, n_bytes), want)
        for start in range(0, 300, 7):
            assert spans.hold(start, start + n_bytes) == (not want[start])
            assert spans.touch(start, start + n_bytes) == allowed[start : start + n_bytes].any()
    assert spans.outside(np.array([2**64 - 1, 2**64 - 8], dtype=np.uint64), 8).all()


def test_address_is_owned_by_the_region_that_starts_there_else_the_nearest() -> None:
    regions = Regions(
        [
            Region("rows", np.array([[100, 110], [200, 210]], dtype=np.uint64), origin=100),
            Region.of_bytes("between", 150, 10),
            Region.of_bytes("empty", 120, 0),
        ]
    )
    owners = {at: regions.owner(at).name for at in (0, 105, 120, 129, 130, 160, 190, 2**64 - 1)}
    assert owners == {
        0: "rows", 105: "rows", 120: "empty", 129: "rows",
        130: "between", 160: "between", 190: "rows", 2**64 - 1: "rows",
    }  # fmt: skip
    assert Regions().owner(5) is None


def test_region_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"intervals.shape=\(2,\), must be \(k, 2\) \[x\]"):
        Region("x", np.zeros(2, dtype=np.uint64), 0)
    with pytest.raises(ValueError, match=r"intervals.dtype=int64, must be uint64 \[x\]"):
        Region("x", np.zeros((1, 2), dtype=np.int64), 0)


# --- control flow and order ----------------------------------------------------------------------


@triton.jit
def count_steps(y_ptr, n, step, BLOCK: tl.constexpr):
    steps = 0
    for _i in range(0, n, BLOCK):
        steps += 1
    for _i in tl.range(n, 0, -step):
        steps += 100
    tl.store(y_ptr, steps)


def test_range_takes_run_time_bounds() -> None:
    y = torch.zeros(1, dtype=torch.int32)
    with StrictInterpreter():
        count_steps[(1,)](y, 1000, 300, BLOCK=256)
    assert y.item() == 404


@triton.jit
def record_order(turn_ptr, order_ptr):
    here = (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(2)
    tl.store(order_ptr + tl.atomic_add(turn_ptr, 1), here + tl.program_id(2))


def order_of_programs(strict: StrictInterpreter, *grid: int) -> list[int]:
    order = torch.full(grid, -1, dtype=torch.int32).flatten()
    record_order[grid](torch.zeros(1, dtype=torch.int32), order)
    return order.tolist()


@pytest.mark.parametrize("grid", [(24,), (4, 6), (2, 3, 4)])
def test_order_of_programs_is_ascending_or_a_seeded_permutation(grid: tuple[int, ...]) -> None:
    with StrictInterpreter() as strict:
        ascending = order_of_programs(strict, *grid)
        assert ascending == list(range(24))
        orders = {}
        for seed in (0, 1, 2**63):
            strict.configure(order_seed=seed)
            orders[seed] = order_of_programs(strict, *grid)
            assert sorted(orders[seed]) == ascending
            assert order_of_programs(strict, *grid) == orders[seed]
        assert len({tuple(order) for order in orders.values()} | {tuple(ascending)}) == 4
    # Stored cases name an order by its seed: it must never change.
    assert orders[1] == PERMUTATION_OF_SEED_1


# fmt: off
PERMUTATION_OF_SEED_1 = [
    9, 16, 2, 18, 19, 21, 14, 4, 12, 17, 7, 5, 15, 22, 0, 11, 8, 20, 10, 13, 6, 3, 1, 23,
]
# fmt: on


# --- the context ---------------------------------------------------------------------------------


def patched_state() -> dict[tuple[str, str], object]:
    """Everything a launch or a context may replace."""
    owners = {
        "stock": stock,
        "tl": tl,
        "core": tl.core,
        "math": tl.math,
        "tensor": tl.tensor,
        "dtype": tl.dtype,
        "descriptor": tl.core.tensor_descriptor_base,
        "builder": stock.InterpreterBuilder,
        "reduce": stock.ReduceOps,
        "scan": stock.ScanOps,
        "executor": stock.GridExecutor,
        "function": stock.InterpretedFunction,
        "scope": stock._LangPatchScope,
    }
    state = {
        (label, name): value
        for label, owner in owners.items()
        for name, value in vars(owner).items()
        if name not in ("__builtins__", "__warningregistry__")
    }
    state["the builder", "class"] = type(stock.interpreter_builder)
    state["the builder", "options"] = stock.interpreter_builder.options
    state["the builder", "attributes"] = frozenset(vars(stock.interpreter_builder))
    return state


@triton.jit
def fail_after_sum(x_ptr):
    total = tl.sum(tl.load(x_ptr + tl.arange(0, 4)))
    tl.store(x_ptr + 4, total)


def test_leaving_puts_everything_back() -> None:
    x = torch.zeros(8)
    regions = Regions([region_of("x", x[:4])])
    # The builder gains its grid, and classes their own copy of what they inherit, in any launch.
    with StrictInterpreter():
        fail_after_sum[(1,)](x)
    before = patched_state()
    with StrictInterpreter(regions=regions) as strict:
        inside = patched_state()
        with pytest.raises(OutOfBounds):
            fail_after_sum[(1,)](x)
        # Between launches, triton.language is Triton's own.
        assert patched_state() == inside
        strict.configure()
        fail_after_sum[(1,)](x)
    assert patched_state() == before
    changed = {key for key in before if before[key] is not inside[key]}
    assert not hasattr(stock.interpreter_builder, "strict")
    assert {("the builder", "class"), ("the builder", "options")} <= changed
    assert ("executor", "__call__") in changed


def test_kernel_errors_stay_triton_errors() -> None:
    with StrictInterpreter(), pytest.raises(InterpreterError, match=r"other.*mask"):
        other_without_mask[(1,)](torch.zeros(4))


@triton.jit
def other_without_mask(x_ptr):
    tl.load(x_ptr, other=0.0)


def test_overflow_does_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    x = torch.full((1 << 16,), 3e38)
    with StrictInterpreter():
        convert[(1,)](x, torch.empty(1 << 16, dtype=torch.float16), BLOCK=1 << 16)
    assert not recwarn.list


def test_second_context_is_refused() -> None:
    with StrictInterpreter():
        with pytest.raises(RuntimeError, match="already active"), StrictInterpreter():
            pass
        assert type(stock.interpreter_builder) is not stock.InterpreterBuilder
    assert type(stock.interpreter_builder) is stock.InterpreterBuilder


def test_one_context_serves_many_times() -> None:
    strict = StrictInterpreter()
    y = torch.zeros(1, dtype=torch.int32)
    for _ in range(3):
        with strict:
            count_steps[(1,)](y, 1000, 300, BLOCK=256)
    assert y.item() == 404


def test_compiling_triton_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tl, "sum", tl.sum.fn)
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET=1"), StrictInterpreter():
        pass


def test_poison_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="poison='zero', must be one of"):
        StrictInterpreter(poison="zero")


@pytest.mark.parametrize("version", ["3.5.1", "3.10.0", "4.6.0", "3.60.0"])
def test_unknown_triton_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "__version__", version)
    with pytest.raises(UnsupportedTriton, match=f"Triton {version}: .* knows 3.6.x, .*, 3.9.x"):
        StrictInterpreter()


@pytest.mark.parametrize("version", ["3.6.0", "3.7.1", "3.9.0+gitabc"])
def test_known_triton_is_accepted(version: str) -> None:
    _require_known(version)
