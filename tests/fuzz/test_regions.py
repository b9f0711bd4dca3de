"""Where wrong elements sit."""

import numpy as np
import pytest

from fuzz.judging.regions import classify

Mask = np.ndarray


def mask(shape: tuple[int, int], *places: tuple[slice | int | list[int], ...]) -> Mask:
    wrong = np.zeros(shape, dtype=np.bool_)
    for place in places:
        wrong[place] = True
    return wrong


def stripes(shape: tuple[int, int], step: int) -> Mask:
    wrong = np.zeros(shape, dtype=np.bool_)
    wrong.reshape(-1)[::step] = True
    return wrong


ALL = slice(None)

REGIONS = [
    (mask((4, 100)), 0, "", ""),
    (mask((4, 100), (ALL, ALL)), 0, "everywhere", "everywhere"),
    (mask((4, 100), (ALL, slice(64, None))), 0, "tail columns", "all in columns >= 64"),
    (mask((4, 100), (ALL, slice(0, 64))), 0, "first columns", "all in columns <= 63"),
    (mask((4, 100), (ALL, slice(30, 60))), 0, "middle columns", "all in columns 30 ... 59"),
    (mask((4, 100), (ALL, 30)), 0, "one column", "all in column 30"),
    (mask((4, 100), (3, ALL)), 0, "last row", "all in row 3 of 4"),
    (mask((4, 100), (1, ALL)), 0, "one row", "all in row 1 of 4"),
    (mask((9, 100), ([1, 2, 3, 7], ALL)), 0, "some rows", "all in rows 1-3, 7 of 9"),
    (mask((4, 100), (ALL, slice(20, 40))), 20, "one group", "all in group 1 (of 5)"),
    (mask((4, 100), (2, slice(21, 39))), 20, "one group", "all in group 1 (of 5)"),
    (
        mask((4, 100), (ALL, slice(20, 40)), (ALL, slice(80, 100))),
        20,
        "some groups",
        "all in groups 1, 4 (of 5)",
    ),
    (stripes((50, 100), 37), 0, "scattered", "scattered"),
    (mask((4, 100), (2, 30)), 0, "scattered", "this one alone"),
]


@pytest.mark.parametrize(
    ("wrong", "group_size", "region", "where"), REGIONS, ids=[r[2] or "none" for r in REGIONS]
)
def test_region_is_told(wrong: Mask, group_size: int, region: str, where: str) -> None:
    assert classify(wrong, group_size) == (region, where)


@pytest.mark.parametrize("n_cols", [1, 2, 3, 7, 100])
def test_region_of_a_whole_row_is_everywhere(n_cols: int) -> None:
    assert classify(mask((1, n_cols), (ALL, ALL)), 0) == ("everywhere", "everywhere")


def test_region_of_rows_names_at_most_four_runs() -> None:
    wrong = mask((30, 10), ([1, 3, 5, 7, 9, 11], ALL))
    assert classify(wrong, 0) == ("some rows", "all in rows 1, 3, 5, 7, ... of 30")


def test_region_forgives_what_rounding_hides() -> None:
    random = np.random.default_rng(1)
    everywhere = random.random((20, 200)) < 0.4
    everywhere[3] = False
    assert classify(everywhere, 0)[0] == "everywhere"
    tail = everywhere.copy()
    tail[:, :128] = False
    assert classify(tail, 0)[0] == "tail columns"


@pytest.mark.parametrize(
    "shape", [(16, 5000), (4, 4200), (2, 4097), (1, 4097)], ids=lambda s: f"{s[0]}x{s[1]}"
)
def test_region_of_a_tail_survives_shrinking(shape: tuple[int, int]) -> None:
    assert classify(mask(shape, (ALL, slice(4096, None))), 0)[0] == "tail columns"


@pytest.mark.parametrize("shape", [(64, 512), (8, 512), (2, 40)])
def test_region_of_rare_elements_survives_shrinking(shape: tuple[int, int]) -> None:
    wrong = stripes(shape, 113)
    assert classify(wrong, 0)[0] == "scattered"


def test_region_of_groups_is_that_of_columns_where_all_are_wrong() -> None:
    assert classify(mask((4, 100), (ALL, ALL)), 20)[0] == "everywhere"
    # Statistics have a column for each group.
    assert classify(mask((4, 5), (ALL, 2)), 1) == ("one group", "all in group 2 (of 5)")
    assert classify(mask((4, 1), (ALL, 0)), 1) == ("everywhere", "everywhere")
