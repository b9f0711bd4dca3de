"""Layer norm of the rows of a matrix that may lie apart, at any place of their memory."""

import torch
import triton
import triton.language as tl

from fuzz.targets import target


@triton.jit
def _strided_rows_kernel(
    x_ptr,  # fp16, bf16 or fp32 (n_rows, n_cols)
    weight_ptr,  # dtype of x (n_cols,)
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
    weight = tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(x) / n_cols
    centred = tl.where(mask, x - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred) / n_cols + eps)
    y = centred * rstd * weight
    tl.store(y_ptr + row * n_cols + cols, y.to(y_ptr.dtype.element_ty), mask=mask)


@target(strided=True, ranks=(2, 2))
def strided_rows(x, weight, *, eps):
    """Layer norm of a matrix with gaps between its rows"""
    n_rows, n_cols = x.shape
    y = torch.empty(n_rows, n_cols, dtype=x.dtype, device=x.device)
    stride = x.stride(0)
    # A matrix of one column may have any stride of its columns.
    rows = x.as_strided((n_rows, n_cols), (stride, 1), x.storage_offset())
    block = triton.next_power_of_2(n_cols)
    _strided_rows_kernel[(n_rows,)](rows, weight, y, stride, n_cols, eps, BLOCK=block)
    return y
