"""The diary of one runner: what it was about to run, and what came of it, line by line.

A line is written before a case runs and another after it, each flushed, so that a run that is
killed leaves behind all it knew, and the case it was at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from fuzz.case import Case, canonical_json, from_json
from fuzz.verdict import Finding, Verdict

FORMAT = 1

MAX_BYTES = 256 << 20
"""A file that has grown to this size is finished and the next one begun: a night has millions of
cases, and :func:`drop_before` removes what somebody else knows by then."""

AHEAD = 4
"""Begun cases to remember while a journal is read: a runner has two under way."""

_KIND = re.compile(rb'\{"event":"([a-z]+)",(?:"format":[0-9]+,)?"id":"([0-9a-f]+)"')


class JournalError(Exception):
    """A journal that cannot be read; the message names the file, the byte and the reason."""


@dataclass(frozen=True, order=True)
class Mark:
    """A place in a journal: so many finished files, and bytes of the one after them."""

    file: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Entry:
    """A case that a journal holds the verdict on; ``mark`` is behind its line."""

    case: Case
    verdict: Verdict
    mark: Mark


class Journal:
    """A JSONL file, appended to, that one process writes at a time. Use as a context manager.

    Finished files lie beside it, by number: ``journal-0.0.jsonl``, ``journal-0.1.jsonl``.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        # Ends with this process: whoever reads on after a kill knows that nothing more will come.
        self._lock = FileLock(_lock_of(path))
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise ValueError(f"journal={str(path)!r} is being written by another process") from None
        self._number = 1 + max(_finished(path), default=-1)
        self._open()

    def _open(self) -> None:
        # Line buffered: each line reaches the operating system at once, at 5 us a line. ASCII, as
        # JSON escapes all else, so that characters are bytes.
        self._file = self.path.open("a", buffering=1, encoding="ascii")
        self._size = self.path.stat().st_size

    def _write(self, line: str) -> None:
        if self._size > MAX_BYTES:
            self._file.close()
            self.path.replace(_numbered(self.path, self._number))
            self._number += 1
            self._open()
        self._size += self._file.write(line + "\n")

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._lock.release()

    @property
    def mark(self) -> Mark:
        """Behind the last line."""
        return Mark(self._number, self._size)

    def begin(self, case: Case) -> None:
        """Before the case runs: all that is needed to run it again."""
        # The case is canonical JSON already; it is not encoded a second time.
        self._write(
            f'{{"event":"begin","format":{FORMAT},"id":"{case.case_id}",'
            f'"case":{canonical_json(case)}}}'
        )

    def end(self, verdict: Verdict) -> None:
        """After the case was judged."""
        line: dict[str, object] = {
            "event": "end",
            "id": verdict.case_id,
            "status": verdict.status,
            "seconds": {part: round(value, 6) for part, value in verdict.seconds.items()},
        }
        if verdict.reason:
            line["reason"] = verdict.reason
        if verdict.ratios:
            # Infinite ratios are no JSON numbers. All digits: what is read back is what was judged.
            line["ratios"] = {name: repr(float(value)) for name, value in verdict.ratios.items()}
        if verdict.findings:
            line["findings"] = [finding_data(finding) for finding in verdict.findings]
        self._write(json.dumps(line, separators=(",", ":")))

    def abandon(self, case: Case) -> None:
        """The campaign was stopped while the case was running."""
        self._write(f'{{"event":"abandoned","id":"{case.case_id}"}}')


def finding_data(finding: Finding) -> dict[str, object]:
    """A finding as plain JSON values."""
    return {
        "check": finding.check,
        "run": finding.run,
        "output": finding.output,
        "region": finding.region,
        "message": finding.message,
        "ratio": repr(float(finding.ratio)),
        "index": list(finding.index),
    }


def finding_of(data: dict[str, Any]) -> Finding:
    """The finding of :func:`finding_data`."""
    ratio, index = float(data.get("ratio", 0.0)), tuple(data.get("index", ()))
    return Finding(**{**data, "ratio": ratio, "index": index})


