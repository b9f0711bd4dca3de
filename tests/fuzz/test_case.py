"""A case: its canonical JSON, its id, what is refused, what it says in one line."""

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fuzz.case import (
    Case,
    CaseError,
    Plant,
    Recipe,
    TensorCase,
    canonical_json,
    contiguous_strides,
    describe,
    from_json,
    keeps_apart,
    to_json,
    validate,
)
from fuzz.strategies import INTERPRETER_BUDGET, draw_cases
from tests.fuzz.builders import GATED, LAYER_NORM, NATIVE, RESIDUAL, SPECS, make_case, planted

CASE = make_case(
    GATED,
    (2, 3, 12),
    dtype="bfloat16",
    strides={"x": (48, 16, 1), "z": (0, 12, 1)},
    offsets={"x": 8},
    dtypes={"weight": "float32"},
    values={"x": planted(7, "nan")},
    flags={"group_size": 4, "weight_offset": 1.0},
    relations=("repeat", "permuted"),
)
ALIASED = make_case(LAYER_NORM, (4, 8), strides={"x": (16, 1)}, aliases={"out": "x"})


def tampered(case: Case, *path: str | int, value: Any) -> dict[str, Any]:
    data: dict[str, Any] = copy.deepcopy(json.loads(canonical_json(case)))
    place: Any = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return data


# --- canonical JSON and ids -----------------------------------------------------------------------


@pytest.mark.parametrize("case", [CASE, ALIASED])
def test_case_survives_json(case: Case) -> None:
    read = from_json(json.loads(canonical_json(case)))
    assert read == case
    assert read.case_id == case.case_id


@pytest.mark.parametrize("name", SPECS)
def test_case_of_the_strategies_survives_json(name: str) -> None:
    spec = replace(SPECS[name], refuses=())
    for case in draw_cases(spec, seed=11, count=100, budget=INTERPRETER_BUDGET):
        assert from_json(json.loads(canonical_json(case))) == case


def test_case_json_has_one_spelling() -> None:
    text = canonical_json(CASE)
    assert " " not in text
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def test_case_id_does_not_depend_on_the_order_of_flags() -> None:
    turned = replace(CASE, flags=dict(reversed(CASE.flags.items())))
    assert turned.case_id == CASE.case_id


def test_case_id_is_the_same_for_an_integer_and_an_equal_float() -> None:
    whole, real = replace(CASE, eps=0), replace(CASE, eps=0.0)
    assert whole == real
    assert whole.case_id == real.case_id == from_json(to_json(whole)).case_id


def test_case_id_is_stable() -> None:
    # Names of stored failures: a change here orphans every one of them.
    case = make_case(LAYER_NORM, (4, 8), absent=("weight", "bias", "out"))
    assert canonical_json(case) == (
        '{"eps":1e-05,"flags":{},"format":1,'
        '"launch":{"block":128,"config":null,"fp_fusion":true,"num_warps":4},'
        '"normalized_ndim":1,"refusal":null,"relations":[],"seed":1,"shape":[4,8],'
        '"target":"layer_norm","tensors":[{"alias_of":null,"dtype":"float32","name":"x",'
        '"offset":0,"shape":[4,8],"strides":[8,1],'
        '"values":{"family":"normal","mean":0.5,"plants":[],"spread":1.0}}]}'
    )
    assert case.case_id == "34173730da82"


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"eps": 0.0},
        {"shape": (3, 2, 12)},
        {"relations": ("repeat",)},
        {"flags": {**CASE.flags, "group_size": 6}},
        {"tensors": CASE.tensors[:-1]},
    ],
)
def test_case_id_changes_with_the_content(change: dict[str, Any]) -> None:
    assert replace(CASE, **change).case_id != CASE.case_id


def test_case_travels_between_processes_with_its_id() -> None:
    assert CASE.n_cols == 12  # cached, and pickled along
    assert pickle.loads(pickle.dumps(CASE)) == CASE
    assert pickle.loads(pickle.dumps(CASE)).case_id == CASE.case_id


