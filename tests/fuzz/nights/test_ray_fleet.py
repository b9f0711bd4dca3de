"""Nights on a Ray cluster: of two nodes, one of which is killed; and of one whose workers are."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from fuzz.history import HISTORY, History
from tests.fuzz.processes import wait_until

# Before any import of ray: who tests is told to nobody.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray", reason="needs ray, see `make ray`")
cluster_utils = pytest.importorskip("ray.cluster_utils")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 45
"""Of a shard: on a busy machine, half of it may be over before the other shard has begun."""


@dataclass
class Night:
    """A night that runs on a cluster."""

    process: subprocess.Popen[str]
    log: Path
    out: Path

    @property
    def text(self) -> str:
        return self.log.read_text()

    def shards(self) -> dict[str, psutil.Process]:
        """The nights that run for it, by shard."""
        found = {}
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if "--shard" in words and "--engine" not in words and self.seed in words:
                found[words[words.index("--shard") + 1]] = process
        return found

    @property
    def seed(self) -> str:
        return str(self.process.args[self.process.args.index("--seed") + 1])  # type: ignore[union-attr,index]

    def end(self) -> int:
        try:
            return self.process.wait(300)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def runs(self) -> tuple[Any, ...]:
        with History(self.out / HISTORY, read_only=True) as history:
            return history.runs()


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A cluster without a node that could run anything yet."""
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def night(tmp_path: Path, nodes: Any) -> Iterator[Callable[..., Night]]:
    """Begins a night on the cluster."""
    begun: list[Night] = []

    def begin(*options: str) -> Night:
        command = [sys.executable, "-m", "fuzz", "night", "--engine", "ray", "--workers", "1"]
        command += ["--target", "layer_norm", "--seed", str(10**8 + os.getpid())]
        command += ["--time", str(SECONDS), "--out", str(tmp_path / "out"), *options]
        log = tmp_path / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "RAY_ADDRESS": nodes.address},
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        begun.append(Night(process, log, tmp_path / "out"))
        return begun[-1]

    yield begin
    for item in begun:
        item.process.kill()
        item.process.wait()


def wait_for_shards(night: Night, *names: str) -> dict[str, psutil.Process]:
    """Until these are under way, and have judged a case."""
    wait_until(lambda: all(has_judged(night.shards().get(name)) for name in names), seconds=120)
    return night.shards()


def has_judged(shard: psutil.Process | None) -> bool:
    if shard is None:
        return False
    words = shard.cmdline()
    out = Path(words[words.index("--out") + 1])
    return any(b'"end"' in path.read_bytes() for path in out.glob("runs/*/journal-*.jsonl"))


def is_on(process: psutil.Process, node: Any) -> bool:
    """Whether a process runs on a node: below its raylet."""
    raylet = node.all_processes["raylet"][0].process.pid
    return raylet in {parent.pid for parent in process.parents()}


def assert_counted_once(night: Night, shards: int) -> None:
    """Each shard has one run in the history, and what it holds is what the shard said."""
    runs = night.runs()
    assert Counter(run.shard for run in runs) == dict.fromkeys(range(1, shards + 1), 1)
    assert all(run.outcome == "ended" and run.executed > 0 for run in runs)
    told = re.findall(r"merged shard .*: ([\d,]+) cases", night.text)
    assert sorted(int(n.replace(",", "")) for n in told) == sorted(run.executed for run in runs)


def test_shard_of_a_node_that_is_killed_runs_on_another(
    nodes: Any, night: Callable[..., Night]
) -> None:
    both = [nodes.add_node(num_cpus=1) for _ in range(2)]
    running = night()
    shards = wait_for_shards(running, "1/2", "2/2")
    victim = next(node for node in both if is_on(shards["1/2"], node))
    assert not is_on(shards["2/2"], victim)
    below = [shards["1/2"], *shards["1/2"].children(True)]
    nodes.remove_node(victim, allow_graceful=False)
    # It does not go on beside the one that takes its place.
    _, alive = psutil.wait_procs(below, timeout=30)
    assert not alive
    assert running.end() == 0, running.text
    assert re.search(r"shard 1/2 was lost and is handed out again: .*node", running.text)
    assert "shard 2/2 was lost" not in running.text
    assert_counted_once(running, 2)
    assert running.text.splitlines()[-1].startswith("Clean: no failure in ")


def test_shard_that_is_lost_twice_is_missing(nodes: Any, night: Callable[..., Night]) -> None:
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    running = night()
    for _ in range(2):
        shard = wait_for_shards(running, "2/2")["2/2"]
        # The worker of Ray that runs it.
        os.kill(shard.ppid(), signal.SIGKILL)
        shard.wait(30)
    assert running.end() == 2, running.text
    assert "shard 2/2 was lost 2 times: " in running.text
    assert "MISSING shard 2/2" in running.text
    (run,) = running.runs()
    assert (run.shard, run.outcome) == (1, "ended")
    assert "Not whole: 1 of 2 shards" in running.text


def test_night_that_is_told_to_end_brings_its_shards_home(
    nodes: Any, night: Callable[..., Night]
) -> None:
    nodes.add_node(num_cpus=1)
    running = night("--time", "600")
    wait_for_shards(running, "1/1")
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 2, running.text
    (run,) = running.runs()
    assert run.outcome == "interrupted"
    assert run.executed > 0
    assert "INTERRUPTED shard 1/1" in running.text


def test_night_without_a_node_that_is_left_ends(nodes: Any, night: Callable[..., Night]) -> None:
    node = nodes.add_node(num_cpus=1)
    running = night()
    wait_for_shards(running, "1/1")
    nodes.remove_node(node, allow_graceful=False)
    assert running.end() == 2, running.text
    assert "shard 1/1 was lost and is handed out again" in running.text
    assert "no node is left that could run it" in running.text
    assert "MISSING shard 1/1" in running.text
