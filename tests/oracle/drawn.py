"""Kernels and problems drawn at random from raw generator bits: the same ones everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from oracle.arithmetic import Arithmetic
from oracle.formats import F64, FORMATS, round_to
from oracle.refs import Problem
from tests.oracle.emulation import How, Order, depth_of
from tests.oracle.rows import bell, rows_of, signs, uniform

T = TypeVar("T")

DTYPES = ("float32", "bfloat16", "float16")
GROUP_SIZES = (1, 2, 3, 4, 5, 7, 8, 16, 17, 33, 64, 100, 257)
# 0, subnormal in float32, at its smallest normal number, small, ordinary, large, overwhelming.
EPS = (0.0, 1e-45, 1e-40, 1.2e-38, 1e-30, 1e-20, 1e-12, 1e-6, 1e-5, 1.0, 1e3, 1e30)
# About the places where the exponential overflows and the sigmoid underflows, and the extremes.
_EDGES = (-20.0, -60.0, -87.0, -88.5, -88.8, -103.0, -104.5, 88.0, 1.0, -1.0, 6e4, -1e4)
_EXTREMES = (0.0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-45, -1e-40, 1e-20)
SPECIAL = np.array(_EDGES + _EXTREMES)


class Draw:
    """Choices from one stream of raw bits."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.PCG64(seed)

    def below(self, n: int) -> int:
        return int(self._generator.random_raw() >> 11) % n

    def choice(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent


@dataclass(frozen=True)
class Drawn:
    """A problem, a kernel for it, and the dtypes of its stores."""

    problem: Problem
    arithmetic: Arithmetic
    how: How
    dtypes: dict[str, str]


def draw_kernel(seed: int) -> Drawn:
    """Any kernel that an Arithmetic can describe, on rows of every family."""
    d = Draw(seed)
    dtype = d.choice(DTYPES)
    group_size = d.choice(GROUP_SIZES)
    n_cols = group_size * d.choice((1, 1, 2, 3))
    compute = d.choice(("float32",) * 8 + ("bfloat16", "float16"))
    x = rows_of(n_cols, dtype, seed=d.below(1000))
    if compute != "float32":
        x = round_to(x, FORMATS[compute])
        x = np.where(np.isfinite(x), x, 0.0)
    special = d.choice((0, 0, 2, 20))

    def dtype_of_input() -> str:
        return d.choice(DTYPES) if compute == "float32" else compute

    def values(*shape: int, scale: float = 1.0, percent: int = special) -> F64:
        plain = bell(d.below(10**6), *shape) * scale
        planted = SPECIAL[(uniform(d.below(10**6), *shape) * len(SPECIAL)).astype(np.int64)]
        where = uniform(d.below(10**6), *shape) * 100.0 < percent
        return round_to(np.where(where, planted, plain), FORMATS[dtype_of_input()])

    inputs: dict[str, Any] = {}
    kind = d.choice(("plain", "residual", "input_bias", "both", "gate", "gate"))
    if kind in ("residual", "both"):
        inputs["residual"] = -x if d.chance(33) else values(*x.shape)
    if kind in ("input_bias", "both"):
        inputs["input_bias"] = values(n_cols, scale=d.choice((1.0, 100.0, 1e-3)))
    if kind == "gate":
        z = values(*x.shape, scale=d.choice((1.0, 10.0, 40.0)), percent=d.choice((0, 5, 50)))
        inputs["z"] = np.broadcast_to(z[:, :1], z.shape).copy() if d.chance(30) else z
        inputs["norm_before_gate"] = d.chance(50)
    if d.chance(70):
        inputs["weight"] = values(n_cols, scale=d.choice((1.0, 1.0, 1e30, 1e-30)))
        inputs["weight_offset"] = d.choice((0.0, 0.0, 1.0))
    if d.chance(60):
        inputs["bias"] = values(n_cols, scale=d.choice((1.0, 1.0, 1e30, 1e-30)))

    is_rms_norm = d.chance(35)
    arithmetic = _arithmetic(d, compute, is_rms_norm)
    welford = arithmetic.variance == "welford" and not is_rms_norm
    merged = welford and group_size > 1 and d.chance(50)
    tree = Order(1 << (group_size - 1).bit_length())
    order = Order() if welford else d.choice((Order(), Order(reverse=True), Order(32), tree))
    how = How(
        order=order,
        fma=d.chance(50),
        contracted=tuple(s for s in ("mean", "variance", "output") if d.chance(30)),
        push=_push(d, *x.shape),
        exp_by_ex2=d.chance(70),
        gate_by_division=d.chance(40),
        flush_sigmoid=d.chance(40),
        clamp=d.chance(50),
        merged=merged,
    )
    problem = Problem(
        x=x,
        dtype=dtype,
        eps=d.choice(EPS),
        depth=depth_of(tree if merged else order, group_size),
        group_size=group_size,
        is_rms_norm=is_rms_norm,
        **inputs,
    )
    stored = arithmetic.rounding("sum") or "float32"
    dtypes = {"y": d.choice(DTYPES), "sum": dtype if stored == "x" else stored}
    return Drawn(problem, arithmetic, how, dtypes)


def _arithmetic(d: Draw, compute: str, is_rms_norm: bool) -> Arithmetic:
    points = ("sum", "x_hat", "scaled", "gate")
    roundings = tuple((p, d.choice(("x", "bfloat16", "float16"))) for p in points if d.chance(25))
    if compute != "float32":
        roundings = tuple((point, compute) for point, dtype in roundings)
    variance = d.choice(("two_pass", "two_pass", "two_pass", "welford", "one_pass"))
    reads: dict[str, Any] = {}
    if variance == "two_pass":
        reads = {
            f"{step}_reads": d.choice(("computed", "stored"))
            for step in ("mean", "variance", "output")
        }
    reused = tuple(name for name in ("mean", "rstd") if d.chance(40))
    if set(reads.values()) == {"stored"} and d.chance(50):
        reused += ("sum",)
    return Arithmetic(
        compute=compute,
        variance="two_pass" if is_rms_norm else variance,
        roundings=roundings,
        reused=reused,
        div_error=d.choice((1.0, 4.0)),
        rsqrt_error=d.choice((2.0, 8.0)),
        exp_error=d.choice((4.0, 8.0)),
        flush_to_zero=d.chance(60),
        **reads,
    )


def _push(d: Draw, n_rows: int, n_cols: int) -> dict[str, Any]:
    push: dict[str, Any] = {
        name: d.choice((-1, 0, 1)) for name in ("mean", "variance", "root", "exp", "gate")
    }
    for name in ("exp", "gate"):
        if d.chance(50):
            push[name] = signs(d.below(10**6), n_rows, n_cols)
    return push
