"""What `--fix` takes and refuses, beside what tests/fuzz/test_strategies.py holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuzz.spec import ArgSpec, FlagSpec, FlagValue, LaunchSpace, OutputSpec, Space, TargetSpec
from fuzz.strategies import check_fixes
from oracle.arithmetic import Arithmetic

PLAIN = TargetSpec(
    "plain",
    (ArgSpec("x"),),
    (OutputSpec("y"),),
    Arithmetic(),
    flags=(FlagSpec("is_rms_norm", (True, False)), FlagSpec("weight_offset", (0.0, 1.0))),
    launch=LaunchSpace(blocks=(32, 64)),
)
GROUPED = replace(PLAIN, flags=(FlagSpec("group_size", (None,)),))
SEVERAL_SIZES = replace(PLAIN, flags=(FlagSpec("group_size", (64, 128)),))
TUNED = replace(PLAIN, launch=LaunchSpace(configs=((("BLOCK", 64),), (("BLOCK", 128),))))
WHOLE_ROW = replace(PLAIN, launch=LaunchSpace(blocks=(32, 64), whole_row=True))
TUNED_WHOLE_ROW = replace(PLAIN, launch=replace(TUNED.launch, whole_row=True))
ONE_DIM = replace(PLAIN, space=Space(max_rank=1))
OF_10 = replace(GROUPED, space=Space(fixed=(("n_cols", 10), ("eps", 1e-5))))
WITHOUT_X = replace(PLAIN, args=(ArgSpec("weight", shape="cols"),))

TAKEN: list[tuple[TargetSpec, dict[str, str], dict[str, FlagValue]]] = [
    (PLAIN, {"rank": "1"}, {"rank": 1}),
    (PLAIN, {"rank": "1", "n_rows": "1"}, {"rank": 1, "n_rows": 1}),
    (PLAIN, {"n_rows": "7"}, {"n_rows": 7}),
    (PLAIN, {"n_cols": " 4e3 "}, {"n_cols": 4000}),
    (PLAIN, {"eps": "0"}, {"eps": 0.0}),
    # Blocks need not hold the row, unless a kernel keeps all of it in one.
    (PLAIN, {"n_cols": "300", "block": "32"}, {"n_cols": 300, "block": 32}),
    (WHOLE_ROW, {"block": "32"}, {"block": 32}),
    (WHOLE_ROW, {"n_cols": "64"}, {"n_cols": 64}),
    (TUNED_WHOLE_ROW, {"n_cols": "300"}, {"n_cols": 300}),
    # A number by its value, where the choices are numbers.
    (PLAIN, {"weight_offset": "1"}, {"weight_offset": 1.0}),
    (PLAIN, {"weight_offset": "1.0"}, {"weight_offset": 1.0}),
    (PLAIN, {"is_rms_norm": "TRUE"}, {"is_rms_norm": True}),
    (GROUPED, {"group_size": "None"}, {"group_size": None}),
    # A constant is one choice; of several, none binds.
    (SEVERAL_SIZES, {"group_size": "48"}, {"group_size": 48}),
    # What the target has fixed may be said once more.
    (OF_10, {"eps": "1e-5", "group_size": "5"}, {"eps": 1e-5, "group_size": 5}),
]


@pytest.mark.parametrize(("spec", "fixes", "values"), TAKEN)
def test_fix_is_read(spec: TargetSpec, fixes: dict[str, str], values: dict[str, FlagValue]) -> None:
    read = check_fixes(spec, fixes)
    assert read == values
    assert [type(value) for value in read.values()] == [type(value) for value in values.values()]


REFUSED = [
    (PLAIN, {"cols": "5"}, "one of n_cols, n_rows, .*refusal, is_rms_norm, weight_offset "),
    (PLAIN, {"is_rms_norm": "1"}, "is_rms_norm=1, must be one of True, False"),
    (PLAIN, {"weight_offset": "0.5"}, "weight_offset=0.5, must be one of 0.0, 1.0"),
    (PLAIN, {"eps": "-1"}, "eps=-1, must be a finite number >= 0"),
    (PLAIN, {"eps": "small"}, "eps=small, must be a finite number"),
    (PLAIN, {"n_cols": "inf"}, "n_cols=inf, must be an integer"),
    (PLAIN, {"rank": "0"}, r"rank=0, must be an integer in 1 \.\.\. 5"),
    (PLAIN, {"normalized_ndim": "0"}, "normalized_ndim=0, must be an integer in 1"),
    (PLAIN, {"config": "0"}, "config=0, must be left alone"),
    (TUNED, {"num_warps": "4"}, "num_warps=4, must be left alone"),
    (WITHOUT_X, {"dtype": "float32"}, "dtype=float32, must be left alone"),
    (ONE_DIM, {"n_rows": "4"}, "n_rows=4, must be 1 where all of rank=1 dims are normalized"),
    (WHOLE_ROW, {"n_cols": "65"}, "n_cols=65, must be at most block=64"),
    (WHOLE_ROW, {"n_cols": "33", "block": "32"}, "n_cols=33, must be at most block=32"),
    # Values of the target and of the user, which exclude each other.
    (OF_10, {"group_size": "4"}, "group_size=4, must be a divisor of n_cols=10"),
    (OF_10, {"eps": "1e-4"}, "eps=0.0001, must be 1e-05: the target takes no other"),
]


@pytest.mark.parametrize(("spec", "fixes", "message"), REFUSED)
def test_fix_is_refused_by_its_rule(spec: TargetSpec, fixes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_fixes(spec, fixes)
