"""Histories as nights leave them: several nights, three targets, faults that are open and fixed.

python -m tests.fuzz.pages.example history.sqlite report.html
"""

from __future__ import annotations

import datetime
import math
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fuzz.case import Case, Recipe
from fuzz.cells import INVALID, NONE, Cell
from fuzz.history import History, RunInfo
from fuzz.jobs.maps import FailureMap
from fuzz.jobs.totals import BIN, LEAST_RATIO, CellSum, Row, Totals, bin_of
from fuzz.pages.page import write_report
from fuzz.process.journal import Mark
from fuzz.store import Failure
from fuzz.verdict import Finding, Signature
from tests.fuzz.builders import GATED, LAYER_NORM, WHOLE_ROW, make_case

DTYPES = ("float32", "float16", "bfloat16")
OUTPUTS = {
    "layer_norm": ("y",),
    "layernorm_fn": ("y", "mean", "rstd"),
    "triton_layer_norm": ("y",),
}
BLOCKS = (32, 128, 1024, 4096, 8192)
PARTS = {"draw": 0.04, "inputs": 0.02, "kernel": 0.61, "oracle": 0.21, "harness": 0.12}

TAILS = {
    "below one block": 0.3,
    "tail": 0.22,
    "whole lanes": 0.2,
    "block multiple": 0.12,
    "tail 1": 0.06,
    "odd lanes": 0.05,
    "one column": 0.05,
}
LAYOUTS = {
    "contiguous": 0.35,
    "strided rows": 0.25,
    "permuted": 0.12,
    "offset": 0.12,
    "expanded": 0.08,
    "aliased": 0.08,
}
FAMILIES = {
    "normal": 0.24,
    "far mean": 0.2,
    "pattern": 0.2,
    "large": 0.1,
    "constant": 0.1,
    "tiny": 0.08,
    "any+nan": 0.05,
    "any+inf": 0.03,
}
FLAGS = {
    "layer_norm": (NONE,),
    "layernorm_fn": (
        "is_rms_norm=False",
        "is_rms_norm=True",
        "groups is_rms_norm=False z",
        "groups is_rms_norm=True norm_before_gate=True z",
    ),
    "triton_layer_norm": (NONE,),
}
REFUSALS = ("x_float64", "x_int64", "n_cols_zero", "weight_shape", "eps_negative", "out_shape")

NOW = datetime.datetime(2026, 11, 21, 8, 55, tzinfo=datetime.UTC)
REVISIONS = ("91ad0f4c2b7e", "b3f1c2e05d84", "5c0de77f31aa", "e8127ab990cd")
VERSIONS = {
    "python": "3.12.8",
    "numpy": "2.5.2",
    "torch": "2.11.0+cu130",
    "triton": "3.6.0",
    "hypothesis": "6.168.3",
}
DEVICE = "NVIDIA H200"


@dataclass(frozen=True)
class Fault:
    """A fault of the story: in which nights it is found and passes; nights count from the last."""

    failure: Failure
    map: FailureMap | None
    found: tuple[int, ...]
    fixed: tuple[int, ...] = ()


def failure_of(
    case: Case,
    message: str,
    *,
    check: str = "values_within_bound",
    output: str = "y",
    region: str = "tail columns",
    ratio: float = 159.0,
    confirmed: int = 3,
) -> Failure:
    dtype_class = "single" if case.dtype == "float32" else "half"
    return Failure(
        signature=Signature(case.target, output, check, dtype_class, region),
        case=case,
        original=case,
        inputs_digest="0123456789abcdef",
        findings=(Finding(check, "base", output, message, region, ratio, (0, 5)),),
        device="cuda",
        device_name=DEVICE,
        versions=VERSIONS,
        first_seen=NOW.isoformat(),
        confirmed=confirmed,
        confirm_runs=3,
    )


def tail_map() -> FailureMap:
    """A mask that was forgotten behind the first block."""
    random = np.random.default_rng(3)
    rows, cols, block = 64, 5003, 4096
    grid = random.uniform(0.55, 1.0, (32, 96))
    first = block * 96 // cols
    wrong = 10 ** random.uniform(1.2, 3.2, (32, 96 - first))
    grid[:, first:] = np.where(random.random(wrong.shape) < 0.95, wrong, 0.9)
    return FailureMap(rows, cols, rounded(grid), block, "y of case 3f9ac2d10b77")


def group_map() -> FailureMap:
    """Two groups of eight hold infinities."""
    random = np.random.default_rng(4)
    grid = random.uniform(0.0, 0.45, (17, 8))
    grid[:, 3] = np.inf
    grid[4:, 6] = np.inf
    return FailureMap(17, 8, rounded(grid), None, "rstd of case 77ab09e1c3d5, a row among NaN rows")


