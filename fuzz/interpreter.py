"""Strict CPU interpreter: Triton's own, repaired where it is wrong, hardened where it is lenient.

:class:`StrictInterpreter` is a context manager around kernel launches under TRITON_INTERPRET=1.
It changes Triton's interpreter in place, by replacing methods of its classes and the class of its
one builder object, and puts everything back on leaving. Repaired, so that kernels compute what
compiled ones do (see :mod:`fuzz.strict.replacements`): conversions between formats, arithmetic on
bfloat16, integers and booleans, reductions and scans, libdevice, ``and`` / ``or`` / ``not``, loops
and launch arguments; autotuned kernels run without a GPU. Hardened: every address is checked before
it is used, lanes that a load leaves undefined hold a poison of the caller's choice, programs run in
an order of the caller's choice, and a ledger finds reads of memory that nobody wrote and accesses
that conflict with those of another program.

Imported in the kernel process alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, get_args

import numpy as np
import triton
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter as stock
from triton.tools.tensor_descriptor import TensorDescriptor

from fuzz.strict import replacements
from fuzz.strict.builder import Poison, StrictBuilder
from fuzz.strict.faults import OutOfBounds, UnsupportedInInterpreter
from fuzz.strict.guard import Guard
from fuzz.strict.regions import Region, Regions
from fuzz.strict.shadow import Ledger

KNOWN_TRITON = ("3.6", "3.7", "3.8", "3.9")


class UnsupportedTriton(RuntimeError):
    """The installed Triton is not one whose interpreter this module knows."""


_stock_launch = stock.GridExecutor.__call__
_stock_host_args = stock.GridExecutor._init_args_hst


@dataclass
class _Launch:
    """What is known of the launch in progress.

    ``changes`` is Triton's own record of what it patched in ``triton.language``; ``patched`` holds
    the ids of the globals of the modules it has patched for. ``guard`` is there once the arguments
    are known.
    """

    kernel: str
    patched: set[int]
    changes: list[tuple[Any, str, Any]] = dataclasses.field(default_factory=list)
    guard: Guard | None = None


class StrictInterpreter:
    """Context in which kernels run under the repaired and hardened interpreter.

    ``poison`` fills the lanes that a masked load without ``other`` leaves undefined. ``order_seed``
    permutes the programs of each launch; None runs them in ascending order. ``regions`` is the
    memory that launches may touch; a tensor argument whose storage lies apart from all of it may
    be touched in its whole storage, and so may every argument where no regions are given.

    ``ledger`` watches memory over all launches of a call, and tells of what is unsafe about the
    accesses to it and to all else that launches may write: see its ``hazards``.
    ``reads_after_atomics``: programs may touch what others wrote, once both have done an atomic.

    Raises: ``UnsupportedTriton`` on a version it does not know; ``RuntimeError`` where Triton's
    interpreter is off or a context is active already. A launch inside raises ``OutOfBounds`` or
    ``UnsupportedInInterpreter``, and ``InterpreterError`` as ever for a kernel's own errors.
    """

    def __init__(
        self,
        *,
        poison: Poison = "nan",
        order_seed: int | None = None,
        regions: Regions | None = None,
        ledger: Ledger | None = None,
        reads_after_atomics: bool = False,
    ) -> None:
        _require_known(triton.__version__)
        self.order: NDArray[np.int64] | None = None
        self._launch: _Launch | None = None
        self._undo = ExitStack()
        self.configure(
            poison=poison,
            order_seed=order_seed,
            regions=regions,
            ledger=ledger,
            reads_after_atomics=reads_after_atomics,
        )

    def configure(
        self,
        *,
        poison: Poison = "nan",
        order_seed: int | None = None,
        regions: Regions | None = None,
        ledger: Ledger | None = None,
        reads_after_atomics: bool = False,
    ) -> None:
        """Settle what holds for the launches from now on; the arguments are the constructor's."""
        if poison not in get_args(Poison):
            raise ValueError(f"poison={poison!r}, must be one of {get_args(Poison)}")
        self.poison = poison
        self.order_seed = order_seed
        self.regions = regions if regions is not None else Regions()
        self.ledger = ledger if ledger is not None else Ledger()
        self.reads_after_atomics = reads_after_atomics

    def allow(self, *regions: Region) -> None:
        """Add memory that was allocated after :meth:`configure`."""
        self.regions = self.regions.extended(regions)

    def __enter__(self) -> Self:
        builder = stock.interpreter_builder
        if isinstance(builder, StrictBuilder):
            raise RuntimeError("a StrictInterpreter is already active in this process")
        if not isinstance(tl.sum, stock.InterpretedFunction):
            raise RuntimeError("Triton compiles: set TRITON_INTERPRET=1 before it is imported")
        with ExitStack() as undo:
            for owner, name, value in self._replacements():
                undo.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
            undo.callback(delattr, builder, "strict")
            builder.strict = self
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._undo.close()

    def _replacements(self) -> Iterator[tuple[Any, str, Any]]:
        builder = stock.interpreter_builder
        yield builder, "__class__", StrictBuilder
        if not builder.options.debug:
            # Integer operations are computed twice over for an overflow assertion that only debug
            # mode evaluates: a sixth of a kernel's time for nothing.
            options = dataclasses.replace(builder.options, sanitize_overflow=False)
            yield builder, "options", options
        yield from replacements.faithful()

        def call_launch(executor: Any, *args: Any, **kwargs: Any) -> None:
            self._run(executor, args, kwargs)

        def host_args(executor: Any, args: Any, kwargs: Any) -> Any:
            on_host = _stock_host_args(executor, args, kwargs)
            self._give_memory(executor.arg_names, *on_host)
            return on_host

        def call_device_function(function: Any, *args: Any, **kwargs: Any) -> Any:
            return self._call_device_function(function, args, kwargs)

        def begin_scope(scope: Any) -> None:
            # Triton restores the scope of the kernel only; device functions of other modules open
            # scopes of their own. One record for all of them undoes everything, last change first.
            scope._changes = [] if self._launch is None else self._launch.changes

        yield stock.GridExecutor, "__call__", call_launch
        yield stock.GridExecutor, "_init_args_hst", host_args
        yield stock.InterpretedFunction, "__call__", call_device_function
        yield stock._LangPatchScope, "__init__", begin_scope

    # launches

    def _run(self, executor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kernel = executor.fn
        self._launch = _Launch(kernel.__name__, {id(kernel.__globals__)})
        try:
            # A GPU does not warn of overflow or invalid operations either.
            with np.errstate(all="ignore"):
                _stock_launch(executor, *args, **kwargs)
        except stock.InterpreterError as error:
            fault = _fault_behind(error)
            if fault is None:
                raise
            raise fault from None
        finally:
            self._launch = None

    def _call_device_function(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        # Stock patches triton.language anew for each call of a device function, tl.sum included,
        # at a third of a kernel's time; once a launch and module has the same effect.
        module = function.fn.__globals__
        if self._launch is not None and id(module) not in self._launch.patched:
            stock._patch_lang(function.fn)
            self._launch.patched.add(id(module))
        return function.rewrite()(*args, **kwargs)

    def _give_memory(self, names: list[str], args: list[Any], kwargs: dict[str, Any]) -> None:
        assert self._launch is not None
        regions = self.regions
        named = [*zip(names, args, strict=False), *kwargs.items()]
        storages = []
        for name, tensor in (pair for item in named for pair in _tensors(*item)):
            storage = tensor.untyped_storage()
            start, n_bytes = storage.data_ptr(), storage.nbytes()
            if not regions.readable.touch(start, start + n_bytes):
                origin = tensor.data_ptr()
                storages.append(Region.of_bytes(name, start, n_bytes, origin=origin))
        memory = regions.extended(storages) if storages else regions
        # Memory of the call that a kernel may find without being given it as an argument.
        others = [
            Region.of_bytes(shadow.name, shadow.start, shadow.stop - shadow.start)
            for shadow in self.ledger.shadows
            if not memory.readable.touch(shadow.start, shadow.stop)
        ]
        memory = memory.extended(others) if others else memory
        extents = (region.extent for region in memory.regions if region.writable)
        self.ledger.begin_launch(extents, reads_after_atomics=self.reads_after_atomics)
        self._launch.guard = Guard(self._launch.kernel, memory, self.ledger)

    # called by the builder

    @property
    def guard(self) -> Guard:
        """What watches the memory of the launch in progress."""
        assert self._launch is not None
        assert self._launch.guard is not None
        return self._launch.guard

    def new_order(self, n_programs: int) -> None:
        """Draw the order in which a launch of so many programs will run them."""
        if self.order_seed is None:
            self.order = None
        else:
            # Raw bits: the one part of NumPy's generators that is the same in all its versions.
            keys = np.random.PCG64(self.order_seed).random_raw(n_programs)
            self.order = np.argsort(keys, kind="stable")


def _require_known(version: str) -> None:
    if ".".join(version.split(".")[:2]) not in KNOWN_TRITON:
        known = ", ".join(f"{minor}.x" for minor in KNOWN_TRITON)
        raise UnsupportedTriton(f"Triton {version}: the strict interpreter knows {known}")


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The tensors in a kernel's argument, with the names that reports give them."""
    if isinstance(value, tuple):
        for position, item in enumerate(value):
            yield from _tensors(f"{name}[{position}]", item)
    elif isinstance(value, TensorDescriptor):
        yield from _tensors(name, value.base)
    elif hasattr(value, "data_ptr"):
        yield name, stock._unwrap_tensor(value)


def _fault_behind(error: BaseException) -> OutOfBounds | UnsupportedInInterpreter | None:
    """The fault of ours that Triton has wrapped in errors of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OutOfBounds | UnsupportedInInterpreter):
        cause = cause.__cause__
    return cause
