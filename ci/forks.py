"""A function called in a fork of this process: what it returned, or how it ended without."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import psutil

Answer = dict[str, Any]
"""Plain data: it comes back as JSON."""


class Fork:
    """A call in a process of its own, with a limit to its time and to the memory that it takes."""

    def __init__(self, call: Callable[[], Answer], *, seconds: float, memory: int) -> None:
        self._read, write = os.pipe()
        self._said = b""
        self._until = time.monotonic() + seconds
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            _answer(call, write, memory)
        os.close(write)

    def fileno(self) -> int:
        """For select: there is something to hear."""
        return self._read

    def hear(self) -> Answer | None:
        """What has been heard: None as long as the process goes on.

        ``{"ended": how}`` where it ended without an answer.
        """
        if select.select([self], [], [], 0.0)[0]:
            text = os.read(self._read, 1 << 16)
            self._said += text
            if not text:
                os.close(self._read)
                _, status = os.waitpid(self._pid, 0)
                how = f"with status {os.waitstatus_to_exitcode(status)}"
                return dict(json.loads(self._said)) if self._said else {"ended": how}
        if time.monotonic() > self._until:
            self.stop()
            return {"ended": "by its time limit"}
        return None

    def stop(self) -> None:
        """End the process."""
        os.close(self._read)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def answer_of(call: Callable[[], Answer], *, seconds: float, memory: int) -> Answer:
    """What a function returns in a process of its own."""
    fork = Fork(call, seconds=seconds, memory=memory)
    while (answer := fork.hear()) is None:
        wait([fork])
    return answer


def wait(forks: Sequence[Fork]) -> None:
    """Until one of them can be heard, or a second has passed."""
    select.select(forks, [], [], 1.0)


def _answer(call: Callable[[], Answer], write: int, memory: int) -> NoReturn:
    """Call, say what came of it, and end whatever happened."""
    code = 1
    try:
        # An interrupt goes to all of the terminal's processes; the first one ends the others.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # What is mapped already is not used: a torch for GPUs maps many times what it needs.
        most = psutil.Process().memory_info().vms + memory
        # The hard limit stays as it is: a fork of a fork may need more.
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        with os.fdopen(write, "w") as file:
            json.dump(call(), file)
        code = 0
    finally:
        os._exit(code)
