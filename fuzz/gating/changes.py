"""Which lines of the Python sources differ from base, by what git says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.gating.git import PYTHON_SOURCES, git
from fuzz.gating.worktree import root, untracked
from fuzz.jobs.setup import UsageError

Ranges = tuple[tuple[int, int], ...]
"""First and last line of each stretch, counted from 1, sorted, without overlaps."""


@dataclass(frozen=True)
class Changes:
    """Changed lines of head by file, as the repository names it; ``renamed`` has base's names.

    Lines are numbered as in the work tree. Where lines were only deleted, those on both sides of
    the gap count as changed.
    """

    lines: Mapping[str, Ranges] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    def of(self, file: str) -> Ranges:
        """The changed lines of a file, under its name on head or on base."""
        if file in self.lines:
            return self.lines[file]
        now = next((new for new, old in self.renamed.items() if old == file), file)
        return self.lines.get(now, ())

    def first(self, file: str, first_line: int, last_line: int) -> int | None:
        """The first changed line of a file from one line to another, None where there is none."""
        for first, last in self.of(file):
            if first <= last_line and last >= first_line:
                return max(first, first_line)
        return None


def changed_lines(base_sha: str, repo: Path) -> Changes:
    """How the Python sources of the work tree differ from base, committed or not.

    A file that git does not track is new from end to end, unless git ignores it.
    Raises: UsageError.
    """
    top = root(repo)
    # The plumbing command: it knows nothing of what the user configured for `git diff`.
    options = ("--patch", "--unified=0", "--find-renames")
    changes = _parse(git(top, "diff-index", *options, base_sha, "--", PYTHON_SOURCES))
    lines = dict(changes.lines)
    for name in untracked(top):
        if (top / name).is_file() and (n_lines := _count_lines(top / name)):
            lines[name] = ((1, n_lines),)
    return Changes(lines, changes.renamed)


def _count_lines(path: Path) -> int:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    return data.count(b"\n") + (not data.endswith(b"\n")) if data else 0


_HUNK = re.compile(rb"@@ -\d+(?:,\d+)? \+(\d+)(?:,(\d+))? @@")


def _parse(patch: bytes) -> Changes:
    lines: dict[str, list[tuple[int, int]]] = {}
    renamed: dict[str, str] = {}
    file = old = None
    # A deleted line "-- x" looks like a header.
    in_header = True
    # Not at the other separators that splitlines knows: a source may hold them.
    for line in patch.split(b"\n"):
        if line.startswith(b"diff --git "):
            in_header, file = True, None
        elif hunk := _HUNK.match(line):
            in_header = False
            if file is not None:
                lines.setdefault(file, []).append(_range(int(hunk[1]), int(hunk[2] or b"1")))
        elif in_header and line.startswith(b"rename from "):
            old = _name(line[12:])
        elif in_header and line.startswith(b"rename to "):
            assert old is not None
            renamed[_name(line[10:])] = old
        elif in_header and line.startswith(b"+++ "):
            name = _name(line[4:])
            # Otherwise /dev/null: head has no line of it.
            file = name[2:] if name.startswith("b/") else None
    return Changes({name: _joined(ranges) for name, ranges in lines.items()}, renamed)


def _range(first: int, count: int) -> tuple[int, int]:
    """Lines of head that a hunk changes. Of a deletion git names the line before."""
    return (first, first + count - 1) if count else (max(first, 1), first + 1)


def _joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def _name(text: bytes) -> str:
    """A file's name; git quotes an unusual one as C does, and ends one with a space by a tab."""
    text = text.removesuffix(b"\t")
    if text.startswith(b'"'):
        text = text[1:-1].decode("unicode_escape").encode("latin-1")
    return os.fsdecode(text)
