"""A GPU for one process at a time: a lock on a file, which ends with its holder, however that ends.

Numbering workers does not do: one that takes the place of a crashed one gets a new number, and
with it the GPU of another.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

POLL = 0.2
"""Seconds between two looks whether a GPU has become free."""


@contextlib.contextmanager
def gpu_lease(gpus: Sequence[str], folder: Path, *, say: Callable[[str], None]) -> Iterator[str]:
    """One of ``gpus`` that nobody else has who leases by this folder, for as long as it is used.

    Waits for one where all are taken, and says so once.

    Raises: ValueError where there are none.
    """
    if not gpus:
        raise ValueError("gpus=(), must name at least one")
    folder.mkdir(parents=True, exist_ok=True)
    gpu, lock = _wait(gpus, folder, say)
    try:
        yield gpu
    finally:
        lock.release()


def _wait(gpus: Sequence[str], folder: Path, say: Callable[[str], None]) -> tuple[str, FileLock]:
    told = False
    while True:
        for gpu in gpus:
            lock = FileLock(lock_file(folder, gpu))
            with contextlib.suppress(Timeout):
                lock.acquire(blocking=False)
                return gpu, lock
        if not told:
            told = True
            say(f"waiting for a GPU: {', '.join(gpus)} taken, by the locks in {folder}")
        time.sleep(POLL)


def lock_file(folder: Path, gpu: str) -> Path:
    """The file whose lock stands for a GPU; its name may have slashes: MIG-GPU-<id>/1/0."""
    return folder / f"gpu-{re.sub('[^A-Za-z0-9-]', '_', gpu)}.lock"
