"""Kernel faults planted by hand: each is one changed spot in a copy of correct kernels.

Most sit in the project's own kernels, the others in small target files of ``kernels/``.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGET_FILES = Path(__file__).parent / "kernels"
PLAIN_FILES = Path(__file__).parent / "kernels_plain"


@dataclass(frozen=True)
class Fault:
    """One changed spot: ``old`` occurs exactly once in ``file`` and becomes ``new``."""

    id: str
    target: str
    file: str
    old: str
    new: str
    shows_when: str


# How the loops over the tiles that are read again begin, in blocks.py: the one that adds squares
# and the one that stores.
SQUARING_LOOP = (
    "        squares += product(centred, centred)\n    if MORE:\n        start = PARTS * PART\n"
)
STORING_LOOP = "            )\n    if MORE:\n        start = PARTS * PART\n"

# What rounds and stores the tile in which a row ends, in whole_row.py.
STORING_LAST_TILE = (
    "            y = y.to(out_ptr.dtype.element_ty)\n"
    "            tl.store(out_ptr + last, y, mask=mask)\n"
)

FAULTS = (
    Fault(
        "no_remask",
        "triton_layer_norm",
        "whole_row.py",
        "if k == PARTS - 1:",
        "if k == PARTS:",
        "n_cols is not a multiple of a tile and the mean is not 0",
    ),
    Fault(
        "one_pass_variance",
        "fused_bias_layer_norm",
        "blocks.py",
        "    rstd = inverse_std(tl.sum(squares, axis=1) / n_cols, eps)[:, None]\n",
        "    if MORE:\n"
        "        variance = tl.sum(squares, axis=1)[:, None] / n_cols\n"
        "    else:\n"
        "        squares = tl.zeros([ROWS, PART], dtype=tl.float32)\n"
        "        for k in tl.static_range(PARTS):\n"
        "            squares += held[k].to(tl.float32) * held[k].to(tl.float32)\n"
        "        variance = tl.sum(squares, axis=1)[:, None] / n_cols - mean * mean\n"
        "    rstd = inverse_std(variance, eps)\n",
        "|mean| >> std, n_cols <= block",
    ),
    Fault(
        "n_minus_1",
        "layer_norm",
        "blocks.py",
        "rstd = inverse_std(tl.sum(squares, axis=1) / n_cols, eps)[:, None]",
        "rstd = inverse_std(tl.sum(squares, axis=1) / (n_cols - 1), eps)[:, None]",
        "always; small where n_cols is large",
    ),
    Fault(
        "eps_outside_root",
        "native_layer_norm",
        "blocks.py",
        "return tl.rsqrt(floored)",
        "return 1.0 / (tl.sqrt(variance) + eps)",
        "eps is not small beside the variance",
    ),
    Fault(
        "half_accumulation",
        "triton_layer_norm",
        "whole_row.py",
        "mean = mean_of(tl.sum(total, axis=1), n_cols)[:, None]",
        "mean = mean_of(tl.sum(total.to(tl.float16), axis=1).to(tl.float32), n_cols)[:, None]",
        "more than a few columns",
    ),
    Fault(
        "swapped_group_offset",
        "layernorm_fn",
        "grouped.py",
        "tl.store(rstd_ptr + group * n_rows + row, rstd, mask=present)",
        "tl.store(rstd_ptr + row * n_groups + group, rstd, mask=present)",
        "several groups and several rows",
    ),
    Fault(
        "ignored_row_stride",
        "layer_norm",
        "layer_norm.py",
        "x_ptr += row_offset(row, size_1, size_2, size_3, x_strides, VECTOR)",
        "x_ptr += row * n_vectors * VECTOR",
        "x has gaps between its rows",
    ),
    Fault(
        "gate_without_other",
        "layernorm_fn",
        "blocks.py",
        "z = tl.load(z_ptr + cols, mask=mask, other=other, eviction_policy=POLICY)",
        "z = tl.load(z_ptr + cols, mask=mask, eviction_policy=POLICY)",
        "gate before the norm and a partial block",
    ),
    Fault(
        "unwritten_tail",
        "layer_norm",
        "blocks.py",
        f"{STORING_LOOP}        while start < n_cols:",
        f"{STORING_LOOP}        while start + PART <= n_cols:",
        "n_cols > block and not a multiple of a tile",
    ),
    Fault(
        "write_past_the_end",
        "triton_layer_norm",
        "whole_row.py",
        "tl.store(out_ptr + last, y, mask=mask)",
        "tl.store(out_ptr + last, y, mask=(last < n_cols + 1) & (row < n_rows))",
        "n_cols is not a multiple of a tile",
    ),
)


def sources_of(fault: Fault) -> Path:
    """The folder with the correct kernels: of target files, or the project's own."""
    if not fault.target.endswith(".py"):
        return ROOT / "ln_kernels"
    return PLAIN_FILES if (PLAIN_FILES / fault.file).is_file() else TARGET_FILES


def plant(fault: Fault, folder: Path) -> Path:
    """``folder``, with a copy of the kernels in it that has the fault.

    It goes on PYTHONPATH, or is the folder to run in where the target is a file.
    """
    sources = sources_of(fault)
    copy = folder if fault.target.endswith(".py") else folder / sources.name
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(sources, copy, ignore=ignore, dirs_exist_ok=True)
    file = copy / fault.file
    text = file.read_text(encoding="utf-8")
    assert text.count(fault.old) == 1, f"{fault.id}: {text.count(fault.old)} places in {fault.file}"
    file.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    return folder
