"""The ways in which a kernel fails by design, what each must be reported as, and who has which.

A folder holds the plan: one file for each case that has a fault, named by the case, and a line in
STRUCK for each fault that came to pass. Neither torch nor Triton is needed to read it.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from fuzz.process.kernel_worker import REPLACE_ME

BACKEND = "tests.crashes.faulty_backend:FaultyBackend"

TARGET_FILE = Path("tests/crashes/faulty_targets.py")

FOLDER = "LN_FUZZ_TEST_FAULTS"
"""The environment variable that names the plan's folder to the kernel process."""

STRUCK = "struck.jsonl"

RARE, USUAL = 1, 3
"""How often a fault is drawn beside others: one that hangs costs seconds of waiting."""


@dataclass(frozen=True)
class Fault:
    """One way to fail. ``region``, a pattern, and ``says``: of the finding that it must lead to.
    ``fatal``: the kernel process does not outlive it. ``gpu_region``: where a GPU makes something
    else of it."""

    id: str
    region: str
    says: str
    fatal: bool = True
    gpu_region: str = ""
    on_gpu_only: bool = False
    weight: int = USUAL

    def region_on(self, device: str) -> str:
        """The pattern of its finding's region on a device."""
        return self.gpu_region if device == "cuda" and self.gpu_region else self.region


def _crash(fault_id: str, name: str) -> Fault:
    return Fault(fault_id, f"crashed {name}", f"died of {name}")


def _exit(fault_id: str, code: int) -> Fault:
    return Fault(fault_id, f"crashed exit code {code}", f"ended with exit code {code}")


def _hang(fault_id: str, *, on_gpu_only: bool = False) -> Fault:
    return Fault(
        fault_id,
        "timed_out TimeLimit",
        "no answer within",
        on_gpu_only=on_gpu_only,
        weight=RARE,
    )


FAULTS = {
    fault.id: fault
    for fault in (
        _crash("segfault", "SIGSEGV"),
        _crash("segfault_in_a_thread", "SIGSEGV"),
        _crash("abort", "SIGABRT"),
        _exit("exit", 3),
        _exit("exit_quietly", 0),
        # The code by which a kernel process says that it never began a case.
        _exit("exit_as_if_unfit", REPLACE_ME),
        Fault("sys_exit", "raised SystemExit", "raised: SystemExit: 4", fatal=False),
        Fault("interrupt", "raised KeyboardInterrupt", "raised: KeyboardInterrupt"),
        _hang("python_loop"),
        _hang("c_loop"),
        Fault("memory_error", "out_of_memory MemoryError", "out of memory", fatal=False),
        Fault(
            "tensor_too_large",
            # NumPy's from the memory that is watched, torch's from any other.
            "out_of_memory (MemoryError|RuntimeError)",
            "llocate",
            fatal=False,
        ),
        # What the kernel of the machine does when memory runs out.
        _crash("oom_killed", "SIGKILL"),
        _crash("killed_from_outside", "SIGKILL"),
        Fault(
            "does_not_compile",
            # Nothing compiles in the interpreter: there it is an error of the line that runs.
            "raised ValueError",
            "range must be a power of 2",
            fatal=False,
            gpu_region="compile_error CompilationError",
        ),
        _hang("endless_kernel", on_gpu_only=True),
        Fault("illegal_address", r"cuda_error \w+", "illegal memory access", on_gpu_only=True),
        Fault("device_assert", r"cuda_error \w+", "device-side assert", on_gpu_only=True),
        Fault(
            "out_of_device_memory",
            "out_of_memory OutOfMemoryError",
            "out of memory",
            fatal=False,
            on_gpu_only=True,
        ),
        Fault(
            "too_much_shared_memory",
            "compile_error OutOfResources",
            "shared memory",
            fatal=False,
            on_gpu_only=True,
        ),
    )
}


def faults_of(device: str) -> list[Fault]:
    """The faults that can be had on a device."""
    return [f for f in FAULTS.values() if device == "cuda" or not f.on_gpu_only]


@dataclass(frozen=True)
class Planned:
    """A fault that a case has in one of its runs."""

    case_id: str
    fault: str
    run: str


@dataclass(frozen=True)
class Strike:
    """A fault that came to pass; ``at`` on the clock that all processes share."""

    planned: Planned
    at: float
    process: int


def write_plan(folder: Path, planned: Planned) -> None:
    """Have a case fail."""
    text = json.dumps({"fault": planned.fault, "run": planned.run})
    (folder / f"{planned.case_id}.json").write_text(text)


def read_plan(folder: Path, case_id: str) -> Planned | None:
    """The fault of a case, None for most."""
    try:
        data = json.loads((folder / f"{case_id}.json").read_text())
    except FileNotFoundError:
        return None
    return Planned(case_id, data["fault"], data["run"])


def note_strike(folder: Path, planned: Planned) -> None:
    """Write down that a fault is about to happen, by a single call that no crash can cut short."""
    line = {**vars(planned), "at": time.monotonic(), "process": os.getpid()}
    file = os.open(folder / STRUCK, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, (json.dumps(line) + "\n").encode())
    os.close(file)


def read_strikes(folder: Path) -> list[Strike]:
    """The faults that came to pass, in order."""
    path = folder / STRUCK
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [
        Strike(Planned(x["case_id"], x["fault"], x["run"]), x["at"], x["process"]) for x in lines
    ]
