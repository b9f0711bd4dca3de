"""Shapes and layouts: leading dims for a number of rows, strides and offsets, and their names."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fuzz.case import TensorCase, contiguous_strides
from fuzz.space.choices import Chooser, Table
from fuzz.space.widths import divisors
from fuzz.spec import ShapeKind

Layout = tuple[tuple[int, ...], int]
"""Strides and storage offset, in elements."""

_LAYOUTS = Table(
    (30, "contiguous"),
    (20, "row_gap"),
    (14, "permuted"),
    (10, "expanded"),
    (10, "outer_gap"),
    (16, "mixed"),
)

# Odd gaps and multiples of 16 lead to different compiled kernels; a gap of a whole row is a slice
# of one tensor that holds two, as x and z often are.
_GAPS = Table((3, 1), (2, 3), (1, 7), (4, 16), (2, 48), (2, 64), (1, 8))
_ROW_SLICE_SHARE = 0.25

# Half-precision tensors are aligned to 16 bytes by multiples of 8, float32 ones by those of 4.
_OFFSETS = Table((50, 0), (8, 1), (6, 3), (4, 7), (4, 2), (4, 4), (8, 8), (8, 16), (8, 64))
_PLAIN_OFFSET_SHARE = 0.2

DEEP = 5
"""Leading dims of more than one element, beyond what kernels walk by themselves as a rule."""

# Other layouts leave some of so many dims to be walked as one.
_DEEP_PERMUTED_SHARE = 0.6

_UNIT_STRIDE_SHARE = 0.5
_SMALL_DIMS = Table((4, 1), (6, 2), (4, 3), (2, 4), (1, 5), (1, 7))


def shape_of(
    kind: ShapeKind, shape: tuple[int, ...], normalized_ndim: int, n_groups: int
) -> tuple[int, ...]:
    """The shape of a tensor of this kind, beside an x of ``shape``."""
    lead = len(shape) - normalized_ndim
    if kind == "full":
        return shape
    if kind == "cols":
        return shape[lead:]
    if kind == "rows":
        return shape[:lead]
    if kind == "rows_keepdim":
        return (*shape[:lead], *[1] * normalized_ndim)
    return (math.prod(shape[:lead]) * n_groups,)


def contiguous_dims(kind: ShapeKind, normalized_ndim: int) -> int:
    """Trailing dims that lie in one run of memory whatever the layout."""
    if kind in ("full", "cols", "rows_keepdim"):
        return normalized_ndim
    return 0 if kind == "rows" else 1


def draw_leading(
    chooser: Chooser, n_dims: int, n_rows: int, *, exactly: bool = False
) -> tuple[int, ...]:
    """Leading dims of about ``n_rows`` rows, not more; size 1 is common among them."""
    left = n_rows
    dims: list[int] = []
    for _ in range(n_dims - 1):
        if exactly:
            size = chooser.any_of(divisors(left)) if left else 1
        else:
            size = min(chooser.draw(_SMALL_DIMS), left)
        dims.append(size)
        left = left // size if size else left
    if n_dims:
        dims.append(left)
    return tuple(chooser.shuffled(dims))


def draw_normalized(chooser: Chooser, n_dims: int, n_cols: int) -> tuple[int, ...]:
    """Normalized dims of exactly ``n_cols`` columns."""
    if n_dims == 1:
        return (n_cols,)
    return draw_leading(chooser, n_dims, n_cols, exactly=True)


def draw_layout(
    chooser: Chooser,
    shape: tuple[int, ...],
    n_contiguous: int,
    *,
    strided: bool,
    may_expand: bool,
) -> Layout:
    """Strides and offset of a tensor whose last ``n_contiguous`` dims are one run of memory.

    Elements share memory in expanded dims alone.
    """
    if 0 in shape:
        return contiguous_strides(shape), 0
    if not strided:
        # A view of part of a larger buffer is contiguous too.
        offset = chooser.draw(_OFFSETS) if chooser.chance(_PLAIN_OFFSET_SHARE) else 0
        return contiguous_strides(shape), offset
    kind = chooser.draw(_LAYOUTS)
    deep = sum(size > 1 for size in shape[: len(shape) - n_contiguous]) >= DEEP
    if deep and chooser.chance(_DEEP_PERMUTED_SHARE):
        kind = "permuted"
    features = {kind}
    if kind == "mixed":
        names = ("row_gap", "permuted", "expanded", "outer_gap")
        features = {name for name in names if chooser.chance(0.5)}
    if not may_expand:
        features -= {"expanded"}
    return _strides(chooser, shape, n_contiguous, features), chooser.draw(_OFFSETS)


def _strides(
    chooser: Chooser, shape: tuple[int, ...], n_contiguous: int, features: set[str]
) -> tuple[int, ...]:
    lead = len(shape) - n_contiguous
    strides = list(contiguous_strides(shape))
    n_cols = math.prod(shape[lead:])
    # Leading dims in the order of memory, the innermost last.
    order = list(range(lead))
    wide = [dim for dim in order if shape[dim] > 1]
    if "permuted" in features:
        order = _permuted(chooser, order, wide)
    expanded: set[int] = set()
    if "expanded" in features and wide:
        expanded = {chooser.any_of(wide)} | {dim for dim in wide if chooser.chance(0.25)}
    step = n_cols
    if "row_gap" in features:
        step += n_cols if chooser.chance(_ROW_SLICE_SHARE) else chooser.draw(_GAPS)
    innermost = True
    for dim in reversed(order):
        if dim in expanded:
            strides[dim] = 0
            continue
        strides[dim] = step
        step *= shape[dim]
        if shape[dim] > 1 and innermost and "outer_gap" in features:
            # One gap: outer dims would multiply the memory it takes.
            step += chooser.draw(_GAPS)
            innermost = False
    if features != {"contiguous"}:
        _loosen(chooser, shape, strides)
    return tuple(strides)


def _permuted(chooser: Chooser, order: list[int], wide: list[int]) -> list[int]:
    """Another order of memory, if there are two dims to exchange."""
    if len(wide) < 2:
        return order
    first, second = chooser.shuffled(wide)[:2]
    order = chooser.shuffled(order) if chooser.chance(0.5) else list(order)
    # The pair is out of order whatever the shuffle did to it.
    i, j = sorted((order.index(first), order.index(second)))
    order[i], order[j] = max(first, second), min(first, second)
    return order


def _loosen(chooser: Chooser, shape: Sequence[int], strides: list[int]) -> None:
    """Nothing is ever read through the stride of a dim of size 1, so it may be anything."""
    for dim, size in enumerate(shape):
        if size == 1 and chooser.chance(_UNIT_STRIDE_SHARE):
            strides[dim] = 2 * chooser.below(4) + 3


def layout_classes(tensor: TensorCase, n_contiguous: int) -> set[str]:
    """What is particular about a layout, read off shape and strides; "contiguous" if nothing is.

    ``expanded``: a dim of stride 0; ``permuted``: leading dims not in the order of memory;
    ``row_gap``: rows do not touch, with ``row_stride_odd`` or ``row_stride_16`` (a multiple);
    ``outer_gap``: a larger dim leaves more room than the smaller ones fill; ``column_stride``: one
    column, and a stride of its dim that nothing is read through.
    """
    if tensor.n_elements == 0:
        return {"contiguous"}
    lead = len(tensor.shape) - n_contiguous
    n_cols = math.prod(tensor.shape[lead:])
    classes: set[str] = set()
    dims = [(s, n) for n, s in zip(tensor.shape[:lead], tensor.strides, strict=False) if n > 1]
    if any(s == 0 for s, _ in dims):
        classes.add("expanded")
    steps = [(s, n) for s, n in dims if s > 0]
    if steps != sorted(steps, reverse=True):
        classes.add("permuted")
    filled = n_cols
    for index, (stride, size) in enumerate(sorted(steps)):
        if stride > filled and index:
            classes.add("outer_gap")
        elif stride > filled:
            classes.add("row_gap")
            if stride % 16 == 0:
                classes.add("row_stride_16")
            elif stride % 2:
                classes.add("row_stride_odd")
        filled = stride * size
    if not classes:
        classes.add("contiguous")
    if n_contiguous and n_cols == 1 and tensor.strides[-1] != 1:
        classes.add("column_stride")
    return classes
