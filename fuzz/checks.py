"""The judgement: each check is a function of the evidence, named by the property that holds.

Checks run in the order of CHECKS, from "did it return at all" to "are its bits repeatable". A
check that finds the ground of a later one missing (no output, wrong shape) leaves it nothing to
judge: one fault is reported once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np

from fuzz.case import Case
from fuzz.judging.evidence import Evidence, Judged, Returned, Unexplained, owed_rows
from fuzz.judging.owed import Rows, dtype_of, due_outputs, index_of, shape_of
from fuzz.judging.regions import Mask, classify
from fuzz.relations import HOW, Run
from fuzz.spec import TargetSpec
from fuzz.verdict import Bits, ErrorInfo, Finding, HazardKind, Observation, Signature, Verdict
from oracle.consistency import stretch

Check = Callable[[Evidence], list[Finding]]


def survived(evidence: Evidence) -> list[Finding]:
    """A supported input neither raises, crashes, hangs, nor fails to compile."""
    if evidence.case.refusal is not None and evidence.base.status == "raised":
        return []
    findings = []
    for seen in evidence.observations:
        if seen.status in ("ok", "out_of_bounds", "unsupported", "reported"):
            continue
        error = _error(seen)
        text = f"{seen.status.replace('_', ' ')}: {error.type}: {error.message}"
        kind = f"{seen.status} {error.type}"
        findings.append(Finding("survived", seen.run, "", text, region=kind))
    return findings


def no_out_of_bounds(evidence: Evidence) -> list[Finding]:
    """No access outside the memory that the launch was given."""
    return [
        Finding("no_out_of_bounds", seen.run, "", _error(seen).message, region=_error(seen).type)
        for seen in evidence.observations
        if seen.status == "out_of_bounds"
    ]


def no_uninitialised_reads(evidence: Evidence) -> list[Finding]:
    """No kernel reads memory of an output, of scratch or of the call that nobody has written."""
    return _hazards(evidence, "no_uninitialised_reads", "uninitialised_read")


def no_conflicting_writes(evidence: Evidence) -> list[Finding]:
    """No program writes what another one of its launch reads or writes with other bits."""
    return _hazards(evidence, "no_conflicting_writes", "conflicting_write")


def no_sanitizer_report(evidence: Evidence) -> list[Finding]:
    """A sanitizer that watches the kernel has nothing to report."""
    findings = []
    for seen in evidence.observations:
        for report in seen.reports:
            access = report.access + (f" ({report.tensor!r})" if report.tensor else "")
            where = ", ".join(part for part in (report.kernel, report.place) if part)
            text = f"{report.kind} {access}".rstrip() + f" [{where}]"
            if report.by:
                text += f", first by {report.by}"
            text += f"; {report.count} report{'s' * (report.count != 1)} of {report.tool}"
            region = f"{report.tool} {report.kind} {report.place or report.kernel}"
            findings.append(Finding("no_sanitizer_report", seen.run, "", text, region=region))
    return findings


def sanitizer_of(signature: Signature) -> str | None:
    """The sanitizer that it takes to see a fault again, None where it shows without."""
    if signature.check != no_sanitizer_report.__name__:
        return None
    return signature.region.partition(" ")[0]


def rejects_bad_input(evidence: Evidence) -> list[Finding]:
    """An input that the target declares to refuse is refused: right type, argument named."""
    name = evidence.case.refusal
    if name is None:
        return []
    refusal = next((r for r in evidence.spec.refuses if r.name == name), None)
    if refusal is None:
        raise ValueError(f"refusal={name!r}, must be declared by target {evidence.spec.name!r}")
    seen = evidence.base
    must = f"must raise {refusal.error} naming {refusal.argument!r}"
    if seen.status == "ok":
        return [Finding("rejects_bad_input", "base", "", f"{name}: accepted, {must}", region=name)]
    if seen.status != "raised":
        return []
    error = _error(seen)
    # As a word: an x is in many messages.
    named = re.search(rf"(?<!\w){re.escape(refusal.argument)}(?!\w)", error.message)
    if error.type != refusal.error or named is None:
        text = f"{name}: {error.type}: {error.message}; {must}"
        return [Finding("rejects_bad_input", "base", "", text, region=name)]
    return []


def shape_and_dtype(evidence: Evidence) -> list[Finding]:
    """Every output is there, with the shape and dtype it must have."""
    findings = []
    for run, seen in evidence.returned:
        for output in due_outputs(evidence.spec, run.case):
            array = seen.outputs.get(output.name)
            shape, dtype = shape_of(output, run.case), dtype_of(output, run.case)
            if array is None:
                text = f"{output.name} is missing, must be {dtype}{list(shape)}"
            elif array.shape != shape or array.dtype != dtype:
                text = (
                    f"{output.name} is {array.dtype}{list(array.shape)}, "
                    f"must be {dtype}{list(shape)}"
                )
            else:
                continue
            findings.append(Finding("shape_and_dtype", run.name, output.name, text))
    return findings


def outputs_fully_written(evidence: Evidence) -> list[Finding]:
    """Every element of every output is stored to."""
    findings = []
    beside = {seen.run: seen.neighbours for seen in evidence.observations}
    for (run_name, name), mask in evidence.unwritten.items():
        returned = evidence.outputs[run_name][name]
        region, where = classify(mask, _group_size(returned))
        row, column = (int(i) for i in np.argwhere(mask)[0])
        at = _row(owed_rows(returned.run)[0], row)
        index = index_of(returned.output, returned.run.case, at, column)
        text = (
            f"{_at(name, index)} was never written; {int(mask.sum())} of {mask.size} elements, "
            f"{where}{_how(returned.run)}"
        )
        if name in beside[run_name]:
            text += f"; {beside[run_name][name]}"
        findings.append(
            Finding("outputs_fully_written", run_name, name, text, region, math.inf, index)
        )
    return findings


def redzones_intact(evidence: Evidence) -> list[Finding]:
    """Nothing is stored outside the tensors: before, behind, or between strided rows."""
    return [
        Finding(
            "redzones_intact",
            run.name,
            damage.tensor,
            f"{_bytes(damage.n_bytes)} {_PLACES[damage.place]} {damage.tensor} overwritten, "
            f"first at element {damage.element} of its storage{_how(run)}",
            region=damage.place,
        )
        for run, seen in evidence.returned
        for damage in seen.damage
        if damage.place != "input"
    ]


_PLACES = {"gap": "between the rows of", "before": "before", "after": "behind"}


def inputs_unchanged(evidence: Evidence) -> list[Finding]:
    """Input tensors hold after the call what they held before it."""
    return [
        Finding(
            "inputs_unchanged",
            run.name,
            damage.tensor,
            f"{_bytes(damage.n_bytes)} of input {damage.tensor} changed, first at element "
            f"{damage.element} of its storage{_how(run)}",
        )
        for run, seen in evidence.returned
        for damage in seen.damage
        if damage.place == "input"
    ]


def nonfinite_match(evidence: Evidence) -> list[Finding]:
    """NaN and infinity appear where the reference has them, and nowhere else."""
    return [
        finding
        for judged in evidence.judged
        for finding in _mismatch("nonfinite_match", judged, judged.comparison.nonfinite_wrong)
    ]


def values_within_bound(evidence: Evidence) -> list[Finding]:
    """Every finite element lies within its own error bound."""
    return [
        finding
        for judged in evidence.judged
        for finding in _mismatch("values_within_bound", judged, judged.comparison.value_wrong)
    ]


def statistics_consistent(evidence: Evidence) -> list[Finding]:
    """One mean and one rstd, within their bounds, explain all columns of a row or of a group."""
    return [_unexplained(item) for item in evidence.unexplained]


def no_undefined_lanes(evidence: Evidence) -> list[Finding]:
    """Lanes that a load leaves undefined have no influence: other poison, same bits."""
    if no_uninitialised_reads(evidence):
        # Told already: memory that nobody wrote holds that poison too.
        return []
    return _equal_bits(evidence, "no_undefined_lanes", ("poisoned",))


def repeatable(evidence: Evidence) -> list[Finding]:
    """The same launch gives the same bits, in whatever order its programs run."""
    if no_conflicting_writes(evidence):
        # Told already: the interpreter runs the programs in another order.
        return []
    return _equal_bits(evidence, "repeatable", ("repeat",))


def row_independent(evidence: Evidence) -> list[Finding]:
    """A row's bits do not depend on the number, order or values of the other rows."""
    return _equal_bits(evidence, "row_independent", ("row_alone", "permuted", "drowned"))


