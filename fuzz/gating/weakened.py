"""What a target has come to promise less, with the cases that show what this hides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fuzz.case import describe
from fuzz.contract import Change
from fuzz.gating.covers import covers
from fuzz.gating.outcome import GateFinding, Place
from fuzz.gating.trial import Bench
from fuzz.store import Failure

MAX_EVIDENCE = 3
"""Failures that a finding names: one is looked at, three are believed."""


@dataclass
class Weakened:
    """The weakened contracts of a change, by target."""

    changes: dict[str, list[Change]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    evidence: dict[str, list[Failure]] = field(default_factory=dict)
    # Targets of head that cannot be called as base's cases say.
    untried: set[str] = field(default_factory=set)

    def add(self, target: str, change: Change) -> None:
        """Enter a field by which the target promises less."""
        self.changes.setdefault(target, []).append(change)

    def gone(self, target: str) -> None:
        """Enter a target that is no more: it promises nothing."""
        self.removed.append(target)

    def excuses(self, failure: Failure, head: Bench) -> bool:
        """Whether head fails by base's contract alone; such a failure is kept as evidence.

        What shows by head's own contract too is the kernel's fault, not the contract's.
        """
        target, before = failure.case.target, failure.contract
        spec = head.specs[target]
        if target not in self.changes or before is None or before == spec:
            return False
        # Where neither covers it, it was shrunk out of what both are drawn from.
        if covers(spec, failure.case) or not covers(before, failure.case):
            seen = head.run(failure.case, failure.signature)
            if isinstance(seen, str) or seen.failed:
                return False
        self.evidence.setdefault(target, []).append(failure)
        return True

    def findings(self, place: Callable[[str], Place | None]) -> list[GateFinding]:
        """One finding for each field, and one for each target that is gone."""
        found = [
            GateFinding(
                "weakened contract",
                target,
                f"{target} / contract / gone",
                "the target is gone, and with it all that it promised",
                place=place(target),
            )
            for target in self.removed
        ]
        for target, changes in self.changes.items():
            shown = self.evidence.get(target, [])
            first = shown[0] if shown else None
            found += [
                GateFinding(
                    "weakened contract",
                    target,
                    f"{target} / contract / {change.field}",
                    f"{change}: {change.words}",
                    case=describe(first.case) if first else "",
                    detail=self._told(target),
                    failure=first.id if first else "",
                    place=place(target),
                )
                for change in changes
            ]
        return found

    def _told(self, target: str) -> str:
        shown = self.evidence.get(target, [])
        if shown:
            told = "; ".join(failure.message for failure in shown[:MAX_EVIDENCE])
            return f"by base's contract head fails: {told}"
        if target in self.untried:
            return "head cannot be called with the cases that base's contract has"
        return "no case of the plan shows a difference"