# --- derived sizes --------------------------------------------------------------------------------


def test_case_sizes_follow_from_its_shape_and_flags() -> None:
    assert (CASE.leading, CASE.normalized) == ((2, 3), (12,))
    assert (CASE.n_rows, CASE.n_cols) == (6, 12)
    assert (CASE.group_size, CASE.n_groups, CASE.programs) == (4, 3, 18)


def test_case_without_leading_dims_has_one_row() -> None:
    case = make_case(NATIVE, (2, 3), normalized_ndim=2)
    assert (case.leading, case.n_rows, case.n_cols, case.n_groups) == ((), 1, 6, 1)


def test_case_with_an_empty_batch_has_no_row_and_no_program() -> None:
    case = make_case(GATED, (3, 0, 8), flags={"group_size": 4})
    assert (case.n_rows, case.n_groups, case.programs) == (0, 2, 0)


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "span"),
    [
        ((4, 8), (16, 1), 3, 3 + 3 * 16 + 8),
        ((4, 8), (0, 1), 0, 8),
        ((), (), 5, 6),
        ((0, 8), (8, 1), 3, 0),
    ],
)
def test_tensor_span_reaches_its_last_element(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int, span: int
) -> None:
    assert TensorCase("x", "float32", shape, strides, offset).span == span


def test_contiguous_strides_count_empty_dims_as_one() -> None:
    assert contiguous_strides((2, 0, 3)) == (3, 3, 1)
    assert contiguous_strides(()) == ()


def test_tensor_that_is_absent_is_named() -> None:
    assert CASE.tensor("residual") is None
    with pytest.raises(KeyError, match="no tensor 'residual'"):
        CASE.tensor_or_fail("residual")


# --- refused JSON ---------------------------------------------------------------------------------

Z, WEIGHT = 3, 1  # places in CASE.tensors

