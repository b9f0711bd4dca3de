"""Faults of arithmetic: unstable formulas, early or wrong roundings, functions too coarse."""

from __future__ import annotations

from functools import partial

from tests.faults.entry import Entry
from tests.faults.planted import STORING_LAST_TILE

_numeric = partial(Entry, kind="numerics")

NUMERIC_FAULTS = (
    # --- eps -------------------------------------------------------------------------------------
    _numeric(
        "eps_missing",
        "rmsnorm_fn",
        "blocks.py",
        "floored = (variance + eps).to(tl.float32)",
        "floored = variance.to(tl.float32)",
        "eps is not small beside the variance",
        change="eps is not added to the variance.",
        example={"shape": (1, 4), "eps": 1.0},
    ),
    _numeric(
        "eps_squared",
        "native_layer_norm",
        "blocks.py",
        "floored = (variance + eps).to(tl.float32)",
        "floored = (variance + eps * eps).to(tl.float32)",
        "eps is neither 0 nor 1 and not small beside the variance",
        change="The square of eps is added to the variance.",
        example={"shape": (1, 4), "eps": 0.1},
    ),
    _numeric(
        "eps_in_half",
        "layer_norm",
        "layer_norm.py",
        "eps = rows.check_eps(eps, function)",
        "eps = torch.tensor(rows.check_eps(eps, function)).to(x.dtype).item()",
        "a float16 x with a variance of about eps = 1e-6, which is 1.01e-6 there; 1e-12 is 0",
        change="eps is rounded to the dtype of x.",
        example={
            "shape": (1, 8),
            "dtype": "float16",
            "eps": 1e-6,
            "x": {"mean": 0.0, "spread": 1e-4},
        },
    ),
    # --- sums and statistics in half precision ---------------------------------------------------
    _numeric(
        "lane_sums_in_half",
        "layer_norm",
        "blocks.py",
        "                start += PART\n",
        "                total = total.to(tl.float16).to(tl.float32)\n"
        "                start += PART\n",
        "n_cols > block and the mean is large beside the spread",
        change="The sum of each lane is rounded to float16 after every tile that is read again.",
        example={"shape": (1, 64), "block": 32, "x": {"mean": 10.0}},
    ),
    _numeric(
        "squares_in_half",
        "triton_layer_norm",
        "whole_row.py",
        "squares += product(centred, centred)",
        "squares += (centred * centred).to(tl.float16).to(tl.float32)",
        "differences from the mean above 256, whose squares are infinite in float16, or below 1e-3",
        change="Squares are rounded to float16 before they are summed.",
        example={"shape": (1, 4), "x": {"spread": 1000.0}},
    ),
    _numeric(
        "mean_in_bfloat16",
        "fused_bias_layer_norm",
        "blocks.py",
        "mean = mean_of(tl.sum(total, axis=1), n_cols)[:, None]",
        "mean = mean_of(tl.sum(total, axis=1), n_cols)[:, None].to(tl.bfloat16).to(tl.float32)",
        "a mean that is not small beside the spread",
        change="The mean is rounded to bfloat16.",
        example={"shape": (1, 4), "x": {"mean": 10.0}},
    ),
    _numeric(
        "rstd_in_bfloat16",
        "rmsnorm_fn",
        "blocks.py",
        "return tl.rsqrt(floored)",
        "return tl.rsqrt(floored).to(tl.bfloat16).to(tl.float32)",
        "always; half hidden by the rounding of y in bfloat16",
        change="rstd is rounded to bfloat16.",
        example={"shape": (1, 4)},
    ),
    _numeric(
        "statistics_stored_in_half",
        "two_launches.py",
        "two_launches.py",
        "mean = torch.empty(n_rows, dtype=torch.float32, device=x.device)",
        "mean = torch.empty(n_rows, dtype=x.dtype, device=x.device)",
        "x in half precision, with a mean or a spread that it cannot hold",
        change="Mean and rstd pass from one launch to the next in the dtype of x.",
        example={"shape": (1, 4), "dtype": "bfloat16", "x": {"mean": 10.0}},
    ),
    _numeric(
        "reciprocal_width_in_half",
        "triton_layer_norm",
        "whole_row.py",
        "    rstd = inverse_std(tl.sum(squares, axis=1) / n_cols, eps)[:, None]\n",
        "    share = (1.0 / n_cols).to(tl.float16).to(tl.float32)\n"
        "    rstd = inverse_std(tl.sum(squares, axis=1) * share, eps)[:, None]\n",
        "n_cols is not a power of 2; in half precision from some ten thousand columns on",
        change="The squares are multiplied by 1 / n_cols in float16.",
        example={"shape": (1, 3)},
    ),
    # --- intermediates in half precision ---------------------------------------------------------
    _numeric(
        "input_sum_in_half",
        "fused_bias_layer_norm",
        "blocks.py",
        "value = value.to(tl.float32) + input_bias.to(tl.float32)",
        "value = value.to(tl.float32) + input_bias.to(tl.float32)\n"
        "        value = value.to(x_ptr.dtype.element_ty).to(tl.float32)",
        "x in half precision",
        change="x + bias is rounded to the dtype of x before it is normalised.",
        example={"shape": (1, 8), "dtype": "bfloat16", "input_bias": {"mean": 30.0}},
    ),
    _numeric(
        "variance_of_rounded_sum",
        "residual_statistics.py",
        "residual_statistics.py",
        "centred = tl.where(mask, value - mean, 0.0)",
        "centred = tl.where(mask, value.to(x_ptr.dtype.element_ty).to(tl.float32) - mean, 0.0)",
        "half precision, and a sum that it cannot hold: 2048 + 1 in float16",
        change="The variance, but not the mean, is taken of the sum rounded to the dtype of x.",
        example={
            "shape": (1, 8),
            "dtype": "float16",
            "x": {"family": "constant", "mean": 2048.0, "spread": 0.0},
            "residual": {"family": "constant", "mean": 1.0, "spread": 0.0},
        },
    ),
    _numeric(
        "x_hat_rounded_early",
        "layer_norm",
        "blocks.py",
        "y = (value - mean) * rstd",
        "y = ((value - mean) * rstd).to(out_ptr.dtype.element_ty).to(tl.float32)",
        "half precision, and a weight or a bias",
        change="x_hat is rounded to the dtype of y before weight and bias.",
        example={"shape": (1, 16), "dtype": "bfloat16", "weight": {}, "bias": {}},
    ),
    _numeric(
        "weight_multiplied_in_half",
        "triton_layer_norm",
        "whole_row.py",
        "y *= tl.load(weight_ptr + last, mask=inside, other=0.0).to(tl.float32)\n",
        "weight = tl.load(weight_ptr + last, mask=inside, other=0.0)\n"
        "                y = (y.to(weight.dtype) * weight).to(tl.float32)\n",
        "a weight in half precision; of several tiles, in the last alone",
        change="x_hat and the weight are multiplied in the weight's dtype in a row's last tile.",
        example={"shape": (1, 16), "dtype": "float16", "weight": {}, "bias": {}},
    ),
    _numeric(
        "product_rounded_before_bias",
        "fused_bias_layer_norm",
        "blocks.py",
        "y += tl.load(",
        "y = y.to(out_ptr.dtype.element_ty).to(tl.float32)\n        y += tl.load(",
        "half precision, a weight and a bias that cancel in part",
        change="x_hat * weight is rounded to the dtype of y before the bias is added.",
        example={"shape": (1, 16), "dtype": "bfloat16", "weight": {}, "bias": {}},
    ),
    # --- the last rounding -----------------------------------------------------------------------
    _numeric(
        "bfloat16_store_truncates",
        "triton_layer_norm",
        "whole_row.py",
        STORING_LAST_TILE,
        "            if out_ptr.dtype.element_ty == tl.bfloat16:\n"
        "                y = (y.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)\n"
        f"{STORING_LAST_TILE}",
        "bfloat16; of several tiles, in the last alone",
        change="The last bits of y are cut off instead of rounded, in a row's last tile and for "
        "bfloat16 alone.",
        example={"shape": (1, 4), "dtype": "bfloat16"},
    ),
    _numeric(
        "float16_store_rounds_to_zero",
        "layernorm_fn",
        "blocks.py",
        "    y = y.to(out_ptr.dtype.element_ty)\n",
        "    if out_ptr.dtype.element_ty == tl.float16:\n"
        '        y = y.to(tl.float16, fp_downcast_rounding="rtz").to(tl.float32)\n'
        "    y = y.to(out_ptr.dtype.element_ty)\n",
        "float16",
        change="y is rounded toward zero, for float16 alone.",
        example={"shape": (1, 4), "dtype": "float16"},
    ),
    # --- functions -------------------------------------------------------------------------------
    _numeric(
        "newton_step_short",
        "homemade.py",
        "homemade.py",
        "for _ in tl.static_range(3):",
        "for _ in tl.static_range(2):",
        "float32: an error of 5e-6 at most in rstd, which half precision hides",
        change="Newton's method for rstd makes two steps instead of three.",
        example={"shape": (1, 4), "x": {"family": "constant", "mean": 1.0, "spread": 0.0}},
    ),
    _numeric(
        "log2e_cut_short",
        "homemade.py",
        "homemade.py",
        "LOG2E = tl.constexpr(1.4426950408889634)",
        "LOG2E = tl.constexpr(1.4427)",
        "float32 and a gate well below 0: an error of 3e-6 |z| in the sigmoid",
        change="The sigmoid's constant log2(e) has five digits.",
        example={"shape": (1, 4), "z": {"mean": -30.0}},
    ),
    _numeric(
        "sigmoid_by_a_fraction",
        "layernorm_fn",
        "blocks.py",
        "        y *= z * tl.sigmoid(z)",
        "        t = 0.5 * z\n"
        "        s = t * t\n"
        "        t *= 135135.0 + s * (17325.0 + s * (378.0 + s))\n"
        "        t /= 135135.0 + s * (62370.0 + s * (3150.0 + s * 28.0))\n"
        "        y *= z * (0.5 + 0.5 * tl.minimum(tl.maximum(t, -1.0), 1.0))",
        "a gate after the norm with |z| above 5; right to fp32 below 3",
        change="The sigmoid is a fraction of two polynomials.",
        example={"shape": (1, 4), "z": {"mean": -8.0}},
    ),
    # --- the variance ----------------------------------------------------------------------------
    _numeric(
        "variance_over_full_width",
        "layernorm_fn",
        "grouped.py",
        "        present,\n        n_cols,\n",
        "        present,\n        n_groups * n_cols,\n",
        "several groups; one of fewer columns than its tile reads those of the next as well",
        change="The sums of a group are divided by the width of the row.",
        example={"shape": (1, 4), "flags": {"group_size": 2}},
    ),
    _numeric(
        "welford_tail_counts_as_full",
        "welford.py",
        "welford.py",
        "count = tl.minimum(n_cols - start, BLOCK)",
        "count = tl.minimum(n_cols, BLOCK)",
        "n_cols > block and not a multiple of it",
        change="A partial last block counts as many columns as a full one.",
        example={"shape": (1, 40), "block": 32},
    ),
    _numeric(
        "welford_without_steps",
        "welford.py",
        "welford.py",
        "        squares += step * step * start * share\n",
        "",
        "n_cols > block, more so where the means of the blocks differ",
        change="Differences between the means of blocks do not enter the variance.",
        example={"shape": (1, 64), "block": 32, "x": {"family": "sorted"}},
    ),
    _numeric(
        "sums_in_tf32",
        "dot_sums.py",
        "dot_sums.py",
        'input_precision="ieee"',
        'input_precision="tf32"',
        "a mean that is not small beside the spread; the interpreter has no tf32",
        change="Matrix products sum numbers that are rounded to 11 bits.",
        example={"shape": (1, 64), "x": {"mean": 10.0}},
        seen="gpu",
    ),
)
