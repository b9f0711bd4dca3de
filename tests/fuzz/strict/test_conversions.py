"""Conversions between number formats, bit by bit."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

import ml_dtypes
import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter as stock

from fuzz.strict.bfloat16 import round_to_bf16
from fuzz.strict.faults import UnsupportedInInterpreter
from fuzz.strict.integers import truncated
from tests.fuzz.strict.arrays import (
    ALL_8_BITS,
    ALL_16_BITS,
    BF16,
    FP32_AROUND_BF16_TIES,
    around_ties,
    assert_same_bits,
    computed,
)

if not isinstance(tl.sum, stock.InterpretedFunction):
    pytest.skip("the suite runs compiled", allow_module_level=True)


@triton.jit
def convert(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at).to(y_ptr.dtype.element_ty))


@triton.jit
def convert_toward_zero(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at).to(y_ptr.dtype.element_ty, fp_downcast_rounding="rtz")
    tl.store(y_ptr + at, x)


# --- bfloat16 ------------------------------------------------------------------------------------


def test_fp32_to_bf16_rounds_to_nearest_even() -> None:
    x = FP32_AROUND_BF16_TIES
    with np.errstate(invalid="ignore"):
        want = x.astype(BF16)
    assert_same_bits(computed(convert, x, dtype=torch.bfloat16), want)


def test_bf16_to_fp32_is_exact() -> None:
    x = ALL_16_BITS.view(BF16)
    assert_same_bits(computed(convert, x), x.astype(np.float32))


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
    got = computed(convert, np.array(list(cases)), dtype=torch.bfloat16)
    assert_same_bits(got, np.array(list(cases.values()), dtype=BF16))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64])
def test_integer_to_bf16_rounds_once(dtype: type) -> None:
    # 2^24 + 2^16 is a tie of bfloat16, to the even 2^24; one more is 25 bits, and no tie. float32
    # on the way would make it one. 2^60 + 2^52 + 1 is the same for float64.
    cases = {0: 0, 7: 7, 1 << 24 | 1 << 16: 1 << 24, 1 << 24 | 1 << 16 | 1: 1 << 24 | 1 << 17}
    if dtype != np.int32:
        cases |= {1 << 60 | 1 << 52: 1 << 60, 1 << 60 | 1 << 52 | 1: 1 << 60 | 1 << 53}
    if dtype != np.uint64:
        cases |= {-number: -rounded for number, rounded in cases.items()}
        cases[int(np.iinfo(dtype).min)] = int(np.iinfo(dtype).min)
    cases[int(np.iinfo(dtype).max)] = int(np.iinfo(dtype).max) + 1
    got = computed(convert, np.array(list(cases), dtype=dtype), dtype=torch.bfloat16)
    assert [int(value) for value in got.astype(np.float64)] == list(cases.values())


def test_bf16_toward_zero_keeps_nan() -> None:
    x = FP32_AROUND_BF16_TIES
    with np.errstate(invalid="ignore"):
        want = (x.view(np.uint32) >> 16).astype(np.uint16).view(BF16)
    # A NaN whose payload is all in the lower half must not become Inf.
    want = np.where(np.isnan(x), BF16(np.nan), want)
    assert_same_bits(computed(convert_toward_zero, x, dtype=torch.bfloat16), want)


def test_round_to_bf16_keeps_shapes() -> None:
    for shape in [(), (1,), (2, 3), (0,)]:
        for dtype in (np.float32, np.float64, np.int32, np.int64):
            assert round_to_bf16(np.ones(shape, dtype=dtype)).shape == shape
    strided = np.arange(12, dtype=np.float32).reshape(3, 4).T
    np.testing.assert_array_equal(round_to_bf16(strided).view(BF16), strided.astype(BF16))


# --- float16 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_fp16_converts_as_ml_dtypes_does(dtype: torch.dtype) -> None:
    x = ALL_16_BITS.view(np.float16)
    kind = {torch.float32: np.float32, torch.bfloat16: BF16, torch.float64: np.float64}[dtype]
    with np.errstate(invalid="ignore"):
        want = x.astype(kind)
    assert_same_bits(computed(convert, x, dtype=dtype), want)


@pytest.mark.parametrize("source", [np.float32, BF16, np.float64])
def test_conversion_to_fp16_rounds_to_nearest_even(source: type) -> None:
    x = ALL_16_BITS.view(BF16) if source is BF16 else around_ties(np.float16)
    if source is np.float64:
        # Ties and what is nearer to one than any float32.
        x = np.concatenate([x, x * (1 + 2.0**-40), x * (1 - 2.0**-40)], dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        wide = x.astype(np.float64)
        # As ml_dtypes has it: float16 is the IEEE format of five exponent bits.
        want = wide.astype(np.float16)
    assert_same_bits(computed(convert, x, dtype=torch.float16), want)


def test_fp16_toward_zero_never_grows() -> None:
    x = around_ties(np.float16)
    got = computed(convert_toward_zero, x, dtype=torch.float16)
    finite = np.isfinite(x)
    assert (np.abs(got[finite].astype(np.float64)) <= np.abs(x[finite])).all()
    # The next float16 away from zero would be too large.
    with np.errstate(over="ignore"):
        further = np.nextafter(np.abs(got[finite]), np.float16(np.inf)).astype(np.float64)
    assert (further > np.abs(x[finite])).all()
    assert_same_bits(got[~finite], x[~finite].astype(np.float16))


def test_toward_zero_from_fp64_is_refused() -> None:
    with pytest.raises(UnsupportedInInterpreter, match=r"fp64 to fp16 toward zero.*convert_tow"):
        computed(convert_toward_zero, np.ones(4), dtype=torch.float16)


# --- float8 --------------------------------------------------------------------------------------

FLOAT8 = [
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
]
KINDS = {
    torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn,
    torch.float8_e5m2: ml_dtypes.float8_e5m2,
    torch.float8_e4m3fnuz: ml_dtypes.float8_e4m3fnuz,
    torch.float8_e5m2fnuz: ml_dtypes.float8_e5m2fnuz,
}


@pytest.mark.parametrize("dtype", FLOAT8)
@pytest.mark.parametrize("wide", [torch.float16, torch.bfloat16, torch.float32])
def test_all_codes_of_fp8_mean_what_ml_dtypes_says(dtype: torch.dtype, wide: torch.dtype) -> None:
    x = ALL_8_BITS.view(KINDS[dtype])
    kind = {torch.float16: np.float16, torch.bfloat16: BF16, torch.float32: np.float32}[wide]
    want = x.astype(np.float32).astype(kind)
    if dtype == torch.float8_e5m2 and wide == torch.bfloat16:
        # As compiled: Inf and NaN are what comes after 57344 = 1.75 * 2^15.
        beyond = np.array([65536, 81920, 98304, 114688], dtype=kind)
        want[0x7C:0x80], want[0xFC:] = beyond, -beyond
    assert_same_bits(computed(convert, x, dtype=wide), want)


@pytest.mark.parametrize("dtype", FLOAT8)
@pytest.mark.parametrize("source", [np.float16, BF16, np.float32])
def test_rounding_to_fp8_is_that_of_ml_dtypes_but_where_it_overflows(
    dtype: torch.dtype, source: type
) -> None:
    kind = KINDS[dtype]
    x = around_ties(kind) if source is np.float32 else ALL_16_BITS.view(source)
    with np.errstate(invalid="ignore"):
        wide = x.astype(np.float64)
    largest = float(ml_dtypes.finfo(kind).max)
    # ml_dtypes makes Inf or NaN of what rounds past the largest value; GPUs make that value of it.
    infinity_is_lost = dtype in (torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
    limited = np.clip(wide, -largest, largest)
    if infinity_is_lost:
        limited = np.where(np.isinf(wide), np.nan, limited)
    with np.errstate(invalid="ignore"):
        want = limited.astype(np.float32).astype(kind)
    got = computed(convert, x, dtype=dtype)
    assert_same_bits(got, want)
    if not infinity_is_lost:
        assert set(got.view(np.uint8)[np.isnan(wide)]) == {0x7F}


def test_fp8e5_toward_zero_is_the_upper_byte() -> None:
    x = around_ties(ml_dtypes.float8_e5m2)
    got = computed(convert_toward_zero, x, dtype=torch.float8_e5m2)
    finite = np.isfinite(x)
    ladder = ALL_8_BITS[:0x7C].view(ml_dtypes.float8_e5m2).astype(np.float32)
    index = np.searchsorted(ladder, np.abs(x[finite]), side="right") - 1
    want = np.copysign(ladder[index], x[finite])
    np.testing.assert_array_equal(got[finite].astype(np.float32), want)
    assert got.view(np.uint8)[~finite].tolist() == [0x7C, 0xFC, 0x7F]


@triton.jit
def through_fp8e4b15(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at).to(tl.float8e4b15)
    tl.store(y_ptr + at, x.to(tl.int8, bitcast=True))


@triton.jit
def from_fp8e4b15(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at).to(tl.float8e4b15, bitcast=True)
    tl.store(y_ptr + at, x.to(y_ptr.dtype.element_ty))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_fp8e4b15_is_e4m3_of_bias_15_without_inf_and_nan(dtype: torch.dtype) -> None:
    codes = ALL_8_BITS.astype(np.int64)
    exponent, fraction = codes >> 3 & 15, codes & 7
    magnitude = np.where(exponent == 0, fraction / 8, 1 + fraction / 8) * 2.0 ** np.maximum(
        exponent - 15, -14
    )
    want = np.where(codes & 0x80, -magnitude, magnitude)
    got = computed(from_fp8e4b15, ALL_8_BITS.view(np.int8), dtype=dtype)
    np.testing.assert_array_equal(got.astype(np.float64), want)
    assert np.signbit(got[0x80])


def test_rounding_to_fp8e4b15_is_half_up_and_saturates() -> None:
    x = ALL_16_BITS.view(np.float16)
    got = computed(through_fp8e4b15, x, dtype=torch.int8).view(np.uint8)
    ladder = computed(from_fp8e4b15, ALL_8_BITS[:0x80].view(np.int8))
    ties = (ladder[1:] + ladder[:-1]) / 2
    # 0x7F is 1.875; what exceeds 1.75 becomes 1.75, and so does a NaN.
    limited = np.fmin(np.abs(x.astype(np.float32)), np.float32(1.75))
    want = np.searchsorted(ties, limited, side="right") | np.where(np.signbit(x), 0x80, 0)
    np.testing.assert_array_equal(got, want)


def test_fp32_goes_to_fp8e4b15_through_a_truncated_float16() -> None:
    tie = 1 + 2.0**-4
    x = np.array([tie - 2.0**-20, tie, tie + 2.0**-20, tie - 2.0**-11, 3.0, np.nan, -np.inf])
    got = computed(through_fp8e4b15, x.astype(np.float32), dtype=torch.int8).view(np.uint8)
    assert got.tolist() == [0x78, 0x79, 0x79, 0x78, 0x7E, 0x7E, 0xFE]


@pytest.mark.parametrize(
    ("kernel", "source", "dtype", "words"),
    [
        (convert, np.float64, torch.float8_e5m2, "conversion from fp64 to fp8e5"),
        (convert_toward_zero, np.float32, torch.float8_e4m3fn, "fp32 to fp8e4nv toward zero"),
        (convert_toward_zero, np.float16, torch.float8_e5m2, "fp16 to fp8e5 toward zero"),
        (convert, ml_dtypes.float8_e4m3fn, torch.float8_e5m2, "from fp8e4nv to fp8e5"),
        (convert, ml_dtypes.float8_e5m2, torch.float64, "from fp8e5 to fp64"),
        (through_fp8e4b15, BF16, torch.int8, "from bf16 to fp8e4b15"),
    ],
)
def test_conversion_that_no_compiler_knows_is_refused(kernel, source, dtype, words: str) -> None:
    x = np.ones(4, dtype=source)
    with pytest.raises(UnsupportedInInterpreter, match=words):
        computed(kernel, x, dtype=dtype)


@triton.jit
def add(x_ptr, y_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    tl.store(y_ptr + tl.arange(0, BLOCK), (x + x).to(tl.float32))


@triton.jit
def compare(x_ptr, y_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    tl.store(y_ptr + tl.arange(0, BLOCK), (x < x).to(tl.float32))


@triton.jit
def larger(x_ptr, y_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    tl.store(y_ptr + tl.arange(0, BLOCK), tl.maximum(x, x).to(tl.float32))


@pytest.mark.parametrize(("kernel", "name"), [(add, "add"), (compare, "less"), (larger, "fmax")])
def test_arithmetic_on_fp8_is_refused_by_name(kernel, name: str) -> None:
    x = np.ones(1024, dtype=ml_dtypes.float8_e4m3fn)
    with pytest.raises(UnsupportedInInterpreter, match=f"{name} of fp8e4nv"):
        computed(kernel, x)


# --- floats and integers -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8])
def test_float_to_integer_truncates(dtype: torch.dtype) -> None:
    low = 0 if dtype == torch.uint8 else -120
    x = np.linspace(low, 120, 4001, dtype=np.float32)
    for source in (np.float32, np.float16, BF16, np.float64):
        narrow = x.astype(source)
        got = computed(convert, narrow, dtype=dtype)
        np.testing.assert_array_equal(got, np.trunc(narrow.astype(np.float64)))


@pytest.mark.parametrize(
    ("dtype", "want"),
    [
        (torch.int32, [0, 2**31 - 1, -(2**31), 2**31 - 1, -(2**31), 2**31 - 128]),
        (torch.int16, [0, 2**15 - 1, -(2**15), 2**15 - 1, -(2**15), 2**15 - 1]),
        # Through 16 bits, of which eight are kept.
        (torch.int8, [0, -1, 0, -1, 0, -1]),
        (torch.uint8, [0, 255, 0, 255, 0, 255]),
        (torch.int64, [-(2**63), 2**63 - 1, -(2**63), 10**20 and 2**63 - 1, -(2**63), 2**31 - 128]),
    ],
)
def test_float_out_of_range_becomes_the_limit(dtype: torch.dtype, want: list[int]) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e20, -1e20, 2.0**31 - 128], dtype=np.float32)
    assert computed(convert, x, dtype=dtype).tolist() == want


def test_limits_of_64_bits_are_met() -> None:
    x = np.array([2.0**63, 2.0**63 - 1024, -(2.0**63), 2.0**64, 2.0**64 - 2048, -1.0, -0.5])
    signed, unsigned = (truncated(x, np.dtype(d)).tolist() for d in (np.int64, np.uint64))
    top = 2**63 - 1
    assert signed == [top, 2**63 - 1024, -(2**63), top, top, -1, 0]
    assert unsigned == [2**63, 2**63 - 1024, 0, 2**64 - 1, 2**64 - 2048, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_integer_to_float_rounds_to_nearest_even(dtype: torch.dtype) -> None:
    x = np.array([0, -1, 2**24 + 1, 2**24 + 3, -(2**24) - 1, 65519, 65520, 2**31 - 1, 2049, 2051])
    kind = np.float16 if dtype == torch.float16 else np.float32
    with np.errstate(over="ignore"):
        want = x.astype(np.float64).astype(kind)
    for source in (np.int32, np.int64):
        assert_same_bits(computed(convert, x.astype(source), dtype=dtype), want)
