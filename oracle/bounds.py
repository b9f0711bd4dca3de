"""Running error analysis: the only place where a tolerance is born.

A :class:`Bounded` is an fp64 value with a bound on how far a correct kernel's own value may lie
from it. Every function here is one step of a kernel's arithmetic: it maps the bounds of its
operands to the bound of its result, roundings included. Nothing is fitted to observations.

Notation: u is the unit roundoff of the compute format, gamma(k) = k*u / (1 - k*u) bounds the
relative error of k roundings in a row (Higham, Accuracy and Stability of Numerical Algorithms,
lemma 3.1), s the row that is normalized, e the error already in s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from oracle.arithmetic import Arithmetic
from oracle.formats import F64, FORMATS, Format, round_to

Mask = npt.NDArray[np.bool_]

# fp64's own error in the ends value - error and value + error, relative to the value: it counts
# only where the ends lie many orders below it.
ORACLE_ROUNDOFF = 2.0**-51

# Relative error of exp(-z) = ex2.approx(-z * log2(e)) per unit of |z| and u: an absolute error d of
# the exponent is a relative error ln(2) * d of the power, and -z * log2(e) is off by u of itself
# for its rounding and by 0.23u for that of the constant. The rest covers the second order.
EXP_GROWTH = 1.3


@dataclass(frozen=True)
class Bounded:
    """fp64 values, the largest error a correct kernel may make in each, and where it owes nothing.

    ``error`` broadcasts against ``value``; infinite means any finite or infinite result is right.
    ``free`` marks where NaN or infinity is right besides the finite values within ``error``.
    """

    value: F64
    error: F64
    free: Mask

    @property
    def exact(self) -> bool:
        """Whether every value is the very one a correct kernel holds."""
        return not self.error.any()


_ZERO = np.zeros(())
_OWED = np.zeros((), dtype=np.bool_)


def known(value: F64) -> Bounded:
    """Values that the kernel holds exactly: its inputs, or results that were observed."""
    return Bounded(value, _ZERO, _OWED)


def gamma(roundings: float, fmt: Format) -> float:
    """Bound on the relative error of that many roundings in a row; infinite where it is vacuous.

    A rounding to nearest errs by u / (1 + u) at most, so gamma is too large by u^2 a rounding or
    more: the errors of this module's own fp64 sums, some 2^-50, stay below that.
    """
    k = roundings * fmt.u
    return k / (1.0 - k) if k < 1.0 else math.inf


def _settled(value: F64, error: F64, free: Mask, fmt: Format) -> Bounded:
    """Where an intermediate can overflow the compute format, nothing is owed from there on."""
    # The usual case in one pass; a comparison with NaN is false.
    if (np.abs(value) + error <= fmt.largest).all():
        return Bounded(value, error, free)
    error = np.where(np.isnan(error), np.inf, error)
    over = np.abs(value) + error > fmt.largest
    # Infinite inputs make infinite values honestly; only finite values overflow.
    over &= np.isfinite(value)
    if over.any():
        error, free = np.where(over, np.inf, error), free | over
    return Bounded(value, error, free)


def add(a: Bounded, b: Bounded, fmt: Format) -> Bounded:
    """One addition. Of exactly known operands it is IEEE's: its rounding is value, not error."""
    value = a.value + b.value
    error = a.error + b.error
    if not error.any():
        return Bounded(round_to(value, fmt), _ZERO, a.free | b.free)
    rounded = fmt.u * (np.abs(value) + error)
    return _settled(value, error + rounded, a.free | b.free, fmt)


def subtract(a: Bounded, b: Bounded, fmt: Format) -> Bounded:
    """One subtraction; see :func:`add`."""
    return add(a, Bounded(-b.value, b.error, b.free), fmt)


def multiply(a: Bounded, b: Bounded, fmt: Format) -> Bounded:
    """One product. It always carries an error: compilers may fuse it with an addition."""
    value = a.value * b.value
    error = np.abs(a.value) * b.error + np.abs(b.value) * a.error + a.error * b.error
    rounded = fmt.u * (np.abs(value) + error) + fmt.quantum / 2
    free = a.free | b.free
    if not np.isfinite(value).all():
        # Infinity times a value of unsure sign, or that may be 0, is either infinity or NaN.
        free = free | (np.isinf(a.value) & _may_vanish(b)) | (np.isinf(b.value) & _may_vanish(a))
    return _settled(value, error + rounded, free, fmt)


