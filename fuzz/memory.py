"""The memory of one run on its device: the arena's tensors, and what the target allocates itself.

Wrappers allocate most outputs themselves. A dispatch mode serves every spelling of ``torch.empty``
from memory that is poisoned and has red zones, like the arena, so that an element nobody wrote and
a store behind the end show in those outputs too.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.utils._python_dispatch import TorchDispatchMode

from fuzz import arena
from fuzz.arena import Image, Plan, Slot
from fuzz.case import Case
from fuzz.strict.regions import Region, Regions
from fuzz.strict.shadow import Ledger
from fuzz.verdict import POISON_BYTE, Array, Bits, Damage, Poison

_WORD: dict[int, type[np.unsignedinteger[Any]]] = {
    1: np.uint8,
    2: np.uint16,
    4: np.uint32,
    8: np.uint64,
}

_aten = torch.ops.aten

_ALLOCATIONS = frozenset(
    (
        _aten.empty.memory_format,
        _aten.empty_like.default,
        _aten.empty_strided.default,
        _aten.empty_permuted.default,
        _aten.new_empty.default,
        _aten.new_empty_strided.default,
    )
)
"""All that torch.empty, Tensor.new_empty, torch.Tensor(n) and their kin come to."""

_MOVES_BITS = frozenset(
    (
        "_local_scalar_dense",
        "_to_copy",
        "_unsafe_view",
        "arange",
        "cat",
        "clone",
        "copy_",
        "detach",
        "fill_",
        "full",
        "full_like",
        "lift_fresh",
        "new_full",
        "new_ones",
        "new_zeros",
        "ones",
        "ones_like",
        "resize_",
        "scalar_tensor",
        "set_",
        "zero_",
        "zeros",
        "zeros_like",
    )
)
"""Operations, besides views, that move or convert values one by one. The result of any other may
depend on how torch vectorises it, which follows from layout and alignment."""


class Staging:
    """Page-locked host memory for the copies to and from a GPU, kept and grown between runs."""

    def __init__(self) -> None:
        self._up = torch.empty(0, dtype=torch.uint8)
        self._down = torch.empty(0, dtype=torch.uint8)

    def up(self, size: int) -> Tensor:
        """Host memory for a copy to the device."""
        if self._up.numel() < size:
            self._up = torch.empty(size + size // 4, dtype=torch.uint8, pin_memory=True)
        return self._up[:size]

    def down(self, size: int) -> Tensor:
        """Host memory for a copy from the device."""
        if self._down.numel() < size:
            self._down = torch.empty(size + size // 4, dtype=torch.uint8, pin_memory=True)
        return self._down[:size]


@dataclass(eq=False)
class _Piece:
    """A planned piece of device memory: what it held, and what it holds when copied back.

    ``address`` is where it begins on the device. On a CPU ``after`` is the piece itself; ``buffer``
    is None there, and the memory lives as long as the tensors made from it.
    """

    plan: Plan
    address: int
    buffer: Tensor | None
    before: Image | None
    after: Image | None

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor's elements lie inside."""
        start = tensor.data_ptr() - self.address
        reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        return start >= 0 and start + (reach + 1) * tensor.element_size() <= self.plan.size

    def slot_of(self, tensor: Tensor) -> Slot | None:
        """The slot whose storage the tensor begins in, an input before its aliases."""
        start = tensor.data_ptr() - self.address
        return next(
            (s for s in self.plan.slots if s.start <= start < s.start + s.n_bytes),
            None,
        )

    def read(self, tensor: Tensor) -> Bits:
        """The tensor's bits, dense, once the piece was copied back."""
        assert self.after is not None
        size = tensor.element_size()
        strides = tuple(s * size for s in tensor.stride())
        offset = tensor.data_ptr() - self.address
        view: Bits = np.ndarray(tuple(tensor.shape), _WORD[size], self.after, offset, strides)
        return view.copy(order="C")


