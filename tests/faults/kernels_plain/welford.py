"""Layer norm in blocks of columns, whose means and squares are merged one by one."""

import torch
import triton
import triton.language as tl

from fuzz.targets import target
from oracle.arithmetic import Arithmetic


@triton.jit
def _welford_kernel(
    x_ptr,  # fp16, bf16 or fp32 (n_rows, n_cols)
    y_ptr,  # dtype and shape of x
    n_cols,  # int: columns of a row
    eps,  # fp32: added to the variance
    BLOCK: tl.constexpr,  # columns a step
):
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * n_cols
    y_ptr += row * n_cols
    # Of the columns before `start`: their mean, and the squares of their differences from it.
    mean = tl.sum(tl.zeros([BLOCK], dtype=tl.float32))
    squares = tl.sum(tl.zeros([BLOCK], dtype=tl.float32))
    start = 0
    while start < n_cols:
        cols = start + tl.arange(0, BLOCK)
        mask = cols < n_cols
        x = tl.load(x_ptr + cols, mask=mask, other=0.0).to(tl.float32)
        count = tl.minimum(n_cols - start, BLOCK)
        block_mean = tl.sum(x) / count
        centred = tl.where(mask, x - block_mean, 0.0)
        step = block_mean - mean
        share = tl.cast(count, tl.float32) / (start + count)
        mean += step * share
        squares += tl.sum(centred * centred)
        squares += step * step * start * share
        start += BLOCK
    rstd = 1.0 / tl.sqrt(squares / n_cols + eps)
    start = 0
    while start < n_cols:
        cols = start + tl.arange(0, BLOCK)
        mask = cols < n_cols
        x = tl.load(x_ptr + cols, mask=mask, other=0.0).to(tl.float32)
        y = (x - mean) * rstd
        tl.store(y_ptr + cols, y.to(y_ptr.dtype.element_ty), mask=mask)
        start += BLOCK


@target(blocks=(32, 128, 1024), arithmetic=Arithmetic(variance="welford"))
def welford(x, *, eps, block):
    """Layer norm of contiguous rows, the variance by merging blocks"""
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    _welford_kernel[(x.numel() // n_cols,)](x, y, n_cols, eps, BLOCK=block)
    return y
