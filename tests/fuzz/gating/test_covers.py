"""Which cases a contract owes something for: every one that is drawn for it, no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fuzz.case import Case, contiguous_strides
from fuzz.gating.covers import IMPLIED, asked, beyond, covers, same_calls
from fuzz.inputs import make_values
from fuzz.judging.owed import due_outputs, problem_of
from fuzz.spec import ArgSpec, DefaultLaunch, FlagSpec, Refusal, TargetSpec
from fuzz.strategies import GPU_BUDGET, INTERPRETER_BUDGET, draw_cases
from tests.fuzz.builders import GATED, LAYER_NORM, NATIVE, RESIDUAL, WHOLE_ROW, make_case

REFUSES = tuple(Refusal(name, "ValueError", "x") for name in ("n_cols_zero", "x_int64"))
TUNED = replace(
    LAYER_NORM,
    name="tuned",
    launch=replace(LAYER_NORM.launch, blocks=(), configs=((("BLOCK", 64),), (("BLOCK", 256),))),
)
USUAL = replace(
    LAYER_NORM,
    name="usual",
    launch=replace(LAYER_NORM.launch, defaults=(DefaultLaunch(4096, 4, 4096, 16),)),
)
PLAIN = replace(
    LAYER_NORM,
    name="plain",
    args=tuple(
        replace(arg, strided=False, dtypes=("x",) * (arg.name != "x") or arg.dtypes)
        for arg in LAYER_NORM.args
    ),
)
CONSTANT = LAYER_NORM.fixed({"eps": 1e-6})
IN_SIXTEENS = replace(GATED, name="sixteens", flags=(FlagSpec("group_size", (16,)),))
SPECS = [
    replace(spec, refuses=REFUSES)
    for spec in (
        *(LAYER_NORM, WHOLE_ROW, NATIVE, RESIDUAL, GATED),
        *(TUNED, USUAL, PLAIN, CONSTANT, IN_SIXTEENS),
    )
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("budget", [INTERPRETER_BUDGET, GPU_BUDGET], ids=["cpu", "gpu"])
def test_covers_holds_for_every_case_that_is_drawn(spec: TargetSpec, budget: Any) -> None:
    drawn = list(draw_cases(spec, seed=5, count=300, budget=budget))
    assert any(case.refusal for case in drawn)
    assert {beyond(spec, case) for case in drawn} == {""}


def change(**how: Any) -> Callable[[TargetSpec], TargetSpec]:
    """A spec with fields of its space, its launches or its own changed."""

    def changed(spec: TargetSpec) -> TargetSpec:
        for name, value in how.items():
            for part in ("space", "launch"):
                if hasattr(getattr(spec, part), name):
                    spec = replace(spec, **{part: replace(getattr(spec, part), **{name: value})})
            if hasattr(spec, name):
                spec = replace(spec, **{name: value})
        return spec

    return changed


def arg(name: str, **how: Any) -> Callable[[TargetSpec], TargetSpec]:
    """A spec with an argument changed; without it where nothing is said."""

    def changed(spec: TargetSpec) -> TargetSpec:
        args = [replace(a, **how) if a.name == name else a for a in spec.args]
        return replace(spec, args=tuple(a for a in args if how or a.name != name))

    return changed


@pytest.mark.parametrize(
    ("spec", "less", "lost", "words"),
    [
        (LAYER_NORM, arg("bias"), lambda c: c.tensor("bias"), "it takes no bias"),
        (
            LAYER_NORM,
            arg("bias", optional=False),
            lambda c: c.tensor("bias") is None,
            "it needs bias",
        ),
        (
            LAYER_NORM,
            arg("x", dtypes=("float16", "float32")),
            lambda c: c.dtype == "bfloat16",
            "x of dtype bfloat16",
        ),
        (
            LAYER_NORM,
            arg("weight", dtypes=("x",)),
            lambda c: c.tensor("weight") and c.tensor("weight").dtype != c.dtype,
            "weight of dtype",
        ),
        (
            LAYER_NORM,
            arg("x", strided=False),
            lambda c: _has_gaps(c, "x"),
            "x with gaps between its rows",
        ),
        (
            LAYER_NORM,
            arg("out", may_alias=()),
            lambda c: c.tensor("out") and c.tensor("out").alias_of,
            "out in the memory of x",
        ),
        (
            LAYER_NORM,
            arg("weight", shape="full"),
            lambda c: c.tensor("weight") and len(c.shape) > 1,
            "weight of shape",
        ),
        (LAYER_NORM, change(max_cols=100), lambda c: c.n_cols > 100, "at most 100"),
        (LAYER_NORM, change(min_rank=2), lambda c: len(c.shape) < 2, "x.ndim=1, at least 2"),
        (LAYER_NORM, change(max_rank=3), lambda c: len(c.shape) > 3, "at most 3"),
        (
            NATIVE,
            change(max_normalized_dims=1),
            lambda c: c.normalized_ndim > 1,
            "normalized dims, at most 1",
        ),
        (LAYER_NORM, change(empty_batch=False), lambda c: c.n_rows == 0, "n_rows=0"),
        (LAYER_NORM, change(min_eps=1e-6), lambda c: c.eps < 1e-6, "at least 1e-06"),
        (
            LAYER_NORM,
            lambda spec: spec.fixed({"eps": 1e-5}),
            lambda c: c.eps != 1e-5,
            "only 1e-05",
        ),
        (
            LAYER_NORM,
            change(blocks=LAYER_NORM.launch.blocks[:-1]),
            lambda c: c.launch.block == LAYER_NORM.launch.blocks[-1],
            "block=8192",
        ),
        (
            LAYER_NORM,
            change(num_warps=(1, 4)),
            lambda c: c.launch.num_warps == 8,
            "num_warps=8",
        ),
        (
            LAYER_NORM,
            change(fp_fusion=(True,)),
            lambda c: c.launch.fp_fusion is False,
            "fp_fusion=False",
        ),
        (
            LAYER_NORM,
            change(whole_row=True),
            lambda c: c.launch.block < c.n_cols,
            "on rows of",
        ),
        (USUAL, change(defaults=()), lambda c: c.launch.num_warps == 16, "num_warps=16"),
        (
            TUNED,
            change(configs=TUNED.launch.configs[:1]),
            lambda c: c.launch.config == 1,
            "it has no launch.config=1",
        ),
        (
            GATED,
            change(flags=tuple(f for f in GATED.flags if f.name != "is_rms_norm")),
            lambda c: c.flags["is_rms_norm"],
            "it has no is_rms_norm=True",
        ),
        (
            GATED,
            change(
                flags=tuple(
                    replace(f, choices=(True,)) if f.name == "norm_before_gate" else f
                    for f in GATED.flags
                )
            ),
            lambda c: not c.flags["norm_before_gate"],
            "norm_before_gate=False",
        ),
        (
            GATED,
            change(flags=(FlagSpec("group_size", (7,)), *GATED.flags[1:])),
            lambda c: c.flags["group_size"] != 7,
            "group_size=",
        ),
    ],
)
def test_covers_leaves_out_what_was_taken_away_and_nothing_else(
    spec: TargetSpec,
    less: Callable[[TargetSpec], TargetSpec],
    lost: Callable[[Case], object],
    words: str,
) -> None:
    narrow = less(replace(spec, refuses=()))
    drawn = list(draw_cases(replace(spec, refuses=()), seed=6, count=400, budget=GPU_BUDGET))
    expected = [bool(lost(case)) for case in drawn]
    assert any(expected)
    assert [not covers(narrow, case) for case in drawn] == expected
    for case, is_lost in zip(drawn, expected, strict=True):
        assert not is_lost or words in beyond(narrow, case)


def _has_gaps(case: Case, name: str) -> bool:
    tensor = case.tensor_or_fail(name)
    read = [(n, s) for n, s in zip(tensor.shape, tensor.strides, strict=True) if n > 1]
    sizes, strides = (tuple(pair[i] for pair in read) for i in (0, 1))
    return tensor.n_elements > 0 and strides != contiguous_strides(sizes)


def test_covers_owes_nothing_for_what_need_not_be_refused() -> None:
    case = replace(make_case(LAYER_NORM, (2, 3)), refusal="x_int64")
    assert covers(replace(LAYER_NORM, refuses=REFUSES), case)
    assert beyond(replace(LAYER_NORM, refuses=()), case) == "it need not refuse x_int64"


def test_covers_takes_any_stride_that_nothing_is_read_through() -> None:
    plain = arg("x", strided=False)(LAYER_NORM)
    case = make_case(LAYER_NORM, (1, 3), strides={"x": (99, 1)}, block=128)
    assert covers(plain, case)
    case = make_case(LAYER_NORM, (2, 3), strides={"x": (4, 1)}, block=128)
    assert beyond(plain, case) == "x with gaps between its rows"


def test_asked_changes_flags_that_mean_nothing() -> None:
    case = make_case(GATED, (2, 4), flags={"weight_offset": 0.0})
    fewer = replace(GATED, flags=())
    assert asked(GATED, case) is case
    plain = asked(fewer, case)
    assert plain == replace(case, flags={})
    assert isinstance(plain, Case)
    # And back: what a target does that is not asked for it.
    assert asked(GATED, plain) == case
    assert (
        asked(fewer, replace(case, flags={"weight_offset": 1.0})) == "it has no weight_offset=1.0"
    )
    unknown = replace(GATED, flags=(FlagSpec("mode", (1,)),))
    assert asked(unknown, plain) == "it needs mode"


def test_implied_flags_are_what_the_oracle_takes_them_for() -> None:
    spec = replace(GATED, outputs=(*GATED.outputs, *RESIDUAL.outputs[1:]))
    case = replace(make_case(spec, (2, 4)), flags={})
    named = replace(case, flags=dict(IMPLIED))
    assert due_outputs(spec, case) == due_outputs(spec, named) == spec.outputs
    values = make_values(case)
    without, given = (problem_of(spec, c, values, interpreted=True) for c in (case, named))
    assert repr(without) == repr(given)


def test_same_calls_needs_arguments_flags_and_configurations_alike() -> None:
    more = replace(LAYER_NORM, args=(*LAYER_NORM.args, ArgSpec("z", optional=True)))
    needs = replace(LAYER_NORM, args=(*LAYER_NORM.args, ArgSpec("z")))
    assert same_calls(LAYER_NORM, more)
    assert not same_calls(more, LAYER_NORM)
    assert not same_calls(LAYER_NORM, needs)
    assert not same_calls(LAYER_NORM, replace(LAYER_NORM, flags=GATED.flags))
    fewer = replace(TUNED, launch=replace(TUNED.launch, configs=TUNED.launch.configs[:1]))
    assert same_calls(fewer, TUNED)
    assert not same_calls(TUNED, fewer)
    assert same_calls(TUNED, replace(TUNED, launch=replace(TUNED.launch, num_warps=())))
