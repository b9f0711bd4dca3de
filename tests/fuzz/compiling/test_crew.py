"""Compiling processes are supervised: whatever one does costs the task that it was at."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from fuzz.compiling import crew as module
from fuzz.compiling.crew import CannotStart, Crew, Lost, Order, Stopped
from fuzz.compiling.gpus import GPUS
from fuzz.process.kernel_process import never
from tests.fuzz.compiling import fake_worker
from tests.fuzz.processes import is_alive


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    monkeypatch.setattr(module, "worker_main", fake_worker.obedient)
    with Crew(2, gpu=GPUS[0]) as found:
        yield found


def work(crew: Crew, *tasks: str, seconds: float = 60.0, stop: Any = never) -> dict[int, Any]:
    orders: Iterator[Order[int]] = (Order(task, i) for i, task in enumerate(tasks))  # type: ignore[arg-type]
    return dict(crew.work(orders, seconds=seconds, stop=stop))


def pids(answers: dict[int, Any]) -> set[int]:
    return {int(a.error.rpartition(" ")[2]) for a in answers.values() if not isinstance(a, Lost)}


def test_crew_answers_every_task_by_two_processes(crew):
    answers = work(crew, *"abcdefghij")
    assert [answers[i].error[0] for i in range(10)] == list("abcdefghij")
    assert 1 <= len(pids(answers)) <= 2


def test_crew_charges_a_death_to_the_task_alone(crew):
    answers = work(crew, "a", "die", "b", "die", "c", "d")
    assert {i for i, a in answers.items() if isinstance(a, Lost)} == {1, 3}
    assert answers[1].reason == ("its process ended with SIGABRT: LLVM ERROR: no more")
    assert sorted(answers) == list(range(6))


def test_crew_ends_a_task_that_takes_too_long(crew):
    began = time.monotonic()
    answers = work(crew, "a", "hang", "b", seconds=2.0)
    assert answers[1] == Lost("not done within 2 s")
    assert answers[2].error.startswith("b")
    assert time.monotonic() - began < 20


def test_crew_replaces_a_process_that_died_between_two_tasks(crew):
    first = work(crew, "answer and die")
    for pid in pids(first):
        while is_alive(pid):
            time.sleep(0.02)
    answers = work(crew, "a", "b", "c")
    assert [answers[i].error[0] for i in range(3)] == list("abc")


def test_crew_stops_when_it_is_told_and_leaves_nobody_behind(crew):
    known = pids(work(crew, *"abcdef"))
    with pytest.raises(Stopped):
        work(crew, "hang", "hang", stop=lambda: True)
    crew.__exit__()
    assert not any(is_alive(pid) for pid in known)


@pytest.mark.parametrize(
    ("worker", "reason"),
    [(fake_worker.unfit, "no torch"), (fake_worker.stillborn, "exit code 7")],
)
def test_crew_says_why_no_process_can_start(monkeypatch, worker, reason):
    monkeypatch.setattr(module, "worker_main", worker)
    with Crew(1, gpu=GPUS[0]) as crew, pytest.raises(CannotStart, match=reason):
        work(crew, "a")
