"""Cases with another shape: every tensor follows x and keeps the manner of its layout."""

from __future__ import annotations

import math
from dataclasses import replace

from fuzz.case import Case, Plant, TensorCase, contiguous_strides
from fuzz.spec import ShapeKind, TargetSpec

Dims = tuple[int, ...]


def resized(case: Case, spec: TargetSpec, leading: Dims, normalized: Dims) -> Case:
    """The case with another shape of x, and with as many leading dims.

    The order of the dims in memory, gaps, offsets and expanded dims stay. Planted values stay too:
    in the nearest row and column that is left.
    """
    new = replace(case, shape=leading + normalized, normalized_ndim=len(normalized))
    tensors = []
    for tensor in case.tensors:
        old, now = _dims(tensor, case, spec), _dims_of_kind(_kind(tensor, spec), new)
        tensors.append(_with_dims(tensor, old, now, _strides(tensor, old, now)))
    return replace(new, tensors=tuple(tensors))


def merged(case: Case, spec: TargetSpec) -> Case:
    """The case with all leading dims in one. Where rows had a gap, they keep the smallest one."""
    new = replace(case, shape=(case.n_rows, *case.normalized))
    tensors = []
    for tensor in case.tensors:
        old, now = _dims(tensor, case, spec), _dims_of_kind(_kind(tensor, spec), new)
        strides = contiguous_strides(now[0] + now[1])
        if len(old[0]) > 1 and tensor.strides != contiguous_strides(tensor.shape):
            wide = [s for n, s in zip(old[0], tensor.strides, strict=False) if n > 1]
            steps = [s for s in wide if s > 0]
            # One stride cannot say that some of the dims are expanded: then none is.
            step = min(steps) if steps else (0 if wide else math.prod(now[1]))
            strides = (step, *tensor.strides[len(old[0]) :])
        tensors.append(_with_dims(tensor, old, now, strides))
    return replace(new, tensors=tuple(tensors))


def without_dim(case: Case, spec: TargetSpec, dim: int) -> Case:
    """The case without one leading dim, whose size must be 1."""
    new = replace(case, shape=(*case.shape[:dim], *case.shape[dim + 1 :]))
    tensors = []
    for tensor in case.tensors:
        if _dims(tensor, case, spec)[0]:
            shape = (*tensor.shape[:dim], *tensor.shape[dim + 1 :])
            strides = (*tensor.strides[:dim], *tensor.strides[dim + 1 :])
            tensor = replace(tensor, shape=shape, strides=strides)
        tensors.append(tensor)
    return replace(new, tensors=tuple(tensors))


def tightened(tensor: TensorCase, case: Case, spec: TargetSpec, *, gap: int = 0) -> Dims:
    """Strides with the same order of rows in memory and the same dims expanded, but with ``gap``
    elements between rows and no other gaps."""
    lead, rest = _dims(tensor, case, spec)
    strides, step = list(tensor.strides[: len(lead)]), math.prod(rest) + gap
    for dim in _inner_first(lead, tensor.strides[: len(lead)]):
        if strides[dim] > 0:
            strides[dim] = step
            step *= max(lead[dim], 1)
    return (*strides, *contiguous_strides(rest))


def _kind(tensor: TensorCase, spec: TargetSpec) -> ShapeKind:
    arg = spec.arg(tensor.name)
    return "full" if arg is None else arg.shape


def _dims_of_kind(kind: ShapeKind, case: Case) -> tuple[Dims, Dims]:
    """The dims that count rows as those of x do, and the rest."""
    if kind == "full":
        return case.leading, case.normalized
    if kind == "cols":
        return (), case.normalized
    if kind == "rows":
        return case.leading, ()
    if kind == "rows_keepdim":
        return case.leading, (1,) * case.normalized_ndim
    return (), (case.n_groups * case.n_rows,)


def _dims(tensor: TensorCase, case: Case, spec: TargetSpec) -> tuple[Dims, Dims]:
    """The same of a tensor as it is."""
    by_rows = _kind(tensor, spec) in ("full", "rows", "rows_keepdim")
    rows = len(case.leading) if by_rows else 0
    return tensor.shape[:rows], tensor.shape[rows:]


def _inner_first(shape: Dims, strides: Dims) -> list[int]:
    """The dims in the order of memory, the innermost first."""
    return sorted(range(len(shape)), key=lambda dim: (strides[dim], shape[dim], -dim))


def _strides(tensor: TensorCase, old: tuple[Dims, Dims], new: tuple[Dims, Dims]) -> Dims:
    if tensor.strides == contiguous_strides(tensor.shape):
        return contiguous_strides(new[0] + new[1])
    rows = len(old[0])
    strides = list(tensor.strides[:rows])
    was_filled, filled = math.prod(old[1]), math.prod(new[1])
    for dim in _inner_first(old[0], tensor.strides[:rows]):
        stride, size = tensor.strides[dim], old[0][dim]
        # Nothing is read through the stride of a dim of size 1; that of an expanded dim is 0.
        if size > 1 and stride > 0:
            strides[dim] = filled + max(stride - was_filled, 0)
            was_filled, filled = stride * size, strides[dim] * new[0][dim]
    rest = tensor.strides[rows:] if new[1] == old[1] else contiguous_strides(new[1])
    return (*strides, *rest)


def _with_dims(
    tensor: TensorCase, old: tuple[Dims, Dims], new: tuple[Dims, Dims], strides: Dims
) -> TensorCase:
    changed = replace(tensor, shape=new[0] + new[1], strides=strides)
    if tensor.values is None or not tensor.values.plants or old == new:
        return changed
    old_width, rows, width = math.prod(old[1]), math.prod(new[0]), math.prod(new[1])
    plants: dict[int, Plant] = {}
    for plant in tensor.values.plants if rows * width else ():
        row, column = divmod(plant.index, old_width)
        index = min(row, rows - 1) * width + min(column, width - 1)
        plants.setdefault(index, Plant(index, plant.value))
    return replace(changed, values=replace(tensor.values, plants=tuple(plants.values())))
