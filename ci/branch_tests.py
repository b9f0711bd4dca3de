"""The tests of a removed branch: which of them reach it, and the first that fails without it.

All of this runs in processes forked before anything of the strategies was imported. The rows of
tests/quality/test_strategy_branches.py are called directly, those of one sample of drawn cases
together; the other tests are pytest's, which takes longer to begin.
"""

from __future__ import annotations

import ast
import builtins
import collections
import contextlib
import functools
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

from ci.forks import Answer, answer_of
from ci.removals import MARK, mark

ROOT = Path(__file__).resolve().parent.parent

ROWS = "tests.quality.test_strategy_branches"
_SAMPLING = "tests.quality.branches_sampling"
ROWS_FILE = f"{ROWS.replace('.', '/')}.py"

# A removal may make an endless loop, or shapes without end. A test may take so many times as long
# as its part did, and so many seconds more; as they are, all in one process take 2 GB.
_TIMES = 6
_SECONDS_MORE = 3
MEMORY = 6 << 30

# Rows that are decided by so many cases come before all others.
_MANY = 2500

# The first cases of a sample: where they are others than with nothing taken out, its rows are those
# to try first.
_PROBE = 40

# Plugins cost a tenth of a second each time; the first failure is enough.
_OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:ln_fuzz", "-p", "no:xdist")

UNSEEN: Answer = {"verdict": "unseen"}

Trees = Mapping[str, ast.Module]
"""Modules by name, as they are to be imported."""


@dataclass(frozen=True)
class Part:
    """Tests that share drawn cases, which is what takes their time."""

    tests: tuple[str, ...]
    seconds: float
    reached: frozenset[tuple[str, int]]
    """Module and first line of each block that is run."""
    probe: str = ""
    """A digest of the first cases, for rows."""

    @property
    def name(self) -> str:
        """Its first test."""
        return self.tests[0]

    @property
    def file(self) -> str:
        """The file of its tests."""
        return self.name.partition("::")[0]

    @property
    def limit(self) -> int:
        """The most seconds that one of its tests may take."""
        return round(_TIMES * self.seconds) + _SECONDS_MORE


def record(trees: Trees, tests: Sequence[str], skipped: Sequence[str]) -> Answer:
    """The parts of the tests, each run in a process of its own: ``{"parts": [...]}``.

    One process for all would hide what a part reaches: the strategies keep what they have made.
    """
    reached: set[tuple[object, ...]] = set()
    for module, tree in trees.items():
        mark(tree, module)
    setattr(builtins, MARK, lambda *block: reached.add(block))
    sys.meta_path.insert(0, _Finder(trees))
    parts: list[Answer] = []
    failed = ""
    for name, rows in _rows().items():
        run = _answer(functools.partial(_run_rows, rows), reached)
        failed = failed or _failure(name, run)
        parts.append({"tests": list(rows.calls), **run})
    recorder = _Recorder(trees, skipped, reached)
    code = _pytest(recorder, tests)
    failed = failed or recorder.failed or (f"pytest, with {code}," if code else "")
    return {"parts": parts + recorder.parts, "failed": failed}


def judge(trees: Trees, order: Sequence[Part], seconds: float) -> Callable[[], Answer]:
    """A call that says which test fails first, in the order of their parts.

    Those of one file run together: that of the first part, then of the first of another file.
    Its answer is ``{"verdict": "seen", "test": ..., "said": ...}``, or the verdict is ``unseen``,
    or ``left`` after so many seconds of processor time.
    """

    def call() -> Answer:
        begun = time.process_time()
        answer = _call(begun + seconds)
        return {**answer, "seconds": round(time.process_time() - begun, 2)}

    def _call(until: float) -> Answer:
        signal.signal(signal.SIGPROF, _too_long)
        sys.meta_path.insert(0, _Finder(trees))
        files: dict[str, list[Part]] = collections.defaultdict(list)
        for part in order:
            files[part.file].append(part)
        # The file of the part that is likeliest to fail comes first.
        for file, parts in files.items():
            if file == ROWS_FILE:
                answer, parts[:] = _judge_rows(parts, until, changed=True)
            else:
                answer = _judge_others(parts, until)
            if answer != UNSEEN:
                return answer
        # Rows whose samples begin with the same cases are the last to fail.
        return _judge_rows(files[ROWS_FILE], until, changed=False)[0]

    def _judge_others(parts: Sequence[Part], until: float) -> Answer:
        judging = _Judge(trees, parts, until)
        code = _pytest(judging, [parts[0].file])
        if judging.failed:
            return {"verdict": "seen", **judging.failed}
        if judging.late:
            return {"verdict": "left"}
        return UNSEEN if code == 0 else {"ended": f"with pytest's status {code}"}

    return call


def _too_long(*_: object) -> None:
    raise TimeoutError("takes many times as long")


@contextlib.contextmanager
def _limit(seconds: int) -> Iterator[None]:
    # Of processor time: how busy the machine is must not decide.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


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


# --- rows, called directly -----------------------------------------------------------------------


class _Rows:
    """The rows of one sample."""

    def __init__(self, sample: Any) -> None:
        self._sample = sample
        self.calls: dict[str, Callable[[], None]] = {}
        # Those that take many cases.
        self.rare: set[str] = set()

    def probe(self) -> str:
        """A digest of the first cases."""
        if not hasattr(self._sample, "draw"):
            return ""
        cases = itertools.islice(self._sample.draw(), _PROBE)
        return hashlib.sha256("".join(map(repr, cases)).encode()).hexdigest()[:16]


