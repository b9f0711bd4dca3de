"""The judges that are compared: what they are given, and what makes them say "wrong"."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from fuzz.case import describe, to_json
from fuzz.jobs.failures import signatures
from fuzz.power.results import Attempt
from fuzz.runner import Result
from fuzz.verdict import Finding, RunStatus, Signature


@dataclass(frozen=True)
class Judge:
    """A way of testing kernels.

    ``source`` names its cases in :data:`fuzz.power.draws.CASES`. ``compares`` is what it does with
    outputs: all checks and bounds of this tool, or assert_close on all of them or on the main one.
    ``exact``: its inputs are tame enough that what assert_close rejects is wrong.
    """

    name: str
    source: Literal["campaign", "fixed", "uniform"]
    compares: Literal["checks", "all", "main"]
    exact: bool
    words: str


JUDGES = {
    judge.name: judge
    for judge in (
        Judge("bounds", "campaign", "checks", True, "this tool: its cases, checks and bounds"),
        Judge("fixed", "fixed", "main", True, "powers of 2, randn, assert_close on y"),
        Judge("assert_close", "campaign", "all", False, "our cases, assert_close on all outputs"),
        Judge("uniform", "uniform", "checks", True, "uniform shapes, randn, our checks and bounds"),
    )
}
"""By name, the tool itself first."""

ENDED: frozenset[RunStatus] = frozenset(
    (
        "raised",
        "out_of_bounds",
        "compile_error",
        "cuda_error",
        "out_of_memory",
        "crashed",
        "timed_out",
    )
)
"""Ends of the base run that every judge sees. A refused access is one of them: what would have
come of it is not known. The doubt is settled for the other judges, and such finds are marked."""


@dataclass(frozen=True)
class Sighting:
    """What the judges with assert_close know of a case: how its base run ended and which outputs
    are not close. ``error`` is empty where it returned."""

    error: str = ""
    far: dict[str, str] = field(default_factory=dict)


NOTHING = Sighting()


class Hunter:
    """One judge looking through the cases of one seed, up to the first that it finds wrong."""

    def __init__(self, judge: Judge, seed: int, main_output: str) -> None:
        self.judge = judge
        self.first: Result | None = None
        self._seed = seed
        self._main = main_output
        self._began = time.monotonic()
        self._cases = 0
        self._seconds = 0.0
        self._by: tuple[str, ...] = ()
        self._message = ""
        self._alarms = 0
        self._skipped = 0
        self._problems: list[str] = []

    @property
    def compares_values(self) -> bool:
        """Whether it needs to know which outputs are not close."""
        return self.judge.compares != "checks"

    def look(self, result: Result, sighting: Sighting) -> None:
        """Judge one case more."""
        if self.first is not None:
            return
        self._cases += 1
        self._seconds = time.monotonic() - self._began
        if result.fault:
            self._problems.append(result.verdict.reason)
        elif result.verdict.status == "skip":
            self._skipped += 1
        elif self.compares_values:
            self._compare(result, sighting)
        elif result.verdict.status == "fail":
            found = signatures(result.case, result.verdict)
            self._find(result, tuple(str(s) for s in found), next(iter(found.values())).message)

    def _compare(self, result: Result, sighting: Sighting) -> None:
        # Of an input that must be refused, assert_close has nothing to compare.
        if result.case.refusal is not None and sighting.error.startswith("raised"):
            return
        far = {
            name: said
            for name, said in sighting.far.items()
            if self.judge.compares == "all" or name == self._main
        }
        if sighting.error:
            self._find(result, (sighting.error.partition(":")[0],), sighting.error)
        elif far and (self.judge.exact or result.verdict.status == "fail"):
            self._find(result, tuple(far), "; ".join(far.values()))
        elif far:
            self._alarms += 1

    def _find(self, result: Result, by: tuple[str, ...], message: str) -> None:
        self.first, self._by, self._message = result, by, message

    def attempt(self) -> Attempt:
        """What came of it."""
        found = self.first
        text = "" if found is None else f"{self._message} [{describe(found.case)}]"
        return Attempt(
            judge=self.judge.name,
            seed=self._seed,
            found=found is not None,
            cases=self._cases,
            seconds=self._seconds,
            by=self._by,
            message=text,
            case=None if found is None else to_json(found.case),
            alarms=self._alarms,
            skipped=self._skipped,
            problems=tuple(dict.fromkeys(self._problems)),
        )


def first_signature(result: Result) -> tuple[Signature, Finding]:
    """The signature of a failing case that says most about it, and its finding."""
    return next(iter(signatures(result.case, result.verdict).items()))
