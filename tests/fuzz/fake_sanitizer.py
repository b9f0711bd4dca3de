"""A compute-sanitizer that reports what the kernels ask it to, and kernels that ask.

What a target wants reported it writes to a file, in the format of the real tool; the fake program
copies that to its log, at once or when the process below it ends. FAKE_SANITIZER says when: "live",
"late", "silent" (never), "refuses" (with the words for a device that it does not know) or "unfit"
(it starts nothing, as an installation does that is not complete).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fuzz.relations import Run
from fuzz.spec import TargetSpec
from fuzz.verdict import Bits, Observation, Storage
from tests.fuzz import fake_backend

BACKEND = "tests.fuzz.fake_sanitizer:SanitizedBackend"

MODE = "FAKE_SANITIZER"
WANTED = "FAKE_SANITIZER_WANTED"
"""The file for what the kernels want reported."""

PROGRAM = """\
#!{python} -IS
import os, subprocess, sys, time

mode = os.environ.get("FAKE_SANITIZER", "live")
words = sys.argv[1:]
options = {{}}
while words and words[0].startswith("--"):
    options[words[0]] = words[1]
    words = words[2:]
known = {{
    "--tool", "--log-file", "--target-processes", "--show-backtrace", "--print-limit",
    "--launch-timeout", "--require-cuda-init", "--destroy-on-device-error", "--report-api-errors",
    "--padding", "--racecheck-report",
}}
if options.keys() - known:
    sys.exit(f"unrecognised option {{sorted(options.keys() - known)}}")
log = options["--log-file"]
wanted = log + ".wanted"
out = open(log, "w")

def say(text):
    out.write(text)
    out.flush()

heard = open(wanted, "a+")
heard.seek(0)

def pass_on():
    said = heard.read()
    if said:
        say(said)

say("========= COMPUTE-SANITIZER\\n")
if mode == "refuses":
    say('========= Error: Device not supported. Please refer to the "Supported Devices" section '
        'of the sanitizer documentation\\n=========\\n')
if mode == "unfit":
    say("========= Error: Target application terminated before first instrumented API call\\n"
        "========= Error: couldn't find exit code.\\n")
    sys.exit(1)
environment = dict(os.environ, FAKE_SANITIZER_WANTED=wanted)
# As the real one, with a process between.
below = subprocess.Popen(
    ["/bin/sh", "-c", '"$@"; exit $?', "sh", *words], close_fds=False, env=environment
)
while below.poll() is None:
    if mode == "live":
        pass_on()
    time.sleep(0.002)
if mode in ("live", "late"):
    pass_on()
if below.returncode:
    say("========= Error: process didn't terminate successfully\\n"
        "========= Target application returned an error\\n")
say("========= ERROR SUMMARY: 1 error\\n")
sys.exit(below.returncode)
"""

TORCH = """\
from types import SimpleNamespace

cuda = SimpleNamespace(
    is_available=lambda: True, device_count=lambda: 1, get_device_name=lambda index: "Fake GPU"
)
"""


def install(folder: Path) -> Path:
    """The program, in a folder for the PATH; returns that. A fake torch with a GPU lies beside."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "compute-sanitizer"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    (folder / "torch.py").write_text(TORCH)
    return folder / "bin"


X = 0x7F0000000800
"""Where the targets have the memory of x, 1024 bytes."""

OVER_READ = "Invalid __global__ read of size 16 bytes"
OVER_WRITE = "Invalid __global__ write of size 4 bytes"
UNWRITTEN = "Uninitialized __global__ memory read of size 4 bytes"


def report(title: str, line: int, *details: str, thread: int = 0) -> str:
    """A report of one access, as the version of CUDA 13 prints it."""
    lines = [
        title,
        f"    at _kernel+0xec0 in my_norm.py:{line}",
        f"    by thread ({thread},0,0) in block (3,0,0)",
        *(f"    {detail}" for detail in details),
        "",
    ]
    return "".join(f"========= {line}\n" for line in lines)


