"""Layer norm with several programs a row, which leave their partial sums to the next launch."""

import torch
import triton
import triton.language as tl

from fuzz.targets import target

SPLITS = 4


@triton.jit
def _sums_kernel(
    x_ptr,  # fp16, bf16 or fp32 (n_rows, n_cols)
    sums_ptr,  # fp32 (n_rows, SPLITS): of the columns of each part
    n_cols,  # int: columns of a row
    part,  # int: columns of a part, but for the last ones
    SPLITS: tl.constexpr,  # parts of a row
    BLOCK: tl.constexpr,  # a power of two that holds a part
):
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    cols = split * part + tl.arange(0, BLOCK)
    mask = (cols < (split + 1) * part) & (cols < n_cols)
    x = tl.load(x_ptr + row * n_cols + cols, mask=mask, other=0.0).to(tl.float32)
    tl.store(sums_ptr + row * SPLITS + split, tl.sum(x))


@triton.jit
def _squares_kernel(
    x_ptr,  # these as above
    sums_ptr,
    squares_ptr,  # fp32 (n_rows, SPLITS): of the differences from the mean
    n_cols,
    part,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    parts = row * SPLITS + tl.arange(0, SPLITS)
    mean = tl.sum(tl.load(sums_ptr + parts)) / n_cols
    cols = split * part + tl.arange(0, BLOCK)
    mask = (cols < (split + 1) * part) & (cols < n_cols)
    x = tl.load(x_ptr + row * n_cols + cols, mask=mask, other=0.0).to(tl.float32)
    centred = tl.where(mask, x - mean, 0.0)
    tl.store(squares_ptr + row * SPLITS + split, tl.sum(centred * centred))


@triton.jit
def _norm_kernel(
    x_ptr,  # these as above
    sums_ptr,
    squares_ptr,
    weight_ptr,  # dtype of x (n_cols,)
    y_ptr,  # dtype and shape of x
    mean_ptr,  # fp32 (n_rows,): every program of a row stores the same
    rstd_ptr,  # fp32 (n_rows,): likewise
    n_cols,
    part,
    eps,  # fp32: added to the variance
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    parts = row * SPLITS + tl.arange(0, SPLITS)
    mean = tl.sum(tl.load(sums_ptr + parts)) / n_cols
    rstd = 1.0 / tl.sqrt(tl.sum(tl.load(squares_ptr + parts)) / n_cols + eps)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)
    cols = split * part + tl.arange(0, BLOCK)
    mask = (cols < (split + 1) * part) & (cols < n_cols)
    x = tl.load(x_ptr + row * n_cols + cols, mask=mask, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    y = (x - mean) * rstd * weight
    tl.store(y_ptr + row * n_cols + cols, y.to(y_ptr.dtype.element_ty), mask=mask)


@target(returns=("y", "mean", "rstd"))
def split_rows(x, weight, *, eps):
    """Layer norm of contiguous rows with four programs a row, in three launches"""
    y = torch.empty_like(x)
    mean = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    rstd = torch.empty_like(mean)
    n_cols = x.shape[-1]
    n_rows = x.numel() // n_cols
    sums = torch.empty(n_rows, SPLITS, dtype=torch.float32, device=x.device)
    squares = torch.empty_like(sums)
    part = triton.cdiv(n_cols, SPLITS)
    sizes = {"SPLITS": SPLITS, "BLOCK": triton.next_power_of_2(part)}
    _sums_kernel[(n_rows, SPLITS)](x, sums, n_cols, part, **sizes)
    _squares_kernel[(n_rows, SPLITS)](x, sums, squares, n_cols, part, **sizes)
    _norm_kernel[(n_rows, SPLITS)](
        x, sums, squares, weight, y, mean, rstd, n_cols, part, eps, **sizes
    )
    return y, mean, rstd