def is_written(path: Path, patience: float = 0.0) -> bool:
    """Whether a process writes this journal, and still does after ``patience`` seconds."""
    try:
        with FileLock(_lock_of(path)).acquire(timeout=patience):
            return False
    except Timeout:
        return True


def journals(folder: Path) -> dict[int, Path]:
    """The journals of a campaign's folder, by runner."""
    found = (re.fullmatch(r"journal-(\d+)(\.\d+)?\.jsonl", p.name) for p in folder.iterdir())
    return {int(m[1]): folder / f"journal-{m[1]}.jsonl" for m in found if m}


def drop_before(path: Path, mark: Mark) -> None:
    """Remove the finished files that no one needs who knows the journal up to the mark.

    The last one before it stays: it may hold the beginning of a case that ended behind the mark.
    """
    number = mark.file - 2
    while number >= 0 and (file := _numbered(path, number)).exists():
        file.unlink()
        number -= 1


def entries_since(path: Path, mark: Mark) -> Iterator[Entry]:
    """The verdicts of a journal behind a mark. A line that is cut off ends it.

    Raises: JournalError.
    """
    files = _finished(path)
    if path.exists():
        files[1 + max(files, default=-1)] = path
    last = max(files, default=0)
    if not files or mark >= Mark(last, files[last].stat().st_size):
        return
    begun: dict[bytes, bytes] = {}
    for number in sorted(n for n in files if n >= mark.file - 1):
        for offset, line in _lines(files[number]):
            kind, case_id = _kind(files[number], offset, line)
            if kind == b"begin":
                begun.pop(case_id, None)
                begun[case_id] = line
                if len(begun) > AHEAD:
                    del begun[next(iter(begun))]
            elif kind == b"end" and Mark(number, offset) >= mark:
                try:
                    case, verdict = _case(begun[case_id]), _verdict(line)
                except (ValueError, KeyError, TypeError) as error:
                    raise _unreadable(files[number], offset, error) from error
                yield Entry(case, verdict, Mark(number, offset + len(line)))


def failing(path: Path) -> Iterator[tuple[Case, tuple[Finding, ...]]]:
    """The cases of one file that failed, with what was found; a line that is cut off ends it."""
    begun: dict[bytes, bytes] = {}
    for offset, line in _lines(path):
        kind, case_id = _kind(path, offset, line)
        if kind == b"begin":
            begun[case_id] = line
            continue
        first = begun.pop(case_id, None)
        if kind == b"end" and first is not None and b'"status":"fail"' in line:
            yield _case(first), _verdict(line).findings


def _lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")


def _numbered(path: Path, number: int) -> Path:
    return path.with_suffix(f".{number}.jsonl")


def _finished(path: Path) -> dict[int, Path]:
    """The finished files of a journal, by number."""
    pattern = re.compile(re.escape(path.stem) + r"\.(\d+)\.jsonl")
    found = (pattern.fullmatch(other.name) for other in path.parent.iterdir())
    return {int(m[1]): path.with_name(m[0]) for m in found if m}


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Whole lines, each with where it begins."""
    offset = 0
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            yield offset, line
            offset += len(line)


def _kind(path: Path, offset: int, line: bytes) -> tuple[bytes, bytes]:
    """Event and case of a line; most lines need no more than that."""
    found = _KIND.match(line)
    if found is None:
        raise _unreadable(path, offset, "no line of a journal")
    return found[1], found[2]


def _unreadable(path: Path, offset: int, reason: object) -> JournalError:
    return JournalError(f"{path}: byte {offset}: {reason}")


def _case(line: bytes) -> Case:
    return from_json(json.loads(line)["case"])


def _verdict(line: bytes) -> Verdict:
    data = json.loads(line)
    return Verdict(
        data["id"],
        data["status"],
        findings=tuple(finding_of(finding) for finding in data.get("findings", ())),
        reason=data.get("reason", ""),
        ratios={name: float(ratio) for name, ratio in data.get("ratios", {}).items()},
        seconds=data["seconds"],
    )
