"""Each branch of the strategies taken out in turn: which test sees it, and what none sees.

    python -m ci.branches                  all of them; the same command goes on where it stopped
    python -m ci.branches --list           what there is to take out, with file and line
    python -m ci.branches --unseen         those that no test has seen so far, once more
    python -m ci.branches NAME ...         those whose name contains one of the texts

A branch (:mod:`ci.removals`) is taken out in memory, in a process forked before anything of the
strategies was imported: the tree is not touched. The tests of ci/branches.toml that reach it run
there until the first fails (:mod:`ci.branch_tests`), those first that saw its neighbours.
Writes OUT/branches.jsonl (each verdict as it falls), OUT/branches.json and OUT/unseen.txt. Exit
status: 0 all are seen, or equivalent with a reason in ci/branches.toml; 1 some are not; 2 not all
were judged.
"""

from __future__ import annotations

import argparse
import ast
import collections
import hashlib
import importlib
import json
import os
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _pytest.config

from ci.branch_tests import MEMORY, ROOT, Part, judge, record
from ci.forks import Answer, Fork, answer_of, wait
from ci.removals import Removal, removals

SETTINGS = ROOT / "ci" / "branches.toml"

# Slow to import, and nothing of the strategies in it.
_PRELOADED = ("hypothesis", "fuzz.builtin", "fuzz.inputs", "fuzz.relations", "ln_kernels")
_STRATEGIES = ("fuzz.strategies", "fuzz.space")

# What a verdict can depend on, beside the tests themselves.
_SOURCES = ("fuzz", "ln_kernels", "oracle", "tests/quality", "tests/fuzz", "ci/removals.py")


@dataclass(frozen=True)
class Branch:
    """A branch of a file. Its name holds as long as its function does: it counts no lines."""

    file: str
    removal: Removal
    name: str

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.file}:{self.removal.line}"

    @property
    def module(self) -> str:
        """The module's name."""
        return self.file.removesuffix(".py").replace("/", ".")

    @property
    def function(self) -> str:
        """Module and function."""
        return f"{self.module}.{self.removal.where}"

    def reached_by(self, part: Part) -> bool:
        """Whether these tests can see it: what runs on import, all can."""
        block = self.removal.block
        return block is None or (self.module, block) in part.reached


def find(files: Sequence[str]) -> tuple[dict[str, ast.Module], list[Branch]]:
    """The modules' trees, and the branches in them."""
    trees, found = {}, []
    counts: collections.Counter[str] = collections.Counter()
    for file in files:
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        for removal in removals(tree):
            name = f"{file} {removal.where or '(module)'}: {removal.kind} {removal.what}"
            counts[name] += 1
            number = f" #{counts[name]}" if counts[name] > 1 else ""
            branch = Branch(file, removal, name + number)
            trees[branch.module] = tree
            found.append(branch)
    return trees, found


def digest() -> str:
    """Of all that a verdict can depend on."""
    paths = sorted(path for source in _SOURCES for path in _files(ROOT / source))
    text = b"".join(path.read_bytes() for path in (*paths, ROOT / "pyproject.toml"))
    return hashlib.sha256(text).hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else list(path.rglob("*.py"))


