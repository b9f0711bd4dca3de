"""What a kernel promises about its arithmetic: the input of every bound.

An :class:`Arithmetic` says in which format the kernel computes, where it rounds, which sum each
statistic reads and how exact its division, root and exponential are. It says nothing about
shapes or launches; those enter through :func:`reduction_depth`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

RoundingPoint = Literal["sum", "gate", "x_hat", "scaled"]
"""Intermediates that a kernel may round to a narrower format before going on.

sum: (x + input_bias) + residual; gate: silu(z); x_hat: (x - mean) * rstd, before the weight;
scaled: x_hat * weight + bias, before a gate that follows.
"""

SumUse = Literal["computed", "stored"]
"""Which sum a step reads: as computed, or as rounded to the format it is stored in."""


@dataclass(frozen=True)
class Depth:
    """How many additions an element passes through on its way into a sum.

    kind "blocked": a Triton reduction, from the launch (see :func:`reduction_depth`).
    kind "linear": ``n / divisor + extra``, for implementations whose launch is not ours to see.
    ``parts`` is the most tensors that a kernel divides its block into and adds one to the other
    before it reduces: a GPU's threads add their elements one by one anyhow, NumPy's pairwise sums
    under the interpreter do not.
    """

    kind: Literal["blocked", "linear"] = "blocked"
    divisor: int = 1
    extra: int = 2
    parts: int = 1


@dataclass(frozen=True)
class Arithmetic:
    """The promise.

    ``div_error``, ``rsqrt_error`` and ``exp_error`` are in units of the compute format's unit
    roundoff u. ``reused`` names the returned outputs (sum, mean, rstd) that are the very values
    used downstream: what follows is then judged from the observed ones.
    """

    compute: str = "float32"
    variance: Literal["two_pass", "welford", "one_pass"] = "two_pass"
    depth: Depth = Depth()
    roundings: tuple[tuple[RoundingPoint, str], ...] = ()
    mean_reads: SumUse = "computed"
    variance_reads: SumUse = "computed"
    output_reads: SumUse = "computed"
    reused: tuple[str, ...] = ()
    # CUDA: div.full.f32 is good to 2 ulp, that is 4u.
    div_error: float = 4.0
    # CUDA: sqrt.approx and rsqrt.approx are good to about 1 and 2 ulp; a root and a division
    # together stay below 8u, so one figure serves kernels that write it either way.
    rsqrt_error: float = 8.0
    # ex2.approx is good to 2 ulp after an argument reduction whose error grows with |z|: see
    # the bound of the sigmoid, which takes this as the part that does not grow.
    exp_error: float = 8.0
    # Approximate roots flush subnormal arguments to zero.
    flush_to_zero: bool = True
    # All columns of a row, or of a group, are normalized with the same bits of mean and rstd. Not
    # so where a reduction's first sum is fused with the products it adds, as a GPU's compiler may:
    # each lane then holds a sum of its own.
    uniform: bool = False

    def rounding(self, point: RoundingPoint) -> str | None:
        """The format that ``point`` is rounded to, or None where it stays in compute format."""
        return dict(self.roundings).get(point)


WARP = 32
"""Threads of a warp. AMD's 64 only lowers the depth."""

VECTOR = 8
"""Neighbouring elements that a thread holds where they are aligned: 16 bytes of 2 each."""

NUMPY_BLOCK = 20
"""Depth of NumPy's pairwise sum inside one 128-element block: 16 additions in each of 8 lanes,
3 to join them, 1 to spare."""


def reduction_depth(
    depth: Depth, *, n_cols: int, block: int | None, num_warps: int | None, interpreted: bool
) -> int:
    """Rounded additions an element passes through in one reduction over ``n_cols`` elements.

    A compiled Triton reduction gives each thread ceil(block / threads) elements a block, adds
    them one by one over all blocks and joins the threads in a tree; or it gives some of the threads
    a vector each, and the others copies. Under the interpreter NumPy sums pairwise instead: 128
    elements in 8 interleaved chains, then a tree. No order has
    more than n_cols - 1, because adding the 0 of a masked lane is exact; that is also the depth
    where the launch is not known.
    """
    return min(n_cols - 1, _launched(depth, n_cols, block, num_warps, interpreted=interpreted))


def _launched(
    depth: Depth, n_cols: int, block: int | None, num_warps: int | None, *, interpreted: bool
) -> int:
    if depth.kind == "linear":
        rule = math.ceil(n_cols / depth.divisor) + depth.extra
        return max(rule, _pairwise(n_cols)) if interpreted else rule
    if block is None or num_warps is None:
        return n_cols
    blocks = math.ceil(n_cols / block)
    if interpreted:
        return blocks * depth.parts + _pairwise(block)
    threads = WARP * num_warps
    spread = math.ceil(block / threads) * blocks + int(math.log2(threads))
    vector = min(VECTOR, block)
    vectors = vector + blocks + math.ceil(math.log2(block / vector))
    return max(spread, vectors) + depth.extra


def _pairwise(n: int) -> int:
    """Depth of NumPy's sum of n contiguous elements."""
    return min(n, NUMPY_BLOCK) + max(0, math.ceil(math.log2(max(n, 1) / 128)))
