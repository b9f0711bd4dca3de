"""Layer norm of a residual sum, which is computed in fp32 and can be returned."""

from __future__ import annotations

from typing import Literal, overload

import torch
import triton
import triton.language as tl
from torch import Tensor

from ln_kernels import repeat, rows
from ln_kernels.blocks import normalize_rows, row_offset
from ln_kernels.launch import LaunchConfig, default_launch, on_device_of


@triton.jit(do_not_specialize=["size_1", "size_2", "size_3", "n_rows", "n_vectors"])
def _layer_norm_residual_kernel(
    x_ptr,  # fp16, bf16 or fp32 (*lead, n_cols)
    input_bias_ptr,  # any of these dtypes (n_cols,), or None
    residual_ptr,  # any of these dtypes (*lead, n_cols)
    weight_ptr,  # any of these dtypes (n_cols,), or None
    bias_ptr,  # any of these dtypes (n_cols,), or None
    out_ptr,  # dtype and shape of x
    sum_ptr,  # dtype of x or fp32, shape of x, or None
    size_1,  # int: size of the leading dim after the outermost, if there is one
    size_2,  # int: of the one after that, if there is one
    size_3,  # int: of the one after that, if there is one
    x_strides,  # tuple of ints: strides of x's leading dims, in vectors
    residual_strides,  # tuple of ints: strides of residual's leading dims, in vectors
    out_strides,  # tuple of ints: strides of out's leading dims, in vectors
    sum_strides,  # tuple of ints: strides of the sum's leading dims, in vectors, or None
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
    residual_ptr += row_offset(row, size_1, size_2, size_3, residual_strides, VECTOR)
    out_ptr += row_offset(row, size_1, size_2, size_3, out_strides, VECTOR)
    if sum_ptr is not None:
        sum_ptr += row_offset(row, size_1, size_2, size_3, sum_strides, VECTOR)
    normalize_rows(
        x_ptr,
        input_bias_ptr,
        residual_ptr,
        None,
        weight_ptr,
        bias_ptr,
        None,
        out_ptr,
        sum_ptr,
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


@overload
def layer_norm_residual(
    x: Tensor,
    input_bias: Tensor | None,
    residual: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float = ...,
    *,
    out: Tensor | None = ...,
    sum_out: Tensor | None = ...,
    return_sum: Literal[False] = ...,
    launch: LaunchConfig | None = ...,
) -> Tensor: ...


@overload
def layer_norm_residual(
    x: Tensor,
    input_bias: Tensor | None,
    residual: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float = ...,
    *,
    out: Tensor | None = ...,
    sum_out: Tensor | None = ...,
    return_sum: Literal[True],
    launch: LaunchConfig | None = ...,
) -> tuple[Tensor, Tensor]: ...


def layer_norm_residual(
    x: Tensor,
    input_bias: Tensor | None,
    residual: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float = 1e-5,
    *,
    out: Tensor | None = None,
    sum_out: Tensor | None = None,
    return_sum: bool = False,
    launch: LaunchConfig | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Layer norm of (x + input_bias) + residual; with return_sum, (out, sum).

    Mean, variance and out all read one and the same fp32 sum, which is never rounded for them;
    the sum returned, or written to sum_out, is that one rounded once to its dtype.

    Shapes: x and residual (*, n_cols), any leading strides, columns of stride 1; input_bias,
        weight and bias (n_cols,), each None for none.
    Dtypes: each of the inputs fp16, bf16 or fp32; out x's; the sum x's, or that of sum_out, which
        may be fp32. No autograd graph.
    Raises: TypeError for a wrong kind or dtype, ValueError for a wrong value, shape, device or
        layout. `out` and `sum_out` may each be x or residual in the same layout, and else must
        not share memory with any argument.
    """
    function = "layer_norm_residual"
    inputs = (x, input_bias, residual, weight, bias)
    key = None
    if out is None and sum_out is None:
        key = repeat.key_of(function, inputs, eps, return_sum, launch)
    done = repeat.again(key, inputs)
    if done is not None:
        return (done[0], done[1]) if return_sum else done[0]
    n_cols = rows.check_x(x, function)
    rows.check_vector("input_bias", input_bias, (n_cols,), x, function)
    rows.check_rows("residual", residual, x, function)
    rows.check_vector("weight", weight, (n_cols,), x, function)
    rows.check_vector("bias", bias, (n_cols,), x, function)
    eps = rows.check_eps(eps, function)
    rows.check_launch(launch, function)
    replaced = {"x": x, "residual": residual}
    apart = {"input_bias": input_bias, "weight": weight, "bias": bias}
    out = rows.output("out", out, x, function, in_place_of=replaced, apart_from=apart)
    if sum_out is not None or return_sum:
        sum_out = rows.output(
            "sum_out",
            sum_out,
            x,
            function,
            in_place_of=replaced,
            apart_from={**apart, "out": out},
            dtypes=tuple(dict.fromkeys((x.dtype, torch.float32))),
        )
    launch = launch or default_launch(n_cols, x.element_size())
    tensors = (x, residual, out) if sum_out is None else (x, residual, out, sum_out)
    with on_device_of(x):
        for batch in rows.row_batches(tensors, (input_bias, weight, bias)):
            tiling = launch.tiling(n_cols, batch.vector)
            grid = tiling.programs(batch.n_rows)
            x_rows, residual_rows, out_rows, *sum_rows = batch.tensors
            x_strides, residual_strides, out_strides, *sum_strides = batch.strides
            rest = (
                *batch.inner_sizes,
                x_strides,
                residual_strides,
                out_strides,
                sum_strides[0] if sum_strides else None,
                batch.n_rows,
                n_cols // batch.vector,
                eps,
                *tiling.constants(),
            )
            kernel = _layer_norm_residual_kernel[(grid,)](
                x_rows,
                input_bias,
                residual_rows,
                weight,
                bias,
                out_rows,
                sum_rows[0] if sum_rows else None,
                *rest,
                **launch.options(),
            )
            if batch.whole:
                outputs = (out,) if sum_out is None else (out, sum_out)
                pointers = (0, 1, 2, 3, 4, 5, None if sum_out is None else 6)
                repeat.keep(key, kernel, grid, x, outputs, pointers, rest)
    if return_sum:
        assert sum_out is not None  # allocated above where it was not given
        return out, sum_out
    return out
