"""Layer norms that compute the right values, each with one fault that a sanitizer alone can show.

On a GPU: ``ln-fuzz run --target tests/faults/sanitizer_kernels.py --sanitizer memcheck``. The line
of each fault ends with its name.
"""

import torch
import triton
import triton.language as tl

from fuzz.targets import target

FAR = 1 << 28
"""Elements, 1 GiB of fp32: beyond the memory of any case."""

RACE = tl.constexpr(
    """{
    .shared .align 4 .b32 cell;
    st.volatile.shared.b32 [cell], $1;
    ld.volatile.shared.b32 $0, [cell];
    }"""
)
"""All threads store to one word of shared memory and load it again, in no order."""


@triton.jit
def _kernel(
    x_ptr,  # any float, (n_rows, n_cols)
    weight_ptr,  # any float, (n_cols,)
    bias_ptr,  # any float, (n_cols,)
    y_ptr,  # the dtype of x, (n_rows, n_cols)
    scratch_ptr,  # *fp32, (n_rows,), never written
    n_elements,  # of x
    n_cols,
    eps,
    FAULT: tl.constexpr,
    DISTANCE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    start = row * n_cols
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x = tl.load(x_ptr + start + cols, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(x) / n_cols
    centred = tl.where(mask, x - mean, 0.0)
    variance = tl.sum(centred * centred) / n_cols
    weight = tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    y = centred * (1.0 / tl.sqrt(variance + eps)) * weight + bias
    # n_cols is never below 0, which the compiler does not know: no fault changes a value.
    never = n_cols < 0
    if FAULT == "read":
        behind = tl.load(x_ptr + n_elements + DISTANCE).to(tl.float32)  # over_read
        y = tl.where(never, behind, y)
    if FAULT == "write":
        tl.store(y_ptr + n_elements + DISTANCE, mean.to(y_ptr.dtype.element_ty))  # over_write
    if FAULT == "scratch":
        unwritten = tl.load(scratch_ptr + row)  # unwritten_scratch
        y = tl.where(never, unwritten, y)
    if FAULT == "race":
        raced = tl.inline_asm_elementwise(RACE, "=r,r", [cols], tl.int32, False, 1)  # shared_race
        y = tl.where(never, raced.to(tl.float32), y)
    tl.store(y_ptr + start + cols, y.to(y_ptr.dtype.element_ty), mask=mask)


def _layer_norm(x, weight, bias, eps, block, fault, distance=0):
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    n_rows = x.numel() // n_cols
    scratch = torch.empty(n_rows, dtype=torch.float32, device=x.device)
    _kernel[(n_rows,)](
        *(x, weight, bias, y, scratch),
        *(x.numel(), n_cols, eps),
        FAULT=fault,
        DISTANCE=distance,
        BLOCK=block,
        num_warps=4,
    )
    return y


_narrow = target(whole_row=True, max_cols=4096, devices=("cuda",))


@_narrow
def sound(x, weight, bias, *, eps, block):
    """No fault."""
    return _layer_norm(x, weight, bias, eps, block, "none")


@_narrow
def over_read(x, weight, bias, *, eps, block):
    """Reads one element behind the end of x."""
    return _layer_norm(x, weight, bias, eps, block, "read")


@_narrow
def far_over_read(x, weight, bias, *, eps, block):
    """Reads far behind x."""
    return _layer_norm(x, weight, bias, eps, block, "read", FAR)


@_narrow
def over_write(x, weight, bias, *, eps, block):
    """Writes one element behind the end of y."""
    return _layer_norm(x, weight, bias, eps, block, "write")


@_narrow
def far_over_write(x, weight, bias, *, eps, block):
    """Writes far behind y."""
    return _layer_norm(x, weight, bias, eps, block, "write", FAR)


@_narrow
def unwritten_scratch(x, weight, bias, *, eps, block):
    """Reads scratch that nobody wrote."""
    return _layer_norm(x, weight, bias, eps, block, "scratch")


@_narrow
def shared_race(x, weight, bias, *, eps, block):
    """All threads of a program write to one word of shared memory."""
    return _layer_norm(x, weight, bias, eps, block, "race")
