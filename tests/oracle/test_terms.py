"""Each term of the bound earns its place.

For every term there is a witness: a correct computation that the oracle judges right, and that it
would call wrong with the term left out. Its ratio error/bound is stored and moves when the term
is doubled, so no term can grow or shrink unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import oracle.bounds
import oracle.compare
from oracle.arithmetic import Arithmetic
from oracle.bounds import Bounded
from oracle.formats import F64, FORMATS, round_to
from oracle.refs import Problem
from tests.oracle.emulation import How, Machine, Order, depth_of, run
from tests.oracle.judging import ORACLE, Judge, judge_by, mutant
from tests.oracle.rows import bell

FP32, BF16 = FORMATS["float32"], FORMATS["bfloat16"]
TWO_U, Q = 2.0**-23, FP32.quantum
INF, NAN = np.inf, np.nan


@dataclass(frozen=True)
class Verdict:
    """Whether anything is wrong, and the largest error/bound."""

    wrong: bool
    ratio: float


Witness = Callable[[Judge], Verdict]


def kernel(
    x: Any,
    output: str,
    *,
    eps: float = 0.0,
    arithmetic: Arithmetic = Arithmetic(),  # noqa: B008
    how: How = How(),  # noqa: B008
    dtype: str = "float32",
    dtypes: dict[str, str] | None = None,
    depth: int | None = None,
    **inputs: Any,
) -> Witness:
    """A whole kernel on a row or more, judged by one of its outputs."""
    x = np.atleast_2d(np.asarray(x, dtype=np.float64))
    n = x.shape[1]
    for name in ("z", "weight", "bias", "residual", "input_bias"):
        if name in inputs:
            shape = x.shape if name in ("z", "residual") else (n,)
            inputs[name] = np.broadcast_to(np.asarray(inputs[name], dtype=np.float64), shape)
    problem = Problem(
        x=x,
        dtype=dtype,
        eps=eps,
        depth=depth_of(how.order, n) if depth is None else depth,
        group_size=n,
        **inputs,
    )
    outputs = run(problem, arithmetic, how)

    def judge(by: Judge) -> Verdict:
        with np.errstate(all="ignore"):
            result = by.judge(problem, arithmetic, outputs, dtypes)[output]
        return Verdict(bool(result.wrong.any()), float(result.ratio.max()))

    return judge


def step(bound: Callable[[ModuleType], Bounded], computed: Any) -> Witness:
    """One step alone: what it yields against the bound that a bounds module gives it."""

    def judge(by: Judge) -> Verdict:
        with np.errstate(all="ignore"):
            expected = by.compare.expect(bound(by.refs.bounds), "float32")
            observed = np.broadcast_to(np.asarray(computed, dtype=np.float64), expected.value.shape)
            result = by.compare.compare(observed, expected)
        return Verdict(bool(result.wrong.any()), float(result.ratio.max()))

    return judge


def interval_step(bound: Callable[[ModuleType], Any], computed: Any) -> Witness:
    """A step that yields a variance, against its interval."""
    computed = np.asarray(computed, dtype=np.float64)

    def judge(by: Judge) -> Verdict:
        with np.errstate(all="ignore"):
            owed = bound(by.refs.bounds)
            above = (computed - owed.value) / (owed.high - owed.value)
            below = (owed.value - computed) / (owed.value - owed.low)
        ratio = float(np.maximum(above, below).max())
        return Verdict(ratio > 1.0, ratio)

    return judge


def known(value: Any) -> Bounded:
    return oracle.bounds.known(np.asarray(value, dtype=np.float64))


@dataclass(frozen=True)
class Term:
    """A term: ``old`` occurs once in the module, ``dropped`` leaves it out."""

    name: str
    old: str
    dropped: str
    witness: Callable[[], Witness]
    doubled: str | None = None
    module: ModuleType = oracle.bounds


def f32(value: Any) -> F64:
    return round_to(np.asarray(value, dtype=np.float64), FP32)


GATED = {"norm_before_gate": False}
# Errors of the gate that dwarf all others.
CRUDE_EXP = 512.0
STAGED = ("mean", "rstd")


# --- the mean --------------------------------------------------------------------------------


def drifting_sum() -> Witness:
    return kernel(np.full(1000, f32(0.1)), "mean")


def gate_errors_of_one_sign() -> Witness:
    arithmetic = Arithmetic(exp_error=CRUDE_EXP)
    how = How(order=Order(64), push={"exp": 1})
    return kernel(np.ones(64), "mean", arithmetic=arithmetic, how=how, z=-20.0, **GATED)


def inexact_division() -> Witness:
    return kernel(np.ones(3), "mean", how=How(push={"mean": 1}))


def mean_that_underflows() -> Witness:
    return kernel([Q, 0.0], "y", eps=1e-30, weight=2.0**100)


def sum_that_overflows() -> Witness:
    return kernel(np.full(4, 3e38), "mean")


def overflow_beside_infinity() -> Witness:
    return kernel(f32([-3e38, -3e38, INF]), "mean")


def overflow_in_half_precision() -> Witness:
    # The sum overflows, and with it the variance: its root is 0.
    arithmetic = Arithmetic(compute="float16")
    x = 1000.0 + np.floor(8.0 * bell(4, 100))
    return kernel(x, "rstd", eps=1e-5, arithmetic=arithmetic, how=How(order=Order(32)))


# --- the variance ----------------------------------------------------------------------------


def constant_row() -> Witness:
    return kernel(np.full(1000, f32(1000.1)), "rstd", eps=1e-5)


def gate_errors_with_the_observed_mean() -> Witness:
    how = How(order=Order(64), push={"exp": 1})
    arithmetic = Arithmetic(reused=("mean",), exp_error=CRUDE_EXP)
    x = np.full(64, 2.0**20)
    return kernel(x, "rstd", eps=1e-14, how=how, arithmetic=arithmetic, z=-20.0, **GATED)


def gate_errors_along_the_deviations() -> Witness:
    deviation = np.where(np.arange(64) % 2, 1.0, -1.0)
    # A larger exponential makes the gate smaller, and the gate is negative.
    how = How(order=Order(64), push={"exp": deviation, "gate": -deviation})
    x = f32(1.0 + deviation / 128.0)
    arithmetic = Arithmetic(exp_error=CRUDE_EXP)
    return kernel(x, "rstd", arithmetic=arithmetic, how=how, z=-20.0, **GATED)


def one_gate_rounded_far() -> Witness:
    # The gate of column 0 is 1.49 subnormal spacings of float16, the others are nearly exact.
    z = np.full(64, 20.0)
    z[0] = -19.1875
    silu = z / (1.0 + np.exp(-z))
    x = f32(1.0 / silu)
    arithmetic = Arithmetic(roundings=(("gate", "float16"),))
    how = How(order=Order(64))
    return kernel(x, "rstd", eps=1e-5, arithmetic=arithmetic, how=how, z=z, **GATED)


def drifting_sum_of_squares() -> Witness:
    x = np.where(np.arange(1000) % 2, 1.0, -1.0) * f32(0.1)
    return kernel(x, "rstd")


def inexact_division_of_the_variance() -> Witness:
    return kernel(
        [1.0, -1.0], "rstd", arithmetic=Arithmetic(div_error=64.0), how=How(push={"variance": 1})
    )


# --- steps in bfloat16, where single roundings are not hidden by the store ----------------------

BF16_KERNEL = Arithmetic(compute="bfloat16", div_error=1.0, rsqrt_error=1.0)


def rounded_square_of_a_rounded_difference() -> Witness:
    x, mean = np.array([[float.fromhex("0x1.e6p+0")]]), np.array([[float.fromhex("0x1.aap-1")]])
    machine = Machine(BF16_KERNEL, How())
    d = machine.add(x, -mean)
    return interval_step(
        lambda b: b.variance_of(known(x), known(mean), 0, BF16_KERNEL, BF16), machine.mul(d, d)
    )


def rounded_square() -> Witness:
    x = np.array([[float.fromhex("0x1.7ep+0")]])
    arithmetic = replace(BF16_KERNEL, div_error=0.0)
    return interval_step(
        lambda b: b.mean_square_of(known(x), 0, arithmetic, BF16),
        Machine(arithmetic, How()).mul(x, x),
    )


def root_alone(variance: float, eps: float, exact: float, arithmetic: Arithmetic) -> Witness:
    """The root of a variance at one end of its interval, far from the exact one at the other.

    The error of a root is the larger one of both sides: only so does one side stand alone.
    """
    held, value = (np.array([[v]]) for v in (variance, exact))
    low, high = np.minimum(held, value), np.maximum(held, value)
    owed = oracle.bounds.Interval(value, low, high, np.zeros((1, 1), dtype=np.bool_))
    machine = Machine(arithmetic, How())
    return step(
        lambda b: b.rstd_of(owed, eps, arithmetic, machine.fmt),
        machine.rsqrt(machine.add(held, machine.round(np.asarray(eps)))),
    )


def root_too_large() -> Witness:
    """eps and its sum with the variance are rounded down, the root up, by nearly u each."""
    eps = float.fromhex("0x1.0afffffffefp-1")
    return root_alone(float.fromhex("0x1.fep-10"), eps, 1.0, BF16_KERNEL)


def root_too_small() -> Witness:
    """The other way round."""
    eps = float.fromhex("0x1.0100000001p-1")
    return root_alone(float.fromhex("0x1.08p-4"), eps, 0.0, BF16_KERNEL)


def eps_that_underflows(quanta: float, variance: float, exact: float) -> Witness:
    """An eps halfway between two multiples of the quantum, rounded to the even one."""
    return root_alone(variance * Q, quanta * Q, exact * Q, UNFLUSHED)


def rounded_addition() -> Witness:
    return kernel([1.0, -1.0], "y", arithmetic=BF16_KERNEL, weight=0.3125, bias=100.0, eps=1.0)


def rounded_product() -> Witness:
    arithmetic = replace(BF16_KERNEL, reused=STAGED)
    return kernel([1.5, -0.75], "y", arithmetic=arithmetic, eps=0.9)


# --- root mean square, root ---------------------------------------------------------------------


def drifting_mean_square() -> Witness:
    return kernel(np.full(1000, f32(0.1)), "rstd", is_rms_norm=True)


def inexact_division_of_the_mean_square() -> Witness:
    arithmetic, how = Arithmetic(div_error=64.0), How(push={"variance": 1})
    return kernel([1.0, -1.0], "rstd", arithmetic=arithmetic, how=how, is_rms_norm=True)


def gate_errors_in_the_mean_square() -> Witness:
    arithmetic, how = Arithmetic(exp_error=CRUDE_EXP), How(push={"exp": 1})
    return kernel(
        np.ones(4), "rstd", arithmetic=arithmetic, how=how, z=-20.0, is_rms_norm=True, **GATED
    )


def gate_rounded_far_in_the_mean_square() -> Witness:
    arithmetic = Arithmetic(roundings=(("gate", "float16"),))
    return kernel(
        np.full(4, -(2.0**24)),
        "rstd",
        eps=1.0,
        arithmetic=arithmetic,
        z=-20.2,
        is_rms_norm=True,
        **GATED,
    )


UNFLUSHED = Arithmetic(flush_to_zero=False)
# The squares are 0.49 and 21 quanta: the first vanishes, and half of the second is 10 quanta.
SINKING = f32(np.sqrt(np.array([0.49, 21.0]) * Q))


def squares_that_underflow() -> Witness:
    return kernel(SINKING, "rstd", arithmetic=UNFLUSHED, is_rms_norm=True)


def squares_that_overflow() -> Witness:
    return kernel(np.full(4, 2.0**63), "rstd", eps=1.0, is_rms_norm=True)


def sum_with_eps_that_overflows() -> Witness:
    return kernel([1.8e19], "rstd", eps=1e38, is_rms_norm=True)


def variance_much_below_its_bound() -> Witness:
    # The gate's errors pull the elements towards their mean: the deviations halve.
    deviation = np.where(np.arange(64) % 2, 1.0, -1.0)
    arithmetic = Arithmetic(exp_error=CRUDE_EXP)
    how = How(order=Order(64), push={"exp": deviation})
    x = f32(1.0 + deviation * 2.0**-14)
    return kernel(x, "rstd", eps=1e-30, arithmetic=arithmetic, how=how, z=-20.0, **GATED)


def inexact_root() -> Witness:
    arithmetic, how = Arithmetic(rsqrt_error=64.0), How(push={"root": 1})
    return kernel([1.0, -1.0], "rstd", arithmetic=arithmetic, how=how)


def root_of_a_subnormal() -> Witness:
    x = np.full(4, 2.0**-63.5)
    return kernel(f32(x), "rstd", is_rms_norm=True)


def root_of_what_should_be_zero() -> Witness:
    return kernel([1.0, 1.0], "rstd", how=How(push={"mean": 1}))


def root_far_below_its_value() -> Witness:
    how = How(push={"mean": 1, "variance": 1, "root": -1})
    return kernel([1.5], "rstd", eps=1e-34, how=how)


# --- products, rounding points, gate -------------------------------------------------------------


def product_that_underflows() -> Witness:
    arithmetic = Arithmetic(reused=("rstd",))
    return kernel([Q, 0.0], "y", eps=8.0, arithmetic=arithmetic, weight=2.0**100, is_rms_norm=True)


def error_of_the_factor() -> Witness:
    arithmetic, how = Arithmetic(rsqrt_error=64.0), How(push={"root": 1})
    return kernel([1.0, -1.0], "y", arithmetic=arithmetic, how=how)


def error_of_the_difference() -> Witness:
    return kernel(np.full(1000, f32(1000.1)), "y", eps=1.0)


def errors_of_both() -> Witness:
    # Factors that a kernel may hold as 1.5 where they should be 1.
    factor = Bounded(np.ones(1), np.full(1, 0.5), np.zeros(1, dtype=np.bool_))
    return step(lambda b: b.multiply(factor, factor, FP32), 1.5 * 1.5)


def infinite_weight_of_an_unsure_zero() -> Witness:
    return kernel(np.full(3, f32(0.1)), "y", how=How(push={"mean": 1}), eps=1.0, weight=INF)


def infinity_times_an_unsure_gate() -> Witness:
    # The gate of the infinite column is some -4e-42, or 0.
    how = How(flush_sigmoid=True)
    return kernel([INF, 1.0], "y", eps=1.0, how=how, z=[[-100.0, 1.0]], is_rms_norm=True, **GATED)


def product_that_overflows() -> Witness:
    return kernel([2.0, -1.0, -1.0], "y", weight=3e38, z=0.0)


def infinite_error_times_zero() -> Witness:
    how = How(push={"mean": 1})
    return kernel([1.0, 1.0], "y", how=how, z=20.0, **GATED)


def x_hat_rounded() -> Witness:
    arithmetic = Arithmetic(roundings=(("x_hat", "bfloat16"),))
    return kernel(bell(3, 8), "y", arithmetic=arithmetic, eps=1e-5)


def rounding_that_overflows() -> Witness:
    # The stored sum is 1e6 above the mean: infinity in float16, and NaN with the bias.
    roundings = (("sum", "bfloat16"), ("x_hat", "float16"))
    arithmetic = Arithmetic(roundings=roundings, output_reads="stored")
    return kernel(np.full(4, 1.001e9), "y", eps=1.0, arithmetic=arithmetic, bias=-INF)


def gate(z: float, arithmetic: Arithmetic = Arithmetic(), **how: Any) -> Witness:  # noqa: B008
    """The sigmoid alone."""
    machine, fmt = Machine(arithmetic, How(**how)), FORMATS[arithmetic.compute]
    with np.errstate(all="ignore"):
        computed = machine.sigmoid(np.asarray(z), np.ones(()))
    return step(lambda b: b.sigmoid(known(z), arithmetic, fmt), computed)


def gate_of_an_inexact_argument() -> Witness:
    z = Bounded(np.zeros(1), np.full(1, 2.0**-10), np.zeros(1, dtype=np.bool_))
    arithmetic = Arithmetic()
    with np.errstate(all="ignore"):
        computed = Machine(arithmetic, How()).sigmoid(np.full(1, 2.0**-10), np.ones(()))
    return step(lambda b: b.sigmoid(z, arithmetic, FP32), computed)


def gate_that_is_flushed() -> Witness:
    arithmetic, how = Arithmetic(reused=STAGED), How(flush_sigmoid=True)
    return kernel([1.0, -1.0], "y", eps=1.0, arithmetic=arithmetic, how=how, z=-88.5)


def infinite_stored_sum_of_an_overflowing_mean() -> Witness:
    arithmetic = Arithmetic(roundings=(("sum", "float16"),), variance_reads="stored")
    x = f32([3e38, 3e38, -3e38, -3e38, 1.0, 1.0, 1.0, 1.0])
    order = Order(threads=2)
    return kernel(x[[0, 2, 1, 3, 4, 5, 6, 7]], "rstd", arithmetic=arithmetic, how=How(order=order))


# --- the cap -------------------------------------------------------------------------------------


def one_column() -> Witness:
    return kernel([1.0], "y", how=How(push={"mean": 1}))


def wrong_side_of_the_mean() -> Witness:
    return kernel([1.0, 1.0 + TWO_U], "y", how=How(push={"mean": 1}))


def capped_inexact_root() -> Witness:
    arithmetic, how = Arithmetic(rsqrt_error=4096.0), How(push={"mean": 1, "root": 1})
    return kernel([1.0], "y", arithmetic=arithmetic, how=how)


def capped_inexact_division() -> Witness:
    arithmetic, how = Arithmetic(div_error=4096.0), How(push={"mean": 1, "variance": -1})
    return kernel([1.0], "y", arithmetic=arithmetic, how=how)


def capped_roundings() -> Witness:
    arithmetic = Arithmetic(compute="bfloat16", div_error=48.0, rsqrt_error=1.0)
    how = How(push={"mean": 1, "variance": -1, "root": 1})
    return kernel([1.125], "y", arithmetic=arithmetic, how=how)


def capped_underflow() -> Witness:
    # The only deviation's square is 1.49 quanta and is rounded to one.
    x = f32(np.sqrt(1.49 * Q) / (2.0 * TWO_U))
    return kernel([x], "y", arithmetic=UNFLUSHED, how=How(push={"mean": 1}))


def uncapped_one_pass() -> Witness:
    arithmetic, how = Arithmetic(variance="one_pass"), How(push={"mean": 1}, clamp=True)
    return kernel(np.full(4, 1000.0), "y", eps=1e-12, arithmetic=arithmetic, how=how)


def uncapped_welford() -> Witness:
    arithmetic = Arithmetic(variance="welford")
    return kernel([1.0 + TWO_U, 1.0 + 2.0 * TWO_U], "y", eps=1e-30, arithmetic=arithmetic)


def uncapped_stored_sum() -> Witness:
    arithmetic = Arithmetic(
        roundings=(("sum", "float16"),), mean_reads="stored", variance_reads="stored"
    )
    return kernel([2048.0, 2049.0], "y", arithmetic=arithmetic, how=How(push={"mean": 1}))


def uncapped_contracted_product() -> Witness:
    how = How(contracted=("output",))
    return kernel(np.full(2, f32(0.1)), "y", eps=1e-30, how=how, z=1.0, **GATED)


# --- one pass ------------------------------------------------------------------------------------

ONE_PASS = Arithmetic(variance="one_pass")


def one_pass_drift() -> Witness:
    x = np.where(np.arange(1000) % 2, 1.0, -1.0) * f32(0.1)
    return kernel(x, "rstd", arithmetic=ONE_PASS)


def one_pass_inexact_mean() -> Witness:
    arithmetic = replace(ONE_PASS, div_error=64.0)
    how = How(push={"mean": -1, "variance": 1})
    return kernel([101.0, 99.0], "rstd", eps=1.0, arithmetic=arithmetic, how=how)


def one_pass_rounded_square_of_the_mean() -> Witness:
    # E[s^2] and the mean are exact here, and the square of the mean is not.
    x = np.full((1, 2), float.fromhex("0x1.7ep+0"))
    arithmetic = replace(ONE_PASS, compute="bfloat16", div_error=0.0)
    mean = np.array([[float.fromhex("0x1.7ep+0")]])
    rounded = Machine(arithmetic, How()).mul(mean, mean)
    return interval_step(
        lambda b: b.variance_of(known(x), known(mean), -1, arithmetic, BF16),
        np.square(mean) - rounded,
    )


def one_pass_that_underflows() -> Witness:
    x = np.array([[float.fromhex("0x1.208566p-75"), float.fromhex("0x1.a8b84p-74")]])
    machine = Machine(ONE_PASS, How())
    two = np.asarray(2.0)
    mean = machine.div(machine.total(x), two, "mean")
    square = machine.div(machine.total(x, square=True), two, "variance")
    bound = oracle.bounds.mean_of(known(x), 1, ONE_PASS, FP32)
    return interval_step(
        lambda b: b.variance_of(known(x), bound, 1, ONE_PASS, FP32),
        machine.add_product(-mean, mean, square),
    )


def one_pass_below_zero() -> Witness:
    how = How(push={"mean": 1})
    return kernel(np.full(4, 1000.0), "rstd", eps=1e-5, arithmetic=ONE_PASS, how=how)


def one_pass_that_overflows() -> Witness:
    x = f32([6e18, 12e18, 6e18, 12e18])
    return kernel(x, "rstd", arithmetic=ONE_PASS)


# --- running means -------------------------------------------------------------------------------

WELFORD = Arithmetic(variance="welford")


def running_mean() -> Witness:
    how = How(push={"mean": 1})
    return kernel([1.0, f32(-1.1)], "mean", arithmetic=WELFORD, how=how)


def running_mean_that_underflows() -> Witness:
    x = Q * np.array([5.0, 3.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    return kernel(x, "mean", arithmetic=WELFORD)


def running_mean_far_from_zero() -> Witness:
    how = How(merged=True)
    x = f32(1e3 + bell(9, 64))
    return kernel(x, "rstd", arithmetic=WELFORD, how=how, depth=7)


def merges_that_overflow() -> Witness:
    x = f32([2.0**63, -(2.0**63), 2.0**62])
    return kernel(x, "rstd", arithmetic=WELFORD, how=How(merged=True), depth=2)


def merged_infinity() -> Witness:
    return kernel([1.0, INF], "rstd", arithmetic=WELFORD, how=How(merged=True))


def contracted_running_mean(x: float, eps: float) -> Witness:
    how = How(contracted=("mean",))
    return kernel([f32(x)], "rstd", arithmetic=WELFORD, how=how, eps=eps, z=1.0, **GATED)


# --- the comparison ------------------------------------------------------------------------------


def stored_in_half_precision() -> Witness:
    return kernel([1.0, f32(-0.3), f32(0.2)], "y", eps=1e-5, dtypes={"y": "bfloat16"})


def nan_where_nothing_is_owed() -> Witness:
    return kernel([1.0, 1.0], "y")


def nan_instead_of_infinity() -> Witness:
    return kernel(f32([INF, 1.0]), "mean", arithmetic=WELFORD)


PRODUCT = "error = np.abs(a.value) * b.error + np.abs(b.value) * a.error + a.error * b.error"

TERMS = (
    Term(
        "mean: the sum's roundings",
        "summed = inherited + gamma(roundings, fmt) * size",
        "summed = inherited",
        drifting_sum,
        "summed = inherited + 2.0 * gamma(roundings, fmt) * size",
    ),
    Term(
        "mean: the elements' own errors",
        "summed = inherited + gamma(roundings, fmt) * size",
        "summed = gamma(roundings, fmt) * size",
        gate_errors_of_one_sign,
        "summed = 2.0 * inherited + gamma(roundings, fmt) * size",
    ),
    Term(
        "mean: its division",
        "divided = arithmetic.div_error * fmt.u * (np.abs(value) + summed) + quanta * fmt.quantum",
        "divided = np.asarray(quanta * fmt.quantum)",
        inexact_division,
        "divided = 2 * arithmetic.div_error * fmt.u * (np.abs(value) + summed)",
    ),
    Term(
        "mean: its underflow",
        "(np.abs(value) + summed) + quanta * fmt.quantum",
        "(np.abs(value) + summed)",
        mean_that_underflows,
        "(np.abs(value) + summed) + 2.0 * quanta * fmt.quantum",
    ),
    Term(
        "mean: overflow of its sum",
        "over = ~np.isnan(value) & ~(total <= fmt.largest)",
        "over = np.zeros_like(value, dtype=np.bool_)",
        sum_that_overflows,
    ),
    Term(
        "mean: overflow beside an infinity",
        "over = ~np.isnan(value) & ~(total <= fmt.largest)",
        "over = np.isfinite(value) & ~(total <= fmt.largest)",
        overflow_beside_infinity,
    ),
    Term(
        "mean: what follows from an overflow",
        "error = np.where(over, np.inf, summed + divided)",
        "error = summed + divided",
        overflow_in_half_precision,
    ),
    Term(
        "variance: the mean's error",
        "high = high + np.square(offset + shared)",
        "high = high",
        constant_row,
        "high = high + 2.0 * np.square(offset + shared)",
    ),
    Term(
        "variance: the elements' shared error",
        " + np.broadcast_to(s.error, s.value.shape).mean(axis=-1, keepdims=True)\n    if",
        "\n    if",
        gate_errors_with_the_observed_mean,
    ),
    Term(
        "variance: errors along the deviations",
        "np.square(np.maximum(sigma - spread, 0.0)), np.square(sigma + spread)",
        "np.square(sigma), np.square(sigma) + np.square(spread)",
        gate_errors_along_the_deviations,
        "np.square(np.maximum(sigma - 2.0 * spread, 0.0)), np.square(sigma + 2.0 * spread)",
    ),
    Term(
        "variance: square of the elements' errors",
        "np.square(sigma + spread)",
        "np.square(sigma) + 2.0 * sigma * spread",
        one_gate_rounded_far,
        "np.square(sigma + spread) + np.square(spread)",
    ),
    Term(
        "variance: the sum's roundings",
        "roundings=depth + 3.0 + arithmetic.div_error,\n        total=s.value.shape[-1] * high",
        "roundings=3.0 + arithmetic.div_error,\n        total=s.value.shape[-1] * high",
        drifting_sum_of_squares,
        "roundings=2 * depth + 3.0 + arithmetic.div_error,\n        total=s.value.shape[-1] * high",
    ),
    Term(
        "variance: its division",
        "roundings=depth + 3.0 + arithmetic.div_error,\n        total=s.value.shape[-1] * high",
        "roundings=depth + 3.0,\n        total=s.value.shape[-1] * high",
        inexact_division_of_the_variance,
        "roundings=depth + 3.0 + 2 * arithmetic.div_error,\n        total=s.value.shape[-1] * high",
    ),
    Term(
        "variance: rounding of difference and square",
        "roundings=depth + 3.0 + arithmetic.div_error,\n        total=s.value.shape[-1] * high",
        "roundings=depth + arithmetic.div_error,\n        total=s.value.shape[-1] * high",
        rounded_square_of_a_rounded_difference,
        "roundings=depth + 6.0 + arithmetic.div_error,\n        total=s.value.shape[-1] * high",
    ),
    Term(
        "variance: underflow of the squares",
        "underflow = quanta * fmt.quantum",
        "underflow = 0.0",
        squares_that_underflow,
        "underflow = 2.0 * quanta * fmt.quantum",
    ),
    Term(
        "variance: overflow of the squares",
        "over = np.isfinite(exact.value) & ~(total * (1.0 + relative) <= fmt.largest)",
        "over = np.zeros(exact.value.shape, dtype=np.bool_)",
        squares_that_overflow,
    ),
    Term(
        "mean square: the sum's roundings",
        "roundings=depth + 1.0 + arithmetic.div_error",
        "roundings=1.0 + arithmetic.div_error",
        drifting_mean_square,
        "roundings=2 * depth + 1.0 + arithmetic.div_error",
    ),
    Term(
        "mean square: its division",
        "roundings=depth + 1.0 + arithmetic.div_error",
        "roundings=depth + 1.0",
        inexact_division_of_the_mean_square,
        "roundings=depth + 1.0 + 2.0 * arithmetic.div_error",
    ),
    Term(
        "mean square: rounding of the square",
        "roundings=depth + 1.0 + arithmetic.div_error",
        "roundings=depth + arithmetic.div_error",
        rounded_square,
        "roundings=depth + 2.0 + arithmetic.div_error",
    ),
    Term(
        "mean square: the elements' errors",
        "np.square(np.maximum(root - spread, 0.0)), np.square(root + spread)",
        "np.square(root), np.square(root) + np.square(spread)",
        gate_errors_in_the_mean_square,
        "np.square(np.maximum(root - 2.0 * spread, 0.0)), np.square(root + 2.0 * spread)",
    ),
    Term(
        "mean square: square of the elements' errors",
        "np.square(root + spread)",
        "np.square(root) + 2.0 * root * spread",
        gate_rounded_far_in_the_mean_square,
        "np.square(root + spread) + np.square(spread)",
    ),
    Term(
        "rstd: the interval, not its linearisation",
        "largest = (1.0 + root_error) / np.sqrt(low)",
        "largest = value * (1.0 + root_error + 0.5 * (1.0 - low / (variance.value + eps)))",
        variance_much_below_its_bound,
    ),
    Term(
        "rstd: the root's error",
        "root_error = arithmetic.rsqrt_error * fmt.u\n    with",
        "root_error = 0.0\n    with",
        inexact_root,
        "root_error = 2.0 * arithmetic.rsqrt_error * fmt.u\n    with",
    ),
    Term(
        "rstd: the root's error, upwards",
        "(1.0 + root_error) / np.sqrt(low)",
        "1.0 / np.sqrt(low)",
        root_too_large,
        "(1.0 + 2.0 * root_error) / np.sqrt(low)",
    ),
    Term(
        "rstd: the root's error, downwards",
        "(1.0 - root_error) / np.sqrt(high)",
        "1.0 / np.sqrt(high)",
        root_too_small,
        "(1.0 - 2.0 * root_error) / np.sqrt(high)",
    ),
    Term(
        "rstd: eps rounded down",
        "eps * (1.0 - fmt.u)",
        "eps",
        root_too_large,
        "eps * (1.0 - 2.0 * fmt.u)",
    ),
    Term(
        "rstd: eps rounded up",
        "eps * (1.0 + fmt.u)",
        "eps",
        root_too_small,
        "eps * (1.0 + 2.0 * fmt.u)",
    ),
    Term(
        "rstd: variance + eps rounded down",
        "fmt.quantum / 2, 0.0) * (1.0 - fmt.u)",
        "fmt.quantum / 2, 0.0)",
        root_too_large,
        "fmt.quantum / 2, 0.0) * (1.0 - 2.0 * fmt.u)",
    ),
    Term(
        "rstd: variance + eps rounded up",
        "fmt.quantum / 2) * (1.0 + fmt.u)",
        "fmt.quantum / 2)",
        root_too_small,
        "fmt.quantum / 2) * (1.0 + 2.0 * fmt.u)",
    ),
    Term(
        "rstd: underflow of eps, downwards",
        " - fmt.quantum / 2, 0.0)",
        ", 0.0)",
        lambda: eps_that_underflows(2.5, 0.0, 9.0),
        " - fmt.quantum, 0.0)",
    ),
    Term(
        "rstd: underflow of eps, upwards",
        " + fmt.quantum / 2) *",
        ") *",
        lambda: eps_that_underflows(1.5, 4.0, 0.0),
        " + fmt.quantum) *",
    ),
    Term(
        "rstd: variance + eps that overflows",
        "np.where(high > fmt.largest, 0.0, (1.0 - root_error) / np.sqrt(high))",
        "(1.0 - root_error) / np.sqrt(high)",
        sum_with_eps_that_overflows,
    ),
    Term(
        "rstd: subnormal arguments flushed",
        "edge = fmt.smallest_normal if arithmetic.flush_to_zero else 0.0",
        "edge = 0.0",
        root_of_a_subnormal,
    ),
    Term(
        "rstd: a finite value where the exact one is infinite",
        "value = np.where(unbounded & np.isinf(value), 0.0, value)",
        "value = value",
        root_of_what_should_be_zero,
    ),
    Term(
        "rstd: fp64's own error where the ends are far apart",
        " + ORACLE_ROUNDOFF * value",
        "",
        root_far_below_its_value,
    ),
    Term(
        "addition: its rounding",
        "rounded = fmt.u * (np.abs(value) + error)\n    return",
        "rounded = 0.0\n    return",
        rounded_addition,
        "rounded = 2.0 * fmt.u * (np.abs(value) + error)\n    return",
    ),
    Term(
        "product: its rounding",
        "rounded = fmt.u * (np.abs(value) + error) + fmt.quantum / 2",
        "rounded = fmt.quantum / 2",
        rounded_product,
        "rounded = 2.0 * fmt.u * (np.abs(value) + error) + fmt.quantum / 2",
    ),
    Term(
        "product: its underflow",
        "rounded = fmt.u * (np.abs(value) + error) + fmt.quantum / 2",
        "rounded = fmt.u * (np.abs(value) + error)",
        product_that_underflows,
        "rounded = fmt.u * (np.abs(value) + error) + fmt.quantum",
    ),
    Term(
        "product: error of the second factor",
        PRODUCT,
        "error = np.abs(b.value) * a.error + a.error * b.error",
        error_of_the_factor,
        PRODUCT.replace("np.abs(a", "2.0 * np.abs(a"),
    ),
    Term(
        "product: error of the first factor",
        PRODUCT,
        "error = np.abs(a.value) * b.error + a.error * b.error",
        error_of_the_difference,
        PRODUCT.replace("np.abs(b", "2.0 * np.abs(b"),
    ),
    Term(
        "product: both errors",
        PRODUCT,
        "error = np.abs(a.value) * b.error + np.abs(b.value) * a.error",
        errors_of_both,
        PRODUCT.replace("+ a.error *", "+ 2.0 * a.error *"),
    ),
    Term(
        "product: infinity times an unsure weight",
        " | (np.isinf(b.value) & _may_vanish(a))",
        "",
        infinite_weight_of_an_unsure_zero,
    ),
    Term(
        "product: an unsure factor of infinity",
        "(np.isinf(a.value) & _may_vanish(b)) | ",
        "",
        infinity_times_an_unsure_gate,
    ),
    Term("product: overflow", "    if over.any():", "    if False:", product_that_overflows),
    Term(
        "product: an infinite error times zero",
        "    error = np.where(np.isnan(error), np.inf, error)\n    over = ",
        "    over = ",
        infinite_error_times_zero,
    ),
    Term(
        "rounding point: its rounding",
        "    error = np.maximum(high - a.value, a.value - low)\n",
        "    error = a.error\n    del low, high\n",
        x_hat_rounded,
        "    error = 2.0 * np.maximum(high - a.value, a.value - low)\n",
    ),
    Term(
        "rounding point: overflow",
        "free = a.free | (np.isfinite(a.value) & np.isinf(error))",
        "free = a.free",
        rounding_that_overflows,
    ),
    Term(
        "sigmoid: growth of the exponential's error",
        "EXP_GROWTH * np.abs(z.value) * slope",
        "0.0 * np.abs(z.value) * slope",
        lambda: gate(-44.43396759033203, push={"exp": -1}),
        "2.0 * EXP_GROWTH * np.abs(z.value) * slope",
    ),
    Term(
        "sigmoid: error of the exponential",
        "arithmetic.exp_error * slope",
        "0.0 * slope",
        lambda: gate(-1.0, Arithmetic(exp_error=64.0), push={"exp": 1}),
        "2.0 * arithmetic.exp_error * slope",
    ),
    Term(
        "sigmoid: its division",
        "tail = (arithmetic.div_error + 2.0) * value",
        "tail = 2.0 * value",
        lambda: gate(5.0, Arithmetic(div_error=64.0), push={"gate": 1}),
        "tail = (2.0 * arithmetic.div_error + 2.0) * value",
    ),
    Term(
        "sigmoid: rounding of its addition",
        "tail = (arithmetic.div_error + 2.0) * value",
        "tail = arithmetic.div_error * value",
        lambda: gate(5.53125, Arithmetic(compute="bfloat16"), push={"exp": -1, "gate": 1}),
        "tail = (arithmetic.div_error + 4.0) * value",
    ),
    Term(
        "sigmoid: error of its argument",
        " + slope * z.error",
        "",
        gate_of_an_inexact_argument,
        " + 2.0 * slope * z.error",
    ),
    Term(
        "sigmoid: flushed results",
        "underflow = np.minimum(fmt.smallest_normal, 2.0 * value)",
        "underflow = np.zeros(())",
        gate_that_is_flushed,
        "underflow = 2.0 * np.minimum(fmt.smallest_normal, 2.0 * value)",
    ),
    Term(
        "free: the rest of the row",
        "return np.asarray(np.broadcast_to(s.free, s.value.shape).any(axis=-1, keepdims=True))",
        "return np.zeros(like.shape, dtype=np.bool_)",
        infinity_times_an_unsure_gate,
    ),
    Term(
        "free: the variance of an overflowing mean",
        "_any_free(s, mu) | mean.free",
        "_any_free(s, mu)",
        infinite_stored_sum_of_an_overflowing_mean,
    ),
    Term(
        "cap: sqrt(n), not sqrt(n - 1)",
        "math.sqrt(n) * slack",
        "math.sqrt(n - 1) * slack",
        one_column,
        "2.0 * math.sqrt(n) * slack",
    ),
    Term(
        "cap: the distance from the exact value",
        "cap = np.abs(product.value) + math.sqrt(n)",
        "cap = math.sqrt(n)",
        wrong_side_of_the_mean,
        "cap = 2.0 * np.abs(product.value) + math.sqrt(n)",
    ),
    Term(
        "cap: the root",
        "(1.0 + fmt.u) * (1.0 + root_error)",
        "(1.0 + fmt.u)",
        capped_inexact_root,
        "(1.0 + fmt.u) * (1.0 + 2.0 * root_error)",
    ),
    Term(
        "cap: the division",
        " * math.sqrt(1.0 - div_error)",
        "",
        capped_inexact_division,
        " * math.sqrt(1.0 - 2.0 * div_error)",
    ),
    Term(
        "cap: roundings",
        "(1.0 + fmt.u) * (1.0 + root_error) / ((1.0 - fmt.u) *",
        "(1.0 + root_error) / (",
        capped_roundings,
        "(1.0 + 2 * fmt.u) * (1.0 + root_error) / ((1.0 - 2 * fmt.u) *",
    ),
    Term(
        "cap: underflow",
        "slack * (1.0 + underflow)",
        "slack",
        capped_underflow,
        "slack * (1.0 + 2.0 * underflow)",
    ),
    Term(
        "cap: not for one pass",
        'if arithmetic.variance != "two_pass" or not same:',
        'if arithmetic.variance == "welford" or not same:',
        uncapped_one_pass,
    ),
    Term(
        "cap: not for running means",
        'if arithmetic.variance != "two_pass" or not same:',
        'if arithmetic.variance == "one_pass" or not same:',
        uncapped_welford,
    ),
    Term(
        "cap: not between stored and computed sums",
        "same = arithmetic.variance_reads == arithmetic.output_reads and s.exact",
        "same = s.exact",
        uncapped_stored_sum,
    ),
    Term(
        "cap: not for inexact elements",
        "same = arithmetic.variance_reads == arithmetic.output_reads and s.exact",
        "same = arithmetic.variance_reads == arithmetic.output_reads",
        uncapped_contracted_product,
    ),
    Term(
        "one pass: roundings of the mean square",
        "extra=summed + (2.0 * centre + far) * far",
        "extra=(2.0 * centre + far) * far",
        one_pass_drift,
        "extra=2.0 * summed + (2.0 * centre + far) * far",
    ),
    Term(
        "one pass: the mean's error",
        "+ (2.0 * centre + far) * far +",
        "+",
        one_pass_inexact_mean,
        "+ 2.0 * (2.0 * centre + far) * far +",
    ),
    Term(
        "one pass: rounding of the mean's square",
        " + fmt.u * np.square(centre),",
        ",",
        one_pass_rounded_square_of_the_mean,
        " + 2.0 * fmt.u * np.square(centre),",
    ),
    Term(
        "one pass: underflow",
        "quanta=1.5,",
        "quanta=1.0,",
        one_pass_that_underflows,
        "quanta=3.0,",
    ),
    Term("one pass: variances below zero", "floor=-math.inf,", "floor=0.0,", one_pass_below_zero),
    Term(
        "one pass: overflow",
        "total=n * (square + summed) + np.square(centre)",
        "total=n * exact.high",
        one_pass_that_overflows,
    ),
    Term(
        "welford: roundings of the running mean",
        "return depth + (arithmetic.div_error + 3.0) * (1.0 + math.log2(n))",
        "return float(depth)",
        running_mean,
        "return depth + 2.0 * (arithmetic.div_error + 3.0) * (1.0 + math.log2(n))",
    ),
    Term(
        "welford: underflow of the running mean",
        "roundings = quanta = _running",
        "roundings = _running",
        running_mean_that_underflows,
    ),
    Term(
        "welford: drift of the running means",
        "extra = (2.0 * np.sqrt(exact.high) + moved) * moved",
        "extra = 0.0",
        running_mean_far_from_zero,
        "extra = 2.0 * (2.0 * np.sqrt(exact.high) + moved) * moved",
    ),
    Term(
        "welford: overflow of the merges",
        "total=n * (n * (high + extra)),",
        "total=n * (high + extra),",
        merges_that_overflow,
    ),
    Term(
        "welford: infinite variance of a merged infinity",
        "np.where(infinite, np.inf, part) for part in",
        "part for part in",
        merged_infinity,
    ),
    Term(
        "welford: an element rounded in one place, fused in the other",
        "floor=0.0 if s.exact else -math.inf",
        "floor=0.0",
        lambda: contracted_running_mean(5.5, 1e-9),
    ),
    Term(
        "welford: the first element, rounded and fused",
        "(2.0 * np.sqrt(exact.high) + moved) * moved + fused",
        "(2.0 * np.sqrt(exact.high) + moved) * moved",
        lambda: contracted_running_mean(5.5, 1e-5),
        "(2.0 * np.sqrt(exact.high) + moved) * moved + 2.0 * fused",
    ),
    Term(
        "comparison: rounding of the store",
        "low, high = round_to(value - error, fmt), round_to(value + error, fmt)",
        "low, high = value - error, value + error",
        stored_in_half_precision,
        module=oracle.compare,
    ),
    Term(
        "comparison: NaN where nothing is owed",
        "inside | (expected.free & ~finite)",
        "inside",
        nan_where_nothing_is_owed,
        module=oracle.compare,
    ),
    Term(
        "comparison: another non-finite value where nothing is owed",
        "    same_kind |= expected.free & ~finite\n",
        "",
        overflow_beside_infinity,
        module=oracle.compare,
    ),
    Term(
        "comparison: running means turn infinity into NaN",
        "        same_kind = ~finite\n",
        "        same_kind = same_kind\n",
        nan_instead_of_infinity,
        module=oracle.compare,
    ),
)


# The largest error/bound of each witness. A figure that has changed means a bound that has.
RATIOS = {
    "mean: the sum's roundings": 0.159412606,
    "mean: the elements' own errors": 0.907227203,
    "mean: its division": 0.571428513,
    "mean: its underflow": 0.999998204,
    "variance: the mean's error": 0.724899673,
    "variance: errors along the deviations": 0.943377166,
    "variance: square of the elements' errors": 0.996911386,
    "variance: the sum's roundings": 0.218111326,
    "variance: its division": 0.73562781,
    "variance: rounding of difference and square": 0.677092139,
    "variance: underflow of the squares": 0.468518716,
    "mean square: the sum's roundings": 0.218537954,
    "mean square: its division": 0.752936851,
    "mean square: rounding of the square": 0.887722376,
    "mean square: the elements' errors": 0.915424424,
    "mean square: square of the elements' errors": 0.999996759,
    "rstd: the root's error": 0.920863036,
    "rstd: the root's error, upwards": 0.995869544,
    "rstd: the root's error, downwards": 0.982397064,
    "rstd: eps rounded down": 0.995869544,
    "rstd: eps rounded up": 0.982397064,
    "rstd: variance + eps rounded down": 0.995869544,
    "rstd: variance + eps rounded up": 0.982397064,
    "rstd: underflow of eps, downwards": 0.999998965,
    "rstd: underflow of eps, upwards": 0.999999401,
    "addition: its rounding": 0.558085321,
    "product: its rounding": 0.326944375,
    "product: its underflow": 0.707106625,
    "product: error of the second factor": 0.882758214,
    "product: error of the first factor": 0.159968897,
    "product: both errors": 0.999999797,
    "rounding point: its rounding": 0.999983831,
    "sigmoid: growth of the exponential's error": 0.856340656,
    "sigmoid: error of the exponential": 0.837799605,
    "sigmoid: its division": 0.958445017,
    "sigmoid: rounding of its addition": 0.830018442,
    "sigmoid: error of its argument": 0.998659027,
    "sigmoid: flushed results": 0.499997917,
    "cap: sqrt(n), not sqrt(n - 1)": 0.999999225,
    "cap: the distance from the exact value": 0.676184903,
    "cap: the root": 0.999999702,
    "cap: the division": 0.999999322,
    "cap: roundings": 0.995294556,
    "cap: underflow": 0.0241316608,
    "one pass: roundings of the mean square": 0.218286397,
    "one pass: the mean's error": 0.891903298,
    "one pass: rounding of the mean's square": 0.89120364,
    "one pass: underflow": 0.933259634,
    "welford: roundings of the running mean": 0.187719772,
    "welford: drift of the running means": 0.00015878364,
    "welford: the first element, rounded and fused": 0.994379967,
}


def verdict_by(term: Term, text: str) -> Verdict:
    return term.witness()(judge_by(mutant(term.module, term.old, text)))


def test_terms_have_names_of_their_own() -> None:
    assert len({term.name for term in TERMS}) == len(TERMS)
    assert set(RATIOS) == {term.name for term in TERMS if term.doubled is not None}


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_terms_are_needed(term: Term) -> None:
    assert not term.witness()(ORACLE).wrong
    assert verdict_by(term, term.dropped).wrong


@pytest.mark.parametrize("term", [t for t in TERMS if t.doubled], ids=lambda term: term.name)
def test_terms_ratio_is_the_stored_one_and_moves(term: Term) -> None:
    stored = pytest.approx(RATIOS[term.name], rel=1e-6)
    assert term.witness()(ORACLE).ratio == stored
    assert term.doubled is not None
    assert verdict_by(term, term.doubled).ratio != stored
