"""Reductions and scans, by Triton's combine functions and by a kernel's own."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

import time

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter as stock

from fuzz.strict.faults import UnsupportedInInterpreter
from tests.fuzz.strict.arrays import BF16, as_numpy, as_torch, assert_same_bits, launched

if not isinstance(tl.sum, stock.InterpretedFunction):
    pytest.skip("the suite runs compiled", allow_module_level=True)

# --- sums ----------------------------------------------------------------------------------------


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
    launched(sums, as_torch(x), y, M=m, N=n)
    rows = by_halves(x)
    want = np.concatenate([rows, by_halves(x.T), [by_halves(x.reshape(-1))], rows])
    assert_same_bits(as_numpy(y), want.astype(dtype))


def test_sum_of_integers_is_exact() -> None:
    x = torch.arange(32, dtype=torch.int32).reshape(4, 8)
    y = torch.empty(17, dtype=torch.int32)
    launched(sums, x, y, M=4, N=8)
    assert y.tolist() == [*x.sum(1), *x.sum(0), x.sum(), *x.sum(1)]


@triton.jit
def sum_four(x_ptr, y_ptr):
    tl.store(y_ptr, tl.sum(tl.load(x_ptr + tl.arange(0, 4))).to(tl.float32))


def test_sum_of_float8_is_refused() -> None:
    x = torch.ones(4).to(torch.float8_e5m2)
    with pytest.raises(UnsupportedInInterpreter, match=r"sum of fp8e5 \[sum_four, test_red"):
        launched(sum_four, x, torch.zeros(1))


# --- extremes ------------------------------------------------------------------------------------


@triton.jit
def extremes(x_ptr, y_ptr, i_ptr, M: tl.constexpr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :])
    row = tl.arange(0, M)
    tl.store(y_ptr + row, tl.max(x, axis=1))
    tl.store(y_ptr + M + row, tl.min(x, axis=1))
    tl.store(y_ptr + 2 * M + row, tl.reduce(x, 1, larger).to(y_ptr.dtype.element_ty))
    value, at = tl.max(x, axis=1, return_indices=True)
    tl.store(y_ptr + 3 * M + row, value.to(y_ptr.dtype.element_ty))
    tl.store(i_ptr + row, at)
    tl.store(i_ptr + M + row, tl.argmin(x, axis=1))


@triton.jit
def larger(a, b):
    return tl.maximum(a, b)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int32, torch.int8]
)
def test_extremes_and_the_first_of_equals(dtype: torch.dtype) -> None:
    # As bits, every negative bfloat16 is larger than every positive one.
    rows = [[1, -3, 2, -4, 1, -7, 0, 2], [-1, -1, -2, -5, -5, -1, -3, -2]]
    x = torch.tensor(rows).to(dtype)
    y = torch.empty(8, dtype=torch.float32 if x.is_floating_point() else torch.int32)
    index = torch.empty(4, dtype=torch.int32)
    launched(extremes, x, y, index, M=2, N=8)
    assert y.tolist() == [2, -1, -7, -5, 2, -1, 2, -1]
    assert index.tolist() == [2, 0, 5, 3]


@pytest.mark.parametrize("kind", [np.float32, np.float16, BF16])
def test_extremes_drop_nan_and_order_zeros(kind: type, recwarn: pytest.WarningsRecorder) -> None:
    nan, inf = np.nan, np.inf
    rows = [[nan] * 4, [nan, 1, nan, -2], [0.0, -0.0, 0.0, -0.0], [-0.0, -1, -0.0, -2]]
    rows += [[0.0, 1, 2, 0.0], [-0.0, 1, -0.0, 2], [nan, -inf, nan, nan], [nan, 3, inf, 4]]
    x = np.array(rows)
    y, index = torch.empty(32), torch.empty(16, dtype=torch.int32)
    launched(extremes, as_torch(x.astype(kind)), y, index, M=8, N=4)
    largest, smallest, own, _ = y.numpy().reshape(4, 8)
    want = np.array([nan, 1, 0.0, -0.0, 2, 2, -inf, inf], dtype=np.float32)
    assert_same_bits(largest, want)
    assert_same_bits(own, want)
    want = np.array([nan, -2, -0.0, -2, 0.0, -0.0, -inf, 3], dtype=np.float32)
    assert_same_bits(smallest, want)
    assert not recwarn.list


# --- functions of a kernel's own -----------------------------------------------------------------


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


def test_reduction_by_a_function_combines_whole_blocks() -> None:
    m, n = 4, 1024
    x = np.random.default_rng(7).random((m, n), dtype=np.float32) + 1
    y = torch.empty(6 * m + n)
    launched(reduce_by_functions, as_torch(x), y, M=m, N=n)
    count, mean, m2, last = y[: 4 * m].numpy().reshape(4, m)
    assert count.tolist() == [n] * m
    np.testing.assert_allclose(mean, x.mean(1, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(m2 / n, x.var(1, dtype=np.float64), rtol=1e-5)
    # Of two blocks that are combined, the left one has the smaller indices.
    np.testing.assert_array_equal(last, x[:, -1])
    np.testing.assert_array_equal(y[4 * m : 4 * m + n].numpy(), x[-1])
    np.testing.assert_array_equal(y[4 * m + n : 5 * m + n].numpy(), x[:, -1])
    while x.shape[1] > 1:
        half = x.shape[1] // 2
        x = x[:, :half] + x[:, half:]
    np.testing.assert_array_equal(y[5 * m + n :].numpy(), x[:, 0])


@triton.jit
def first_positive(a, b):
    return tl.where((a > 0) and (b > 0 or a == b), a, b)


@triton.jit
def reduce_by_logic(x_ptr, y_ptr):
    x = tl.load(x_ptr + tl.arange(0, 4)[:, None] * 2 + tl.arange(0, 2)[None, :])
    tl.store(y_ptr + tl.arange(0, 4), tl.reduce(x, 1, first_positive))


def test_combine_function_may_use_logical_operators() -> None:
    x = torch.tensor([[1.0, 2.0], [-1.0, 2.0], [1.0, -2.0], [-3.0, -3.0]])
    y = torch.empty(4)
    launched(reduce_by_logic, x, y)
    assert y.tolist() == [1, 2, -2, -3]


# --- scans ---------------------------------------------------------------------------------------


@triton.jit
def scan_rows(x_ptr, y_ptr, M: tl.constexpr, N: tl.constexpr, HOW: tl.constexpr):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    x = tl.load(x_ptr + at)
    if HOW == "cumsum":
        y = tl.cumsum(x, axis=1)
    elif HOW == "reverse":
        y = tl.cumsum(x, axis=1, reverse=True)
    elif HOW == "columns":
        y = tl.cumsum(x, axis=0)
    elif HOW == "cumprod":
        y = tl.cumprod(x, axis=1)
    elif HOW == "right":
        y = tl.associative_scan(x, 1, take_right)
    else:
        y = tl.associative_scan(x, 1, larger)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty))


SCANS = {
    "cumsum": lambda x: np.cumsum(x, axis=1),
    "reverse": lambda x: np.cumsum(x[:, ::-1], axis=1)[:, ::-1],
    "columns": lambda x: np.cumsum(x, axis=0),
    "cumprod": lambda x: np.cumprod(x, axis=1),
    "right": lambda x: x,
    "larger": lambda x: np.maximum.accumulate(x, axis=1),
}


@pytest.mark.parametrize("how", SCANS)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int32, torch.int64, torch.int8]
)
def test_scan_combines_each_element_with_all_before_it(dtype: torch.dtype, how: str) -> None:
    random = np.random.default_rng(9)
    values = random.integers(-2, 3, (4, 16))
    values = np.where(values == 0, 1, np.sign(values)) if how == "cumprod" else values
    x = torch.from_numpy(values).to(dtype)
    y = torch.empty(4, 16, dtype=torch.int64 if dtype == torch.int8 else dtype)
    launched(scan_rows, x, y, M=4, N=16, HOW=how)
    # All of these are exact, whatever the order.
    np.testing.assert_array_equal(as_numpy(y).astype(np.int64), SCANS[how](values))


def test_scan_of_bf16_rounds_to_a_wider_or_the_same_format_at_each_step() -> None:
    x = torch.full((1, 512), 1.0, dtype=torch.bfloat16)
    y = torch.empty(1, 512, dtype=torch.bfloat16)
    launched(scan_rows, x, y, M=1, N=512, HOW="larger")
    assert y.eq(1).all()
    launched(scan_rows, x, y, M=1, N=512, HOW="cumsum")
    # 257 is no bfloat16; by doubling, 256 + 1 and 256 + 255 are rounded once each.
    want = np.arange(1, 513).astype(np.float32).astype(BF16)
    np.testing.assert_array_equal(as_numpy(y)[0], want)


@triton.jit
def affine(scale_a, shift_a, scale_b, shift_b):
    return scale_a * scale_b, shift_a * scale_b + shift_b


@triton.jit
def scan_pairs(a_ptr, b_ptr, y_ptr, z_ptr, N: tl.constexpr, REVERSE: tl.constexpr):
    at = tl.arange(0, N)
    pair = (tl.load(a_ptr + at), tl.load(b_ptr + at))
    y, z = tl.associative_scan(pair, 0, affine, reverse=REVERSE)
    tl.store(y_ptr + at, y)
    tl.store(z_ptr + at, z)


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_of_tuples_keeps_the_order_of_what_does_not_commute(reverse: bool) -> None:
    n = 64
    a, b = torch.from_numpy(np.random.default_rng(10).integers(-(2**31), 2**31, (2, n), np.int64))
    a, b = a.to(torch.int32), b.to(torch.int32)
    y, z = torch.empty(2, n, dtype=torch.int32)
    launched(scan_pairs, a, b, y, z, N=n, REVERSE=reverse)
    scale, shift = 1, 0
    for i in range(n - 1, -1, -1) if reverse else range(n):
        scale, shift = scale * int(a[i]), shift * int(a[i]) + int(b[i])
        assert int(y[i]) == (scale + 2**31) % 2**32 - 2**31
        assert int(z[i]) == (shift + 2**31) % 2**32 - 2**31


@triton.jit
def scan_long(x_ptr, y_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(y_ptr + at, tl.associative_scan(tl.load(x_ptr + at), 0, plus))


def test_scan_by_a_function_is_quick() -> None:
    n = 1 << 15
    x, y = torch.ones(2, n)
    started = time.process_time()
    launched(scan_long, x, y, N=n)
    # One element after the other takes 0.7 s.
    assert time.process_time() - started < 0.3
    assert torch.equal(y, torch.arange(1.0, n + 1))


@triton.jit
def sort_rows(x_ptr, y_ptr, M: tl.constexpr, N: tl.constexpr, DESCENDING: tl.constexpr):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(y_ptr + at, tl.sort(tl.load(x_ptr + at), descending=DESCENDING))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
def test_sort_works_on_its_reductions(dtype: torch.dtype) -> None:
    x = torch.from_numpy(np.random.default_rng(12).integers(-99, 99, (4, 32))).to(dtype)
    for descending in (False, True):
        y = torch.empty_like(x)
        launched(sort_rows, x, y, M=4, N=32, DESCENDING=descending)
        assert torch.equal(y, x.sort(dim=1, descending=descending).values)


@triton.jit
def compose(a, b, c, d):
    return a * c, b * c + d


@triton.jit
def compose_all(x_ptr, y_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    slope, offset = tl.reduce((tl.load(x_ptr + at), tl.load(x_ptr + N + at)), 0, compose)
    tl.store(y_ptr, slope)
    tl.store(y_ptr + 1, offset)


def test_reduction_by_a_function_that_does_not_commute_is_not_that_of_a_loop() -> None:
    # As on a GPU: what such a kernel computes there depends on how its elements lie in lanes.
    x = np.array([[2, 3, 5, 7], [1, 4, 6, 9]], dtype=np.int32)
    y = torch.empty(2, dtype=torch.int32)
    launched(compose_all, as_torch(x), y, N=4)
    slope, offset = 1, 0
    for c, d in x.T.tolist():
        slope, offset = slope * c, offset * c + d
    assert y[0] == slope
    assert y[1] != offset
