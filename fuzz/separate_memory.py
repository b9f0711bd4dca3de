"""The memory of one run under a sanitizer: every storage is an allocation of its own.

A sanitizer knows the bounds of allocations and what was written to them, so that there is neither
an arena nor a red zone here: an access that leaves a storage leaves its allocation.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fuzz import arena
from fuzz.arena import Image
from fuzz.case import Case
from fuzz.memory import Memory, fetch
from fuzz.verdict import POISON_BYTE, Array, Bits, Damage, Poison, Storage


@dataclass(eq=False)
class _Own:
    """One allocation. ``poisoned``: what nobody wrote is poison; ``bare``: what nobody wrote is
    what was there before."""

    name: str
    buffer: Tensor
    poisoned: bool
    bare: bool
    after: Image | None = None

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor begins inside."""
        start = tensor.data_ptr() - self.buffer.data_ptr()
        return 0 <= start < self.buffer.numel()

    def read(self, tensor: Tensor) -> Bits:
        """The tensor's bits, dense, once the allocation was copied back."""
        assert self.after is not None
        size = tensor.element_size()
        strides = tuple(stride * size for stride in tensor.stride())
        start = tensor.data_ptr() - self.buffer.data_ptr()
        kind = np.dtype(f"u{size}")
        view: Bits = np.ndarray(tuple(tensor.shape), kind, self.after, start, strides)
        return view.copy(order="C")


class SeparateMemory(Memory):
    """The memory of one run. ``fill``: what has no values is poison; else nobody writes it, as a
    sanitizer must see that watches for just that.

    Raises: ValueError when values do not fit their tensors; torch.OutOfMemoryError, MemoryError.
    """

    def __init__(
        self,
        case: Case,
        writable: frozenset[str],
        values: Mapping[str, Bits],
        poison: Poison,
        device: torch.device,
        *,
        fill: bool,
        owned: frozenset[str] = frozenset(),
    ) -> None:
        self.device = device
        self.poison = poison
        self.ledger = None
        self.plan = arena.plan(case, writable)
        self._fill = fill
        self._owned = owned
        self._before = arena.fill(self.plan, values, poison)
        self._own: dict[str, _Own] = {}
        self._numbers = itertools.count()
        for slot in self.plan.slots:
            if slot.alias_of is not None:
                continue
            buffer = torch.empty(slot.n_bytes, dtype=torch.uint8, device=device)
            unwritten = slot.writable and slot.name not in values
            if fill or not unwritten:
                image = self._before[slot.start : slot.start + slot.n_bytes]
                buffer.copy_(torch.from_numpy(image))
            self._own[slot.name] = _Own(
                slot.name, buffer, poisoned=unwritten and fill, bare=unwritten and not fill
            )
        self.tensors = {}
        for tensor in case.tensors:
            if tensor.alias_of is None:
                dtype = getattr(torch, tensor.dtype)
                # An empty tensor has no storage to be offset in.
                offset = tensor.offset * bool(tensor.n_elements)
                flat = self._own[tensor.name].buffer.view(dtype)
                self.tensors[tensor.name] = flat.as_strided(tensor.shape, tensor.strides, offset)
        for tensor in case.tensors:
            if tensor.alias_of is not None:
                self.tensors[tensor.name] = self.tensors[tensor.alias_of]

    @property
    def storages(self) -> tuple[Storage, ...]:
        """Where everything lies."""
        return tuple(
            Storage(own.name, own.buffer.data_ptr(), own.buffer.numel())
            for own in self._own.values()
        )

    def allocate(self, like: Tensor) -> Tensor:
        """An allocation laid out as a meta tensor."""
        size = like.untyped_storage().nbytes()
        if self._fill:
            byte = POISON_BYTE[self.poison]
            buffer = torch.full((size,), byte, dtype=torch.uint8, device=self.device)
        else:
            buffer = torch.empty(size, dtype=torch.uint8, device=self.device)
        name = f"allocation {next(self._numbers)}"
        self._own[name] = _Own(name, buffer, poisoned=self._fill, bare=not self._fill)
        return buffer.view(like.dtype).as_strided(like.shape, like.stride(), 0)

    def collect(self, outputs: Mapping[str, Tensor]) -> tuple[dict[str, Array], tuple[Damage, ...]]:
        """Copy everything back: the outputs' bits, and what was damaged."""
        for own in self._own.values():
            # Whole, as a copy of a strided tensor would be a kernel that reads on the device.
            own.after = own.buffer.cpu().numpy()
        arrays = {name: self._array(tensor) for name, tensor in outputs.items()}
        before, after = self._before.copy(), self._before.copy()
        for slot in self.plan.slots:
            if slot.alias_of is not None:
                continue
            own = self._own[slot.name]
            assert own.after is not None
            storage = slice(slot.start, slot.start + slot.n_bytes)
            after[storage] = own.after
            if own.bare or (slot.writable and slot.name in self._owned):
                before[storage] = own.after
        return arrays, arena.inspect(self.plan, before, after)

    def _array(self, tensor: Tensor) -> Array:
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = tuple(tensor.shape)
        own = next((o for o in self._own.values() if tensor.numel() and o.holds(tensor)), None)
        if own is not None:
            return Array(dtype, shape, own.read(tensor), own.poisoned)
        return Array(dtype, shape, fetch(tensor), poisoned=False)
