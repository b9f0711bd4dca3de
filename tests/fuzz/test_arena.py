"""The arena: layouts, poison, and damage by place, against a byte-by-byte map."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from fuzz import arena
from fuzz.case import Case, Launch, Recipe, TensorCase, contiguous_strides
from fuzz.spec import ArgSpec, OutputSpec, TargetSpec
from fuzz.verdict import POISON_BYTE, Bits, Damage, Poison
from oracle.arithmetic import Arithmetic

WORDS = {2: np.uint16, 4: np.uint32, 8: np.uint64}
OUT = frozenset({"out"})


def tensor(
    name: str,
    shape: tuple[int, ...],
    *,
    dtype: str = "float32",
    strides: tuple[int, ...] | None = None,
    offset: int = 0,
    alias_of: str | None = None,
) -> TensorCase:
    recipe = None if name == "out" else Recipe("normal")
    strides = contiguous_strides(shape) if strides is None else strides
    return TensorCase(name, dtype, shape, strides, offset, recipe, alias_of)


def case_of(*tensors: TensorCase) -> Case:
    return Case("t", tensors[0].shape, 1, tensors, {}, 1e-5, Launch(), 0)


def values_of(*tensors: TensorCase) -> dict[str, Bits]:
    """Distinct words, none of which is made of poison bytes."""
    return {
        t.name: np.arange(1, t.n_elements + 1, dtype=WORDS[t.itemsize]).reshape(t.shape)
        for t in tensors
        if t.values is not None and t.alias_of is None
    }


def element_bytes(plan: arena.Plan, t: TensorCase) -> Iterator[tuple[tuple[int, ...], range]]:
    """Index and bytes of every element, one at a time."""
    start = plan.by_name[t.alias_of or t.name].start
    for index in itertools.product(*(range(n) for n in t.shape)):
        at = t.offset + sum(i * s for i, s in zip(index, t.strides, strict=True))
        yield index, range(start + at * t.itemsize, start + (at + 1) * t.itemsize)


LAYOUTS = {
    "contiguous": tensor("x", (3, 5)),
    "gaps and offset": tensor("x", (3, 5), strides=(8, 1), offset=3),
    "half precision": tensor("x", (3, 5), dtype="bfloat16", strides=(7, 1), offset=1),
    "eight bytes": tensor("x", (2, 3), dtype="int64", strides=(5, 1)),
    "expanded": tensor("x", (4, 2, 3), strides=(0, 5, 1), offset=2),
    "transposed rows": tensor("x", (2, 3, 4), strides=(4, 8, 1)),
    "strided columns": tensor("x", (2, 3), strides=(9, 2)),
    "one element": tensor("x", (1, 1), strides=(17, 5), offset=7),
    "no dims": tensor("x", (), offset=3),
    "no rows": tensor("x", (0, 5), strides=(8, 1), offset=3),
    "no columns": tensor("x", (3, 0), strides=(1, 1)),
}


@pytest.mark.parametrize("poison", ["nan", "huge", "-huge"])
@pytest.mark.parametrize("x", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_arena_holds_values_where_strides_say_and_poison_elsewhere(
    x: TensorCase, poison: Poison
) -> None:
    tensors = (x, tensor("weight", (5,), dtype="float16"), tensor("out", (3, 5), strides=(6, 1)))
    plan = arena.plan(case_of(*tensors), OUT)
    values = values_of(*tensors)
    image = arena.fill(plan, values, poison)
    expected = np.full(plan.size, POISON_BYTE[poison], np.uint8)
    for t in tensors[:2]:
        # Expanded dims hold the values at index 0: they are written last.
        for index, where in reversed(list(element_bytes(plan, t))):
            expected[where.start : where.stop] = np.frombuffer(values[t.name][index], np.uint8)
    np.testing.assert_array_equal(image, expected)
    layout = zip(x.shape, x.strides, strict=True)
    first = tuple(slice(0, 1) if s == 0 and n > 1 else slice(None) for n, s in layout)
    dense = arena.read(plan, image, "x")
    assert dense.flags.c_contiguous
    np.testing.assert_array_equal(dense, np.broadcast_to(values["x"][first], x.shape))
    assert (arena.read(plan, image, "out").view(np.uint8) == POISON_BYTE[poison]).all()


@pytest.mark.parametrize("x", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_arena_intervals_are_the_bytes_of_the_elements(x: TensorCase) -> None:
    plan = arena.plan(case_of(tensor("z", (9,)), x), frozenset())
    covered = [b for start, stop in plan.by_name["x"].intervals for b in range(start, stop)]
    assert sorted(covered) == sorted({b for _, where in element_bytes(plan, x) for b in where})


def test_arena_intervals_merge_rows_without_gaps() -> None:
    dense, gaps = tensor("x", (3, 4, 5)), tensor("z", (3, 4, 5), strides=(40, 5, 1))
    plan = arena.plan(case_of(dense, gaps), frozenset())
    assert [len(plan.by_name[n].intervals) for n in ("x", "z")] == [1, 3]


@pytest.mark.parametrize(
    ("n_cols", "zone"), [(1, 256), (64, 256), (65, 260), (1000, 4000), (70_000, 4096)]
)
def test_arena_red_zones_are_a_row_within_limits(n_cols: int, zone: int) -> None:
    # z ends 8 bytes before a boundary: its zone is not there by accident of alignment.
    tensors = (tensor("x", (2, n_cols)), tensor("z", (126, 1)), tensor("out", (2, n_cols)))
    plan = arena.plan(case_of(*tensors), OUT)
    limit = 0
    for slot in plan.slots:
        wanted = 256 if slot.name == "z" else zone
        assert slot.start % arena.ALIGNMENT == 0
        assert slot.low == limit, "no byte lies between the zones of neighbours"
        assert slot.start - slot.low >= wanted
        assert slot.high - (slot.start + slot.n_bytes) >= wanted
        limit = slot.high
    assert limit == plan.size


def test_arena_memory_begins_where_storages_may() -> None:
    images = [arena.empty_image(1000) for _ in range(8)]
    assert all(image.ctypes.data % arena.ALIGNMENT == 0 for image in images)
    assert all(image.size == 1000 for image in images)


TENSORS = (
    tensor("x", (2, 3, 5), dtype="bfloat16", strides=(0, 8, 1), offset=3),
    tensor("z", (0, 5), offset=3),
    tensor("weight", (5,)),
    tensor("out", (2, 3, 5), dtype="bfloat16", strides=(24, 8, 1), offset=2),
)


def place_of(
    plan: arena.Plan, tensors: tuple[TensorCase, ...], byte: int
) -> tuple[str, str] | None:
    """Whose byte it is and where it lies; None where it may change."""
    slot = next(s for s in plan.slots if s.low <= byte < s.high)
    mine = [t for t in tensors if (t.alias_of or t.name) == slot.name]
    elements = {b for t in mine for _, where in element_bytes(plan, t) for b in where}
    if byte in elements:
        return None if any(t.name == "out" for t in mine) else (slot.name, "input")
    end = max(elements, default=slot.start - 1) + 1
    if elements and min(elements) < byte < end:
        return slot.name, "gap"
    return slot.name, "after" if byte >= end else "before"


@pytest.mark.parametrize(
    "tensors",
    [
        TENSORS,
        (*TENSORS[:3], tensor("out", (3, 5), strides=(9, 1), offset=1)),
        # out is x: its elements may change, its gaps may not.
        (
            tensor("x", (3, 5), strides=(9, 1), offset=2),
            tensor("weight", (5,)),
            tensor("out", (3, 5), strides=(9, 1), offset=2, alias_of="x"),
        ),
    ],
    ids=["wide gaps", "outer gaps", "alias"],
)
def test_arena_names_the_place_of_every_changed_byte(tensors: tuple[TensorCase, ...]) -> None:
    plan = arena.plan(case_of(*tensors), OUT)
    before = arena.fill(plan, values_of(*tensors), "huge")
    for byte in range(plan.size):
        after = before.copy()
        after[byte] ^= 0x10
        place = place_of(plan, tensors, byte)
        found = arena.inspect(plan, before, after)
        if place is None:
            assert found == ()
            continue
        slot = plan.by_name[place[0]]
        element = (byte - slot.start) // slot.itemsize
        assert found == (Damage(place[0], place[1], element, 1),)


def test_arena_counts_all_damage_of_a_place() -> None:
    plan = arena.plan(case_of(*TENSORS), OUT)
    before = arena.fill(plan, values_of(*TENSORS), "nan")
    after = before.copy()
    out, weight = plan.by_name["out"], plan.by_name["weight"]
    end = out.start + out.n_bytes
    after[end + 4 : end + 10] = 0
    after[out.start - 2 : out.start] = 0
    weight.view(after)[1:3] = 0xFFFF_FFFF
    assert arena.inspect(plan, before, after) == (
        Damage("weight", "input", 1, 8),
        Damage("out", "before", -1, 2),
        Damage("out", "after", TENSORS[3].span + 2, 6),
    )


def test_arena_inspection_leaves_both_images_alone() -> None:
    plan = arena.plan(case_of(*TENSORS), OUT)
    before = arena.fill(plan, values_of(*TENSORS), "nan")
    after = arena.fill(plan, values_of(*TENSORS), "nan")
    plan.by_name["out"].view(after)[...] = 7
    copies = before.copy(), after.copy()
    assert arena.inspect(plan, before, after) == ()
    np.testing.assert_array_equal(before, copies[0])
    np.testing.assert_array_equal(after, copies[1])


def test_arena_inputs_without_values_are_zero() -> None:
    plan = arena.plan(case_of(tensor("x", (2, 3), dtype="complex64"), tensor("out", (2, 3))), OUT)
    image = arena.fill(plan, {}, "nan")
    assert (arena.read(plan, image, "x") == 0).all()
    assert (arena.read(plan, image, "out") == 0xFFFF_FFFF).all()


def test_arena_can_be_written_to_given_memory() -> None:
    x = tensor("x", (2, 3))
    plan = arena.plan(case_of(x), frozenset())
    given = arena.empty_image(plan.size + 64)
    given.fill(1)
    image = arena.fill(plan, values_of(x), "nan", into=given)
    assert image.ctypes.data == given.ctypes.data
    np.testing.assert_array_equal(image, arena.fill(plan, values_of(x), "nan"))
    assert (given[plan.size :] == 1).all()


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (np.zeros((2, 4), np.uint32), r"x=uint32\[2, 4\], must be uint32\[2, 3\]"),
        (np.zeros((2, 3), np.uint16), r"x=uint16\[2, 3\], must be uint32\[2, 3\]"),
    ],
)
def test_arena_refuses_values_that_do_not_fit(bits: Bits, message: str) -> None:
    plan = arena.plan(case_of(tensor("x", (2, 3))), frozenset())
    with pytest.raises(ValueError, match=message):
        arena.fill(plan, {"x": bits}, "nan")


def test_arena_refuses_values_of_no_tensor() -> None:
    plan = arena.plan(case_of(tensor("x", (2, 3))), frozenset())
    with pytest.raises(KeyError, match="weight"):
        arena.fill(plan, {"weight": np.zeros(3, np.uint32)}, "nan")


def test_arena_plans_are_shared_by_cases_of_one_layout() -> None:
    assert arena.plan(case_of(*TENSORS), OUT) is arena.plan(case_of(*TENSORS), OUT)
    assert arena.plan(case_of(*TENSORS), OUT) is not arena.plan(case_of(*TENSORS), frozenset())


def test_arena_storage_plan_is_writable_and_guarded() -> None:
    plan = arena.plan_storage("allocation 0", 2, 5)
    (slot,) = plan.slots
    before = arena.fill(plan, {}, "nan")
    after = before.copy()
    after[slot.start : slot.start + 10] = 0
    assert arena.inspect(plan, before, after) == ()
    after[slot.start + 10] = 0
    assert arena.inspect(plan, before, after) == (Damage("allocation 0", "after", 5, 1),)


def test_arena_writable_tensors_are_all_but_inputs() -> None:
    roles = ("in", "out", "inout", "scratch")
    spec = TargetSpec(
        "t", tuple(ArgSpec(role, role) for role in roles), (OutputSpec("y"),), Arithmetic()
    )
    assert arena.writable_tensors(spec) == {"out", "inout", "scratch"}
