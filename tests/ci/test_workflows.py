"""The workflows call what there is, and ci/gate.sh gives the verdict of ln-fuzz."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

import pytest
import typer.main

from ci import workflows
from ci.workflows import ROOT, Step, shell_steps, workflow_files
from fuzz import cli
from tests.fuzz.gating.repositories import Repository, clone, make_repository, no_machine_settings

STUB = """#!/usr/bin/env bash
printf '%s\\n' "$PWD" "$@" >"$STUB_CALLS"
if [ -n "$STUB_REPORTS" ]; then
    mkdir -p "$STUB_REPORTS/gates"
    folder=$STUB_REPORTS/gates/20260101-00000$(ls "$STUB_REPORTS/gates" | wc -l)
    mkdir "$folder"
    touch "$folder/result.json" "$folder/junit.xml"
fi
exit "$STUB_CODE"
"""
"""In the place of ln-fuzz."""

SETUP = """#!/usr/bin/env bash
echo "setup $*"
mkdir -p "$VENV/bin"
cp ci/stub "$VENV/bin/ln-fuzz"
exit "$SETUP_CODE"
"""
"""In the place of ci/setup.sh."""

STEPS = [step for file in workflow_files(ROOT) for step in shell_steps(file)]
SCRIPTED = [step for step in STEPS if "ci/" in step.run]
CALLS = [step for step in STEPS if ".venv/bin/ln-fuzz" in step.run]


# --- the workflows --------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_workflow_keeps_expressions_out_of_its_shell(step: Step) -> None:
    assert "${{" not in step.run


@pytest.mark.parametrize("step", SCRIPTED, ids=str)
def test_workflow_runs_scripts_with_options_that_exist(step: Step) -> None:
    words = shlex.split(step.run)
    script = next(word for word in words if word.startswith("ci/"))
    assert os.access(ROOT / script, os.X_OK)
    assert script == "ci/gate.sh"
    base, *options = words[words.index(script) + 1 :]
    assert base == "$BASE"
    gate = typer.main.get_command(cli.app).commands["gate"]  # type: ignore[attr-defined]
    context = gate.make_context("gate", ["--base", base, *options])
    assert context.params["base"] == base


def ln_fuzz_of(step: Step) -> list[str]:
    """The call of ln-fuzz in the first line that has one."""
    line = next(line for line in step.run.splitlines() if "ln-fuzz " in line)
    words = shlex.split(line)
    return words[words.index(".venv/bin/ln-fuzz") + 1 :]


@pytest.mark.parametrize("step", CALLS, ids=str)
def test_workflow_calls_commands_with_options_that_exist(step: Step) -> None:
    name, *options = ln_fuzz_of(step)
    command = typer.main.get_command(cli.app).commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, options)
    if name == "night":
        assert (context.params["time"], context.params["shard"]) == ("$TIME", "$SHARD")
        assert context.params["device"] == "cuda"


def test_workflow_of_the_night_fuzzes_merges_and_reports() -> None:
    assert [ln_fuzz_of(step)[0] for step in CALLS] == ["night", "merge", "report"]
    assert all(step.workflow.name == "night.yml" for step in CALLS)


def test_workflow_of_the_gate_has_a_job_without_gpu_and_one_with() -> None:
    devices = {
        step.job: step.run.split("--device ")[1].split()[0]
        for step in SCRIPTED
        if step.workflow.name == "gate.yml"
    }
    assert devices == {"cpu": "cpu", "gpu": "cuda"}


def test_workflows_of_this_repository_are_without_complaint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert workflows.main() == 0, capsys.readouterr().out


GOOD = (ROOT / ".github/workflows/gate.yml").read_text(encoding="utf-8")
CALL = 'run: ci/gate.sh "$BASE" --time 5m --device cpu'


@pytest.mark.parametrize(
    ("now", "before", "complaint"),
    [
        ("runs_on: ubuntu-latest", "runs-on: ubuntu-latest", "vendor.github-workflows"),
        ("", "    timeout-minutes: 30\n", "require-timeout"),
        ("run: ci/gate.sh ${{ github.head_ref }}", CALL, "template-injection"),
        ("run: ci/gate.sh $BASE", CALL, "SC2086"),
        ("contents: write", "contents: read", "excessive-permissions"),
        ("uses: someone/cache@v5", "uses: actions/cache@v5", "unpinned-uses"),
        ("  pull_request_target:\n", "  pull_request:\n", "dangerous-triggers"),
    ],
)
def test_workflow_that_is_wrong_is_complained_of(
    tmp_path: Path, now: str, before: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert before in GOOD
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    (tmp_path / "ci").mkdir()
    shutil.copy(ROOT / "ci/gate.sh", tmp_path / "ci")
    (tmp_path / ".github/workflows/gate.yml").write_text(GOOD.replace(before, now, 1), "utf-8")
    assert workflows.main(str(tmp_path)) == 1
    assert complaint in capsys.readouterr().out


def test_script_that_is_wrong_is_complained_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci/wrong.sh").write_text("#!/usr/bin/env bash\nrm -r $1/*\n", "utf-8")
    assert workflows.main(str(tmp_path)) == 1
    assert "SC2086" in capsys.readouterr().out


def test_workflows_that_are_not_there_are_no_success(tmp_path: Path) -> None:
    assert workflows.main(str(tmp_path)) == 2


# --- the issue ------------------------------------------------------------------------------------

GH = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$GH_CALLS"
[ "$1 $2" != "issue list" ] || printf '%s' "$GH_OPEN"
"""
"""In the place of GitHub's program."""


