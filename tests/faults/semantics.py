"""Faults of meaning: arithmetic that is accurate, of another formula."""

from __future__ import annotations

from functools import partial

from tests.faults.entry import Entry

_meaning = partial(Entry, kind="semantics")

SEMANTIC_FAULTS = (
    # --- the gate --------------------------------------------------------------------------------
    _meaning(
        "gate_on_wrong_side",
        "layernorm_fn",
        "grouped.py",
        "                None if norm_before_gate else z_ptr,\n"
        "                z_ptr if norm_before_gate else None,\n",
        "                z_ptr if norm_before_gate else None,\n"
        "                None if norm_before_gate else z_ptr,\n",
        "a gate",
        change="The gate is applied before the norm where it should be after, and the reverse.",
        example={"shape": (1, 4), "z": {}},
    ),
    _meaning(
        "sigmoid_for_silu",
        "rmsnorm_fn",
        "blocks.py",
        "        y *= z * tl.sigmoid(z)",
        "        y *= tl.sigmoid(z)",
        "a gate after the norm",
        change="The gate is sigmoid(z) instead of z * sigmoid(z).",
        example={"shape": (1, 4), "z": {}},
    ),
    _meaning(
        "gate_applied_twice",
        "layernorm_fn",
        "grouped.py",
        "                None if norm_before_gate else z_ptr,\n",
        "                z_ptr,\n",
        "a gate after the norm",
        change="A gate after the norm is applied before it as well.",
        example={"shape": (1, 4), "z": {}},
    ),
    _meaning(
        "bias_after_gate",
        "layernorm_fn",
        "blocks.py",
        "    if bias_ptr is not None:\n"
        "        y += tl.load(bias_ptr + cols, mask=mask, other=0.0).to(tl.float32)\n"
        "    if z_ptr is not None:\n"
        "        z = tl.load(z_ptr + cols, mask=mask, other=0.0).to(tl.float32)\n"
        "        y *= z * tl.sigmoid(z)\n",
        "    if z_ptr is not None:\n"
        "        z = tl.load(z_ptr + cols, mask=mask, other=0.0).to(tl.float32)\n"
        "        y *= z * tl.sigmoid(z)\n"
        "    if bias_ptr is not None:\n"
        "        y += tl.load(bias_ptr + cols, mask=mask, other=0.0).to(tl.float32)\n",
        "a bias and a gate after the norm",
        change="The bias is added after the gate instead of before.",
        example={"shape": (1, 4), "bias": {}, "z": {}},
    ),
    # --- statistics of the wrong thing -----------------------------------------------------------
    _meaning(
        "wide_rms_subtracts_mean",
        "rmsnorm_fn",
        "grouped.py",
        "x_ptr, None, None, z_before_ptr, n_cols, eps, IS_RMS=IS_RMS, BLOCK=BLOCK",
        "x_ptr, None, None, z_before_ptr, n_cols, eps, IS_RMS=False, BLOCK=BLOCK",
        "group_size > block",
        change="The RMS norm of a group of several blocks subtracts the mean.",
        example={"shape": (1, 64), "block": 32},
    ),
    _meaning(
        "wide_statistics_before_gate",
        "layernorm_fn",
        "grouped.py",
        "x_ptr, None, None, z_before_ptr, n_cols, eps, IS_RMS=IS_RMS, BLOCK=BLOCK",
        "x_ptr, None, None, None, n_cols, eps, IS_RMS=IS_RMS, BLOCK=BLOCK",
        "group_size > block and a gate before the norm",
        change="The statistics of a group of several blocks are those of x before the gate.",
        example={
            "shape": (1, 64),
            "block": 32,
            "z": {},
            "flags": {"norm_before_gate": False},
        },
    ),
    _meaning(
        "wide_statistics_without_residual",
        "layer_norm_residual",
        "residual.py",
        "x_ptr, input_bias_ptr, residual_ptr, None, n_cols, eps, IS_RMS=False, BLOCK=BLOCK",
        "x_ptr, input_bias_ptr, None, None, n_cols, eps, IS_RMS=False, BLOCK=BLOCK",
        "n_cols > block",
        change="The statistics of a row of several blocks are those of x without the residual.",
        example={"shape": (1, 64), "block": 32},
    ),
    _meaning(
        "rms_ignores_groups",
        "rmsnorm_fn",
        "grouped.py",
        "group_size = rows.check_group_size(group_size, n_cols, function)",
        "group_size = rows.check_group_size(\n"
        "        None if is_rms_norm else group_size, n_cols, function\n"
        "    )",
        "several groups",
        change="An RMS norm takes the whole row for one group.",
        example={"shape": (1, 4), "flags": {"group_size": 2}},
    ),
    _meaning(
        "residual_added_after",
        "residual_statistics.py",
        "residual_statistics.py",
        "    _residual_statistics_kernel[grid](x, residual, y, mean, rstd, n_cols, eps, "
        "BLOCK=block)\n",
        "    none = torch.zeros_like(residual)\n"
        "    _residual_statistics_kernel[grid](x, none, y, mean, rstd, n_cols, eps, "
        "BLOCK=block)\n"
        "    y += residual\n",
        "always",
        change="The residual is added to the norm of x instead of to x.",
        example={"shape": (1, 4)},
    ),
    _meaning(
        "mean_before_residual",
        "residual_statistics.py",
        "residual_statistics.py",
        "tl.store(mean_ptr + row, mean)",
        "tl.store(mean_ptr + row, tl.sum(x) / n_cols)",
        "the mean of the residual is not 0; y is right",
        change="The mean that is returned is that of x without the residual.",
        example={"shape": (1, 4)},
    ),
    # --- weight, bias, eps -----------------------------------------------------------------------
    _meaning(
        "bias_needs_weight",
        "layer_norm",
        "blocks.py",
        "if bias_ptr is not None:",
        "if bias_ptr is not None and weight_ptr is not None:",
        "a bias, and no weight",
        change="The bias is left out where there is no weight.",
        example={"shape": (1, 4), "bias": {}},
    ),
    _meaning(
        "weight_plus_one",
        "native_layer_norm",
        "blocks.py",
        "y *= tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)",
        "y *= 1.0 + tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)",
        "a weight",
        change="x_hat is multiplied by 1 + weight.",
        example={"shape": (1, 4), "weight": {}},
    ),
    _meaning(
        "gamma_and_beta_exchanged",
        "fused_bias_layer_norm",
        "bias.py",
        "                gamma,\n                beta,\n",
        "                beta,\n                gamma,\n",
        "gamma or beta",
        change="The launch takes gamma for beta, and the reverse.",
        example={"shape": (1, 4), "weight": {}},
    ),
    _meaning(
        "other_default_eps",
        "two_launches.py",
        "two_launches.py",
        "EPS = 1e-5",
        "EPS = 1e-6",
        "a variance that is not large beside 1e-5",
        change="The kernel's own eps is 1e-6 instead of 1e-5.",
        example={"shape": (1, 4), "x": {"spread": 0.01}},
    ),
    _meaning(
        "one_column_is_zero",
        "layer_norm",
        "layer_norm.py",
        "    launch = launch or default_launch(n_cols, x.element_size())\n",
        "    if n_cols == 1:\n"
        "        return out.zero_()\n"
        "    launch = launch or default_launch(n_cols, x.element_size())\n",
        "n_cols = 1 and a bias",
        change="The norm of a single column is 0 without a launch, the bias is forgotten.",
        example={"shape": (1, 1), "bias": {}},
    ),
    # --- what is returned ------------------------------------------------------------------------
    _meaning(
        "rstd_returned_as_std",
        "native_layer_norm",
        "layer_norm.py",
        "tl.store(rstd_ptr + row, rstd)",
        "tl.store(rstd_ptr + row, 1.0 / rstd)",
        "the standard deviation is not 1; y is right",
        change="The standard deviation is returned in place of its reciprocal.",
        example={"shape": (1, 4)},
    ),
    _meaning(
        "rstd_returned_as_variance",
        "layernorm_fn",
        "grouped.py",
        "tl.store(rstd_ptr + group * n_rows + row, rstd)",
        "tl.store(rstd_ptr + group * n_rows + row, 1.0 / (rstd * rstd) - eps)",
        "the variance is not 1; y is right",
        change="The variance is returned in place of rstd.",
        example={"shape": (1, 4)},
    ),
)
