"""Feature cells: each class is read off the case, and there are few enough of them to count by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fuzz.case import Case, Launch, Plant, Recipe, TensorCase, contiguous_strides
from fuzz.cells import INVALID, Cell, all_cells, cell_of
from fuzz.spec import TargetSpec
from fuzz.strategies import GPU_BUDGET, INTERPRETER_BUDGET, Frames
from tests.fuzz.builders import GATED, LAYER_NORM, NATIVE, RESIDUAL, WHOLE_ROW

SPECS = [replace(spec, refuses=()) for spec in (LAYER_NORM, WHOLE_ROW, NATIVE, RESIDUAL, GATED)]


def tensor(name: str, shape: tuple[int, ...], **how: Any) -> TensorCase:
    usual = TensorCase(name, "float32", shape, contiguous_strides(shape), 0, Recipe("normal"))
    return replace(usual, **how)


def case_of(
    shape: tuple[int, ...] = (4, 100),
    *others: TensorCase,
    launch: Launch | None = None,
    flags: dict[str, Any] | None = None,
    **x: Any,
) -> Case:
    return Case(
        "target",
        shape,
        1,
        (tensor("x", shape, **x), *others),
        flags or {},
        1e-5,
        launch or Launch(64, 4, True),
        1,
    )


def test_cell_is_read_back_from_its_name() -> None:
    cell = cell_of(case_of(flags={"is_rms_norm": True}))
    assert str(cell) == "target | float32 | whole lanes | contiguous | normal | is_rms_norm=True"
    assert Cell.parse(str(cell)) == cell


def test_cell_of_a_target_with_bars_in_its_name_is_read_back() -> None:
    cell = replace(cell_of(case_of()), target="a | b.py:c")
    assert Cell.parse(str(cell)) == cell


def test_cell_refuses_other_texts() -> None:
    with pytest.raises(ValueError, match=r"cell='a \| b', must be 6 features"):
        Cell.parse("a | b")


@pytest.mark.parametrize(
    ("width", "dtype", "block", "tail"),
    [
        (1, "float32", 64, "one column"),
        (1, "float32", 1, "one column"),
        (64, "float32", 64, "block multiple"),
        (192, "float16", 64, "block multiple"),
        (65, "float32", 64, "tail 1"),
        (129, "bfloat16", 64, "tail 1"),
        (67, "float32", 64, "tail"),
        (63, "float32", 64, "below one block"),
        (68, "float32", 64, "whole lanes"),
        (68, "float16", 64, "tail"),
        (72, "float16", 64, "whole lanes"),
        (60, "float32", 64, "whole lanes"),
        (65, "float32", None, "odd lanes"),
        (64, "float32", None, "whole lanes"),
    ],
)
def test_tail_is_how_a_row_ends(width: int, dtype: str, block: int | None, tail: str) -> None:
    launch = Launch(block, 4, True) if block else Launch(config=0)
    assert cell_of(case_of((4, width), launch=launch, dtype=dtype)).tail == tail


def test_tail_is_that_of_a_group() -> None:
    cell = cell_of(case_of((4, 195), flags={"group_size": 65}))
    assert (cell.tail, cell.flags) == ("tail 1", "groups")
    assert cell_of(case_of((4, 195), flags={"group_size": 195})).flags == "-"


@pytest.mark.parametrize(
    ("x", "layout"),
    [
        ({}, "contiguous"),
        ({"offset": 3}, "offset"),
        ({"strides": (600, 107, 1)}, "strided rows"),
        ({"strides": (301, 100, 1)}, "strided rows"),
        ({"strides": (100, 200, 1)}, "permuted"),
        ({"strides": (0, 100, 1), "offset": 3}, "expanded"),
    ],
)
def test_layout_is_that_of_x(x: dict[str, Any], layout: str) -> None:
    assert cell_of(case_of((2, 3, 100), **x)).layout == layout


def test_layout_of_a_dim_of_size_1_is_contiguous_whatever_its_stride() -> None:
    assert cell_of(case_of((1, 3, 100), strides=(7, 100, 1))).layout == "contiguous"


def test_layout_is_that_of_another_tensor_where_x_is_plain() -> None:
    strided = tensor("out", (2, 3, 100), strides=(600, 107, 1), values=None)
    expanded = tensor("z", (2, 3, 100), strides=(0, 100, 1))
    assert cell_of(case_of((2, 3, 100), strided, expanded)).layout == "strided rows"
    assert cell_of(case_of((2, 3, 100), expanded, strided, offset=1)).layout == "offset"


def test_layout_is_aliased_where_an_output_is_an_input() -> None:
    out = tensor("out", (4, 100), values=None, alias_of="x", strides=(107, 1))
    assert cell_of(case_of((4, 100), out, strides=(107, 1))).layout == "aliased"


@pytest.mark.parametrize(
    ("recipe", "family"),
    [
        (Recipe("normal"), "normal"),
        (Recipe("normal", 1000.0, 100.0), "far mean"),
        (Recipe("normal", -1000.0, 0.1), "far mean"),
        (Recipe("normal", 1.0, 1.0), "normal"),
        (Recipe("zeros"), "constant"),
        (Recipe("near_overflow"), "large"),
        (Recipe("sorted", 100.0), "pattern"),
        (Recipe("normal", plants=(Plant(3, "inf"), Plant(4, "nan"))), "any+nan"),
        (Recipe("sorted", plants=(Plant(3, "-inf"),)), "any+inf"),
    ],
)
def test_family_is_what_the_values_ask_of_a_kernel(recipe: Recipe, family: str) -> None:
    assert cell_of(case_of(values=recipe)).family == family


def test_family_counts_what_is_planted_in_any_tensor() -> None:
    weight = tensor("weight", (100,), values=Recipe("normal", plants=(Plant(0, "inf"),)))
    assert cell_of(case_of((4, 100), weight)).family == "any+inf"


def test_flags_name_large_inputs_and_leave_out_what_changes_nothing() -> None:
    flags = {"norm_before_gate": True, "is_rms_norm": False}
    z, weight = tensor("z", (4, 100)), tensor("weight", (100,))
    assert cell_of(case_of((4, 100), weight, flags=flags)).flags == "is_rms_norm=False"
    gated = cell_of(case_of((4, 100), z, weight, flags=flags))
    assert gated.flags == "is_rms_norm=False norm_before_gate=True z"
    # A vector has the shape of an x of rank 1.
    assert cell_of(case_of((100,), tensor("weight", (100,)))).flags == "-"


def test_invalid_cases_are_counted_by_what_they_must_be_refused_for() -> None:
    cell = cell_of(replace(case_of(), refusal="x_int64"))
    assert cell == Cell("target", INVALID, "-", "-", "x_int64", "-")


def test_empty_batches_are_one_cell_a_dtype() -> None:
    x = {"values": Recipe("sorted"), "offset": 0}
    cell = cell_of(case_of((0, 100), launch=Launch(32, 4, True), **x))
    assert cell == Cell("target", "float32", "-", "no rows", "-", "-")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_cells_are_few_enough_to_be_tried_often(spec: TargetSpec) -> None:
    cells = all_cells(spec, INTERPRETER_BUDGET, count=2000)
    assert sum(cells.values()) == 2000
    half, reached = 0, 0
    while reached < 1000:
        reached += list(cells.values())[half]
        half += 1
    # Half of all cases are in some hundred cells, or cells would be another name for cases.
    assert half <= (900 if spec.name == "layernorm_fn" else 150)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_cells_of_drawn_cases_have_names_that_are_read_back(spec: TargetSpec) -> None:
    for cell in all_cells(spec, GPU_BUDGET, Frames(1, 12), count=300):
        assert Cell.parse(str(cell)) == cell
        assert cell.target == spec.name


def test_all_cells_are_the_same_each_time_and_the_most_common_first() -> None:
    first, again = (all_cells(SPECS[0], INTERPRETER_BUDGET, count=500) for _ in range(2))
    assert list(first.items()) == list(again.items())
    assert list(first.values()) == sorted(first.values(), reverse=True)


def test_all_cells_see_every_class_of_each_feature() -> None:
    cells = all_cells(SPECS[0], INTERPRETER_BUDGET, count=3000)
    seen = {name: {getattr(cell, name) for cell in cells} for name in ("dtype", "tail", "layout")}
    assert seen["dtype"] == {"float32", "bfloat16", "float16"}
    assert seen["tail"] == {
        *("-", "one column", "below one block", "block multiple", "tail 1", "tail", "whole lanes"),
    }
    assert seen["layout"] == {
        *("no rows", "contiguous", "offset", "strided rows", "permuted", "expanded", "aliased"),
    }
    assert {cell.family for cell in cells} == {
        *("-", "normal", "far mean", "constant", "tiny", "large", "pattern"),
        *("any+nan", "any+inf"),
    }
