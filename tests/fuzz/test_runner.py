"""A runner survives whatever its kernel process does, and charges it to the right run."""

from __future__ import annotations

import ast
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fuzz.case import Case
from fuzz.inputs import make_values
from fuzz.process import mailbox
from fuzz.process.journal import (
    Journal,
    JournalError,
    Mark,
    drop_before,
    entries_since,
    failing,
    is_written,
    journals,
)
from fuzz.process.kernel_process import KernelProcess, KernelProcessError, Outcome, Stopped
from fuzz.process.limits import LIMITS, Limits
from fuzz.process.mailbox import NOT_STARTED, Block, Outbox, OutOfSharedMemory, Slot
from fuzz.relations import expand
from fuzz.runner import PARTS, Runner, RunnerFault
from fuzz.verdict import Array, Damage, ErrorInfo, Finding, Observation, Verdict
from tests.fuzz.fake_backend import BACKEND, UNFIT_BACKEND, case_of, spec_of
from tests.fuzz.processes import abandoned_segments, descendants, is_alive, own_segments, wait_until

ROOT = Path(__file__).resolve().parents[2]
SHORT = Limits(base=1.0, per_run=0.0, per_program=0.0, per_element=0.0)


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelProcess]:
    with KernelProcess("cpu", backend=BACKEND, limits=SHORT) as process:
        assert len(own_segments()) == 4
        yield process
    assert own_segments() == []


@pytest.fixture
def runner(kernel: KernelProcess) -> Runner:
    return Runner(kernel)


def outcome_of(kernel: KernelProcess, target: str, **how: object) -> Outcome:
    case = case_of(target, **how)  # type: ignore[arg-type]
    ticket = kernel.submit(spec_of(target), case, expand(case), make_values(case))
    return kernel.collect(ticket)


def process_id(kernel: KernelProcess) -> int:
    (seen,) = outcome_of(kernel, "process_id", relations=()).observations
    return int(seen.outputs["y"].bits[0, 0])


def checks_of(runner: Runner, target: str) -> list[tuple[str, str, str]]:
    verdict = runner.judge_one(spec_of(target), case_of(target))
    return [(f.check, f.run, f.region) for f in verdict.findings]


# --- what comes back ------------------------------------------------------------------------------


def test_runner_passes_what_is_right(runner: Runner) -> None:
    verdict = runner.judge_one(spec_of("right"), case_of("right"))
    assert verdict.status == "pass"
    assert 0 < verdict.ratios["y"] < 1


def test_runner_fails_what_is_wrong(runner: Runner) -> None:
    checks = checks_of(runner, "wrong_tail")
    assert [name for name, _, _ in checks] == ["values_within_bound"]


def test_runner_gives_verdicts_in_order(runner: Runner) -> None:
    cases = [case_of("right", seed=seed) for seed in range(7)]
    results = list(runner.judge_all(spec_of("right"), cases))
    assert [r.case for r in results] == cases
    assert {r.verdict.status for r in results} == {"pass"}
    assert {key for r in results for key in r.keys} == {("n_cols 20",)}


def test_runner_divides_the_wall_time(runner: Runner) -> None:
    def slowly_drawn() -> Iterator[Case]:
        for seed in range(20):
            time.sleep(0.005)
            yield case_of("right", seed=seed)

    began = time.perf_counter()
    results = list(runner.judge_all(spec_of("right"), slowly_drawn()))
    took = time.perf_counter() - began
    seconds = [r.verdict.seconds for r in results]
    assert all(set(s) == set(PARTS) for s in seconds)
    assert 20 * 0.005 <= sum(s["draw"] for s in seconds) < took
    assert all(value >= 0 for s in seconds for value in s.values())
    assert sum(sum(s.values()) for s in seconds) == pytest.approx(took, rel=0.05, abs=2e-3)


# --- how a process can end ------------------------------------------------------------------------


def test_kernel_process_crash_costs_one_verdict(runner: Runner) -> None:
    assert checks_of(runner, "segfault") == [("survived", "base", "crashed SIGSEGV")]
    assert checks_of(runner, "right") == []


