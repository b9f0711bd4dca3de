"""Reports of compute-sanitizer are read in every form, and charged to the right case, run and line.

The program here is a fake that reports what the kernels ask for, in the format of the real one.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz import checks, store
from fuzz.campaign import CampaignResult, run
from fuzz.case import Case
from fuzz.checks import sanitizer_of, signature
from fuzz.inputs import make_values
from fuzz.jobs.setup import Settings, Setup, UsageError, prepare
from fuzz.process.kernel_process import (
    UNDER_SANITIZER,
    KernelProcess,
    KernelProcessError,
    Outcome,
)
from fuzz.process.limits import LIMITS, Limits
from fuzz.process.sanitizer import (
    PROGRAM,
    TOOLS,
    Log,
    Sanitizer,
    SanitizerError,
    charged,
    find_program,
    parse,
)
from fuzz.relations import expand
from fuzz.replay import replay
from fuzz.runner import Runner
from fuzz.store import Failure
from fuzz.verdict import ErrorInfo, Finding, Observation, Report, Signature, Storage, Verdict
from tests.fuzz.fake_backend import case_of
from tests.fuzz.fake_sanitizer import (
    BACKEND,
    MODE,
    OVER_READ,
    X,
    install,
    out_of_bounds,
    report,
    spec_of,
    unwritten_read,
)
from tests.fuzz.processes import descendants, is_alive, wait_until

ROOT = Path(__file__).resolve().parents[2]

READ_AT_20 = "memcheck Invalid __global__ read my_norm.py:20"
WRITE_AT_31 = "memcheck Invalid __global__ write my_norm.py:31"


# --- the log --------------------------------------------------------------------------------------


def only(text: str, tool: str = "memcheck") -> Report:
    log = parse(tool, text)
    assert log.troubles == []
    (found,) = log.reports.values()
    return found


def test_sanitizer_reads_an_access_out_of_bounds() -> None:
    assert only(out_of_bounds(OVER_READ, 43, thread=18)) == Report(
        "memcheck",
        "Invalid __global__ read",
        "_kernel",
        "my_norm.py:43",
        access="of 16 bytes, 161 bytes after the nearest allocation of 1024 bytes",
        by="thread (18,0,0) in block (3,0,0)",
        address=X,
    )


@pytest.mark.parametrize("size", ["1,024 bytes", "1.024 bytes", "1024 bytes", "1024"])
def test_sanitizer_reads_the_numbers_of_every_locale(size: str) -> None:
    text = out_of_bounds(OVER_READ, 43).replace("1,024 bytes", size)
    assert only(text).access.endswith("the nearest allocation of 1024 bytes")


@pytest.mark.parametrize(
    ("where", "kernel", "place"),
    [
        ("_kernel+0xec0 in my_norm.py:43", "_kernel", "my_norm.py:43"),
        ("_kernel+0xec0 in /home/a b/my_norm.py:43", "_kernel", "my_norm.py:43"),
        ("_kernel+0xec0", "_kernel", ""),
        ("_kernel():0x160 in my_norm.py:43", "_kernel", "my_norm.py:43"),
        ("0xda0 in /opt/my_norm.py:43:_kernel", "_kernel", "my_norm.py:43"),
        ("0xda0 in _kernel", "_kernel", ""),
        ("add(const float *, int)+0x80 in add.cu:9", "add", "add.cu:9"),
        ("add(float const *, int) in /input/add.cu:9", "add", "add.cu:9"),
        ("void at::fill<(int)4, float>(int, T2)+0x1f0", "at::fill", ""),
    ],
)
def test_sanitizer_reads_the_place_in_the_form_of_every_version(
    where: str, kernel: str, place: str
) -> None:
    text = out_of_bounds(OVER_READ, 1).replace("_kernel+0xec0 in my_norm.py:1", where)
    found = only(text)
    assert (found.kernel, found.place) == (kernel, place)


def test_sanitizer_names_the_kernel_and_the_line_of_the_function_inlined_into_it() -> None:
    inlined = report(
        OVER_READ,
        7,
        "Access to 0x82 is misaligned",
        "    Device Frame: _row+0x310 in rows.py:30",
        "    Device Frame: _outer+0x310 in my_norm.py:50",
    )
    found = only(inlined)
    assert (found.kernel, found.place) == ("_outer", "my_norm.py:7")
    assert found.access == "of 16 bytes, misaligned"


def test_sanitizer_joins_reports_of_one_line() -> None:
    text = "".join(out_of_bounds(OVER_READ, 20, thread=thread) for thread in range(5))
    log = parse("memcheck", text + out_of_bounds(OVER_READ, 21))
    assert [(r.place, r.count, r.by) for r in log.reports.values()] == [
        ("my_norm.py:20", 5, "thread (0,0,0) in block (3,0,0)"),
        ("my_norm.py:21", 1, "thread (0,0,0) in block (3,0,0)"),
    ]
    assert log.printed == 6


def test_sanitizer_reads_a_race() -> None:
    text = """\
