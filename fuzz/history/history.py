"""A history: begun runs, what their runners report, failures, and what all of it adds up to.

Sums and the journal's mark behind them are written in one transaction, so that every verdict is in
the history or behind a mark. What is behind the marks of a run that died is added by
:meth:`History.recover`, or by :meth:`History.end` where only a runner died.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from fuzz import store
from fuzz.history import merging, reading
from fuzz.history.database import Database
from fuzz.history.records import (
    FailureRecord,
    Merged,
    Outcome,
    RowSum,
    RunInfo,
    RunRecord,
    SpreadSum,
)
from fuzz.history.recovery import failure_of, last_word, sighting_of, unreported
from fuzz.history.sums import add_rows, rows_of
from fuzz.jobs import maps
from fuzz.jobs.maps import FailureMap
from fuzz.jobs.totals import MAX_FAULTS, CellSum, Totals, Width
from fuzz.process.journal import JournalError, Mark, is_written, journals
from fuzz.store import FAILURES, Failure
from fuzz.verdict import Signature

HISTORY = "history.sqlite"
"""Name of the file, in the folder of journals and failures."""

LAST_LINES = 10.0
"""Seconds to wait for the runners of a run that died: the system ends them with it."""


def new_run_id() -> str:
    """A name that no run has, on whatever machine."""
    return f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


@dataclass
class _Live:
    """A run of this process. Its lock ends with the process, however that ends."""

    lock: FileLock
    began: float = field(default_factory=time.monotonic)
    keys: set[int] = field(default_factory=set)


class History:
    """The history in one file. Use as a context manager; any number may read while runs write."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open it; make it where there is none.

        Raises: HistoryError, as everything here does when the file cannot be read or written.
        """
        self.path = path
        self._database = Database(path, read_only=read_only)
        self._live: dict[str, _Live] = {}
        # Numbers of names: looking up all of a report's takes as long as adding it up.
        self._numbers: dict[str, int] = {}

    def __enter__(self) -> History:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. A run that was not ended is for :meth:`recover`."""
        self._database.close()
        for live in self._live.values():
            live.lock.release()

    # --- a run ------------------------------------------------------------------------------------

    def begin(self, run: RunInfo) -> None:
        """A run begins, in this process."""
        live = _Live(self._locked(run.id))
        row: dict[str, Any] = {
            **vars(run),
            "started": _now(),
            "folder": "",
            "versions": json.dumps(run.versions),
            "notes": json.dumps(run.notes),
        }
        with self._database.writing() as connection:
            connection.execute(
                f"INSERT INTO runs({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                tuple(row.values()),
            )
        self._live[run.id] = live

    def set_folder(self, run_id: str, folder: Path) -> None:
        """Where the journals of a run lie."""
        home, there = self.path.absolute().parent, folder.absolute()
        # A folder of runs that is moved as a whole still finds its journals.
        name = there.relative_to(home) if there.is_relative_to(home) else there
        with self._database.writing() as connection:
            connection.execute("UPDATE runs SET folder = ? WHERE id = ?", (str(name), run_id))

    def add(self, run_id: str, runner: int, totals: Totals, mark: Mark) -> None:
        """Add what a runner did since the last time; its journal holds it up to the mark."""
        with self._database.writing() as connection:
            run = self._run(connection, run_id)
            new = add_rows(connection, run["number"], rows_of(totals), self._numbers)
            connection.execute(
                "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?)",
                (run["number"], runner, mark.file, mark.offset),
            )
            self._see(connection, run["number"], totals)
            self._count(connection, run, totals)
            if (live := self._live.get(run_id)) is not None:
                live.keys.update(map(hash, totals.keys))
                connection.execute(
                    "UPDATE runs SET seconds = ?, keys = ? WHERE number = ?",
                    (time.monotonic() - live.began, len(live.keys), run["number"]),
                )
        # Not before: a name whose report is rolled back is no name.
        self._numbers |= new

    def found(self, run_id: str, failure: Failure, where: FailureMap | None = None) -> None:
        """A failure was found, or seen once more; where its wrong elements sit."""
        signature = str(failure.signature)
        data, picture = store.to_data(failure), None if where is None else maps.to_data(where)
        with self._database.writing() as connection:
            number = self._run(connection, run_id)["number"]
            connection.execute(
                merging.FAULT_UPSERT,
                (
                    signature,
                    failure.id,
                    failure.signature.target,
                    failure.message,
                    failure.confirmed,
                    _json(data),
                    None if picture is None else _json(picture),
                ),
            )
            _note_event(connection, signature, number, "found")
            connection.execute(
                "DELETE FROM sightings WHERE run = ? AND signature = ?", (number, signature)
            )

    def fixed(self, run_id: str, signature: Signature | str) -> None:
        """A failure that was open passes."""
        with self._database.writing() as connection:
            number = self._run(connection, run_id)["number"]
            _note_event(connection, str(signature), number, "fixed")

    def end(
        self, run_id: str, *, outcome: Outcome = "ended", notes: Iterable[str] = ()
    ) -> list[str]:
        """A run of this process ends; what a runner that died had not reported is added first.

        Returns what had to be added, in words; they are among the notes too.
        """
        said = self._settle(run_id, self.path.parent)
        self._close(run_id, outcome, [*notes, *said], _now())
        self._lock_file(run_id).unlink(missing_ok=True)
        self._live.pop(run_id).lock.release()
        return said

    def recover(self, out: Path) -> list[str]:
        """End the runs whose process died: first, what their journals hold beyond is added.

        ``out`` is the folder of journals and failures. Returns what was done, in words.
        """
        said: list[str] = []
        for run in self.runs():
            if run.ended is not None or run.id in self._live:
                continue
            try:
                lock = self._locked(run.id)
            except Timeout:
                # Held by its process: it is under way.
                continue
            try:
                said += self._recover(run.id, out)
            finally:
                lock.release()
        return said

    def merge_from(self, path: Path) -> Merged:
        """Add the runs of another history that this one does not have; whole runs, once each.

        A run that has not ended is left out: it is for :meth:`recover` first.
        """
        other = Database(path, read_only=True)
        try:
            # What is wrong with the other one is said of the other one.
            with self._database.writing() as connection, other.reading() as source:
                return merging.merge(source, connection)
        finally:
            other.close()

    def copy(self) -> bytes:
        """The whole history as the bytes of a file, as it is at one moment."""
        with self._database.reading() as connection:
            return connection.serialize()

    # --- what is known ----------------------------------------------------------------------------

    def runs(self) -> tuple[RunRecord, ...]:
        """All runs, oldest first."""
        with self._database.reading() as connection:
            return reading.runs(connection)

    def failures(self) -> tuple[FailureRecord, ...]:
        """All faults, those that were seen last first."""
        with self._database.reading() as connection:
            return reading.failures(connection)

    def rows(self, run: str | None = None) -> tuple[RowSum, ...]:
        """Cases by target and dtype, of one run or of all."""
        with self._database.reading() as connection:
            return reading.rows(connection, run)

    def cells(self, run: str | None = None) -> dict[str, CellSum]:
        """Cases by the name of their cell, of one run or of all."""
        with self._database.reading() as connection:
            return reading.cells(connection, run)

    def widths(self, run: str | None = None) -> dict[Width, CellSum]:
        """Valid cases by target, columns and block, of one run or of all."""
        with self._database.reading() as connection:
            return reading.widths(connection, run)

    def spread(self, run: str | None = None) -> tuple[SpreadSum, ...]:
        """Distributions of error/bound by target, dtype and output, of one run or of all."""
        with self._database.reading() as connection:
            return reading.spread(connection, run)

    # --- parts ------------------------------------------------------------------------------------

    def _lock_file(self, run_id: str) -> Path:
        return self.path.parent / "runs" / f"{run_id}.lock"

    def _locked(self, run_id: str) -> FileLock:
        """The lock of a run, held.

        Raises: Timeout when another process has it.
        """
        path = self._lock_file(run_id)
        lock = FileLock(path)
        with self._database.saying():
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(Timeout):
                lock.acquire(blocking=False)
        if not lock.is_locked:
            raise Timeout(str(path))
        return lock

    def _run(self, connection: sqlite3.Connection, run_id: str) -> dict[str, Any]:
        found = connection.execute(
            "SELECT number, part_seconds, notes FROM runs WHERE id = ?", (run_id,)
        ).fetchone()
        if found is None:
            raise ValueError(f"run_id={run_id!r}, must be of a run that was begun [History]")
        return dict(zip(("number", "part_seconds", "notes"), found, strict=True))

    def _see(self, connection: sqlite3.Connection, number: int, totals: Totals) -> None:
        """Keep the failing cases of faults that no failure of this run is known of."""
        for signature, result in totals.failing.items():
            connection.execute(
                """INSERT OR IGNORE INTO sightings SELECT ?, ?, ?, ?, ?, ? WHERE NOT EXISTS
                (SELECT 1 FROM events WHERE signature = ?2 AND run = ?1 AND kind = 'found')""",
                (number, str(signature), _now(), *sighting_of(signature, result)),
            )

    def _count(self, connection: sqlite3.Connection, run: dict[str, Any], totals: Totals) -> None:
        """Add to the sums in the row of the run itself."""
        parts = Counter(json.loads(run["part_seconds"]))
        parts.update(totals.seconds)
        notes = json.loads(run["notes"])
        notes += totals.faults[: max(0, MAX_FAULTS - len(notes))]
        connection.execute(
            """UPDATE runs SET executed = executed + ?, failed = failed + ?, skipped = skipped + ?,
            faulty = faulty + ?, part_seconds = ?, notes = ? WHERE number = ?""",
            (
                totals.executed,
                totals.failed,
                totals.skipped,
                totals.faulty,
                json.dumps(parts),
                json.dumps(notes),
                run["number"],
            ),
        )

    def _settle(self, run_id: str, out: Path) -> list[str]:
        """Add what the journals of a run hold behind their marks, and failures not yet told."""
        (run,) = (run for run in self.runs() if run.id == run_id)
        said = []
        # An absolute one stays what it is.
        folder = out / run.folder
        if run.folder and not folder.is_dir():
            said.append(f"run {run_id}: its journals are gone: {folder}")
        elif run.folder:
            with self._database.saying():
                said += self._take_unreported(run_id, folder)
        return said + self._tell_sightings(run, out)

    def _take_unreported(self, run_id: str, folder: Path) -> list[str]:
        with self._database.reading() as connection:
            number = self._run(connection, run_id)["number"]
            found = connection.execute(
                "SELECT runner, file, offset FROM marks WHERE run = ?", (number,)
            )
            marks = {runner: Mark(*mark) for runner, *mark in found}
        said, cases = [], 0
        for runner, path in sorted(journals(folder).items()):
            try:
                for totals, mark in unreported(path, marks.get(runner, Mark())):
                    self.add(run_id, runner, totals, mark)
                    cases += totals.executed + totals.skipped
            except JournalError as error:
                said.append(f"run {run_id}: {error}; what follows there is lost")
        if cases:
            said.append(f"run {run_id}: {cases} verdicts added that only its journals had")
        return said

    def _tell_sightings(self, run: RunRecord, out: Path) -> list[str]:
        with self._database.reading() as connection:
            found = connection.execute(
                "SELECT seen, signature_json, case_json, findings FROM sightings "
                "WHERE run = (SELECT number FROM runs WHERE id = ?)",
                (run.id,),
            ).fetchall()
        said = []
        for seen, *sighting in found:
            failure = failure_of(tuple(sighting), seen, run)
            with self._database.saying():
                path = store.write(failure, out / FAILURES)
            self.found(run.id, failure)
            said.append(f"run {run.id}: failure as it was found, not shrunk: {path}")
        return said

    def _recover(self, run_id: str, out: Path) -> list[str]:
        # Looked up again: another process may have done it before the lock was free.
        (run,) = (run for run in self.runs() if run.id == run_id)
        if run.ended is not None:
            return []
        folder = out / run.folder
        paths = journals(folder) if run.folder and folder.is_dir() else {}
        for runner, path in paths.items():
            if is_written(path, LAST_LINES):
                return [f"run {run_id}: is left alone, its runner {runner} still writes {path}"]
        said = [f"run {run_id}: was killed", *self._settle(run_id, out)]
        last = last_word(folder) if paths else None
        self._close(run_id, "killed", said, _now() if last is None else _stamp(last))
        self._lock_file(run_id).unlink(missing_ok=True)
        return said

    def _close(self, run_id: str, outcome: Outcome, notes: list[str], ended: str) -> None:
        with self._database.writing() as connection:
            run = self._run(connection, run_id)
            connection.execute(
                "UPDATE runs SET ended = ?, outcome = ?, notes = ? WHERE number = ?",
                (ended, outcome, json.dumps(json.loads(run["notes"]) + notes), run["number"]),
            )


def _note_event(connection: sqlite3.Connection, signature: str, number: int, kind: str) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?)", (signature, number, kind, _now())
    )


def _json(data: object) -> str:
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


def _stamp(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds")


def _now() -> str:
    return _stamp(datetime.datetime.now(datetime.UTC))
