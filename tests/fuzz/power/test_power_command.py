"""ln-fuzz power as a command, with real kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CATALOGUE = ROOT / "tests" / "faults" / "catalogue.py"


def ln_fuzz(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fuzz", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_command_measures_planted_faults(tmp_path: Path) -> None:
    # One in the project's own kernels, one in a kernel of a file.
    faults = ["--faults", str(CATALOGUE), "--only", "no_remask", "--only", "one_row_unwritten"]
    limits = ["--budget", "30", "--seeds", "1", "--device", "cpu", "--workers", "2", "--no-shrink"]
    judges = ["--judges", "bounds,fixed", "--expect", "--json", "power.json"]
    done = ln_fuzz(tmp_path, "power", *faults, *limits, *judges)
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads((tmp_path / "power.json").read_text())
    assert [fault["status"] for fault in data["faults"]] == ["measured", "measured"]
    assert data["total"]["bounds"]["found"] == 2
    remask = next(fault for fault in data["faults"] if fault["fault"] == "no_remask")
    # Powers of 2 have no lanes to mask.
    assert [(a["judge"], a["found"]) for a in remask["attempts"]] == [
        ("bounds", True),
        ("fixed", False),
    ]
    assert "2 of 2 faults found with every seed" in done.stdout


def test_command_says_that_there_is_no_catalogue(tmp_path: Path) -> None:
    done = ln_fuzz(tmp_path, "power", "--device", "cpu")
    assert done.returncode == 2
    assert done.stderr.startswith("ln-fuzz: faults='tests/faults/catalogue.py': no such file; ")


def test_command_checks_the_json_file_before_it_works(tmp_path: Path) -> None:
    done = ln_fuzz(tmp_path, "power", "--faults", str(CATALOGUE), "--json", "no/folder.json")
    assert done.returncode == 2 and "json='no/folder.json', must be a file" in done.stderr