========= Error: Race reported between Write access at _kernel+0x130 in my_norm.py:9
=========     and Write access at _kernel+0x130 in my_norm.py:9 [1.024 hazards]
=========     and Read access at _kernel+0x180 in my_norm.py:12 [34 hazards]
=========
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
    expected = Report(
        "racecheck",
        "Race of a write with a read and write",
        "_kernel",
        "my_norm.py:9",
        access="with my_norm.py:9, my_norm.py:12",
        count=1058,
    )
    assert only(text, "racecheck") == expected
    assert only(text.replace("Error:", "WARNING:"), "racecheck") == expected
    old = text.replace("_kernel+0x130 in my_norm.py:9", "0x00000130 in ./my_norm.py:9:_kernel")
    assert only(old.replace("Error:", "WARN:"), "racecheck") == expected


def test_sanitizer_reads_an_unwritten_element() -> None:
    found = only(unwritten_read(), "initcheck")
    assert (found.kind, found.place) == ("Uninitialized __global__ memory read", "my_norm.py:12")
    assert found.address == X + 16


def test_sanitizer_takes_what_it_does_not_know_for_a_report() -> None:
    found = only(report("Warp went astray", 5))
    assert (found.kind, found.kernel, found.place) == (
        "Warp went astray",
        "_kernel",
        "my_norm.py:5",
    )


def test_sanitizer_knows_what_is_no_report() -> None:
    text = """\
========= COMPUTE-SANITIZER
output of the program
========= Program hit cudaErrorLaunchFailure (error 719) due to "unspecified launch failure" on CUDA
=========     Saved host backtrace up to driver entry point at error
=========
========= Host API memory access error at host access to 0x1303fd1400 of size 25600 bytes
=========     Uninitialized access at 0x1303fd4600 on access by cudaMemcopy source.
=========
========= Error: process didn't terminate successfully
========= Target application returned an error
========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)
========= ERROR SUMMARY: 259 errors
========= ERROR SUMMARY: 159 errors were not printed. Use --print-limit option to adjust the number
"""
    log = parse("memcheck", text)
    assert not log.reports
    assert log.troubles == []


@pytest.mark.parametrize(
    "words",
    [
        "Error: Device not supported. Please refer to the documentation",
        "Error: No attachable process found. compute-sanitizer timed-out.",
        "Internal Sanitizer Error: The Sanitizer encountered an error while launching _kernel",
        "Warning: Detected overflow of tracked cuda::barrier structures.",
    ],
)
def test_sanitizer_that_fails_says_so(words: str) -> None:
    log = parse("memcheck", f"========= {words}\n{unwritten_read()}")
    assert log.troubles == [words]
    assert len(log.reports) == 1


def test_sanitizer_log_is_read_piece_by_piece(tmp_path: Path) -> None:
    sanitizer = Sanitizer("memcheck", "", tmp_path, settle=0.02)
    log = Log(sanitizer, 7)
    assert log.read() == ()
    path = sanitizer.log(7)
    path.write_text("========= COMPUTE-SANITIZER\n")
    assert log.read() == ()
    path.write_text(path.read_text() + out_of_bounds(OVER_READ, 20))
    assert [r.place for r in log.read_settled()] == ["my_norm.py:20"]
    assert log.read() == ()
    path.write_text(path.read_text() + out_of_bounds(OVER_READ, 30))
    assert [r.place for r in log.read()] == ["my_norm.py:30"]
    assert [r.place for r in Log(sanitizer, 7).read()] == ["my_norm.py:20", "my_norm.py:30"]