def layout_independent(evidence: Evidence) -> list[Finding]:
    """A contiguous copy of the inputs gives the same bits (within one specialisation key)."""
    return _equal_bits(evidence, "layout_independent", ("contiguous",))


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        survived,
        no_out_of_bounds,
        no_uninitialised_reads,
        no_conflicting_writes,
        no_sanitizer_report,
        rejects_bad_input,
        shape_and_dtype,
        outputs_fully_written,
        redzones_intact,
        inputs_unchanged,
        nonfinite_match,
        values_within_bound,
        statistics_consistent,
        repeatable,
        no_undefined_lanes,
        row_independent,
        layout_independent,
    )
}
"""Every check by its name, in the order of judgement."""


def judge(
    spec: TargetSpec,
    case: Case,
    runs: tuple[Run, ...],
    values: dict[str, Bits],
    observations: tuple[Observation, ...],
    *,
    interpreted: bool,
) -> Verdict:
    """The verdict on one executed case.

    ``observations`` answer ``runs`` one to one, the base run first; ``values`` are the dense bits
    of the base case's inputs.
    Raises: ValueError when they do not, or when the case asks for what the spec does not have.
    """
    asked, answered = [r.name for r in runs], [o.run for o in observations]
    if asked != answered or asked[:1] != ["base"]:
        raise ValueError(f"observations={answered}, must answer runs={asked}, base first [judge]")
    base = observations[0]
    if base.status == "unsupported":
        return Verdict(case.case_id, "skip", reason=_error(base).message)
    evidence = Evidence(spec, case, runs, values, observations, interpreted)
    with np.errstate(all="ignore"):
        findings = [finding for check in CHECKS.values() for finding in check(evidence)]
    return Verdict(
        case.case_id,
        "fail" if findings else "pass",
        findings=_once(findings, asked),
        ratios=_ratios(evidence),
    )


