"""Layer norm with a fixed number of programs, each of which walks over many rows."""

import torch
import triton
import triton.language as tl

from fuzz.targets import target

PROGRAMS = 8


@triton.jit
def _persistent_rows_kernel(
    x_ptr,  # fp16, bf16 or fp32 (n_rows, n_cols)
    y_ptr,  # dtype and shape of x
    n_rows,  # int: rows of all programs
    n_cols,  # int: columns of a row
    eps,  # fp32: added to the variance
    BLOCK: tl.constexpr,  # columns a step
):
    total = tl.zeros([BLOCK], dtype=tl.float32)
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    row = tl.program_id(0).to(tl.int64)
    while row < n_rows:
        total = tl.zeros([BLOCK], dtype=tl.float32)  # anew for each row
        start = 0
        while start < n_cols:
            cols = start + tl.arange(0, BLOCK)
            mask = cols < n_cols
            total += tl.load(x_ptr + row * n_cols + cols, mask=mask, other=0.0).to(tl.float32)
            start += BLOCK
        mean = tl.sum(total) / n_cols
        squares = tl.zeros([BLOCK], dtype=tl.float32)  # anew for each row
        start = 0
        while start < n_cols:
            cols = start + tl.arange(0, BLOCK)
            mask = cols < n_cols
            x = tl.load(x_ptr + row * n_cols + cols, mask=mask, other=0.0).to(tl.float32)
            centred = tl.where(mask, x - mean, 0.0)
            squares += centred * centred
            start += BLOCK
        rstd = 1.0 / tl.sqrt(tl.sum(squares) / n_cols + eps)
        start = 0
        while start < n_cols:
            cols = start + tl.arange(0, BLOCK)
            mask = cols < n_cols
            x = tl.load(x_ptr + row * n_cols + cols, mask=mask, other=0.0).to(tl.float32)
            y = (x - mean) * rstd
            tl.store(y_ptr + row * n_cols + cols, y.to(y_ptr.dtype.element_ty), mask=mask)
            start += BLOCK
        row += tl.num_programs(0)


@target(blocks=(128, 1024))
def persistent_rows(x, *, eps, block):
    """Layer norm of contiguous rows with eight programs at most"""
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    n_rows = x.numel() // n_cols
    grid = (min(n_rows, PROGRAMS),)
    _persistent_rows_kernel[grid](x, y, n_rows, n_cols, eps, BLOCK=block)
    return y
