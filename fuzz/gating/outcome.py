"""What a gate finds, as data: the job fills it, reports are made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal[
    "introduced",  # fails on head, passes on base
    "changed signature",  # fails on both, in another way on head
    "base cannot run",  # fails on head, and base cannot be asked
    "weakened contract",  # the target promises less than it did
    "does not compile",  # for a GPU that the kernel is meant for
    "flaky",  # fails in k of n equal runs on head, and was not seen to on base
    "regression",  # a stored failure that is back, and that base passes
    "spills more",  # needs more registers than it did: slower, but not wrong
    "pre-existing",  # fails in the same way on base
    "fixed",  # a stored or accepted failure that base has and head has not
    "accepted",  # would block, but stands in the file of accepted failures
]

BLOCKING: tuple[Kind, ...] = (
    "introduced",
    "changed signature",
    "base cannot run",
    "weakened contract",
    "does not compile",
    "flaky",
    "regression",
)
"""What keeps a change from being merged."""


@dataclass(frozen=True)
class Place:
    """A line of the sources: the file as the repository names it."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class GateFinding:
    """One thing that the gate has to say of a target.

    ``signature`` is what the file of accepted failures names it by: a failure's own, or
    ``target / contract / field`` and ``target / compile / gpu``. ``message`` tells the mismatch in
    one line, ``case`` the case in one line, ``detail`` what was compared ("2 of 3 runs fail").
    ``failure`` is the id to replay, where there is one.
    """

    kind: Kind
    target: str
    signature: str
    message: str
    case: str = ""
    detail: str = ""
    failure: str = ""
    place: Place | None = None

    @property
    def blocks(self) -> bool:
        """Whether it keeps the change from being merged."""
        return self.kind in BLOCKING


@dataclass(frozen=True)
class Affected:
    """Whether the change can affect a target, and why, in words for a reader."""

    target: str
    included: bool
    reason: str


@dataclass(frozen=True)
class CompiledKernel:
    """One specialisation compiled for one GPU that need not be there.

    ``error`` is empty where it compiled. ``spilled_bytes`` and ``shared_bytes`` are per thread and
    per program; ``shared_limit`` is the GPU's. None where the compiler does not tell.
    """

    target: str
    kernel: str
    gpu: str
    specialisation: str
    error: str = ""
    registers: int | None = None
    spilled_bytes: int | None = None
    shared_bytes: int | None = None
    shared_limit: int | None = None
    place: Place | None = None


@dataclass(frozen=True)
class CompileReport:
    """What cross-compiling gave. ``wanted``: distinct specialisations that the cases use."""

    kernels: tuple[CompiledKernel, ...] = ()
    wanted: int = 0
    compiled: int = 0
    seconds: float = 0.0
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Commit:
    """A state of the sources. ``dirty``: the work tree has changes that are not committed."""

    ref: str
    sha: str
    dirty: bool = False

    def __str__(self) -> str:
        return f"{self.ref} ({self.sha[:10]}{', with uncommitted changes' if self.dirty else ''})"


@dataclass
class GateResult:
    """What came of a gate. ``errors`` say why it could not do (all of) its job."""

    head: Commit
    base: Commit
    device: str = ""
    device_name: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    affected: tuple[Affected, ...] = ()
    seed: int = 0
    plan_hash: str = ""
    planned: int = 0
    executed: int = 0
    failed: int = 0
    skipped: int = 0
    # Stored failures that were replayed.
    regressions: int = 0
    findings: list[GateFinding] = field(default_factory=list)
    compiled: CompileReport | None = None
    # About the file of accepted failures: expired entries, entries that were not seen.
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    # Of this gate's plan and reports; and of all journals and failures.
    out: Path = Path()
    store: Path = Path(".ln-fuzz")

    @property
    def blocking(self) -> tuple[GateFinding, ...]:
        """What keeps the change from being merged."""
        return tuple(finding for finding in self.findings if finding.blocks)

    @property
    def exit_code(self) -> int:
        """0 may be merged, 1 may not, 2 the gate could not do its job."""
        if self.errors:
            return 2
        return 1 if self.blocking else 0
