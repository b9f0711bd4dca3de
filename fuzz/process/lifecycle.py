"""Processes that never outlive their parent. Standard library only: imported before NumPy."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Iterator

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>: the signal this process gets when its parent ends."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Read by NumPy and torch when they are first imported."""


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