class Journal:
    """The verdicts so far, a line of JSON each; of two on one branch the later holds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        if lines and not lines[-1].endswith("\n"):
            # A run was cut off while it wrote.
            path.write_text("".join(lines[:-1]), encoding="utf-8")
            del lines[-1]
        said = [json.loads(line) for line in lines]
        self.verdicts: dict[str, Answer] = {each["name"]: each for each in said}

    def add(self, verdict: Answer) -> None:
        """Keep a verdict."""
        self.verdicts[verdict["name"]] = verdict
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(verdict) + "\n")


class Order:
    """Which part of the tests to run first: the one that is likeliest to fail, for its time."""

    def __init__(self, parts: Sequence[Part], first: str, journal: Journal) -> None:
        self._parts, self._first = parts, first
        self._part_of = {test: part.name for part in parts for test in part.tests}
        self._seen: collections.Counter[tuple[str, str]] = collections.Counter()
        self._last = journal.verdicts

    def learn(self, branch: Branch, verdict: Answer) -> None:
        """The tests that saw a branch are those to see its neighbours."""
        part = self._part_of.get(verdict.get("test", ""))
        if part is not None:
            self._seen.update([(branch.function, part), (branch.module, part)])

    def of(self, branch: Branch) -> list[Part]:
        """The parts that reach a branch, in order."""
        last = self._part_of.get(self._last.get(branch.name, {}).get("test", ""))

        def worth(part: Part) -> tuple[float, bool, float]:
            near = 10 * self._seen[branch.function, part.name]
            times = near + self._seen[branch.module, part.name]
            times += 1e6 if part.name == last else 0
            time_it_takes = part.seconds + 0.05
            # With nothing known: those that ask one part by itself, and for a table the others.
            first = part.name.startswith(self._first) is (branch.removal.block is not None)
            return times / time_it_takes, first, len(part.tests) / time_it_takes

        return sorted(filter(branch.reached_by, self._parts), key=worth, reverse=True)


def read_parts(trees: dict[str, ast.Module], settings: dict[str, Any], path: Path) -> list[Part]:
    """The parts of the tests: from the file if it is of these sources, else recorded there.

    Raises: SystemExit where a test fails with nothing taken out.
    """
    now = digest()
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if kept.get("digest") != now:
        print("running the tests with nothing taken out", flush=True)
        call = lambda: record(trees, settings["tests"], settings["skipped"])  # noqa: E731
        kept = {"digest": now, **answer_of(call, seconds=3600.0, memory=MEMORY)}
        if kept.get("failed", True):
            print(f"no verdict, a test fails with nothing taken out: {kept.get('failed') or kept}")
            raise SystemExit(2)
        path.write_text(json.dumps(kept))
    return [
        Part(
            tuple(p["tests"]), p["seconds"], frozenset(map(tuple, p["reached"])), p.get("probe", "")
        )
        for p in kept["parts"]
    ]


class Run:
    """Judges branches in so many processes at a time."""

    def __init__(self, trees: dict[str, ast.Module], journal: Journal) -> None:
        self._trees, self._journal = trees, journal
        self._digest = digest()

    def judge(
        self, branches: list[Branch], order: Order, workers: int, seconds: float, until: float
    ) -> None:
        """Judge them, the first first; what is not begun in time is left."""
        running: dict[Fork, Branch] = {}
        pending, begun = list(reversed(branches)), time.monotonic()
        counts: collections.Counter[str] = collections.Counter()
        try:
            while running or (pending and time.monotonic() < until):
                while pending and len(running) < workers and time.monotonic() < until:
                    branch = pending.pop()
                    running[self._begin(branch, order.of(branch), seconds)] = branch
                wait(list(running))
                for fork, branch in list(running.items()):
                    answer = fork.hear()
                    if answer is not None:
                        del running[fork]
                        order.learn(branch, answer)
                        counts[self._keep(branch, answer)] += 1
                        done = sum(counts.values())
                        rate = (time.monotonic() - begun) / done
                        print(
                            f"\r{done} of {len(branches)}, {counts['unseen']} unseen, "
                            f"{rate:.2f} s each  ",
                            end="",
                            flush=True,
                        )
        finally:
            for fork in running:
                fork.stop()
            print()

    def _begin(self, branch: Branch, order: list[Part], seconds: float) -> Fork:
        call = judge({branch.module: self._trees[branch.module]}, order, seconds)

        def without() -> Answer:
            branch.removal.edit()
            return call() if order else {"verdict": "unseen"}

        # Each test has a limit of its own; this one is for a process that does not heed it.
        most = 120.0 + 4.0 * sum(part.seconds for part in order)
        return Fork(without, seconds=most, memory=MEMORY)

    def _keep(self, branch: Branch, answer: Answer) -> str:
        if "ended" in answer:
            # Gone without a failure: no test has said anything.
            answer = {"verdict": "ended", "said": f"the process ended {answer['ended']}"}
        named = {"name": branch.name, "place": branch.place, "digest": self._digest}
        self._journal.add({**named, **answer})
        if answer["verdict"] != "seen":
            print(f"\r{answer['verdict']}: {branch.place} {branch.name.partition(' ')[2]}")
        return str(answer["verdict"])


def report(
    branches: list[Branch],
    verdicts: dict[str, Answer],
    equivalent: dict[str, str],
    lost: list[str],
    out: Path,
) -> int:
    """Write the results, say them in short, and return the exit status."""
    now, rows = digest(), []
    for branch in branches:
        verdict = verdicts.get(branch.name, {})
        stale = verdict.get("digest") != now or verdict.get("verdict") == "left"
        row = {"verdict": "not judged"} if stale else verdict
        reason = equivalent.get(branch.name)
        if reason is not None and row["verdict"] == "unseen":
            row = {**row, "verdict": "equivalent", "said": reason}
        rows.append({**row, "name": branch.name, "place": branch.place})
    files = collections.defaultdict(collections.Counter)
    for row in rows:
        files[row["place"].partition(":")[0]][row["verdict"]] += 1
    (out / "branches.json").write_text(json.dumps({"digest": now, "branches": rows}, indent=1))
    unseen = [f"{row['place']} {row['name']}" for row in rows if row["verdict"] == "unseen"]
    (out / "unseen.txt").write_text("".join(f"{line}\n" for line in unseen))
    for file, counts in files.items():
        print(f"{file}: {', '.join(f'{n} {verdict}' for verdict, n in sorted(counts.items()))}")
    wrong = [
        f"{row['name']}: listed as equivalent, and seen by {row['test']}"
        for row in rows
        if row["name"] in equivalent and row["verdict"] == "seen"
    ]
    wrong += [f"{name}: listed as equivalent, and no branch" for name in lost]
    for line in (*wrong, *(f"unseen: {line}" for line in unseen)):
        print(line)
    if any(row["verdict"] in ("not judged", "ended") for row in rows):
        return 2
    return 1 if unseen or wrong else 0


def main(argv: list[str] | None = None) -> int:
    """Run, report, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of the names of branches; all without")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument("--unseen", action="store_true", help="what no test has seen so far")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit", type=float, default=86400.0, help="seconds in all")
    parser.add_argument(
        "--seconds", type=float, default=3600.0, help="of processor time for a branch"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "branches")
    options = parser.parse_args(argv)
    until = time.monotonic() + options.limit
    settings = tomllib.loads(SETTINGS.read_text("utf-8"))
    trees, found = find(settings["files"])
    equivalent = settings["equivalent"]
    lost = [name for name in equivalent if name not in {branch.name for branch in found}]
    if options.names:
        found = [b for b in found if any(n in f"{b.place} {b.name}" for n in options.names)]
    if options.list:
        for branch in found:
            print(branch.place, branch.name.partition(" ")[2])
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(options.out / "branches.jsonl")
    if options.unseen:
        seen = {name for name, said in journal.verdicts.items() if said["verdict"] == "seen"}
        found = [branch for branch in found if branch.name not in seen]
    os.environ.update(OMP_NUM_THREADS="1", TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    sys.path.insert(0, str(ROOT))
    for name in (*_PRELOADED, *(f"_pytest.{name}" for name in _pytest.config.default_plugins)):
        importlib.import_module(name)
    loaded = [name for name in sys.modules if name.startswith(_STRATEGIES)]
    assert not loaded, f"{loaded} imported before they are changed"
    parts = read_parts(trees, settings, options.out / "parts.json")
    order, run = Order(parts, settings["tests"][0], journal), Run(trees, journal)
    for branch in found:
        order.learn(branch, journal.verdicts.get(branch.name, {}))
    now = digest()
    pending = [b for b in found if journal.verdicts.get(b.name, {}).get("digest") != now]
    print(f"{len(found)} branches, {len(found) - len(pending)} of them judged already", flush=True)
    run.judge(pending, order, options.workers, options.seconds, until)
    return report(found, journal.verdicts, equivalent, lost, options.out)


if __name__ == "__main__":
    sys.exit(main())
