"""The evidence of one executed case: its outputs beside each other and beside what they owe.

What is costly (the oracle's walk, the comparison) is done once and shared by all checks. A fault
is charged once, to what says most about it. In this order: elements that were never written;
bits that differ between launches that differ in nothing, or in poison alone; values of the base
run that are out of bounds; rows of it that no mean and rstd explain; other runs that differ from a
base run that is right. What follows from a faulty statistic or sum is charged to that.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from fuzz.case import Case
from fuzz.judging.owed import (
    Rows,
    as_rows,
    dtype_of,
    due_outputs,
    expected_of,
    problem_of,
    rows_of_expected,
    rows_of_problem,
    rows_of_walk,
    shape_of,
)
from fuzz.judging.regions import Mask
from fuzz.relations import Run
from fuzz.spec import OutputSpec, TargetSpec
from fuzz.verdict import POISON_BYTE, Array, Bits, Observation
from oracle import consistency
from oracle.compare import Comparison, Expected, compare
from oracle.formats import F64, FORMATS, decode
from oracle.refs import Problem, Walk, walk

SAME_LAUNCH = ("repeat", "poisoned")
"""Runs that launch the base run's very kernel: equal bits are owed whatever is known of keys."""

ORDER = {"sum": 0, "mean": 1, "rstd": 2}
"""Outputs that others follow from come first."""

_ALL = slice(None)


@dataclass(frozen=True, eq=False)
class Returned:
    """A well-formed output of one run, rows by columns."""

    run: Run
    output: OutputSpec
    array: Array
    bits: Bits

    @functools.cached_property
    def values(self) -> F64:
        """The values of the bits."""
        return decode(self.bits, self.array.dtype)

    @functools.cached_property
    def poisoned(self) -> Mask | None:
        """Elements that hold the bits of the poison, or None where there are none."""
        given = self.run.case.tensor(self.output.given_as) if self.output.given_as else None
        aliased = given is not None and given.alias_of is not None
        if aliased or not self.array.poisoned:
            return None
        byte = POISON_BYTE[self.run.poison]
        mask = self.bits == int.from_bytes(bytes([byte]) * self.bits.itemsize, "little")
        return mask if mask.any() else None


@dataclass(frozen=True, eq=False)
class Judged:
    """An output of one run beside what it owes; ``rows`` are those of the run that owe.

    ``walk`` is the oracle's, of these rows.
    """

    returned: Returned
    rows: Rows
    expected: Expected
    comparison: Comparison
    walk: Walk


@dataclass(frozen=True, eq=False)
class Unexplained:
    """A y that is right element by element, and the groups that no mean and rstd explain.

    Shapes: groups (rows that owe, n_groups).
    """

    judged: Judged
    groups: Mask
    rows: consistency.Rows


