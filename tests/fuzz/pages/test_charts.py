"""What the pictures show is where the numbers put it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from xml.etree.ElementTree import Element

import pytest
from markupsafe import Markup

from fuzz.cells import INVALID, NONE, Cell
from fuzz.history import SpreadSum
from fuzz.jobs.maps import FailureMap
from fuzz.jobs.totals import CellSum, bin_of
from fuzz.pages import coverage, failure_map, grid, spread, trend
from fuzz.pages.data import PageData
from fuzz.pages.nights import Night
from tests.fuzz.pages import reader
from tests.fuzz.pages.example import tail_map
from tests.fuzz.pages.records import failure_of, night_of, run_of

PAGE = "<!DOCTYPE html><html><head><title>1</title></head><body>{}</body></html>"


def picture(markup: Markup) -> Element:
    return reader.one(reader.parsed(PAGE.format(markup)), "svg")


def texts(element: Element) -> list[str]:
    return [reader.words(text) for text in reader.all_of(element, "text")]


# --- where a failure sits -------------------------------------------------------------------------


def test_map_colours_each_patch_by_its_class() -> None:
    values = (0.05, 0.3, 1.0, 1.001, 1000.0, 1001.0, math.inf, math.nan)
    drawn = picture(failure_map.draw(FailureMap(1, 8, (values,), None, "")))
    places = [[box[0] for box in reader.boxes(drawn, f"h{number}")] for number in range(7)]
    assert all(len(place) == 1 for place in places)
    lefts = [place[0] for place in places]
    assert lefts == sorted(lefts) and len(set(lefts)) == 7


def test_map_has_row_0_at_the_top() -> None:
    drawn = picture(failure_map.draw(FailureMap(2, 1, ((0.05,), (5.0,)), None, "")))
    ((_, first, _, _),) = reader.boxes(drawn, "h0")
    ((_, second, _, _),) = reader.boxes(drawn, "h3")
    assert first < second


def test_map_of_a_tail_is_dark_behind_the_last_block() -> None:
    found = tail_map()
    drawn = picture(failure_map.draw(found))
    frame = reader.one(drawn, "rect", "frame")
    left, width = float(frame.get("x", "")), float(frame.get("width", ""))
    (border,) = reader.all_of(drawn, "line", "step")
    assert float(border.get("x1", "")) == pytest.approx(left + width * 4096 / 5003, abs=0.1)
    wrong = [box for number in (3, 4, 5, 6) for box in reader.boxes(drawn, f"h{number}")]
    # A patch is 52 columns wide.
    assert min(box[0] for box in wrong) >= float(border.get("x1", "")) - width / 96 - 0.1
    assert sum(box[2] * box[3] for box in wrong) > 0.1 * width * float(frame.get("height", ""))
    assert "columns 4,064 to 5,002, all 64 rows" in failure_map.summary(found)
    assert {"column 0", "5,002", "row 0", "63"} <= set(texts(drawn))


def test_map_that_shows_nothing_says_so() -> None:
    assert failure_map.summary(FailureMap(1, 1, ((0.5,),), None, "")) == (
        "no patch is beyond the bound"
    )


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 96), (32, 1), (32, 96)])
def test_map_fits_its_picture(rows: int, cols: int) -> None:
    grid_of = tuple((2.0,) * cols for _ in range(rows))
    drawn = picture(failure_map.draw(FailureMap(rows, cols, grid_of, 1, "")))
    _, _, width, height = map(float, drawn.get("viewBox", "").split())
    for x, y, w, h in reader.boxes(drawn, "h3"):
        assert x + w <= width and y + h <= height


# --- distributions --------------------------------------------------------------------------------


def histogram(*ratios: float, last: tuple[float, ...] = ()) -> spread.Histogram:
    bins = Counter({bin_of(ratio): count for ratio, count in Counter(ratios).items()})
    one = SpreadSum("t", "float32", "y", bins, max(ratios))
    of_last = SpreadSum("t", "float32", "y", {bin_of(ratio): 1 for ratio in last}, 1.0)
    (found,) = spread.histograms([one], [of_last])
    return found


def test_histogram_puts_the_bound_within_the_bound() -> None:
    scale = spread.Scale(-4, 4)
    assert spread.columns_of(histogram(1.0).bins, scale) == {0: 1}
    assert spread.columns_of(histogram(1.001).bins, scale) == {1: 1}
    assert histogram(1.0, 1.001, math.inf).beyond == 2


def test_histogram_has_columns_of_their_own_for_exact_and_infinite_results() -> None:
    scale = spread.Scale(-4, 4)
    columns = spread.columns_of(histogram(0.0, 1e-7, 1e6, math.inf).bins, scale)
    assert columns == {-32: 1, -31: 1, 32: 1, 33: 1}


def test_histogram_shows_what_is_beyond_the_bound_in_another_colour() -> None:
    found = histogram(0.5, 0.5, 1.001, last=(1.001,))
    drawn = picture(spread.draw([found], spread.Scale(-4, 4)))
    assert [len(reader.boxes(drawn, c)) for c in ("all", "all bad", "last", "last bad")] == [
        1,
        1,
        0,
        1,
    ]
    bound = float(reader.one(drawn, "line", "bound").get("x1", ""))
    ((good, _, width, _),) = reader.boxes(drawn, "all")
    ((bad, _, _, _),) = reader.boxes(drawn, "all bad")
    assert good + width <= bound <= bad


def test_histogram_shows_a_single_case_among_many() -> None:
    drawn = picture(spread.draw([histogram(*[0.5] * 100_000, 40.0)], spread.Scale(-4, 4)))
    ((_, _, _, height),) = reader.boxes(drawn, "all bad")
    assert height >= 1


def test_histogram_knows_its_quantiles() -> None:
    found = histogram(*[0.1] * 98, 0.5, 0.9)
    assert found.quantile(0.5) == pytest.approx(0.1, rel=0.02)
    assert found.quantile(0.99) == pytest.approx(0.5, rel=0.02)
    assert found.quantile(1.0) == 0.9


def test_scale_holds_the_bound_and_what_there_is() -> None:
    assert spread.scale_of([]) == spread.Scale(-3, 1)
    assert spread.scale_of([histogram(0.5)]) == spread.Scale(-1, 1)
    assert spread.scale_of([histogram(1e-3, 150.0, math.inf, 0.0)]) == spread.Scale(-3, 3)
    assert spread.scale_of([histogram(1e-8, 1e30)]) == spread.Scale(spread.LOWEST, spread.HIGHEST)


# --- feature cells --------------------------------------------------------------------------------


def cell(
    target: str = "t",
    dtype: str = "float32",
    tail: str = "tail",
    layout: str = "contiguous",
    family: str = "normal",
) -> str:
    return str(Cell(target, dtype, tail, layout, family, NONE))


def field(found: grid.Grid, target: str, dtype: str, name: str) -> grid.Field:
    (row,) = (row for row in found.rows if (row.target, row.dtype) == (target, dtype))
    (at,) = (i for i, column in enumerate(found.columns) if column.name == name)
    return row.fields[at]


def test_grid_adds_up_cells_by_class() -> None:
    cells = {
        cell(tail="tail 1"): CellSum(3, 0, 0.4),
        cell(tail="tail 1", layout="offset"): CellSum(4, 0, 0.6),
        cell(): CellSum(1, 0, 0.2),
    }
    found = grid.cells_of(cells, ("t",)).valid
    assert field(found, "t", "float32", "tail 1") == grid.Field(
        "tried", 4, "7", "0.60", "tail 1: 7 cases, largest error/bound 0.60"
    )
    assert [column.name for column in found.columns if column.feature == "layout"] == [
        "contiguous",
        "offset",
    ]


def test_grid_marks_what_was_never_tried_and_only_that() -> None:
    cells = {
        cell(layout="offset"): CellSum(5),
        cell(dtype="float16"): CellSum(5),
        cell(dtype="float16", layout="aliased"): CellSum(0),
        cell("u", layout="permuted"): CellSum(5),
    }
    found = grid.cells_of(cells, ("t", "u"))
    assert (found.tried, found.never) == (3, 1)
    states = {
        (row.target, row.dtype, column.name): one.state
        for row in found.valid.rows
        for column, one in zip(found.valid.columns, row.fields, strict=True)
        if column.feature == "layout"
    }
    assert states[("t", "float32", "offset")] == "tried"
    # Promised, or tried with another dtype.
    assert states[("t", "float16", "aliased")] == "never"
    assert states[("t", "float32", "contiguous")] == "never"
    # No case of this target has it.
    assert states[("t", "float32", "permuted")] == "none"
    assert [listed.tried for listed in found.least][:2] == ["0", "5"]


def test_grid_shows_where_failures_are_frequent() -> None:
    cells = {
        cell(tail="tail 1"): CellSum(100, 50, 9.0),
        cell(tail="whole lanes"): CellSum(900, 1, 2.0),
        cell(tail="block multiple"): CellSum(100, 0, 0.5),
        # More often than the row's 1 in 20, but not by twice.
        cell(tail="odd lanes"): CellSum(100, 9, 5.0),
    }
    found = grid.cells_of(cells, ("t",)).valid
    states = {
        name: field(found, "t", "float32", name).state
        for name in ("tail 1", "whole lanes", "block multiple", "odd lanes", "contiguous")
    }
    assert states == {
        "tail 1": "hot",
        "whole lanes": "failed",
        "block multiple": "tried",
        "odd lanes": "failed",
        "contiguous": "failed",
    }


def test_grid_keeps_invalid_inputs_apart() -> None:
    cells = {
        cell(): CellSum(5),
        cell(dtype=INVALID, tail=NONE, layout=NONE, family="n_cols_zero"): CellSum(2),
    }
    found = grid.cells_of(cells, ("t",))
    assert [row.dtype for row in found.valid.rows] == ["float32"]
    assert [column.name for column in found.refusals.columns] == ["n_cols_zero"]
    assert [one.tried for one in found.refusals.rows[0].fields] == ["2"]


def test_grid_reads_a_target_whose_name_holds_the_separator() -> None:
    found = grid.cells_of({cell("a | b.py"): CellSum(5)}, ("a | b.py",))
    assert [row.target for row in found.valid.rows] == ["a | b.py"]


# --- widths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", range(18))
def test_band_begins_at_each_power_of_two(power: int) -> None:
    width = 2**power
    assert coverage.start_of(coverage.band_of(width)) == pytest.approx(width)
    if width > 1:
        assert coverage.band_of(width - 1) == coverage.band_of(width) - 1 or width > 128
        assert coverage.band_of(width - 1) < coverage.band_of(width)


@pytest.mark.parametrize(
    ("n_cols", "block", "border"),
    [
        (100, 128, "< block - 1"),
        (127, 128, "block - 1"),
        (128, 128, "block"),
        (129, 128, "block + 1"),
        (130, 128, "other tail"),
        (255, 128, "k·block - 1"),
        (384, 128, "k·block"),
        (385, 128, "k·block + 1"),
        (1, 1, "block"),
        (5, 1, "k·block"),
        (1, 2, "block - 1"),
        (3, 2, "k·block - 1"),
        (7, None, "no block"),
    ],
)
def test_border_says_how_a_width_lies_against_its_block(
    n_cols: int, block: int | None, border: str
) -> None:
    assert coverage.border_of(n_cols, block) == border
    assert border in coverage.BORDERS


def test_coverage_shows_bands_that_were_tried_and_counts_those_that_were_not() -> None:
    widths = {
        ("t", 1, 8): CellSum(5, 0, 0.3),
        ("t", 4, 8): CellSum(5, 2, 30.0),
        ("u", 8, 8): CellSum(5, 0, 0.3),
    }
    one, _ = coverage.coverages(widths, ("t", "u"))
    drawn = picture(one.picture)
    assert (one.bands, one.untried) == (8, 6)
    ((first, _, _, _),), ((wrong, _, _, _),) = (
        reader.boxes(drawn, "last"),
        reader.boxes(drawn, "last bad"),
    )
    assert first < wrong
    assert "failures from n_cols 4 to below 5" in reader.words(drawn[0])


def test_coverage_expects_no_widths_beyond_the_block_of_a_whole_row_target() -> None:
    whole = {("t", 5, 8): CellSum(5), ("t", 8, 8): CellSum(1)}
    looping = {("u", 5, 8): CellSum(5), ("u", 9, 8): CellSum(1)}
    one, other = coverage.coverages(whole | looping, ("t", "u"))
    states = [dict(zip(coverage.BORDERS, c.borders, strict=True)) for c in (one, other)]
    assert [s["block + 1"].state for s in states] == ["none", "tried"]
    assert [s["k·block"].state for s in states] == ["none", "never"]
    assert [s["block - 1"].state for s in states] == ["never", "never"]


# --- nights ---------------------------------------------------------------------------------------


def test_trend_counts_failures_from_their_first_night_to_the_one_that_fixed_them() -> None:
    nights = tuple(night_of(f"r{i}", day=10 + i) for i in range(4))
    failures = (
        failure_of("a", first_run="r1"),
        failure_of("b", first_run="r0", fixed_run="r2", fixed_seen="2026-11-12T22:00:00+00:00"),
    )
    charts = trend.charts(PageData(nights=nights, failures=failures))
    (chart,) = (chart for chart in charts if chart.name == "Open failures")
    said = reader.words(picture(chart.picture)[0])
    assert said == "10 Nov 1, 11 Nov 2, 12 Nov 1, 13 Nov 1"


def test_trend_adds_the_speed_of_shards_that_run_side_by_side() -> None:
    runs = (replace(run_of("a"), seconds=100.0), replace(run_of("b"), seconds=50.0))
    assert trend.speed(Night(runs)) == 900 / 100 + 900 / 50


def test_trend_shows_the_largest_ratio_of_each_night() -> None:
    nights = (night_of("a", day=1), night_of("b", day=2), night_of("c", day=3))
    charts = trend.charts(PageData(nights=nights, largest={"a": 0.5, "b": 1.5}))
    (chart,) = (chart for chart in charts if chart.name.startswith("Largest"))
    drawn = picture(chart.picture)
    said = reader.words(drawn[0])
    assert said == "1 Nov 0.500, 2 Nov 1.50, 3 Nov \N{EN DASH}"
    good, bad = (reader.one(drawn, "path", c) for c in ("good", "bad"))
    assert bad.get("d", "").count("M") == 1 and good.get("d", "").count("M") == 1


@pytest.mark.parametrize(
    ("value", "top"), [(0, 2), (1, 1), (3, 4), (9, 10), (11, 20), (210, 400), (0.03, 0.04)]
)
def test_nice_number_is_round_and_not_smaller(value: float, top: float) -> None:
    assert trend.nice(value) == pytest.approx(top)
