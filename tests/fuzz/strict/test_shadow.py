"""The ledger of accesses: what it finds, against a plain model that looks at single bytes."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from fuzz.strict.shadow import Clash, Event, Ledger, Shadow
from fuzz.verdict import Hazard

POISON = 0xFF
SIZE = 48


@dataclass
class Byte:
    """Who has done what to one byte in this launch."""

    readers: set[int] = field(default_factory=set)
    writers: set[int] = field(default_factory=set)
    atomics: set[int] = field(default_factory=set)


class Model:
    """The rules, byte by byte."""

    def __init__(self, memory: npt.NDArray[np.uint8], poison: int | None) -> None:
        self.memory = memory
        self.bare = np.full(memory.size, poison is not None)
        self.bytes: list[Byte] = []

    def begin_launch(self) -> None:
        self.bytes = [Byte() for _ in range(SIZE)]

    def read(self, program: int, lane: range) -> set[str]:
        found = set()
        for at in lane:
            byte = self.bytes[at]
            if self.bare[at]:
                found.add("uninitialised_read")
            if (byte.writers | byte.atomics) - {program} and program not in byte.writers:
                found.add("conflicting_write")
        return found

    def write(self, program: int, lane: range, value: bytes) -> set[str]:
        others = {
            name
            for at, new in zip(lane, value, strict=True)
            for name in ("readers", "writers", "atomics")
            if getattr(self.bytes[at], name) - {program} and self.memory[at] != new
        }
        return {"conflicting_write"} if others else set()

    def atomic(self, program: int, lane: range) -> set[str]:
        found = {"uninitialised_read"} if any(self.bare[at] for at in lane) else set()
        for at in lane:
            if (self.bytes[at].readers | self.bytes[at].writers) - {program}:
                found.add("conflicting_write")
        return found


def lanes_of(random: np.random.Generator, width: int) -> npt.NDArray[np.int64]:
    """Offsets of an access: a block, one with gaps, or anything, aligned or not."""
    n = int(random.integers(1, 5))
    step = width * int(random.integers(1, 4))
    if random.random() < 0.2:
        return random.integers(0, SIZE - width + 1, n)
    if random.random() < 0.3:
        return random.integers(0, SIZE // width, n) * width
    start = int(random.integers(0, SIZE - step * n + 1)) // width * width
    return start + step * np.arange(n)


def kinds_by_lane(clashes: list[Clash], n_lanes: int) -> list[set[str]]:
    return [{c.kind for c in clashes if c.lanes[lane]} for lane in range(n_lanes)]


@pytest.mark.parametrize("poison", [None, POISON])
@pytest.mark.parametrize("seed", range(30))
def test_ledger_agrees_with_a_model_of_bytes(seed: int, poison: int | None) -> None:
    random = np.random.default_rng(seed)
    memory = np.full(SIZE, POISON, dtype=np.uint8)
    start = memory.ctypes.data
    ledger = Ledger()
    ledger.watch("m", start, SIZE, poison=poison)
    model = Model(memory, poison)
    (shadow,) = ledger.shadows
    widths = [(4,), (2, 4), (1, 2, 4)][seed % 3]
    n_clashes = 0
    for _launch in range(6):
        ledger.begin_launch([], reads_after_atomics=False)
        model.begin_launch()
        tainted: set[int] = set()
        for program in range(int(random.integers(1, 5))):
            ledger.begin_program()
            for _access in range(int(random.integers(1, 5))):
                width = int(random.choice(widths))
                offsets = lanes_of(random, width)
                lanes = [range(at, at + width) for at in offsets.tolist()]
                addresses = (start + offsets).astype(np.uint64)
                action = random.choice(["read", "write", "write", "atomic"])
                event = Event("kernel", (program, 0, 0), action, "file.py", 7)
                if action == "read":
                    want = [model.read(program, lane) for lane in lanes]
                    got = ledger.read(shadow, addresses, width, event)
                    for at in {at for lane in lanes for at in lane}:
                        model.bytes[at].readers.add(program)
                elif action == "atomic":
                    want = [model.atomic(program, lane) for lane in lanes]
                    got = ledger.atomic(shadow, addresses, width, event, reads=True)
                    for at in {at for lane in lanes for at in lane}:
                        model.bytes[at].atomics.add(program)
                        model.bare[at] = False
                        memory[at] = random.integers(2)
                else:
                    # Few values, so that programs often agree.
                    values = random.integers(0, 2, len(lanes)).astype(f"u{width}")
                    want = [
                        model.write(program, lane, value.tobytes())
                        for lane, value in zip(lanes, values, strict=True)
                    ]
                    got = ledger.write(shadow, addresses, values, event)
                    stored: dict[int, int] = {}
                    for lane, value in zip(lanes, values, strict=True):
                        stored |= dict(zip(lane, value.tobytes(), strict=True))
                    for lane, value, kinds in zip(lanes, values, want, strict=True):
                        if bytes(stored[at] for at in lane) != value.tobytes():
                            kinds.add("conflicting_write")
                    for at, new in stored.items():
                        model.bytes[at].writers.add(program)
                        model.bare[at] = False
                        memory[at] = new
                found = kinds_by_lane(got, len(lanes))
                for lane, one, other in zip(lanes, found, want, strict=True):
                    # What a byte's first conflict leaves behind is told once.
                    if not tainted & set(lane):
                        assert one == other, (action, offsets, width)
                n_clashes += bool(got)
                tainted |= {
                    at
                    for lane, kinds in zip(lanes, want, strict=True)
                    for at in lane
                    if "conflicting_write" in kinds
                }
    assert n_clashes


# --- cells ----------------------------------------------------------------------------------------


def addresses_of(memory: npt.NDArray[Any], offsets: Any) -> npt.NDArray[np.uint64]:
    return (memory.ctypes.data + np.asarray(offsets)).astype(np.uint64)


def event(program: int = 0, action: Literal["read", "write", "atomic"] = "write") -> Event:
    return Event("kernel", (program, 0, 0), action, "/some/where/file.py", 7)


@pytest.mark.parametrize(
    ("offsets", "width", "cells"),
    [
        (range(8, 40, 4), 4, slice(2, 10)),
        ([12], 4, slice(3, 4)),
        (range(0, 60, 12), 4, slice(0, 13, 3)),
        ([0, 8, 4], 4, [0, 2, 1]),
        ([8, 4, 0], 4, [2, 1, 0]),
        ([4, 4], 4, [1, 1]),
        ([0, 4, 4, 12], 4, [0, 1, 1, 3]),
        (range(0, 32, 8), 8, slice(0, 4)),
    ],
)
def test_even_accesses_are_slices(offsets: Any, width: int, cells: Any) -> None:
    memory = np.zeros(64, dtype=np.uint8)
    shadow = Shadow("m", memory.ctypes.data, 64, None)
    found = shadow.cells(addresses_of(memory, offsets), width)
    if isinstance(cells, slice):
        assert isinstance(found, slice)
        assert found.indices(16) == cells.indices(16)
    else:
        assert not isinstance(found, slice)
        assert found.tolist() == cells


def test_cells_become_bytes_where_widths_differ() -> None:
    memory = np.zeros(16, dtype=np.uint8)
    shadow = Shadow("m", memory.ctypes.data, 16, None)
    cells = shadow.cells(addresses_of(memory, [4]), 4)
    shadow.writer[cells] = 9
    assert (shadow.cell, shadow.writer.tolist()) == (4, [0, 9, 0, 0])
    assert shadow.cells(addresses_of(memory, [8]), 8) == slice(2, 4)
    assert shadow.cell == 4
    assert shadow.cells(addresses_of(memory, [6]), 2) == slice(6, 8)
    assert (shadow.cell, shadow.writer.tolist()) == (1, [0] * 4 + [9] * 4 + [0] * 8)


def test_shadow_of_huge_memory_takes_what_is_touched() -> None:
    # Nothing of these 64 GiB exists, nor of the 512 GiB of their shadow.
    size = 1 << 36
    start = 1 << 40
    ledger = Ledger()
    ledger.watch("m", start, size, poison=None)
    (shadow,) = ledger.shadows
    for program in range(2):
        ledger.begin_launch([], reads_after_atomics=False)
        ledger.begin_program()
        for at in (0, size - 4):
            addresses = np.array([start + at], dtype=np.uint64)
            assert ledger.read(shadow, addresses, 4, event(program, "read")) == []
    assert shadow.reader[-4:].tolist() == [shadow.reader[-1]] * 4
    assert shadow.reader[-1] > 0


# --- programs that wait for each other ------------------------------------------------------------


def run_programs(
    ledger: Ledger, memory: npt.NDArray[np.int32], *programs: str, reads_after_atomics: bool
) -> list[str]:
    """Programs told as "r0 w1 a2": what they do to which word; returns what clashes."""
    start = memory.ctypes.data
    extents = [np.array([[start, start + memory.nbytes]], dtype=np.uint64)]
    ledger.begin_launch(extents, reads_after_atomics=reads_after_atomics)
    clashes = []
    for number, program in enumerate(programs):
        ledger.begin_program()
        for step in program.split():
            at = np.array([start + 4 * int(step[1])], dtype=np.uint64)
            (shadow,) = ledger.at(int(at[0]), int(at[0]) + 4)
            if step[0] == "r":
                found = ledger.read(shadow, at, 4, event(number, "read"))
            elif step[0] == "w":
                value = np.array([number + 1], dtype=np.int32)
                found = ledger.write(shadow, at, value, event(number, "write"))
                memory[int(step[1])] = number + 1
            else:
                found = ledger.atomic(shadow, at, 4, event(number, "atomic"), reads=True)
            clashes += [f"{number} {step}" for _ in found]
    return clashes


@pytest.mark.parametrize(
    ("programs", "apart", "after_atomics"),
    [
        (("a9 r0 w0 a9", "a9 r0 w0 a9", "a9 r0 w0 a9"), 4, []),
        (("w0 a9", "w1 a9", "a9 r0 r1"), 2, []),
        # Taken too late, and given back too early.
        (("a9 r0 w0 a9", "r0 a9 w0"), 2, ["1 r0"]),
        (("a9 a9 w0", "a9 r0"), 1, ["1 r0"]),
        (("w0", "a9 r0"), 1, ["1 r0"]),
        (("w0 a9", "r0"), 1, ["1 r0"]),
        # The atomic itself is one.
        (("a0", "a0 r0"), 1, []),
        (("r0 a9", "a0"), 1, []),
        (("r0", "a0"), 1, ["1 a0"]),
    ],
)
def test_reading_after_an_atomic_is_allowed_where_it_is_declared(
    programs: tuple[str, ...], apart: int, after_atomics: list[str]
) -> None:
    for declared in (False, True):
        memory = np.zeros(10, dtype=np.int32)
        found = run_programs(Ledger(), memory, *programs, reads_after_atomics=declared)
        if declared:
            assert found == after_atomics
        else:
            assert len(found) == apart


def test_launches_do_not_conflict_with_each_other() -> None:
    memory = np.zeros(10, dtype=np.int32)
    ledger = Ledger()
    assert run_programs(ledger, memory, "w0 w1", "w2", reads_after_atomics=False) == []
    assert run_programs(ledger, memory, "r2 w3", "r0 w1", reads_after_atomics=False) == []
    assert run_programs(ledger, memory, "w0", "r3 w0", reads_after_atomics=False) == ["1 w0"]


# --- what torch writes ----------------------------------------------------------------------------


def test_torch_writes_the_elements_of_a_view() -> None:
    memory = np.full((4, 6), -1, dtype=np.int16)
    ledger = Ledger()
    ledger.watch("m", memory.ctypes.data, memory.nbytes, poison=POISON)
    part = memory[1:3, ::2]
    ledger.written_by_torch(part.ctypes.data, part.shape, part.strides, 2)
    ledger.written_by_torch(part.ctypes.data, (0, 3), (12, 4), 2)
    ledger.written_by_torch(1 << 40, (5,), (2,), 2)
    written = np.zeros((4, 6), dtype=bool)
    written[1:3, ::2] = True
    np.testing.assert_array_equal(ledger.shadows[0].writer.reshape(4, 6) != 0, written)
    ledger.begin_launch([], reads_after_atomics=False)
    ledger.begin_program()
    every = addresses_of(memory, np.arange(0, 48, 2))
    (clash,) = ledger.read(ledger.shadows[0], every, 2, event(action="read"))
    np.testing.assert_array_equal(clash.lanes.reshape(4, 6), ~written)


def test_bytes_that_hold_no_poison_were_written_somehow() -> None:
    memory = np.full(4, -1, dtype=np.int32)
    ledger = Ledger()
    ledger.watch("m", memory.ctypes.data, 16, poison=POISON)
    memory[1] = 5
    ledger.begin_launch([], reads_after_atomics=False)
    ledger.begin_program()
    every = addresses_of(memory, np.arange(0, 16, 4))
    (clash,) = ledger.read(ledger.shadows[0], every, 4, event(action="read"))
    assert clash.lanes.tolist() == [True, False, True, True]


# --- who wrote beside what nobody wrote -----------------------------------------------------------

Y = (3, 2, 10)


@pytest.mark.parametrize(
    ("stores", "told"),
    [
        ([], "no program wrote any of y"),
        # Program, first element, number of elements.
        ([(0, 0, 10), (1, 10, 7)], "program (1, 0, 0) wrote y[0, 1, 0:7] at file.py:7"),
        ([(0, 0, 10), (0, 10, 4), (1, 14, 3)], "program (1, 0, 0) wrote y[0, 1, 4:7] at file.py:7"),
        ([(0, 0, 10), (1, 20, 40)], "program (0, 0, 0) wrote y[0, 0, 0:10] at file.py:7"),
        ([(0, 0, 10), (1, 13, 5)], "program (1, 0, 0) wrote y[0, 1, 3:8] at file.py:7"),
        ([(2, 20, 40)], "program (2, 0, 0) wrote y[1, 0, 0:10] at file.py:7"),
        ([(4, 0, 1)], "program (4, 0, 0) wrote y[0, 0, 0] at file.py:7"),
        ([(None, 0, 12)], "torch wrote y[0, 1, 0:2]"),
        ([(0, 0, 60)], ""),
    ],
)
def test_neighbour_of_the_first_unwritten_element_is_told(
    stores: list[tuple[int | None, int, int]], told: str
) -> None:
    memory = np.full(60, np.nan, dtype=np.float32)
    ledger = Ledger()
    ledger.watch("m", memory.ctypes.data, memory.nbytes, poison=POISON)
    ledger.begin_launch([], reads_after_atomics=False)
    for program, first, n in stores:
        start = memory.ctypes.data + 4 * first
        if program is None:
            ledger.written_by_torch(start, (n,), (4,), 4)
            continue
        ledger.begin_program()
        values = np.ones(n, dtype=np.float32)
        at = addresses_of(memory, 4 * np.arange(first, first + n))
        ledger.write(ledger.shadows[0], at, values, event(program))
    strides = (80, 40, 4)
    assert ledger.neighbour_of_unwritten("y", memory.ctypes.data, Y, strides, 4) == told


def test_neighbour_is_told_of_poisoned_memory_alone() -> None:
    memory = np.zeros(6, dtype=np.float32)
    ledger = Ledger()
    ledger.watch("m", memory.ctypes.data, memory.nbytes, poison=None)
    assert ledger.neighbour_of_unwritten("y", memory.ctypes.data, (6,), (4,), 4) == ""
    assert ledger.neighbour_of_unwritten("y", 1 << 40, (6,), (4,), 4) == ""


def test_neighbour_of_a_scalar_and_of_an_element_with_gaps() -> None:
    memory = np.full(8, -1, dtype=np.int32)
    start = memory.ctypes.data
    ledger = Ledger()
    ledger.watch("m", start, memory.nbytes, poison=POISON)
    assert ledger.neighbour_of_unwritten("y", start, (), (), 4) == "no program wrote any of y"
    ledger.written_by_torch(start, (2,), (8,), 4)
    assert ledger.neighbour_of_unwritten("y", start, (4,), (8,), 4) == "torch wrote y[0:2]"
    assert ledger.neighbour_of_unwritten("y", start, (), (), 4) == ""


# --- the account ----------------------------------------------------------------------------------


def test_hazards_of_one_line_and_tensor_are_counted() -> None:
    ledger = Ledger()
    first = Hazard("conflicting_write", "y", "kernel", "the first")
    for message in ("the first", "the second", "the third"):
        ledger.record(Hazard("conflicting_write", "y", "kernel", message), event())
    ledger.record(Hazard("uninitialised_read", "y", "kernel", "another kind"), event())
    ledger.record(Hazard("conflicting_write", "y", "kernel", "elsewhere"), event()._replace(line=8))
    assert [(h.message, h.count) for h in ledger.hazards] == [
        ("the first", 3),
        ("another kind", 1),
        ("elsewhere", 1),
    ]
    assert first.count == 1
