"""Files of ci/verdicts.py: a stored set of cases, and the results of judging it on one device."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.case import Case, CaseError, canonical_json, from_json

FORMAT = 1
"""Version of a result file. A reader refuses any other by name."""

Row = dict[str, Any]
"""One judged case, as JSON values."""


class VerdictsError(Exception):
    """Something that the user must mend; the message names file or argument, and the rule."""


def write_set(cases: list[Case], path: Path) -> None:
    """Write cases as JSON lines, in compressed form where the name ends in .gz."""
    text = "".join(canonical_json(case) + "\n" for case in cases).encode()
    # Without the time, so that the same cases are the same file.
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def read_set(path: Path) -> list[Case]:
    """Read a set.

    Raises: VerdictsError naming the file and the line.
    """
    try:
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        lines = text.decode().splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise VerdictsError(f"{path}: cannot be read: {error}") from error
    cases = []
    for number, line in enumerate(lines, 1):
        try:
            cases.append(from_json(json.loads(line)))
        except (json.JSONDecodeError, CaseError) as error:
            raise VerdictsError(f"{path}, line {number}: {error}") from error
    if not cases:
        raise VerdictsError(f"{path}: holds no case")
    return cases


def set_digest(cases: list[Case]) -> str:
    """What makes two sets the same: their cases, in order."""
    return hashlib.sha256(" ".join(case.case_id for case in cases).encode()).hexdigest()[:12]


@dataclass
class Results:
    """What a result file holds: its header, and a row for each case that was judged."""

    path: Path
    header: Row
    rows: dict[str, Row] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.path.stem

    def add(self, row: Row) -> None:
        """Append a row; the line is complete or, after a crash, ignored."""
        self.rows[row["id"]] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, separators=(",", ":")) + "\n")


def read_results(path: Path) -> Results:
    """Read a result file.

    Raises: VerdictsError naming the file and the rule.
    """
    try:
        *lines, rest = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise VerdictsError(f"{path}: cannot be read: {error}") from error
    if rest:
        # The last word of a process that was killed while it wrote.
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    try:
        header, *rows = [json.loads(line) for line in lines]
        if header["format"] != FORMAT:
            raise VerdictsError(
                f"{path}: format={header['format']!r}, this version reads format {FORMAT}"
            )
        return Results(path, header, {row["id"]: row for row in rows})
    except (ValueError, KeyError, TypeError) as error:
        raise VerdictsError(f"{path}: is no result of `judge`: {error}") from error


def open_results(path: Path, header: Row) -> Results:
    """The results to go on with, or new ones.

    Raises: VerdictsError when the file is of other cases, another device or other versions.
    """
    if not path.exists():
        path.write_text(json.dumps(header) + "\n", encoding="utf-8")
        return Results(path, header)
    results = read_results(path)
    for name, value in header.items():
        if results.header.get(name) != value:
            raise VerdictsError(
                f"{path}: {name}={results.header.get(name)!r}, but this would be {value!r}: "
                f"give another --out or remove the file"
            )
    return results