def rounded(a: Bounded, fmt: Format) -> Bounded:
    """A value stored in a narrower format and read back."""
    if a.exact:
        return Bounded(round_to(a.value, fmt), a.error, a.free)
    low, high = round_to(a.value - a.error, fmt), round_to(a.value + a.error, fmt)
    error = np.maximum(high - a.value, a.value - low)
    free = a.free | (np.isfinite(a.value) & np.isinf(error))
    return Bounded(a.value, np.where(np.isnan(error), np.inf, error), free)


def sigmoid(z: Bounded, arithmetic: Arithmetic, fmt: Format) -> Bounded:
    """1 / (1 + exp(-z)) with an approximate exponential.

    The exponential's relative error grows with |z| and enters with weight s*(1 - s); the addition
    and the division add their own. Results below the smallest normal number may flush to 0.
    """
    with np.errstate(over="ignore"):
        value = 1.0 / (1.0 + np.exp(-z.value))
    slope = value * (1.0 - value)
    with np.errstate(invalid="ignore"):
        exponential = np.nan_to_num(EXP_GROWTH * np.abs(z.value) * slope) + (
            arithmetic.exp_error * slope
        )
    tail = (arithmetic.div_error + 2.0) * value
    # Far out the result is 0 exactly: neither flushing nor rounding adds more than the value.
    underflow = np.minimum(fmt.smallest_normal, 2.0 * value)
    error = fmt.u * (exponential + tail) + underflow + slope * z.error
    return Bounded(value, np.where(np.isnan(error), np.inf, error), z.free)


def mean_of(s: Bounded, depth: int, arithmetic: Arithmetic, fmt: Format) -> Bounded:
    """Mean over the last axis: a sum of the given depth, then a division; or a running mean."""
    n = s.value.shape[-1]
    value = s.value.mean(axis=-1, keepdims=True)
    size = (np.abs(s.value) + s.error).mean(axis=-1, keepdims=True)
    inherited = np.broadcast_to(s.error, s.value.shape).mean(axis=-1, keepdims=True)
    roundings, quanta = float(depth), 0.5
    if arithmetic.variance == "welford":
        roundings = quanta = _running_roundings(n, depth, arithmetic)
    summed = inherited + gamma(roundings, fmt) * size
    divided = arithmetic.div_error * fmt.u * (np.abs(value) + summed) + quanta * fmt.quantum
    # Beside an infinity the finite values may overflow to the other one on their own.
    finite = np.where(np.isinf(s.value), 0.0, np.abs(s.value) + s.error)
    total = finite.sum(axis=-1, keepdims=True) * (1.0 + gamma(roundings, fmt))
    over = ~np.isnan(value) & ~(total <= fmt.largest)
    error = np.where(over, np.inf, summed + divided)
    return Bounded(value, np.where(np.isnan(error), np.inf, error), _any_free(s, value) | over)


def _running_roundings(n: int, depth: int, arithmetic: Arithmetic) -> float:
    """Roundings in a running mean, relative to mean|s|.

    Each step mean + (s_k - mean) / k rounds the mean, as a sum would, and a step whose own
    rounding, difference, quotient and product weigh 1/k: their sum over k is below 1 + log2(n). A
    tree of merges has log2(n) levels and the same roundings in each.
    """
    return depth + (arithmetic.div_error + 3.0) * (1.0 + math.log2(n))


@dataclass(frozen=True)
class Interval:
    """Bounds [low, high] on a variance, its fp64 value between them.

    ``low`` is negative only where a correct kernel's own variance can be.
    """

    value: F64
    low: F64
    high: F64
    free: Mask


def variance_of(
    s: Bounded, mean: Bounded, depth: int, arithmetic: Arithmetic, fmt: Format
) -> Interval:
    """Variance over the last axis, as the kernel computes it from ``s`` and its own mean.

    An error e in the elements moves their standard deviation by at most its root mean square.
    """
    mu = s.value.mean(axis=-1, keepdims=True)
    var = np.square(s.value - mu).mean(axis=-1, keepdims=True)
    sigma, spread = np.sqrt(var), _rms(s.error)
    low, high = np.square(np.maximum(sigma - spread, 0.0)), np.square(sigma + spread)
    exact = Interval(var, low, high, _any_free(s, mu) | mean.free)
    # `mean` bounds the kernel's mean around the exact one; the elements' own error moves both.
    offset = np.abs(mean.value - mu)
    shared = mean.error + np.broadcast_to(s.error, s.value.shape).mean(axis=-1, keepdims=True)
    if arithmetic.variance == "one_pass":
        return _one_pass(s, exact, offset + shared, depth, arithmetic, fmt)
    if arithmetic.variance == "welford":
        return _welford(s, exact, depth, arithmetic, fmt)
    # sum((s - m)^2)/n = var + (m - mu)^2 exactly, so an inexact mean can only add.
    value = np.square(s.value - mean.value).mean(axis=-1, keepdims=True)
    low = low + np.square(np.maximum(offset - shared, 0.0))
    high = high + np.square(offset + shared)
    return _interval(
        Interval(value, low, high, exact.free),
        fmt,
        roundings=depth + 3.0 + arithmetic.div_error,
        total=s.value.shape[-1] * high,
    )


