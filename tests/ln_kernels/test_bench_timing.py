import time
from types import SimpleNamespace

import pytest

from ln_kernels.benchmark import timing

FLUSH_MS = 0.064


class Device:
    """What timing uses of torch: a stream of work whose end events tell; the host takes no time."""

    int32 = None

    def __init__(self):
        self.now = 0.0
        self.log = []
        self.cuda = SimpleNamespace(Event=self._event, synchronize=lambda: None)

    def work(self, name, ms):
        self.log.append(name)
        self.now += ms

    def empty(self, size, dtype, device):
        return SimpleNamespace(zero_=lambda: self.work("flush", FLUSH_MS))

    def _event(self, enable_timing):
        event = SimpleNamespace(at=None, synchronize=lambda: None)
        event.record = lambda: setattr(event, "at", self.now)
        event.elapsed_time = lambda other: other.at - event.at
        return event


@pytest.fixture
def device(monkeypatch):
    device = Device()
    monkeypatch.setattr(timing, "torch", device)
    return device


def test_percentiles_are_interpolated():
    values = [4.0, 1.0, 3.0, 2.0]
    assert timing.percentile(values, 0.0) == 1.0
    assert timing.percentile(values, 0.5) == 2.5
    assert timing.percentile(values, 1.0) == 4.0
    assert timing.timing([2.0]) == timing.Timing(2.0, 2.0, 2.0, 1)


def test_times_are_of_the_run_alone_and_each_follows_a_flush(device):
    timer = timing.DeviceTimer(5.0)
    runs = {name: lambda name=name, ms=ms: device.work(name, ms) for name, ms in TIMES.items()}
    device.log.clear()
    times = timer.time(runs)
    assert {name: round(t.ms, 6) for name, t in times.items()} == TIMES
    assert all(t.low_ms == pytest.approx(t.ms) for t in times.values())
    # After the first calls, which compile, none runs on what another left in the cache.
    log = device.log[len(runs) :]
    before = [log[at - 1] for at, name in enumerate(log) if name != "flush"]
    assert set(before) == {"flush"}


TIMES = {"a": 0.5, "b": 0.1, "c": 2.0}


def test_implementations_take_turns_and_each_is_first_in_turn(device):
    timer = timing.DeviceTimer(40.0)
    runs = {name: lambda name=name, ms=ms: device.work(name, ms) for name, ms in TIMES.items()}
    device.log.clear()
    times = timer.time(runs)
    order = [name for name in device.log if name != "flush"][-times["a"].repetitions * len(runs) :]
    rounds = [order[at : at + 3] for at in range(0, len(order), 3)]
    assert rounds[:4] == [list("abc"), list("bca"), list("cab"), list("abc")]


def test_the_budget_bounds_the_rounds(device):
    def repetitions(budget_ms, ms):
        timer = timing.DeviceTimer(budget_ms)
        return timer.time({"a": lambda: device.work("a", ms)})["a"].repetitions

    assert repetitions(60.0, 1e-3) == timing.MAX_ROUNDS
    assert repetitions(1.0, 50.0) == timing.MIN_ROUNDS
    assert repetitions(60.0, 1.0) == pytest.approx(60 / (1.0 + 2 * FLUSH_MS), abs=5)


def test_the_device_has_work_while_the_host_queues_a_round(device):
    timer = timing.DeviceTimer(30.0)

    def run():
        time.sleep(2e-3)
        device.work("a", 0.1)

    device.log.clear()
    timer.time({"a": run})
    flushes = "".join("f" if name == "flush" else "r" for name in device.log).split("r")[-2]
    # The flushes of the head start, and the one that belongs to the run.
    assert len(flushes) >= 2.0 / FLUSH_MS


def test_launch_overhead_is_the_time_of_a_call(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    log = []

    def run(name, seconds):
        log.append(name)
        clock[0] += seconds

    runs = {"a": lambda: run("a", 8e-6), "b": lambda: run("b", 5e-6)}
    found = timing.launch_overhead(runs, lambda: log.append("synchronize"))
    assert {name: round(t.ms, 9) for name, t in found.items()} == {"a": 8e-3, "b": 5e-3}
    # After a first call each, which compiles: many calls that nobody waits for, in turn.
    many = timing.LAUNCH_CALLS
    block = [["synchronize", *[name] * many] for name in "abba"]
    assert log[2 : 2 + 4 * (many + 1)] == [entry for part in block for entry in part]
