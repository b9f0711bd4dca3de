"""What the strict interpreter reports, and how it names the place in a kernel."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import triton

Action = Literal["read", "write", "atomic"]

# Triton's short names, as everything else here writes them.
DTYPE_NAMES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}


class UnsupportedInInterpreter(Exception):
    """A kernel uses an operation whose result would be wrong; the message names it."""


@dataclass(frozen=True)
class Access:
    """One access at fault: its first bad lane, and how many lanes were bad.

    ``region`` is the one that the pointer was computed from, or the nearest where that is unknown;
    ``element`` counts elements of ``dtype`` from its element 0. Both are None where no region was
    given. ``read_only`` says that the launch may read there but not write.
    """

    kernel: str
    action: Action
    file: str
    line: int
    text: str
    program: tuple[int, int, int]
    region: str | None
    element: int | None
    dtype: str
    n_bad: int
    n_lanes: int
    read_only: bool = False

    def __str__(self) -> str:
        """The access as one that was refused."""
        return self.told("to read-only" if self.read_only else "outside")

    def told(self, preposition: str, more: str = "") -> str:
        """The access in words: "write outside 'y', at element 3 (float32) ..."."""
        where = "all memory"
        if self.region is not None:
            where = f"{self.region!r}, at element {self.element}"
        return (
            f"{self.action} {preposition} {where} ({self.dtype}), "
            f"{self.n_bad} of {self.n_lanes} lanes{more} "
            f"[{self.kernel}, program {self.program}, "
            f"{Path(self.file).name}:{self.line}: {self.text}]"
        )


class OutOfBounds(Exception):
    """A kernel touched memory that it was not given. The access was not performed."""

    def __init__(self, access: Access) -> None:
        super().__init__(str(access))
        self.access = access


def kernel_frame() -> FrameType:
    """The innermost frame of a kernel or device function: the first one outside the machinery."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_MACHINERY):
        assert frame.f_back is not None
        frame = frame.f_back
    return frame


_OURS = Path(__file__).parent
_MACHINERY = (
    str(_OURS),
    str(_OURS.parent / "interpreter.py"),
    str(Path(triton.__file__).parent),
)