def out_of_bounds(title: str, line: int, *, thread: int = 0, base: int = X) -> str:
    """A report of memcheck: 161 bytes behind an allocation of 1024."""
    return report(
        title,
        line,
        f"Access to {base + 1184:#x} is out of bounds",
        f"and is 161 bytes after the nearest allocation at {base:#x} of size 1,024 bytes",
        thread=thread,
    )


def unwritten_read() -> str:
    """A report of initcheck."""
    return report(UNWRITTEN, 12, f"Address {X + 16:#x}")


def want(text: str) -> None:
    """Have the program above report something."""
    with Path(os.environ[WANTED]).open("a") as file:
        file.write(text)


def over_read(run: Run, values: dict[str, Bits]) -> Observation:
    """Reports two threads at one line and one at another, in the second run alone."""
    if run.name == "repeat":
        threads = [out_of_bounds(OVER_READ, 20, thread=thread) for thread in (18, 19)]
        want("".join((*threads, out_of_bounds(OVER_WRITE, 31, base=X + 0x4000))))
    return replace(fake_backend.right(run, values), storages=(Storage("x", X, 1024),))


def wide_over_read(run: Run, values: dict[str, Bits]) -> Observation:
    """Reports cases of more than 40 columns."""
    if run.case.n_cols > 40:
        want(out_of_bounds(OVER_READ, 20))
    return fake_backend.right(run, values)


def unwritten(run: Run, values: dict[str, Bits]) -> Observation:
    """Reports a read of memory that nobody wrote, in the base run."""
    if run.name == "base":
        want(unwritten_read())
    return fake_backend.right(run, values)


def many_reports(run: Run, values: dict[str, Bits]) -> Observation:
    """Reports more than a process may have, and says in y which process it was."""
    want(unwritten_read() * 6000)
    return fake_backend.process_id(run, values)


def slow_report(run: Run, values: dict[str, Bits]) -> Observation:
    """Reports long after it has returned."""
    if os.fork() == 0:
        time.sleep(0.6)
        want(unwritten_read())
        os._exit(0)
    return fake_backend.right(run, values)


def report_and_segfault(run: Run, values: dict[str, Bits]) -> Observation:
    """Reports, and dies of it, as a process does that frees memory of a lost context."""
    want(out_of_bounds(OVER_READ, 20))
    return fake_backend.segfault(run, values)


def broken_tool(run: Run, values: dict[str, Bits]) -> Observation:
    """The tool fails at the launch."""
    want(
        "========= Internal Sanitizer Error: The Sanitizer encountered an error while launching "
        "_kernel and didn't track the launch. Errors might go undetected.\n"
    )
    return fake_backend.right(run, values)


def says_environment(run: Run, values: dict[str, Bits]) -> Observation:
    """Says what it is told by its environment."""
    names = ("PYTORCH_NO_CUDA_MEMORY_CACHING", "TRITON_DISABLE_LINE_INFO", "OMP_NUM_THREADS")
    error = fake_backend.ErrorInfo("Environment", repr([os.environ.get(name) for name in names]))
    return Observation(run.name, "raised", error=error)


TARGETS: dict[str, Callable[[Run, dict[str, Bits]], Observation]] = {
    **fake_backend.TARGETS,
    **{
        function.__name__: function
        for function in (
            over_read,
            wide_over_read,
            unwritten,
            many_reports,
            slow_report,
            report_and_segfault,
            broken_tool,
            says_environment,
        )
    },
}


def spec_of(name: str) -> TargetSpec:
    return replace(fake_backend.spec_of(name), devices=("cuda",))


class SanitizedBackend(fake_backend.FakeBackend):
    """Answers for the targets above."""

    def __init__(self, device: str, sanitizer: str | None = None) -> None:
        super().__init__(device)

    def specs(self, name: str) -> tuple[TargetSpec, ...]:
        return (spec_of(name),)

    def run(self, target: str, run: Run, values: dict[str, Bits]) -> Observation:
        return TARGETS[target](run, values)

    def show_canary(self, tool: str) -> None:
        want(out_of_bounds(OVER_WRITE, 1))