class Memory:
    """The memory of one run.

    ``values`` are the dense bits of the inputs; everything else is poison. ``writable`` names the
    tensors whose elements the target may change, ``owned`` those that it may use the whole storage
    of. On a CPU ``ledger`` watches what it may write.

    Raises: ValueError when values do not fit their tensors; torch.OutOfMemoryError, MemoryError.
    """

    def __init__(
        self,
        case: Case,
        writable: frozenset[str],
        values: Mapping[str, Bits],
        poison: Poison,
        device: torch.device,
        staging: Staging | None,
        *,
        owned: frozenset[str] = frozenset(),
    ) -> None:
        self.device = device
        self.poison = poison
        self._owned = owned
        self.plan = arena.plan(case, writable)
        self._staging = staging
        self._allocations: list[_Piece] = []
        self._unwritten = frozenset(
            s.name for s in self.plan.slots if s.writable and s.name not in values
        )
        if staging is None:
            image = arena.fill(self.plan, values, poison)
            address = image.ctypes.data
            self._arena = _Piece(self.plan, address, None, image.copy(), image)
        else:
            source = staging.up(self.plan.size)
            before = arena.fill(self.plan, values, poison, into=source.numpy())
            buffer = torch.empty(self.plan.size, dtype=torch.uint8, device=device)
            buffer.copy_(source, non_blocking=True)
            self._arena = _Piece(self.plan, buffer.data_ptr(), buffer, before, None)
        self.tensors = self._views(case)
        self.ledger: Ledger | None = None
        if staging is None:
            self.ledger = Ledger()
            self._watch_arena(self.ledger)

    def _watch_arena(self, ledger: Ledger) -> None:
        by_start = {slot.start: slot for slot in self.plan.slots if slot.writable}
        for slot in by_start.values():
            # An alias has the values of an input.
            bare = slot.name in self._unwritten and slot.alias_of is None
            poison = POISON_BYTE[self.poison] if bare else None
            ledger.watch(slot.name, self.address + slot.start, slot.n_bytes, poison=poison)

    def regions(self) -> Regions:
        """What kernels may touch: the elements of the tensors, of inputs by reading alone."""
        regions = []
        for slot in self.plan.slots:
            storage = np.array([[slot.start, slot.start + slot.n_bytes]])
            intervals = storage if slot.name in self._owned else slot.intervals
            addresses = (intervals + self._arena.address).astype(np.uint64)
            origin = self._arena.address + slot.first
            regions.append(Region(slot.name, addresses, origin, slot.writable))
        return Regions(regions)

    @property
    def address(self) -> int:
        """Where the arena begins on the device."""
        return self._arena.address

    def _views(self, case: Case) -> dict[str, Tensor]:
        views: dict[str, Tensor] = {}
        for tensor in case.tensors:
            if tensor.alias_of is None:
                slot = self.plan.by_name[tensor.name]
                views[tensor.name] = _storage(
                    self._arena, slot.start, getattr(torch, tensor.dtype), tensor.span
                ).as_strided(
                    tensor.shape,
                    tensor.strides,
                    # An empty tensor has no storage to be offset in.
                    self._offset(slot) + tensor.offset * bool(tensor.n_elements),
                )
        for tensor in case.tensors:
            if tensor.alias_of is not None:
                # What a caller who writes f(x, out=x) passes: one tensor, twice.
                views[tensor.name] = views[tensor.alias_of]
        return views

    def _offset(self, slot: Slot) -> int:
        return slot.start // slot.itemsize if self._arena.buffer is not None else 0

    def allocate(self, like: Tensor) -> Tensor:
        """Poisoned memory between red zones, laid out as a meta tensor."""
        size = like.element_size()
        n_elements = like.untyped_storage().nbytes() // size
        plan = arena.plan_storage(f"allocation {len(self._allocations)}", size, n_elements)
        if self._staging is None:
            image = arena.fill(plan, {}, self.poison)
            piece = _Piece(plan, image.ctypes.data, None, None, image)
            offset = 0
        else:
            byte = POISON_BYTE[self.poison]
            buffer = torch.full((plan.size,), byte, dtype=torch.uint8, device=self.device)
            piece = _Piece(plan, buffer.data_ptr(), buffer, None, None)
            offset = plan.slots[0].start // size
        self._allocations.append(piece)
        slot = plan.slots[0]
        if self.ledger is not None:
            poison = POISON_BYTE[self.poison]
            self.ledger.watch(slot.name, piece.address + slot.start, slot.n_bytes, poison=poison)
        storage = _storage(piece, slot.start, like.dtype, n_elements)
        return storage.as_strided(like.shape, like.stride(), offset)

    def collect(self, outputs: Mapping[str, Tensor]) -> tuple[dict[str, Array], tuple[Damage, ...]]:
        """Copy everything back: the outputs' bits, and what was damaged."""
        pieces = [self._arena, *self._allocations]
        self._copy_back(pieces)
        names: dict[int, str] = {}
        arrays: dict[str, Array] = {}
        for name, tensor in outputs.items():
            home = next((p for p in pieces if tensor.numel() and p.holds(tensor)), None)
            dtype = str(tensor.dtype).removeprefix("torch.")
            shape = tuple(tensor.shape)
            if home is None or tensor.element_size() not in _WORD:
                arrays[name] = Array(dtype, shape, fetch(tensor), poisoned=False)
                continue
            slot = home.slot_of(tensor)
            poisoned = home is not self._arena or (
                slot is not None and slot.name in self._unwritten
            )
            arrays[name] = Array(dtype, shape, home.read(tensor), poisoned)
            names.setdefault(id(home), name)
        damage: list[Damage] = []
        for piece in pieces:
            assert piece.after is not None
            before = piece.before
            if before is None:
                before = arena.fill(piece.plan, {}, self.poison)
            for item in arena.inspect(piece.plan, before, self._without_owned(piece, before)):
                # An allocation that is returned goes by the output's name.
                named = item.tensor if piece is self._arena else names.get(id(piece), item.tensor)
                damage.append(dataclasses.replace(item, tensor=named))
        return arrays, tuple(damage)

    def _without_owned(self, piece: _Piece, before: Image) -> Image:
        """What a piece holds, as though nothing had changed in storages that the target owns."""
        assert piece.after is not None
        owned = [s for s in piece.plan.slots if s.writable and s.name in self._owned]
        if not owned:
            return piece.after
        after = piece.after.copy()
        for slot in owned:
            storage = slice(slot.start, slot.start + slot.n_bytes)
            after[storage] = before[storage]
        return after

    def neighbours(self, outputs: Mapping[str, Tensor]) -> dict[str, str]:
        """By output that is not fully written: who wrote what lies beside the first gap."""
        if self.ledger is None:
            return {}
        told = {}
        for name, tensor in outputs.items():
            size = tensor.element_size()
            strides = tuple(stride * size for stride in tensor.stride())
            told[name] = self.ledger.neighbour_of_unwritten(
                name, tensor.data_ptr(), tuple(tensor.shape), strides, size
            )
        return {name: text for name, text in told.items() if text}

    def _copy_back(self, pieces: list[_Piece]) -> None:
        if self._staging is None:
            return
        target = self._staging.down(sum(p.plan.size for p in pieces))
        host = target.numpy()
        start = 0
        for piece in pieces:
            assert piece.buffer is not None
            stop = start + piece.plan.size
            target[start:stop].copy_(piece.buffer, non_blocking=True)
            piece.after = host[start:stop]
            start = stop
        torch.cuda.synchronize(self.device)


