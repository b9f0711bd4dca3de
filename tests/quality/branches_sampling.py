"""What a branch of the strategies must bring about, and the drawn cases in which it is counted."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
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


# So many cases that must hold it, or so many that it is about, tell a branch that is there from one
# that is not. What is drawn is then some four standard deviations or more above what must be.
_HOLDING = 80
_ABOUT = 2000


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

    @property
    def enough(self) -> int:
        """Cases among which it is counted: the first ones, or all where the share is nearly all."""
        return max(round(_HOLDING / self.least), _ABOUT) if self.least < 0.9 else self.sample.count


@dataclass(frozen=True)
class Share:
    """In how many cases of how many a branch was seen."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / max(self.total, 1)


class Counts:
    """The branches of one sample counted in the same cases, drawn as far as they are needed."""

    def __init__(self, sample: Sample, branches: Iterable[Branch]) -> None:
        self._cases: Iterator[Case] = iter(sample.draw())
        # Which cases it is about is asked once for all branches that are about the same ones.
        self._groups: dict[Holds, list[Branch]] = defaultdict(list)
        for branch in branches:
            self._groups[branch.among].append(branch)
        self._totals: Counter[Holds] = Counter()
        self._counts: Counter[str] = Counter()

    def share(self, branch: Branch) -> Share:
        """The share of a branch: in the first cases that are enough, or in all that there are."""
        while self._totals[branch.among] < branch.enough:
            case = next(self._cases, None)
            if case is None:
                break
            self._count(case)
        return Share(self._counts[branch.name], min(self._totals[branch.among], branch.enough))

    def _count(self, case: Case) -> None:
        for among, group in self._groups.items():
            if among(case):
                self._totals[among] += 1
                total = self._totals[among]
                self._counts.update(b.name for b in group if total <= b.enough and b.holds(case))


@functools.cache
def counts(sample: Sample, branches: tuple[Branch, ...]) -> Counts:
    """The counts of a sample's branches; the cases are drawn once."""
    return Counts(sample, branches)