@pytest.fixture
def issue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Runs the step with a text, beside an issue that is open or not; returns the calls of gh."""
    (step,) = (step for step in STEPS if "gh issue" in step.run)
    program = tmp_path / "bin" / "gh"
    program.parent.mkdir()
    program.write_text(GH, encoding="utf-8")
    program.chmod(0o755)
    calls = tmp_path / "calls"
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("RUN", "https://example.org/runs/1")
    monkeypatch.setenv("GH_CALLS", str(calls))

    def run(text: str, open_issue: str) -> list[str]:
        (tmp_path / "issue.md").write_text(text, encoding="utf-8")
        calls.write_text("")
        monkeypatch.setenv("GH_OPEN", open_issue)
        # As GitHub does.
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step.run]
        subprocess.run(command, cwd=tmp_path, check=True)
        return [" ".join(line.split()[:2]) for line in calls.read_text().splitlines()]

    return run


def test_issue_is_opened_once_and_then_added_to(
    tmp_path: Path, issue: Callable[..., list[str]]
) -> None:
    first = issue("## new\n", "")
    assert first == ["label create", "issue list", "issue create"]
    assert (tmp_path / "issue.md").read_text().endswith("of https://example.org/runs/1\n")
    assert issue("## new\n", "12") == ["label create", "issue list", "issue comment"]
    assert "issue comment 12 --body-file issue.md" in (tmp_path / "calls").read_text()


def test_issue_is_left_alone_where_nothing_is_new(issue: Callable[..., list[str]]) -> None:
    assert issue("", "12") == []


def test_issue_is_written_only_where_the_repository_allows_it() -> None:
    text = (ROOT / ".github/workflows/night.yml").read_text(encoding="utf-8")
    head, job = text.split("\n  issue:\n")
    assert "vars.LN_FUZZ_ISSUES == 'true'" in job
    assert ": write" not in head


# --- ci/gate.sh -----------------------------------------------------------------------------------

Gate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository with a kernel of its own, a copy of the script, and one branch beside main."""
    no_machine_settings(monkeypatch)
    for name in ("CI", "VENV", "PYTHON"):
        monkeypatch.delenv(name, raising=False)
    made = make_repository(tmp_path / "users")
    script = made.write("ci/gate.sh", (ROOT / "ci/gate.sh").read_bytes())
    script.chmod(0o755)
    made.write("pyproject.toml", '[project]\nname = "users"\n')
    made.commit(kernel="a = 1\n")
    made.git("switch", "--quiet", "--create", "change")
    made.commit(kernel="a = 2\n")
    return made


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Runs a repository's script beside a stub of ln-fuzz on the PATH."""
    stub = tmp_path / "bin" / "ln-fuzz"
    stub.parent.mkdir()
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(0o755)
    git = shutil.which("git")
    assert git is not None
    # Without an ln-fuzz that the machine has.
    monkeypatch.setenv("PATH", f"{stub.parent}:{Path(git).parent}:/usr/bin:/bin")

    def run(
        repository: Repository,
        *arguments: str,
        code: int = 0,
        reports: str = ".ln-fuzz",
        folder: Path | None = None,
        more: Mapping[str, str] | None = None,
        stdout: int | TextIO = subprocess.PIPE,
    ) -> subprocess.CompletedProcess[str]:
        stubs = {
            "STUB_CALLS": str(tmp_path / "calls"),
            "STUB_CODE": str(code),
            "STUB_REPORTS": reports,
        }
        return subprocess.run(
            [str(repository.path / "ci/gate.sh"), *arguments],
            cwd=folder or repository.path,
            env={**os.environ, **stubs, **(more or {})},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    return run


def calls(tmp_path: Path) -> list[str]:
    """Where the stub was called, and with what."""
    return (tmp_path / "calls").read_text("utf-8").splitlines()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((), "BASE is missing, must be a branch, tag or commit"),
        (("",), "BASE='', must be a branch, tag or commit"),
        (("--time", "5m", "main"), "BASE='--time', must be a branch, tag or commit, before all"),
        (("main", "--base", "other"), "'--base', must be left out: BASE is the first argument"),
        (("main", "--base=other"), "'--base=other', must be left out"),
    ],
)
def test_gate_script_refuses_wrong_usage_by_its_rule(
    users: Repository, gate: Gate, tmp_path: Path, arguments: tuple[str, ...], rule: str
) -> None:
    done = gate(users, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"ci/gate.sh: {rule}")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("code", [0, 1, 2])