OTHER_REGIONS = (
    "first columns",
    "middle columns",
    "one column",
    "one row",
    "some rows",
    "some groups",
)
"""Regions that say where one case failed; another case of the same fault fails elsewhere."""


def signature(case: Case, finding: Finding) -> Signature:
    """What makes two failures the same fault: its region is one that shapes do not move."""
    dtype_class = "single" if case.dtype == "float32" else "half"
    region = "scattered" if finding.region in OTHER_REGIONS else finding.region
    return Signature(case.target, finding.output, finding.check, dtype_class, region)


def _error(seen: Observation) -> ErrorInfo:
    """What ended a run. Raises: ValueError where nothing did."""
    if seen.error is None:
        raise ValueError(f"error=None, must be given where status={seen.status!r} [judge]")
    return seen.error


def _mismatch(check: str, judged: Judged, wrong: Mask) -> list[Finding]:
    if not wrong.any():
        return []
    returned, expected = judged.returned, judged.expected
    name, dtype = returned.output.name, returned.array.dtype
    region, where = classify(wrong, _group_size(returned))
    ratio = np.where(wrong, judged.comparison.ratio, -1.0)
    row, column = (int(i) for i in np.unravel_index(int(ratio.argmax()), ratio.shape))
    worst = float(ratio[row, column])
    index = index_of(returned.output, returned.run.case, _row(judged.rows, row), column)
    seen = _shortest(float(returned.values[judged.rows][row, column]), dtype)
    owed = _owed(float(expected.value[row, column]), float(expected.tolerance[row, column]))
    size = f" (error/bound {worst:.3g})" if math.isfinite(worst) else ""
    text = (
        f"{_at(name, index)}={seen} ({dtype}), but should be {owed}{size}; "
        f"{int(wrong.sum())} of {wrong.size} elements, {where}{_how(returned.run)}"
    )
    return [Finding(check, returned.run.name, name, text, region, worst, index)]


def _unexplained(item: Unexplained) -> Finding:
    judged, groups, problem = item.judged, item.groups, item.rows.problem
    returned = judged.returned
    name, size = returned.output.name, problem.group_size
    row, group = (int(i) for i in np.argwhere(groups)[0])
    factor = stretch(item.rows, row, group)
    index = index_of(returned.output, returned.run.case, _row(judged.rows, row), group * size)
    which, explain = "mean and rstd", "explain"
    if problem.is_rms_norm:
        which, explain = "rstd", "explains"
    text = f"{_at(name, index)} and the {size - 1} elements after it ({returned.array.dtype}): "
    if math.isfinite(factor):
        text += f"no {which} within bounds {explain} them together, "
        text += f"only errors {factor:.3g} times as large"
    else:
        text += f"no {which} {explain} them together"
    kind = "rows" if groups.shape[1] == 1 else "groups"
    text += f"; {int(groups.sum())} of {groups.size} {kind}{_how(returned.run)}"
    check = statistics_consistent.__name__
    return Finding(check, returned.run.name, name, text, ratio=factor, index=index)


