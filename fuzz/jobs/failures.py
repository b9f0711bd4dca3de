"""From a failing case to a failure worth a file: shrunk, and confirmed in a fresh process."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz.case import Case
from fuzz.checks import signature
from fuzz.inputs import digest, make_values
from fuzz.process.kernel_process import never
from fuzz.runner import Runner, RunnerFault
from fuzz.shrink import shrink
from fuzz.spec import TargetSpec
from fuzz.store import Failure, TargetFile
from fuzz.verdict import Finding, Signature, Verdict

SHRINK_CALLS = 120
"""Cases tried at most for one signature: a case of 4 x 5000 needs about 100."""

SHRINK_SECONDS = 15.0
"""Seconds for one signature; a fuzzing campaign has better things to do after that."""

MAX_SHRUNK = 8
"""Signatures that one runner shrinks. A kernel that is wrong everywhere has many more."""

CONFIRM_RUNS = 3
"""Runs that must agree. A hang is believed at once: each takes the whole time limit."""

PACKAGES = ("numpy", "torch", "triton", "hypothesis")


@dataclass(frozen=True)
class Confirmation:
    """How often a case failed: with the signature asked for, with any. ``skipped``: why it could
    not be run."""

    runs: int
    same: int
    failed: int
    verdicts: tuple[Verdict, ...]
    skipped: str = ""

    def findings(self, case: Case, wanted: Signature) -> tuple[Finding, ...]:
        """The findings of the first run that failed as wanted, those wanted first."""
        for verdict in self.verdicts:
            same = tuple(f for f in verdict.findings if signature(case, f) == wanted)
            if same:
                return same + tuple(f for f in verdict.findings if f not in same)
        return ()

    def joined(self, other: Confirmation) -> Confirmation:
        """The runs of both."""
        return Confirmation(
            self.runs + other.runs,
            self.same + other.same,
            self.failed + other.failed,
            self.verdicts + other.verdicts,
            self.skipped or other.skipped,
        )


def signatures(case: Case, verdict: Verdict) -> dict[Signature, Finding]:
    """The faults that a verdict shows, each with its first finding."""
    found: dict[Signature, Finding] = {}
    for finding in verdict.findings:
        found.setdefault(signature(case, finding), finding)
    return found


def repeat(runner: Runner, spec: TargetSpec, case: Case, wanted: Signature) -> Confirmation:
    """Run a case several times.

    Raises: RunnerFault, KernelProcessError, Stopped.
    """
    verdicts: list[Verdict] = []
    while len(verdicts) < CONFIRM_RUNS:
        verdict = runner.judge_one(spec, case)
        verdicts.append(verdict)
        slow = any(s.region.startswith("timed_out") for s in signatures(case, verdict))
        if slow or verdict.status == "skip":
            break
    return counted(case, wanted, tuple(verdicts))


def counted(case: Case, wanted: Signature, verdicts: tuple[Verdict, ...]) -> Confirmation:
    """How often these verdicts on one case say that it failed."""
    same = sum(wanted in signatures(case, verdict) for verdict in verdicts)
    failed = sum(verdict.status == "fail" for verdict in verdicts)
    skipped = next((v.reason for v in verdicts if v.status == "skip"), "")
    return Confirmation(len(verdicts), same, failed, verdicts, skipped)


def confirm(runner: Runner, spec: TargetSpec, case: Case, wanted: Signature) -> Confirmation:
    """As :func:`repeat`, in a kernel process that has run nothing else."""
    runner.kernel.replace()
    return repeat(runner, spec, case, wanted)


class Investigator:
    """Turns failing cases of one campaign into failures.

    ``deadline`` (monotonic) is when shrinking must have ended: afterwards a failure is recorded
    as it was found. ``stop`` ends a shrink early.
    """

    def __init__(
        self, runner: Runner, *, deadline: float | None, stop: Callable[[], bool] = never
    ) -> None:
        self._runner = runner
        self._deadline = deadline
        self._stop = stop
        self._shrunk = 0

    def investigate(
        self, spec: TargetSpec, case: Case, wanted: Signature, verdict: Verdict
    ) -> Failure:
        """The failure behind one signature of a failing case.

        Raises: KernelProcessError, Stopped.
        """
        if not self._has_time() or self._shrunk >= MAX_SHRUNK:
            return self.as_found(spec, case, wanted, verdict)
        self._shrunk += 1
        small = self._shrink(spec, case, wanted)
        runs = 0
        # A shrunk case that cannot be confirmed is worth less than the one it came from.
        for candidate in [small] if small == case else [small, case]:
            try:
                seen = confirm(self._runner, spec, candidate, wanted)
            except RunnerFault:
                continue
            if seen.same:
                findings = seen.findings(candidate, wanted)
                return self._failure(spec, wanted, candidate, case, findings, seen.same, seen.runs)
            runs = seen.runs
        found = self.as_found(spec, case, wanted, verdict)
        return dataclasses.replace(found, confirm_runs=runs)

    def as_found(
        self, spec: TargetSpec, case: Case, wanted: Signature, verdict: Verdict
    ) -> Failure:
        """The failure as it was seen, neither shrunk nor confirmed."""
        first = signatures(case, verdict)[wanted]
        others = tuple(f for f in verdict.findings if signature(case, f) != wanted)
        return self._failure(spec, wanted, case, case, (first, *others), 0, 0)

    def _has_time(self) -> bool:
        return not self._stop() and self._seconds() > 0.0

    def _seconds(self) -> float:
        """What one signature may take of the time that is left."""
        if self._deadline is None:
            return SHRINK_SECONDS
        return min(SHRINK_SECONDS, self._deadline - time.monotonic())

    def _shrink(self, spec: TargetSpec, case: Case, wanted: Signature) -> Case:
        def fails(candidate: Case) -> bool:
            if self._stop():
                return False
            try:
                verdict = self._runner.judge_one(spec, candidate)
            except RunnerFault:
                return False
            return wanted in signatures(candidate, verdict)

        return shrink(case, spec, fails, max_calls=SHRINK_CALLS, seconds=self._seconds())

    def _failure(
        self,
        spec: TargetSpec,
        wanted: Signature,
        case: Case,
        original: Case,
        findings: tuple[Finding, ...],
        confirmed: int,
        confirm_runs: int,
    ) -> Failure:
        info = self._runner.kernel.info
        return Failure(
            signature=wanted,
            case=case,
            original=original,
            inputs_digest=digest(make_values(case)),
            findings=findings,
            device=info.device,
            device_name=info.name,
            versions=versions(),
            first_seen=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            confirmed=confirmed,
            confirm_runs=confirm_runs,
            target_file=target_file(case.target),
            contract=spec,
        )


def versions() -> dict[str, str]:
    """What the result may depend on, without importing any of it."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "none"
    return found


def target_path(target: str) -> Path | None:
    """The file of a target named ``path/to/file.py:function``, None for a built-in one."""
    head, separator, _ = target.rpartition(".py:")
    return Path(head + ".py") if separator else None


def target_file(target: str) -> TargetFile | None:
    """The user's file behind a target and its present content."""
    path = target_path(target)
    if path is None or not path.is_file():
        return None
    return TargetFile(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
