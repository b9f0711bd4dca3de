"""Effort: what was tried least is tried more, and what is kept follows from what is known alone."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator

from fuzz.case import Case
from fuzz.cells import cell_of
from fuzz.jobs.effort import UNSTEERED, Effort, choose
from fuzz.jobs.plan import Batch, cases_of
from fuzz.strategies import INTERPRETER_BUDGET, draw_cases
from tests.fuzz.fake_backend import spec_of

SPEC = spec_of("right")
MANY = 10**6


def candidates(count: int = 2000, seed: int = 5) -> Iterator[Case]:
    return draw_cases(SPEC, seed=seed, count=count, budget=INTERPRETER_BUDGET)


def names(cases: Iterator[Case]) -> list[str]:
    return [str(cell_of(case)) for case in cases]


def common(most: int = 12) -> list[str]:
    return [name for name, _ in Counter(names(candidates())).most_common(most)]


def test_choice_is_the_same_for_the_same_candidates_and_counts() -> None:
    effort = Effort(4, dict.fromkeys(common(), MANY))
    first, again = ([c.case_id for c in choose(candidates(), effort, 300)] for _ in range(2))
    assert first == again
    other = Effort(4, dict.fromkeys(common(2), MANY))
    assert [c.case_id for c in choose(candidates(), other, 300)] != first


def test_choice_keeps_the_number_asked_for_and_draws_what_it_says() -> None:
    for wanted, few in ((1, 8), (4, 2), (5, 1), (30, 8)):
        effort = Effort(few)
        source = candidates(250)
        assert len(list(choose(source, effort, wanted))) == wanted
        assert len(list(source)) == 250 - effort.drawn_for(wanted)


def test_choice_ends_with_its_candidates() -> None:
    assert list(choose(iter(()), Effort(4), 10)) == []
    # One as it was drawn and the best of four, twice; the last of two.
    assert len(list(choose(candidates(8), Effort(4), 10))) == 4


def test_choice_keeps_cases_in_the_order_of_drawing_and_each_once() -> None:
    order = {case.case_id: number for number, case in enumerate(candidates())}
    kept = [order[case.case_id] for case in choose(candidates(), Effort(4), 400)]
    assert kept == sorted(set(kept))


def test_choice_of_one_candidate_is_the_drawing_itself() -> None:
    drawn = [case.case_id for case in candidates(100)]
    assert [case.case_id for case in choose(candidates(100), Effort(1), 100)] == drawn


def test_choice_prefers_cells_that_were_tried_least() -> None:
    cells = common(40)
    rare = set(cells[20:])
    tried = dict.fromkeys(cells[:20], MANY)
    plain = sum(name in rare for name in names(candidates(400)))
    steered = sum(name in rare for name in names(choose(candidates(), Effort(4, tried), 400)))
    # Where all candidates are of cells that were tried, or none is, there is nothing to prefer.
    assert steered > 1.4 * plain


def test_choice_evens_out_what_it_keeps_itself() -> None:
    plain = Counter(names(candidates(400)))
    kept = Counter(names(choose(candidates(3000), Effort(8), 400)))
    assert len(kept) > 1.15 * len(plain)
    # Leaving aside what is not steered, the most common cell is common no more.
    assert max(kept.values()) < 0.8 * max(plain.values())


def test_choice_prefers_cells_near_the_bound() -> None:
    cells = common(40)
    near = frozenset(cells[::2])
    tried = dict.fromkeys(cells, 1000)
    plain = sum(n in near for n in names(choose(candidates(), Effort(4, tried), 400)))
    steered = sum(n in near for n in names(choose(candidates(), Effort(4, tried, near), 400)))
    assert steered > 1.2 * plain


def test_choice_leaves_some_cases_as_it_was_drawn() -> None:
    drawn = list(candidates(400))
    cells = Counter(str(cell_of(case)) for case in drawn)
    # However often it was tried, a common cell goes on being tried.
    (cell, times), *_ = cells.most_common(1)
    effort = Effort(8, {cell: MANY})
    kept = names(choose(candidates(3000), effort, 400))
    unsteered = kept[::UNSTEERED]
    assert unsteered.count(cell) >= 0.5 * times / UNSTEERED
    assert kept.count(cell) == unsteered.count(cell)


def test_choice_of_a_batch_is_steered_by_its_effort() -> None:
    effort = Effort(8, dict.fromkeys(common(), MANY))
    plain = Batch(0, 0, seed=5, count=100)
    steered = Batch(0, 0, seed=5, count=100, effort=effort)
    drawn = [c.case_id for c in cases_of(plain, SPEC, device="cpu", seed=1)]
    kept = [c.case_id for c in cases_of(steered, SPEC, device="cpu", seed=1)]
    assert drawn == [c.case_id for c in candidates(100)]
    assert kept == [c.case_id for c in choose(candidates(effort.drawn_for(100)), effort, 100)]
    assert len(kept) == len(drawn)
    assert kept != drawn


def test_batch_that_has_its_cases_keeps_them() -> None:
    given = tuple(candidates(3))
    batch = Batch(0, 0, seed=5, count=3, cases=given, effort=Effort(8))
    assert tuple(cases_of(batch, SPEC, device="cpu", seed=1)) == given


def test_batch_on_a_gpu_takes_its_own_frames() -> None:
    def launches(frames: int | None, seed: int = 1) -> set[object]:
        batch = Batch(0, 0, seed=5, count=60, frames=frames)
        return {(c.launch, c.leading) for c in cases_of(batch, SPEC, device="cuda", seed=seed)}

    assert launches(7) == launches(7, seed=2) != launches(8)
    assert launches(None, seed=7) == launches(7)


def test_effort_is_small_enough_for_every_batch() -> None:
    cells = Counter(names(candidates()))
    effort = Effort(8, dict(cells), frozenset(cells))
    assert len(pickle.dumps(effort)) < 120 * len(cells)
