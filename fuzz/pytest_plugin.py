"""Fuzzing as tests: `pytest --ln-fuzz=60s` runs each target that a conftest.py names as one test.

    ln_fuzz_targets = ("my_norm.py", "my_norm.py:other", "layer_norm")

Paths begin at the conftest's folder. The time is each test's own; shrinking what it finds may take
up to half a minute more. Failures are kept in `.ln-fuzz` of pytest's root folder, which is where
they are replayed. With pytest-xdist the tests run in parallel, each on a GPU of its own.

A campaign that finds a fault fails; what keeps it from being run is an error, and a target that
this machine's device cannot run is skipped. Loaded in every run of pytest: all that a campaign
needs is imported late, and nothing of it without the option.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import secrets
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fuzz.campaign import CampaignResult
    from fuzz.jobs.setup import Settings, Setup
    from fuzz.store import Failure

NAMES = "ln_fuzz_targets"
"""What a conftest.py calls the targets in it."""

SEED = "ln_fuzz_seed"
"""The seed's name among options, what workers are told, and properties of a test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("ln-fuzz", "fuzzing of layer-normalisation kernels")
    group.addoption(
        "--ln-fuzz",
        metavar="TIME",
        type=_seconds,
        help=f"Fuzz each target in the {NAMES} of a conftest.py for this long: 90, 90s, 5m or 8h.",
    )
    group.addoption(
        "--ln-fuzz-seed", metavar="N", type=_seed, help="Draw the same cases again in each of them."
    )
    group.addoption(
        "--ln-fuzz-device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="cpu is Triton's interpreter; auto takes a GPU if any.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed, one for all workers of pytest-xdist."""
    told = getattr(config, "workerinput", {})
    if _is_on(config) and config.option.ln_fuzz_seed is None:
        # Short enough to be typed again.
        config.option.ln_fuzz_seed = told.get(SEED, secrets.randbelow(10**9))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist what its own command line does not: the seed."""
    node.workerinput[SEED] = node.config.option.ln_fuzz_seed


def pytest_report_header(config: pytest.Config) -> str | None:
    """How to repeat it."""
    if not _is_on(config):
        return None
    option = config.option
    return f"ln-fuzz: {option.ln_fuzz:g} s a target, --ln-fuzz-seed {option.ln_fuzz_seed}"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A conftest.py that names targets."""
    if not _is_on(parent.config) or file_path.name != "conftest.py":
        return None
    named = _named_in(file_path, parent.config)
    return None if named is None else TargetsFile.from_parent(parent, path=file_path, named=named)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Warn where there is nothing to fuzz, which looks like having found nothing."""
    # With --lf, files without a failure are not collected.
    if not _is_on(config) or config.getoption("lf", False):
        return
    if not any(isinstance(item, TargetItem) for item in items):
        rule = f"a conftest.py in a collected folder must name {NAMES}"
        warnings.warn(pytest.PytestWarning(f"--ln-fuzz: nothing to fuzz, {rule}"), stacklevel=1)


class TargetsFile(pytest.File):
    """A conftest.py as a collection of targets; ``named`` is what it gives as their names."""

    def __init__(self, *, named: object, **how: Any) -> None:
        super().__init__(**how)
        self._named = named

    def collect(self) -> Iterator[TargetItem]:
        """One test a name, in order.

        Raises: CollectError naming the value and the rule.
        """
        named = self._named
        if not isinstance(named, (tuple, list)) or not all(isinstance(n, str) for n in named):
            raise self._error(repr(named), "must be a tuple or list of strings")
        for name in named:
            if named.count(name) > 1:
                raise self._error(repr(name), "must be named once")
            test = f"ln-fuzz[{name}]"
            # Given as text, because pytest 9.2 would take the brackets for a part of the name,
            # and then not know the test again under --lf.
            nodeid = f"{self.nodeid}::{test}"
            yield TargetItem.from_parent(
                self, name=test, nodeid=nodeid, target=self._from_root(name)
            )

    def _from_root(self, name: str) -> str:
        """The name under which `ln-fuzz replay` finds the target from the root folder."""
        whole = name.endswith(".py")
        file, colon, function = (name, "", "") if whole else name.rpartition(":")
        if not file.endswith(".py"):
            return name
        path = self.path.parent / file
        if not path.is_file():
            raise self._error(repr(name), f"must be a built-in target or a file: no {path}")
        return f"{Path(os.path.relpath(path, self.config.rootpath)).as_posix()}{colon}{function}"

    def _error(self, value: str, rule: str) -> pytest.Collector.CollectError:
        return self.CollectError(f"{NAMES}: {value}, {rule} [{self.path}]")


class TargetItem(pytest.Item):
    """A campaign as a test.

    It runs while the test is set up, so that what keeps it from running is an error of the test
    and only what it finds a failure.
    """

    def __init__(self, *, target: str, **how: Any) -> None:
        super().__init__(**how)
        self._target = target
        self._found = ""

    def setup(self) -> None:
        """Run the campaign."""
        from fuzz.jobs.setup import UsageError, WrongDevice

        self._found = ""
        try:
            with _at_home(self.config.rootpath):
                self._fuzz()
        except WrongDevice as error:
            pytest.skip(str(error))
        except UsageError as error:
            pytest.fail(str(error), pytrace=False)

    def runtest(self) -> None:
        """Fail with what the campaign found."""
        if self._found:
            pytest.fail(self._found, pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where the test stands: the file, no line."""
        return self.path, None, self.name

    def _fuzz(self) -> None:
        from fuzz.campaign import run
        from fuzz.jobs.setup import Settings, prepare

        option = self.config.option
        settings = Settings(
            targets=(self._target,),
            device=option.ln_fuzz_device,
            seconds=option.ln_fuzz,
            seed=option.ln_fuzz_seed,
            # pytest-xdist has the others.
            workers=1,
        )
        with _on_one_gpu(prepare(settings), lambda words: _say(self.config, words)) as setup:
            result = run(settings, _Silent(), setup)
        self.user_properties += [
            (SEED, settings.seed),
            ("ln_fuzz_cases", result.totals.executed),
        ]
        self._conclude(result, settings)

    def _conclude(self, result: CampaignResult, settings: Settings) -> None:
        totals = result.totals
        if result.interrupted:
            if not result.failures:
                raise KeyboardInterrupt
            # After the report of this test.
            self.session.shouldstop = f"interrupted in {self.name}"
        elif result.exit_code == 2:
            could = not (result.errors or totals.faulty or result.lost)
            if could and totals.skipped:
                pytest.skip(f"no case can run here: {_reason(result)}")
            pytest.fail(self._words(result, settings), pytrace=False)
        if result.failures or result.exit_code:
            self._found = self._words(result, settings)

    def _words(self, result: CampaignResult, settings: Settings) -> str:
        """What the command line prints of it, what matters most first: pytest may show but that."""
        from rich.console import Console

        from fuzz.report import PLAIN_WIDTH, conclusion, print_failure

        buffer = io.StringIO()
        # Into a report, which may be read anywhere.
        console = Console(
            file=buffer, width=PLAIN_WIDTH, highlight=False, color_system=None, force_terminal=False
        )
        seen = set()
        for failure, path in result.failures:
            kind = failure.signature.kind
            print_failure(console, failure, path, brief=kind in seen)
            seen.add(kind)
        failures = buffer.getvalue().splitlines()
        errors = [f"ERROR {error}" for error in result.errors + result.totals.faults]
        ended = conclusion(result)
        first = [*errors, *failures, ended] if result.exit_code == 2 else [ended, *failures]
        last = f"--ln-fuzz-seed {settings.seed}; journal: {result.run_folder}"
        root = self.config.rootpath
        elsewhere = self.config.invocation_params.dir != root
        return "\n".join([*first, last + (f"; all in {root}" if elsewhere else "")])


class _Silent:
    """Listens to a campaign whose result tells it all."""

    def started(self, setup: Setup) -> None:
        """Nothing to say."""

    def progress(self, result: CampaignResult) -> None:
        """Nothing to say."""

    def failure(self, failure: Failure, path: Path) -> None:
        """Nothing to say."""

    def error(self, text: str) -> None:
        """Nothing to say."""


@contextlib.contextmanager
def _at_home(root: Path) -> Iterator[None]:
    """In the root folder, and leaving nothing behind in this process for the tests that follow."""
    from fuzz.process.lifecycle import THREAD_VARIABLES

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name in THREAD_VARIABLES:
            # A campaign sets them, for the processes that it starts.
            patch.setenv(name, "1")
        yield


@contextlib.contextmanager
def _on_one_gpu(setup: Setup, say: Callable[[str], None]) -> Iterator[Setup]:
    """A setup with one GPU that no other worker has, where it has any."""
    from fuzz.jobs.lease import gpu_lease

    if not setup.info.gpus:
        yield setup
        return
    # Of the machine, for this user: another run of pytest, of another checkout, counts too.
    folder = Path(tempfile.gettempdir()) / f"ln-fuzz-{os.getuid()}" / "leases"
    with gpu_lease(setup.info.gpus, folder, say=say) as gpu:
        yield dataclasses.replace(setup, info=dataclasses.replace(setup.info, gpus=(gpu,)))


def _say(config: pytest.Config, words: str) -> None:
    """Tell the user at once, although the test's own output is captured."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    shown = capture.global_and_fixture_disabled() if capture else contextlib.nullcontext()
    with shown:
        print(f"ln-fuzz: {words}", file=sys.stderr, flush=True)


def _reason(result: CampaignResult) -> str:
    """Why most cases were skipped."""
    rows = result.totals.rows.values()
    reasons = [(count, reason) for row in rows for reason, count in row.skipped.items()]
    return max(reasons)[1]


def _is_on(config: pytest.Config) -> bool:
    return config.option.ln_fuzz is not None


def _named_in(path: Path, config: pytest.Config) -> object:
    """What a conftest.py that pytest has loaded calls its targets; None where it does not."""
    for plugin in config.pluginmanager.get_plugins():
        if getattr(plugin, "__file__", None) == str(path):
            return getattr(plugin, NAMES, None)
    return None


def _seconds(text: str) -> float:
    from fuzz.jobs.setup import UsageError
    from fuzz.options import parse_seconds

    try:
        return parse_seconds(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"seed={text!r}, must be an integer >= 0")
    return int(text)
