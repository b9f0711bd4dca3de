"""Faults of masks and of the last, partial block of a row or of the rows."""

from __future__ import annotations

from functools import partial

from tests.faults.entry import Entry

_mask = partial(Entry, kind="masks")

MASK_FAULTS = (
    _mask(
        "last_column_not_in_mean",
        "native_layer_norm",
        "blocks.py",
        "mask = cols < n_cols\n            total +=",
        "mask = cols < n_cols - 1\n            total +=",
        "n_cols > block",
        change="The mask of the loop that sums a row ends one column early.",
        example={"shape": (1, 64), "block": 32},
    ),
    _mask(
        "next_column_in_variance",
        "fused_bias_layer_norm",
        "blocks.py",
        "mask = cols < n_cols\n        value",
        "mask = cols <= n_cols\n        value",
        "n_cols > block and not a multiple of it",
        change="The mask of the loop over the squares ends one column late.",
        example={"shape": (2, 40), "block": 32},
    ),
    _mask(
        "tail_of_one_column_skipped",
        "fused_bias_layer_norm",
        "bias.py",
        "while start < n_cols:",
        "while start < n_cols - 1:",
        "n_cols % block == 1, n_cols > block",
        change="The loop that stores the norm leaves out a last block of one column.",
        example={"shape": (1, 33), "block": 32},
    ),
    _mask(
        "tail_of_one_column_not_in_variance",
        "layer_norm_residual",
        "blocks.py",
        "squares = tl.zeros([BLOCK], dtype=tl.float32)\n    start = 0\n    while start < n_cols:",
        "squares = tl.zeros([BLOCK], dtype=tl.float32)\n"
        "    start = 0\n"
        "    while start < n_cols - 1:",
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
        "group_mask_of_full_width",
        "layernorm_fn",
        "grouped.py",
        "cols = tl.arange(0, BLOCK)\n        mask = cols < n_cols",
        "cols = tl.arange(0, BLOCK)\n        mask = cols < n_groups * n_cols",
        "several groups whose size is less than the block",
        change="Columns are masked by the width of the row instead of the group's.",
        example={"shape": (1, 6), "flags": {"group_size": 3}},
    ),
    _mask(
        "mean_of_first_block",
        "layer_norm",
        "blocks.py",
        "total = tl.zeros([BLOCK], dtype=tl.float32)\n"
        "        start = 0\n"
        "        while start < n_cols:",
        "total = tl.zeros([BLOCK], dtype=tl.float32)\n"
        "        start = 0\n"
        "        while start < BLOCK:",
        "n_cols > block",
        change="The loop that sums a row ends after the first block.",
        example={"shape": (1, 64), "block": 32},
    ),
    _mask(
        "first_block_alone_normalised",
        "fused_bias_layer_norm",
        "bias.py",
        "None, out_ptr, cols, mask)\n            start += BLOCK",
        "None, out_ptr, cols, mask)\n"
        "            mean, rstd = mean * 0.0, rstd * 0.0 + 1.0\n"
        "            start += BLOCK",
        "n_cols > block",
        change="Every block of a row but the first is stored without being normalised.",
        example={"shape": (1, 64), "block": 32},
    ),
    _mask(
        "no_remask_in_loop",
        "layer_norm",
        "blocks.py",
        "centred = tl.where(mask, value - mean, 0.0)\n        squares",
        "centred = value - mean\n        squares",
        "n_cols > block and not a multiple of it, and the mean is not 0",
        change="Masked lanes of the last block add the square of the mean to the variance.",
        example={"shape": (1, 40), "block": 32},
    ),
    _mask(
        "mean_over_padded_width",
        "triton_layer_norm",
        "whole_row.py",
        "mean = mean_of(tl.sum(x), n_cols)",
        "mean = mean_of(tl.sum(x), BLOCK)",
        "n_cols is less than the block and the mean is not 0",
        change="The sum of a row is divided by the block instead of the row's width.",
        example={"shape": (1, 3)},
    ),
    _mask(
        "one_block_by_a_constant",
        "layer_norm_residual",
        "residual.py",
        "ONE_BLOCK=n_cols <= launch.block,",
        "ONE_BLOCK=n_cols <= 4096,",
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
)
