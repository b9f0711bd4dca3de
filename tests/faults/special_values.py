"""Faults that NaN, infinity, overflow, subnormals, zeros and constant rows bring to light."""

from __future__ import annotations

from functools import partial

from tests.faults.entry import Entry
from tests.faults.planted import STORING_LAST_TILE

_special = partial(Entry, kind="special values")

# What reads x, and what reads the weight, in blocks.py.
_X = "    value = tl.load(x_ptr + cols, mask=mask, other=other, eviction_policy=POLICY)"
_WEIGHT = (
    "tl.load(\n"
    '            weight_ptr + cols, mask=inside, other=inside_other, eviction_policy="evict_last"\n'
    "        ).to(tl.float32)"
)

SPECIAL_VALUE_FAULTS = (
    # --- NaN and infinity ------------------------------------------------------------------------
    _special(
        "nan_reaches_other_groups",
        "masked_groups.py",
        "masked_groups.py",
        "mean = tl.sum(tl.where(in_group, x, 0.0)) / group_size",
        "mean = tl.sum(x * in_group) / group_size",
        "several groups, one of them with NaN or infinity: 0 times either is NaN",
        change="The columns of other groups are multiplied by 0 instead of left out.",
        example={"shape": (1, 4), "flags": {"group_size": 2}, "x": {"plants": {0: "nan"}}},
    ),
    _special(
        "nan_reaches_later_rows",
        "persistent_rows.py",
        "persistent_rows.py",
        "        squares = tl.zeros([BLOCK], dtype=tl.float32)  # anew for each row\n",
        "        squares *= 0.0\n",
        "more than 8 rows, an early one of them with NaN or infinity",
        change="The squares of the row before are multiplied by 0 instead of dropped.",
        example={"shape": (9, 4), "x": {"plants": {0: "nan"}}},
    ),
    _special(
        "infinity_clamped_on_load",
        "layer_norm",
        "blocks.py",
        f"{_X}\n",
        f"{_X}.to(tl.float32)\n    value = tl.where(value > 65504.0, 65504.0, value)\n",
        "infinity in x, or a number above 65504",
        change="Numbers of x are limited to the largest of float16.",
        example={"shape": (1, 4), "dtype": "float16", "x": {"plants": {0: "inf"}}},
    ),
    _special(
        "nan_turned_to_zero",
        "fused_bias_layer_norm",
        "blocks.py",
        f"{_X}\n",
        f"{_X}.to(tl.float32)\n    value = tl.where(value == value, value, 0.0)\n",
        "NaN in x",
        change="NaN in x is read as 0.",
        example={"shape": (1, 4), "x": {"plants": {0: "nan"}}},
    ),
    _special(
        "zero_weight_hides_nan",
        "layer_norm",
        "blocks.py",
        f"        y *= {_WEIGHT}\n",
        f"        weight = {_WEIGHT}\n        y = tl.where(weight == 0.0, 0.0, y * weight)\n",
        "a row with NaN or infinity, and a weight with a 0",
        change="Where the weight is 0 the product is 0, whatever x_hat is.",
        example={
            "shape": (1, 4),
            "x": {"plants": {0: "nan"}},
            "weight": {"family": "zeros", "mean": 0.0},
        },
    ),
    # --- overflow --------------------------------------------------------------------------------
    _special(
        "float16_store_saturates",
        "triton_layer_norm",
        "whole_row.py",
        STORING_LAST_TILE,
        "            if out_ptr.dtype.element_ty == tl.float16:\n"
        "                y = tl.where(y > 65504.0, 65504.0, y)\n"
        f"{STORING_LAST_TILE}",
        "float16, and a weight or bias that makes y larger than its largest number; of several "
        "tiles, in the last alone",
        change="What overflows float16 in a row's last tile is stored as its largest number.",
        example={
            "shape": (1, 8),
            "dtype": "float16",
            "weight": {"family": "constant", "mean": 60000.0, "spread": 0.0},
        },
    ),
    _special(
        "gate_of_exponentials",
        "layernorm_fn",
        "blocks.py",
        "        y *= z * tl.sigmoid(z)",
        "        y *= z * (tl.exp(z) / (1.0 + tl.exp(z)))",
        "a gate after the norm, with a z above 88.7: infinity divided by infinity",
        change="The sigmoid is exp(z) / (1 + exp(z)).",
        example={"shape": (1, 4), "z": {"mean": 100.0}},
    ),
    # --- small numbers ---------------------------------------------------------------------------
    _special(
        "subnormals_flushed_on_load",
        "native_layer_norm",
        "blocks.py",
        f"{_X}\n",
        f"{_X}.to(tl.float32)\n"
        "    if x_ptr.dtype.element_ty == tl.float16:\n"
        "        value = tl.where(tl.abs(value) < 6.1e-5, 0.0, value)\n",
        "float16, and numbers below 6.1e-5 that are not small beside sqrt(eps) or the others",
        change="Subnormal numbers of float16 are read as 0.",
        example={
            "shape": (1, 4),
            "dtype": "float16",
            "eps": 1e-12,
            "x": {"family": "subnormal", "mean": 0.0},
        },
    ),
    _special(
        "eps_zero_taken_for_none",
        "layer_norm_residual",
        "residual.py",
        "eps = rows.check_eps(eps, function)",
        "eps = rows.check_eps(eps, function) or 1e-5",
        "eps = 0, and a variance that is not large beside 1e-5",
        change="An eps of 0 is taken for one that is not given.",
        example={
            "shape": (1, 4),
            "eps": 0.0,
            "x": {"spread": 1e-3},
            "residual": {"family": "zeros", "mean": 0.0},
        },
    ),
    _special(
        "rstd_zero_of_constant_rows",
        "native_layer_norm",
        "blocks.py",
        "return tl.rsqrt(floored)",
        "return tl.where(variance == 0.0, 0.0, tl.rsqrt(floored))",
        "a constant row; y is right, rstd is 0 instead of 1 / sqrt(eps)",
        change="rstd of a row without variance is 0.",
        example={"shape": (1, 4), "x": {"family": "constant", "mean": 1.0, "spread": 0.0}},
    ),
)
