"""The diary of one runner: what it was about to run, and what came of it, line by line.

A line is written before a case runs and another after it, each flushed, so that a run that is
killed leaves behind all it knew, and the case it was at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from fuzz.case import Case, canonical_json, from_json
from fuzz.verdict import Finding, Verdict

FORMAT = 1

MAX_BYTES = 256 << 20
"""A file that has grown to this size becomes the old one, and the one before it goes: a night has
millions of cases."""


class Journal:
    """A JSONL file, appended to. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._open()

    def _open(self) -> None:
        # Line buffered: each line reaches the operating system at once, at 5 us a line.
        self._file = self.path.open("a", buffering=1, encoding="utf-8")
        self._size = self.path.stat().st_size

    def _write(self, line: str) -> None:
        if self._size > MAX_BYTES:
            self._file.close()
            self.path.replace(self.path.with_suffix(".old.jsonl"))
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
            # Infinite ratios are no JSON numbers.
            line["ratios"] = {name: f"{value:.4g}" for name, value in verdict.ratios.items()}
        if verdict.findings:
            line["findings"] = [
                {
                    "check": finding.check,
                    "run": finding.run,
                    "output": finding.output,
                    "region": finding.region,
                    "message": finding.message,
                }
                for finding in verdict.findings
            ]
        self._write(json.dumps(line, separators=(",", ":")))

    def abandon(self, case: Case) -> None:
        """The campaign was stopped while the case was running."""
        self._write(f'{{"event":"abandoned","id":"{case.case_id}"}}')


def failing(path: Path) -> Iterator[tuple[Case, tuple[Finding, ...]]]:
    """The cases of a journal that failed, with what was found; a line that is cut off ends it."""
    begun: dict[str, object] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                return
            entry = json.loads(line)
            if entry["event"] == "begin":
                begun[entry["id"]] = entry["case"]
                continue
            case = begun.pop(entry["id"], None)
            if entry.get("status") == "fail" and case is not None:
                findings = tuple(Finding(**finding) for finding in entry["findings"])
                yield from_json(case), findings
