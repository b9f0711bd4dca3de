"""Targets called without a GPU: which specialisations they launch, and one of them compiled."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fuzz import builtin
from fuzz.arena import writable_tensors
from fuzz.builtin import Unsupported
from fuzz.case import Case
from fuzz.compiling.build import build, shortened
from fuzz.compiling.gpus import Gpu
from fuzz.compiling.launches import Launch, pretend, recording, seen_from_here
from fuzz.compiling.tasks import (
    Answer,
    Build,
    Built,
    Collect,
    Collected,
    Launched,
    Task,
)
from fuzz.memory import Memory
from fuzz.process.origin import Origin
from fuzz.relations import Run, expand
from fuzz.space.widths import default_launch
from fuzz.spec import TargetSpec
from fuzz.targets import Target, TargetError, load


class ValueRead(Exception):
    """A wrapper looks at what a kernel would have computed: what it then launches is not known."""


class Workshop:
    """Answers the tasks of one compiling process.

    All that is printed goes to ``log``; ``origin`` knows where modules must come from.
    """

    def __init__(self, gpu: Gpu, log: Path, origin: Origin | None) -> None:
        self._log = log
        self._origin = origin
        self._targets: dict[str, Target | str] = {}
        # Files that decide while they are imported what to do on which GPU ask for it then.
        pretend(gpu)

    def answer(self, task: Task) -> Answer:
        """What a task asks for."""
        return self._collect(task) if isinstance(task, Collect) else self._build(task)

    def _target(self, name: str) -> Target | str:
        """The target of that name, or why there is none."""
        if name not in self._targets:
            try:
                self._targets[name] = load(name)
                if self._origin is not None:
                    self._origin.check(name)
            except (TargetError, ValueError) as error:
                self._targets[name] = str(error)
            # The adapters may be those of an earlier commit, which have no such function.
            prepare = getattr(builtin, "take_cpu_tensors", None)
            if prepare is not None:
                prepare()
        return self._targets[name]

    def _collect(self, task: Collect) -> Collected:
        target = self._target(task.case.target)
        if isinstance(target, str):
            return Collected(problem=target)
        if "cuda" not in target.spec.devices:
            places = ", ".join(target.spec.devices)
            return Collected(problem=f"{target.spec.name} runs on {places} alone")
        launched: dict[str, list[Launched]] = {gpu.name: [] for gpu in task.gpus}
        errors: dict[str, str] = {}
        for index, run in enumerate(expand(task.case)):
            for gpu in task.gpus:
                found, error = _launches(target, run, gpu)
                launched[gpu.name] += [Launched(index, one.specialisation()) for one in found]
                if error:
                    errors.setdefault(gpu.name, error)
        return Collected(
            default=_takes_default(target.spec, task.case),
            launched={name: tuple(found) for name, found in launched.items()},
            errors=errors,
        )

    def _build(self, task: Build) -> Built:
        target = self._target(task.case.target)
        if isinstance(target, str):
            return Built(error=target)
        found, error = _launches(target, expand(task.case)[task.run], task.gpu)
        for launch in found:
            if launch.specialisation().identity == task.identity:
                return build(launch, memory=task.memory, printed=self._log)
        why = f": {error}" if error else ""
        return Built(error=f"not launched when the same case was run again{why}")


def _launches(target: Target, run: Run, gpu: Gpu) -> tuple[list[Launch], str]:
    """What a run launches, up to the end or to an error, which is told."""
    try:
        memory = Memory(
            run.case, writable_tensors(target.spec), {}, "nan", torch.device("cpu"), None
        )
    except MemoryError as error:
        return [], f"no memory for the tensors: {error}"
    case = run.case
    arguments = {arg.name: None for arg in target.spec.args} | memory.tensors
    scalars: dict[str, Any] = {**case.flags, "eps": case.eps, "normalized_shape": case.normalized}
    with recording(gpu) as found, torch.no_grad(), _NothingComputed(found):
        try:
            target.call(arguments, scalars, case.launch)
        except Unsupported:
            return found, ""
        except (Exception, SystemExit) as error:
            return found, _told(error)
    return found, ""


class _NothingComputed(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's are untyped
    """Lets no value of a tensor decide on anything once something was launched."""

    def __init__(self, launched: list[Launch]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._launched = launched

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch for every operation of the wrapper."""
        if self._launched and not _OF_VALUES.isdisjoint(func.tags):
            raise ValueRead(f"{func} reads what a kernel should have computed")
        return func(*args, **(kwargs or {}))


_OF_VALUES = frozenset((torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape))
"""Operations whose result is a Python value, or has a shape, that depends on the values read."""


def _told(error: BaseException) -> str:
    """An error of a wrapper: what, and the line of the files at hand that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    said = ": ".join(part for part in (type(error).__name__, str(error)) if part)
    engine = Path(__file__).parents[1]
    for frame in reversed(frames):
        place = seen_from_here(frame.filename, frame.lineno or 0)
        if not Path(place.file).is_absolute() and engine not in Path(frame.filename).parents:
            return shortened(f"{said} [{place}: {frame.line}]")
    return shortened(said)


def _takes_default(spec: TargetSpec, case: Case) -> bool:
    """Whether a case leaves the launch to the wrapper, or pins what the wrapper would take."""
    launch = case.launch
    if launch.fp_fusion is False or launch.config is not None:
        return False
    if launch.block is None and launch.num_warps is None:
        return True
    row = default_launch(spec.launch, case.group_size, case.tensor_or_fail("x").itemsize)
    return row is not None and (row.block, row.num_warps) == (launch.block, launch.num_warps)
