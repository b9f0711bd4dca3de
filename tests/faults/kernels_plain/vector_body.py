"""Layer norm whose rows are taken in whole vectors, and what is left of them by itself."""

import torch
import triton
import triton.language as tl

from fuzz.targets import target


@triton.jit
def _vector_body_kernel(
    x_ptr,  # fp16, bf16 or fp32 (n_rows, n_cols)
    y_ptr,  # dtype and shape of x
    n_cols,  # int: columns of a row
    eps,  # fp32: added to the variance
    VECTOR: tl.constexpr,  # columns of a vector
    BLOCK: tl.constexpr,  # a power of two that holds the row
):
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * n_cols
    y_ptr += row * n_cols
    left = n_cols % VECTOR
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols - left
    x = tl.load(x_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    last_cols = n_cols - left + tl.arange(0, VECTOR)
    last_mask = last_cols < n_cols
    last = tl.load(x_ptr + last_cols, mask=last_mask, other=0.0).to(tl.float32)
    total = tl.sum(x)
    if left > 0:
        total += tl.sum(last)
    mean = total / n_cols
    centred = tl.where(mask, x - mean, 0.0)
    last_centred = tl.where(last_mask, last - mean, 0.0)
    squares = tl.sum(centred * centred) + tl.sum(last_centred * last_centred)
    rstd = 1.0 / tl.sqrt(squares / n_cols + eps)
    tl.store(y_ptr + cols, (centred * rstd).to(y_ptr.dtype.element_ty), mask=mask)
    tl.store(y_ptr + last_cols, (last_centred * rstd).to(y_ptr.dtype.element_ty), mask=last_mask)


@target()
def vector_body(x, *, eps):
    """Layer norm of contiguous rows in vectors of 16 and a rest"""
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    block = triton.next_power_of_2(n_cols)
    _vector_body_kernel[(x.numel() // n_cols,)](x, y, n_cols, eps, VECTOR=16, BLOCK=block)
    return y
