"""``--fix NAME=VALUE``: dimensions of a target's space narrowed to one value each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from fuzz.inputs import FAMILIES
from fuzz.relations import RELATIONS
from fuzz.space.refusals import declared_refusals
from fuzz.spec import FlagValue, TargetSpec

FIXABLE: dict[str, str] = {
    "n_cols": "columns of a row",
    "n_rows": "rows: the product of the leading dims",
    "rank": "dims of x",
    "normalized_ndim": "how many of them are normalized",
    "dtype": "that of x",
    "group_size": "columns of a group, or none",
    "eps": "a number",
    "family": "how the values of x are made",
    "layout": "contiguous: no gaps, offsets, permuted or expanded dims",
    "block": "columns of one step",
    "num_warps": "warps of a program",
    "fp_fusion": "whether a product and a sum may become one FMA",
    "config": "index of an autotuner's configuration",
    "relation": "the one that is tried, beside poisoned",
    "refusal": "the only class of invalid cases, or none",
}
"""Dimensions by name; each flag of a target is one more."""


def check_fixes(spec: TargetSpec, fixes: dict[str, str]) -> dict[str, FlagValue]:
    """The values that texts such as ``n_cols=4097`` stand for, for :meth:`TargetSpec.fixed`.

    Raises: ValueError naming the dimension, its value and the rule, for a name that is not known,
    a value that the target does not support, or values that exclude each other.
    """
    values = {name: _Text(spec, name, text).read() for name, text in fixes.items()}
    own = dict(spec.space.fixed)
    for name, value in values.items():
        if name in own and own[name] != value:
            raise _error(spec, name, value, f"{own[name]}: the target takes no other")
    _check_together(spec, {**own, **values})
    return values


def _error(spec: TargetSpec, name: str, value: object, rule: str) -> ValueError:
    return ValueError(f"{name}={value}, must be {rule} [{spec.name}]")


class _Text:
    """The text of one value, read by the rules of its dimension."""

    def __init__(self, spec: TargetSpec, name: str, text: str) -> None:
        self._spec, self._name, self._text = spec, name, text.strip()

    def read(self) -> FlagValue:
        """The value.

        Raises: ValueError.
        """
        space, launch = self._spec.space, self._spec.launch
        readers: dict[str, Callable[[], FlagValue]] = {
            "n_cols": lambda: self._integer(1, space.max_cols),
            "n_rows": lambda: self._integer(0 if space.empty_batch else 1),
            "rank": lambda: self._integer(space.min_rank, space.max_rank),
            "normalized_ndim": lambda: self._integer(1, space.max_normalized_dims),
            "dtype": self._dtype,
            "group_size": self._group_size,
            "eps": self._eps,
            "family": lambda: self._one_of(FAMILIES),
            "layout": lambda: self._one_of(("contiguous",)),
            "block": lambda: self._one_of(launch.blocks),
            "num_warps": lambda: self._one_of(() if launch.configs else launch.num_warps),
            "fp_fusion": lambda: self._one_of(launch.fp_fusion),
            "config": lambda: self._one_of(range(len(launch.configs))),
            "relation": lambda: self._one_of(RELATIONS),
            "refusal": lambda: self._one_of(["none", *(r.name for r in self._spec.refuses)]),
        }
        if self._name in readers:
            return readers[self._name]()
        flag = self._spec.flag(self._name)
        if flag is not None:
            return self._one_of(flag.choices)
        names = dict.fromkeys((*FIXABLE, *(f.name for f in self._spec.flags)))
        raise ValueError(
            f"{self._name} is no dimension, must be one of {', '.join(names)} [{self._spec.name}]"
        )

    def _error(self, rule: str) -> ValueError:
        return _error(self._spec, self._name, self._text, rule)

    def _one_of(self, allowed: Iterable[FlagValue]) -> FlagValue:
        """The choice that the text spells, numbers by value."""
        choices = tuple(allowed)
        if not choices:
            raise self._error("left alone: the target has no such choice")
        for choice in choices:
            if str(choice).lower() == self._text.lower():
                return choice
        number = _number(self._text)
        for choice in choices:
            if isinstance(choice, float) and choice == number:
                return choice
        raise self._error(f"one of {', '.join(map(str, choices))}")

    def _integer(self, low: int, high: int | None = None) -> int:
        rule = f"an integer >= {low}" if high is None else f"an integer in {low} ... {high}"
        number = _number(self._text)
        if number is None or not number.is_integer() or number < low:
            raise self._error(rule)
        if high is not None and number > high:
            raise self._error(rule)
        return int(number)

    def _dtype(self) -> FlagValue:
        x = self._spec.arg("x")
        return self._one_of(() if x is None else x.dtypes)

    def _eps(self) -> FlagValue:
        value, least = _number(self._text), self._spec.space.min_eps
        if value is None or value < least:
            raise self._error(f"a finite number >= {least:g}")
        return value

    def _group_size(self) -> FlagValue:
        flag = self._spec.flag("group_size")
        if flag is None:
            raise self._error("left alone: the target has no such choice")
        if len(flag.choices) == 1 and flag.choices[0] is not None:
            return self._one_of(flag.choices)
        if self._text.lower() == "none":
            return None
        return self._integer(1, self._spec.space.max_cols)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _check_together(spec: TargetSpec, fixed: dict[str, FlagValue]) -> None:
    """Refuse values of which each is supported, but not all at once."""
    n_cols, group_size = fixed.get("n_cols"), fixed.get("group_size")
    if isinstance(n_cols, int) and isinstance(group_size, int) and n_cols % group_size:
        raise _error(spec, "group_size", group_size, f"a divisor of n_cols={n_cols}")
    space = spec.space
    dims, rank, n_rows = (fixed.get(name) for name in ("normalized_ndim", "rank", "n_rows"))
    least = dims if isinstance(dims, int) else 1
    most = rank if isinstance(rank, int) else space.max_rank
    if most < least:
        raise _error(spec, "rank", most, f"at least normalized_ndim={least}")
    if n_rows not in (None, 1) and most <= least:
        raise _error(spec, "n_rows", n_rows, f"1 where all of rank={most} dims are normalized")
    if spec.launch.whole_row and spec.launch.blocks:
        block = fixed.get("block", max(spec.launch.blocks))
        assert isinstance(block, int)
        if isinstance(n_cols, int) and n_cols > block:
            raise _error(spec, "n_cols", n_cols, f"at most block={block}, which holds a whole row")
    refusal = fixed.get("refusal")
    if refusal not in (None, "none") and not declared_refusals(spec.fixed(fixed)):
        others = ", ".join(name for name in fixed if name != "refusal")
        raise _error(spec, "refusal", refusal, f"one that does not change what is fixed ({others})")
