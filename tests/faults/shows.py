"""Runs the example of each fault in the strict interpreter, with the fault and without it.

    python -m tests.faults.shows                      every fault that the interpreter can show
    python -m tests.faults.shows eps_missing ...      the faults of these names

A line for each: the checks that name the fault and how far its outputs are from those of the
correct kernel. Exit code 1 where one does not show, or where the correct kernel does not pass.
"""

from __future__ import annotations

import os

# Triton reads it while kernels are being defined, so it must precede their import.
os.environ["TRITON_INTERPRET"] = "1"

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzz.checks import judge
from fuzz.execute import Executor
from fuzz.inputs import make_values, run_values
from fuzz.relations import expand
from fuzz.verdict import Observation, Verdict
from oracle.formats import FORMATS, decode
from tests.faults.catalogue import CATALOGUE
from tests.faults.entry import Entry
from tests.faults.example import case_of
from tests.faults.planted import plant, sources_of


@dataclass(frozen=True)
class Shown:
    """What an example came to; ``difference`` is what the fault does to the outputs."""

    fault: Entry
    planted: Verdict
    correct: Verdict
    difference: str

    @property
    def right(self) -> bool:
        """It fails with the fault, and passes without."""
        return self.planted.status == "fail" and self.correct.status == "pass"

    def __str__(self) -> str:
        checks = dict.fromkeys(f.check for f in self.planted.findings)
        ratio = max((f.ratio for f in self.planted.findings), default=0.0)
        said = f"{', '.join(checks) or 'NOT SEEN'} (error/bound {ratio:.3g}); {self.difference}"
        if self.correct.status != "pass":
            said += f"; WITHOUT IT: {self.correct.findings or self.correct.reason}"
        return f"{self.fault.id}: {said}"


def show(fault: Entry) -> Shown:
    """Run a fault's example with the fault and without it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _kernels_of(fault, plant(fault, Path(folder))),
    ):
        planted, faulty = _run(fault)
    sources = sources_of(fault)
    with _kernels_of(fault, sources if fault.target.endswith(".py") else sources.parent):
        correct, right = _run(fault)
    return Shown(fault, planted, correct, _difference(faulty, right))


@contextlib.contextmanager
def _kernels_of(fault: Entry, folder: Path) -> Iterator[None]:
    """Targets are taken from a folder: files by their place, ours as the package they are in."""
    before, path = Path.cwd(), list(sys.path)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    _forget("ln_kernels")
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path
        _forget("ln_kernels")


def _forget(package: str) -> None:
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        del sys.modules[name]


def _run(fault: Entry) -> tuple[Verdict, Observation]:
    executor = Executor("cpu")
    spec = executor.spec(fault.target)
    case = case_of(spec, fault.example)
    values, runs = make_values(case), expand(case)
    seen = tuple(executor.run(fault.target, run, run_values(run, case, values)) for run in runs)
    return judge(spec, case, runs, values, seen, interpreted=True), seen[0]


def _difference(faulty: Observation, right: Observation) -> str:
    """The largest difference of each output, in units in the last place of the right value."""
    if faulty.status != right.status:
        return f"{faulty.status} in place of {right.status}"
    said = []
    for name, owed in right.outputs.items():
        fmt = FORMATS[owed.dtype]
        got = faulty.outputs[name]
        if got.shape != owed.shape:
            said.append(f"{name} has another shape")
            continue
        a, b = decode(got.bits, got.dtype), decode(owed.bits, owed.dtype)
        finite = np.isfinite(a) & np.isfinite(b)
        with np.errstate(all="ignore"):
            unit = 2 * fmt.u * np.maximum(2.0 ** np.floor(np.log2(np.abs(b))), fmt.smallest_normal)
            ulps = np.where(finite, np.abs(a - b) / unit, 0.0)
        kinds = int((~finite & ~((a == b) | (np.isnan(a) & np.isnan(b)))).sum())
        text = f"{name} by {ulps.max(initial=0.0):.3g} ulp"
        said.append(text + (f", {kinds} elements not finite in one alone" if kinds else ""))
    return "; ".join(said)


def main() -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("ids", nargs="*", metavar="fault", help="all, where none is named")
    given = parser.parse_args()
    unknown = set(given.ids) - {f.id for f in CATALOGUE}
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    wanted = [f for f in CATALOGUE if (f.id in given.ids if given.ids else f.seen == "cpu")]
    wrong = 0
    for fault in wanted:
        shown = show(fault)
        wrong += not shown.right
        print(f"{'   ' if shown.right else '!! '}{shown}", flush=True)
    print(f"{len(wanted) - wrong} of {len(wanted)} show on their example, and on it alone")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
