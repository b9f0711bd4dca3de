"""Processes that never outlive their parent, and whose end is never missed.

Standard library only: imported before NumPy.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>: the signal this process gets when its parent ends."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Read by NumPy and torch when they are first imported."""

QUIET_EXIT = 256
"""Stands for exit code 0 of a watched process; real ones end at 255."""

KEPT = 4
"""Ended processes that can still be asked for. One case is under way and one behind it."""


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however that ends.

    A process that is busy in C code hears nothing from a closed pipe, so the request goes to the
    operating system. ``parent`` is the expected parent: it may have died before the request.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    if os.getppid() != parent:
        os._exit(1)


def ignore_interrupt() -> None:
    """Leave Ctrl-C to the main process: a terminal sends it to all of the group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def spawning() -> Iterator[None]:
    """Children begun inside ignore Ctrl-C from their first instruction on, which they inherit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def use_one_thread() -> None:
    """Keep numeric libraries to one thread: the runners already use every core."""
    for name in THREAD_VARIABLES:
        os.environ[name] = "1"


def enter_child(parent: int) -> None:
    """What every process of a campaign does first, except the main one."""
    die_with_parent(parent)
    # What ends the main process's group, a time limit of CI say, is the main process's to handle.
    os.setpgid(0, 0)
    ignore_interrupt()
    use_one_thread()


class WatchedProcess(SpawnProcess):
    """A process that has no orderly end: it is ended, or it dies.

    A pool takes exit code 0 for an orderly end and goes on waiting for what the process was at. A
    kernel that calls exit(0) would have it wait for the whole time limit, and report a hang.
    """

    @property
    def exitcode(self) -> int | None:
        """What the process ended with, QUIET_EXIT for 0; None while it lives."""
        code = super().exitcode
        return QUIET_EXIT if code == 0 else code


class WatchedContext(SpawnContext):
    """Starts watched processes, and tells how the last ones ended, where a pool forgets."""

    def __init__(self) -> None:
        self._started: tuple[WatchedProcess, ...] = ()

    def Process(self, *args: Any, **kwargs: Any) -> WatchedProcess:  # type: ignore[override]  # noqa: N802
        """A process that is not started yet."""
        self.latest = WatchedProcess(*args, **kwargs)
        return self.latest

    @property
    def latest(self) -> WatchedProcess:
        """The last one started. Given by the pool's own thread."""
        return self._started[-1]

    @latest.setter
    def latest(self, process: WatchedProcess) -> None:
        # Replaced as a whole, for whoever is reading. Each of them holds a file descriptor.
        self._started = (*self._started, process)[-KEPT:]

    def exit_code(self, pid: int | None = None) -> int | None:
        """What a process ended with, the last one started or that of ``pid``; None: not known."""
        found = [p for p in self._started if pid is None or p.pid == pid]
        return found[-1].exitcode if found else None