def _hazards(evidence: Evidence, check: str, kind: HazardKind) -> list[Finding]:
    # What becomes of an input that must be refused is told by another check.
    if evidence.case.refusal is not None:
        return []
    findings = []
    for run, seen in zip(evidence.runs, evidence.observations, strict=True):
        for hazard in seen.hazards:
            if hazard.kind == kind:
                times = f"; {hazard.count} times" if hazard.count > 1 else ""
                text = f"{hazard.message}{times}{_how(run)}"
                # Its function, since programs, elements and even lines differ between cases.
                findings.append(Finding(check, run.name, hazard.tensor, text, hazard.function))
    return findings


def _equal_bits(evidence: Evidence, check: str, names: tuple[str, ...]) -> list[Finding]:
    """Runs that owe the base run's bits, row by row, and have others."""
    findings = []
    for (run_name, name), mask in evidence.unequal.items():
        if run_name not in names:
            continue
        was, now = evidence.outputs["base"][name], evidence.outputs[run_name][name]
        rows, base_rows = owed_rows(now.run)
        row, column = (int(i) for i in np.argwhere(mask)[0])
        index = index_of(was.output, was.run.case, _row(base_rows, row), column)
        dtype = was.array.dtype
        before = _shortest(float(was.values[base_rows][row, column]), dtype)
        after = _shortest(float(now.values[rows][row, column]), dtype)
        # Among the rows of the case, as the index is.
        in_base = np.zeros(was.bits.shape, dtype=np.bool_)
        in_base[base_rows] = mask
        _, where = classify(in_base, _group_size(was))
        text = (
            f"{_at(name, index)}={before} ({dtype}), but {after}{_how(now.run)}; "
            f"{int(mask.sum())} of {mask.size} elements, {where}"
        )
        findings.append(Finding(check, run_name, name, text, run_name, index=index))
    return findings


def _ratios(evidence: Evidence) -> dict[str, float]:
    """Largest error/bound of each output over all runs."""
    ratios: dict[str, float] = {}
    for item in evidence.judged:
        if item.comparison.ratio.size:
            name, worst = item.returned.output.name, float(item.comparison.ratio.max())
            ratios[name] = max(worst, ratios.get(name, 0.0))
    return ratios


_OF_PLACES = ("no_uninitialised_reads", "no_conflicting_writes", "no_sanitizer_report")


def _once(findings: list[Finding], runs: list[str]) -> tuple[Finding, ...]:
    """The first finding of each property and output, in the first run that shows it.

    Later runs repeat what earlier ones showed, in other regions where they have other rows.
    """
    first: dict[tuple[str, str, str], Finding] = {}
    for finding in sorted(findings, key=lambda f: runs.index(f.run)):
        # Sides of one property: a wrong sum overflows in some elements and not in others, and
        # statistics that are out of bounds carry their elements with them, or do not.
        of_values = finding.check in (
            "nonfinite_match",
            "values_within_bound",
            "statistics_consistent",
        )
        # Where a finding names a place in the kernel, each place is a fault of its own.
        place = finding.region if finding.check in _OF_PLACES else ""
        about = ("values" if of_values else finding.check, finding.output, place)
        first.setdefault(about, finding)
    kept = list(first.values())
    return tuple(finding for finding in findings if finding in kept)


def _group_size(returned: Returned) -> int:
    """Columns of a group in an output's rows and columns; 0 where they have no groups."""
    if returned.output.shape == "groups":
        return 1
    return returned.run.case.group_size if returned.output.shape == "full" else 0


def _row(rows: Rows, number: int) -> int:
    return number if isinstance(rows, slice) else rows[number]


def _at(name: str, index: tuple[int, ...]) -> str:
    return f"{name}{list(index)}" if index else name


def _how(run: Run) -> str:
    return f" {HOW[run.name]}" if run.name in HOW else ""


def _bytes(number: int) -> str:
    return f"{number} byte{'s' if number != 1 else ''}"


def _shortest(value: float, dtype: str) -> str:
    """Enough digits to tell a value from its neighbours in the format."""
    if dtype == "float32":
        return str(np.float32(value))
    return str(np.float16(value)) if dtype == "float16" else f"{value:.4g}"


def _owed(value: float, tolerance: float) -> str:
    """What is owed, to the second digit of its tolerance."""
    if not math.isfinite(value):
        return f"{value}"
    if tolerance == 0.0:
        return f"exactly {value:.9g}"
    if value == 0.0 or not math.isfinite(tolerance):
        return f"{value:.6g} +- {tolerance:.2g}"
    digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(tolerance)) + 2
    return f"{value:.{min(max(digits, 2), 17)}g} +- {tolerance:.2g}"