def _one_pass(
    s: Bounded, exact: Interval, far: F64, depth: int, arithmetic: Arithmetic, fmt: Format
) -> Interval:
    """E[s^2] - m^2 with a mean off by up to ``far``: both are rounded before they cancel."""
    n = s.value.shape[-1]
    square = np.square(_rms(s.value) + _rms(s.error))
    summed = gamma(depth + 1.0 + arithmetic.div_error, fmt) * square
    centre = np.abs(s.value.mean(axis=-1, keepdims=True)) + far
    return _interval(
        exact,
        fmt,
        roundings=1.0,
        extra=summed + (2.0 * centre + far) * far + fmt.u * np.square(centre),
        # Half a quantum for the squares, their quotient and the mean's square.
        quanta=1.5,
        total=n * (square + summed) + np.square(centre),
        floor=-math.inf,
    )


def _welford(
    s: Bounded, exact: Interval, depth: int, arithmetic: Arithmetic, fmt: Format
) -> Interval:
    """Products of deviations from running means, each off by up to ``drift``.

    In one chain the deviations of both factors have root mean squares of at most sqrt(2) * sigma;
    in a tree of merges every level counts once more.
    """
    n = s.value.shape[-1]
    levels = 2.0 + math.log2(n)
    largest = (np.abs(s.value) + s.error).max(axis=-1, keepdims=True)
    drift = gamma(_running_roundings(n, depth, arithmetic), fmt) * largest
    moved = math.sqrt(levels) * drift
    # The first element meets the mean 0, and 0 in the other factor: its own rounding, where it is
    # a product that is rounded in one factor and fused in the other.
    fused = 0.0 if s.exact else fmt.u * np.square(largest) / n
    extra = (2.0 * np.sqrt(exact.high) + moved) * moved + fused
    # Merged, an infinity gives an infinite variance; updated with, NaN.
    infinite = np.isinf(s.value).any(axis=-1, keepdims=True)
    infinite &= ~np.isnan(s.value).any(axis=-1, keepdims=True)
    value, low, high = (
        np.where(infinite, np.inf, part) for part in (exact.value, exact.low, exact.high)
    )
    return _interval(
        Interval(value, low, high, exact.free | infinite),
        fmt,
        # A merge multiplies a square by two counts and divides it by a third, at every level.
        roundings=depth + 5.0 + 2.0 * arithmetic.div_error,
        extra=extra,
        quanta=levels,
        total=n * (n * (high + extra)),
        floor=0.0 if s.exact else -math.inf,
    )


def mean_square_of(s: Bounded, depth: int, arithmetic: Arithmetic, fmt: Format) -> Interval:
    """Mean of squares over the last axis (RMS norm)."""
    value = np.square(s.value).mean(axis=-1, keepdims=True)
    spread = _rms(s.error)
    root = np.sqrt(value)
    low, high = np.square(np.maximum(root - spread, 0.0)), np.square(root + spread)
    return _interval(
        Interval(value, low, high, _any_free(s, value)),
        fmt,
        roundings=depth + 1.0 + arithmetic.div_error,
        total=s.value.shape[-1] * high,
    )


