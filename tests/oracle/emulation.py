"""Correct kernels, emulated operation by operation: none of them may ever be called wrong.

Each operation is computed in fp64 and rounded once to the compute format, which is IEEE's result:
fp64 has more than twice the precision of every format here. Approximate operations (division,
root, exponential) are pushed to the far end of what the arithmetic promises.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from oracle.arithmetic import Arithmetic, Depth, reduction_depth
from oracle.formats import F64, FORMATS, Format, round_to
from oracle.refs import Problem

Push = Mapping[str, Any]
"""Which way each approximate operation errs: -1, 0 (correctly rounded) or 1, or an array of it.

Keys: mean, variance (their divisions), root, exp, gate (the sigmoid's division).
"""


@dataclass(frozen=True)
class Order:
    """Order of summation: ``threads`` chains, joined in a tree; one chain is the plain loop."""

    threads: int = 1
    reverse: bool = False


@dataclass(frozen=True)
class How:
    """The freedom that an :class:`Arithmetic` leaves to a kernel."""

    order: Order = Order()
    # Products that meet an addition are not rounded.
    fma: bool = False
    # Passes (mean, variance, output) in which the product with the gate meets the addition.
    contracted: tuple[str, ...] = ()
    push: Push = field(default_factory=dict)
    # exp(-z) by ex2(-z * log2 e), or correctly rounded.
    exp_by_ex2: bool = True
    # z / (1 + exp(-z)) instead of z * sigmoid(z).
    gate_by_division: bool = False
    # Results of the sigmoid's division below the normal numbers become 0.
    flush_sigmoid: bool = False
    # One-pass kernels may keep a negative variance from the root.
    clamp: bool = False
    # Welford: by one chain, or by merging halves in a tree.
    merged: bool = False


class Machine:
    """The operations of one compute format."""

    def __init__(self, arithmetic: Arithmetic, how: How) -> None:
        self.fmt: Format = FORMATS[arithmetic.compute]
        self.arithmetic = arithmetic
        self.how = how

    def round(self, value: F64) -> F64:
        return round_to(np.asarray(value, dtype=np.float64), self.fmt)

    def add(self, a: F64, b: F64) -> F64:
        return self.round(a + b)

    def mul(self, a: F64, b: F64) -> F64:
        return self.round(a * b)

    def add_product(self, a: F64, b: F64, c: F64) -> F64:
        """a * b + c, fused or not."""
        return self.add(a * b if self.how.fma else self.mul(a, b), c)

    def div(self, a: F64, b: F64, name: str) -> F64:
        return self.pushed(np.asarray(a / b), self.arithmetic.div_error, name)

    def rsqrt(self, a: F64) -> F64:
        if self.arithmetic.flush_to_zero:
            a = np.where(np.abs(a) < self.fmt.smallest_normal, 0.0, a)
        return self.pushed(1.0 / np.sqrt(a), self.arithmetic.rsqrt_error, "root")

    def exp(self, a: F64) -> F64:
        if self.how.exp_by_ex2:
            exact = np.exp2(self.mul(a, self.round(np.log2(np.e))))
        else:
            exact = np.exp(a)
        return self.pushed(exact, self.arithmetic.exp_error, "exp")

    def pushed(self, exact: F64, roundoffs: float, name: str) -> F64:
        """The result farthest from ``exact`` that ``roundoffs`` of relative error allow."""
        sign = np.asarray(self.how.push.get(name, 0), dtype=np.float64)
        nearest = self.round(exact)
        if not sign.any():
            return nearest
        reach = roundoffs * self.fmt.u * np.abs(exact)
        far = self.round(exact + sign * np.sign(exact) * reach)
        spacing = self.spacing(far)
        back = far - sign * np.sign(exact) * spacing
        far = np.where(np.abs(far - exact) <= reach, far, back)
        admitted = np.isfinite(far) & (np.abs(far - exact) <= reach)
        return np.where(admitted & (sign != 0), far, nearest)

    def spacing(self, value: F64) -> F64:
        exponent = np.maximum(np.frexp(value)[1] - 1, self.fmt.min_exponent)
        return np.ldexp(1.0, exponent - (self.fmt.precision - 1))

    def total(self, value: F64, *, square: bool = False) -> F64:
        """Sum over the last axis in the order of this kernel, optionally of the squares."""
        n_rows, n = value.shape
        threads = self.how.order.threads
        chain = -(-n // threads)
        padded = np.zeros((n_rows, chain * threads))
        padded[:, :n] = value[:, ::-1] if self.how.order.reverse else value
        lanes = padded.reshape(n_rows, chain, threads)
        total = np.zeros((n_rows, threads))
        for k in range(chain):
            lane = lanes[:, k]
            total = self.add_product(lane, lane, total) if square else self.add(total, lane)
        while total.shape[1] > 1:
            half = total.shape[1] // 2
            total = self.add(total[:, :half], total[:, half:])
        return total

    def sigmoid(self, z: F64, numerator: F64) -> F64:
        return self.div(numerator, self.add(np.ones(()), self.exp(-z)), "gate")

    def silu(self, z: F64) -> F64:
        if self.how.gate_by_division:
            return self.sigmoid(z, z)
        sigmoid = self.sigmoid(z, np.ones(()))
        if self.how.flush_sigmoid:
            sigmoid = np.where(sigmoid < self.fmt.smallest_normal, 0.0, sigmoid)
        return self.mul(z, sigmoid)

    def welford(self, value: F64) -> tuple[F64, F64]:
        """Running (mean, sum of squared deviations)."""
        if self.how.merged:
            return self._merge(value)
        mean = moment = np.zeros_like(value[:, :1])
        for k in range(value.shape[1]):
            item = value[:, k : k + 1]
            delta = self.add(item, -mean)
            # Nothing divides by 1 with an error, or the first term could be negative.
            step = self.div(delta, np.asarray(k + 1.0), "mean") if k else delta
            mean = self.add(mean, step)
            moment = self.add_product(delta, self.add(item, -mean), moment)
        return mean, moment

    def _merge(self, value: F64) -> tuple[F64, F64]:
        n = value.shape[1]
        if n == 1:
            return value, np.zeros_like(value)
        left = n - n // 2
        mean_a, moment_a = self._merge(value[:, :left])
        mean_b, moment_b = self._merge(value[:, left:])
        weight = self.div(np.asarray(float(n // 2)), np.asarray(float(n)), "mean")
        delta = self.add(mean_b, -mean_a)
        mean = self.add_product(delta, weight, mean_a)
        scaled = self.mul(self.mul(delta, delta), np.asarray(float(left)))
        return mean, self.add_product(scaled, weight, self.add(moment_a, moment_b))


def run(problem: Problem, arithmetic: Arithmetic, how: How) -> dict[str, F64]:
    """All that the kernel could return, before the stores."""
    with np.errstate(all="ignore"):
        return _run(problem, arithmetic, Machine(arithmetic, how))


def _run(problem: Problem, arithmetic: Arithmetic, m: Machine) -> dict[str, F64]:
    n_rows, n_cols = problem.x.shape
    n = problem.group_size

    def stored(point: Any, value: F64) -> F64:
        dtype = arithmetic.rounding(point)
        if dtype is None:
            return value
        return round_to(value, FORMATS[problem.dtype if dtype == "x" else dtype])

    computed = problem.x
    if problem.input_bias is not None:
        computed = m.add(computed, problem.input_bias)
    if problem.residual is not None:
        computed = m.add(computed, problem.residual)
    kept = stored("sum", computed)
    gate = None if problem.z is None else stored("gate", m.silu(problem.z))

    def read(step: Literal["mean", "variance", "output"]) -> F64:
        value = kept if getattr(arithmetic, f"{step}_reads") == "stored" else computed
        if gate is not None and not problem.norm_before_gate:
            value = value * gate if step in m.how.contracted else m.mul(value, gate)
        return value.reshape(-1, n)

    size = np.asarray(float(n))
    result = {"sum": kept}
    s = read("output")
    if problem.is_rms_norm:
        variance = m.div(m.total(read("variance"), square=True), size, "variance")
        centred = s
    else:
        if arithmetic.variance == "welford":
            mean, moment = m.welford(read("mean"))
        else:
            mean = m.div(m.total(read("mean")), size, "mean")
        result["mean"] = mean.reshape(n_rows, -1)
        if arithmetic.variance == "two_pass":
            moment = m.total(m.add(read("variance"), -mean), square=True)
        if arithmetic.variance == "one_pass":
            square = m.div(m.total(read("variance"), square=True), size, "variance")
            variance = m.add_product(-mean, mean, square)
            if m.how.clamp:
                variance = np.maximum(variance, 0.0)
        else:
            variance = m.div(moment, size, "variance")
        centred = m.add(s, -mean)
    rstd = m.rsqrt(m.add(variance, m.round(np.asarray(problem.eps))))
    result["rstd"] = rstd.reshape(n_rows, -1)

    y = stored("x_hat", m.mul(centred, rstd)).reshape(n_rows, n_cols)
    # A fused product is rounded with the addition that follows; see the bias below.
    fused = m.how.fma and problem.weight is not None and problem.bias is not None
    if problem.weight is not None:
        weight = problem.weight
        if problem.weight_offset:
            weight = m.add(weight, np.asarray(problem.weight_offset))
        y = y * weight if fused else m.mul(y, weight)
    if problem.bias is not None:
        y = m.add(y, problem.bias)
    y = stored("scaled", y)
    if gate is not None and problem.norm_before_gate:
        y = m.mul(y, gate)
    result["y"] = y
    return result


def depth_of(order: Order, n: int) -> int:
    """The depth that a kernel with this order of summation promises."""
    warps = order.threads // 32
    if 1 <= warps <= 32:
        block = order.threads
        return reduction_depth(Depth(), n_cols=n, block=block, num_warps=warps, interpreted=False)
    linear = Depth("linear", divisor=order.threads, extra=int(math.log2(order.threads)))
    return reduction_depth(linear, n_cols=n, block=None, num_warps=None, interpreted=False)
