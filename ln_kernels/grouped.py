"""The kernel that normalises groups of columns, with a gate before or after, and its launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ln_kernels import repeat, rows
from ln_kernels.blocks import normalize_rows, row_offset
from ln_kernels.launch import LaunchConfig, default_launch, on_device_of


@triton.jit(
    do_not_specialize=["size_1", "size_2", "size_3", "n_rows", "n_pairs", "n_groups", "n_vectors"]
)
def _gated_norm_kernel(
    x_ptr,  # fp16, bf16 or fp32 (*lead, n_groups * n_cols)
    weight_ptr,  # any of these dtypes (n_groups * n_cols,), or None
    bias_ptr,  # any of these dtypes (n_groups * n_cols,), or None
    z_before_ptr,  # any of these dtypes, shape of x: gate of the input, or None
    z_after_ptr,  # any of these dtypes, shape of x: gate of the output, or None
    out_ptr,  # dtype and shape of x
    mean_ptr,  # fp32 (n_groups * n_rows,), group by group, or None
    rstd_ptr,  # fp32 (n_groups * n_rows,), group by group
    size_1,  # int: size of the leading dim after the outermost, if there is one
    size_2,  # int: of the one after that, if there is one
    size_3,  # int: of the one after that, if there is one
    x_strides,  # tuple of ints: strides of x's leading dims, in vectors
    z_strides,  # tuple of ints: strides of z's leading dims, in vectors, or None
    out_strides,  # tuple of ints: strides of out's leading dims, in vectors
    n_rows,  # int: rows of the whole call, which may be more than those of this launch
    n_pairs,  # int: pairs of a row and a group, of this launch
    n_groups,  # int: groups of a row
    n_vectors,  # int: columns of a group, in vectors
    eps,  # fp32: added to the variance
    IS_RMS: tl.constexpr,  # do not subtract the mean
    ROWS: tl.constexpr,  # pairs of a program; these five as in normalize_rows
    PART: tl.constexpr,
    PARTS: tl.constexpr,
    MORE: tl.constexpr,
    VECTOR: tl.constexpr,
):
    pair = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    present = None
    if ROWS > 1:
        present = pair < n_pairs
    row = pair // n_groups
    group = pair % n_groups
    n_cols = n_vectors * VECTOR
    first_col = group * n_vectors * VECTOR
    x_ptr += row_offset(row, size_1, size_2, size_3, x_strides, VECTOR) + first_col
    out_ptr += row_offset(row, size_1, size_2, size_3, out_strides, VECTOR) + first_col
    if weight_ptr is not None:
        weight_ptr += first_col
    if bias_ptr is not None:
        bias_ptr += first_col
    if z_before_ptr is not None:
        z_before_ptr += row_offset(row, size_1, size_2, size_3, z_strides, VECTOR) + first_col
    if z_after_ptr is not None:
        z_after_ptr += row_offset(row, size_1, size_2, size_3, z_strides, VECTOR) + first_col
    mean, rstd = normalize_rows(
        x_ptr,
        None,
        None,
        z_before_ptr,
        weight_ptr,
        bias_ptr,
        z_after_ptr,
        out_ptr,
        None,
        present,
        n_cols,
        eps,
        IS_RMS,
        ROWS,
        PART,
        PARTS,
        MORE,
        VECTOR,
    )
    if mean_ptr is not None:
        tl.store(mean_ptr + group * n_rows + row, mean, mask=present)
    tl.store(rstd_ptr + group * n_rows + row, rstd, mask=present)


def grouped_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    z: Tensor | None,
    out: Tensor | None,
    group_size: int | None,
    norm_before_gate: bool,
    is_rms_norm: bool,
    launch: LaunchConfig | None,
    *,
    function: str,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Check every argument, launch, and return (out, mean or None, rstd)."""
    inputs = (x, weight, bias, z)
    key = None
    if out is None:
        key = repeat.key_of(
            function, inputs, eps, group_size, norm_before_gate, is_rms_norm, launch
        )
    done = repeat.again(key, inputs)
    if done is not None:
        return done[0], None if is_rms_norm else done[2], done[1]
    n_cols = rows.check_x(x, function)
    rows.check_vector("weight", weight, (n_cols,), x, function)
    rows.check_vector("bias", bias, (n_cols,), x, function)
    if z is not None:
        rows.check_rows("z", z, x, function)
    eps = rows.check_eps(eps, function)
    group_size = rows.check_group_size(group_size, n_cols, function)
    rows.check_launch(launch, function)
    out = rows.output(
        "out",
        out,
        x,
        function,
        in_place_of={"x": x, "z": z},
        apart_from={"weight": weight, "bias": bias},
    )
    launch = launch or default_launch(group_size, x.element_size())
    n_rows, n_groups = x.numel() // n_cols, n_cols // group_size
    rstd = torch.empty(n_groups * n_rows, dtype=torch.float32, device=x.device)
    mean = None if is_rms_norm else torch.empty_like(rstd)
    tensors = (x, out) if z is None else (x, out, z)
    with on_device_of(x):
        for batch in rows.row_batches(tensors, (weight, bias), 1, n_groups):
            x_rows, out_rows, *z_rows = batch.tensors
            x_strides, out_strides, *z_strides = batch.strides
            z_ptr = z_rows[0] if z_rows else None
            n_pairs = batch.n_rows * n_groups
            tiling = launch.tiling(group_size, batch.vector)
            grid = tiling.programs(n_pairs)
            rest = (
                *batch.inner_sizes,
                x_strides,
                z_strides[0] if z_strides else None,
                out_strides,
                n_rows,
                n_pairs,
                n_groups,
                group_size // batch.vector,
                eps,
                bool(is_rms_norm),
                *tiling.constants(),
            )
            kernel = _gated_norm_kernel[(grid,)](
                x_rows,
                weight,
                bias,
                None if norm_before_gate else z_ptr,
                z_ptr if norm_before_gate else None,
                out_rows,
                None if mean is None else mean[batch.first_row :],
                rstd[batch.first_row :],
                *rest,
                **launch.options(),
            )
            if batch.whole:
                gates = (None, 3) if norm_before_gate else (3, None)
                outputs = (out, rstd) if mean is None else (out, rstd, mean)
                pointers = (0, 1, 2, *gates, 4, None if mean is None else 6, 5)
                repeat.keep(key, kernel, grid, x, outputs, pointers, rest)
    return out, mean, rstd
