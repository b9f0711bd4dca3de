"""What runs inside the kernel process: it may die at any time and keeps nothing that matters.

The pool calls the functions here one at a time, in the order of submission. They answer with
small data; arrays and observations travel in a slot's shared memory. Whatever imports NumPy is
imported late: the number of threads must be set first.
"""

from __future__ import annotations

import gc
import importlib
import os
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fuzz.process.lifecycle import enter_child
from fuzz.process.origin import Origin
from fuzz.process.sanitizer import WORN_OUT, Log, Sanitizer, charged
from fuzz.process.wrapping import enter_wrapped

if TYPE_CHECKING:
    from fuzz.case import Case
    from fuzz.fingerprint import Fingerprint
    from fuzz.process.mailbox import Block, Entry
    from fuzz.relations import Run
    from fuzz.spec import TargetSpec
    from fuzz.verdict import Bits, Observation

REPLACE_ME = 77
"""Exit code of a kernel process that is not fit to run a case, and has not begun it."""


class Backend(Protocol):
    """Who holds the targets and launches them. Made in the kernel process, by its path."""

    def names(self) -> tuple[str, ...]:
        """The built-in targets."""

    def specs(self, name: str) -> tuple[TargetSpec, ...]:
        """What the engine knows of every target that a name or path stands for.

        Raises: TargetError, ValueError or ImportError where the user must mend something.
        """

    def fingerprint(self, name: str, root: Path) -> Fingerprint:
        """What the target of that name consists of, in the repository at ``root``.

        Raises: as :meth:`specs` does, and for a name of several targets.
        """

    def run(self, target: str, run: Run, values: dict[str, Bits]) -> Observation:
        """Launch one run."""

    def show_canary(self, tool: str) -> None:
        """Launch a kernel with a fault that this sanitizer must report."""


class TorchBackend:
    """The real one: targets of :mod:`fuzz.targets`, launched by :mod:`fuzz.execute`."""

    def __init__(self, device: str, sanitizer: str | None = None) -> None:
        from fuzz.execute import Executor

        self._executor = Executor(device, sanitizer=sanitizer)

    def names(self) -> tuple[str, ...]:
        """The built-in targets."""
        from fuzz import targets

        return targets.builtin_names()

    def specs(self, name: str) -> tuple[TargetSpec, ...]:
        """The specs of all targets that a name or path stands for."""
        from fuzz import targets

        try:
            return tuple(target.spec for target in targets.load_all(name))
        except targets.TargetError as error:
            raise ValueError(str(error)) from error

    def fingerprint(self, name: str, root: Path) -> Fingerprint:
        """What the target of that name consists of, in the repository at ``root``."""
        from fuzz import fingerprint, targets

        try:
            return fingerprint.fingerprint(targets.load(name), root)
        except targets.TargetError as error:
            raise ValueError(str(error)) from error

    def run(self, target: str, run: Run, values: dict[str, Bits]) -> Observation:
        """Launch one run."""
        return self._executor.run(target, run, values)

    def show_canary(self, tool: str) -> None:
        """Launch a kernel with a fault that this sanitizer must report."""
        from fuzz.canary import show

        show(tool)


@dataclass(frozen=True)
class Problem:
    """An error inside the kernel process, as text. ``user``: the user can mend it."""

    type: str
    message: str
    trace: str
    user: bool


@dataclass(frozen=True)
class DeviceInfo:
    """Where kernels run: "cpu" (the interpreter) or "cuda"; ``gpus`` names each one for
    CUDA_VISIBLE_DEVICES."""

    device: str
    name: str
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Canary:
    """The planted fault was launched by the process ``pid``. ``delay``: seconds until it was
    reported; None where it was not, while the process ran."""

    pid: int
    delay: float | None


@dataclass(frozen=True)
class Task:
    """One case to run, and where its memory is."""

    case: Case
    slot: int
    inbox: str
    outbox: str
    table: tuple[Entry, ...]


@dataclass(frozen=True)
class Done:
    """A case was run. ``missing``: bytes that its outbox was too short."""

    busy: float
    missing: int


class _Process:
    """State of this process; one instance, made by :func:`initialize`."""

    def __init__(
        self, device: str, backend: str, sanitizer: Sanitizer | None, origin: Origin | None
    ) -> None:
        self.origin = origin
        self.info = find_device(device)
        self.sanitizer = sanitizer
        self.log: Log | None = None
        if sanitizer is not None and not sanitizer.late:
            self.log = Log(sanitizer, os.getpgrp())
        # Read by Triton while kernels are being defined: before any of them is imported.
        if self.info.device == "cpu":
            os.environ["TRITON_INTERPRET"] = "1"
        else:
            os.environ.pop("TRITON_INTERPRET", None)
        module, name = backend.split(":")
        make = getattr(importlib.import_module(module), name)
        told = () if sanitizer is None else (sanitizer.tool,)
        self.backend: Backend = make(self.info.device, *told)
        # After each case, where only the end of the process brings the reports.
        self.short_lived = sanitizer is not None and sanitizer.late
        self.doomed = False
        self._blocks: dict[tuple[int, str], Block] = {}

    def check_origin(self, target: str) -> None:
        """See that a target came with nothing from where it must not come.

        Raises: ValueError.
        """
        if self.origin is not None:
            self.origin.check(target)

    def block(self, slot: int, kind: str, name: str) -> Block:
        """The slot's segment, mapped anew when the engine has replaced it."""
        from fuzz.process.mailbox import Block

        known = self._blocks.get((slot, kind))
        if known is None or known.name != name:
            known = self._blocks[slot, kind] = Block.attach(name)
        return known


