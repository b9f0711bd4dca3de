"""Kills at random moments, of whatever process: no finished verdict is lost, nothing is left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fuzz.case import from_json
from fuzz.checks import signature
from fuzz.history import HISTORY, History
from fuzz.process.journal import finding_of
from tests.fuzz.processes import abandoned_segments, descendants, is_alive, wait_until

ROOT = Path(__file__).resolve().parents[2]

TARGETS = (("right", "broken_harness"), ("right", "wrong_tail", "broken_harness"))
"""Of campaigns that judge all the time, and of those that are shrinking half of it."""

VICTIMS = {"kernel": 3, "engine": 2, "main": 1}
"""How often each is killed: a campaign goes on without a kernel process, and without an engine."""

PROGRAM = """
import contextlib, sys
from pathlib import Path
from fuzz.campaign import run
from fuzz.display import Display
from fuzz.history import HISTORY, History, Recording, RunInfo, new_run_id
from fuzz.jobs.setup import Settings
from fuzz.report import make_console
from tests.fuzz.fake_backend import BACKEND
if __name__ == "__main__":
    out = Path(sys.argv[1])
    settings = Settings(
        targets=tuple(sys.argv[4:]), device="cpu", seconds=float(sys.argv[3]), workers=2, out=out,
        backend=BACKEND, seed=int(sys.argv[2]),
    )
    with History(out / HISTORY) as history, Display(make_console(), settings) as display:
        history.recover(out)
        info = RunInfo(new_run_id(), "night", settings.seed, "cpu", "", 2)
        history.begin(info)
        run(settings, display, record=Recording(history, info.id))
        history.end(info.id)
"""


@dataclass
class Held:
    """What the journals of a folder hold, or the history of it."""

    status: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    faulty: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    failing: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def in_journals(out: Path) -> Held:
    """Counted line by line, without the help of what is tested."""
    held = Held()
    for path in out.glob("runs/*/journal-*.jsonl"):
        folder = str(path.parent.relative_to(out))
        begun: dict[str, Any] = {}
        for line in path.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            entry = json.loads(line)
            if entry["event"] == "begin":
                begun[entry["id"]] = entry["case"]
            elif entry["event"] == "end":
                case = from_json(begun[entry["id"]])
                held.status[folder, case.target, entry["status"]] += 1
                held.faulty[folder] += entry.get("reason", "").startswith("internal error")
                held.judged[folder] += "y" in entry.get("ratios", {})
                for finding in map(finding_of, entry.get("findings", ())):
                    held.failing[folder].add(str(signature(case, finding)))
    return held


def in_history(history: History) -> Held:
    held = Held()
    for run in history.runs():
        for row in history.rows(run.id):
            held.status[run.folder, row.target, "fail"] += row.failed
            held.status[run.folder, row.target, "pass"] += row.executed - row.failed
            held.status[run.folder, row.target, "skip"] += row.skipped
        held.faulty[run.folder] += run.faulty
        held.judged[run.folder] += sum(sum(s.bins.values()) for s in history.spread(run.id))
        cells = history.cells(run.id).values()
        assert sum(cell.executed for cell in cells) == run.executed
        assert sum(cell.failed for cell in cells) == run.failed
        assert sum(width.executed for width in history.widths(run.id).values()) == run.executed
        with history._database.reading() as connection:
            found = connection.execute(
                "SELECT signature FROM events JOIN runs ON number = run WHERE id = ?", (run.id,)
            )
            held.failing[run.folder] |= {text for (text,) in found}
    return held


@dataclass
class Killer:
    """Begins campaigns, one after another in the same folder, and kills until it has enough."""

    out: Path
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)

    def campaign(self, limit: int) -> None:
        """A campaign, killed so often at most; a kill of the main process is the last one."""
        seed, seconds = str(self.chance.randrange(1000)), self.chance.choice(["5", "600"])
        targets = self.chance.choice(TARGETS)
        script = self.out.parent / "program.py"
        script.write_text(PROGRAM)
        process = subprocess.Popen(
            [sys.executable, str(script), str(self.out), seed, seconds, *targets],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        below: set[int] = set()
        try:
            self._until_it_runs(process)
            for number in range(limit):
                time.sleep(self.chance.uniform(0.0, 0.8))
                below |= set(descendants(process.pid))
                last = number == limit - 1
                (victim,) = self.chance.choices(list(VICTIMS), list(VICTIMS.values()))
                victim = "main" if last else victim
                if not self._kill(process, victim):
                    break
                if victim == "main":
                    break
            process.wait(60)
        finally:
            process.kill()
            process.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in below), seconds=10)
        wait_until(lambda: not abandoned_segments(), seconds=10)

    def _until_it_runs(self, process: subprocess.Popen[bytes]) -> None:
        """Usually until the first verdict is there, sometimes only until processes are."""
        before = set(self.out.glob("runs/*/journal-*.jsonl"))
        early = self.chance.random() < 0.1
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
            if early and len(descendants(process.pid)) > 2:
                return
            new = set(self.out.glob("runs/*/journal-*.jsonl")) - before
            if any(b'"end"' in path.read_bytes() for path in new):
                return

    def _kill(self, process: subprocess.Popen[bytes], victim: str) -> bool:
        """Kill a process of that kind; False where the campaign has ended."""
        engines = list(children(process.pid))
        pids = {
            "main": [process.pid],
            "engine": engines,
            "kernel": [pid for engine in engines for pid in children(engine)],
        }[victim]
        if process.poll() is not None:
            return False
        if pids:
            try:
                os.kill(self.chance.choice(pids), signal.SIGKILL)
            except ProcessLookupError:
                return True
            self.kills[victim] += 1
        return True


def children(parent: int) -> Iterator[int]:
    """The processes right below one, but for the tracker of shared memory."""
    for pid in descendants(parent):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            above = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if above == parent and words and b"resource_tracker" not in words:
            yield pid


def kill_and_count(folder: Path, kills: int, seed: int) -> Killer:
    killer = Killer(folder / "out", random.Random(seed))
    while (left := kills - killer.kills.total()) > 0:
        killer.campaign(min(left, killer.chance.randint(4, 8)))
    with History(killer.out / HISTORY) as history:
        history.recover(killer.out)
        assert all(run.ended for run in history.runs())
        expected, found = in_journals(killer.out), in_history(history)
        # A run that was killed before its folder was there has nothing to lose.
        assert +found.status == +expected.status
        assert +found.faulty == +expected.faulty
        assert +found.judged == +expected.judged
        assert {k: v for k, v in found.failing.items() if v} == expected.failing
        assert {seen.signature for seen in history.failures()} == set().union(
            *expected.failing.values()
        )
        assert history.recover(killer.out) == []
        assert in_history(history).status == found.status
    assert expected.status.total() > kills
    return killer


def test_history_loses_nothing_to_twenty_kills(tmp_path: Path) -> None:
    killer = kill_and_count(tmp_path, 20, seed=1)
    assert killer.kills.keys() == {"main", "engine", "kernel"}


@pytest.mark.slow
def test_history_loses_nothing_to_two_hundred_kills(tmp_path: Path) -> None:
    killer = kill_and_count(tmp_path, 200, seed=2)
    assert min(killer.kills[victim] for victim in ("main", "engine", "kernel")) > 20
