"""Drawn cases are valid, reach every declared class, and are the same for the same seed."""

import functools
import hashlib
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.case import Case, TensorCase, canonical_json, contiguous_strides, from_json
from fuzz.inputs import FAMILIES, make_values
from fuzz.relations import expand
from fuzz.space.choices import Chooser, Table
from fuzz.space.refusals import REFUSALS
from fuzz.space.widths import default_launch, divisors, is_prime
from fuzz.spec import (
    FLOAT_DTYPES,
    ArgSpec,
    DefaultLaunch,
    FlagSpec,
    LaunchSpace,
    OutputSpec,
    Refusal,
    Space,
    TargetSpec,
)
from fuzz.strategies import (
    FIXABLE,
    GPU_BUDGET,
    INTERPRETER_BUDGET,
    Budget,
    cases,
    check_fixes,
    coverage,
    declared_features,
    draw_cases,
    features,
)
from oracle.arithmetic import Arithmetic

ROOT = Path(__file__).resolve().parents[2]

# --- targets that resemble the real ones, and some that do not --------------------------------


def refuses(*names: str) -> tuple[Refusal, ...]:
    return tuple(Refusal(name, "ValueError", "") for name in names)


ALL_REFUSE = (
    *("n_cols_zero", "x_zero_dim", "x_float64", "x_int64", "x_complex64", "x_column_stride"),
    *("weight_shape", "bias_shape", "weight_int64", "eps_negative"),
)
OUT_REFUSE = ("out_shape", "out_dtype", "out_expanded")

DEFAULTS = tuple(
    DefaultLaunch(max_cols, itemsize, block, warps)
    for itemsize in (2, 4)
    for max_cols, block, warps in (
        (128, 128, 1),
        (512, 512, 2),
        (1024, 1024, 4),
        (4096, 4096, 8),
        (1 << 20, 8192, 8),
    )
)
LOOPED = LaunchSpace((32, 128, 1024, 8192), (1, 4, 8), (True, False), defaults=DEFAULTS)
WHOLE = LaunchSpace(
    tuple(2**k for k in range(18)),
    (16, 32),
    (True, False),
    whole_row=True,
    defaults=tuple(DefaultLaunch(2**k, size, 2**k, 8) for k in range(18) for size in (2, 4)),
)

X = ArgSpec("x", strided=True)
WEIGHT = ArgSpec("weight", shape="cols", optional=True)
BIAS = ArgSpec("bias", shape="cols", optional=True)
Y = OutputSpec("y", given_as="out")


def out(*may_alias: str) -> ArgSpec:
    return ArgSpec(
        "out", role="out", dtypes=("x",), optional=True, strided=True, may_alias=may_alias
    )


def target(
    name: str, *args: ArgSpec, refused: tuple[str, ...] = (), **given_: object
) -> TargetSpec:
    made = TargetSpec(name, args, (Y,), Arithmetic(), launch=LOOPED, refuses=refuses(*refused))
    return replace(made, **given_)  # type: ignore[arg-type]


