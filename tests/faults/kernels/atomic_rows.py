"""Layer norm with two programs a row, which add their partial sums up with atomics."""

import torch
import triton
import triton.language as tl

from fuzz.targets import target

# A sum of two is the same in either order; of more, its last bits would depend on who comes first.
SPLITS = 2


@triton.jit
def _sums_kernel(
    x_ptr,  # fp16, bf16 or fp32 (n_rows, n_cols)
    sums_ptr,  # fp32 (n_rows,), zeros
    n_cols,  # int: columns of a row
    part,  # int: columns of a program's part, but for the last ones
    BLOCK: tl.constexpr,  # a power of two that holds a part
):
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    cols = split * part + tl.arange(0, BLOCK)
    mask = (cols < (split + 1) * part) & (cols < n_cols)
    x = tl.load(x_ptr + row * n_cols + cols, mask=mask, other=0.0).to(tl.float32)
    tl.atomic_add(sums_ptr + row, tl.sum(x))


@triton.jit
def _squares_kernel(
    x_ptr,  # these as above
    sums_ptr,
    squares_ptr,  # fp32 (n_rows,), zeros
    n_cols,
    part,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    mean = tl.load(sums_ptr + row) / n_cols
    cols = split * part + tl.arange(0, BLOCK)
    mask = (cols < (split + 1) * part) & (cols < n_cols)
    x = tl.load(x_ptr + row * n_cols + cols, mask=mask, other=0.0).to(tl.float32)
    centred = tl.where(mask, x - mean, 0.0)
    tl.atomic_add(squares_ptr + row, tl.sum(centred * centred))


@triton.jit
def _norm_kernel(
    x_ptr,  # these as above
    sums_ptr,
    squares_ptr,
    y_ptr,  # dtype and shape of x
    n_cols,
    part,
    eps,  # fp32: added to the variance
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    mean = tl.load(sums_ptr + row) / n_cols
    rstd = 1.0 / tl.sqrt(tl.load(squares_ptr + row) / n_cols + eps)
    cols = split * part + tl.arange(0, BLOCK)
    mask = (cols < (split + 1) * part) & (cols < n_cols)
    x = tl.load(x_ptr + row * n_cols + cols, mask=mask, other=0.0).to(tl.float32)
    y = (x - mean) * rstd
    tl.store(y_ptr + row * n_cols + cols, y.to(y_ptr.dtype.element_ty), mask=mask)


@target()
def atomic_rows(x, *, eps):
    """Layer norm of contiguous rows with two programs a row and atomic sums"""
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    n_rows = x.numel() // n_cols
    sums = torch.zeros(n_rows, dtype=torch.float32, device=x.device)
    squares = torch.zeros_like(sums)
    part = triton.cdiv(n_cols, SPLITS)
    block = triton.next_power_of_2(part)
    grid = (n_rows, SPLITS)
    _sums_kernel[grid](x, sums, n_cols, part, BLOCK=block)
    _squares_kernel[grid](x, sums, squares, n_cols, part, BLOCK=block)
    _norm_kernel[grid](x, sums, squares, y, n_cols, part, eps, BLOCK=block)
    return y
