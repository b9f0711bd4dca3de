"""Device code that the kernels share: where a row starts, what it holds, its statistics, its norm.

A program works on tiles of (ROWS, PART): some rows, PART columns of each at a time. The first PARTS
tiles of a row stay in registers from their one read to their one write; only what lies beyond them
is read again, for the variance and for the output.

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
    row,  # int64, of any shape: which row, counted over all leading dims
    size_1,  # int: size of the leading dim after the outermost, if there is one
    size_2,  # int: of the one after that, if there is one
    size_3,  # int: of the one after that, if there is one
    strides,  # tuple of ints: strides of the leading dims, outermost first, in vectors
    VECTOR: tl.constexpr,  # elements of a vector
):
    """The offset of a row in elements, int64: a multiple of VECTOR, which the compiler sees."""
    sizes = (size_1, size_2, size_3)
    offset = row * 0
    for dim in tl.static_range(len(strides) - 1, 0, -1):
        offset += (row % sizes[dim - 1]) * strides[dim]
        row = row // sizes[dim - 1]
    return (offset + row * strides[0]) * VECTOR


@triton.jit
def columns(
    PART: tl.constexpr,  # columns of a tile
    VECTOR: tl.constexpr,  # neighbouring columns that are aligned in every tensor
):
    """int32 (1, PART): 0 ... PART - 1, of which each thread holds VECTOR neighbours at a time.

    Left to itself the compiler gives a thread as many neighbours as the best aligned tensor
    allows, and reads the others with gaps between the lanes of a warp.
    """
    return tl.max_contiguous(tl.arange(0, PART), VECTOR)[None, :]


@triton.jit
def load_input(
    x_ptr,  # (ROWS, 1) pointers to rows of x, any float dtype like all that follow
    input_bias_ptr,  # (n_cols,) added to x, or None
    residual_ptr,  # rows added after that, or None
    z_ptr,  # rows whose silu multiplies the sum, or None
    cols,  # int32 (1, PART): columns of this tile
    inside,  # int1 (1, PART): columns that exist, or None where all do
    mask,  # int1: those of rows that exist, or None where all do
    inside_other: tl.constexpr,  # 0.0, or None where inside is None
    other: tl.constexpr,  # 0.0, or None where mask is None
    POLICY: tl.constexpr,  # evict_last where it may be wanted once more, else evict_first
):
    """What is normalised: ((x + input_bias) + residual) * silu(z), 0 where masked.

    In fp32; or x as it is, where that is all: two halves fit one register.
    """
    value = tl.load(x_ptr + cols, mask=mask, other=other, eviction_policy=POLICY)
    if input_bias_ptr is not None:
        input_bias = tl.load(
            input_bias_ptr + cols, mask=inside, other=inside_other, eviction_policy="evict_last"
        )
        value = value.to(tl.float32) + input_bias.to(tl.float32)
    if residual_ptr is not None:
        residual = tl.load(residual_ptr + cols, mask=mask, other=other, eviction_policy=POLICY)
        value = value.to(tl.float32) + residual.to(tl.float32)
    if z_ptr is not None:
        z = tl.load(z_ptr + cols, mask=mask, other=other, eviction_policy=POLICY).to(tl.float32)
        value = product(value.to(tl.float32), z * tl.sigmoid(z))
    return value


@triton.jit
def mean_of(
    total,  # fp32: sum of a row
    n_cols,  # int: columns of the row
):
    """total / n_cols, correctly rounded: an approximate quotient leaves constant rows off 0."""
    return tl.div_rn(total, tl.cast(n_cols, tl.float32))


@triton.jit
def inverse_std(
    variance,  # fp32
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
def normalize_rows(
    x_ptr,  # (ROWS, 1) pointers to rows; these four as in load_input
    input_bias_ptr,
    residual_ptr,
    z_before_ptr,
    weight_ptr,  # (n_cols,), or None
    bias_ptr,  # (n_cols,), or None
    z_after_ptr,  # rows whose silu multiplies the result, or None
    out_ptr,  # rows of out
    sum_ptr,  # rows for what is normalised, or None
    present,  # int1 (ROWS, 1): rows that exist, or None where all do
    n_cols,  # int: columns of a row
    eps,  # fp32: added to the variance
    IS_RMS: tl.constexpr,  # do not subtract the mean
    ROWS: tl.constexpr,  # rows of a tile
    PART: tl.constexpr,  # columns of a tile
    PARTS: tl.constexpr,  # tiles that stay in registers
    MORE: tl.constexpr,  # n_cols > PARTS * PART: the rest is read again
    VECTOR: tl.constexpr,  # neighbouring columns that are aligned in every tensor
):
    """Normalise rows and store the result; return (mean, rstd), each fp32 (ROWS, 1).

    Two passes over the row: the mean, then the squares of what is centred. Each lane sums its own
    column of every tile; the lanes are summed once, at the end. Only the tile in which a row ends
    needs a mask for its columns. Several rows are never so wide that there is more of them.
    """
    lane = columns(PART, VECTOR)
    last = (PARTS - 1) * PART + lane
    inside = last < n_cols
    mask = inside
    present_other = None
    if present is not None:
        mask = inside & present
        present_other = 0.0
    held = ()
    for k in tl.static_range(PARTS):
        if MORE | (k < PARTS - 1):
            tile = load_input(
                x_ptr,
                input_bias_ptr,
                residual_ptr,
                z_before_ptr,
                k * PART + lane,
                None,
                present,
                None,
                present_other,
                "evict_last",
            )
        else:
            tile = load_input(
                x_ptr,
                input_bias_ptr,
                residual_ptr,
                z_before_ptr,
                last,
                inside,
                mask,
                0.0,
                0.0,
                "evict_last",
            )
        held = held + (tile,)  # noqa: RUF005 - tuples of tensors can only be joined
    if IS_RMS:
        mean = tl.zeros([ROWS, 1], dtype=tl.float32)
    else:
        total = tl.zeros([ROWS, PART], dtype=tl.float32)
        for k in tl.static_range(PARTS):
            total += held[k].to(tl.float32)
        if MORE:
            start = PARTS * PART
            while start < n_cols:
                cols = start + lane
                inside = cols < n_cols
                total += load_input(
                    x_ptr,
                    input_bias_ptr,
                    residual_ptr,
                    z_before_ptr,
                    cols,
                    inside,
                    inside,
                    0.0,
                    0.0,
                    "evict_last",
                ).to(tl.float32)
                start += PART
        mean = mean_of(tl.sum(total, axis=1), n_cols)[:, None]
    squares = tl.zeros([ROWS, PART], dtype=tl.float32)
    for k in tl.static_range(PARTS):
        centred = held[k].to(tl.float32) - mean
        if not MORE and k == PARTS - 1:
            # Masked lanes hold 0 - mean after the subtraction: they must not reach the variance.
            centred = tl.where(inside, centred, 0.0)
        squares += product(centred, centred)
    if MORE:
        start = PARTS * PART
        while start < n_cols:
            cols = start + lane
            inside = cols < n_cols
            value = load_input(
                x_ptr,
                input_bias_ptr,
                residual_ptr,
                z_before_ptr,
                cols,
                inside,
                inside,
                0.0,
                0.0,
                "evict_last",
            ).to(tl.float32)
            # Masked lanes hold 0 - mean after the subtraction: they must not reach the variance.
            centred = tl.where(inside, value - mean, 0.0)
            squares += product(centred, centred)
            start += PART
    rstd = inverse_std(tl.sum(squares, axis=1) / n_cols, eps)[:, None]
    for k in tl.static_range(PARTS):
        value = held[k].to(tl.float32)
        if MORE | (k < PARTS - 1):
            store_norm(
                value,
                mean,
                rstd,
                weight_ptr,
                bias_ptr,
                z_after_ptr,
                out_ptr,
                sum_ptr,
                k * PART + lane,
                None,
                present,
                None,
                present_other,
            )
        else:
            store_norm(
                value,
                mean,
                rstd,
                weight_ptr,
                bias_ptr,
                z_after_ptr,
                out_ptr,
                sum_ptr,
                last,
                inside,
                mask,
                0.0,
                0.0,
            )
    if MORE:
        start = PARTS * PART
        while start < n_cols:
            cols = start + lane
            inside = cols < n_cols
            value = load_input(
                x_ptr,
                input_bias_ptr,
                residual_ptr,
                z_before_ptr,
                cols,
                inside,
                inside,
                0.0,
                0.0,
                "evict_first",
            ).to(tl.float32)
            store_norm(
                value,
                mean,
                rstd,
                weight_ptr,
                bias_ptr,
                z_after_ptr,
                out_ptr,
                sum_ptr,
                cols,
                inside,
                inside,
                0.0,
                0.0,
            )
            start += PART
    return mean, rstd


@triton.jit
def store_norm(
    value,  # fp32 (ROWS, PART): what is normalised
    mean,  # fp32 (ROWS, 1), 0 for an RMS norm
    rstd,  # fp32 (ROWS, 1)
    weight_ptr,  # (n_cols,), or None
    bias_ptr,  # (n_cols,), or None
    z_ptr,  # rows whose silu multiplies the result, or None
    out_ptr,  # rows of out
    sum_ptr,  # rows for value, or None
    cols,  # these five as in load_input
    inside,
    mask,
    inside_other: tl.constexpr,
    other: tl.constexpr,
):
    """Store ((value - mean) * rstd * weight + bias) * silu(z), rounded once to out's dtype."""
    if sum_ptr is not None:
        total = value.to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + cols, total, mask=mask, eviction_policy="evict_first")
    y = (value - mean) * rstd
    if weight_ptr is not None:
        y *= tl.load(
            weight_ptr + cols, mask=inside, other=inside_other, eviction_policy="evict_last"
        ).to(tl.float32)
    if bias_ptr is not None:
        y += tl.load(
            bias_ptr + cols, mask=inside, other=inside_other, eviction_policy="evict_last"
        ).to(tl.float32)
    if z_ptr is not None:
        z = tl.load(z_ptr + cols, mask=mask, other=other, eviction_policy="evict_first")
        z = z.to(tl.float32)
        y *= z * tl.sigmoid(z)
    y = y.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + cols, y, mask=mask, eviction_policy="evict_first")
