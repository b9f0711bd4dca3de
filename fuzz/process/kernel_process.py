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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from fuzz.case import Case
from fuzz.fingerprint import Fingerprint
from fuzz.process.kernel_worker import (
    REPLACE_ME,
    Canary,
    DeviceInfo,
    Done,
    Problem,
    Task,
    answer,
    initialize,
)
from fuzz.process.lifecycle import QUIET_EXIT, WatchedContext, spawning
from fuzz.process.limits import LIMITS, Limits, outbox_room
from fuzz.process.mailbox import NOT_STARTED, Entry, OutOfSharedMemory, Slot
from fuzz.process.sanitizer import (
    CANARY_LIMIT,
    PROGRAM,
    Ledger,
    Sanitizer,
    SanitizerError,
    find_program,
    proven,
    said,
)
from fuzz.relations import Run
from fuzz.spec import TargetSpec
from fuzz.verdict import Bits, ErrorInfo, Observation, RunStatus

TORCH_BACKEND = "fuzz.process.kernel_worker:TorchBackend"

START_LIMIT = 180.0
"""Seconds a kernel process may take to begin a task: importing torch and Triton takes 2 to 4 s,
a minute from a cold disk."""

UNDER_SANITIZER = Limits(base=120.0, per_run=30.0, per_program=0.0, per_element=5e-6)
"""The limits of a GPU, times what a sanitizer costs: several times a start and a compilation, up to
fifty times a launch."""

MAX_STARTS = 3
"""Times a case is handed over, where the process ends before it begins it."""

POLL = 0.1
"""Seconds between two looks at whether the campaign was stopped."""

