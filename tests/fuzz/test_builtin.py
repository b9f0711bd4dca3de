"""The built-in targets: each runs, returns what its spec says, and refuses what it declares."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import triton

from fuzz import builtin
from fuzz.case import Case, Launch, Recipe, TensorCase, contiguous_strides
from fuzz.execute import Executor
from fuzz.relations import Run
from fuzz.space.refusals import REFUSALS
from fuzz.spec import ArgSpec, FlagValue, LaunchSpace, TargetSpec
from fuzz.targets import builtin_names, load
from fuzz.verdict import Bits, Observation
from oracle.formats import decode, encode

INTERPRETED = bool(triton.knobs.runtime.interpret)
F64 = np.ndarray[Any, np.dtype[np.float64]]

OURS = [name for name in builtin_names() if not name.startswith("torch.")]
REFERENCES = [name for name in builtin_names() if name.startswith("torch.")]


@pytest.fixture(scope="module")
def executor() -> Executor:
    return Executor("cpu" if INTERPRETED else "cuda")


def make_case(
    spec: TargetSpec,
    *,
    shape: tuple[int, ...] = (2, 3, 24),
    launch: Launch | None = None,
    absent: tuple[str, ...] = (),
    **flags: FlagValue,
) -> Case:
    """A case of all arguments, x and out with gaps between their rows."""
    lead = len(shape) - spec.space.max_normalized_dims if spec.space.max_normalized_dims > 1 else -1
    normalized = shape[max(lead, 1) :] if lead != -1 else shape[-1:]

    def tensor(arg: ArgSpec) -> TensorCase:
        own = normalized if arg.shape == "cols" else shape
        strides = contiguous_strides(own)
        if arg.strided:
            cols = math.prod(normalized)
            n_lead = len(shape) - len(normalized)
            leading = contiguous_strides((*shape[:n_lead], 1))[:-1]
            strides = (*(s * (cols + 5) for s in leading), *contiguous_strides(normalized))
        recipe = None if arg.role == "out" else Recipe("normal")
        return TensorCase(arg.name, "float32", own, strides, 3 if arg.strided else 0, recipe)

    return Case(
        spec.name,
        shape,
        len(normalized),
        tuple(tensor(arg) for arg in spec.args if arg.name not in absent),
        {f.name: f.choices[0] for f in spec.flags} | flags,
        1e-5,
        launch or Launch(32, 4, True),
        0,
    )


def values_of(case: Case) -> dict[str, Bits]:
    random = np.random.default_rng(7)
    return {
        t.name: encode(random.standard_normal(t.shape) + 0.5, t.dtype).reshape(t.shape)
        for t in case.tensors
        if t.values is not None and t.dtype == "float32"
    }


def silu(z: F64) -> F64:
    result: F64 = z / (1 + np.exp(-z))
    return result


def reference(case: Case, values: dict[str, Bits]) -> dict[str, F64]:
    """Every quantity in fp64, in the shape of x or (rows, groups)."""
    given = {name: decode(bits, "float32") for name, bits in values.items()}
    total = given["x"] + given.get("input_bias", 0.0) + given.get("residual", 0.0)
    z, before = given.get("z"), case.flags.get("norm_before_gate", True)
    value = total if z is None or before else total * silu(z)
    s = value.reshape(case.n_rows, case.n_groups, case.group_size)
    mean = s.mean(axis=2) * (not case.flags.get("is_rms_norm"))
    s = s - mean[:, :, None]
    rstd = 1 / np.sqrt((s * s).mean(axis=2) + case.eps)
    y = (s * rstd[:, :, None]).reshape(case.shape)
    y = y * given.get("weight", 1.0) + given.get("bias", 0.0)
    y = y if z is None or not before else y * silu(z)
    return {"y": y, "sum": total, "mean": mean, "rstd": rstd}


def run(executor: Executor, case: Case) -> Observation:
    return executor.run(case.target, Run("base", case), values_of(case))


def check_outputs(spec: TargetSpec, case: Case, seen: Observation, names: set[str]) -> None:
    assert seen.status == "ok", seen.error
    assert seen.damage == ()
    assert seen.key is not None
    assert seen.outputs.keys() == names
    owed = reference(case, values_of(case))
    shapes = {
        "full": case.shape,
        "rows_keepdim": (*case.leading, *[1] * case.normalized_ndim),
        "groups": (case.n_groups * case.n_rows,),
    }
    for output in spec.outputs:
        if output.name not in names:
            continue
        array = seen.outputs[output.name]
        shape = shapes[output.shape]
        assert (array.dtype, array.shape, array.poisoned) == ("float32", shape, True)
        want = owed[output.name].T if output.shape == "groups" else owed[output.name]
        got = decode(array.bits, "float32")
        np.testing.assert_allclose(got, want.reshape(shape), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("given_out", [True, False], ids=["out given", "out allocated"])
@pytest.mark.parametrize("name", OURS)
def test_builtin_runs_and_returns_what_its_spec_says(
    executor: Executor, name: str, given_out: bool
) -> None:
    spec = executor.spec(name)
    case = make_case(spec, absent=() if given_out else ("out", "sum_out"))
    assert spec.name == name
    check_outputs(spec, case, run(executor, case), {o.name for o in spec.outputs})


@pytest.mark.parametrize("name", OURS)
def test_builtin_runs_without_its_optional_arguments(executor: Executor, name: str) -> None:
    spec = executor.spec(name)
    optional = tuple(a.name for a in spec.args if a.optional)
    assert {"weight", "bias", "out"} <= set(optional)
    case = make_case(spec, absent=optional)
    check_outputs(spec, case, run(executor, case), {o.name for o in spec.outputs})


@pytest.mark.parametrize(
    ("name", "flags", "names"),
    [
        ("layer_norm_residual", {"return_sum": False}, {"y"}),
        ("layernorm_fn", {"is_rms_norm": True, "norm_before_gate": False}, {"y", "rstd"}),
        ("layernorm_fn", {"group_size": 8}, {"y", "mean", "rstd"}),
        ("rmsnorm_fn", {"group_size": 6, "norm_before_gate": False}, {"y"}),
    ],
)
def test_builtin_flags_reach_the_kernel(
    executor: Executor, name: str, flags: dict[str, FlagValue], names: set[str]
) -> None:
    spec = executor.spec(name)
    case = make_case(spec, **flags)
    check_outputs(spec, case, run(executor, case), names)


@pytest.mark.parametrize(
    ("name", "alias", "of"),
    [
        (spec.name, arg.name, other)
        for spec in (load(name).spec for name in OURS)
        for arg in spec.args
        for other in arg.may_alias
    ],
)
def test_builtin_outputs_may_be_the_inputs_they_name(
    executor: Executor, name: str, alias: str, of: str
) -> None:
    spec = executor.spec(name)
    case = make_case(spec)
    base = case.tensor_or_fail(of)
    case = case.replace_tensor(dataclasses.replace(base, name=alias, values=None, alias_of=of))
    seen = run(executor, case)
    assert seen.status == "ok", seen.error
    output = next(o for o in spec.outputs if o.given_as == alias)
    assert not seen.outputs[output.name].poisoned
    want = reference(case, values_of(case))[output.name]
    got = decode(seen.outputs[output.name].bits, "float32")
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", OURS)
def test_builtin_launch_is_the_one_that_is_pinned(executor: Executor, name: str) -> None:
    spec = executor.spec(name)
    keys = set()
    for block in (64, 128):
        seen = run(executor, make_case(spec, launch=Launch(block, 4, True)))
        assert seen.key is not None
        keys.add(seen.key)
    assert len(keys) == 2


@pytest.mark.parametrize("name", OURS)
def test_builtin_default_launches_are_the_wrappers_own(name: str) -> None:
    from ln_kernels import default_launch, whole_row_launch

    space = load(name).spec.launch
    own = whole_row_launch if space.whole_row else default_launch
    for itemsize in (2, 4):
        rows = [row for row in space.defaults if row.itemsize == itemsize]
        assert [row.max_cols for row in rows] == sorted({row.max_cols for row in rows})
        assert all(
            (a.block, a.num_warps) != (b.block, b.num_warps) for a, b in itertools.pairwise(rows)
        )
        for n_cols in (1, 2, 127, 128, 129, 1024, 1025, 4096, 4097, 8193, 65536, 65537):
            row = next(row for row in rows if n_cols <= row.max_cols)
            launch = own(n_cols, itemsize)
            assert (row.block, row.num_warps) == (launch.block, launch.num_warps)


@pytest.mark.parametrize("name", OURS)
def test_builtin_takes_the_wrappers_launch_where_none_is_pinned(
    executor: Executor, name: str
) -> None:
    spec = executor.spec(name)
    case = dataclasses.replace(make_case(spec), launch=Launch())
    check_outputs(spec, case, run(executor, case), {o.name for o in spec.outputs})


@pytest.mark.parametrize(
    ("name", "refusal"),
    [(name, refusal.name) for name in OURS for refusal in load(name).spec.refuses],
)
def test_builtin_refuses_what_it_declares(executor: Executor, name: str, refusal: str) -> None:
    spec = executor.spec(name)
    declared = next(r for r in spec.refuses if r.name == refusal)
    spoiled = REFUSALS[refusal](make_case(spec))
    assert spoiled is not None
    seen = run(executor, spoiled)
    assert seen.status == "raised"
    assert seen.error is not None
    assert seen.error.type == declared.error
    assert seen.error.message.startswith(declared.argument)


@pytest.mark.parametrize("name", OURS)
def test_builtin_declares_every_refusal_that_its_arguments_allow(name: str) -> None:
    spec = load(name).spec
    # For those without a normalized_shape, a wider x is one that weight does not fit.
    inapplicable = set() if name == "native_layer_norm" else {"normalized_shape_mismatch"}
    for argument in ("input_bias", "z", "residual"):
        if spec.arg(argument) is None:
            inapplicable.add(f"{argument}_shape")
    if spec.flag("group_size") is None:
        inapplicable |= {"group_size_not_divisor", "group_size_zero"}
    assert {r.name for r in spec.refuses} == REFUSALS.keys() - inapplicable


@pytest.mark.parametrize("name", REFERENCES)
def test_builtin_references_run_where_torch_is_right(executor: Executor, name: str) -> None:
    spec = executor.spec(name)
    assert not spec.default
    assert spec.devices == ("cuda",)
    assert spec.launch == LaunchSpace()
    if INTERPRETED:
        assert run(executor, make_case(spec)).status == "unsupported"


def native_call(name: str, x: torch.Tensor) -> dict[str, torch.Tensor]:
    scalars = {"normalized_shape": tuple(x.shape[1:]), "eps": 1e-5}
    return load(name).call({"x": x, "weight": None, "bias": None}, scalars, Launch())


def test_builtin_eager_reference_is_torchs() -> None:
    x = torch.arange(24.0).reshape(4, 6)
    seen = native_call("torch.native_layer_norm", x)
    wanted = torch.native_layer_norm(x, (6,), None, None, 1e-5)
    for name, tensor in zip(("y", "mean", "rstd"), wanted, strict=True):
        assert torch.equal(seen[name], tensor)


@pytest.fixture
def fast_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A compiler that takes no seconds in place of Inductor, and torch's own settings after it."""
    from torch._dynamo import config
    from torch._inductor import compile_fx

    monkeypatch.setattr(compile_fx, "compile_fx", lambda graph, inputs: graph.forward)
    limits = ("recompile_limit", "accumulated_recompile_limit", "fail_on_recompile_limit_hit")
    with config.patch({name: getattr(config, name) for name in limits}):
        yield


@pytest.mark.usefixtures("fast_compiler")
def test_builtin_compiled_reference_never_runs_eager() -> None:
    _, call = builtin.TARGETS["torch.compile"]()

    def normalize(x: torch.Tensor) -> dict[str, torch.Tensor]:
        scalars = {"normalized_shape": tuple(x.shape[1:]), "eps": 1e-5}
        return call({"x": x, "weight": None, "bias": None}, scalars, Launch())

    for n_cols in range(3, 7):
        x = torch.randn(4, n_cols)
        wanted = torch.native_layer_norm(x, (n_cols,), None, None, 1e-5)
        for seen, want in zip(normalize(x).values(), wanted, strict=True):
            torch.testing.assert_close(seen, want)
    eager = torch.compiler.set_stance("force_eager")
    with eager, pytest.raises(builtin.Unsupported, match="eager"):
        normalize(torch.randn(4, 50))