def rounded(grid: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(f"{value:.4g}") for value in line) for line in grid)


def story() -> tuple[Fault, ...]:
    triton = replace(WHOLE_ROW, name="triton_layer_norm")
    tail = make_case(
        triton,
        (1, 129),
        dtype="bfloat16",
        absent=("out", "weight", "bias"),
        values={"x": Recipe("integers")},
        block=128,
    )
    groups = make_case(
        GATED, (2, 6), absent=("out", "bias"), flags={"group_size": 3, "is_rms_norm": True}
    )
    rows = make_case(LAYER_NORM, (3, 7), dtype="float16", absent=("bias",), strides={"x": (23, 1)})
    return (
        Fault(
            failure_of(
                tail,
                "y[0, 128]=0.8237 (bfloat16), but should be 0.86266 +- 0.0017 (error/bound 159); "
                "1 of 129 elements, all in columns >= 128",
            ),
            tail_map(),
            found=(3, 2, 1, 0),
        ),
        Fault(
            failure_of(
                groups,
                "rstd[1]=inf (float32), but should be 316.22778 +- 0.00012 (error/bound inf); "
                "2 of 4 elements, all in group 1 (of 2)",
                output="rstd",
                check="nonfinite_match",
                region="one group",
                ratio=math.inf,
                confirmed=2,
            ),
            group_map(),
            found=(0,),
        ),
        Fault(
            failure_of(
                rows,
                "24 bytes behind the last row of out were written: elements 67 ... 78 of its "
                "storage, first by program 2",
                check="redzones_intact",
                region="",
                ratio=0.0,
            ),
            None,
            found=(5, 4, 3),
            fixed=(2, 1),
        ),
    )


def write_history(
    path: Path, *, nights: int = 6, cases: int = 60_000, seed: int = 1, faults: bool = True
) -> None:
    """A history of so many nights, each of about so many cases."""
    random = np.random.default_rng(seed)
    told = story() if faults else ()
    with History(path) as history:
        for back in range(nights - 1, -1, -1):
            # The last two nights ran on two machines.
            shards = 2 if back < 2 else 1
            for shard in range(1, shards + 1):
                run = f"night-{back}-{shard}"
                history.begin(run_info(run, back, nights, shard, shards, random))
                failing = {fault.failure.signature.target for fault in told if back in fault.found}
                number = int(cases * random.uniform(0.9, 1.1))
                history.add(run, 0, totals_of(number, random, failing), Mark())
                for fault in told if shard == 1 else ():
                    if back in fault.found:
                        history.found(run, fault.failure, fault.map)
                    if back in fault.fixed:
                        history.fixed(run, fault.failure.signature)
                was_killed = nights > 4 and back == 4
                history.end(run, outcome="killed" if was_killed else "ended")
    set_times(path, nights, random)


