"""The stored set is readable, results survive an interruption, and disagreement is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ci import agreement, verdicts
from ci.verdict_files import (
    Results,
    VerdictsError,
    open_results,
    read_results,
    read_set,
    set_digest,
    write_set,
)

STORED = Path(__file__).parents[2] / "ci" / "verdicts.jsonl.gz"

HEADER: dict[str, Any] = {
    "format": 1,
    "set": "0123",
    "cases": 2,
    "device": "cpu",
    "device_name": "Triton interpreter",
    "versions": {"triton": "3.9.0"},
}


def row(case_id: str, status: str = "pass", ulps: tuple[int, ...] = (3, 1, 0, 0)) -> dict[str, Any]:
    output = {
        "dtype": "float32",
        "ulps": list(ulps),
        "max_ulp": 1,
        "left_out": 0,
        "digest": str(sum(ulps)),
    }
    return {
        "id": case_id,
        "target": "layer_norm",
        "gated": False,
        "status": status,
        "signatures": [] if status == "pass" else ["layer_norm / values_within_bound"],
        "messages": [],
        "reason": "",
        "ratios": {"y": "0.5"},
        "outputs": {"y": output},
    }


def results(path: Path, *rows: dict[str, Any], **header: Any) -> Results:
    made = open_results(path, {**HEADER, **header})
    for item in rows:
        made.add(item)
    return made


def test_stored_set_has_500_different_cases_of_every_default_target() -> None:
    cases = read_set(STORED)
    assert len({case.case_id for case in cases}) == len(cases) == 500
    assert len({case.target for case in cases}) == 7
    assert any(case.refusal for case in cases)


@pytest.mark.parametrize("name", ["set.jsonl", "set.jsonl.gz"])
def test_set_comes_back_from_its_file_as_it_was(name: str, tmp_path: Path) -> None:
    cases = read_set(STORED)[:3]
    write_set(cases, tmp_path / name)
    assert read_set(tmp_path / name) == cases
    assert set_digest(cases) != set_digest(cases[::-1])


def test_set_that_cannot_be_read_is_refused_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    write_set(read_set(STORED)[:1], path)
    path.write_text(path.read_text() + '{"format": 99}\n')
    with pytest.raises(VerdictsError, match=r"set\.jsonl, line 2: case\.format=99"):
        read_set(path)
    path.write_text("")
    with pytest.raises(VerdictsError, match="holds no case"):
        read_set(path)


def test_results_go_on_after_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "cpu.jsonl"
    results(path, row("a"))
    with path.open("a") as file:
        file.write('{"id": "b", "stat')
    again = open_results(path, HEADER)
    assert set(again.rows) == {"a"}
    again.add(row("b"))
    assert set(read_results(path).rows) == {"a", "b"}


def test_results_of_another_device_or_set_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "cpu.jsonl"
    results(path, row("a"))
    with pytest.raises(VerdictsError, match="device='cpu', but this would be 'cuda'"):
        open_results(path, {**HEADER, "device": "cuda"})


def test_compare_tells_agreement_from_another_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu = results(tmp_path / "cpu.jsonl", row("a"), row("b", "fail"))
    same = results(tmp_path / "same.jsonl", row("b", "fail"), row("a"))
    other = results(tmp_path / "other.jsonl", row("a"), row("b"))
    assert agreement.compare(cpu, same)
    assert not agreement.compare(cpu, other)
    assert "1 of 2 agree" in capsys.readouterr().out


def test_compare_refuses_unfinished_and_foreign_results(tmp_path: Path) -> None:
    whole = results(tmp_path / "whole.jsonl", row("a"), row("b"))
    part = results(tmp_path / "part.jsonl", row("a"))
    foreign = results(tmp_path / "foreign.jsonl", row("a"), row("b"), set="4567")
    with pytest.raises(VerdictsError, match="1 of 2 cases are judged"):
        agreement.compare(whole, part)
    with pytest.raises(VerdictsError, match="must be one"):
        agreement.compare(whole, foreign)


def test_roundings_are_added_up_for_both_sides(tmp_path: Path) -> None:
    left = results(tmp_path / "left.jsonl", row("a"), row("b"))
    right = results(tmp_path / "right.jsonl", row("a"), row("b", ulps=(0, 0, 4, 4)))
    (pair,) = agreement.roundings(left, right).values()
    assert (pair.cases, pair.same_bits) == (2, 1)
    assert pair.sides[0].ulps == [6, 2, 0, 0]
    assert pair.sides[1].share(0) == pytest.approx(3 / 12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_ordered_bits_count_the_floats_between(dtype: type) -> None:
    up = np.nextafter(dtype(1), dtype(2))
    smallest = np.nextafter(dtype(0), dtype(1))
    values = np.array([-smallest, -0.0, 0.0, smallest, 1.0, up], dtype=dtype)
    order = verdicts._ordered(values.view(f"u{values.itemsize}"))
    assert order[:4].tolist() == [-1, 0, 0, 1]
    assert order[5] - order[4] == 1


def test_results_are_plain_json(tmp_path: Path) -> None:
    path = results(tmp_path / "cpu.jsonl", row("a")).path
    assert [json.loads(line) for line in path.read_text().splitlines()] == [HEADER, row("a")]