@dataclass(frozen=True)
class Evidence:
    """All that is known of one executed case."""

    spec: TargetSpec
    case: Case
    runs: tuple[Run, ...]
    values: dict[str, Bits]
    observations: tuple[Observation, ...]
    interpreted: bool

    @property
    def base(self) -> Observation:
        """The observation of the base run."""
        return self.observations[0]

    @functools.cached_property
    def returned(self) -> list[tuple[Run, Observation]]:
        """The runs that returned. An invalid case owes nothing but the refusal."""
        if self.case.refusal is not None:
            return []
        pairs = zip(self.runs, self.observations, strict=True)
        return [(run, seen) for run, seen in pairs if seen.status == "ok"]

    @functools.cached_property
    def outputs(self) -> dict[str, dict[str, Returned]]:
        """By run, the outputs that have the shape and dtype they must have, in ORDER."""
        found: dict[str, dict[str, Returned]] = {}
        for run, seen in self.returned:
            case = run.case
            well_formed = found[run.name] = {}
            for output in sorted(due_outputs(self.spec, case), key=_place_in_order):
                array = seen.outputs.get(output.name)
                if (
                    array is not None
                    and array.dtype in FORMATS
                    and array.dtype == dtype_of(output, case)
                    and array.shape == shape_of(output, case)
                ):
                    bits = as_rows(output, case, array.bits)
                    well_formed[output.name] = Returned(run, output, array, bits)
        return found

    @functools.cached_property
    def differing(self) -> dict[str, dict[str, Mask]]:
        """By run and output, the elements whose bits are not those of the base run.

        Two NaN are equal, whatever their bits. Shapes: of the rows that owe.
        """
        base = self.outputs.get("base", {})
        return {
            run.name: masks
            for run, _ in self.returned
            if run.name != "base" and (masks := _differences(run, base, self.outputs[run.name]))
        }

    @functools.cached_property
    def unwritten(self) -> dict[tuple[str, str], Mask]:
        """Elements that still hold poison, by run and output.

        A result may have the poison's bits. So where there is a launch with other poison, an
        element must hold the poison of both; in the other runs, it must differ from the base run.
        Shapes: of the rows that owe.
        """
        found: dict[tuple[str, str], Mask] = {}
        other = self.outputs.get("poisoned", {})
        for name, was in self.outputs.get("base", {}).items():
            mask = was.poisoned
            if mask is not None and name in other:
                held = other[name].poisoned
                mask = None if held is None else mask & held
            if mask is not None and mask.any():
                found["base", name] = mask
        for run_name, masks in self.differing.items():
            for name, differs in masks.items():
                now = self.outputs[run_name][name]
                if run_name == "poisoned":
                    mask = found.get(("base", name))
                else:
                    held = now.poisoned
                    mask = None if held is None else held[owed_rows(now.run)[0]] & differs
                if mask is not None and mask.any():
                    found[run_name, name] = mask
        return found

    @functools.cached_property
    def problem(self) -> Problem:
        """The oracle's problem, of the base case."""
        return problem_of(self.spec, self.case, self.values, interpreted=self.interpreted)

    @functools.cached_property
    def judged(self) -> list[Judged]:
        """What came back beside what it owes: the base run, and what differs from it in runs that
        do not owe its bits. Wrong elements that are charged to something else are left out."""
        if not self.outputs.get("base"):
            return []
        unstable = {name for masks in self._unstable.values() for name in masks}
        stable = {name: item for name, item in self._base.items() if name not in unstable}
        judged = self._restricted(
            stable,
            {
                name: _minus(item.comparison.wrong, self.unwritten.get(("base", name)))
                for name, item in stable.items()
            },
        )
        for run, seen in self.returned:
            if run.name in self.differing and not self._owes_bits(run, seen):
                judged += self._judge_other(run)
        return judged

    @functools.cached_property
    def unexplained(self) -> list[Unexplained]:
        """By run, where no mean and rstd explain a row whose elements are all right."""
        if not self.outputs.get("base") or any(self._unstable.values()):
            return []
        wrong = {item.returned.run.name for item in self.judged if item.comparison.wrong.any()}
        # The base run has been asked already.
        wrong |= {run_name for run_name, _ in self.unwritten} | {"base"}
        asked = [
            self._ask(item)
            for item in self.judged
            if item.returned.output.name == "y" and item.returned.run.name not in wrong
        ]
        return [item for item in (self._unexplained_in_base, *asked) if item is not None]

    @functools.cached_property
    def unequal(self) -> dict[tuple[str, str], Mask]:
        """Elements that owe the bits of the base run and have others, by run and output.

        Shapes: of the rows that owe.
        """
        found: dict[tuple[str, str], Mask] = {}
        for run, seen in self.returned:
            if run.name in self.differing and self._owes_bits(run, seen):
                for name, mask in self._charged(self._news(run)).items():
                    if mask.any():
                        found[run.name, name] = mask
        return found

    @functools.cached_property
    def _base(self) -> dict[str, Judged]:
        outputs = self.outputs["base"]
        walked = self._walk(self.problem, outputs, _ALL)
        expected = self._expected(walked, outputs)
        return {
            name: Judged(
                item, _ALL, expected[name], self._compare(item.values, expected[name]), walked
            )
            for name, item in outputs.items()
        }

    @functools.cached_property
    def _faulty_in_base(self) -> set[str]:
        """The outputs of the base run that are wrong somewhere, follow from one that is, or are
        unexplained."""
        faulty: set[str] = set()
        follows = False
        for name, item in self._base.items():
            wrong = item.comparison.wrong.any() or ("base", name) in self.unwritten
            if wrong or follows:
                faulty.add(name)
            follows = follows or (bool(wrong) and name in self.spec.arithmetic.reused)
        if self._unexplained_in_base is not None:
            faulty.add("y")
        return faulty

    @functools.cached_property
    def _unexplained_in_base(self) -> Unexplained | None:
        wrong = any(
            item.comparison.wrong.any() or ("base", name) in self.unwritten
            for name, item in self._base.items()
        )
        return None if wrong or "y" not in self._base else self._ask(self._base["y"])

    def _ask(self, item: Judged) -> Unexplained | None:
        rows = consistency.Rows(
            item.walk,
            self.problem,
            self.spec.arithmetic,
            item.returned.values[item.rows],
            item.expected,
            item.returned.array.dtype,
        )
        groups = consistency.unexplained(rows)
        return Unexplained(item, groups, rows) if groups.any() else None

    @functools.cached_property
    def _unstable(self) -> dict[str, dict[str, Mask]]:
        """By run of the same launch and output, what it does not repeat."""
        return {run.name: self._news(run) for run in self.runs if run.name in SAME_LAUNCH}

    def _owes_bits(self, run: Run, seen: Observation) -> bool:
        if not self.spec.repeatable:
            # The interpreter keeps the order of programs where only the poison changes.
            return self.interpreted and run.name == "poisoned"
        same_key = seen.key is not None and seen.key == self.base.key
        return run.name in SAME_LAUNCH or same_key

    def _news(self, run: Run) -> dict[str, Mask]:
        """By output, what differs from the base run and is not charged to an earlier finding."""
        known: set[str] = set()
        if run.name not in SAME_LAUNCH:
            # Of bits that the same launch does not repeat, or that are wrong, others say nothing.
            known = self._faulty_in_base.union(*self._unstable.values())
        elif run.name != SAME_LAUNCH[0]:
            known = set(self.differing.get(SAME_LAUNCH[0], {}))
        news = {
            name: _minus(differs, self.unwritten.get((run.name, name)))
            for name, differs in self.differing.get(run.name, {}).items()
            if name not in known
        }
        return {name: mask for name, mask in news.items() if mask.any()}

    def _judge_other(self, run: Run) -> list[Judged]:
        """A run that does not owe the bits of the base run, where it differs from it."""
        masks = self._news(run)
        if not masks:
            return []
        rows, base_rows = owed_rows(run)
        outputs = self.outputs[run.name]
        if self.spec.arithmetic.reused:
            walked = self._walk(rows_of_problem(self.problem, base_rows), outputs, rows)
            expected = self._expected(walked, outputs)
        else:
            walked = rows_of_walk(next(iter(self._base.values())).walk, base_rows)
            expected = {
                name: rows_of_expected(self._base[name].expected, base_rows) for name in masks
            }
        items = {
            name: Judged(
                outputs[name],
                rows,
                expected[name],
                self._compare(outputs[name].values[rows], expected[name]),
                walked,
            )
            for name in masks
        }
        return self._restricted(items, masks)

    def _walk(self, problem: Problem, outputs: dict[str, Returned], rows: Rows) -> Walk:
        """The oracle's walk, from the statistics among the outputs that were written."""
        observed = {
            name: item.values[rows]
            for name, item in outputs.items()
            if name in self.spec.arithmetic.reused and (item.run.name, name) not in self.unwritten
        }
        return walk(problem, self.spec.arithmetic, observed)

    def _expected(self, walked: Walk, outputs: dict[str, Returned]) -> dict[str, Expected]:
        dtypes = {name: item.array.dtype for name, item in outputs.items()}
        return expected_of(self.spec, walked, dtypes)

    def _compare(self, observed: F64, expected: Expected) -> Comparison:
        # Running means turn infinities into NaN.
        strict = self.spec.arithmetic.variance == "two_pass"
        return compare(observed, expected, strict_nonfinite=strict)

    def _restricted(self, items: dict[str, Judged], masks: dict[str, Mask]) -> list[Judged]:
        """The judgements with nothing wrong outside the masks or by another output's fault."""
        wrong = {name: item.comparison.wrong & masks[name] for name, item in items.items()}
        charged = self._charged(wrong)
        return [_only(item, charged[name]) for name, item in items.items()]

    def _charged(self, masks: dict[str, Mask]) -> dict[str, Mask]:
        """Faulty elements by output, without those that follow from another faulty output."""
        followers = self._followers(masks)
        return {name: _minus(mask, followers.get(name)) for name, mask in masks.items()}

    def _followers(self, faulty: dict[str, Mask]) -> dict[str, Mask]:
        """By output, the elements that a kernel computes from faulty elements of another one."""
        followers: dict[str, Mask] = {}
        groups: Mask | None = None  # (rows, n_groups): those with a faulty sum, mean or rstd
        n_groups, group_size = self.case.n_groups, self.case.group_size
        for name, mask in faulty.items():
            full = self.outputs["base"][name].output.shape == "full"
            if groups is not None:
                followers[name] = np.repeat(groups, group_size, axis=1) if full else groups
            if name in self.spec.arithmetic.reused and mask.any():
                in_group: Mask = mask
                if full:
                    in_group = np.any(mask.reshape(-1, n_groups, group_size), axis=2)
                groups = in_group if groups is None else groups | in_group
        return followers