def run_info(
    run: str, back: int, nights: int, shard: int, shards: int, random: np.random.Generator
) -> RunInfo:
    late = back < 1
    return RunInfo(
        id=run,
        kind="night",
        seed=int(random.integers(1 << 40)),
        device="cuda",
        device_name=DEVICE,
        workers=8,
        versions=VERSIONS | ({"triton": "3.9.0"} if late else {}),
        revision=REVISIONS[min((nights - 1 - back) * len(REVISIONS) // nights, 3)],
        shard=shard,
        shards=shards,
        notes=("cells that were promised and not hit: 3 of 412",) if late and shard == 1 else (),
    )


def set_times(path: Path, nights: int, random: np.random.Generator) -> None:
    """The nights were not all this moment."""
    with closing(sqlite3.connect(path)) as database, database:
        runs = database.execute("SELECT number, id, executed FROM runs").fetchall()
        for number, run, executed in runs:
            back = int(run.split("-")[1])
            began = NOW - datetime.timedelta(days=back, hours=10, minutes=55)
            seconds = executed / random.uniform(88, 104)
            ended = (began + datetime.timedelta(seconds=seconds)).isoformat()
            database.execute(
                "UPDATE runs SET started = ?, ended = ?, seconds = ? WHERE number = ?",
                (began.isoformat(), ended, seconds, number),
            )
            database.execute("UPDATE events SET seen = ? WHERE run = ?", (ended, number))


def totals_of(cases: int, random: np.random.Generator, failing: set[str]) -> Totals:
    totals = Totals()
    for target in OUTPUTS:
        for dtype in DTYPES:
            n = int(cases / 9.5 * random.uniform(0.9, 1.1))
            wrong = target in failing and dtype != "float32"
            add_row(totals, target, dtype, n, random, wrong=wrong)
            add_cells(totals, target, dtype, n, random, wrong=wrong)
        add_widths(totals, target, n, random, wrong=target in failing)
        n = int(cases / 60)
        totals.row(target, INVALID).executed += n
        for refusal in REFUSALS[: 4 if target == "triton_layer_norm" else 6]:
            cell = Cell(target, INVALID, NONE, NONE, refusal, NONE)
            totals.cells[str(cell)] = CellSum(n // len(REFUSALS))
    for part, share in PARTS.items():
        totals.seconds[part] = share * cases / 300
    return totals


def add_row(
    totals: Totals, target: str, dtype: str, n: int, random: np.random.Generator, *, wrong: bool
) -> None:
    row = totals.row(target, dtype)
    row.executed += n
    if n > 1000:
        row.skipped[f"out of memory on {DEVICE}"] += n // 900
    n_wrong = max(1, n // 200) if wrong else 0
    row.failed += n_wrong
    for output in OUTPUTS[target]:
        row.merge(Row(**distribution(output, dtype, n, n_wrong, random)))


def distribution(
    output: str, dtype: str, n: int, n_wrong: int, random: np.random.Generator
) -> dict[str, dict[str, object]]:
    """Half-precision results are near to their bound, float32 ones far from it."""
    if output == "y" and dtype != "float32":
        ratios = np.maximum(random.beta(1.3, 0.6, n), 1e-4)
    else:
        ratios = 0.7 * random.beta(1.1, 9.0, n)
    ratios[: n // 25] = 0.0
    if n_wrong and output in ("y", "rstd"):
        ratios[-n_wrong:] = 10 ** random.uniform(0.3, 5, n_wrong)
        ratios[-max(1, n_wrong // 9) :] = np.inf
    # bin_of, for all at once.
    finite = ratios[np.isfinite(ratios)]
    indices = np.ceil(np.log(np.maximum(finite, LEAST_RATIO)) / math.log(BIN)).astype(int)
    known, counts = np.unique(indices, return_counts=True)
    bins = Counter(dict(zip(known.tolist(), counts.tolist(), strict=True)))
    if n_infinite := ratios.size - finite.size:
        bins[bin_of(math.inf)] = n_infinite
    return {"ratios": {output: float(ratios.max())}, "spread": {output: bins}}


def add_cells(
    totals: Totals, target: str, dtype: str, n: int, random: np.random.Generator, *, wrong: bool
) -> None:
    for tail, tail_share in TAILS.items():
        for layout, layout_share in LAYOUTS.items():
            if target == "triton_layer_norm" and layout == "aliased":
                continue
            for family, family_share in FAMILIES.items():
                for flags in FLAGS[target]:
                    cell = Cell(target, dtype, tail, layout, family, flags)
                    expected = n * tail_share * layout_share * family_share / len(FLAGS[target])
                    executed = int(random.poisson(expected))
                    if dtype == "bfloat16" and family == "any+inf" and layout == "permuted":
                        executed = 0
                    if (target, dtype, layout) == ("layernorm_fn", "bfloat16", "expanded"):
                        executed = 0
                    often = wrong and (0.05 if tail.startswith("tail") else 0.001)
                    failed = int(random.binomial(executed, often))
                    worst = 0.97 if dtype != "float32" else float(random.beta(3, 5))
                    worst = 159.0 if failed else worst
                    totals.cells[str(cell)] = CellSum(executed, failed, worst if executed else 0.0)


def add_widths(
    totals: Totals, target: str, n: int, random: np.random.Generator, *, wrong: bool
) -> None:
    end = 65_536 if target != "layer_norm" else 20_000
    widths = np.exp(random.uniform(0, math.log(end), n // 2)).astype(int)
    powers = 2 ** random.integers(0, int(math.log2(end)) + 1, n // 4)
    widths = np.concatenate((widths, powers + random.integers(-1, 2, n // 4)))
    blocks = random.choice(BLOCKS, widths.size)
    if target == "triton_layer_norm":
        blocks = 2 ** np.ceil(np.log2(np.maximum(widths, 1))).astype(int)
    for n_cols, block in zip(np.clip(widths, 1, None).tolist(), blocks.tolist(), strict=True):
        bad = wrong and n_cols > 4096 and n_cols % 3 == 1 and target == "triton_layer_norm"
        bad |= wrong and n_cols % 64 == 0 and target == "layernorm_fn"
        worst = 10 ** random.uniform(0.5, 3.0) if bad else float(random.beta(2, 1))
        sums = CellSum(1, int(bad), worst)
        totals.widths.setdefault((target, n_cols, block), CellSum()).merge(sums)


if __name__ == "__main__":
    write_history(Path(sys.argv[1]))
    print(write_report(Path(sys.argv[1]), Path(sys.argv[2]), now=NOW))