# --- what is charged ------------------------------------------------------------------------------


def test_sanitizer_report_names_the_tensor() -> None:
    found = only(out_of_bounds(OVER_READ, 20))
    storages = (Storage("weight", X - 4096, 1024), Storage("x", X, 1024))
    seen = charged(Observation("base", "ok", storages=storages), (found,))
    assert seen.reports[0].tensor == "x"


@pytest.mark.parametrize("status", ["ok", "raised", "cuda_error", "crashed"])
def test_sanitizer_memcheck_report_leaves_nothing_else_to_judge(status: str) -> None:
    before = Observation("base", status, error=ErrorInfo("A", "b"))  # type: ignore[arg-type]
    seen = charged(before, (only(out_of_bounds(OVER_READ, 20)),))
    assert (seen.status, seen.outputs, seen.key) == ("reported", {}, None)


def test_sanitizer_initcheck_report_leaves_the_outputs() -> None:
    found = only(unwritten_read(), "initcheck")
    assert charged(Observation("base", "ok", key=("k",)), (found,)).status == "ok"


def finding_of(text: str, tool: str = "memcheck") -> Finding:
    seen = charged(Observation("base", "ok"), (only(text, tool),))
    case = case_of("right")
    runs = expand(case)[:1]
    verdict = checks.judge(
        spec_of("right"), case, runs, make_values(case), (seen,), interpreted=False
    )
    return next(f for f in verdict.findings if f.check == "no_sanitizer_report")


def test_sanitizer_finding_is_told_by_tool_kind_and_line() -> None:
    found = finding_of(out_of_bounds(OVER_READ, 20, thread=18))
    assert found.message == (
        "Invalid __global__ read of 16 bytes, 161 bytes after the nearest allocation of 1024 bytes "
        "[_kernel, my_norm.py:20], first by thread (18,0,0) in block (3,0,0); 1 report of memcheck"
    )
    assert found.region == READ_AT_20
    # A vectorised load is the same fault in another width.
    narrow = finding_of(out_of_bounds(OVER_READ.replace("16", "4"), 20))
    assert narrow.region == found.region


def test_sanitizer_finding_tells_which_one_it_takes_to_replay() -> None:
    case = case_of("right")
    assert sanitizer_of(signature(case, finding_of(unwritten_read(), "initcheck"))) == "initcheck"
    assert sanitizer_of(signature(case, Finding("survived", "base", "", ""))) is None


# --- the program ----------------------------------------------------------------------------------


def test_sanitizer_absent_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match=r"compute-sanitizer, which is not on the PATH.*CUDA tool"):
        prepare(Settings(device="cuda", cases=1, sanitizer="memcheck"))


def test_sanitizer_on_a_cpu_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="sanitizer='racecheck', but device='cpu'"):
        prepare(Settings(device="cpu", cases=1, sanitizer="racecheck"))


