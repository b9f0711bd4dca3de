"""A campaign shown while it runs: one line rewritten on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fuzz.campaign import CampaignResult
from fuzz.jobs.setup import Settings, Setup
from fuzz.report import print_failure
from fuzz.store import Failure

PLAIN_EVERY = 5.0
"""Seconds between two lines of progress where no terminal can rewrite them."""


class Display:
    """Shows a campaign while it runs. Use as a context manager."""

    def __init__(self, console: Console, settings: Settings) -> None:
        self._console = console
        self._settings = settings
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._printed = time.monotonic()
        self._kinds: set[tuple[str, str, str]] = set()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def started(self, setup: Setup) -> None:
        """Say what is being fuzzed, where, and how to repeat it."""
        limits = []
        if self._settings.cases is not None:
            limits.append(f"{self._settings.cases} cases")
        if self._settings.seconds is not None:
            limits.append(f"{self._settings.seconds:g} s")
        self._say(
            f"{len(setup.specs)} target{'s' * (len(setup.specs) != 1)} on {setup.info.device} "
            f"({setup.info.name}), {setup.workers} runner{'s' * (setup.workers != 1)}, "
            f"at most {', '.join(limits)}, --seed {self._settings.seed}"
        )

    def progress(self, result: CampaignResult) -> None:
        """Rewrite the line, or print one now and then."""
        if self._console.is_terminal:
            self._live.update(Text(self._line(result)))
        elif time.monotonic() - self._printed > PLAIN_EVERY:
            self._printed = time.monotonic()
            self._say(self._line(result))

    def failure(self, failure: Failure, path: Path) -> None:
        """Print a failure as soon as it is written; in one line where its like was printed."""
        known = failure.signature.kind in self._kinds
        self._kinds.add(failure.signature.kind)
        print_failure(self._console, failure, path, brief=known)

    def error(self, text: str) -> None:
        """Print what is wrong with the tool or its surroundings."""
        self._console.print(Text(f"ERROR {text}", style="bold magenta"), soft_wrap=True)

    def _line(self, result: CampaignResult) -> str:
        totals = result.totals
        rate = totals.executed / result.seconds if result.seconds else 0.0
        line = f"{totals.executed} cases, {rate:.1f}/s, {totals.failed} failing"
        if result.investigating:
            line += f", shrinking {result.investigating}"
        left = self._seconds_left(result, rate)
        return line if left is None else f"{line}, {left:.0f} s left"

    def _seconds_left(self, result: CampaignResult, rate: float) -> float | None:
        estimates = []
        if self._settings.seconds is not None:
            estimates.append(max(0.0, self._settings.seconds - result.seconds))
        if self._settings.cases is not None and rate > 0:
            estimates.append((self._settings.cases - result.totals.executed) / rate)
        return min(estimates, default=None)

    def _say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


class StagedDisplay(Display):
    """Shows a gate or a night while it runs: its stages, and its campaign.

    ``seconds`` and ``cases`` are the limits of the campaign, where it has any. Use as a context
    manager.
    """

    def __init__(
        self, console: Console, *, seconds: float | None = None, cases: int | None = None
    ) -> None:
        super().__init__(console, Settings(seconds=seconds, cases=cases))

    def started(self, setup: Setup) -> None:
        """Say where the plan runs."""
        info = setup.info
        self._say(
            f"  {setup.workers} runner{'s' * (setup.workers != 1)} on {info.device} ({info.name})"
        )

    def stage(self, text: str) -> None:
        """Say what the gate has come to."""
        self._say(f"{text} ...")

    def step(self, text: str) -> None:
        """Rewrite the line, or print one now and then."""
        if self._console.is_terminal:
            self._live.update(Text(f"  {text}"))
        elif time.monotonic() - self._printed > PLAIN_EVERY:
            self._printed = time.monotonic()
            self._say(f"  {text}")
