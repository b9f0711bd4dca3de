"""What came of a night, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fuzz.store import OUT, Failure

NIGHT = "night"
"""The kind of a night's run in the history."""

Kind = Literal["new", "back", "known"]
"""Of a fault: never seen before; seen to pass, or kept with the sources, and yet here; open."""


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a night that know nothing of each other; ``index`` begins at 1."""

    index: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Shard()
"""A night in one piece."""


@dataclass(frozen=True)
class NightFailure:
    """A fault that the night has seen. ``message`` is the mismatch in one line, as it is now."""

    kind: Kind
    failure: Failure
    path: Path
    message: str

    @property
    def signature(self) -> str:
        """What makes it this fault."""
        return str(self.failure.signature)


@dataclass(frozen=True)
class TargetSum:
    """One target: its cases, its cells, and the largest error/bound of each output.

    ``new_cells`` were never tried before, of ``promised`` ones the night must have tried each.
    """

    target: str
    executed: int = 0
    failed: int = 0
    skipped: int = 0
    cells: int = 0
    new_cells: int = 0
    promised: int = 0
    missed: tuple[str, ...] = ()
    largest: dict[str, float] = field(default_factory=dict)


@dataclass
class NightResult:
    """A night. ``errors`` say why the tool could not do (all of) its job; ``faults`` are the first
    of the ``faulty`` cases that the harness itself failed on.

    ``run`` is its id in the history, ``seed`` repeats it with the same shard. ``replayed`` counts
    former failures, ``fixed`` has those that pass now. ``keys`` counts specialisations.
    """

    run: str
    seed: int
    shard: Shard = WHOLE
    device: str = ""
    device_name: str = ""
    gpus: int = 0
    workers: int = 0
    seconds: float = 0.0
    fuzzing_seconds: float = 0.0
    executed: int = 0
    failed: int = 0
    skipped: int = 0
    not_reached: int = 0
    faulty: int = 0
    lost: int = 0
    keys: int = 0
    shares: dict[str, float] = field(default_factory=dict)
    replayed: int = 0
    fixed: list[str] = field(default_factory=list)
    failures: list[NightFailure] = field(default_factory=list)
    targets: list[TargetSum] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    interrupted: bool = False
    run_folder: Path | None = None
    out: Path = OUT

    @property
    def rate(self) -> float:
        """Cases a second, while it fuzzed."""
        return self.executed / self.fuzzing_seconds if self.fuzzing_seconds else 0.0

    @property
    def missed(self) -> tuple[str, ...]:
        """The promised cells that were not hit."""
        return tuple(cell for target in self.targets for cell in target.missed)

    @property
    def exit_code(self) -> int:
        """0 clean, 1 failures, 2 the tool could not do its job."""
        if self.errors or self.faulty or self.lost or self.missed or not self.executed:
            return 2
        return 1 if self.failed or self.failures else 0
