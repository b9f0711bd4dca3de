"""Layer norm with several whole rows a program."""

import torch
import triton
import triton.language as tl

from fuzz.targets import target

ROWS = 4


@triton.jit
def _many_rows_kernel(
    x_ptr,  # fp16, bf16 or fp32 (n_rows, n_cols)
    y_ptr,  # dtype and shape of x
    n_rows,  # int: rows of all programs
    n_cols,  # int: columns of a row
    eps,  # fp32: added to the variance
    ROWS: tl.constexpr,  # rows a program
    BLOCK: tl.constexpr,  # a power of two that holds a row
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.arange(0, BLOCK)
    mask = (rows[:, None] < n_rows) & (cols[None, :] < n_cols)
    at = rows[:, None] * n_cols + cols[None, :]
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=1) / n_cols
    centred = tl.where(mask, x - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / n_cols + eps)
    y = centred * rstd[:, None]
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=mask)


@target(max_cols=8192)
def many_rows(x, *, eps):
    """Layer norm of contiguous rows, four a program"""
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    n_rows = x.numel() // n_cols
    block = triton.next_power_of_2(n_cols)
    grid = (triton.cdiv(n_rows, ROWS),)
    _many_rows_kernel[grid](x, y, n_rows, n_cols, eps, ROWS=ROWS, BLOCK=block)
    return y
