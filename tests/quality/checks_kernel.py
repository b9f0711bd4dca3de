"""A plain layer norm, correct: the ground for faults that one check alone can find."""

import dataclasses

import torch
import triton
import triton.language as tl

from fuzz.declaration import UNKNOWN_LAUNCH
from fuzz.spec import Refusal
from fuzz.targets import target


@triton.jit
def _rows_kernel(
    x_ptr,  # fp16, bf16 or fp32 (n_rows, n_cols)
    weight_ptr,  # dtype of x (n_cols,)
    out_ptr,  # dtype and shape of x
    mean_ptr,  # fp32 (n_rows,)
    x_stride,  # int: elements from one row of x to the next
    out_stride,  # int: likewise of out
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
    variance = tl.sum(centred * centred) / n_cols
    rstd = 1.0 / tl.sqrt(variance + eps)
    weight = tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    y = centred * rstd * weight
    tl.store(out_ptr + row * out_stride + cols, y.to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(mean_ptr + row, mean)


@target(
    returns=("y", "mean"),
    strided=True,
    ranks=(2, 2),
    # Each program has one mean and one rstd for its row.
    arithmetic=dataclasses.replace(UNKNOWN_LAUNCH, uniform=True),
    refuses=(Refusal("weight_shape", "ValueError", "weight"),),
)
def rows(x, weight, out=None, *, eps):
    """Layer norm of rows that may have gaps between them"""
    n_rows, n_cols = x.shape
    if weight.shape != (n_cols,):
        raise ValueError(f"weight.shape={tuple(weight.shape)}, must be ({n_cols},)")
    if out is None:
        out = torch.empty(n_rows, n_cols, dtype=x.dtype, device=x.device)
    mean = torch.empty(n_rows, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(n_cols)
    _rows_kernel[(n_rows,)](
        x, weight, out, mean, x.stride(0), out.stride(0), n_cols, eps, BLOCK=block
    )
    return out, mean
