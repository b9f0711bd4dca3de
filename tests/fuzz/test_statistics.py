"""Rows that no mean and rstd explain: told in words, in the run that shows them, and once."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fuzz.case import Case
from fuzz.relations import HOW, Run
from fuzz.spec import TargetSpec
from fuzz.verdict import Finding, Observation, Verdict
from oracle.arithmetic import Arithmetic
from oracle.formats import decode, encode
from tests.fuzz.builders import (
    ALL_RELATIONS,
    GATED,
    LAYER_NORM,
    RESIDUAL,
    Fault,
    edited,
    judge_case,
    make_case,
    poison_of,
)


def far_case(spec: TargetSpec, shape: tuple[int, ...], **other: object) -> Case:
    """Rows of standard deviation 1 about 1000, without weight and bias."""
    absent = ("out", "sum_out", "weight", "bias", "input_bias", "z")
    case = make_case(spec, shape, absent=absent, relations=ALL_RELATIONS, **other)
    return replace(
        case,
        tensors=tuple(
            replace(t, values=replace(t.values, mean=1000.0)) if t.name == "x" and t.values else t
            for t in case.tensors
        ),
    )


def scaled(seen: Observation, factor: float, where: object = ...) -> Observation:
    """Multiply values of y."""

    def change(bits: np.ndarray) -> None:
        values = decode(bits, "float32")
        values[where] *= factor
        bits[...] = encode(values, "float32")

    return edited(seen, "y", change)


def in_every_run(factor: float, where: object = ...) -> Fault:
    return lambda run, seen: scaled(seen, factor, where)


def only(verdict: Verdict) -> Finding:
    assert len(verdict.findings) == 1, [f.message for f in verdict.findings]
    return verdict.findings[0]


FAR = far_case(LAYER_NORM, (4, 1000))


def test_statistics_out_of_bounds_are_told_with_the_factor() -> None:
    assert judge_case(LAYER_NORM, FAR).status == "pass"
    finding = only(judge_case(LAYER_NORM, FAR, in_every_run(1.0 + 2e-4, (slice(2, None),))))
    assert (finding.check, finding.output, finding.region) == ("statistics_consistent", "y", "")
    assert finding.index == (2, 0)
    assert finding.message == (
        "y[2, 0] and the 999 elements after it (float32): no mean and rstd within bounds explain "
        f"them together, only errors {finding.ratio:.3g} times as large; 2 of 4 rows"
    )
    assert 5.0 < finding.ratio < 500.0


def test_rows_of_no_statistics_at_all_are_told() -> None:
    fault = in_every_run(1.0 + 2e-4, (..., slice(500, None)))
    finding = only(judge_case(LAYER_NORM, FAR, fault))
    assert finding.ratio == math.inf
    assert finding.message == (
        "y[0, 0] and the 999 elements after it (float32): no mean and rstd explain them together; "
        "4 of 4 rows"
    )


def test_groups_of_an_rms_norm_are_told_by_their_rstd() -> None:
    flags = {"group_size": 200, "is_rms_norm": True}
    spec = replace(GATED, arithmetic=Arithmetic(uniform=True), outputs=GATED.outputs[:1])
    case = make_case(spec, (2, 3, 400), absent=("out", "weight", "bias", "z"), flags=flags)
    # The second group of row (1, 2), in the second half of its columns.
    fault = in_every_run(1.0 + 1e-6, (1, 2, slice(300, None)))
    assert only(judge_case(spec, case, fault)).message == (
        "y[1, 2, 200] and the 199 elements after it (float32): no rstd explains them together; "
        "1 of 12 groups"
    )


def test_rows_are_judged_in_runs_that_owe_no_equal_bits() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        seen = replace(seen, key=(run.name,))
        return scaled(seen, 1.0 + 2e-4) if run.name == "row_alone" else seen

    finding = only(judge_case(LAYER_NORM, FAR, fault))
    assert (finding.check, finding.run) == ("statistics_consistent", "row_alone")
    assert finding.message.endswith(f"; 1 of 1 rows {HOW['row_alone']}")


def test_rows_of_a_wrong_element_are_not_told_again() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        return scaled(scaled(seen, 1.0 + 2e-4), 2.0, (0, 3))

    case = replace(FAR, relations=())
    assert only(judge_case(LAYER_NORM, case, fault)).check == "values_within_bound"


def test_rows_of_an_unwritten_element_are_not_told_again() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        def unwrite(bits: np.ndarray) -> None:
            bits[0, 3] = poison_of(run, "float32")

        return edited(scaled(seen, 1.0 + 2e-4), "y", unwrite)

    assert only(judge_case(LAYER_NORM, FAR, fault)).check == "outputs_fully_written"


def test_rows_that_are_not_repeated_are_not_told_again() -> None:
    def fault(run: Run, seen: Observation) -> Observation:
        return scaled(seen, 1.0 + 1e-4 * (1 + (run.name == "repeat")))

    assert only(judge_case(LAYER_NORM, FAR, fault)).check == "repeatable"


def test_rows_of_a_wrong_sum_are_not_told_again() -> None:
    case = far_case(RESIDUAL, (4, 1000), flags={"return_sum": True})

    def fault(run: Run, seen: Observation) -> Observation:
        def raise_sum(bits: np.ndarray) -> None:
            bits[0, 3] += 10

        return edited(scaled(seen, 1.0 + 2e-4), "sum", raise_sum)

    assert judge_case(RESIDUAL, case).status == "pass"
    finding = only(judge_case(RESIDUAL, case, fault))
    assert (finding.check, finding.output) == ("values_within_bound", "sum")


@pytest.mark.parametrize("spec", [LAYER_NORM, RESIDUAL], ids=lambda spec: spec.name)
def test_kernels_that_merge_running_means_are_not_judged(spec: TargetSpec) -> None:
    running = replace(spec, arithmetic=replace(spec.arithmetic, variance="welford"))
    case = far_case(spec, (4, 1000))
    fault = in_every_run(1.0 + 2e-4, (..., slice(500, None)))
    assert only(judge_case(spec, case, fault)).check == "statistics_consistent"
    assert judge_case(running, case, fault).status == "pass"
