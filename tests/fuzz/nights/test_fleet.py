"""A night on a fleet: what is lost is named and handed out once more, and nothing counts twice."""

from __future__ import annotations

import os
import signal
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import typer.main

from fuzz import cli, night_fleet
from fuzz.history import HISTORY, History
from fuzz.jobs.setup import UsageError
from fuzz.night import NightSettings
from fuzz.nights import fleet, ray_fleet
from fuzz.nights.fleet import Returned, run_shards
from fuzz.nights.merge import MergeResult
from fuzz.nights.outcome import Shard
from fuzz.nights.ray_fleet import find_room, why
from tests.fuzz.nights.folders import failure_of, shard_folder, unfinished_folder


@dataclass
class FakeFleet:
    """Runs a shard as it is told to: ``ends`` has what becomes of it, time after time.

    Whole, where it is told nothing.
    """

    folder: Path
    ends: dict[int, list[str]] = field(default_factory=dict)
    times: Counter[int] = field(default_factory=Counter)
    running: list[Shard] = field(default_factory=list)
    stopped: bool = False

    def hand_out(self, shard: Shard) -> None:
        self.times[shard.index] += 1
        self.running.append(shard)

    def wait(self, seconds: float) -> list[Returned]:
        if not self.running:
            return []
        shard = self.running.pop(0)
        ends = self.ends.get(shard.index)
        end = ends.pop(0) if ends else "whole"
        folder = self.folder / f"{shard.index}-{self.times[shard.index]}"
        if end == "lost":
            return [Returned(shard, lost="its node is gone")]
        if end == "interrupt":
            self.running.append(shard)
            os.kill(os.getpid(), signal.SIGINT)
            return []
        if end == "failing":
            shard_folder(folder, shard.index, shard.count, failure=failure_of())
        elif end == "unfinished":
            unfinished_folder(folder, shard.index, shard.count)
        elif end == "empty":
            folder.mkdir(parents=True)
        else:
            shard_folder(folder, shard.index, shard.count)
        return [Returned(shard, folder)]

    def stop(self) -> None:
        self.stopped = True


@dataclass
class Told:
    stages: list[str] = field(default_factory=list)

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def step(self, text: str) -> None:
        pass


def night(
    tmp_path: Path, count: int, told: Told | None = None, **ends: list[str]
) -> tuple[MergeResult, FakeFleet]:
    """A night in ``count`` shards, of which ``s1`` ... end in these ways."""
    machines = FakeFleet(tmp_path / "back", {int(name[1:]): list(e) for name, e in ends.items()})
    return run_shards(machines, count, tmp_path / "out", told or Told()), machines


def executed_in(out: Path) -> dict[str, int]:
    """Of each run in the history."""
    with History(out / HISTORY, read_only=True) as history:
        return {run.id: run.executed for run in history.runs()}


# --- handing out ----------------------------------------------------------------------------------


def test_shards_are_joined_as_they_come_back(tmp_path: Path) -> None:
    told = Told()
    result, machines = night(tmp_path, 3, told)
    assert (result.exit_code, result.executed, result.notes) == (0, 30, [])
    assert [(shard.index, shard.count) for shard in result.shards] == [(1, 3), (2, 3), (3, 3)]
    assert list(executed_in(tmp_path / "out").values()) == [10, 10, 10]
    assert told.stages[0] == "shard 1/3 is back: 10 cases, 0 failing"
    # All that they hold is in the history.
    assert list(machines.folder.iterdir()) == []


def test_failure_of_a_shard_is_one_of_the_night(tmp_path: Path) -> None:
    result, _ = night(tmp_path, 2, s2=["failing"])
    assert (result.exit_code, result.failed) == (1, 1)
    assert len(list((tmp_path / "out" / "failures").iterdir())) == 1


def test_shard_that_was_lost_is_named_and_handed_out_once_more(tmp_path: Path) -> None:
    told = Told()
    result, machines = night(tmp_path, 2, told, s1=["lost"])
    assert machines.times == {1: 2, 2: 1}
    note = "shard 1/2 was lost and is handed out again: its node is gone"
    assert result.notes == [note]
    assert note in told.stages
    assert (result.exit_code, result.executed) == (0, 20)
    assert list(executed_in(tmp_path / "out").values()) == [10, 10]


def test_shard_that_was_lost_twice_is_missing(tmp_path: Path) -> None:
    result, machines = night(tmp_path, 2, s2=["lost", "lost"])
    assert machines.times == {1: 1, 2: 2}
    assert result.notes[-1] == "shard 2/2 was lost 2 times: its node is gone"
    assert (result.missing, result.exit_code, result.executed) == (["2/2"], 2, 10)


def test_night_without_any_shard_misses_all_of_them(tmp_path: Path) -> None:
    result, _ = night(tmp_path, 2, s1=["lost", "lost"], s2=["lost", "lost"])
    assert (result.missing, result.exit_code) == (["1/2", "2/2"], 2)


@pytest.mark.parametrize(("end", "state"), [("unfinished", "unfinished"), ("empty", "absent")])
def test_shard_that_is_not_whole_is_kept_to_be_looked_at(
    tmp_path: Path, end: str, state: str
) -> None:
    told = Told()
    result, machines = night(tmp_path, 2, told, s1=[end])
    assert [shard.state for shard in result.shards] == [state, "whole"]
    assert result.exit_code == 2
    # It came back: handing it out again would have its verdicts count twice.
    assert machines.times[1] == 1
    assert [path.name for path in machines.folder.iterdir()] == ["1-1"]
    assert f"; {state}: " in told.stages[0]


