"""One history's runs added to another."""

from __future__ import annotations

import sqlite3

from fuzz.history import reading, schema
from fuzz.history.records import Merged
from fuzz.history.sums import add_rows

_FAULT = "signature, id, target, message, confirmed, failure, map"

FAULT_UPSERT = f"""INSERT INTO faults({_FAULT}) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET id = excluded.id, message = excluded.message,
        confirmed = excluded.confirmed, failure = excluded.failure,
        map = coalesce(excluded.map, map)
    WHERE excluded.confirmed > 0 OR confirmed = 0"""
"""Of two failures of one fault, what was confirmed is kept, or what came last."""


def merge(source: sqlite3.Connection, into: sqlite3.Connection) -> Merged:
    """Copy the runs that have ended and are not known, with all that was counted of them."""
    new, known, unfinished = [], [], []
    for run in reading.runs(source):
        if into.execute("SELECT 1 FROM runs WHERE id = ?", (run.id,)).fetchone():
            known.append(run.id)
        elif run.ended is None:
            unfinished.append(run.id)
        else:
            new.append(run.id)
            _copy_run(source, into, run.id)
    for run_id in new:
        _copy_faults(source, into, run_id)
    return Merged(tuple(new), tuple(known), tuple(unfinished))


def _copy_run(source: sqlite3.Connection, into: sqlite3.Connection, run_id: str) -> None:
    cursor = source.execute("SELECT * FROM runs WHERE id = ?", (run_id,))
    columns = [column for column, *_ in cursor.description]
    row = dict(zip(columns, cursor.fetchone(), strict=True))
    del row["number"]
    places = ", ".join("?" * len(row))
    added = into.execute(
        f"INSERT INTO runs({', '.join(row)}) VALUES ({places})", tuple(row.values())
    )
    assert added.lastrowid is not None
    rows = {table: reading.summed(source, table, run_id) for table in schema.SUM_TABLES}
    add_rows(into, added.lastrowid, rows, {})


def _copy_faults(source: sqlite3.Connection, into: sqlite3.Connection, run_id: str) -> None:
    events = source.execute(
        "SELECT signature, kind, seen FROM events "
        "WHERE run = (SELECT number FROM runs WHERE id = ?)",
        (run_id,),
    ).fetchall()
    for signature, kind, seen in events:
        if kind == "found":
            fault = source.execute(f"SELECT {_FAULT} FROM faults WHERE signature = ?", (signature,))
            into.execute(FAULT_UPSERT, fault.fetchone())
        into.execute(
            "INSERT OR IGNORE INTO events(signature, run, kind, seen) "
            "SELECT ?, number, ?, ? FROM runs WHERE id = ?",
            (signature, kind, seen, run_id),
        )
