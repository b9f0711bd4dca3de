"""NVIDIA's libdevice by the names of its symbols: ``__nv_expf`` and the like, in NumPy.

float32 functions are computed in float64 and rounded: they err by less than 0.51 units in the last
place (libdevice's own by one or two, the fast ones by far more). float64 functions are NumPy's or
Python's, right to about one unit. Those with a rounding in their name are exact. Where compiled
code has one instruction for a float32 function, that takes subnormals for zeros, and so does this.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuzz.strict import integers
from fuzz.strict.refusals import unsupported
from fuzz.strict.rounding import Direction, flushed, fma, odd_fma, odd_sum, round_fp32

Function = Callable[..., NDArray[Any]]


def call(symbol: str, args: list[NDArray[Any]]) -> NDArray[Any]:
    """The result of a libdevice function.

    Raises: UnsupportedInInterpreter, with the symbol, where it is not one of the table.
    """
    function = _TABLE.get(symbol)
    if function is None:
        raise unsupported(f"libdevice function {symbol}")
    return function(*args)


def _of_math(function: Callable[[float], float], outside: float = math.nan) -> Function:
    """A function of Python's, element by element; ``outside``: where it is not defined."""

    def one(x: float) -> float:
        try:
            return function(x)
        except ValueError:
            return outside
        except OverflowError:
            return math.inf

    def apply(x: NDArray[Any]) -> NDArray[Any]:
        numbers = map(one, x.ravel().tolist())
        results = np.fromiter(numbers, dtype=np.float64, count=x.size)
        shaped: NDArray[Any] = results.reshape(x.shape)
        return shaped

    return apply


def _gamma(x: float) -> float:
    return math.gamma(x) if x != 0 else math.copysign(math.inf, x)


