"""What the engine knows of a target."""

from dataclasses import FrozenInstanceError

import pytest

from fuzz.spec import FLOAT_DTYPES, ArgSpec, Space
from tests.fuzz.builders import GATED, LAYER_NORM


def test_spec_finds_arguments_and_flags_by_name() -> None:
    z, group_size = GATED.arg("z"), GATED.flag("group_size")
    assert z is not None and z.optional
    assert group_size is not None and group_size.choices == (None,)
    assert GATED.arg("group_size") is None
    assert GATED.flag("z") is None


def test_spec_with_fixed_dimensions_keeps_everything_else() -> None:
    fixed = LAYER_NORM.fixed({"n_cols": 4097, "dtype": "bfloat16"})
    assert fixed.space.fix("n_cols") == 4097
    assert fixed.space.fix("dtype") == "bfloat16"
    assert fixed.space.fix("eps") is None
    assert fixed.fixed({}) == fixed
    assert (fixed.args, fixed.outputs, fixed.launch) == (
        LAYER_NORM.args,
        LAYER_NORM.outputs,
        LAYER_NORM.launch,
    )


def test_spec_with_fixed_dimensions_is_the_same_in_any_order() -> None:
    one, other = {"n_cols": 3, "eps": 0.0}, {"eps": 0.0, "n_cols": 3}
    assert LAYER_NORM.fixed(one) == LAYER_NORM.fixed(other)
    # The strategies are built once for each spec.
    assert hash(LAYER_NORM.fixed(one)) == hash(LAYER_NORM.fixed(other))


def test_spec_keeps_what_is_fixed_already() -> None:
    # The eps of a kernel that takes none is fixed by the kernel, n_cols by the user.
    both = LAYER_NORM.fixed({"eps": 1e-6}).fixed({"n_cols": 3})
    assert (both.space.fix("eps"), both.space.fix("n_cols")) == (1e-6, 3)
    assert both.fixed({"n_cols": 5}).space.fix("n_cols") == 5


def test_spec_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        LAYER_NORM.name = "other"  # type: ignore[misc]


def test_spec_defaults_are_an_unchanged_input_of_any_float_dtype() -> None:
    arg = ArgSpec("dy")
    assert (arg.role, arg.shape, arg.dtypes) == ("in", "full", FLOAT_DTYPES)
    assert not (arg.optional or arg.strided or arg.may_alias)
    assert Space().fix("n_cols") is None
