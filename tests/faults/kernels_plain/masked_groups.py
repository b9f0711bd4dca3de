"""Layer norm of groups of columns, all groups of a row in one block, told apart by masks."""

import torch
import triton
import triton.language as tl

from fuzz.targets import target


@triton.jit
def _masked_groups_kernel(
    x_ptr,  # fp16, bf16 or fp32 (n_rows, n_cols)
    y_ptr,  # dtype and shape of x
    n_cols,  # int: columns of a row
    group_size,  # int: columns of a group
    eps,  # fp32: added to the variance
    BLOCK: tl.constexpr,  # a power of two that holds the row
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x = tl.load(x_ptr + row * n_cols + cols, mask=mask, other=0.0).to(tl.float32)
    y = x
    first = 0
    while first < n_cols:
        in_group = (cols >= first) & (cols < first + group_size)
        mean = tl.sum(tl.where(in_group, x, 0.0)) / group_size
        centred = tl.where(in_group, x - mean, 0.0)
        rstd = 1.0 / tl.sqrt(tl.sum(centred * centred) / group_size + eps)
        y = tl.where(in_group, centred * rstd, y)
        first += group_size
    tl.store(y_ptr + row * n_cols + cols, y.to(y_ptr.dtype.element_ty), mask=mask)


@target(max_cols=4096)
def masked_groups(x, *, eps, group_size):
    """Layer norm of groups of columns, one program a row"""
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    block = triton.next_power_of_2(n_cols)
    grid = (x.numel() // n_cols,)
    _masked_groups_kernel[grid](x, y, n_cols, group_size or n_cols, eps, BLOCK=block)
    return y
