"""Every relation makes the run that its name promises."""

from dataclasses import replace

import pytest

from fuzz.case import Case, Recipe, contiguous_strides, keeps_apart
from fuzz.relations import HOW, RELATIONS, Run, expand, has_rows
from fuzz.spec import TargetSpec
from fuzz.strategies import GPU_BUDGET, draw_cases
from tests.fuzz.builders import ALL_RELATIONS, GATED, LAYER_NORM, NATIVE, RESIDUAL, make_case

STRIDED = make_case(
    GATED,
    (2, 3, 8),
    strides={"x": (40, 12, 1), "z": (8, 16, 1)},
    offsets={"x": 3, "weight": 1},
    seed=16,
    relations=ALL_RELATIONS,
)
EXPANDED = make_case(
    GATED, (4, 8), strides={"x": (0, 1), "z": (16, 1)}, seed=16, relations=ALL_RELATIONS
)
ALIASED = make_case(
    RESIDUAL,
    (4, 8),
    strides={"x": (24, 1), "residual": (0, 1)},
    aliases={"out": "x"},
    seed=9,
    relations=ALL_RELATIONS,
)
EMPTY = make_case(LAYER_NORM, (3, 0, 8), relations=ALL_RELATIONS)
ONE_ROW = make_case(LAYER_NORM, (8,), relations=ALL_RELATIONS)
MULTI = make_case(NATIVE, (5, 2, 4), normalized_ndim=2, seed=3, relations=ALL_RELATIONS)


def run_of(case: Case, name: str) -> Run:
    return next(run for run in expand(case) if run.name == name)


def layouts(case: Case) -> list[tuple[tuple[int, ...], int]]:
    return [(t.strides, t.offset) for t in case.tensors]


def test_relations_start_with_the_case_itself() -> None:
    assert expand(STRIDED)[0] == Run("base", STRIDED)
    assert [run.name for run in expand(STRIDED)] == ["base", *ALL_RELATIONS]
    assert [run.name for run in expand(replace(STRIDED, relations=()))] == ["base"]


def test_relations_have_words_for_a_message() -> None:
    assert HOW.keys() == RELATIONS.keys()


def test_relation_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"relation='shuffled', must be one of repeat, poisoned"):
        expand(replace(STRIDED, relations=("repeat", "shuffled")))


def test_relation_named_twice_is_refused() -> None:
    # Observations are told apart by the names of their runs.
    with pytest.raises(ValueError, match="must name each relation once"):
        expand(replace(STRIDED, relations=("repeat", "repeat")))


@pytest.mark.parametrize("case", [EMPTY, ONE_ROW])
def test_relations_between_rows_need_two_rows(case: Case) -> None:
    # Nor is there another layout of contiguous tensors.
    assert [run.name for run in expand(case)] == ["base", "repeat", "poisoned"]


def test_repeat_is_the_same_launch() -> None:
    assert run_of(STRIDED, "repeat") == Run("repeat", STRIDED)


@pytest.mark.parametrize(("seed", "poison"), [(0, "-huge"), (1, "huge"), (2, "-huge")])
def test_poisoned_is_the_same_launch_among_finite_poison_of_either_sign(
    seed: int, poison: str
) -> None:
    case = replace(STRIDED, seed=seed)
    run = run_of(case, "poisoned")
    assert (run.case, run.rows, run.drowned) == (case, None, None)
    assert run.poison == poison
    assert run_of(case, "base").poison == "nan"


@pytest.mark.parametrize("case", [STRIDED, EXPANDED, ALIASED])
def test_contiguous_has_dense_aligned_tensors_and_the_same_values(case: Case) -> None:
    run = run_of(case, "contiguous")
    assert run.rows is None and run.drowned is None
    for was, now in zip(case.tensors, run.case.tensors, strict=True):
        assert now.strides == contiguous_strides(now.shape)
        assert now.offset == 0
        assert replace(now, strides=was.strides, offset=was.offset) == was


