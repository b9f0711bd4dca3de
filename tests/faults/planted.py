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


FAULTS = (
    Fault(
        "no_remask",
        "triton_layer_norm",
        "whole_row.py",
        "centred = tl.where(mask, x - mean, 0.0)",
        "centred = x - mean",
        "n_cols is not a power of 2 and the mean is not 0",
    ),
    Fault(
        "one_pass_variance",
        "fused_bias_layer_norm",
        "blocks.py",
        "return mean, inverse_std(tl.sum(product(centred, centred)) / n_cols, eps)",
        "return mean, inverse_std(tl.sum(value * value) / n_cols - mean * mean, eps)",
        "|mean| >> std",
    ),
    Fault(
        "n_minus_1",
        "layer_norm",
        "blocks.py",
        "return mean, inverse_std(tl.sum(squares) / n_cols, eps)",
        "return mean, inverse_std(tl.sum(squares) / (n_cols - 1), eps)",
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
        "mean = mean_of(tl.sum(x), n_cols)",
        "mean = mean_of(tl.sum(x.to(tl.float16)).to(tl.float32), n_cols)",
        "more than a few columns",
    ),
    Fault(
        "swapped_group_offset",
        "layernorm_fn",
        "grouped.py",
        "tl.store(rstd_ptr + group * n_rows + row, rstd)",
        "tl.store(rstd_ptr + row * n_groups + group, rstd)",
        "several groups and several rows",
    ),
    Fault(
        "ignored_row_stride",
        "layer_norm",
        "layer_norm.py",
        "x_ptr += row_offset(row, size_1, size_2, size_3, x_strides)",
        "x_ptr += row * n_cols",
        "x has gaps between its rows",
    ),
    Fault(
        "gate_without_other",
        "layernorm_fn",
        "blocks.py",
        "z = tl.load(z_ptr + cols, mask=mask, other=0.0).to(tl.float32)\n        value",
        "z = tl.load(z_ptr + cols, mask=mask).to(tl.float32)\n        value",
        "gate before the norm and a partial block",
    ),
    Fault(
        "unwritten_tail",
        "layer_norm",
        "layer_norm.py",
        "        start = 0\n        while start < n_cols:",
        "        start = 0\n        while start + BLOCK <= n_cols:",
        "n_cols > block and not a multiple of it",
    ),
    Fault(
        "write_past_the_end",
        "triton_layer_norm",
        "whole_row.py",
        "tl.store(out_ptr + cols, y.to(out_ptr.dtype.element_ty), mask=mask)",
        "tl.store(out_ptr + cols, y.to(out_ptr.dtype.element_ty), mask=cols <= n_cols)",
        "n_cols is not a power of 2",
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
