"""A failure, and benches that answer for its cases without running anything."""

from __future__ import annotations

from dataclasses import replace

from fuzz.case import Case
from fuzz.inputs import digest, make_values
from fuzz.jobs.failures import CONFIRM_RUNS, Confirmation, counted
from fuzz.spec import TargetSpec
from fuzz.store import Failure
from fuzz.verdict import Finding, Signature, Verdict
from tests.fuzz.builders import LAYER_NORM, make_case

SPEC = replace(LAYER_NORM, refuses=())
CASE = make_case(SPEC, (2, 3), absent=("out",))
LARGER = make_case(SPEC, (4, 5), absent=("out",))
MORE = tuple(make_case(SPEC, (4, n), absent=("out",)) for n in (6, 7, 8))

FINDINGS = {
    "pass": (),
    "same": (Finding("values_within_bound", "base", "y", "y[0]=1", "everywhere"),),
    # Of the same check and output, in other elements.
    "elsewhere": (Finding("values_within_bound", "base", "y", "y[0]=1", "tail columns"),),
    "other": (Finding("redzones_intact", "base", "y", "bytes behind y", "after"),),
}
WANTED = Signature("layer_norm", "y", "values_within_bound", "single", "everywhere")


def failure(case: Case = CASE, confirmed: int = 3, runs: int = 3, **how: object) -> Failure:
    return replace(
        Failure(
            signature=WANTED,
            case=case,
            original=LARGER,
            inputs_digest=digest(make_values(case)),
            findings=FINDINGS["same"],
            device="cpu",
            device_name="",
            versions={},
            first_seen="",
            confirmed=confirmed,
            confirm_runs=runs,
            contract=SPEC,
        ),
        **how,
    )


class Bench:
    """Answers each case with its own runs, over and over; a text says why it cannot."""

    def __init__(self, *usual: str, spec: TargetSpec | None = SPEC, absent: str = "") -> None:
        self.specs = {} if spec is None else {"layer_norm": spec}
        self.absent = {"layer_norm": absent} if absent else {}
        self.usual = usual
        self.of: dict[str, tuple[str, ...]] = {}
        self.fresh: dict[str, tuple[str, ...]] = {}
        self.asked: list[tuple[Case, int, bool]] = []

    def run(
        self,
        case: Case,
        wanted: Signature,
        *,
        at_least: int = 1,
        contract: TargetSpec | None = None,
        fresh: bool = False,
    ) -> Confirmation | str:
        self.asked.append((case, at_least, fresh))
        if case.target not in self.specs:
            return self.absent[case.target]
        runs = self.of.get(case.case_id, self.usual)
        if fresh:
            runs = self.fresh.get(case.case_id, runs)
        if runs[0] not in FINDINGS:
            return runs[0]
        number = max(CONFIRM_RUNS, at_least)
        findings = [FINDINGS[runs[i % len(runs)]] for i in range(number)]
        verdicts = [Verdict("", "fail" if found else "pass", found) for found in findings]
        return counted(case, wanted, tuple(verdicts))
