"""Device code that the kernels share: where a row starts, what it holds, its statistics, its norm.

Loops over columns are written with `while`: it compiles to the same vectorised loads as `range`,
and Triton 3.6's interpreter cannot turn a run-time bound into a `range` under NumPy >= 2.4.
The functions are few and coarse: the interpreter takes 0.3 ms for each call of one.
"""

from __future__ import annotations

import triton
import triton.language as tl

SMALLEST_NORMAL = tl.constexpr(2.0**-126)  # of fp32


@triton.jit
def product(
    left,  # fp32
    right,  # fp32
):
    """left * right, rounded by itself.

    A plain product may be fused with the first sum of a reduction, where each lane of a warp adds
    its own product exactly to its neighbour's rounded one: the lanes then hold sums that differ in
    their last bits, and the columns of a row are scaled by other values than the one that is
    stored. A sum with 0 is fused already.
    """
    return tl.fma(left, right, 0.0)


@triton.jit
def row_offset(
    row,  # int64: which row, counted over all leading dims
    size_1,  # int: size of the leading dim after the outermost, if there is one
    size_2,  # int: of the one after that, if there is one
    size_3,  # int: of the one after that, if there is one
    strides,  # tuple of ints: strides of the leading dims, outermost first, in elements
):
    """The offset of a row in elements, int64."""
    sizes = (size_1, size_2, size_3)
    offset = row * 0
    for dim in tl.static_range(len(strides) - 1, 0, -1):
        offset += (row % sizes[dim - 1]) * strides[dim]
        row = row // sizes[dim - 1]
    return offset + row * strides[0]


@triton.jit
def load_input(
    x_ptr,  # row of x, any float dtype like all that follow
    input_bias_ptr,  # (n_cols,) added to x, or None
    residual_ptr,  # row added after that, or None
    z_ptr,  # row whose silu multiplies the sum, or None
    cols,  # int32 (BLOCK,): columns of this block
    mask,  # int1 (BLOCK,): columns that exist
):
    """What is normalised: ((x + input_bias) + residual) * silu(z), in fp32, 0 where masked."""
    value = tl.load(x_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    if input_bias_ptr is not None:
        value += tl.load(input_bias_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    if residual_ptr is not None:
        value += tl.load(residual_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    if z_ptr is not None:
        z = tl.load(z_ptr + cols, mask=mask, other=0.0).to(tl.float32)
        value = product(value, z * tl.sigmoid(z))
    return value


@triton.jit
def mean_of(
    total,  # fp32 scalar: sum of a row
    n_cols,  # int: columns of the row
):
    """total / n_cols, correctly rounded: an approximate quotient leaves constant rows off 0."""
    return tl.div_rn(total, tl.cast(n_cols, tl.float32))


@triton.jit
def inverse_std(
    variance,  # fp32 scalar
    eps,  # fp32: added to the variance
):
    """1 / sqrt(variance + eps): rstd, by the approximate instruction of a GPU."""
    # The cast is for the interpreter, which holds eps as a Python float and would compute in fp64
    # where it is subnormal in fp32.
    floored = (variance + eps).to(tl.float32)
    # A GPU takes the rsqrt of a subnormal for that of 0. Below the floor every difference from the
    # mean is so small that |x_hat| stays under sqrt(n_cols), as it should, instead of infinite.
    # A comparison, unlike a maximum, lets NaN through.
    floored = tl.where(floored < SMALLEST_NORMAL, SMALLEST_NORMAL, floored)
    return tl.rsqrt(floored)


@triton.jit
def block_statistics(
    value,  # fp32 (BLOCK,): a whole row, 0 where masked
    mask,  # int1 (BLOCK,)
    n_cols,  # int: columns that exist
    eps,  # fp32: added to the variance
    IS_RMS: tl.constexpr,  # do not subtract the mean
):
    """(mean, rstd) of a row that fits one block; the mean of an RMS norm is 0."""
    if IS_RMS:
        mean = 0.0
    else:
        mean = mean_of(tl.sum(value), n_cols)
    # Masked lanes hold 0 - mean after the subtraction: they must not reach the variance.
    centred = tl.where(mask, value - mean, 0.0)
    return mean, inverse_std(tl.sum(product(centred, centred)) / n_cols, eps)


@triton.jit
def row_statistics(
    x_ptr,  # these four as in load_input
    input_bias_ptr,
    residual_ptr,
    z_ptr,
    n_cols,  # int: columns of the row
    eps,  # fp32: added to the variance
    IS_RMS: tl.constexpr,  # do not subtract the mean
    BLOCK: tl.constexpr,  # columns a step
):
    """(mean, rstd) of a row of any width, in two passes that recompute what is normalised.

    Each lane sums its own column of every block; the lanes are summed once, at the end.
    """
    if IS_RMS:
        mean = 0.0
    else:
        total = tl.zeros([BLOCK], dtype=tl.float32)
        start = 0
        while start < n_cols:
            cols = start + tl.arange(0, BLOCK)
            mask = cols < n_cols
            total += load_input(x_ptr, input_bias_ptr, residual_ptr, z_ptr, cols, mask)
            start += BLOCK
        mean = mean_of(tl.sum(total), n_cols)
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    start = 0
    while start < n_cols:
        cols = start + tl.arange(0, BLOCK)
        mask = cols < n_cols
        value = load_input(x_ptr, input_bias_ptr, residual_ptr, z_ptr, cols, mask)
        # Masked lanes hold 0 - mean after the subtraction: they must not reach the variance.
        centred = tl.where(mask, value - mean, 0.0)
        squares += product(centred, centred)
        start += BLOCK
    return mean, inverse_std(tl.sum(squares) / n_cols, eps)


@triton.jit
def store_norm(
    value,  # fp32 (BLOCK,): what is normalised
    mean,  # fp32 scalar, 0 for an RMS norm
    rstd,  # fp32 scalar
    weight_ptr,  # (n_cols,), or None
    bias_ptr,  # (n_cols,), or None
    z_ptr,  # row whose silu multiplies the result, or None
    out_ptr,  # row of out
    cols,  # int32 (BLOCK,): columns of this block
    mask,  # int1 (BLOCK,): columns that exist
):
    """Store ((value - mean) * rstd * weight + bias) * silu(z), rounded once to out's dtype."""
    y = (value - mean) * rstd
    if weight_ptr is not None:
        y *= tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    if z_ptr is not None:
        z = tl.load(z_ptr + cols, mask=mask, other=0.0).to(tl.float32)
        y *= z * tl.sigmoid(z)
    tl.store(out_ptr + cols, y.to(out_ptr.dtype.element_ty), mask=mask)
