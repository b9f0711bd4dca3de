"""Targets whose kernels compile, or do not, each in its own way."""

import torch
import triton
import triton.language as tl

from fuzz.targets import target

# As files do that choose configurations for the GPU at hand.
ON_HIP = triton.runtime.driver.active.get_current_target().backend == "hip"


@triton.jit
def _scale(x_ptr, y_ptr, n_cols, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * n_cols + cols, mask=cols < n_cols, other=0.0)
    tl.store(y_ptr + row * n_cols + cols, x * eps, mask=cols < n_cols)


@target(dtypes=("float32", "float16"), blocks=(32, 64, 128), strided=True)
def scale(x, *, eps, block):
    y = torch.empty_like(x)
    _scale[(x.shape[0],)](x, y, x.shape[-1], eps, BLOCK=block or 256, num_warps=1)
    return y


@triton.jit
def _squared(x):
    return x.squared()  # no such method


@triton.jit
def _branches(x_ptr, y_ptr, n_cols, eps, IS_RMS: tl.constexpr, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + cols, mask=cols < n_cols, other=0.0)
    if IS_RMS:
        x = x * tl.sum(_squared(x), axis=0)
    tl.store(y_ptr + cols, x + eps, mask=cols < n_cols)


@target(dtypes=("float32",))
def broken_branch(x, *, eps, is_rms_norm):
    y = torch.empty_like(x)
    _branches[(1,)](x, y, x.shape[-1], eps, IS_RMS=is_rms_norm, BLOCK=64, num_warps=1)
    return y


@triton.jit
def _transposed(x_ptr, y_ptr, eps, BLOCK: tl.constexpr):
    rows = tl.arange(0, BLOCK)
    tile = rows[:, None] * BLOCK + rows[None, :]
    tl.store(y_ptr + tile, tl.trans(tl.load(x_ptr + tile)) * eps)


@target(dtypes=("float32",))
def greedy(x, *, eps):
    """Transposes a tile of 256 KiB by way of shared memory."""
    y = torch.empty_like(x)
    _transposed[(1,)](x, y, eps, BLOCK=256, num_warps=16)
    return y


@triton.jit
def _centred(x_ptr, y_ptr, n_cols, eps, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + cols, mask=cols < n_cols, other=0.0)
    tl.store(y_ptr + cols, x - tl.sum(x, axis=0) * eps, mask=cols < n_cols)


@target(dtypes=("float32",))
def spilling(x, *, eps):
    """Keeps 32 or 64 values a thread, in fewer registers than that."""
    y = torch.empty_like(x)
    scarce = {"waves_per_eu": 8} if ON_HIP else {"maxnreg": 32}
    block = 8192 if ON_HIP else 2048
    _centred[(1,)](x, y, x.shape[-1], eps, BLOCK=block, num_warps=1, **scarce)
    return y


@target(dtypes=("float32",))
def many_threads(x, *, eps):
    y = torch.empty_like(x)
    _centred[(1,)](x, y, x.shape[-1], eps, BLOCK=64, num_warps=32)
    return y


_tuned = triton.autotune(
    configs=[triton.Config({"BLOCK": block}, num_warps=1) for block in (64, 128)], key=["n_cols"]
)(_centred)


@target(dtypes=("float32",))
def tuned(x, *, eps):
    """An autotuner that the target does not declare."""
    y = torch.empty_like(x)
    _tuned[(1,)](x, y, x.shape[-1], eps)
    return y


@target(dtypes=("float32",))
def on_a_gpu(x, *, eps):
    assert x.is_cuda
    return torch.empty_like(x)


@target(dtypes=("float32",))
def reads_a_result(x, *, eps):
    y = torch.empty_like(x)
    _scale[(x.shape[0],)](x, y, x.shape[-1], eps, BLOCK=256, num_warps=1)
    if y.max() > 0:
        y = y + 1
    return y


@target(dtypes=("float32",))
def without_triton(x, *, eps):
    return x * eps


@target(dtypes=("float32",), devices=("cpu",))
def on_a_cpu(x, *, eps):
    return x * eps
