"""What the arithmetic of each implementation may be: the input of the oracle's bounds.

None tells how it launches, so that the depth of a reduction is that of the least parallel one that
is sensible on a GPU. A compiler may keep an intermediate in fp32 or round it to the dtype of its
tensor: its result must fit one of the arithmetics as a whole.
"""

from __future__ import annotations

from dataclasses import replace

from oracle.arithmetic import Arithmetic, Depth

# 16 lanes a row at least; as many roundings again to join them and the halves of vectors.
_DEPTH = Depth(kind="linear", divisor=16, extra=16)

FUSED = (Arithmetic(depth=_DEPTH),)
"""One launch: the sum and the gate stay in fp32, one rounding at the store."""

_WELFORD = Arithmetic(variance="welford", depth=_DEPTH)

_STORED_SUM = replace(
    _WELFORD,
    roundings=(("sum", "x"),),
    mean_reads="stored",
    variance_reads="stored",
    output_reads="stored",
)

EAGER = {
    "plain": (_WELFORD,),
    "sum": (_STORED_SUM,),
    "gated": (replace(_WELFORD, roundings=(("scaled", "x"), ("gate", "x"))),),
}
"""A launch for each step, each of which rounds; by what there is beside the norm."""

COMPILED = (
    _WELFORD,
    _STORED_SUM,
    # The statistics of the sum as it is computed, the output of what was written.
    replace(_STORED_SUM, mean_reads="computed", variance_reads="computed"),
    replace(_WELFORD, roundings=(("scaled", "x"),)),
    replace(_WELFORD, roundings=(("gate", "x"),)),
    *EAGER["gated"],
)
