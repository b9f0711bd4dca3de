"""Stored failures run again: are they still there?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fuzz.inputs import digest, make_values
from fuzz.jobs.failures import Confirmation, confirm, repeat, signatures, target_file
from fuzz.process.kernel_process import TORCH_BACKEND, KernelProcess, KernelProcessError
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
    paths: tuple[Path, ...], *, device: str | None = None, backend: str = TORCH_BACKEND
) -> Iterator[Replayed]:
    """Replay files one after the other, each on the device it was found on or on ``device``.

    One kernel process serves all files of a device, but what fails in it must fail in a fresh one.
    """
    with ExitStack() as stack:
        benches: dict[str, _Bench] = {}

        def bench_for(wanted: str) -> _Bench:
            if wanted not in benches:
                kernel = stack.enter_context(KernelProcess(wanted, backend=backend))
                benches[wanted] = _Bench(Runner(kernel))
            return benches[wanted]

        for path in paths:
            yield _replay_one(path, device, bench_for)


def _replay_one(path: Path, device: str | None, bench_for: Callable[[str], _Bench]) -> Replayed:
    try:
        failure = read(path)
    except StoreError as error:
        return Replayed(path, "ERROR", str(error))
    try:
        bench = bench_for(device or failure.device)
        seen = _run(failure, bench)
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
