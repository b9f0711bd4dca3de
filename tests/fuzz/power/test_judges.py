"""What each judge makes of a result."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuzz.power.judges import JUDGES, NOTHING, Hunter, Sighting
from fuzz.runner import Result
from fuzz.verdict import Finding, Verdict
from tests.fuzz.fake_backend import case_of

FAR = Sighting(far={"rstd": "rstd: 1 of 4 elements are not close"})


def result(status: str = "pass", *, refusal: str | None = None, fault: str = "") -> Result:
    case = replace(case_of("right"), refusal=refusal)
    findings = ()
    if status == "fail":
        findings = (Finding("values_within_bound", "base", "y", "y is wrong", "everywhere"),)
    return Result(case, Verdict(case.case_id, status, findings, reason="a reason"), fault=fault)


def hunt(judge: str, *seen: tuple[Result, Sighting]) -> Hunter:
    hunter = Hunter(JUDGES[judge], 3, "y")
    for item, sighting in seen:
        hunter.look(item, sighting)
    return hunter


@pytest.mark.parametrize("judge", ["bounds", "uniform"])
def test_judge_with_checks_goes_by_the_verdict(judge: str) -> None:
    hunter = hunt(judge, (result(), FAR), (result("fail"), NOTHING), (result("fail"), NOTHING))
    attempt = hunter.attempt()
    assert (attempt.found, attempt.cases, attempt.seed) == (True, 2, 3)
    assert attempt.by == ("right / values_within_bound / y / single / everywhere",)
    assert attempt.message.startswith("y is wrong [right x[4, 20]:float32")
    assert attempt.case is not None and attempt.case["target"] == "right"


def test_judge_with_assert_close_finds_what_is_wrong_indeed() -> None:
    attempt = hunt("assert_close", (result("fail"), NOTHING), (result("fail"), FAR)).attempt()
    assert (attempt.found, attempt.cases, attempt.by, attempt.alarms) == (True, 2, ("rstd",), 0)


def test_judge_with_assert_close_is_not_credited_with_false_alarms() -> None:
    attempt = hunt("assert_close", (result(), FAR), (result(), NOTHING), (result(), FAR)).attempt()
    assert (attempt.found, attempt.cases, attempt.alarms) == (False, 3, 2)


def test_judge_of_the_list_looks_at_the_main_output_alone() -> None:
    assert not hunt("fixed", (result("fail"), FAR)).attempt().found
    far = Sighting(far={"y": "y: 2 of 4 elements are not close"})
    # Its inputs are tame: what it rejects is wrong, whatever the bounds say.
    assert hunt("fixed", (result(), far)).attempt().by == ("y",)


@pytest.mark.parametrize("judge", ["fixed", "assert_close"])
def test_judge_with_assert_close_sees_a_crash(judge: str) -> None:
    attempt = hunt(judge, (result("fail"), Sighting(error="crashed: SIGSEGV: died"))).attempt()
    assert (attempt.found, attempt.by) == (True, ("crashed",))


def test_judge_with_assert_close_does_not_mind_a_refusal() -> None:
    raised = Sighting(error="raised: ValueError: n_cols")
    invalid = result("fail", refusal="n_cols_zero")
    assert not hunt("assert_close", (invalid, raised)).attempt().found
    assert hunt("assert_close", (invalid, Sighting(error="crashed"))).attempt().found
    assert hunt("assert_close", (result("fail"), raised)).attempt().found


def test_judge_counts_what_was_not_judged() -> None:
    skipped, broken = result("skip"), result("skip", fault="a trace")
    attempt = hunt("bounds", (skipped, NOTHING), (broken, NOTHING)).attempt()
    assert (attempt.cases, attempt.skipped, attempt.problems) == (2, 1, ("a reason",))
