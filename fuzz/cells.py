"""Feature cells: what is particular about a case, in few enough words to count by.

A cell joins six features: target, dtype of x, how a row ends, layout, value family and flags. A
night shares its effort out by cell, so there must be few enough of them that each can be tried
often: some hundreds a target, some thousands where it has many flags. Classes are therefore
coarser than those of :mod:`fuzz.space.features`, which are counted one by one and never joined.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from fuzz.case import Case, TensorCase, contiguous_strides
from fuzz.space.layouts import layout_classes
from fuzz.spec import TargetSpec
from fuzz.strategies import Budget, Frames, draw_cases

INVALID = "(invalid)"
"""Stands for the dtype of invalid cases, whose family is the refusal they must meet."""

NONE = "-"
"""Stands for a feature that a case does not have."""

SEPARATOR = " | "

_LANE = 16
"""Bytes of a vector access: rows that end inside one are loaded otherwise."""

# One name for families that ask the same of a kernel.
_FAMILIES = {
    "uniform": "normal",
    "zeros": "constant",
    "subnormal": "tiny",
    "near_overflow": "large",
    "outliers": "large",
    "sorted": "pattern",
    "alternating": "pattern",
    "integers": "pattern",
    "ramp": "pattern",
}

# Each is there in two cases of three whatever else a case is: a cell that is tried a few times has
# seen it both ways.
_VECTORS = ("weight", "bias", "input_bias")

SAMPLE = 4000
"""Cases that :func:`all_cells` draws where nothing else is said: one to two seconds."""

_SAMPLE_SEED = 0

FAR = 5.0
"""|mean|/spread from which a row cancels when its mean is subtracted."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A class of cases. ``str(cell)`` is its name wherever it is stored; :meth:`parse` reads it."""

    target: str
    dtype: str
    tail: str
    layout: str
    family: str
    flags: str

    def __str__(self) -> str:
        return SEPARATOR.join(
            (self.target, self.dtype, self.tail, self.layout, self.family, self.flags)
        )

    @classmethod
    def parse(cls, text: str) -> Cell:
        """The cell of a name.

        Raises: ValueError for a text that is no cell's name.
        """
        parts = text.rsplit(SEPARATOR, 5)
        if len(parts) != 6:
            raise ValueError(f"cell={text!r}, must be 6 features joined by {SEPARATOR!r}")
        return cls(*parts)


def cell_of(case: Case) -> Cell:
    """The cell of a case."""
    if case.refusal is not None:
        return Cell(case.target, INVALID, NONE, NONE, case.refusal, NONE)
    if case.n_rows == 0:
        return Cell(case.target, case.dtype, NONE, "no rows", NONE, NONE)
    return Cell(case.target, case.dtype, _tail(case), _layout(case), _family(case), _flags(case))


def _tail(case: Case) -> str:
    """How a row, or a group of it, ends against its block and the lanes of vector accesses."""
    width, block = case.group_size, case.launch.block
    if width == 1:
        return "one column"
    if block is not None and width % block == 0:
        return "block multiple"
    if block is not None and width > block and width % block == 1:
        return "tail 1"
    if width * case.tensor_or_fail("x").itemsize % _LANE == 0:
        return "whole lanes"
    if block is None:
        return "odd lanes"
    return "below one block" if width < block else "tail"


def _layout(case: Case) -> str:
    """The layout of x or, where that is plain, of the first tensor of its shape that is not."""
    if any(tensor.alias_of is not None for tensor in case.tensors):
        return "aliased"
    x = case.tensor_or_fail("x")
    others = (t for t in case.tensors if t is not x and t.shape == case.shape)
    classes = (_layout_class(tensor, case.normalized_ndim) for tensor in (x, *others))
    return next((name for name in classes if name != "contiguous"), "contiguous")


def _layout_class(tensor: TensorCase, n_contiguous: int) -> str:
    if tensor.strides == contiguous_strides(tensor.shape):
        return "offset" if tensor.offset else "contiguous"
    classes = layout_classes(tensor, n_contiguous)
    if "expanded" in classes:
        return "expanded"
    if "permuted" in classes:
        return "permuted"
    if classes & {"row_gap", "outer_gap"}:
        return "strided rows"
    # Strides that nothing is read through.
    return "offset" if tensor.offset else "contiguous"


def _family(case: Case) -> str:
    """The values of x; where NaN or infinities are planted in any tensor, that counts alone."""
    plants = {p.value for t in case.tensors if t.values is not None for p in t.values.plants}
    if "nan" in plants:
        return "any+nan"
    if plants:
        return "any+inf"
    recipe = case.tensor_or_fail("x").values
    if recipe is None:
        return NONE
    if recipe.family == "normal" and abs(recipe.mean) >= FAR * abs(recipe.spread):
        return "far mean"
    return _FAMILIES.get(recipe.family, recipe.family)


def _flags(case: Case) -> str:
    """Flags, and the full-sized inputs beside x, in alphabetical order."""
    gated = case.tensor("z") is not None
    words = [
        tensor.name
        for tensor in case.tensors
        if tensor.values is not None
        and tensor.shape == case.shape
        and tensor.name not in ("x", *_VECTORS)
    ]
    for name, value in case.flags.items():
        if name == "group_size":
            words += ["groups"] if case.n_groups > 1 else []
        elif name != "norm_before_gate" or gated:
            words.append(f"{name}={value}")
    return " ".join(sorted(words)) or NONE


def all_cells(
    spec: TargetSpec, budget: Budget, frames: Frames | None = None, *, count: int = SAMPLE
) -> dict[Cell, int]:
    """How many of ``count`` drawn cases fall in each cell, the most common first.

    Measured by drawing, always the same cases: cells that are rarer than that are not among them.
    """
    cases = draw_cases(spec, seed=_SAMPLE_SEED, count=count, budget=budget, frames=frames)
    drawn = Counter(cell_of(case) for case in cases)
    return dict(sorted(drawn.items(), key=lambda item: (-item[1], str(item[0]))))
