"""The memory of a night: what is added up, and the line that is drawn through it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Any

import psutil
import pytest

from ci import memory
from ci.memory import MIB, Sample, fit, sample, summary

LARGE = 100 << 20

PARENT = f"""
import subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-c", "x = b'x' * {LARGE}; print(len(x), flush=True); input()"],
    stdin=sys.stdin,
)
child.wait()
"""


def test_memory_of_all_processes_is_added_up_by_level() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == LARGE
        taken = sample(psutil.Process(process.pid), 3.0)
        above = sample(psutil.Process(os.getpid()), 4.0)
        process.kill()
    assert (taken.seconds, taken.processes) == (3.0, 2)
    main, engines, kernels = taken.levels
    assert 1.0 < main < LARGE / MIB < engines < 2 * LARGE / MIB
    assert kernels == 0.0
    assert taken.total == main + engines
    # The same, one level further down.
    assert above.levels[2] == pytest.approx(engines, rel=0.1)


def test_memory_is_drawn_out_along_its_line() -> None:
    seconds = [600.0 + 10.0 * i for i in range(61)]
    line = fit(seconds, [500.0 + 90.0 * s / 3600.0 for s in seconds])
    assert (line.start, line.slope) == (pytest.approx(500.0), pytest.approx(90.0))
    assert line.error < 1e-6
    assert line.at(2.0) == pytest.approx(680.0)
    noisy = fit(seconds, [500.0 + (-1) ** i * 6.0 for i, _ in enumerate(seconds)])
    assert abs(noisy.slope) < 2 * noisy.error
    assert noisy.error == pytest.approx(6.0 / (61**0.5 * 1.761 / 36), rel=0.05)


def samples(count: int, growth: float) -> list[Sample]:
    return [
        Sample(10.0 * i, (50.0, 100.0, 300.0 + growth * i + 1000.0 * (i < 3)), 6)
        for i in range(count)
    ]


def summed_up(count: int, growth: float) -> dict[str, Any] | None:
    options = argparse.Namespace(warm_up=30.0, hours=2.0, limit=2048.0)
    return summary(samples(count, growth), options)


def test_memory_is_summed_up_without_the_warm_up(capsys: pytest.CaptureFixture[str]) -> None:
    found = summed_up(40, 1.0)
    assert found is not None
    assert found["largest"] > 1400.0
    # 1 MiB in 10 s.
    assert found["lines"]["total"]["slope"] == pytest.approx(360.0)
    assert found["lines"]["engines"]["slope"] == pytest.approx(0.0)
    assert found["expected"] == pytest.approx(450.0 + 720.0)
    memory.print_summary(found)
    assert "after 2 h: 1170 MiB expected, limit 2048 MiB" in capsys.readouterr().out


def test_memory_of_a_few_samples_says_nothing() -> None:
    assert summed_up(3 + memory.LEAST_SAMPLES, 1.0) is not None
    assert summed_up(2 + memory.LEAST_SAMPLES, 1.0) is None