def _place_in_order(output: OutputSpec) -> int:
    return ORDER.get(output.name, len(ORDER))


def owed_rows(run: Run) -> tuple[Rows, Rows]:
    """The rows of a run that owe a result, and the rows of the base case whose result it is."""
    if run.drowned is not None:
        return [run.drowned], [run.drowned if run.rows is None else run.rows[run.drowned]]
    return _ALL, _ALL if run.rows is None else list(run.rows)


def _differences(
    run: Run, base: dict[str, Returned], outputs: dict[str, Returned]
) -> dict[str, Mask]:
    """Where the outputs of a run have not the bits of the base run, by output."""
    rows, base_rows = owed_rows(run)
    masks = {}
    for name, now in outputs.items():
        was = base.get(name)
        # What is summed over the rows is another sum where there are other rows.
        if was is None or (now.output.shape == "cols" and run.case.shape != was.run.case.shape):
            continue
        differs = was.bits[base_rows] != now.bits[rows]
        if differs.any():
            differs &= ~(np.isnan(was.values[base_rows]) & np.isnan(now.values[rows]))
            if differs.any():
                masks[name] = differs
    return masks


def _minus(mask: Mask, other: Mask | None) -> Mask:
    return mask if other is None else mask & ~other


def _only(item: Judged, wrong: Mask) -> Judged:
    """The judgement with no other elements wrong than these."""
    c = item.comparison
    if np.array_equal(wrong, c.wrong):
        return item
    kept = Comparison(
        c.value_wrong & wrong, c.nonfinite_wrong & wrong, np.where(c.wrong & ~wrong, 0.0, c.ratio)
    )
    return replace(item, comparison=kept)
