"""Processes that compile: each is asked one thing at a time, so that a death costs that alone.

A pool that hands out tasks ahead cannot always tell which of them a process died of.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from fuzz.compiling.gpus import Gpu
from fuzz.compiling.tasks import Answer, Ready, Setting, Task
from fuzz.compiling.worker import worker_main
from fuzz.process.children import end_child, start_child

START_LIMIT = 180.0
"""Seconds a process may take to begin: importing torch and Triton takes 2 to 4 s, a minute from a
cold disk."""

TICK = 0.2
"""Seconds between two looks at whether the job was stopped."""

T = TypeVar("T")


class Stopped(Exception):
    """The job was told to end."""


class CannotStart(Exception):
    """No process can be had that compiles; the message says why."""


@dataclass(frozen=True)
class Lost:
    """The process ended, or was ended, before it answered."""

    reason: str


@dataclass(frozen=True)
class Order(Generic[T]):
    """A task, and what it is known by to whoever gave it."""

    task: Task
    label: T


@dataclass
class _Member(Generic[T]):
    """One process. ``order`` is what it is at, until ``deadline``."""

    process: BaseProcess
    connection: Connection
    log: Path
    deadline: float
    ready: bool = False
    order: Order[T] | None = None

    def hear(self) -> Ready | Answer | None:
        """What it says; None where it has ended without a word."""
        try:
            said: Ready | Answer = self.connection.recv()
        except (EOFError, OSError):
            return None
        return said

    def end(self) -> str:
        """End it and the compilers it has started; how it ended."""
        assert self.process.pid is not None
        self.process.join(TICK)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        end_child(self.process, self.connection, 0.0)
        return _how_ended(self.process.exitcode, self.log)


class Crew:
    """At most ``size`` processes, which take ``gpu`` for theirs. Use as a context manager."""

    def __init__(
        self, size: int, *, gpu: Gpu, folder: Path | None = None, foreign: Path | None = None
    ) -> None:
        self._size = size
        self._gpu = gpu
        self._places = (folder, foreign)
        self._started = 0
        self._logs = tempfile.TemporaryDirectory(prefix="ln-fuzz-compile-")
        self._members: list[_Member[Any]] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            member.process.kill()
        for member in self._members:
            member.end()
        self._members.clear()
        self._logs.cleanup()

    def work(
        self, orders: Iterator[Order[T]], *, seconds: float, stop: Callable[[], bool]
    ) -> Iterator[tuple[T, Answer | Lost]]:
        """Every answer with its label, in the order in which they come.

        ``orders`` is asked for the next one when a process is free. ``seconds`` is what one may
        take.
        Raises: Stopped; CannotStart.
        """
        members: list[_Member[T]] = self._members
        coming = next(orders, None)
        while coming is not None or any(member.order for member in members):
            for member in [m for m in members if m.ready and m.order is None]:
                if coming is not None and self._gave(member, coming, seconds):
                    coming = next(orders, None)
            while coming is not None and len(members) < self._size:
                members.append(self._start())
            for member in self._heard(members):
                answer = self._answer_of(member, seconds)
                if isinstance(answer, Ready):
                    member.ready = True
                    continue
                order, member.order = member.order, None
                assert order is not None
                yield order.label, answer
            if stop():
                raise Stopped

    def _gave(self, member: _Member[T], order: Order[T], seconds: float) -> bool:
        """Whether a process took an order. One may have died of nothing that it was asked."""
        try:
            member.connection.send(order.task)
        except OSError:
            self._end(member)
            return False
        member.order = order
        member.deadline = time.monotonic() + seconds
        return True

    def _start(self) -> _Member[T]:
        log = Path(self._logs.name) / f"{self._started}.txt"
        self._started += 1
        setting = Setting(os.getpid(), self._gpu, *self._places, log)
        child = start_child(worker_main, setting, f"ln-fuzz-compile-{self._started}")
        return _Member(*child, log, time.monotonic() + START_LIMIT)

    def _heard(self, members: list[_Member[T]]) -> list[_Member[T]]:
        """Those that have said something, have ended, or are late."""
        busy = [member for member in members if member.order or not member.ready]
        ears = {member.connection: member for member in busy}
        ready = wait(list(ears), timeout=TICK)
        now = time.monotonic()
        return [m for m in busy if m.connection in ready or now > m.deadline]

    def _answer_of(self, member: _Member[T], seconds: float) -> Ready | Answer | Lost:
        late = not member.connection.poll()
        said = None if late else member.hear()
        if said is None:
            how = self._end(member)
            if member.order is None:
                started = f"has not started within {START_LIMIT:.0f} s" if late else how
                raise CannotStart(f"a process that was to compile {started}")
            return Lost(f"not done within {seconds:.0f} s" if late else f"its process {how}")
        if isinstance(said, Ready) and said.problem:
            raise CannotStart(said.problem)
        return said

    def _end(self, member: _Member[T]) -> str:
        self._members.remove(member)
        return member.end()


def _how_ended(code: int | None, log: Path) -> str:
    """The end of a process, and what it said of it."""
    if code is not None and code < 0:
        try:
            how = f"ended with {signal.Signals(-code).name}"
        except ValueError:
            how = f"ended with signal {-code}"
    else:
        how = f"ended with exit code {code}"
    printed = log.read_text(errors="replace") if log.exists() else ""
    words = re.search(r"^.*\b(?:error|Assertion|terminate called)\b.*$", printed, re.M | re.I)
    return f"{how}: {words[0].strip()[:200]}" if words else how
