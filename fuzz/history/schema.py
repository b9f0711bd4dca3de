"""The tables of a history, format by format.

Names are kept once and numbered: a cell's name is longer than all that is counted of it. What is
read are the views ``rows``, ``spread``, ``largest``, ``cells``, ``widths`` and ``failures``, which
have the names again.
"""

from __future__ import annotations

from dataclasses import dataclass

APPLICATION = 0x6C6E667A
"""The ``application_id`` of a history: "lnfz"."""

_FORMAT_1 = (
    """CREATE TABLE runs(
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        shard INTEGER NOT NULL,
        shards INTEGER NOT NULL,
        started TEXT NOT NULL,
        ended TEXT,
        outcome TEXT,
        seed INTEGER NOT NULL,
        device TEXT NOT NULL,
        device_name TEXT NOT NULL,
        workers INTEGER NOT NULL,
        versions TEXT NOT NULL,
        revision TEXT NOT NULL,
        folder TEXT NOT NULL,
        seconds REAL NOT NULL DEFAULT 0,
        executed INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        skipped INTEGER NOT NULL DEFAULT 0,
        faulty INTEGER NOT NULL DEFAULT 0,
        keys INTEGER NOT NULL DEFAULT 0,
        part_seconds TEXT NOT NULL DEFAULT '{}',
        notes TEXT NOT NULL DEFAULT '[]')""",
    """CREATE TABLE marks(
        run INTEGER NOT NULL, runner INTEGER NOT NULL, file INTEGER NOT NULL,
        offset INTEGER NOT NULL, PRIMARY KEY (run, runner)) WITHOUT ROWID""",
    "CREATE TABLE names(number INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)",
    """CREATE TABLE row_sums(
        run INTEGER NOT NULL, target INTEGER NOT NULL, dtype INTEGER NOT NULL,
        executed INTEGER NOT NULL, failed INTEGER NOT NULL, skipped INTEGER NOT NULL,
        PRIMARY KEY (run, target, dtype)) WITHOUT ROWID""",
    """CREATE TABLE spread_sums(
        run INTEGER NOT NULL, target INTEGER NOT NULL, dtype INTEGER NOT NULL,
        output INTEGER NOT NULL, bin INTEGER NOT NULL, cases INTEGER NOT NULL,
        PRIMARY KEY (run, target, dtype, output, bin)) WITHOUT ROWID""",
    """CREATE TABLE largest_sums(
        run INTEGER NOT NULL, target INTEGER NOT NULL, dtype INTEGER NOT NULL,
        output INTEGER NOT NULL, ratio REAL NOT NULL,
        PRIMARY KEY (run, target, dtype, output)) WITHOUT ROWID""",
    """CREATE TABLE cell_sums(
        run INTEGER NOT NULL, cell INTEGER NOT NULL,
        executed INTEGER NOT NULL, failed INTEGER NOT NULL, worst REAL NOT NULL,
        PRIMARY KEY (run, cell)) WITHOUT ROWID""",
    # Block 0 stands for a launch that has none: a primary key has no null.
    """CREATE TABLE width_sums(
        run INTEGER NOT NULL, target INTEGER NOT NULL, n_cols INTEGER NOT NULL,
        block INTEGER NOT NULL,
        executed INTEGER NOT NULL, failed INTEGER NOT NULL, worst REAL NOT NULL,
        PRIMARY KEY (run, target, n_cols, block)) WITHOUT ROWID""",
    # The failing cases that runners have reported and not yet told a failure of.
    """CREATE TABLE sightings(
        run INTEGER NOT NULL, signature TEXT NOT NULL, seen TEXT NOT NULL,
        signature_json TEXT NOT NULL, case_json TEXT NOT NULL, findings TEXT NOT NULL,
        PRIMARY KEY (run, signature)) WITHOUT ROWID""",
    """CREATE TABLE faults(
        signature TEXT PRIMARY KEY, id TEXT NOT NULL, target TEXT NOT NULL, message TEXT NOT NULL,
        confirmed INTEGER NOT NULL, failure TEXT NOT NULL, map TEXT) WITHOUT ROWID""",
    """CREATE TABLE events(
        signature TEXT NOT NULL, run INTEGER NOT NULL, kind TEXT NOT NULL, seen TEXT NOT NULL,
        PRIMARY KEY (signature, run, kind)) WITHOUT ROWID""",
    """CREATE VIEW rows AS SELECT r.id AS run, t.text AS target, d.text AS dtype,
        s.executed, s.failed, s.skipped
        FROM row_sums s JOIN runs r ON r.number = s.run
        JOIN names t ON t.number = s.target JOIN names d ON d.number = s.dtype""",
    """CREATE VIEW spread AS SELECT r.id AS run, t.text AS target, d.text AS dtype,
        o.text AS output, s.bin, s.cases
        FROM spread_sums s JOIN runs r ON r.number = s.run
        JOIN names t ON t.number = s.target JOIN names d ON d.number = s.dtype
        JOIN names o ON o.number = s.output""",
    """CREATE VIEW largest AS SELECT r.id AS run, t.text AS target, d.text AS dtype,
        o.text AS output, s.ratio
        FROM largest_sums s JOIN runs r ON r.number = s.run
        JOIN names t ON t.number = s.target JOIN names d ON d.number = s.dtype
        JOIN names o ON o.number = s.output""",
    """CREATE VIEW cells AS SELECT r.id AS run, c.text AS cell, s.executed, s.failed, s.worst
        FROM cell_sums s JOIN runs r ON r.number = s.run JOIN names c ON c.number = s.cell""",
    """CREATE VIEW widths AS SELECT r.id AS run, t.text AS target, s.n_cols,
        nullif(s.block, 0) AS block, s.executed, s.failed, s.worst
        FROM width_sums s JOIN runs r ON r.number = s.run JOIN names t ON t.number = s.target""",
    # A fault is fixed as long as nothing was found of it since.
    """CREATE VIEW failures AS
        WITH
        found AS (SELECT e.signature, e.seen, r.id AS run,
            row_number() OVER (PARTITION BY e.signature ORDER BY e.seen, r.id) AS place,
            count(*) OVER (PARTITION BY e.signature) AS times
            FROM events e JOIN runs r ON r.number = e.run WHERE e.kind = 'found'),
        passed AS (SELECT e.signature, e.seen, r.id AS run,
            row_number() OVER (PARTITION BY e.signature ORDER BY e.seen DESC, r.id) AS place
            FROM events e JOIN runs r ON r.number = e.run WHERE e.kind = 'fixed')
        SELECT f.signature, f.id, f.target, f.message,
            one.seen AS first_seen, one.run AS first_run,
            last.seen AS last_seen, last.run AS last_run, last.times,
            passed.seen AS fixed_seen, passed.run AS fixed_run, f.failure, f.map
        FROM faults f
        JOIN found one ON one.signature = f.signature AND one.place = 1
        JOIN found last ON last.signature = f.signature AND last.place = last.times
        LEFT JOIN passed ON passed.signature = f.signature AND passed.place = 1
            AND passed.seen > last.seen""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FORMAT_1,)
"""What makes each format of the one before it; the first makes it of an empty file.

What is here is for ever: a change of the tables is one more format.
"""


@dataclass(frozen=True)
class SumTable:
    """A table of sums over the cases of a run, and the view of it.

    ``names`` are columns of numbered names, ``numbers`` other keys; ``sums`` are added up, of
    ``most`` the largest is kept.
    """

    table: str
    view: str
    names: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    sums: tuple[str, ...] = ()
    most: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that name a row."""
        return self.names + self.numbers

    @property
    def values(self) -> tuple[str, ...]:
        """The columns that are added up."""
        return self.sums + self.most

    @property
    def upsert(self) -> str:
        """Adds a row to what the table has: the run's number, keys, values."""
        columns = ("run", *self.keys, *self.values)
        changes = [f"{name} = {name} + excluded.{name}" for name in self.sums]
        changes += [f"{name} = max({name}, excluded.{name})" for name in self.most]
        return (
            f"INSERT INTO {self.table}({', '.join(columns)}) "
            f"VALUES ({', '.join('?' * len(columns))}) "
            f"ON CONFLICT DO UPDATE SET {', '.join(changes)}"
        )


_TRIED = ("executed", "failed")
_OUTPUT = ("target", "dtype", "output")

ROWS = SumTable("row_sums", "rows", ("target", "dtype"), sums=(*_TRIED, "skipped"))
SPREAD = SumTable("spread_sums", "spread", _OUTPUT, ("bin",), sums=("cases",))
LARGEST = SumTable("largest_sums", "largest", _OUTPUT, most=("ratio",))
CELLS = SumTable("cell_sums", "cells", ("cell",), sums=_TRIED, most=("worst",))
WIDTHS = SumTable(
    "width_sums", "widths", ("target",), ("n_cols", "block"), sums=_TRIED, most=("worst",)
)
SUM_TABLES = (ROWS, SPREAD, LARGEST, CELLS, WIDTHS)
