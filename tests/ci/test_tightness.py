"""The table of the smallest faults: what a whole row adds to its elements."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ci import tightness


def test_tightness_of_a_correct_kernel_is_not_a_fault() -> None:
    for dtype in tightness.DTYPES:
        bench = tightness.Bench(4, 1000, dtype, 30.0, 1)
        for fault in ("scale", "shift", "halves"):
            assert not bench.found(fault, 0.0, whole_rows=True)
            assert bench.found(fault, 0.1, whole_rows=False)


def test_tightness_of_whole_rows_far_from_zero_is_greater(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.json"
    options = ["--mean", "30", "--n-cols", "1000", "--n-rows", "1", "--seeds", "3", "--json"]
    assert tightness.main([*options, str(path)]) == 0
    lines = json.loads(path.read_text(encoding="utf-8"))
    assert [line["dtype"] for line in lines] == list(tightness.DTYPES)
    for line in lines:
        assert line["rows"]["scale"] < 0.5 * line["elements"]["scale"]
        assert line["rows"]["halves"] < 0.5 * line["elements"]["halves"]
        # No row can tell a shift from the error that the mean may have.
        assert line["mean_bound"] / 2.0 < line["rows"]["shift"] <= line["elements"]["shift"]
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(lines)


def test_tightness_of_one_row_in_bfloat16_is_a_few_millionths() -> None:
    deltas = [
        tightness.Bench(1, 1000, "bfloat16", 0.0, 10 * seed).smallest("scale", whole_rows=True)
        for seed in range(5)
    ]
    assert np.median(deltas) < 7.6e-6
