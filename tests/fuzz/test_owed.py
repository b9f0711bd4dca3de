"""What a target owes: shapes, dtypes, the oracle's problem."""

from dataclasses import replace

import numpy as np
import pytest

from fuzz.inputs import make_values
from fuzz.judging.owed import (
    as_rows,
    dtype_of,
    due_outputs,
    expected_outputs,
    index_of,
    problem_of,
    rows_of_expected,
    rows_of_problem,
    shape_of,
)
from fuzz.spec import LaunchSpace, OutputSpec
from oracle.arithmetic import Arithmetic, Depth
from oracle.compare import Expected
from tests.fuzz.builders import GATED, LAYER_NORM, NATIVE, RESIDUAL, make_case

CASE = make_case(GATED, (2, 3, 8), dtype="float16", flags={"group_size": 2})
MULTI = make_case(NATIVE, (5, 2, 4), normalized_ndim=2)

SHAPES = [
    ("full", (2, 3, 8), (5, 2, 4)),
    ("cols", (8,), (2, 4)),
    ("rows", (2, 3), (5,)),
    ("rows_keepdim", (2, 3, 1), (5, 1, 1)),
    ("groups", (24,), (5,)),
]


@pytest.mark.parametrize(("kind", "shape", "multi_shape"), SHAPES)
def test_output_has_the_shape_of_its_kind(kind, shape, multi_shape) -> None:
    output = OutputSpec("y", kind)
    assert shape_of(output, CASE) == shape
    assert shape_of(output, MULTI) == multi_shape


@pytest.mark.parametrize(("kind", "shape", "_"), SHAPES)
def test_output_in_rows_has_every_element_once(kind, shape, _) -> None:
    output = OutputSpec("y", kind)
    array = np.arange(np.prod(shape)).reshape(shape)
    rows = as_rows(output, CASE, array)
    assert rows.ndim == 2
    assert len(rows) == (1 if kind == "cols" else CASE.n_rows)
    for (row, column), element in np.ndenumerate(rows):
        assert array[index_of(output, CASE, row, column)] == element
    assert sorted(rows.reshape(-1)) == list(range(array.size))


def test_statistics_of_groups_are_group_major() -> None:
    output = OutputSpec("rstd", "groups", "float32")
    # The entry of row r, group g lies at g * n_rows + r.
    flat = np.array([10 * row + group for group in range(4) for row in range(6)])
    assert as_rows(output, CASE, flat)[5].tolist() == [50, 51, 52, 53]
    assert index_of(output, CASE, 5, 2) == (17,)


@pytest.mark.parametrize("kind", ["full", "rows", "rows_keepdim", "groups"])
def test_output_of_an_empty_batch_has_no_rows(kind) -> None:
    case = make_case(GATED, (0, 8), flags={"group_size": 2})
    output = OutputSpec("y", kind)
    empty = np.zeros(shape_of(output, case))
    columns = {"full": 8, "groups": 4}.get(kind, 1)
    assert as_rows(output, case, empty).shape == (0, columns)


def test_output_without_leading_dims_is_one_row() -> None:
    case = make_case(NATIVE, (8,))
    mean = OutputSpec("mean", "rows", "float32")
    assert shape_of(mean, case) == ()
    assert as_rows(mean, case, np.zeros(())).shape == (1, 1)
    assert index_of(mean, case, 0, 0) == ()


def test_output_has_the_dtype_of_x_its_own_or_that_of_the_memory_given() -> None:
    y = OutputSpec("y", given_as="out")
    given = make_case(RESIDUAL, (4, 8), dtype="float16", dtypes={"sum_out": "float32"})
    assert dtype_of(OutputSpec("sum", given_as="sum_out"), given) == "float32"
    assert dtype_of(y, given) == "float16"
    absent = make_case(RESIDUAL, (4, 8), dtype="float16", absent=("out", "sum_out"))
    assert dtype_of(OutputSpec("sum", given_as="sum_out"), absent) == "float16"
    assert dtype_of(OutputSpec("mean", "rows", "float32"), absent) == "float32"


def names(spec, case) -> list[str]:
    return [output.name for output in due_outputs(spec, case)]


def test_rms_norm_owes_no_mean() -> None:
    assert names(GATED, CASE) == ["y", "mean", "rstd"]
    rms = replace(CASE, flags={**CASE.flags, "is_rms_norm": True})
    assert names(GATED, rms) == ["y", "rstd"]


def test_sum_is_owed_unless_it_is_not_asked_for() -> None:
    case = make_case(RESIDUAL, (4, 8))
    assert names(RESIDUAL, case) == ["y", "sum"]
    silent = replace(case, flags={"return_sum": False})
    assert names(RESIDUAL, silent) == ["y"]
    # A target without the flag always returns what its spec lists.
    assert names(RESIDUAL, replace(case, flags={})) == ["y", "sum"]


