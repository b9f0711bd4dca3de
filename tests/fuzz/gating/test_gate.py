"""Gates over real repositories: what blocks a change, what does not, and what is said of it."""

from __future__ import annotations

import datetime
import json
import signal
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fuzz.compiling.gpus import find_gpu
from fuzz.gating.outcome import Place
from fuzz.jobs.setup import UsageError
from fuzz.replay import replay
from tests.fuzz.gating.gate_repositories import (
    FAULTY,
    FLAKY,
    LINE_OF_FAULT,
    NORM,
    ONE_PASS,
    THEN,
    Project,
    make_project,
    of_target,
    renamed,
    store_failure,
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return make_project(tmp_path / "repository", monkeypatch)


def accept(signature: str, expires: datetime.date) -> str:
    return (
        f"[[accepted]]\nsignature = {json.dumps(signature)}\nreason = 'It is known.'\n"
        f"link = 'https://example.org/1'\nexpires = {expires}\n"
    )


TOMORROW = datetime.date.today() + datetime.timedelta(days=1)
LONG_AGO = datetime.date(2020, 1, 31)


def test_gate_blocks_an_introduced_fault_and_says_so_everywhere(project: Project) -> None:
    """Twice on one commit: in this process, and as the command in a job of GitHub's."""
    project.begin(norm=NORM)
    project.repository.commit(norm=FAULTY)
    result = project.gate("norm.py", seed=None)
    found = result.findings[0]
    assert result.exit_code == 1
    assert (found.kind, found.detail) == ("introduced", "base passes")
    assert found.place == Place("norm.py", LINE_OF_FAULT)
    assert (Path(".ln-fuzz/failures") / f"{found.failure}.json").is_file()
    assert [item.reason for item in result.affected] == ["norm.py:_kernel changed"]

    project.repository.write("ci/accepted.toml", accept(found.signature, LONG_AGO))
    project.repository.write("summary.md", "Before.\n")
    done = project.command(
        *("gate", "--base", "main", "--target", "norm.py", "--cases", "16", "--gpu", "none"),
        *("--workers", "1", "--device", "cpu"),
        GITHUB_ACTIONS="true",
        GITHUB_STEP_SUMMARY="summary.md",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    folder = next(p for p in Path(".ln-fuzz/gates").iterdir() if (p / "result.json").is_file())
    again = json.loads((folder / "result.json").read_text())
    assert again["exit_code"] == 1
    assert again["plan_hash"] == result.plan_hash
    kinds = [(finding["kind"], finding["signature"]) for finding in again["findings"]]
    assert kinds == [(finding.kind, finding.signature) for finding in result.findings]

    # An entry that has expired accepts nothing, and says so.
    assert any("expired on 2020-01-31" in note for note in again["notes"])
    annotation = f"::error file=norm.py,line={LINE_OF_FAULT},title=ln-fuzz gate%3A introduced"
    assert annotation in done.stdout
    assert f"replay: ln-fuzz replay {again['findings'][0]['failure']}" in done.stdout
    assert done.stdout.count("BLOCKED: ") == 1
    suites = ElementTree.parse(folder / "junit.xml").getroot()
    assert suites.get("failures") == "1"
    summary = (folder / "summary.md").read_text()
    assert "BLOCKED" in summary
    assert Path("summary.md").read_text() == "Before.\n" + summary
    assert project.work_trees() == 1


def test_gate_lets_a_fault_that_base_has_too_pass(project: Project) -> None:
    project.begin(norm=FAULTY)
    project.write(norm=renamed(FAULTY))
    result = project.gate("norm.py")
    assert result.exit_code == 0
    assert {finding.kind for finding in result.findings} == {"pre-existing"}
    found = result.findings[0]
    assert found.detail == "base fails in the same way"
    assert found.place is not None
    assert found.failure
    assert result.failed > 0


def test_gate_lets_a_harmless_change_pass_in_a_folder_of_the_repository(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("norm", "other"):
        project.write(**{f"kernels/{name}": NORM})
    project.begin()
    project.write(**{"kernels/norm": renamed(NORM)})
    monkeypatch.chdir(project.path / "kernels")
    # As a shell completes it.
    result = project.gate("./norm.py:norm", "other.py", gpus=(find_gpu("cuda:90"),))
    assert (result.exit_code, result.findings, result.errors) == (0, [], [])
    changed, untouched = result.affected
    assert (changed.target, changed.included) == ("norm.py:norm", True)
    assert changed.reason == "kernels/norm.py:_kernel changed"
    assert (untouched.target, untouched.included) == ("other.py:norm", False)
    assert untouched.reason == "none of the 2 definitions that it uses changed"
    plan = (result.out / "plan.jsonl").read_text()
    assert "norm.py:norm" in plan
    assert "other.py:norm" not in plan
    assert result.compiled is not None
    assert {kernel.target for kernel in result.compiled.kernels} == {"norm.py:norm"}
    assert not any(kernel.error for kernel in result.compiled.kernels)


def test_gate_runs_something_where_a_change_affects_nothing(project: Project) -> None:
    for_gpus = NORM.replace("@target(", '@target(devices=("cuda",), ')
    project.begin(norm=NORM, other=NORM, cuda=for_gpus)
    project.write(norm=NORM.replace("    mean =", "    # The first moment.\n    mean ="))
    project.write(cuda=renamed(for_gpus))
    result = project.gate("norm.py", "other.py", "cuda.py", cases=3)
    assert result.exit_code == 0
    assert not any(item.included for item in result.affected)
    assert any("affects no target that runs here" in note for note in result.notes)
    why = "it runs on cuda, not on cpu"
    assert result.affected[2].reason == f"{why} (cuda.py:_kernel changed)"
    assert f"cuda.py:norm: is affected, and was not run: {why}" in result.notes
    # Each target has its share of the plan, however few cases there are.
    assert (result.planned, result.executed) == (4, 4)


def test_gate_blocks_a_change_of_the_way_a_kernel_fails(project: Project) -> None:
    project.begin(norm=NORM.replace("return y", "return y.double()"))
    project.write(norm=NORM.replace("return y", "return y + 1"))
    result = project.gate("norm.py", cases=8)
    assert result.exit_code == 1
    assert {finding.kind for finding in result.findings} == {"changed signature"}
    found = result.findings[0]
    assert found.signature.startswith("norm.py:norm / values_within_bound / y / ")
    assert found.detail == "base fails otherwise: norm.py:norm / shape_and_dtype / y / single"
    assert found.place == Place("norm.py", len(NORM.splitlines()))


def test_gate_blocks_a_weakened_contract_until_it_is_accepted(project: Project) -> None:
    project.begin(norm=NORM)
    project.write(norm=ONE_PASS)
    result = project.gate("norm.py", cases=32)
    assert result.exit_code == 1
    (found,) = result.findings
    assert found.kind == "weakened contract"
    assert found.signature == "norm.py:norm / contract / arithmetic.variance"
    assert found.message.startswith("arithmetic.variance two_pass -> one_pass: ")
    assert found.detail.startswith("by base's contract head fails: y[")
    evidence = Path(".ln-fuzz/failures") / f"{found.failure}.json"
    (replayed,) = replay((evidence,))
    assert replayed.label == "FIXED (contract changed)"

    project.repository.write("ci/accepted.toml", accept(found.signature, TOMORROW))
    result = project.gate("norm.py", cases=4)
    assert result.exit_code == 0
    assert [finding.kind for finding in result.findings] == ["accepted"]
    assert "It is known." in result.findings[0].detail

    # A fault that shows by head's own contract too is none of the contract's, whatever failed by
    # base's in the same way.
    project.write(norm=ONE_PASS.replace("* w + b", "* w + b + 1.0"))
    result = project.gate("norm.py", cases=8)
    assert result.exit_code == 1
    assert {finding.kind for finding in result.findings} == {"introduced", "accepted"}


def test_gate_tells_the_rate_of_what_comes_and_goes(project: Project) -> None:
    project.begin(norm=NORM, shaky=FLAKY)
    project.write(norm=FLAKY, shaky=renamed(FLAKY))
    result = project.gate("norm.py", "shaky.py", cases=6)
    assert result.exit_code == 1
    new, old = (of_target(result, f"{name}.py:norm") for name in ("norm", "shaky"))
    assert {finding.kind for finding in new} == {"flaky"}
    assert {finding.kind for finding in old} == {"pre-existing"}
    for finding in new:
        assert " of 12 equal runs fail on head, 0 of " in finding.detail
    for finding in old:
        assert " of 12 equal runs fail on head, " in finding.detail
        assert ", 0 of " not in finding.detail


def test_gate_names_what_base_cannot_run(project: Project) -> None:
    project.begin(syntax=NORM + "\n)\n", imports="import nowhere_at_all\n" + NORM, fine=NORM)
    project.write(syntax=FAULTY, imports=FAULTY, fine=renamed(NORM), new=FAULTY)
    result = project.gate("syntax.py", "imports.py", "fine.py", "new.py", cases=48)
    assert (result.exit_code, result.errors) == (1, [])
    for name, why in (("syntax", "unmatched ')'"), ("imports", "named 'nowhere_at_all'")):
        found = of_target(result, f"{name}.py:norm")
        assert {finding.kind for finding in found} == {"base cannot run"}
        assert why in found[0].detail
        assert f"{name}.py:norm: base cannot be read: its contract is not compared" in result.notes
    assert of_target(result, "fine.py:norm") == []
    new = of_target(result, "new.py:norm")
    assert {(f.kind, f.detail) for f in new} == {("introduced", "base has no such target")}
    # Two gates on one commit have one plan, though base lies in another folder each time.
    assert not any(
        str(project.path) in item.reason or "/tmp" in item.reason for item in result.affected
    )


def test_gate_reads_no_verdict_from_a_head_that_cannot_be_imported(project: Project) -> None:
    project.begin(norm=NORM)
    project.write(norm=NORM.replace("mask = cols < n_cols", "mask = cols < "))
    result = project.gate("norm.py")
    assert (result.exit_code, result.executed) == (2, 0)
    # The target is not gone: nobody knows.
    assert result.findings == []
    (error,) = result.errors
    line = NORM.splitlines().index("    mask = cols < n_cols") + 1
    assert error.splitlines()[0] == (
        "head: target='norm.py' cannot be imported: "
        f"SyntaxError: invalid syntax (norm.py, line {line})"
    )
    assert "mask = cols < " in error
    assert "importlib" not in error
    (item,) = result.affected
    assert item.reason.startswith("head cannot be read: ")


def test_gate_blocks_a_target_that_is_gone(project: Project) -> None:
    second = NORM.split("@target")[1].replace("def norm", "def gone")
    project.begin(norm=f"{NORM}\n@target{second}")
    project.write(norm=NORM)
    result = project.gate("norm.py", cases=2)
    assert result.exit_code == 1
    (found,) = result.findings
    assert (found.kind, found.target) == ("weakened contract", "norm.py:gone")
    assert found.signature == "norm.py:gone / contract / gone"


def test_gate_blocks_a_stored_failure_that_is_back(project: Project) -> None:
    project.begin(norm=NORM, mended=FAULTY, untouched=FAULTY)
    project.write(norm=FAULTY, mended=NORM)
    paths = {
        name: store_failure(f"{name}.py:norm", project.path / "ci/regressions")
        for name in ("norm", "mended", "untouched")
    }
    broken = project.repository.write("ci/regressions/cut.json", paths["norm"].read_bytes()[:200])
    # Only what is named is compared; what is stored of others is replayed all the same.
    result = project.gate("mended.py", "norm.py", cases=2)
    stored = [finding for finding in result.findings if finding.signature.endswith(THEN)]
    assert {finding.target: (finding.kind, finding.detail) for finding in stored} == {
        "norm.py:norm": ("regression", "base passes"),
        "mended.py:norm": ("fixed", "3 of 3 runs fail on base, none on head"),
        "untouched.py:norm": ("pre-existing", "base fails in the same way"),
    }
    assert (result.exit_code, result.regressions) == (2, 3)
    (error,) = result.errors
    assert error.startswith("cannot be replayed: ci/regressions/cut.json: not valid JSON")

    for path in (broken, paths["mended"], paths["untouched"]):
        path.unlink()
    result = project.gate("norm.py", cases=2)
    assert result.exit_code == 1
    assert "regression" in {finding.kind for finding in result.findings}


@pytest.mark.parametrize("moment", ["reading the targets", "runner on cpu"])
def test_gate_that_is_interrupted_leaves_reports_and_no_work_tree(
    project: Project, moment: str
) -> None:
    project.begin(norm=NORM)
    project.write(norm=FAULTY)
    gate = project.begin_command(
        *("gate", "--base", "main", "--target", "norm.py", "--cases", "4000", "--gpu", "none"),
        *("--workers", "1", "--device", "cpu"),
    )
    assert gate.stdout is not None
    said = ""
    for line in gate.stdout:
        said += line
        # In a campaign: once there is a failure, which is then shrunk.
        if moment in said and (moment.startswith("reading") or "FAIL " in said):
            gate.send_signal(signal.SIGINT)
            break
    said += gate.communicate(timeout=60)[0]
    assert gate.returncode == 2, said
    assert said.splitlines()[-1].startswith("NO VERDICT: interrupted"), said
    (folder,) = Path(".ln-fuzz/gates").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert (result["exit_code"], result["errors"]) == (2, ["interrupted"])
    assert {path.name for path in folder.iterdir()} >= {"junit.xml", "summary.md"}
    assert ("was not run on base" in str(result["notes"])) == (moment == "runner on cpu")
    assert project.work_trees() == 1


def test_gate_refuses_what_it_could_not_compare(project: Project, tmp_path: Path) -> None:
    project.begin(norm=NORM)
    with pytest.raises(UsageError, match="must be named from the current folder"):
        project.gate(str(project.path / "norm.py"))
    result = project.gate("nowhere.py", cases=2)
    assert result.exit_code == 2
    assert "target='nowhere.py', must be a file: it does not exist" in result.errors[0]


def test_gate_without_targets_of_the_repository_is_no_verdict(project: Project) -> None:
    """Who forgets to name kernels must not be told that they are fine."""
    project.begin(norm=NORM)
    project.write(norm=FAULTY)
    result = project.gate()
    assert (result.exit_code, result.executed) == (2, 0)
    assert "name your kernels with --target" in result.errors[0]
