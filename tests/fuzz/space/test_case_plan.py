"""The plan of valid cases by itself: budgets, fixed dims, shared memory, relations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from fuzz.case import Case
from fuzz.space.case_plan import MANY_ROWS, CasePlan
from fuzz.space.choices import Chooser
from fuzz.spec import ArgSpec, OutputSpec, Space, TargetSpec
from fuzz.strategies import GPU_BUDGET, INTERPRETER_BUDGET, Budget
from oracle.arithmetic import Arithmetic
from tests.quality.branches_targets import GATED, LAYER_NORM, NATIVE, ROWS

TIGHT = Budget(max_programs=20, max_elements=1000, max_cols=65_537, max_steps=30)


def drawn(
    spec: TargetSpec, budget: Budget = GPU_BUDGET, *, count: int = 400, many_rows: bool = False
) -> list[Case]:
    chooser, plan = Chooser(5), CasePlan(spec, budget)
    return [plan.draw(chooser, many_rows=many_rows) for _ in range(count)]


def check_budget(case: Case, budget: Budget) -> None:
    assert case.programs <= budget.max_programs
    assert case.n_rows * case.n_cols <= budget.max_elements
    block = case.launch.block
    if block is not None:
        assert case.programs * -(-case.group_size // block) <= budget.max_steps


# --- rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [LAYER_NORM, GATED, ROWS], ids=lambda spec: spec.name)
@pytest.mark.parametrize("rank", [None, 6])
def test_rows_stay_within_the_budget(spec: TargetSpec, rank: int | None) -> None:
    fixed = spec if rank is None else spec.fixed({"rank": rank})
    for case in drawn(fixed, TIGHT):
        check_budget(case, TIGHT)
        # Rows that are lost to the budget leave one.
        assert case.n_rows > 0 or 0 in case.leading


def test_rows_stay_within_the_steps() -> None:
    few_steps = replace(GPU_BUDGET, max_steps=12)
    steps = []
    for case in drawn(LAYER_NORM.fixed({"block": 32, "n_cols": 96}), few_steps):
        check_budget(case, few_steps)
        steps.append(case.n_rows * 3)
    assert max(steps) == 12


def test_rows_of_many_elements_are_few() -> None:
    spec, budget = ROWS.fixed({"n_cols": 100, "rank": 2}), replace(GPU_BUDGET, max_elements=80_000)
    large = sum(case.n_rows > 100 for case in drawn(spec, budget, count=6000))
    assert 0 < large < 60


def test_rows_of_a_width_that_fills_the_budget_are_one() -> None:
    spec = replace(ROWS, space=replace(ROWS.space, empty_batch=False)).fixed({"n_cols": 1000})
    assert {case.n_rows for case in drawn(spec, TIGHT, count=200)} == {1}


def test_many_rows_are_drawn_on_demand() -> None:
    for case in drawn(ROWS.fixed({"rank": 2}), count=60, many_rows=True):
        assert MANY_ROWS[0] <= case.n_rows <= MANY_ROWS[1]
        check_budget(case, GPU_BUDGET)


@pytest.mark.parametrize("name", ["n_cols", "group_size"])
def test_many_rows_are_not_drawn_of_a_width_that_is_fixed(name: str) -> None:
    """Of so many, a user's columns would take any budget."""
    for case in drawn(GATED.fixed({name: 96}), count=60, many_rows=True):
        assert case.n_rows < MANY_ROWS[0]
        check_budget(case, GPU_BUDGET)


def test_many_rows_are_not_drawn_where_the_budget_has_fewer_programs() -> None:
    budget = replace(GPU_BUDGET, max_programs=MANY_ROWS[1] - 1)
    assert max(c.n_rows for c in drawn(LAYER_NORM, budget, count=60, many_rows=True)) < MANY_ROWS[0]
    budget = replace(GPU_BUDGET, max_programs=MANY_ROWS[1])
    assert max(c.n_rows for c in drawn(LAYER_NORM, budget, count=60, many_rows=True)) > 65_535


def test_rows_that_are_fixed_are_as_many_in_any_shape() -> None:
    found = drawn(LAYER_NORM.fixed({"n_rows": 12}), count=300)
    assert {case.n_rows for case in found} == {12}
    assert {len(case.shape) for case in found} == {2, 3, 4, 5, 6}
    assert {case.n_rows for case in drawn(LAYER_NORM.fixed({"n_rows": 0}), count=100)} == {0}


# --- dims, dtype, eps ---------------------------------------------------------------------------