LAYER_NORM = target("layer_norm", X, WEIGHT, BIAS, out("x"), refused=(*ALL_REFUSE, *OUT_REFUSE))
GATED = target(
    "gated",
    *(X, WEIGHT, BIAS, ArgSpec("z", optional=True, strided=True), out("x", "z")),
    flags=(
        FlagSpec("group_size", (None,)),
        FlagSpec("norm_before_gate", (True, False)),
        FlagSpec("is_rms_norm", (False, True)),
    ),
    refused=(*ALL_REFUSE, *OUT_REFUSE, "z_shape", "group_size_not_divisor", "group_size_zero"),
)
RESIDUAL = target(
    "residual",
    X,
    ArgSpec("input_bias", shape="cols", optional=True),
    ArgSpec("residual", strided=True),
    WEIGHT,
    BIAS,
    out("x"),
    ArgSpec(
        "sum_out",
        role="out",
        dtypes=("x", "float32"),
        optional=True,
        strided=True,
        may_alias=("x", "residual"),
    ),
    flags=(FlagSpec("return_sum", (True, False)),),
    refused=(*ALL_REFUSE, *OUT_REFUSE, "residual_shape", "input_bias_shape"),
)
NATIVE = target(
    "native",
    *(X, WEIGHT, BIAS, out("x")),
    space=Space(max_normalized_dims=3),
    refused=(*ALL_REFUSE, *OUT_REFUSE, "normalized_shape_mismatch"),
)
WHOLE_ROW = target(
    "whole_row", X, WEIGHT, BIAS, out("x"), launch=WHOLE, refused=(*ALL_REFUSE, *OUT_REFUSE)
)
# A kernel that a user brings: two dims, contiguous, eps a constant, the launch an autotuner's.
TUNED = target(
    "tuned",
    ArgSpec("x", dtypes=("float32", "bfloat16")),
    ArgSpec("weight", shape="cols", dtypes=("x",)),
    launch=LaunchSpace(configs=((("BLOCK", 1024), ("num_warps", 4)), (("BLOCK_N", 128),))),
    space=Space(2, 2, empty_batch=False, fixed=(("eps", 1e-5),)),
)
# Every role and shape that a spec can name, as a backward pass has them.
BACKWARD = target(
    "backward",
    X,
    ArgSpec("dy", strided=True),
    ArgSpec("mean", shape="rows", dtypes=("float32",), strided=True),
    ArgSpec("rstd", shape="rows_keepdim", dtypes=("float32",)),
    ArgSpec("stats", shape="groups", role="out", dtypes=("float32",)),
    ArgSpec("dweight", shape="cols", role="inout", dtypes=("float32",)),
    ArgSpec("locks", shape="cols", role="scratch", dtypes=("float32",)),
    launch=LaunchSpace(fp_fusion=()),
    flags=(FlagSpec("group_size", (None,)), FlagSpec("weight_offset", (0.0, 1.0))),
)

SPECS = {s.name: s for s in (LAYER_NORM, GATED, RESIDUAL, NATIVE, WHOLE_ROW, TUNED, BACKWARD)}
BUDGETS = {"interpreter": INTERPRETER_BUDGET, "gpu": GPU_BUDGET}
CASES = 4000

drawn_by = pytest.mark.parametrize(
    ("target_name", "budget_name"),
    [
        *((name, "interpreter") for name in SPECS),
        *((name, "gpu") for name in ("layer_norm", "gated", "native")),
    ],
)


@functools.cache
def draw(target_name: str, budget_name: str) -> list[Case]:
    spec, budget = SPECS[target_name], BUDGETS[budget_name]
    return list(draw_cases(spec, seed=20, count=CASES, budget=budget))


def digest(drawn: list[Case]) -> str:
    return hashlib.sha256("".join(map(canonical_json, drawn)).encode()).hexdigest()


# --- what a valid case is, said again and independently ---------------------------------------


class Invalid(AssertionError):
    pass


def require(holds: object, *what: object) -> None:
    if not holds:
        raise Invalid(*what)


def check_case(case: Case, spec: TargetSpec) -> None:
    """All that a spec promises about a valid case. Raises Invalid."""
    space = spec.space
    require(case.target == spec.name)
    require(1 <= case.normalized_ndim <= space.max_normalized_dims)
    require(space.min_rank <= len(case.shape) <= space.max_rank)
    require(len(case.shape) >= case.normalized_ndim)
    require(1 <= case.n_cols <= space.max_cols, "n_cols", case.n_cols)
    require(case.n_rows > 0 or (space.empty_batch and 0 in case.leading))
    require(math.isfinite(case.eps) and case.eps >= space.min_eps, "eps", case.eps)
    require(set(case.flags) == {flag.name for flag in spec.flags})
    for flag in spec.flags:
        value = case.flags[flag.name]
        if flag.name != "group_size":
            require(value in flag.choices, flag.name, value)
        elif value is not None:
            require(isinstance(value, int) and value > 0 and case.n_cols % value == 0, value)
    require({"x"} <= {t.name for t in case.tensors} <= {a.name for a in spec.args})
    require(len({t.name for t in case.tensors}) == len(case.tensors))
    for arg in spec.args:
        tensor = case.tensor(arg.name)
        require(tensor is not None or arg.optional, arg.name, "absent")
        if tensor is not None:
            check_tensor(tensor, arg, case)
    check_launch(case, spec)


