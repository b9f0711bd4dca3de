"""Strict CPU interpreter: Triton's own, repaired where it is wrong, hardened where it is lenient.

:class:`StrictInterpreter` is a context manager around kernel launches under TRITON_INTERPRET=1.
It changes Triton's interpreter in place, by replacing methods of its classes and the class of its
one builder object, and puts everything back on leaving. Repaired: conversions to bfloat16 (stock
truncates), bfloat16 arithmetic and reductions (stock computes on the bits as integers), the order
of floating-point sums, run-time ``range`` bounds. Hardened: every address is checked before it is
used, and lanes that a load leaves undefined hold a poison of the caller's choice.

Imported in the kernel process alone.
"""

from __future__ import annotations

import dataclasses
import linecache
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from operator import index
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, Self, SupportsIndex, get_args

import numpy as np
import triton
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter as stock
from triton.tools.tensor_descriptor import TensorDescriptor

KNOWN_TRITON = ("3.6", "3.7", "3.8", "3.9")

Poison = Literal["nan", "huge", "-huge"]

# One byte, repeated, so that every dtype has its poison. 0xFF... is a NaN in every IEEE format and
# -1 as an integer; 0x7B... is a finite value near the top of each format (1.3e36 in float32 and
# bfloat16, 61280 in float16), and an address far outside any memory; the sign bit makes it 0xFB.
_POISON_BYTE: dict[Poison, int] = {"nan": 0xFF, "huge": 0x7B, "-huge": 0xFB}

# A boolean has only two values: NaN must differ from both huge ones, since it is with one of them
# that a NaN run is compared.
_POISON_BOOL: dict[Poison, int] = {"nan": 1, "huge": 0, "-huge": 0}

Action = Literal["read", "write", "atomic"]

# Triton's short names, as everything else here writes them.
_DTYPE_NAMES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}


class UnsupportedTriton(RuntimeError):
    """The installed Triton is not one whose interpreter this module knows."""


class UnsupportedInInterpreter(Exception):
    """A kernel uses an operation whose result would be wrong; the message names it."""


@dataclass(frozen=True)
class Access:
    """One refused access: its first bad lane, and how many lanes were bad.

    ``region`` is the one that the pointer was computed from, or the nearest where that is unknown;
    ``element`` counts elements of ``dtype`` from its element 0. Both are None where no region was
    given. ``read_only`` says that the launch may read there but not write.
    """

    kernel: str
    action: Action
    file: str
    line: int
    text: str
    program: tuple[int, int, int]
    region: str | None
    element: int | None
    dtype: str
    n_bad: int
    n_lanes: int
    read_only: bool = False

    def __str__(self) -> str:
        where = "all memory"
        if self.region is not None:
            where = f"{self.region!r}, at element {self.element}"
        fault = f"to read-only {where}" if self.read_only else f"outside {where}"
        return (
            f"{self.action} {fault} ({self.dtype}), {self.n_bad} of {self.n_lanes} lanes "
            f"[{self.kernel}, program {self.program}, "
            f"{Path(self.file).name}:{self.line}: {self.text}]"
        )


class OutOfBounds(Exception):
    """A kernel touched memory that it was not given. The access was not performed."""

    def __init__(self, access: Access) -> None:
        super().__init__(str(access))
        self.access = access


