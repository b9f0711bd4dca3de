"""Layer norm of rows that lie so far apart that the last one is 2**31 elements from the first."""

import numpy as np
import torch
import triton
import triton.language as tl

from fuzz.targets import target

# One more than the largest int32.
REACH = 2**31


@triton.jit
def _far_rows_kernel(
    x_ptr,  # fp16 or bf16 (n_rows, n_cols)
    y_ptr,  # dtype and shape of x, contiguous
    x_stride,  # int: elements from one row of x to the next
    n_cols,  # int: columns of a row
    eps,  # fp32: added to the variance
    BLOCK: tl.constexpr,  # a power of two that holds the row
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x = tl.load(x_ptr + row * x_stride + cols, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(x) / n_cols
    centred = tl.where(mask, x - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred) / n_cols + eps)
    y = centred * rstd
    tl.store(y_ptr + row * n_cols + cols, y.to(y_ptr.dtype.element_ty), mask=mask)


def _zeros(n, like):
    """Zeros that take up memory on a CPU only where they are written."""
    if like.is_cuda:
        return torch.zeros(n, dtype=like.dtype, device=like.device)
    return torch.from_numpy(np.zeros(n, dtype=np.int16)).view(like.dtype)


# Half precision alone: 4 GiB of addresses instead of 8.
@target(dtypes=("float16", "bfloat16"), max_cols=2048)
def far_rows(x, *, eps):
    """Layer norm of rows that are copied far apart first"""
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    n_rows = x.numel() // n_cols
    far = x.view(n_rows, n_cols)
    # Two rows would need a stride that is no int32 itself, which Triton notices.
    if n_rows > 2:
        stride = -(-REACH // (n_rows - 1))
        memory = _zeros((n_rows - 1) * stride + n_cols, x)
        far = memory.as_strided((n_rows, n_cols), (stride, 1)).copy_(far)
    block = triton.next_power_of_2(n_cols)
    _far_rows_kernel[(n_rows,)](far, y, far.stride(0), n_cols, eps, BLOCK=block)
    return y
