"""Cases with another shape: every tensor follows x and keeps the manner of its layout."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fuzz.case import Case, Launch, Plant, Recipe, TensorCase, contiguous_strides
from fuzz.space.resize import merged, resized, tightened, without_dim
from fuzz.spec import ArgSpec, OutputSpec, ShapeKind, TargetSpec
from oracle.arithmetic import Arithmetic

KINDS: dict[str, ShapeKind] = {
    "x": "full",
    "weight": "cols",
    "mean": "rows",
    "rstd": "rows_keepdim",
    "stats": "groups",
}
SPEC = TargetSpec(
    "any",
    tuple(ArgSpec(name, shape=kind) for name, kind in KINDS.items()),
    (OutputSpec("y"),),
    Arithmetic(),
)


def tensor(name: str, *shape: int, strides: tuple[int, ...] = (), offset: int = 0) -> TensorCase:
    return TensorCase(name, "float32", shape, strides or contiguous_strides(shape), offset)


def case(*tensors: TensorCase, dims: int = 1, **flags: int) -> Case:
    return Case(
        target="any",
        shape=tensors[0].shape,
        normalized_ndim=dims,
        tensors=tensors,
        flags=dict(flags),
        eps=0.0,
        launch=Launch(),
        seed=1,
        relations=(),
    )


def of_x(*shape: int, strides: tuple[int, ...]) -> Case:
    return case(tensor("x", *shape, strides=strides))


def layout(result: Case, name: str = "x") -> tuple[tuple[int, ...], tuple[int, ...]]:
    found = result.tensor_or_fail(name)
    return found.shape, found.strides


ALL = case(
    tensor("x", 4, 3, 8, offset=5),
    tensor("weight", 8),
    tensor("mean", 4, 3),
    tensor("rstd", 4, 3, 1),
    tensor("stats", 24),
    # What the spec does not name has the shape of x.
    tensor("y", 4, 3, 8),
    group_size=4,
)


def test_resized_tensors_follow_by_their_kind() -> None:
    shapes = {t.name: t.shape for t in resized(ALL, SPEC, (5, 2), (12,)).tensors}
    assert shapes == {
        "x": (5, 2, 12),
        "weight": (12,),
        "mean": (5, 2),
        "rstd": (5, 2, 1),
        "stats": (30,),
        "y": (5, 2, 12),
    }
    assert resized(ALL, SPEC, (5, 2), (12,)).tensor_or_fail("x").offset == 5
    two = resized(ALL, SPEC, (5, 2), (3, 4))
    assert (two.normalized_ndim, two.tensor_or_fail("rstd").shape) == (2, (5, 2, 1, 1))


@pytest.mark.parametrize(
    ("strides", "now"),
    [
        ((24, 8, 1), (20, 10, 1)),
        # A gap behind rows, behind the larger dim, and both.
        ((33, 11, 1), (26, 13, 1)),
        ((30, 8, 1), (26, 10, 1)),
        ((40, 11, 1), (33, 13, 1)),
        # The order of memory, and expanded dims.
        ((8, 32, 1), (10, 50, 1)),
        ((0, 8, 1), (0, 10, 1)),
        ((0, 11, 1), (0, 13, 1)),
        ((8, 0, 1), (10, 0, 1)),
        ((0, 0, 1), (0, 0, 1)),
    ],
)
def test_resized_layout_keeps_its_manner(strides: tuple[int, ...], now: tuple[int, ...]) -> None:
    case = of_x(4, 3, 8, strides=strides)
    assert layout(resized(case, SPEC, (5, 2), (10,))) == ((5, 2, 10), now)


def test_resized_layout_of_unit_dims_keeps_their_strides() -> None:
    assert layout(resized(of_x(1, 3, 8, strides=(5, 9, 1)), SPEC, (1, 2), (10,)))[1] == (5, 11, 1)
    # Rows that overlap as they are do not come apart by a gap that is negative.
    assert layout(resized(of_x(4, 3, 8, strides=(8, 8, 1)), SPEC, (4, 3), (10,)))[1] == (30, 10, 1)
    # An odd stride of the one column stays while there is one column.
    column = of_x(4, 1, strides=(3, 5))
    assert layout(resized(column, SPEC, (6,), (1,)))[1] == (3, 5)
    assert layout(resized(column, SPEC, (6,), (2,)))[1] == (4, 1)


def planted(*indices: int) -> Case:
    values = Recipe("normal", 0.0, 1.0, tuple(Plant(index, "nan") for index in indices))
    return case(replace(tensor("x", 4, 8), values=values))


def plants(result: Case) -> list[int]:
    values = result.tensor_or_fail("x").values
    return [] if values is None else [plant.index for plant in values.plants]


def test_resized_plants_stay_in_the_nearest_row_and_column() -> None:
    # (0, 0), (1, 2) and (3, 7).
    case = planted(0, 10, 31)
    assert plants(resized(case, SPEC, (4,), (8,))) == [0, 10, 31]
    assert plants(resized(case, SPEC, (9,), (16,))) == [0, 18, 55]
    assert plants(resized(case, SPEC, (2,), (5,))) == [0, 7, 9]
    assert plants(resized(case, SPEC, (0,), (5,))) == []
    # Two that come to lie in one place are one.
    assert plants(resized(planted(30, 31), SPEC, (1,), (2,))) == [1]
    assert resized(case, SPEC, (4,), (8,)).tensor_or_fail("x") == case.tensor_or_fail("x")


# --- for the shrinker ---------------------------------------------------------------------------


def test_merged_has_one_leading_dim() -> None:
    shapes = {t.name: t.shape for t in merged(ALL, SPEC).tensors}
    assert shapes == {
        "x": (12, 8),
        "weight": (8,),
        "mean": (12,),
        "rstd": (12, 1),
        "stats": (24,),
        "y": (12, 8),
    }


@pytest.mark.parametrize(
    ("shape", "strides", "now"),
    [
        ((4, 3, 8), (24, 8, 1), (8, 1)),
        ((4, 3, 8), (33, 11, 1), (11, 1)),
        ((4, 3, 8), (8, 40, 1), (8, 1)),
        ((4, 3, 8), (0, 11, 1), (11, 1)),
        ((4, 3, 8), (0, 0, 1), (0, 1)),
        # Dims of one element say nothing.
        ((1, 3, 8), (2, 11, 1), (11, 1)),
        ((1, 1, 8), (2, 5, 1), (8, 1)),
        # One dim is merged already: it comes as it would.
        ((4, 8), (11, 1), (8, 1)),
    ],
)
def test_merged_rows_keep_the_smallest_gap(
    shape: tuple[int, ...], strides: tuple[int, ...], now: tuple[int, ...]
) -> None:
    result = merged(of_x(*shape, strides=strides), SPEC)
    assert layout(result) == ((math.prod(shape[:-1]), 8), now)


def test_without_dim_leaves_out_a_leading_one() -> None:
    case_ = case(tensor("x", 4, 1, 8, strides=(9, 7, 1)), tensor("weight", 8), tensor("mean", 4, 1))
    result = without_dim(case_, SPEC, 1)
    assert result.shape == (4, 8)
    assert layout(result) == ((4, 8), (9, 1))
    assert layout(result, "weight") == ((8,), (1,))
    assert layout(result, "mean") == ((4,), (1,))
    first = without_dim(of_x(1, 4, 8, strides=(7, 9, 1)), SPEC, 0)
    assert (first.shape, layout(first)) == ((4, 8), ((4, 8), (9, 1)))


@pytest.mark.parametrize(
    ("shape", "strides", "gap", "now"),
    [
        ((4, 3, 8), (50, 11, 1), 0, (24, 8, 1)),
        ((4, 3, 8), (50, 11, 1), 2, (30, 10, 1)),
        ((4, 3, 8), (11, 50, 1), 0, (8, 32, 1)),
        ((4, 3, 8), (0, 11, 1), 0, (0, 8, 1)),
        ((4, 3, 8), (11, 0, 1), 1, (9, 0, 1)),
        # Of dims with the same stride the smaller one is inside; of the same size, the last.
        ((1, 3, 8), (8, 8, 1), 0, (8, 8, 1)),
        ((3, 1, 8), (8, 8, 1), 0, (8, 8, 1)),
        ((3, 3, 8), (8, 8, 1), 0, (24, 8, 1)),
        ((2, 0, 8), (8, 8, 1), 0, (8, 8, 1)),
    ],
)
def test_tightened_strides_have_one_gap(
    shape: tuple[int, ...], strides: tuple[int, ...], gap: int, now: tuple[int, ...]
) -> None:
    loose = of_x(*shape, strides=strides)
    assert tightened(loose.tensor_or_fail("x"), loose, SPEC, gap=gap) == now