# --- memory that a launch may touch -------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Region:
    """Memory of one tensor that a launch may touch.

    Shapes: ``intervals`` (k, 2), byte addresses [start, stop), in any order, may overlap.
    Dtypes: uint64.

    ``origin`` is the address of the tensor's element 0, from which reports count.
    """

    name: str
    intervals: NDArray[np.uint64]
    origin: int
    writable: bool = True

    def __post_init__(self) -> None:
        if self.intervals.ndim != 2 or self.intervals.shape[1] != 2:
            raise ValueError(
                f"intervals.shape={self.intervals.shape}, must be (k, 2) [{self.name}]"
            )
        if self.intervals.dtype != np.uint64:
            raise ValueError(
                f"intervals.dtype={self.intervals.dtype}, must be uint64 [{self.name}]"
            )

    @classmethod
    def of_bytes(
        cls,
        name: str,
        start: int,
        n_bytes: int,
        *,
        writable: bool = True,
        origin: int | None = None,
    ) -> Region:
        """The region of one contiguous stretch; ``origin`` defaults to ``start``."""
        intervals = np.array([[start, start + n_bytes]], dtype=np.uint64)
        return cls(name, intervals, start if origin is None else origin, writable)

    def distance(self, address: int) -> int:
        """Bytes from an address to the nearest byte of the region; 0 inside."""
        distances = (
            0 if start <= address < stop else min(abs(start - address), abs(address - stop + 1))
            for start, stop in self.intervals.tolist()
            if start < stop
        )
        return min(distances, default=1 << 64)


class _Spans:
    """The union of byte intervals, sorted and merged."""

    def __init__(self, intervals: list[NDArray[np.uint64]]) -> None:
        table = np.concatenate([np.empty((0, 2), dtype=np.uint64), *intervals])
        table = table[table[:, 0] < table[:, 1]]
        table = table[np.argsort(table[:, 0], kind="stable")]
        reach = np.maximum.accumulate(table[:, 1])
        first = np.ones(len(table), dtype=np.bool_)
        first[1:] = table[1:, 0] > reach[:-1]
        last = np.ones(len(table), dtype=np.bool_)
        last[:-1] = first[1:]
        self._starts: NDArray[np.uint64] = table[first, 0]
        self._stops: NDArray[np.uint64] = reach[last]
        # Python integers: a bisection of a list is ten times as fast as one small NumPy call.
        self._start_list: list[int] = self._starts.tolist()
        self._stop_list: list[int] = self._stops.tolist()

    def hold(self, start: int, stop: int) -> bool:
        """Whether all bytes of [start, stop) lie in one merged interval."""
        index = bisect_right(self._start_list, start) - 1
        return index >= 0 and stop <= self._stop_list[index]

    def touch(self, start: int, stop: int) -> bool:
        """Whether any byte of [start, stop) lies in the union."""
        index = bisect_right(self._start_list, stop - 1) - 1
        return start < stop and index >= 0 and start < self._stop_list[index]

    def outside(self, addresses: NDArray[np.uint64], n_bytes: int) -> NDArray[np.bool_]:
        """Which addresses start an access of ``n_bytes`` that leaves the union."""
        if not self._start_list:
            return np.ones(addresses.shape, dtype=np.bool_)
        index = np.searchsorted(self._starts, addresses, side="right") - 1
        # Room is compared, not the end of the access: a wild address plus n_bytes may wrap round.
        room = self._stops[index] - addresses
        inside = (index >= 0) & (addresses < self._stops[index]) & (room >= np.uint64(n_bytes))
        return ~inside


class Regions:
    """All memory that launches may touch; immutable, prepared for fast look-up."""

    def __init__(self, regions: Iterable[Region] = ()) -> None:
        self.regions = tuple(regions)
        self.readable = _Spans([region.intervals for region in self.regions])
        self.writable = _Spans([region.intervals for region in self.regions if region.writable])

    def extended(self, more: Iterable[Region]) -> Regions:
        """These regions and more."""
        return Regions((*self.regions, *more))

    def owner(self, address: int) -> Region | None:
        """The region with its element 0 at an address, else the nearest; the first of several."""
        return min(
            self.regions,
            key=lambda region: -1 if region.origin == address else region.distance(address),
            default=None,
        )


# --- bfloat16 ------------------------------------------------------------------------------------
# The interpreter keeps bfloat16 as uint16 bits. Arithmetic on it is: widen, compute in a float that
# holds the exact result or is far finer, round once.


