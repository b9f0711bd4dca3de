"""What the engine makes of a kernel process that dies at an awkward time, or never gets going."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pebble.pool import process as pool

from fuzz.inputs import make_values
from fuzz.process import kernel_process
from fuzz.process.kernel_process import (
    KernelProcess,
    KernelProcessError,
    Outcome,
    Ticket,
)
from fuzz.process.limits import Limits
from fuzz.process.mailbox import NOT_STARTED
from fuzz.relations import expand
from fuzz.spec import TargetSpec
from tests.fuzz.fake_backend import BACKEND, FakeBackend, case_of, spec_of
from tests.fuzz.processes import wait_until

LIMIT = 20.0
LAST_WORDS = 0.5
DELAYS = (0.3, 0.9)
"""Within the time for last words, and beyond it."""


# --- backends that fail before any case -----------------------------------------------------------


class HangsAtStart(FakeBackend):
    def __init__(self, device: str) -> None:
        time.sleep(600)


class LeavesAtStart(FakeBackend):
    def __init__(self, device: str) -> None:
        os._exit(0)


class CrashesAtStart(FakeBackend):
    def __init__(self, device: str) -> None:
        ctypes.string_at(0)


class HangsWhenAsked(FakeBackend):
    def specs(self, name: str) -> tuple[TargetSpec, ...]:
        time.sleep(600)
        return ()


class LeavesWhenAsked(FakeBackend):
    def specs(self, name: str) -> tuple[TargetSpec, ...]:
        os._exit(0)


class CrashesWhenAsked(FakeBackend):
    def specs(self, name: str) -> tuple[TargetSpec, ...]:
        ctypes.string_at(0)
        return ()


class InterruptedWhenAsked(FakeBackend):
    def specs(self, name: str) -> tuple[TargetSpec, ...]:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("backend", "seconds", "says"),
    [
        (HangsAtStart, 1.0, "no kernel process has started in 1 s"),
        (LeavesAtStart, 60.0, "the kernel process ended with exit code 0"),
        (CrashesAtStart, 60.0, "the kernel process died of SIGSEGV"),
        # Long enough for it to be asked.
        (HangsWhenAsked, 4.0, "the kernel process gave no answer within 4 s"),
        (LeavesWhenAsked, 60.0, "the kernel process ended with exit code 0"),
        (CrashesWhenAsked, 60.0, "the kernel process died of SIGSEGV"),
        (InterruptedWhenAsked, 60.0, "KeyboardInterrupt"),
    ],
)
def test_kernel_process_that_gives_no_spec_says_why(
    monkeypatch: pytest.MonkeyPatch, backend: type[FakeBackend], seconds: float, says: str
) -> None:
    monkeypatch.setattr(kernel_process, "START_LIMIT", seconds)
    began = time.monotonic()
    path = f"{__name__}:{backend.__name__}"
    with KernelProcess("cpu", backend=path) as kernel, pytest.raises(KernelProcessError) as told:
        kernel.specs("right")
    assert says in str(told.value)
    assert time.monotonic() - began < min(2 * seconds, 30) + 5


# --- a pool that reads too late -------------------------------------------------------------------


class Late:
    """Has the pool read what its process says only after some seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def begin(self, seconds: float) -> None:
        """From now on. The pool ends the look that it is having."""
        self.seconds = seconds
        time.sleep(0.2)

    def read(self, manager: pool.PoolManager, timeout: float) -> None:
        time.sleep(self.seconds)
        _read(manager, timeout)


_read = pool.PoolManager.process_next_message


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Late:
    late = Late()
    monkeypatch.setattr(pool.PoolManager, "process_next_message", lambda m, t: late.read(m, t))
    return late


@pytest.fixture
def kernel(late: Late, monkeypatch: pytest.MonkeyPatch) -> Iterator[KernelProcess]:
    monkeypatch.setattr(kernel_process, "LAST_WORDS", LAST_WORDS)
    limits = Limits(LIMIT, 0.0, 0.0, 0.0)
    with KernelProcess("cpu", backend=BACKEND, limits=limits) as process:
        assert process.names()
        yield process
        late.seconds = 0.0


