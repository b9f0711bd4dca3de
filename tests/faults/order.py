"""Faults of memory and order beyond those of memory_faults.py: what a row's result depends on."""

from __future__ import annotations

from functools import partial

from tests.faults.entry import Entry
from tests.faults.planted import STORING_LOOP

_order = partial(Entry, kind="memory")

ORDER_FAULTS = (
    # --- outputs that the caller gives, or that nobody writes ------------------------------------
    _order(
        "tail_twice_in_place",
        "layer_norm",
        "blocks.py",
        f"{STORING_LOOP}        while start < n_cols:\n            cols = start + lane\n",
        f"{STORING_LOOP}        while start < n_cols:\n"
        "            cols = tl.minimum(start, n_cols - PART) + lane\n",
        "out is x, n_cols > block and not a multiple of a tile",
        change="The last block is moved back over columns that were stored and, in place, read.",
        example={"shape": (1, 40), "block": 32, "out": {"alias_of": "x"}},
    ),
    _order(
        "given_output_copied",
        "layernorm_fn",
        "rows.py",
        "            )\n    return out\n",
        "            )\n    return out.contiguous()\n",
        "out is given and has gaps between its rows",
        change="The result goes to a contiguous copy of the memory that was given for it.",
        example={"shape": (2, 4), "out": {"strides": (5, 1)}},
    ),
    _order(
        "one_column_unwritten",
        "triton_layer_norm",
        "whole_row.py",
        "    with on_device_of(x):\n",
        "    if n_cols == 1:\n        return out\n    with on_device_of(x):\n",
        "n_cols = 1",
        change="Nothing is launched for a single column.",
        example={"shape": (1, 1)},
    ),
    _order(
        "one_row_unwritten",
        "persistent_rows.py",
        "persistent_rows.py",
        "grid = (min(n_rows, PROGRAMS),)",
        "grid = (min(n_rows - 1, PROGRAMS),)",
        "a single row",
        change="As many programs are launched as there are rows but one.",
        example={"shape": (1, 4)},
    ),
    _order(
        "last_round_of_rows_skipped",
        "persistent_rows.py",
        "persistent_rows.py",
        "while row < n_rows:",
        "while row < n_rows // tl.num_programs(0) * tl.num_programs(0):",
        "more than 8 rows, and not a multiple of 8",
        change="Rows that are left over when all programs have taken the same number are skipped.",
        example={"shape": (9, 4)},
    ),
    _order(
        "empty_batch_launched",
        "two_launches.py",
        "two_launches.py",
        "grid = (n_rows,)",
        "grid = (max(n_rows, 1),)",
        "no rows at all",
        change="A program is launched for an x without rows.",
        example={"shape": (0, 4)},
    ),
    # --- results that depend on other rows, on their number, on what came before -----------------
    _order(
        "sum_kept_between_rows",
        "persistent_rows.py",
        "persistent_rows.py",
        "        total = tl.zeros([BLOCK], dtype=tl.float32)  # anew for each row\n",
        "",
        "more than 8 rows, of a mean that is not 0",
        change="The sum of a program's row goes on from that of its row before.",
        example={"shape": (9, 4)},
    ),
    _order(
        "statistics_in_a_ring",
        "two_launches.py",
        "two_launches.py",
        "    return row\n",
        "    return row % 16\n",
        "more than 16 rows",
        change="Statistics have room for 16 rows: the last of those that share a place is right.",
        example={"shape": (17, 4)},
    ),
    _order(
        "norm_launched_first",
        "two_launches.py",
        "two_launches.py",
        "    _statistics_kernel[grid](x, mean, rstd, n_cols, EPS, BLOCK=block)\n"
        "    _norm_kernel[grid](x, mean, rstd, weight, bias, y, n_cols, BLOCK=block)\n",
        "    _norm_kernel[grid](x, mean, rstd, weight, bias, y, n_cols, BLOCK=block)\n"
        "    _statistics_kernel[grid](x, mean, rstd, n_cols, EPS, BLOCK=block)\n",
        "always; with memory of an earlier call of the same rows, not",
        change="The norm is launched before the statistics that it reads.",
        example={"shape": (1, 4)},
    ),
    _order(
        "barrier_missing",
        "scratch_rows.py",
        "scratch_rows.py",
        "    tl.debug_barrier()\n",
        "",
        "several warps, one of which is late; the interpreter has no threads",
        change="Threads read what other threads of their program leave in memory without waiting.",
        example={"shape": (64, 8192), "num_warps": 16},
        seen="gpu",
    ),
)
