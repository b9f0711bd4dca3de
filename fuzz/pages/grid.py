"""Which feature cells were tried, how often, and how near to the bound each class came."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from fuzz.cells import INVALID, NONE, SEPARATOR, Cell
from fuzz.jobs.totals import CellSum
from fuzz.pages import words

LISTED = 12
"""Cells of a list: what a reader looks at one by one."""

MOST_CLASSES = 16
"""Columns of one feature."""

MOST_ROWS = 80

MOST_WORDS = 160
"""Characters of a listed cell."""

LEVELS = (3, 10, 100)
"""A shade less for a class that was tried by such factors less than the fullest."""

HOT = 2.0
"""By how much the share of failing cases exceeds that of the row where failures sit."""


@dataclass(frozen=True)
class Field:
    """One field as it is shown; ``state`` is tried, failed, hot, never or none (no such cases).

    hot: cases fail much more often than elsewhere in the row.
    """

    state: str
    level: int = 0
    tried: str = ""
    worst: str = ""
    title: str = ""


@dataclass(frozen=True)
class Row:
    """A target and dtype."""

    target: str
    dtype: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Column:
    """A class of a feature; ``first``: a feature begins here."""

    feature: str
    name: str
    first: bool


@dataclass(frozen=True)
class Grid:
    """Rows of targets and dtypes, columns of classes; some may be left out of either."""

    features: tuple[tuple[str, int], ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    columns_left_out: int
    rows_left_out: int

    def by_target(self) -> list[tuple[str, list[Row]]]:
        """The rows of each target, in their order."""
        groups = itertools.groupby(self.rows, lambda row: row.target)
        return [(target, list(rows)) for target, rows in groups]


@dataclass(frozen=True)
class Listed:
    """A cell of a list: its features in words, and its numbers."""

    target: str
    name: str
    tried: str
    failed: int
    worst: str


@dataclass(frozen=True)
class Cells:
    """All that is said of cells. The lists hold the first LISTED of each kind."""

    tried: int
    never: int
    valid: Grid
    refusals: Grid
    least: tuple[Listed, ...]
    nearest: tuple[Listed, ...]


_Counts = dict[tuple[str, str, str], CellSum]
"""The cells of one feature's classes: sums by target, dtype and class."""

_Named = list[tuple[Cell, CellSum]]


def cells_of(cells: Mapping[str, CellSum], targets: Sequence[str]) -> Cells:
    """The cells of these targets, counted by class."""
    named = [(_cell(text), sums) for text, sums in cells.items()]
    named = [(cell, sums) for cell, sums in named if cell.target in targets]
    valid = [(cell, sums) for cell, sums in named if cell.dtype != INVALID]
    tried = sum(1 for _, sums in named if sums.executed)
    # Half-precision results are near to their bound whatever the kernel.
    single = [
        (cell, sums)
        for cell, sums in valid
        if cell.dtype == "float32" and sums.executed and not sums.failed
    ]
    return Cells(
        tried=tried,
        never=len(named) - tried,
        valid=_grid(valid, targets, ("tail", "layout", "family")),
        refusals=_grid([pair for pair in named if pair[0].dtype == INVALID], targets, ("family",)),
        least=_listed(sorted(valid, key=lambda pair: (pair[1].executed, str(pair[0])))),
        nearest=_listed(sorted(single, key=lambda pair: (-pair[1].worst, str(pair[0])))),
    )


def _cell(text: str) -> Cell:
    # A target's own name may hold the separator.
    return Cell(*text.rsplit(SEPARATOR, 5))


def _grid(cells: _Named, targets: Sequence[str], features: Sequence[str]) -> Grid:
    known: dict[str, _Counts] = {feature: {} for feature in features}
    for cell, sums in cells:
        for feature in features:
            name = getattr(cell, feature)
            if name != NONE:
                key = (cell.target, cell.dtype, name)
                known[feature].setdefault(key, CellSum()).merge(sums)
    names = {feature: _names(known[feature]) for feature in features}
    columns = tuple(
        Column(feature, name, index == 0)
        for feature in features
        for index, name in enumerate(names[feature][:MOST_CLASSES])
    )
    most = max((s.executed for counts in known.values() for s in counts.values()), default=0)
    whole: dict[tuple[str, str], CellSum] = {}
    for cell, sums in cells:
        whole.setdefault((cell.target, cell.dtype), CellSum()).merge(sums)
    shares = {pair: _share(sums) for pair, sums in whole.items()}
    rows = tuple(
        Row(
            target,
            dtype,
            tuple(
                _field(known[c.feature], target, dtype, c.name, most, shares[target, dtype])
                for c in columns
            ),
        )
        for target, dtype in sorted(whole, key=lambda p: (targets.index(p[0]), p[1]))[:MOST_ROWS]
    )
    return Grid(
        tuple((f, min(len(names[f]), MOST_CLASSES)) for f in features if names[f]),
        columns,
        rows,
        columns_left_out=sum(len(names[f]) for f in features) - len(columns),
        rows_left_out=len(whole) - len(rows),
    )


def _names(counts: _Counts) -> list[str]:
    """Classes, those of the most cases first."""
    cases: Counter[str] = Counter()
    for (_, _, name), sums in counts.items():
        cases[name] += sums.executed
    return sorted(cases, key=lambda name: (-cases[name], name))


def _field(counts: _Counts, target: str, dtype: str, name: str, most: int, usual: float) -> Field:
    sums = counts.get((target, dtype, name))
    # What another dtype of the target has, this one should have too.
    due = any(t == target and n == name for t, _, n in counts)
    return field_of(name, sums, most, usual) if sums or due else Field("none")


def field_of(name: str, sums: CellSum | None, most: int, usual: float) -> Field:
    """The field of a class that should be tried.

    ``most``: the cases of the fullest field; ``usual``: the share of failing cases in its row.
    """
    if sums is None or not sums.executed:
        return Field("never", title=f"{name}: never tried")
    failed = f", {words.number(sums.failed)} failed" if sums.failed else ""
    worst = words.ratio(sums.worst, 2)
    state = "hot" if _share(sums) > HOT * usual else "failed"
    return Field(
        state if sums.failed else "tried",
        _level(sums.executed, most),
        words.short(sums.executed),
        worst,
        f"{name}: {words.plural(sums.executed, 'case')}{failed}, largest error/bound {worst}",
    )


def _share(sums: CellSum) -> float:
    return sums.failed / sums.executed if sums.executed else 0.0


def _level(executed: int, most: int) -> int:
    """The shade of a count, 1 ... 4."""
    return 1 + sum(executed * factor >= most for factor in LEVELS)


def _listed(cells: _Named) -> tuple[Listed, ...]:
    return tuple(
        Listed(
            cell.target,
            words.clipped(", ".join(f for f in astuple(cell)[1:] if f != NONE), MOST_WORDS),
            words.number(sums.executed),
            sums.failed,
            words.ratio(sums.worst) if sums.executed else words.NOTHING,
        )
        for cell, sums in cells[:LISTED]
    )