def check_tensor(tensor: TensorCase, arg: ArgSpec, case: Case) -> None:
    name = tensor.name
    dims = case.normalized_ndim
    shapes = {
        "full": case.shape,
        "cols": case.normalized,
        "rows": case.leading,
        "rows_keepdim": case.leading + (1,) * dims,
        "groups": (case.n_rows * case.n_groups,),
    }
    require(tensor.shape == shapes[arg.shape], name, tensor.shape)
    require(tensor.dtype in [case.dtype if d == "x" else d for d in arg.dtypes], name, "dtype")
    require(tensor.dtype in FLOAT_DTYPES, name, tensor.dtype)
    require(len(tensor.strides) == len(tensor.shape) and min((0, *tensor.strides)) >= 0)
    require(tensor.offset >= 0)
    # Within twice the elements and the gaps: a test must not take memory that it does not use.
    require(tensor.span <= 2 * tensor.n_elements + 65 * case.n_rows + 512, name, tensor.span)
    if arg.shape in ("full", "cols"):
        step = 1
        for size, stride in list(zip(tensor.shape, tensor.strides, strict=True))[: -dims - 1 : -1]:
            require(size == 1 or stride == step, name, "columns", tensor.strides)
            step *= size
    if not arg.strided:
        require(tensor.strides == contiguous_strides(tensor.shape), name, "strided")
    require(arg.role == "in" or not is_expanded(tensor), name, "expanded")
    require(not overlaps_itself(tensor), name, "overlap", tensor)
    require((tensor.values is None) == (arg.role in ("out", "scratch")), name, "values")
    if tensor.values is not None:
        require(tensor.values.family in FAMILIES)
        for plant in tensor.values.plants:
            require(0 <= plant.index < tensor.n_elements)
            require(plant.value in ("nan", "inf", "-inf"))
    if tensor.alias_of is not None:
        require(tensor.alias_of in arg.may_alias, name, "alias")
        other = case.tensor_or_fail(tensor.alias_of)
        require(not is_expanded(other) and other.alias_of is None)
        same = replace(other, name=name, values=None, alias_of=other.name)
        require(tensor == same, name, "is no alias", tensor, other)
        sharing = [t for t in case.tensors if t.alias_of == tensor.alias_of]
        require(len(sharing) == 1, "two outputs in one place")


def is_expanded(tensor: TensorCase) -> bool:
    return any(s == 0 and n > 1 for n, s in zip(tensor.shape, tensor.strides, strict=True))


def overlaps_itself(tensor: TensorCase) -> bool:
    """Whether two elements share memory other than through an expanded dim."""
    dims = [(s, n) for n, s in zip(tensor.shape, tensor.strides, strict=True) if n > 1 and s > 0]
    if tensor.n_elements == 0:
        return False
    if math.prod(n for _, n in dims) <= 2000:
        places = [sum(i) for i in itertools.product(*(range(0, s * n, s) for s, n in dims))]
        return len(set(places)) < len(places)
    # Too many to list: larger strides must step over all that the smaller ones reach.
    reach = 0
    for stride, size in sorted(dims):
        if stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def check_launch(case: Case, spec: TargetSpec) -> None:
    space, launch = spec.launch, case.launch
    require(launch.fp_fusion in (space.fp_fusion or (None,)))
    if space.configs:
        require(launch.config is not None and 0 <= launch.config < len(space.configs))
        require(launch.block is None and launch.num_warps is None)
        return
    require(launch.config is None)
    row = default_launch(space, case.group_size, case.tensor_or_fail("x").itemsize)
    usual = row is not None and (launch.block, launch.num_warps) == (row.block, row.num_warps)
    pinned = launch.block in (space.blocks or (None,)) and launch.num_warps in space.num_warps
    require(usual or pinned, launch)
    if space.whole_row:
        require(launch.block is not None and launch.block >= case.n_cols, launch)