def bf16_to_fp32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The values of bfloat16 bit patterns, exactly."""
    wide: NDArray[np.uint32] = np.left_shift(bits, np.uint32(16), dtype=np.uint32)
    return wide.view(np.float32)


def round_to_bf16(values: NDArray[Any], *, toward_zero: bool = False) -> NDArray[np.uint16]:
    """Round numbers to bfloat16, to nearest with ties to even unless ``toward_zero``.

    Dtypes: floats and integers of any width -> uint16 bit patterns. Integers pass through float32
    first, as compiled kernels do.

    A NaN becomes 0x7FFF, the one NaN that PTX's conversion gives; overflow becomes Inf (or the
    largest finite value toward zero).
    """
    narrow = _fp64_to_odd_fp32(values) if values.dtype == np.float64 else values
    numbers = np.ascontiguousarray(narrow, dtype=np.float32).reshape(narrow.shape)
    bits = numbers.view(np.uint32)
    if not toward_zero:
        # Just under half a unit of the kept bits, or exactly half where the last kept bit is odd:
        # the carry rounds to nearest even, through subnormals, and past the largest value to Inf.
        bits = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    kept = (bits >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(numbers), np.uint16(0x7FFF), kept)


def _fp64_to_odd_fp32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round to odd: toward zero, then the last bit set where that was inexact.

    A later rounding to fewer bits then equals one rounding of the original, which rounding to
    nearest twice does not.
    """
    nearest = values.astype(np.float32)
    bits = nearest.view(np.uint32)
    # Inf is one step beyond the largest finite value in bits too. Comparisons with NaN are false.
    bits = bits - (np.abs(nearest.astype(np.float64)) > np.abs(values))
    inexact = (bits.view(np.float32).astype(np.float64) != values) & ~np.isnan(values)
    result: NDArray[np.uint32] = (bits | inexact).astype(np.uint32)
    return result.view(np.float32)


def _is_bf16(handle: Any) -> bool:
    """Whether a handle holds bfloat16 values.

    Stock results of comparisons are booleans under the operands' dtype, so the data decide too.
    """
    return bool(handle.data.dtype == np.uint16 and handle.dtype.scalar == tl.bfloat16)


def _widened(handle: Any, dtype: Any, np_dtype: type[np.floating[Any]]) -> Any:
    """The same values in a wider float, where the handle holds bfloat16; else the handle."""
    if not _is_bf16(handle):
        return handle
    return stock.TensorHandle(bf16_to_fp32(handle.data).astype(np_dtype, copy=False), dtype)


def _narrowed(data: NDArray[Any]) -> Any:
    """A handle for the result of an operation on bfloat16: a boolean stays one."""
    if data.dtype == np.bool_:
        return stock.TensorHandle(data, tl.int1)
    return stock.TensorHandle(round_to_bf16(data), tl.bfloat16)


def _with_base(result: Any, source: Any) -> Any:
    """Note on a pointer the address of the argument that the source was computed from."""
    if "base" in source.attr:
        result.attr["base"] = source.attr["base"]
    elif source.dtype.is_ptr() and source.data.size == 1:
        result.attr["base"] = source.data.item()
    return result


# --- the builder: what every operation of a kernel goes through ----------------------------------


