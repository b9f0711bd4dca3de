"""The targets whose cases are counted: the built-in ones, and some as users declare them."""

from __future__ import annotations

from dataclasses import replace

from fuzz.builtin import TARGETS
from fuzz.spec import (
    ArgSpec,
    DefaultLaunch,
    FlagSpec,
    LaunchSpace,
    OutputSpec,
    Space,
    TargetSpec,
)
from oracle.arithmetic import Arithmetic


def _built_in(name: str) -> TargetSpec:
    return TARGETS[name]()[0]


LAYER_NORM = _built_in("layer_norm")
NATIVE = _built_in("native_layer_norm")
RESIDUAL = _built_in("layer_norm_residual")
WHOLE_ROW = _built_in("triton_layer_norm")
GATED = _built_in("layernorm_fn")
FUSED_BIAS = _built_in("fused_bias_layer_norm")

# The built-in targets have nothing left to chance but cases: invalid ones are not drawn.
VALID_ALONE = {spec.name: replace(spec, refuses=()) for spec in (LAYER_NORM, NATIVE, GATED)}


def _user(
    name: str, *args: ArgSpec, launch: LaunchSpace | None = None, **given: object
) -> TargetSpec:
    made = TargetSpec(
        name, args, (OutputSpec("y"),), Arithmetic(), launch=launch or LaunchSpace(fp_fusion=())
    )
    return replace(made, **given)  # type: ignore[arg-type]


_X = ArgSpec("x", strided=True)

# Widths and layouts without a launch that would bend them.
ROWS = _user("rows", _X, space=Space(max_rank=6))
# More dims than the built-in ones have.
MORE_DIMS = _user("more_dims", _X, space=Space(max_rank=8, max_normalized_dims=4))

# A block that no other kind of width is near.
ODD_BLOCK = _user("odd_block", _X, launch=LaunchSpace((1500,), (2,), ()))
ODD_DEFAULT = _user(
    "odd_default",
    _X,
    # Wider rows, and half precision, have no launch that is known.
    launch=LaunchSpace((64,), (2, 4), (False,), defaults=(DefaultLaunch(9000, 4, 1500, 1),)),
)
# Rows in which every kind of width can be had, so that none stands in for another.
NARROW = _user("narrow", _X, launch=LaunchSpace((128,), (2,), ()), space=Space(max_cols=4096))
GROUPED = _user(
    "grouped",
    _X,
    launch=LaunchSpace((1500,), (2,), ()),
    flags=(FlagSpec("group_size", (None,)),),
)
TUNED = _user(
    "tuned",
    _X,
    launch=LaunchSpace(
        fp_fusion=(True, False),
        configs=(
            (("BLOCK_M", 4), ("BLOCK_N", 1500), ("num_warps", 4)),
            (("BLOCK", 3100),),
            (("num_warps", 8),),
        ),
    ),
)

# Every role and shape that a spec can name, as a backward pass has them.
BACKWARD = _user(
    "backward",
    _X,
    ArgSpec("dy", dtypes=("float16", "bfloat16"), strided=True),
    ArgSpec("mean", shape="rows", dtypes=("float32",), strided=True),
    ArgSpec("rstd", shape="rows_keepdim", dtypes=("float32",), strided=True),
    ArgSpec("stats", shape="groups", role="out", dtypes=("float32",)),
    ArgSpec("dweight", shape="cols", role="inout", dtypes=("float32",)),
    ArgSpec("locks", shape="cols", role="scratch", dtypes=("float32",)),
    flags=(FlagSpec("group_size", (None,)), FlagSpec("weight_offset", (0.0, 1.0))),
)

LARGER_EPS = _user("larger_eps", _X, space=Space(min_eps=0.05))
LARGEST_EPS = _user("largest_eps", _X, space=Space(min_eps=1e4))
NO_EMPTY_BATCH = _user("no_empty_batch", _X, space=Space(empty_batch=False))
