"""Planted faults, one for each tool of compute-sanitizer: what it does not report, it does not see.

Imported in the kernel process alone, on a GPU.
"""
# Triton's decorator takes functions as they are.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

SIZE = tl.constexpr(128)
"""Elements of the memory around the faults, and threads of the launches: four warps."""


@triton.jit
def _write_behind(
    out_ptr,  # *fp32, (SIZE,)
):
    tl.store(out_ptr + SIZE, 1.0)


@triton.jit
def _share_one_cell(
    out_ptr,  # *i32, (SIZE,)
):
    # All threads store to one word of shared memory and load it again, in no order.
    lanes = tl.arange(0, SIZE)
    seen = tl.inline_asm_elementwise(
        """{
        .shared .align 4 .b32 cell;
        st.volatile.shared.b32 [cell], $1;
        ld.volatile.shared.b32 $0, [cell];
        }""",
        "=r,r",
        [lanes],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
    tl.store(out_ptr + lanes, seen)


@triton.jit
def _read_unwritten(
    in_ptr,  # *fp32, (SIZE,), never written
    out_ptr,  # *fp32, (SIZE,)
):
    lanes = tl.arange(0, SIZE)
    tl.store(out_ptr + lanes, tl.load(in_ptr + lanes))


def show(tool: str) -> None:
    """Launch the fault that ``tool`` must report, and wait for its end.

    Raises: KeyError for an unknown tool; RuntimeError where the tool ends the launch so.
    """
    kernel, dtypes = {
        "memcheck": (_write_behind, (torch.float32,)),
        "racecheck": (_share_one_cell, (torch.int32,)),
        "initcheck": (_read_unwritten, (torch.float32, torch.float32)),
    }[tool]
    memory = [torch.empty(SIZE.value, dtype=dtype, device="cuda") for dtype in dtypes]
    kernel[(1,)](*memory)
    torch.cuda.synchronize()
