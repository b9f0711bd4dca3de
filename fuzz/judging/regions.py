"""Where the wrong elements sit: one word for the signature, one phrase for the message."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

# Half-precision outputs hide part of a fault below half an ulp, so a region counts as filled when
# this share of it is visibly wrong.
FILLED = 0.2

# For the same reason, a fault of all rows may not show in some of them, nor one of all columns in
# the first or last of them.
ALL = 0.9
MARGIN = 0.05


def classify(wrong: Mask, group_size: int) -> tuple[str, str]:
    """The region of a (rows, columns) mask and a phrase that locates it.

    The region is coarse, so that it survives shrinking: everywhere, tail columns, first columns,
    middle columns, one column, last row, one row, some rows, one group, some groups, scattered.
    """
    n_rows, n_cols = wrong.shape
    rows, cols = np.flatnonzero(wrong.any(axis=1)), np.flatnonzero(wrong.any(axis=0))
    if rows.size == 0:
        return "", ""
    count = int(np.count_nonzero(wrong))
    # A single element among rows and columns is what scattered faults come down to.
    alone = count == 1 and n_rows > 1 and n_cols > 1
    if alone or count < FILLED * rows.size * cols.size:
        return "scattered", "this one alone" if count == 1 else "scattered"
    if 0 < group_size < n_cols:
        n_groups = n_cols // group_size
        groups = np.unique(cols // group_size)
        if groups.size == 1:
            return "one group", f"all in group {groups[0]} (of {n_groups})"
        if groups.size < n_groups:
            return "some groups", f"all in groups {_ranges(groups)} (of {n_groups})"
    if rows.size >= ALL * n_rows:
        return _columns(cols, n_cols)
    if rows.size == 1:
        last = rows[0] == n_rows - 1
        return ("last row" if last else "one row"), f"all in row {rows[0]} of {n_rows}"
    return "some rows", f"all in rows {_ranges(rows)} of {n_rows}"


def _columns(cols: npt.NDArray[np.int64], n_cols: int) -> tuple[str, str]:
    at_start, at_end = cols[0] <= MARGIN * n_cols, cols[-1] >= (1 - MARGIN) * n_cols - 1
    if at_start and at_end:
        return "everywhere", "everywhere"
    if at_end:
        # One column past a block border is a tail too: the smallest there is.
        return "tail columns", f"all in columns >= {cols[0]}"
    if at_start:
        return "first columns", f"all in columns <= {cols[-1]}"
    if cols.size == 1:
        return "one column", f"all in column {cols[0]}"
    return "middle columns", f"all in columns {cols[0]} ... {cols[-1]}"


def _ranges(numbers: npt.NDArray[np.int64]) -> str:
    """0-2, 5: runs of consecutive numbers, at most four of them."""
    breaks = np.flatnonzero(np.diff(numbers) > 1)
    starts, ends = [0, *(breaks + 1)], [*breaks, numbers.size - 1]
    parts = [
        str(numbers[a]) if a == b else f"{numbers[a]}-{numbers[b]}"
        for a, b in zip(starts[:4], ends[:4], strict=True)
    ]
    return ", ".join(parts) + (", ..." if len(starts) > 4 else "")
