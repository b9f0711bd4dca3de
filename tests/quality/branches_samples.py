"""The drawn cases in which branches are counted: enough of each kind, and no more."""

from __future__ import annotations

from fuzz.strategies import GPU_BUDGET, Frames
from tests.quality.branches_sampling import Sample
from tests.quality.branches_targets import (
    BACKWARD,
    FUSED_BIAS,
    GATED,
    GROUPED,
    LARGER_EPS,
    LARGEST_EPS,
    LAYER_NORM,
    MORE_DIMS,
    NARROW,
    NATIVE,
    NO_EMPTY_BATCH,
    ODD_BLOCK,
    ODD_DEFAULT,
    RESIDUAL,
    ROWS,
    TUNED,
    WHOLE_ROW,
)

# Built-in targets.
PLAIN = Sample(LAYER_NORM, count=8000)
COMPILED = Sample(LAYER_NORM, GPU_BUDGET, count=1000)
SEVERAL = Sample(NATIVE, count=8000)
SUMMED = Sample(RESIDUAL, count=8000)
GATING = Sample(GATED, count=12000)
BIASED = Sample(FUSED_BIAS, count=3000)
IN_ONE_BLOCK = Sample(WHOLE_ROW, count=5000)

# Rows alone, and those of which it takes many to see all branches.
FREE = Sample(ROWS, GPU_BUDGET, count=16000)
THREE_LEADING = Sample(ROWS.fixed({"rank": 4, "n_rows": 24}), GPU_BUDGET, count=6000)
AMONG_UNIT_DIMS = Sample(ROWS.fixed({"rank": 6, "n_rows": 4}), GPU_BUDGET, count=2500)
FIVE_LEADING = Sample(ROWS.fixed({"rank": 6}), GPU_BUDGET, count=2000)
MANY_DIMS = Sample(MORE_DIMS, GPU_BUDGET, count=3000)
SEVEN_LEADING = Sample(MORE_DIMS.fixed({"rank": 8, "normalized_ndim": 1}), GPU_BUDGET, count=1000)
NEVER_EMPTY = Sample(NO_EMPTY_BATCH, count=500)
ONE_WIDTH = Sample(GATED.fixed({"n_cols": 64 * 3 * 37, "refusal": "none"}), GPU_BUDGET, count=2000)
ONE_GROUP_SIZE = Sample(GATED.fixed({"group_size": 24, "refusal": "none"}), count=3000)
ONE_ROW = Sample(LAYER_NORM.fixed({"n_rows": 1}), count=1200)
NO_ROWS = Sample(LAYER_NORM.fixed({"n_rows": 0, "rank": 4}), count=1000)

# Targets as users declare them.
BORDERED = Sample(ODD_BLOCK, count=6000)
EVERY_WIDTH = Sample(NARROW, count=2000)
GROUPED_ROWS = Sample(GROUPED, count=5000)
BORDERED_BY_DEFAULT = Sample(ODD_DEFAULT, count=6000)
CONFIGURED = Sample(TUNED, count=6000)
OTHER_ROLES = Sample(BACKWARD, count=5000)
LIMITED_EPS = Sample(LARGER_EPS, count=1000)
ONE_EPS = Sample(LARGEST_EPS, count=100)
ONE_FAMILY = Sample(LAYER_NORM.fixed({"family": "normal"}), count=1000)

# Many frames for what differs from frame to frame, few for what is in one of them.
FRAMED = Sample(GATED, GPU_BUDGET, Frames(1, 400), count=6000)
FEW_FRAMES = Sample(LAYER_NORM, GPU_BUDGET, Frames(1, 10), count=1000)
