"""Shards as tasks of a Ray cluster, one for each GPU. The only module that knows Ray."""

from __future__ import annotations

import importlib.util
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fuzz.jobs.setup import MAX_CPU_WORKERS, UsageError
from fuzz.nights.errand import Errand, run_errand, unpack
from fuzz.nights.fleet import Returned
from fuzz.nights.outcome import Shard

NO_NODE_LIMIT = 60.0
"""Seconds without any node that could run a shard, after which those under way are lost. A cluster
may be replacing the node."""

ADDRESS_LIMIT = 20.0
"""Seconds in which somebody must answer at the address of a cluster."""

SIGN_LIMIT = 10.0
"""Seconds to wait for an answer of the stop sign, which takes milliseconds."""


@dataclass(frozen=True)
class Room:
    """What one shard takes of a node, and how many the cluster can run at a time."""

    gpus: int
    cpus: int
    shards: int

    @property
    def device(self) -> str:
        """Where its kernels run."""
        return "cuda" if self.gpus else "cpu"


def find_room(nodes: list[Mapping[str, float]], device: str, workers: int | None) -> Room:
    """One shard a GPU; without GPUs as many CPUs as ``workers``, or as the smallest node has.

    ``nodes`` are the resources of each. Raises: UsageError.
    """
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if device == "cuda" and not gpus:
        raise UsageError("device='cuda', but the Ray cluster has no GPU")
    if gpus and device != "cpu":
        return Room(1, 0, gpus)
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not cpus:
        raise UsageError("engine='ray', but the cluster has no node with a CPU or a GPU")
    each = min(*cpus, MAX_CPU_WORKERS) if workers is None else workers
    shards = sum(count // each for count in cpus)
    if not shards:
        raise UsageError(
            f"workers={workers}, but the largest node of the Ray cluster has {max(cpus)} CPUs"
        )
    return Room(0, each, shards)


def check_ray() -> None:
    """Fail early where there is no Ray, or nobody at the address that is to be its cluster's.

    Raises: UsageError.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("engine='ray': ray is not installed; pip install 'ln-fuzz[ray]'")
    address = os.environ.get("RAY_ADDRESS", "")
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or "/" in host:
        return
    try:
        # Ray itself would try for minutes.
        socket.create_connection((host, int(port)), timeout=ADDRESS_LIMIT).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"RAY_ADDRESS={address!r}: no cluster there: {error}") from error


class StopSign:
    """Says to tasks whether they must end: an actor beside the main process.

    Cancelling a task would do so by an exception in whatever it is at, or not at all.
    """

    def __init__(self) -> None:
        self._is_up = False

    def put_up(self) -> None:
        """From now on they must."""
        self._is_up = True

    def is_up(self) -> bool:
        """Whether they must."""
        return self._is_up


def run_task(errand: Errand, shard: str, sign: Any) -> bytes:
    """What Ray runs: a shard, until its time is over or the sign is up."""
    import ray

    def must_stop() -> bool:
        try:
            return bool(ray.get(sign.is_up.remote(), timeout=SIGN_LIMIT))
        except ray.exceptions.RayError:
            # Where the main process is gone, Ray ends its tasks.
            return False

    return run_errand(errand, shard, must_stop)


class RayFleet:
    """The cluster that RAY_ADDRESS names, or one of this machine. Use as a context manager.

    ``folder`` is where the shards' folders are put. :attr:`room` says what there is; ``errand``
    must be given before anything is handed out.
    """

    def __init__(self, folder: Path, *, device: str, workers: int | None) -> None:
        import ray

        self._ray: Any = ray
        self._folder = folder
        # Nobody is told of anybody's nights.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(log_to_driver=False, logging_level="CRITICAL")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(f"engine='ray': no cluster: {error}") from error
        self._under_way: dict[Any, Shard] = {}
        self._errand: Any = None
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        self._sign: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(StopSign).remote()
        self._without_node: float | None = None
        try:
            self.room = find_room(self._nodes(), device, workers)
        except UsageError:
            ray.shutdown()
            raise

    def __enter__(self) -> RayFleet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._under_way:
            self._ray.cancel(task, force=True)
        self._ray.shutdown()

    def give(self, errand: Errand) -> None:
        """What all shards run."""
        self._errand = self._ray.put(errand)

    def hand_out(self, shard: Shard) -> None:
        """Have a shard run, now or once there is room for it."""
        # Retried by Ray, a shard would be handed out without a word.
        task = self._ray.remote(
            num_gpus=self.room.gpus,
            num_cpus=self.room.cpus,
            max_retries=0,
            scheduling_strategy="SPREAD",
        )(run_task)
        self._under_way[task.remote(self._errand, str(shard), self._sign)] = shard

    def wait(self, seconds: float) -> list[Returned]:
        """Those that have come back, or were lost, since the last time; waits for the first."""
        ready, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=seconds)
        if ready:
            return [self._fetch(task) for task in ready]
        return self._stranded()

    def stop(self) -> None:
        """Have all shards end, and come back with what they have."""
        self._sign.put_up.remote()

    def _nodes(self) -> list[Mapping[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _fetch(self, task: Any) -> Returned:
        shard = self._under_way.pop(task)
        try:
            packed = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            return Returned(shard, lost=why(str(error)))
        folder = self._folder / f"{shard.index}-of-{shard.count}"
        unpack(packed, folder)
        return Returned(shard, folder)

    def _stranded(self) -> list[Returned]:
        """All shards, where for long there has been no node that could run any."""
        needed, name = (self.room.gpus, "GPU") if self.room.gpus else (self.room.cpus, "CPU")
        if any(node.get(name, 0) >= needed for node in self._nodes()):
            self._without_node = None
            return []
        if self._without_node is None:
            self._without_node = time.monotonic()
        if time.monotonic() - self._without_node < NO_NODE_LIMIT:
            return []
        shards = list(self._under_way.values())
        for task in self._under_way:
            self._ray.cancel(task, force=True)
        self._under_way.clear()
        return [Returned(shard, lost="no node is left that could run it") for shard in shards]


def why(text: str) -> str:
    """What Ray says of a task that was lost, in one line."""
    lines = text.strip().splitlines() or ["no reason given"]
    # Of an exception in the task, Ray tells the trace, and then the exception.
    line = lines[-1] if "Traceback" in text or "ray::" in lines[0] else lines[0]
    return line.partition(" This can happen if")[0].strip()
