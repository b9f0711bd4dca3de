"""Each planted fault is found by name, replays, and is reported as fixed once it is out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.planted import FAULTS, ROOT, Fault, plant

# Two that show different kinds of check; the others take as long again each.
QUICK = ("no_remask", "write_past_the_end")


def ln_fuzz(
    folder: Path, *arguments: str, kernels: Path | None
) -> subprocess.CompletedProcess[str]:
    """The command in a folder of its own, with the kernels of another folder before ours."""
    paths = [str(p) for p in (kernels, ROOT) if p is not None]
    return subprocess.run(
        [sys.executable, "-m", "fuzz", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize(
    "fault",
    [pytest.param(f, marks=[] if f.id in QUICK else [pytest.mark.slow]) for f in FAULTS],
    ids=lambda fault: fault.id,
)
def test_planted_fault_is_found_reproduced_and_fixed(fault: Fault, tmp_path: Path) -> None:
    planted = plant(fault, tmp_path / "planted")
    here = tmp_path / "here"
    here.mkdir()
    limits = ("--cases", "120", "--workers", "1", "--seed", "7")
    found = ln_fuzz(
        here, "run", "--target", fault.target, *limits, "--json", "result.json", kernels=planted
    )
    assert found.returncode == 1, found.stdout + found.stderr
    failures = json.loads((here / "result.json").read_text())["failures"]
    mine = [f["file"] for f in failures if f["signature"].startswith(fault.target)]
    again = ln_fuzz(here, "replay", mine[0], kernels=planted)
    assert again.returncode == 1 and again.stdout.startswith("REPRODUCED"), again.stdout
    without = ln_fuzz(here, "replay", mine[0], kernels=None)
    assert without.returncode == 0 and without.stdout.startswith("FIXED"), without.stdout