def test_dims_have_their_limits() -> None:
    space = Space(min_rank=3, max_rank=4, max_normalized_dims=4)
    found = Counter((c.normalized_ndim, len(c.shape)) for c in drawn(replace(ROWS, space=space)))
    assert set(found) == {(dims, rank) for dims in (1, 2, 3, 4) for rank in (3, 4) if dims <= rank}
    fixed = NATIVE.fixed({"normalized_ndim": 3})
    assert {case.normalized_ndim for case in drawn(fixed, count=100)} == {3}
    assert {len(case.shape) for case in drawn(NATIVE.fixed({"rank": 2}), count=100)} == {2}


def test_dims_of_a_fixed_number_of_rows_leave_room_for_them() -> None:
    several = drawn(NATIVE.fixed({"n_rows": 6}), count=200)
    assert all(len(case.shape) > case.normalized_ndim for case in several)
    one = drawn(NATIVE.fixed({"n_rows": 1}), count=200)
    assert any(len(case.shape) == case.normalized_ndim for case in one)


def test_eps_is_what_the_target_allows() -> None:
    assert {case.eps for case in drawn(ROWS.fixed({"eps": 3e-3}), count=50)} == {3e-3}
    above = {case.eps for case in drawn(replace(ROWS, space=Space(min_eps=0.05)))}
    assert above == {0.1, 1 / 3, 1.0, 1e3}
    beyond = {case.eps for case in drawn(replace(ROWS, space=Space(min_eps=2e3)), count=50)}
    assert beyond == {2e3}


def test_dtype_and_family_of_x_are_those_that_are_fixed() -> None:
    for case in drawn(LAYER_NORM.fixed({"dtype": "float16", "family": "ramp"}), count=50):
        x = case.tensor_or_fail("x")
        assert x.dtype == "float16"
        assert x.values is not None
        assert x.values.family == "ramp"


# --- tensors ------------------------------------------------------------------------------------


def user(*args: ArgSpec) -> TargetSpec:
    return TargetSpec("user", (ArgSpec("x"), *args), (OutputSpec("y"),), Arithmetic())


def test_tensors_that_are_optional_are_absent_at_times() -> None:
    spec = user(ArgSpec("weight", shape="cols", optional=True), ArgSpec("bias", shape="cols"))
    found = drawn(spec, count=1000)
    given = sum(case.tensor("weight") is not None for case in found)
    assert given / 1000 == pytest.approx(0.65, abs=0.05)
    assert all(case.tensor("bias") is not None for case in found)


def test_tensors_are_in_the_order_of_the_spec() -> None:
    spec = user(ArgSpec("out", role="out", may_alias=("z",)), ArgSpec("z"))
    for case in drawn(spec, count=100):
        assert [tensor.name for tensor in case.tensors] == ["x", "out", "z"]
    # What an output shares memory with is drawn before it, wherever the spec has it.
    shared = {case.tensor_or_fail("out").alias_of for case in drawn(spec)}
    assert shared == {None, "z"}


@pytest.mark.parametrize("role", ["in", "inout", "out", "scratch"])
def test_tensors_have_values_by_their_role(role: str) -> None:
    spec = user(ArgSpec("t", role=role, strided=True))  # type: ignore[arg-type]
    tensors = [case.tensor_or_fail("t") for case in drawn(spec, count=300)]
    assert {tensor.values is not None for tensor in tensors} == {role in ("in", "inout")}
    # Rows in the same memory can be read, and not written.
    expanded = any(0 in tensor.strides for tensor in tensors)
    assert expanded is (role == "in")


def test_tensors_share_memory_of_the_same_shape_and_dtype_alone() -> None:
    spec = user(
        ArgSpec("z", strided=True),
        ArgSpec("mean", shape="rows"),
        ArgSpec("out", role="out", may_alias=("x", "z", "mean", "absent")),
        ArgSpec("copy", role="out", may_alias=("x", "z", "mean")),
        ArgSpec("own", role="out"),
    )
    shared = Counter[tuple[str, str | None]]()
    for case in drawn(spec, count=1500):
        taken = [tensor.alias_of for tensor in case.tensors if tensor.alias_of is not None]
        assert len(set(taken)) == len(taken)
        for tensor in case.tensors:
            shared[tensor.name, tensor.alias_of] += 1
            if tensor.alias_of is not None:
                other = case.tensor_or_fail(tensor.alias_of)
                assert tensor == replace(other, name=tensor.name, values=None, alias_of=other.name)
                assert 0 not in other.strides
    assert shared["own", None] == 1500
    for name in ("out", "copy"):
        assert shared[name, "x"] > 50
        assert shared[name, "z"] > 30
        assert shared[name, None] > 800
        # Statistics have the shape of x where x has one row of one column, and never where not.
        assert shared[name, "mean"] < 10


