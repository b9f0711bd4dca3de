"""The shards of a night joined in one history, and a word on each that is not whole."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from fuzz import store
from fuzz.history import HISTORY, History, HistoryError, RunRecord
from fuzz.jobs.setup import UsageError
from fuzz.nights.outcome import NIGHT
from fuzz.nights.shards import SHARD, ShardError, ShardFile, read_shard
from fuzz.store import FAILURES

State = Literal["whole", "interrupted", "unfinished", "truncated", "absent"]


@dataclass(frozen=True)
class MergedShard:
    """What a folder held. ``index`` and ``count`` are 0 where it does not say which shard it is.

    ``why`` says what is wrong with it, ``new`` counts the runs of it that were not known.
    """

    folder: Path
    state: State
    index: int = 0
    count: int = 0
    run: str = ""
    exit_code: int = 2
    executed: int = 0
    failed: int = 0
    new: int = 0
    why: str = ""

    @property
    def name(self) -> str:
        """The shard in words."""
        where = f"shard {self.index}/{self.count} " if self.count else ""
        return f"{where}({self.folder})"


@dataclass
class MergeResult:
    """What came of a merge. ``missing`` are shards that none of the folders holds."""

    into: Path
    shards: list[MergedShard] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def executed(self) -> int:
        """Cases of the shards' nights."""
        return sum(shard.executed for shard in self.shards)

    @property
    def failed(self) -> int:
        """Those of them that failed."""
        return sum(shard.failed for shard in self.shards)

    @property
    def exit_code(self) -> int:
        """That of the worst shard; 2 where one is missing or not whole."""
        whole = all(shard.state == "whole" for shard in self.shards)
        if not self.shards or not whole or self.missing or self.errors:
            return 2
        return max(shard.exit_code for shard in self.shards)


def merge_shards(folders: Sequence[Path], into: Path) -> MergeResult:
    """Add the histories of shards to the one in ``into``; what is there already stays as it is.

    Whatever can be read is added, also where a shard is missing or not whole.
    Raises: UsageError where ``into`` cannot be written, or is one of the shards.
    """
    if not folders:
        raise UsageError("folders=[], must be at least one")
    # A folder named twice is one shard.
    folders = list({folder.resolve(): folder for folder in folders}.values())
    if into.resolve() in {folder.resolve() for folder in folders}:
        raise UsageError(f"into={str(into)!r}, must not be one of the shards")
    result = MergeResult(into)
    for folder in folders:
        add_shard(folder, result)
    find_missing(result)
    return result


def add_shard(folder: Path, result: MergeResult) -> MergedShard:
    """Add one shard to the history in ``result.into``, and write its open failures.

    Raises: UsageError where that cannot be written.
    """
    into = result.into
    try:
        into.mkdir(parents=True, exist_ok=True)
        with History(into / HISTORY) as history:
            shard = _merge_one(folder, history, result)
            _write_failures(history, shard, into / FAILURES)
    except (HistoryError, OSError) as error:
        raise UsageError(f"into={str(into)!r}: {error}") from error
    result.shards.append(shard)
    return shard


def find_missing(result: MergeResult, count: int = 0) -> None:
    """See which of ``count`` shards are not there; 0: of as many as the shards themselves say."""
    result.missing, errors = _missing(result.shards, count)
    result.errors += errors


def _merge_one(folder: Path, into: History, result: MergeResult) -> MergedShard:
    path = folder / HISTORY
    if not path.is_file():
        what = "holds no history" if folder.is_dir() else "no such folder"
        return MergedShard(folder, "absent", why=what)
    said = ""
    words: ShardFile | None = None
    try:
        words = read_shard(folder)
    except ShardError as error:
        said = str(error)
    try:
        _check(path)
        if words is None:
            with History(path) as history:
                # Its process died: what its journals hold and the history does not is added first.
                result.notes += history.recover(folder)
        merged = into.merge_from(path)
        with History(path, read_only=True) as history:
            record = _record(history.runs(), words)
    except HistoryError as error:
        index, count = (words.shard, words.shards) if words is not None else (0, 0)
        return MergedShard(folder, "truncated", index, count, why=str(error))
    if record is None:
        what = f"its history has no run {words.run}" if words is not None else "it has no night"
        return MergedShard(folder, "truncated", why=f"{what}: {path}")
    state, why = _state(record, words, said, path)
    return MergedShard(
        folder,
        state,
        record.shard,
        record.shards,
        record.id,
        words.exit_code if words is not None else 2,
        record.executed,
        record.failed,
        len(merged.new),
        why,
    )


def _check(path: Path) -> None:
    """Look at every page of a history: one that is cut off may lack what nobody asks for.

    Raises: HistoryError.
    """
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    alone = not path.with_name(f"{path.name}-wal").exists()
    if alone:
        uri += "&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            found = [word for (word,) in database.execute("PRAGMA quick_check(1)")]
            pages, size = (
                database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "page_size")
            )
    except sqlite3.Error as error:
        raise HistoryError(f"history={str(path)!r}: {error}") from error
    # SQLite reads zeros where the last page ends early.
    if alone and path.stat().st_size != pages * size:
        found = [f"{path.stat().st_size} bytes, must be {pages * size}"]
    if found != ["ok"]:
        raise HistoryError(f"history={str(path)!r}: is damaged: {found[0]}")


def _record(runs: tuple[RunRecord, ...], words: ShardFile | None) -> RunRecord | None:
    """The run that a shard's last words are of; without them, the last night that was begun."""
    if words is not None:
        return next((run for run in runs if run.id == words.run), None)
    return max((run for run in runs if run.kind == NIGHT), key=lambda r: r.started, default=None)


def _state(record: RunRecord, words: ShardFile | None, said: str, path: Path) -> tuple[State, str]:
    """How a shard ended, and what is wrong with it."""
    if said:
        return "truncated", said
    if words is None:
        how = "still runs" if record.ended is None else "was killed"
        return "unfinished", f"it {how}: there is no {SHARD} beside {path}"
    counts = (record.executed, record.failed, record.skipped)
    told = (words.executed, words.failed, words.skipped)
    if counts != told:
        return "truncated", (
            f"its history has {counts[0]} cases ({counts[1]} failed, {counts[2]} skipped), but "
            f"{SHARD} says {told[0]} ({told[1]} failed, {told[2]} skipped): {path}"
        )
    if words.interrupted:
        return "interrupted", "it was told to end before its time"
    return "whole", ""


def _missing(shards: list[MergedShard], count: int) -> tuple[list[str], list[str]]:
    """The shards that no folder holds, and what does not fit together."""
    named = [shard for shard in shards if shard.count]
    counts = sorted({shard.count for shard in named} | ({count} if count else set()))
    if not counts:
        return [], []
    errors = []
    if len(counts) > 1:
        told = ", ".join(shard.name for shard in named)
        errors.append(f"these are shards of different nights: {told}")
    times = Counter((shard.index, shard.count) for shard in named)
    for (index, count), number in sorted(times.items()):
        if number > 1:
            folders = ", ".join(str(s.folder) for s in named if s.index == index)
            errors.append(f"shard {index}/{count} is there {number} times: {folders}")
    count = counts[-1]
    have = {shard.index for shard in named if shard.count == count}
    return [f"{index}/{count}" for index in range(1, count + 1) if index not in have], errors


def _write_failures(history: History, shard: MergedShard, folder: Path) -> None:
    """A file for each open failure that came with a shard, for replay to find."""
    for record in history.failures():
        known = (folder / f"{record.failure.id}.json").is_file()
        if record.is_open and record.last_run == shard.run and not known:
            store.write(record.failure, folder)
