"""Faults of meaning: arithmetic that is accurate, of another formula."""

from __future__ import annotations

from functools import partial

from tests.faults.entry import Entry
from tests.faults.planted import SQUARING_LOOP

_meaning = partial(Entry, kind="semantics")

# The load of the loop that adds squares of what is read again, up to the residual.
_SQUARING_LOAD = (
    f"{SQUARING_LOOP}"
    "        while start < n_cols:\n"
    "            cols = start + lane\n"
    "            inside = cols < n_cols\n"
    "            value = load_input(\n"
    "                x_ptr,\n"
    "                input_bias_ptr,\n"
)

# What adds the bias and what multiplies by a gate after the norm, in blocks.py.
_BIAS = (
    "    if bias_ptr is not None:\n"
    "        y += tl.load(\n"
    '            bias_ptr + cols, mask=inside, other=inside_other, eviction_policy="evict_last"\n'
    "        ).to(tl.float32)\n"
)
_GATE = (
    "    if z_ptr is not None:\n"
    '        z = tl.load(z_ptr + cols, mask=mask, other=other, eviction_policy="evict_first")\n'
    "        z = z.to(tl.float32)\n"
    "        y *= z * tl.sigmoid(z)\n"
)

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
        "gate_on_wrong_side_again",
        "layernorm_fn",
        "grouped.py",
        "gates = (None, 3) if norm_before_gate else (3, None)",
        "gates = (3, None) if norm_before_gate else (None, 3)",
        "a gate, and a call made again; interpreted launches are not kept",
        change="A launch that is made again applies the gate before the norm instead of after.",
        example={"shape": (1, 4), "z": {}, "relations": ("repeat",)},
        seen="gpu",
    ),
    _meaning(
        "bias_after_gate",
        "layernorm_fn",
        "blocks.py",
        f"{_BIAS}{_GATE}",
        f"{_GATE}{_BIAS}",
        "a bias and a gate after the norm",
        change="The bias is added after the gate instead of before.",
        example={"shape": (1, 4), "bias": {}, "z": {}},
    ),
    # --- statistics of the wrong thing -----------------------------------------------------------
    _meaning(
        "wide_rms_subtracts_mean",
        "rmsnorm_fn",
        "blocks.py",
        "    if IS_RMS:\n",
        "    if IS_RMS and not MORE:\n",
        "group_size > block",
        change="The RMS norm of a group of several blocks subtracts the mean.",
        example={"shape": (1, 64), "block": 32},
    ),
    _meaning(
        "wide_statistics_before_gate",
        "layernorm_fn",
        "blocks.py",
        f"{_SQUARING_LOAD}                residual_ptr,\n                z_before_ptr,\n",
        f"{_SQUARING_LOAD}                residual_ptr,\n                None,\n",
        "group_size > block and a gate before the norm",
        change="What a group's variance reads again is x before the gate.",
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
        "blocks.py",
        f"{_SQUARING_LOAD}                residual_ptr,\n",
        f"{_SQUARING_LOAD}                None,\n",
        "n_cols > block",
        change="What a row's variance reads again is x without the residual.",
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
    _meaning(
        "mean_of_all_rows_of_a_tile",
        "layer_norm",
        "blocks.py",
        "mean = mean_of(tl.sum(total, axis=1), n_cols)[:, None]",
        "mean = mean_of(tl.sum(total), ROWS * n_cols)",
        "n_cols <= block / 2",
        change="The mean of a program's rows is that of all of them together.",
        example={"shape": (2, 4)},
    ),
    _meaning(
        "held_tile_before",
        "layer_norm",
        "blocks.py",
        "        value = held[k].to(tl.float32)\n",
        "        value = held[k - 1].to(tl.float32)\n",
        "the row fits one block, in several tiles",
        change="A tile is stored with the values of the one before.",
        example={"shape": (1, 201), "num_warps": 1},
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
        "y *= tl.load(",
        "y *= 1.0 + tl.load(",
        "a weight",
        change="x_hat is multiplied by 1 + weight.",
        example={"shape": (1, 4), "weight": {}},
    ),
    _meaning(
        "gamma_and_beta_exchanged",
        "fused_bias_layer_norm",
        "bias.py",
        "x_rows, bias, gamma, beta, out_rows",
        "x_rows, bias, beta, gamma, out_rows",
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
        "tl.store(rstd_ptr + row, rstd, mask=present)",
        "tl.store(rstd_ptr + row, 1.0 / rstd, mask=present)",
        "the standard deviation is not 1; y is right",
        change="The standard deviation is returned in place of its reciprocal.",
        example={"shape": (1, 4)},
    ),
    _meaning(
        "rstd_returned_as_variance",
        "layernorm_fn",
        "grouped.py",
        "tl.store(rstd_ptr + group * n_rows + row, rstd, mask=present)",
        "tl.store(rstd_ptr + group * n_rows + row, 1.0 / (rstd * rstd) - eps, mask=present)",
        "the variance is not 1; y is right",
        change="The variance is returned in place of rstd.",
        example={"shape": (1, 4)},
    ),
)
