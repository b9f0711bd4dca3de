"""Layer norm that leaves its result in scratch memory and copies it from there, back to front."""

import torch
import triton
import triton.language as tl

from fuzz.targets import target


@triton.jit
def _scratch_rows_kernel(
    x_ptr,  # fp16, bf16 or fp32 (n_rows, n_cols)
    scratch_ptr,  # fp32, shape of x
    y_ptr,  # dtype and shape of x
    n_cols,  # int: columns of a row
    eps,  # fp32: added to the variance
    BLOCK: tl.constexpr,  # a power of two that holds the row
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x = tl.load(x_ptr + row * n_cols + cols, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(x) / n_cols
    centred = tl.where(mask, x - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred) / n_cols + eps)
    tl.store(scratch_ptr + row * n_cols + cols, centred * rstd, mask=mask)
    # Each thread goes on with columns that another one has left there.
    tl.debug_barrier()
    back = n_cols - 1 - cols
    y = tl.load(scratch_ptr + row * n_cols + back, mask=mask, other=0.0)
    tl.store(y_ptr + row * n_cols + back, y.to(y_ptr.dtype.element_ty), mask=mask)


@target(max_cols=32768, num_warps=(4, 16))
def scratch_rows(x, *, eps, num_warps):
    """Layer norm of contiguous rows, by way of scratch memory"""
    y = torch.empty_like(x)
    scratch = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    n_cols = x.shape[-1]
    grid = (x.numel() // n_cols,)
    block = triton.next_power_of_2(n_cols)
    _scratch_rows_kernel[grid](x, scratch, y, n_cols, eps, BLOCK=block, num_warps=num_warps)
    return y
