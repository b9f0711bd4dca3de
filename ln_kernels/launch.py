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

# Default column blocks: at least one warp of 4 columns a lane, at most 64 KiB of a row. Rows of
# up to 4096 columns fit one block and are read once; wider rows loop over blocks of 8192.
_MIN_BLOCK = 128
_MAX_BLOCK_BYTES = 65536
_MAX_SINGLE_BLOCK = 4096
_WIDE_BLOCK = 8192
_COLS_PER_WARP = 256
_MAX_DEFAULT_WARPS = 8

# A whole row lives in registers, so wide rows need more threads than the defaults above. 32 bytes
# of a row are two vector loads in flight for each lane.
_WHOLE_ROW_BYTES_PER_WARP = 32 * 32
# A program has at most 1024 threads; AMD's warps have 64 lanes.
_MAX_WHOLE_ROW_WARPS = 16 if torch.version.hip else 32


@dataclass(frozen=True, slots=True)
class LaunchConfig:
    """How many columns a program takes at once, with how many warps.

    Shapes: `block` columns at a time, a power of two; shorter rows leave lanes masked.
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

    def options(self) -> dict[str, Any]:
        """The keyword arguments of a kernel launch that are not arguments of the kernel."""
        return {"num_warps": self.num_warps, "enable_fp_fusion": self.fp_fusion}


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least n (n >= 1)."""
    return 1 << (n - 1).bit_length()


@lru_cache(maxsize=256)
def default_launch(n_cols: int, element_size: int) -> LaunchConfig:
    """The launch of the kernels that loop over column blocks."""
    block = min(next_power_of_2(n_cols), _MAX_BLOCK_BYTES // element_size)
    block = min(max(block, _MIN_BLOCK), _MAX_SINGLE_BLOCK)
    if n_cols > _MAX_SINGLE_BLOCK:
        block = _WIDE_BLOCK
    return LaunchConfig(block, min(max(block // _COLS_PER_WARP, 1), _MAX_DEFAULT_WARPS))


@lru_cache(maxsize=256)
def whole_row_launch(n_cols: int, element_size: int) -> LaunchConfig:
    """The launch of the kernel that holds a whole row in one block (n_cols <= MAX_BLOCK)."""
    block = next_power_of_2(n_cols)
    warps = block * element_size // _WHOLE_ROW_BYTES_PER_WARP
    return LaunchConfig(block, min(max(warps, 1), _MAX_WHOLE_ROW_WARPS))


def on_device_of(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which a launch runs on x's device; Triton launches on the current one."""
    if not x.is_cuda or x.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(x.device)
