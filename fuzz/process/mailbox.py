"""Arrays and results that pass between the engine and its kernel process in shared memory.

A :class:`Slot` is one case's place: an inbox with the dense values and an outbox with what the
runs did. The kernel process writes its results run by run, so that a crash costs the run in
progress and nothing before it.
"""

from __future__ import annotations

import math
import mmap
import os
import pickle
import secrets
import zlib
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fuzz.verdict import Array, Bits, Observation

SEGMENTS = Path("/dev/shm")
"""Where Linux keeps POSIX shared memory, each segment a file of its name."""

PREFIX = "ln-fuzz-"
"""Of a segment's name; the process that answers for it comes next."""

ALIGN = 64
"""A cache line; enough for any dtype."""

FIRST_SIZE = 1 << 20
"""Bytes of a new block. Small cases fit; a block that is too small is replaced by a larger one."""

HEADER_WORDS = 8
"""int64 words before the records of an outbox; the first five are used."""
DONE, RUNNING, PID, CURSOR, LOGGED = range(5)

NOT_STARTED = -1
"""The value of the RUNNING word until the kernel process takes the case up."""


class OutOfSharedMemory(Exception):
    """The machine has not enough shared memory for a case; the message says how much it has."""


@dataclass(frozen=True)
class Entry:
    """Where one array lies in an inbox."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _free_bytes() -> int:
    info = os.statvfs("/dev/shm")
    return info.f_bavail * info.f_frsize


class Block:
    """A shared segment seen as bytes: created by the engine, mapped by the kernel process."""

    def __init__(self, name: str, data: npt.NDArray[np.uint8], shm: SharedMemory | None) -> None:
        self.name = name
        self.data = data
        self._shm = shm

    @classmethod
    def create(cls, size: int) -> Block:
        """A new segment of at least ``size`` bytes.

        Raises: OutOfSharedMemory. Without the check a write beyond what the file system can hold
        would end this process with SIGBUS.
        """
        info = os.statvfs(SEGMENTS)
        free = info.f_bavail * info.f_frsize
        if size > free:
            raise OutOfSharedMemory(
                f"{size} bytes of shared memory needed, {SEGMENTS} has {free} left"
            )
        name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        shm = SharedMemory(name, create=True, size=size)
        return cls(shm.name, np.ndarray((shm.size,), np.uint8, buffer=shm.buf), shm)

    @classmethod
    def attach(cls, name: str) -> Block:
        """A segment that the engine created, seen from the kernel process.

        Mapped as the file it is: SharedMemory would have this process register the segment for
        removal (before Python 3.13), and would refuse to let go of it while a view is alive.
        """
        with (SEGMENTS / name).open("r+b") as file:
            mapping = mmap.mmap(file.fileno(), 0)
        return cls(name, np.frombuffer(mapping, np.uint8), None)

    @property
    def size(self) -> int:
        """Bytes of the segment."""
        return self.data.size

    def remove(self) -> None:
        """Delete the segment that this process created. No view of ``data`` may be alive."""
        assert self._shm is not None
        del self.data
        self._shm.close()
        self._shm.unlink()


def remove_segments_of(pid: int) -> None:
    """Delete what an engine left behind that was killed.

    The tracker of shared memory would do so too, but only when the main process ends, and with a
    warning.
    """
    for path in SEGMENTS.glob(f"{PREFIX}{pid}-*"):
        path.unlink()
        resource_tracker.unregister(f"/{path.name}", "shared_memory")


class Outbox:
    """The records of one case's runs in a block.

    Layout: header words, then for each run that is done: length and checksum of its description,
    the description, its arrays; all aligned.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        self.header: npt.NDArray[np.int64] = block.data[: HEADER_WORDS * 8].view(np.int64)

    def clear(self) -> None:
        """Forget the former case. Done by the engine before it submits the next."""
        self.header[:] = (0, NOT_STARTED, 0, _aligned(HEADER_WORDS * 8), 0, 0, 0, 0)

    def begin(self, index: int) -> None:
        """Note the run in progress."""
        # The process as the engine knows it leads its group: this one, or what it runs under.
        self.header[PID] = os.getpgrp()
        self.header[RUNNING] = index

    def append(self, observation: Observation) -> bool:
        """Write what a run did; False, and nothing written, where the block is too short."""
        text, arrays, size = _describe(observation)
        start = int(self.header[CURSOR])
        first = start + _aligned(16 + len(text))
        if first + size > self.block.size:
            return False
        data = self.block.data
        data[start : start + 16].view(np.int64)[:] = (len(text), zlib.crc32(text))
        data[start + 16 : start + 16 + len(text)] = np.frombuffer(text, np.uint8)
        for array, place in zip(observation.outputs.values(), arrays, strict=True):
            _view(data, first + place.offset, place.bits_dtype, place.bits_shape)[...] = array.bits
        self.header[CURSOR] = first + size
        # Last, so that a run counts only once all of it is there.
        self.header[DONE] += 1
        return True

    @staticmethod
    def size_of(observation: Observation) -> int:
        """Bytes that an observation takes in an outbox."""
        text, _, size = _describe(observation)
        return _aligned(16 + len(text)) + size

    def observations(self) -> list[Observation]:
        """What the runs that are done did, up to the first record that is damaged.

        A kernel that writes astray may hit this block before its process dies; the checksum keeps
        such a record from being read.
        """
        found: list[Observation] = []
        start = _aligned(HEADER_WORDS * 8)
        data = self.block.data
        for _ in range(int(self.header[DONE])):
            length, checksum = (int(w) for w in data[start : start + 16].view(np.int64))
            if not 0 < length <= self.block.size - start - 16:
                break
            text = data[start + 16 : start + 16 + length].tobytes()
            if zlib.crc32(text) != checksum:
                break
            fields, arrays, size = pickle.loads(text)
            first = start + _aligned(16 + length)
            outputs = {}
            for place in arrays:
                bits = _view(data, first + place.offset, place.bits_dtype, place.bits_shape)
                outputs[place.name] = Array(place.dtype, place.shape, bits.copy(), place.poisoned)
            found.append(Observation(**fields, outputs=outputs))
            start = first + size
        return found

    @property
    def running(self) -> int:
        """Index of the run in progress, or NOT_STARTED."""
        return int(self.header[RUNNING])

    @property
    def pid(self) -> int:
        """The kernel process that took the case up, 0 before."""
        return int(self.header[PID])

    @property
    def logged(self) -> int:
        """Up to where the log of a sanitizer had been read when the run in progress began."""
        return int(self.header[LOGGED])

    def note_logged(self, offset: int) -> None:
        """Note up to where the log is charged to the runs before."""
        self.header[LOGGED] = offset

    def remove(self) -> None:
        """Drop the view of the block, then delete it."""
        del self.header
        self.block.remove()