def test_tensors_have_the_dtype_of_x_above_all() -> None:
    spec = user(
        ArgSpec("any"),
        ArgSpec("half", dtypes=("float16", "bfloat16")),
        ArgSpec("same", dtypes=("x",)),
        ArgSpec("single", dtypes=("float32",)),
    ).fixed({"dtype": "float16"})
    found = Counter[tuple[str, str]]()
    for case in drawn(spec, count=3000):
        found.update((tensor.name, tensor.dtype) for tensor in case.tensors)
    share = {key: number / 3000 for key, number in found.items()}
    assert share == {
        ("x", "float16"): 1.0,
        ("same", "float16"): 1.0,
        ("single", "float32"): 1.0,
        # Half has that of x, a quarter float32, and a quarter any.
        ("any", "float16"): pytest.approx(1 / 2 + 1 / 12, abs=0.03),
        ("any", "float32"): pytest.approx(1 / 4 + 1 / 12, abs=0.03),
        ("any", "bfloat16"): pytest.approx(1 / 12, abs=0.03),
        # What cannot be float32 has any in its place.
        ("half", "float16"): pytest.approx(1 / 2 + 1 / 4, abs=0.03),
        ("half", "bfloat16"): pytest.approx(1 / 4, abs=0.03),
    }


def test_tensors_of_a_contiguous_layout_have_no_offset() -> None:
    found = drawn(GATED.fixed({"layout": "contiguous"}), count=100)
    assert {tensor.offset for case in found for tensor in case.tensors} == {0}


# --- values anew --------------------------------------------------------------------------------


def test_values_are_redrawn_for_what_has_any() -> None:
    chooser, plan = Chooser(5), CasePlan(LAYER_NORM, GPU_BUDGET)
    case = next(c for c in drawn(LAYER_NORM) if c.tensor("out") and c.tensor("weight"))
    again = [plan.redraw_values(chooser, case) for _ in range(300)]
    for other in again:
        for before, after in zip(case.tensors, other.tensors, strict=True):
            assert replace(after, values=before.values) == before
            assert (after.values is None) == (before.values is None)
    assert len({other.eps for other in again}) > 5
    assert len({other.seed for other in again}) == 300
    assert len({other.relations for other in again}) == 1
    assert len({str(other.tensor_or_fail("weight").values) for other in again}) > 15
    planted = [o for o in again if any(t.values and t.values.plants for t in o.tensors)]
    assert 15 < len(planted) < 60


def test_values_are_planted_unless_the_plan_has_none() -> None:
    plan = CasePlan(LAYER_NORM, GPU_BUDGET, plants=False)
    chooser = Chooser(5)
    found = [plan.draw(chooser) for _ in range(200)]
    found += [plan.redraw_values(chooser, found[0]) for _ in range(200)]
    assert not any(t.values and t.values.plants for case in found for t in case.tensors)


# --- relations ----------------------------------------------------------------------------------


def test_relations_are_the_fixed_one_and_poisoned() -> None:
    def fixed(name: str) -> set[tuple[str, ...]]:
        spec = LAYER_NORM.fixed({"relation": name})
        return {case.relations for case in drawn(spec, INTERPRETER_BUDGET, count=50)}

    assert fixed("permuted") == {("poisoned", "permuted")}
    assert fixed("poisoned") == {("poisoned",)}


def test_relations_leave_out_those_that_give_no_run() -> None:
    one_row = drawn(user().fixed({"n_rows": 1, "layout": "contiguous"}), count=50)
    assert {case.relations for case in one_row} == {("repeat", "poisoned")}
    several = drawn(user().fixed({"n_rows": 3, "layout": "contiguous"}), count=50)
    assert {frozenset(case.relations) for case in several} == {
        frozenset({"repeat", "poisoned", "row_alone", "permuted", "drowned"})
    }
    gaps = [c for c in drawn(ROWS.fixed({"n_rows": 1})) if c.tensor_or_fail("x").offset == 0]
    copied = {"contiguous" in case.relations for case in gaps if 1 not in case.shape}
    assert copied == {False}
    assert {True, False} == {"contiguous" in case.relations for case in gaps}
    offset = [c for c in drawn(user().fixed({"n_rows": 1})) if c.tensor_or_fail("x").offset]
    assert {frozenset(case.relations) for case in offset} == {
        frozenset({"repeat", "poisoned", "contiguous"})
    }