def _rows() -> dict[str, _Rows]:
    """The rows by the cases that they share, under the name of the first."""
    module = importlib.import_module(ROWS)
    sampling = importlib.import_module(_SAMPLING)
    found: dict[object, _Rows] = {}
    # Those that are often held are decided by the first cases.
    for each in sorted(module.BRANCHES, key=lambda branch: -branch.least):
        rows = found.setdefault(each.sample, _Rows(each.sample))
        name = f"{ROWS_FILE}::test_branch_is_drawn[{each.name}]"
        rows.calls[name] = functools.partial(module.test_branch_is_drawn, each)
        if each.enough > _MANY or each.among is not sampling.valid:
            rows.rare.add(name)
    for each in module.VARIATIONS:
        rows = found.setdefault(each.spec, _Rows(each.spec))
        name = f"{ROWS_FILE}::test_frame_varies[{each.name}]"
        rows.calls[name] = functools.partial(module.test_frame_varies, each)
    return {next(iter(rows.calls)): rows for rows in found.values()}


def _run_rows(rows: _Rows) -> Answer:
    probe, begun = rows.probe(), time.process_time()
    for call in rows.calls.values():
        call()
    return {"seconds": time.process_time() - begun, "probe": probe}


def _judge_rows(parts: Sequence[Part], until: float, *, changed: bool) -> tuple[Answer, list[Part]]:
    """The verdict of the rows, and those that were not asked: of a sample that has not changed."""
    try:
        rows = _rows()
    except Exception as error:
        return {"verdict": "seen", "test": ROWS_FILE, "said": _first_line(repr(error))}, []
    asked, left = list(parts), []
    if changed:
        left = [part for part in parts if _is_same(part, rows[part.name])]
        asked = [part for part in parts if part not in left]
    # Of the likeliest all, then of the others those first that are decided by few cases.
    rounds = itertools.product((False, True), asked[1:])
    for rare, part in ((False, asked[0]), (True, asked[0]), *rounds) if asked else ():
        for name, call in rows[part.name].calls.items():
            if (name in rows[part.name].rare) is not rare:
                continue
            if time.process_time() > until:
                return {"verdict": "left"}, []
            try:
                with _limit(part.limit):
                    call()
            except Exception as error:
                return {"verdict": "seen", "test": name, "said": _first_line(repr(error))}, []
    return UNSEEN, left


def _is_same(part: Part, rows: _Rows) -> bool:
    """Whether the sample begins with the cases that it has with nothing taken out."""
    try:
        with _limit(_SECONDS_MORE):
            return bool(part.probe) and rows.probe() == part.probe
    except Exception:
        return False


# --- other tests, run by pytest ------------------------------------------------------------------


def _pytest(plugin: object, tests: Sequence[str]) -> int:
    os.chdir(ROOT)
    return int(pytest.main([*_OPTIONS, *tests], plugins=[plugin]))


def _answer(call: Callable[[], Answer], reached: set[tuple[object, ...]]) -> Answer:
    """What a call returns in a process of its own, and which blocks it reached."""

    def both() -> Answer:
        try:
            return {**call(), "reached": sorted(reached)}
        except Exception as error:
            return {"failed": _first_line(repr(error))}

    return answer_of(both, seconds=600.0, memory=MEMORY)


def _failure(name: str, run: Answer) -> str:
    """What is to be said of a part that failed, if it did."""
    how = run.get("failed") or run.get("ended")
    return f"{name} ({how})" if how else ""


def _cases_of(item: pytest.Item) -> object:
    """What tests have in common that use the same drawn cases."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    target = parameters.get("target_name")
    return item.nodeid if target is None else (target, parameters.get("budget_name"))


class _Replacing:
    """Has modules imported from trees."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees

    def pytest_configure(self) -> None:
        # Before pytest's own finder, which takes the packages of plugins, and fuzz is one.
        sys.meta_path.insert(0, _Finder(self._trees))


class _Recorder(_Replacing):
    """Runs the tests by themselves, and records what each reaches."""

    def __init__(
        self, trees: Trees, skipped: Sequence[str], reached: set[tuple[object, ...]]
    ) -> None:
        super().__init__(trees)
        self._skipped, self._reached = tuple(skipped), reached
        self.parts: list[Answer] = []
        self.failed = ""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        parts: dict[object, list[pytest.Item]] = collections.defaultdict(list)
        for item in session.items:
            if not item.nodeid.startswith(self._skipped):
                parts[_cases_of(item)].append(item)
        for items in parts.values():
            run = _answer(functools.partial(self._run, items), self._reached)
            self.failed = self.failed or _failure(items[0].nodeid, run)
            self.parts.append({"tests": [item.nodeid for item in items], **run})
        return True

    def _run(self, items: Sequence[pytest.Item]) -> Answer:
        begun = time.process_time()
        for item in items:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        if items[0].session.testsfailed:
            raise AssertionError(items)
        return {"seconds": time.process_time() - begun}


class _Judge(_Replacing):
    """Runs the tests in their order, and keeps the first failure."""

    def __init__(self, trees: Trees, order: Sequence[Part], until: float) -> None:
        super().__init__(trees)
        self._order, self._until = {test: part for part in order for test in part.tests}, until
        self.failed: dict[str, str] = {}
        self.late = False

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        found = {item.nodeid: item for item in items}
        items[:] = [found[name] for name in self._order if name in found]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if time.process_time() > self._until:
            self.late = True
            pytest.exit("left")
        with _limit(self._order[item.nodeid].limit):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._keep(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        # What the tables of a file are made of cannot be made.
        self._keep(report)

    def _keep(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = str(report.longrepr).strip().rpartition("\n")[2] if crash is None else ""
            said = _first_line(text or crash.message)
            self.failed = {"test": report.nodeid, "said": said}


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:200]
