"""Layer norm that sums rows by matrix products, sixteen rows a program."""

import torch
import triton
import triton.language as tl

from fuzz.targets import target
from oracle.arithmetic import Arithmetic, Depth

# The least that a matrix product takes in each dim.
ROWS = 16


@triton.jit
def _row_sums(
    x,  # fp32 (ROWS, BLOCK)
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The sums of the rows, fp32 (ROWS,)."""
    ones = tl.full([BLOCK, ROWS], 1.0, tl.float32)
    # Every column of the product is the same.
    return tl.max(tl.dot(x, ones, input_precision="ieee"), axis=1)


@triton.jit
def _dot_sums_kernel(
    x_ptr,  # fp32 (n_rows, n_cols)
    y_ptr,  # fp32 (n_rows, n_cols)
    n_rows,  # int: rows of all programs
    n_cols,  # int: columns of a row
    eps,  # fp32: added to the variance
    ROWS: tl.constexpr,  # rows a program
    BLOCK: tl.constexpr,  # a power of two that holds a row
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.arange(0, BLOCK)
    mask = (rows[:, None] < n_rows) & (cols[None, :] < n_cols)
    at = rows[:, None] * n_cols + cols[None, :]
    x = tl.load(x_ptr + at, mask=mask, other=0.0)
    mean = _row_sums(x, ROWS, BLOCK) / n_cols
    centred = tl.where(mask, x - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt(_row_sums(centred * centred, ROWS, BLOCK) / n_cols + eps)
    tl.store(y_ptr + at, centred * rstd[:, None], mask=mask)


# A matrix product may add its terms one after the other.
@target(dtypes=("float32",), max_cols=512, arithmetic=Arithmetic(depth=Depth(kind="linear")))
def dot_sums(x, *, eps):
    """Layer norm of contiguous rows, the sums by matrix products"""
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    n_rows = x.numel() // n_cols
    block = max(triton.next_power_of_2(n_cols), 16)
    grid = (triton.cdiv(n_rows, ROWS),)
    _dot_sums_kernel[grid](x, y, n_rows, n_cols, eps, ROWS=ROWS, BLOCK=block)
    return y