@pytest.mark.parametrize("command", [("run",), ("replay", "failure.json")])
def test_cli_sanitizer_that_cannot_be_had_is_exit_code_2(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "failure.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", *command, "--sanitizer", "memcheck", "--device", "cuda"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("ln-fuzz: sanitizer='memcheck' needs compute-sanitizer")
    assert "CUDA toolkit" in done.stderr


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The fake program on the PATH; its mode is for the test to set."""
    monkeypatch.setenv("PATH", f"{install(tmp_path)}:{os.environ['PATH']}")
    # Processes that are started from here find the fake torch first. This one never looks.
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv(MODE, "live")
    return monkeypatch


def sanitizer_in(folder: Path, tool: str = "memcheck") -> Sanitizer:
    return Sanitizer(tool, find_program(tool, "cuda"), folder / "logs")


def started(folder: Path, tool: str = "memcheck", limits: Limits | None = None) -> KernelProcess:
    return KernelProcess(
        "cuda", backend=BACKEND, limits=limits, sanitizer=sanitizer_in(folder, tool)
    )


@pytest.fixture(params=["live", "late"])
def kernel(
    request: pytest.FixtureRequest, fake: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[KernelProcess]:
    """A kernel process whose sanitizer is proven; it reports at once, or when the process ends."""
    fake.setenv(MODE, request.param)
    fake.setattr("fuzz.process.kernel_process.CANARY_LIMIT", 0.5)
    with started(tmp_path) as process:
        assert process.prove_sanitizer().late == (request.param == "late")
        yield process


def outcome_of(kernel: KernelProcess, target: str) -> Outcome:
    case = case_of(target)
    return kernel.collect(kernel.submit(spec_of(target), case, expand(case), make_values(case)))


def judged(kernel: KernelProcess, target: str, case: Case | None = None) -> Verdict:
    return Runner(kernel).judge_one(spec_of(target), case or case_of(target))


def regions(verdict: Verdict) -> list[tuple[str, str]]:
    return [(finding.check, finding.region) for finding in verdict.findings]


def test_sanitizer_without_reports_changes_no_verdict(kernel: KernelProcess) -> None:
    assert kernel.info.name == "Fake GPU under memcheck"
    assert judged(kernel, "right").status == "pass"
    assert [check for check, _ in regions(judged(kernel, "wrong_tail"))] == ["values_within_bound"]


def test_sanitizer_reports_are_charged_to_their_lines(kernel: KernelProcess) -> None:
    verdict = judged(kernel, "over_read")
    assert regions(verdict) == [
        ("no_sanitizer_report", READ_AT_20),
        ("no_sanitizer_report", WRITE_AT_31),
    ]
    first, second = verdict.findings
    assert "allocation of 1024 bytes ('x') [_kernel, my_norm.py:20]" in first.message
    assert first.message.endswith("2 reports of memcheck")
    assert "('x')" not in second.message
    assert judged(kernel, "right").status == "pass"


def test_sanitizer_reports_are_charged_to_their_cases(kernel: KernelProcess) -> None:
    cases = [case_of("wide_over_read", cols=cols) for cols in (20, 60, 30, 41, 40)]
    results = list(Runner(kernel).judge_all(spec_of("wide_over_read"), cases))
    assert [r.verdict.status for r in results] == ["pass", "fail", "pass", "fail", "pass"]
    assert all(regions(r.verdict) in ([], [("no_sanitizer_report", READ_AT_20)]) for r in results)


def test_sanitizer_report_of_a_process_that_dies_is_charged(kernel: KernelProcess) -> None:
    assert judged(kernel, "right").status == "pass"
    assert regions(judged(kernel, "report_and_segfault")) == [("no_sanitizer_report", READ_AT_20)]
    # Not with what the case before it in the same process has to answer for.
    assert judged(kernel, "over_read").status == "fail"
    assert [check for check, _ in regions(judged(kernel, "segfault"))] == ["survived"]
    assert judged(kernel, "right").status == "pass"


def test_sanitizer_that_fails_at_a_launch_is_a_fault_of_the_harness(kernel: KernelProcess) -> None:
    (result,) = Runner(kernel).judge_all(spec_of("broken_tool"), [case_of("broken_tool")])
    assert "Internal Sanitizer Error" in result.fault
    assert judged(kernel, "right").status == "pass"


def test_sanitizer_report_is_charged_to_its_run(fake: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with started(tmp_path) as kernel:
        seen = outcome_of(kernel, "over_read").observations
        assert [(o.run, o.status, len(o.reports)) for o in seen] == [
            ("base", "ok", 0),
            ("repeat", "reported", 2),
            ("row_alone", "ok", 0),
        ]


def test_sanitizer_has_the_process_as_it_needs_it(fake: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake.setenv("TRITON_DISABLE_LINE_INFO", "1")
    with started(tmp_path) as kernel:
        seen = outcome_of(kernel, "says_environment").observations[0]
    assert seen.error is not None
    assert ast.literal_eval(seen.error.message) == ["1", None, "1"]


@pytest.mark.parametrize("tool", TOOLS)
def test_sanitizer_tools_are_all_started(
    fake: pytest.MonkeyPatch, tmp_path: Path, tool: str
) -> None:
    with started(tmp_path, tool) as kernel:
        kernel.prove_sanitizer()
        (command,) = [
            words
            for pid in descendants(os.getpid())
            if b"compute-sanitizer" in (words := Path(f"/proc/{pid}/cmdline").read_bytes())
        ]
        assert f"--tool\0{tool}\0".encode() in command
        assert regions(judged(kernel, "unwritten")) == [
            ("no_sanitizer_report", f"{tool} Uninitialized __global__ memory read my_norm.py:12")
        ]


def test_sanitizer_process_is_replaced_before_it_falls_silent(
    fake: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with started(tmp_path, "initcheck") as kernel:
        seen = [outcome_of(kernel, "many_reports").observations for _ in range(2)]
        # All runs of a case are in one process; the print limit counts from its start.
        pids = [{int(o.outputs["y"].bits[0, 0]) for o in case} for case in seen]
    assert [len(p) for p in pids] == [1, 1]
    assert pids[0] != pids[1]
    assert {o.reports[0].count for case in seen for o in case} == {6000}


def test_sanitizer_report_that_comes_too_late_is_not_lost(
    fake: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernel = started(tmp_path)
    assert judged(kernel, "slow_report", case_of("slow_report", relations=())).status == "pass"
    time.sleep(1)
    with pytest.raises(KernelProcessError, match=r"after the case in question.*my_norm\.py:12"):
        kernel.close()


def test_sanitizer_report_between_two_cases_is_not_charged_to_the_second(
    fake: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with started(tmp_path) as kernel:
        judged(kernel, "slow_report", case_of("slow_report", relations=()))
        time.sleep(1)
        with pytest.raises(KernelProcessError, match=r"after the case in question.*my_norm\.py:12"):
            try:
                verdict = judged(kernel, "right")
            except Exception as error:
                # The engine's words on a case that it cannot judge.
                raise KernelProcessError(str(error)) from error
            assert verdict.status == "skip", regions(verdict)


def test_sanitizer_that_sees_nothing_is_refused(fake: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake.setenv(MODE, "silent")
    fake.setattr("fuzz.process.kernel_process.CANARY_LIMIT", 0.5)
    with started(tmp_path) as kernel:
        with pytest.raises(
            KernelProcessError, match=r"does not report a fault.*Fake GPU"
        ) as caught:
            kernel.prove_sanitizer()
        assert caught.value.user


def test_sanitizer_that_refuses_the_device_says_so(fake: pytest.MonkeyPatch) -> None:
    fake.setenv(MODE, "refuses")
    with pytest.raises(UsageError, match="compute-sanitizer: Error: Device not supported"):
        prepare(Settings(device="cuda", cases=1, sanitizer="memcheck", backend=BACKEND))


def test_sanitizer_that_starts_nothing_says_why(fake: pytest.MonkeyPatch) -> None:
    fake.setenv(MODE, "unfit")
    with pytest.raises(UsageError, match="Target application terminated before first"):
        prepare(Settings(device="cuda", cases=1, sanitizer="memcheck", backend=BACKEND))


def test_limits_are_wider_under_a_sanitizer(fake: pytest.MonkeyPatch, tmp_path: Path) -> None:
    case = case_of("right", rows=64, cols=600)
    runs = expand(case)
    with started(tmp_path) as kernel:
        ticket = kernel.submit(spec_of("right"), case, runs, make_values(case))
        assert ticket.limit >= 4 * LIMITS["cuda"].of(runs)
        kernel.collect(ticket)
    assert UNDER_SANITIZER.per_element >= 50 * LIMITS["cuda"].per_element


# --- no process is left ---------------------------------------------------------------------------


def below(pid: int) -> list[int]:
    """All processes below one but the tracker of shared memory, and the guards of those."""
    found = [
        p
        for p in descendants(pid)
        if b"resource_tracker" not in Path(f"/proc/{p}/cmdline").read_bytes()
    ]
    groups = {str(p) for p in found}
    guards = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and groups & set(Path(f"/proc/{entry.name}/cmdline").read_bytes().decode().split("\0"))
    ]
    return [*found, *guards]


@pytest.mark.parametrize("target", ["hang", "spin"])
def test_sanitizer_process_that_hangs_is_ended_with_it(
    fake: pytest.MonkeyPatch, tmp_path: Path, target: str
) -> None:
    short = Limits(base=1.0, per_run=0.0, per_program=0.0, per_element=0.0)
    with started(tmp_path, limits=short) as kernel:
        assert judged(kernel, "right").status == "pass"
        before = below(os.getpid())
        # The program, the process between, the kernel process.
        assert len(before) >= 3
        assert regions(judged(kernel, target)) == [("survived", "timed_out TimeLimit")]
        wait_until(lambda: not any(is_alive(pid) for pid in before))
        assert judged(kernel, "right").status == "pass"
        before = below(os.getpid())
    wait_until(lambda: not any(is_alive(pid) for pid in before))


def test_sanitizer_process_does_not_outlive_its_engine(
    fake: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = f"""
import sys
from pathlib import Path
from fuzz.process.kernel_process import KernelProcess
from fuzz.process.sanitizer import Sanitizer, find_program
from fuzz.runner import Runner
from tests.fuzz.fake_backend import case_of
from tests.fuzz.fake_sanitizer import BACKEND, spec_of
if __name__ == "__main__":
    sanitizer = Sanitizer("memcheck", find_program("memcheck", "cuda"), Path({str(tmp_path)!r}))
    with KernelProcess("cuda", backend=BACKEND, sanitizer=sanitizer) as kernel:
        print(Runner(kernel).judge_one(spec_of("right"), case_of("right")).status, flush=True)
        Runner(kernel).judge_one(spec_of("spin"), case_of("spin"))
"""
    script = tmp_path / "engine.py"
    script.write_text(program)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    engine = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert engine.stdout is not None
        assert engine.stdout.readline() == "pass\n"
        time.sleep(0.5)
        processes = below(engine.pid)
        assert len(processes) >= 3
    finally:
        engine.send_signal(signal.SIGKILL)
        engine.communicate()
    wait_until(lambda: not any(is_alive(pid) for pid in processes))


# --- campaign and replay --------------------------------------------------------------------------


class Witness:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.setup: Setup | None = None
        self.errors: list[str] = []

    def started(self, setup: Setup) -> None:
        self.setup = setup

    def progress(self, result: CampaignResult) -> None:
        pass

    def failure(self, failure: Failure, path: Path) -> None:
        pass

    def error(self, text: str) -> None:
        self.errors.append(text)


def test_sanitizer_failure_of_a_campaign_replays_under_the_same_tool(
    fake: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    witness = Witness()
    settings = Settings(
        targets=("unwritten",),
        device="cuda",
        cases=6,
        seed=3,
        workers=1,
        out=tmp_path / "out",
        backend=BACKEND,
        sanitizer="initcheck",
    )
    result = run(settings, witness)
    assert (result.exit_code, result.totals.failed, witness.errors) == (1, 6, [])
    ((failure, path),) = result.failures
    region = "initcheck Uninitialized __global__ memory read my_norm.py:12"
    assert failure.signature == Signature("unwritten", "", "no_sanitizer_report", "single", region)
    assert failure.confirmed == failure.confirm_runs == 3
    assert failure.device_name == "Fake GPU under initcheck"
    # The logs are kept with the journal.
    assert list(result.run_folder.glob("initcheck-0/*.log"))

    (again,) = replay((path,), backend=BACKEND)
    assert (again.outcome, again.detail) == ("REPRODUCED", "3 of 3")
    (other,) = replay((path,), backend=BACKEND, sanitizer="racecheck")
    assert other.outcome == "ERROR"
    assert "report of initcheck" in other.detail
    right = store.write(replace(failure, **fixed_of(failure)), tmp_path)
    (gone,) = replay((right,), backend=BACKEND)
    assert gone.outcome == "FIXED"

    fake.setenv("PATH", "/nowhere")
    (absent,) = replay((path,), backend=BACKEND)
    assert absent.outcome == "ERROR"
    assert "not on the PATH" in absent.detail


def fixed_of(failure: Failure) -> dict[str, object]:
    """The same failure of a target that has none."""
    return {
        "case": replace(failure.case, target="right"),
        "original": replace(failure.original, target="right"),
        "contract": None,
        "signature": replace(failure.signature, target="right"),
    }


# --- the real program -----------------------------------------------------------------------------

KERNELS = "tests/faults/sanitizer_kernels.py"

PLANTED = {
    "over_read": ("memcheck", "over_read", "Invalid __global__ read"),
    "far_over_read": ("memcheck", "over_read", "Invalid __global__ read"),
    "over_write": ("memcheck", "over_write", "Invalid __global__ write"),
    "far_over_write": ("memcheck", "over_write", "Invalid __global__ write"),
    "shared_race": ("racecheck", "shared_race", "Race of a write"),
    "unwritten_scratch": ("initcheck", "unwritten_scratch", "Uninitialized __global__ memory read"),
}
"""Targets with a fault: the tool that finds it, the mark of its line, the kind of report."""


def line_of(mark: str) -> int:
    lines = (ROOT / KERNELS).read_text().splitlines()
    (number,) = (n for n, line in enumerate(lines, 1) if line.endswith(f"# {mark}"))
    return number


def test_sanitizer_kernels_compile_with_their_faults() -> None:
    program = """
import json
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from fuzz import canary
from tests.faults import sanitizer_kernels as planted

def compiled(kernel, types, **constants):
    names = kernel.arg_names
    types = {**dict(zip(names, types)), **{name: "constexpr" for name in constants}}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, types, values)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]

