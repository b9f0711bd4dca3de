"""Layer norm with one program a row and the whole row in one block."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ln_kernels import repeat, rows
from ln_kernels.blocks import (
    columns,
    inverse_std,
    load_cols,
    load_row,
    mean_of,
    product,
    row_offset,
    store_row,
)
from ln_kernels.launch import MAX_BLOCK, LaunchConfig, on_device_of, whole_row_launch


@triton.jit(do_not_specialize=["size_1", "size_2", "size_3", "n_rows", "n_vectors"])
def _whole_row_layer_norm_kernel(
    x_ptr,  # fp16, bf16 or fp32 (*lead, n_cols)
    weight_ptr,  # any of these dtypes (n_cols,), or None
    bias_ptr,  # any of these dtypes (n_cols,), or None
    out_ptr,  # dtype and shape of x
    size_1,  # int: size of the leading dim after the outermost, if there is one
    size_2,  # int: of the one after that, if there is one
    size_3,  # int: of the one after that, if there is one
    x_strides,  # tuple of ints: strides of x's leading dims, in vectors
    out_strides,  # tuple of ints: strides of out's leading dims, in vectors
    n_rows,  # int: rows of this launch
    n_vectors,  # int: columns of a row, in vectors
    eps,  # fp32: added to the variance
    ROWS: tl.constexpr,  # rows of a program
    PART: tl.constexpr,  # columns of one tensor
    PARTS: tl.constexpr,  # those that hold the row, the last of them perhaps in part
    VECTOR: tl.constexpr,  # neighbouring columns that are aligned in every tensor
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    present = None
    if ROWS > 1:
        present = row < n_rows
    n_cols = n_vectors * VECTOR
    x_ptr += row_offset(row, size_1, size_2, size_3, x_strides, VECTOR)
    out_ptr += row_offset(row, size_1, size_2, size_3, out_strides, VECTOR)
    lane = columns(PART, VECTOR)
    held = ()
    total = tl.zeros([ROWS, PART], dtype=tl.float32)
    for k in tl.static_range(PARTS):
        x = load_row(x_ptr, k * PART + lane, n_cols, present, k < PARTS - 1, True)
        held = held + (x,)  # noqa: RUF005 - tuples of tensors can only be joined
        total += x.to(tl.float32)
    mean = mean_of(tl.sum(total, axis=1), n_cols)[:, None]
    squares = tl.zeros([ROWS, PART], dtype=tl.float32)
    for k in tl.static_range(PARTS):
        centred = held[k].to(tl.float32) - mean
        if k == PARTS - 1:
            # Padded lanes hold 0 - mean after the subtraction: they must not reach the variance.
            centred = tl.where(k * PART + lane < n_cols, centred, 0.0)
        squares += product(centred, centred)
    rstd = inverse_std(tl.sum(squares, axis=1) / n_cols, eps)[:, None]
    for k in tl.static_range(PARTS):
        cols = k * PART + lane
        y = (held[k].to(tl.float32) - mean) * rstd
        if weight_ptr is not None:
            y *= load_cols(weight_ptr, cols, n_cols, k < PARTS - 1)
        if bias_ptr is not None:
            y += load_cols(bias_ptr, cols, n_cols, k < PARTS - 1)
        store_row(out_ptr, y, cols, n_cols, present, k < PARTS - 1)


def triton_layer_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float = 1e-5,
    *,
    out: Tensor | None = None,
    launch: LaunchConfig | None = None,
) -> Tensor:
    """Layer norm of every row, each held in registers from its one read to its one write.

    Shapes: x (*, n_cols), any leading strides, columns of stride 1, n_cols at most 2**20; weight
        and bias (n_cols,), each None for none.
    Dtypes: each of the inputs fp16, bf16 or fp32; the result x's. No autograd graph.
    Raises: TypeError for a wrong kind or dtype, ValueError for a wrong value, shape, device or
        layout, or a launch whose block does not hold a row. `out` may be x itself in the same
        layout, and else must not share its memory.
    """
    function = "triton_layer_norm"
    tensors = (x, weight, bias)
    key = repeat.key_of(function, tensors, eps, launch) if out is None else None
    done = repeat.again(key, tensors)
    if done is not None:
        return done[0]
    n_cols = rows.check_x(x, function)
    if n_cols > MAX_BLOCK:
        raise ValueError(f"n_cols={n_cols}, must be <= {MAX_BLOCK} [{function}]")
    rows.check_vector("weight", weight, (n_cols,), x, function)
    rows.check_vector("bias", bias, (n_cols,), x, function)
    eps = rows.check_eps(eps, function)
    rows.check_launch(launch, function)
    launch = launch or whole_row_launch(n_cols, x.element_size())
    if launch.block < n_cols:
        raise ValueError(f"launch.block={launch.block}, must be >= n_cols={n_cols} [{function}]")
    out = rows.output(
        "out",
        out,
        x,
        function,
        in_place_of={"x": x},
        apart_from={"weight": weight, "bias": bias},
    )
    with on_device_of(x):
        for batch in rows.row_batches((x, out), (weight, bias)):
            x_rows, out_rows = batch.tensors
            tiling = launch.tiling(n_cols, batch.vector)
            assert not tiling.more, "the block holds the row"
            grid = tiling.programs(batch.n_rows)
            rest = (
                *batch.inner_sizes,
                *batch.strides,
                batch.n_rows,
                n_cols // batch.vector,
                eps,
                tiling.rows,
                tiling.part,
                tiling.parts,
                tiling.vector,
            )
            kernel = _whole_row_layer_norm_kernel[(grid,)](
                x_rows, weight, bias, out_rows, *rest, **launch.options()
            )
            if batch.whole:
                repeat.keep(key, kernel, grid, x, (out,), (0, 1, 2, 3), rest)
    return out
