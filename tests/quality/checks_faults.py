"""For each check a fault that it alone finds: one changed spot in a correct kernel, and an input.

All but one are run in the strict interpreter. They are chosen so that nothing else is wrong at
all, rather than that nothing else is said of them because a fault is charged only once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fuzz.case import Case
from fuzz.execute import Executor
from fuzz.inputs import make_values, run_values
from fuzz.relations import Run, expand
from fuzz.spec import TargetSpec
from fuzz.verdict import Bits, Observation, Report
from tests.faults.catalogue import CATALOGUE
from tests.faults.example import case_of
from tests.faults.planted import TARGET_FILES, sources_of

KERNEL = Path(__file__).with_name("checks_kernel.py")


@dataclass(frozen=True)
class AloneFault:
    """A fault that ``check`` alone finds. ``why`` says what the other checks see of it.

    ``old`` occurs exactly once in ``file`` and becomes ``new``; ``example`` is the input, as
    :mod:`tests.faults.example` reads it. A fault that no run on a CPU shows has no spot but a
    ``report``, which is put into the observations of the correct kernel.
    """

    check: str
    why: str
    file: Path
    example: Mapping[str, Any]
    old: str = ""
    new: str = ""
    report: Report | None = None


@dataclass(frozen=True)
class Seen:
    """What a kernel did with the input of a fault: all that a judgement needs."""

    spec: TargetSpec
    case: Case
    runs: tuple[Run, ...]
    values: dict[str, Bits]
    observations: tuple[Observation, ...]


def run_planted(fault: AloneFault, folder: Path) -> Seen:
    """Run the kernel with the fault in it; it is written to ``folder``."""
    text = fault.file.read_text(encoding="utf-8")
    if fault.report is not None:
        seen = _run(fault, text, folder)
        reported = [replace(one, reports=(fault.report,)) for one in seen.observations]
        return replace(seen, observations=tuple(reported))
    places = text.count(fault.old)
    assert places == 1, f"{fault.check}: {places} places in {fault.file.name}"
    return _run(fault, text.replace(fault.old, fault.new), folder)


def run_correct(fault: AloneFault, folder: Path) -> Seen:
    """Run the kernel without the fault on the same input."""
    return _run(fault, fault.file.read_text(encoding="utf-8"), folder)


def _run(fault: AloneFault, kernel: str, folder: Path) -> Seen:
    folder.mkdir()
    target = fault.file.name
    (folder / target).write_text(kernel, encoding="utf-8")
    # The order of programs is drawn from the case, which names its target: by a relative path, so
    # that it is the same wherever the folder lies.
    with _working_in(folder):
        executor = Executor("cpu")
        spec = executor.spec(target)
        case = case_of(spec, fault.example)
        runs, values = expand(case), make_values(case)
        observations = tuple(
            executor.run(target, run, run_values(run, case, values)) for run in runs
        )
    return Seen(spec, case, runs, values, observations)


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _of_catalogue(
    check: str, id_: str, why: str, example: Mapping[str, Any] | None = None
) -> AloneFault:
    """A fault of the catalogue, on its own example or another one."""
    (entry,) = (entry for entry in CATALOGUE if entry.id == id_)
    file = sources_of(entry) / entry.file
    return AloneFault(check, why, file, example or entry.example, entry.old, entry.new)


ALONE = (
    AloneFault(
        "survived",
        "what ends in an error returns nothing that could be wrong",
        KERNEL,
        {"shape": (2, 4), "x": {"strides": (5, 1)}},
        "    n_rows, n_cols = x.shape\n",
        "    n_rows, n_cols = x.shape\n"
        "    if x.stride(0) != n_cols:\n"
        '        raise ValueError("x must be contiguous")\n',
    ),
    AloneFault(
        "no_out_of_bounds",
        "nothing is stored of what is read behind the weight",
        KERNEL,
        {"shape": (2, 3)},
        "weight = tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)",
        "weight = tl.load(weight_ptr + cols).to(tl.float32)",
    ),
    AloneFault(
        "no_uninitialised_reads",
        "nothing is stored of what is read before it was written",
        KERNEL,
        {"shape": (2, 3), "relations": ("repeat", "poisoned")},
        "    y = centred * rstd * weight\n",
        "    old = tl.load(out_ptr + row * out_stride + cols, mask=mask, other=0.0)\n"
        "    y = tl.where(cols < n_cols, centred * rstd * weight, old.to(tl.float32))\n",
    ),
    _of_catalogue(
        "no_conflicting_writes",
        "racy_accumulation",
        "programs that run one after the other add up right, in either order",
        {"shape": (4, 32), "relations": ("repeat", "poisoned", "permuted")},
    ),
    AloneFault(
        "no_sanitizer_report",
        "the values are right, and accesses are not watched on a GPU but by a sanitizer",
        KERNEL,
        {"shape": (2, 3)},
        report=Report("memcheck", "Invalid __global__ read", "_rows_kernel", "norm.py:8"),
    ),
    AloneFault(
        "rejects_bad_input",
        "a kernel that takes what it must refuse may do whatever it likes with it",
        KERNEL,
        {"shape": (2, 3), "refusal": "weight_shape"},
        "if weight.shape != (n_cols,):",
        "if weight.ndim != 1:",
    ),
    AloneFault(
        "shape_and_dtype",
        "the mean has its values and no other shape to be judged in",
        KERNEL,
        {"shape": (2, 3)},
        "    return out, mean\n",
        "    return out, mean[:, None]\n",
    ),
    _of_catalogue(
        "outputs_fully_written",
        "one_row_unwritten",
        "the row owes NaN, which is what its memory held",
        {"shape": (1, 4), "x": {"plants": {0: "nan"}}},
    ),
    AloneFault(
        "redzones_intact",
        "what lies between the rows is no part of the result",
        KERNEL,
        {"shape": (3, 4), "out": {"strides": (6, 1)}},
        "    mean = torch.empty(n_rows, dtype=torch.float32, device=x.device)\n",
        "    out.as_strided((out.stride(0) * (n_rows - 1) + n_cols,), (1,)).zero_()\n"
        "    mean = torch.empty(n_rows, dtype=torch.float32, device=x.device)\n",
    ),
    AloneFault(
        "inputs_unchanged",
        "the result is there before the weight is overwritten",
        KERNEL,
        {"shape": (2, 3), "relations": ("repeat", "poisoned")},
        "    return out, mean\n",
        "    weight.mul_(2.0)\n    return out, mean\n",
    ),
    _of_catalogue(
        "nonfinite_match",
        "nan_reaches_other_groups",
        "NaN has no distance from what is owed, and is there in each run",
    ),
    _of_catalogue(
        "values_within_bound",
        "mean_before_residual",
        "the mean is wrong, and alike in each run; y is right",
    ),
    AloneFault(
        "statistics_consistent",
        "each element is as near as the mean may be, which is far from 0; not all by one scale",
        KERNEL,
        {"shape": (2, 256), "eps": 2e-4, "x": {"mean": 1000.0}},
        "rstd = 1.0 / tl.sqrt(variance + eps)",
        "rstd = 1.0 / tl.sqrt(variance)",
    ),
    AloneFault(
        "repeatable",
        "sums of eight parts are right in any order, with other last bits",
        TARGET_FILES / "atomic_rows.py",
        {"shape": (16, 256), "relations": ("repeat",)},
        "SPLITS = 2\n",
        "SPLITS = 8\n",
    ),
    AloneFault(
        "no_undefined_lanes",
        "the lanes are told from columns by the NaN that they hold in the base run",
        KERNEL,
        {"shape": (2, 3), "relations": ("repeat", "poisoned")},
        "x = tl.load(x_ptr + row * x_stride + cols, mask=mask, other=0.0).to(tl.float32)",
        "x = tl.load(x_ptr + row * x_stride + cols, mask=mask).to(tl.float32)\n"
        "    x = tl.where(x == x, x, 0.0)",
    ),
    AloneFault(
        "row_independent",
        "differences from the first element of all rows add up right, with other last bits",
        KERNEL,
        {"shape": (8, 100), "relations": ("repeat", "poisoned", "permuted")},
        "mean = tl.sum(x) / n_cols",
        "first = tl.load(x_ptr).to(tl.float32)\n"
        "    mean = first + tl.sum(tl.where(mask, x - first, 0.0)) / n_cols",
    ),
    AloneFault(
        "layout_independent",
        "the reciprocal of the width is as good as the width, with other last bits",
        KERNEL,
        {
            "shape": (8, 100),
            "x": {"strides": (112, 1)},
            "relations": ("repeat", "poisoned", "contiguous", "permuted"),
        },
        "mean = tl.sum(x) / n_cols",
        "mean = tl.where(x_stride == n_cols, tl.sum(x) * (1.0 / n_cols), tl.sum(x) / n_cols)",
    ),
)
"""In the order of CHECKS. That of ``no_sanitizer_report`` is built, all others are run."""
