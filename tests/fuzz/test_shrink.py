"""From a failing case to the smallest that fails the same way."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from fuzz.case import Case, Plant, Recipe, contiguous_strides, validate
from fuzz.shrink import PLAIN_EPS, shrink
from fuzz.space.budget import Budget
from fuzz.space.resize import merged, resized, tightened, without_dim
from fuzz.spec import ArgSpec, FlagSpec, LaunchSpace, Space, TargetSpec
from fuzz.strategies import draw_cases
from tests.fuzz.builders import (
    GATED,
    LAYER_NORM,
    NATIVE,
    RESIDUAL,
    SPECS,
    WHOLE_ROW,
    make_case,
    planted,
)

Predicate = Callable[[Case], bool]

MAX_CALLS = 120

LARGE = Budget(
    max_programs=1 << 12,
    max_elements=1_000_000,
    max_cols=65_537,
    max_steps=1 << 14,
    all_relations=True,
)


class Asked:
    """A predicate that notes what it was asked, and refuses to be asked nonsense."""

    def __init__(self, spec: TargetSpec, fails: Predicate) -> None:
        self._spec, self._fails = spec, fails
        self.cases: list[Case] = []

    def __call__(self, case: Case) -> bool:
        self.cases.append(case)
        check_valid(case, self._spec)
        return self._fails(case)


def check_valid(case: Case, spec: TargetSpec) -> None:
    """A case that the strategies could have drawn."""
    validate(case)
    assert case.n_cols >= 1
    for tensor in case.tensors:
        arg = spec.arg(tensor.name)
        assert arg is not None
        assert tensor.shape == (case.normalized if arg.shape == "cols" else case.shape)
        assert tensor.dtype in arg.dtypes or tensor.dtype == case.dtype
    missing = {a.name for a in spec.args if not a.optional} - {t.name for t in case.tensors}
    assert not missing
    if spec.launch.blocks:
        assert case.launch.block in spec.launch.blocks
    if spec.launch.whole_row:
        assert case.launch.block is not None and case.launch.block >= case.group_size


def shrunk(case: Case, spec: TargetSpec, fails: Predicate, **limits: float) -> Case:
    """The shrunk case, of which all that always holds is checked."""
    asked = Asked(spec, fails)
    limits = {"max_calls": MAX_CALLS, "seconds": 60.0, **limits}
    small = shrink(case, spec, asked, **limits)  # type: ignore[arg-type]
    assert fails(small)
    assert len(asked.cases) <= limits["max_calls"]
    assert len({c.case_id for c in asked.cases}) == len(asked.cases), "asked twice"
    return small


def drawn(spec: TargetSpec, fails: Predicate, count: int) -> list[Case]:
    """Cases of the strategies that fail."""
    found: list[Case] = []
    seed = 0
    while len(found) < count:
        cases = draw_cases(replace(spec, refuses=()), seed=seed, count=200, budget=LARGE)
        found += [case for case in cases if fails(case)]
        seed += 1
        assert seed < 50, "the condition is never drawn"
    return found[:count]


def is_prime(number: int) -> bool:
    return number > 1 and all(number % k for k in range(2, int(number**0.5) + 1))


def is_expanded(case: Case) -> bool:
    x = case.tensor_or_fail("x")
    return any(s == 0 and n > 1 for n, s in zip(x.shape, x.strides, strict=True))


def has_nan(case: Case) -> bool:
    recipe = case.tensor_or_fail("x").values
    return recipe is not None and any(p.value == "nan" for p in recipe.plants)


def is_permuted(case: Case) -> bool:
    x = case.tensor_or_fail("x")
    rows = len(case.leading)
    steps = [s for n, s in zip(x.shape[:rows], x.strides, strict=False) if n > 1 and s > 0]
    return steps != sorted(steps, reverse=True)


def has_gap(case: Case) -> bool:
    x = case.tensor_or_fail("x")
    rows = len(case.leading)
    steps = [s for n, s in zip(x.shape[:rows], x.strides, strict=False) if n > 1 and s > 0]
    return bool(steps) and min(steps) > case.n_cols


def aliases(case: Case, name: str) -> bool:
    out = case.tensor("out")
    return out is not None and out.alias_of == name


def dims(case: Case) -> tuple[int, int]:
    return case.n_rows, case.n_cols


CONDITIONS: dict[str, tuple[TargetSpec, Predicate, Predicate]] = {
    "modular width": (
        LAYER_NORM,
        lambda c: c.n_cols > 5000 and c.n_cols % 3 == 1 and c.n_rows > 0,
        lambda c: dims(c) == (1, 5002),
    ),
    "modular width in one block": (
        WHOLE_ROW,
        lambda c: c.n_cols > 5000 and c.n_cols % 3 == 1 and c.n_rows > 0,
        lambda c: dims(c) == (1, 5002) and c.launch.block == 8192,
    ),
    "second block": (
        LAYER_NORM,
        lambda c: c.n_rows > 0 and c.n_cols >= (c.launch.block or 0) + 1,
        lambda c: dims(c) == (1, 129) and c.launch.block == 128,
    ),
    "exactly two blocks": (
        LAYER_NORM,
        lambda c: c.n_rows > 0 and -(-c.n_cols // (c.launch.block or c.n_cols)) == 2,
        lambda c: dims(c) == (1, 129) and c.launch.block == 128,
    ),
    "one past a border": (
        LAYER_NORM,
        lambda c: c.n_rows > 0 and c.n_cols > 1 and c.n_cols % (c.launch.block or 1) == 1,
        lambda c: dims(c) == (1, 129) and c.launch.block == 128,
    ),
    "rows": (LAYER_NORM, lambda c: c.n_rows >= 3, lambda c: dims(c) == (3, 1)),
    "empty batch": (LAYER_NORM, lambda c: c.n_rows == 0, lambda c: c.shape == (0, 1)),
    "gate": (
        GATED,
        lambda c: c.tensor("z") is not None and c.n_rows > 0,
        lambda c: dims(c) == (1, 1) and [t.name for t in c.tensors] == ["x", "z"],
    ),
    "expanded x": (
        LAYER_NORM,
        is_expanded,
        lambda c: c.shape == (2, 1) and c.tensor_or_fail("x").strides[0] == 0,
    ),
    "permuted x": (
        LAYER_NORM,
        is_permuted,
        lambda c: c.shape == (2, 2, 1) and c.tensor_or_fail("x").strides[:2] == (1, 2),
    ),
    "gap between rows": (
        LAYER_NORM,
        has_gap,
        lambda c: c.tensor_or_fail("x").strides == (2, 1) and c.shape == (2, 1),
    ),
    "planted NaN": (
        LAYER_NORM,
        has_nan,
        lambda c: (
            dims(c) == (1, 1)
            and c.tensor_or_fail("x").values == Recipe("integers", plants=(Plant(0, "nan"),))
        ),
    ),
    "prime groups": (
        GATED,
        lambda c: c.n_rows > 0 and c.n_groups > 1 and is_prime(c.group_size),
        lambda c: (dims(c), c.group_size) == ((1, 4), 2),
    ),
    "output over x": (
        LAYER_NORM,
        lambda c: aliases(c, "x") and c.n_rows > 0,
        lambda c: dims(c) == (1, 1) and [t.name for t in c.tensors] == ["x", "out"],
    ),
    "output over z": (
        GATED,
        lambda c: aliases(c, "z") and c.n_rows > 0,
        lambda c: [t.name for t in c.tensors] == ["x", "z", "out"],
    ),
    "another dtype of weight": (
        LAYER_NORM,
        lambda c: (w := c.tensor("weight")) is not None and w.dtype != c.dtype and c.n_rows > 0,
        lambda c: dims(c) == (1, 1) and [t.name for t in c.tensors] == ["x", "weight"],
    ),
    "relation": (
        LAYER_NORM,
        lambda c: "permuted" in c.relations and c.n_rows > 1,
        lambda c: c.relations == ("permuted",) and dims(c) == (2, 1),
    ),
    "three normalized dims": (
        NATIVE,
        lambda c: c.normalized_ndim == 3 and c.n_rows > 0,
        lambda c: c.normalized == (1, 1, 1),
    ),
    "eps of zero": (
        LAYER_NORM,
        lambda c: c.eps == 0.0 and c.n_rows > 0,
        lambda c: c.eps == 0.0 and dims(c) == (1, 1),
    ),
    "offset": (
        LAYER_NORM,
        lambda c: c.tensor_or_fail("x").offset % 16 != 0,
        lambda c: dims(c) == (1, 1) and c.tensor_or_fail("x").offset > 0,
    ),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_shrunk_case_is_minimal_from_everywhere(name: str) -> None:
    spec, fails, is_minimal = CONDITIONS[name]
    for case in drawn(spec, fails, 8):
        small = shrunk(case, spec, fails)
        assert is_minimal(small), small
        # Nothing of what does not matter is left.
        assert small.seed == 0
        assert name == "eps of zero" or small.eps == PLAIN_EPS
        assert name == "relation" or small.relations == ()
        # A fixpoint: shrinking again asks and finds nothing new.
        assert shrunk(small, spec, fails) == small


@pytest.mark.parametrize("name", SPECS)
def test_shrunk_case_that_fails_anyhow_is_one_element(name: str) -> None:
    spec = SPECS[name]
    for case in drawn(spec, lambda c: c.n_rows > 0, 10):
        small = shrunk(case, spec, lambda c: c.n_rows > 0)
        assert dims(small) == (1, 1)
        assert [t.name for t in small.tensors] == [a.name for a in spec.args if not a.optional]
        assert all(t.strides == contiguous_strides(t.shape) for t in small.tensors)
        assert all(t.values == Recipe("integers") for t in small.tensors if t.values)


def test_case_that_fails_in_no_simpler_way_stays_as_it_is() -> None:
    for case in drawn(GATED, lambda c: True, 5):
        wanted = case.case_id
        assert shrunk(case, GATED, lambda c, wanted=wanted: c.case_id == wanted) == case


def test_case_with_several_reasons_keeps_them_all() -> None:
    def fails(case: Case) -> bool:
        return is_expanded(case) and case.tensor("bias") is not None and case.n_cols % 3 == 2

    for case in drawn(LAYER_NORM, fails, 4):
        small = shrunk(case, LAYER_NORM, fails)
        assert dims(small) == (2, 2)
        assert [t.name for t in small.tensors] == ["x", "bias"]


def test_invalid_case_is_left_as_it_is() -> None:
    case = replace(make_case(LAYER_NORM, (4, 0)), refusal="n_cols_zero")
    assert shrink(case, LAYER_NORM, lambda c: True) == case


@pytest.mark.parametrize("max_calls", [0, 1, 7, 30])
def test_shrinking_ends_with_its_calls(max_calls: int) -> None:
    spec, fails, _ = CONDITIONS["modular width"]
    case = drawn(spec, fails, 1)[0]
    small = shrunk(case, spec, fails, max_calls=max_calls)
    assert small.n_cols <= case.n_cols
    if max_calls == 0:
        assert small == case


def test_shrinking_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("fuzz.shrink.time.monotonic", lambda: now)
    asked = 0

    def fails(case: Case) -> bool:
        nonlocal now, asked
        now, asked = now + 4.0, asked + 1
        return False

    case = drawn(LAYER_NORM, lambda c: c.n_rows > 3, 1)[0]
    assert shrink(case, LAYER_NORM, fails, seconds=10.0) == case
    assert asked == 3


# --- what is fixed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["n_cols", "n_rows", "rank", "eps", "family", "block", "num_warps", "fp_fusion"],
)
def test_shrinking_leaves_alone_what_the_spec_fixes(name: str) -> None:
    def value(case: Case) -> object:
        recipe = case.tensor_or_fail("x").values
        return {
            "n_cols": case.n_cols,
            "n_rows": case.n_rows,
            "rank": len(case.shape),
            "eps": case.eps,
            "family": recipe.family if recipe else None,
            "block": case.launch.block,
            "num_warps": case.launch.num_warps,
            "fp_fusion": case.launch.fp_fusion,
        }[name]

    for case in drawn(LAYER_NORM, lambda c: c.n_rows > 1 and c.n_cols < 3000, 6):
        spec = LAYER_NORM.fixed({name: value(case)})  # type: ignore[dict-item]
        small = shrunk(case, spec, lambda c: c.n_rows > 0)
        assert value(small) == value(case)
        # All else is as plain as it can be.
        assert name == "n_cols" or small.n_cols == 1
        assert name in ("n_rows", "rank") or small.n_rows == 1
        assert name == "eps" or small.eps == PLAIN_EPS
        assert [t.name for t in small.tensors] == ["x"]


def test_shrinking_leaves_a_constant_group_size_alone() -> None:
    flags = (FlagSpec("group_size", (16,)), FlagSpec("is_rms_norm", (True,)))
    spec = replace(GATED, flags=flags)
    case = make_case(spec, (4, 64), flags={"group_size": 16, "is_rms_norm": True})
    small = shrunk(case, spec, lambda c: True)
    assert dims(small) == (1, 16)
    assert small.flags == {"group_size": 16, "is_rms_norm": True}


def test_shrinking_keeps_the_least_rank_of_the_target() -> None:
    spec = replace(LAYER_NORM, space=Space(min_rank=3))
    case = make_case(spec, (4, 5, 64))
    assert shrunk(case, spec, lambda c: True).shape == (1, 1, 1)


def test_shrinking_takes_the_least_eps_of_the_target() -> None:
    spec = replace(LAYER_NORM, space=Space(min_eps=1e-3))
    assert shrunk(make_case(spec, (4, 8), eps=0.1), spec, lambda c: True).eps == 1e-3


def test_shrinking_takes_the_first_of_pinned_configurations() -> None:
    configs = ((("BLOCK", 64),), (("BLOCK", 128),), (("BLOCK", 256),))
    spec = replace(LAYER_NORM, launch=LaunchSpace(configs=configs))
    case = make_case(spec, (4, 8))
    launch = replace(case.launch, block=None, num_warps=None, fp_fusion=None, config=2)
    small = shrunk(replace(case, launch=launch), spec, lambda c: True)
    assert small.launch == replace(launch, config=0)


def test_shrinking_tries_no_block_that_walks_a_wide_row_in_many_steps() -> None:
    case = make_case(LAYER_NORM, (8, 60000), block=8192)
    asked = Asked(LAYER_NORM, lambda c: c.n_cols == 60000 and c.n_rows == 8)
    shrink(case, LAYER_NORM, asked)
    steps = [c.programs * -(-c.n_cols // c.launch.block) for c in asked.cases if c.launch.block]
    assert max(steps) <= 64


@pytest.mark.parametrize("width", [100, 1000, 8000])
def test_whole_row_block_follows_the_width(width: int) -> None:
    case = make_case(WHOLE_ROW, (1, 8100))
    small = shrunk(case, WHOLE_ROW, lambda c: c.n_cols >= width)
    assert small.n_cols == width
    assert small.launch.block == min(b for b in WHOLE_ROW.launch.blocks if b >= width)


@pytest.mark.parametrize(
    ("name", "width", "calls"),
    [
        # A step that helped is taken again: of 15 steps of 3, not each is searched for.
        ("modular width", 5047, 70),
        # The block shrinks with the width, which needs no second search then.
        ("modular width in one block", 43870, 75),
    ],
)
def test_shrinking_wastes_no_calls(name: str, width: int, calls: int) -> None:
    spec, fails, _ = CONDITIONS[name]
    asked = Asked(spec, fails)
    shrink(make_case(spec, (1, width)), spec, asked)
    assert len(asked.cases) <= calls


def test_whole_row_block_larger_than_need_be_is_kept_where_it_matters() -> None:
    case = make_case(WHOLE_ROW, (1, 3000), block=8192)
    small = shrunk(case, WHOLE_ROW, lambda c: c.launch.block == 8192)
    assert (small.n_cols, small.launch.block) == (1, 8192)


# --- other shapes ---------------------------------------------------------------------------------

LAYOUTS = {
    "contiguous": ((3, 4, 8), (32, 8, 1)),
    "row gap": ((3, 4, 8), (40, 10, 1)),
    "outer gap": ((3, 4, 8), (50, 8, 1)),
    "permuted": ((3, 4, 8), (8, 24, 1)),
    "permuted with gaps": ((3, 4, 8), (11, 40, 1)),
    "expanded": ((3, 4, 8), (0, 8, 1)),
    "expanded inside": ((3, 4, 8), (9, 0, 1)),
    "all expanded": ((3, 4, 8), (0, 0, 1)),
    "one column": ((3, 4, 1), (4, 1, 7)),
    "dims of size 1": ((1, 4, 8), (3, 8, 1)),
    "empty": ((3, 0, 8), (8, 8, 1)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_resized_tensor_keeps_the_manner_of_its_layout(name: str) -> None:
    shape, strides = LAYOUTS[name]
    case = make_case(GATED, shape, strides={"x": strides, "z": strides}, aliases={"out": "z"})
    if not name.startswith("contiguous") and "expanded" in name:
        case = make_case(GATED, shape, strides={"x": strides, "z": strides})
    check_valid(case, GATED)
    for leading in ((3, 4), (2, 4), (3, 2), (2, 2), (1, 1)):
        if shape[0] < leading[0] or shape[1] < leading[1]:
            continue
        for n_cols in (8, 5, 1):
            new = resized(case, GATED, leading, (n_cols,))
            check_valid(new, GATED)
            assert new.shape == (*leading, n_cols)
            was, now = case.tensor_or_fail("x"), new.tensor_or_fail("x")
            for dim in range(2):
                if was.shape[dim] > 1:
                    assert (now.strides[dim] == 0) == (was.strides[dim] == 0)
            if min(leading) > 1 and 0 < was.strides[0] < was.strides[1]:
                assert 0 < now.strides[0] < now.strides[1]
            row_gap = {"row gap": 2, "permuted with gaps": 3, "expanded inside": 1}.get(name)
            if row_gap is not None:
                inner = 1 if name == "row gap" else 0
                assert now.strides[inner] == n_cols + row_gap


def test_resized_tensor_of_the_same_shape_is_the_same() -> None:
    for shape, strides in LAYOUTS.values():
        case = make_case(LAYER_NORM, shape, strides={"x": strides}, offsets={"x": 3})
        assert resized(case, LAYER_NORM, case.leading, case.normalized) == case


@pytest.mark.parametrize("name", LAYOUTS)
def test_merged_leading_dims_are_one(name: str) -> None:
    shape, strides = LAYOUTS[name]
    case = make_case(LAYER_NORM, shape, strides={"x": strides})
    new = merged(case, LAYER_NORM)
    check_valid(new, LAYER_NORM)
    assert new.shape == (case.n_rows, case.n_cols)
    row = new.tensor_or_fail("x").strides[0]
    if name == "all expanded":
        assert row == 0
    elif case.n_rows > 1:
        assert row >= case.n_cols


def test_merged_rows_keep_their_gap() -> None:
    case = make_case(LAYER_NORM, (3, 4, 8), strides={"x": (40, 10, 1)})
    assert merged(case, LAYER_NORM).tensor_or_fail("x").strides == (10, 1)


@pytest.mark.parametrize("name", LAYOUTS)
def test_tightened_tensor_has_no_gaps_but_those_asked_for(name: str) -> None:
    shape, strides = LAYOUTS[name]
    case = make_case(LAYER_NORM, shape, strides={"x": strides})
    x = case.tensor_or_fail("x")
    for gap in (0, 1):
        tight = replace(x, strides=tightened(x, case, LAYER_NORM, gap=gap))
        check_valid(case.replace_tensor(tight), LAYER_NORM)
        rows = {d for d in range(2) if x.shape[d] > 1 and x.strides[d] > 0}
        assert {d for d in range(2) if x.shape[d] > 1 and tight.strides[d] > 0} == rows
        if rows and 0 not in shape:
            n_rows = 1
            for d in rows:
                n_rows *= shape[d]
            assert tight.span == (n_rows - 1) * (case.n_cols + gap) + case.n_cols


def test_leading_dim_of_size_1_is_left_out() -> None:
    case = make_case(
        LAYER_NORM, (3, 1, 8), strides={"x": (10, 5, 1)}, values={"x": planted(9, "nan")}
    )
    new = without_dim(case, LAYER_NORM, 1)
    check_valid(new, LAYER_NORM)
    assert new.shape == (3, 8)
    x = new.tensor_or_fail("x")
    assert (x.strides, x.values) == ((10, 1), case.tensor_or_fail("x").values)
    assert new.tensor_or_fail("weight") == case.tensor_or_fail("weight")


def test_planted_values_stay_in_the_nearest_place_that_is_left() -> None:
    plants = (Plant(0, "inf"), Plant(3 * 8 + 7, "nan"), Plant(3 * 8 + 6, "-inf"))
    case = make_case(
        LAYER_NORM,
        (4, 8),
        values={"x": Recipe("normal", plants=plants), "weight": planted(7, "nan")},
    )
    small = resized(case, LAYER_NORM, (2,), (5,))
    x, weight = small.tensor_or_fail("x").values, small.tensor_or_fail("weight").values
    assert x is not None and weight is not None
    # Of two that meet, the first stays.
    assert x.plants == (Plant(0, "inf"), Plant(9, "nan"))
    assert weight.plants == (Plant(4, "nan"),)
    empty = resized(case, LAYER_NORM, (0,), (5,)).tensor_or_fail("x").values
    assert empty is not None and empty.plants == ()


def test_tensors_of_every_kind_follow_x() -> None:
    spec = replace(
        RESIDUAL,
        args=(
            *RESIDUAL.args,
            ArgSpec("mean", shape="rows"),
            ArgSpec("rstd", shape="rows_keepdim"),
            ArgSpec("scale", shape="groups"),
        ),
    )
    case = make_case(RESIDUAL, (3, 4, 8), flags={"group_size": 2})
    x = case.tensor_or_fail("x")
    more = (
        replace(x, name="mean", shape=(3, 4), strides=(6, 1)),
        replace(x, name="rstd", shape=(3, 4, 1), strides=(4, 1, 1)),
        replace(x, name="scale", shape=(48,), strides=(1,)),
    )
    case = replace(case, tensors=(*case.tensors, *more))
    shapes = {t.name: (t.shape, t.strides) for t in resized(case, spec, (2, 3), (6,)).tensors}
    assert shapes["mean"] == ((2, 3), (5, 1))
    assert shapes["rstd"] == ((2, 3, 1), (3, 1, 1))
    assert shapes["scale"] == ((18,), (1,))
    flat = {t.name: t.shape for t in merged(case, spec).tensors}
    assert (flat["mean"], flat["rstd"], flat["scale"]) == ((12,), (12, 1), (48,))
