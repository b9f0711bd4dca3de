"""Nights killed, at random and in each phase: no finished verdict is lost, nothing is left."""

from __future__ import annotations

import contextlib
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
from fuzz.nights.shards import read_shard
from fuzz.process.journal import finding_of
from tests.fuzz.processes import abandoned_segments, descendants, is_alive, wait_until

ROOT = Path(__file__).resolve().parents[2]

TARGETS = (("right", "broken_harness"), ("right", "wrong_tail", "broken_harness"))
"""Of nights that judge all the time, and of those that are shrinking half of it."""

VICTIMS = {"kernel": 3, "engine": 2, "main": 1}
"""How often each is killed: a night goes on without a kernel process, and without an engine."""

PHASES = {
    "beginning": "a night, --seed",
    "former failures": "replaying ",
    "fuzzing": "fuzzing ...",
    "shrinking": ", shrinking ",
    "end": "looking at what was hit",
}
"""By what a night says when it comes to them."""

PROGRAM = """
import functools
from fuzz import cli, display, night
from tests.fuzz.fake_backend import BACKEND
if __name__ == "__main__":
    # No option: nobody else has a use for targets that need no torch.
    night.NightSettings = functools.partial(night.NightSettings, backend=BACKEND)
    display.PLAIN_EVERY = 0.0
    cli.main()
"""
"""The command line, and all that it says as soon as it is so."""


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
                "SELECT signature FROM events e JOIN runs ON number = run "
                "WHERE id = ? AND e.kind = 'found'",
                (run.id,),
            )
            held.failing[run.folder] |= {text for (text,) in found}
    return held


@dataclass
class Killer:
    """Begins nights, one after another in the same folder, and kills until it has enough."""

    out: Path
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    """Those that the main process was killed in."""

    def night(self, limit: int) -> None:
        """A night, killed so often at most; a kill of the main process is the last one."""
        with self._begun("--time", self.chance.choice(["5s", "600s"])) as process:
            self._until_it_runs(process)
            for number in range(limit):
                time.sleep(self.chance.uniform(0.0, 0.8))
                last = number == limit - 1
                (victim,) = self.chance.choices(list(VICTIMS), list(VICTIMS.values()))
                victim = "main" if last else victim
                if not self._kill(process, victim) or victim == "main":
                    break
            process.wait(60)

    def night_killed_in(self, phase: str) -> None:
        """A night whose main process is killed in a phase of it."""
        limit = ("--cases", "160") if phase == "end" else ("--time", "600s")
        with self._begun(*limit, targets=TARGETS[1]) as process:
            wait_until(lambda: process.poll() is not None or self._is_in(phase), seconds=60)
            assert process.poll() is None, self.log.read_text()
            if phase == "fuzzing":
                # Not while its runners are being started.
                self._until_it_judges(process)
            if phase != "end":
                time.sleep(self.chance.uniform(0.0, 0.2))
            assert self._kill(process, "main"), phase

    @property
    def log(self) -> Path:
        """What the last night printed."""
        return self.out.parent / "log"

    def _is_in(self, phase: str) -> bool:
        return PHASES[phase] in self.log.read_text()

    @contextlib.contextmanager
    def _begun(
        self, *limit: str, targets: tuple[str, ...] = ()
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A night; afterwards nothing is left of it."""
        script = self.out.parent / "program.py"
        script.write_text(PROGRAM)
        command = [sys.executable, str(script), "night", "--out", str(self.out), *limit]
        command += ["--seed", str(self.chance.randrange(1000)), "--workers", "2"]
        command += ["--device", "cpu", "--regressions", str(self.out.parent / "none")]
        for target in targets or self.chance.choice(TARGETS):
            command += ["--target", target]
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._below: set[int] = set()
        self._before = set(self.out.glob("runs/*/journal-*.jsonl"))
        try:
            yield process
        finally:
            process.kill()
            process.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in self._below), seconds=10)
        wait_until(lambda: not abandoned_segments(), seconds=10)

    def _until_it_runs(self, process: subprocess.Popen[bytes]) -> None:
        """Usually until the first verdict is there, sometimes only until processes are."""
        if self.chance.random() < 0.1:
            wait_until(
                lambda: process.poll() is not None or len(descendants(process.pid)) > 2, seconds=30
            )
        else:
            self._until_it_judges(process)

    def _until_it_judges(self, process: subprocess.Popen[bytes]) -> None:
        def has_judged() -> bool:
            new = set(self.out.glob("runs/*/journal-*.jsonl")) - self._before
            return any(b'"end"' in path.read_bytes() for path in new)

        wait_until(lambda: process.poll() is not None or has_judged(), seconds=60)

    def _kill(self, process: subprocess.Popen[bytes], victim: str) -> bool:
        """Kill a process of that kind; False where the night has ended."""
        self._below |= set(descendants(process.pid))
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
            if victim == "main":
                told = self.log.read_text()
                self.phases[max(PHASES, key=lambda phase: told.rfind(PHASES[phase]))] += 1
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
        killer.night(min(left, killer.chance.randint(4, 8)))
    assert count(killer) > kills
    return killer


def count(killer: Killer) -> int:
    """See that the history holds what the journals do; returns the number of verdicts."""
    with History(killer.out / HISTORY) as history:
        history.recover(killer.out)
        assert all(run.ended for run in history.runs())
        expected, found = in_journals(killer.out), in_history(history)
        # A run that was killed before its folder was there has nothing to lose.
        assert +found.status == +expected.status
        assert +found.faulty == +expected.faulty
        assert +found.judged == +expected.judged
        known = set().union(*expected.failing.values())
        assert {seen.signature for seen in history.failures()} == known
        for name, failing in found.failing.items():
            # A former failure that was replayed may be none of the cases that the night drew.
            assert expected.failing[name] <= failing <= known
        assert expected.failing.keys() <= found.failing.keys()
        assert history.recover(killer.out) == []
        assert in_history(history).status == found.status
    return expected.status.total()


def test_history_loses_nothing_to_a_few_kills(tmp_path: Path) -> None:
    killer = kill_and_count(tmp_path, 10, seed=1)
    assert killer.kills.keys() == {"main", "engine", "kernel"}


def test_history_loses_nothing_to_a_kill_in_any_phase(tmp_path: Path) -> None:
    killer = Killer(tmp_path / "out", random.Random(1))
    # The first has failures that the next ones replay.
    for phase in ("shrinking", "former failures", "fuzzing", "end", "beginning"):
        killer.night_killed_in(phase)
        assert read_shard(killer.out) is None, phase
    assert killer.phases.keys() >= {"shrinking", "former failures", "end", "beginning"}
    assert count(killer) > 100


@pytest.mark.slow
def test_history_loses_nothing_to_two_hundred_kills(tmp_path: Path) -> None:
    killer = kill_and_count(tmp_path, 200, seed=2)
    assert min(killer.kills[victim] for victim in ("main", "engine", "kernel")) > 20
    for phase in PHASES:
        for _ in range(5):
            killer.night_killed_in(phase)
    assert count(killer) > 1000
    assert min(killer.phases[phase] for phase in PHASES) > 2, killer.phases
