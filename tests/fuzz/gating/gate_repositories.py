"""Repositories with a kernel that a test changes, and gates over them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz import gate
from fuzz.case import Launch
from fuzz.compiling.gpus import Gpu
from fuzz.gate import GateSettings
from fuzz.gating.outcome import GateFinding, GateResult
from fuzz.inputs import digest, make_values
from fuzz.spec import ArgSpec, LaunchSpace, OutputSpec, TargetSpec
from fuzz.store import Failure, write
from fuzz.verdict import Finding, Signature
from oracle.arithmetic import Arithmetic
from tests.fuzz.builders import make_case
from tests.fuzz.gating.repositories import Repository, make_repository, no_machine_settings

ROOT = Path(__file__).resolve().parents[3]

NORM = '''
import os

import torch
import triton
import triton.language as tl

from fuzz.targets import target


@triton.jit
def _kernel(x_ptr, w_ptr, b_ptr, y_ptr, n_cols, eps, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * n_cols
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x = tl.load(x_ptr + start + cols, mask=mask, other=0.0)
    mean = tl.sum(x) / n_cols
    centred = tl.where(mask, x - mean, 0.0)
    variance = tl.sum(centred * centred) / n_cols
    w = tl.load(w_ptr + cols, mask=mask, other=0.0)
    b = tl.load(b_ptr + cols, mask=mask, other=0.0)
    y = centred * (1.0 / tl.sqrt(variance + eps)) * w + b
    tl.store(y_ptr + start + cols, y, mask=mask)


@target(dtypes=("float32",), blocks=(8, 16), whole_row=True, num_warps=(1,), max_cols=16)
def norm(x, weight, bias, *, eps, block, num_warps):
    """Layer norm of narrow rows"""
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    n_rows = x.numel() // n_cols
    _kernel[(n_rows,)](x, weight, bias, y, n_cols, eps, BLOCK=block, num_warps=num_warps)
    return y
'''
"""A correct kernel, as small as one can be: 16 columns, one dtype, launches that take 2 ms."""

_MASKED = "    centred = tl.where(mask, x - mean, 0.0)"
LINE_OF_FAULT = NORM.splitlines().index(_MASKED) + 1

FAULTY = NORM.replace(_MASKED, "    centred = x - mean")
"""Lanes behind the row's end have a part in its variance."""

ONE_PASS = (
    NORM.replace("tl.sum(centred * centred) / n_cols", "tl.sum(x * x) / n_cols - mean * mean")
    .replace("import os", "from oracle.arithmetic import Arithmetic")
    .replace("@target(", '@target(arithmetic=Arithmetic(variance="one_pass"), ')
)
"""Its variance cancels where the mean is large, and it says so."""

FLAKY = NORM.replace(
    "    return y",
    """    global calls
    calls += 1
    return y + 1 if calls % PERIOD == 0 else y


calls = 0
PERIOD = 5""",
)
"""Goes wrong in every fifth call. A case makes two to four: equal runs of it do not agree."""


def renamed(kernel: str) -> str:
    """The same kernel in other words."""
    return kernel.replace("centred", "offsets")


SPEC = TargetSpec(
    "norm",
    args=(ArgSpec("x"), ArgSpec("weight", shape="cols"), ArgSpec("bias", shape="cols")),
    outputs=(OutputSpec("y"),),
    arithmetic=Arithmetic(),
    launch=LaunchSpace(blocks=(8, 16), num_warps=(1,), whole_row=True),
)


def store_failure(target: str, folder: Path) -> Path:
    """A failure of FAULTY as an earlier version of the file has it: in another place of y."""
    case = replace(make_case(SPEC, (1, 3)), target=target, launch=Launch(8, 1))
    where = Signature(target, "y", "values_within_bound", "single", THEN)
    failure = Failure(
        signature=where,
        case=case,
        original=case,
        inputs_digest=digest(make_values(case)),
        findings=(Finding("values_within_bound", "base", "y", "y[0, 0] was wrong", THEN),),
        device="cpu",
        device_name="Triton interpreter",
        versions={},
        first_seen="2026-01-31T00:00:00+00:00",
        confirmed=3,
        confirm_runs=3,
    )
    return write(failure, folder)


THEN = "first columns then"


class Silent:
    """Listens to a gate and says nothing."""

    def started(self, setup: object) -> None: ...
    def progress(self, result: object) -> None: ...
    def failure(self, failure: object, path: Path) -> None: ...
    def error(self, text: str) -> None: ...
    def stage(self, text: str) -> None: ...
    def step(self, text: str) -> None: ...


class Project:
    """A repository whose branch main is base; what is written later is head's change."""

    def __init__(self, repository: Repository, patch: pytest.MonkeyPatch) -> None:
        self.repository = repository
        self.path = repository.path
        self._patch = patch
        self._patch.chdir(self.path)

    def write(self, **files: str) -> None:
        for name, text in files.items():
            self.repository.write(f"{name}.py", text)

    def begin(self, **files: str) -> None:
        """Commit files to main, and go on in a branch."""
        self.repository.write(".gitignore", ".ln-fuzz\n")
        self.repository.commit(**files)
        self.repository.git("checkout", "--quiet", "-b", "change")

    def gate(
        self, *targets: str, cases: int = 16, gpus: tuple[Gpu, ...] = (), seed: int | None = 1
    ) -> GateResult:
        """A gate in this process."""
        told = GateSettings(
            base="main",
            targets=targets,
            device="cpu",
            cases=cases,
            seed=seed,
            workers=1,
            gpus=gpus,
        )
        return gate.run(told, Silent())

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The program in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "fuzz", *arguments],
            cwd=self.path,
            env=_environment(environment),
            capture_output=True,
            text=True,
            check=False,
        )

    def begin_command(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """The program in a process that is not waited for."""
        return subprocess.Popen(
            [sys.executable, "-m", "fuzz", *arguments],
            cwd=self.path,
            env=_environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def work_trees(self) -> int:
        return len(self.repository.git("worktree", "list").splitlines())


def make_project(path: Path, patch: pytest.MonkeyPatch) -> Project:
    no_machine_settings(patch)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        patch.delenv(name, raising=False)
    return Project(make_repository(path), patch)


def of_target(result: GateResult, target: str) -> list[GateFinding]:
    return [finding for finding in result.findings if finding.target == target]


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **more}