def test_gate_script_ends_as_ln_fuzz_does(users: Repository, gate: Gate, code: int) -> None:
    done = gate(users, "main", code=code)
    assert (done.returncode, done.stderr) == (code, "")
    folder = ".ln-fuzz/gates/20260101-000000"
    assert done.stdout == f"== reports in {folder}: junit.xml result.json\n"


def test_gate_script_hands_its_options_on(users: Repository, gate: Gate, tmp_path: Path) -> None:
    options = ["--target", "a file.py", "--time", "5m", "--gpu", "none"]
    gate(users, "a base; echo $HOME", *options)
    assert calls(tmp_path)[1:] == ["gate", "--base", "a base; echo $HOME", *options]


def test_gate_script_runs_in_the_folder_above_its_own(
    users: Repository, gate: Gate, tmp_path: Path
) -> None:
    assert gate(users, "main", folder=tmp_path).returncode == 0
    assert calls(tmp_path)[0] == str(users.path)


@pytest.mark.parametrize("option", [("--out", "my reports"), ("--out=my reports",)])
def test_gate_script_finds_reports_where_they_were_asked_for(
    users: Repository, gate: Gate, option: tuple[str, ...]
) -> None:
    done = gate(users, "main", *option, code=1, reports="my reports")
    assert done.returncode == 1
    assert "== reports in my reports/gates/20260101-000000: " in done.stdout


@pytest.mark.parametrize("code", [0, 1])
def test_gate_script_takes_nothing_for_a_verdict_without_a_report(
    users: Repository, gate: Gate, code: int
) -> None:
    users.write(".ln-fuzz/gates/20250101-000000/result.json", "of another gate")
    done = gate(users, "main", code=code, reports="")
    assert done.returncode == 2
    assert done.stderr == f"ci/gate.sh: code {code} without a report is no verdict\n"


def test_gate_script_takes_another_code_for_no_verdict(users: Repository, gate: Gate) -> None:
    done = gate(users, "main", code=137)
    assert done.returncode == 2
    assert done.stderr == "ci/gate.sh: ln-fuzz ended with code 137, which is no verdict\n"


def test_gate_script_takes_its_own_failure_for_no_verdict(
    users: Repository, gate: Gate, tmp_path: Path
) -> None:
    # The code of the write that fails is that of a verdict.
    with Path("/dev/full").open("w") as full:
        done = gate(users, "main", stdout=full)
    assert done.returncode == 2
    assert calls(tmp_path)