def test_kernel_process_crash_is_charged_to_the_run_in_progress(kernel: KernelProcess) -> None:
    seen = outcome_of(kernel, "segfault_in_second_run").observations
    assert [(o.run, o.status) for o in seen] == [("base", "ok"), ("repeat", "crashed")]
    assert seen[0].outputs["y"].shape == (4, 20)


def test_kernel_process_crash_behind_what_was_too_large_to_send(kernel: KernelProcess) -> None:
    # The first run's output did not fit, and is lost with the process.
    seen = outcome_of(kernel, "large_then_segfault").observations
    assert [(o.run, o.status) for o in seen] == [("repeat", "crashed")]


def test_kernel_process_crash_spares_the_case_behind_it(kernel: KernelProcess) -> None:
    bad, good = case_of("segfault"), case_of("right")
    first = kernel.submit(spec_of("segfault"), bad, expand(bad), make_values(bad))
    second = kernel.submit(spec_of("right"), good, expand(good), make_values(good))
    assert [o.status for o in kernel.collect(first).observations] == ["crashed"]
    assert [o.status for o in kernel.collect(second).observations] == ["ok"] * 3


def test_kernel_process_exit_names_its_code(runner: Runner) -> None:
    assert checks_of(runner, "leave") == [("survived", "base", "crashed exit code 3")]


@pytest.mark.parametrize("target", ["hang", "spin"])
def test_kernel_process_hang_costs_one_verdict(runner: Runner, target: str) -> None:
    began = time.monotonic()
    assert checks_of(runner, target) == [("survived", "base", "timed_out TimeLimit")]
    # The limit, and what pebble gives a process to end by itself.
    assert time.monotonic() - began < 1 + 3 + 2
    assert checks_of(runner, "right") == []


def test_kernel_process_is_replaced_after_a_cuda_error(kernel: KernelProcess) -> None:
    before = process_id(kernel)
    bad, after = case_of("cuda_error"), case_of("process_id", relations=())
    first = kernel.submit(spec_of("cuda_error"), bad, expand(bad), make_values(bad))
    # Already handed over when the error comes: it must not run in the process that is lost.
    second = kernel.submit(spec_of("process_id"), after, expand(after), make_values(after))
    assert [o.status for o in kernel.collect(first).observations] == ["cuda_error"]
    (seen,) = kernel.collect(second).observations
    assert seen.status == "ok"
    assert int(seen.outputs["y"].bits[0, 0]) != before


def test_kernel_process_survives_being_killed_idle(kernel: KernelProcess) -> None:
    os.kill(process_id(kernel), signal.SIGKILL)
    # Longer than pebble takes to notice.
    time.sleep(0.3)
    assert [o.status for o in outcome_of(kernel, "right").observations] == ["ok"] * 3


def test_kernel_process_replace_gives_a_fresh_one(kernel: KernelProcess) -> None:
    before = process_id(kernel)
    case = case_of("right")
    ticket = kernel.submit(spec_of("right"), case, expand(case), make_values(case))
    kernel.replace()
    assert [o.status for o in kernel.collect(ticket).observations] == ["ok"] * 3
    assert process_id(kernel) != before


def test_kernel_process_stops_when_told() -> None:
    stopped = False
    with KernelProcess("cpu", backend=BACKEND, stop=lambda: stopped) as kernel:
        case = case_of("spin")
        ticket = kernel.submit(spec_of("spin"), case, expand(case), make_values(case))
        while kernel._slots[ticket.index].outbox.running == NOT_STARTED:
            time.sleep(0.01)
        stopped = True
        began = time.monotonic()
        with pytest.raises(Stopped):
            kernel.collect(ticket)
    # Not the 3 s that pebble waits for a process that does not listen.
    assert time.monotonic() - began < 2


def test_kernel_process_environment_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    with KernelProcess("cpu", gpu="5", backend=BACKEND) as kernel:
        (seen,) = outcome_of(kernel, "says_environment", relations=()).observations
    assert seen.error is not None
    said = ast.literal_eval(seen.error.message)
    assert said == {"interpret": "1", "threads": "1", "gpu": "5", "torch": False}


def test_kernel_process_that_cannot_be_set_up_says_why() -> None:
    with KernelProcess("cpu", backend=UNFIT_BACKEND) as kernel:
        with pytest.raises(KernelProcessError, match="a_dependency") as caught:
            _ = kernel.info
        assert caught.value.user