LAST_WORDS = 1.0
"""Seconds in which the pool may still tell the answer of a process that has ended, or its end."""


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
    # Its number among all that were sent: the kernel process takes them up in this order.
    sent: int = 0
    # What the process that took it up ended with, where it has.
    exit_code: int | None = None


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

    ``limits`` replaces the time limits of the device; ``sanitizer`` is what the process runs
    under. ``folder`` is where it works, and what it imports from before anything else; ``foreign``
    is the top of another work tree of the same repository, from which nothing under test may come.
    Use as a context manager.
    """

    def __init__(
        self,
        device: str,
        *,
        gpu: str | None = None,
        backend: str = TORCH_BACKEND,
        limits: Limits | None = None,
        stop: Callable[[], bool] = never,
        sanitizer: Sanitizer | None = None,
        folder: Path | None = None,
        foreign: Path | None = None,
    ) -> None:
        assert foreign is None or folder is not None, "nothing is foreign to no folder"
        self._setting = (os.getpid(), device, gpu, backend)
        self._places = (folder, foreign)
        self._limits = limits
        self._stop = stop
        self._sanitizer = sanitizer
        self._ledger = None if sanitizer is None else Ledger(sanitizer)
        self._context = WatchedContext() if sanitizer is None else sanitizer.context()
        self._slots: list[Slot] = []
        self._free: list[int] = []
        self._generation = 0
        self._under_way: list[Ticket] = []
        self._sent = 0
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
            if self._sanitizer is not None:
                found = replace(found, name=f"{found.name} under {self._sanitizer.tool}")
            self._info = found
        return self._info

    @property
    def interpreted(self) -> bool:
        """Whether kernels run in Triton's interpreter."""
        return self.info.device == "cpu"

    def prove_sanitizer(self) -> Sanitizer:
        """See the sanitizer report a planted fault, and when; a fresh process takes over.

        Raises: KernelProcessError, with ``user`` set, where there is no GPU or it reports nothing.
        """
        assert self._sanitizer is not None
        try:
            find_program(self._sanitizer.tool, self.info.device)
        except SanitizerError as error:
            raise KernelProcessError(str(error), user=True) from error
        canary = self._ask("show_canary", CANARY_LIMIT)
        assert isinstance(canary, Canary)
        self._see_out()
        try:
            self._sanitizer = proven(self._sanitizer, canary.pid, canary.delay)
        except SanitizerError as error:
            raise KernelProcessError(f"{error} on {self.info.name}", user=True) from error
        self._ledger = Ledger(self._sanitizer)
        self.replace()
        return self._sanitizer

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

    def fingerprint(self, name: str, root: Path) -> Fingerprint:
        """What the target of that name consists of, in the repository at ``root``.

        Raises: KernelProcessError, with ``user`` set where the target is at fault.
        """
        found: Fingerprint = self._ask("target_fingerprint", name, root)
        return found

    def submit(
        self, spec: TargetSpec, case: Case, runs: tuple[Run, ...], values: dict[str, Bits]
    ) -> Ticket:
        """Hand a case over; at most two are under way.

        Raises: OutOfSharedMemory when the case does not fit the machine's shared memory.
        """
        usual = LIMITS[self.info.device] if self._sanitizer is None else UNDER_SANITIZER
        limits = self._limits or usual
        index = self._free[-1]
        slot = self._slots[index]
        slot.reserve(outbox_room(spec, runs))
        table = slot.put(values)
        self._free.pop()
        ticket = Ticket(
            case, runs, limits.of(runs), index, table, ProcessFuture(), self._generation
        )
        self._under_way.append(ticket)
        self._send(ticket)
        return ticket

    def collect(self, ticket: Ticket) -> Outcome:
        """Wait for a case. A crash or an exceeded time limit is an outcome, not an exception.

        Raises: KernelProcessError when no kernel process can be started; Stopped;
        OutOfSharedMemory when what the target returned does not fit the machine's shared memory.
        """
        try:
            outcome = self._accounted(self._wait(ticket), ticket)
        except OutOfSharedMemory:
            self._release(ticket)
            raise
        self._release(ticket)
        return outcome

    def replace(self) -> None:
        """End the kernel process; a fresh one takes over. Cases under way are run again."""
        for ticket in self._under_way:
            # One that ended its process before has to answer for it.
            self._note_end(ticket)
        self._end_pool()
        self._generation += 1
        self._pool = self._new_pool()
        self._close_ledger()

    def close(self) -> None:
        """End the kernel process and give the shared memory back."""
        self._end_pool()
        for slot in self._slots:
            slot.remove()
        self._slots.clear()
        self._close_ledger()

    def _accounted(self, outcome: Outcome, ticket: Ticket) -> Outcome:
        """Charge what the sanitizer reported, where the process could not do so itself."""
        if self._sanitizer is None or self._ledger is None:
            return outcome
        outbox = self._slots[ticket.index].outbox
        if self._sanitizer.late:
            self._see_out()
        try:
            seen = self._ledger.charge(outbox.pid, outbox.logged, outcome.observations)
        except SanitizerError as error:
            return Outcome((), 0.0, Problem(type(error).__name__, str(error), str(error), True))
        return replace(outcome, observations=seen)

    def _close_ledger(self) -> None:
        """Look whether the process that has ended left reports that no case was charged with."""
        if self._ledger is None:
            return
        if self._under_way:
            self._ledger.forget()
            return
        try:
            self._ledger.close()
        except SanitizerError as error:
            raise KernelProcessError(str(error), user=True) from error

    def _see_out(self) -> None:
        """Wait until the process has ended that is not to run another case."""
        future = self._schedule(START_LIMIT, "leave")
        while not _settled(future, POLL):
            if self._stop():
                raise Stopped
        error = _error(future)
        if isinstance(error, BrokenProcessPool):
            self.replace()
        elif error is not None and not isinstance(error, ProcessExpired):
            raise KernelProcessError(self._why(error, START_LIMIT)) from error

    def _release(self, ticket: Ticket) -> None:
        self._under_way.remove(ticket)
        self._free.append(ticket.index)

    def _new_pool(self) -> ProcessPool:
        pool = ProcessPool(
            max_workers=1,
            initializer=initialize,
            initargs=(*self._setting, self._sanitizer, *self._places),
            context=self._context,
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
        asked = time.monotonic()
        while not _settled(future, POLL):
            if self._stop():
                raise Stopped
            # The pool's own limit begins when the process takes the question up.
            if not future.running() and time.monotonic() - asked > START_LIMIT:
                self.replace()
                raise KernelProcessError(f"no kernel process has started in {START_LIMIT:.0f} s")
        error = _error(future)
        if error is not None:
            raise KernelProcessError(self._why(error, START_LIMIT)) from error
        found = future.result()
        if isinstance(found, Problem):
            words = found.message if found.user else f"{found.type}: {found.message}"
            raise KernelProcessError(words, user=found.user, trace=found.trace)
        return found

    def _why(self, error: BaseException, limit: float) -> str:
        """What became of the process that was to answer, and what it ran under says of it."""
        words = "" if self._sanitizer is None else said(self._sanitizer)
        became = self._became(error, limit)
        return f"{became}; {PROGRAM}: {words}" if words else became

    def _became(self, error: BaseException, limit: float) -> str:
        if isinstance(error, TimeoutError):
            return f"the kernel process gave no answer within {limit:.0f} s"
        if isinstance(error, ProcessExpired):
            return _exit_info(error.exitcode).message
        if isinstance(error, BrokenProcessPool):
            # It died before the pool knew what it was at, as a rule while it was being set up.
            return _exit_info(self._context.exit_code()).message
        return f"the kernel process ended: {type(error).__name__}: {error}"

    def _send(self, ticket: Ticket) -> None:
        slot = self._slots[ticket.index]
        slot.outbox.clear()
        task = Task(
            ticket.case, ticket.index, slot.inbox.name, slot.outbox.block.name, ticket.table
        )
        ticket.exit_code = None
        self._sent += 1
        ticket.sent = self._sent
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
        ended_since: float | None = None
        while True:
            if ticket.generation != self._generation and ticket.exit_code is None:
                self._send_again(ticket)
            settled = _settled(ticket.future, POLL)
            self._note_end(ticket)
            if not settled:
                if self._stop():
                    raise Stopped
                now = time.monotonic()
                if ticket.exit_code is not None:
                    ended_since = ended_since or now
                    if now - ended_since > LAST_WORDS:
                        # The pool lost sight of it: what is known must do.
                        ticket.future.cancel()  # type: ignore[no-untyped-call]
                elif now - waiting_since > START_LIMIT + ticket.limit:
                    self.replace()
                    if slot.outbox.running != NOT_STARTED:
                        return self._timed_out(ticket)
                    waiting_since = now
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
            elif isinstance(error, TimeoutError):
                return self._timed_out(ticket)
            elif isinstance(error, (ProcessExpired, BrokenProcessPool, CancelledError)):
                if isinstance(error, ProcessExpired):
                    ticket.exit_code = error.exitcode
                outcome = self._post_mortem(ticket)
                if outcome is not None:
                    return outcome
                if isinstance(error, BrokenProcessPool):
                    self.replace()
            else:
                raise KernelProcessError(self._why(error, ticket.limit)) from error
            ended_since = None
            self._send_again(ticket)

    def _note_end(self, ticket: Ticket) -> None:
        """Ask the process that took a case up, if one did, whether it has ended.

        The pool notices that a process ended, but may not have read yet all that it had said: it
        would then charge the case before, or none. What the process was at is in shared memory.
        """
        if ticket.exit_code is None:
            outbox = self._slots[ticket.index].outbox
            ticket.exit_code = self._context.exit_code(outbox.pid)

    def _post_mortem(self, ticket: Ticket) -> Outcome | None:
        """What a case did whose process has ended; None where it has to be run again."""
        outbox = self._slots[ticket.index].outbox
        code = ticket.exit_code
        if outbox.running == NOT_STARTED:
            # Not its fault, unless it goes on like that.
            if ticket.starts < MAX_STARTS or code is None or code == REPLACE_ME:
                return None
            return self._ended(ticket, "crashed", _exit_info(code))
        if not any(self._is_behind(other, ticket) for other in self._under_way):
            return self._ended(ticket, "crashed", _exit_info(code))
        # It was done: its process had taken up the next.
        observations = outbox.observations()
        whole = len(observations) > outbox.running
        return Outcome(tuple(observations), 0.0) if whole else None

    def _is_behind(self, ticket: Ticket, other: Ticket) -> bool:
        """Whether one process took up ``ticket`` after ``other``."""
        mine, others = (self._slots[t.index].outbox.pid for t in (ticket, other))
        return mine == others and ticket.sent > other.sent

    def _timed_out(self, ticket: Ticket) -> Outcome:
        said = ErrorInfo("TimeLimit", f"no answer within {ticket.limit:.0f} s")
        return self._ended(ticket, "timed_out", said)

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


def _exit_info(code: int | None) -> ErrorInfo:
    if code is None:
        return ErrorInfo("ProcessDied", "the kernel process died")
    if code == QUIET_EXIT:
        code = 0
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return ErrorInfo(name, f"the kernel process died of {name}")
    return ErrorInfo(f"exit code {code}", f"the kernel process ended with exit code {code}")
