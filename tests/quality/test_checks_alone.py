"""Each check is needed: there is a fault that it finds and that would pass without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import triton

from fuzz import checks
from fuzz.checks import CHECKS, judge
from fuzz.verdict import Verdict
from tests.quality.checks_faults import ALONE, AloneFault, Seen, run_correct, run_planted

interpreted_only = pytest.mark.skipif(
    not triton.knobs.runtime.interpret, reason="runs kernels in the interpreter"
)


def verdict_on(seen: Seen) -> Verdict:
    return judge(seen.spec, seen.case, seen.runs, seen.values, seen.observations, interpreted=True)


def told(verdict: Verdict) -> tuple[str, list[str]]:
    return verdict.status, [finding.message for finding in verdict.findings]


@interpreted_only
@pytest.mark.parametrize("fault", ALONE, ids=lambda fault: fault.check)
def test_check_alone_finds_its_fault(
    fault: AloneFault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = run_planted(fault, tmp_path / "planted")
    verdict = verdict_on(seen)
    assert verdict.status == "fail", f"{fault.check} does not find its fault, nor does any other"
    assert {finding.check for finding in verdict.findings} == {fault.check}
    assert told(verdict_on(run_correct(fault, tmp_path / "correct"))) == ("pass", [])
    without = {name: check for name, check in CHECKS.items() if name != fault.check}
    monkeypatch.setattr(checks, "CHECKS", without)
    assert told(verdict_on(seen)) == ("pass", [])


def test_checks_have_a_fault_each_that_no_other_finds() -> None:
    assert [fault.check for fault in ALONE] == list(CHECKS)


def test_faults_of_checks_are_run_where_they_can_be() -> None:
    assert [f.check for f in ALONE if f.report is not None] == ["no_sanitizer_report"]