class _StrictBuilder(stock.InterpreterBuilder):  # type: ignore[misc]  # Triton is untyped
    """Stock builder with checked memory operations and right bfloat16 arithmetic.

    Never constructed: Triton's own builder object takes this class while a context is active, since
    kernels' globals hold references to that object which outlive any replacement. The active
    context hangs on it as ``strict``.
    """

    strict: StrictInterpreter

    # order of programs

    def set_grid_dim(self, *dims: SupportsIndex) -> None:
        super().set_grid_dim(*(index(dim) for dim in dims))
        self.strict.new_order(prod(self.grid_dim))

    def set_grid_idx(self, x: int, y: int, z: int) -> None:
        order = self.strict.order
        if order is not None:
            _, ny, nz = self.grid_dim
            rest, z = divmod(int(order[(x * ny + y) * nz + z]), nz)
            x, y = divmod(rest, ny)
        super().set_grid_idx(x, y, z)

    # memory: the signatures after the first arguments differ between versions and are passed on

    def create_masked_load(
        self, ptrs: Any, mask: Any, other: Any, *args: Any, **kwargs: Any
    ) -> Any:
        dtype = ptrs.get_element_ty()
        np_dtype = stock._get_np_dtype(dtype)
        self.strict.check(ptrs, mask.data, np_dtype.itemsize, "read")
        if other is None:
            other = stock.TensorHandle(self._poison(ptrs, np_dtype), dtype)
        return super().create_masked_load(ptrs, mask, other, *args, **kwargs)

    def create_masked_store(
        self, ptrs: Any, value: Any, mask: Any, *args: Any, **kwargs: Any
    ) -> Any:
        # The stock store writes as many bytes as the value has, whatever the pointer says.
        self.strict.check(ptrs, mask.data, value.data.dtype.itemsize, "write")
        return super().create_masked_store(ptrs, value, mask, *args, **kwargs)

    def create_atomic_cas(self, ptr: Any, cmp: Any, val: Any, sem: Any, scope: Any) -> Any:
        self.strict.check(ptr, np.True_, val.data.dtype.itemsize, "atomic")
        return super().create_atomic_cas(ptr, cmp, val, sem, scope)

    def create_atomic_rmw(
        self, rmw_op: Any, ptr: Any, val: Any, mask: Any, sem: Any, scope: Any
    ) -> Any:
        if _is_bf16(val) and rmw_op != stock._ir.ATOMIC_OP.XCHG:
            raise UnsupportedInInterpreter(f"atomic {rmw_op} on bfloat16")
        self.strict.check(ptr, mask.data, val.data.dtype.itemsize, "atomic")
        result = super().create_atomic_rmw(rmw_op, ptr, val, mask, sem, scope)
        off = ~np.broadcast_to(mask.data, result.data.shape)
        if off.any():
            result.data = np.where(off, self._poison(ptr, result.data.dtype), result.data)
        return result

    def create_bitcast(self, src: Any, dst_type: Any) -> Any:
        result = super().create_bitcast(src, dst_type)
        # A load of booleans casts its pointers to int8 just before: remember what they were.
        if src.dtype.scalar.is_ptr() and src.get_element_ty() == tl.int1:
            result.set_attr("points_to_int1", True)
        return _with_base(result, src)

    def _poison(self, ptrs: Any, np_dtype: np.dtype[Any]) -> NDArray[Any]:
        """A block of poison as large as one of pointers."""
        if np_dtype == np.bool_ or "points_to_int1" in ptrs.attr:
            return np.full(ptrs.data.shape, _POISON_BOOL[self.strict.poison], dtype=np_dtype)
        # By way of bits, since a NaN that is cast may come out as another NaN.
        pattern = int.from_bytes(bytes([_POISON_BYTE[self.strict.poison]]) * np_dtype.itemsize)
        return np.full(ptrs.data.shape, pattern, dtype=f"u{np_dtype.itemsize}").view(np_dtype)

    # pointers: each remembers the argument that it was computed from

    def create_addptr(self, ptr: Any, offset: Any) -> Any:
        return _with_base(super().create_addptr(ptr, offset), ptr)

    def create_splat(self, ret_ty: Any, arg: Any) -> Any:
        return _with_base(super().create_splat(ret_ty, arg), arg)

    def create_broadcast(self, arg: Any, shape: Any) -> Any:
        return _with_base(super().create_broadcast(arg, shape), arg)

    def create_expand_dims(self, arg: Any, axis: Any) -> Any:
        return _with_base(super().create_expand_dims(arg, axis), arg)

    # conversions

    def cast_impl(self, src: Any, dst_type: Any) -> Any:
        source = _widened(src, tl.float32, np.float32)
        if dst_type.scalar == tl.bfloat16:
            return stock.TensorHandle(round_to_bf16(source.data), tl.bfloat16)
        np_dtype = stock._get_np_dtype(dst_type)
        return stock.TensorHandle(source.data.astype(np_dtype), dst_type.scalar)

    def create_fp_to_fp(self, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        fp8 = src.dtype.scalar.is_fp8() or dst_type.scalar.is_fp8()
        if fp8 or tl.bfloat16 not in (src.dtype.scalar, dst_type.scalar):
            return super().create_fp_to_fp(src, dst_type, rounding_mode)
        if rounding_mode == stock._ir.ROUNDING_MODE.RTZ and dst_type.scalar == tl.bfloat16:
            return stock.TensorHandle(round_to_bf16(src.data, toward_zero=True), tl.bfloat16)
        return self.cast_impl(src, dst_type)

    def get_bf16(self, value: float) -> Any:
        return _narrowed(np.array([value], dtype=np.float32))

    # arithmetic: float64 holds every product of two bfloat16, and its other results are fine enough
    # (53 >= 2 * 8 + 2 bits) for the second rounding to be the only one that shows

    def binary_op(self, lhs: Any, rhs: Any, op: Callable[..., Any]) -> Any:
        if not (_is_bf16(lhs) and _is_bf16(rhs)):
            return super().binary_op(lhs, rhs, op)
        left, right = (_widened(handle, tl.float64, np.float64) for handle in (lhs, rhs))
        return _narrowed(op(left.data, right.data))

    def unary_op(self, arg: Any, op: Callable[..., Any]) -> Any:
        if not _is_bf16(arg):
            return super().unary_op(arg, op)
        return _narrowed(op(_widened(arg, tl.float64, np.float64).data))

    def ternary_op(self, lhs: Any, rhs: Any, other: Any, op: Callable[..., Any]) -> Any:
        # A selection moves bits and is right as it is; only the clamp computes.
        if op is np.where or not _is_bf16(other):
            return super().ternary_op(lhs, rhs, other, op)
        wide = (_widened(handle, tl.float64, np.float64).data for handle in (lhs, rhs, other))
        return _narrowed(op(*wide))

    def create_fma(self, x: Any, y: Any, z: Any) -> Any:
        if _is_bf16(z):
            raise UnsupportedInInterpreter("fma on bfloat16")
        return super().create_fma(x, y, z)

    def create_dot(self, a: Any, b: Any, d: Any, *args: Any, **kwargs: Any) -> Any:
        a, b = (_widened(handle, tl.float32, np.float32) for handle in (a, b))
        return super().create_dot(a, b, d, *args, **kwargs)


# --- reductions: functions that replace methods of the stock classes -----------------------------


def _tree_sum(self: Any, input: Any) -> Any:
    """Sum by halves, rounding at each step: replaces ``ReduceOps.sum``.

    A balanced tree is an order that a compiled reduction could take, with no more roundings on any
    path. NumPy's sum is neither: it adds float16 in float32, and sums other axes than the last one
    element after the other.
    """
    if input.dtype.is_fp8():
        raise UnsupportedInInterpreter(f"sum of {input.dtype.name}")
    data = _reduced_axis_last(self, input)
    bf16 = _is_bf16(input.handle)
    data = bf16_to_fp32(data) if bf16 else data
    while data.shape[-1] > 1:
        half = data.shape[-1] // 2
        data = data[..., :half] + data[..., half:]
        data = bf16_to_fp32(round_to_bf16(data)) if bf16 else data
    return _reduced(self, round_to_bf16(data) if bf16 else data, input)


def _tree_reduce(self: Any, input: tuple[Any, ...]) -> list[Any]:
    """Reduce by any combine function, whole blocks at a time: replaces ``generic_reduce``.

    Neighbours are combined with neighbours, so that a combine function need be associative only.
    """
    arrays = [_reduced_axis_last(self, tensor) for tensor in input]
    while arrays[0].shape[-1] > 1:
        left = (self.to_tensor(a[..., 0::2], t.dtype) for a, t in zip(arrays, input, strict=True))
        right = (self.to_tensor(a[..., 1::2], t.dtype) for a, t in zip(arrays, input, strict=True))
        combined = self.combine_fn(*left, *right)
        combined = combined if isinstance(combined, tuple) else (combined,)
        shape = arrays[0][..., 0::2].shape
        semantic = stock.interpreter_semantic
        # A combine function may return another dtype than it was given, or a constant.
        cast = (
            semantic.cast(semantic.to_tensor(c), t.dtype)
            for c, t in zip(combined, input, strict=True)
        )
        arrays = [np.broadcast_to(tensor.handle.data, shape) for tensor in cast]
    return [_reduced(self, a, t) for a, t in zip(arrays, input, strict=True)]


def _reduce(self: Any, input: tuple[Any, ...]) -> Any:
    """Keep bfloat16 from the stock short cuts, which see its bits: ``ReduceOps.apply_impl``."""
    is_sum = self.combine_fn is tl.standard._sum_combine
    if not is_sum and any(_is_bf16(tensor.handle) for tensor in input):
        return self.generic_reduce(input)
    return _stock_reduce(self, input)


def _scan(self: Any, input: tuple[Any, ...]) -> Any:
    """Refuse what the stock scan gets wrong: replaces ``ScanOps.apply_impl``."""
    if any(_is_bf16(tensor.handle) for tensor in input):
        raise UnsupportedInInterpreter("associative_scan (cumsum, cumprod) of bfloat16")
    return _stock_scan(self, input)


def _reduced_axis_last(self: Any, tensor: Any) -> NDArray[Any]:
    data: NDArray[Any] = tensor.handle.data
    return data.reshape(-1) if self.axis is None else np.moveaxis(data, self.axis, -1)


def _reduced(self: Any, data: NDArray[Any], tensor: Any) -> Any:
    """The result tensor of a reduction whose last axis has shrunk to one element."""
    result = data[..., 0]
    if self.keep_dims:
        ndim = tensor.handle.data.ndim
        result = (
            result.reshape((1,) * ndim) if self.axis is None else np.moveaxis(data, -1, self.axis)
        )
    return self.to_tensor(result, tensor.dtype)


_stock_reduce = stock.ReduceOps.apply_impl
_stock_scan = stock.ScanOps.apply_impl
_stock_launch = stock.GridExecutor.__call__
_stock_host_args = stock.GridExecutor._init_args_hst
_stock_set_attr = stock._LangPatchScope.set_attr


# --- the context ---------------------------------------------------------------------------------


@dataclass
class _Launch:
    """What is known of the launch in progress.

    ``changes`` is Triton's own record of what it patched in ``triton.language``; ``patched`` holds
    the ids of the globals of the modules it has patched for.
    """

    kernel: str
    patched: set[int]
    changes: list[tuple[Any, str, Any]] = dataclasses.field(default_factory=list)
    memory: Regions = dataclasses.field(default_factory=Regions)


class StrictInterpreter:
    """Context in which kernels run under the repaired and hardened interpreter.

    ``poison`` fills the lanes that a masked load without ``other`` leaves undefined. ``order_seed``
    permutes the programs of each launch; None runs them in ascending order. ``regions`` is the
    memory that launches may touch; a tensor argument whose storage lies apart from all of it may
    be touched in its whole storage, and so may every argument where no regions are given.

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
    ) -> None:
        _require_known(triton.__version__)
        self.order: NDArray[np.int64] | None = None
        self._launch: _Launch | None = None
        self._undo = ExitStack()
        self.configure(poison=poison, order_seed=order_seed, regions=regions)

    def configure(
        self,
        *,
        poison: Poison = "nan",
        order_seed: int | None = None,
        regions: Regions | None = None,
    ) -> None:
        """Settle what holds for the launches from now on; the arguments are the constructor's."""
        if poison not in get_args(Poison):
            raise ValueError(f"poison={poison!r}, must be one of {get_args(Poison)}")
        self.poison = poison
        self.order_seed = order_seed
        self.regions = regions if regions is not None else Regions()

    def allow(self, *regions: Region) -> None:
        """Add memory that was allocated after :meth:`configure`."""
        self.regions = self.regions.extended(regions)

    def __enter__(self) -> Self:
        builder = stock.interpreter_builder
        if isinstance(builder, _StrictBuilder):
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
        yield builder, "__class__", _StrictBuilder
        if not builder.options.debug:
            # Integer operations are computed twice over for an overflow assertion that only debug
            # mode evaluates: a sixth of a kernel's time for nothing.
            options = dataclasses.replace(builder.options, sanitize_overflow=False)
            yield builder, "options", options
        yield stock.ReduceOps, "sum", _tree_sum
        yield stock.ReduceOps, "generic_reduce", _tree_reduce
        yield stock.ReduceOps, "apply_impl", _reduce
        yield stock.ScanOps, "apply_impl", _scan

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
        yield stock._LangPatchScope, "set_attr", _set_attr

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
        self._launch.memory = regions.extended(storages) if storages else regions

    # called by the builder

    def new_order(self, n_programs: int) -> None:
        """Draw the order in which a launch of so many programs will run them."""
        if self.order_seed is None:
            self.order = None
        else:
            # Raw bits: the one part of NumPy's generators that is the same in all its versions.
            keys = np.random.PCG64(self.order_seed).random_raw(n_programs)
            self.order = np.argsort(keys, kind="stable")

    def check(
        self,
        ptrs: Any,
        mask: Any,
        n_bytes: int,
        action: Action,
    ) -> None:
        """Refuse an access, before it is done, unless all its unmasked lanes are allowed.

        Shapes: ``mask`` broadcasts to that of the pointers.
        Raises: ``OutOfBounds``.
        """
        assert self._launch is not None
        addresses: NDArray[np.uint64] = ptrs.data
        on = np.asarray(mask)
        wanted = addresses if on.all() else addresses[np.broadcast_to(on, addresses.shape)]
        if wanted.size == 0:
            return
        memory = self._launch.memory
        spans = memory.readable if action == "read" else memory.writable
        if spans.hold(int(wanted.min()), int(wanted.max()) + n_bytes):
            return
        bad = wanted[spans.outside(wanted, n_bytes)]
        if bad.size == 0:
            return
        address = int(bad[0])
        region = memory.owner(ptrs.attr.get("base", address))
        dtype = ptrs.get_element_ty().name
        frame = _kernel_frame()
        file, line = frame.f_code.co_filename, frame.f_lineno
        access = Access(
            kernel=self._launch.kernel,
            action=action,
            file=file,
            line=line,
            text=linecache.getline(file, line).strip(),
            program=stock.interpreter_builder.grid_idx,
            region=None if region is None else region.name,
            element=None if region is None else (address - region.origin) // n_bytes,
            dtype=_DTYPE_NAMES.get(dtype, dtype),
            n_bad=bad.size,
            n_lanes=wanted.size,
            read_only=action != "read" and memory.readable.hold(address, address + n_bytes),
        )
        raise OutOfBounds(access)


def _require_known(version: str) -> None:
    if ".".join(version.split(".")[:2]) not in KNOWN_TRITON:
        known = ", ".join(f"{minor}.x" for minor in KNOWN_TRITON)
        raise UnsupportedTriton(f"Triton {version}: the strict interpreter knows {known}")


def _set_attr(scope: Any, obj: Any, name: str, value: Any) -> None:
    """Record a patch of ``triton.language``, with one value repaired: ``_LangPatchScope.set_attr``.

    Scalars are arrays of shape (1,). Triton 3.6 gives them to int() as they are, which NumPy
    refuses since 2.4, and with it every run-time bound of a ``range``.
    """
    _stock_set_attr(scope, obj, name, _index if name == "__index__" else value)


def _index(tensor: Any) -> int:
    return index(tensor.handle.data.item())


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


def _kernel_frame() -> FrameType:
    """The innermost frame of a kernel or device function: the first one outside the machinery."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ or frame.f_code.co_filename.startswith(_TRITON_DIR):
        assert frame.f_back is not None
        frame = frame.f_back
    return frame


_TRITON_DIR = str(Path(triton.__file__).parent)
