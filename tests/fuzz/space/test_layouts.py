"""Shapes and layouts by themselves."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from fuzz.case import TensorCase, contiguous_strides
from fuzz.space.choices import Chooser
from fuzz.space.layouts import (
    contiguous_dims,
    draw_layout,
    draw_leading,
    draw_normalized,
    layout_classes,
    shape_of,
)
from fuzz.spec import ShapeKind

KINDS: dict[ShapeKind, tuple[tuple[int, ...], int]] = {
    "full": ((2, 3, 4, 5), 2),
    "cols": ((4, 5), 2),
    "rows": ((2, 3), 0),
    "rows_keepdim": ((2, 3, 1, 1), 2),
    "groups": ((60,), 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_shape_goes_by_the_kind(kind: ShapeKind) -> None:
    shape, contiguous = KINDS[kind]
    assert shape_of(kind, (2, 3, 4, 5), 2, n_groups=10) == shape
    assert contiguous_dims(kind, 2) == contiguous


# --- leading and normalized dims ----------------------------------------------------------------


def leading(n_dims: int, n_rows: int, *, exactly: bool = False) -> Counter[tuple[int, ...]]:
    chooser = Chooser(4)
    return Counter(draw_leading(chooser, n_dims, n_rows, exactly=exactly) for _ in range(1500))


def test_leading_dims_have_as_many_rows_at_most_or_exactly() -> None:
    assert set(leading(0, 5)) == {()}
    assert set(leading(1, 5)) == {(5,)}
    assert all(5 < math.prod(dims) <= 11 for dims in leading(3, 11))
    # Of 11 rows some are lost to dims that are no divisors of it.
    assert {10, 11} <= {math.prod(dims) for dims in leading(3, 11)}
    assert (2, 5) in leading(2, 11)
    assert max(max(dims) for dims in leading(2, 3)) == 3
    assert {math.prod(dims) for dims in leading(3, 12, exactly=True)} == {12}
    assert set(leading(2, 6, exactly=True)) == {(1, 6), (6, 1), (2, 3), (3, 2)}
    assert {math.prod(dims) for dims in leading(3, 0, exactly=True)} == {0}
    assert {math.prod(dims) for dims in leading(3, 0)} == {0}


def test_leading_dims_come_in_any_order() -> None:
    found = leading(3, 5, exactly=True)
    assert set(found) == {(1, 1, 5), (1, 5, 1), (5, 1, 1)}
    assert min(found.values()) > 400


def test_normalized_dims_have_all_columns() -> None:
    chooser = Chooser(1)
    assert {draw_normalized(chooser, 1, 30) for _ in range(20)} == {(30,)}
    found = {draw_normalized(chooser, 2, 30) for _ in range(800)}
    assert found == {(a, 30 // a) for a in (1, 2, 3, 5, 6, 10, 15, 30)}


# --- layouts ------------------------------------------------------------------------------------

SHAPES = ((6,), (1, 6), (3, 6), (4, 3, 6), (2, 1, 3, 1), (2, 2, 2, 2, 2, 6), (5, 1, 1, 6))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("may_expand", [False, True])
def test_layout_has_its_elements_apart(shape: tuple[int, ...], may_expand: bool) -> None:
    chooser = Chooser(6)
    for _ in range(400):
        strides, offset = draw_layout(chooser, shape, 1, strided=True, may_expand=may_expand)
        assert offset >= 0
        assert shape[-1] == 1 or strides[-1] == 1
        wide = sorted((s, n) for s, n in zip(strides, shape, strict=True) if n > 1)
        filled = 1
        for stride, size in wide:
            assert stride == 0 or stride >= filled
            filled = max(filled, stride * size)
        assert may_expand or all(stride > 0 for stride, _ in wide)
        assert min(strides) >= 0


def test_layout_of_a_tensor_that_is_not_strided_has_an_offset_at_most() -> None:
    chooser = Chooser(6)
    drawn = [draw_layout(chooser, (3, 6), 1, strided=False, may_expand=True) for _ in range(2000)]
    assert {strides for strides, _ in drawn} == {(6, 1)}
    assert sum(offset > 0 for _, offset in drawn) / 2000 == pytest.approx(0.1, abs=0.025)


def test_layout_without_elements_is_as_it_comes() -> None:
    chooser = Chooser(6)
    found = {
        draw_layout(chooser, (3, 0, 6), 1, strided=strided, may_expand=True)
        for strided in (False, True)
        for _ in range(100)
    }
    assert found == {(contiguous_strides((3, 0, 6)), 0)}


def manners(shape: tuple[int, ...], *, may_expand: bool = True, count: int = 3000) -> Counter[str]:
    """How often each manner is seen, in thousandths."""
    chooser, found = Chooser(8), Counter[str]()
    for _ in range(count):
        strides, _ = draw_layout(chooser, shape, 1, strided=True, may_expand=may_expand)
        found.update(layout_classes(TensorCase("x", "float32", shape, strides), 1))
    return Counter({name: 1000 * number // count for name, number in found.items()})


def test_layout_manners_have_their_shares() -> None:
    """Of 100 tensors 16 have each manner in half of them, beside those that have one alone."""
    found = manners((4, 3, 5, 100))
    assert 290 < found["contiguous"] < 340
    assert 250 < found["row_gap"] < 310
    assert 150 < found["expanded"] < 205
    assert 165 < found["permuted"] < 220
    assert 130 < found["outer_gap"] < 190
    kept = manners((4, 3, 5, 100), may_expand=False)
    assert kept["expanded"] == 0
    # One that would be expanded comes as it is.
    assert 390 < kept["contiguous"] < 450


def test_layout_of_many_dims_is_permuted_above_all() -> None:
    found = manners((2, 2, 2, 2, 2, 100))
    assert 640 < found["permuted"] < 720
    # Dims of one element do not count.
    assert manners((2, 2, 2, 2, 1, 100))["permuted"] < 250
    # Neither do those of one run of memory.
    chooser = Chooser(8)
    whole = [
        draw_layout(chooser, (2, 2, 2, 2, 2, 2), 2, strided=True, may_expand=True)[0]
        for _ in range(1000)
    ]
    assert sum(sorted(s[:4], reverse=True) != list(s[:4]) for s in whole) < 350


def test_layout_of_one_wide_dim_has_no_other_order() -> None:
    found = manners((1, 7, 1, 100))
    assert found["permuted"] == 0
    assert found["expanded"] > 120
    assert found["row_gap"] > 200


def test_layout_expands_one_dim_or_more() -> None:
    chooser, found = Chooser(8), Counter[int]()
    for _ in range(4000):
        strides, _ = draw_layout(chooser, (4, 3, 5, 100), 1, strided=True, may_expand=True)
        found[strides.count(0)] += 1
    expanded = found.total() - found[0]
    for dims, share in ((1, 9 / 16), (2, 6 / 16), (3, 1 / 16)):
        assert found[dims] / expanded == pytest.approx(share, abs=0.06)


def test_layout_gap_is_of_a_whole_row_at_times() -> None:
    chooser, found = Chooser(8), Counter[int]()
    for _ in range(4000):
        strides, _ = draw_layout(chooser, (7, 100), 1, strided=True, may_expand=False)
        found[strides[0] - 100] += 1
    gaps = found.total() - found[0]
    assert set(found) == {0, 1, 3, 7, 8, 16, 48, 64, 100}
    assert found[100] / gaps == pytest.approx(0.25, abs=0.05)


def test_layout_has_one_gap_between_larger_dims() -> None:
    chooser, gaps = Chooser(8), Counter[int]()
    for _ in range(2000):
        strides, _ = draw_layout(chooser, (4, 3, 5, 100), 1, strided=True, may_expand=False)
        (first, m), (second, n), (third, _) = sorted(zip(strides[:3], (4, 3, 5), strict=True))
        gaps[(second > first * m) + (third > second * n)] += 1
    assert set(gaps) == {0, 1}
    assert gaps[1] > 200


def test_layout_of_unit_dims_is_loose_where_anything_is_particular() -> None:
    chooser, found = Chooser(8), Counter[tuple[bool, int]]()
    for _ in range(4000):
        strides, _ = draw_layout(chooser, (1, 7, 100), 1, strided=True, may_expand=True)
        found[strides[1] == 100, strides[0]] += 1
    loose = {stride for _, stride in found if stride < 100}
    assert loose == {3, 5, 7, 9}
    assert sum(n for (plain, stride), n in found.items() if not plain and stride < 100) > 700
    # Those that come as they are, a third of all, keep the strides of their place.
    tight = sum(n for (plain, stride), n in found.items() if plain and stride >= 100)
    assert tight > 0.4 * 4000


# --- what a layout is called --------------------------------------------------------------------

CALLED = [
    ((4, 3, 8), (24, 8, 1), {"contiguous"}),
    ((0, 3, 8), (99, 7, 1), {"contiguous"}),
    ((4, 3, 8), (24, 0, 1), {"expanded", "row_gap", "row_stride_odd"} - {"row_stride_odd"}),
    ((4, 3, 8), (8, 0, 1), {"expanded"}),
    ((4, 3, 8), (0, 0, 1), {"expanded"}),
    ((4, 3, 8), (8, 32, 1), {"permuted"}),
    ((4, 3, 8), (27, 9, 1), {"row_gap", "row_stride_odd"}),
    ((4, 3, 8), (48, 16, 1), {"row_gap", "row_stride_16"}),
    ((4, 3, 8), (30, 10, 1), {"row_gap"}),
    ((4, 3, 8), (25, 8, 1), {"outer_gap"}),
    ((4, 3, 8), (28, 9, 1), {"row_gap", "row_stride_odd", "outer_gap"}),
    # A dim of size 1 has no place in the order, and leaves no gap.
    ((1, 3, 8), (2, 8, 1), {"contiguous"}),
    ((4, 1, 8), (8, 77, 1), {"contiguous"}),
    ((4, 1), (1, 1), {"contiguous"}),
    ((4, 1), (1, 5), {"contiguous", "column_stride"}),
    ((4, 1), (3, 5), {"row_gap", "row_stride_odd", "column_stride"}),
]


@pytest.mark.parametrize(("shape", "strides", "classes"), CALLED)
def test_layout_is_called(
    shape: tuple[int, ...], strides: tuple[int, ...], classes: set[str]
) -> None:
    assert layout_classes(TensorCase("x", "float32", shape, strides), 1) == classes


def test_layout_of_statistics_has_no_columns() -> None:
    assert layout_classes(TensorCase("mean", "float32", (4, 1), (3, 5)), 0) == {
        "row_gap",
        "row_stride_odd",
    }
    assert layout_classes(TensorCase("mean", "float32", (4,), (2,)), 0) == {"row_gap"}
