"""Kernels at the far end of what an Arithmetic promises, in every step at once.

Nothing here is a real kernel: each step takes all of the error that it may make, in a direction
chosen element by element, and the statistics lie anywhere in their bounds. What rests on nothing
but the promise must hold for these too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from oracle.arithmetic import Arithmetic
from oracle.formats import F64, FORMATS, round_to
from oracle.refs import Problem, Walk, walk

# Short of the limit by more than fp64 errs, and by less than any term of a bound.
ALMOST = 1.0 - 2.0**-20

# Below this a step rounds to nearest: what is subnormal has no place between the values of the
# format, and a difference of two of them no error at all.
LEAST = 2.0**-100


@dataclass(frozen=True)
class Push:
    """Which way everything errs, from -1 to 1.

    ``mean`` and ``rstd`` say where the statistics lie in their bounds, row by row. ``steps`` are
    errors of single elements, of the shape of x: ``s``; ``fused``, of a mean whose last product is
    not rounded; ``difference``; ``quotient``, which x_hat is; ``product`` with the weight; ``sum``
    with the bias; ``gate``; ``gated``, the product with it.
    """

    mean: F64 | float = 0.0
    rstd: F64 | float = 0.0
    steps: dict[str, F64] = field(default_factory=dict)


STEPS = ("s", "fused", "difference", "quotient", "product", "sum", "gate", "gated")


def pushed_y(
    problem: Problem,
    arithmetic: Arithmetic,
    dtype: str,
    push: Push,
    seen: dict[str, F64] | None = None,
) -> F64:
    """The y that such a kernel stores in ``dtype``, given statistics of its own; x's shape."""
    with np.errstate(all="ignore"):
        return _pushed(problem, arithmetic, dtype, push, walk(problem, arithmetic, seen))


def _pushed(problem: Problem, arithmetic: Arithmetic, dtype: str, push: Push, held: Walk) -> F64:
    fmt, shape = FORMATS[arithmetic.compute], problem.x.shape
    u = fmt.u * ALMOST

    def sign(name: str) -> F64:
        return push.steps.get(name, np.zeros(()))

    def step(exact: F64, name: str, relative: float = u) -> F64:
        return np.where(
            np.abs(exact) < LEAST, round_to(exact, fmt), exact * (1.0 + sign(name) * relative)
        )

    def at_point(point: str, value: F64) -> F64:
        name = dict(arithmetic.roundings).get(point)
        return (
            value
            if name is None
            else round_to(value, FORMATS[problem.dtype if name == "x" else name])
        )

    def by_element(statistic: F64) -> F64:
        return np.repeat(statistic.reshape(shape[0], -1), problem.group_size, axis=1)

    rstd = np.maximum(held.rstd.value + push.rstd * held.rstd.error * ALMOST, 0.0)
    own = np.broadcast_to(held.s.error, held.s.value.shape).reshape(shape)
    d = held.s.value.reshape(shape) + sign("s") * own * ALMOST
    if held.mean is not None:
        mean = by_element(held.mean.value + push.mean * held.mean.error * ALMOST)
        mean = mean + sign("fused") * (u * np.abs(mean) + fmt.quantum / 2 * ALMOST)
        d = step(d - mean, "difference")
    last = d * by_element(rstd)
    y = at_point("x_hat", step(last, "quotient", max(arithmetic.div_error, 1.0) * u))
    if held.weight is not None:
        last = y * held.weight.value
        y = step(last, "product")
    if problem.bias is not None:
        last = y + problem.bias
        y = step(last, "sum")
    y = at_point("scaled", y)
    if held.gate is not None:
        last = y * (held.gate.value + sign("gate") * held.gate.error * ALMOST)
        y = step(last, "gated")
    # What is stored in the compute format itself is of that format: its last step is to nearest.
    return round_to(last if dtype == arithmetic.compute else y, FORMATS[dtype])