def _storage(piece: _Piece, start: int, dtype: torch.dtype, n_elements: int) -> Tensor:
    """A tensor over a piece's memory.

    On a CPU its storage is exactly the planned one, which the strict interpreter goes by; on a GPU
    it is the whole piece.
    """
    if piece.buffer is not None:
        return piece.buffer.view(dtype)
    if n_elements == 0:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(piece.after, dtype=dtype, count=n_elements, offset=start)


def fetch(tensor: Tensor) -> Bits:
    """The bits of a tensor that lives in memory of its own."""
    dense = tensor.detach().cpu().contiguous()
    raw = dense.reshape(-1).view(torch.uint8).numpy()
    word = _WORD.get(tensor.element_size())
    if word is None:
        return raw.copy()
    bits: Bits = raw.view(word).reshape(tuple(tensor.shape)).copy()
    return bits


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's hooks are untyped
    """Serves allocations on the run's device from its memory, and notes what torch computes.

    ``computed`` is True once torch itself has done arithmetic: equal kernels then do not owe equal
    bits, since torch's own operations have specialisations of their own.
    """

    def __init__(self, memory: Memory) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.memory = memory
        self.computed = False

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let torch.compile compile: under any other mode it runs eager, without a word."""
        return True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would import its compiler, a second's work, to hide this class from it."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch for every operation of the target."""
        compiler_there = "torch._dynamo" in sys.modules
        handle = _hidden_handle if compiler_there else Watch._handle
        return handle(self, func, types, args, kwargs or {})

    def _handle(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in _ALLOCATIONS:
            served = self._serve(func, types, args, kwargs)
            return func(*args, **kwargs) if served is None else served
        if not getattr(func, "is_view", False):
            packet = getattr(func, "overloadpacket", func)
            self.computed |= packet.__name__ not in _MOVES_BITS
        result = func(*args, **kwargs)
        if self.memory.ledger is not None:
            for tensor in _written(func, args, kwargs):
                size = tensor.element_size()
                strides = tuple(stride * size for stride in tensor.stride())
                self.memory.ledger.written_by_torch(
                    tensor.data_ptr(), tuple(tensor.shape), strides, size
                )
        return result

    def _serve(
        self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        """Memory for an allocation, or None where it is not one for us to serve."""
        device = kwargs.get("device")
        if device is None:
            device = args[0].device if isinstance(args[0], Tensor) else torch.device("cpu")
        device = torch.device(device)
        if device.type != self.memory.device.type or device.index not in (
            None,
            self.memory.device.index,
        ):
            return None
        # Subclasses are torch's own: fake tensors of a compilation in progress.
        if not all(kind in (Tensor, torch.nn.Parameter) for kind in types):
            return None
        like = func(*args, **{**kwargs, "device": "meta", "pin_memory": False})
        if like.layout != torch.strided or like.numel() == 0 or like.element_size() not in _WORD:
            return None
        return self.memory.allocate(like)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors whose elements an operation of torch has written."""
    places = _written_arguments(func)
    given = [args[i] if i < len(args) else kwargs.get(name) for i, name in places]
    if func is _aten.copy_.default and _same_place(args[0], args[1]):
        # Triton's interpreter copies each argument onto itself.
        return
    for value in given:
        for item in value if isinstance(value, list | tuple) else (value,):
            if type(item) in (Tensor, torch.nn.Parameter) and item.layout == torch.strided:
                yield item


@functools.cache
def _written_arguments(func: Any) -> tuple[tuple[int, str], ...]:
    """Position and name of what an operation writes to, after its schema."""
    schema = getattr(func, "_schema", None)
    # Such as set_ and transpose_, which change what a tensor means and no memory.
    if schema is None or torch.Tag.inplace_view in func.tags:
        return ()
    return tuple(
        (position, argument.name)
        for position, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def _same_place(one: Any, other: Any) -> bool:
    return bool(
        one.data_ptr() == other.data_ptr()
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.dtype == other.dtype
    )


_hidden_handle = _disable_dynamo(Watch._handle)
"""The handler where a compiler is loaded, which must not trace it into a target's code."""
