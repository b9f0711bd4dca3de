"""Who wrote each byte of a call's memory, and who read it: what shows a race or a missing write.

Programs of a launch run one after the other here and in any order on a GPU, and memory that nobody
wrote holds poison here and leftovers there. So a :class:`Ledger` notes every access to writable
memory, and finds those whose result another order, or other leftovers, would change.

Accesses have ascending numbers, those of one program without a gap: whether a byte was touched by
another program of the launch is one comparison with where the launch and the program began.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from fuzz.strict.faults import Action
from fuzz.strict.regions import Spans
from fuzz.verdict import Hazard, HazardKind

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int32]

Cells = slice | NDArray[np.intp]
"""An index into a shadow. Evenly spaced accesses have a slice, a tenth of the cost of a list."""

NOBODY = 0
NO_KERNEL = 1
"""Number of what torch wrote."""

_FIRST = 2
"""From here on numbers go up by two; an odd one is an atomic's."""

_HUGE = 1 << 28
"""Bytes of more than any tensor that is drawn has; a kernel may still be given so much."""

_MAP_NORESERVE = 0x4000
"""Linux's; the module mmap has it since Python 3.13."""

_DID = {"read": "read", "write": "wrote", "atomic": "did an atomic"}


class Event(NamedTuple):
    """One access of a program: what a number in a shadow stands for."""

    kernel: str
    program: tuple[int, int, int]
    action: Action
    file: str
    line: int

    @property
    def place(self) -> str:
        """File and line."""
        return f"{Path(self.file).name}:{self.line}"

    def told(self, *, other_bits: bool = False) -> str:
        """What was done, as the end of a sentence."""
        what = " other bits" if other_bits else ""
        return f"program {self.program} {_DID[self.action]}{what} at {self.place}"


@dataclass(frozen=True, eq=False)
class Clash:
    """Lanes of an access that touch what they should not; ``other``: the access in conflict."""

    kind: HazardKind
    lanes: Mask
    other: Event | None = None


