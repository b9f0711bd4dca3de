"""How small a fault of the statistics is seen: by the bound of each element, and of a whole row.

    python ci/tightness.py --json tightness.json
    python ci/tightness.py --dtype bfloat16 --n-cols 1000 --n-rows 1 --seeds 9

A correct kernel, emulated operation by operation, gets one fault:

  scale    rstd is larger by a factor 1 + delta
  shift    the mean is larger by delta * sigma
  halves   rstd is larger by a factor 1 + delta in the second half of the columns

Printed is the smallest delta from which on it is found, the median over the seeds: by the bounds of
the elements alone (values_within_bound), then together with the check that one mean and one rstd
explain the whole row (statistics_consistent). A correct kernel's own statistics may be off by as
much as the columns rstd and mean tell, relative and in units of sigma: no judge can find a scale
or a shift that is much smaller. Deltas are tried in steps of 2^(1/4); what the largest one does not
show is "-", in the JSON file null.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

# Run as a file, from anywhere, without an installation.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from oracle import consistency
from oracle.arithmetic import Arithmetic
from oracle.compare import Expected, compare, expect
from oracle.formats import F64, FORMATS, round_to
from oracle.refs import Problem, Walk, walk
from tests.oracle.emulation import How, Machine, Order, depth_of, run
from tests.oracle.rows import bell

Fault = Literal["scale", "shift", "halves"]

DTYPES = ("bfloat16", "float16", "float32")
WIDTHS = (64, 1000, 8192, 32768)
N_ROWS = (1, 64)
# |mean| / sigma: about zero, ordinary, and where the mean's own error hides all the rest.
MEANS = (0.0, 30.0, 1000.0)

# From below the smallest error of any statistic, 2^-26, to a quarter.
DELTAS = tuple(2.0 ** (-26.0 + k / 4.0) for k in range(97))

THREADS = 256


@dataclass(frozen=True)
class Line:
    """One line of the table; deltas are by fault, None where nothing shows."""

    dtype: str
    mean: float
    n_cols: int
    n_rows: int
    rstd_bound: float
    mean_bound: float
    elements: dict[Fault, float | None]
    rows: dict[Fault, float | None]


class Bench:
    """One problem, and a kernel for it with a fault of any size."""

    def __init__(self, n_rows: int, n_cols: int, dtype: str, mean: float, seed: int) -> None:
        fmt = FORMATS[dtype]
        self.dtype, self.arithmetic = dtype, Arithmetic(uniform=True)
        how = How(order=Order(min(THREADS, 1 << (n_cols - 1).bit_length())))
        self.problem = Problem(
            x=round_to(bell(seed, n_rows, n_cols) + mean, fmt),
            dtype=dtype,
            eps=1e-5,
            depth=depth_of(how.order, n_cols),
            group_size=n_cols,
            weight=round_to(1.0 + 0.1 * bell(seed + 1, n_cols), fmt),
            bias=round_to(0.1 * bell(seed + 2, n_cols), fmt),
        )
        self.machine = Machine(self.arithmetic, how)
        outputs = run(self.problem, self.arithmetic, how)
        self.mean, self.rstd = outputs["mean"], outputs["rstd"]
        self.walk: Walk = walk(self.problem, self.arithmetic)
        self.expected: Expected = expect(self.walk.outputs["y"], dtype)

    def y(self, fault: Fault, delta: float) -> F64:
        """What the kernel stores."""
        m, problem = self.machine, self.problem
        mean, rstd = self.mean, self.rstd
        if fault == "shift":
            mean = m.round(mean + delta / rstd)
        else:
            off = np.arange(problem.group_size) >= (
                problem.group_size // 2 if fault == "halves" else 0
            )
            rstd = m.round(np.where(off, rstd * (1.0 + delta), rstd))
        assert problem.weight is not None, "weight is set above"
        assert problem.bias is not None, "bias is set above"
        y = m.add(m.mul(m.mul(m.add(problem.x, -mean), rstd), problem.weight), problem.bias)
        return round_to(y, FORMATS[self.dtype])

    def found(self, fault: Fault, delta: float, *, whole_rows: bool) -> bool:
        """Whether anything is wrong with it."""
        y = self.y(fault, delta)
        if compare(y, self.expected).wrong.any():
            return True
        rows = consistency.Rows(
            self.walk, self.problem, self.arithmetic, y, self.expected, self.dtype
        )
        return whole_rows and bool(consistency.unexplained(rows).any())

    def smallest(self, fault: Fault, *, whole_rows: bool) -> float:
        """The smallest delta that is found, infinite where none is."""
        low, high = 0, len(DELTAS)
        while low < high:
            middle = (low + high) // 2
            if self.found(fault, DELTAS[middle], whole_rows=whole_rows):
                high = middle
            else:
                low = middle + 1
        return DELTAS[low] if low < len(DELTAS) else np.inf

    def bounds(self) -> tuple[float, float]:
        """What rstd may be off, relative, and the mean, in units of sigma: in the median row."""
        rstd, mean = self.walk.rstd, self.walk.mean
        assert mean is not None, "no RMS norm"
        return float(np.median(rstd.error / rstd.value)), float(np.median(mean.error * rstd.value))


def measure(
    dtypes: list[str], means: list[float], widths: list[int], n_rows: list[int], seeds: int
) -> Iterator[Line]:
    """The lines of the table, each as soon as it is there."""
    for dtype in dtypes:
        for mean in means:
            for width in widths:
                for count in n_rows:
                    # Many rows are as good as many seeds.
                    benches = [
                        Bench(count, width, dtype, mean, 10 * seed)
                        for seed in range(seeds if count == 1 else 1)
                    ]
                    elements, rows = (
                        {f: _median(benches, f, whole_rows=whole) for f in get_args(Fault)}
                        for whole in (False, True)
                    )
                    yield Line(dtype, mean, width, count, *benches[0].bounds(), elements, rows)


def _median(benches: list[Bench], fault: Fault, *, whole_rows: bool) -> float | None:
    delta = statistics.median(bench.smallest(fault, whole_rows=whole_rows) for bench in benches)
    return delta if np.isfinite(delta) else None


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--mean", nargs="+", type=float, default=MEANS, help="in units of sigma")
    parser.add_argument("--n-cols", nargs="+", type=int, default=WIDTHS)
    parser.add_argument("--n-rows", nargs="+", type=int, default=N_ROWS)
    parser.add_argument("--seeds", type=int, default=5, help="for a single row")
    parser.add_argument("--json", type=Path, help="write the table for programs")
    given = parser.parse_args(arguments)

    faults = get_args(Fault)
    print(f"{'':36}  bounds of          {'smallest fault found, element by element > row by row'}")
    head = f"{'dtype':8} {'mean/sigma':>10} {'columns':>8} {'rows':>5}    rstd     mean  "
    print(head + "".join(f"  {fault:>17}" for fault in faults), flush=True)
    lines = []
    with np.errstate(all="ignore"):
        for line in measure(given.dtype, given.mean, given.n_cols, given.n_rows, given.seeds):
            lines.append(asdict(line))
            cells = (f"{_text(line.elements[f])} > {_text(line.rows[f])}" for f in faults)
            print(
                f"{line.dtype:8} {line.mean:10g} {line.n_cols:8} {line.n_rows:5}  "
                f"{line.rstd_bound:7.1e}  {line.mean_bound:7.1e} "
                + "".join(f"  {cell:>17}" for cell in cells),
                flush=True,
            )
    if given.json is not None:
        given.json.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    return 0


def _text(delta: float | None) -> str:
    return "-" if delta is None else f"{delta:.1e}"


if __name__ == "__main__":
    sys.exit(main())
