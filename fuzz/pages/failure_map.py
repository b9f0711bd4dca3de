"""Where the wrong elements of a failure sit: error/bound over rows and columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from fuzz.jobs.maps import FailureMap
from fuzz.pages import svg, words

CLASSES = ((0.1, "≤ 0.1"), (0.5, "≤ 0.5"), (1.0, "≤ 1"), (10.0, "≤ 10"), (1e3, "≤ 10³"))
"""Upper ends of the classes of colour and their names; the first three are within the bound."""

BEYOND = ("> 10³", "∞")

LEFT, RIGHT = 40.0, 4.0
TOP = 4.0
LARGEST_PATCH = (36.0, 22.0)
"""Width and height: a row of three elements is no wall of colour."""

LEAST_HEIGHT, MOST_HEIGHT = 5.0, 150.0

LEGEND = 26.0

LAP = 0.4
"""By which patches lap over their neighbours: between edges that only meet, seams show."""

MOST_BORDERS = 40
"""More borders of blocks than this would hide what they divide."""


def draw(found: FailureMap) -> Markup:
    """The picture, with a legend."""
    n_rows, n_cols = len(found.grid), len(found.grid[0])
    width = min((svg.WIDTH - LEFT - RIGHT) / n_cols, LARGEST_PATCH[0])
    height = min(max(MOST_HEIGHT / n_rows, LEAST_HEIGHT), LARGEST_PATCH[1])
    right, bottom = LEFT + n_cols * width, TOP + n_rows * height
    parts = [
        svg.boxes(
            (
                (LEFT + first * width, TOP + row * height, count * width + LAP, height + LAP)
                for row, line in enumerate(found.grid)
                for first, count, class_ in _stretches(line)
                if class_ == number
            ),
            f"h{number}",
        )
        for number in range(len(CLASSES) + len(BEYOND))
    ]
    borders = list(_borders(found))
    parts += [
        svg.line(x, TOP, x, bottom, "step")
        for x in (LEFT + border / found.cols * n_cols * width for border in borders)
    ]
    parts.append(
        svg.tag("rect", x=LEFT, y=TOP, width=right - LEFT, height=bottom - TOP, class_="frame")
    )
    parts += _axes(found, right, bottom)
    if borders:
        said = f"block borders every {words.number(borders[0])} columns"
        parts.append(svg.text(svg.WIDTH - RIGHT, bottom + 25, said, "e"))
    top = bottom + (38 if borders else 26)
    parts.append(_legend(top))
    return svg.picture(top + LEGEND, _title(found), *parts)


def summary(found: FailureMap) -> str:
    """Where the patches beyond the bound lie, in words."""
    wrong = [
        (row, col)
        for row, line in enumerate(found.grid)
        for col, value in enumerate(line)
        if value > 1
    ]
    if not wrong:
        return "no patch is beyond the bound"
    n_rows, n_cols = len(found.grid), len(found.grid[0])
    rows = _extent("row", [row for row, _ in wrong], n_rows, found.rows)
    cols = _extent("column", [col for _, col in wrong], n_cols, found.cols)
    largest = max(value for line in found.grid for value in line if not math.isnan(value))
    return f"beyond the bound: within {cols}, {rows}; largest error/bound {words.ratio(largest)}"


def _title(found: FailureMap) -> str:
    size = f"{words.number(found.rows)} rows by {words.plural(found.cols, 'column')}"
    return f"Largest error/bound of each patch of {size}; {summary(found)}"


def _extent(name: str, patches: Sequence[int], n_patches: int, size: int) -> str:
    first = min(patches) * size // n_patches
    last = (max(patches) + 1) * size // n_patches - 1
    if first == last:
        return f"{name} {words.number(first)}"
    if first == 0 and last == size - 1:
        return f"all {words.number(size)} {name}s"
    return f"{name}s {words.number(first)} to {words.number(last)}"


def _class(value: float) -> int | None:
    """The class of a patch; None for one that was not compared."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return len(CLASSES) + 1
    return next((i for i, (end, _) in enumerate(CLASSES) if value <= end), len(CLASSES))


def _stretches(line: Sequence[float]) -> Iterator[tuple[int, int, int | None]]:
    """Runs of patches of one class: first, count, class."""
    first = 0
    classes = [_class(value) for value in line]
    for end in range(1, len(line) + 1):
        if end == len(line) or classes[end] != classes[first]:
            yield first, end - first, classes[first]
            first = end


def _borders(found: FailureMap) -> Iterator[int]:
    if found.block is not None and found.cols / found.block <= MOST_BORDERS:
        yield from range(found.block, found.cols, found.block)


def _axes(found: FailureMap, right: float, bottom: float) -> list[Markup]:
    last_row, last_col = words.number(found.rows - 1), words.number(found.cols - 1)
    parts = [svg.text(LEFT - 5, TOP + 9, "row 0", "e")]
    if found.rows > 1 and bottom - TOP > 20:
        parts.append(svg.text(LEFT - 5, bottom, last_row, "e"))
    parts.append(svg.text(LEFT, bottom + 12, "column 0"))
    if found.cols > 1:
        # A narrow picture has no room for both below it.
        narrow = right - LEFT < 110
        at = (right + 6, bottom - 2, "") if narrow else (right, bottom + 12, "e")
        parts.append(svg.text(at[0], at[1], f"to {last_col}" if narrow else last_col, at[2]))
    return parts


def _legend(top: float) -> Markup:
    names = [name for _, name in CLASSES] + list(BEYOND)
    step = (svg.WIDTH - LEFT - RIGHT) / len(names)
    parts = [svg.text(LEFT - 5, top + 8, "error/", "e"), svg.text(LEFT - 5, top + 19, "bound", "e")]
    for number, name in enumerate(names):
        x = LEFT + number * step
        swatch = svg.tag("rect", x=x, y=top, width=step - 3, height=9, class_=f"h{number} swatch")
        parts += [swatch, svg.text(x + (step - 3) / 2, top + 20, name, "m")]
    # Where the bound ends.
    x = LEFT + 3 * step - 1.5
    parts.append(svg.line(x, top - 3, x, top + 24, "bound"))
    return svg.tag("g", *parts)
