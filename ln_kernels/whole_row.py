"""Layer norm with one program a row and the whole row in one block."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ln_kernels import rows
from ln_kernels.blocks import inverse_std, mean_of, product, row_offset
from ln_kernels.launch import MAX_BLOCK, LaunchConfig, on_device_of, whole_row_launch


@triton.jit(do_not_specialize=["size_1", "size_2", "size_3"])
def _whole_row_layer_norm_kernel(
    x_ptr,  # fp16, bf16 or fp32 (*lead, n_cols)
    weight_ptr,  # any of these dtypes (n_cols,), or None
    bias_ptr,  # any of these dtypes (n_cols,), or None
    out_ptr,  # dtype and shape of x
    size_1,  # int: size of the leading dim after the outermost, if there is one
    size_2,  # int: of the one after that, if there is one
    size_3,  # int: of the one after that, if there is one
    x_strides,  # tuple of ints: strides of x's leading dims
    out_strides,  # tuple of ints: strides of out's leading dims
    n_cols,  # int: columns of a row, at most BLOCK
    eps,  # fp32: added to the variance
    BLOCK: tl.constexpr,  # a power of two that holds the row
):
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row_offset(row, size_1, size_2, size_3, x_strides)
    out_ptr += row_offset(row, size_1, size_2, size_3, out_strides)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x = tl.load(x_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    mean = mean_of(tl.sum(x), n_cols)
    # Padded lanes hold 0 - mean after the subtraction: they must not reach the variance.
    centred = tl.where(mask, x - mean, 0.0)
    variance = tl.sum(product(centred, centred)) / n_cols
    y = centred * inverse_std(variance, eps)
    if weight_ptr is not None:
        y *= tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + cols, y.to(out_ptr.dtype.element_ty), mask=mask)


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
        for batch in rows.row_batches((x, out)):
            x_rows, out_rows = batch.tensors
            _whole_row_layer_norm_kernel[(batch.n_rows,)](
                x_rows,
                weight,
                bias,
                out_rows,
                *batch.inner_sizes,
                *batch.strides,
                n_cols,
                eps,
                BLOCK=launch.block,
                **launch.options(),
            )
    return out
