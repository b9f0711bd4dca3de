"""How a kernel is launched: the block of columns, the warps, and whether FMA may be formed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# Triton's own limit on the elements of one tensor inside a kernel.
MAX_BLOCK = 2**20
NUM_WARPS = (1, 2, 4, 8, 16, 32)

# A program takes several short rows, so that its threads have enough to load; more of them than
# this would make tiles of many rows and few columns, which cost registers for their addresses.
_MAX_ROWS = 16
# A tile gives each thread at least this many columns, two vector loads of 4 bytes an element or one
# of 2; fewer where each is a load of its own. More are no faster.
_COLS_PER_THREAD = 8
_SINGLE_COLS_PER_THREAD = 4
# Wider tiles leave the compiler less room to order loads, and were slower from 32768 columns on.
_MAX_PART = 8192
# Lanes past the end of a row cost as much as those within: tiles leave out what they can of a
# block, in eighths. They are unrolled, and each number of them is a kernel of its own.
_MAX_PARTS = 8
_THREADS_PER_WARP = 32


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a program walks its rows, in tiles of `rows` rows and `part` columns."""

    rows: int  # rows of a program
    part: int  # columns of a tile, a power of two
    parts: int  # tiles of a row that stay in registers
    more: bool  # the row goes on past those
    vector: int  # neighbouring columns that are aligned in every tensor

    def programs(self, n_rows: int) -> int:
        """How many programs take that many rows."""
        return -(-n_rows // self.rows)

    def constants(self) -> tuple[int, int, int, bool, int]:
        """The last arguments of a kernel: ROWS, PART, PARTS, MORE, VECTOR."""
        return self.rows, self.part, self.parts, self.more, self.vector


@dataclass(frozen=True, slots=True)
class LaunchConfig:
    """How many elements a program holds at once, with how many warps.

    Shapes: `block` columns of a row, a power of two, or several rows of which as many fit; of a
        wider row the first block is read once, the rest again for each pass.
    Raises: ValueError when a value is outside its range, TypeError when it is of another kind.
    """

    block: int
    num_warps: int
    # Whether a multiply and an add may become one FMA. Pinned at every launch, because Triton's
    # default changes between releases.
    fp_fusion: bool = True

    def __post_init__(self) -> None:
        for name in ("block", "num_warps"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name}={value!r}, must be an int [LaunchConfig]")
        if not isinstance(self.fp_fusion, bool):
            raise TypeError(f"fp_fusion={self.fp_fusion!r}, must be a bool [LaunchConfig]")
        if not 1 <= self.block <= MAX_BLOCK or self.block & (self.block - 1):
            raise ValueError(
                f"block={self.block}, must be a power of two in 1 ... {MAX_BLOCK} [LaunchConfig]"
            )
        if self.num_warps not in NUM_WARPS:
            raise ValueError(
                f"num_warps={self.num_warps}, must be one of {NUM_WARPS} [LaunchConfig]"
            )

    def tiling(self, n_cols: int, vector: int) -> Tiling:
        """How rows of n_cols >= 1 are walked, whose columns are aligned `vector` by `vector`."""
        width = min(self.block, next_power_of_2(n_cols))
        per_thread = _COLS_PER_THREAD if vector > 1 else _SINGLE_COLS_PER_THREAD
        least = _THREADS_PER_WARP * self.num_warps * per_thread
        finest = max(width // _MAX_PARTS, 1)
        if n_cols <= width:
            # The widest tile of which a whole number covers the eighths that the row reaches into.
            covered = _rounded_up(n_cols, finest)
            part = min(max(covered & -covered, least), width)
            part = max(min(part, _MAX_PART), finest)
        else:
            part = min(max(finest, least), width)
        return Tiling(
            rows=min(self.block // width, _MAX_ROWS),
            part=part,
            parts=_rounded_up(min(n_cols, width), part) // part,
            more=n_cols > width,
            vector=vector,
        )

    def options(self) -> dict[str, Any]:
        """The keyword arguments of a kernel launch that are not arguments of the kernel."""
        return {"num_warps": self.num_warps, "enable_fp_fusion": self.fp_fusion}


def _rounded_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least n (n >= 1)."""
    return 1 << (n - 1).bit_length()


# Block and warps by bytes of an element and the power of two that holds a row, each the fastest of
# those tried on an H200, over many rows and over 4096. Halves and floats differ, because a thread
# holds two halves in a register.
_DEFAULTS = {
    2: {
        512: (1024, 1),
        1024: (2048, 2),
        2048: (2048, 4),
        4096: (4096, 8),
        8192: (8192, 4),
        16384: (16384, 8),
        32768: (32768, 16),
        MAX_BLOCK: (8192, 32),
    },
    4: {
        256: (512, 1),
        512: (1024, 2),
        1024: (2048, 2),
        2048: (2048, 8),
        4096: (4096, 16),
        8192: (8192, 8),
        32768: (16384, 16),
        MAX_BLOCK: (16384, 32),
    },
}
# A program has at most 1024 threads; AMD's warps have 64 lanes.
_MAX_WARPS = 16 if torch.version.hip else 32


@lru_cache(maxsize=256)
def default_launch(n_cols: int, element_size: int) -> LaunchConfig:
    """The launch of the kernels that take rows of any width. It depends on the width alone, so
    that a row's bits do not depend on how many others there are.
    """
    width = min(next_power_of_2(n_cols), MAX_BLOCK)
    table = _DEFAULTS[element_size]
    block, warps = next(table[most] for most in table if width <= most)
    return LaunchConfig(block, min(warps, _MAX_WARPS))


@lru_cache(maxsize=256)
def whole_row_launch(n_cols: int, element_size: int) -> LaunchConfig:
    """The launch of the kernel that holds whole rows (n_cols <= MAX_BLOCK)."""
    launch = default_launch(n_cols, element_size)
    width = next_power_of_2(n_cols)
    return launch if width <= launch.block else LaunchConfig(width, _MAX_WARPS)


def on_device_of(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which a launch runs on x's device; Triton launches on the current one."""
    if not x.is_cuda or x.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(x.device)