WRONG = [
    (("format",), 2, "case.format=2, this version reads format 1"),
    (("format",), True, "case.format=True, this version reads format 1"),
    (("surplus",), 1, "case: extra fields found (surplus)"),
    (("eps",), float("nan"), "case.eps=nan, must be a finite number"),
    (("eps",), 10**400, "must be a finite number"),
    (("eps",), "1e-5", "case.eps='1e-5', must be a finite number"),
    (("seed",), 2.5, "case.seed=2.5, must be an integer"),
    (("seed",), -1, "case.seed=-1, must be >= 0"),
    (("shape",), "45", "case.shape='45', must be a list"),
    (("shape",), [4, "8"], "case.shape[1]='8', must be an integer"),
    (("shape",), [4, True], "case.shape[1]=True, must be an integer"),
    (("shape",), [-1, 12], "case.shape=[-1, 12], must have sizes >= 0"),
    (("shape",), [], "case.shape=[], must have at least one dim"),
    (("normalized_ndim",), 0, "case.normalized_ndim=0, must be in 1 ... 3"),
    (("normalized_ndim",), 4, "case.normalized_ndim=4, must be in 1 ... 3"),
    (("target",), None, "case.target=None, must be a string"),
    (("relations",), "repeat", "case.relations='repeat', must be a list"),
    (("refusal",), 5, "case.refusal=5, must be a string"),
    (("flags",), [], "case.flags=[], must be an object"),
    (("flags", "group_size"), [4], "case.flags['group_size']=[4], must be a boolean, a finite"),
    (("flags", "group_size"), "4", "case.flags['group_size']='4', must be an integer or null"),
    (("flags", "group_size"), 5, "case.flags['group_size']=5, must divide n_cols=12"),
    (("flags", "group_size"), 0, "case.flags['group_size']=0, must divide n_cols=12"),
    (("flags", "weight_offset"), "x", "case.flags['weight_offset']='x', must be a number"),
    (("launch",), None, "case.launch=None, must be an object"),
    (("launch", "block"), "128", "case.launch.block='128', must be an integer"),
    (("launch", "block"), 0, "case.launch.block=0, must be >= 1"),
    (("launch", "num_warps"), 0, "case.launch.num_warps=0, must be >= 1"),
    (("launch", "config"), -1, "case.launch.config=-1, must be >= 0"),
    (("launch", "fp_fusion"), 1, "case.launch.fp_fusion=1, must be true or false"),
    (("tensors",), {}, "case.tensors={}, must be a list"),
    (("tensors",), [], "case.tensors=[], must have x"),
    (("tensors", WEIGHT), None, "case.tensors[1]=None, must be an object"),
    (("tensors", WEIGHT, "name"), "x", "must have different names"),
    (("tensors", WEIGHT, "dtype"), "float8", "case.tensors[1].dtype='float8', must be one of"),
    (("tensors", WEIGHT, "dtype"), "int64", "must be one of float32, bfloat16, float16 in a valid"),
    (("tensors", WEIGHT, "strides"), [1, 1], "case.tensors[1].strides=[1, 1], must have one for"),
    (("tensors", WEIGHT, "strides"), [-1], "case.tensors[1].strides=[-1], must be >= 0"),
    (("tensors", WEIGHT, "shape"), [-1], "case.tensors[1].shape=[-1], must have sizes >= 0"),
    (("tensors", WEIGHT, "offset"), -8, "case.tensors[1].offset=-8, must be >= 0"),
    (("tensors", 0, "shape"), [3, 2, 12], "case.tensors[0].shape=[3, 2, 12], must be case.shape"),
    (("tensors", 0, "strides"), [12, 8, 1], "case.tensors[0].strides=[12, 8, 1], must keep"),
    (("tensors", 4, "strides"), [0, 12, 1], "case.tensors[4].strides=[0, 12, 1], must keep"),
    (("tensors", Z, "alias_of"), "y", "case.tensors[3].alias_of='y', must name another tensor"),
    (("tensors", Z, "alias_of"), "z", "case.tensors[3].alias_of='z', must name another tensor"),
    (("tensors", Z, "alias_of"), "out", "case.tensors[3].alias_of='out', must have the dtype"),
    (("tensors", Z, "values"), [], "case.tensors[3].values=[], must be an object"),
    (("tensors", Z, "values"), {}, "case.tensors[3].values.family: required field missing"),
    (("tensors", Z, "values", "mean"), "0", "case.tensors[3].values.mean='0', must be a finite"),
    (
        ("tensors", 0, "values", "plants", 0, "index"),
        72,
        "case.tensors[0].values.plants[0].index=72, must be in 0 ... 71",
    ),
    (
        ("tensors", 0, "values", "plants", 0, "value"),
        "NaN?",
        "case.tensors[0].values.plants[0].value='NaN?', must be a number as text",
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    WRONG,
    ids=[f"{'.'.join(map(str, path))}={str(value)[:12]}" for path, value, _ in WRONG],
)
def test_case_json_with_a_wrong_value_is_refused(
    path: tuple[str | int, ...], value: object, message: str
) -> None:
    with pytest.raises(CaseError) as caught:
        from_json(tampered(CASE, *path, value=value))
    assert message in str(caught.value)


@pytest.mark.parametrize("data", [None, [], "case", 1])
def test_case_json_that_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(CaseError, match=r"^case=\w+, must be a JSON object"):
        from_json(data)


def test_case_json_without_a_field_is_refused() -> None:
    data = to_json(CASE)
    del data["seed"]
    with pytest.raises(CaseError, match=r"^case.seed: required field missing$"):
        from_json(data)


def test_case_json_tells_all_that_is_wrong_at_once() -> None:
    data = tampered(CASE, "seed", value="1")
    data["tensors"][0]["offset"] = None
    with pytest.raises(CaseError) as caught:
        from_json(data)
    assert "case.seed='1'" in str(caught.value)
    assert "case.tensors[0].offset=None" in str(caught.value)


def test_case_json_without_columns_is_refused_unless_the_target_must_refuse_it() -> None:
    case = make_case(LAYER_NORM, (4, 0))
    with pytest.raises(CaseError, match=r"case.shape=\[4, 0\], must have at least one column"):
        validate(case)
    validate(replace(case, refusal="n_cols_zero"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: replace(t, dtype="int64"),
        lambda t: replace(t, shape=(9,)),
        lambda t: replace(t, shape=(), strides=()),
        lambda t: replace(t, strides=(0, 1), shape=(4, 8)),
    ],
)
def test_invalid_case_may_have_what_the_target_must_refuse(
    spoil: Callable[[TensorCase], TensorCase],
) -> None:
    case = replace(make_case(LAYER_NORM, (4, 8)), refusal="weight_shape")
    validate(case.replace_tensor(spoil(case.tensor_or_fail("weight"))))


def test_alias_of_an_alias_is_refused() -> None:
    case = make_case(RESIDUAL, (4, 8), aliases={"out": "x"})
    chained = replace(case.tensor_or_fail("sum_out"), alias_of="out")
    with pytest.raises(CaseError, match="alias_of='out', must name another tensor"):
        validate(case.replace_tensor(chained))


@pytest.mark.parametrize("change", [{"strides": (24, 1)}, {"offset": 8}, {"dtype": "float16"}])
def test_alias_with_another_layout_is_refused(change: dict[str, Any]) -> None:
    validate(ALIASED)
    moved = replace(ALIASED.tensor_or_fail("out"), **change)
    with pytest.raises(CaseError, match="must have the dtype, shape, strides and offset"):
        validate(ALIASED.replace_tensor(moved))


@pytest.mark.parametrize(
    ("shape", "strides", "apart"),
    [
        ((4, 8), (8, 1), True),
        ((4, 8), (7, 1), False),
        ((2, 3, 4), (4, 8, 1), True),
        ((2, 3, 4), (4, 4, 1), False),
        ((4, 1), (1, 5), True),
        ((0, 8), (0, 0), True),
        ((), (), True),
    ],
)
def test_layout_keeps_elements_apart_where_each_dim_steps_over_the_smaller_ones(
    shape: tuple[int, ...], strides: tuple[int, ...], apart: bool
) -> None:
    assert keeps_apart(TensorCase("x", "float32", shape, strides), may_expand=False) is apart


def test_layout_keeps_elements_apart_in_expanded_dims_of_inputs_alone() -> None:
    expanded = TensorCase("x", "float32", (4, 8), (0, 1))
    assert keeps_apart(expanded, may_expand=True)
    assert not keeps_apart(expanded, may_expand=False)


# --- in words -------------------------------------------------------------------------------------


def test_case_in_one_line_says_what_is_particular() -> None:
    assert describe(CASE) == (
        "layernorm_fn x[2, 3, 12]:bfloat16 x(strides[48, 16, 1], offset 8, "
        "normal(mean 0.5)+1 planted) weight(float32) bias z(strides[0, 12, 1]) out group_size=4 "
        "is_rms_norm=False norm_before_gate=True weight_offset=1.0 eps=1e-05 block=128 "
        "num_warps=4 fp_fusion=True"
    )


def test_invalid_case_in_one_line_says_what_must_be_refused() -> None:
    case = replace(ALIASED, refusal="eps_negative", eps=-1e-5)
    assert "out(is x)" in describe(case)
    assert describe(case).endswith("must refuse eps_negative")


def test_replace_tensor_exchanges_one_tensor() -> None:
    weight = replace(CASE.tensor_or_fail("weight"), values=Recipe("zeros", plants=(Plant(0, "1"),)))
    changed = CASE.replace_tensor(weight)
    assert changed.tensor("weight") == weight
    assert [t for t in changed.tensors if t.name != "weight"] == [
        t for t in CASE.tensors if t.name != "weight"
    ]
