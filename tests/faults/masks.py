"""Faults of masks and of the last, partial block of a row or of the rows."""

from __future__ import annotations

from functools import partial

from tests.faults.entry import Entry
from tests.faults.planted import SQUARING_LOOP, STORING_LOOP

_mask = partial(Entry, kind="masks")

# The load of the loop over the tiles whose sum is not taken from registers, up to its mask.
_SUMMING_LOAD = (
    "                total += load_input(\n"
    "                    x_ptr,\n"
    "                    input_bias_ptr,\n"
    "                    residual_ptr,\n"
    "                    z_before_ptr,\n"
    "                    cols,\n"
    "                    "
)

MASK_FAULTS = (
    _mask(
        "last_column_not_in_mean",
        "native_layer_norm",
        "blocks.py",
        f"{_SUMMING_LOAD}n_cols,",
        f"{_SUMMING_LOAD}n_cols - 1,",
        "n_cols > block",
        change="The mask of the loop that sums a row ends one column early.",
        example={"shape": (1, 64), "block": 32},
    ),
    _mask(
        "next_column_in_variance",
        "fused_bias_layer_norm",
        "blocks.py",
        "centred = tl.where(cols < n_cols, value - mean, 0.0)",
        "centred = tl.where(cols <= n_cols, value - mean, 0.0)",
        "n_cols > block and not a multiple of it, and the mean is not 0",
        change="The mask of the loop over the squares ends one column late.",
        example={"shape": (2, 40), "block": 32},
    ),
    _mask(
        "tail_of_one_column_skipped",
        "fused_bias_layer_norm",
        "blocks.py",
        f"{STORING_LOOP}        while start < n_cols:",
        f"{STORING_LOOP}        while start < n_cols - 1:",
        "n_cols % block == 1, n_cols > block",
        change="The loop that stores the norm leaves out a last block of one column.",
        example={"shape": (1, 33), "block": 32},
    ),
    _mask(
        "tail_of_one_column_not_in_variance",
        "layer_norm_residual",
        "blocks.py",
        f"{SQUARING_LOOP}        while start < n_cols:",
        f"{SQUARING_LOOP}        while start < n_cols - 1:",
        "n_cols % block == 1, n_cols > block; the wider the row, the smaller the error",
        change="The loop over the squares leaves out a last block of one column.",
        example={"shape": (1, 33), "block": 32},
    ),
    _mask(
        "vector_tail_of_one_not_in_mean",
        "vector_body.py",
        "vector_body.py",
        "if left > 0:",
        "if left > 1:",
        "n_cols % 16 == 1",
        change="What is left of a row beyond whole vectors is not summed where it is one column.",
        example={"shape": (1, 17)},
    ),
    _mask(
        "pairs_masked_by_rows",
        "layernorm_fn",
        "grouped.py",
        "present = pair < n_pairs",
        "present = pair < n_rows",
        "several groups, of which a program takes more than one",
        change="The pairs of a row and a group that exist are masked by the number of rows.",
        example={"shape": (1, 6), "flags": {"group_size": 3}},
    ),
    _mask(
        "mean_of_first_block",
        "layer_norm",
        "blocks.py",
        "            start = PARTS * PART\n            while start < n_cols:",
        "            start = PARTS * PART\n            while start < PARTS * PART:",
        "n_cols > block",
        change="The loop that sums a row ends after the first block.",
        example={"shape": (1, 64), "block": 32},
    ),
    _mask(
        "first_block_alone_normalised",
        "fused_bias_layer_norm",
        "blocks.py",
        "                mean,\n                rstd,\n",
        "                mean * 0.0,\n                rstd * 0.0 + 1.0,\n",
        "n_cols > block",
        change="Every block of a row but the first is stored without being normalised.",
        example={"shape": (1, 64), "block": 32},
    ),
    _mask(
        "no_remask_in_loop",
        "layer_norm",
        "blocks.py",
        "centred = tl.where(cols < n_cols, value - mean, 0.0)",
        "centred = value - mean",
        "n_cols > block and not a multiple of it, and the mean is not 0",
        change="Masked lanes of the last block add the square of the mean to the variance.",
        example={"shape": (1, 40), "block": 32},
    ),
    _mask(
        "mean_over_padded_width",
        "triton_layer_norm",
        "whole_row.py",
        "mean = mean_of(tl.sum(total, axis=1), n_cols)[:, None]",
        "mean = mean_of(tl.sum(total, axis=1), PARTS * PART)[:, None]",
        "n_cols is less than the block and the mean is not 0",
        change="The sum of a row is divided by the block instead of the row's width.",
        example={"shape": (1, 3)},
    ),
    _mask(
        "one_block_by_a_constant",
        "layer_norm_residual",
        "launch.py",
        "more=n_cols > width,",
        "more=n_cols > 4096,",
        "a block is pinned and block < n_cols <= 4096; never with the wrapper's own launch",
        change="Whether a row fits one block is decided by 4096 instead of the launch's block.",
        example={"shape": (1, 64), "block": 32},
    ),
    _mask(
        "row_mask_by_columns",
        "many_rows.py",
        "many_rows.py",
        "(rows[:, None] < n_rows) & (cols[None, :] < n_cols)",
        "(rows[:, None] < n_cols) & (cols[None, :] < n_cols)",
        "fewer columns than rows, or a last program that is not full and more columns than rows",
        change="The rows of a program are masked by the number of columns.",
        example={"shape": (4, 2)},
    ),
    # --- rows past the last, in the tile of a program that takes several -------------------------
    _mask(
        "absent_rows_loaded",
        "fused_bias_layer_norm",
        "blocks.py",
        "        if present is not None:\n            mask = mask & present\n        value",
        "        value",
        "n_cols <= block / 2, rows that do not fill the last program; nothing of them is stored",
        change="The load of a row does not mask the rows past the last.",
        example={"shape": (3, 4)},
    ),
    _mask(
        "absent_rows_stored",
        "layer_norm",
        "blocks.py",
        "        if present is not None:\n            mask = mask & present\n        tl.store",
        "        tl.store",
        "n_cols <= block / 2, rows that do not fill the last program",
        change="The store of a row does not mask the rows past the last.",
        example={"shape": (3, 4)},
    ),
    _mask(
        "statistics_of_absent_rows",
        "native_layer_norm",
        "layer_norm.py",
        "tl.store(mean_ptr + row, mean, mask=present)",
        "tl.store(mean_ptr + row, mean)",
        "n_cols <= block / 2, rows that do not fill the last program",
        change="The mean is stored for the rows past the last as well.",
        example={"shape": (3, 4)},
    ),
    _mask(
        "last_program_not_launched",
        "rmsnorm_fn",
        "launch.py",
        "return -(-n_rows // self.rows)",
        "return max(1, n_rows // self.rows)",
        "more than one program, and rows that do not fill the last",
        change="The number of programs is rounded down.",
        example={"shape": (3, 16)},
    ),
    # --- the tiles of a row: those that stay in registers, and those that are read again ---------
    _mask(
        "held_tiles_not_remasked",
        "layer_norm_residual",
        "blocks.py",
        "if not MORE and k == PARTS - 1:",
        "if not MORE and PARTS == 1:",
        "one block of several tiles, the last of them partial, and the mean is not 0",
        change="Masked lanes of a row of several tiles add the square of the mean to the variance.",
        example={"shape": (1, 201), "num_warps": 1},
    ),
    _mask(
        "last_held_tile_stored_as_full",
        "layernorm_fn",
        "blocks.py",
        "            MORE | (k < PARTS - 1),\n        )",
        "            True,\n        )",
        "the row fits one block, and not its last tile",
        change="The store of the last tile has no mask of columns.",
        example={"shape": (1, 3)},
    ),
    _mask(
        "last_held_tile_summed_twice",
        "native_layer_norm",
        "blocks.py",
        "            start = PARTS * PART\n            while start < n_cols:",
        "            start = (PARTS - 1) * PART\n            while start < n_cols:",
        "n_cols > block, and the sum of one tile is not small beside that of the row",
        change="The sum of what is read again begins with the last tile that is held.",
        example={"shape": (1, 64), "block": 32},
    ),
    _mask(
        "first_tile_read_again_unwritten",
        "rmsnorm_fn",
        "blocks.py",
        STORING_LOOP,
        STORING_LOOP.replace("start = PARTS * PART", "start = (PARTS + 1) * PART"),
        "group_size > block",
        change="The loop that stores what is read again begins one tile late.",
        example={"shape": (1, 64), "block": 32},
    ),
)
