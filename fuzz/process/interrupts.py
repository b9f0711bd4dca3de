"""Ctrl-C and SIGTERM counted, not raised in the middle of something."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class Interrupts:
    """How often the program was told to end."""

    count = 0


@contextlib.contextmanager
def counting_interrupts() -> Iterator[Interrupts]:
    """Counts signals inside; only the main thread can, and only it gets them."""
    seen = Interrupts()

    def note(*_: object) -> None:
        seen.count += 1

    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = {name: signal.signal(name, note) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
