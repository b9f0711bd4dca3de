"""Figures, grades and the picture."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

from fuzz.jobs.setup import UsageError
from fuzz.power import picture
from fuzz.power.results import from_data, to_data
from fuzz.power.summary import by_class, figures, percentile, worst
from tests.fuzz.power.fixtures import attempt, measured, of_bounds


@pytest.mark.parametrize(
    ("counts", "percent", "is_"),
    [
        ([3], 50, 3),
        ([1, 2, 3, 4], 50, 2),
        ([5, 1, 3], 50, 3),
        (list(range(1, 101)), 95, 95),
        (list(range(1, 21)), 95, 19),
        ([1, math.inf], 95, None),
        ([1, 1, math.inf], 50, 1),
        ([], 50, None),
    ],
)
def test_percentile_is_a_count_that_was_seen(counts, percent, is_) -> None:
    assert percentile(counts, percent) == is_


FAULTS = [
    measured("a", *of_bounds(1, 2, 40), kind="masks"),
    measured("b", *of_bounds(7, None, 3), kind="strides"),
    measured("c", *of_bounds(1, 1, 1), kind="masks"),
    measured("d", status="elsewhere", kind="masks"),
    measured("e", status="error", kind="masks"),
]


def test_figures_count_seeds_and_leave_out_what_was_not_measured() -> None:
    found = figures(FAULTS, "bounds")
    assert (found.faults, found.found, found.attempts, found.hits) == (3, 2, 9, 8)
    assert found.share == 8 / 9
    # 1 1 1 1 2 3 7 40 and one that is beyond.
    assert (found.median, found.percentile_95, found.seconds) == (2, None, 0.1)
    masks = figures(by_class(FAULTS)["masks"], "bounds")
    assert (masks.faults, masks.median, masks.percentile_95) == (2, 1, 40)
    none = figures(FAULTS, "uniform")
    assert (none.hits, none.share, none.median, none.seconds) == (0, 0.0, None, None)


def test_classes_keep_their_order() -> None:
    assert {kind: [m.fault for m in items] for kind, items in by_class(FAULTS).items()} == {
        "masks": ["a", "c"],
        "strides": ["b"],
    }


def test_results_survive_json() -> None:
    item = measured("a", attempt("bounds", 3, by=("s",), case={"x": 1}, problems=("p",)))
    assert from_data(to_data(item)) == item
    data = to_data(item)
    data["attempts"][0]["cases"] = "3"
    with pytest.raises(ValueError, match=r"expected int @ result.attempts\[0\].cases"):
        from_data(data)


@pytest.mark.parametrize(
    ("counts", "is_"),
    [
        ((1, 5, 2), "early"),
        ((1, 6, 2), "late"),
        ((1, None, 2), "some seeds"),
        ((None, None), "not found"),
        ((), "not found"),
    ],
)
def test_grade_is_that_of_the_worst_seed(counts, is_) -> None:
    assert picture.grade(of_bounds(*counts)) == is_
    assert math.isinf(worst(of_bounds(*counts))) == (is_ in ("some seeds", "not found"))


def test_picture_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs matplotlib.*pip install 'ln-fuzz\[plots\]'"):
        picture.draw(FAULTS, ("bounds",), "title", tmp_path / "picture.png")


def test_picture_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "picture.svg"
    picture.draw(FAULTS, ("bounds", "uniform"), "A title", path)
    text = path.read_text()
    assert all(colour.lower() in text.lower() for colour in picture.COLOURS.values())
    with pytest.raises(UsageError, match="picture="):
        picture.draw(FAULTS, ("bounds",), "A title", tmp_path / "picture.nonsense")
    with pytest.raises(UsageError, match="nothing to draw"):
        picture.draw(FAULTS[3:], ("bounds",), "A title", path)
