"""A contract is read back as it was, and nothing that it promises less goes unseen."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import typing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fuzz import contract
from fuzz.builtin import TARGETS
from fuzz.contract import (
    RULES,
    WHOLE,
    Change,
    ContractError,
    Label,
    Pairs,
    Rule,
    differences,
    digest,
    from_data,
    to_data,
)
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
from oracle.arithmetic import Arithmetic, Depth
from tests.fuzz.builders import SPECS

_NARROW = DefaultLaunch(128, 2, 128, 1)
_WIDE = DefaultLaunch(131072, 2, 4096, 8)

SPEC = TargetSpec(
    name="everything",
    args=(
        ArgSpec("x", strided=True),
        ArgSpec("residual"),
        ArgSpec("z", optional=True, strided=True, may_alias=("x",)),
        ArgSpec("out", role="out", dtypes=("x",), optional=True, may_alias=("x",)),
    ),
    outputs=(OutputSpec("y", given_as="out"), OutputSpec("mean", "rows", "float32")),
    arithmetic=Arithmetic(roundings=(("sum", "x"),), reused=("mean",), uniform=True),
    flags=(FlagSpec("is_rms_norm", (False, True)), FlagSpec("weight_offset", (0.0, 1.0))),
    launch=LaunchSpace(
        blocks=(32, 128),
        num_warps=(1, 4),
        fp_fusion=(True, False),
        defaults=(_NARROW, _WIDE),
        configs=((("BLOCK", 32), ("num_warps", 1)), (("BLOCK", 64), ("num_warps", 2))),
    ),
    space=Space(max_normalized_dims=2, fixed=(("eps", 1e-5),)),
    refuses=(
        Refusal("x_float64", "TypeError", "x.dtype"),
        Refusal("n_cols_zero", "ValueError", "n_cols"),
    ),
    description="All that a spec can say",
)

# Where the one of each kind sits that the tables below change.
PLACES: dict[type, str] = {
    Arithmetic: "arithmetic",
    Depth: "arithmetic.depth",
    ArgSpec: "args.z",
    OutputSpec: "outputs.mean",
    FlagSpec: "flags.weight_offset",
    LaunchSpace: "launch",
    Space: "space",
    Refusal: "refuses.x_float64",
    TargetSpec: "",
}

_CONFIGS = SPEC.launch.configs
_THIRD = (("BLOCK", 128), ("num_warps", 4))

# Values of which the first promises more.
ORDERED: dict[tuple[type, str], list[tuple[Any, Any]]] = {
    (Arithmetic, "compute"): [
        ("float32", "bfloat16"),
        ("float32", "float16"),
    ],
    (Arithmetic, "variance"): [
        ("two_pass", "welford"),
        ("welford", "one_pass"),
        ("two_pass", "one_pass"),
    ],
    (Arithmetic, "roundings"): [
        ((), (("x_hat", "bfloat16"),)),
        ((("x_hat", "float32"),), (("x_hat", "x"),)),
        ((("sum", "x"),), (("sum", "x"), ("gate", "x"))),
    ],
    (Arithmetic, "reused"): [(("mean", "rstd"), ("mean",)), (("mean",), ())],
    (Arithmetic, "div_error"): [(4.0, 4.5), (4.0, math.inf)],
    (Arithmetic, "rsqrt_error"): [(8.0, 9.0)],
    (Arithmetic, "exp_error"): [(8.0, 9.0)],
    (Arithmetic, "flush_to_zero"): [(False, True)],
    (Arithmetic, "uniform"): [(True, False)],
    (Depth, "divisor"): [(128, 16)],
    (Depth, "extra"): [(2, 3)],
    (Depth, "parts"): [(1, 8)],
    (ArgSpec, "role"): [("in", "inout")],
    (ArgSpec, "dtypes"): [
        (FLOAT_DTYPES, ("float32",)),
        (FLOAT_DTYPES, ("x",)),
        (("x", "float32"), ("x",)),
    ],
    (ArgSpec, "optional"): [(True, False)],
    (ArgSpec, "strided"): [(True, False)],
    (ArgSpec, "may_alias"): [(("x", "residual"), ("x",))],
    (ArgSpec, "owns_storage"): [(False, True)],
    (OutputSpec, "given_as"): [("out", None)],
    (FlagSpec, "choices"): [((0.0, 1.0), (0.0,)), ((True, 1), (1,))],
    (LaunchSpace, "blocks"): [((32, 128), (128,)), ((32,), ())],
    (LaunchSpace, "num_warps"): [((1, 4), (4,))],
    (LaunchSpace, "fp_fusion"): [((True, False), (False,))],
    (LaunchSpace, "whole_row"): [(False, True)],
    (LaunchSpace, "defaults"): [
        ((_NARROW, _WIDE), (_NARROW,)),
        ((_NARROW, replace(_WIDE, itemsize=4)), (_NARROW,)),
    ],
    (LaunchSpace, "configs"): [((*_CONFIGS, _THIRD), _CONFIGS)],
    (Space, "min_rank"): [(1, 2)],
    (Space, "max_rank"): [(5, 4)],
    (Space, "max_normalized_dims"): [(2, 1)],
    (Space, "max_cols"): [(65537, 65536)],
    (Space, "empty_batch"): [(True, False)],
    (Space, "min_eps"): [(0.0, 1e-12)],
    (Space, "fixed"): [((), (("n_cols", 64),)), ((), (("group_size", None),))],
    (TargetSpec, "devices"): [(("cpu", "cuda"), ("cuda",))],
    (TargetSpec, "reads_after_atomics"): [(False, True)],
    (TargetSpec, "repeatable"): [(True, False)],
    (TargetSpec, "default"): [(True, False)],
}

# Values of which none includes the other: each way takes something away.
UNORDERED: dict[tuple[type, str], list[tuple[Any, Any]]] = {
    (Arithmetic, "compute"): [("float16", "bfloat16")],
    (Arithmetic, "roundings"): [((("sum", "float16"),), (("sum", "bfloat16"),))],
    (Arithmetic, "mean_reads"): [("computed", "stored")],
    (Arithmetic, "variance_reads"): [("computed", "stored")],
    (Arithmetic, "output_reads"): [("computed", "stored")],
    (Arithmetic, "reused"): [(("mean",), ("rstd",))],
    (Arithmetic, "div_error"): [(math.nan, 4.0)],
    (Depth, "kind"): [("blocked", "linear")],
    (ArgSpec, "role"): [("in", "out"), ("in", "scratch"), ("inout", "scratch")],
    (ArgSpec, "shape"): [("full", "cols")],
    (ArgSpec, "dtypes"): [(("float32",), ("float16",))],
    (OutputSpec, "shape"): [("rows", "rows_keepdim")],
    (OutputSpec, "dtype"): [("float32", "x")],
    (OutputSpec, "given_as"): [("out", "mean_out")],
    (FlagSpec, "choices"): [((1,), (True,)), ((0.0,), (1.0,))],
    (LaunchSpace, "configs"): [(_CONFIGS, _CONFIGS[::-1])],
    (Space, "fixed"): [((("eps", 1e-5),), (("eps", 1e-6),))],
    (Refusal, "error"): [("TypeError", "ValueError")],
    (Refusal, "argument"): [("x.dtype", "x")],
}


def put(kind: type, field: str, value: Any) -> TargetSpec:
    """The spec above with one field of one of its parts changed."""

    def changed(part: Any) -> Any:
        return replace(part, **{field: value})

    place, _, name = PLACES[kind].partition(".")
    if not place:
        return changed(SPEC)
    part = getattr(SPEC, place)
    if isinstance(part, tuple):
        part = tuple(changed(item) if item.name == name else item for item in part)
    elif name:
        part = replace(part, **{name: changed(getattr(part, name))})
    else:
        part = changed(part)
    return replace(SPEC, **{place: part})


def reached(kind: Any, found: set[type]) -> set[type]:
    """Every dataclass that a type has in it."""
    if dataclasses.is_dataclass(kind) and kind not in found:
        assert isinstance(kind, type)
        found.add(kind)
        for inner in typing.get_type_hints(kind).values():
            reached(inner, found)
    for inner in typing.get_args(kind):
        reached(inner, found)
    return found


def pairs(table: dict[tuple[type, str], list[tuple[Any, Any]]]) -> list[Any]:
    return [
        pytest.param(kind, field, *values, id=f"{kind.__name__}.{field}-{number}")
        for (kind, field), examples in table.items()
        for number, values in enumerate(examples)
    ]


def only(changes: tuple[Change, ...]) -> Change:
    assert len(changes) == 1, changes
    return changes[0]


# --- every field has a rule, and every rule an example --------------------------------------------


def test_contract_has_a_rule_for_every_field_of_a_spec() -> None:
    kinds = reached(TargetSpec, set())
    assert kinds == RULES.keys() | WHOLE.keys()
    for kind in kinds:
        fields = tuple(field.name for field in dataclasses.fields(kind))
        known = WHOLE[kind] if kind in WHOLE else tuple(RULES[kind])
        assert known == fields, f"{kind.__name__}: a field without a rule, or a rule without one"


def test_contract_rules_are_all_shown_below() -> None:
    def of_type(*types: type) -> set[tuple[type, str]]:
        entries = ((k, f, r) for k, rules in RULES.items() for f, r in rules.items())
        return {(kind, field) for kind, field, rule in entries if type(rule) in types}

    assert of_type(Rule, Pairs) == ORDERED.keys() | UNORDERED.keys()
    # What the others hold has a table of its own, or a test by name.
    labels = of_type(Label)
    assert {field for kind, field in labels if kind is TargetSpec} == set(contract.UNREAD)
    assert {field for kind, field in labels if kind is not TargetSpec} == {"name"}


@pytest.mark.parametrize(("kind", "field", "strong", "weak"), pairs(ORDERED))
def test_contract_that_promises_less_is_weaker(
    kind: type, field: str, strong: Any, weak: Any
) -> None:
    base, head = put(kind, field, strong), put(kind, field, weak)
    change = only(differences(base, head))
    path = f"{PLACES[kind]}.{field}".lstrip(".")
    assert change.field == path or change.field.startswith(f"{path}.")
    assert change.weaker
    assert change.words not in ("", "promises no less", "is tested on no less")
    back = only(differences(head, base))
    assert not back.weaker
    assert (back.field, back.base, back.head) == (change.field, change.head, change.base)


@pytest.mark.parametrize(("kind", "field", "one", "other"), pairs(UNORDERED))
def test_contract_that_is_not_known_to_be_stricter_is_weaker(
    kind: type, field: str, one: Any, other: Any
) -> None:
    base, head = put(kind, field, one), put(kind, field, other)
    assert only(differences(base, head)).weaker
    assert only(differences(head, base)).weaker


@pytest.mark.parametrize(("kind", "field", "one", "other"), pairs(ORDERED) + pairs(UNORDERED))
def test_contract_digest_and_differences_agree(
    kind: type, field: str, one: Any, other: Any
) -> None:
    specs = put(kind, field, one), put(kind, field, other)
    assert digest(specs[0]) != digest(specs[1])
    for spec in specs:
        again = from_data(json.loads(json.dumps(to_data(spec), allow_nan=False)))
        assert repr(again) == repr(spec)
        assert digest(again) == digest(spec)
        assert differences(spec, again) == ()


# --- what has names -------------------------------------------------------------------------------


def without(field: str, name: str) -> TargetSpec:
    return replace(SPEC, **{field: tuple(i for i in getattr(SPEC, field) if i.name != name)})


@pytest.mark.parametrize(
    ("field", "name", "shown"),
    [
        ("args", "z", "optional True, strided True, may_alias x"),
        ("outputs", "mean", "shape rows, dtype float32"),
        ("flags", "is_rms_norm", "choices False, True"),
        ("refuses", "x_float64", "error TypeError, argument x.dtype"),
    ],
)
def test_contract_without_what_it_had_is_weaker(field: str, name: str, shown: str) -> None:
    change = only(differences(SPEC, without(field, name)))
    assert (change.field, change.base, change.head) == (f"{field}.{name}", shown, "absent")
    assert change.weaker
    assert change.words
    assert str(change) == f"{field}.{name} {shown} -> absent"
    # What is new here takes nothing away.
    back = only(differences(without(field, name), SPEC))
    assert (back.base, back.head, back.weaker) == ("absent", shown, False)


@pytest.mark.parametrize(
    "arg",
    [
        # Callers that do not pass it have lost what they called.
        ArgSpec("input_bias"),
        ArgSpec("work", role="scratch", optional=True),
        ArgSpec("work", role="inout", optional=True),
    ],
)
def test_contract_with_a_new_argument_is_weaker_where_it_asks_for_more(arg: ArgSpec) -> None:
    assert only(differences(SPEC, replace(SPEC, args=(*SPEC.args, arg)))).weaker


@pytest.mark.parametrize(
    ("flag", "weaker"),
    [
        (FlagSpec("norm_before_gate", (True, False)), False),
        (FlagSpec("norm_before_gate", (False,)), True),
        (FlagSpec("group_size", (None,)), False),
        (FlagSpec("return_sum", (True, False)), False),
        # The oracle does not know what it is.
        (FlagSpec("fast", (False, True)), True),
    ],
)
def test_contract_with_a_new_flag_is_weaker_where_the_old_is_no_choice(
    flag: FlagSpec, weaker: bool
) -> None:
    change = only(differences(SPEC, replace(SPEC, flags=(*SPEC.flags, flag))))
    assert (change.field, change.weaker) == (f"flags.{flag.name}", weaker)


@pytest.mark.parametrize("field", ["args", "outputs", "flags", "refuses"])
def test_contract_in_another_order_promises_the_same(field: str) -> None:
    other = replace(SPEC, **{field: getattr(SPEC, field)[::-1]})
    change = only(differences(SPEC, other))
    assert (change.field, change.weaker) == (field, False)
    assert digest(other) != digest(SPEC)


def test_contract_values_in_another_order_are_the_same() -> None:
    for kind, field in ((ArgSpec, "dtypes"), (LaunchSpace, "blocks"), (LaunchSpace, "defaults")):
        values = (_NARROW, _WIDE) if field == "defaults" else FLOAT_DTYPES
        values = (32, 128) if field == "blocks" else values
        base, head = put(kind, field, values), put(kind, field, values[::-1])
        change = only(differences(base, head))
        assert (change.weaker, change.words) == (False, "the same in another order")
    fixed = (("eps", 0.0), ("n_cols", 64))
    change = only(differences(put(Space, "fixed", fixed), put(Space, "fixed", fixed[::-1])))
    assert (change.field, change.weaker) == ("space.fixed", False)


def test_contract_items_of_one_name_hide_nothing() -> None:
    double = replace(SPEC, outputs=(*SPEC.outputs, OutputSpec("mean", "groups")))
    change = only(differences(double, SPEC))
    assert (change.field, change.weaker) == ("outputs.mean#2", True)
    other = replace(SPEC, outputs=(*SPEC.outputs, OutputSpec("mean", "cols")))
    assert only(differences(double, other)).field == "outputs.mean#2.shape"


def test_contract_with_dtypes_for_all_that_x_may_have_is_no_weaker() -> None:
    x = replace(SPEC.args[0], dtypes=("float32", "float16"))
    base = replace(put(ArgSpec, "dtypes", ("x",)), args=(x, ArgSpec("z", dtypes=("x",))))

    def with_z(*dtypes: str) -> TargetSpec:
        return replace(base, args=(x, ArgSpec("z", dtypes=dtypes)))

    assert not only(differences(base, with_z("float32", "float16"))).weaker
    assert only(differences(base, with_z("float32"))).weaker
    # That x has one dtype less is told of x alone.
    head = replace(base, args=(replace(x, dtypes=("float32",)), base.args[1]))
    assert only(differences(base, head)).field == "args.x.dtypes"


def test_contract_defaults_may_change_where_every_width_still_has_one() -> None:
    tuned = (replace(_NARROW, max_cols=1024), replace(_WIDE, num_warps=16, block=8192))
    change = only(differences(SPEC, put(LaunchSpace, "defaults", tuned)))
    assert (change.weaker, change.judged) == (False, False)
    assert change.head.startswith("2 bytes up to 1024: 128 by 1, ")


def test_contract_shows_of_a_long_table_what_is_not_shared() -> None:
    table = tuple(DefaultLaunch(2**k, 2, 2**k, 1) for k in range(18))
    longer = (*table, DefaultLaunch(2**18, 2, 2**18, 1))
    base, head = put(LaunchSpace, "defaults", table), put(LaunchSpace, "defaults", longer)
    change = only(differences(base, head))
    assert (change.base, change.head) == ("none", "2 bytes up to 262144: 262144 by 1")
    change = only(differences(base, put(LaunchSpace, "defaults", ())))
    assert change.base.endswith("2 bytes up to 8: 8 by 1, and 14 more")


def test_contract_tells_what_judges_a_case_from_what_draws_it() -> None:
    judged = {
        f"{kind.__name__}.{field}"
        for kind, field in ORDERED.keys() | UNORDERED.keys()
        if only(
            differences(*(put(kind, field, v) for v in {**UNORDERED, **ORDERED}[kind, field][0]))
        ).judged
    }
    assert judged == {
        *(f"Arithmetic.{f.name}" for f in dataclasses.fields(Arithmetic) if f.name != "depth"),
        "Depth.kind",
        "Depth.divisor",
        "Depth.extra",
        "Depth.parts",
        "ArgSpec.role",
        "ArgSpec.owns_storage",
        "OutputSpec.shape",
        "OutputSpec.dtype",
        "OutputSpec.given_as",
        "Refusal.error",
        "Refusal.argument",
        "TargetSpec.reads_after_atomics",
        "TargetSpec.repeatable",
    }
    named = {
        field: only(differences(SPEC, without(field, name))).judged
        for field, name in (
            ("args", "z"),
            ("outputs", "mean"),
            ("flags", "is_rms_norm"),
            ("refuses", "x_float64"),
        )
    }
    assert named == {"args": False, "outputs": True, "flags": False, "refuses": True}


def test_contract_tells_several_changes_in_the_order_of_the_fields() -> None:
    head = replace(
        put(Arithmetic, "variance", "one_pass"),
        repeatable=False,
        space=replace(SPEC.space, max_cols=9),
    )
    found = [(c.field, c.base, c.head, c.weaker) for c in differences(SPEC, head)]
    assert found == [
        ("arithmetic.variance", "two_pass", "one_pass", True),
        ("space.max_cols", "65537", "9", True),
        ("repeatable", "True", "False", True),
    ]


# --- as data --------------------------------------------------------------------------------------


def spec_of(name: str) -> TargetSpec:
    return TARGETS[name]()[0] if name in TARGETS else {**SPECS, SPEC.name: SPEC}[name]


# torch's are built by importing what takes seconds.
NAMES = [name for name in (SPEC.name, *SPECS, *TARGETS) if not name.startswith("torch.")]


@pytest.mark.parametrize("name", dict.fromkeys(NAMES))
def test_contract_of_every_target_is_read_back_as_it_was(name: str) -> None:
    spec = spec_of(name)
    text = json.dumps(to_data(spec), allow_nan=False)
    assert from_data(json.loads(text)) == spec
    assert digest(from_data(json.loads(text))) == digest(spec)
    assert differences(spec, from_data(json.loads(text))) == ()


def test_contract_digest_is_that_of_what_is_promised() -> None:
    assert digest(replace(SPEC, name="other", description="other")) == digest(SPEC)
    assert differences(SPEC, replace(SPEC, name="other", description="other")) == ()
    # 4 and 4.0 are one promise.
    assert digest(put(Arithmetic, "div_error", 4)) == digest(SPEC)
    assert differences(put(Arithmetic, "div_error", 4), SPEC) == ()
    assert len(digest(SPEC)) == 16


def data_with(path: str, value: Any) -> dict[str, Any]:
    """The spec above as data, with what lies at a path changed; DROPPED takes it away."""
    data = to_data(SPEC)
    place: Any = data
    *folders, last = (int(p) if p.isdigit() else p for p in path.split("."))
    for folder in folders:
        place = place[folder]
    if value is DROPPED:
        del place[last]
    else:
        place[last] = value
    return data


DROPPED = object()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("name", None, "contract.name=None, must be a string"),
        ("surprise", 1, "contract.surprise: is no field of TargetSpec"),
        ("args.1.surprise", 1, r"contract.args\[1\].surprise: is no field of ArgSpec"),
        ("space", DROPPED, "contract.space: is missing"),
        # It has a default, which may be another one tomorrow.
        ("repeatable", DROPPED, "contract.repeatable: is missing"),
        ("arithmetic.depth.extra", DROPPED, "contract.arithmetic.depth.extra: is missing"),
        ("arithmetic", [], r"contract.arithmetic=\[\], must be an object"),
        ("args", {}, "contract.args={}, must be a list"),
        ("args.0", "x", r"contract.args\[0\]='x', must be an object"),
        ("args.0.dtypes", "float32", r"contract.args\[0\].dtypes='float32', must be a list"),
        ("args.0.dtypes.1", 32, r"contract.args\[0\].dtypes\[1\]=32, must be a string"),
        ("args.0.role", "input", "contract.args.*role='input', must be one of in, out, inout"),
        ("args.0.role", ["in"], r"contract.args.*role=\['in'\], must be one of"),
        ("args.0.strided", 1, r"contract.args\[0\].strided=1, must be true or false"),
        ("outputs.0.given_as", 1, r"outputs\[0\].given_as=1, must be a string or null"),
        ("arithmetic.variance", "three_pass", "variance='three_pass', must be one of two_pass"),
        ("arithmetic.roundings.0", ["sum"], r"roundings\[0\] has 1 items, must have 2"),
        ("arithmetic.roundings.0.0", "y", r"roundings\[0\]\[0\]='y', must be one of sum, gate"),
        ("arithmetic.div_error", "4.0", "div_error='4.0', must be a finite number"),
        ("arithmetic.div_error", True, "div_error=True, must be a finite number"),
        # The spelling of NaN that is no JSON.
        ("arithmetic.div_error", math.nan, "div_error=nan, must be a finite number"),
        ("space.max_cols", 64.0, "contract.space.max_cols=64.0, must be an integer"),
        ("space.max_cols", True, "contract.space.max_cols=True, must be an integer"),
        ("flags.0.choices.0", [], r"choices\[0\]=\[\], must be true or false or an integer or"),
        ("flags.0.choices.0", math.inf, r"choices\[0\]=inf, must be"),
        ("launch.defaults.0.block", None, r"launch.defaults\[0\].block=None, must be an integer"),
        ("launch.configs.0.0.0", 1, r"launch.configs\[0\]\[0\]\[0\]=1, must be a string"),
    ],
)
def test_contract_that_is_not_right_is_refused(path: str, value: Any, says: str) -> None:
    with pytest.raises(ContractError, match=says):
        from_data(data_with(path, value))


@pytest.mark.parametrize("data", [None, [], "contract", 3])
def test_contract_that_is_no_object_is_refused(data: Any) -> None:
    with pytest.raises(ContractError, match=r"^contract=.*, must be an object$"):
        from_data(data)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_contract_spells_what_json_has_no_number_for(number: float) -> None:
    data = to_data(put(Arithmetic, "exp_error", number))
    assert data["arithmetic"]["exp_error"] == str(number)
    assert repr(from_data(data).arithmetic.exp_error) == repr(number)


@pytest.mark.parametrize(
    ("kind", "field", "value", "says"),
    [
        (LaunchSpace, "blocks", [32], r"contract.launch.blocks=\[32\], must be a tuple"),
        (LaunchSpace, "blocks", (np.int64(32),), r"contract.launch.blocks\[0\]=.*, must be an int"),
        (LaunchSpace, "configs", (((("A"), np.dtype("f4")),),), r"configs\[0\]\[0\]\[1\]=dtype"),
        (FlagSpec, "choices", (math.inf,), r"choices\[0\]=inf, must be"),
        (TargetSpec, "space", None, "contract.space=None, must be of type Space"),
        (ArgSpec, "role", "input", r"contract.args\[2\].role='input', must be one of"),
    ],
)
def test_contract_that_is_no_plain_data_is_not_stored(
    kind: type, field: str, value: Any, says: str
) -> None:
    with pytest.raises(ContractError, match=says):
        to_data(put(kind, field, value))


def test_contract_data_is_a_copy() -> None:
    data = to_data(SPEC)
    before = copy.deepcopy(data)
    data["launch"]["blocks"].append(7)
    data["args"].clear()
    assert to_data(SPEC) == before


def test_contract_writes_a_later_field_only_where_it_says_something_new() -> None:
    def with_parts(parts: int) -> TargetSpec:
        depth = replace(SPEC.arithmetic.depth, parts=parts)
        return replace(SPEC, arithmetic=replace(SPEC.arithmetic, depth=depth))

    plain, parted = to_data(with_parts(1)), to_data(with_parts(8))
    assert "parts" not in plain["arithmetic"]["depth"]
    assert parted["arithmetic"]["depth"]["parts"] == 8
    assert from_data(plain) == with_parts(1)
    assert from_data(parted) == with_parts(8)
    assert digest(with_parts(1)) != digest(with_parts(8))
