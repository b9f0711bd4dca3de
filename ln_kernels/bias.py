"""Bias addition and layer norm in one launch, with a variance that does not cancel."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ln_kernels import repeat, rows
from ln_kernels.blocks import normalize_rows, row_offset
from ln_kernels.launch import LaunchConfig, default_launch, on_device_of


@triton.jit(do_not_specialize=["size_1", "size_2", "size_3", "n_rows", "n_vectors"])
def _fused_bias_layer_norm_kernel(
    x_ptr,  # fp16, bf16 or fp32 (*lead, n_cols)
    input_bias_ptr,  # any of these dtypes (n_cols,)
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
    ROWS: tl.constexpr,  # these five as in normalize_rows
    PART: tl.constexpr,
    PARTS: tl.constexpr,
    MORE: tl.constexpr,
    VECTOR: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    present = None
    if ROWS > 1:
        present = row < n_rows
    x_ptr += row_offset(row, size_1, size_2, size_3, x_strides, VECTOR)
    out_ptr += row_offset(row, size_1, size_2, size_3, out_strides, VECTOR)
    normalize_rows(
        x_ptr,
        input_bias_ptr,
        None,
        None,
        weight_ptr,
        bias_ptr,
        None,
        out_ptr,
        None,
        present,
        n_vectors * VECTOR,
        eps,
        False,
        ROWS,
        PART,
        PARTS,
        MORE,
        VECTOR,
    )


def fused_bias_layer_norm(
    x: Tensor,
    bias: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float = 1e-5,
    *,
    out: Tensor | None = None,
    launch: LaunchConfig | None = None,
) -> Tensor:
    """Layer norm of x + bias, scaled by gamma and shifted by beta; the sum stays in fp32.

    Shapes: x (*, n_cols), any leading strides, columns of stride 1; bias, gamma and beta
        (n_cols,), gamma and beta each None for none.
    Dtypes: each of the inputs fp16, bf16 or fp32; the result x's. No autograd graph.
    Raises: TypeError for a wrong kind or dtype, ValueError for a wrong value, shape, device or
        layout. `out` may be x itself in the same layout, and else must not share its memory.
    """
    function = "fused_bias_layer_norm"
    tensors = (x, bias, gamma, beta)
    key = repeat.key_of(function, tensors, eps, launch) if out is None else None
    done = repeat.again(key, tensors)
    if done is not None:
        return done[0]
    n_cols = rows.check_x(x, function)
    rows.check_tensor("bias", bias, function)
    rows.check_vector("bias", bias, (n_cols,), x, function)
    rows.check_vector("gamma", gamma, (n_cols,), x, function)
    rows.check_vector("beta", beta, (n_cols,), x, function)
    eps = rows.check_eps(eps, function)
    rows.check_launch(launch, function)
    out = rows.output(
        "out",
        out,
        x,
        function,
        in_place_of={"x": x},
        apart_from={"bias": bias, "gamma": gamma, "beta": beta},
    )
    launch = launch or default_launch(n_cols, x.element_size())
    with on_device_of(x):
        for batch in rows.row_batches((x, out), (bias, gamma, beta)):
            x_rows, out_rows = batch.tensors
            tiling = launch.tiling(n_cols, batch.vector)
            grid = tiling.programs(batch.n_rows)
            rest = (
                *batch.inner_sizes,
                *batch.strides,
                batch.n_rows,
                n_cols // batch.vector,
                eps,
                *tiling.constants(),
            )
            kernel = _fused_bias_layer_norm_kernel[(grid,)](
                x_rows, bias, gamma, beta, out_rows, *rest, **launch.options()
            )
            if batch.whole:
                repeat.keep(key, kernel, grid, x, (out,), (0, 1, 2, 3, 4), rest)
    return out
