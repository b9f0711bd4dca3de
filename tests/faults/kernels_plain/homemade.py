"""Gated RMS norm with a reciprocal root and a sigmoid of its own."""

import torch
import triton
import triton.language as tl

from fuzz.targets import target

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _rsqrt(
    value,  # fp32 scalar, at least 0
):
    """1 / sqrt(value), by Newton's method."""
    # Halving the exponent and changing its sign is right to 4 %; each step squares the error.
    bits = 0x5F3759DF - (value.to(tl.int32, bitcast=True) >> 1)
    root = bits.to(tl.float32, bitcast=True)
    for _ in tl.static_range(3):
        root = root * (1.5 - 0.5 * value * root * root)
    return tl.where(value == float("inf"), 0.0, root)


@triton.jit
def _sigmoid(
    z,  # fp32, any shape
):
    """1 / (1 + exp(-z))."""
    return 1.0 / (1.0 + tl.exp2(-z * LOG2E))


@triton.jit
def _homemade_kernel(
    x_ptr,  # fp16, bf16 or fp32 (n_rows, n_cols)
    weight_ptr,  # dtype of x (n_cols,)
    z_ptr,  # dtype and shape of x
    y_ptr,  # dtype and shape of x
    n_cols,  # int: columns of a row
    eps,  # fp32: added to the mean square
    BLOCK: tl.constexpr,  # a power of two that holds the row
):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    at = row * n_cols + cols
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    z = tl.load(z_ptr + at, mask=mask, other=0.0).to(tl.float32)
    y = x * _rsqrt((tl.sum(x * x) / n_cols + eps).to(tl.float32)) * weight * (z * _sigmoid(z))
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=mask)


@target(is_rms_norm=True, norm_before_gate=True)
def homemade(x, weight, z, *, eps):
    """RMS norm of contiguous rows, gated, without the library's root and sigmoid"""
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    block = triton.next_power_of_2(n_cols)
    _homemade_kernel[(x.numel() // n_cols,)](x, weight, z, y, n_cols, eps, BLOCK=block)
    return y