def submit(kernel: KernelProcess, target: str, seed: int = 1) -> Ticket:
    case = case_of(target, seed=seed)
    return kernel.submit(spec_of(target), case, expand(case), make_values(case))


def statuses(outcome: Outcome) -> list[str]:
    assert outcome.problem is None
    return [seen.status for seen in outcome.observations]


def process_id(outcome: Outcome) -> int:
    assert statuses(outcome) == ["ok", "ok", "ok"]
    return int(outcome.observations[0].outputs["y"].bits[0, 0])


@pytest.mark.parametrize("seconds", DELAYS)
@pytest.mark.parametrize(("target", "kind"), [("segfault", "SIGSEGV"), ("leave", "exit code 3")])
def test_death_that_is_noticed_first_is_not_charged_to_the_case_before(
    kernel: KernelProcess, late: Late, target: str, kind: str, seconds: float
) -> None:
    first = process_id(kernel.collect(submit(kernel, "process_id")))
    late.begin(seconds)
    before, guilty = submit(kernel, "process_id"), submit(kernel, target)
    # Not run again.
    assert process_id(kernel.collect(before)) == first
    behind = submit(kernel, "right", seed=2)
    began = time.monotonic()
    (seen,) = kernel.collect(guilty).observations
    assert (seen.run, seen.status) == ("base", "crashed")
    assert seen.error is not None
    assert seen.error.type == kind
    # Not the whole of its time limit.
    assert time.monotonic() - began < LIMIT / 2
    late.seconds = 0.0
    assert statuses(kernel.collect(behind)) == ["ok", "ok", "ok"]


@pytest.mark.parametrize("seconds", DELAYS)
def test_process_that_leaves_as_unfit_has_told_why(
    kernel: KernelProcess, late: Late, seconds: float
) -> None:
    late.begin(seconds)
    lost, behind = submit(kernel, "cuda_error"), submit(kernel, "right")
    assert statuses(kernel.collect(lost)) == ["cuda_error"]
    late.seconds = 0.0
    assert statuses(kernel.collect(behind)) == ["ok", "ok", "ok"]


def test_case_that_was_killed_is_not_run_again_with_the_pool_that_broke(
    kernel: KernelProcess, late: Late
) -> None:
    late.begin(0.9)
    killed = submit(kernel, "hang")
    outbox = kernel._slots[killed.index].outbox
    wait_until(lambda: outbox.running != NOT_STARTED)
    os.kill(outbox.pid, signal.SIGKILL)
    # Until the pool has seen it, of which it knows nothing yet.
    time.sleep(0.3)
    behind = submit(kernel, "right")
    late.seconds = 0.0
    assert statuses(kernel.collect(killed)) == ["crashed"]
    assert statuses(kernel.collect(behind)) == ["ok", "ok", "ok"]


def test_kernel_process_killed_while_a_case_is_handed_over_costs_none(
    kernel: KernelProcess,
) -> None:
    for seed in range(5):
        pid = process_id(kernel.collect(submit(kernel, "process_id", seed)))
        # Before the pool has had a look at it.
        os.kill(pid, signal.SIGKILL)
        assert statuses(kernel.collect(submit(kernel, "right", seed))) == ["ok", "ok", "ok"]


def test_case_ends_in_time_even_where_the_pool_forgets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool.TaskManager, "timeout", staticmethod(lambda task: False))
    with KernelProcess("cpu", backend=BACKEND, limits=Limits(1.0, 0.0, 0.0, 0.0)) as kernel:
        assert kernel.names()
        monkeypatch.setattr(kernel_process, "START_LIMIT", 2.0)
        began = time.monotonic()
        assert statuses(kernel.collect(submit(kernel, "hang"))) == ["timed_out"]
        assert 3 < time.monotonic() - began < 10
        assert statuses(kernel.collect(submit(kernel, "right"))) == ["ok", "ok", "ok"]


def test_crashes_leave_nothing_open(kernel: KernelProcess) -> None:
    counts = []
    for seed in range(9):
        assert statuses(kernel.collect(submit(kernel, "segfault", seed))) == ["crashed"]
        assert statuses(kernel.collect(submit(kernel, "right", seed))) == ["ok", "ok", "ok"]
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts[-1] <= counts[4]
