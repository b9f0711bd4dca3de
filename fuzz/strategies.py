"""From a target's spec to cases: Hypothesis strategies, built once for each spec and budget.

Hypothesis draws a case's entropy; every choice follows from it by the tables of
:mod:`fuzz.space` (:mod:`fuzz.space.choices` says why). Its shrinker is not used either:
:mod:`fuzz.shrink` works on cases and knows shapes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as start_at
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fuzz.case import Case
from fuzz.space.budget import GPU_BUDGET, INTERPRETER_BUDGET, REFUSAL_BUDGET, Budget
from fuzz.space.case_plan import CasePlan
from fuzz.space.choices import Chooser
from fuzz.space.features import coverage, declared_features, features
from fuzz.space.fixes import FIXABLE, check_fixes
from fuzz.space.frames import FramedPlan, Frames
from fuzz.space.refusals import REFUSALS, declared_refusals
from fuzz.spec import TargetSpec

__all__ = [
    "FIXABLE",
    "GPU_BUDGET",
    "INTERPRETER_BUDGET",
    "Budget",
    "Frames",
    "cases",
    "check_fixes",
    "coverage",
    "declared_features",
    "draw_cases",
    "features",
]

# A target refuses up to ten things: each is seen once in two hundred cases.
_REFUSAL_SHARE = 0.05
# A valid case can as a rule be spoiled in the way that is asked for; some lack the tensor.
_REFUSAL_ATTEMPTS = 200


class _AnyCase:
    """Draws valid cases, and now and then an invalid one of those that the target refuses."""

    def __init__(self, spec: TargetSpec, budget: Budget, frames: Frames | None) -> None:
        plan = CasePlan(spec, budget)
        self._draw = plan.draw if frames is None else FramedPlan(spec, budget, plan, frames).draw
        # Not planted: sizes change under the values.
        self._small = CasePlan(spec, REFUSAL_BUDGET, plants=False)
        self._refusals = self._possible_refusals(spec)
        wanted = spec.space.fix("refusal") in self._refusals
        self._share = 1.0 if wanted else _REFUSAL_SHARE

    def __call__(self, entropy: bytes) -> Case:
        chooser = Chooser(int.from_bytes(entropy, "big"))
        if self._refusals and chooser.chance(self._share):
            case = self._spoil(chooser, chooser.any_of(self._refusals))
            if case is not None:
                return case
        return self._draw(chooser)

    def _possible_refusals(self, spec: TargetSpec) -> tuple[str, ...]:
        """The declared refusals, those left out that cannot be where sizes are fixed.

        Raises: ValueError for one that can never be, or that is fixed and cannot be.
        """
        names = declared_refusals(spec)
        possible = tuple(n for n in names if self._spoil(Chooser(0), n) is not None)
        if possible != names and (not spec.space.fixed or not possible):
            lacking = ", ".join(n for n in names if n not in possible)
            raise ValueError(f"refusal={lacking}: no case can be made one [{spec.name}]")
        return possible

    def _spoil(self, chooser: Chooser, refusal: str) -> Case | None:
        for _ in range(_REFUSAL_ATTEMPTS):
            spoiled = REFUSALS[refusal](self._small.draw(chooser))
            if spoiled is not None:
                return replace(spoiled, relations=(), refusal=refusal)
        return None


_ENTROPY_BYTES = 16
_ENTROPY = st.binary(min_size=_ENTROPY_BYTES, max_size=_ENTROPY_BYTES)

# A batch takes one page; an example of Hypothesis may have 8 KB.
_PAGE = 64
_PAGES = st.lists(_ENTROPY, min_size=_PAGE, max_size=_PAGE)


def cases(spec: TargetSpec, budget: Budget, frames: Frames | None = None) -> SearchStrategy[Case]:
    """The cases of a target within a budget; invalid ones that it declares to refuse included.

    ``frames`` limits them to variations of so many drawn cases, which share compiled kernels.

    Raises: ValueError when the spec declares a refusal that is not known.
    """
    return _ENTROPY.map(_maker(spec, budget, frames))


@functools.lru_cache(maxsize=64)
def _maker(spec: TargetSpec, budget: Budget, frames: Frames | None) -> _AnyCase:
    return _AnyCase(spec, budget, frames)


def draw_cases(
    spec: TargetSpec, *, seed: int, count: int, budget: Budget, frames: Frames | None = None
) -> Iterator[Case]:
    """``count`` cases; the same for the same arguments and versions of this and of Hypothesis.

    Made one by one as they are asked for, so that a kernel can run meanwhile.

    Raises: ValueError as :func:`cases`.
    """
    make = _maker(spec, budget, frames)
    return (make(entropy) for entropy in _entropies(f"{spec.name}/{seed}", count))


def _entropies(seed: str, count: int) -> Iterator[bytes]:
    """The entropies of ``count`` cases.

    An example of Hypothesis is a page of them: what it does around each example, saving and
    restoring the global random states above all, takes several times as long as making a case.
    """
    drawn = 0
    for number in itertools.count():
        # Hypothesis may stop early; where it does is no reason to return less.
        for entropy in _draw_page(f"{seed}/{number}"):
            if drawn == count:
                return
            yield entropy
            drawn += 1


def _draw_page(seed: str) -> list[bytes]:
    drawn: list[list[bytes]] = []

    # All that a loaded profile, the environment or CI could change is given here.
    @start_at(seed)
    @settings(
        settings.get_profile("default"),
        max_examples=2,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.normal,
        suppress_health_check=list(HealthCheck),
        backend="hypothesis",
    )
    @given(_PAGES)
    def collect(page: list[bytes]) -> None:
        drawn.append(page)

    collect()
    # The first is the simplest example, one and the same for every seed. There are never more than
    # two: Hypothesis would make the next ones by repeating parts of those before.
    return [entropy for page in drawn[1:] for entropy in page]