def test_gate_script_says_where_ln_fuzz_must_be(
    users: Repository, gate: Gate, tmp_path: Path
) -> None:
    missing = {"VENV": str(tmp_path / "none")}
    done = gate(users, "main", more=missing)
    assert done.returncode == 2
    assert f"{tmp_path}/none/bin/ln-fuzz is not there, must be installed" in done.stderr


def test_gate_script_takes_ln_fuzz_from_a_virtual_environment(
    users: Repository, gate: Gate, tmp_path: Path
) -> None:
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "bin/ln-fuzz").rename(tmp_path / "venv/bin/ln-fuzz")
    assert gate(users, "main").returncode == 2
    assert gate(users, "main", more={"VENV": str(tmp_path / "venv")}).returncode == 0


@pytest.mark.parametrize(("setup", "code"), [(0, 1), (1, 2)])
def test_gate_script_sets_up_the_project_itself(
    users: Repository, gate: Gate, tmp_path: Path, setup: int, code: int
) -> None:
    users.write("pyproject.toml", '[project]\nname = "ln-fuzz"\n')
    users.write("ci/setup.sh", SETUP).chmod(0o755)
    (tmp_path / "bin/ln-fuzz").rename(users.path / "ci/stub")
    done = gate(users, "main", code=1, more={"VENV": "env", "SETUP_CODE": str(setup)})
    assert done.returncode == code
    assert done.stdout.startswith("setup run\n")
    # A set-up that fails is no verdict, though its code is that of one.
    assert (tmp_path / "calls").exists() == (setup == 0)


# --- a base that CI did not fetch -----------------------------------------------------------------


def origin_main(users: Repository, made: Repository) -> bool:
    """Whether a clone has come to know origin/main, and that the change began there."""
    known = made.git("for-each-ref", "--format=%(objectname)", "refs/remotes/origin/main")
    if not known:
        return False
    assert known == users.git("rev-parse", "main")
    assert made.git("merge-base", "HEAD", "origin/main") == known
    return True


@pytest.mark.parametrize("depth", [("--depth=1",), ("--single-branch",)])
def test_gate_script_fetches_a_missing_base_in_ci_alone(
    users: Repository, gate: Gate, tmp_path: Path, depth: tuple[str, ...]
) -> None:
    made = clone(users, tmp_path / "clone", *depth, "--branch=change")
    quiet = gate(made, "origin/main")
    assert (quiet.returncode, "fetch" in quiet.stdout) == (0, False)
    assert not origin_main(users, made)
    done = gate(made, "origin/main", more={"CI": "true"})
    assert done.returncode == 0, done.stderr
    assert "== CI=true, and this clone lacks origin/main: git fetch" in done.stdout
    assert origin_main(users, made)
    assert "fetch" not in gate(made, "origin/main", more={"CI": "true"}).stdout


def test_gate_script_fetches_a_commit_by_its_id(
    users: Repository, gate: Gate, tmp_path: Path
) -> None:
    made = clone(users, tmp_path / "clone", "--depth=1", "--branch=change")
    base = users.git("rev-parse", "main")
    done = gate(made, base, more={"CI": "true"})
    assert done.returncode == 0, done.stderr
    assert made.git("merge-base", "HEAD", base) == base


def test_gate_script_says_that_a_base_cannot_be_fetched(
    users: Repository, gate: Gate, tmp_path: Path
) -> None:
    made = clone(users, tmp_path / "clone", "--depth=1", "--branch=change")
    done = gate(made, "origin/none", more={"CI": "true"})
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "ci/gate.sh: BASE='origin/none', must be a commit that is here or can be fetched"
    )
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("base", ["none", "feature/none", "0123abc", "main~1"])
def test_gate_script_leaves_other_names_to_ln_fuzz(
    users: Repository, gate: Gate, tmp_path: Path, base: str
) -> None:
    made = clone(users, tmp_path / "clone", "--depth=1", "--branch=change")
    done = gate(made, base, code=2, reports="", more={"CI": "true"})
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    assert calls(tmp_path)[1:] == ["gate", "--base", base]
