"""Which values a tensor gets: tables of recipes by argument, and values planted by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fuzz.case import Plant, Recipe, TensorCase
from fuzz.space.choices import Chooser, Table
from fuzz.spec import ArgSpec


@dataclass(frozen=True)
class Recipes:
    """Recipes of one family: a mean of either sign, and a spread.

    ``ratios`` are |mean|/std, from which the spread follows.
    """

    family: str
    means: tuple[float, ...] = (0.0,)
    spreads: tuple[float, ...] = (1.0,)
    ratios: tuple[float, ...] = ()

    def draw(self, chooser: Chooser) -> Recipe:
        """One of them."""
        mean = chooser.any_of(self.means)
        spread = mean / chooser.any_of(self.ratios) if self.ratios else chooser.any_of(self.spreads)
        return Recipe(self.family, -mean if mean and chooser.chance(0.5) else mean, spread)


RATIOS = (1e1, 1e2, 1e3, 1e4, 1e5)
"""|mean|/std of rows that one-pass variances and forgotten re-masks do not survive."""

# Means stay below float16's largest number, 65504.
_X = Table(
    (18, Recipes("normal", spreads=(1.0, 0.05, 30.0))),
    (18, Recipes("normal", means=(1.0, 10.0, 1000.0, 20000.0), ratios=RATIOS)),
    (7, Recipes("uniform", means=(0.0, 0.5), spreads=(1.0, 100.0))),
    (8, Recipes("outliers")),
    (8, Recipes("constant", means=(0.0, 1.0, 3000.0), spreads=(0.0, 1.0, 2000.0))),
    (3, Recipes("zeros")),
    (5, Recipes("tiny", spreads=(1.0, 8.0, 1000.0))),
    (4, Recipes("subnormal")),
    (5, Recipes("near_overflow", spreads=(1.0, 0.25))),
    (6, Recipes("sorted", means=(0.0, 100.0))),
    (7, Recipes("alternating", means=(0.0, 50.0), spreads=(1.0, 1000.0))),
    (8, Recipes("integers", means=(0.0, 16.0, 1024.0))),
    (3, Recipes("ramp", means=(0.0, 3.0))),
)

_WEIGHT = Table(
    (20, Recipes("constant", means=(1.0,), spreads=(0.0,))),
    (25, Recipes("normal", means=(1.0,), spreads=(0.02, 0.2))),
    (20, Recipes("normal")),
    (6, Recipes("zeros")),
    (12, Recipes("integers")),
    (4, Recipes("outliers")),
    (4, Recipes("alternating")),
    (3, Recipes("tiny", spreads=(1.0, 100.0))),
    (3, Recipes("near_overflow", spreads=(1.0, 1e-3))),
    (3, Recipes("ramp", spreads=(0.25,))),
)

_BIAS = Table(
    (15, Recipes("zeros")),
    (35, Recipes("normal", spreads=(0.1, 1.0, 30.0))),
    (10, Recipes("constant", means=(1.0, 1000.0), spreads=(0.0,))),
    (15, Recipes("integers")),
    (5, Recipes("outliers")),
    (5, Recipes("tiny")),
    (5, Recipes("alternating", spreads=(1.0, 1000.0))),
    (3, Recipes("near_overflow", spreads=(0.5,))),
)

# Sigmoids are 0 below about -88.7 in float32, and exp's relative error grows with |z|.
_GATE = Table(
    (30, Recipes("normal", spreads=(1.0, 4.0))),
    (15, Recipes("normal", spreads=(30.0,))),
    (15, Recipes("uniform", spreads=(20.0, 120.0))),
    (6, Recipes("constant", means=(0.0, 80.0, 100.0), spreads=(0.0, 8.0))),
    (5, Recipes("zeros")),
    (10, Recipes("integers")),
    (5, Recipes("alternating", spreads=(1.0, 60.0))),
    (4, Recipes("outliers")),
    (4, Recipes("tiny")),
    (3, Recipes("sorted", spreads=(30.0,))),
    (2, Recipes("near_overflow")),
)

_SUMMAND = Table(
    (35, Recipes("normal", spreads=(1.0, 0.01, 100.0))),
    (15, Recipes("normal", means=(1.0, 1000.0, 20000.0), ratios=RATIOS)),
    (8, Recipes("uniform", spreads=(1.0, 100.0))),
    (8, Recipes("outliers")),
    (8, Recipes("constant", means=(0.0, 2048.0), spreads=(0.0, 1.0))),
    (6, Recipes("zeros")),
    (10, Recipes("integers")),
    (5, Recipes("alternating", spreads=(1.0, 1000.0))),
    (3, Recipes("tiny")),
    (2, Recipes("subnormal")),
    (3, Recipes("near_overflow", spreads=(0.5,))),
)

# Others have those of a bias or of a summand.
_TABLES = {"x": _X, "weight": _WEIGHT, "z": _GATE}

EPS = Table(
    (8, 0.0),
    (8, 1e-12),
    (14, 1e-6),
    (42, 1e-5),
    (7, 1e-3),
    # Not quite a number of fp32, in which kernels add it.
    (4, 0.1),
    (4, 1 / 3),
    (7, 1.0),
    (6, 1e3),
)

PLANTS = ("nan", "inf", "-inf")

_PLANT_SHARE = 0.12
_PLANT_IN_X_SHARE = 0.7


def recipes_of(arg: ArgSpec) -> Table[Recipes]:
    """The recipes drawn for an argument: by its name, else by its kind."""
    return _TABLES.get(arg.name, _BIAS if arg.shape == "cols" else _SUMMAND)


def fixed_recipes(family: str) -> Table[Recipes]:
    """The recipes of x in one family; of mean 0 and spread 1 where x's table has none."""
    entries = [(weight, r) for weight, r in _X.entries if r.family == family]
    return Table(*entries) if entries else Table((1, Recipes(family)))


def plant(chooser: Chooser, tensors: tuple[TensorCase, ...], n_cols: int) -> tuple[TensorCase, ...]:
    """In some cases, one or two NaN or infinities in one tensor, at the ends of rows or within."""
    if not chooser.chance(_PLANT_SHARE):
        return tensors
    able = [t for t in tensors if t.values is not None and t.n_elements > 0]
    if not able:
        return tensors
    x = [t for t in able if t.name == "x"]
    chosen = chooser.any_of(x if x and chooser.chance(_PLANT_IN_X_SHARE) else able)
    assert chosen.values is not None
    plants = [_plant(chooser, chosen, n_cols)]
    if chooser.chance(0.3):
        plants.append(_plant(chooser, chosen, n_cols))
    planted = replace(chosen, values=replace(chosen.values, plants=tuple(plants)))
    return tuple(planted if t is chosen else t for t in tensors)


def _plant(chooser: Chooser, tensor: TensorCase, n_cols: int) -> Plant:
    cols = n_cols if tensor.n_elements % n_cols == 0 else tensor.n_elements
    rows = tensor.n_elements // cols
    row = chooser.any_of((0, rows - 1, chooser.below(rows)))
    col = chooser.any_of((0, cols - 1, chooser.below(cols)))
    return Plant(row * cols + col, chooser.any_of(PLANTS))
