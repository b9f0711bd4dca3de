"""One byte image that holds every tensor of a run: real layouts, red zones, poison everywhere else.

A kernel is handed views of one piece of memory. Each storage begins on a 512-byte boundary, with
a red zone before and behind it, and every byte that is not an input element is poison: reads of
memory that nobody wrote give NaN or a huge value, and writes outside the outputs leave a trace.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fuzz.case import Case
from fuzz.spec import TargetSpec
from fuzz.verdict import POISON_BYTE, Bits, Damage, Poison

Image = npt.NDArray[np.uint8]

ALIGNMENT = 512
"""Where storages begin. CUDA's allocators promise as much, and a case's ``offset`` counts on it."""

MIN_RED_ZONE = 256
"""A whole vector of every thread of two warps: the smallest stretch a stray block store covers."""

MAX_RED_ZONE = 4096
"""Wide rows get a zone of one row, so that a row too many is caught whole; a stray store of more
than this has touched the zone on its way."""

_WORD: dict[int, np.dtype[Any]] = {n: np.dtype(f"u{n}") for n in (1, 2, 4, 8)}

_Place = Literal["input", "gap", "before", "after"]

# name, itemsize, shape, strides, offset, alias_of: what decides a plan.
_Layout = tuple[str, int, tuple[int, ...], tuple[int, ...], int, str | None]


@dataclass(frozen=True, eq=False)
class Slot:
    """One tensor's memory in the image. Bytes count from the image's start, strides are in bytes.

    The storage is ``[start, start + n_bytes)``, its first element lies at ``first``; the red zones
    reach out to ``low`` and ``high``.
    """

    name: str
    itemsize: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    first: int
    n_bytes: int
    low: int
    high: int
    writable: bool
    alias_of: str | None

    def view(self, image: Image) -> Bits:
        """The tensor's elements in an image, as a strided array of unsigned integers."""
        return np.ndarray(
            self.shape, _WORD[self.itemsize], image, offset=self.first, strides=self.strides
        )

    @functools.cached_property
    def intervals(self) -> npt.NDArray[np.int64]:
        """The bytes of the elements, as [start, stop) pairs: one for each run without gaps."""
        if 0 in self.shape:
            return np.empty((0, 2), dtype=np.int64)
        outer = [(n, s) for n, s in zip(self.shape, self.strides, strict=True) if n > 1 and s > 0]
        length = self.itemsize
        while outer and outer[-1][1] == length:
            length *= outer.pop()[0]
        starts = np.array([self.first], dtype=np.int64)
        for size, stride in outer:
            starts = (starts[:, None] + np.arange(size) * stride).reshape(-1)
        return np.stack([starts, starts + length], axis=1)

    @functools.cached_property
    def unshared(self) -> tuple[slice, ...]:
        """An index that takes each expanded dim once: every element of memory, one time."""
        return tuple(
            slice(0, 1) if stride == 0 and size > 1 else slice(None)
            for size, stride in zip(self.shape, self.strides, strict=True)
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """Where every tensor of a run lies in an image of ``size`` bytes."""

    slots: tuple[Slot, ...]
    size: int

    @functools.cached_property
    def by_name(self) -> dict[str, Slot]:
        """The slots by the names of their tensors."""
        return {slot.name: slot for slot in self.slots}


def writable_tensors(spec: TargetSpec) -> frozenset[str]:
    """The arguments whose elements a target may change: all roles but "in"."""
    return frozenset(arg.name for arg in spec.args if arg.role != "in")


def plan(case: Case, writable: frozenset[str]) -> Plan:
    """Lay out the tensors of a case; ``writable`` names those that the target may write.

    Raises: KeyError when a tensor is the alias of one that the case does not have.
    """
    layouts = tuple(
        (t.name, t.itemsize, t.shape, t.strides, t.offset, t.alias_of) for t in case.tensors
    )
    return _plan(layouts, writable)


def plan_storage(name: str, itemsize: int, n_elements: int) -> Plan:
    """The plan of one writable storage by itself, as an allocation of the target's own needs."""
    return _plan(((name, itemsize, (n_elements,), (1,), 0, None),), frozenset((name,)))


# Relations repeat a case's few layouts at once and shrinking repeats them soon.
@functools.lru_cache(maxsize=256)
def _plan(layouts: tuple[_Layout, ...], writable: frozenset[str]) -> Plan:
    slots: dict[str, Slot] = {}
    end = 0  # one past the last red zone
    aliases = []
    for layout in layouts:
        if layout[-1] is not None:
            aliases.append(layout)
            continue
        name, itemsize, shape, strides, offset, _ = layout
        zone = _red_zone(itemsize, shape)
        start = _aligned(end + zone)
        n_elements = _span(shape, strides, offset)
        n_bytes = n_elements * itemsize
        high = _aligned(start + n_bytes + zone)
        slots[name] = Slot(
            name=name,
            itemsize=itemsize,
            shape=shape,
            strides=tuple(s * itemsize for s in strides),
            start=start,
            first=start + (offset * itemsize if n_elements else 0),
            n_bytes=n_bytes,
            low=end,
            high=high,
            writable=name in writable,
            alias_of=None,
        )
        end = high
    for name, itemsize, shape, strides, offset, base_name in aliases:
        base = slots[str(base_name)]
        slots[name] = Slot(
            name=name,
            itemsize=itemsize,
            shape=shape,
            strides=tuple(s * itemsize for s in strides),
            start=base.start,
            first=base.start + (offset * itemsize if base.n_bytes else 0),
            n_bytes=base.n_bytes,
            low=base.low,
            high=base.high,
            writable=name in writable,
            alias_of=base.name,
        )
    return Plan(tuple(slots.values()), end)


def _aligned(n_bytes: int) -> int:
    """Rounded up to the next boundary where a storage may begin."""
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def _red_zone(itemsize: int, shape: tuple[int, ...]) -> int:
    row = itemsize * (shape[-1] if shape else 1)
    return min(max(row, MIN_RED_ZONE), MAX_RED_ZONE)


def _span(shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> int:
    """Elements from the storage's start to one past the last element, 0 where there is none."""
    if 0 in shape:
        return 0
    return offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1


def empty_image(size: int) -> Image:
    """Uninitialised bytes that begin on the alignment of storages."""
    raw = np.empty(size + ALIGNMENT, dtype=np.uint8)
    skip = -raw.ctypes.data % ALIGNMENT
    return raw[skip : skip + size]


def fill(
    plan: Plan, values: Mapping[str, Bits], poison: Poison, *, into: Image | None = None
) -> Image:
    """Write an image: the values of the inputs, poison everywhere else.

    ``into`` is memory of at least ``plan.size`` bytes to write to instead of new memory. Inputs
    without values (dtypes that only refusals see) become zero. Where a dim is expanded, memory
    holds the values at its index 0.

    Shapes: each array of ``values`` has the shape of its tensor. Dtypes: unsigned integers of the
    tensor's width. Raises: ValueError for another shape or width, KeyError for an unknown tensor.
    """
    image = empty_image(plan.size) if into is None else into[: plan.size]
    image.fill(POISON_BYTE[poison])
    for slot in plan.slots:
        if slot.alias_of is not None:
            continue
        bits = values.get(slot.name)
        if bits is None:
            if not slot.writable:
                slot.view(image)[...] = 0
            continue
        if bits.shape != slot.shape or bits.itemsize != slot.itemsize:
            raise ValueError(
                f"{slot.name}={bits.dtype}{list(bits.shape)}, must be "
                f"{_WORD[slot.itemsize]}{list(slot.shape)} [fill]"
            )
        slot.view(image)[slot.unshared] = bits[slot.unshared]
    unknown = values.keys() - plan.by_name.keys()
    if unknown:
        raise KeyError(f"values for {', '.join(sorted(unknown))}: no such tensor in the plan")
    return image


def read(plan: Plan, image: Image, tensor: str) -> Bits:
    """A tensor's bits out of an image: a dense copy in logical order.

    Raises: KeyError for a tensor that the plan does not have.
    """
    return plan.by_name[tensor].view(image).copy(order="C")


def inspect(plan: Plan, before: Image, after: Image) -> tuple[Damage, ...]:
    """What changed and should not have: every byte that is no element of a writable tensor.

    An input whose memory an output shares may change; its gaps and red zones may not.
    """
    # What may have changed is taken back in a copy; the rest is then one comparison.
    restored = after[: plan.size].copy()
    for slot in plan.slots:
        if slot.writable:
            slot.view(restored)[...] = slot.view(before)
    before = before[: plan.size]
    if np.array_equal(before.view(np.uint64), restored.view(np.uint64)):
        return ()
    changed = before != restored
    return tuple(
        damage for slot in plan.slots if slot.alias_of is None for damage in _damage(slot, changed)
    )


def _damage(slot: Slot, changed: npt.NDArray[np.bool_]) -> list[Damage]:
    """The changed bytes of one storage and its red zones, by place."""
    found: list[Damage] = []

    def note(place: _Place, start: int, which: npt.NDArray[np.bool_]) -> None:
        where = np.flatnonzero(which)
        if where.size:
            element = (start + int(where[0]) - slot.start) // slot.itemsize
            found.append(Damage(slot.name, place, element, int(where.size)))

    end = slot.start + slot.n_bytes
    inside = changed[slot.first : end]
    if inside.any():
        elements = np.zeros(changed.shape, dtype=np.uint8)
        slot.view(elements)[...] = np.iinfo(_WORD[slot.itemsize]).max
        is_element = elements[slot.first : end] != 0
        note("input", slot.first, inside & is_element)
        note("gap", slot.first, inside & ~is_element)
    # The elements that an offset skips belong to the storage but lie before the tensor.
    note("before", slot.low, changed[slot.low : slot.first])
    note("after", end, changed[end : slot.high])
    return found