types = ("*bf16",) * 4 + ("*fp32", "i32", "i32", "fp32")
print(json.dumps([
    *(
        compiled(planted._kernel, types, FAULT=fault, DISTANCE=0, BLOCK=128)
        for fault in ("none", "read", "write", "scratch", "race")
    ),
    compiled(canary._share_one_cell, ("*i32",)),
    compiled(canary._write_behind, ("*fp32",)),
    compiled(canary._read_unwritten, ("*fp32", "*fp32")),
]))
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sound, *faulty = json.loads(done.stdout)
    marks = ("over_read", "over_write", "unwritten_scratch", "shared_race")
    for mark, code in zip(marks, faulty[: len(marks)], strict=True):
        where = f"sanitizer_kernels.py:{line_of(mark)}:"
        assert where in code
        assert where not in sound
    race, write, read = faulty[len(marks) :]
    assert "st.volatile.shared" in race
    assert "st.global" in write
    assert "ld.global" in read


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"needs {PROGRAM}")
@pytest.mark.parametrize("tool", TOOLS)
def test_sanitizer_finds_what_is_planted_and_nothing_else(tmp_path: Path, tool: str) -> None:
    names = ["sound", *(name for name, (by, _, _) in PLANTED.items() if by == tool)]
    targets = [word for name in names for word in ("--target", f"{KERNELS}:{name}")]
    limits = ("--cases", str(4 * len(names)), "--workers", "2", "--seed", "7")
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "fuzz", "run", "--device", "cuda", "--sanitizer", tool]
    done = subprocess.run(
        [*command, *targets, *limits, "--out", str(tmp_path), "--json", str(result)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = {failure["signature"] for failure in json.loads(result.read_text())["failures"]}
    # For half and for single precision.
    told = {signature.replace(" / half", "").replace(" / single", "") for signature in found}
    places = {
        name: f"{tool} {kind}{{}} sanitizer_kernels.py:{line_of(mark)}"
        for name, (_, mark, kind) in PLANTED.items()
        if name in names
    }
    for name, place in places.items():
        head, tail = place.split("{}")
        mine = [t for t in told if t.startswith(f"{KERNELS}:{name} / no_sanitizer_report / ")]
        assert mine, told
        assert all(f" / {head}" in text and text.endswith(tail) for text in mine), told
    assert not [t for t in told if f"{KERNELS}:sound" in t]


def test_sanitizer_given_to_replay_is_for_other_failures(
    fake: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SanitizerError, match="device='cpu'"):
        list(replay((), device="cpu", sanitizer="memcheck"))
