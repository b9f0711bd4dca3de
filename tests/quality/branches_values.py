"""Branches that decide values: families with their means and spreads, planted values, eps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fuzz.case import Case, Plant, Recipe
from tests.quality.branches_readings import own
from tests.quality.branches_samples import (
    FREE,
    GATING,
    LIMITED_EPS,
    ONE_EPS,
    ONE_FAMILY,
    OTHER_ROLES,
    PLAIN,
    SUMMED,
)
from tests.quality.branches_sampling import Branch, Holds, Sample, valid


@dataclass(frozen=True)
class Family:
    """What a family is drawn with: each mean, in both signs, and each spread or |mean|/spread."""

    name: str
    means: tuple[float, ...] = (0,)
    spreads: tuple[float, ...] = (1,)
    ratios: tuple[float, ...] = ()


RATIOS = (1e1, 1e2, 1e3, 1e4, 1e5)

# Written out once more, on purpose: an entry that is lost there must be missed here.
X = (
    Family("normal", spreads=(1, 0.05, 30)),
    Family("normal", means=(1, 10, 1000, 20000), ratios=RATIOS),
    Family("uniform", means=(0, 0.5), spreads=(1, 100)),
    Family("outliers"),
    Family("constant", means=(0, 1, 3000), spreads=(0, 1, 2000)),
    Family("zeros"),
    Family("tiny", spreads=(1, 8, 1000)),
    Family("subnormal"),
    Family("near_overflow", spreads=(1, 0.25)),
    Family("sorted", means=(0, 100)),
    Family("alternating", means=(0, 50), spreads=(1, 1000)),
    Family("integers", means=(0, 16, 1024)),
    Family("ramp", means=(0, 3)),
)
WEIGHT = (
    Family("constant", means=(1,), spreads=(0,)),
    Family("normal", means=(1,), spreads=(0.02, 0.2)),
    Family("normal"),
    Family("zeros"),
    Family("integers"),
    Family("outliers"),
    Family("alternating"),
    Family("tiny", spreads=(1, 100)),
    Family("near_overflow", spreads=(1, 1e-3)),
    Family("ramp", spreads=(0.25,)),
)
BIAS = (
    Family("zeros"),
    Family("normal", spreads=(0.1, 1, 30)),
    Family("constant", means=(1, 1000), spreads=(0,)),
    Family("integers"),
    Family("outliers"),
    Family("tiny"),
    Family("alternating", spreads=(1, 1000)),
    Family("near_overflow", spreads=(0.5,)),
)
GATE = (
    Family("normal", spreads=(1, 4, 30)),
    Family("uniform", spreads=(20, 120)),
    Family("constant", means=(0, 80, 100), spreads=(0, 8)),
    Family("zeros"),
    Family("integers"),
    Family("alternating", spreads=(1, 60)),
    Family("outliers"),
    Family("tiny"),
    Family("sorted", spreads=(30,)),
    Family("near_overflow"),
)
SUMMAND = (
    Family("normal", spreads=(1, 0.01, 100)),
    Family("normal", means=(1, 1000, 20000), ratios=RATIOS),
    Family("uniform", spreads=(1, 100)),
    Family("outliers"),
    Family("constant", means=(0, 2048), spreads=(0, 1)),
    Family("zeros"),
    Family("integers"),
    Family("alternating", spreads=(1, 1000)),
    Family("tiny"),
    Family("subnormal"),
    Family("near_overflow", spreads=(0.5,)),
)

DRAWN = (
    ("x", PLAIN, X),
    ("weight", PLAIN, WEIGHT),
    ("bias", PLAIN, BIAS),
    ("z", GATING, GATE),
    ("residual", SUMMED, SUMMAND),
    ("input_bias", SUMMED, BIAS),
    # Arguments of names that have no table of their own.
    ("dy", OTHER_ROLES, SUMMAND),
    ("dweight", OTHER_ROLES, BIAS),
)


def value_branches() -> Iterator[Branch]:
    for name, sample, families in DRAWN:
        yield from _families(name, sample, families)
    yield Branch("a mean of 0 has no sign", PLAIN, 1, _no_negative_zero)
    yield from _plants()
    yield from _eps()


def recipe(case: Case, name: str) -> Recipe | None:
    tensor = own(case, name)
    return None if tensor is None else tensor.values


def _no_negative_zero(case: Case) -> bool:
    recipes = [tensor.values for tensor in case.tensors if tensor.values is not None]
    return all(recipe.mean or math.copysign(1, recipe.mean) > 0 for recipe in recipes)


def _families(name: str, sample: Sample, families: tuple[Family, ...]) -> Iterator[Branch]:
    def there(case: Case) -> bool:
        return valid(case) and recipe(case, name) is not None

    for family in families:
        for text, is_such in _kinds(family):
            label = f"{name} {family.name}{text}"
            yield Branch(label, sample, 0.002, _such(name, family, is_such), there)


def _such(name: str, family: Family, is_such: Callable[[Recipe], bool]) -> Holds:
    def holds(case: Case) -> bool:
        found = recipe(case, name)
        return (
            found is not None
            and found.family == family.name
            and (found.mean in family.means or -found.mean in family.means)
            and (bool(family.ratios) or found.spread in family.spreads)
            and is_such(found)
        )

    return holds


def _kinds(family: Family) -> Iterator[tuple[str, Callable[[Recipe], bool]]]:
    """What a family may be drawn with, and how it is known."""
    if family.means == (0,) and len(family.spreads) == 1:
        yield "", lambda recipe: True
    for mean in family.means if family.means != (0,) else ():
        for signed in (mean, -mean) if mean else (0,):
            yield f" of mean {signed:g}", lambda recipe, m=signed: recipe.mean == m
    for spread in family.spreads if len(family.spreads) > 1 else ():
        yield f" of spread {spread:g}", lambda recipe, s=spread: recipe.spread == s
    for ratio in family.ratios:
        yield (
            f" of mean {ratio:g} times its spread",
            lambda recipe, r=ratio: math.isclose(abs(recipe.mean), r * abs(recipe.spread)),
        )


def _plants() -> Iterator[Branch]:
    def plants(case: Case) -> list[tuple[str, Plant]]:
        return [
            (tensor.name, plant)
            for tensor in case.tensors
            if tensor.values is not None
            for plant in tensor.values.plants
        ]

    def planted(case: Case) -> bool:
        return valid(case) and bool(plants(case))

    yield Branch("planted values", GATING, 0.08, planted)
    yield Branch("no planted values", GATING, 0.75, lambda c: not planted(c))
    for name, least in (("x", 0.5), ("weight", 0.04), ("bias", 0.04), ("z", 0.02)):
        yield Branch(
            f"planted in {name}", GATING, least, lambda c, n=name: plants(c)[0][0] == n, planted
        )
    yield Branch("planted where there are no rows", GATING, 0.02, planted, _empty)
    for value in ("nan", "inf", "-inf"):
        yield Branch(
            f"planted {value}",
            GATING,
            0.2,
            lambda c, v=value: any(plant.value == v for _, plant in plants(c)),
            planted,
        )
    yield Branch("two planted values", GATING, 0.15, lambda c: len(plants(c)) == 2, planted)
    yield Branch("one planted value", GATING, 0.45, lambda c: len(plants(c)) == 1, planted)

    def end(size: int, place: int) -> str:
        return {0: "first", size - 1: "last"}.get(place, "inner")

    def places(case: Case) -> list[tuple[str, str]]:
        """Row and column of each planted value."""
        found = (divmod(plant.index, case.n_cols) for _, plant in plants(case))
        return [(end(case.n_rows, row), end(case.n_cols, column)) for row, column in found]

    def in_large_rows(case: Case) -> bool:
        """Of so many rows and columns that the ends are not hit by chance."""
        return planted(case) and case.n_rows > 8 and case.n_cols > 8

    for place in ("first", "last", "inner"):
        yield Branch(
            f"planted in the {place} row",
            FREE,
            0.15,
            lambda c, p=place: p in {row for row, _ in places(c)},
            in_large_rows,
        )
        yield Branch(
            f"planted in the {place} column",
            FREE,
            0.15,
            lambda c, p=place: p in {column for _, column in places(c)},
            in_large_rows,
        )
    yield Branch(
        "planted at the start of a later row",
        FREE,
        0.1,
        lambda c: bool({("last", "first"), ("inner", "first")} & set(places(c))),
        in_large_rows,
    )


def _empty(case: Case) -> bool:
    return valid(case) and case.n_rows == 0


def _eps() -> Iterator[Branch]:
    shares = (
        *((0.0, 0.04), (1e-12, 0.04), (1e-6, 0.08), (1e-5, 0.3), (1e-3, 0.04)),
        *((0.1, 0.02), (1 / 3, 0.02), (1.0, 0.04), (1e3, 0.03)),
    )
    for eps, least in shares:
        yield Branch(f"eps {eps:g}", FREE, least, lambda c, e=eps: c.eps == e)
    yield Branch("eps of at least what a target needs", LIMITED_EPS, 1.0, lambda c: c.eps >= 0.05)
    yield Branch("eps 0.1, the least of those", LIMITED_EPS, 0.1, lambda c: c.eps == 0.1)
    yield Branch("eps that a target needs, beyond all others", ONE_EPS, 1.0, lambda c: c.eps == 1e4)
    yield Branch("one family, each of its spreads", ONE_FAMILY, 0.05, _wide_normal)


def _wide_normal(case: Case) -> bool:
    found = recipe(case, "x")
    return found is not None and found.spread == 30