# --- being told to end ----------------------------------------------------------------------------


def test_night_that_is_told_to_end_takes_what_comes_back(tmp_path: Path) -> None:
    result, machines = night(tmp_path, 2, s1=["interrupt", "whole"], s2=["whole", "whole"])
    assert machines.stopped
    assert (result.exit_code, result.executed) == (0, 20)


def test_night_that_is_told_to_end_hands_nothing_out_again(tmp_path: Path) -> None:
    result, machines = night(tmp_path, 2, s1=["interrupt", "lost"], s2=["lost"])
    assert machines.times == {1: 1, 2: 1}
    assert result.notes == [
        "shard 2/2 did not come back: its node is gone",
        "shard 1/2 did not come back: its node is gone",
    ]
    assert (result.missing, result.exit_code) == (["1/2", "2/2"], 2)


@pytest.mark.parametrize("limit", [0.0, 60.0])
def test_night_that_is_told_to_end_does_not_wait_for_ever(
    tmp_path: Path, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "STOP_LIMIT", limit)
    interrupts = ["interrupt", "interrupt"] if limit else ["interrupt"]
    result, _ = night(tmp_path, 1, s1=interrupts)
    assert result.notes == ["shard 1/1 was given up: it did not end when it was told to"]
    assert (result.missing, result.exit_code) == (["1/1"], 2)


# --- what a shard gets of a cluster ---------------------------------------------------------------


def test_room_is_a_gpu_for_each_shard() -> None:
    nodes = [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}]
    room = find_room(nodes, "auto", None)
    assert (room.gpus, room.cpus, room.shards, room.device) == (1, 0, 5, "cuda")
    assert find_room(nodes, "cuda", 3) == room


def test_room_without_gpu_is_what_the_smallest_node_has() -> None:
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 2.0}, {"memory": 9.0}, {"CPU": 5.0}]
    room = find_room(nodes, "cpu", None)
    assert (room.gpus, room.cpus, room.shards, room.device) == (0, 2, 4 + 1 + 2, "cpu")
    assert find_room([{"CPU": 64.0}], "auto", None).cpus == 8
    asked = find_room(nodes, "cpu", 4)
    assert (asked.cpus, asked.shards) == (4, 2 + 1)


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "told"),
    [
        ([{"CPU": 4.0}], "cuda", None, "device='cuda', but the Ray cluster has no GPU"),
        ([{"CPU": 4.0}], "cpu", 5, "workers=5, but the largest node of the Ray cluster has 4"),
        ([{"memory": 1.0}], "auto", None, "no node with a CPU or a GPU"),
    ],
)
def test_room_that_is_not_there_is_refused(
    nodes: list[dict[str, float]], device: str, workers: int | None, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        find_room(list(nodes), device, workers)


def test_reason_of_a_loss_is_one_line() -> None:
    dead = "Task failed because the node is dead. Node IP: 10.0.0.3. This can happen if it rains."
    assert why(f"{dead}\nand more") == "Task failed because the node is dead. Node IP: 10.0.0.3."
    raised = "ray::run_errand() (pid=3)\n  File x\nFileNotFoundError: no such folder: '/there'"
    assert why(raised) == "FileNotFoundError: no such folder: '/there'"
    assert why("") == "no reason given"


def test_options_of_a_shard_are_those_of_the_night() -> None:
    settings = NightSettings(
        seconds=90.5, cases=7, targets=("layer_norm", "my file.py"), regressions=Path("kept here")
    )
    options = night_fleet.night_options(settings, seed=5, device="cpu", workers=3)
    command = typer.main.get_command(cli.app).commands["night"]  # type: ignore[attr-defined]
    read = command.make_context("night", [*options, "--shard", "1/2", "--out", "there"]).params
    wanted = defaultdict(lambda: None, seed=5, cases=7, workers=3, shard="1/2")
    for name in ("seed", "cases", "workers", "shard", "workers_per_gpu", "engine"):
        assert read[name] == wanted[name], name
    assert (float(read["time"]), read["device"]) == (90.5, "cpu")
    assert tuple(read["target"]) == settings.targets
    assert str(read["regressions"]) == "kept here"
    gpu = night_fleet.night_options(
        replace(settings, workers_per_gpu=6), seed=5, device="cuda", workers=None
    )
    read = command.make_context("night", list(gpu)).params
    assert (read["workers"], read["workers_per_gpu"], read["device"]) == (None, 6, "cuda")


# --- bad input ------------------------------------------------------------------------------------


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    """What the command says that it refuses to run."""
    monkeypatch.setattr("sys.argv", ["ln-fuzz", "night", *arguments])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_engine_and_shard_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(monkeypatch, capsys, "--engine", "ray", "--shard", "1/2")
    assert "engine='ray', but shard='1/2' is given too" in text


def test_engine_that_is_not_installed_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_fleet.importlib.util, "find_spec", lambda name: None)
    text = said(monkeypatch, capsys, "--engine", "ray", "--out", str(tmp_path / "out"))
    assert text == "ln-fuzz: engine='ray': ray is not installed; pip install 'ln-fuzz[ray]'\n"
    assert not (tmp_path / "out").exists()


def test_engine_without_a_cluster_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_fleet.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    text = said(monkeypatch, capsys, "--engine", "ray")
    assert text.startswith("ln-fuzz: RAY_ADDRESS='127.0.0.1:9': no cluster there: ")
