"""A fault costs one verdict: that of its own case, in the run that had it, in the right words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fuzz.case import Case
from fuzz.process.journal import Journal
from fuzz.process.kernel_process import KernelProcess
from fuzz.process.limits import Limits
from fuzz.relations import expand
from fuzz.runner import Runner
from tests.crashes.battery import LIMITS, Audit, audit, draw, read_lines
from tests.crashes.faults import (
    BACKEND,
    FAULTS,
    FOLDER,
    TARGET_FILE,
    Planned,
    Strike,
    faults_of,
    read_strikes,
    write_plan,
)
from tests.fuzz.processes import is_alive

SHORT = {"cpu": Limits(4.0, 0.0, 0.0, 0.0), "cuda": LIMITS["cuda"]}

TERMINATION = 3.0
"""Seconds that pebble gives a process to end by itself."""

SLACK = 10.0
"""Seconds that all else may take where other tests run beside this one."""


class Bench:
    """A kernel process whose target fails as planned, and cases that are never used twice."""

    def __init__(self, device: str, folder: Path) -> None:
        self.device = device
        self.folder = folder
        self.kernel = KernelProcess(device, backend=BACKEND, limits=SHORT[device])
        (self.spec,) = self.kernel.specs(str(TARGET_FILE))
        self._cases = [c for c in draw(self.spec, seed=5, count=400) if len(expand(c)) > 2]

    def take(self, count: int) -> list[Case]:
        """Cases of at least three runs."""
        return [self._cases.pop() for _ in range(count)]

    def run(
        self, cases: Sequence[Case], plan: Sequence[Planned], journal_path: Path
    ) -> tuple[Audit, list[Strike], dict[str, float]]:
        """What the journal says, which faults came to pass, and when each case had its verdict."""
        for item in plan:
            write_plan(self.folder, item)
        noticed = {}
        with Journal(journal_path) as journal:
            for result in Runner(self.kernel, journal).judge_all(self.spec, cases):
                noticed[result.case.case_id] = time.monotonic()
        mine = {case.case_id for case in cases}
        strikes = [s for s in read_strikes(self.folder) if s.planned.case_id in mine]
        lines = list(read_lines([journal_path]))
        return (
            audit(cases, plan, strikes, lines, noticed, device=self.device),
            strikes,
            noticed,
        )


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Bench]]:
    made: dict[str, Bench] = {}
    folder = tmp_path_factory.mktemp("plan")

    def get(device: str) -> Bench:
        if device not in made:
            made[device] = Bench(device, folder)
        return made[device]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(folder))
        patch.chdir(Path(__file__).parents[2])
        yield get
        for bench in made.values():
            bench.kernel.close()


ON_GPU = [
    pytest.param("cuda", fault.id, marks=pytest.mark.gpu)
    for fault in FAULTS.values()
    if fault.on_gpu_only or fault.gpu_region
]


@pytest.mark.parametrize(
    ("device", "fault_id"), [("cpu", fault.id) for fault in faults_of("cpu")] + ON_GPU
)
def test_fault_costs_the_verdict_of_its_own_case_alone(
    bench_of: Callable[[str], Bench], tmp_path: Path, device: str, fault_id: str
) -> None:
    bench = bench_of(device)
    fault = FAULTS[fault_id]
    cases = bench.take(4)
    bad = cases[1]
    # In the second run, so that the first has been observed.
    planned = Planned(bad.case_id, fault_id, expand(bad)[1].name)
    found, (strike,), noticed = bench.run(cases, [planned], tmp_path / "journal.jsonl")
    assert found.complaints == []
    assert (found.charged, found.passed) == (1, 3)
    # Where it did not outlive the fault, the cases behind ran in another.
    assert is_alive(strike.process) != fault.fatal
    limit = SHORT[device].of(expand(bad))
    assert noticed[bad.case_id] - strike.at < limit + TERMINATION + SLACK


def test_faults_one_after_another_are_told_apart(
    bench_of: Callable[[str], Bench], tmp_path: Path
) -> None:
    # Each is handed over before the one in front of it strikes.
    bench = bench_of("cpu")
    cases = bench.take(5)
    kinds = ("segfault", "exit_quietly", "sys_exit", "oom_killed")
    plan = [Planned(c.case_id, kind, "base") for c, kind in zip(cases, kinds, strict=False)]
    found, strikes, _ = bench.run(cases, plan, tmp_path / "journal.jsonl")
    assert found.complaints == []
    assert (found.charged, found.passed) == (4, 1)
    # The one that only raises leaves its process to the next.
    assert len({strike.process for strike in strikes}) == 3
