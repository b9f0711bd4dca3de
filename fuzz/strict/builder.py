"""The builder, its memory side: every load, store and atomic of an interpreted kernel."""

from __future__ import annotations

from math import prod
from operator import index
from typing import Any, Literal, SupportsIndex

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter as stock

from fuzz.strict.atomics import add_bf16
from fuzz.strict.bfloat16 import is_bf16
from fuzz.strict.faults import UnsupportedInInterpreter
from fuzz.strict.language import LanguageBuilder

Poison = Literal["nan", "huge", "-huge"]

# One byte, repeated, so that every dtype has its poison. 0xFF... is a NaN in every IEEE format and
# -1 as an integer; 0x7B... is a finite value near the top of each format (1.3e36 in float32 and
# bfloat16, 61280 in float16), and an address far outside any memory; the sign bit makes it 0xFB.
_POISON_BYTE: dict[Poison, int] = {"nan": 0xFF, "huge": 0x7B, "-huge": 0xFB}

# A boolean has only two values: NaN must differ from both huge ones, since it is with one of them
# that a NaN run is compared.
_POISON_BOOL: dict[Poison, int] = {"nan": 1, "huge": 0, "-huge": 0}


def with_base(result: Any, source: Any) -> Any:
    """Note on a pointer the address of the argument that the source was computed from."""
    if "base" in source.attr:
        result.attr["base"] = source.attr["base"]
    elif source.dtype.is_ptr() and source.data.size == 1:
        result.attr["base"] = source.data.item()
    return result


class StrictBuilder(LanguageBuilder):
    """Stock builder with checked memory operations and right arithmetic.

    Never constructed: Triton's own builder object takes this class while a context is active, since
    kernels' globals hold references to that object which outlive any replacement. The active
    context hangs on it as ``strict``.
    """

    strict: Any

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
        self.strict.ledger.begin_program()

    # memory: the signatures after the first arguments differ between versions and are passed on

    def create_masked_load(
        self, ptrs: Any, mask: Any, other: Any, *args: Any, **kwargs: Any
    ) -> Any:
        dtype = ptrs.get_element_ty()
        np_dtype = stock._get_np_dtype(dtype)
        self.strict.guard.read(ptrs, mask.data, np_dtype.itemsize)
        if other is None:
            other = stock.TensorHandle(self._poison(ptrs, np_dtype), dtype)
        return super().create_masked_load(ptrs, mask, other, *args, **kwargs)

    def create_masked_store(
        self, ptrs: Any, value: Any, mask: Any, *args: Any, **kwargs: Any
    ) -> Any:
        self.strict.guard.write(ptrs, mask.data, value.data)
        return super().create_masked_store(ptrs, value, mask, *args, **kwargs)

    def create_atomic_cas(self, ptr: Any, cmp: Any, val: Any, sem: Any, scope: Any) -> Any:
        self.strict.guard.atomic(ptr, np.True_, val.data.dtype.itemsize, reads=True)
        return super().create_atomic_cas(ptr, cmp, val, sem, scope)

    def create_atomic_rmw(
        self, rmw_op: Any, ptr: Any, val: Any, mask: Any, sem: Any, scope: Any
    ) -> Any:
        operations = stock._ir.ATOMIC_OP
        if is_bf16(val) and rmw_op not in (operations.XCHG, operations.FADD):
            raise UnsupportedInInterpreter(f"atomic {rmw_op} on bfloat16")
        reads = rmw_op != operations.XCHG
        self.strict.guard.atomic(ptr, mask.data, val.data.dtype.itemsize, reads=reads)
        if is_bf16(val) and rmw_op == operations.FADD:
            result = stock.TensorHandle(add_bf16(ptr.data, val.data, mask.data), tl.bfloat16)
        else:
            result = super().create_atomic_rmw(rmw_op, ptr, val, mask, sem, scope)
        off = ~np.broadcast_to(mask.data, result.data.shape)
        if off.any():
            result.data = np.where(off, self._poison(ptr, result.data.dtype), result.data)
        return result

    # Triton 3.9 has these three; its own are plain loads and stores underneath

    def create_atomic_load(self, *args: Any) -> Any:
        with self.strict.guard.atomically():
            return super().create_atomic_load(*args)

    def create_atomic_store(self, *args: Any) -> Any:
        with self.strict.guard.atomically():
            return super().create_atomic_store(*args)

    def create_atomic_poll(self, ptr: Any, expected: Any, timeout_ns: Any, *args: Any) -> Any:
        with self.strict.guard.atomically():
            found = self.create_load(ptr, None, True)
        matched = found.data == expected.data
        if not (matched.all() or isinstance(timeout_ns, stock.TensorHandle)):
            raise UnsupportedInInterpreter(
                "atomic_poll for what no earlier program has left: programs run one after the other"
            )
        return stock.TensorHandle(matched, tl.int1)

    def create_bitcast(self, src: Any, dst_type: Any) -> Any:
        result = super().create_bitcast(src, dst_type)
        # A load of booleans casts its pointers to int8 just before: remember what they were.
        if src.dtype.scalar.is_ptr() and src.get_element_ty() == tl.int1:
            result.set_attr("points_to_int1", True)
        return with_base(result, src)

    def _poison(self, ptrs: Any, np_dtype: np.dtype[Any]) -> NDArray[Any]:
        """A block of poison as large as one of pointers."""
        if np_dtype == np.bool_ or "points_to_int1" in ptrs.attr:
            return np.full(ptrs.data.shape, _POISON_BOOL[self.strict.poison], dtype=np_dtype)
        # By way of bits, since a NaN that is cast may come out as another NaN.
        pattern = int.from_bytes(bytes([_POISON_BYTE[self.strict.poison]]) * np_dtype.itemsize)
        return np.full(ptrs.data.shape, pattern, dtype=f"u{np_dtype.itemsize}").view(np_dtype)

    # pointers: each remembers the argument that it was computed from

    def create_addptr(self, ptr: Any, offset: Any) -> Any:
        return with_base(super().create_addptr(ptr, offset), ptr)

    def create_splat(self, ret_ty: Any, arg: Any) -> Any:
        return with_base(super().create_splat(ret_ty, arg), arg)

    def create_broadcast(self, arg: Any, shape: Any) -> Any:
        return with_base(super().create_broadcast(arg, shape), arg)

    def create_expand_dims(self, arg: Any, axis: Any) -> Any:
        return with_base(super().create_expand_dims(arg, axis), arg)
