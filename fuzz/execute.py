"""Runs in the kernel process: arrays in, observations out; no fault of a kernel escapes.

TRITON_INTERPRET must be "1" in the environment before this module is imported for a CPU, and
unset for a GPU: Triton reads it while kernels are being defined.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import triton
from torch import Tensor
from triton.compiler.errors import CompilationError
from triton.runtime import interpreter as stock
from triton.runtime.errors import InterpreterError, OutOfResources, PTXASError

from fuzz.arena import writable_tensors
from fuzz.builtin import Unsupported
from fuzz.interpreter import StrictInterpreter, UnsupportedTriton
from fuzz.memory import Memory, Staging, Watch
from fuzz.relations import Run
from fuzz.separate_memory import SeparateMemory
from fuzz.spec import TargetSpec
from fuzz.strict.faults import OutOfBounds, UnsupportedInInterpreter
from fuzz.targets import Target, load
from fuzz.verdict import Bits, ErrorInfo, Hazard, Observation, RunStatus, Storage

_FRAMES = 6
"""Of a traceback: the kernel's own line and how the wrapper came to it."""

_MAX_TEXT = 4000
"""Characters of a message or a traceback that are kept: a compiler's can have megabytes."""


class Executor:
    """Runs targets on one device: "cpu" (the strict interpreter), "cuda" or "cuda:1".

    ``sanitizer`` is the tool that this process runs under: every storage is an allocation then.
    Raises: ValueError when the environment does not fit the device.
    """

    def __init__(self, device: str, *, sanitizer: str | None = None) -> None:
        self.device = torch.device(device)
        self._sanitizer = sanitizer
        if self.device.type not in ("cpu", "cuda"):
            raise ValueError(f"device={device!r}, must be cpu, cuda or cuda:<index>")
        self._interpreted = self.device.type == "cpu"
        if bool(triton.knobs.runtime.interpret) != self._interpreted:
            needed = 'must be "1"' if self._interpreted else "must not be set"
            raise ValueError(f"device={device!r}, but TRITON_INTERPRET {needed} for it")
        self._staging: Staging | None = None
        if not self._interpreted:
            # Triton launches on torch's current device.
            if self.device.index is not None:
                torch.cuda.set_device(self.device)
            self.device = torch.device("cuda", torch.cuda.current_device())
            self._staging = Staging()
        self._targets: dict[str, Target] = {}

    def spec(self, target_name: str) -> TargetSpec:
        """What the engine needs to know of a target.

        Raises: TargetError when it cannot be had.
        """
        return self._target(target_name).spec

    def _target(self, name: str) -> Target:
        if name not in self._targets:
            self._targets[name] = load(name)
        return self._targets[name]

    def run(self, target_name: str, run: Run, values: Mapping[str, Bits]) -> Observation:
        """Launch one run and say what it did.

        Shapes: ``values`` are dense, each of its tensor's logical shape.
        Dtypes: unsigned integers of the tensors' widths.
        Raises: TargetError when the target cannot be had, ValueError when values do not fit.
        """
        target = self._target(target_name)
        if self.device.type not in target.spec.devices:
            places = ", ".join(target.spec.devices)
            reason = f"{target_name} runs on {places}, not on {self.device.type}"
            return Observation(run.name, "unsupported", error=ErrorInfo("Unsupported", reason))
        try:
            memory = self._memory(target.spec, run, values)
        except (MemoryError, RuntimeError) as error:
            return self._failure(run, error, 0.0)
        started = time.perf_counter()
        try:
            with ExitStack() as stack:
                if self._interpreted:
                    ordered = target.spec.reads_after_atomics
                    strict = StrictInterpreter(
                        poison=run.poison,
                        order_seed=None if ordered else order_seed(run),
                        regions=memory.regions(),
                        ledger=memory.ledger,
                        reads_after_atomics=ordered,
                    )
                    stack.enter_context(strict)
                launches = stack.enter_context(_launches(interpreted=self._interpreted))
                stack.enter_context(torch.no_grad())
                watch = stack.enter_context(Watch(memory))
                arguments = _arguments(target.spec, memory)
                started = time.perf_counter()
                returned = target.call(arguments, _scalars(run), run.case.launch)
                self._synchronise()
            seconds = time.perf_counter() - started
            for name, output in returned.items():
                _check_output(name, output, self.device)
            outputs = _where_given(target.spec, arguments, returned)
        # SystemExit: a target that calls sys.exit() must not end the kernel process.
        except (Exception, SystemExit) as error:
            failure = self._failure(run, error, time.perf_counter() - started)
            return dataclasses.replace(
                failure, hazards=_hazards(memory), storages=_storages(memory)
            )
        try:
            arrays, damage = memory.collect(outputs)
        except (MemoryError, RuntimeError) as error:
            return self._failure(run, error, seconds)
        return Observation(
            run.name,
            "ok",
            arrays,
            damage,
            hazards=_hazards(memory),
            neighbours=memory.neighbours(outputs),
            key=tuple(launches) if launches and not watch.computed else None,
            seconds=seconds,
            storages=_storages(memory),
        )

    def _memory(self, spec: TargetSpec, run: Run, values: Mapping[str, Bits]) -> Memory:
        writable = writable_tensors(spec)
        owned = frozenset(arg.name for arg in spec.args if arg.owns_storage)
        if self._sanitizer is None:
            return Memory(
                run.case, writable, values, run.poison, self.device, self._staging, owned=owned
            )
        # To initcheck, poison would be a value like any other.
        fill = self._sanitizer != "initcheck"
        return SeparateMemory(
            run.case, writable, values, run.poison, self.device, fill=fill, owned=owned
        )

    def _synchronise(self) -> None:
        if not self._interpreted:
            torch.cuda.synchronize(self.device)

    def _failure(self, run: Run, error: BaseException, seconds: float) -> Observation:
        """The observation of a run that ended in an error."""
        status, error = classify(error)
        if not self._interpreted and status != "cuda_error":
            try:
                # The next run reuses the host memory that copies of this one may still read.
                torch.cuda.synchronize(self.device)
                if status == "out_of_memory":
                    torch.cuda.empty_cache()
            except RuntimeError as late:
                status, error = classify(late)
        return Observation(run.name, status, error=describe_error(error), seconds=seconds)


