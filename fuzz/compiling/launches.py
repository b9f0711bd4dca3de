"""Launches written down instead of done: what Triton would compile, for a GPU that is absent.

Triton itself works out the specialisation, from the real arguments. Both ends of the supported
range have the same two methods for it: ``JITFunction.run`` binds the arguments, and hands what is
to be compiled to ``JITFunction._do_compile``.
"""

from __future__ import annotations

import hashlib
import re
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime import driver
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITCallable, JITFunction

from fuzz.compiling.gpus import GPUS, Gpu
from fuzz.compiling.tasks import Specialisation
from fuzz.gating.outcome import Place
from fuzz.strict.host import AnyDevice

_ALWAYS_TOLD = ("num_warps", "num_stages", "enable_fp_fusion")
"""Options that the text of a specialisation names even where they are the GPU's default."""


class AbsentGpu:
    """As much of a Triton driver as compiling asks for; it launches nothing.

    What else a wrapper may ask it, such as the GPU's properties, has no right answer.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._index = GPUS.index(gpu)
        self._target = GPUTarget(gpu.backend, gpu.arch, gpu.warp_size)

    def get_current_device(self) -> int:
        """Triton keeps what it binds by device: each GPU is one of its own."""
        return self._index

    def get_current_stream(self, device: int) -> int:
        """A stream that nothing is launched on."""
        return 0

    def get_current_target(self) -> GPUTarget:
        """What is compiled for."""
        return self._target

    def get_active_torch_device(self) -> torch.device:
        """Where the tensors are that stand for the GPU's."""
        return torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Launch:
    """What Triton was about to compile."""

    function: Any
    signature: dict[str, Any]
    constants: dict[tuple[int, ...], Any]
    attributes: dict[tuple[int, ...], Any]
    options: Any

    @property
    def target(self) -> GPUTarget:
        """What it would have been compiled for."""
        return driver.active.get_current_target()

    def specialisation(self) -> Specialisation:
        """What it is known by."""
        text = self._text()
        parts = [_cache_key(self.function), text]
        parts += [_cache_key(v) for v in self.constants.values() if isinstance(v, JITCallable)]
        place = place_of(self.function)
        digest = hashlib.sha256("\n".join((str(place), *parts)).encode()).hexdigest()
        return Specialisation(self.function.__name__, text, digest, place)

    def _text(self) -> str:
        arguments = [
            self._argument(name, kind, (index,))
            for index, (name, kind) in enumerate(self.signature.items())
        ]
        usual = vars(make_backend(self.target).parse_options({}))
        options = [
            f"{name}={value}"
            for name, value in sorted(vars(self.options).items())
            if name in _ALWAYS_TOLD or value != usual[name]
        ]
        return ", ".join((*arguments, *options))

    def _argument(self, name: str, kind: Any, path: tuple[int, ...]) -> str:
        if kind == "constexpr":
            return f"{name}={_constant(self.constants[path])}"
        return f"{name}: {self._type(kind, path)}"

    def _type(self, kind: Any, path: tuple[int, ...]) -> str:
        if isinstance(kind, tuple):
            items = [self._type(item, (*path, index)) for index, item in enumerate(kind)]
            return f"({', '.join(items)})"
        if kind == "constexpr":
            return f"={_constant(self.constants[path])}"
        hints = dict(self.attributes.get(path) or ())
        divisor = hints.pop("tt.divisibility", None)
        # As in the signatures of Triton's own tool for compiling ahead: *fp32:16.
        shown = str(kind) if divisor is None else f"{kind}:{divisor}"
        others = [f"{name.removeprefix('tt.')}={value}" for name, value in hints.items()]
        return " ".join((shown, *others))


@contextmanager
def recording(gpu: Gpu) -> Iterator[list[Launch]]:
    """A list that grows by every launch inside. A launch computes nothing and returns None.

    A kernel under an autotuner is launched with every configuration that pruning leaves: on a GPU
    each would be compiled, to be timed.
    """
    found: list[Launch] = []
    bind = JITFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool = False, **kwargs: Any) -> Any:
        # A warm-up needs neither grid nor stream.
        return bind(self, *args, grid=grid, warmup=True, **kwargs)

    def note(
        self: Any,
        key: Any,
        signature: Any,
        device: Any,
        constants: Any,
        options: Any,
        attributes: Any,
        warmup: Any,
    ) -> None:
        found.append(Launch(self, signature, constants, attributes, options))

    with ExitStack() as stack:
        for owner, name, replacement in (
            (JITFunction, "run", run),
            (JITFunction, "_do_compile", note),
            (Autotuner, "run", _run_every_config),
            (torch.cuda, "device", AnyDevice),
            (torch.cuda, "device_of", AnyDevice),
        ):
            stack.enter_context(mock.patch.object(owner, name, replacement))
        pretend(gpu)
        yield found


def pretend(gpu: Gpu) -> None:
    """Let Triton take the GPU for the one at hand."""
    driver.set_active(AbsentGpu(gpu))


def _run_every_config(self: Any, *args: Any, **kwargs: Any) -> None:
    self.nargs = dict(zip(self.arg_names, args, strict=False))
    for config in self.prune_configs(kwargs):
        tuned = {**kwargs, **config.all_kwargs()}
        if config.pre_hook is not None:
            config.pre_hook({**self.nargs, **tuned})
        self.fn.run(*args, **tuned)
    self.nargs = None


def place_of(function: Any, line: int = 1) -> Place:
    """A line of a JIT function, counted from its ``def``, as seen from the working folder."""
    before = next(
        index for index, text in enumerate(function.raw_src) if text.lstrip().startswith("def ")
    )
    return seen_from_here(
        function.fn.__code__.co_filename, function.starting_line_number + before + line - 1
    )


def seen_from_here(file: str, line: int) -> Place:
    """A line of a file, named relative to the working folder where it lies below."""
    path = Path(file).resolve()
    here = Path.cwd().resolve()
    return Place(str(path.relative_to(here) if path.is_relative_to(here) else path), line)


def _cache_key(function: Any) -> str:
    """Triton's hash of a function's source and all that it calls."""
    try:
        return str(function.cache_key)
    except Exception as error:
        # Compiling raises it again, and tells it.
        forget_half_hashes(function)
        return without_addresses(f"{type(error).__name__}: {error}")


def forget_half_hashes(function: Any) -> None:
    """Undo what hashing leaves behind where it fails: Triton would take it for the hash."""
    for found in called_by(function):
        if (found.hash or "").startswith("recursion:"):
            found.hash = None


def called_by(function: Any) -> Iterator[Any]:
    """A JIT function, and all that it can call."""
    known, queue = {id(function)}, [function]
    while queue:
        found = queue.pop(0)
        yield found
        for value in found.get_capture_scope().values():
            inside = vars(value).values() if isinstance(value, types.ModuleType) else (value,)
            for one in inside:
                if isinstance(one, JITCallable) and id(one) not in known:
                    known.add(id(one))
                    queue.append(one)


def _constant(value: Any) -> str:
    """A constant as text that is the same in every process."""
    if isinstance(value, JITCallable):
        return str(value.__name__)
    return without_addresses(repr(value) if isinstance(value, str) else str(value))


def without_addresses(text: str) -> str:
    """Text about objects that is the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)
