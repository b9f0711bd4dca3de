"""The map of a failure shows where the wrong elements sit."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fuzz.case import Case, Recipe
from fuzz.jobs.maps import (
    MAX_COLS,
    MAX_ROWS,
    FailureMap,
    Latest,
    Witnessed,
    from_data,
    map_of,
    to_data,
)
from fuzz.spec import TargetSpec
from fuzz.verdict import Bits, Finding, Observation
from oracle.formats import decode, encode
from tests.fuzz.builders import LAYER_NORM, NATIVE, Fault, edited, make_case, observe, poison_of


def map_with(
    spec: TargetSpec, case: Case, fault: Fault, check: str, output: str, run: str = "base"
) -> FailureMap | None:
    _, values, seen = observe(spec, case, fault)
    evidence = Witnessed(spec, case, values, seen).evidence(interpreted=True)
    return map_of(evidence, Finding(check, run, output, "", ratio=7.0))


def change_of(name: str, change: Any, run_name: str | None = None) -> Fault:
    """A fault that changes the values of an output, in one run or in all."""

    def fault(run: Any, seen: Observation) -> Observation:
        if run_name not in (None, run.name):
            return seen

        def in_bits(bits: npt.NDArray[Any]) -> None:
            values = decode(bits, "float32")
            change(values)
            bits[...] = encode(values, "float32")

        return edited(seen, name, in_bits)

    return fault


def add_at(where: Any, amount: float = 1.0) -> Any:
    def change(values: npt.NDArray[Any]) -> None:
        values[where] += amount

    return change


def patch_of(index: int, size: int, patches: int) -> int:
    return sum(patch * size // patches <= index for patch in range(patches)) - 1


def test_map_of_a_small_case_has_every_element() -> None:
    case = make_case(LAYER_NORM, (3, 20), absent=("out",))
    fault = change_of("y", add_at((1, slice(17, None))))
    found = map_with(LAYER_NORM, case, fault, "values_within_bound", "y")
    assert found is not None
    assert (found.rows, found.cols, found.block) == (3, 20, case.launch.block)
    assert found.about == f"y of case {case.case_id}"
    wrong = np.array(found.grid) > 1
    assert wrong.shape == (3, 20)
    assert np.argwhere(wrong).tolist() == [[1, 17], [1, 18], [1, 19]]


def test_map_of_a_large_case_keeps_the_largest_of_each_patch() -> None:
    rows, cols = 3 * MAX_ROWS + 1, 10 * MAX_COLS + 5
    case = make_case(LAYER_NORM, (rows, cols), absent=("out",))

    def change(values: npt.NDArray[Any]) -> None:
        values[0, 0] += 1.0
        values[-1, -1] += 100.0
        values[rows // 2, 700] = math.nan

    found = map_with(LAYER_NORM, case, change_of("y", change), "values_within_bound", "y")
    assert found is not None
    grid = np.array(found.grid)
    assert grid.shape == (MAX_ROWS, MAX_COLS)
    row, column = patch_of(rows // 2, rows, MAX_ROWS), patch_of(700, cols, MAX_COLS)
    assert {tuple(place) for place in np.argwhere(grid > 1)} == {
        (0, 0),
        (MAX_ROWS - 1, MAX_COLS - 1),
        (row, column),
    }
    assert grid[row, column] == math.inf
    assert grid[-1, -1] > 50 * grid[0, 0]
    assert len(json.dumps(to_data(found), separators=(",", ":"))) < 20_000


def test_map_of_a_fault_just_beyond_its_bound_does_not_look_right() -> None:
    # Far from zero the bound is thousands of places wide, and one place beyond it is very near.
    far = Recipe("normal", mean=1000.0)
    case = make_case(LAYER_NORM, (1, 8), absent=("out", "weight", "bias"), values={"x": far})
    _, values, seen = observe(LAYER_NORM, case)
    evidence = Witnessed(LAYER_NORM, case, values, seen).evidence(interpreted=True)
    expected = evidence.judged[0].expected
    beyond = np.nextafter(np.float32(expected.high[0, 3]), np.float32(np.inf))

    def change(y: npt.NDArray[Any]) -> None:
        y[0, 3] = beyond

    found = map_with(LAYER_NORM, case, change_of("y", change), "values_within_bound", "y")
    assert found is not None
    assert found.grid[0][3] > 1.0


def test_map_shows_what_was_never_written() -> None:
    case = make_case(LAYER_NORM, (2, 8), absent=("out",), relations=("poisoned",))

    def fault(run: Any, seen: Observation) -> Observation:
        def leave(bits: npt.NDArray[Any]) -> None:
            bits[1, 5:] = poison_of(run, "float32")

        return edited(seen, "y", leave)

    found = map_with(LAYER_NORM, case, fault, "outputs_fully_written", "y")
    assert found is not None
    assert np.argwhere(np.array(found.grid) == math.inf).tolist() == [[1, 5], [1, 6], [1, 7]]


def test_map_shows_bits_that_differ_between_runs() -> None:
    case = make_case(LAYER_NORM, (2, 8), absent=("out",), relations=("repeat",))

    def fault(run: Any, seen: Observation) -> Observation:
        def next_up(bits: npt.NDArray[Any]) -> None:
            bits[0, 2] += 1

        return edited(seen, "y", next_up) if run.name == "repeat" else seen

    found = map_with(LAYER_NORM, case, fault, "repeatable", "y", "repeat")
    assert found is not None
    assert found.about.endswith("when launched again")
    assert np.argwhere(np.array(found.grid) > 1).tolist() == [[0, 2]]


def test_map_shows_rows_that_owe_nothing_as_not_compared() -> None:
    rows = 2 * MAX_ROWS
    case = make_case(LAYER_NORM, (rows, 8), absent=("out",), relations=("drowned",))

    def other_key(run: Any, seen: Observation) -> Observation:
        seen = replace(seen, key=(run.name,))
        return change_of("y", add_at(..., 1.0), "drowned")(run, seen)

    found = map_with(LAYER_NORM, case, other_key, "values_within_bound", "y", "drowned")
    assert found is not None
    grid = np.array(found.grid)
    # The one row that owes something, though it shares a patch with one that does not.
    (kept,) = np.flatnonzero(~np.isnan(grid).all(axis=1))
    assert (grid[kept] > 1).all()


def test_map_of_a_statistic_has_a_column_for_each_row() -> None:
    case = make_case(NATIVE, (5, 40))
    fault = change_of("mean", add_at((3, 0)))
    found = map_with(NATIVE, case, fault, "values_within_bound", "mean")
    assert found is not None
    assert (found.rows, found.cols) == (5, 1)
    assert [line[0] > 1 for line in found.grid] == [False, False, False, True, False]


def test_map_shows_rows_that_no_statistics_explain() -> None:
    # Each element may lie as far off as the mean may, but not all of a row alike.
    far = Recipe("normal", mean=1000.0)
    case = make_case(LAYER_NORM, (4, 96), absent=("out",), values={"x": far})

    def change(y: npt.NDArray[Any]) -> None:
        y[2] *= 1.000005

    found = map_with(LAYER_NORM, case, change_of("y", change), "statistics_consistent", "y")
    assert found is not None
    grid = np.array(found.grid)
    assert (grid[2] == 7.0).all()
    assert (np.delete(grid, 2, axis=0) <= 1.0).all()


@pytest.mark.parametrize(("output", "run"), [("", "base"), ("y", "repeat"), ("weight", "base")])
def test_map_needs_elements_of_an_output(output: str, run: str) -> None:
    case = make_case(LAYER_NORM, (2, 8), absent=("out",))
    fault = change_of("y", add_at(...))
    assert map_with(LAYER_NORM, case, fault, "survived", output, run) is None


def test_map_of_what_is_right_is_none() -> None:
    case = make_case(LAYER_NORM, (2, 8), absent=("out",))
    fault = change_of("y", add_at(..., 0.0))
    assert map_with(LAYER_NORM, case, fault, "values_within_bound", "y") is None


def test_map_comes_back_from_its_data() -> None:
    grid = ((0.5, math.inf), (math.nan, 1.25e7))
    data = json.loads(json.dumps(to_data(FailureMap(2, 2, grid, None, "y")), allow_nan=False))
    assert data["grid"] == [[0.5, "inf"], [None, 1.25e7]]
    again = from_data(data)
    assert (again.rows, again.cols, again.block, again.about) == (2, 2, None, "y")
    assert np.array_equal(np.array(again.grid), np.array(grid), equal_nan=True)


def test_witness_remembers_the_last_case_alone() -> None:
    latest = Latest()
    cases = [make_case(LAYER_NORM, (2, 8), seed=seed) for seed in (1, 2)]
    nothing: dict[str, Bits] = {}
    assert latest.of(cases[0]) is None
    for case in cases:
        latest(LAYER_NORM, case, nothing, ())
        assert latest.of(case) == Witnessed(LAYER_NORM, case, nothing, ())
    assert latest.of(cases[0]) is None
