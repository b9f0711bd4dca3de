"""The SQLite file behind a history: opened, brought to this format, and written in transactions."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from fuzz.history import schema

PATIENCE = 30.0
"""Seconds to wait for another process that writes; each does so for milliseconds."""


class HistoryError(Exception):
    """A history that cannot be read or written; the message names the file and the reason."""


class Database:
    """A connection. Any number may read while one writes."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        """Open the file; make it where there is none.

        Raises: HistoryError.
        """
        self.path = path
        with self.saying():
            self._connection = self._read_only() if read_only else self._writable()

    @contextlib.contextmanager
    def saying(self) -> Iterator[None]:
        """Have the errors inside name the file."""
        try:
            yield
        except sqlite3.Error as error:
            raise HistoryError(f"history={str(self.path)!r}: {error}") from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise HistoryError(
                f"history={str(self.path)!r}: {where}{error.strerror or error}"
            ) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All that is done inside, or nothing of it.

        Raises: HistoryError.
        """
        with self.saying(), _transaction(self._connection):
            yield self._connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The history as it is at one moment.

        Raises: HistoryError.
        """
        with self.saying():
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.rollback()

    def close(self) -> None:
        """Close the file.

        Raises: HistoryError.
        """
        with self.saying():
            self._connection.close()

    def _writable(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _closed_on_error(sqlite3.connect(self.path, timeout=PATIENCE)) as connection:
            connection.isolation_level = None
            # Refused before anything is changed.
            self._format(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            # What is written outlives the process that wrote it, if not a failing power supply; an
            # fsync a report would cost more than the report.
            connection.execute("PRAGMA synchronous = NORMAL")
            with _transaction(connection):
                self._migrate(connection)
        return connection

    def _read_only(self) -> sqlite3.Connection:
        uri = f"file:{quote(str(self.path.absolute()))}?mode=ro"
        if not self.path.with_name(f"{self.path.name}-wal").exists() and not _is_readable(uri):
            # Where the files of a writer cannot be made beside it, nobody writes to it.
            uri += "&immutable=1"
        with _closed_on_error(sqlite3.connect(uri, uri=True, timeout=PATIENCE)) as connection:
            connection.isolation_level = None
            if self._format(connection) == len(schema.MIGRATIONS):
                return connection
            with contextlib.closing(connection) as older:
                copy = sqlite3.connect(":memory:", isolation_level=None)
                older.backup(copy)
        with _closed_on_error(copy):
            self._migrate(copy)
        return copy

    def _format(self, connection: sqlite3.Connection) -> int:
        """The format of the file, 0 for an empty one.

        Raises: HistoryError for one that this program cannot read.
        """
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        is_empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not is_empty and application != schema.APPLICATION:
            raise HistoryError(f"history={str(self.path)!r}: is a database of another program")
        if found > len(schema.MIGRATIONS):
            raise HistoryError(
                f"history={str(self.path)!r}: format={found}, this version reads formats up to "
                f"{len(schema.MIGRATIONS)}: written by a newer version of this program"
            )
        return int(found)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        # Looked up again: another process may have done it meanwhile.
        for statements in schema.MIGRATIONS[self._format(connection) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION}")
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS)}")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # A full disk may have ended it already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextlib.contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def _is_readable(uri: str) -> bool:
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        try:
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError:
            return False
    return True
