"""Runs, and the nights that they make up: a night on several machines is one run a shard."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from fuzz.history import RunRecord
from fuzz.pages.words import moment

LONGEST = datetime.timedelta(hours=12)
"""Shards that begin within this time of the first are of one night."""


@dataclass(frozen=True)
class Night:
    """The runs of one night, by shard; or a campaign of another kind, which is one run."""

    runs: tuple[RunRecord, ...]

    @property
    def kind(self) -> str:
        """night, or what else the history keeps."""
        return self.runs[0].kind

    @property
    def started(self) -> str:
        """When the first shard began."""
        return min(run.started for run in self.runs)

    @property
    def outcome(self) -> str:
        """ended, or what became of the first shard that did not end by itself."""
        outcomes = [run.outcome or "running" for run in self.runs]
        return next((outcome for outcome in outcomes if outcome != "ended"), "ended")

    @property
    def seconds(self) -> float:
        """The time of the longest shard: they run side by side."""
        return max(run.seconds for run in self.runs)

    @property
    def executed(self) -> int:
        """Cases that were run and judged."""
        return sum(run.executed for run in self.runs)

    @property
    def failed(self) -> int:
        """Cases that were judged wrong."""
        return sum(run.failed for run in self.runs)

    @property
    def skipped(self) -> int:
        """Cases that could not be run."""
        return sum(run.skipped for run in self.runs)

    @property
    def faulty(self) -> int:
        """Errors of the harness itself."""
        return sum(run.faulty for run in self.runs)

    @property
    def shards(self) -> int:
        """Shards there should be."""
        return max(run.shards for run in self.runs)

    @property
    def missing(self) -> int:
        """Shards of which the history knows nothing."""
        return max(0, self.shards - len({run.shard for run in self.runs}))

    @property
    def revisions(self) -> tuple[str, ...]:
        """The revisions that were tested; more than one where shards differ."""
        return tuple(sorted({run.revision for run in self.runs if run.revision}))

    @property
    def versions(self) -> dict[str, str]:
        """The versions of all shards by name, those of one name joined where shards differ."""
        found: dict[str, set[str]] = {}
        for run in self.runs:
            for name, version in run.versions.items():
                found.setdefault(name, set()).add(version)
        return {name: " / ".join(sorted(versions)) for name, versions in sorted(found.items())}

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of the devices."""
        return tuple(sorted({run.device_name or run.device for run in self.runs} - {""}))

    @property
    def part_seconds(self) -> dict[str, float]:
        """What the runners' time went into, in the order in which it is stored."""
        total: dict[str, float] = {}
        for run in self.runs:
            for part, seconds in run.part_seconds.items():
                total[part] = total.get(part, 0.0) + seconds
        return total

    def has(self, run_id: str | None) -> bool:
        """Whether a run is of this night."""
        return any(run.id == run_id for run in self.runs)


def nights_of(runs: Iterable[RunRecord]) -> tuple[Night, ...]:
    """Nights, the oldest first.

    A shard that was run again, as one whose machine was lost is, stays with its night.
    """
    groups: list[list[RunRecord]] = []
    for run in sorted(runs, key=lambda run: (run.started, run.shard, run.id)):
        group = next((group for group in reversed(groups) if _is_of(run, group)), None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    return tuple(Night(tuple(sorted(group, key=lambda run: run.shard))) for group in groups)


def _is_of(run: RunRecord, group: list[RunRecord]) -> bool:
    first = group[0]
    if run.shards < 2 or (run.kind, run.shards) != (first.kind, first.shards):
        return False
    begins, began = moment(run.started), moment(first.started)
    if begins is None or began is None or begins - began > LONGEST:
        return False
    # One that ended in order is not run again in the same night: this is the next one.
    return all(other.shard != run.shard or other.outcome != "ended" for other in group)