def _power(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    # The exponent may be an integer; NumPy would refuse a negative one for an integer base alone.
    result: NDArray[Any] = np.power(x, y.astype(np.float64))
    return result


def _round_half_away(x: NDArray[Any]) -> NDArray[Any]:
    # By way of the fraction, which is exact: adding a half would round up what lies just under one.
    whole = np.trunc(x)
    half = (np.abs(x - whole) >= 0.5).astype(x.dtype)
    magnitudes = np.where(np.isfinite(x), np.abs(whole) + half, x)
    signed: NDArray[Any] = np.copysign(magnitudes, x)
    return signed


_REAL: dict[str, Function] = {
    "exp": np.exp,
    "exp10": lambda x: np.power(10.0, x),
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "atan2": np.arctan2,
    "hypot": np.hypot,
    "cbrt": np.cbrt,
    "rcbrt": lambda x: 1 / np.cbrt(x),
    "erf": _of_math(math.erf),
    "erfc": _of_math(math.erfc),
    "pow": _power,
    "powi": _power,
}
"""Functions of float64, whose float32 version has an ``f`` after its name."""

_REAL_FLUSHED: dict[str, Function] = {
    "exp2": np.exp2,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}

_REAL_IN_FP32: dict[str, Function] = {
    "lgamma": _of_math(math.lgamma, outside=math.inf),
    "tgamma": _of_math(_gamma),
}
"""Functions whose float64 results are good for float32 alone."""

_FAST = ("exp", "exp10", "log", "log2", "log10", "sin", "cos", "tan", "pow")
"""Those with a fast float32 version too."""

_EXACT: dict[str, Function] = {
    "trunc": np.trunc,
    "rint": np.rint,
    "nearbyint": np.rint,
    "round": _round_half_away,
    "copysign": np.copysign,
    "fmod": np.fmod,
    "fdim": lambda x, y: np.where(x <= y, x.dtype.type(0), x - y),
    "ldexp": np.ldexp,
    "scalbn": np.ldexp,
}
"""Functions that keep the format of their (first) operand."""

_EXACT_FLUSHED: dict[str, Function] = {"fabs": np.abs, "floor": np.floor, "ceil": np.ceil}

_TESTS: dict[str, Function] = {
    "isnanf": np.isnan,
    "isnand": np.isnan,
    "isinff": np.isinf,
    "isinfd": np.isinf,
    "signbitf": np.signbit,
    "signbitd": np.signbit,
    "finitef": np.isfinite,
    "isfinited": np.isfinite,
}

_ARITHMETIC: dict[str, tuple[Function, Function]] = {
    "add": (lambda x, y: odd_sum(_wide(x), _wide(y)), np.add),
    "sub": (lambda x, y: odd_sum(_wide(x), -_wide(y)), np.subtract),
    "mul": (lambda x, y: _wide(x) * _wide(y), np.multiply),
    "div": (lambda x, y: _wide(x) / _wide(y), np.divide),
    "rcp": (lambda x: 1 / _wide(x), lambda x: 1 / x),
    "sqrt": (lambda x: np.sqrt(_wide(x)), np.sqrt),
    "fma": (odd_fma, fma),
}
"""The first is for float32, in any direction: its float64 results compare with every float32 as the
exact ones do. The second is for float64, to nearest."""

_WHOLE: dict[Direction, Function] = {"rn": np.rint, "rz": np.trunc, "rd": np.floor, "ru": np.ceil}

_INTEGERS = {"int": "i4", "uint": "u4", "ll": "i8", "ull": "u8"}

_BITS = {
    "float_as_int": "i4",
    "float_as_uint": "i4",
    "int_as_float": "f4",
    "uint_as_float": "f4",
    "double_as_longlong": "i8",
    "longlong_as_double": "f8",
}


def _wide(x: NDArray[Any]) -> NDArray[np.float64]:
    return x.astype(np.float64)


def _in_fp32(function: Function) -> Function:
    return lambda *args: function(*map(_wide, args)).astype(np.float32)


def _flushing(function: Function) -> Function:
    """A float32 function that is one instruction with ``.ftz``."""
    return lambda *args: flushed(function(*map(flushed, args)))


def _directed(function: Function, direction: Direction) -> Function:
    return lambda *args: round_fp32(function(*args), direction)


def _test(function: Function) -> Function:
    return lambda x: function(x).astype(np.int32)


def _to_integer(direction: Direction, dtype: str) -> Function:
    # libdevice has no unsigned results: their bits come as those of signed ones.
    signed = dtype.replace("u", "i")

    def apply(x: NDArray[Any]) -> NDArray[Any]:
        whole = _WHOLE[direction](flushed(x) if x.dtype == np.float32 else x)
        return integers.truncated(whole, np.dtype(dtype)).view(signed)

    return apply


def _reinterpreting(dtype: str) -> Function:
    return lambda x: x.view(dtype)


def _signed_high_half(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    # An operand whose sign bit is set counts 2^bits too much as an unsigned one.
    zero = x.dtype.type(0)
    return integers.high_half(x, y) - np.where(x < 0, y, zero) - np.where(y < 0, x, zero)


def _table() -> dict[str, Function]:
    table: dict[str, Function] = {}
    for name, function in _REAL.items():
        table |= {name: function, f"{name}f": _in_fp32(function)}
    for name, function in _REAL_IN_FP32.items():
        table[f"{name}f"] = _in_fp32(function)
    for name, function in _REAL_FLUSHED.items():
        table |= {name: function, f"{name}f": _flushing(_in_fp32(function))}
    for name in _FAST:
        table[f"fast_{name}f"] = _flushing(_in_fp32(_REAL[name]))
    for name, function in _EXACT.items():
        table |= {name: function, f"{name}f": function}
    for name, function in _EXACT_FLUSHED.items():
        table |= {name: function, f"{name}f": _flushing(function)}
    for name, function in _TESTS.items():
        table[name] = _test(function)
    for name, (exact, double) in _ARITHMETIC.items():
        of_fp32, of_fp64 = ("fmaf", "fma") if name == "fma" else (f"f{name}", f"d{name}")
        table[f"{of_fp64}_rn"] = double
        for direction in _WHOLE:
            # Rounding down makes -0 of what cancels: sums are left to those who need that.
            if direction != "rd" or name not in ("add", "sub", "fma"):
                table[f"{of_fp32}_{direction}"] = _flushing(_directed(exact, direction))
    for direction in _WHOLE:
        for source in ("float", "double"):
            for kind, dtype in _INTEGERS.items():
                table[f"{source}2{kind}_{direction}"] = _to_integer(direction, dtype)
    for name, dtype in _BITS.items():
        table[name] = _reinterpreting(dtype)
    table |= {
        "fma": fma,
        "fmaf": table["fmaf_rn"],
        "frsqrt_rn": table["rsqrtf"],
        "fast_fdividef": _flushing(_in_fp32(np.divide)),
        "saturatef": _flushing(lambda x: np.fmin(np.fmax(x, np.float32(0)), np.float32(1))),
        "llrint": table["double2ll_rn"],
        "llrintf": table["float2ll_rn"],
        "abs": np.abs,
        "llabs": np.abs,
        "mulhi": _signed_high_half,
        "mul64hi": _signed_high_half,
        "umulhi": integers.high_half,
        "umul64hi": integers.high_half,
    }
    return {f"__nv_{name}": function for name, function in table.items()}


_TABLE = _table()
