"""A case expanded into runs: what is launched, with which rows, layouts and poison.

Each metamorphic relation contributes one run beside the base run. All runs are judged against
the bounds; where two launches are of one specialisation key they owe equal bits as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from fuzz.case import Case, TensorCase, contiguous_strides
from fuzz.verdict import Poison

ROW_KINDS = ("x", "residual", "z", "out", "sum_out")
"""Tensors that have a row for every row of x; all others are shared by the rows."""


@dataclass(frozen=True)
class Run:
    """One launch.

    ``case`` has the run's own shapes and layouts. Row i of the run holds the values of row
    ``rows[i]`` of the base case (None: the same rows). ``drowned`` names the row of the run that
    keeps its values while every other row of every row tensor is set to NaN.
    """

    name: str
    case: Case
    poison: Poison = "nan"
    rows: tuple[int, ...] | None = None
    drowned: int | None = None


def has_rows(tensor: TensorCase, case: Case) -> bool:
    """Whether the tensor has a row for every row of x."""
    return tensor.shape == case.shape and tensor.name in ROW_KINDS


def _dense(tensor: TensorCase) -> TensorCase:
    return dataclasses.replace(tensor, strides=contiguous_strides(tensor.shape), offset=0)


def _unshared(tensor: TensorCase, case: Case) -> TensorCase:
    """A layout in which every row has memory of its own: expanded dims are written out."""
    shared = any(s == 0 and n > 1 for n, s in zip(tensor.shape, tensor.strides, strict=True))
    return _dense(tensor) if shared and has_rows(tensor, case) else tensor


def _map_tensors(case: Case, change: Callable[[TensorCase], TensorCase]) -> Case:
    return dataclasses.replace(case, tensors=tuple(change(t) for t in case.tensors))


def _repeat(case: Case) -> Run:
    return Run("repeat", case)


def _poisoned(case: Case) -> Run:
    """The same launch among other poison. NaN alone is not enough: maxima swallow it."""
    return Run("poisoned", case, poison="huge" if case.seed % 2 else "-huge")


def _contiguous(case: Case) -> Run | None:
    dense = _map_tensors(case, _dense)
    return None if dense.tensors == case.tensors else Run("contiguous", dense)


def _row_alone(case: Case) -> Run | None:
    if case.n_rows < 2:
        return None
    row = case.seed % case.n_rows
    one = (1,) * len(case.leading)

    def only(tensor: TensorCase) -> TensorCase:
        if not has_rows(tensor, case):
            return tensor
        return dataclasses.replace(tensor, shape=one + case.normalized)

    alone = dataclasses.replace(_map_tensors(case, only), shape=one + case.normalized)
    return Run("row_alone", alone, rows=(row,))


def _permuted(case: Case) -> Run | None:
    if case.n_rows < 2:
        return None
    turn = 1 + case.seed % (case.n_rows - 1)
    rows = tuple((turn - i) % case.n_rows for i in range(case.n_rows))
    return Run("permuted", _map_tensors(case, lambda t: _unshared(t, case)), rows=rows)


def _drowned(case: Case) -> Run | None:
    """One row among rows of NaN: nothing of a neighbour may leak into it."""
    if case.n_rows < 2:
        return None
    row = (case.seed // 7) % case.n_rows
    return Run("drowned", _map_tensors(case, lambda t: _unshared(t, case)), drowned=row)


RELATIONS: dict[str, Callable[[Case], Run | None]] = {
    "repeat": _repeat,
    "poisoned": _poisoned,
    "contiguous": _contiguous,
    "row_alone": _row_alone,
    "permuted": _permuted,
    "drowned": _drowned,
}
"""Metamorphic relations by name; each gives a run, or None where it does not apply."""

HOW = {
    "repeat": "when launched again",
    "poisoned": "among other poison",
    "contiguous": "with contiguous tensors",
    "row_alone": "when the row is alone",
    "permuted": "with the rows permuted",
    "drowned": "among rows of NaN",
}
"""What is particular about a run, in words for a message."""


def expand(case: Case) -> tuple[Run, ...]:
    """The base run and one run for each of the case's relations that applies to it.

    Raises: ValueError when the case names a relation that does not exist, or one twice.
    """
    if len(set(case.relations)) != len(case.relations):
        raise ValueError(f"relations={list(case.relations)}, must name each relation once")
    runs = [Run("base", case)]
    for name in case.relations:
        if name not in RELATIONS:
            raise ValueError(f"relation={name!r}, must be one of {', '.join(RELATIONS)}")
        run = RELATIONS[name](case)
        if run is not None:
            runs.append(run)
    return tuple(runs)
