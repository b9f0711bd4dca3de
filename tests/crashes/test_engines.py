"""A campaign on the built-in kernels that loses a process: what stays, goes on, and is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fuzz.process.mailbox import SEGMENTS
from tests.fuzz.processes import abandoned_segments, descendants, is_alive, wait_until

ROOT = Path(__file__).resolve().parents[2]

ORPHANS_LIMIT = 5.0
"""Seconds in which every process of a campaign is gone once its parent is."""


class Campaign:
    """`ln-fuzz run` with two runners, on cases that take some milliseconds."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self.result = folder / "result.json"
        limits = ("--time", "300s", "--workers", "2", "--seed", "1", "--fix", "n_cols=8")
        where = ("--device", "cpu", "--out", str(self.out), "--json", str(self.result))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fuzz", "run", "--target", "layer_norm", *limits, *where],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def journal(self, number: int) -> Path:
        (found,) = self.out.glob(f"runs/*/journal-{number}.jsonl")
        return found

    def lines(self, number: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.journal(number).read_text().splitlines()]

    def judged(self, number: int) -> list[str]:
        """The cases of a runner that have a verdict."""
        if not list(self.out.glob(f"runs/*/journal-{number}.jsonl")):
            return []
        return [line["id"] for line in self.lines(number) if line["event"] == "end"]

    def wait_for(self, number: int, verdicts: int) -> None:
        wait_until(lambda: len(self.judged(number)) >= verdicts, seconds=60)

    def engine(self, number: int) -> int:
        """The engine's process: the one that has the journal open."""
        path = self.journal(number)
        (found,) = [pid for pid in descendants(self.process.pid) if has_open(pid, path)]
        return found

    def kernel(self, number: int) -> int:
        """The kernel process of an engine: its only child."""
        (found,) = descendants(self.engine(number))
        return found

    def interrupt(self) -> str:
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=40)
        return output


def has_open(pid: int, path: Path) -> bool:
    try:
        return any(link.resolve() == path for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    started = Campaign(tmp_path)
    try:
        for number in (0, 1):
            started.wait_for(number, 5)
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def test_campaign_outlives_an_engine_and_says_so(campaign: Campaign) -> None:
    engine = campaign.engine(0)
    below = [engine, *descendants(engine)]
    before = campaign.judged(0)
    os.kill(engine, signal.SIGKILL)
    wait_until(lambda: not any(is_alive(pid) for pid in below), seconds=ORPHANS_LIMIT)
    # The other one goes on.
    campaign.wait_for(1, len(campaign.judged(1)) + 10)
    assert campaign.process.poll() is None
    output = campaign.interrupt()
    assert campaign.process.returncode == 2, output
    assert "runner 0 died (exit code -9)" in output
    assert campaign.journal(0).name in output
    # What was finished is there, and the case it was at is named.
    lines = campaign.lines(0)
    assert set(before) <= {line["id"] for line in lines if line["event"] == "end"}
    assert lines[-1]["event"] == "begin" or lines[-1]["status"] == "pass"
    data = json.loads(campaign.result.read_text())
    assert data["exit_code"] == 2
    assert data["executed"] >= len(campaign.judged(1))
    assert data["planned"] > data["executed"] + data["skipped"] + data["not_reached"]
    assert not list(SEGMENTS.glob(f"ln-fuzz-{engine}-*"))


def test_campaign_killed_leaves_its_journals_and_nothing_else(campaign: Campaign) -> None:
    below = descendants(campaign.process.pid)
    before = [campaign.judged(number) for number in (0, 1)]
    campaign.process.kill()
    campaign.process.wait()
    # Two engines, their kernel processes, and the tracker of shared memory.
    assert len(below) >= 5
    wait_until(lambda: not any(is_alive(pid) for pid in below), seconds=ORPHANS_LIMIT)
    wait_until(lambda: not abandoned_segments(), seconds=ORPHANS_LIMIT)
    for number, known in enumerate(before):
        assert campaign.judged(number)[: len(known)] == known


def test_campaign_with_a_kernel_process_killed_from_outside_loses_nothing(
    campaign: Campaign,
) -> None:
    # Killed between two cases, it costs none.
    while not any(line.get("status") == "fail" for line in campaign.lines(0)):
        os.kill(campaign.kernel(0), signal.SIGKILL)
        campaign.wait_for(0, len(campaign.judged(0)) + 1)
    # A new kernel process, after the case at fault was tried again in vain.
    campaign.wait_for(0, len(campaign.judged(0)) + 10)
    output = campaign.interrupt()
    assert campaign.process.returncode == 1, output
    data = json.loads(campaign.result.read_text())
    assert data["planned"] == data["executed"] + data["skipped"] + data["not_reached"]
    (failure,) = data["failures"]
    assert "crashed SIGKILL" in failure["signature"]
