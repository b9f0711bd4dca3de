"""What processes and shared segments there are, for tests that must leave none behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from fuzz.process.mailbox import PREFIX, SEGMENTS


def abandoned_segments() -> list[str]:
    """Shared segments whose process is gone, but for those that there were before."""
    names = [path.name for path in SEGMENTS.glob(f"{PREFIX}*") if path.name not in _BEFORE]
    return [name for name in names if not is_alive(int(name.split("-")[2]))]


# A machine may have had a campaign killed in ways that no program can clean up after.
_BEFORE = frozenset(path.name for path in SEGMENTS.glob(f"{PREFIX}*"))


def own_segments() -> list[str]:
    """Shared segments of this process."""
    return [path.name for path in SEGMENTS.glob(f"{PREFIX}{os.getpid()}-*")]


def descendants(parent: int) -> list[int]:
    """The processes below one, at any depth."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent(entry) == parent:
            found += [int(entry.name), *descendants(int(entry.name))]
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return _fields(Path(f"/proc/{pid}"))[0] != "Z"
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Fails unless something holds soon."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def _parent(entry: Path) -> int:
    try:
        return int(_fields(entry)[1])
    except OSError:
        return 0


def _fields(entry: Path) -> list[str]:
    """State, parent and the rest: what follows the name, which may hold blanks."""
    return (entry / "stat").read_text().rpartition(")")[2].split()