def check_budget(case: Case, spec: TargetSpec, budget: Budget) -> None:
    require(case.programs <= budget.max_programs)
    require(case.n_rows * case.n_cols <= budget.max_elements)
    require(case.n_cols <= budget.max_cols)
    block = case.launch.block
    if case.launch.config is not None:
        block = (1024, 128)[case.launch.config]
    if block is not None:
        steps = case.programs * math.ceil(case.group_size / block)
        require(steps <= budget.max_steps, steps)


# --- validity ---------------------------------------------------------------------------------


@drawn_by
def test_cases_are_valid_and_within_budget(target_name: str, budget_name: str) -> None:
    spec, budget = SPECS[target_name], BUDGETS[budget_name]
    for case in draw(target_name, budget_name):
        if case.refusal is None:
            check_case(case, spec)
            check_budget(case, spec, budget)


@drawn_by
def test_cases_survive_json(target_name: str, budget_name: str) -> None:
    for case in draw(target_name, budget_name)[:1000]:
        text = canonical_json(case)
        again = from_json(json.loads(text))
        assert again == case
        assert canonical_json(again) == text


@drawn_by
def test_cases_have_relations_that_apply(target_name: str, budget_name: str) -> None:
    drawn = [c for c in draw(target_name, budget_name)[:1500] if c.refusal is None]
    for case in drawn:
        assert "poisoned" in case.relations
        assert [run.name for run in expand(case)] == ["base", *case.relations]
    if budget_name == "interpreter":
        more = statistics.mean(len(case.relations) - 1 for case in drawn)
        assert 0.8 < more < 1.2


@pytest.mark.parametrize("target_name", SPECS)
def test_cases_have_values(target_name: str) -> None:
    for case in draw(target_name, "interpreter")[:400]:
        values = make_values(case)
        for tensor in case.tensors:
            if tensor.values is not None:
                assert values[tensor.name].shape == tensor.shape


def test_cases_are_all_different() -> None:
    drawn = draw("layer_norm", "interpreter")
    assert len({case.case_id for case in drawn}) == len(drawn)


# --- invalid cases ----------------------------------------------------------------------------


@drawn_by
def test_refusals_are_invalid_and_declared(target_name: str, budget_name: str) -> None:
    spec = SPECS[target_name]
    drawn = draw(target_name, budget_name)
    invalid = [case for case in drawn if case.refusal is not None]
    for case in invalid:
        assert case.refusal in {refusal.name for refusal in spec.refuses}
        assert case.relations == ()
        assert case.n_rows * case.n_cols <= 4096
        with pytest.raises(Invalid):
            check_case(case, spec)
    expected = 0.05 if spec.refuses else 0.0
    assert len(invalid) / len(drawn) == pytest.approx(expected, abs=0.013)


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_say_what_they_change(name: str) -> None:
    spec = next(s for s in SPECS.values() if name in {r.name for r in s.refuses})
    drawn = list(draw_cases(spec.fixed({"refusal": name}), seed=1, count=30, budget=GPU_BUDGET))
    assert {case.refusal for case in drawn} == {name}
    assert REFUSALS[name].__doc__
    for case in drawn:
        with pytest.raises(Invalid) as caught:
            check_case(case, spec)
        # The argument that a target must name is the one that is wrong.
        argument = name.split("_")[0].replace("normalized", "x")
        assert name.startswith(("n_cols", "group_size", "input_bias")) or argument in str(caught)


def test_refusals_none_where_none_is_declared() -> None:
    assert all(case.refusal is None for case in draw("backward", "interpreter"))


def test_refusals_unknown_is_an_error() -> None:
    spec = replace(LAYER_NORM, refuses=refuses("x_too_blue"))
    with pytest.raises(ValueError, match="refusal='x_too_blue', must be one of n_cols_zero, "):
        cases(spec, GPU_BUDGET)


def test_refusals_that_cannot_be_are_an_error() -> None:
    spec = replace(LAYER_NORM, refuses=refuses("weight_shape", "z_shape"))
    with pytest.raises(ValueError, match="refusal=z_shape: no case can be made one"):
        cases(spec, GPU_BUDGET)


# --- reachability and shares ------------------------------------------------------------------


