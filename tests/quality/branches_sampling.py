"""What a branch of the strategies must bring about, and the drawn cases in which it is counted."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fuzz.case import Case
from fuzz.space.budget import Budget
from fuzz.spec import TargetSpec
from fuzz.strategies import INTERPRETER_BUDGET, Frames, draw_cases

Holds = Callable[[Case], bool]

SEED = 7


@dataclass(frozen=True)
class Sample:
    """Cases of one target, drawn once for all the branches that are counted in them."""

    spec: TargetSpec
    budget: Budget = INTERPRETER_BUDGET
    frames: Frames | None = None
    count: int = 4000

    def draw(self, seed: int = SEED) -> Iterable[Case]:
        """The cases, one by one: so many are never held at once."""
        return draw_cases(
            self.spec, seed=seed, count=self.count, budget=self.budget, frames=self.frames
        )


def valid(case: Case) -> bool:
    return case.refusal is None


@dataclass(frozen=True)
class Branch:
    """A branch by what is to be seen of it in the cases of a sample.

    Of the cases that are ``among`` those it is about, at least the share ``least`` must hold it.
    That is well below what is drawn, and well above what is drawn without the branch.
    """

    name: str
    sample: Sample
    least: float
    holds: Holds
    among: Holds = valid


@dataclass(frozen=True)
class Share:
    """In how many cases of how many a branch was seen."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / max(self.total, 1)


def count(branches: Iterable[Branch], cases: Iterable[Case]) -> dict[str, Share]:
    """The share of each branch, by its name."""
    # Which cases it is about is asked once for all branches that are about the same ones.
    groups: dict[Holds, list[Branch]] = defaultdict(list)
    for branch in branches:
        groups[branch.among].append(branch)
    totals: Counter[Holds] = Counter()
    counts: Counter[str] = Counter()
    for case in cases:
        for among, group in groups.items():
            if among(case):
                totals[among] += 1
                counts.update(branch.name for branch in group if branch.holds(case))
    return {
        branch.name: Share(counts[branch.name], totals[among])
        for among, group in groups.items()
        for branch in group
    }


@functools.cache
def shares(sample: Sample, branches: tuple[Branch, ...]) -> dict[str, Share]:
    """The share of each of a sample's branches; the cases are drawn once."""
    return count(branches, sample.draw())
