"""Queries: sums over one run or over all, runs, and faults."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from typing import Any

from fuzz import store
from fuzz.history import schema
from fuzz.history.database import HistoryError
from fuzz.history.records import FailureRecord, RowSum, RunRecord, SpreadSum
from fuzz.history.schema import SumTable
from fuzz.jobs import maps
from fuzz.jobs.totals import CellSum, Width

_RUN_COLUMNS = tuple(RunRecord.__dataclass_fields__)

_FAILURE_COLUMNS = tuple(FailureRecord.__dataclass_fields__)


def summed(
    connection: sqlite3.Connection, table: SumTable, run: str | None = None
) -> list[tuple[Any, ...]]:
    """Keys and values of a table, of one run or added up over all."""
    keys = ", ".join(table.keys)
    values = [f"sum({name}) AS {name}" for name in table.sums]
    values += [f"max({name}) AS {name}" for name in table.most]
    of_run = "" if run is None else "WHERE run = (SELECT number FROM runs WHERE id = :run)"
    chosen = [f"name_{name}.text" for name in table.names]
    chosen += [f"s.{name}" for name in table.numbers + table.values]
    joins = [f"JOIN names name_{name} ON name_{name}.number = s.{name}" for name in table.names]
    # Summed up by number: names are joined to the sums, not to all that is summed.
    statement = (
        f"SELECT {', '.join(chosen)} FROM (SELECT {keys}, {', '.join(values)} "
        f"FROM {table.table} {of_run} GROUP BY {keys}) s {' '.join(joins)}"
    )
    return connection.execute(statement, {"run": run}).fetchall()


def runs(connection: sqlite3.Connection) -> tuple[RunRecord, ...]:
    """All runs, oldest first."""
    columns = ", ".join(_RUN_COLUMNS)
    found = connection.execute(f"SELECT {columns} FROM runs ORDER BY started, number").fetchall()
    return tuple(_run(dict(zip(_RUN_COLUMNS, row, strict=True))) for row in found)


def failures(connection: sqlite3.Connection) -> tuple[FailureRecord, ...]:
    """All faults, those that were seen last first."""
    columns = ", ".join(_FAILURE_COLUMNS)
    found = connection.execute(
        f"SELECT {columns} FROM failures ORDER BY last_seen DESC, signature"
    ).fetchall()
    return tuple(_failure(dict(zip(_FAILURE_COLUMNS, row, strict=True))) for row in found)


def rows(connection: sqlite3.Connection, run: str | None) -> tuple[RowSum, ...]:
    """By target and dtype."""
    return tuple(RowSum(*row) for row in sorted(summed(connection, schema.ROWS, run)))


def cells(connection: sqlite3.Connection, run: str | None) -> dict[str, CellSum]:
    """By the name of the cell."""
    return {cell: CellSum(*sums) for cell, *sums in summed(connection, schema.CELLS, run)}


def widths(connection: sqlite3.Connection, run: str | None) -> dict[Width, CellSum]:
    """By target, columns and block."""
    found = summed(connection, schema.WIDTHS, run)
    return {(target, n, block or None): CellSum(*sums) for target, n, block, *sums in found}


def spread(connection: sqlite3.Connection, run: str | None) -> tuple[SpreadSum, ...]:
    """The distributions of error/bound by target, dtype and output."""
    bins: dict[tuple[str, str, str], dict[int, int]] = defaultdict(dict)
    for target, dtype, output, index, cases in summed(connection, schema.SPREAD, run):
        bins[target, dtype, output][index] = cases
    return tuple(
        SpreadSum(target, dtype, output, dict(sorted(bins[target, dtype, output].items())), ratio)
        for target, dtype, output, ratio in sorted(summed(connection, schema.LARGEST, run))
    )


def _run(row: dict[str, Any]) -> RunRecord:
    row["notes"] = tuple(json.loads(row["notes"]))
    for name in ("versions", "part_seconds"):
        row[name] = json.loads(row[name])
    return RunRecord(**row)


def _failure(row: dict[str, Any]) -> FailureRecord:
    try:
        row["failure"] = store.from_data(json.loads(row["failure"]))
    except store.StoreError as error:
        raise HistoryError(f"failure {row['id']} of the history: {error}") from error
    row["map"] = None if row["map"] is None else maps.from_data(json.loads(row["map"]))
    return FailureRecord(**row)
