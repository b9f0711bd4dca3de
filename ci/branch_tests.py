"""The tests of a removed branch: which of them reach it, and the first that fails without it.

All of this runs in processes forked before anything of the strategies was imported.
"""

from __future__ import annotations

import ast
import builtins
import collections
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from ci.forks import Answer, answer_of
from ci.removals import MARK, mark

ROOT = Path(__file__).resolve().parent.parent

# A removal may make an endless loop, or shapes without end. A test may take so many times as long
# as its part did, and so many seconds more; all in one process take 2 GB as they are.
_TIMES = 6
_SECONDS_MORE = 3
MEMORY = 8 << 30

# Plugins cost a tenth of a second each time; the first failure is enough.
_OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:ln_fuzz", "-p", "no:xdist")

Trees = Mapping[str, ast.Module]
"""Modules by name, as they are to be imported."""


@dataclass(frozen=True)
class Part:
    """Tests that share drawn cases, which is what takes their time."""

    tests: tuple[str, ...]
    seconds: float
    reached: frozenset[tuple[str, int]]
    """Module and first line of each block that is run."""

    @property
    def name(self) -> str:
        """Its first test."""
        return self.tests[0]


def record(trees: Trees, tests: Sequence[str], skipped: Sequence[str]) -> Answer:
    """The parts of the tests, each run in a process of its own: ``{"parts": [...]}``.

    One process for all would hide what a part reaches: the strategies keep what they have made.
    """
    for module, tree in trees.items():
        mark(tree, module)
    recorder = _Recorder(trees, skipped)
    setattr(builtins, MARK, lambda *block: recorder.reached.add(block))
    code = _pytest(recorder, tests)
    return {"parts": recorder.parts, "failed": recorder.failed or (code and f"pytest: {code}")}


def judge(
    trees: Trees, tests: Sequence[str], order: Sequence[Part], seconds: float
) -> Callable[[], Answer]:
    """A call that says which test fails first, in this order of their parts.

    Its answer is ``{"verdict": "seen", "test": ..., "said": ...}``, or the verdict is ``unseen``,
    or ``left`` after so many seconds.
    """

    def call() -> Answer:
        judging = _Judge(trees, order, time.monotonic() + seconds)
        files = {part.name.partition("::")[0] for part in order}
        code = _pytest(judging, [file for file in tests if file in files])
        if judging.failed:
            return {"verdict": "seen", **judging.failed}
        if judging.late:
            return {"verdict": "left"}
        return {"verdict": "unseen"} if code == 0 else {"ended": f"with pytest's status {code}"}

    return call


def _pytest(plugin: object, tests: Sequence[str]) -> int:
    os.chdir(ROOT)
    return int(pytest.main([*_OPTIONS, *tests], plugins=[plugin]))


# --- modules from trees --------------------------------------------------------------------------


class _Loader(importlib.machinery.SourceFileLoader):
    """Gives a module the code of a tree, whatever its file and the cache of that say."""

    def __init__(self, fullname: str, path: str, tree: ast.Module) -> None:
        super().__init__(fullname, path)
        self._tree = tree

    def get_code(self, fullname: str) -> CodeType:
        return compile(ast.fix_missing_locations(self._tree), self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, trees: Trees) -> None:
        self._trees = trees

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._trees:
            return None
        file = f"{ROOT}/{fullname.replace('.', '/')}.py"
        loader = _Loader(fullname, file, self._trees[fullname])
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


# --- plugins of pytest ---------------------------------------------------------------------------


def _by_part(items: Sequence[pytest.Item]) -> dict[str, list[pytest.Item]]:
    """Tests by the cases that they share, under the name of the first."""
    found: dict[object, list[pytest.Item]] = collections.defaultdict(list)
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        # Rows of one sample; variations of one target's frames.
        sample = getattr(parameters.get("branch"), "sample", None)
        found[sample or getattr(parameters.get("variation"), "spec", item.nodeid)].append(item)
    return {same[0].nodeid: same for same in found.values()}


class _Replacing:
    """Has modules imported from trees."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees

    def pytest_configure(self) -> None:
        # Before pytest's own finder, which takes the packages of plugins, and fuzz is one.
        sys.meta_path.insert(0, _Finder(self._trees))


class _Recorder(_Replacing):
    """Runs the parts by themselves, and records what each reaches."""

    def __init__(self, trees: Trees, skipped: Sequence[str]) -> None:
        super().__init__(trees)
        self._skipped = tuple(skipped)
        self.reached: set[tuple[object, ...]] = set()
        self.parts: list[Answer] = []
        self.failed = ""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = [item for item in session.items if not item.nodeid.startswith(self._skipped)]
        for name, same in _by_part(items).items():
            call = functools.partial(self._run, same)
            run = answer_of(call, seconds=300.0, memory=MEMORY)
            if run.pop("failed", True):
                self.failed = self.failed or name
            self.parts.append({"tests": [item.nodeid for item in same], **run})
        return True

    def _run(self, items: Sequence[pytest.Item]) -> Answer:
        begun = time.monotonic()
        for item in items:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return {
            "seconds": time.monotonic() - begun,
            "reached": sorted(self.reached),
            "failed": items[0].session.testsfailed,
        }


class _Judge(_Replacing):
    """Runs the parts in their order, and keeps the first failure."""

    def __init__(self, trees: Trees, order: Sequence[Part], until: float) -> None:
        super().__init__(trees)
        self._order, self._until = order, until
        self._limits = {
            test: round(_TIMES * part.seconds) + _SECONDS_MORE
            for part in order
            for test in part.tests
        }
        self.failed: dict[str, str] = {}
        self.late = False
        signal.signal(signal.SIGALRM, _too_long)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        found = _by_part(items)
        items[:] = [item for part in self._order for item in found.get(part.name, ())]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if time.monotonic() > self._until:
            self.late = True
            pytest.exit("left")
        signal.alarm(self._limits[item.nodeid])
        try:
            return (yield)
        finally:
            signal.alarm(0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._keep(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        # What the tables of a file are made of cannot be made.
        self._keep(report)

    def _keep(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            self.failed = {"test": report.nodeid, "said": _reason(report.longrepr)}


def _too_long(*_: object) -> None:
    raise TimeoutError("takes many times as long")


def _reason(longrepr: object) -> str:
    """Why a test failed, in one line."""
    crash = getattr(longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(longrepr).strip().rpartition("\n")[2]
    return str(text).partition("\n")[0][:200]