def order_seed(run: Run) -> int:
    """The seed of the order in which programs run: another one for each run of each case."""
    # What differs from the base run among other poison must be due to the poison.
    name = "base" if run.name == "poisoned" else run.name
    digest = hashlib.sha256(f"{run.case.case_id} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def classify(error: BaseException) -> tuple[RunStatus, BaseException]:
    """What an exception means, and the one that says it best."""
    while isinstance(error, InterpreterError) and error.__cause__ is not None:
        # The interpreter wraps a kernel's own exception.
        error = error.__cause__
    text = str(error)
    if isinstance(error, OutOfBounds):
        return "out_of_bounds", error
    if isinstance(error, Unsupported | UnsupportedInInterpreter | UnsupportedTriton):
        return "unsupported", error
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "out_of_memory", error
    if isinstance(error, CompilationError | OutOfResources | PTXASError) or _is_of_compiler(error):
        return "compile_error", error
    if isinstance(error, RuntimeError):
        if any(words in text for words in _MEMORY_TEXTS):
            return "out_of_memory", error
        if isinstance(error, torch.AcceleratorError) or any(words in text for words in _CUDA_TEXTS):
            return "cuda_error", error
        if any(words in text for words in _COMPILER_TEXTS):
            return "compile_error", error
    return "raised", error


# Errors that come as plain RuntimeErrors, told by what they say.
_MEMORY_TEXTS = ("[CUDA]: out of memory", "can't allocate memory", "CUDA out of memory")
_CUDA_TEXTS = ("CUDA error", "Triton Error [CUDA]", "CUDA driver error")
_COMPILER_TEXTS = ("PassManager::run failed", "failed to translate module to LLVM IR")


def _is_of_compiler(error: BaseException) -> bool:
    """Whether torch.compile raised it. By name: importing its classes takes seconds."""
    return any(
        kind.__module__.startswith(("torch._dynamo.exc", "torch._inductor.exc"))
        for kind in type(error).__mro__
    )


def describe_error(error: BaseException) -> ErrorInfo:
    """An exception as text: its type, what it says, and the end of its traceback."""
    trace = "".join(traceback.format_exception(error, limit=-_FRAMES, chain=False))
    return ErrorInfo(type(error).__name__, str(error)[:_MAX_TEXT], trace[-_MAX_TEXT:])


def _hazards(memory: Memory) -> tuple[Hazard, ...]:
    return () if memory.ledger is None else memory.ledger.hazards


def _storages(memory: Memory) -> tuple[Storage, ...]:
    return memory.storages if isinstance(memory, SeparateMemory) else ()


def _arguments(spec: TargetSpec, memory: Memory) -> dict[str, Tensor | None]:
    """Every tensor argument of the target; None for those that the case does not have."""
    absent: dict[str, Tensor | None] = {arg.name: None for arg in spec.args}
    return absent | memory.tensors


def _where_given(
    spec: TargetSpec, arguments: Mapping[str, Tensor | None], returned: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The outputs where the caller will look for them: in the tensor that was given for one."""
    places = {output.name: arguments.get(output.given_as or "") for output in spec.outputs}
    found = dict(returned)
    for name, place in places.items():
        if place is not None and name in found:
            found[name] = place
    return found


def _scalars(run: Run) -> dict[str, Any]:
    case = run.case
    return {**case.flags, "eps": case.eps, "normalized_shape": case.normalized}


def _check_output(name: str, output: object, device: torch.device) -> None:
    if not isinstance(output, Tensor):
        raise TypeError(f"{name}={type(output).__name__}, must be a torch.Tensor")
    if output.layout != torch.strided:
        raise TypeError(f"{name}.layout={output.layout}, must be torch.strided")
    if output.device != device:
        raise ValueError(f"{name}.device={output.device}, must be {device}")


@contextmanager
def _launches(*, interpreted: bool) -> Iterator[list[str]]:
    """A list that grows by one entry for each Triton kernel launched: together, the run's key.

    A compiled function stands for all that a launch specialises on. Interpreted launches sum in
    an order that only their block shapes decide, so their constexpr arguments stand for them.
    """
    found: list[str] = []
    if interpreted:
        launch = stock.GridExecutor.__call__

        def note_and_launch(executor: Any, *args: Any, **kwargs: Any) -> None:
            bound = {**dict(zip(executor.arg_names, args, strict=False)), **kwargs}
            constants = ", ".join(f"{n}={bound[n]}" for n in executor.constexprs if n in bound)
            found.append(f"{executor.fn.__name__}({constants})")
            launch(executor, *args, **kwargs)

        stock.GridExecutor.__call__ = note_and_launch
        try:
            yield found
        finally:
            stock.GridExecutor.__call__ = launch
    else:

        def note(metadata: Any) -> None:
            # Not .get(): that would evaluate what the kernel's author has attached for profilers.
            found.append("{name}@{function:#x}".format_map(metadata.data))

        hook = triton.knobs.runtime.launch_enter_hook
        hook.add(note)
        try:
            yield found
        finally:
            hook.remove(note)
