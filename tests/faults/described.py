"""The faults of planted.py and memory_faults.py as entries of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.faults.entry import Entry, Kind
from tests.faults.memory_faults import MEMORY_FAULTS
from tests.faults.planted import FAULTS, Fault

_Words = tuple[str, Mapping[str, Any]]
"""What was changed, and the simplest input that shows it."""

_PLANTED: dict[str, tuple[Kind, *_Words]] = {
    "no_remask": (
        "masks",
        "Padded lanes add the square of the mean to the variance.",
        {"shape": (1, 3)},
    ),
    "one_pass_variance": (
        "numerics",
        "The variance is the mean of the squares less the square of the mean.",
        {"shape": (1, 4), "x": {"mean": 1000.0}},
    ),
    "n_minus_1": (
        "numerics",
        "The squares are divided by n_cols - 1.",
        {"shape": (1, 4)},
    ),
    "eps_outside_root": (
        "numerics",
        "eps is added to the standard deviation instead of the variance.",
        {"shape": (1, 4), "eps": 0.1},
    ),
    "half_accumulation": (
        "numerics",
        "A row is summed in float16.",
        {"shape": (1, 64)},
    ),
    "swapped_group_offset": (
        "strides",
        "rstd is stored row by row instead of group by group.",
        {"shape": (2, 4), "flags": {"group_size": 2}},
    ),
    "ignored_row_stride": (
        "strides",
        "Rows of x are taken to touch.",
        {"shape": (2, 4), "x": {"strides": (5, 1)}},
    ),
    "gate_without_other": (
        "memory",
        "Masked lanes of a gate before the norm are undefined.",
        {"shape": (1, 3), "z": {}, "flags": {"norm_before_gate": False}},
    ),
    "unwritten_tail": (
        "masks",
        "The loop that stores the norm leaves out a last block that is not full.",
        {"shape": (1, 40), "block": 32},
    ),
    "write_past_the_end": (
        "masks",
        "The mask of the store ends one column late.",
        {"shape": (1, 3)},
    ),
}

_MEMORY: dict[str, _Words] = {
    "over_read": (
        "The load of x has no mask.",
        {"shape": (1, 3)},
    ),
    "over_read_thrown_away": (
        "The load of the bias has no mask.",
        {"shape": (1, 3), "bias": {}},
    ),
    "under_read": (
        "The residual is read from one column before the row on.",
        {"shape": (1, 4)},
    ),
    "gap_read": (
        "Rows of x are found by the strides of out.",
        {"shape": (2, 4), "x": {"strides": (5, 1)}},
    ),
    "weight_past_its_end": (
        "The weight's offset is that of a group of all rows.",
        {"shape": (2, 4), "weight": {}},
    ),
    "int32_wrap": (
        "The row is counted in 32 bits, and with it its offset.",
        {"shape": (3, 4), "dtype": "float16"},
    ),
    "one_row_too_many": (
        "A program more is launched than the rows need.",
        {"shape": (2, 32)},
    ),
    "over_write_by_one": (
        "The mask of the sum's store ends one column late.",
        {"shape": (1, 3), "flags": {"return_sum": True}},
    ),
    "tail_overwrite": (
        "The store of the norm has no mask.",
        {"shape": (1, 3)},
    ),
    "overwrite_of_the_next_row": (
        "Every row but the last is stored with one column too many.",
        {"shape": (4, 3)},
    ),
    "write_to_an_input": (
        "The sum is stored to the residual.",
        {"shape": (1, 4), "flags": {"return_sum": True}},
    ),
    "wrong_pointer": (
        "rstd is stored where the mean belongs.",
        {"shape": (1, 4)},
    ),
    "atomic_out_of_bounds": (
        "Each row's sum is added to that of the next one.",
        {"shape": (1, 4)},
    ),
    "x_without_other": (
        "Masked lanes of x are undefined.",
        {"shape": (1, 3)},
    ),
    "input_bias_without_other": (
        "Masked lanes of the bias that is added to x are undefined.",
        {"shape": (1, 3)},
    ),
    "weight_without_other": (
        "The weight is masked in lanes that are stored.",
        {"shape": (1, 3)},
    ),
    "bias_without_other": (
        "The bias is masked in lanes that are stored.",
        {"shape": (1, 3)},
    ),
    "unwritten_scratch": (
        "The sums of the last part of each row are not computed.",
        {"shape": (1, 4)},
    ),
    "atomic_on_unwritten_memory": (
        "The sums do not begin at 0.",
        {"shape": (1, 4)},
    ),
    "output_read_before_it_is_written": (
        "y is added to what out held.",
        {"shape": (1, 4)},
    ),
    "unwritten_tail": (
        "The loop that stores the norm leaves out a last block that is not full.",
        {"shape": (1, 40), "block": 32},
    ),
    "unwritten_last_row": (
        "A program less is launched than there are rows.",
        {"shape": (2, 4)},
    ),
    "groups_share_a_statistic": (
        "rstd is stored at group + row.",
        {"shape": (2, 4), "flags": {"group_size": 2}},
    ),
    "two_programs_write_one_row": (
        "Each program of a row stores the mean of its own part as the row's.",
        {"shape": (1, 4)},
    ),
    "racy_accumulation": (
        "Sums are added by a load and a store instead of an atomic.",
        {"shape": (1, 4)},
    ),
    "read_of_another_programs_result": (
        "One program of a row stores rstd, and all read it.",
        {"shape": (1, 8)},
    ),
}

# One fault of each list by the same name, of different targets.
_RENAMED = {"unwritten_tail": "unwritten_tail_of_residual"}


def _entry(fault: Fault, name: str, kind: Kind, change: str, example: Mapping[str, Any]) -> Entry:
    return Entry(
        name,
        fault.target,
        fault.file,
        fault.old,
        fault.new,
        fault.shows_when,
        kind=kind,
        change=change,
        example=example,
    )


def _place(fault: Fault) -> tuple[str, ...]:
    return fault.target, fault.file, fault.old, fault.new


_SAME = {_place(fault) for fault in FAULTS}
"""A fault that stands in both lists is one entry."""

DESCRIBED_FAULTS = (
    *(_entry(fault, fault.id, *_PLANTED[fault.id]) for fault in FAULTS),
    *(
        _entry(fault, _RENAMED.get(fault.id, fault.id), "memory", *_MEMORY[fault.id])
        for fault in MEMORY_FAULTS
        if _place(fault) not in _SAME
    ),
)
