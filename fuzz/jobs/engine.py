"""An engine process: asks the campaign for batches of cases, judges them, reports.

It talks to the main process over one pipe. It answers nothing unasked but its reports, and is
told nothing unasked but to stop.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from fuzz.case import Case
from fuzz.jobs.failures import Investigator, signatures
from fuzz.jobs.maps import FailureMap, Latest, Witnessed, map_of
from fuzz.jobs.plan import Batch, cases_of
from fuzz.jobs.totals import Totals
from fuzz.process.journal import Journal, Mark
from fuzz.process.kernel_process import KernelProcess, KernelProcessError, Stopped
from fuzz.process.lifecycle import enter_child
from fuzz.process.sanitizer import Sanitizer
from fuzz.runner import Result, Runner
from fuzz.spec import TargetSpec
from fuzz.store import FAILURES, Failure, write
from fuzz.verdict import Signature

REPORT_EVERY = 0.25
"""Seconds between two reports: often enough for a display, rare enough to cost nothing."""

SWITCH_INTERVAL = 0.0005
"""Seconds after which the judging thread lets the pool's threads in. Python's usual 5 ms would
have the kernel process wait that long for its next case."""

SHRINK_GRACE = 15.0
"""Seconds after the end of a campaign in which shrinking goes on: enough for one failure. Those
that the time does not reach are kept as they were found."""


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is told at its start. ``seed``: the campaign's; ``deadline``: monotonic."""

    number: int
    parent: int
    specs: tuple[TargetSpec, ...]
    seed: int
    device: str
    gpu: str | None
    backend: str
    journal: Path
    out: Path
    deadline: float | None
    sanitizer: Sanitizer | None = None


@dataclass(frozen=True)
class Want:
    """Asks for a batch; the answer is one, or None when there is nothing left."""


@dataclass(frozen=True)
class Stop:
    """Told to an engine: end with what you have."""


@dataclass(frozen=True)
class Claim:
    """Asks which of these signatures no other runner has had; the answer is a tuple of those."""

    signatures: tuple[Signature, ...]


@dataclass(frozen=True)
class Report:
    """What was done since the last report. The journal has all of it, and of what was reported
    before, up to its mark."""

    totals: Totals
    journal: Mark


@dataclass(frozen=True)
class Found:
    """A failure was written. ``map`` shows where the wrong elements of the original case sit."""

    failure: Failure
    path: Path
    map: FailureMap | None


@dataclass(frozen=True)
class Ended:
    """The last word of an engine. ``error`` says why it could not do its job."""

    error: str = ""


def engine_main(connection: Connection, settings: EngineSettings) -> None:
    """The whole life of an engine process."""
    enter_child(settings.parent)
    sys.setswitchinterval(SWITCH_INTERVAL)
    ended = Ended()
    try:
        _Engine(connection, settings).serve()
    except (KernelProcessError, ValueError) as error:
        ended = Ended(str(error))
    except Exception:
        ended = Ended(f"internal error: {traceback.format_exc()}")
    connection.send(ended)
    connection.close()


@dataclass(frozen=True)
class _Failing:
    """A failing case, and what its runs did if that is known."""

    result: Result
    seen: Witnessed | None


class _Engine:
    def __init__(self, connection: Connection, settings: EngineSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._stopped = False
        self._totals = Totals()
        self._mark = Mark()
        self._latest = Latest()
        self._reported = time.monotonic()

    def serve(self) -> None:
        """Take batches until there are none, the time is up, or the campaign is stopped."""
        settings = self._settings
        kernel = KernelProcess(
            settings.device,
            gpu=settings.gpu,
            backend=settings.backend,
            stop=self._must_stop,
            sanitizer=settings.sanitizer,
        )
        with kernel, Journal(settings.journal) as journal:
            runner = Runner(kernel, journal, self._latest)
            grace = None if settings.deadline is None else settings.deadline + SHRINK_GRACE
            investigator = Investigator(runner, deadline=grace, stop=self._must_stop)
            while not self._is_over() and (batch := self._next_batch()) is not None:
                spec = settings.specs[batch.target]
                try:
                    failing = self._judge(runner, journal, spec, batch)
                finally:
                    self._report()
                for item in failing:
                    self._investigate(investigator, spec, item, kernel.interpreted)

    def _must_stop(self) -> bool:
        if not self._stopped and self._connection.poll(0):
            message = self._connection.recv()
            assert isinstance(message, Stop)
            self._stopped = True
        return self._stopped

    def _is_over(self) -> bool:
        deadline = self._settings.deadline
        return self._must_stop() or (deadline is not None and time.monotonic() >= deadline)

    def _ask(self, question: Want | Claim) -> object:
        """The main process's answer; the word to stop may come before it."""
        self._connection.send(question)
        while True:
            answer: object = self._connection.recv()
            if not isinstance(answer, Stop):
                return answer
            self._stopped = True

    def _next_batch(self) -> Batch | None:
        answer = self._ask(Want())
        assert answer is None or isinstance(answer, Batch)
        return answer

    def _judge(
        self, runner: Runner, journal: Journal, spec: TargetSpec, batch: Batch
    ) -> list[_Failing]:
        """Judge a batch; returns the first failing case of each signature in it."""
        failing: list[_Failing] = []
        seen: set[Signature] = set()
        judged = 0
        try:
            settings = self._settings
            cases = cases_of(batch, spec, device=settings.device, seed=settings.seed)
            for result in runner.judge_all(spec, self._until_over(cases)):
                judged += 1
                self._totals.add(result)
                # Behind the verdict that was just counted, and before any that was not.
                self._mark = journal.mark
                new = signatures(result.case, result.verdict).keys() - seen
                if new:
                    seen |= new
                    failing.append(_Failing(result, self._latest.of(result.case)))
                if time.monotonic() - self._reported > REPORT_EVERY:
                    self._report()
        except Stopped:
            self._stopped = True
        finally:
            self._totals.not_reached += batch.count - judged
        return failing

    def _until_over(self, cases: Iterable[Case]) -> Iterator[Case]:
        for case in cases:
            if self._is_over():
                return
            yield case

    def _report(self) -> None:
        self._connection.send(Report(self._totals, self._mark))
        self._totals = Totals()
        self._reported = time.monotonic()

    def _investigate(
        self, investigator: Investigator, spec: TargetSpec, item: _Failing, interpreted: bool
    ) -> None:
        result = item.result
        claimed = self._ask(Claim(tuple(signatures(result.case, result.verdict))))
        assert isinstance(claimed, tuple)
        maps = _maps(item, claimed, interpreted=interpreted)
        for signature in claimed:
            try:
                failure = investigator.investigate(spec, result.case, signature, result.verdict)
            except Stopped:
                self._stopped = True
                failure = investigator.as_found(spec, result.case, signature, result.verdict)
            path = write(failure, self._settings.out / FAILURES)
            self._connection.send(Found(failure, path, maps[signature]))


def _maps(
    item: _Failing, claimed: tuple[Signature, ...], *, interpreted: bool
) -> dict[Signature, FailureMap | None]:
    """By fault, where the wrong elements of the case sit."""
    if item.seen is None or not claimed:
        return dict.fromkeys(claimed)
    found = signatures(item.result.case, item.result.verdict)
    evidence = item.seen.evidence(interpreted=interpreted)
    return {signature: map_of(evidence, found[signature]) for signature in claimed}
