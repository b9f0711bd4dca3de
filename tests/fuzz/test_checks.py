"""Every check passes a correct kernel, and catches its own planted fault: once, by its name."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fuzz.case import Case, Recipe
from fuzz.checks import CHECKS, OTHER_REGIONS, judge, signature
from fuzz.relations import HOW, Run
from fuzz.space.budget import Budget
from fuzz.spec import TargetSpec
from fuzz.strategies import draw_cases
from fuzz.verdict import (
    Damage,
    ErrorInfo,
    Finding,
    Hazard,
    Observation,
    Report,
    Signature,
    Verdict,
)
from oracle.formats import decode, encode
from tests.fuzz.builders import (
    ALL_RELATIONS,
    GATED,
    LAYER_NORM,
    NATIVE,
    RESIDUAL,
    SPECS,
    Fault,
    edited,
    judge_case,
    make_case,
    observe,
    planted,
    poison_of,
)

Change = Callable[[npt.NDArray[Any]], None]

SMALL = Budget(max_programs=64, max_elements=4000, max_cols=2000, max_steps=64, all_relations=True)

STRIDED = make_case(
    GATED,
    (4, 48),
    strides={"x": (64, 1)},
    absent=("out",),
    flags={"group_size": 12},
    relations=ALL_RELATIONS,
)
PLAIN = make_case(
    LAYER_NORM, (4, 200), strides={"x": (208, 1)}, absent=("out",), relations=ALL_RELATIONS
)
HALF = replace(
    PLAIN, tensors=tuple(replace(t, dtype="bfloat16") for t in PLAIN.tensors), relations=()
)

FAR = replace(
    PLAIN,
    tensors=tuple(
        replace(t, values=replace(t.values, mean=1000.0)) if t.values and t.name == "x" else t
        for t in PLAIN.tensors
    ),
)


def scale(seen: Observation, name: str, factor: float) -> Observation:
    """Multiply the values of an output."""
    dtype = seen.outputs[name].dtype

    def change(bits: npt.NDArray[Any]) -> None:
        bits[...] = encode(factor * decode(bits, dtype), dtype)

    return edited(seen, name, change)


def add(seen: Observation, name: str, amount: float, where: Any = ...) -> Observation:
    """Add to the values of an output."""
    dtype = seen.outputs[name].dtype

    def change(bits: npt.NDArray[Any]) -> None:
        values = decode(bits, dtype)
        values[where] += amount
        bits[...] = encode(values, dtype)

    return edited(seen, name, change)


def next_up(seen: Observation, name: str, where: Any = ...) -> Observation:
    """Move an output to the neighbouring bit pattern: within any bound."""

    def change(bits: npt.NDArray[Any]) -> None:
        bits[where] += 1

    return edited(seen, name, change)


def in_every_run(change: Callable[[Observation], Observation]) -> Fault:
    return lambda run, seen: change(seen)


def in_run(name: str, change: Callable[[Observation], Observation]) -> Fault:
    return lambda run, seen: change(seen) if run.name == name else seen


def unwritten(name: str, where: Any = ...) -> Fault:
    """Part of an output is left as it was allocated."""

    def fault(run: Run, seen: Observation) -> Observation:
        def change(bits: npt.NDArray[Any]) -> None:
            bits[where] = poison_of(run, seen.outputs[name].dtype)

        return edited(seen, name, change)

    return fault


def other_key(run: Run, seen: Observation) -> Observation:
    """Each run is a specialisation of its own, so that no equal bits are owed."""
    return replace(seen, key=(run.name,))


def ended(status: Any, type_: str, message: str) -> Callable[[Observation], Observation]:
    error = ErrorInfo(type_, message)
    return lambda seen: Observation(seen.run, status, error=error)


def with_hazard(seen: Observation, hazard: Hazard) -> Observation:
    return replace(seen, hazards=(hazard,))


UNINITIALISED = Hazard("uninitialised_read", "sums_ptr", "_rows", "read of uninitialised", 12)
REPORT = Report("memcheck", "Invalid __global__ read", "_kernel", "kernel.py:8")
CONFLICT = Hazard(
    "conflicting_write", "y_ptr", "store", "write to 'y_ptr', where program (0, 0, 0)"
)


def only(verdict: Verdict) -> Finding:
    """The one finding of a verdict."""
    assert verdict.status == "fail"
    assert len(verdict.findings) == 1, [f.message for f in verdict.findings]
    return verdict.findings[0]


def kind(finding: Finding) -> tuple[str, str, str]:
    return finding.check, finding.output, finding.region


# --- correct kernels ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_correct_kernel_passes(name: str) -> None:
    spec = replace(SPECS[name], refuses=())
    for case in draw_cases(spec, seed=7, count=150, budget=SMALL):
        verdict = judge_case(spec, case)
        assert verdict.status == "pass", [f.message for f in verdict.findings]
        assert all(0.0 <= ratio <= 1.0 for ratio in verdict.ratios.values())
        if case.n_rows:
            assert "y" in verdict.ratios


@pytest.mark.parametrize("name", SPECS)
def test_correct_kernel_passes_where_no_equal_bits_are_owed(name: str) -> None:
    # Bits differ in the last place between specialisations, and are then judged by the bounds.
    spec = replace(SPECS[name], refuses=())
    fault = differing_last_places(spec)
    for case in draw_cases(spec, seed=8, count=60, budget=SMALL):
        verdict = judge_case(spec, case, fault)
        assert verdict.status == "pass", [f.message for f in verdict.findings]


def differing_last_places(spec: TargetSpec) -> Fault:
    def fault(run: Run, seen: Observation) -> Observation:
        seen = other_key(run, seen)
        if run.name in ("base", "repeat", "poisoned") or "rstd" not in seen.outputs:
            return seen
        array = seen.outputs["rstd"]
        assert array.dtype == "float32"
        values = decode(array.bits, "float32")
        # Where y is judged from this rstd, an ulp of it stays within y's own bound.
        step = np.where((values > 1e-30) & (values < 1e30), 1, 0).astype(np.uint32)
        return edited(seen, "rstd", lambda bits: np.add(bits, step, out=bits))

    return fault


@pytest.mark.parametrize("check", CHECKS)
def test_check_finds_nothing_in_a_correct_kernel(check: str) -> None:
    for spec, case in ((GATED, STRIDED), (LAYER_NORM, PLAIN), (LAYER_NORM, HALF)):
        assert all(f.check != check for f in judge_case(spec, case).findings)


def test_verdict_tells_the_largest_ratio_of_each_output() -> None:
    verdict = judge_case(GATED, STRIDED)
    assert verdict == Verdict(STRIDED.case_id, "pass", ratios=verdict.ratios)
    assert set(verdict.ratios) == {"y", "mean", "rstd"}


@pytest.mark.parametrize("shape", [(0, 200), (3, 0, 200)])
@pytest.mark.parametrize("spec", [LAYER_NORM, NATIVE, RESIDUAL, GATED], ids=lambda s: s.name)
def test_correct_kernel_passes_an_empty_batch(spec: TargetSpec, shape: tuple[int, ...]) -> None:
    verdict = judge_case(spec, make_case(spec, shape, relations=ALL_RELATIONS))
    assert verdict.status == "pass"
    assert verdict.ratios == {}


def test_results_that_look_like_poison_are_no_fault() -> None:
    # 0x7B7B is 61280 in float16: an ordinary value, which this bias asks for in one column.
    bias = Recipe("zeros", mean=61280.0)
    case = make_case(
        LAYER_NORM,
        (4, 16),
        dtype="float16",
        absent=("weight", "out"),
        values={"x": Recipe("zeros"), "bias": bias},
        seed=1,
        relations=("poisoned", "permuted"),
    )
    runs, values, observations = observe(LAYER_NORM, case)
    assert runs[1].poison == "huge"
    assert (observations[0].outputs["y"].bits == poison_of(runs[1], "float16")).all()
    verdict = judge(LAYER_NORM, case, runs, values, observations, interpreted=True)
    assert verdict.status == "pass"


def test_nan_of_the_inputs_with_the_bits_of_poison_is_no_fault_where_other_poison_is_tried() -> (
    None
):
    case = make_case(
        LAYER_NORM,
        (4, 16),
        absent=("out",),
        values={"x": planted(3, "nan")},
        relations=("poisoned",),
    )

    def fault(run: Run, seen: Observation) -> Observation:
        return edited(seen, "y", lambda bits: bits.__setitem__(0, 0xFFFFFFFF))

    assert judge_case(LAYER_NORM, case, fault).status == "pass"
    alone = replace(case, relations=())
    assert kind(only(judge_case(LAYER_NORM, alone, fault)))[0] == "outputs_fully_written"


def test_nan_with_the_bits_of_poison_is_no_fault_of_another_run() -> None:
    case = make_case(
        LAYER_NORM,
        (4, 16),
        strides={"x": (20, 1)},
        absent=("out",),
        values={"x": planted(3, "nan")},
        relations=("poisoned", "contiguous"),
    )

    def fault(run: Run, seen: Observation) -> Observation:
        seen = edited(seen, "y", lambda bits: bits.__setitem__(0, 0xFFFFFFFF))
        return next_up(seen, "y", (2, 5)) if run.name == "contiguous" else seen

    assert kind(only(judge_case(LAYER_NORM, case, fault)))[0] == "layout_independent"


# --- each check and its own fault -----------------------------------------------------------------


def bits_of(dtype: str, value: float) -> int:
    return int(encode(np.array([value]), dtype)[0])


FAULTS: list[tuple[str, TargetSpec, Case, Fault, tuple[str, str, str]]] = [
    (
        "raised",
        LAYER_NORM,
        PLAIN,
        in_every_run(ended("raised", "ValueError", "x.stride=(208, 1), must be contiguous")),
        ("survived", "", "raised ValueError"),
    ),
    (
        "crashed in one run",
        LAYER_NORM,
        PLAIN,
        in_run("row_alone", ended("crashed", "SIGSEGV", "the kernel process died of SIGSEGV")),
        ("survived", "", "crashed SIGSEGV"),
    ),
    (
        "timed out",
        LAYER_NORM,
        PLAIN,
        in_every_run(ended("timed_out", "TimeLimit", "no answer within 20 s")),
        ("survived", "", "timed_out TimeLimit"),
    ),
    (
        "compile error",
        LAYER_NORM,
        PLAIN,
        in_run("contiguous", ended("compile_error", "CompilationError", "at 3:4")),
        ("survived", "", "compile_error CompilationError"),
    ),
    (
        "out of bounds",
        LAYER_NORM,
        PLAIN,
        in_every_run(ended("out_of_bounds", "OutOfBounds", "load of x behind its end")),
        ("no_out_of_bounds", "", "OutOfBounds"),
    ),
    (
        "missing output",
        NATIVE,
        make_case(NATIVE, (4, 16), relations=ALL_RELATIONS),
        in_every_run(
            lambda s: replace(s, outputs={"y": s.outputs["y"], "mean": s.outputs["mean"]})
        ),
        ("shape_and_dtype", "rstd", ""),
    ),
    (
        "wrong shape",
        NATIVE,
        make_case(NATIVE, (4, 16), relations=ALL_RELATIONS),
        in_every_run(
            lambda s: replace(
                s,
                outputs={
                    **s.outputs,
                    "mean": replace(
                        s.outputs["mean"],
                        shape=s.outputs["mean"].shape[:1],
                        bits=s.outputs["mean"].bits[:, 0],
                    ),
                },
            )
        ),
        ("shape_and_dtype", "mean", ""),
    ),
    (
        "uninitialised read",
        LAYER_NORM,
        PLAIN,
        in_every_run(lambda s: with_hazard(s, UNINITIALISED)),
        ("no_uninitialised_reads", "sums_ptr", "_rows"),
    ),
    (
        "uninitialised read that shows in the result",
        LAYER_NORM,
        PLAIN,
        lambda run, s: with_hazard(
            next_up(s, "y", (0, 7)) if run.name == "poisoned" else s, UNINITIALISED
        ),
        ("no_uninitialised_reads", "sums_ptr", "_rows"),
    ),
    (
        "conflicting writes",
        LAYER_NORM,
        PLAIN,
        in_run("permuted", lambda s: with_hazard(s, CONFLICT)),
        ("no_conflicting_writes", "y_ptr", "store"),
    ),
    (
        "conflicting writes that show in the result",
        LAYER_NORM,
        PLAIN,
        in_run("repeat", lambda s: with_hazard(next_up(s, "y", (0, 7)), CONFLICT)),
        ("no_conflicting_writes", "y_ptr", "store"),
    ),
    (
        "sanitizer report",
        LAYER_NORM,
        PLAIN,
        in_run("repeat", lambda s: replace(s, reports=(REPORT,))),
        ("no_sanitizer_report", "", "memcheck Invalid __global__ read kernel.py:8"),
    ),
    (
        "sanitizer report that ended the kernel",
        LAYER_NORM,
        PLAIN,
        in_every_run(lambda s: Observation(s.run, "reported", reports=(REPORT,))),
        ("no_sanitizer_report", "", "memcheck Invalid __global__ read kernel.py:8"),
    ),
    (
        "unwritten tail",
        LAYER_NORM,
        PLAIN,
        unwritten("y", (..., slice(128, None))),
        ("outputs_fully_written", "y", "tail columns"),
    ),
    (
        "unwritten row",
        LAYER_NORM,
        replace(PLAIN, relations=("poisoned",)),
        unwritten("y", (-1, slice(None))),
        ("outputs_fully_written", "y", "last row"),
    ),
    (
        "unwritten statistic of a group",
        GATED,
        STRIDED,
        unwritten("rstd", slice(-1, None)),
        ("outputs_fully_written", "rstd", "scattered"),
    ),
    (
        "unwritten in one run",
        LAYER_NORM,
        PLAIN,
        lambda run, seen: unwritten("y")(run, seen) if run.name == "contiguous" else seen,
        ("outputs_fully_written", "y", "everywhere"),
    ),
    (
        "gap overwritten",
        LAYER_NORM,
        PLAIN,
        in_every_run(lambda s: replace(s, damage=(Damage("out", "gap", 200, 32),))),
        ("redzones_intact", "out", "gap"),
    ),
    (
        "written behind the end",
        LAYER_NORM,
        PLAIN,
        in_run("row_alone", lambda s: replace(s, damage=(Damage("out", "after", 800, 4),))),
        ("redzones_intact", "out", "after"),
    ),
    (
        "input changed",
        LAYER_NORM,
        PLAIN,
        in_every_run(lambda s: replace(s, damage=(Damage("x", "input", 0, 800),))),
        ("inputs_unchanged", "x", ""),
    ),
    (
        "NaN in a row",
        LAYER_NORM,
        PLAIN,
        in_every_run(lambda s: add(s, "y", math.nan, (-1, slice(None)))),
        ("nonfinite_match", "y", "last row"),
    ),
    (
        "infinity for a value",
        LAYER_NORM,
        HALF,
        in_every_run(lambda s: add(s, "y", math.inf)),
        ("nonfinite_match", "y", "everywhere"),
    ),
    (
        "a value for NaN",
        LAYER_NORM,
        replace(
            make_case(LAYER_NORM, (4, 16), absent=("out",), values={"x": planted(3, "nan")}),
        ),
        in_every_run(lambda s: edited(s, "y", lambda bits: bits.__setitem__(0, 0))),
        ("nonfinite_match", "y", "one row"),
    ),
    (
        "wrong tail",
        LAYER_NORM,
        PLAIN,
        in_every_run(lambda s: add(s, "y", 1e-4, (..., slice(128, None)))),
        ("values_within_bound", "y", "tail columns"),
    ),
    (
        "wrong group",
        GATED,
        STRIDED,
        in_every_run(lambda s: add(s, "y", 1e-3, (..., slice(12, 24)))),
        ("values_within_bound", "y", "one group"),
    ),
    (
        "wrong mean of a group",
        GATED,
        STRIDED,
        # Group-major: the entries of group 1.
        lambda run, s: add(s, "mean", 1e-3, slice(run.case.n_rows, 2 * run.case.n_rows)),
        ("values_within_bound", "mean", "one group"),
    ),
    (
        "scaled far from zero",
        LAYER_NORM,
        FAR,
        # Each element may lie as far off as the mean may, but not all of them alike.
        in_every_run(lambda s: scale(s, "y", 1.00001)),
        ("statistics_consistent", "y", ""),
    ),
    (
        "not repeated",
        LAYER_NORM,
        PLAIN,
        in_run("repeat", lambda s: next_up(s, "y", (0, 7))),
        ("repeatable", "y", "repeat"),
    ),
    (
        "undefined lanes",
        LAYER_NORM,
        PLAIN,
        in_run("poisoned", lambda s: next_up(s, "y", (0, 7))),
        ("no_undefined_lanes", "y", "poisoned"),
    ),
    *(
        (
            f"other rows seen by {name}",
            LAYER_NORM,
            PLAIN,
            in_run(name, lambda s: next_up(s, "y", (slice(None), 7))),
            ("row_independent", "y", name),
        )
        for name in ("row_alone", "permuted", "drowned")
    ),
    (
        "layout seen",
        LAYER_NORM,
        PLAIN,
        in_run("contiguous", lambda s: next_up(s, "y", (0, 7))),
        ("layout_independent", "y", "contiguous"),
    ),
]


FAULTS_BY_NAME = {name: fault for name, _, _, fault, _ in FAULTS}


@pytest.mark.parametrize(
    ("spec", "case", "fault", "expected"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_check_catches_its_fault_once(
    spec: TargetSpec, case: Case, fault: Fault, expected: tuple[str, str, str]
) -> None:
    assert judge_case(spec, case).status == "pass"
    finding = only(judge_case(spec, case, fault))
    assert kind(finding) == expected
    dtype_class = "half" if case.dtype == "bfloat16" else "single"
    region = "scattered" if expected[2] in OTHER_REGIONS else expected[2]
    assert signature(case, finding) == Signature(
        case.target, expected[1], expected[0], dtype_class, region
    )


def test_every_check_has_a_fault_that_it_catches() -> None:
    assert {fault[-1][0] for fault in FAULTS} | {"rejects_bad_input"} == set(CHECKS)
    assert all(check.__doc__ for check in CHECKS.values())


def test_hazard_is_told_with_its_count_and_its_run() -> None:
    finding = only(judge_case(LAYER_NORM, PLAIN, FAULTS_BY_NAME["uninitialised read"]))
    assert (finding.run, finding.message) == ("base", "read of uninitialised; 12 times")
    finding = only(judge_case(LAYER_NORM, PLAIN, FAULTS_BY_NAME["conflicting writes"]))
    assert finding.run == "permuted"
    assert finding.message == f"{CONFLICT.message} {HOW['permuted']}"


def test_hazards_of_tensors_and_functions_are_findings_each() -> None:
    other = replace(UNINITIALISED, tensor="squares_ptr")
    # A reader and a writer are at fault alike.
    reader = replace(CONFLICT, function="load", message="read of 'y_ptr'")
    again = replace(CONFLICT, message="write to 'y_ptr', in another line")
    hazards = (UNINITIALISED, other, CONFLICT, reader, again)
    fault = in_every_run(lambda s: replace(s, hazards=hazards))
    findings = judge_case(LAYER_NORM, PLAIN, fault).findings
    assert [kind(f) for f in findings] == [
        ("no_uninitialised_reads", "sums_ptr", "_rows"),
        ("no_uninitialised_reads", "squares_ptr", "_rows"),
        ("no_conflicting_writes", "y_ptr", "store"),
        ("no_conflicting_writes", "y_ptr", "load"),
    ]
    assert [f.message for f in findings[2:]] == [CONFLICT.message, reader.message]


def test_hazard_counts_in_a_run_that_ended_otherwise() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        seen = ended("out_of_bounds", "OutOfBounds", "read outside 'x_ptr'")(seen)
        return with_hazard(seen, UNINITIALISED)

    findings = judge_case(LAYER_NORM, replace(PLAIN, relations=()), fault).findings
    assert [f.check for f in findings] == ["no_out_of_bounds", "no_uninitialised_reads"]


def test_unwritten_elements_are_told_with_who_wrote_beside_them() -> None:
    told = "program (3, 0, 0) wrote y[3, 0:128] at kernel.py:8"

    def fault(run: Run, seen: Observation) -> Observation:
        beside = {"y": told} if run.name == "base" else {}
        return replace(unwritten("y", (-1, slice(128, None)))(run, seen), neighbours=beside)

    finding = only(judge_case(LAYER_NORM, PLAIN, fault))
    assert finding.message.startswith("y[3, 128] was never written; 72 of 800 elements, ")
    assert finding.message.endswith(f"; {told}")


# --- one fault, one finding -----------------------------------------------------------------------


def test_unwritten_elements_are_not_wrong_values_too() -> None:
    # Nor is what is read from a statistic that was not written.
    for name in ("y", "mean", "rstd"):
        for case in (STRIDED, replace(STRIDED, relations=())):
            finding = only(judge_case(GATED, case, unwritten(name)))
            assert (finding.check, finding.output) == ("outputs_fully_written", name)


def test_unwritten_sum_is_not_a_wrong_result_too() -> None:
    case = make_case(RESIDUAL, (4, 64), relations=("contiguous",), strides={"x": (80, 1)})
    for fault in (unwritten("sum"), lambda run, seen: unwritten("sum")(run, other_key(run, seen))):
        finding = only(judge_case(RESIDUAL, case, fault))
        assert (finding.check, finding.output) == ("outputs_fully_written", "sum")


def test_unwritten_elements_do_not_hide_wrong_ones_beside_them() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        return unwritten("y", (..., slice(100, None)))(run, add(seen, "y", 1.0))

    found = {f.check: f for f in judge_case(LAYER_NORM, PLAIN, fault).findings}
    assert set(found) == {"outputs_fully_written", "values_within_bound"}
    assert "; 400 of 800 elements, all in columns <= 99" in found["values_within_bound"].message


def test_what_follows_from_a_wrong_statistic_is_charged_to_it() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        # y is right, so that it does not follow from this mean: one fault, in one output.
        return add(seen, "mean", 0.5)

    assert only(judge_case(GATED, STRIDED, fault)).output == "mean"


def test_what_follows_from_a_wrong_sum_is_charged_to_it() -> None:
    case = make_case(RESIDUAL, (4, 64), relations=ALL_RELATIONS)
    finding = only(judge_case(RESIDUAL, case, in_every_run(lambda s: add(s, "sum", 1.0, (-1, 7)))))
    assert (finding.output, finding.index) == ("sum", (3, 7))


def test_other_rows_are_still_judged_where_a_statistic_is_wrong() -> None:
    case = replace(STRIDED, relations=())

    def fault(run: Run, seen: Observation) -> Observation:
        return add(add(seen, "mean", 0.5, 0), "y", 0.5, (slice(None), 0))

    found = {f.output: f for f in judge_case(GATED, case, fault).findings}
    # Row 0 of group 0 is charged to the mean; rows 1 to 3 of column 0 are not.
    assert set(found) == {"mean", "y"}
    assert "; 3 of 192 elements" in found["y"].message


def test_nan_beside_wrong_values_is_one_fault() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        return add(add(seen, "y", 1.0), "y", math.nan, (0, slice(None)))

    assert only(judge_case(LAYER_NORM, PLAIN, fault)).check == "nonfinite_match"


def test_bits_that_do_not_repeat_are_not_wrong_values_too() -> None:
    random = np.random.default_rng(1)

    def fault(run: Run, seen: Observation) -> Observation:
        return add(seen, "y", random.standard_normal(seen.outputs["y"].bits.shape))

    finding = only(judge_case(LAYER_NORM, PLAIN, fault))
    assert kind(finding) == ("repeatable", "y", "repeat")


def test_bits_that_do_not_repeat_say_nothing_of_other_runs() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        # The base run is right, and every other run has other bits.
        names = ("base", *ALL_RELATIONS)
        return edited(seen, "y", lambda bits: np.add(bits, names.index(run.name), out=bits))

    finding = only(judge_case(LAYER_NORM, PLAIN, fault))
    assert kind(finding) == ("repeatable", "y", "repeat")


def test_lanes_of_poison_are_not_wrong_values_too() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        # NaN poisons the row; huge poison shifts it.
        return add(seen, "y", math.nan if run.poison == "nan" else 1e30, (0, slice(None)))

    finding = only(judge_case(LAYER_NORM, replace(PLAIN, relations=ALL_RELATIONS[:2]), fault))
    assert kind(finding) == ("no_undefined_lanes", "y", "poisoned")


def test_lanes_of_poison_in_a_statistic_are_charged_to_it() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        amount = math.nan if run.poison == "nan" else 1e30
        for name in ("mean", "rstd", "y"):
            seen = add(seen, name, amount)
        return seen

    finding = only(judge_case(GATED, STRIDED, fault))
    assert kind(finding) == ("no_undefined_lanes", "mean", "poisoned")


def test_fault_of_the_base_run_is_not_repeated_for_runs_where_it_looks_otherwise() -> None:
    # Wrong in the last row of every run: another row of the case in each of them.
    fault = in_every_run(lambda s: add(s, "y", 1e-3, (-1, slice(None))))
    finding = only(judge_case(LAYER_NORM, PLAIN, fault))
    assert (finding.run, kind(finding)) == ("base", ("values_within_bound", "y", "last row"))


def test_fault_that_half_precision_hides_in_places_is_not_repeated_for_other_runs() -> None:
    # Seen in few elements of the base run; the others differ from a right run by less than that.
    case = replace(HALF, relations=("row_alone", "contiguous"))

    def fault(run: Run, seen: Observation) -> Observation:
        return next_up(seen, "y") if run.name == "base" else seen

    finding = only(judge_case(LAYER_NORM, case, fault))
    assert (finding.run, finding.check) == ("base", "values_within_bound")


def test_what_follows_from_a_wrong_statistic_is_not_seen_in_other_runs_either() -> None:
    case = make_case(NATIVE, (4, 64), absent=("weight", "bias"), seed=4, relations=("row_alone",))

    def fault(run: Run, seen: Observation) -> Observation:
        if run.name != "base":
            return seen
        # y is right by this rstd, but the row alone has another one.
        for name in ("rstd", "y"):
            doubled = decode(seen.outputs[name].bits[0], "float32")
            seen = add(seen, name, doubled, 0)
        return seen

    finding = only(judge_case(NATIVE, case, fault))
    assert (finding.run, finding.output) == ("base", "rstd")


def test_damage_of_one_tensor_is_one_finding() -> None:
    damage = (Damage("out", "before", -4, 16), Damage("out", "after", 800, 16))
    finding = only(judge_case(LAYER_NORM, PLAIN, in_every_run(lambda s: replace(s, damage=damage))))
    assert finding.region == "before"


def test_faults_of_two_tensors_are_two_findings() -> None:
    damage = (Damage("x", "input", 0, 4), Damage("weight", "input", 8, 4))
    verdict = judge_case(LAYER_NORM, PLAIN, in_every_run(lambda s: replace(s, damage=damage)))
    assert [f.output for f in verdict.findings] == ["x", "weight"]


# --- runs of another specialisation ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["contiguous", "row_alone", "permuted", "drowned"])
def test_run_of_another_specialisation_owes_the_bound_alone(name: str) -> None:
    def fault(amount: float) -> Fault:
        def change(run: Run, seen: Observation) -> Observation:
            seen = other_key(run, seen)
            return add(seen, "y", amount, (..., slice(150, None))) if run.name == name else seen

        return change

    assert judge_case(LAYER_NORM, PLAIN, fault(1e-8)).status == "pass"
    finding = only(judge_case(LAYER_NORM, PLAIN, fault(1e-3)))
    assert (finding.run, kind(finding)) == (name, ("values_within_bound", "y", "tail columns"))
    assert finding.message.endswith(f"all in columns >= 150 {HOW[name]}")


@pytest.mark.parametrize("name", ["contiguous", "row_alone", "permuted"])
def test_run_of_another_specialisation_is_judged_from_its_own_statistics(name: str) -> None:
    # Another order of summation moves a mean of 1000 by some ulp (6e-5 each), and y with it, by
    # much more than y's own error.
    shift = 3 * 2.0**-14

    def fault(run: Run, seen: Observation) -> Observation:
        seen = other_key(run, seen)
        if run.name != name:
            return seen
        rstd = decode(seen.outputs["rstd"].bits, "float32")
        moved = add(seen, "mean", shift)
        return add(moved, "y", -shift * rstd)

    case = make_case(
        NATIVE,
        (4, 512),
        strides={"x": (520, 1)},
        absent=("weight", "bias"),
        values={"x": Recipe("normal", mean=1000.0)},
        relations=(name,),
    )
    assert judge_case(NATIVE, case, fault).status == "pass"
    alone = only(
        judge_case(NATIVE, case, lambda run, seen: y_of(fault(run, seen), seen, name, run))
    )
    assert (alone.run, alone.output) == (name, "y")


def y_of(faulty: Observation, right: Observation, name: str, run: Run) -> Observation:
    """The faulty observation with the right mean."""
    return replace(faulty, outputs={**faulty.outputs, "mean": right.outputs["mean"]})


def test_unknown_keys_owe_no_equal_bits() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        seen = replace(seen, key=None)
        same = run.name in ("base", "repeat", "poisoned")
        return seen if same else add(seen, "y", 1e-8)

    assert judge_case(LAYER_NORM, PLAIN, fault).status == "pass"


@pytest.mark.parametrize("name", ["repeat", "poisoned"])
def test_same_launch_owes_equal_bits_whatever_the_keys(name: str) -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        seen = replace(seen, key=None)
        return next_up(seen, "y", (2, 3)) if run.name == name else seen

    assert only(judge_case(LAYER_NORM, PLAIN, fault)).run == name


@pytest.mark.parametrize("name", ["repeat", "poisoned", "permuted"])
def test_kernel_that_adds_by_atomics_owes_equal_bits_in_one_order_alone(name: str) -> None:
    spec = replace(LAYER_NORM, repeatable=False)

    def fault(run: Run, seen: Observation) -> Observation:
        return next_up(seen, "y", (2, 3)) if run.name == name else seen

    assert judge_case(spec, PLAIN, fault, interpreted=False).status == "pass"
    in_one_order = judge_case(spec, PLAIN, fault, interpreted=True)
    assert in_one_order.status == ("fail" if name == "poisoned" else "pass")


def test_nan_of_other_bits_is_the_same_nan() -> None:
    case = make_case(
        LAYER_NORM,
        (4, 16),
        absent=("out",),
        values={"x": planted(3, "nan")},
        relations=ALL_RELATIONS,
    )

    def fault(run: Run, seen: Observation) -> Observation:
        def change(bits: npt.NDArray[Any]) -> None:
            bits[np.isnan(decode(bits, "float32"))] = 0x7FC00000 + len(run.name)

        return edited(seen, "y", change)

    assert judge_case(LAYER_NORM, case, fault).status == "pass"


# --- refusals -------------------------------------------------------------------------------------

REFUSED = replace(
    make_case(LAYER_NORM, (4, 0), absent=("out",), relations=("repeat",)),
    relations=(),
    refusal="n_cols_zero",
)


def refusal(type_: str, message: str) -> Fault:
    return in_every_run(ended("raised", type_, message))


def test_refusal_by_the_right_error_that_names_the_argument_passes() -> None:
    fault = refusal("ValueError", "n_cols=0, must be >= 1 [layer_norm]")
    verdict = judge_refusal(fault)
    assert (verdict.status, verdict.ratios) == ("pass", {})


def judge_refusal(fault: Fault) -> Verdict:
    runs = (Run("base", REFUSED),)
    returned = Observation("base", "ok")
    seen = (fault(runs[0], returned),)
    return judge(LAYER_NORM, REFUSED, runs, {}, seen, interpreted=True)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            in_every_run(lambda s: s),
            "n_cols_zero: accepted, must raise ValueError naming 'n_cols'",
        ),
        (
            refusal("AssertionError", "n_cols"),
            "n_cols_zero: AssertionError: n_cols; must raise ValueError naming 'n_cols'",
        ),
        (
            refusal("ValueError", "n_columns=0 [layer_norm]"),
            "n_cols_zero: ValueError: n_columns=0 [layer_norm]; "
            "must raise ValueError naming 'n_cols'",
        ),
        (
            # Part of a longer word is not its name.
            refusal("ValueError", "total_n_cols must not be 0"),
            "n_cols_zero: ValueError: total_n_cols must not be 0; "
            "must raise ValueError naming 'n_cols'",
        ),
    ],
    ids=["accepted", "wrong type", "argument not named", "argument within a word"],
)
def test_refusal_that_is_none_is_found(fault: Fault, message: str) -> None:
    finding = only(judge_refusal(fault))
    assert finding.message == message
    assert kind(finding) == ("rejects_bad_input", "", "n_cols_zero")


@pytest.mark.parametrize(
    ("status", "check"), [("crashed", "survived"), ("out_of_bounds", "no_out_of_bounds")]
)
def test_refusal_by_a_crash_is_found(status: str, check: str) -> None:
    finding = only(judge_refusal(in_every_run(ended(status, "SIGSEGV", "n_cols"))))
    assert finding.check == check


def test_refusal_that_is_none_is_not_charged_with_hazards() -> None:
    fault = in_every_run(lambda s: with_hazard(Observation(s.run, "ok"), UNINITIALISED))
    assert only(judge_refusal(fault)).check == "rejects_bad_input"


def test_refusal_that_the_target_does_not_declare_is_an_error() -> None:
    undeclared = replace(LAYER_NORM, refuses=())
    seen = (Observation("base", "ok"),)
    with pytest.raises(ValueError, match="refusal='n_cols_zero', must be declared by target"):
        judge(undeclared, REFUSED, (Run("base", REFUSED),), {}, seen, interpreted=True)


# --- what cannot be judged ------------------------------------------------------------------------


def test_case_that_the_device_cannot_run_is_skipped_with_the_reason() -> None:
    fault = in_every_run(ended("unsupported", "Unsupported", "runs on cuda, not on cpu"))
    verdict = judge_case(LAYER_NORM, PLAIN, fault)
    assert verdict == Verdict(PLAIN.case_id, "skip", reason="runs on cuda, not on cpu")


def test_run_that_the_device_cannot_run_does_not_hide_the_others() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        if run.name == "contiguous":
            return ended("unsupported", "Unsupported", "no")(seen)
        return add(seen, "y", 1.0)

    assert only(judge_case(LAYER_NORM, PLAIN, fault)).check == "values_within_bound"


def test_observations_that_do_not_answer_the_runs_are_an_error() -> None:
    runs, values, observations = observe(LAYER_NORM, PLAIN)
    for wrong in (observations[:-1], observations[::-1], ()):
        with pytest.raises(ValueError, match="must answer runs="):
            judge(LAYER_NORM, PLAIN, runs, values, wrong, interpreted=True)
    with pytest.raises(ValueError, match="base first"):
        judge(LAYER_NORM, PLAIN, runs[1:], values, observations[1:], interpreted=True)


@pytest.mark.parametrize("status", ["raised", "crashed", "out_of_bounds", "unsupported"])
def test_run_that_ended_without_an_error_cannot_be_judged(status: Any) -> None:
    fault = in_every_run(lambda s: Observation(s.run, status))
    with pytest.raises(ValueError, match=f"error=None, must be given where status='{status}'"):
        judge_case(LAYER_NORM, PLAIN, fault)
    if status == "raised":
        with pytest.raises(ValueError, match="error=None"):
            judge_refusal(fault)


def test_runs_before_a_crash_are_judged() -> None:
    runs, values, observations = observe(LAYER_NORM, PLAIN)
    crashed = ended("crashed", "SIGSEGV", "died")(observations[2])
    wrong = add(observations[0], "y", 1.0)
    # What lies behind the crash is missing, of the runs and of the observations.
    verdict = judge(
        LAYER_NORM, PLAIN, runs[:3], values, (wrong, observations[1], crashed), interpreted=True
    )
    assert [f.check for f in verdict.findings] == ["survived", "repeatable"]


# --- messages -------------------------------------------------------------------------------------

RAMP = make_case(
    LAYER_NORM,
    (4, 1024),
    dtype="bfloat16",
    absent=("weight", "bias", "out"),
    values={"x": Recipe("ramp")},
    eps=0.0,
)
"""0 ... 7 over and over: x_hat is (k - 3.5) / sqrt(5.25)."""


def test_message_of_wrong_values() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        def change(bits: npt.NDArray[Any]) -> None:
            bits[:, 768:] = bits_of("bfloat16", 1.25)
            bits[3, 768] = bits_of("bfloat16", 4.5)

        return edited(seen, "y", change)

    finding = only(judge_case(LAYER_NORM, RAMP, fault))
    # Row 3 begins with 3: (3 - 3.5) / sqrt(5.25) = -0.2182; half a bfloat16 ulp there is 0.00049.
    assert finding.message == (
        "y[3, 768]=4.5 (bfloat16), but should be -0.21822 +- 0.00049 "
        f"(error/bound {finding.ratio:.3g}); 1024 of 4096 elements, all in columns >= 768"
    )
    assert finding.index == (3, 768)
    assert finding.ratio == pytest.approx(4.71822 / 0.000488, rel=0.02)


def test_message_of_values_that_float32_tells_apart_has_the_digits_for_it() -> None:
    case = replace(RAMP, tensors=(replace(RAMP.tensors[0], dtype="float32"),))
    finding = only(judge_case(LAYER_NORM, case, lambda run, s: add(s, "y", 2e-5, (1, 2))))
    # (3 - 3.5) / sqrt(5.25) = -0.218217890...
    assert finding.message.startswith("y[1, 2]=-0.21819788 (float32), but should be -0.218217")
    assert finding.message.endswith("; 1 of 4096 elements, this one alone")


def test_message_of_nan() -> None:
    fault = in_every_run(lambda s: add(s, "y", math.nan, (2, slice(None))))
    assert only(judge_case(LAYER_NORM, RAMP, fault)).message == (
        "y[2, 0]=nan (bfloat16), but should be -0.6547 +- 0.002; "
        "1024 of 4096 elements, all in row 2 of 4"
    )


def test_message_of_an_exact_result() -> None:
    case = make_case(RESIDUAL, (2, 4), dtype="float16", absent=("out", "sum_out", "input_bias"))
    case = replace(
        case,
        tensors=tuple(
            replace(t, values=Recipe("ramp")) if t.name in ("x", "residual") else t
            for t in case.tensors
        ),
    )
    fault = in_every_run(lambda s: add(s, "sum", 1.0, (0, 3)))
    assert only(judge_case(RESIDUAL, case, fault)).message == (
        "sum[0, 3]=7.0 (float16), but should be exactly 6; 1 of 8 elements, this one alone"
    )


def test_message_of_elements_that_were_never_written() -> None:
    fault = unwritten("y", (..., slice(128, None)))
    finding = only(judge_case(LAYER_NORM, PLAIN, fault))
    assert finding.message == (
        "y[0, 128] was never written; 288 of 800 elements, all in columns >= 128"
    )
    assert (finding.index, finding.ratio) == ((0, 128), math.inf)


def test_message_of_a_statistic_has_its_own_index() -> None:
    # Group-major: row 2 of group 3 is entry 3 * 4 + 2.
    finding = only(judge_case(GATED, STRIDED, lambda run, s: wrong_entry(run, s)))
    assert finding.index == (14,)
    assert finding.message.startswith("mean[14]=")


def wrong_entry(run: Run, seen: Observation) -> Observation:
    return add(seen, "mean", 1.0, 14) if run.name in ("base", "repeat", "poisoned") else seen


def test_message_of_a_statistic_without_dims_has_no_index() -> None:
    spec = replace(
        NATIVE,
        outputs=tuple(replace(o, shape="rows") if o.name != "y" else o for o in NATIVE.outputs),
    )
    case = make_case(spec, (16,))
    finding = only(judge_case(spec, case, in_every_run(lambda s: add(s, "mean", 1.0, ()))))
    assert finding.index == ()
    assert finding.message.startswith("mean=")


def test_message_of_bits_that_differ() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        wanted = bits_of("bfloat16", 1.25 if run.name == "base" else 1.2578125)
        return edited(seen, "y", lambda bits: bits.__setitem__((0, 5), wanted))

    case = replace(RAMP, relations=("repeat",))
    assert only(judge_case(LAYER_NORM, case, fault)).message == (
        "y[0, 5]=1.25 (bfloat16), but 1.258 when launched again; 1 of 4096 elements, this one alone"
    )


def test_message_of_permuted_rows_names_the_row_of_the_case() -> None:
    case = replace(PLAIN, relations=("permuted",))
    runs, _, _ = observe(LAYER_NORM, case)
    assert runs[1].rows is not None
    assert runs[1].rows[0] == 2
    fault = in_run("permuted", lambda s: next_up(s, "y", (0, slice(None))))
    finding = only(judge_case(LAYER_NORM, case, fault))
    assert finding.index == (2, 0)
    assert finding.message.startswith("y[2, 0]=")
    assert " with the rows permuted; 200 of 800 elements, all in row 2 of 4" in finding.message


def test_message_of_wrong_shape_and_dtype() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        y = seen.outputs["y"]
        flat = replace(y, shape=(800,), bits=y.bits.reshape(-1))
        return replace(seen, outputs={"y": flat})

    assert only(judge_case(LAYER_NORM, replace(PLAIN, relations=()), fault)).message == (
        "y is float32[800], must be float32[4, 200]"
    )


def test_message_of_damage() -> None:
    def message(place: Any, element: int, n_bytes: int, run: str = "base") -> str:
        damage = (Damage("out", place, element, n_bytes),)
        return only(
            judge_case(LAYER_NORM, PLAIN, in_run(run, lambda s: replace(s, damage=damage)))
        ).message

    assert message("after", 800, 64) == (
        "64 bytes behind out overwritten, first at element 800 of its storage"
    )
    assert message("before", -1, 1) == (
        "1 byte before out overwritten, first at element -1 of its storage"
    )
    assert message("gap", 200, 32, "drowned") == (
        "32 bytes between the rows of out overwritten, first at element 200 of its storage "
        "among rows of NaN"
    )
    assert message("input", 0, 4) == (
        "4 bytes of input out changed, first at element 0 of its storage"
    )


def test_message_of_a_sanitizer_report() -> None:
    def told(**known: Any) -> tuple[str, str]:
        reports = (replace(REPORT, **known),)
        fault = in_run("base", lambda s: replace(s, reports=reports))
        finding = only(judge_case(LAYER_NORM, PLAIN, fault))
        return finding.message, finding.region

    whole = told(access="of 4 bytes", by="thread (1,0,0)", tensor="y", count=8)
    assert whole == (
        "Invalid __global__ read of 4 bytes ('y') [_kernel, kernel.py:8], first by thread (1,0,0); "
        "8 reports of memcheck",
        "memcheck Invalid __global__ read kernel.py:8",
    )
    assert told(place="") == (
        "Invalid __global__ read [_kernel]; 1 report of memcheck",
        "memcheck Invalid __global__ read _kernel",
    )


def test_message_of_a_crash() -> None:
    fault = in_run("row_alone", ended("timed_out", "TimeLimit", "no answer within 20 s"))
    assert only(judge_case(LAYER_NORM, PLAIN, fault)).message == (
        "timed out: TimeLimit: no answer within 20 s"
    )


def test_message_of_an_access_out_of_bounds() -> None:
    told = "read outside 'x_ptr', 1 element behind its end"
    fault = in_run("row_alone", ended("out_of_bounds", "OutOfBounds", told))
    assert only(judge_case(LAYER_NORM, PLAIN, fault)).message == told
