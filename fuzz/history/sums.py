"""Sums over cases as rows of the tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from fuzz.history import schema
from fuzz.history.schema import SumTable
from fuzz.jobs.totals import Totals

Rows = Mapping[SumTable, Sequence[tuple[Any, ...]]]
"""Keys, names among them as texts, and values of each table."""


def rows_of(totals: Totals) -> dict[SumTable, list[tuple[Any, ...]]]:
    """What each table is given."""
    rows = totals.rows.items()
    return {
        schema.ROWS: [(*key, r.executed, r.failed, r.skipped.total()) for key, r in rows],
        schema.SPREAD: [
            (*key, output, index, cases)
            for key, r in rows
            for output, bins in r.spread.items()
            for index, cases in bins.items()
        ],
        schema.LARGEST: [(*key, output, n) for key, r in rows for output, n in r.ratios.items()],
        schema.CELLS: [(cell, s.executed, s.failed, s.worst) for cell, s in totals.cells.items()],
        schema.WIDTHS: [
            (target, n_cols, block or 0, s.executed, s.failed, s.worst)
            for (target, n_cols, block), s in totals.widths.items()
        ],
    }


def add_rows(
    connection: sqlite3.Connection, run: int, rows: Rows, known: Mapping[str, int]
) -> dict[str, int]:
    """Add rows to the sums of a run.

    ``known`` are numbers of names; returns those that were not among them.
    """
    texts = {text for table in rows for row in rows[table] for text in row[: len(table.names)]}
    new = {text: _number(connection, text) for text in texts - known.keys()}
    numbers = {**known, **new}
    for table, given in rows.items():
        n = len(table.names)
        connection.executemany(
            table.upsert, ((run, *map(numbers.__getitem__, row[:n]), *row[n:]) for row in given)
        )
    return new


def _number(connection: sqlite3.Connection, text: str) -> int:
    connection.execute("INSERT OR IGNORE INTO names(text) VALUES (?)", (text,))
    (number,) = connection.execute("SELECT number FROM names WHERE text = ?", (text,)).fetchone()
    return int(number)
