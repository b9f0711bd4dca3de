"""The import rules hold, and the linter that guards them sees each kind of breach."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("fuzz", "ln_kernels", "oracle")

# Loaded by the engine process, or before a command is even parsed. The linter forbids them to
# import torch directly; that they do not load it through others is a matter of run time.
TORCH_FREE = (
    "oracle",
    "fuzz.case",
    "fuzz.campaign",
    "fuzz.checks",
    "fuzz.cli",
    "fuzz.inputs",
    "fuzz.power.job",
    "fuzz.relations",
    "fuzz.report",
    "fuzz.runner",
    "fuzz.shrink",
    "fuzz.spec",
    "fuzz.store",
    "fuzz.strategies",
    "fuzz.verdict",
)

# Contract, module that breaks it, what it says.
BREACHES = (
    ("fuzz-layers", "fuzz/case.py", "import fuzz.strategies"),
    ("fuzz-layers", "fuzz/relations.py", "import fuzz.checks"),
    ("fuzz-layers", "fuzz/of_no_layer.py", ""),
    ("no-circles", "oracle/formats.py", "import oracle.bounds"),
    ("oracle-pure", "oracle/formats.py", "import torch"),
    ("oracle-pure", "oracle/formats.py", "import fuzz.case"),
    ("kernels-apart", "ln_kernels/rows.py", "import oracle"),
    ("kernels-by-one-door", "fuzz/strategies.py", "import ln_kernels.launch"),
    ("ray-by-one-door", "fuzz/nights/fleet.py", "import ray"),
    ("torch-by-few-doors", "fuzz/spec.py", "import torch"),
    ("torch-by-few-doors", "fuzz/spec.py", "import triton.language"),
)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the packages, free to be broken."""
    for package in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(sources: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("importlinter")
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--no-cache", "--no-logo", *arguments]
    return subprocess.run(command, cwd=sources, capture_output=True, text=True, check=False)


def test_layers_hold(sources: Path) -> None:
    result = lint_imports(sources)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("contract", "module", "line"), BREACHES)
def test_layers_breach_is_seen(sources: Path, contract: str, module: str, line: str) -> None:
    path = sources / module
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")
    result = lint_imports(sources, "--contract", contract)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout
    assert path.stem in result.stdout


@pytest.mark.parametrize("module", TORCH_FREE)
def test_layers_load_no_torch(module: str) -> None:
    program = f"import sys, {module}; print(*sorted({{'torch', 'triton'}} & sys.modules.keys()))"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