def rstd_of(variance: Interval, eps: float, arithmetic: Arithmetic, fmt: Format) -> Bounded:
    """1 / sqrt(variance + eps) by its interval: linearised, it would be wrong near 0."""
    low = np.maximum(variance.low + eps * (1.0 - fmt.u) - fmt.quantum / 2, 0.0) * (1.0 - fmt.u)
    high = (variance.high + eps * (1.0 + fmt.u) + fmt.quantum / 2) * (1.0 + fmt.u)
    root_error = arithmetic.rsqrt_error * fmt.u
    with np.errstate(divide="ignore", invalid="ignore"):
        value = 1.0 / np.sqrt(variance.value + eps)
        largest = (1.0 + root_error) / np.sqrt(low)
        smallest = np.where(high > fmt.largest, 0.0, (1.0 - root_error) / np.sqrt(high))
    # An approximate root sees a subnormal argument as 0; without flushing only 0 itself is one.
    edge = fmt.smallest_normal if arithmetic.flush_to_zero else 0.0
    unbounded = low <= edge
    # The root of 0 is owed to nobody: a kernel's own variance need not be 0.
    value = np.where(unbounded & np.isinf(value), 0.0, value)
    with np.errstate(invalid="ignore"):
        error = np.maximum(largest - value, value - smallest) + ORACLE_ROUNDOFF * value
    error = np.where(unbounded | np.isnan(error), np.inf, error)
    # rstd of an infinite variance is 0, exactly.
    error = np.where(np.isposinf(variance.value), 0.0, error)
    return Bounded(value, error, variance.free | unbounded)


def normalized(
    d: Bounded, rstd: Bounded, s: Bounded, arithmetic: Arithmetic, fmt: Format
) -> Bounded:
    """x_hat = d * rstd, capped by sqrt(n) where d is surely one of the n terms of the variance.

    A finite x_hat cannot exceed sqrt(n): its square is one of n terms whose mean it is divided by,
    and a sum of squares is at least its largest term, however it is rounded.
    """
    product = multiply(d, rstd, fmt)
    # A sum that is recomputed with an error of its own, or is rounded in one place only, need not
    # be the same in both; and only a two-pass sum is at least its largest term.
    same = arithmetic.variance_reads == arithmetic.output_reads and s.exact
    if arithmetic.variance != "two_pass" or not same:
        return product
    n = s.value.shape[-1]
    # What is not 0 of s - mean is at least this, so underflow takes no more than this share of
    # the largest square; where all is 0, x_hat is.
    least = fmt.u / 2 * np.abs(s.value).max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        underflow = np.where(least > 0.0, n * fmt.quantum / np.square(least), 0.0)
    # What remains is the rounding of that square, of its sum with eps and of x_hat, beside the
    # promised division and root.
    root_error, div_error = arithmetic.rsqrt_error * fmt.u, arithmetic.div_error * fmt.u
    slack = (1.0 + fmt.u) * (1.0 + root_error) / ((1.0 - fmt.u) * math.sqrt(1.0 - div_error))
    cap = np.abs(product.value) + math.sqrt(n) * slack * (1.0 + underflow)
    return Bounded(product.value, np.fmin(product.error, cap), product.free)


def _interval(
    exact: Interval,
    fmt: Format,
    *,
    roundings: float,
    total: F64,
    extra: F64 | float = 0.0,
    quanta: float = 1.0,
    floor: float = 0.0,
) -> Interval:
    """Apply the roundings of a sum of squares, its underflow and its overflow.

    ``total`` bounds the largest intermediate; ``floor`` is the least value that can come out.
    """
    relative = gamma(roundings, fmt)
    underflow = quanta * fmt.quantum
    with np.errstate(invalid="ignore"):
        low = np.maximum(exact.low * max(1.0 - relative, 0.0) - extra - underflow, floor)
        high = exact.high * (1.0 + relative) + extra + underflow
        over = np.isfinite(exact.value) & ~(total * (1.0 + relative) <= fmt.largest)
    low, high = np.where(over, floor, low), np.where(over, np.inf, high)
    return Interval(exact.value, low, high, exact.free | over)


def _may_vanish(a: Bounded) -> Mask:
    """Where an inexact value may be 0 or of either sign."""
    return np.asarray((np.abs(a.value) <= a.error) & (a.error > 0.0))


def _rms(a: F64) -> F64:
    """Root mean square over the last axis."""
    if not a.any():
        return np.zeros(())
    return np.asarray(np.sqrt(np.square(a).mean(axis=-1, keepdims=True)))


def _any_free(s: Bounded, like: F64) -> Mask:
    """Whether any element of the row is free, in the shape of the row's statistics."""
    if not s.free.any():
        return np.zeros(like.shape, dtype=np.bool_)
    return np.asarray(np.broadcast_to(s.free, s.value.shape).any(axis=-1, keepdims=True))


def format_of(dtype: str) -> Format:
    """The format of a dtype name.

    Raises: ValueError for float64 and anything else that an fp64 oracle cannot judge.
    """
    if dtype not in FORMATS:
        raise ValueError(f"dtype={dtype!r}, must be one of {', '.join(FORMATS)} [oracle]")
    return FORMATS[dtype]