@drawn_by
def test_features_declared_are_all_reached(target_name: str, budget_name: str) -> None:
    spec, budget = SPECS[target_name], BUDGETS[budget_name]
    found = coverage(draw(target_name, budget_name), spec)
    declared = declared_features(spec, budget)
    for name, count in sorted(found.items()):
        print(f"{count / CASES:8.2%}  {name}")
    assert sorted(declared - found.keys()) == []
    # Nothing is drawn that the declaration does not know.
    assert sorted(found.keys() - declared) == []


@drawn_by
def test_features_of_width_have_their_share(target_name: str, budget_name: str) -> None:
    spec = SPECS[target_name]
    drawn = [case for case in draw(target_name, budget_name) if case.refusal is None]
    found = Counter(name for case in drawn for name in features(case, spec))
    share = {name: count / len(drawn) for name, count in found.items()}
    assert share["n_cols=>4096"] >= 0.25
    assert share["n_cols=1-16"] >= 0.10
    assert share["n_cols=power of 2"] + share["n_cols=power of 2 +-1"] >= 0.15
    assert share["n_cols=prime"] >= 0.05
    assert share["n_cols=multiple of 16 +-1"] >= 0.10
    if spec.launch.blocks or spec.launch.configs:
        borders = sum(any(f.startswith("border=") for f in features(c, spec)) for c in drawn)
        assert borders / len(drawn) >= 0.12
    assert max(case.n_cols for case in drawn) > 65000


def test_features_of_launch_have_their_share() -> None:
    found = coverage(draw("layer_norm", "gpu"), LAYER_NORM)
    assert 0.4 < found["launch=default"] / CASES < 0.65
    assert 0.7 < found["fp_fusion=True"] / CASES < 0.95


def test_features_of_plants_are_few() -> None:
    drawn = draw("residual", "interpreter")
    planted = sum(any(t.values and t.values.plants for t in case.tensors) for case in drawn)
    assert 0.08 < planted / CASES < 0.15


def test_features_see_what_a_case_is() -> None:
    """Read off a case written by hand, not off the choices of the strategies."""
    case = replace(
        draw("gated", "interpreter")[0],
        refusal=None,
        shape=(2, 3, 8194),
        flags={"group_size": 17 * 241, "norm_before_gate": True, "is_rms_norm": False},
        tensors=(
            TensorCase("x", "bfloat16", (2, 3, 8194), (8210, 16420, 1), 1),
            TensorCase("z", "float32", (2, 3, 8194), (0, 8224, 1), 4),
            TensorCase("out", "bfloat16", (2, 3, 8194), (8210, 16420, 1), 1, alias_of="x"),
        ),
    )
    case = replace(case, launch=replace(case.launch, block=1024, num_warps=8))
    found = features(case, GATED)
    assert {
        "rank=3",
        "rows=5-16",
        "dtype=bfloat16",
        "n_cols=>4096",
        "group_size=larger than block",
        "border=4*block+1",
        "launch=pinned",
        "x.layout=permuted",
        "x.layout=row_gap",
        "x.base=misaligned",
        "z.layout=expanded",
        "z.layout=row_stride_16",
        "z.dtype=other than x",
        "z.base=aligned offset",
        "out=alias of x",
        "weight=absent",
    } <= found
    assert "x.layout=contiguous" not in found


def test_budgets_hold_on_average() -> None:
    interpreted = [c for c in draw("layer_norm", "interpreter") if c.refusal is None]
    assert 4 <= statistics.mean(case.programs for case in interpreted) <= 16
    compiled = [c for c in draw("layer_norm", "gpu") if c.refusal is None]
    assert 20e3 <= statistics.mean(case.n_rows * case.n_cols for case in compiled) <= 60e3
    assert statistics.median(case.n_rows for case in compiled) <= 8


# --- the same cases for the same seed ---------------------------------------------------------


def test_draw_same_seed_gives_same_cases() -> None:
    first = list(draw_cases(GATED, seed=5, count=40, budget=GPU_BUDGET))
    assert list(draw_cases(GATED, seed=5, count=40, budget=GPU_BUDGET)) == first
    others = [
        list(draw_cases(GATED, seed=6, count=40, budget=GPU_BUDGET)),
        list(draw_cases(replace(GATED, name="other"), seed=5, count=40, budget=GPU_BUDGET)),
    ]
    for other in others:
        assert not {case.case_id for case in first} & {case.case_id for case in other}


