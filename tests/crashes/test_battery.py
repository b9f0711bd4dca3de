"""The battery itself: its plan can be told beforehand, and its audit misses nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuzz.case import Case
from fuzz.relations import expand
from tests.crashes.battery import Audit, audit, main, plan_faults
from tests.crashes.faults import (
    FAULTS,
    FOLDER,
    RARE,
    Planned,
    Strike,
    faults_of,
    read_plan,
    read_strikes,
    write_plan,
)
from tests.fuzz.fake_backend import case_of

ROOT = Path(__file__).resolve().parents[2]
CASES = [case_of("right", seed=seed) for seed in range(60)]


# --- the plan -------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_plan_has_every_fault_of_the_device(device: str) -> None:
    plan = plan_faults(CASES, device=device, count=40, seed=3)
    assert len({item.case_id for item in plan}) == 40
    assert {item.fault for item in plan} == {fault.id for fault in faults_of(device)}
    assert {item.run for item in plan} == {"base", "repeat", "row_alone"}
    assert plan == plan_faults(CASES, device=device, count=40, seed=3)
    assert plan != plan_faults(CASES, device=device, count=40, seed=4)


def test_plan_has_few_of_the_faults_that_cost_most() -> None:
    cases = [case_of("right", seed=seed, relations=()) for seed in range(2000)]
    counts = Counter(item.fault for item in plan_faults(cases, device="cuda", count=2000, seed=1))
    rare = [counts[fault.id] for fault in FAULTS.values() if fault.weight == RARE]
    usual = [counts[fault.id] for fault in FAULTS.values() if fault.weight != RARE]
    assert 2 * max(rare) < min(usual)


def test_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    planned = Planned("c0ffee", "abort", "repeat")
    write_plan(tmp_path, planned)
    assert read_plan(tmp_path, "c0ffee") == planned
    assert read_plan(tmp_path, "decaf") is None
    assert read_strikes(tmp_path) == []


# --- the audit ------------------------------------------------------------------------------------

BAD = CASES[1]
PLANNED = Planned(BAD.case_id, "segfault", expand(BAD)[1].name)
CRASH = {
    "check": "survived",
    "run": "repeat",
    "output": "",
    "region": "crashed SIGSEGV",
    "message": "crashed: SIGSEGV: the kernel process died of SIGSEGV",
}


def lines_of(case: Case, *findings: dict[str, Any]) -> list[dict[str, Any]]:
    end: dict[str, Any] = {"event": "end", "id": case.case_id, "status": "pass"}
    if findings:
        end |= {"status": "fail", "findings": list(findings)}
    return [{"event": "begin", "id": case.case_id}, end]


def audit_of(
    change: Callable[[list[dict[str, Any]]], object] = lambda lines: None,
    *,
    strikes: tuple[Strike, ...] = (Strike(PLANNED, 10.0, 1),),
) -> Audit:
    """The audit of three cases, of which the second has a fault, in a journal that is changed."""
    cases = CASES[:3]
    lines = [*lines_of(cases[0]), *lines_of(BAD, dict(CRASH)), *lines_of(cases[2])]
    change(lines)
    noticed = {case.case_id: 10.5 for case in cases}
    return audit(cases, [PLANNED], strikes, lines, noticed, device="cpu")


def test_audit_of_what_is_right_has_no_complaint() -> None:
    found = audit_of()
    assert found.complaints == []
    assert (found.cases, found.injected, found.charged, found.passed) == (3, 1, 1, 2)
    assert found.rows["segfault"].seconds == [0.5]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines.pop(), "its journal says begin"),
        (lambda lines: lines.__delitem__(slice(0, 2)), "its journal says nothing"),
        (lambda lines: lines.append(lines[1]), "its journal says begin end end"),
        (lambda lines: lines.append(lines_of(CASES[9])[0]), "is none of the battery's"),
        (lambda lines: lines[5].update(status="skip", reason="full", findings=[]), "skip: full"),
        (lambda lines: lines[3].update(status="pass", findings=[]), "pass with 0 findings"),
        (lambda lines: lines[3]["findings"].append(CRASH), "fail with 2 findings"),
        (lambda lines: lines[3]["findings"][0].update(run="base"), "charged as survived base"),
        (lambda lines: lines[3]["findings"][0].update(check="no"), "charged as no repeat"),
        (lambda lines: lines[3]["findings"][0].update(region="crashed SIGKILL"), "SIGKILL"),
        (lambda lines: lines[3]["findings"][0].update(message="crashed"), "SIGSEGV: crashed"),
        (
            # The case behind is charged instead.
            lambda lines: lines[5].update(status="fail", findings=[CRASH]),
            "(no fault): fail",
        ),
    ],
)
def test_audit_complains_of_a_journal_that(
    change: Callable[[list[dict[str, Any]]], object], says: str
) -> None:
    found = audit_of(change)
    (complaint,) = found.complaints
    assert says in complaint
    assert found.charged + found.passed == 2 + (CASES[9].case_id in complaint)


@pytest.mark.parametrize(
    ("strikes", "says"),
    [
        ((), "the fault never came to pass"),
        ((Strike(PLANNED, 10.0, 1), Strike(PLANNED, 10.1, 2)), "came to pass 2 times"),
        ((Strike(Planned(BAD.case_id, "abort", "repeat"), 10.0, 1),), "never came to pass"),
    ],
)
def test_audit_complains_of_faults_that_came_otherwise(
    strikes: tuple[Strike, ...], says: str
) -> None:
    found = audit_of(strikes=strikes)
    (complaint,) = found.complaints
    assert says in complaint
    assert found.charged == 0


def test_audit_complains_of_a_fault_that_nobody_planned() -> None:
    extra = Strike(Planned(CASES[0].case_id, "abort", "base"), 10.0, 1)
    (complaint,) = audit_of(strikes=(Strike(PLANNED, 10.0, 1), extra)).complaints
    assert "not planned" in complaint


# --- all of it ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_battery_charges_every_fault_to_its_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, "")
    monkeypatch.chdir(ROOT)
    sizes = ("--cases", "5000", "--faults", "200", "--seed", "1", "--workers", "2")
    assert main([*sizes, "--device", "cpu", "--out", str(tmp_path / "battery")]) == 0


# --- the faults that only a GPU can show ----------------------------------------------------------

COMPILE = """
import json
import torch
from triton.compiler.errors import CompilationError
from tests.crashes.faulty_targets import STRIKES
from tests.ln_kernels.compile_for_gpus import TARGETS, compile_calls

def compiled(name):
    return compile_calls(TARGETS[1], lambda: STRIKES[name](torch.device("cpu")))[0]

loop = compiled("endless_kernel").asm["ptx"]
try:
    compiled("does_not_compile")
    refused = ""
except CompilationError as error:
    refused = str(error)
print(json.dumps({
    # A volatile load behind the label that the loop jumps back to.
    "loops": "ld.volatile.global" in loop.partition("This Inner Loop Header")[2],
    "asserts": "__assertfail" in compiled("device_assert").asm["ptx"],
    "stores": "st.global" in compiled("illegal_address").asm["ptx"],
    "shared": compiled("too_much_shared_memory").metadata.shared,
    "refused": "power of 2" in refused,
}))
"""


def test_faulty_kernels_compile_to_what_they_are_meant_to_be(tmp_path: Path) -> None:
    triton = pytest.importorskip("triton")
    if not Path(triton.knobs.nvidia.ptxas.path).exists():
        pytest.skip("this Triton comes without ptxas")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # No GPU has more than 256 KiB of it.
    assert found.pop("shared") > 256 << 10
    assert found == dict.fromkeys(("loops", "asserts", "stores", "refused"), True)
