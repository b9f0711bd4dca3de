"""Fuzzing as tests: what is collected, how a campaign ends as a test, and two workers at a time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.fuzz.processes import descendants, is_alive, wait_until
from tests.fuzz.test_cli import KERNEL, ln_fuzz

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]

# Campaigns that end after some cases, however slow the machine is. The plugin imports what it needs
# when a campaign begins, and so finds what this leaves behind.
FEW = """
import functools
from fuzz.jobs import setup

setup.Settings = functools.partial(setup.Settings, cases=16)
"""

# On targets that need no torch.
FAKE = """
import functools
from fuzz.jobs import setup
from tests.fuzz.fake_backend import BACKEND

setup.Settings = functools.partial(setup.Settings, backend=BACKEND, cases=6)
"""

# Two campaigns that begin together, on a machine with GPUs; what they take is written down.
GPUS = """
import dataclasses, os, time
from pathlib import Path
from fuzz import campaign

found, ready, log = setup.prepare, Path("ready"), Path("log")
run_campaign = campaign.run

def prepare(settings):
    seen = found(settings)
    ready.mkdir(exist_ok=True)
    (ready / str(os.getpid())).touch()
    while len(list(ready.iterdir())) < 2:
        time.sleep(0.01)
    return dataclasses.replace(seen, info=dataclasses.replace(seen.info, gpus={gpus}))

def run(settings, listener, setup):
    began = time.monotonic()
    result = run_campaign(settings, listener, setup)
    with log.open("a") as file:
        print(*setup.info.gpus, began, time.monotonic(), file=file)
    return result

setup.prepare, campaign.run = prepare, run
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder in which pytest runs with this plugin, whether or not it is installed."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Leases are of the machine.
    monkeypatch.setenv("TMPDIR", str(pytester.mkdir("temporary")))
    # Set for this suite; not so for those who use the plugin.
    monkeypatch.delenv("OMP_NUM_THREADS")
    # The short summary is cut to the width only where no CI is found.
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini("[pytest]\nnorecursedirs = temporary .*")
    return pytester


def run(project: pytest.Pytester, *arguments: str, folder: str = ".") -> pytest.RunResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.path / folder)
        return project.runpytest_subprocess("-p", "fuzz.pytest_plugin", *arguments)


