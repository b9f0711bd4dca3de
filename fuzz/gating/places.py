"""At which line of the sources a reader of a change should be told of a finding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Protocol

from fuzz.gating.changes import Changes
from fuzz.gating.outcome import Place


class SourcePart(Protocol):
    """A stretch of source that a target rests on; ``file`` as the repository names it."""

    @property
    def name(self) -> str:
        """What is defined there."""

    @property
    def file(self) -> str:
        """From the top of the repository, with slashes."""

    @property
    def first_line(self) -> int:
        """Counted from 1."""

    @property
    def last_line(self) -> int:
        """Included."""

    @property
    def kernel(self) -> bool:
        """Whether it runs on the device."""


_NAMED = re.compile(r"[\[,] ?(?P<file>[^\[\],/\\:]+\.py):(?P<line>\d+)(?=[:\]])")
"""As the strict interpreter ends a message, "[_kernel, program (0, 0, 0), my_norm.py:20: source]",
and a sanitizer's report, "[_kernel, my_norm.py:20]"."""


def place_of(
    parts: Sequence[SourcePart], changes: Changes, messages: Iterable[str]
) -> Place | None:
    """Where to annotate a finding of a target made of these parts; None where there is no part.

    The line that a message names; else the first changed line of a kernel, or of any part; else
    the first line of a kernel, or of the first part.
    """
    if not parts:
        return None
    kernels = [part for part in parts if part.kernel]
    candidates = (
        *_named(parts, messages),
        *_changed(kernels, changes),
        *_changed(parts, changes),
        *(Place(part.file, part.first_line) for part in (*kernels, *parts)),
    )
    return candidates[0]


def _named(parts: Sequence[SourcePart], messages: Iterable[str]) -> Iterator[Place]:
    """The lines that the messages name; they give a file without its folder."""
    for message in messages:
        for found in _NAMED.finditer(message):
            line = int(found["line"])
            owners = [p for p in parts if PurePosixPath(p.file).name == found["file"]]
            # Of two files of one name, the one that has code of the target at this line.
            owners.sort(key=lambda p: not p.first_line <= line <= p.last_line)
            yield from (Place(owner.file, line) for owner in owners[:1])


def _changed(parts: Iterable[SourcePart], changes: Changes) -> Iterator[Place]:
    for part in parts:
        line = changes.first(part.file, part.first_line, part.last_line)
        if line is not None:
            yield Place(part.file, line)
