"""Stored failures run again: are they still there?"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fuzz.checks import sanitizer_of
from fuzz.inputs import digest, make_values
from fuzz.jobs.failures import Confirmation, confirm, repeat, signatures, target_file
from fuzz.process.kernel_process import TORCH_BACKEND, KernelProcess, KernelProcessError
from fuzz.process.sanitizer import Sanitizer, SanitizerError, find_program
from fuzz.runner import Runner, RunnerFault
from fuzz.store import Failure, StoreError, read

Outcome = Literal["REPRODUCED", "FIXED", "FLAKY", "ERROR"]


@dataclass(frozen=True)
class Replayed:
    """What came of one file. ``detail`` says k of n, or why it cannot be replayed."""

    path: Path
    outcome: Outcome
    detail: str = ""
    failure: Failure | None = None
    # The mismatch as it is now, where it is still there.
    message: str = ""
    notes: tuple[str, ...] = ()


def exit_code(replayed: list[Replayed]) -> int:
    """0 all are fixed, 1 some are still there, 2 some cannot be replayed."""
    outcomes = {item.outcome for item in replayed}
    if "ERROR" in outcomes or not replayed:
        return 2
    return 1 if outcomes - {"FIXED"} else 0


@dataclass
class _Bench:
    """A runner, and whether its kernel process has run a case of another file."""

    runner: Runner
    used: bool = False


def replay(
    paths: tuple[Path, ...],
    *,
    device: str | None = None,
    sanitizer: str | None = None,
    backend: str = TORCH_BACKEND,
) -> Iterator[Replayed]:
    """Replay files one after the other, each on the device it was found on or on ``device``.

    A sanitizer's report is replayed under that sanitizer, all others under ``sanitizer``. One
    kernel process serves all files of a device, but what fails in it must fail in a fresh one.
    Raises: SanitizerError where ``sanitizer`` cannot be had.
    """
    if sanitizer is not None:
        find_program(sanitizer, device or "cuda")
    with ExitStack() as stack:
        benches: dict[tuple[str, str | None], _Bench] = {}

        def bench_for(wanted: str, tool: str | None) -> _Bench:
            if (wanted, tool) not in benches:
                kernel = stack.enter_context(_kernel(wanted, tool, backend, stack))
                if tool is not None:
                    kernel.prove_sanitizer()
                benches[wanted, tool] = _Bench(Runner(kernel))
            return benches[wanted, tool]

        for path in paths:
            yield _replay_one(path, device, sanitizer, bench_for)


def _kernel(device: str, tool: str | None, backend: str, stack: ExitStack) -> KernelProcess:
    """A kernel process, under a sanitizer whose logs go with the replay."""
    if tool is None:
        return KernelProcess(device, backend=backend)
    program = find_program(tool, device)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ln-fuzz-"))
    return KernelProcess(device, backend=backend, sanitizer=Sanitizer(tool, program, Path(folder)))


def _replay_one(
    path: Path,
    device: str | None,
    sanitizer: str | None,
    bench_for: Callable[[str, str | None], _Bench],
) -> Replayed:
    try:
        failure = read(path)
    except StoreError as error:
        return Replayed(path, "ERROR", str(error))
    found_by = sanitizer_of(failure.signature)
    if found_by is not None and sanitizer not in (None, found_by):
        reason = f"it is a report of {found_by}, which --sanitizer {sanitizer} does not make"
        return Replayed(path, "ERROR", reason, failure)
    try:
        tool = found_by or sanitizer
        bench = bench_for(device or ("cuda" if tool else failure.device), tool)
        seen = _run(failure, bench)
    except SanitizerError as error:
        return Replayed(path, "ERROR", str(error), failure)
    except KernelProcessError as error:
        hint = ""
        if device is None and failure.device == "cuda" and "no GPU" in str(error):
            hint = f"; it was found on {failure.device_name}, --device cpu tries the interpreter"
        return Replayed(path, "ERROR", f"{error}{hint}", failure)
    except RunnerFault as error:
        return Replayed(path, "ERROR", f"internal error: {error}", failure)
    if isinstance(seen, str):
        return Replayed(path, "ERROR", seen, failure)
    return dataclasses.replace(
        _outcome(path, failure, seen), notes=_notes(failure, bench.runner.kernel.info.device)
    )


def _run(failure: Failure, bench: _Bench) -> Confirmation | str:
    """Run the case; a string says why it cannot be replayed."""
    case, runner = failure.case, bench.runner
    specs = runner.kernel.specs(case.target)
    if len(specs) != 1:
        return f"target={case.target!r} stands for {len(specs)} targets, must be one"
    try:
        now = digest(make_values(case))
    except ValueError as error:
        return f"its inputs cannot be made: {error}"
    if now != failure.inputs_digest:
        return (
            f"inputs_digest={failure.inputs_digest!r}, but this version makes other inputs "
            f"({now!r}): it would be another test"
        )
    fresh, bench.used = not bench.used, True
    seen = repeat(runner, specs[0], case, failure.signature)
    if seen.failed and not fresh:
        again = confirm(runner, specs[0], case, failure.signature)
        # Seen once, it is not fixed.
        seen = again if again.failed else seen.joined(again)
    return seen.skipped or seen


def _outcome(path: Path, failure: Failure, seen: Confirmation) -> Replayed:
    findings = seen.findings(failure.case, failure.signature)
    message = findings[0].message if findings else ""
    if seen.failed == 0:
        return Replayed(path, "FIXED", f"{seen.runs} of {seen.runs} runs pass", failure)
    detail = f"{seen.failed} of {seen.runs}"
    if seen.same < seen.failed:
        others = {str(s) for v in seen.verdicts for s in signatures(failure.case, v)} - {
            str(failure.signature)
        }
        detail += f", with another signature: {'; '.join(sorted(others))}"
        message = message or next(v.findings[0].message for v in seen.verdicts if v.findings)
    outcome: Outcome = "REPRODUCED" if seen.failed == seen.runs else "FLAKY"
    return Replayed(path, outcome, detail, failure, message)


def _notes(failure: Failure, device: str) -> tuple[str, ...]:
    notes = []
    if device != failure.device:
        notes.append(f"found on {failure.device} ({failure.device_name}), replayed on {device}")
    then, now = failure.target_file, target_file(failure.case.target)
    if then is not None and now is not None and then.sha256 != now.sha256:
        notes.append(f"{then.path} has changed since")
    return tuple(notes)
