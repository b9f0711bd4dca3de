"""libdevice functions, against 40 digits."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

import math
import re
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice
from triton.language.extra.cuda import libdevice as cuda_libdevice
from triton.runtime import interpreter as stock

from fuzz.strict import libdevice as table
from fuzz.strict.faults import UnsupportedInInterpreter
from tests.fuzz.strict.arrays import assert_same_bits, computed, units_apart

if not isinstance(tl.sum, stock.InterpretedFunction):
    pytest.skip("the suite runs compiled", allow_module_level=True)


@triton.jit
def of_one(x_ptr, y_ptr, BLOCK: tl.constexpr, FUNCTION: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, FUNCTION(tl.load(x_ptr + at)))


@triton.jit
def of_two(a_ptr, b_ptr, y_ptr, BLOCK: tl.constexpr, FUNCTION: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, FUNCTION(tl.load(a_ptr + at), tl.load(b_ptr + at)))


@triton.jit
def of_three(a_ptr, b_ptr, c_ptr, y_ptr, BLOCK: tl.constexpr, FUNCTION: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    result = FUNCTION(tl.load(a_ptr + at), tl.load(b_ptr + at), tl.load(c_ptr + at))
    tl.store(y_ptr + at, result)


# Function, its reference, and the interval to draw arguments from.
REAL = [
    ("exp", mpmath.exp, -80, 80),
    ("exp2", lambda x: mpmath.mpf(2) ** x, -120, 120),
    ("exp10", lambda x: mpmath.mpf(10) ** x, -30, 30),
    ("expm1", mpmath.expm1, -2, 2),
    ("log", mpmath.log, 1e-3, 1e3),
    ("log2", lambda x: mpmath.log(x, 2), 1e-3, 1e3),
    ("log10", mpmath.log10, 1e-3, 1e3),
    ("log1p", mpmath.log1p, -0.9, 10),
    ("sin", mpmath.sin, -20, 20),
    ("cos", mpmath.cos, -20, 20),
    ("tan", mpmath.tan, -1.5, 1.5),
    ("sinh", mpmath.sinh, -20, 20),
    ("cosh", mpmath.cosh, -20, 20),
    ("tanh", mpmath.tanh, -5, 5),
    ("asin", mpmath.asin, -1, 1),
    ("acos", mpmath.acos, -1, 1),
    ("atan", mpmath.atan, -20, 20),
    ("asinh", mpmath.asinh, -20, 20),
    ("acosh", mpmath.acosh, 1, 20),
    ("atanh", mpmath.atanh, -0.99, 0.99),
    ("cbrt", lambda x: mpmath.cbrt(x) if x > 0 else -mpmath.cbrt(-x), -20, 20),
    ("rcbrt", lambda x: 1 / mpmath.cbrt(x), 1e-3, 20),
    ("erf", mpmath.erf, -4, 4),
    ("erfc", mpmath.erfc, -4, 6),
    ("lgamma", lambda x: mpmath.log(mpmath.gamma(x)), 2.5, 30),
    ("tgamma", mpmath.gamma, 0.1, 20),
    ("sqrt", mpmath.sqrt, 0, 1e6),
    ("rsqrt", lambda x: 1 / mpmath.sqrt(x), 1e-6, 1e6),
    ("rcp_rn", lambda x: 1 / x, 0.1, 10),
    ("sqrt_rn", mpmath.sqrt, 0, 1e6),
]


CASES = [
    pytest.param(kind, *case, id=f"{case[0]}-{kind.__name__}")
    for case in REAL
    for kind in (np.float32, np.float64)
    if kind is np.float32 or "gamma" not in case[0]
]


@pytest.mark.parametrize(("kind", "name", "reference", "low", "high"), CASES)
def test_function_is_right_to_its_last_place(kind: type, name: str, reference, low, high) -> None:
    x = np.linspace(low, high, 151).astype(kind)
    x = x[(x >= low) & (x <= high)]
    dtype = torch.float32 if kind is np.float32 else torch.float64
    got = computed(of_one, x, dtype=dtype, FUNCTION=getattr(libdevice, name))
    with mpmath.workdps(40):
        # What a float64 leaves of the reference is far below the unit that is counted in.
        exact = [reference(mpmath.mpf(float(value))) for value in x]
        error = [abs(mpmath.mpf(float(g)) - e) for g, e in zip(got, exact, strict=True)]
    unit = np.spacing(np.abs(np.array([float(e) for e in exact]).astype(kind)))
    units = max(float(e / mpmath.mpf(float(u))) for e, u in zip(error, unit, strict=True))
    assert units <= (0.51 if kind is np.float32 else 2.5)


def test_functions_of_special_values() -> None:
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0], dtype=np.float32)
    inf, nan = np.inf, np.nan
    for name, want in {
        "exp": [1, 1, inf, 0, nan, math.exp(-1)],
        "log": [-inf, -inf, inf, nan, nan, nan],
        "sqrt": [0, -0.0, inf, nan, nan, nan],
        "rsqrt": [inf, -inf, 0, nan, nan, nan],
        "tanh": [0, -0.0, 1, -1, nan, math.tanh(-1)],
        "erf": [0, -0.0, 1, -1, nan, math.erf(-1)],
        "tgamma": [inf, -inf, inf, nan, nan, nan],
        "lgamma": [inf, inf, inf, inf, nan, inf],
        "log1p": [0, -0.0, inf, nan, nan, -inf],
        "saturatef": [0, -0.0, 1, 0, 0, 0],
        "abs": [0, 0, inf, inf, nan, 1],
        "fast_expf": [1, 1, inf, 0, nan, math.exp(-1)],
    }.items():
        got = computed(of_one, special, FUNCTION=getattr(libdevice, name))
        zero = np.float32(0)
        assert_same_bits(got + zero, np.array(want, dtype=np.float32) + zero)
    for name, want in {
        "isnan": [0, 0, 0, 0, 1, 0],
        "isinf": [0, 0, 1, 1, 0, 0],
        "finitef": [1, 1, 0, 0, 0, 1],
        "signbit": [0, 1, 0, 1, 0, 1],
    }.items():
        got = computed(of_one, special, dtype=torch.int32, FUNCTION=getattr(libdevice, name))
        assert got.astype(bool).tolist() == [bool(value) for value in want]


def test_rounding_functions() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -2.5, 0.49999997, 8388609.5, -1.2, 1.7], dtype=np.float32)
    for name, want in {
        "rint": [0, 2, 2, -0.0, -2, 0, 8388610, -1, 2],
        "nearbyint": [0, 2, 2, -0.0, -2, 0, 8388610, -1, 2],
        "round": [1, 2, 3, -1, -3, 0, 8388610, -1, 2],
        "trunc": [0, 1, 2, -0.0, -2, 0, 8388610, -1, 1],
        "floor": [0, 1, 2, -1, -3, 0, 8388610, -2, 1],
        "ceil": [1, 2, 3, -0.0, -2, 1, 8388610, -1, 2],
    }.items():
        got = computed(of_one, x, FUNCTION=getattr(libdevice, name))
        assert_same_bits(got, np.array(want, dtype=np.float32))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_arithmetic_in_a_direction_brackets_the_nearest(name: str) -> None:
    random = np.random.default_rng(11)
    a, b = (random.random((2, 1000)) * 4 - 2).astype(np.float32)
    exact = {
        "add": lambda x, y: x + y,
        "sub": lambda x, y: x - y,
        "mul": lambda x, y: x * y,
        "div": lambda x, y: x / y,
    }[name](a.astype(np.longdouble), b.astype(np.longdouble))
    results = {
        direction: computed(of_two, a, b, FUNCTION=getattr(libdevice, f"{name}_{direction}"))
        for direction in ("rn", "rz", "ru")
    }
    up, zero, near = results["ru"], results["rz"], results["rn"]
    infinity = np.float32(np.inf)
    assert ((up >= exact) & (np.nextafter(up, -infinity) < exact)).all()
    outward = np.nextafter(zero, np.copysign(infinity, exact.astype(np.float32)))
    assert ((np.abs(zero) <= np.abs(exact)) & (np.abs(outward) > np.abs(exact))).all()
    np.testing.assert_array_equal(near, exact.astype(np.float32))


def test_fma_and_fused_variants() -> None:
    x = np.float32([1 + 2.0**-12, 3.0, 2.0**-100, 1.0])
    y = np.float32([1 + 2.0**-12, 5.0, 2.0**-40, 2.0**-130])
    z = np.float32([-1.0, 0.5, 0.0, 1.0])
    got = computed(of_three, x, y, z, FUNCTION=libdevice.fma)
    # The third product is subnormal, the fourth factor too: both count as zeros.
    assert got.tolist() == [2.0**-11 + 2.0**-24, 15.5, 0.0, 1.0]
    wide = computed(
        of_three, *(a.astype(np.float64) for a in (x, y, z)), dtype=torch.float64,
        FUNCTION=libdevice.fma,
    )  # fmt: skip
    assert wide.tolist() == [2.0**-11 + 2.0**-24, 15.5, 2.0**-140, 1 + 0.0]


def test_functions_of_two() -> None:
    a = np.float32([2.0, -2.0, 9.0, 3.0, -1.0, 5.5])
    b = np.float32([10.0, 3.0, 0.5, -4.0, 0.0, -2.0])
    for name, want in {
        "pow": a.astype(np.float64) ** b,
        "fast_powf": a.astype(np.float64) ** b,
        "hypot": np.hypot(a.astype(np.float64), b),
        "atan2": np.arctan2(a.astype(np.float64), b),
        "copysign": np.copysign(a, b).astype(np.float64),
        "fmod": np.fmod(a, b, where=b != 0, out=np.full(6, np.nan)),
        "fdim": np.maximum(a - b, 0).astype(np.float64),
        "fast_dividef": np.divide(a, b, where=b != 0, out=np.full(6, -np.inf)),
    }.items():
        got = computed(of_two, a, b, FUNCTION=getattr(libdevice, name))
        assert units_apart(got, want) <= 0.51, name
    powers = np.array([3, -2, 0, 1, 7, 2], dtype=np.int32)
    got = computed(of_two, a, powers, FUNCTION=libdevice.pow)
    assert units_apart(got, a.astype(np.float64) ** powers) <= 0.51
    got = computed(of_two, a, powers, FUNCTION=libdevice.ldexp)
    np.testing.assert_array_equal(got, a * 2.0**powers)


def test_conversions_in_a_direction() -> None:
    x = np.float32([1.5, 2.5, -1.5, 3e9, np.nan])
    for name, want in {
        "float2int_rn": [2, 2, -2, 2**31 - 1, 0],
        "float2int_rz": [1, 2, -1, 2**31 - 1, 0],
        "float2int_rd": [1, 2, -2, 2**31 - 1, 0],
        "float2int_ru": [2, 3, -1, 2**31 - 1, 0],
        "float2uint_rn": [2, 2, 0, 3_000_000_000 - 2**32, 0],
    }.items():
        got = computed(of_one, x, dtype=torch.int32, FUNCTION=getattr(libdevice, name))
        assert got.tolist() == want, name
    got = computed(of_one, x, dtype=torch.int32, FUNCTION=libdevice.float_as_int)
    np.testing.assert_array_equal(got, x.view(np.int32))


def test_high_half_of_signed_products() -> None:
    a = np.array([2**31 - 1, -(2**31), -1, 123456789], dtype=np.int32)
    b = np.array([2**31 - 1, -(2**31), 1, -987654321], dtype=np.int32)
    got = computed(of_two, a, b, dtype=torch.int32, FUNCTION=libdevice.mulhi)
    assert got.tolist() == [int(x) * int(y) >> 32 for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("module", [libdevice, cuda_libdevice])
def test_other_functions_are_refused_by_name(module) -> None:
    x = np.ones(4, dtype=np.float32)
    with pytest.raises(UnsupportedInInterpreter, match=r"function __nv_j0f \[of_one, test"):
        computed(of_one, x, FUNCTION=module.j0)
    with pytest.raises(Exception, match=r"KeyError"):
        computed(of_one, x.astype(np.float16), dtype=torch.float16, FUNCTION=module.exp)


def test_table_has_only_names_of_libdevice() -> None:
    symbols = set(re.findall(r'"(__nv_\w+)"', Path(cuda_libdevice.__file__).read_text()))
    assert table._TABLE.keys() <= symbols
    assert len(table._TABLE) > 150