@pytest.mark.parametrize("environment", [{"CI": "1"}, {"PYTHONHASHSEED": "3"}])
def test_draw_is_free_of_the_environment(environment: dict[str, str]) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from hypothesis import settings, Verbosity\n"
        "for name in 'odd', 'default':\n"
        "    settings.register_profile(name, max_examples=3, derandomize=True, database=None,\n"
        "        verbosity=Verbosity.debug)\n"
        "settings.load_profile('odd')\n"
        "from fuzz.strategies import *\n"
        "from fuzz.case import canonical_json\n"
        "from fuzz.spec import *\n"
        "from oracle.arithmetic import Arithmetic\n"
        "spec = TargetSpec('plain', (ArgSpec('x', strided=True),), (), Arithmetic())\n"
        "for case in draw_cases(spec, seed=3, count=20, budget=GPU_BUDGET):\n"
        "    print(canonical_json(case))\n"
    )
    command = [sys.executable, "-c", program, str(ROOT)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("CI", "HYPOTHESIS"))}
    result = subprocess.run(
        command, env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    spec = TargetSpec("plain", (ArgSpec("x", strided=True),), (), Arithmetic())
    here = list(draw_cases(spec, seed=3, count=20, budget=GPU_BUDGET))
    assert result.stdout.split("\n")[:-1] == [canonical_json(case) for case in here]


@pytest.mark.parametrize("count", [0, 1, 2, 33])
def test_draw_gives_as_many_as_asked(count: int) -> None:
    assert len(list(draw_cases(LAYER_NORM, seed=1, count=count, budget=GPU_BUDGET))) == count


@settings(max_examples=25, suppress_health_check=[HealthCheck.differing_executors])
@given(case=cases(NATIVE, INTERPRETER_BUDGET))
def test_cases_serve_as_a_hypothesis_strategy(case: Case) -> None:
    assert isinstance(case, Case)
    if case.refusal is None:
        check_case(case, NATIVE)


# --- fixed dimensions -------------------------------------------------------------------------

FIXES = [
    ("n_cols", "4097", lambda c: c.n_cols == 4097),
    ("n_rows", "6", lambda c: c.n_rows == 6),
    ("n_rows", "0", lambda c: c.n_rows == 0),
    ("rank", "4", lambda c: len(c.shape) == 4),
    ("normalized_ndim", "1", lambda c: c.normalized_ndim == 1),
    ("dtype", "bfloat16", lambda c: c.dtype == "bfloat16"),
    ("group_size", "12", lambda c: c.flags["group_size"] == 12),
    ("group_size", "none", lambda c: c.flags["group_size"] is None),
    ("eps", "2e-4", lambda c: c.eps == 2e-4),
    ("family", "subnormal", lambda c: c.tensor_or_fail("x").values.family == "subnormal"),
    (
        "layout",
        "contiguous",
        lambda c: all(
            t.strides == contiguous_strides(t.shape) and t.offset == 0 for t in c.tensors
        ),
    ),
    ("block", "1024", lambda c: c.launch.block == 1024),
    ("num_warps", "8", lambda c: c.launch.num_warps == 8),
    ("fp_fusion", "false", lambda c: c.launch.fp_fusion is False),
    ("relation", "row_alone", lambda c: c.relations in ((), ("poisoned", "row_alone"))),
    ("refusal", "none", lambda c: c.refusal is None),
    ("refusal", "z_shape", lambda c: c.refusal == "z_shape"),
    ("is_rms_norm", "true", lambda c: c.flags["is_rms_norm"] is True),
]


@pytest.mark.parametrize(("name", "text", "holds"), FIXES)
@pytest.mark.parametrize("budget_name", BUDGETS)
def test_fix_holds_in_every_case(name: str, text: str, holds: object, budget_name: str) -> None:
    fixed = GATED.fixed(check_fixes(GATED, {name: text}))
    assert callable(holds)
    for case in draw_cases(fixed, seed=2, count=150, budget=BUDGETS[budget_name]):
        assert holds(case), case
        if case.refusal is None:
            check_case(case, GATED)


def test_fix_every_name_is_tried() -> None:
    assert set(FIXABLE) - {name for name, _, _ in FIXES} == {"config"}


def test_fix_config() -> None:
    fixed = TUNED.fixed(check_fixes(TUNED, {"config": "1"}))
    drawn = list(draw_cases(fixed, seed=2, count=50, budget=INTERPRETER_BUDGET))
    assert {case.launch.config for case in drawn} == {1}
    # The small block of this configuration would take 513 steps for the widest row.
    assert max(case.n_cols for case in drawn) <= 64 * 128


def test_fix_several_at_once() -> None:
    fixes = {"n_cols": "8190", "group_size": "2730", "n_rows": "3", "rank": "3", "block": "8192"}
    fixed = GATED.fixed(check_fixes(GATED, fixes))
    for case in draw_cases(fixed, seed=2, count=100, budget=INTERPRETER_BUDGET):
        assert (case.n_cols, case.group_size, case.n_rows) == (8190, 2730, 3)
        assert (len(case.shape), case.launch.block) == (3, 8192)


@pytest.mark.parametrize("n_cols", [1, 4096, 65537, 8190])
def test_fix_n_cols_leaves_groups_that_divide_it(n_cols: int) -> None:
    fixed = GATED.fixed({"n_cols": n_cols})
    drawn = list(draw_cases(fixed, seed=2, count=200, budget=INTERPRETER_BUDGET))
    for case in drawn:
        if case.refusal is None:
            check_case(case, GATED)
            check_budget(case, GATED, INTERPRETER_BUDGET)
    assert n_cols in (1, 65537) or len({case.flags["group_size"] for case in drawn}) > 5


def test_fix_that_leaves_no_room_for_a_refusal_leaves_it_out() -> None:
    fixed = LAYER_NORM.fixed(check_fixes(LAYER_NORM, {"n_rows": "1", "dtype": "float16"}))
    drawn = list(draw_cases(fixed, seed=2, count=2000, budget=INTERPRETER_BUDGET))
    refused = {case.refusal for case in drawn} - {None}
    assert refused == {r.name for r in LAYER_NORM.refuses} - {
        *("out_expanded", "x_zero_dim", "x_float64", "x_int64", "x_complex64")
    }


def test_fix_of_the_target_itself_stays() -> None:
    fixed = TUNED.fixed(check_fixes(TUNED, {"n_cols": "100"}))
    drawn = list(draw_cases(fixed, seed=2, count=50, budget=INTERPRETER_BUDGET))
    assert {case.eps for case in drawn} == {1e-5}


FIX_ERRORS = [
    ({"cols": "5"}, GATED, "cols is no dimension, must be one of n_cols, n_rows, "),
    ({"n_cols": "0"}, GATED, r"n_cols=0, must be an integer in 1 \.\.\. 65537 \[gated\]"),
    ({"n_cols": "many"}, GATED, "n_cols=many, must be an integer"),
    ({"n_cols": "4.5"}, GATED, "n_cols=4.5, must be an integer"),
    ({"n_rows": "0"}, TUNED, "n_rows=0, must be an integer >= 1"),
    ({"rank": "6"}, GATED, r"rank=6, must be an integer in 1 \.\.\. 5"),
    ({"normalized_ndim": "2"}, GATED, r"normalized_ndim=2, must be an integer in 1 \.\.\. 1"),
    ({"dtype": "float64"}, GATED, "dtype=float64, must be one of float32, bfloat16, float16"),
    ({"dtype": "float16"}, TUNED, "dtype=float16, must be one of float32, bfloat16"),
    ({"eps": "nan"}, GATED, "eps=nan, must be a finite number >= 0"),
    ({"eps": "1e-3"}, TUNED, r"eps=0\.001, must be 1e-05: the target takes no other"),
    ({"family": "cauchy"}, GATED, "family=cauchy, must be one of normal, "),
    ({"layout": "upside"}, GATED, "layout=upside, must be one of contiguous"),
    ({"block": "1000"}, GATED, "block=1000, must be one of 32, 128, 1024, 8192"),
    ({"block": "128"}, TUNED, "block=128, must be left alone: the target has no such choice"),
    ({"config": "2"}, TUNED, "config=2, must be one of 0, 1"),
    ({"fp_fusion": "maybe"}, GATED, "fp_fusion=maybe, must be one of True, False"),
    ({"relation": "upside"}, GATED, "relation=upside, must be one of repeat, "),
    ({"refusal": "x_blue"}, GATED, "refusal=x_blue, must be one of none, n_cols_zero, "),
    ({"is_rms_norm": "2"}, GATED, "is_rms_norm=2, must be one of False, True"),
    ({"group_size": "0"}, GATED, r"group_size=0, must be an integer in 1 \.\.\. 65537"),
    ({"group_size": "4"}, LAYER_NORM, "group_size=4, must be left alone"),
    ({"n_cols": "10", "group_size": "4"}, GATED, "group_size=4, must be a divisor of n_cols=10"),
    ({"n_rows": "4", "rank": "1"}, GATED, "n_rows=4, must be 1 where all of rank=1 dims"),
    ({"rank": "1", "normalized_ndim": "2"}, NATIVE, "rank=1, must be at least normalized_ndim=2"),
    ({"n_cols": "300", "block": "256"}, WHOLE_ROW, "n_cols=300, must be at most block=256"),
    (
        {"dtype": "float16", "refusal": "x_int64"},
        GATED,
        r"refusal=x_int64, must be one that does not change what is fixed \(dtype\)",
    ),
]


@pytest.mark.parametrize(("fixes", "spec", "message"), FIX_ERRORS)
def test_fix_errors_name_value_and_rule(
    fixes: dict[str, str], spec: TargetSpec, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_fixes(spec, fixes)


def test_fix_group_size_constant_of_the_target() -> None:
    spec = replace(GATED, flags=(FlagSpec("group_size", (64,)),))
    assert check_fixes(spec, {"group_size": "64"}) == {"group_size": 64}
    with pytest.raises(ValueError, match="group_size=32, must be one of 64"):
        check_fixes(spec, {"group_size": "32"})
    drawn = draw_cases(replace(spec, refuses=()), seed=2, count=100, budget=INTERPRETER_BUDGET)
    assert {case.flags["group_size"] for case in drawn} == {64}
    assert all(case.n_cols % 64 == 0 for case in drawn)


# --- choices and numbers ----------------------------------------------------------------------


@given(low=st.integers(1, 5000), extra=st.integers(0, 70000), entropy=st.integers(0, 1 << 64))
def test_chooser_octave_stays_in_range(low: int, extra: int, entropy: int) -> None:
    chooser = Chooser(entropy)
    assert all(low <= chooser.octave(low, low + extra) <= low + extra for _ in range(20))


def test_chooser_octave_is_even_over_doublings() -> None:
    chooser = Chooser(1)
    sizes = Counter(chooser.octave(4097, 65537).bit_length() for _ in range(8000))
    # 4097 ... 8193 and so on: four doublings, the last of which takes 65537 too.
    assert all(sizes[bits] / 8000 == pytest.approx(0.25, abs=0.03) for bits in (13, 14, 15, 16))


def test_chooser_draws_by_weight() -> None:
    chooser, table = Chooser(1), Table((1, "rare"), (0, "never"), (9, "usual"))
    found = Counter(chooser.draw(table) for _ in range(5000))
    assert found.keys() == {"rare", "usual"}
    assert found["rare"] / 5000 == pytest.approx(0.1, abs=0.02)
    assert table.where(lambda value: value == "rare").values == ("rare",)
    with pytest.raises(ValueError, match="at least one entry"):
        table.where(lambda value: value == "unknown")


def test_chooser_shuffles_evenly() -> None:
    chooser = Chooser(1)
    found = Counter("".join(chooser.shuffled("abc")) for _ in range(6000))
    assert len(found) == 6
    assert all(count / 6000 == pytest.approx(1 / 6, abs=0.02) for count in found.values())


def test_numbers_primes_and_divisors() -> None:
    assert [n for n in range(32) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31]
    assert is_prime(65537)
    assert not is_prime(65535)
    for n in (1, 2, 36, 97, 8190):
        assert divisors(n) == tuple(d for d in range(1, n + 1) if n % d == 0)
