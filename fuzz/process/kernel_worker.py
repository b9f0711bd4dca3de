"""What runs inside the kernel process: it may die at any time and keeps nothing that matters.

The pool calls the functions here one at a time, in the order of submission. They answer with
small data; arrays and observations travel in a slot's shared memory. Whatever imports NumPy is
imported late: the number of threads must be set first.
"""

from __future__ import annotations

import importlib
import os
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fuzz.process.lifecycle import enter_child

if TYPE_CHECKING:
    from fuzz.case import Case
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

    def run(self, target: str, run: Run, values: dict[str, Bits]) -> Observation:
        """Launch one run."""


class TorchBackend:
    """The real one: targets of :mod:`fuzz.targets`, launched by :mod:`fuzz.execute`."""

    def __init__(self, device: str) -> None:
        from fuzz.execute import Executor

        self._executor = Executor(device)

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

    def run(self, target: str, run: Run, values: dict[str, Bits]) -> Observation:
        """Launch one run."""
        return self._executor.run(target, run, values)


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

    def __init__(self, device: str, backend: str) -> None:
        self.info = find_device(device)
        # Read by Triton while kernels are being defined: before any of them is imported.
        if self.info.device == "cpu":
            os.environ["TRITON_INTERPRET"] = "1"
        else:
            os.environ.pop("TRITON_INTERPRET", None)
        module, name = backend.split(":")
        make = getattr(importlib.import_module(module), name)
        self.backend: Backend = make(self.info.device)
        self.doomed = False
        self._blocks: dict[tuple[int, str], Block] = {}

    def block(self, slot: int, kind: str, name: str) -> Block:
        """The slot's segment, mapped anew when the engine has replaced it."""
        from fuzz.process.mailbox import Block

        known = self._blocks.get((slot, kind))
        if known is None or known.name != name:
            known = self._blocks[slot, kind] = Block.attach(name)
        return known


_process: _Process | Problem | None = None


def initialize(parent: int, device: str, gpu: str | None, backend: str) -> None:
    """Set this process up. An error is kept and told with the first task, not printed."""
    global _process
    enter_child(parent)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        _process = _Process(device, backend)
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


def as_problem(error: Exception) -> Problem:
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
    except Exception as error:
        return as_problem(error)


def device_info() -> DeviceInfo:
    """Where this process runs kernels."""
    return _ready().info


def builtin_names() -> tuple[str, ...]:
    """The targets that come with the project."""
    return _ready().backend.names()


def target_specs(name: str) -> tuple[TargetSpec, ...]:
    """The specs of all targets that a name or path stands for."""
    return _ready().backend.specs(name)


def run_case(task: Task) -> Done:
    """Run all runs of a case and write what they did to the slot's outbox."""
    from fuzz.inputs import run_values
    from fuzz.process.mailbox import Outbox, read_values
    from fuzz.relations import expand

    process = _ready()
    if process.doomed:
        os._exit(REPLACE_ME)
    started = time.perf_counter()
    outbox = Outbox(process.block(task.slot, "outbox", task.outbox))
    values = read_values(process.block(task.slot, "inbox", task.inbox), task.table)
    missing = 0
    for index, run in enumerate(expand(task.case)):
        outbox.begin(index)
        seen = process.backend.run(task.case.target, run, run_values(run, task.case, values))
        if missing or not outbox.append(seen):
            missing += outbox.size_of(seen)
        if seen.status == "cuda_error":
            # The context is lost for good, so that no later launch here says anything.
            process.doomed = True
            break
    return Done(time.perf_counter() - started, missing)


QUESTIONS = {
    function.__name__: function for function in (device_info, builtin_names, target_specs, run_case)
}
"""What the engine may ask."""
