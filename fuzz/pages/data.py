"""What the page is made of, read from a history and never written to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.history import FailureRecord, RowSum, RunRecord, SpreadSum, reading
from fuzz.history.database import Database
from fuzz.jobs.setup import UsageError
from fuzz.jobs.totals import CellSum, Width
from fuzz.pages.nights import Night, nights_of

LARGEST = "SELECT run, max(ratio) FROM largest WHERE dtype = 'float32' GROUP BY run"

EVENTS = """SELECT e.signature, e.kind, r.id FROM events e JOIN runs r ON r.number = e.run
    ORDER BY e.signature, e.seen, e.kind = 'found'"""


@dataclass(frozen=True)
class PageData:
    """All that the page shows. ``last_spread`` is of the last night alone, and so is ``back``: the
    signatures of faults that had passed and are there again.

    ``nights`` are oldest first; ``largest`` is the largest error/bound of float32 cases by run.
    """

    nights: tuple[Night, ...] = ()
    rows: tuple[RowSum, ...] = ()
    spread: tuple[SpreadSum, ...] = ()
    last_spread: tuple[SpreadSum, ...] = ()
    largest: dict[str, float] = field(default_factory=dict)
    cells: dict[str, CellSum] = field(default_factory=dict)
    widths: dict[Width, CellSum] = field(default_factory=dict)
    failures: tuple[FailureRecord, ...] = ()
    back: frozenset[str] = frozenset()

    @property
    def runs(self) -> dict[str, RunRecord]:
        """All runs by id."""
        return {run.id: run for night in self.nights for run in night.runs}

    @property
    def targets(self) -> tuple[str, ...]:
        """All targets, those of the most cases first."""
        executed: Counter[str] = Counter()
        for row in self.rows:
            executed[row.target] += row.executed
        return tuple(sorted(executed, key=lambda target: (-executed[target], target)))


def read(history: Path) -> PageData:
    """Read a history as it is at this moment.

    Raises: UsageError for a file that is missing, HistoryError for one that cannot be read.
    """
    if not history.is_file():
        raise UsageError(f"history={str(history)!r}: no such file; a night writes it")
    database = Database(history, read_only=True)
    try:
        # One transaction: a night that writes meanwhile does not show in half of the tables.
        with database.reading() as connection:
            nights = nights_of(reading.runs(connection))
            last = [run.id for run in nights[-1].runs] if nights else []
            return PageData(
                nights=nights,
                rows=reading.rows(connection, None),
                spread=reading.spread(connection, None),
                last_spread=_together(s for run in last for s in reading.spread(connection, run)),
                largest=dict(connection.execute(LARGEST).fetchall()),
                cells=reading.cells(connection, None),
                widths=reading.widths(connection, None),
                failures=reading.failures(connection),
                back=_back(connection.execute(EVENTS).fetchall(), last),
            )
    finally:
        database.close()


def _back(events: Iterable[tuple[str, str, str]], last: Collection[str]) -> frozenset[str]:
    """The signatures that runs of the last night found, and that had passed before."""
    found: set[str] = set()
    passed: dict[str, bool] = {}
    for signature, kind, run in events:
        if kind == "found" and run in last and passed.get(signature):
            found.add(signature)
        passed[signature] = kind == "fixed"
    return frozenset(found)


def _together(shards: Iterable[SpreadSum]) -> tuple[SpreadSum, ...]:
    """One distribution for each output, of the shards' own."""
    found: dict[tuple[str, str, str], SpreadSum] = {}
    for one in shards:
        key = (one.target, one.dtype, one.output)
        other = found.get(key)
        if other is not None:
            bins = dict(Counter(one.bins) + Counter(other.bins))
            one = SpreadSum(*key, bins, max(one.largest, other.largest))
        found[key] = one
    return tuple(found.values())
