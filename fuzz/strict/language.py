"""The builder, its language side: what Python's own operators and names mean in a kernel."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from operator import index
from types import BuiltinFunctionType, FunctionType
from typing import Any, Self

import numpy as np
import triton.language as tl
from triton.language.extra import libdevice as any_libdevice
from triton.language.extra.cuda import libdevice as cuda_libdevice
from triton.runtime import interpreter as stock

from fuzz.strict.arithmetic import ArithmeticBuilder
from fuzz.strict.refusals import place


class Operand:
    """One value of ``a and b and c``, and what came before it: see ``Rewriter.visit_BoolOp``.

    The compiler's rules: a tensor counts as neither true nor false, and all tensors are combined
    element by element; a Python value decides, or drops out.
    """

    def __init__(self, value: Any, name: str = "") -> None:
        self.name = name
        self.value = value
        self.tensors: list[Any] = []
        self.decided = False

    def __lt__(self, following: Self) -> Self:
        value = following.value
        following.name = self.name
        following.tensors = self.tensors
        if isinstance(value, tl.tensor):
            following.tensors.append(value)
        else:
            following.decided = bool(value) is (self.name == "or")
        return following

    def __bool__(self) -> bool:
        """Whether to go on to the next operand."""
        return not self.decided

    def result(self) -> Any:
        """The value of the whole expression."""
        if self.decided or not self.tensors:
            return self.value
        method = f"logical_{self.name}"
        return functools.reduce(
            lambda right, left: getattr(left, method)(right), reversed(self.tensors)
        )


class LanguageBuilder(ArithmeticBuilder):
    """Stock builder with right arithmetic, and with what the kernel's rewritten source calls."""

    def logical_start(self, name: str) -> Operand:
        """Where a chain of ``and`` or ``or`` begins."""
        return Operand(None, name)

    def logical_operand(self, value: Any) -> Operand:
        """The next value of a chain."""
        return Operand(value)

    def logical_result(self, last: Operand) -> Any:
        """The value of a chain that was evaluated up to ``last``."""
        return last.result()

    def logical_not(self, value: Any) -> Any:
        """``not value``."""
        return value.__not__() if isinstance(value, tl.tensor) else not value

    def assigned(self, value: Any) -> Any:
        """The value that a variable takes: numbers become tensors."""
        if isinstance(value, tuple):
            return stock._tuple_create(value, map(self.assigned, value))
        return stock.interpreter_semantic.to_tensor(value, False)

    def asserted(self, condition: Any, message: Any) -> None:
        """An ``assert``: like ``tl.device_assert``, without effect but in debug mode."""
        _device_assert(condition, message, _semantic=stock.interpreter_semantic)

    def meaning(self, function: Any) -> Any:
        """The function that the compiler calls where a kernel's source has this one."""
        if type(function) not in _FUNCTION_TYPES:
            return function
        found = _MEANINGS.get(function)
        if found is not None:
            return found
        if getattr(function, "__triton_builtin__", False):
            # Imported by its own name, so that Triton could not give it its semantic.
            owner = _OWNERS.get(function.__module__)
            patched = getattr(owner, function.__name__, function)
            if patched is not function:
                return patched
            return functools.partial(function, _semantic=stock.interpreter_semantic)
        return function


def patch_tensor(tensor: Any, scope: Any) -> None:
    """Also let a tensor know its truth, and its value: replaces ``_patch_lang_tensor``.

    Stock takes every block for true. Scalars are arrays of shape (1,), which Triton 3.6 gives to
    int() as they are; NumPy refuses that since 2.4, and with it every run-time bound of a range.
    """
    _stock_patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: index(self.handle.data.item()))
    scope.set_attr(tensor, "__bool__", _bool)


def patch_core(lang: Any, scope: Any) -> None:
    """Also let ``tl.range`` give tensors, as does ``range``: replaces ``_patch_lang_core``.

    Triton 3.6 lacks the truth of a ``tl.condition``, and two float8 formats.
    """
    _stock_patch_core(lang, scope)
    scope.set_attr(lang, "range", run_time_range)
    scope.set_attr(lang.condition, "__bool__", lambda self: bool(self.condition))
    stock_to_ir = lang.dtype.to_ir

    def to_ir(dtype: Any, builder: Any) -> Any:
        return dtype if dtype.name in ("fp8e4b8", "fp8e5b16") else stock_to_ir(dtype, builder)

    scope.set_attr(lang.dtype, "to_ir", to_ir)


def run_time_range(
    first: Any, second: Any = None, step: Any = None, **options: Any
) -> Iterator[Any]:
    """The values of a loop variable: tensors, which wrap around as such."""
    start, stop = (0, first) if second is None else (first, second)
    step = 1 if step is None else step
    semantic = stock.interpreter_semantic
    dtypes = [semantic.to_tensor(bound).dtype for bound in (start, stop, step)]
    if not all(dtype.is_int() for dtype in dtypes):
        names = ", ".join(map(str, dtypes))
        raise TypeError(f"bounds and step of a range must be integers, not {names} {place()}")
    if isinstance(step, tl.tensor) and index(step) <= 0:
        raise ValueError(
            f"step={index(step)} at run time, must be positive: only a constant step may be "
            f"negative {place()}"
        )
    dtype = functools.reduce(semantic.integer_promote_impl, dtypes)
    np_dtype = stock._get_np_dtype(dtype)
    for value in range(*map(index, (start, stop, step))):
        data = np.array([value]).astype(np_dtype)
        yield tl.tensor(stock.TensorHandle(data, dtype), dtype)


def _bool(tensor: Any) -> bool:
    # Triton's own functions ask whether a tensor was given at all, as `if other`.
    return sys._getframe(1).f_code.co_filename in _INTERNALS or _truth(tensor)


def _truth(tensor: Any) -> bool:
    data = tensor.handle.data
    if data.size != 1:
        raise ValueError(
            f"a tensor of shape {data.shape} is neither true nor false: an if, a while or a "
            f"conditional expression takes one element {place()}"
        )
    return bool(data.item())


def _greatest(*args: Any, **kwargs: Any) -> Any:
    return _of_tensors(max, tl.core.builtin_max, args, kwargs)


def _least(*args: Any, **kwargs: Any) -> Any:
    return _of_tensors(min, tl.core.builtin_min, args, kwargs)


def _of_tensors(
    of_numbers: Callable[..., Any],
    of_tensors: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if any(isinstance(arg, tl.tensor) for arg in args):
        return of_tensors(*args, **kwargs, _semantic=stock.interpreter_semantic)
    return of_numbers(*args, **kwargs)


def _libdevice() -> dict[Any, Any]:
    """The functions that do nothing but name one of CUDA's, and those."""
    semantic = stock.interpreter_semantic
    return {
        function: functools.partial(getattr(cuda_libdevice, name), _semantic=semantic)
        for name, function in vars(any_libdevice).items()
        if isinstance(function, FunctionType) and hasattr(cuda_libdevice, name)
    }


_stock_patch_tensor = stock._patch_lang_tensor
_stock_patch_core = stock._patch_lang_core
_device_assert = tl.core.device_assert

_FUNCTION_TYPES = (FunctionType, BuiltinFunctionType, type)
_INTERNALS = frozenset(module.__file__ for module in (tl.core, tl.semantic, tl.math))
_OWNERS = {module.__name__: module for module in (tl.core, tl.math)}
_MEANINGS: dict[Any, Any] = {
    range: run_time_range,
    max: _greatest,
    min: _least,
    **_libdevice(),
}