_process: _Process | Problem | None = None


def initialize(
    parent: int,
    device: str,
    gpu: str | None,
    backend: str,
    sanitizer: Sanitizer | None,
    folder: Path | None,
    foreign: Path | None,
) -> None:
    """Set this process up. An error is kept and told with the first task, not printed."""
    global _process
    if sanitizer is None:
        enter_child(parent)
    else:
        enter_wrapped()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        origin = None if folder is None else Origin(folder, foreign)
        if origin is not None:
            origin.enter()
        _process = _Process(device, backend, sanitizer, origin)
        # What torch and Triton have brought stays: no collection need look through it.
        gc.freeze()
    except Exception as error:
        _process = as_problem(error)


def find_device(device: str) -> DeviceInfo:
    """What "auto", "cpu" or "cuda" means on this machine.

    Raises: ValueError for "cuda" without a GPU.
    """
    interpreter = DeviceInfo("cpu", "Triton interpreter")
    if device == "cpu":
        return interpreter
    torch: Any = importlib.import_module("torch")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        if device == "cuda":
            raise ValueError("device='cuda', but torch finds no GPU on this machine")
        return interpreter
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(count)]
    return DeviceInfo("cuda", torch.cuda.get_device_name(0), tuple(gpus[:count]))


def as_problem(error: BaseException) -> Problem:
    """An exception as data."""
    trace = "".join(traceback.format_exception(error))
    return Problem(
        type(error).__name__, str(error), trace, isinstance(error, (ValueError, ImportError))
    )


def _ready() -> _Process:
    if isinstance(_process, Problem):
        raise _Unfit(_process)
    assert _process is not None
    return _process


class _Unfit(Exception):
    """This process could not be set up."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def answer(question: str, *arguments: Any) -> Any:
    """One of the functions below by name; an exception comes back as a Problem."""
    try:
        return QUESTIONS[question](*arguments)
    except _Unfit as error:
        return error.problem
    except BaseException as error:
        # Whatever a target's file raises while it is imported is told; nothing ends this process.
        return as_problem(error)


def device_info() -> DeviceInfo:
    """Where this process runs kernels."""
    return _ready().info


def builtin_names() -> tuple[str, ...]:
    """The targets that come with the project."""
    return _ready().backend.names()


def target_specs(name: str) -> tuple[TargetSpec, ...]:
    """The specs of all targets that a name or path stands for."""
    process = _ready()
    found = process.backend.specs(name)
    process.check_origin(name)
    return found


def target_fingerprint(name: str, root: Path) -> Fingerprint:
    """What the target of that name consists of, in the repository at ``root``."""
    process = _ready()
    found = process.backend.fingerprint(name, root)
    process.check_origin(name)
    return found


def run_case(task: Task) -> Done:
    """Run all runs of a case and write what they did to the slot's outbox."""
    from fuzz.inputs import run_values
    from fuzz.process.mailbox import NOT_STARTED, Outbox, read_values
    from fuzz.relations import expand

    process = _ready()
    log = process.log
    outbox = Outbox(process.block(task.slot, "outbox", task.outbox))
    # Who has the case, should nothing of it ever begin.
    outbox.begin(NOT_STARTED)
    # A report that has come since the last case is one of that: the engine finds it in the log.
    if process.doomed or (log is not None and log.read()):
        os._exit(REPLACE_ME)
    started = time.perf_counter()
    values = read_values(process.block(task.slot, "inbox", task.inbox), task.table)
    missing = 0
    for index, run in enumerate(expand(task.case)):
        outbox.begin(index)
        if log is not None:
            outbox.note_logged(log.offset)
        seen = _run(process, task.case.target, run, run_values(run, task.case, values))
        if seen.status == "cuda_error":
            # The context is lost for good, so that no later launch here says anything.
            process.doomed = True
        if log is not None:
            seen = charged(seen, log.read_settled())
        if missing or not outbox.append(seen):
            missing += outbox.size_of(seen)
        if process.doomed:
            break
    # This process may be another one than was asked for the target.
    process.check_origin(task.case.target)
    process.doomed |= process.short_lived or (log is not None and log.printed >= WORN_OUT)
    return Done(time.perf_counter() - started, missing)


def show_canary(limit: float) -> Canary:
    """Launch a planted fault and see whether the sanitizer reports it within ``limit`` seconds."""
    process = _ready()
    assert process.sanitizer is not None and process.log is not None
    process.doomed = True
    try:
        process.backend.show_canary(process.sanitizer.tool)
    except RuntimeError:
        # The tool may end the launch with an error. It is its report that counts.
        traceback.print_exc()
    return Canary(os.getpgrp(), process.log.wait(limit))


def leave() -> None:
    """End this process, unless it is one that more cases may run in."""
    if _ready().doomed:
        os._exit(REPLACE_ME)


def _run(process: _Process, target: str, run: Run, values: dict[str, Bits]) -> Observation:
    """One run. KeyboardInterrupt and its like, raised by a target, are results too."""
    from fuzz.verdict import ErrorInfo, Observation

    try:
        return process.backend.run(target, run, values)
    except Exception:
        raise
    except BaseException as error:
        # It passed through a backend that expects none, which may not have cleaned up behind it.
        process.doomed = True
        return Observation(run.name, "raised", error=ErrorInfo(type(error).__name__, str(error)))


QUESTIONS = {
    function.__name__: function
    for function in (
        device_info,
        builtin_names,
        target_specs,
        target_fingerprint,
        run_case,
        show_canary,
        leave,
    )
}
"""What the engine may ask."""
