"""The bound is never exceeded by a correct kernel, and typical faults exceed it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from oracle import bounds
from oracle.arithmetic import Arithmetic
from oracle.bounds import Bounded, format_of, gamma, known
from oracle.compare import expect
from oracle.formats import F64, FORMATS, round_to
from oracle.refs import Problem, decompose
from tests.oracle.drawn import draw_kernel
from tests.oracle.emulation import How, Order, depth_of, run
from tests.oracle.judging import ORACLE
from tests.oracle.rows import FAMILIES, bell, rows_of, signs, uniform

FP32 = FORMATS["float32"]
PUSHES: tuple[dict[str, int], ...] = (
    {},
    {"mean": 1, "variance": 1, "root": 1},
    {"mean": -1, "variance": 1, "root": -1},
    {"mean": 1, "variance": -1, "root": 1},
)


def wrong_outputs(
    problem: Problem,
    arithmetic: Arithmetic,
    how: How,
    dtypes: dict[str, str] | None = None,
    *,
    promised: Arithmetic | None = None,
) -> dict[str, int]:
    """How many elements of each output are wrong; ``promised`` differs where a kernel is faulty."""
    outputs = run(problem, arithmetic, how)
    with np.errstate(all="ignore"):
        judged = ORACLE.judge(problem, promised or arithmetic, outputs, dtypes)
    return {name: int(c.wrong.sum()) for name, c in judged.items() if c.wrong.any()}


def problem_of(x: F64, order: Order = Order(), **other: Any) -> Problem:  # noqa: B008
    n = other.pop("group_size", x.shape[1])
    arguments = {"dtype": "float32", "eps": 1e-5, "depth": depth_of(order, n)} | other
    return Problem(x=x, group_size=n, **arguments)


# --- soundness -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", ["two_pass", "welford", "one_pass"])
@pytest.mark.parametrize("n", [*range(1, 18), 257, 1000])
def test_bounds_hold_at_every_width(n: int, variance: Any) -> None:
    orders = (Order(), Order(32), Order(128)) if variance != "welford" else (Order(),)
    if n > 300:
        orders = orders[-1:]
    for k, dtype in enumerate(FORMATS):
        x = rows_of(n, dtype, seed=n)
        weight, bias = (round_to(bell(s, n) + 1.0, FORMATS[dtype]) for s in (5, 6))
        for i, order in enumerate(orders):
            for j, push in enumerate(PUSHES):
                # Every eps and staging meets every push over the widths.
                eps = (0.0, 1e-12, 1e-5, 1e3)[(n + i + j + k) % 4]
                reused = ((), ("mean", "rstd"))[(n // 4 + j + k) % 2]
                arithmetic = Arithmetic(variance=variance, reused=reused)
                how = How(order=order, fma=(i + j + n) % 2 == 0, push=push, clamp=j % 2 == 0)
                problem = problem_of(
                    x, order, dtype=dtype, eps=eps, weight=weight, bias=bias, is_rms_norm=False
                )
                assert wrong_outputs(problem, arithmetic, how, {"y": dtype}) == {}


@pytest.mark.parametrize("start", range(0, 3000, 500))
def test_bounds_hold_for_any_kernel(start: int) -> None:
    for seed in range(start, start + 500):
        drawn = draw_kernel(seed)
        wrong = wrong_outputs(drawn.problem, drawn.arithmetic, drawn.how, drawn.dtypes)
        assert wrong == {}, f"seed {seed}: {drawn.arithmetic} {drawn.how}"


@pytest.mark.slow
@pytest.mark.parametrize("start", range(10_000, 60_000, 500))
def test_bounds_hold_for_any_of_many_kernels(start: int) -> None:
    test_bounds_hold_for_any_kernel(start)


@pytest.mark.parametrize("n", [4097, 65537])
@pytest.mark.parametrize("is_rms_norm", [False, True])
def test_bounds_hold_in_wide_rows(n: int, is_rms_norm: bool) -> None:
    order = Order(1024)
    x = rows_of(n, "float32")
    for push, reused in zip(PUSHES, ((), ("mean", "rstd")), strict=False):
        how = How(order=order, fma=True, push=push)
        problem = problem_of(x, order, is_rms_norm=is_rms_norm)
        assert wrong_outputs(problem, Arithmetic(reused=reused), how) == {}


def test_bounds_hold_for_one_chain_over_a_wide_row() -> None:
    x = rows_of(65537, "float32")[:6]
    problem = problem_of(x)
    assert wrong_outputs(problem, Arithmetic(), How()) == {}


@pytest.mark.parametrize("norm_before_gate", [True, False])
@pytest.mark.parametrize("how", [How(), How(gate_by_division=True), How(flush_sigmoid=True)])
def test_bounds_hold_for_gates_of_any_size(norm_before_gate: bool, how: How) -> None:
    z = np.array([[0.0, -0.0, 1.0, -1.0, -20.0, -87.5, -88.5, -88.8, -104.5, 3e38, -3e38, 30.0]])
    x = round_to(bell(2, 1, z.size), FP32)
    for infinity in ((), (np.inf,), (-np.inf,), (np.nan,)):
        planted = z.copy()
        planted[0, : len(infinity)] = infinity
        for is_rms_norm in (False, True):
            problem = problem_of(
                x, z=planted, norm_before_gate=norm_before_gate, is_rms_norm=is_rms_norm
            )
            assert wrong_outputs(problem, Arithmetic(), how) == {}


# --- sharpness: faults ---------------------------------------------------------------------------


def normal_rows(n: int, mean: float = 0.0) -> F64:
    return round_to(bell(11, 4, n) + mean, FP32)


def faulty_rstd(problem: Problem, rstd: F64) -> dict[str, F64]:
    """The outputs of a kernel that is right but for its rstd, (n_rows, 1)."""
    outputs = run(problem, Arithmetic(), How(order=Order(32)))
    y = (problem.x - outputs["mean"]) * rstd
    return {"mean": outputs["mean"], "rstd": round_to(rstd, FP32), "y": round_to(y, FP32)}


def exact_variance(x: F64) -> F64:
    return np.asarray(np.square(x - x.mean(axis=1, keepdims=True)).mean(axis=1, keepdims=True))


def test_bounds_catch_variance_over_n_minus_1() -> None:
    for n in (2, 64, 4096):
        problem = problem_of(normal_rows(n), Order(32))
        rstd = 1.0 / np.sqrt(exact_variance(problem.x) * n / (n - 1) + problem.eps)
        judged = ORACLE.judge(problem, Arithmetic(), faulty_rstd(problem, rstd))
        assert judged["rstd"].wrong.all()
        assert judged["y"].wrong.mean() > 0.3


def test_bounds_catch_eps_outside_the_root() -> None:
    problem = problem_of(normal_rows(257), Order(32))
    rstd = 1.0 / (np.sqrt(exact_variance(problem.x)) + problem.eps)
    judged = ORACLE.judge(problem, Arithmetic(), faulty_rstd(problem, rstd))
    assert judged["rstd"].wrong.all()


def test_bounds_catch_padding_in_the_variance() -> None:
    # 255 masked lanes, each 0 - mean, enter the sum of squares of 257 columns.
    problem = problem_of(normal_rows(257, mean=10.0), Order(32))
    mean = problem.x.mean(axis=1, keepdims=True)
    rstd = 1.0 / np.sqrt(exact_variance(problem.x) + 255.0 / 257.0 * mean**2 + problem.eps)
    judged = ORACLE.judge(problem, Arithmetic(), faulty_rstd(problem, rstd))
    assert judged["rstd"].ratio.min() > 1e4


def test_bounds_catch_accumulation_in_half_precision() -> None:
    x = round_to(normal_rows(257, mean=10.0), FORMATS["bfloat16"])
    problem, how = problem_of(x, Order(32), dtype="bfloat16"), How(order=Order(32))
    half = Arithmetic(compute="bfloat16")
    wrong = wrong_outputs(problem, half, how, {"y": "bfloat16"}, promised=Arithmetic())
    assert wrong["y"] > x.size // 2
    assert wrong["mean"] == wrong["rstd"] == 4


def test_bounds_catch_one_pass_far_from_zero() -> None:
    problem, how = problem_of(normal_rows(1000, mean=1e3), Order(32)), How(order=Order(32))
    one_pass = Arithmetic(variance="one_pass")
    wrong = wrong_outputs(problem, one_pass, how, promised=Arithmetic(reused=("mean",)))
    assert wrong["rstd"] == 4
    assert wrong_outputs(problem, one_pass, how) == {}


@pytest.mark.parametrize("point", ["x_hat", "scaled", "sum"])
def test_bounds_catch_early_rounding(point: Any) -> None:
    problem = problem_of(normal_rows(64), Order(32))
    early = Arithmetic(
        roundings=((point, "bfloat16"),),
        **dict.fromkeys(("mean_reads", "variance_reads", "output_reads"), "stored"),
    )
    how = How(order=Order(32))
    assert wrong_outputs(problem, early, how, promised=Arithmetic())["y"] > 200
    assert wrong_outputs(problem, early, how) == {}


def test_bounds_catch_statistics_of_different_sums() -> None:
    # 2048 + 1 is 2048 in float16: the mean of the unrounded sums leaves -1 in every column.
    problem = problem_of(
        np.full((1, 64), 2048.0), Order(32), dtype="float16", residual=np.ones((1, 64))
    )
    mixed = Arithmetic(
        roundings=(("sum", "float16"),), variance_reads="stored", output_reads="stored"
    )
    how = How(order=Order(32))
    outputs = run(problem, mixed, how)
    assert (round_to(outputs["y"], FORMATS["float16"]) == -1.0).all()
    one_sum = replace(mixed, mean_reads="stored")
    for promised in (one_sum, replace(one_sum, reused=("sum",))):
        wrong = wrong_outputs(problem, mixed, how, {"y": "float16"}, promised=promised)
        assert wrong["y"] == 64


def test_bounds_catch_a_gate_before_instead_of_after() -> None:
    x, z = normal_rows(64), round_to(bell(12, 4, 64), FP32)
    before, after = (problem_of(x, z=z, norm_before_gate=first) for first in (True, False))
    outputs = run(before, Arithmetic(), How())
    assert ORACLE.judge(after, Arithmetic(), outputs)["y"].wrong.mean() > 0.9


# --- sharpness: what a bound must not allow ------------------------------------------------------


def owed_y(x: Any, arithmetic: Arithmetic = Arithmetic(), **other: Any) -> Any:  # noqa: B008
    problem = problem_of(np.atleast_2d(np.asarray(x, dtype=np.float64)), **other)
    outputs = run(problem, arithmetic, How())
    return expect(decompose(problem, arithmetic, outputs)["y"], "float32")


@pytest.mark.parametrize("exponent", [-38, -37, 0, 62, 127])
@pytest.mark.parametrize("n", [1, 5, 64])
def test_bounds_cap_constant_rows_without_eps(n: int, exponent: int) -> None:
    owed = owed_y(round_to(np.full(n, 1.1 * 2.0**exponent), FP32), eps=0.0)
    assert owed.free.all()
    assert (np.maximum(owed.high, -owed.low) <= np.sqrt(n) * 1.00001).all()


def test_bounds_cap_rows_of_zeros_without_eps() -> None:
    owed = owed_y(np.zeros(64), eps=0.0)
    assert owed.free.all()
    assert (owed.high < 8.001).all()


def test_bounds_of_one_column_allow_its_division_alone() -> None:
    # What is normalised is x less its own mean, and the mean is off by 4u of x.
    owed = owed_y([0.5])
    assert owed.high[0, 0] == pytest.approx(0.5 * 4.0 * FP32.u / np.sqrt(1e-5), rel=1e-5)


def test_bounds_staged_do_not_grow_with_the_mean() -> None:
    arithmetic = Arithmetic(reused=("mean", "rstd"))
    for mean in (0.0, 1e5):
        x = normal_rows(257, mean)
        owed = owed_y(x, arithmetic, depth=41)
        assert (owed.tolerance <= 2.5 * FP32.u * np.maximum(np.abs(owed.value), 1.0)).all()


def test_bounds_staged_are_centred_on_the_observed_mean() -> None:
    # A mean that is off adds its square to the variance: the exact one is not to be had any more.
    problem = problem_of(np.full((1, 64), 1000.0), eps=0.0)
    mean = np.full((1, 1), 1000.0 + 2.0**-12)
    rstd = decompose(problem, Arithmetic(reused=("mean",)), {"mean": mean})["rstd"]
    assert rstd.value[0, 0] == 2.0**12
    assert rstd.error[0, 0] < 2.0**12 * 60 * FP32.u
    assert not rstd.free.any()


def test_bounds_of_overflowing_squares_owe_zero_once_rstd_is_seen() -> None:
    x = np.array([[1e20, -1e20, 1e20, -1e20]])
    problem = problem_of(x)
    assert decompose(problem, Arithmetic())["y"].free.all()
    seen = {"mean": np.zeros((1, 1)), "rstd": np.zeros((1, 1))}
    owed = expect(decompose(problem, Arithmetic(reused=("mean", "rstd")), seen)["y"], "float32")
    assert not owed.free.any()
    assert (owed.low == 0.0).all()
    assert (owed.high == 0.0).all()


def test_bounds_of_a_gate_that_vanishes_are_zero() -> None:
    owed = owed_y([1.0, -1.0], z=np.array([[-3e38, -200.0]]))
    assert (np.abs(owed.low) <= FP32.quantum).all()
    assert (np.abs(owed.high) <= FP32.quantum).all()


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("variance", ["two_pass", "welford", "one_pass"])
def test_bounds_stay_local_to_the_row_and_group(variance: Any, gated: bool) -> None:
    x = np.tile(bell(13, 8), (3, 2))
    arithmetic, other = Arithmetic(variance=variance), {"group_size": 8, "depth": 7}
    if gated:
        # The elements have errors of their own, and those of 3e38 overflow.
        other |= {"z": np.full_like(x, 4.0), "norm_before_gate": False}
    clean = owed_y(x, arithmetic, **other)
    for bad in (np.nan, np.inf, 3e38):
        planted = x.copy()
        planted[1, :4] = bad
        owed = owed_y(planted, arithmetic, **other)
        for part in ("value", "low", "high", "free"):
            now, before = getattr(owed, part), getattr(clean, part)
            assert (now[[0, 2]] == before[[0, 2]]).all()
            assert (now[1, 8:] == before[1, 8:]).all()
        assert not (owed.low[1, :8] == clean.low[1, :8]).any()


def test_bounds_of_an_infinite_row_of_an_rms_norm_owe_zeros() -> None:
    owed = owed_y([1.0, np.inf, -2.0], is_rms_norm=True)
    assert np.isnan(owed.value[0, 1])
    assert (owed.value[0, [0, 2]] == 0.0).all()
    assert (owed.high[0, [0, 2]] == 0.0).all()
    assert not owed.free.any()


def test_bounds_with_eps_are_finite_where_nothing_overflows() -> None:
    overflowing = {"constant huge", "constant vast", "squares overflow"}
    overflowing |= {name for name in FAMILIES if name.startswith("near overflow")}
    names = list(FAMILIES)
    x = rows_of(257, "float32")[: len(names)]
    owed = owed_y(x, depth=12)
    for name, tolerance in zip(names, owed.tolerance, strict=True):
        # Far from zero the mean's own error is all that is left of the deviations.
        limit = {"mean 1e5": 0.2, "constant": 0.4, "mean 1e3": 2e-3}.get(name, 4e-4)
        if name not in overflowing:
            assert tolerance.max() < limit, name


# --- parts ---------------------------------------------------------------------------------------


def test_bounds_gamma_bounds_roundings_in_a_row() -> None:
    u = FP32.u
    for k in (0, 1, 2, 1000, 10**6):
        assert (1.0 + u) ** k - 1.0 <= gamma(k, FP32)
        assert 1.0 - (1.0 - u) ** k <= gamma(k, FP32)
    assert gamma(2**24, FP32) == np.inf


def test_bounds_add_of_known_operands_is_ieee() -> None:
    a, b = round_to(bell(3, 1000), FP32), round_to(bell(4, 1000) * 1e-3, FP32)
    total = bounds.add(known(a), known(b), FP32)
    assert total.exact
    assert (total.value == (a.astype(np.float32) + b.astype(np.float32))).all()


@pytest.mark.parametrize("error", [0.0, 2.0**-20], ids=["exact", "inexact"])
def test_bounds_of_free_operands_are_free(error: float) -> None:
    a, b = (
        Bounded(np.ones(3), np.full(3, error), np.array(free))
        for free in ([True, False, False], [False, True, False])
    )
    for two in (bounds.add, bounds.subtract, bounds.multiply):
        assert two(a, b, FP32).free.tolist() == [True, True, False], two.__name__
    assert bounds.rounded(a, FORMATS["bfloat16"]).free.tolist() == [True, False, False]


def test_bounds_have_no_nan_for_an_error() -> None:
    for seed in range(300):
        drawn = draw_kernel(seed)
        for name, owed in decompose(drawn.problem, drawn.arithmetic).items():
            assert not np.isnan(owed.error).any(), f"seed {seed}: {name}"
    z = known(np.array([np.nan, np.inf, -np.inf]))
    assert not np.isnan(bounds.sigmoid(z, Arithmetic(), FP32).error).any()


def test_bounds_rounding_of_known_values_is_exact() -> None:
    a = bell(3, 1000)
    stored = bounds.rounded(known(a), FORMATS["bfloat16"])
    assert stored.exact
    assert (stored.value == round_to(a, FORMATS["bfloat16"])).all()


def test_bounds_rounding_of_inexact_values_covers_both_neighbours() -> None:
    # 1 + 2^-9 with an error: bfloat16 gives 1 or 1 + 2^-7.
    inexact = Bounded(np.array([1.0 + 2.0**-8]), np.array([2.0**-20]), np.zeros(1, dtype=np.bool_))
    stored = bounds.rounded(inexact, FORMATS["bfloat16"])
    assert stored.value + stored.error >= 1.0 + 2.0**-7
    assert stored.value - stored.error <= 1.0


def test_bounds_format_of_refuses_what_cannot_be_judged() -> None:
    assert format_of("bfloat16") is FORMATS["bfloat16"]
    with pytest.raises(ValueError, match="dtype='float64', must be one of float32"):
        format_of("float64")


def test_bounds_rows_are_the_same_everywhere() -> None:
    # Raw bits and exact arithmetic alone: these figures hold on any machine.
    assert uniform(1, 2).tolist() == [0.511821624590084, 0.9504636961501092]
    assert bell(1, 1)[0] == 0.39596323342993855
    assert signs(1, 4).tolist() == [1.0, 1.0, -1.0, 1.0]
