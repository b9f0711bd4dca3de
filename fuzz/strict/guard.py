"""Watches every access of one launch: refuses what is not allowed, notes what is not safe."""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from triton.runtime import interpreter as stock

from fuzz.strict.faults import DTYPE_NAMES, Access, Action, OutOfBounds, kernel_frame
from fuzz.strict.regions import Regions
from fuzz.strict.shadow import Clash, Event, Ledger, Shadow
from fuzz.verdict import Hazard

Lanes = NDArray[np.uint64]


class Guard:
    """What one launch of ``kernel`` may touch, and what becomes of it.

    Each access is refused before it is done, with ``OutOfBounds``, unless all its unmasked lanes
    are allowed. One to memory that the launch may write goes into the ledger, and so does what is
    found to be unsafe there.
    """

    def __init__(self, kernel: str, memory: Regions, ledger: Ledger) -> None:
        self.kernel = kernel
        self.memory = memory
        self._ledger = ledger
        self._atomically = False

    @contextmanager
    def atomically(self) -> Iterator[None]:
        """Within, loads and stores are atomics."""
        self._atomically = True
        try:
            yield
        finally:
            self._atomically = False

    def read(self, ptrs: Any, mask: Any, n_bytes: int) -> None:
        """A load. Shapes: ``mask`` broadcasts to that of the pointers, here and below."""
        if self._atomically:
            self.atomic(ptrs, mask, n_bytes, reads=True)
            return
        lanes = _unmasked(ptrs, mask)
        for shadow, inside in self._allowed(ptrs, lanes, n_bytes, "read"):
            frame = kernel_frame()
            event = self._event("read", frame)
            own = lanes if inside is None else lanes[inside]
            for clash in self._ledger.read(shadow, own, n_bytes, event):
                self._report(clash, ptrs, own, n_bytes, event, frame)

    def write(self, ptrs: Any, mask: Any, values: NDArray[Any]) -> None:
        """A store. It writes as many bytes as the values have, whatever the pointers say."""
        n_bytes = values.itemsize
        if self._atomically:
            self.atomic(ptrs, mask, n_bytes, reads=False)
            return
        lanes = _unmasked(ptrs, mask)
        for shadow, inside in self._allowed(ptrs, lanes, n_bytes, "write"):
            frame = kernel_frame()
            event = self._event("write", frame)
            stored = np.broadcast_to(values, ptrs.data.shape)
            on = np.broadcast_to(np.asarray(mask), ptrs.data.shape)
            stored = stored[on] if lanes.size < stored.size else stored.reshape(-1)
            own = lanes if inside is None else lanes[inside]
            stored = stored if inside is None else stored[inside]
            for clash in self._ledger.write(shadow, own, stored, event):
                self._report(clash, ptrs, own, n_bytes, event, frame)

    def atomic(self, ptrs: Any, mask: Any, n_bytes: int, *, reads: bool) -> None:
        """An atomic; ``reads``: what it finds has influence on what it leaves or gives."""
        lanes = _unmasked(ptrs, mask)
        for shadow, inside in self._allowed(ptrs, lanes, n_bytes, "atomic"):
            frame = kernel_frame()
            event = self._event("atomic", frame)
            own = lanes if inside is None else lanes[inside]
            for clash in self._ledger.atomic(shadow, own, n_bytes, event, reads=reads):
                self._report(clash, ptrs, own, n_bytes, event, frame)

    def _allowed(
        self, ptrs: Any, lanes: Lanes, n_bytes: int, action: Action
    ) -> list[tuple[Shadow, NDArray[np.bool_] | None]]:
        """The shadows that an access falls on, with its lanes in each; None: all of them.

        Raises: ``OutOfBounds``.
        """
        if lanes.size == 0:
            return []
        start, stop = int(lanes.min()), int(lanes.max()) + n_bytes
        spans = self.memory.readable if action == "read" else self.memory.writable
        if not spans.hold(start, stop):
            bad = spans.outside(lanes, n_bytes)
            if bad.any():
                frame = kernel_frame()
                access = self._access(ptrs, lanes, bad, n_bytes, self._event(action, frame))
                raise OutOfBounds(access)
        found: list[tuple[Shadow, NDArray[np.bool_] | None]] = []
        for shadow in self._ledger.at(start, stop):
            if shadow.start <= start and stop <= shadow.stop:
                found.append((shadow, None))
            else:
                inside = (lanes >= shadow.start) & (lanes < shadow.stop)
                if inside.any():
                    found.append((shadow, inside))
        return found

    def _event(self, action: Action, frame: FrameType) -> Event:
        program = stock.interpreter_builder.grid_idx
        return Event(self.kernel, program, action, frame.f_code.co_filename, frame.f_lineno)

    def _access(
        self, ptrs: Any, lanes: Lanes, bad: NDArray[np.bool_], n_bytes: int, event: Event
    ) -> Access:
        address = int(lanes[bad.argmax()])
        memory = self.memory
        region = memory.owner(ptrs.attr.get("base", address))
        dtype = ptrs.get_element_ty().name
        return Access(
            kernel=self.kernel,
            action=event.action,
            file=event.file,
            line=event.line,
            text=linecache.getline(event.file, event.line).strip(),
            program=event.program,
            region=None if region is None else region.name,
            element=None if region is None else (address - region.origin) // n_bytes,
            dtype=DTYPE_NAMES.get(dtype, dtype),
            n_bad=int(np.count_nonzero(bad)),
            n_lanes=lanes.size,
            read_only=event.action != "read" and memory.readable.hold(address, address + n_bytes),
        )

    def _report(
        self,
        clash: Clash,
        ptrs: Any,
        lanes: Lanes,
        n_bytes: int,
        event: Event,
        frame: FrameType,
    ) -> None:
        access = self._access(ptrs, lanes, clash.lanes, n_bytes, event)
        preposition = _PREPOSITION[event.action]
        if clash.kind == "uninitialised_read":
            text = access.told(f"{preposition} uninitialised")
        elif clash.other is None:
            text = access.told(preposition, ", several with different bits to one address")
        else:
            both_write = event.action == clash.other.action == "write"
            text = access.told(preposition, f", where {clash.other.told(other_bits=both_write)}")
        hazard = Hazard(clash.kind, access.region or "", frame.f_code.co_name, text)
        self._ledger.record(hazard, event)


_PREPOSITION = {"read": "of", "write": "to", "atomic": "on"}


def _unmasked(ptrs: Any, mask: Any) -> Lanes:
    """The addresses of an access's unmasked lanes, flat."""
    addresses: Lanes = ptrs.data
    on = np.asarray(mask)
    if on.all():
        return addresses.reshape(-1)
    unmasked: Lanes = addresses[np.broadcast_to(on, addresses.shape)]
    return unmasked