def _view(
    data: npt.NDArray[np.uint8], offset: int, dtype: str, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    kind = np.dtype(dtype)
    count = math.prod(shape)
    return data[offset : offset + count * kind.itemsize].view(kind).reshape(shape)


class _Place(NamedTuple):
    """One array of an observation in an outbox."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    poisoned: bool
    bits_dtype: str
    bits_shape: tuple[int, ...]
    offset: int


def _describe(observation: Observation) -> tuple[bytes, list[_Place], int]:
    """The observation without its arrays as bytes, where those go, and the bytes they take."""
    places = []
    offset = 0
    for name, array in observation.outputs.items():
        bits = array.bits
        places.append(
            _Place(
                name, array.dtype, array.shape, array.poisoned, bits.dtype.str, bits.shape, offset
            )
        )
        offset += _aligned(bits.nbytes)
    # As a dict: most of the time of a small run would go into taking the object apart.
    fields = {name: value for name, value in vars(observation).items() if name != "outputs"}
    return pickle.dumps((fields, places, offset)), places, offset


class Slot:
    """The engine's side of one case's place: blocks that grow with what they must hold."""

    def __init__(self) -> None:
        self.inbox = Block.create(FIRST_SIZE)
        self.outbox = Outbox(Block.create(FIRST_SIZE))

    def put(self, values: dict[str, Bits]) -> tuple[Entry, ...]:
        """Write the values; returns where they are.

        Raises: OutOfSharedMemory.
        """
        table = []
        offset = 0
        for name, bits in values.items():
            table.append(Entry(name, bits.dtype.str, bits.shape, offset))
            offset += _aligned(bits.nbytes)
        if offset > self.inbox.size:
            larger = Block.create(_roomy(offset))
            self.inbox.remove()
            self.inbox = larger
        for entry, bits in zip(table, values.values(), strict=True):
            if bits.size:
                _view(self.inbox.data, entry.offset, entry.dtype, entry.shape)[...] = bits
        return tuple(table)

    def reserve(self, size: int) -> None:
        """Make the outbox at least ``size`` bytes large. What it held is lost.

        Raises: OutOfSharedMemory.
        """
        if size > self.outbox.block.size:
            larger = Outbox(Block.create(_roomy(size)))
            self.outbox.remove()
            self.outbox = larger

    def remove(self) -> None:
        """Delete both blocks."""
        self.inbox.remove()
        self.outbox.remove()


def _roomy(size: int) -> int:
    """A quarter more than asked, so that slowly growing cases do not each need a new block."""
    return size + size // 4


def read_values(inbox: Block, table: tuple[Entry, ...]) -> dict[str, Bits]:
    """The values as the engine wrote them, without copying, not to be written to."""
    values: dict[str, Bits] = {}
    for entry in table:
        bits = _view(inbox.data, entry.offset, entry.dtype, entry.shape)
        bits.flags.writeable = False
        values[entry.name] = bits
    return values