def test_contiguous_tensors_have_no_other_layout() -> None:
    assert "contiguous" not in [run.name for run in expand(MULTI)]


@pytest.mark.parametrize("case", [STRIDED, EXPANDED, ALIASED, MULTI])
def test_row_alone_has_one_row_where_the_case_has_it(case: Case) -> None:
    run = run_of(case, "row_alone")
    assert run.rows is not None
    (row,) = run.rows
    assert 0 <= row < case.n_rows
    assert run.case.n_rows == 1
    assert len(run.case.shape) == len(case.shape)
    assert run.case.normalized == case.normalized
    # What the launch is specialised on: strides and alignment.
    assert layouts(run.case) == layouts(case)
    for was, now in zip(case.tensors, run.case.tensors, strict=True):
        assert now.shape == (run.case.shape if has_rows(was, case) else was.shape)


def test_row_alone_takes_every_row_in_turn() -> None:
    rows = {run_of(replace(STRIDED, seed=seed), "row_alone").rows for seed in range(6)}
    assert rows == {(row,) for row in range(6)}


@pytest.mark.parametrize("n_rows", [2, 3, 7])
def test_permuted_rows_are_a_permutation_that_moves_rows(n_rows: int) -> None:
    for seed in range(2 * n_rows):
        rows = run_of(
            make_case(LAYER_NORM, (n_rows, 8), seed=seed, relations=("permuted",)), "permuted"
        ).rows
        assert rows is not None
        assert sorted(rows) == list(range(n_rows))
        assert rows != tuple(range(n_rows))


@pytest.mark.parametrize("name", ["permuted", "drowned"])
@pytest.mark.parametrize("case", [STRIDED, MULTI])
def test_rows_with_memory_of_their_own_keep_their_layout(case: Case, name: str) -> None:
    assert run_of(case, name).case == case


@pytest.mark.parametrize("name", ["permuted", "drowned"])
@pytest.mark.parametrize("case", [EXPANDED, ALIASED])
def test_rows_that_share_memory_are_given_their_own(case: Case, name: str) -> None:
    run = run_of(case, name)
    for was, now in zip(case.tensors, run.case.tensors, strict=True):
        shared = not keeps_apart(was, may_expand=False)
        assert keeps_apart(now, may_expand=False)
        assert (now != was) == shared
        assert replace(now, strides=was.strides, offset=was.offset) == was


def test_drowned_row_is_one_of_the_case() -> None:
    rows = {run_of(replace(STRIDED, seed=seed), "drowned").drowned for seed in range(0, 42, 7)}
    assert rows == set(range(6))


@pytest.mark.parametrize("name", ALL_RELATIONS)
def test_relation_keeps_outputs_that_share_memory_with_an_input_in_its_layout(name: str) -> None:
    case = run_of(ALIASED, name).case
    x, out = case.tensor_or_fail("x"), case.tensor_or_fail("out")
    assert out.alias_of == "x"
    assert (out.shape, out.strides, out.offset) == (x.shape, x.strides, x.offset)


@pytest.mark.parametrize("spec", [GATED, RESIDUAL, NATIVE], ids=lambda s: s.name)
def test_relation_never_changes_what_is_computed(spec: TargetSpec) -> None:
    budget = replace(GPU_BUDGET, max_elements=4000)
    for case in draw_cases(replace(spec, refuses=()), seed=2, count=60, budget=budget):
        for run in expand(case):
            same = replace(
                run.case, shape=case.shape, tensors=case.tensors, relations=case.relations
            )
            assert same == case
            for was, now in zip(case.tensors, run.case.tensors, strict=True):
                assert (now.name, now.dtype, now.values) == (was.name, was.dtype, was.values)


def test_tensors_with_a_row_for_every_row_are_told_by_shape_and_name() -> None:
    case = make_case(GATED, (8,), values={"z": Recipe("zeros")})
    rows = [t.name for t in case.tensors if has_rows(t, case)]
    assert rows == ["x", "z", "out"]
