"""No correct row is ever called unexplained, every allowance for it is needed, and faults show."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from oracle import consistency
from oracle.arithmetic import Arithmetic
from oracle.compare import compare, expect
from oracle.consistency import Rows, stretch, unexplained
from oracle.formats import F64, FORMATS, round_to
from oracle.refs import Problem, walk
from tests.oracle.adversary import STEPS, Push, pushed_y
from tests.oracle.drawn import Draw, draw_kernel
from tests.oracle.emulation import How, Machine, Order, depth_of, run
from tests.oracle.judging import mutant
from tests.oracle.rows import bell, rows_of, signs, uniform

FP32, FP16 = FORMATS["float32"], FORMATS["float16"]
Q = FP32.quantum
WIDTHS = (1, 2, 3, 64, 1000, 8192)
PLAIN = Arithmetic(uniform=True)


def f32(value: Any) -> F64:
    return round_to(np.asarray(value, dtype=np.float64), FP32)


def rows_for(
    problem: Problem,
    y: F64,
    dtype: str = "float32",
    arithmetic: Arithmetic = PLAIN,
    seen: dict[str, F64] | None = None,
) -> Rows:
    """A y as it is judged."""
    with np.errstate(all="ignore"):
        walked = walk(problem, arithmetic, seen)
        return Rows(walked, problem, arithmetic, y, expect(walked.outputs["y"], dtype), dtype)


def judged(rows: Rows) -> int:
    """How many groups the check has something to say of."""
    with np.errstate(all="ignore"):
        index = consistency._informative(rows, consistency._box_of(rows.walk))
    return int(np.unique(index // rows.problem.group_size).size)


def wrong(rows: Rows) -> bool:
    with np.errstate(all="ignore"):
        return bool(compare(rows.observed, rows.expected).wrong.any())


# --- soundness: emulated kernels --------------------------------------------------------------


@pytest.mark.parametrize("start", range(0, 1800, 300))
def test_rows_of_any_kernel_are_explained(start: int) -> None:
    count = 0
    for seed in range(start, start + 300):
        d = draw_kernel(seed)
        outputs = run(d.problem, d.arithmetic, d.how)
        stored = {
            name: round_to(value, FORMATS[d.dtypes.get(name, "float32")])
            for name, value in outputs.items()
        }
        rows = rows_for(d.problem, stored["y"], d.dtypes["y"], d.arithmetic, stored)
        count += judged(rows)
        assert not unexplained(rows).any(), f"seed {seed}: {d.arithmetic} {d.how}"
    assert count > 2500


def parameters_of(n: int, seed: int) -> tuple[F64, F64]:
    """A weight with zeros, subnormal and negative values, and a bias with zeros."""
    weight, chance = bell(seed, n), uniform(seed + 1, n)
    weight[chance < 0.1] = 0.0
    weight[chance > 0.9] = 3.0 * Q
    return f32(weight), f32(np.where(uniform(seed + 2, n) < 0.3, 0.0, bell(seed + 3, n)))


@pytest.mark.parametrize("n", WIDTHS)
def test_rows_of_every_width_are_explained(n: int) -> None:
    order = Order(min(256, 1 << (n - 1).bit_length()))
    weight, bias = parameters_of(n, 11)
    count = 0
    for k, dtype in enumerate(FORMATS):
        x = rows_of(n, dtype, seed=n + k)
        for j, push in enumerate(({}, {"mean": 1, "root": 1}, {"mean": -1, "root": -1})):
            how = How(order=order, fma=j % 2 == 0, push=push)
            problem = Problem(
                x=x,
                dtype=dtype,
                eps=(1e-5, 0.0, 1e-12)[j],
                depth=depth_of(order, n),
                group_size=n,
                weight=(None, weight, weight)[j],
                bias=(bias, None, bias)[j],
                is_rms_norm=(j + k) % 3 == 0,
            )
            y = run(problem, PLAIN, how)["y"]
            for store in (dtype, "float32"):
                rows = rows_for(problem, round_to(y, FORMATS[store]), store)
                count += judged(rows)
                assert not unexplained(rows).any(), (dtype, push)
    # Of one column the bounds alone say everything there is to say.
    assert count > (40 if n == 1 else 150)


# --- soundness: the far end of the promise ------------------------------------------------------


def draw_problem(d: Draw) -> tuple[Problem, Arithmetic, str]:
    """A problem of rows of every family, what its kernel promises, and the dtype of its y."""
    formats = tuple(FORMATS)
    n, dtype = d.choice((*WIDTHS[:5], 5, 16, 257)), d.choice(formats)
    x = rows_of(n, dtype, seed=d.below(1000))
    x = x[np.isfinite(x).all(axis=1)]
    fmt = FORMATS[d.choice(formats)]

    def parameter(scales: tuple[float, ...]) -> F64 | None:
        if d.chance(30):
            return None
        values, chance = bell(d.below(10**6), n) * d.choice(scales), uniform(d.below(10**6), n)
        values = np.where(chance < 0.05, 0.0, np.where(chance > 0.95, 1e-41, values))
        return round_to(values, fmt)

    z = None
    if d.chance(40):
        z = round_to(bell(d.below(10**6), *x.shape) * d.choice((1.0, 5.0, 30.0)), FORMATS[dtype])
    weight = parameter((1.0, 1.0, 1e-30, 1e20))
    problem = Problem(
        x=x,
        dtype=dtype,
        eps=d.choice((0.0, 1e-12, 1e-5, 1.0)),
        depth=min(n - 1, d.choice((5, 20, 200))),
        group_size=n,
        z=z,
        norm_before_gate=d.chance(60),
        weight=weight,
        bias=parameter((1.0, 1.0, 1e-6, 1e4)),
        is_rms_norm=d.chance(35),
        weight_offset=1.0 if weight is not None and d.chance(20) else 0.0,
    )
    points = tuple(
        (point, d.choice(("x", "bfloat16", "float16")))
        for point in ("x_hat", "scaled", "gate")
        if d.chance(15)
    )
    arithmetic = Arithmetic(
        uniform=True,
        variance=d.choice(("two_pass", "one_pass")),
        roundings=points,
        div_error=d.choice((1.0, 4.0)),
    )
    return problem, arithmetic, d.choice(formats)


def draw_push(d: Draw, shape: tuple[int, int]) -> Push:
    """Every step in a direction of its own, or all in the same one."""
    n_rows, n_cols = shape
    column = np.arange(n_cols)

    def direction() -> F64:
        kind = d.below(5)
        if kind == 4:
            return signs(d.below(10**6), *shape)
        ahead = (column >= 0, column < 0, column % 2 == 0, column < n_cols / 2)[kind]
        return np.broadcast_to(np.where(ahead, 1.0, -1.0), shape)

    common = direction() if d.chance(50) else None
    steps = {step: direction() if common is None else common for step in STEPS}
    ends = [np.floor(3.0 * uniform(d.below(10**6), n_rows, 1, 1)) - 1.0 for _ in range(2)]
    return Push(ends[0], ends[1], steps)


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_rows_at_the_far_end_of_the_promise_are_explained(start: int) -> None:
    count = 0
    for seed in range(start, start + 100):
        d = Draw(seed)
        problem, arithmetic, dtype = draw_problem(d)
        for _ in range(4):
            y = pushed_y(problem, arithmetic, dtype, draw_push(d, problem.x.shape))
            rows = rows_for(problem, y, dtype, arithmetic)
            count += judged(rows)
            assert not unexplained(rows).any(), f"seed {seed}"
    assert count > 2000


# --- every allowance is needed ------------------------------------------------------------------

# Two columns err one way, the next two the other way: each way goes with either sign.
PAIRS = np.where(np.arange(256) // 2 % 2, 1.0, -1.0)
ROW = bell(3, 256)
FAR = 1000.0


def pushed(
    x: Any,
    *steps: str,
    dtype: str = "float32",
    arithmetic: Arithmetic = PLAIN,
    by: F64 = PAIRS,
    mean: float = 0.0,
    rstd: float = 0.0,
    seen: dict[str, F64] | None = None,
    **other: Any,
) -> Rows:
    """A row whose kernel errs in these steps, each as far as it may."""
    x = np.atleast_2d(f32(x))
    n = x.shape[1]
    arguments: dict[str, Any] = {"dtype": "float32", "eps": 1e-5, "depth": 20} | other
    for name in ("z", "weight", "bias"):
        if name in arguments:
            shape = x.shape if name == "z" else (n,)
            arguments[name] = np.broadcast_to(f32(arguments[name]), shape)
    problem = Problem(x=x, group_size=n, **arguments)
    push = Push(mean, rstd, {step: np.broadcast_to(by[:n], x.shape) for step in steps})
    y = pushed_y(problem, arithmetic, dtype, push, seen)
    return rows_for(problem, y, dtype, arithmetic, seen)


def stored_in_half_precision() -> Rows:
    return pushed(ROW + FAR, dtype="bfloat16")


def stored_as_the_smallest_normal() -> Rows:
    # Values of float16 lie as close above it as below. A deep sum leaves room for a wrong rstd.
    weight = bell(4, 256)
    root = np.sqrt(np.square(f32(ROW)).mean())
    weight[7] = (2.0**-14 - 0.45 * 2.0**-24) * root / ROW[7]
    return pushed(ROW, dtype="float16", weight=weight, depth=4000, is_rms_norm=True, eps=0.0)


def rounded_product_with_the_gate() -> Rows:
    return pushed(ROW, "difference", "quotient", "gate", z=5.0 + ROW / 4.0)


def product_with_the_gate_that_underflows() -> Rows:
    return pushed(ROW, z=-80.0, weight=1e-10)


def inexact_gate() -> Rows:
    return pushed(ROW, "gate", z=-20.0, arithmetic=Arithmetic(uniform=True, exp_error=512.0))


def gate_that_vanishes() -> Rows:
    z = np.where(np.arange(256) == 9, -88.0, 1.0)
    return pushed(ROW, "gate", z=z, by=np.ones(256))


def rounded_before_the_gate() -> Rows:
    arithmetic = Arithmetic(uniform=True, roundings=(("scaled", "bfloat16"),))
    return pushed(ROW, z=1.0 + uniform(5, 256), arithmetic=arithmetic)


def rounded_sum() -> Rows:
    return pushed(ROW, bias=100.0)


def rounded_product_with_the_weight() -> Rows:
    return pushed(ROW, "difference", "quotient", weight=bell(4, 256))


def product_with_the_weight_that_underflows() -> Rows:
    return pushed(ROW, weight=9.0 * Q)


def rounded_before_the_weight() -> Rows:
    arithmetic = Arithmetic(uniform=True, roundings=(("x_hat", "bfloat16"),))
    return pushed(ROW, weight=bell(4, 256), arithmetic=arithmetic)


def quotient() -> Rows:
    return pushed(ROW, "difference", "quotient", "product", weight=bell(4, 256), bias=0.0)


def rounded_product_with_rstd() -> Rows:
    return pushed(ROW, arithmetic=Arithmetic(uniform=True, div_error=0.0), is_rms_norm=True)


def product_with_rstd_that_underflows() -> Rows:
    x = Q * np.arange(1.0, 17.0)
    return pushed(x, weight=2.0**100, eps=8.0, is_rms_norm=True)


def rounded_difference() -> Rows:
    return quotient()


def quotients_that_say_nothing() -> Rows:
    arithmetic = Arithmetic(
        uniform=True, compute="bfloat16", variance="one_pass", div_error=300.0, reused=("rstd",)
    )
    x = round_to(ROW, FORMATS["bfloat16"])
    return pushed(x, arithmetic=arithmetic, dtype="bfloat16", seen={"rstd": np.ones((1, 1))})


def inexact_elements() -> Rows:
    arithmetic = Arithmetic(uniform=True, exp_error=512.0)
    return pushed(ROW, "s", z=-20.0, norm_before_gate=False, arithmetic=arithmetic)


def fused_mean() -> Rows:
    return pushed(ROW + FAR, "fused")


def fused_subnormal_mean() -> Rows:
    x = Q * np.array([7.0, -3.0, 12.0, 5.0, -9.0, 4.0, 1.0])
    return pushed(x, "fused", by=signs(1, 256), mean=1.0, weight=2.0**100, eps=8.0)


def rstd_at_its_bound() -> Rows:
    return pushed(ROW, rstd=1.0)


def mean_at_its_bound() -> Rows:
    return pushed(ROW, mean=1.0)


def both_at_wide_bounds() -> Rows:
    return pushed(ROW[:3], mean=1.0, rstd=1.0, depth=1 << 22)


def saturated() -> Rows:
    # Where a product can overflow, a kernel that stops at the largest value is not wrong.
    rows = pushed([2.0, -1.0, -1.0, 0.5], weight=[3e38, 3e38, 1.0, 1.0])
    return replace(rows, observed=np.clip(rows.observed, -FP32.largest, FP32.largest))


@dataclass(frozen=True)
class Term:
    """An allowance: ``old`` occurs once in the module, ``dropped`` leaves it out."""

    name: str
    old: str
    dropped: str
    witness: Callable[[], Rows]


STORE = (
    "return stored - np.where(positive, inwards, away), stored + np.where(positive, away, inwards)"
)
GATE = "low, high = _before_rounding(low, high, fmt.u, underflow)\n        gate, error"
WEIGHT = "low, high = _before_rounding(low, high, fmt.u, underflow)\n        weight, error"

TERMS = (
    Term("store: half an ulp", STORE, "return stored, stored", stored_in_half_precision),
    Term(
        "store: as close below the smallest normal value",
        "(size == power) & (size > fmt.smallest_normal)",
        "(size == power)",
        stored_as_the_smallest_normal,
    ),
    Term(
        "product with the gate: its rounding",
        GATE,
        GATE.replace("fmt.u", "0.0"),
        rounded_product_with_the_gate,
    ),
    Term(
        "product with the gate: its underflow",
        GATE,
        GATE.replace("underflow", "0.0"),
        product_with_the_gate_that_underflows,
    ),
    Term(
        "gate: its own error",
        "_at(walk.gate.error, index)",
        "np.zeros(())",
        inexact_gate,
    ),
    Term("gate: 0", "says = least > 0.0", "says = least > -np.inf", gate_that_vanishes),
    Term(
        "scaled: its rounding",
        '    low, high = _before_point("scaled", low, high, rows)\n',
        "",
        rounded_before_the_gate,
    ),
    Term(
        "sum: its rounding",
        "low, high = _before_rounding(low, high, fmt.u, 0.0)\n",
        "",
        rounded_sum,
    ),
    Term(
        "product with the weight: its rounding",
        WEIGHT,
        WEIGHT.replace("fmt.u", "0.0"),
        rounded_product_with_the_weight,
    ),
    Term(
        "product with the weight: its underflow",
        WEIGHT,
        WEIGHT.replace("underflow", "0.0"),
        product_with_the_weight_that_underflows,
    ),
    Term(
        "x_hat: its rounding",
        '    low, high = _before_point("x_hat", low, high, rows)\n',
        "",
        rounded_before_the_weight,
    ),
    Term("x_hat: by division", "max(1.0, arithmetic.div_error) * fmt.u", "fmt.u", quotient),
    Term(
        "x_hat: by a product",
        "max(1.0, arithmetic.div_error) * fmt.u",
        "arithmetic.div_error * fmt.u",
        rounded_product_with_rstd,
    ),
    Term(
        "x_hat: its underflow",
        "return _before_rounding(low, high, relative, underflow)",
        "return _before_rounding(low, high, relative, 0.0)",
        product_with_rstd_that_underflows,
    ),
    Term(
        "difference: its rounding",
        "        relative += fmt.u\n",
        "        relative += 0.0\n",
        rounded_difference,
    ),
    Term(
        "errors: of any size",
        " if relative < 1.0 else math.inf",
        "",
        quotients_that_say_nothing,
    ),
    Term("elements: their errors", "_at(walk.s.error, index)", "np.zeros(())", inexact_elements),
    Term(
        "mean: fused",
        "error + (fmt.u * size + fmt.quantum)",
        "error + (fmt.quantum + 0.0 * size)",
        fused_mean,
    ),
    Term(
        "mean: fused and subnormal",
        "fmt.u * size + fmt.quantum",
        "fmt.u * size",
        fused_subnormal_mean,
    ),
    Term(
        "box: rstd",
        "width = _flat(rstd.error, rstd.value) / value",
        "width = np.zeros_like(value)",
        rstd_at_its_bound,
    ),
    Term(
        "box: mean",
        "_flat(mean.error, mean.value) * value\n    return",
        "np.zeros_like(value)\n    return",
        mean_at_its_bound,
    ),
    Term(
        "box: both",
        "reach = box.reach * (1.0 + rho)",
        "reach = box.reach",
        both_at_wide_bounds,
    ),
    Term(
        "columns: an infinite bound",
        "finite = np.isfinite(rows.expected.tolerance.reshape(-1)[index])",
        "finite = np.ones(index.shape, dtype=np.bool_)",
        saturated,
    ),
)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_allowances_are_needed(term: Term) -> None:
    rows = term.witness()
    assert not wrong(rows)
    assert not unexplained(rows).any()
    dropped = mutant(consistency, term.old, term.dropped)
    assert dropped.unexplained(rows).all()


# --- faults ---------------------------------------------------------------------------------------


def kernel_y(problem: Problem, *, rstd: Any = 1.0, mean: Any = 0.0) -> F64:
    """What a kernel holds before the store whose rstd is multiplied, and whose mean is moved."""
    how = How(order=Order(32))
    outputs, m = run(problem, PLAIN, how), Machine(PLAIN, how)
    centred = problem.x
    if not problem.is_rms_norm:
        centred = m.add(centred, -m.round(outputs["mean"] + mean))
    return m.mul(centred, m.round(outputs["rstd"] * rstd))


def plain_problem(x: F64, **other: Any) -> Problem:
    n = x.shape[1]
    arguments = {"dtype": "float32", "eps": 1e-5, "depth": depth_of(Order(32), n)} | other
    return Problem(x=x, **({"group_size": n} | arguments))


@pytest.mark.parametrize("dtype", FORMATS)
def test_scaled_rows_far_from_zero_are_unexplained(dtype: str) -> None:
    problem = plain_problem(f32(bell(2, 4, 1000) + 100.0))
    y = round_to(kernel_y(problem, rstd=1.0 + 3e-5), FORMATS[dtype])
    rows = rows_for(problem, y, dtype)
    # What the mean may be off hides it in each element.
    assert not wrong(rows)
    assert unexplained(rows).sum() >= 3
    assert not unexplained(
        replace(rows, observed=round_to(kernel_y(problem), FORMATS[dtype]))
    ).any()


@pytest.mark.parametrize("dtype", FORMATS)
def test_rows_of_two_means_are_unexplained(dtype: str) -> None:
    # As of a kernel that reduces each block of columns on its own.
    problem = plain_problem(f32(bell(2, 4, 1000) + 100.0))
    moved = np.where(np.arange(1000) < 500, 0.0, 5e-5)
    rows = rows_for(problem, round_to(kernel_y(problem, mean=moved), FORMATS[dtype]), dtype)
    assert not wrong(rows)
    assert unexplained(rows).all()
    assert stretch(rows, 0, 0) == np.inf


def test_rows_of_two_rstds_are_unexplained_without_a_mean() -> None:
    problem = plain_problem(f32(bell(2, 4, 1000)), is_rms_norm=True, depth=200)
    scaled = np.where(np.arange(1000) < 500, 1.0, 1.0 + 4e-6)
    rows = rows_for(problem, kernel_y(problem, rstd=scaled))
    assert not wrong(rows)
    assert unexplained(rows).all()
    assert stretch(rows, 0, 0) == np.inf


def test_unexplained_groups_are_told_apart() -> None:
    x = f32(bell(2, 4, 3 * 256) + 100.0)
    problem = plain_problem(x, group_size=256)
    alone = plain_problem(x.reshape(12, 256))
    scaled = np.ones((12, 1))
    scaled[7] = 1.0 + 3e-5
    y = kernel_y(alone, rstd=scaled).reshape(x.shape)
    # What is not finite in one group says nothing of the others.
    x[0, 3], y[0, :256] = np.nan, np.nan
    found = unexplained(rows_for(problem, y))
    assert np.argwhere(found).tolist() == [[2, 1]]


@pytest.mark.parametrize("is_rms_norm", [True, False])
def test_stretch_is_how_far_the_bounds_are_exceeded(is_rms_norm: bool) -> None:
    problem = plain_problem(f32(bell(2, 3, 256)), is_rms_norm=is_rms_norm, depth=400)
    held = walk(problem, PLAIN)
    off: dict[str, Any] = {"rstd": 1.0 + 3.0 * (held.rstd.error / held.rstd.value)[:, :, 0]}
    if held.mean is not None:
        off = {"mean": 3.0 * held.mean.error[:, :, 0]}
    rows = rows_for(problem, kernel_y(problem, **off))
    assert unexplained(rows).all()
    assert stretch(rows, 1, 0) == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize(
    "arithmetic", [Arithmetic(uniform=True, variance="welford"), Arithmetic(uniform=False)], ids=str
)
def test_kernels_of_several_statistics_are_not_judged(arithmetic: Arithmetic) -> None:
    problem = plain_problem(f32(bell(2, 4, 1000) + 100.0))
    moved = np.where(np.arange(1000) < 500, 0.0, 5e-5)
    y = kernel_y(problem, mean=moved)
    assert not unexplained(rows_for(problem, y, arithmetic=arithmetic)).any()


@pytest.mark.parametrize("dtype", FORMATS)
def test_statistics_that_are_known_leave_nothing_to_judge(dtype: str) -> None:
    problem = plain_problem(f32(bell(2, 64, 1000)))
    seen = run(problem, PLAIN, How(order=Order(32)))
    y = round_to(seen["y"], FORMATS[dtype])
    arithmetic = Arithmetic(uniform=True, reused=("mean", "rstd"))
    assert judged(rows_for(problem, y, dtype, arithmetic, seen)) == 0
    half = Arithmetic(uniform=True, reused=("mean",))
    assert judged(rows_for(problem, y, dtype, half, seen)) > 20


def test_columns_that_say_nothing_do_not_hide_the_others() -> None:
    x = f32(bell(2, 4, 1000) + 100.0)
    problem = plain_problem(x)
    weight = np.ones(1000)
    # A product of 0, and one that is rounded to infinity, or not.
    weight[3], weight[7] = 0.0, 65520.0 / run(problem, PLAIN, How())["y"][0, 7]
    problem = plain_problem(x, weight=f32(weight))
    for rstd, count in ((1.0 + 6e-5, 4), (1.0, 0)):
        y = round_to(Machine(PLAIN, How()).mul(kernel_y(problem, rstd=rstd), weight), FP16)
        y[0, 7] = np.inf
        rows = rows_for(problem, y, "float16")
        assert looked_at(rows)[0] == 256
        assert not wrong(rows)
        assert unexplained(rows).sum() == count


def test_no_rows_are_all_explained() -> None:
    problem = plain_problem(np.zeros((0, 8)))
    assert unexplained(rows_for(problem, np.zeros((0, 8)))).shape == (0, 1)


# --- which columns are looked at ------------------------------------------------------------------


def looked_at(rows: Rows) -> Any:
    """How many columns of each group."""
    with np.errstate(all="ignore"):
        index = consistency._informative(rows, consistency._box_of(rows.walk))
    size = rows.problem.group_size
    assert np.unique(index).size == index.size
    return np.bincount(index // size, minlength=rows.observed.size // size)


@pytest.mark.parametrize(
    ("n_rows", "n_cols", "groups", "columns"),
    # All of them; an even part of each row; a few columns of as many rows as there is room for.
    [(3, 300, 3, 300), (4, 5000, 4, 625), (2000, 16, 250, 16), (200, 100, 156, 16)],
)
def test_columns_of_many_are_an_even_part(
    n_rows: int, n_cols: int, groups: int, columns: int
) -> None:
    problem = plain_problem(f32(bell(2, n_rows, n_cols)))
    counts = looked_at(rows_for(problem, kernel_y(problem)))
    assert np.count_nonzero(counts) == groups
    assert counts.max() == columns


def test_columns_that_a_store_decides_are_all_looked_at() -> None:
    # One in a thousand or so: rounded to bfloat16, the rest is the same for all of the box.
    problem = plain_problem(f32(bell(2, 64, 1000)))
    rows = rows_for(problem, round_to(kernel_y(problem), FORMATS["bfloat16"]), "bfloat16")
    counts = looked_at(rows)
    assert 20 < counts.sum() < 1000
    assert counts.sum() == (rows.expected.low != rows.expected.high).sum()


def test_columns_of_one_row_do_not_make_a_table_of_all_rows() -> None:
    # Far from zero all columns say something, elsewhere very few do.
    x = bell(2, 400, 1000)
    x[5] += 1000.0
    problem = plain_problem(f32(x))
    rows = rows_for(problem, round_to(kernel_y(problem), FORMATS["bfloat16"]), "bfloat16")
    counts = looked_at(rows)
    assert np.count_nonzero(counts) * counts.max() <= x.size // consistency.SHARE


# --- the common point -----------------------------------------------------------------------------


def strips_of(lines: F64) -> consistency._Strips:
    """From (groups, columns, 4)."""
    return consistency._Strips(*np.moveaxis(lines, 2, 0))


def box_of(lines: F64, width: float, reach: float) -> consistency._Box:
    ends = (np.full(len(lines), end) for end in (width, reach))
    return consistency._Box(*ends, np.ones(len(lines), dtype=np.bool_))


def widest_gap(lines: F64, width: float, reach: float) -> Fraction:
    """Exactly, at all the places where it can be."""
    end, edge = Fraction(width), Fraction(reach)
    over, under = [(edge, -edge)], [(-edge, edge)]
    for line in lines:
        a, b, c, d = (Fraction(value) for value in line)
        over.append((a, b))
        under.append((c, d))
    places = [-end, end]
    for side in (over, under):
        for (a, b), (c, d) in itertools.combinations(side, 2):
            if a != c and abs((b - d) / (a - c)) <= end:
                places.append((b - d) / (a - c))
    return max(min(a * x - b for a, b in over) - max(c * x - d for c, d in under) for x in places)


def test_strips_apart_are_those_without_a_common_point() -> None:
    # Small integers, so that many only touch.
    lines = np.floor(uniform(1, 400, 3, 4) * 9.0) - 4.0
    lines[:, :, 1] -= 2.0
    lines[:, :, 3] += 2.0
    lines[:, :, 2] = np.minimum(lines[:, :, 2], lines[:, :, 0])
    for width, reach in ((1.0, 4.0), (3.0, 0.0), (0.0, 2.0)):
        found = consistency._apart(strips_of(lines), box_of(lines, width, reach))
        gaps = [widest_gap(one, width, reach) for one in lines]
        assert found.tolist() == [gap < 0 for gap in gaps]
        assert 40 < found.sum() < 360
        assert sum(gap == 0 for gap in gaps) > 5


def lines_through_one_point() -> F64:
    rho, tau = 0.3, 0.7
    slope = 100.0 * bell(1, 50, 64)
    limit = slope * rho - tau
    return np.stack((slope, limit, slope, limit), axis=2)


def test_strips_through_one_point_are_not_apart() -> None:
    lines = lines_through_one_point()
    strips, box = strips_of(lines), box_of(lines, 1.0, 1.0)
    assert not consistency._apart(strips, box).any()
    exact = mutant(consistency, "MARGIN = 2.0**-46", "MARGIN = 0.0")
    assert exact._apart(strips, box).any()


def test_strips_are_apart_by_more_than_the_margin() -> None:
    lines = lines_through_one_point()
    # The limit of one column, above the point by little.
    lines[:, 7, 1] += 1e-9
    assert consistency._apart(strips_of(lines), box_of(lines, 1.0, 1.0)).all()
