"""What is answered: observations of the kernel process, findings of the checks, a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.unsignedinteger[Any]]
"""A tensor's raw bits in logical row-major order: uint16 for half precision, uint32 for float32."""

Poison = Literal["nan", "huge", "-huge"]
"""What memory holds that nobody wrote: bytes 0xFF (NaN in every float format), 0x7B, 0xFB."""

POISON_BYTE: dict[str, int] = {"nan": 0xFF, "huge": 0x7B, "-huge": 0xFB}

RunStatus = Literal[
    "ok",  # returned
    "raised",  # a Python exception of the wrapper
    "out_of_bounds",  # refused by the strict interpreter
    "compile_error",
    "cuda_error",
    "out_of_memory",
    "crashed",  # the kernel process died
    "timed_out",
    "reported",  # a sanitizer ended the kernel: what came back means nothing
    "unsupported",  # this device or version cannot run it: skipped, with the reason
]


@dataclass(frozen=True)
class Array:
    """The bits of one tensor that came back, with its dtype and shape as the target gave them."""

    dtype: str
    shape: tuple[int, ...]
    bits: Bits
    # True when the tensor lived in memory that had been poisoned before the launch.
    poisoned: bool = True


@dataclass(frozen=True)
class Damage:
    """Bytes that changed and should not have: where they lie relative to a tensor.

    ``place`` is "input" (an element of an in argument), "gap" (between strided rows), "before" or
    "after" (the red zones). ``element`` is the first changed one, in elements from the storage's
    start; ``n_bytes`` counts all of this place.
    """

    tensor: str
    place: Literal["input", "gap", "before", "after"]
    element: int
    n_bytes: int


HazardKind = Literal["uninitialised_read", "conflicting_write"]
"""What a kernel does that a GPU need not do twice alike: a read of memory that nobody wrote, an
access to what another program of the same launch writes."""


@dataclass(frozen=True)
class Hazard:
    """Accesses of one line of a kernel to one tensor; seen by the strict interpreter alone.

    ``function`` is the kernel's or device function's name; ``message`` tells the first access,
    ``count`` says how many there were.
    """

    kind: HazardKind
    tensor: str
    function: str
    message: str
    count: int = 1


@dataclass(frozen=True)
class ErrorInfo:
    """An exception or the end of a process, as text that survives the process."""

    type: str
    message: str
    trace: str = ""


@dataclass(frozen=True)
class Storage:
    """Where the memory of a tensor lay on the device."""

    name: str
    address: int
    n_bytes: int


@dataclass(frozen=True)
class Report:
    """What a sanitizer reported of one line of a kernel, ``count`` times; the rest is of the first.

    ``place`` is file:line, empty where the compiled code does not tell. ``access`` and ``by`` say
    in words how the access was wrong and whose it was. ``address`` is that of the allocation
    nearest to it, or its own, and ``tensor`` whose memory that is, as far as is known.
    """

    tool: str
    kind: str
    kernel: str
    place: str
    access: str = ""
    by: str = ""
    address: int | None = None
    tensor: str = ""
    count: int = 1


@dataclass(frozen=True)
class Observation:
    """What one run did. ``reports`` are a sanitizer's, and ``storages`` what it names them by."""

    run: str
    status: RunStatus
    outputs: dict[str, Array] = field(default_factory=dict)
    damage: tuple[Damage, ...] = ()
    error: ErrorInfo | None = None
    hazards: tuple[Hazard, ...] = ()
    # By output that is not fully written: which program wrote what lies beside the first gap.
    neighbours: dict[str, str] = field(default_factory=dict)
    # The compiled kernels that ran, in order; equal keys owe equal bits. None: not known.
    key: tuple[str, ...] | None = None
    seconds: float = 0.0
    reports: tuple[Report, ...] = ()
    storages: tuple[Storage, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One property that does not hold.

    ``region`` says where the wrong elements sit (tail columns, last row, one group, everywhere,
    scattered ...), ``ratio`` is the largest error/bound.
    """

    check: str
    run: str
    output: str
    message: str
    region: str = ""
    ratio: float = 0.0
    index: tuple[int, ...] = ()


@dataclass(frozen=True)
class Signature:
    """What makes two failures the same fault."""

    target: str
    output: str
    check: str
    dtype_class: str
    region: str

    @property
    def kind(self) -> tuple[str, str, str]:
        """Target, check and output: what a reader takes for one fault at first sight."""
        return self.target, self.check, self.output

    def __str__(self) -> str:
        parts = [self.target, self.check, self.output, self.dtype_class, self.region]
        return " / ".join(p for p in parts if p)


Status = Literal["pass", "fail", "skip"]


@dataclass(frozen=True)
class Verdict:
    """The judgement of one case.

    ``ratios`` holds the largest error/bound of each output over all runs. ``seconds`` divides the
    wall time by part: draw, inputs, kernel, oracle, harness.
    """

    case_id: str
    status: Status
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    ratios: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
