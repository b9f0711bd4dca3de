"""The engine's handle on its kernel process: asked, timed, and replaced when it dies.

The process belongs to a pebble pool of one worker, which notices its death, enforces the time
limit of each task and starts the next one. Two slots let the engine judge one case while the
kernel process runs the other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from fuzz.case import Case
from fuzz.process.kernel_worker import (
    REPLACE_ME,
    DeviceInfo,
    Done,
    Problem,
    Task,
    answer,
    initialize,
)
from fuzz.process.lifecycle import spawning
from fuzz.process.limits import LIMITS, Limits, outbox_room
from fuzz.process.mailbox import NOT_STARTED, Entry, OutOfSharedMemory, Slot
from fuzz.relations import Run
from fuzz.spec import TargetSpec
from fuzz.verdict import Bits, ErrorInfo, Observation, RunStatus

TORCH_BACKEND = "fuzz.process.kernel_worker:TorchBackend"

START_LIMIT = 180.0
"""Seconds a kernel process may take to begin a task: importing torch and Triton takes 2 to 4 s,
a minute from a cold disk."""

MAX_STARTS = 3
"""Times a case is handed over, where the process ends before it begins it."""

POLL = 0.1
"""Seconds between two looks at whether the campaign was stopped."""


class KernelProcessError(Exception):
    """The kernel process cannot do its job. ``user``: the user can mend it."""

    def __init__(self, message: str, *, user: bool = False, trace: str = "") -> None:
        super().__init__(message)
        self.user = user
        self.trace = trace


class Stopped(Exception):
    """The campaign was stopped while a case was waited for."""


@dataclass
class Ticket:
    """A case handed to the kernel process, to be collected."""

    case: Case
    runs: tuple[Run, ...]
    limit: float
    index: int
    table: tuple[Entry, ...]
    future: ProcessFuture[Any] = field(repr=False)
    generation: int
    starts: int = 1


@dataclass(frozen=True)
class Outcome:
    """What the runs of a case did; those behind a crash are missing. ``busy``: seconds in the
    kernel process. ``problem``: an error of the harness itself, not of the kernel."""

    observations: tuple[Observation, ...]
    busy: float
    problem: Problem | None = None


def never() -> bool:
    """Never stops."""
    return False


class KernelProcess:
    """One kernel process on ``device`` ("auto", "cpu" or "cuda"), on the GPU named ``gpu``.

    ``limits`` replaces the time limits of the device. Use as a context manager.
    """

    def __init__(
        self,
        device: str,
        *,
        gpu: str | None = None,
        backend: str = TORCH_BACKEND,
        limits: Limits | None = None,
        stop: Callable[[], bool] = never,
    ) -> None:
        self._initargs = (os.getpid(), device, gpu, backend)
        self._limits = limits
        self._stop = stop
        self._slots: list[Slot] = []
        self._free: list[int] = []
        self._generation = 0
        self._info: DeviceInfo | None = None
        # Before the pool: its processes then share this one's tracker of shared memory.
        for index in range(2):
            self._slots.append(Slot())
            self._free.append(index)
        self._pool: Any = self._new_pool()

    def __enter__(self) -> KernelProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def info(self) -> DeviceInfo:
        """Where the kernels run.

        Raises: KernelProcessError.
        """
        if self._info is None:
            found = self._ask("device_info")
            assert isinstance(found, DeviceInfo)
            self._info = found
        return self._info

    @property
    def interpreted(self) -> bool:
        """Whether kernels run in Triton's interpreter."""
        return self.info.device == "cpu"

    def names(self) -> tuple[str, ...]:
        """The built-in targets.

        Raises: KernelProcessError.
        """
        found: tuple[str, ...] = self._ask("builtin_names")
        return found

    def specs(self, name: str) -> tuple[TargetSpec, ...]:
        """The specs of all targets that a name or path stands for.

        Raises: KernelProcessError, with ``user`` set where the target is at fault.
        """
        found: tuple[TargetSpec, ...] = self._ask("target_specs", name)
        return found

    def submit(
        self, spec: TargetSpec, case: Case, runs: tuple[Run, ...], values: dict[str, Bits]
    ) -> Ticket:
        """Hand a case over; at most two are under way.

        Raises: OutOfSharedMemory when the case does not fit the machine's shared memory.
        """
        limits = self._limits or LIMITS[self.info.device]
        index = self._free[-1]
        slot = self._slots[index]
        slot.reserve(outbox_room(spec, runs))
        table = slot.put(values)
        self._free.pop()
        ticket = Ticket(
            case, runs, limits.of(runs), index, table, ProcessFuture(), self._generation
        )
        self._send(ticket)
        return ticket

    def collect(self, ticket: Ticket) -> Outcome:
        """Wait for a case. A crash or an exceeded time limit is an outcome, not an exception.

        Raises: KernelProcessError when no kernel process can be started; Stopped;
        OutOfSharedMemory when what the target returned does not fit the machine's shared memory.
        """
        try:
            outcome = self._wait(ticket)
        except OutOfSharedMemory:
            self._free.append(ticket.index)
            raise
        self._free.append(ticket.index)
        return outcome

    def replace(self) -> None:
        """End the kernel process; a fresh one takes over. Cases under way are run again."""
        self._end_pool()
        self._generation += 1
        self._pool = self._new_pool()

    def close(self) -> None:
        """End the kernel process and give the shared memory back."""
        self._end_pool()
        for slot in self._slots:
            slot.remove()
        self._slots.clear()

    def _new_pool(self) -> ProcessPool:
        pool = ProcessPool(
            max_workers=1,
            initializer=initialize,
            initargs=self._initargs,
            context=multiprocessing.get_context("spawn"),
        )
        with spawning():
            # Asking starts it. The thread that starts a process must live as long as it, because
            # the process is ended with the thread; this one does, and so does the pool's own.
            assert pool.active
        return pool

    def _end_pool(self) -> None:
        self._pool.stop()
        pids = {slot.outbox.pid for slot in self._slots}
        for child in multiprocessing.active_children():
            # A process that is busy in C would make the pool wait 3 s for it to end by itself.
            if child.pid in pids:
                child.kill()
        self._pool.join()

    def _ask(self, question: str, *arguments: Any) -> Any:
        future = self._schedule(START_LIMIT, question, *arguments)
        while not _settled(future, POLL):
            if self._stop():
                raise Stopped
        error = future.exception()
        if error is not None:
            raise KernelProcessError(f"the kernel process ended: {_words(error)}") from error
        found = future.result()
        if isinstance(found, Problem):
            words = found.message if found.user else f"{found.type}: {found.message}"
            raise KernelProcessError(words, user=found.user, trace=found.trace)
        return found

    def _send(self, ticket: Ticket) -> None:
        slot = self._slots[ticket.index]
        slot.outbox.clear()
        task = Task(
            ticket.case, ticket.index, slot.inbox.name, slot.outbox.block.name, ticket.table
        )
        ticket.future = self._schedule(ticket.limit, "run_case", task)
        ticket.generation = self._generation

    def _schedule(self, timeout: float, question: str, *arguments: Any) -> ProcessFuture[Any]:
        for _ in range(MAX_STARTS):
            try:
                future: ProcessFuture[Any] = self._pool.schedule(
                    answer, args=(question, *arguments), timeout=timeout
                )
            except RuntimeError:
                # The pool broke down between two tasks: it gives up when an idle process dies.
                self.replace()
            else:
                return future
        raise KernelProcessError("no kernel process can be started")

    def _send_again(self, ticket: Ticket) -> None:
        ticket.starts += 1
        if ticket.starts > MAX_STARTS:
            raise KernelProcessError(
                f"case {ticket.case.case_id} was handed to the kernel process {MAX_STARTS} times "
                f"without an answer"
            )
        self._send(ticket)

    def _wait(self, ticket: Ticket) -> Outcome:
        slot = self._slots[ticket.index]
        waiting_since = time.monotonic()
        while True:
            if ticket.generation != self._generation:
                self._send_again(ticket)
            if not _settled(ticket.future, POLL):
                if self._stop():
                    raise Stopped
                late = time.monotonic() - waiting_since > START_LIMIT + ticket.limit
                if late and slot.outbox.running == NOT_STARTED:
                    self.replace()
                    waiting_since = time.monotonic()
                continue
            error = _error(ticket.future)
            if error is None:
                found: Done | Problem = ticket.future.result()
                if isinstance(found, Problem):
                    return Outcome((), 0.0, found)
                if not found.missing:
                    return Outcome(tuple(slot.outbox.observations()), found.busy)
                # The target returned more than it should have. Run again, with room for all of it.
                slot.reserve(slot.outbox.block.size + found.missing)
                self._send_again(ticket)
                continue
            if isinstance(error, TimeoutError):
                said = ErrorInfo("TimeLimit", f"no answer within {ticket.limit:.0f} s")
                return self._ended(ticket, "timed_out", said)
            if isinstance(error, ProcessExpired):
                if error.exitcode != REPLACE_ME:
                    return self._ended(ticket, "crashed", _exit_info(error.exitcode))
                self._send_again(ticket)
            elif isinstance(error, (BrokenProcessPool, CancelledError)):
                # The process died before the pool knew what it was at. It will say so next time,
                # with the exit code, unless chance has it again.
                self.replace()
                if slot.outbox.running != NOT_STARTED and ticket.starts == MAX_STARTS:
                    said = ErrorInfo("ProcessDied", "the kernel process died")
                    return self._ended(ticket, "crashed", said)
            else:
                raise KernelProcessError(_words(error)) from error

    def _ended(self, ticket: Ticket, status: RunStatus, error: ErrorInfo) -> Outcome:
        """What is known of a case whose process ended: the runs before, and the one at fault."""
        outbox = self._slots[ticket.index].outbox
        observations = outbox.observations()
        at = min(max(outbox.running, len(observations), 0), len(ticket.runs) - 1)
        guilty = Observation(ticket.runs[at].name, status, error=error)
        return Outcome((*observations[:at], guilty), 0.0)


def _settled(future: ProcessFuture[Any], timeout: float) -> bool:
    """Whether a future is done, waiting at most ``timeout`` seconds for it."""
    try:
        future.exception(timeout)
    except CancelledError:
        return True
    except TimeoutError:
        return future.done()
    return True


def _error(future: ProcessFuture[Any]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error


def _exit_info(code: int) -> ErrorInfo:
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return ErrorInfo(name, f"the kernel process died of {name}")
    return ErrorInfo(f"exit code {code}", f"the kernel process ended with exit code {code}")


def _words(error: BaseException) -> str:
    if isinstance(error, ProcessExpired):
        return _exit_info(error.exitcode).message
    return f"{type(error).__name__}: {error}"
