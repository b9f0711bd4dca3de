"""Layer norm in blocks, the last of which is moved back so that it ends where the row ends.

No store has a mask: the columns that two blocks share are computed and stored twice, alike.
"""

import torch
import triton
import triton.language as tl

from fuzz.targets import target

MAX_BLOCK = 1024


@triton.jit
def _shifted_tail_kernel(
    x_ptr,  # fp16, bf16 or fp32 (n_rows, n_cols)
    weight_ptr,  # dtype of x (n_cols,)
    bias_ptr,  # dtype of x (n_cols,)
    y_ptr,  # dtype and shape of x
    n_cols,  # int: columns of a row, at least BLOCK
    eps,  # fp32: added to the variance
    BLOCK: tl.constexpr,  # columns a step
):
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * n_cols
    y_ptr += row * n_cols
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    start = 0
    while start < n_cols:
        cols = start + lanes
        total += tl.load(x_ptr + cols, mask=cols < n_cols, other=0.0).to(tl.float32)
        start += BLOCK
    mean = tl.sum(total) / n_cols
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    start = 0
    while start < n_cols:
        cols = start + lanes
        x = tl.load(x_ptr + cols, mask=cols < n_cols, other=0.0).to(tl.float32)
        centred = tl.where(cols < n_cols, x - mean, 0.0)
        squares += centred * centred
        start += BLOCK
    rstd = 1.0 / tl.sqrt(tl.sum(squares) / n_cols + eps)
    start = 0
    while start < n_cols:
        cols = tl.minimum(start, n_cols - BLOCK) + lanes
        x = tl.load(x_ptr + cols).to(tl.float32)
        weight = tl.load(weight_ptr + cols).to(tl.float32)
        bias = tl.load(bias_ptr + cols).to(tl.float32)
        y = (x - mean) * rstd * weight + bias
        tl.store(y_ptr + cols, y.to(y_ptr.dtype.element_ty))
        start += BLOCK


@target()
def shifted_tail(x, weight, bias, *, eps):
    """Layer norm of contiguous rows, without a mask on any store"""
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    # The largest power of two that a row holds.
    block = min(1 << (n_cols.bit_length() - 1), MAX_BLOCK)
    grid = (x.numel() // n_cols,)
    _shifted_tail_kernel[grid](x, weight, bias, y, n_cols, eps, BLOCK=block)
    return y