def test_kernel_process_tells_a_wrong_target(kernel: KernelProcess) -> None:
    with pytest.raises(KernelProcessError, match="target='nonsense'") as caught:
        kernel.specs("nonsense")
    assert caught.value.user


def test_runner_fault_of_the_harness_is_no_verdict(runner: Runner) -> None:
    spec, case = spec_of("broken_harness"), case_of("broken_harness")
    with pytest.raises(RunnerFault, match="a fault of the harness itself"):
        runner.judge_one(spec, case)
    (result,) = runner.judge_all(spec, [case])
    assert result.verdict.status == "skip"
    assert "internal error" in result.verdict.reason
    assert "LookupError" in result.fault


def full(size: int) -> Block:
    raise OutOfSharedMemory(f"{size} bytes of shared memory needed, none left")


def test_runner_skips_a_case_that_does_not_fit(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of("right", rows=1024, cols=600)

    monkeypatch.setattr(Block, "create", full)
    (result,) = runner.judge_all(spec_of("right"), [case])
    assert result.verdict.status == "skip"
    assert "none left" in result.verdict.reason
    assert not result.fault


def test_runner_skips_a_case_whose_outputs_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    with KernelProcess("cpu", backend=BACKEND) as kernel:
        # The blocks that there are suffice for what the case should return.
        monkeypatch.setattr(Block, "create", full)
        cases = [case_of("too_large"), case_of("too_large", seed=2), case_of("too_large", seed=3)]
        results = list(Runner(kernel).judge_all(spec_of("too_large"), cases))
    assert [r.verdict.status for r in results] == ["skip"] * 3
    assert "none left" in results[0].verdict.reason


# --- shared memory --------------------------------------------------------------------------------


def test_mailbox_grows_for_a_large_case(kernel: KernelProcess) -> None:
    rows = 4096
    case = case_of("right", rows=rows, cols=200, relations=())
    values = make_values(case)
    assert values["x"].nbytes > mailbox.FIRST_SIZE
    (seen,) = kernel.collect(
        kernel.submit(spec_of("right"), case, expand(case), values)
    ).observations
    y = seen.outputs["y"].bits.view(np.float32)
    assert np.allclose(y.mean(axis=1), 0, atol=1e-5)
    assert np.allclose(y.std(axis=1), 1, atol=1e-2)


def test_mailbox_takes_outputs_that_nobody_expected(kernel: KernelProcess) -> None:
    seen = outcome_of(kernel, "too_large").observations
    assert [o.run for o in seen] == ["base", "repeat", "row_alone"]
    for observation in seen:
        assert np.array_equal(observation.outputs["y"].bits.ravel(), np.arange(1 << 20))


def test_mailbox_keeps_everything_of_an_observation() -> None:
    observation = Observation(
        "base",
        "ok",
        {
            "y": Array("bfloat16", (2, 3), np.arange(6, dtype=np.uint16).reshape(2, 3)),
            "mean": Array("float32", (), np.array(7, np.uint32), poisoned=False),
            "empty": Array("float32", (0, 5), np.zeros((0, 5), np.uint32)),
        },
        (Damage("x", "gap", 3, 4),),
        ErrorInfo("A", "b", "c"),
        ("key",),
        0.5,
    )
    slot = Slot()
    try:
        slot.outbox.clear()
        assert slot.outbox.append(observation)
        (seen,) = slot.outbox.observations()
    finally:
        slot.remove()
    for name, array in observation.outputs.items():
        assert replace(seen.outputs[name], bits=array.bits) == array
        assert seen.outputs[name].bits.dtype == array.bits.dtype
        assert np.array_equal(seen.outputs[name].bits, array.bits)
    assert replace(seen, outputs={}) == replace(observation, outputs={})


def test_mailbox_does_not_believe_a_damaged_record() -> None:
    slot = Slot()
    try:
        slot.outbox.clear()
        for name in ("base", "repeat"):
            slot.outbox.append(Observation(name, "ok"))
        data = slot.outbox.block.data
        assert len(slot.outbox.observations()) == 2
        # The second record begins behind the first, at a multiple of 64.
        first = 64 + 16 + int(data[64:72].view(np.int64)[0])
        second = -(-first // 64) * 64
        data[second + 20] ^= 0xFF
        assert [o.run for o in slot.outbox.observations()] == ["base"]
    finally:
        slot.remove()


def test_mailbox_refuses_what_the_machine_cannot_hold() -> None:
    with pytest.raises(OutOfSharedMemory, match="/dev/shm has"):
        Block.create(1 << 60)


def test_mailbox_says_when_an_outbox_is_full() -> None:
    outbox = Outbox(Block.create(4096))
    try:
        outbox.clear()
        large = Array("float32", (4096,), np.zeros(4096, np.uint32))
        assert not outbox.append(Observation("base", "ok", {"y": large}))
        assert outbox.observations() == []
    finally:
        outbox.remove()


# --- journal --------------------------------------------------------------------------------------


def test_journal_has_a_line_before_and_after_each_case(runner: Runner, tmp_path: Path) -> None:
    cases = [case_of("right", seed=1), case_of("wrong_tail", seed=2)]
    with Journal(tmp_path / "runs" / "journal.jsonl") as journal:
        journalled = Runner(runner.kernel, journal)
        for case in cases:
            list(journalled.judge_all(spec_of(case.target), [case]))
        # Read while it is open: each line must have left the process.
        lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["begin", "end"] * 2
    assert [line["id"] for line in lines[::2]] == [case.case_id for case in cases]
    assert [line["status"] for line in lines[1::2]] == ["pass", "fail"]
    assert lines[2]["case"]["target"] == "wrong_tail"
    assert lines[3]["findings"][0]["check"] == "values_within_bound"


def test_journal_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of("right")
    path = tmp_path / "journal.jsonl"

    def sizes() -> dict[str, int]:
        return {p.name: len(p.read_text().splitlines()) for p in tmp_path.glob("*.jsonl")}

    with Journal(path) as journal:
        journal.begin(case)
        monkeypatch.setattr("fuzz.process.journal.MAX_BYTES", 10 * path.stat().st_size)
        for _ in range(50):
            journal.begin(case)
        files = {f"journal.{number}.jsonl": 11 for number in range(4)}
        assert sizes() == {**files, "journal.jsonl": 7}
        assert journal.mark == Mark(4, path.stat().st_size)
        # Until it is known elsewhere, and but for the file that the last case may begin in.
        drop_before(path, Mark(1, 0))
        assert len(sizes()) == 5
        drop_before(path, journal.mark)
        assert sizes() == {"journal.3.jsonl": 11, "journal.jsonl": 7}
    with Journal(path) as journal:
        # Goes on where it was.
        assert journal.mark == Mark(4, path.stat().st_size)


def test_journal_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert not is_written(path)
    with Journal(path):
        assert is_written(path)
        with pytest.raises(ValueError, match="is being written by another process"):
            Journal(path)
    assert not is_written(path)
    with Journal(path) as journal:
        journal.begin(case_of("right"))


def test_journal_gives_back_what_was_judged(tmp_path: Path) -> None:
    case = case_of("wrong_tail")
    finding = Finding("a_check", "base", "y", "says", "tail", math.inf, (1, 2))
    verdict = Verdict(
        case.case_id,
        "fail",
        (finding,),
        "because",
        {"y": math.inf, "mean": 1 / 3},
        {"draw": 0.25},
    )
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.begin(case)
        journal.end(verdict)
        (entry,) = entries_since(journal.path, Mark())
        assert (entry.case, entry.verdict, entry.mark) == (case, verdict, journal.mark)
        assert list(failing(journal.path)) == [(case, (finding,))]


@pytest.mark.parametrize("size", [0, 3000, 1 << 30])
def test_journal_is_read_on_from_any_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    # A file for every line, one for some, one for all.
    monkeypatch.setattr("fuzz.process.journal.MAX_BYTES", size)
    # Some of them twice, some of those in a row.
    cases = [case_of("right", seed=number) for number in (1, 2, 2, 3, 1, 4, 4)]
    path = tmp_path / "journal-0.jsonl"
    marks = [Mark()]
    with Journal(path) as journal:
        for number, case in enumerate(cases):
            # As a runner does: the next case begins before the last one ends.
            journal.begin(case)
            if number:
                journal.end(Verdict(cases[number - 1].case_id, "pass", seconds={"draw": number}))
                marks.append(journal.mark)
        journal.end(Verdict(cases[-1].case_id, "pass", seconds={"draw": len(cases)}))
        marks.append(journal.mark)
        journal.begin(cases[0])
    with path.open("a") as file:
        file.write('{"event":"end","id":"')
    for number, mark in enumerate(marks):
        entries = list(entries_since(path, mark))
        assert [entry.case for entry in entries] == cases[number:]
        assert [entry.verdict.seconds["draw"] for entry in entries] == [
            *range(number + 1, len(cases) + 1)
        ]
        assert [entry.mark for entry in entries] == marks[number + 1 :]
        drop_before(path, mark)
        assert list(entries_since(path, mark)) == entries
    assert journals(tmp_path) == {0: path}


@pytest.mark.parametrize("line", ["no journal", '{"event":"end","id":"0123"}'])
def test_journal_that_cannot_be_read_says_where(tmp_path: Path, line: str) -> None:
    case = case_of("right")
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.begin(replace(case, seed=2))
        journal.end(Verdict(replace(case, seed=2).case_id, "pass"))
    with path.open("a") as file:
        file.write('{"event":"begin","format":1,"id":"0123","case":{}}\n')
        size = file.tell()
        file.write(line + "\n")
    entries = entries_since(path, Mark())
    next(entries)
    with pytest.raises(JournalError, match=rf"journal\.jsonl: byte {size}: "):
        next(entries)


def test_journal_of_a_killed_run_names_the_case_it_was_at(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    program = f"""
from pathlib import Path
from fuzz.process.journal import Journal
from fuzz.process.kernel_process import KernelProcess
from fuzz.runner import Runner
from tests.fuzz.fake_backend import BACKEND, case_of, spec_of
if __name__ == "__main__":
    with KernelProcess("cpu", backend=BACKEND) as kernel, Journal(Path({str(path)!r})) as journal:
        runner = Runner(kernel, journal)
        list(runner.judge_all(spec_of("right"), [case_of("right")]))
        list(runner.judge_all(spec_of("spin"), [case_of("spin")]))
"""
    script = tmp_path / "killed.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 30
        while not (path.exists() and path.read_text().count("begin") == 2):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # Until the kernel process is inside the case that spins in C.
        time.sleep(1)
        children = descendants(process.pid)
        assert children
    finally:
        process.kill()
        process.communicate()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["begin", "end", "begin"]
    assert lines[-1]["case"]["target"] == "spin"
    wait_until(lambda: not any(is_alive(pid) for pid in children))
    wait_until(lambda: not abandoned_segments())


def test_engine_never_imports_torch(tmp_path: Path) -> None:
    program = """
import sys
from fuzz import campaign, replay, report, cli
from fuzz.jobs import engine
from fuzz.process.kernel_process import KernelProcess
from fuzz.runner import Runner
from tests.fuzz.fake_backend import BACKEND, case_of, spec_of
if __name__ == "__main__":
    with KernelProcess("cpu", backend=BACKEND) as kernel:
        assert Runner(kernel).judge_one(spec_of("right"), case_of("right")).status == "pass"
    print(sorted({"torch", "triton", "ln_kernels"} & sys.modules.keys()))
"""
    script = tmp_path / "engine.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    # Neither a leaked segment nor an unhandled exception at the end.
    assert done.stderr == ""


def test_limits_grow_with_runs_and_size() -> None:
    small, wide = case_of("right", rows=4, cols=200), case_of("right", rows=64, cols=65537)
    for device, (shortest, longest) in {"cpu": (60, 61), "cuda": (45, 46)}.items():
        limits = LIMITS[device]
        assert shortest <= limits.of(expand(small)) <= longest
        assert limits.of(expand(wide)) > limits.of(expand(small))
    # Twenty times what the interpreter needs: 10 ms a program of that width in one block.
    assert LIMITS["cpu"].of(expand(wide)) > 20 * 0.010 * 64 * 2
