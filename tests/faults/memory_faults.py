"""Faults in how kernels use memory, planted by hand, each with the check that must name it.

``on_gpu`` names the checks by any of which a GPU can show the fault. Where it is empty a GPU
cannot, and ``shows_when`` says why: single accesses cannot be watched there, so that what is read
and thrown away, or happens to be 0, leaves no trace.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.faults.planted import STORING_LOOP, Fault

# Wrong values are charged to one of these, by what they are.
VALUES = ("nonfinite_match", "values_within_bound")


@dataclass(frozen=True)
class MemoryFault(Fault):
    """A fault that the strict interpreter must report by the check of that name."""

    check: str
    on_gpu: tuple[str, ...]


MEMORY_FAULTS = (
    # --- reads outside what a tensor holds -------------------------------------------------------
    MemoryFault(
        "over_read",
        "triton_layer_norm",
        "whole_row.py",
        "x = tl.load(x_ptr + last, mask=mask, other=0.0)",
        "x = tl.load(x_ptr + last)",
        "the last tile is not full: what lies behind the row enters the mean",
        check="no_out_of_bounds",
        on_gpu=VALUES,
    ),
    MemoryFault(
        "over_read_thrown_away",
        "fused_bias_layer_norm",
        "blocks.py",
        "y += tl.load(\n            bias_ptr + cols, mask=inside, other=inside_other,",
        "y += tl.load(\n            bias_ptr + cols,",
        "the last tile is not full; nothing of what lies behind the row is stored",
        check="no_out_of_bounds",
        on_gpu=(),
    ),
    MemoryFault(
        "under_read",
        "layer_norm_residual",
        "blocks.py",
        "residual = tl.load(residual_ptr + cols,",
        "residual = tl.load(residual_ptr - 1 + cols,",
        "always: the first column comes from before the row",
        check="no_out_of_bounds",
        on_gpu=VALUES,
    ),
    MemoryFault(
        "gap_read",
        "fused_bias_layer_norm",
        "bias.py",
        "x_ptr += row_offset(row, size_1, size_2, size_3, x_strides, VECTOR)",
        "x_ptr += row_offset(row, size_1, size_2, size_3, out_strides, VECTOR)",
        "the rows of x have gaps that those of out have not",
        check="no_out_of_bounds",
        on_gpu=VALUES,
    ),
    MemoryFault(
        "weight_past_its_end",
        "layernorm_fn",
        "grouped.py",
        "weight_ptr += first_col",
        "weight_ptr += pair * n_cols",
        "more than one row: the offset is that of a group of all rows",
        check="no_out_of_bounds",
        on_gpu=("no_undefined_lanes", "repeatable", *VALUES),
    ),
    MemoryFault(
        "int32_wrap",
        "far_rows.py",
        "far_rows.py",
        "row = tl.program_id(0).to(tl.int64)",
        "row = tl.program_id(0)",
        "row * stride reaches 2**31, with three rows or more",
        check="no_out_of_bounds",
        on_gpu=("survived", *VALUES),
    ),
    MemoryFault(
        "one_row_too_many",
        "layer_norm",
        "layer_norm.py",
        "grid = tiling.programs(batch.n_rows)",
        "grid = tiling.programs(batch.n_rows) + 1",
        "a program takes one row and masks none: the last one has no row of its own",
        check="no_out_of_bounds",
        on_gpu=("redzones_intact", *VALUES),
    ),
    # --- writes where nothing is to be written ---------------------------------------------------
    MemoryFault(
        "over_write_by_one",
        "layer_norm_residual",
        "blocks.py",
        '        tl.store(sum_ptr + cols, total, mask=mask, eviction_policy="evict_first")\n',
        "        late = mask\n"
        "        if inside is not None:\n"
        "            late = cols <= tl.max(tl.where(mask, cols, -2), axis=1)[:, None] + 1\n"
        '        tl.store(sum_ptr + cols, total, mask=late, eviction_policy="evict_first")\n',
        "the last tile is not full and the sum is asked for",
        check="no_out_of_bounds",
        on_gpu=("redzones_intact", *VALUES),
    ),
    MemoryFault(
        "tail_overwrite",
        "fused_bias_layer_norm",
        "blocks.py",
        "tl.store(out_ptr + cols, y, mask=mask,",
        "tl.store(out_ptr + cols, y,",
        "the last tile is not full: its tail lands in the next row, and behind the last one",
        check="no_out_of_bounds",
        on_gpu=("redzones_intact", *VALUES),
    ),
    MemoryFault(
        "overwrite_of_the_next_row",
        "triton_layer_norm",
        "whole_row.py",
        "            tl.store(out_ptr + last, y, mask=mask)",
        "            end = tl.where(row + 1 < n_rows, n_cols + 1, n_cols)\n"
        "            tl.store(out_ptr + last, y, mask=(last < end) & (row < n_rows))",
        "the last tile is not full and the rows of out touch: what is overwritten is wrong if its "
        "own program was first",
        check="no_conflicting_writes",
        on_gpu=("redzones_intact", "repeatable", *VALUES),
    ),
    MemoryFault(
        "write_to_an_input",
        "layer_norm_residual",
        "residual.py",
        "sum_ptr += row_offset(row, size_1, size_2, size_3, sum_strides, VECTOR)",
        "sum_ptr = residual_ptr",
        "the sum is asked for: the residual gets it",
        check="no_out_of_bounds",
        on_gpu=("inputs_unchanged", "outputs_fully_written"),
    ),
    MemoryFault(
        "wrong_pointer",
        "native_layer_norm",
        "layer_norm.py",
        "tl.store(rstd_ptr + row, rstd, mask=present)",
        "tl.store(mean_ptr + row, rstd, mask=present)",
        "always: rstd overwrites the mean and nobody writes rstd",
        check="outputs_fully_written",
        on_gpu=("outputs_fully_written",),
    ),
    MemoryFault(
        "atomic_out_of_bounds",
        "atomic_rows.py",
        "atomic_rows.py",
        "tl.atomic_add(sums_ptr + row, tl.sum(x))",
        "tl.atomic_add(sums_ptr + row + 1, tl.sum(x))",
        "always: each row's sum goes to the next one, the last one's behind the end",
        check="no_out_of_bounds",
        on_gpu=VALUES,
    ),
    # --- lanes that a masked load leaves undefined -----------------------------------------------
    MemoryFault(
        "x_without_other",
        "layer_norm",
        "blocks.py",
        "value = tl.load(x_ptr + cols, mask=mask, other=other, eviction_policy=POLICY)",
        "value = tl.load(x_ptr + cols, mask=mask, eviction_policy=POLICY)",
        "the last tile is not full; a GPU has 0 in these lanes as a rule",
        check="no_undefined_lanes",
        on_gpu=(),
    ),
    MemoryFault(
        "gate_without_other",
        "layernorm_fn",
        "blocks.py",
        "z = tl.load(z_ptr + cols, mask=mask, other=other, eviction_policy=POLICY)",
        "z = tl.load(z_ptr + cols, mask=mask, eviction_policy=POLICY)",
        "as for x, with the gate before the norm",
        check="no_undefined_lanes",
        on_gpu=(),
    ),
    MemoryFault(
        "input_bias_without_other",
        "fused_bias_layer_norm",
        "blocks.py",
        'input_bias_ptr + cols, mask=inside, other=inside_other, eviction_policy="evict_last"',
        'input_bias_ptr + cols, mask=inside, eviction_policy="evict_last"',
        "as for x",
        check="no_undefined_lanes",
        on_gpu=(),
    ),
    MemoryFault(
        "weight_without_other",
        "shifted_tail.py",
        "shifted_tail.py",
        "weight = tl.load(weight_ptr + cols).to(tl.float32)",
        "weight = tl.load(weight_ptr + cols, mask=cols >= start).to(tl.float32)",
        "the last block was moved back: columns that were stored are stored again without weight",
        check="no_undefined_lanes",
        on_gpu=VALUES,
    ),
    MemoryFault(
        "bias_without_other",
        "shifted_tail.py",
        "shifted_tail.py",
        "bias = tl.load(bias_ptr + cols).to(tl.float32)",
        "bias = tl.load(bias_ptr + cols, mask=cols >= start).to(tl.float32)",
        "likewise, without bias",
        check="no_undefined_lanes",
        on_gpu=VALUES,
    ),
    # --- elements that nobody has written --------------------------------------------------------
    MemoryFault(
        "unwritten_scratch",
        "split_rows.py",
        "split_rows.py",
        "_sums_kernel[(n_rows, SPLITS)](x, sums, n_cols, part, **sizes)",
        "_sums_kernel[(n_rows, SPLITS - 1)](x, sums, n_cols, part, **sizes)",
        "always: the last part's sum is read and was never stored",
        check="no_uninitialised_reads",
        on_gpu=("no_undefined_lanes", *VALUES),
    ),
    MemoryFault(
        "atomic_on_unwritten_memory",
        "atomic_rows.py",
        "atomic_rows.py",
        "sums = torch.zeros(n_rows, dtype=torch.float32, device=x.device)",
        "sums = torch.empty(n_rows, dtype=torch.float32, device=x.device)",
        "always: the sums begin at whatever memory held",
        check="no_uninitialised_reads",
        on_gpu=("no_undefined_lanes", *VALUES),
    ),
    MemoryFault(
        "output_read_before_it_is_written",
        "native_layer_norm",
        "blocks.py",
        "    y = y.to(out_ptr.dtype.element_ty)\n",
        "    y += tl.load(out_ptr + cols, mask=mask, other=other).to(tl.float32)\n"
        "    y = y.to(out_ptr.dtype.element_ty)\n",
        "always: y is added to what out held",
        check="no_uninitialised_reads",
        on_gpu=("no_undefined_lanes", *VALUES),
    ),
    MemoryFault(
        "unwritten_tail",
        "layer_norm_residual",
        "blocks.py",
        f"{STORING_LOOP}        while start < n_cols:",
        f"{STORING_LOOP}        while start + PART <= n_cols:",
        "n_cols > block and not a multiple of a tile",
        check="outputs_fully_written",
        on_gpu=("outputs_fully_written",),
    ),
    MemoryFault(
        "unwritten_last_row",
        "triton_layer_norm",
        "whole_row.py",
        "grid = tiling.programs(batch.n_rows)",
        "grid = tiling.programs(batch.n_rows) - 1",
        "always; where one program takes all rows, nothing is launched at all",
        check="outputs_fully_written",
        on_gpu=("outputs_fully_written",),
    ),
    # --- programs that get in each other's way ---------------------------------------------------
    MemoryFault(
        "groups_share_a_statistic",
        "layernorm_fn",
        "grouped.py",
        "tl.store(rstd_ptr + group * n_rows + row, rstd, mask=present)",
        "tl.store(rstd_ptr + group + row, rstd, mask=present)",
        "several groups and several rows: two of them write one entry, others stay unwritten",
        check="no_conflicting_writes",
        on_gpu=("outputs_fully_written", *VALUES),
    ),
    MemoryFault(
        "two_programs_write_one_row",
        "split_rows.py",
        "split_rows.py",
        "mean = tl.sum(tl.load(sums_ptr + parts)) / n_cols\n    rstd",
        "mean = tl.load(sums_ptr + row * SPLITS + split) / part\n    rstd",
        "always: each program of a row stores the mean of its own part as the row's",
        check="no_conflicting_writes",
        on_gpu=VALUES,
    ),
    MemoryFault(
        "racy_accumulation",
        "atomic_rows.py",
        "atomic_rows.py",
        "tl.atomic_add(sums_ptr + row, tl.sum(x))",
        "tl.store(sums_ptr + row, tl.load(sums_ptr + row) + tl.sum(x))",
        "always; programs one after the other, and with luck a GPU's, still add up right",
        check="no_conflicting_writes",
        on_gpu=("repeatable", *VALUES),
    ),
    MemoryFault(
        "read_of_another_programs_result",
        "split_rows.py",
        "split_rows.py",
        "    tl.store(mean_ptr + row, mean)\n    tl.store(rstd_ptr + row, rstd)\n",
        "    tl.store(mean_ptr + row, mean)\n"
        "    if split == 0:\n"
        "        tl.store(rstd_ptr + row, rstd)\n"
        "    rstd = tl.load(rstd_ptr + row)\n",
        "always; right where the first program of each row runs first",
        check="no_conflicting_writes",
        on_gpu=("repeatable", "no_undefined_lanes", *VALUES),
    ),
)
