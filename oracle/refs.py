"""Layer normalisation as PyTorch's reference decomposition, value and bound in one walk.

The steps are those of ``torch._refs.native_layer_norm``: convert, var_mean, rsqrt(var + eps),
(x - mean) * rstd, * weight + bias, convert back; around them the sum that a fused kernel
normalizes and the gate that it applies. Each step yields the fp64 value and the bound together,
so the two cannot drift apart.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle import bounds
from oracle.arithmetic import Arithmetic, RoundingPoint, SumUse
from oracle.bounds import Bounded, format_of, known
from oracle.formats import F64, Format


@dataclass(frozen=True)
class Problem:
    """One layer norm: exact inputs in fp64 and what is to be computed of them.

    Shapes: x, residual, z (n_rows, n_cols); input_bias, weight, bias (n_cols,).
    Dtypes: float64 arrays that hold values of the input formats exactly; ``dtype`` is x's own.
    ``depth`` is the additions an element passes through in a reduction over one group.
    """

    x: F64
    dtype: str
    eps: float
    depth: int
    group_size: int
    residual: F64 | None = None
    input_bias: F64 | None = None
    z: F64 | None = None
    weight: F64 | None = None
    bias: F64 | None = None
    is_rms_norm: bool = False
    norm_before_gate: bool = True
    weight_offset: float = 0.0


@dataclass(frozen=True)
class Walk:
    """What a kernel holds on its way, with its bounds.

    ``outputs`` is what it may return, before the final conversion. The rest is what y is made of:
    ``s`` is normalized with ``mean`` (None for RMS) and ``rstd``, the very values that a kernel
    uses, where it returns them; ``gate`` is that which follows the norm.

    Shapes: s (n_rows, n_groups, group_size); mean and rstd (n_rows, n_groups, 1); weight (n_cols,);
    gate (n_rows, n_cols).
    """

    outputs: dict[str, Bounded]
    s: Bounded
    mean: Bounded | None
    rstd: Bounded
    weight: Bounded | None
    gate: Bounded | None


def decompose(
    problem: Problem, arithmetic: Arithmetic, observed: dict[str, F64] | None = None
) -> dict[str, Bounded]:
    """Every quantity that a kernel may return: the outputs of :func:`walk`."""
    return walk(problem, arithmetic, observed).outputs


def walk(problem: Problem, arithmetic: Arithmetic, observed: dict[str, F64] | None = None) -> Walk:
    """Every quantity that a kernel may return, with its bound, before the final conversion.

    ``observed`` holds returned intermediates; those that ``arithmetic.reused`` names replace the
    computed ones in the steps after them, so that what follows is judged from what the kernel
    really used. Their own entries in the result stay the computed ones.

    Shapes: y and sum (n_rows, n_cols); mean (absent for RMS) and rstd (n_rows, n_groups).
    Raises: ValueError when the compute format is not one that an fp64 oracle can judge.
    Source: torch/_refs ``native_layer_norm`` and ``_normalize``.
    """
    fmt = format_of(arithmetic.compute)
    seen = {k: v for k, v in (observed or {}).items() if k in arithmetic.reused}
    with np.errstate(all="ignore"):
        return _walk(problem, arithmetic, seen, fmt)


def _walk(problem: Problem, arithmetic: Arithmetic, seen: dict[str, F64], fmt: Format) -> Walk:
    n_rows, n_cols = problem.x.shape
    grouped = (n_rows, n_cols // problem.group_size, problem.group_size)

    total = _summed(problem, fmt)
    stored = _round_at("sum", total, problem, arithmetic)
    result = {"sum": stored}
    if "sum" in seen:
        stored = total = known(seen["sum"])
    gate = None
    if problem.z is not None:
        z = known(problem.z)
        silu = bounds.multiply(z, bounds.sigmoid(z, arithmetic, fmt), fmt)
        gate = _round_at("gate", silu, problem, arithmetic)

    @functools.cache
    def read(use: SumUse) -> Bounded:
        source = stored if use == "stored" else total
        if gate is not None and not problem.norm_before_gate:
            source = bounds.multiply(source, gate, fmt)
        return _reshape(source, grouped)

    s_mean = read(arithmetic.mean_reads)
    s_variance = read(arithmetic.variance_reads)
    s_output = read(arithmetic.output_reads)

    mean = None
    if problem.is_rms_norm:
        variance = bounds.mean_square_of(s_variance, problem.depth, arithmetic, fmt)
        centred = s_output
    else:
        mean = bounds.mean_of(s_mean, problem.depth, arithmetic, fmt)
        result["mean"] = _flat(mean)
        mean = _observed(mean, seen.get("mean"))
        variance = bounds.variance_of(s_variance, mean, problem.depth, arithmetic, fmt)
        centred = bounds.subtract(s_output, mean, fmt)
    rstd = bounds.rstd_of(variance, problem.eps, arithmetic, fmt)
    result["rstd"] = _flat(rstd)
    rstd = _observed(rstd, seen.get("rstd"))

    x_hat = bounds.normalized(centred, rstd, s_output, arithmetic, fmt)
    y = _round_at("x_hat", _reshape(x_hat, (n_rows, n_cols)), problem, arithmetic)
    weight = None if problem.weight is None else known(problem.weight)
    if weight is not None:
        if problem.weight_offset:
            weight = bounds.add(weight, known(np.asarray(problem.weight_offset)), fmt)
        y = bounds.multiply(y, weight, fmt)
    if problem.bias is not None:
        y = bounds.add(y, known(problem.bias), fmt)
    y = _round_at("scaled", y, problem, arithmetic)
    following = gate if problem.norm_before_gate else None
    if following is not None:
        y = bounds.multiply(y, following, fmt)
    result["y"] = y
    return Walk(result, s_output, mean, rstd, weight, following)


def _summed(problem: Problem, fmt: Format) -> Bounded:
    """(x + input_bias) + residual, in this order: each addition is one IEEE operation."""
    total = known(problem.x)
    if problem.input_bias is not None:
        total = bounds.add(total, known(problem.input_bias), fmt)
    if problem.residual is not None:
        total = bounds.add(total, known(problem.residual), fmt)
    return total


def _round_at(
    point: RoundingPoint, value: Bounded, problem: Problem, arithmetic: Arithmetic
) -> Bounded:
    """The value after one of the promised rounding points; "x" stands for the dtype of x."""
    dtype = arithmetic.rounding(point)
    if dtype is None:
        return value
    return bounds.rounded(value, format_of(problem.dtype if dtype == "x" else dtype))


def _observed(computed: Bounded, observed: F64 | None) -> Bounded:
    """The kernel's own statistic where it returned one that can be computed with."""
    if observed is None:
        return computed
    observed = observed.reshape(computed.value.shape)
    usable = np.isfinite(observed)
    if usable.all():
        return known(observed)
    return Bounded(
        np.where(usable, observed, computed.value),
        np.where(usable, 0.0, computed.error),
        computed.free & ~usable,
    )


def _reshape(a: Bounded, shape: tuple[int, ...]) -> Bounded:
    def fit(part: Any) -> Any:
        # A scalar stands for every element and fits any shape.
        return part if part.ndim == 0 else np.broadcast_to(part, a.value.shape).reshape(shape)

    return Bounded(a.value.reshape(shape), fit(a.error), fit(a.free))


def _flat(a: Bounded) -> Bounded:
    """(n_rows, n_groups, 1) -> (n_rows, n_groups)."""
    return _reshape(a, a.value.shape[:-1])
