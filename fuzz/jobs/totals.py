"""What a campaign has done so far: sums that runners send and the main process adds up."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from fuzz.cells import cell_of
from fuzz.jobs.failures import signatures
from fuzz.runner import PARTS, Result
from fuzz.verdict import Signature

REFUSED = "(invalid)"
"""Stands for the dtype of invalid inputs, which are a row of their own."""

MAX_FAULTS = 20
"""Faults of the harness that are kept with their traces; one that is everywhere is one fault."""


BIN = 1.02
"""Ratio of the two ends of a bin of the distribution: a quantile is known to 2 %."""

LEAST_RATIO = 1e-9
"""Smaller error/bounds, and those of exact results, are one bin."""


def bin_of(ratio: float) -> int:
    """The bin of an error/bound. Infinity has one of its own above all others."""
    if math.isinf(ratio):
        return 1 << 16
    return math.ceil(math.log(max(ratio, LEAST_RATIO)) / math.log(BIN))


def upper_end(index: int) -> float:
    """The largest error/bound of a bin."""
    if index == 1 << 16:
        return math.inf
    ratio = BIN**index
    return 0.0 if ratio <= LEAST_RATIO * BIN else ratio


@dataclass
class Row:
    """One target and dtype of the final table.

    ``ratios`` is the largest error/bound of each output, ``spread`` the number of cases by
    :func:`bin_of` their largest.
    """

    executed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    ratios: dict[str, float] = field(default_factory=dict)
    spread: dict[str, Counter[int]] = field(default_factory=dict)

    def quantile(self, output: str, share: float) -> float:
        """The error/bound of an output that this share of the cases do not exceed."""
        bins = self.spread[output]
        left = math.ceil(share * bins.total())
        for index in sorted(bins):
            left -= bins[index]
            if left <= 0:
                break
        return min(upper_end(index), self.ratios[output])

    def merge(self, other: Row) -> None:
        """Add another's numbers."""
        self.executed += other.executed
        self.failed += other.failed
        self.skipped.update(other.skipped)
        for name, ratio in other.ratios.items():
            self.ratios[name] = max(ratio, self.ratios.get(name, 0.0))
        for name, bins in other.spread.items():
            self.spread.setdefault(name, Counter()).update(bins)


@dataclass(slots=True)
class CellSum:
    """Cases of one kind: how many, how many of them wrong, and the largest error/bound."""

    executed: int = 0
    failed: int = 0
    worst: float = 0.0

    def merge(self, other: CellSum) -> None:
        """Add another's numbers."""
        self.executed += other.executed
        self.failed += other.failed
        self.worst = max(self.worst, other.worst)


Width = tuple[str, int, int | None]
"""Target, columns and block, None where the launch has none."""


@dataclass
class Totals:
    """Sums over cases. ``faulty`` counts errors of the harness, ``faults`` are the first of them,
    each with its case.

    ``cells`` are sums by feature cell, ``widths`` those of valid cases by width. ``failing`` has
    the first failing case of each fault.
    """

    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    cells: dict[str, CellSum] = field(default_factory=dict)
    widths: dict[Width, CellSum] = field(default_factory=dict)
    failing: dict[Signature, Result] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    keys: set[tuple[str, ...]] = field(default_factory=set)
    not_reached: int = 0
    faulty: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def executed(self) -> int:
        """Cases that were run and judged."""
        return sum(row.executed for row in self.rows.values())

    @property
    def failed(self) -> int:
        """Cases that were judged wrong."""
        return sum(row.failed for row in self.rows.values())

    @property
    def skipped(self) -> int:
        """Cases that could not be run here, each with a reason."""
        return sum(row.skipped.total() for row in self.rows.values())

    def row(self, target: str, dtype: str) -> Row:
        """The row of a target and dtype, made when it is first asked for."""
        return self.rows.setdefault((target, dtype), Row())

    def add(self, result: Result) -> None:
        """Count one judged case."""
        verdict = result.verdict
        case = result.case
        row = self.row(case.target, case.dtype if case.refusal is None else REFUSED)
        if verdict.status == "skip":
            row.skipped[verdict.reason] += 1
        else:
            row.executed += 1
            row.failed += verdict.status == "fail"
        spread = {name: Counter((bin_of(ratio),)) for name, ratio in verdict.ratios.items()}
        row.merge(Row(ratios=verdict.ratios, spread=spread))
        self._add_to_cells(result)
        for signature in signatures(case, verdict):
            self.failing.setdefault(signature, result)
        self.seconds.update(verdict.seconds)
        self.keys.update(result.keys)
        if result.fault:
            self.faulty += 1
            if len(self.faults) < MAX_FAULTS:
                self.faults.append(f"case {verdict.case_id}: {result.fault}")

    def _add_to_cells(self, result: Result) -> None:
        case, verdict = result.case, result.verdict
        worst = max(verdict.ratios.values(), default=0.0)
        one = CellSum(verdict.status != "skip", verdict.status == "fail", worst)
        self.cells.setdefault(str(cell_of(case)), CellSum()).merge(one)
        # The width of an input that must be refused says nothing of a kernel.
        if case.refusal is None:
            width = (case.target, case.n_cols, case.launch.block)
            self.widths.setdefault(width, CellSum()).merge(one)

    def merge(self, other: Totals) -> None:
        """Add another's sums."""
        for (target, dtype), row in other.rows.items():
            self.row(target, dtype).merge(row)
        for cell, sums in other.cells.items():
            self.cells.setdefault(cell, CellSum()).merge(sums)
        for width, sums in other.widths.items():
            self.widths.setdefault(width, CellSum()).merge(sums)
        for signature, result in other.failing.items():
            self.failing.setdefault(signature, result)
        self.seconds.update(other.seconds)
        self.keys |= other.keys
        self.not_reached += other.not_reached
        self.faulty += other.faulty
        self.faults = (self.faults + other.faults)[:MAX_FAULTS]

    def shares(self) -> dict[str, float]:
        """Each part's share in the runners' wall time."""
        total = sum(self.seconds.values())
        return {part: self.seconds[part] / total if total else 0.0 for part in PARTS}
