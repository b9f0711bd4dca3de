"""What is measured: an operation on a shape, in named groups of shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ROWS = 4096
"""Rows of the default grid."""

Shape = tuple[int, int]
"""(n_rows, n_cols)."""

GRIDS: dict[str, tuple[Shape, ...]] = {
    # Powers of two, and widths that are none or are odd.
    "default": tuple(
        (ROWS, n)
        for n in (256, 512, 1000, 1024, 2048, 4096, 5000, 8192, 12345, 16384, 32768, 65536)
    ),
    # Fewer rows than the card has multiprocessors.
    "few": tuple((rows, n) for n in (8192, 16384, 32768, 65536) for rows in (1, 4, 16, 64)),
    # More than 256 MB in half precision too: what the bandwidth of the memory decides.
    "large": (
        (65536, 4096),
        (32768, 5000),
        (16384, 8192),
        (16384, 12345),
        (8192, 32768),
        (4096, 65536),
        (2048, 131072),
        (1024, 262144),
    ),
}

SMOKE: tuple[Shape, ...] = ((3, 1), (4, 256), (2, 1000), (2, 5000))
"""Small enough for the interpreter, which takes milliseconds a row."""

LAUNCH_SHAPE: Shape = (4, 256)
"""So small that the host decides how long a call takes."""


@dataclass(frozen=True)
class Point:
    """One operation on one shape; all that do it are timed side by side."""

    group: str
    operation: str
    dtype: str
    n_rows: int
    n_cols: int

    @property
    def shape(self) -> str:
        """The shape as it is written in tables: rows x columns."""
        return f"{self.n_rows}x{self.n_cols}"

    def __str__(self) -> str:
        return f"{self.operation} {self.dtype} {self.shape}"


def points(
    operations: Sequence[str], dtypes: Sequence[str], shapes: Sequence[tuple[str, Shape]]
) -> list[Point]:
    """Every operation in every dtype on every shape; shapes come with the name of their group."""
    return [
        Point(group, operation, dtype, n_rows, n_cols)
        for operation in operations
        for dtype in dtypes
        for group, (n_rows, n_cols) in dict.fromkeys(shapes)
    ]


def grid_shapes(name: str) -> list[tuple[str, Shape]]:
    """The shapes of a grid, or of all of them; one that two groups have stays in the first."""
    names = GRIDS if name == "all" else (name,)
    group_of: dict[Shape, str] = {}
    for group in names:
        for shape in GRIDS[group]:
            group_of.setdefault(shape, group)
    return [(group, shape) for shape, group in group_of.items()]
