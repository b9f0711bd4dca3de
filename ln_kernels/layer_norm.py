"""Layer norm over the last dim, or over the last dims jointly, in column blocks of any number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ln_kernels import repeat, rows
from ln_kernels.blocks import normalize_rows, row_offset
from ln_kernels.launch import LaunchConfig, default_launch, on_device_of


@triton.jit(do_not_specialize=["size_1", "size_2", "size_3", "n_rows", "n_vectors"])
def _layer_norm_kernel(
    x_ptr,  # fp16, bf16 or fp32 (*lead, n_cols)
    weight_ptr,  # any of these dtypes (n_cols,), or None
    bias_ptr,  # any of these dtypes (n_cols,), or None
    out_ptr,  # dtype and shape of x
    mean_ptr,  # fp32 (n_rows,), or None
    rstd_ptr,  # fp32 (n_rows,), or None
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
    mean, rstd = normalize_rows(
        x_ptr,
        None,
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
    if mean_ptr is not None:
        tl.store(mean_ptr + row, mean, mask=present)
    if rstd_ptr is not None:
        tl.store(rstd_ptr + row, rstd, mask=present)


def layer_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float = 1e-5,
    *,
    out: Tensor | None = None,
    launch: LaunchConfig | None = None,
) -> Tensor:
    """Layer norm of every row: (x - mean) * rstd * weight + bias, in fp32, rounded once.

    Shapes: x (*, n_cols), any leading strides, columns of stride 1; weight and bias (n_cols,).
    Dtypes: each of x, weight and bias fp16, bf16 or fp32; the result x's. No autograd graph.
    Raises: TypeError for a wrong kind or dtype, ValueError for a wrong value, shape, device or
        layout. `out` may be x itself in the same layout, and else must not share its memory.
    """
    function = "layer_norm"
    tensors = (x, weight, bias)
    key = repeat.key_of(function, tensors, eps, launch) if out is None else None
    done = repeat.again(key, tensors)
    if done is not None:
        return done[0]
    rows.check_x(x, function)
    return _forward(x, 1, weight, bias, eps, out, launch, function, key, statistics=())


def native_layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    out: Tensor | None = None,
    launch: LaunchConfig | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm over the last dims jointly; return (out, mean, rstd).

    Shapes: x (*, *normalized_shape), the normalised dims contiguous; weight and bias of shape
        normalized_shape; mean and rstd of x's shape with 1 for each normalised dim.
    Dtypes: each of x, weight and bias fp16, bf16 or fp32; out x's; mean and rstd fp32, the very
        values that out was computed from. No autograd graph.
    Raises: as layer_norm, and ValueError when normalized_shape is not the end of x's shape.
    Source: the signature and outputs of torch.native_layer_norm.
    """
    function = "native_layer_norm"
    tensors = (x, weight, bias)
    key = None
    if out is None:
        key = repeat.key_of(function, tensors, repr(normalized_shape), eps, launch)
    done = repeat.again(key, tensors)
    if done is not None:
        return done[0], done[1], done[2]
    shape = _normalized_shape(normalized_shape, function)
    rows.check_tensor("x", x, function)
    if tuple(x.shape[-len(shape) :]) != shape:
        raise ValueError(
            f"normalized_shape={shape}, must be the end of x.shape={tuple(x.shape)} [{function}]"
        )
    rows.check_x(x, function, len(shape))
    kept = (*x.shape[: x.ndim - len(shape)], *[1] * len(shape))
    mean = torch.empty(kept, dtype=torch.float32, device=x.device)
    rstd = torch.empty_like(mean)
    statistics = (mean, rstd)
    out = _forward(
        x, len(shape), weight, bias, eps, out, launch, function, key, statistics=statistics
    )
    return out, mean, rstd


def _normalized_shape(shape: int | Sequence[int], function: str) -> tuple[int, ...]:
    dims = (shape,) if isinstance(shape, int) else shape
    if not isinstance(dims, Sequence) or not all(
        isinstance(n, int) and not isinstance(n, bool) for n in dims
    ):
        raise TypeError(
            f"normalized_shape={shape!r}, must be an int or a sequence of ints [{function}]"
        )
    if not dims:
        raise ValueError(f"normalized_shape=(), must name at least one dim [{function}]")
    return tuple(dims)


def _forward(
    x: Tensor,
    n_norm_dims: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    out: Tensor | None,
    launch: LaunchConfig | None,
    function: str,
    key: repeat.Key | None,
    *,
    statistics: tuple[Tensor, ...],
) -> Tensor:
    """Check the rest of the arguments, launch, and return out. `statistics`: (mean, rstd) or ()."""
    shape = x.shape[x.ndim - n_norm_dims :]
    n_cols = math.prod(shape)
    rows.check_vector("weight", weight, shape, x, function)
    rows.check_vector("bias", bias, shape, x, function)
    eps = rows.check_eps(eps, function)
    rows.check_launch(launch, function)
    out = rows.output(
        "out",
        out,
        x,
        function,
        in_place_of={"x": x},
        apart_from={"weight": weight, "bias": bias},
        n_norm_dims=n_norm_dims,
    )
    launch = launch or default_launch(n_cols, x.element_size())
    mean, rstd = (s.view(-1) for s in statistics) if statistics else (None, None)
    with on_device_of(x):
        for batch in rows.row_batches((x, out), (weight, bias), n_norm_dims):
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
            kernel = _layer_norm_kernel[(grid,)](
                x_rows,
                weight,
                bias,
                out_rows,
                None if mean is None else mean[batch.first_row :],
                None if rstd is None else rstd[batch.first_row :],
                *rest,
                **launch.options(),
            )
            if batch.whole:
                pointers = (0, 1, 2, 3, *((4, 5) if statistics else (None, None)))
                repeat.keep(key, kernel, grid, x, (out, *statistics), pointers, rest)
    return out
