"""Layer norm of x + residual, with the mean and rstd of the sum."""

import torch
import triton
import triton.language as tl

from fuzz.targets import target


@triton.jit
def _residual_statistics_kernel(
    x_ptr,  # fp16, bf16 or fp32 (n_rows, n_cols)
    residual_ptr,  # dtype and shape of x
    y_ptr,  # dtype and shape of x
    mean_ptr,  # fp32 (n_rows,)
    rstd_ptr,  # fp32 (n_rows,)
    n_cols,  # int: columns of a row
    eps,  # fp32: added to the variance
    BLOCK: tl.constexpr,  # a power of two that holds the row
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    at = row * n_cols + cols
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    value = x + tl.load(residual_ptr + at, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(value) / n_cols
    centred = tl.where(mask, value - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred) / n_cols + eps)
    y = (value - mean) * rstd
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=mask)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)


@target(returns=("y", "mean", "rstd"))
def residual_statistics(x, residual, *, eps):
    """Layer norm of x + residual in contiguous rows, with mean and rstd"""
    y = torch.empty_like(x)
    mean = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    rstd = torch.empty_like(mean)
    n_cols = x.shape[-1]
    grid = (x.numel() // n_cols,)
    block = triton.next_power_of_2(n_cols)
    _residual_statistics_kernel[grid](x, residual, y, mean, rstd, n_cols, eps, BLOCK=block)
    return y, mean, rstd
