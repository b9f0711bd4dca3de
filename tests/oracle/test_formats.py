"""Formats against exact rational rounding, NumPy's own types and ml_dtypes."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from oracle.formats import F64, FORMATS, Format, decode, encode, power_below, round_to
from tests.oracle.rows import bell, uniform

NATIVE = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
HALF = ("bfloat16", "float16")


def rounded_exactly(value: float, fmt: Format) -> float:
    """To nearest, ties to even, by rational arithmetic."""
    if not np.isfinite(value) or value == 0.0:
        return value
    exact = Fraction(value)
    exponent = max(np.frexp(value)[1] - 1, fmt.min_exponent)
    spacing = Fraction(2) ** (int(exponent) - fmt.precision + 1)
    rounded = round(exact / spacing) * spacing
    if abs(rounded) > Fraction(fmt.largest):
        return float(np.copysign(np.inf, value))
    return float(np.copysign(float(rounded), value))


def awkward_values(fmt: Format) -> F64:
    """Numbers beside ties, of every size that the format tells apart."""
    exponent = (uniform(1, 4000) * (fmt.max_exponent - fmt.min_exponent + 60)).astype(np.int64)
    exponent += fmt.min_exponent - 40
    # A whole number of half spacings, plus nothing, one fp64 spacing or much more.
    halves = np.floor(uniform(2, 4000) * 2.0 ** (fmt.precision + 1))
    nudge = np.array([0.0, 2.0**-40, -(2.0**-40), 0.3])[(uniform(3, 4000) * 4).astype(np.int64)]
    values = np.ldexp(halves + nudge, exponent - fmt.precision)
    edge = fmt.largest * (1.0 + fmt.u / 2 * np.array([0.0, 0.99, 1.0, 1.01]))
    small = fmt.quantum * np.array([0.0, 0.49, 0.5, 0.51, 1.5])
    return np.concatenate([values, -values, edge, -edge, small, -small, [np.inf, -np.inf]])


@pytest.mark.parametrize("name", FORMATS)
def test_formats_limits_are_those_of_the_dtype(name: str) -> None:
    fmt, info = FORMATS[name], ml_dtypes.finfo(NATIVE[name])
    assert fmt.u == float(info.eps) / 2
    assert fmt.largest == float(info.max)
    assert fmt.smallest_normal == float(info.smallest_normal)
    assert fmt.quantum == float(info.smallest_subnormal)
    assert fmt.bits.itemsize == np.dtype(NATIVE[name]).itemsize


@pytest.mark.parametrize("name", FORMATS)
def test_formats_round_to_nearest_even(name: str) -> None:
    values = awkward_values(FORMATS[name])
    expected = np.array([rounded_exactly(v, FORMATS[name]) for v in values])
    rounded = round_to(values, FORMATS[name])
    assert (rounded == expected).all()
    assert (np.signbit(rounded) == np.signbit(values)).all()


@pytest.mark.parametrize("name", FORMATS)
def test_formats_round_nan_to_nan(name: str) -> None:
    assert np.isnan(round_to(np.array([np.nan, -np.nan]), FORMATS[name])).all()
    assert np.isnan(decode(encode(np.array([np.nan, -np.nan]), name), name)).all()


@pytest.mark.parametrize("name", HALF)
def test_formats_decode_every_pattern(name: str) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        expected = bits.view(NATIVE[name]).astype(np.float64)
    assert np.array_equal(decode(bits, name), expected, equal_nan=True)


@pytest.mark.parametrize("name", HALF)
def test_formats_encode_every_number_back(name: str) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    values = decode(bits, name)
    numbers = ~np.isnan(values)
    assert (encode(values, name)[numbers] == bits[numbers]).all()


def test_formats_encode_float32_back() -> None:
    raw = np.random.PCG64(4).random_raw(100_000)
    bits = np.concatenate([(raw >> np.uint64(40)).astype(np.uint32), raw.astype(np.uint32)])
    values = decode(bits, "float32")
    numbers = ~np.isnan(values)
    assert (encode(values, "float32")[numbers] == bits[numbers]).all()


@pytest.mark.parametrize("name", FORMATS)
def test_formats_encode_rounds_once(name: str) -> None:
    values = awkward_values(FORMATS[name])
    assert (decode(encode(values, name), name) == round_to(values, FORMATS[name])).all()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (2, 3, 4)])
def test_formats_keep_the_shape(name: str, shape: tuple[int, ...]) -> None:
    values = np.asarray(bell(1, *shape))
    bits = encode(values, name)
    assert bits.dtype == FORMATS[name].bits
    assert bits.shape == decode(bits, name).shape == shape
    assert round_to(values, FORMATS[name]).shape == shape


@pytest.mark.parametrize("name", FORMATS)
def test_formats_read_any_strides(name: str) -> None:
    values = round_to(bell(1, 6, 8), FORMATS[name])
    bits = encode(values, name)
    assert (decode(bits[::2, ::3], name) == values[::2, ::3]).all()
    assert (decode(bits.T, name) == values.T).all()
    assert (encode(values.T[::3], name) == bits.T[::3]).all()


def test_formats_power_below_is_the_power_of_two_not_above() -> None:
    exponent = np.arange(-1022, 1024)
    for significand in (1.0, 1.5, 2.0 - 2.0**-52):
        values = np.ldexp(significand, exponent)
        assert (power_below(values) == np.ldexp(1.0, exponent)).all()
        assert (power_below(-values) == np.ldexp(1.0, exponent)).all()
    edges = np.array([0.0, -0.0, 2.0**-1074, np.inf, -np.inf, np.nan])
    assert power_below(edges).tolist() == [0.0, 0.0, 0.0, np.inf, np.inf, np.inf]


def test_formats_refuse_unknown_dtypes() -> None:
    with pytest.raises(KeyError):
        decode(np.zeros(1, dtype=np.uint32), "float64")
    with pytest.raises(KeyError):
        encode(np.zeros(1), "float64")
