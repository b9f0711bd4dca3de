"""A plan is the same for the same input, is read as it was written, and leaves no target out."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fuzz.case import canonical_json
from fuzz.contract import digest
from fuzz.gating.plan import (
    FEWEST,
    GatePlan,
    StoredBatches,
    Unit,
    draw_plan,
    first_cases,
    nominal_seconds,
    size_of,
)
from fuzz.jobs.plan import BATCH
from fuzz.spec import Refusal, TargetSpec
from oracle.arithmetic import Arithmetic
from tests.fuzz.builders import LAYER_NORM, WHOLE_ROW

SPEC = replace(LAYER_NORM, refuses=())
OTHER = replace(WHOLE_ROW, refuses=())
LAX = replace(SPEC, arithmetic=Arithmetic(variance="one_pass"))
UNITS = (Unit(LAX, "head"), Unit(SPEC, "base"), Unit(OTHER, "head"))


def draw(folder: Path, **how: Any) -> GatePlan:
    usual: dict[str, Any] = {"seed": 3, "cases": 100, "device": "cpu", "units": UNITS}
    told = {**usual, **how}
    return draw_plan(told.pop("units"), path=folder / "plan.jsonl", progress=lambda n: None, **told)


def lines(plan: GatePlan) -> list[Any]:
    return [json.loads(line) for line in plan.path.read_text().splitlines()]


def test_plan_says_by_what_contracts_its_cases_are_judged(tmp_path: Path) -> None:
    first, *cases = lines(draw(tmp_path))
    assert first == {
        "format": 1,
        "units": [
            {"target": "layer_norm", "contract": "head", "digest": digest(LAX)},
            {"target": "layer_norm", "contract": "base", "digest": digest(SPEC)},
            {"target": "whole_row", "contract": "head", "digest": digest(OTHER)},
        ],
    }
    numbers = Counter((case["case"]["target"], case["contract"]) for case in cases)
    assert numbers == {
        ("layer_norm", "head"): 36,
        ("layer_norm", "base"): 32,
        ("whole_row", "head"): 32,
    }


def test_plan_hash_is_that_of_cases_and_contracts(tmp_path: Path) -> None:
    first = draw(tmp_path)
    text = first.path.read_bytes()
    again = draw(tmp_path)
    assert (again.digest, again.path.read_bytes()) == (first.digest, text)
    other = draw(tmp_path, seed=4)
    assert other.digest != first.digest
    assert other.path.read_bytes() != text
    # The same cases, judged by something else.
    units = (Unit(SPEC, "head"), *UNITS[1:])
    assert draw(tmp_path, units=units).digest != first.digest


def taken(plan: GatePlan, owner: Any) -> list[tuple[TargetSpec, Any]]:
    with StoredBatches(plan, owner) as batches:
        found = []
        assert batches.left == batches.cases
        while (batch := batches.next()) is not None:
            assert batch.cases is not None
            assert batch.count == len(batch.cases)
            found += [(batches.specs[batch.target], case) for case in batch.cases]
            assert batches.handed_out == len(found)
        assert batches.left == 0
        assert batches.next() is None
    return found


def test_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = draw(tmp_path)
    own, base = taken(plan, "head"), taken(plan, "base")
    assert plan.cases == len(own) + len(base) == 100
    assert {spec.name: spec for spec, _ in own} == {"layer_norm": LAX, "whole_row": OTHER}
    assert all(spec.name == case.target for spec, case in own)
    assert {id(spec) for spec, _ in base} == {id(SPEC)}
    written = [line["case"] for line in lines(plan)[1:]]
    read = iter(own), iter(base)
    for number, count in plan.batches:
        for _ in range(count):
            _, case = next(read[UNITS[number].owner == "base"])
            assert written.pop(0) == json.loads(canonical_json(case))


def test_plan_gives_the_first_cases_of_a_unit(tmp_path: Path) -> None:
    plan = draw(tmp_path)
    of_other = [case for spec, case in taken(plan, "head") if spec is OTHER]
    assert list(first_cases(plan, 2, 20)) == of_other[:20]
    assert list(first_cases(plan, 2, 1000)) == of_other
    assert list(first_cases(plan, 1, 0)) == []


@pytest.mark.parametrize("cases", [1, 2, 3, 4, 5, 47])
def test_plan_leaves_no_target_out(tmp_path: Path, cases: int) -> None:
    plan = draw(tmp_path, cases=cases)
    counts: Counter[int] = Counter()
    for number, count in plan.batches:
        counts[number] += count
    assert cases <= plan.cases < cases + len(UNITS)
    assert len(set(counts.values())) == 1
    assert len(counts) == len(UNITS)


def test_plan_of_more_cases_than_a_round_of_batches_has_as_many_as_asked(tmp_path: Path) -> None:
    cases = BATCH["cpu"] * len(UNITS) + 1
    assert draw(tmp_path, cases=cases).cases == cases


def test_plan_says_what_cannot_be_drawn(tmp_path: Path) -> None:
    wrong = replace(SPEC, refuses=(Refusal("x_green", "ValueError", "x"),))
    with pytest.raises(ValueError, match="refusal='x_green', must be one of"):
        draw(tmp_path, units=(Unit(wrong, "head"),))


def test_size_of_a_plan_follows_from_the_time() -> None:
    assert size_of(1, "cpu", 300.0) == 3600
    assert size_of(1, "cuda", 300.0) == 45000
    assert size_of(7, "cpu", 1.0) == 7 * FEWEST
    assert nominal_seconds(size_of(1, "cuda", 300.0), "cuda") == 300.0
