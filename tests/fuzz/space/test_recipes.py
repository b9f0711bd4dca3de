"""Recipes and planted values by themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from fuzz.case import Recipe, TensorCase, contiguous_strides
from fuzz.space.choices import Chooser
from fuzz.space.recipes import Recipes, fixed_recipes, plant, recipes_of
from fuzz.spec import ArgSpec

VALUES = Recipe("normal", 0.0, 1.0)


def tensor(name: str, *shape: int, values: Recipe | None = VALUES) -> TensorCase:
    return TensorCase(name, "float32", shape, contiguous_strides(shape), 0, values)


def planted(*tensors: TensorCase, n_cols: int, count: int = 4000) -> Counter[tuple[str, int]]:
    """How often each element of each tensor has a value planted."""
    chooser, found = Chooser(2), Counter[tuple[str, int]]()
    for _ in range(count):
        for each in plant(chooser, tensors, n_cols):
            plants = each.values.plants if each.values is not None else ()
            found.update((each.name, one.index) for one in plants)
    return found


def test_plants_are_at_the_ends_of_rows_or_within() -> None:
    found = planted(tensor("x", 20, 30), n_cols=30, count=20_000)
    rows, cols = Counter[int](), Counter[int]()
    for (_, index), number in found.items():
        rows[index // 30] += number
        cols[index % 30] += number
    assert set(rows) == set(range(20))
    assert set(cols) == set(range(30))
    for counts in (rows, cols):
        last = max(counts)
        for end in (0, last):
            assert counts[end] / counts.total() == pytest.approx(1 / 3, abs=0.05)


def test_plants_of_one_row_of_statistics_lie_in_it() -> None:
    """A tensor that is no whole number of rows of x is one row by itself."""
    found = planted(tensor("mean", 7), n_cols=30, count=20_000)
    assert {index for _, index in found} == set(range(7))


def test_plants_are_in_x_above_all_and_in_few_cases() -> None:
    tensors = (tensor("x", 4, 8), tensor("weight", 8), tensor("out", 4, 8, values=None))
    chooser = Chooser(3)
    drawn = [plant(chooser, tensors, 8) for _ in range(8000)]
    changed = [[a.name for a, b in zip(now, tensors, strict=True) if a != b] for now in drawn]
    assert all(len(names) < 2 for names in changed)
    names = Counter(name for each in changed for name in each)
    assert set(names) == {"x", "weight"}
    assert names.total() / 8000 == pytest.approx(0.12, abs=0.015)
    assert names["x"] / names.total() == pytest.approx(0.85, abs=0.05)
    two = sum(len(t.values.plants) == 2 for now in drawn for t in now if t.values is not None)
    assert two / names.total() == pytest.approx(0.3, abs=0.06)


def test_plants_leave_alone_what_has_no_elements() -> None:
    found = planted(tensor("x", 0, 8), tensor("weight", 8), n_cols=8)
    assert {name for name, _ in found} == {"weight"}
    assert planted(tensor("x", 0, 8), tensor("out", 4, 8, values=None), n_cols=8) == Counter()


def test_recipes_of_an_argument_go_by_its_name_and_else_by_its_kind() -> None:
    tables = {
        name: recipes_of(ArgSpec(name, shape=kind))
        for name, kind in (
            *(("x", "full"), ("weight", "cols"), ("bias", "cols"), ("z", "full")),
            *(("residual", "full"), ("input_bias", "cols"), ("dy", "full"), ("mean", "rows")),
        )
    }
    assert tables["bias"] is tables["input_bias"]
    assert tables["residual"] is tables["dy"]
    assert tables["residual"] is tables["mean"]
    assert len({id(table) for table in tables.values()}) == 5


def test_recipes_of_one_family_are_those_of_x() -> None:
    assert [r.means for r in fixed_recipes("normal").values] == [(0.0,), (1.0, 10.0, 1e3, 2e4)]
    assert fixed_recipes("zeros").values == (Recipes("zeros"),)
    assert fixed_recipes("of the user").values == (Recipes("of the user"),)


def test_recipe_of_a_ratio_has_its_spread() -> None:
    chooser = Chooser(1)
    recipes = Recipes("normal", means=(3.0,), spreads=(5.0,), ratios=(1.5,))
    assert {(abs(r.mean), abs(r.spread)) for r in (recipes.draw(chooser) for _ in range(50))} == {
        (3.0, 2.0)
    }
    signs = Counter(recipes.draw(chooser).mean for _ in range(1000))
    assert signs[-3.0] / 1000 == pytest.approx(0.5, abs=0.06)
    plain = replace(recipes, ratios=())
    assert plain.draw(chooser).spread == 5.0
