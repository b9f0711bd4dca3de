"""What the judges are given: the campaign's own cases, the usual list, uniform draws."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz import campaign
from fuzz.case import Case, Recipe, contiguous_strides, to_json, validate
from fuzz.jobs.setup import Settings
from fuzz.power.draws import CASES, FIXED_WIDTHS, MAX_ROWS, campaign_cases
from fuzz.space.budget import INTERPRETER_BUDGET, USUAL_SHARE
from fuzz.spec import FlagSpec, LaunchSpace, Space
from tests.fuzz.builders import GATED, LAYER_NORM, RESIDUAL, SPECS, WHOLE_ROW
from tests.fuzz.fake_backend import BACKEND, spec_of


class Silent:
    """A listener that says nothing."""

    def __getattr__(self, name: str):
        return lambda *_: None


def test_draws_are_those_of_a_campaign(tmp_path: Path) -> None:
    settings = Settings(
        ("right",), "cpu", cases=40, seed=5, workers=1, out=tmp_path, backend=BACKEND
    )
    result = campaign.run(settings, Silent())
    journal = (result.run_folder / "journal-0.jsonl").read_text().splitlines()
    begun = [json.loads(line)["case"] for line in journal if '"begin"' in line]
    mine = campaign_cases(spec_of("right"), "cpu", seed=5, count=40)
    assert begun == [to_json(case) for case in mine]


def drawn(source: str, spec, count: int = 300, seed: int = 0) -> list[Case]:
    return list(CASES[source](spec, "cpu", seed=seed, count=count))


@pytest.mark.parametrize("source", ["fixed", "uniform"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.name)
def test_draws_are_plain_and_valid(source: str, spec) -> None:
    for case in drawn(source, spec, count=60):
        validate(case)
        assert case.refusal is None and case.normalized_ndim == 1 and len(case.shape) == 2
        assert set(case.flags) == {flag.name for flag in spec.flags}
        assert case.launch.block is not None and case.launch.num_warps is not None
        for tensor in case.tensors:
            assert tensor.strides == contiguous_strides(tensor.shape)
            assert (tensor.offset, tensor.alias_of) == (0, None)
            assert tensor.values in (Recipe("normal"), None)


def test_draws_of_the_list_are_the_usual_ones() -> None:
    cases = drawn("fixed", GATED)
    seen = [(case.n_cols, case.dtype) for case in cases]
    assert seen == list(itertools.product(FIXED_WIDTHS, ("float32", "bfloat16", "float16")))
    for case in cases:
        assert [t.name for t in case.tensors] == ["x", "weight", "bias", "z"]
        assert len({t.dtype for t in case.tensors}) == 1
        assert case.flags == {
            "group_size": None,
            "norm_before_gate": True,
            "is_rms_norm": False,
            "weight_offset": 0.0,
        }
        assert case.relations == ()
    assert drawn("fixed", GATED, seed=1)[0].seed != cases[0].seed


def test_draws_of_the_list_keep_to_the_target() -> None:
    narrow = replace(
        WHOLE_ROW,
        launch=LaunchSpace(blocks=(64, 256), whole_row=True),
        space=Space(min_rank=3, max_rank=3, min_eps=1e-3),
    )
    cases = drawn("fixed", narrow)
    assert {case.n_cols for case in cases} == {128, 256}
    assert {case.shape[0] for case in cases} == {1} and cases[0].eps == 1e-3
    groups = tuple(f for f in GATED.flags if f.name != "group_size")
    constant = replace(GATED, flags=(FlagSpec("group_size", (96,)), *groups))
    assert drawn("fixed", constant) == []
    assert len(drawn("fixed", LAYER_NORM, count=4)) == 4


def test_draws_are_uniform() -> None:
    cases = drawn("uniform", GATED, count=600)
    assert {case.n_rows for case in cases} == set(range(1, MAX_ROWS + 1))
    most = INTERPRETER_BUDGET.max_elements // USUAL_SHARE
    assert all(case.n_rows * case.n_cols <= most for case in cases)
    assert all(case.programs <= INTERPRETER_BUDGET.max_programs for case in cases)
    # Uniform, so that half of the widths lie in the upper half of what its rows leave.
    upper = sum(case.n_cols > most // case.n_rows // 2 for case in cases)
    assert 0.4 < upper / len(cases) < 0.6
    assert {len(case.tensors) for case in cases} > {2, 4}
    for flag in ("norm_before_gate", "is_rms_norm", "weight_offset"):
        assert len({case.flags[flag] for case in cases}) == 2
    assert {len(case.relations) for case in cases} == {2}


def test_draws_are_the_same_for_a_seed() -> None:
    assert drawn("uniform", RESIDUAL, 20) == drawn("uniform", RESIDUAL, 40)[:20]
    assert drawn("uniform", RESIDUAL, 20) != drawn("uniform", RESIDUAL, 20, seed=1)
