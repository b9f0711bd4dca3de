"""What a history takes and gives, as plain rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fuzz.jobs.maps import FailureMap
from fuzz.store import Failure

Outcome = Literal["ended", "interrupted", "killed"]
"""How a run came to its end: by itself, by the user, or by a kill that was found later."""


@dataclass(frozen=True)
class RunInfo:
    """What a run is, before it does anything. ``shard`` is one of 1 ... ``shards``."""

    id: str
    kind: str
    seed: int
    device: str
    device_name: str
    workers: int
    versions: dict[str, str] = field(default_factory=dict)
    revision: str = ""
    shard: int = 1
    shards: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunRecord:
    """A run and what came of it. ``ended`` and ``outcome`` are None while it runs.

    ``folder`` is that of its journals, empty where it has none; from the history's own folder if
    it lies in there. ``keys`` counts specialisations.
    """

    id: str
    kind: str
    shard: int
    shards: int
    started: str
    ended: str | None
    outcome: Outcome | None
    seed: int
    device: str
    device_name: str
    workers: int
    versions: dict[str, str]
    revision: str
    folder: str
    seconds: float
    executed: int
    failed: int
    skipped: int
    faulty: int
    keys: int
    part_seconds: dict[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RowSum:
    """A target and dtype: how many cases."""

    target: str
    dtype: str
    executed: int
    failed: int
    skipped: int


@dataclass(frozen=True)
class SpreadSum:
    """The distribution of error/bound of an output: cases by :func:`fuzz.jobs.totals.bin_of`."""

    target: str
    dtype: str
    output: str
    bins: dict[int, int]
    largest: float


@dataclass(frozen=True)
class FailureRecord:
    """A fault: when and in which runs it was seen, and the failure that shows it best.

    ``times`` counts runs. ``fixed_seen`` and ``fixed_run`` are None unless it passed since.
    """

    signature: str
    id: str
    target: str
    message: str
    first_seen: str
    first_run: str
    last_seen: str
    last_run: str
    times: int
    fixed_seen: str | None
    fixed_run: str | None
    failure: Failure
    map: FailureMap | None

    @property
    def is_open(self) -> bool:
        """Whether nobody has seen it pass since it failed last."""
        return self.fixed_seen is None


@dataclass(frozen=True)
class Merged:
    """What a merge found: ids of the runs that are new, were known, or have not ended."""

    new: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
