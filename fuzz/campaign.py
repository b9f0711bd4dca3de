"""A campaign: hands batches of cases to runners and adds up what they report.

A runner asks for its next batch, so that a fast one takes more of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from fuzz.history import HistoryError
from fuzz.jobs.engine import Claim, Ended, EngineSettings, Found, Report, Stop, Want, engine_main
from fuzz.jobs.maps import FailureMap
from fuzz.jobs.plan import BATCH, Batches, Plan
from fuzz.jobs.setup import Settings, Setup, UsageError, prepare
from fuzz.jobs.totals import Totals
from fuzz.process.children import end_child, start_child
from fuzz.process.interrupts import Interrupts, counting_interrupts
from fuzz.process.journal import Mark, drop_before
from fuzz.process.lifecycle import use_one_thread
from fuzz.store import OUT, Failure
from fuzz.verdict import Signature

STOP_LIMIT = 20.0
"""Seconds that runners get to end by themselves once they are told to."""

END_LIMIT = 5.0
"""Seconds between a runner's last word and its end."""

TICK = 0.1
"""Seconds between two looks at the clock and at Ctrl-C."""


@dataclass
class CampaignResult:
    """What came of it. ``errors`` say why the tool could not do (all of) its job."""

    setup: Setup
    planned: int = 0
    totals: Totals = field(default_factory=Totals)
    failures: list[tuple[Failure, Path]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False
    run_folder: Path = OUT

    # Faults that runners are shrinking.
    investigating: int = 0

    @property
    def lost(self) -> int:
        """Cases that were planned and of which nothing was heard: must be 0."""
        totals = self.totals
        return self.planned - totals.executed - totals.skipped - totals.not_reached

    @property
    def exit_code(self) -> int:
        """0 clean, 1 failures, 2 the tool could not do its job."""
        if self.errors or self.totals.faulty or self.lost or self.totals.executed == 0:
            return 2
        return 1 if self.totals.failed else 0


class Listener(Protocol):
    """Who is told what happens, in the main process."""

    def started(self, setup: Setup) -> None:
        """The targets are known and the runners are being started."""

    def progress(self, result: CampaignResult) -> None:
        """Called often, whether or not there is news."""

    def failure(self, failure: Failure, path: Path) -> None:
        """A failure was written."""

    def error(self, text: str) -> None:
        """Something went wrong that is no fault of a kernel."""


class Recorder(Protocol):
    """Who keeps what is reported for longer than a campaign. Each may raise HistoryError."""

    def started(self, folder: Path) -> None:
        """The folder of the journals is there, and no runner yet."""

    def reported(self, runner: int, totals: Totals, mark: Mark) -> None:
        """What a runner did since it reported last, and up to where its journal holds it."""

    def found(self, failure: Failure, where: FailureMap | None) -> None:
        """A failure was written; where its wrong elements sit, if it is about elements."""


def run(
    settings: Settings,
    listener: Listener,
    setup: Setup | None = None,
    *,
    record: Recorder | None = None,
) -> CampaignResult:
    """Run a campaign, with what was prepared for it already, if anything was.

    Raises: UsageError when it cannot begin.
    """
    if settings.cases is None and settings.seconds is None:
        raise UsageError("cases=None and seconds=None, one of them must be given")
    # Inherited by every process from here on.
    use_one_thread()
    setup = setup or prepare(settings)
    plan = Plan(
        setup.specs, seed=settings.seed, cases=settings.cases, batch=BATCH[setup.info.device]
    )
    return run_plan(settings, setup, plan, listener, record=record)


def run_plan(
    settings: Settings,
    setup: Setup,
    plan: Batches,
    listener: Listener,
    *,
    record: Recorder | None = None,
) -> CampaignResult:
    """Run a campaign over cases that are known, with targets that are.

    ``setup`` and ``plan`` go together: a batch names its target by its place in ``setup.specs``.
    """
    use_one_thread()
    listener.started(setup)
    return _Campaign(settings, setup, plan, listener, record).run()


@dataclass
class _Link:
    """The main process's side of one engine."""

    number: int
    process: BaseProcess
    connection: Connection
    ended: bool = False

    def close(self) -> None:
        """End the process, if it has not ended, and remove what it left."""
        end_child(self.process, self.connection, END_LIMIT if self.ended else 0)


class _Campaign:
    def __init__(
        self,
        settings: Settings,
        setup: Setup,
        plan: Batches,
        listener: Listener,
        record: Recorder | None,
    ) -> None:
        self._settings = settings
        self._setup = setup
        self._listener = listener
        self._record = record
        self._is_kept = True
        self._plan = plan
        self._result = CampaignResult(setup, run_folder=_new_run_folder(settings))
        self._claimed: set[Signature] = set()
        self._stopping = False
        self._began = time.monotonic()

    def run(self) -> CampaignResult:
        self._keep(lambda record: record.started(self._result.run_folder))
        links = [self._start(number) for number in range(self._setup.workers)]
        try:
            with counting_interrupts() as interrupts:
                self._serve(links, interrupts)
        finally:
            for link in links:
                link.close()
        result = self._result
        result.planned = self._plan.handed_out + self._plan.left
        result.totals.not_reached += self._plan.left
        result.seconds = time.monotonic() - self._began
        if result.lost and not result.errors:
            self._error(f"{result.lost} cases were handed out and never answered for")
        return result

    def _start(self, number: int) -> _Link:
        settings, info = self._settings, self._setup.info
        seconds = settings.seconds
        sanitizer = self._setup.sanitizer
        if sanitizer is not None:
            logs = self._result.run_folder.absolute() / f"{sanitizer.tool}-{number}"
            sanitizer = dataclasses.replace(sanitizer, folder=logs)
        told = EngineSettings(
            number=number,
            parent=os.getpid(),
            specs=self._setup.specs,
            seed=settings.seed,
            device=info.device,
            gpu=info.gpus[number % len(info.gpus)] if info.gpus else None,
            backend=settings.backend,
            journal=self._journal(number),
            out=settings.out,
            deadline=None if seconds is None else self._began + seconds,
            sanitizer=sanitizer,
        )
        return _Link(number, *start_child(engine_main, told, f"ln-fuzz-engine-{number}"))

    def _serve(self, links: list[_Link], interrupts: Interrupts) -> None:
        told_to_stop: float | None = None
        while any(not link.ended for link in links):
            ready = wait([link.connection for link in links if not link.ended], timeout=TICK)
            for link in links:
                if link.connection in ready:
                    self._hear(link)
            self._result.seconds = time.monotonic() - self._began
            self._listener.progress(self._result)
            if interrupts.count and told_to_stop is None:
                told_to_stop = time.monotonic()
                self._result.interrupted = True
                self._stop(links)
            late = told_to_stop is not None and time.monotonic() - told_to_stop > STOP_LIMIT
            if late or interrupts.count > 1:
                return

    def _stop(self, links: list[_Link]) -> None:
        self._stopping = True
        for link in links:
            if not link.ended:
                with contextlib.suppress(BrokenPipeError):
                    link.connection.send(Stop())

    def _hear(self, link: _Link) -> None:
        try:
            message = link.connection.recv()
            if isinstance(message, Want):
                link.connection.send(None if self._stopping else self._plan.next())
            elif isinstance(message, Claim):
                new = tuple(s for s in message.signatures if s not in self._claimed)
                self._claimed.update(new)
                link.connection.send(new)
                self._result.investigating += len(new)
            elif isinstance(message, Report):
                self._add(link.number, message)
            elif isinstance(message, Found):
                failure, where = message.failure, message.map
                self._keep(lambda record: record.found(failure, where))
                self._result.investigating -= 1
                self._result.failures.append((failure, message.path))
                self._listener.failure(failure, message.path)
            elif isinstance(message, Ended):
                link.ended = True
                if message.error:
                    self._error(f"runner {link.number}: {message.error}")
        except (EOFError, OSError):
            # Died without a word; whatever it had not reported is lost and shows in the sums.
            link.ended = True
            link.process.join()
            self._error(
                f"runner {link.number} died (exit code {link.process.exitcode}); its journal "
                f"{self._journal(link.number)} names the case it was at"
            )

    def _add(self, number: int, report: Report) -> None:
        self._keep(lambda record: record.reported(number, report.totals, report.journal))
        if self._is_kept:
            drop_before(self._journal(number), report.journal)
        totals = self._result.totals
        known = len(totals.faults)
        # There may be millions of widths, and the failing cases come as failures.
        totals.merge(dataclasses.replace(report.totals, widths={}, failing={}))
        for fault in totals.faults[known:]:
            self._listener.error(fault)

    def _keep(self, tell: Callable[[Recorder], None]) -> None:
        """Tell the recorder, as long as it can record. Afterwards the journals keep everything."""
        if self._record is None:
            return
        try:
            tell(self._record)
        except HistoryError as error:
            self._record = None
            self._is_kept = False
            self._error(f"{error}; the journals in {self._result.run_folder} keep what follows")

    def _journal(self, number: int) -> Path:
        return self._result.run_folder / f"journal-{number}.jsonl"

    def _error(self, text: str) -> None:
        self._result.errors.append(text)
        self._listener.error(text)


def _new_run_folder(settings: Settings) -> Path:
    """A folder of its own, also where another campaign begins at the same second and seed."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    first = settings.out / "runs" / f"{stamp}-{settings.seed}"
    folder, number = first, 1
    while True:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            folder = first.with_name(f"{first.name}-{number}")
        else:
            return folder