def run_here(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest in this process, which is faster where no campaign is to begin."""
    return project.runpytest_inprocess("-p", "fuzz.pytest_plugin", *arguments)


def items(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::" in line]


# --- collection -----------------------------------------------------------------------------------


def test_plugin_alone_imports_nothing_that_costs() -> None:
    heavy = "{'numpy', 'torch', 'rich', 'typer', 'hypothesis', 'fuzz.campaign', 'fuzz.spec'}"
    code = f"import sys, fuzz.pytest_plugin; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_plugin_collects_nothing_unless_asked(project: pytest.Pytester) -> None:
    project.makeconftest("ln_fuzz_targets = 7")
    project.makepyfile("def test_other(): pass")
    result = run_here(project)
    result.assert_outcomes(passed=1)
    assert "ln-fuzz" not in result.stdout.str()


COLLECTED = [
    "conftest.py::ln-fuzz[kernels/bad.py]",
    "conftest.py::ln-fuzz[kernels/bad.py:other]",
    "conftest.py::ln-fuzz[layer_norm]",
    "sub/conftest.py::ln-fuzz[../kernels/bad.py]",
]

LOOK = """
import sys

def pytest_collection_finish(session):
    print("imported", sorted({"torch", "triton", "fuzz.builtin", "bad"} & set(sys.modules)))
"""


def conftests(project: pytest.Pytester) -> None:
    (project.mkdir("kernels") / "bad.py").write_text("raise SystemExit('imported')")
    named = [re.search(r"\[(.*)\]", item)[1] for item in COLLECTED]  # type: ignore[index]
    project.makeconftest(f"{LOOK}\nln_fuzz_targets = {named[:3]}")
    (project.mkdir("sub") / "conftest.py").write_text(f"ln_fuzz_targets = ({named[3]!r},)")
    (project.mkdir("none") / "conftest.py").write_text("")


def test_plugin_collects_each_name_without_importing_it(project: pytest.Pytester) -> None:
    conftests(project)
    result = run(project, "--ln-fuzz=60s", "--collect-only", "-q", "-s")
    assert items(result) == COLLECTED
    result.stdout.fnmatch_lines(["imported []"])


def test_plugin_collects_a_test_by_its_id(project: pytest.Pytester) -> None:
    conftests(project)
    for selection in ([COLLECTED[1]], ["-k", "other"], ["sub", COLLECTED[1]]):
        result = run_here(project, "--ln-fuzz=60s", "--collect-only", "-q", *selection)
        expected = COLLECTED[:0:-2] if selection[0] == "sub" else [COLLECTED[1]]
        assert sorted(items(result)) == sorted(expected)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("'a.py'", "ln_fuzz_targets: 'a.py', must be a tuple or list of strings"),
        ("{'a.py'}", "ln_fuzz_targets: {'a.py'}, must be a tuple or list of strings"),
        ("('layer_norm', 3)", "ln_fuzz_targets: ('layer_norm', 3), must be a tuple or list"),
        ("['a', 'b', 'a']", "ln_fuzz_targets: 'a', must be named once"),
        ("['no.py:f']", "ln_fuzz_targets: 'no.py:f', must be a built-in target or a file: no "),
        ("['no/no.py']", "ln_fuzz_targets: 'no/no.py', must be a built-in target or a file: no "),
    ],
)
def test_plugin_refuses_names_that_are_none(
    project: pytest.Pytester, named: str, says: str
) -> None:
    project.makeconftest(f"ln_fuzz_targets = {named}")
    result = run_here(project, "--ln-fuzz=60s")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    (line,) = [line for line in result.outlines if line.startswith("ln_fuzz_targets")]
    assert line.startswith(says)
    assert line.endswith(f"[{project.path / 'conftest.py'}]")


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--ln-fuzz=soon", "argument --ln-fuzz: time='soon', must be a length > 0 such as 90s"),
        ("--ln-fuzz-seed=-1", "argument --ln-fuzz-seed: seed='-1', must be an integer >= 0"),
        ("--ln-fuzz-device=tpu", "argument --ln-fuzz-device: invalid choice: 'tpu'"),
    ],
)
def test_plugin_refuses_bad_values(project: pytest.Pytester, option: str, says: str) -> None:
    result = run_here(project, option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in result.stderr.str()


def test_plugin_warns_where_there_is_nothing_to_fuzz(project: pytest.Pytester) -> None:
    project.makepyfile("def test_other(): pass")
    result = run_here(project, "--ln-fuzz=60s")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*--ln-fuzz: nothing to fuzz, a conftest.py in a collected*"])
    run_here(project, "--ln-fuzz=60s", "--lf").assert_outcomes(passed=1, warnings=0)


# --- a campaign as a test -------------------------------------------------------------------------

AFTER = """
import os
from pathlib import Path

def test_process_is_as_it_was():
    assert "OMP_NUM_THREADS" not in os.environ
    assert Path.cwd().name == "sub"
"""


def test_campaigns_end_as_tests_do(project: pytest.Pytester) -> None:
    names = ("right", "no_such", "wrong_tail", "broken_harness", "unsupported")
    project.makeconftest(f"{FAKE}\nln_fuzz_targets = {names}")
    (project.mkdir("sub") / "test_after.py").write_text(AFTER)
    options = ("--ln-fuzz=60s", "--ln-fuzz-seed=1", "--ln-fuzz-device=cpu", "--rootdir=..", "..")

    result = run(project, *options, "-rs", "--junitxml=../all.xml", folder="sub")
    result.assert_outcomes(passed=2, failed=1, errors=2, skipped=1)
    text = result.stdout.str()
    assert "ln-fuzz: 60 s a target, --ln-fuzz-seed 1\n" in text
    # Not from here: where it says.
    failed = text.split("= FAILURES =")[1].split("= short test summary")[0]
    failure = r"""
\d of 6 cases fail: wrong_tail \(values_within_bound of y\)\.
FAIL wrong_tail / values_within_bound / y / single / .*
  y\[.*\]=.* but should be .*
  wrong_tail x\[.*
  replay: ln-fuzz replay [0-9a-f]{6}
(also .*\n)*--ln-fuzz-seed 1; journal: \.ln-fuzz/runs/.*; all in (.*)
"""
    match = re.search(failure, failed)
    assert match is not None, failed
    assert match[2] == str(project.path)
    folders = {path.parent for path in project.path.rglob("*.json")}
    assert folders == {project.path / ".ln-fuzz" / "failures"}
    assert "LookupError: a fault of the harness itself" in text
    assert "target='no_such', must be one of right, wrong_tail" in text
    result.stdout.fnmatch_lines(["SKIPPED * no case can run here: *not on this moon*"])

    tests = {t.get("name"): t for t in ElementTree.parse("all.xml").iter("testcase")}
    ends = {name: [e.tag for e in test] for name, test in tests.items()}
    assert ends["ln-fuzz[right]"] == ["properties"]
    assert ends["ln-fuzz[wrong_tail]"] == ["properties", "failure"]
    assert "error" in ends["ln-fuzz[broken_harness]"]
    assert "skipped" in ends["ln-fuzz[unsupported]"]
    said = {p.get("name"): p.get("value") for p in tests["ln-fuzz[right]"].iter("property")}
    assert said == {"ln_fuzz_seed": "1", "ln_fuzz_cases": "6"}

    # Two errors and the failure, the first of which ends it.
    result = run(project, *options, "--lf", "-x", folder="sub")
    result.assert_outcomes(errors=1)
    assert "collected 3 items" in result.stdout.str()


def test_campaign_of_a_target_for_another_device_is_skipped(project: pytest.Pytester) -> None:
    target = KERNEL.replace("@target(", '@target(devices=("cuda",), ')
    assert target != KERNEL
    project.makepyfile(gpu_only=target)
    project.makeconftest("ln_fuzz_targets = ('gpu_only.py',)")
    result = run(project, "--ln-fuzz=60s", "--ln-fuzz-device=cpu", "-rs")
    result.assert_outcomes(skipped=1)
    says = "target='gpu_only.py:my_layer_norm' runs on cuda, not on cpu"
    assert says in result.stdout.str()


@pytest.mark.parametrize(("name", "says"), [("slow", "KeyboardInterrupt"), ("wrong_tail", "FAIL")])
def test_campaign_ends_in_order_when_interrupted(
    project: pytest.Pytester, name: str, says: str
) -> None:
    endless = FAKE.replace("cases=6", "cases=None")
    project.makeconftest(f"{endless}\nln_fuzz_targets = ({name!r}, 'right')")
    process = project.popen(
        [sys.executable, "-m", "pytest", "-p", "fuzz.pytest_plugin", "--ln-fuzz=300s"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    where = "failures/*.json" if name == "wrong_tail" else "runs/*/journal-0.jsonl"
    pattern = f".ln-fuzz/{where}"
    wait_until(lambda: any(p.stat().st_size for p in project.path.glob(pattern)), seconds=60)
    children = descendants(process.pid)
    assert len(children) >= 3
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=30)[0].decode()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert says in said
    assert ("Interrupted: interrupted in ln-fuzz[wrong_tail]" in said) == (name == "wrong_tail")
    assert "ln-fuzz[right]" not in said
    wait_until(lambda: not [pid for pid in children if is_alive(pid)])


# --- two workers ----------------------------------------------------------------------------------


def test_workers_have_a_folder_each_and_what_they_find_replays(project: pytest.Pytester) -> None:
    kernels = project.mkdir("kernels")
    (kernels / "bad.py").write_text(KERNEL)
    (kernels / "good.py").write_text(KERNEL.replace("FIXED = False", "FIXED = True"))
    named = "ln_fuzz_targets = ('bad.py', 'good.py:my_layer_norm')"
    (kernels / "conftest.py").write_text(f"{FEW}\n{named}")
    result = run(project, "--ln-fuzz=90s", "--ln-fuzz-device=cpu", "-p", "xdist", "-n", "2")
    result.assert_outcomes(passed=1, failed=1)
    text = result.stdout.str()
    seed = re.search(r"ln-fuzz: 90 s a target, --ln-fuzz-seed (\d+)", text)
    assert seed is not None
    folders = sorted(project.path.glob(".ln-fuzz/runs/*"))
    assert [folder.name.split("-")[2] for folder in folders] == [seed[1]] * 2
    for folder in folders:
        (journal,) = folder.glob("journal-*.jsonl")
        targets = set(re.findall(r'"target":"([^"]*)"', journal.read_text()))
        assert len(targets) == 1, targets
    replay = re.search("replay: ln-fuzz replay ([0-9a-f]{6})", text)
    assert replay is not None
    assert "kernels/bad.py:my_layer_norm / values_within_bound / y" in text
    ln_fuzz(project.path, "replay", replay[1], code=1)


def two_campaigns(project: pytest.Pytester, gpus: tuple[str, ...]) -> tuple[list[list[str]], str]:
    """GPU, begin and end of two campaigns in two workers, and what was printed at once."""
    named = "ln_fuzz_targets = ('right',)"
    project.makeconftest(f"{FAKE}\n{GPUS.format(gpus=gpus)}\n{named}")
    (project.mkdir("sub") / "conftest.py").write_text(named)
    result = run(project, "--ln-fuzz=60s", "--ln-fuzz-device=cpu", "-p", "xdist", "-n", "2")
    result.assert_outcomes(passed=2)
    lines = (project.path / "log").read_text().splitlines()
    return [line.split() for line in lines], result.stderr.str()


def test_workers_take_a_gpu_each(project: pytest.Pytester) -> None:
    seen, said = two_campaigns(project, ("4", "GPU-5"))
    assert sorted(gpu for gpu, _, _ in seen) == ["4", "GPU-5"]
    assert "waiting" not in said


def test_workers_wait_for_the_only_gpu_and_say_so(project: pytest.Pytester) -> None:
    seen, said = two_campaigns(project, ("7",))
    (first, _, end), (second, begin, _) = seen
    assert first == second == "7"
    assert float(end) <= float(begin)
    assert said.count("ln-fuzz: waiting for a GPU: 7 taken, by the locks in ") == 1
