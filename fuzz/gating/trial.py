"""A failing case looked at again: how often it fails on head, and what base makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from fuzz.case import Case
from fuzz.contract import differences
from fuzz.gating.covers import asked, beyond, covers, same_launch
from fuzz.gating.outcome import Kind
from fuzz.jobs.failures import CONFIRM_RUNS, Confirmation, repeat, signatures
from fuzz.process.kernel_process import KernelProcessError
from fuzz.runner import Runner, RunnerFault
from fuzz.spec import TargetSpec
from fuzz.store import Failure
from fuzz.verdict import Signature

FLAKY_RUNS = 12
"""Equal runs by which the rate of a failure that comes and goes is told, on head and on base."""


class Bench(Protocol):
    """One state of the sources that cases can be run on.

    ``specs`` are its targets; ``absent`` says of the others why they cannot be run. What is in
    neither is not there.
    """

    specs: dict[str, TargetSpec]
    absent: dict[str, str]

    def run(
        self,
        case: Case,
        wanted: Signature,
        *,
        at_least: int = 1,
        contract: TargetSpec | None = None,
        fresh: bool = False,
    ) -> Confirmation | str:
        """Equal runs of a case, judged under its own contract or another; why there are none, where
        it cannot be run. ``fresh``: in a process that has run nothing else."""


class KernelBench:
    """A bench with a kernel process of its own."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._used = False
        self.specs: dict[str, TargetSpec] = {}
        self.absent: dict[str, str] = {}

    def run(
        self,
        case: Case,
        wanted: Signature,
        *,
        at_least: int = 1,
        contract: TargetSpec | None = None,
        fresh: bool = False,
    ) -> Confirmation | str:
        """As the protocol says."""
        if case.target not in self.specs:
            return self.absent.get(case.target, "it has no such target")
        spec = contract or self.specs[case.target]
        try:
            if fresh and self._used:
                self._runner.kernel.replace()
            self._used = True
            seen = repeat(self._runner, spec, case, wanted)
            # One that was ended early hangs, or cannot be run.
            while seen.runs < at_least and seen.runs % CONFIRM_RUNS == 0:
                seen = seen.joined(repeat(self._runner, spec, case, wanted))
        except (KernelProcessError, RunnerFault) as error:
            return str(error).strip().splitlines()[-1]
        return f"it skips the case: {seen.skipped}" if seen.skipped else seen


@dataclass(frozen=True)
class Judged:
    """The kind of a failure, and what was compared in words."""

    kind: Kind
    detail: str


def classify(
    failure: Failure,
    more: Iterable[Case],
    head: Bench,
    base: Bench,
    *,
    certain: bool | None = None,
    contract: TargetSpec | None = None,
    when_back: Kind = "introduced",
    progress: Callable[[], None] = lambda: None,
) -> Judged:
    """Whether a failure of head is base's too. ``more``: other cases that fail in the same way.

    ``certain``: whether every run fails on head; None: as it was confirmed. ``contract`` is what
    head failed by, its own unless said. ``when_back``: what a failure that base passes is called.
    """
    target = failure.case.target
    if certain is None:
        certain = 0 < failure.confirm_runs == failure.confirmed
    rate = None if certain else _rate(failure, head, contract)
    if target not in base.specs and target not in base.absent:
        kind: Kind = when_back if rate is None else "flaky"
        return Judged(kind, _joined(_told(rate, "head"), "base has no such target"))
    found = Comparison()
    cases = [failure.case, failure.original, *more]
    if failure.signature.region.startswith("timed_out"):
        # Each of them takes the whole time limit where base hangs too.
        cases = cases[:1]
    for case in {case.case_id: case for case in cases}.values():
        progress()
        _ask_base(case, failure.signature, head, base, found, flaky=rate is not None)
        if rate is not None and found.same:
            break
    return _judged(found, when_back, rate, _own_contract(target, head, base))


@dataclass(frozen=True)
class Rate:
    """How many of equal runs failed."""

    failed: int
    runs: int

    def __str__(self) -> str:
        return f"{self.failed} of {self.runs}"


@dataclass
class Comparison:
    """What base makes of the cases that fail on head, by their number."""

    passing: int = 0
    same: int = 0
    otherwise: int = 0
    # The signatures of those that fail otherwise; why base owes nothing for a case, or is not run.
    others: set[str] = field(default_factory=set)
    unpromised: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    failed: int = 0
    runs: int = 0