def test_problem_has_the_values_of_the_case() -> None:
    case = make_case(
        GATED,
        (2, 3, 8),
        dtype="bfloat16",
        dtypes={"weight": "float32"},
        flags={
            "group_size": 2,
            "is_rms_norm": True,
            "norm_before_gate": False,
            "weight_offset": 1.0,
        },
        eps=0.25,
    )
    values = make_values(case)
    problem = problem_of(GATED, case, values, interpreted=True)
    x = (values["x"].astype(np.uint32) << 16).view(np.float32).reshape(6, 8)
    assert np.array_equal(problem.x, x)
    assert problem.z is not None and problem.z.shape == (6, 8)
    assert np.array_equal(problem.weight, values["weight"].view(np.float32))
    assert problem.residual is None and problem.input_bias is None
    assert (problem.dtype, problem.eps, problem.group_size) == ("bfloat16", 0.25, 2)
    assert problem.is_rms_norm and not problem.norm_before_gate
    assert problem.weight_offset == 1.0


def test_problem_takes_the_usual_where_the_target_has_no_flag() -> None:
    case = make_case(LAYER_NORM, (2, 8))
    problem = problem_of(LAYER_NORM, case, make_values(case), interpreted=False)
    assert not problem.is_rms_norm and problem.norm_before_gate
    assert (problem.weight_offset, problem.group_size) == (0.0, 8)


def test_problem_flattens_several_normalized_dims() -> None:
    problem = problem_of(NATIVE, MULTI, make_values(MULTI), interpreted=True)
    assert problem.x.shape == (5, 8)
    assert problem.weight is not None and problem.weight.shape == (8,)


def depth(spec, case, *, interpreted: bool = False) -> int:
    return problem_of(spec, case, make_values(case), interpreted=interpreted).depth


def test_depth_follows_from_the_pinned_launch_over_one_group() -> None:
    case = make_case(GATED, (1, 4096), block=1024, flags={"group_size": 2048})
    # 128 threads: 8 elements of a block each, 2 blocks; 7 steps join them, 2 to spare.
    assert depth(GATED, case) == 8 * 2 + 7 + 2
    assert depth(GATED, replace(case, launch=replace(case.launch, num_warps=1))) == 32 * 2 + 5 + 2


@pytest.mark.parametrize("name", ["block", "BLOCK", "BLOCK_N", "BLOCK_SIZE"])
def test_depth_follows_from_the_pinned_configuration(name: str) -> None:
    of_rows = ("BLOCK_M", 4)
    configs = ((("BLOCK_SIZE", 64), ("num_warps", 1)), (of_rows, (name, 512), ("num_warps", 4)))
    spec = replace(LAYER_NORM, launch=LaunchSpace(configs=configs))
    case = make_case(spec, (1, 1024))
    pinned = replace(case, launch=replace(case.launch, block=None, num_warps=None, config=1))
    # Of a block's 128 threads 64 hold a vector of 8, which gives more than 4 each of both blocks.
    assert depth(spec, pinned) == 8 + 2 + 6 + 2


def test_depth_is_the_worst_where_the_launch_is_not_known() -> None:
    spec = replace(LAYER_NORM, launch=LaunchSpace(configs=((("TILE", 64), ("num_warps", 1)),)))
    case = make_case(spec, (1, 1000))
    pinned = replace(case, launch=replace(case.launch, block=None, num_warps=None, config=0))
    # 1000 elements take 999 additions in whatever order.
    assert depth(spec, pinned) >= 999


def test_depth_of_a_linear_rule_needs_no_launch() -> None:
    spec = replace(LAYER_NORM, arithmetic=Arithmetic(depth=Depth("linear", 100, 5)))
    assert depth(spec, make_case(spec, (1, 1000))) == 15


def test_expectation_of_chosen_rows_is_that_of_their_problem() -> None:
    values = make_values(CASE)
    problem = problem_of(GATED, CASE, values, interpreted=True)
    dtypes = {"y": "float16", "mean": "float32"}
    whole = expected_outputs(GATED, problem, dtypes, {})
    rows = [4, 0]
    part = expected_outputs(GATED, rows_of_problem(problem, rows), dtypes, {})
    for name, expected in whole.items():
        chosen = rows_of_expected(expected, rows)
        for field in Expected.__dataclass_fields__:
            assert np.array_equal(getattr(part[name], field), getattr(chosen, field))


def test_expectation_follows_from_observed_statistics_that_are_reused() -> None:
    case = make_case(NATIVE, (3, 16))
    problem = problem_of(NATIVE, case, make_values(case), interpreted=True)
    dtypes = {"y": "float32", "rstd": "float32"}
    computed = expected_outputs(NATIVE, problem, dtypes, {})
    observed = {"rstd": np.full((3, 1), 2.0), "y": np.zeros((3, 16))}
    judged = expected_outputs(NATIVE, problem, dtypes, observed)
    ratio = judged["y"].value[0] - problem.bias, computed["y"].value[0] - problem.bias
    assert np.allclose(ratio[0] / ratio[1], 2.0 / computed["rstd"].value[0])
    # What is observed is itself judged from what was computed.
    assert np.array_equal(judged["rstd"].value, computed["rstd"].value)


def test_expectation_of_an_output_that_the_oracle_does_not_know_is_refused() -> None:
    problem = problem_of(LAYER_NORM, CASE, make_values(CASE), interpreted=True)
    with pytest.raises(ValueError, match=r"output='dx', must be one of sum, .*\[layer_norm\]"):
        expected_outputs(LAYER_NORM, problem, {"y": "float16", "dx": "float16"}, {})
