"""Invalid cases by themselves: what each changes, where it cannot, and what rules it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from fuzz.case import Case, Launch, Recipe, TensorCase, contiguous_strides
from fuzz.space.refusals import REFUSALS, declared_refusals
from fuzz.spec import ArgSpec, FlagValue, OutputSpec, Refusal, TargetSpec
from fuzz.strategies import GPU_BUDGET, cases, draw_cases
from oracle.arithmetic import Arithmetic
from tests.quality.branches_targets import GATED, LAYER_NORM

VALUES = Recipe("normal", 0.0, 1.0)


def tensor(
    name: str, shape: tuple[int, ...], dtype: str = "bfloat16", **given: object
) -> TensorCase:
    values = None if name in ("out", "mean") else VALUES
    made = TensorCase(name, dtype, shape, contiguous_strides(shape), 0, values)
    return replace(made, **given)  # type: ignore[arg-type]


X = tensor("x", (2, 3, 12))
WEIGHT = tensor("weight", (12,))
OUT = tensor("out", (2, 3, 12))
MEAN = tensor("mean", (2, 3), "float32")
CASE = Case(
    target="any",
    shape=(2, 3, 12),
    normalized_ndim=1,
    tensors=(X, WEIGHT, tensor("z", (2, 3, 12)), OUT, MEAN),
    flags={"group_size": 4, "is_rms_norm": True},
    eps=1e-5,
    launch=Launch(),
    seed=1,
    relations=(),
)


def changed(name: str, case: Case = CASE) -> dict[str, object]:
    """What the refusal changes, tensors by name."""
    spoiled = REFUSALS[name](case)
    assert spoiled is not None
    found: dict[str, object] = {}
    for before, after in zip(case.tensors, spoiled.tensors, strict=True):
        if before != after:
            found[after.name] = (after.dtype, after.shape, after.strides, after.offset)
    if spoiled.shape != case.shape:
        found["shape"] = spoiled.shape
    if spoiled.flags != case.flags:
        found["flags"] = spoiled.flags
    if spoiled.eps != case.eps:
        found["eps"] = spoiled.eps
    return found


BF16 = "bfloat16"
CHANGES: dict[str, Mapping[str, object]] = {
    "n_cols_zero": {
        "shape": (2, 3, 0),
        "x": (BF16, (2, 3, 0), (3, 1, 1), 0),
        "weight": (BF16, (0,), (1,), 0),
        "z": (BF16, (2, 3, 0), (3, 1, 1), 0),
        "out": (BF16, (2, 3, 0), (3, 1, 1), 0),
    },
    "x_zero_dim": {"x": (BF16, (), (), 0)},
    # Outputs of the dtype of x have it too, inputs and other outputs keep theirs.
    "x_float64": {
        "x": ("float64", (2, 3, 12), (36, 12, 1), 0),
        "out": ("float64", (2, 3, 12), (36, 12, 1), 0),
    },
    "x_int64": {
        "x": ("int64", (2, 3, 12), (36, 12, 1), 0),
        "out": ("int64", (2, 3, 12), (36, 12, 1), 0),
    },
    "x_complex64": {
        "x": ("complex64", (2, 3, 12), (36, 12, 1), 0),
        "out": ("complex64", (2, 3, 12), (36, 12, 1), 0),
    },
    "x_column_stride": {"x": (BF16, (2, 3, 12), (72, 24, 2), 0)},
    "weight_shape": {"weight": (BF16, (13,), (1,), 0)},
    "z_shape": {"z": (BF16, (2, 3, 13), (39, 13, 1), 0)},
    "out_shape": {"out": (BF16, (2, 3, 13), (39, 13, 1), 0)},
    "normalized_shape_mismatch": {"x": (BF16, (2, 3, 13), (39, 13, 1), 0)},
    "weight_int64": {"weight": ("int64", (12,), (1,), 0)},
    "out_dtype": {"out": ("float32", (2, 3, 12), (36, 12, 1), 0)},
    "out_expanded": {"out": (BF16, (2, 3, 12), (0, 0, 1), 0)},
    "group_size_not_divisor": {"flags": {"group_size": 5, "is_rms_norm": True}},
    "group_size_zero": {"flags": {"group_size": 0, "is_rms_norm": True}},
    "eps_negative": {"eps": -1e-5},
}


@pytest.mark.parametrize("name", CHANGES)
def test_refusal_changes_this_and_nothing_else(name: str) -> None:
    assert changed(name) == CHANGES[name]


@pytest.mark.parametrize("name", ["bias_shape", "input_bias_shape", "residual_shape"])
def test_refusal_of_a_tensor_that_is_absent_cannot_be(name: str) -> None:
    assert REFUSALS[name](CASE) is None
    absent = name.removesuffix("_shape")
    assert changed(name, replace(CASE, tensors=(X, tensor(absent, (12,))))) == {
        absent: (BF16, (13,), (1,), 0)
    }


def test_refusal_of_x_follows_all_normalized_dims() -> None:
    several = replace(
        CASE,
        normalized_ndim=2,
        flags={},
        tensors=(X, tensor("weight", (3, 12)), tensor("mean", (2, 1, 1), "float32")),
    )
    assert changed("n_cols_zero", several) == {
        "shape": (2, 3, 0),
        "x": (BF16, (2, 3, 0), (3, 1, 1), 0),
        "weight": (BF16, (3, 0), (1, 1), 0),
    }


def test_refusal_starts_from_rows_and_columns_that_show_it() -> None:
    def sized(*shape: int) -> Case:
        return replace(CASE, shape=shape, tensors=(tensor("x", shape), tensor("out", shape)))

    assert REFUSALS["x_column_stride"](sized(2, 3, 1)) is None
    assert REFUSALS["x_column_stride"](sized(2, 0, 12)) is None
    assert REFUSALS["x_column_stride"](sized(1, 1, 2)) is not None
    assert REFUSALS["out_expanded"](sized(1, 1, 12)) is None
    assert REFUSALS["out_expanded"](sized(2, 1, 1)) is not None


def test_refusal_of_shared_memory_cannot_be() -> None:
    """What is changed in one tensor would be changed in the other."""
    shared = replace(CASE, tensors=(X, WEIGHT, replace(OUT, alias_of="x")))
    for name in ("x_float64", "x_column_stride", "out_shape", "out_dtype", "out_expanded"):
        assert REFUSALS[name](shared) is None
    assert REFUSALS["weight_shape"](shared) is not None


def test_refusal_of_an_out_in_float32_is_another_dtype() -> None:
    single = replace(
        CASE,
        tensors=(tensor("x", (2, 3, 12), "float32"), tensor("out", (2, 3, 12), "float32")),
    )
    assert changed("out_dtype", single) == {"out": ("float16", (2, 3, 12), (36, 12, 1), 0)}


@pytest.mark.parametrize(("n_cols", "size"), [(1, 2), (2, 3), (3, 2), (6, 4), (60, 7)])
def test_refusal_of_a_group_size_takes_the_least(n_cols: int, size: int) -> None:
    case = replace(CASE, shape=(2, n_cols), tensors=(tensor("x", (2, n_cols)),))
    spoiled = REFUSALS["group_size_not_divisor"](case)
    assert spoiled is not None
    assert spoiled.flags["group_size"] == size


# Written out once more: what a user has fixed is not to be changed.
RULED_OUT = {
    "n_cols": {"n_cols_zero", "x_zero_dim", "normalized_shape_mismatch"},
    "n_rows": {"x_zero_dim"},
    "rank": {"x_zero_dim"},
    "dtype": {"x_float64", "x_int64", "x_complex64"},
    "layout": {"x_column_stride", "out_expanded"},
    "group_size": {"group_size_not_divisor", "group_size_zero"},
    "eps": {"eps_negative"},
    "block": set(),
}
ALL = TargetSpec(
    "all",
    (ArgSpec("x"),),
    (OutputSpec("y"),),
    Arithmetic(),
    refuses=tuple(Refusal(name, "ValueError", "") for name in REFUSALS),
)


@pytest.mark.parametrize("name", RULED_OUT)
def test_refusals_leave_alone_what_is_fixed(name: str) -> None:
    left = declared_refusals(ALL.fixed({name: 1}))
    assert set(REFUSALS) - set(left) == RULED_OUT[name]


def test_refusals_are_those_declared_or_the_fixed_one() -> None:
    assert declared_refusals(ALL) == tuple(REFUSALS)
    assert declared_refusals(ALL.fixed({"refusal": "eps_negative"})) == ("eps_negative",)
    assert declared_refusals(ALL.fixed({"refusal": "none"})) == ()


def test_refusals_are_known_by_these_names() -> None:
    assert set(REFUSALS) == {*CHANGES, "bias_shape", "input_bias_shape", "residual_shape"}


# --- among drawn cases --------------------------------------------------------------------------


def only(spec: TargetSpec, *names: str, **fixed: FlagValue) -> TargetSpec:
    refused = tuple(Refusal(name, "ValueError", "") for name in names)
    return replace(spec, refuses=refused).fixed(dict(fixed))


def test_refusal_that_is_fixed_and_cannot_be_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"refusal=z_shape: no case can be made one"):
        cases(only(LAYER_NORM, "z_shape", n_rows=3), GPU_BUDGET)
    # Of several, one that can be is enough where something is fixed.
    drawn = draw_cases(
        only(LAYER_NORM, "z_shape", "weight_shape", n_rows=3), seed=1, count=300, budget=GPU_BUDGET
    )
    assert {case.refusal for case in drawn} == {None, "weight_shape"}


def test_refusal_that_does_not_come_about_leaves_a_valid_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[Case] = []

    def once(case: Case) -> Case | None:
        found.append(case)
        return replace(case, eps=-1.0) if len(found) == 1 else None

    monkeypatch.setitem(REFUSALS, "eps_negative", once)
    spec = replace(only(GATED, "eps_negative", refusal="eps_negative"), name="unlucky")
    drawn = list(draw_cases(spec, seed=1, count=3, budget=GPU_BUDGET))
    assert [case.refusal for case in drawn] == [None] * 3
    # It is not given up at once.
    assert len(found) == 1 + 3 * 200
