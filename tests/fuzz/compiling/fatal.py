"""A target that ends the compiler's process, or asks it for what it may not have."""

import os

import torch
import triton
import triton.compiler as compiler
import triton.language as tl

from fuzz.targets import target
from tests.fuzz.compiling.fatal_kinds import ABORTS, EATS_MEMORY, EXITS, PASSES


@triton.jit
def _copy(x_ptr, y_ptr, n_cols, KIND: tl.constexpr, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + cols, mask=cols < n_cols, other=0.0)
    if KIND == 5:
        # An instruction that there is none of: found by the assembler alone.
        x = tl.inline_asm_elementwise("bogus $0, $1;", "=r,r", [x], tl.float32, True, 1)
    tl.store(y_ptr + cols, x, mask=cols < n_cols)


def _compile(source, **options):
    kind = source.constants[(3,)]
    if kind == ABORTS:
        os.write(2, b"LLVM ERROR: out of registers\n")
        os.abort()
    if kind == EXITS:
        os._exit(0)
    if kind == EATS_MEMORY:
        bytearray(4 << 30)
    return _stock_compile(source, **options)


_stock_compile = compiler.compile
compiler.compile = _compile


@target(dtypes=("float32",), eps=1e-5, group_size=(1, 2, 3, 4, 5))
def fatal(x, *, group_size):
    y = torch.empty_like(x)
    _copy[(1,)](x, y, x.shape[-1], KIND=group_size, BLOCK=64, num_warps=1)
    return y


@target(dtypes=("float32",), eps=1e-5, group_size=(1, 2, 3))
def deadly(x, *, group_size):
    """A wrapper that ends its process, for one group size."""
    if group_size == 2:
        os._exit(3)
    y = torch.empty_like(x)
    _copy[(1,)](x, y, x.shape[-1], KIND=PASSES, BLOCK=32 if group_size == 1 else 128, num_warps=1)
    return y