class Shadow:
    """The numbers of the last writer and the first reader of each cell of one stretch of memory.

    A cell is as wide as the elements that are accessed, or a byte where their widths differ.
    ``poison`` is the byte that fills the memory before the call, None where it holds values.
    """

    def __init__(self, name: str, start: int, n_bytes: int, poison: int | None) -> None:
        self.name = name
        self.start = start
        self.stop = start + n_bytes
        self.poison = poison
        self.cell = 0  # bytes; settled by the first access
        self.writer: Numbers = np.empty(0, dtype=np.int32)
        self.reader: Numbers = np.empty(0, dtype=np.int32)

    def cells(self, addresses: NDArray[np.uint64], n_bytes: int) -> Cells:
        """The cells of an access to ``n_bytes`` at each address, one lane after the other."""
        size, offset = addresses.size, int(addresses[0]) - self.start
        step = int(addresses[1]) - int(addresses[0]) if size > 1 else n_bytes
        if _evenly_spaced(addresses, step):
            cell = self._fit(n_bytes, offset, step)
            if step == n_bytes:
                return slice(offset // cell, (offset + size * n_bytes) // cell)
            if cell == n_bytes:
                return slice(offset // cell, (offset + (size - 1) * step) // cell + 1, step // cell)
        offsets = (addresses - np.uint64(self.start)).astype(np.intp)
        cell = self._fit(n_bytes, 1 if (offsets % n_bytes).any() else n_bytes)
        firsts = offsets // cell
        if cell == n_bytes:
            return firsts
        return (firsts[:, None] + np.arange(n_bytes // cell)).reshape(-1)

    def writers_of(
        self, address: int, shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int
    ) -> Numbers:
        """The writers of a tensor's elements, as a view. Strides count bytes.

        Shapes: (*shape, cells of an element).
        """
        offset = address - self.start
        used = [stride for n, stride in zip(shape, strides, strict=True) if n > 1]
        cell = self._fit(itemsize, offset, *used)
        width = self.writer.itemsize
        return as_strided(
            self.writer[offset // cell :],
            (*shape, itemsize // cell),
            (*(stride // cell * width for stride in strides), width),
        )

    def bits(self, cells: Cells) -> NDArray[np.uint8]:
        """The bytes of some cells as they are in memory. Shapes: (cells, bytes of a cell)."""
        found: NDArray[np.uint8] = self._memory.reshape(-1, self.cell)[cells]
        return found

    @functools.cached_property
    def _memory(self) -> NDArray[np.uint8]:
        n_bytes = self.stop - self.start
        return np.ctypeslib.as_array((ctypes.c_uint8 * n_bytes).from_address(self.start))

    def unwritten(self, cells: Cells) -> Mask:
        """Which cells nobody has written.

        Their bytes decide too: a wrapper may write by ways that torch does not show.
        """
        if self.poison is None:
            return np.zeros(self.writer[cells].shape, dtype=np.bool_)
        bare: Mask = self.writer[cells] == NOBODY
        if bare.any():
            bare &= (self.bits(cells) == self.poison).all(axis=1)
        return bare

    def _fit(self, n_bytes: int, *positions: int) -> int:
        """The width of a cell, once it divides an access of ``n_bytes`` at these positions."""
        if not self.cell:
            whole = self.stop - self.start
            # What has bytes for cells from the start is never copied.
            by_bytes = whole >= _HUGE or any(at % n_bytes for at in (whole, *positions))
            self.cell = 1 if by_bytes else n_bytes
            self.writer = _nobody(whole // self.cell)
            self.reader = _nobody(whole // self.cell)
        elif any(at % self.cell for at in (n_bytes, *positions)):
            self.writer = np.repeat(self.writer, self.cell)
            self.reader = np.repeat(self.reader, self.cell)
            self.cell = 1
        return self.cell


def _nobody(n_cells: int) -> Numbers:
    """The numbers of so many cells that nobody has touched."""
    size = n_cells * 4
    if size < _HUGE:
        return np.zeros(n_cells, dtype=np.int32)
    # Memory of many GiB is touched here and there: only that much of its shadow comes into being.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    return np.frombuffer(mmap.mmap(-1, size, flags=flags), dtype=np.int32)


def _evenly_spaced(addresses: NDArray[np.uint64], step: int) -> bool:
    """Whether addresses ascend by ``step``."""
    size = addresses.size
    if step <= 0 or int(addresses[-1]) - int(addresses[0]) != step * (size - 1):
        return False
    return size <= 2 or bool((addresses[1:] - addresses[:-1] == np.uint64(step)).all())


class Ledger:
    """The accesses to writable memory in one call of a target, over all its launches."""

    def __init__(self) -> None:
        self.shadows: list[Shadow] = []
        self._of_launch: list[Shadow] = []
        self._events: list[Event] = []
        self._launch = self._program = _FIRST
        # Of the programs of this launch, in the order in which they ran: where their numbers begin,
        # and the number of the last atomic of each, 0 before there is one.
        self._begins: list[int] = []
        self._atomics: list[int] = []
        self._after_atomics = False
        self._hazards: dict[tuple[str, ...], Hazard] = {}

    def watch(self, name: str, start: int, n_bytes: int, *, poison: int | None) -> None:
        """Watch memory for the rest of the call; ``poison`` as in :class:`Shadow`."""
        if n_bytes:
            self.shadows.append(Shadow(name, start, n_bytes, poison))

    def begin_launch(
        self, extents: Iterable[NDArray[np.uint64]], *, reads_after_atomics: bool
    ) -> None:
        """Begin a launch that may write to ``extents`` besides the memory that is watched anyway.

        ``reads_after_atomics``: what a program did before an atomic is no conflict with what
        another one does after an atomic of its own.

        Shapes: each of ``extents`` (k, 2), byte addresses [start, stop).
        """
        self._launch = self._program = self._next
        self._begins, self._atomics = [], []
        self._after_atomics = reads_after_atomics
        self._of_launch = list(self.shadows)
        for start, stop in Spans(list(extents)).pairs:
            if not any(s.start < stop and start < s.stop for s in self.shadows):
                self._of_launch.append(Shadow("", start, stop - start, None))

    def begin_program(self) -> None:
        """Begin the next program of the launch."""
        self._program = self._next
        self._begins.append(self._program)
        self._atomics.append(0)

    def at(self, start: int, stop: int) -> list[Shadow]:
        """The shadows of memory that [start, stop) touches."""
        return [s for s in self._of_launch if s.start < stop and start < s.stop]

    # accesses: each finds what is wrong with it, then notes it

    def read(
        self, shadow: Shadow, addresses: NDArray[np.uint64], n_bytes: int, event: Event
    ) -> list[Clash]:
        """A load of ``n_bytes`` at each address."""
        number = self._note(event)
        cells = shadow.cells(addresses, n_bytes)
        clashes = self._of_unwritten(shadow, cells, addresses.size)
        writer, reader = shadow.writer[cells], shadow.reader[cells]
        clashes += self._of(writer, self._others(writer), addresses.size)
        # The first reader of a launch stays: programs run one after the other, so that it is
        # another one than a later writer's if any is.
        reader[reader < self._launch] = number
        shadow.reader[cells] = reader
        return clashes

    def write(
        self, shadow: Shadow, addresses: NDArray[np.uint64], values: NDArray[Any], event: Event
    ) -> list[Clash]:
        """A store of one value at each address, before it is done."""
        number = self._note(event)
        size = addresses.size
        cells = shadow.cells(addresses, values.itemsize)
        bits = np.ascontiguousarray(values).view(np.uint8).reshape(-1, shadow.cell)
        writer, reader = shadow.writer[cells], shadow.reader[cells]
        by_others, for_others = self._others(writer), self._others(reader)
        clashes = []
        if by_others.any() or for_others.any():
            changed = (shadow.bits(cells) != bits).any(axis=1)
            clashes = self._of(writer, by_others & changed, size)
            clashes += self._of(reader, for_others & changed & ~by_others, size)
            # Equal bits do no harm, as long as all later ones are equal to them.
            agreed = by_others & ~for_others & ~changed
            reader[agreed] = writer[agreed]
            shadow.reader[cells] = reader
        if not isinstance(cells, slice):
            lanes = np.arange(cells.size, dtype=np.int32)
            shadow.writer[cells] = lanes
            last = shadow.writer[cells]
            lost = (bits[last] != bits).any(axis=1)
            if lost.any():
                clashes.append(Clash("conflicting_write", _by_lane(lost, size)))
        shadow.writer[cells] = number
        return clashes

    def atomic(
        self,
        shadow: Shadow,
        addresses: NDArray[np.uint64],
        n_bytes: int,
        event: Event,
        *,
        reads: bool,
    ) -> list[Clash]:
        """An atomic on ``n_bytes`` at each address. Atomics do not clash with atomics."""
        number = self._note(event)
        size = addresses.size
        cells = shadow.cells(addresses, n_bytes)
        clashes = self._of_unwritten(shadow, cells, size) if reads else []
        writer, reader = shadow.writer[cells], shadow.reader[cells]
        by_others, plain = self._others(writer), writer & 1 == 0
        clashes += self._of(writer, by_others & plain, size)
        clashes += self._of(reader, self._others(reader) & (reader & 1 == 0), size)
        # Another program's atomic stays, to be seen by a plain read of this one's, and a plain
        # store of this one's, to be seen by another program's atomic.
        stays = (by_others & ~plain) | ((writer >= self._program) & plain)
        shadow.writer[cells] = np.where(stays, writer, np.int32(number))
        return clashes

    def written_by_torch(
        self, address: int, shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int
    ) -> None:
        """Note that torch wrote the elements of a tensor. Strides count bytes."""
        if 0 in shape:
            return
        for shadow in self.shadows:
            if shadow.start <= address < shadow.stop:
                shadow.writers_of(address, shape, strides, itemsize)[...] = NO_KERNEL

    def neighbour_of_unwritten(
        self,
        name: str,
        address: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        itemsize: int,
    ) -> str:
        """Who wrote next to the first element of a tensor that nobody wrote; "" if all are written.

        Strides count bytes.
        """
        shadow = next((s for s in self.shadows if s.start <= address < s.stop), None)
        if shadow is None or shadow.poison is None or 0 in shape:
            return ""
        cells = shadow.writers_of(address, shape, strides, itemsize)
        if cells.all():
            return ""
        writer = cells.min(axis=-1)
        rows = writer.reshape(-1, shape[-1] if shape else 1)
        row, column = divmod(int((rows == NOBODY).argmax()), rows.shape[1])
        written = np.flatnonzero(rows)
        if not written.size:
            return f"no program wrote any of {name}"
        # All before it is written. What is written behind it in its own row is nearer than a row
        # before.
        behind = np.flatnonzero(rows[row])
        if column:
            column -= 1
        elif behind.size:
            column = int(behind[0])
        elif row:
            row, column = row - 1, rows.shape[1] - 1
        else:
            row, column = divmod(int(written[0]), rows.shape[1])
        return self._tell_run(name, shape, rows[row], row, column)

    def _tell_run(
        self, name: str, shape: tuple[int, ...], writers: Numbers, row: int, column: int
    ) -> str:
        """Who wrote a column of a row, and what of the row beside it."""
        event = self._event(int(writers[column]))
        programs = {
            number: (found.kernel, found.program) if (found := self._event(number)) else None
            for number in np.unique(writers[writers != NOBODY]).tolist()
        }
        mine = programs[int(writers[column])]
        same = [number for number, program in programs.items() if program == mine]
        others = np.flatnonzero(~np.isin(writers, same))
        first = int(others[others < column].max(initial=-1)) + 1
        last = int(others[others > column].min(initial=writers.size))
        index = [str(i) for i in np.unravel_index(row, shape[:-1])] if len(shape) > 1 else []
        index.append(f"{first}:{last}" if last - first > 1 else str(column))
        what = f"{name}[{', '.join(index)}]" if shape else name
        if event is None:
            return f"torch wrote {what}"
        return f"program {event.program} wrote {what} at {event.place}"

    # what was found

    def record(self, hazard: Hazard, event: Event) -> None:
        """Keep a hazard, or count it where its line has one of its kind for the same tensor."""
        key = (hazard.kind, hazard.tensor, event.kernel, event.place)
        known = self._hazards.get(key)
        self._hazards[key] = hazard if known is None else replace(known, count=known.count + 1)

    @property
    def hazards(self) -> tuple[Hazard, ...]:
        """What is unsafe in the call so far."""
        return tuple(self._hazards.values())

    # numbers

    @property
    def _next(self) -> int:
        return _FIRST + 2 * len(self._events)

    def _note(self, event: Event) -> int:
        number = self._next + (event.action == "atomic")
        self._events.append(event)
        if event.action == "atomic":
            self._atomics[-1] = number
        return number

    def _event(self, number: int) -> Event | None:
        """What a number stands for; None for nobody and for torch."""
        return self._events[(number - _FIRST) // 2] if number >= _FIRST else None

    def _others(self, numbers: Numbers) -> Mask:
        """Which numbers are of other programs of this launch, and may come before or after."""
        if numbers.max() < self._launch:
            return np.zeros(numbers.shape, dtype=np.bool_)
        others: Mask = (numbers >= self._launch) & (numbers < self._program)
        if self._after_atomics and self._atomics[-1] and others.any():
            program = np.searchsorted(np.array(self._begins), numbers, side="right") - 1
            others &= np.array(self._atomics, dtype=np.int32)[program] < numbers
        return others

    def _of(self, numbers: Numbers, cells: Mask, size: int) -> list[Clash]:
        """The clash of an access with those that its cells' numbers stand for, if there is one."""
        if not cells.any():
            return []
        other = self._event(int(numbers[cells.argmax()]))
        return [Clash("conflicting_write", _by_lane(cells, size), other)]

    def _of_unwritten(self, shadow: Shadow, cells: Cells, size: int) -> list[Clash]:
        bare = shadow.unwritten(cells)
        return [Clash("uninitialised_read", _by_lane(bare, size))] if bare.any() else []


def _by_lane(cells: Mask, size: int) -> Mask:
    lanes: Mask = np.any(cells.reshape(size, -1), axis=1)
    return lanes
