"""What the options of the command line mean, and what is wrong with them."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from pathlib import Path

from ln_kernels.benchmark import points
from ln_kernels.benchmark.plots import plots_available
from ln_kernels.benchmark.points import Shape

SHORT_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


class UsageError(Exception):
    """The benchmark was asked for what it cannot do."""


class Grid(enum.StrEnum):
    """Groups of shapes."""

    DEFAULT = "default"
    FEW = "few"
    LARGE = "large"
    ALL = "all"


def chosen(
    what: str, names: list[str] | None, known: Iterable[str], default: list[str]
) -> list[str]:
    """The names that were asked for, each once: "all", or some of the known ones.

    Raises: UsageError.
    """
    every = list(known)
    if names is None:
        return default
    if names == ["all"]:
        return every
    for name in names:
        if name not in every:
            raise UsageError(f"{what}={name!r}, must be one of {', '.join(every)}, or all")
    return list(dict.fromkeys(names))


def chosen_shapes(grid: Grid, widths: str | None, rows: int) -> list[tuple[str, Shape]]:
    """The shapes of a grid, or those that were asked for by their widths.

    Raises: UsageError.
    """
    if rows < 1:
        raise UsageError(f"rows={rows}, must be >= 1")
    if widths is None:
        if rows != points.ROWS:
            raise UsageError(f"rows={rows}, is for --widths; a grid has rows of its own")
        return points.grid_shapes(grid.value)
    shapes: list[tuple[str, Shape]] = []
    for word in widths.split(","):
        if not word.strip().isdecimal() or int(word) < 1:
            raise UsageError(f"widths={widths!r}, must be numbers >= 1 such as 256,1000")
        shapes.append(("chosen", (rows, int(word))))
    return shapes


def check_plots() -> None:
    """Fail early where no picture can be made.

    Raises: UsageError.
    """
    if not plots_available():
        raise UsageError(
            "plot: needs matplotlib, which is not installed; pip install 'ln-fuzz[plots]'"
        )


def check_folder(path: Path) -> None:
    """Make a folder for what will be written.

    Raises: UsageError.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"out={str(path)!r}: {error.strerror}") from error


def check_file(what: str, path: Path | None) -> None:
    """Fail early where a file cannot be written.

    Raises: UsageError.
    """
    if path is None:
        return
    try:
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise UsageError(f"{what}={str(path)!r}: {error.strerror}") from error
