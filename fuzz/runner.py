"""A runner: cases in, verdicts out, with one kernel process that runs the next case meanwhile.

The engine's side of it: values, oracle and judgement. It never touches torch or the device.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from fuzz.case import Case
from fuzz.checks import judge
from fuzz.inputs import make_values
from fuzz.process.journal import Journal
from fuzz.process.kernel_process import KernelProcess, Outcome, Stopped, Ticket
from fuzz.process.mailbox import OutOfSharedMemory
from fuzz.relations import Run, expand
from fuzz.spec import TargetSpec
from fuzz.verdict import Bits, Observation, Verdict

PARTS = ("draw", "inputs", "kernel", "oracle", "harness")
"""What the wall time of a case divides into; harness is all that is none of the others."""


@dataclass(frozen=True)
class Result:
    """A judged case. ``keys``: the specialisations that it ran. ``fault``: an error of the harness,
    whose verdict is then a skip."""

    case: Case
    verdict: Verdict
    keys: tuple[tuple[str, ...], ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class _Pending:
    """A case that the kernel process has."""

    case: Case
    ticket: Ticket
    runs: tuple[Run, ...]
    values: dict[str, Bits]


class Witness(Protocol):
    """Sees what the runs of a case did, beside the verdict on them."""

    def __call__(
        self,
        spec: TargetSpec,
        case: Case,
        values: dict[str, Bits],
        observations: tuple[Observation, ...],
    ) -> None:
        """Called once for each case that was judged, before its verdict is told."""


class RunnerFault(Exception):
    """The harness failed on a case: neither a pass nor a failure of the kernel."""


class Runner:
    """Judges the cases of any target with one kernel process."""

    def __init__(
        self,
        kernel: KernelProcess,
        journal: Journal | None = None,
        witness: Witness | None = None,
    ) -> None:
        self.kernel = kernel
        self._journal = journal
        self._witness = witness
        self._books = _Books()

    def judge_one(self, spec: TargetSpec, case: Case) -> Verdict:
        """The verdict on one case, for shrinking and replay; it is not journalled.

        Raises: RunnerFault when the harness itself failed; KernelProcessError; Stopped.
        """
        pending = self._submit(spec, case)
        result = self._collect(spec, pending) if isinstance(pending, _Pending) else pending
        if result.fault:
            raise RunnerFault(result.fault)
        return result.verdict

    def judge_all(self, spec: TargetSpec, cases: Iterable[Case]) -> Iterator[Result]:
        """Verdicts in the order of the cases, one case ahead in the kernel process.

        Raises: KernelProcessError; Stopped, after noting the cases that were under way.
        """
        self._books = _Books()
        waiting: _Pending | None = None
        for case in self._drawn(cases):
            if self._journal is not None:
                self._journal.begin(case)
            upcoming = self._submit(spec, case)
            if waiting is not None:
                also = upcoming.case if isinstance(upcoming, _Pending) else None
                yield self._finish(spec, waiting, also)
            if isinstance(upcoming, _Pending):
                waiting = upcoming
            else:
                waiting = None
                yield self._note(upcoming)
        if waiting is not None:
            yield self._finish(spec, waiting, None)

    def _drawn(self, cases: Iterable[Case]) -> Iterator[Case]:
        """The cases; making them is timed."""
        source = iter(cases)
        while True:
            began = time.perf_counter()
            case = next(source, None)
            self._books.add("draw", time.perf_counter() - began)
            if case is None:
                return
            yield case

    def _finish(self, spec: TargetSpec, pending: _Pending, upcoming: Case | None) -> Result:
        try:
            return self._note(self._collect(spec, pending))
        except Stopped:
            if self._journal is not None:
                self._journal.abandon(pending.case)
                if upcoming is not None:
                    self._journal.abandon(upcoming)
            raise

    def _note(self, result: Result) -> Result:
        result = replace(result, verdict=replace(result.verdict, seconds=self._books.close()))
        if self._journal is not None:
            self._journal.end(result.verdict)
        return result

    def _submit(self, spec: TargetSpec, case: Case) -> _Pending | Result:
        began = time.perf_counter()
        try:
            values = make_values(case)
            self._books.add("inputs", time.perf_counter() - began)
            runs = expand(case)
            ticket = self.kernel.submit(spec, case, runs, values)
        except OutOfSharedMemory as error:
            return Result(case, Verdict(case.case_id, "skip", reason=str(error)))
        except (ValueError, KeyError, MemoryError) as error:
            return _fault(case, "inputs", _traceback(error))
        return _Pending(case, ticket, runs, values)

    def _collect(self, spec: TargetSpec, pending: _Pending) -> Result:
        case = pending.case
        asked = time.perf_counter()
        try:
            outcome = self.kernel.collect(pending.ticket)
        except OutOfSharedMemory as error:
            return Result(case, Verdict(case.case_id, "skip", reason=str(error)))
        told = time.perf_counter()
        self._books.add("kernel", _kernel_share(told - asked, outcome))
        if outcome.problem is not None:
            return _fault(case, "kernel process", outcome.problem.trace)
        observations = outcome.observations
        by_name = {run.name: run for run in pending.runs}
        runs = tuple(by_name[seen.run] for seen in observations)
        interpreted = self.kernel.interpreted
        try:
            verdict = judge(spec, case, runs, pending.values, observations, interpreted=interpreted)
        except Exception as error:
            # One case that the tool cannot judge must not cost a night's run. It is reported, and
            # the campaign's exit code says that the tool did not do its job.
            return _fault(case, "judge", _traceback(error))
        if self._witness is not None:
            self._witness(spec, case, pending.values, observations)
        self._books.add("oracle", time.perf_counter() - told)
        keys = tuple(seen.key for seen in observations if seen.key is not None)
        return Result(case, verdict, keys)


class _Books:
    """Where the wall time between two verdicts went."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._spent = dict.fromkeys(PARTS, 0.0)

    def add(self, part: str, seconds: float) -> None:
        """Note time that went into a part."""
        self._spent[part] += seconds

    def close(self) -> dict[str, float]:
        """The seconds of each part since the last call; harness is what none of them took."""
        now = time.perf_counter()
        spent = self._spent
        spent["harness"] = max(0.0, now - self._since - sum(spent.values()))
        self._since = now
        self._spent = dict.fromkeys(PARTS, 0.0)
        return spent


def _kernel_share(waited: float, outcome: Outcome) -> float:
    """The part of the engine's waiting that is the kernel's own.

    The kernel process also lays out memory and looks for damage; its time is divided in the
    proportion of the two.
    """
    if outcome.busy <= 0.0:
        # The process died or hung: there was nothing but the kernel to wait for.
        return waited
    launched = sum(seen.seconds for seen in outcome.observations)
    return waited * min(1.0, launched / max(outcome.busy, waited))


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error))


def _fault(case: Case, where: str, text: str) -> Result:
    reason = f"internal error ({where}): {text.strip().splitlines()[-1]}"
    return Result(case, Verdict(case.case_id, "skip", reason=reason), fault=text)
