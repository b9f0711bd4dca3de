"""What the compiling processes are asked, and what they answer: small data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fuzz.case import Case
from fuzz.compiling.gpus import Gpu
from fuzz.gating.outcome import Place


@dataclass(frozen=True)
class Setting:
    """What a compiling process is told when it begins.

    ``gpu`` is what kernels see while their files are imported; ``folder`` is where the process
    works and what it imports from first, and never from ``foreign``. All that is printed goes to
    ``log``.
    """

    parent: int
    gpu: Gpu
    folder: Path | None
    foreign: Path | None
    log: Path


@dataclass(frozen=True)
class Collect:
    """Which specialisations do the runs of this case launch on these GPUs?"""

    case: Case
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True)
class Specialisation:
    """One way in which a kernel is compiled for a GPU.

    ``text`` tells argument types, constants and options, the same before and after a change of the
    kernel's body; ``identity`` also covers the source.
    """

    kernel: str
    text: str
    identity: str
    place: Place


@dataclass(frozen=True)
class Launched:
    """A specialisation and the run of its case that launches it, by index."""

    run: int
    specialisation: Specialisation


@dataclass(frozen=True)
class Collected:
    """What the runs of a case launch, by GPU, and why wrappers failed.

    ``default``: the case takes the wrapper's own launch. ``problem``: there is no such target.
    """

    default: bool = False
    launched: dict[str, tuple[Launched, ...]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Build:
    """Compile this specialisation, which a run of the case launches, with ``memory`` bytes."""

    case: Case
    run: int
    gpu: Gpu
    identity: str
    memory: int


@dataclass(frozen=True)
class Built:
    """What came of it. ``place`` is the line at fault, where the compiler tells one."""

    error: str = ""
    place: Place | None = None
    registers: int | None = None
    spilled_bytes: int | None = None
    shared_bytes: int | None = None


@dataclass(frozen=True)
class Ready:
    """The process can be asked. ``problem``: why it cannot."""

    problem: str = ""


Task = Collect | Build
Answer = Collected | Built