def _ask_base(
    case: Case, wanted: Signature, head: Bench, base: Bench, found: Comparison, *, flaky: bool
) -> None:
    before, now = base.specs.get(case.target), head.specs.get(case.target)
    if before is not None:
        question = asked(before, case)
        if isinstance(question, str):
            found.unpromised.append(question)
            return
        if now is not None and not same_launch(before, now, case):
            found.unpromised.append(f"it has another launch.config={case.launch.config}")
            return
        # Where neither covers it, it was shrunk out of what both are drawn from.
        if now is not None and covers(now, case) and (why := beyond(before, question)):
            found.unpromised.append(why)
            return
        case = question
    # What happens in its first run only is looked for in one.
    seen = base.run(
        case, wanted, at_least=FLAKY_RUNS if flaky else 1, fresh=flaky and not found.runs
    )
    if isinstance(seen, str):
        found.refused.append(seen)
        return
    if _fails_alike(case, wanted, seen, flaky=flaky) and not flaky and not found.same:
        # Believed only of a process that no other case can have spoiled.
        again = base.run(case, wanted, fresh=True)
        seen = seen if isinstance(again, str) else again
    found.runs += seen.runs
    found.failed += seen.failed
    if seen.failed == 0:
        found.passing += 1
    elif _fails_alike(case, wanted, seen, flaky=flaky):
        found.same += 1
    else:
        found.otherwise += 1
        found.others |= {str(s) for v in seen.verdicts for s in signatures(case, v) if s != wanted}


def _fails_alike(case: Case, wanted: Signature, seen: Confirmation, *, flaky: bool) -> bool:
    """Whether a run failed with the signature asked for.

    What comes and goes does so in other elements each time: there the check and the output count.
    """
    if not flaky:
        return seen.same > 0
    return any(s.kind == wanted.kind for v in seen.verdicts for s in signatures(case, v))


def _judged(found: Comparison, when_back: Kind, rate: Rate | None, contract: str) -> Judged:
    kind: Kind
    if rate is not None and (found.same or found.passing):
        kind = "pre-existing" if found.same else "flaky"
        on_base = f"{found.failed} of {found.runs} on base{contract}"
        return Judged(kind, f"{_told(rate, 'head')}, {on_base}")
    if found.passing:
        total = found.passing + found.same + found.otherwise
        share = "" if found.passing == total else f" {found.passing} of {total} such cases"
        return Judged(when_back, f"base passes{share}{contract}")
    if found.same:
        share = "" if found.failed == found.runs else f" in {found.failed} of {found.runs} runs"
        return Judged("pre-existing", f"base fails in the same way{share}{contract}")
    head_words = _told(rate, "head")
    if found.others:
        words = f"base fails otherwise{contract}: {'; '.join(sorted(found.others))}"
        return Judged("changed signature", _joined(head_words, words))
    if found.refused:
        return Judged("base cannot run", _joined(head_words, f"on base: {found.refused[0]}"))
    kind = when_back if rate is None else "flaky"
    return Judged(kind, _joined(head_words, f"base owes nothing there: {found.unpromised[0]}"))


def _rate(failure: Failure, head: Bench, contract: TargetSpec | None) -> Rate | None:
    """How often a failure that is not always there shows; None for one that always is."""
    seen = head.run(
        failure.original, failure.signature, at_least=FLAKY_RUNS, contract=contract, fresh=True
    )
    if isinstance(seen, str):
        # It failed once and cannot be asked again: as it was found.
        return None
    return None if seen.failed == seen.runs else Rate(seen.failed, seen.runs)


def _told(rate: Rate | None, side: str) -> str:
    if rate is None:
        return ""
    if rate.failed == 0:
        return f"failed once, then in {rate} equal runs on {side}"
    return f"{rate} equal runs fail on {side}"


def _own_contract(target: str, head: Bench, base: Bench) -> str:
    """Words for where base was judged by another contract than head."""
    before, now = base.specs.get(target), head.specs.get(target)
    if before is None or now is None:
        return ""
    changed = [change.field for change in differences(before, now) if change.judged]
    return f" by its own contract (other {', '.join(changed)})" if changed else ""


def _joined(*words: str) -> str:
    return ", ".join(word for word in words if word)
