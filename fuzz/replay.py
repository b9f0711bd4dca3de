"""Stored failures run again: are they still there?"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fuzz.case import Case
from fuzz.checks import judge, sanitizer_of
from fuzz.contract import Change, ContractError, differences
from fuzz.inputs import digest, make_values
from fuzz.jobs.failures import Confirmation, confirm, counted, repeat, signatures, target_file
from fuzz.process.kernel_process import TORCH_BACKEND, KernelProcess, KernelProcessError
from fuzz.process.sanitizer import Sanitizer, SanitizerError, find_program
from fuzz.relations import expand
from fuzz.runner import Runner, RunnerFault
from fuzz.spec import TargetSpec
from fuzz.store import Failure, StoreError, read
from fuzz.verdict import Bits, Observation, Signature, Verdict

Outcome = Literal["REPRODUCED", "FIXED", "FLAKY", "ERROR"]


@dataclass(frozen=True)
class Replayed:
    """What came of one file. ``detail`` says k of n, or why it cannot be replayed.

    ``changes``: why today's contract lets it pass, where the one that it was found by does not.
    """

    path: Path
    outcome: Outcome
    detail: str = ""
    failure: Failure | None = None
    # The mismatch as it is now, where it is still there.
    message: str = ""
    notes: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def label(self) -> str:
        """The outcome as people read it."""
        return f"{self.outcome} (contract changed)" if self.changes else self.outcome

    @property
    def is_fixed(self) -> bool:
        """Whether the fault is gone by every contract that is known."""
        return self.outcome == "FIXED" and not self.changes


def exit_code(replayed: list[Replayed]) -> int:
    """0 all are fixed, 1 some are still there, 2 some cannot be replayed.

    What passes because the contract has changed is still there: whoever means to promise less
    removes the file.
    """
    if not replayed or any(item.outcome == "ERROR" for item in replayed):
        return 2
    return 0 if all(item.is_fixed for item in replayed) else 1


class _StoredContract:
    """Judges what runs did by a contract of before, too: a witness of the runner's."""

    def __init__(self, kernel: KernelProcess) -> None:
        self._kernel = kernel
        self._contract: TargetSpec | None = None
        self.verdicts: list[Verdict] = []
        self.fault = ""

    def begin(self, contract: TargetSpec | None) -> None:
        """Judge the cases that follow by this contract; None: not at all."""
        self._contract, self.verdicts, self.fault = contract, [], ""

    def __call__(
        self,
        spec: TargetSpec,
        case: Case,
        values: dict[str, Bits],
        observations: tuple[Observation, ...],
    ) -> None:
        """Judge one case; ``fault`` says why it could not be."""
        if self._contract is None:
            return
        by_name = {run.name: run for run in expand(case)}
        runs = tuple(by_name[seen.run] for seen in observations)
        interpreted = self._kernel.interpreted
        try:
            verdict = judge(
                self._contract, case, runs, values, observations, interpreted=interpreted
            )
        except Exception as error:
            # As of any case that the tool cannot judge. It matters where today's contract is kept.
            self.fault = f"it cannot be judged by the stored contract: {error!r}"
        else:
            self.verdicts.append(verdict)


@dataclass
class _Bench:
    """A runner with its witness, and whether its kernel process has run a case of another file."""

    runner: Runner
    stored: _StoredContract
    used: bool = False


@dataclass(frozen=True)
class _Seen:
    """What runs showed: by today's contract, and by the stored one where it judges otherwise.

    ``changes`` are the differences that have a say in the verdict, ``lapsed`` says that today's
    contract owes nothing for the case: the verdicts are then the stored one's.
    """

    now: Confirmation
    then: Confirmation
    changes: tuple[Change, ...]
    lapsed: bool


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
                stored = _StoredContract(kernel)
                benches[wanted, tool] = _Bench(Runner(kernel, witness=stored), stored)
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
    except ContractError as error:
        return Replayed(path, "ERROR", f"what the target promises today: {error}", failure)
    except KernelProcessError as error:
        hint = ""
        if device is None and failure.device == "cuda" and "no GPU" in str(error):
            hint = f"; it was found on {failure.device_name}, --device cpu tries the interpreter"
        return Replayed(path, "ERROR", f"{error}{hint}", failure)
    except RunnerFault as error:
        return Replayed(path, "ERROR", f"internal error: {error}", failure)
    if isinstance(seen, str):
        return Replayed(path, "ERROR", seen, failure)
    replayed = _outcome(path, failure, seen)
    notes = _notes(failure, bench.runner.kernel.info.device)
    if seen.changes and not replayed.changes:
        notes += (f"its contract has changed since: {_told(seen.changes)}",)
    return dataclasses.replace(replayed, notes=notes)


def _run(failure: Failure, bench: _Bench) -> _Seen | str:
    """Run the case; a string says why it cannot be replayed."""
    case, runner, contract = failure.case, bench.runner, failure.contract
    specs = runner.kernel.specs(case.target)
    if len(specs) != 1:
        return f"target={case.target!r} stands for {len(specs)} targets, must be one"
    today = specs[0]
    reason = _another_test(case, today, contract) or _other_inputs(failure)
    if reason is not None:
        return reason
    lapsed = case.refusal is not None and all(r.name != case.refusal for r in today.refuses)
    if lapsed and contract is None:
        return f"refusal={case.refusal!r} is declared no longer, and it is not known what it was"
    changes: tuple[Change, ...] = ()
    if contract is not None:
        changes = tuple(change for change in differences(contract, today) if change.judged)
    bench.stored.begin(contract if changes else None)
    judged_by = contract if lapsed and contract is not None else today
    fresh, bench.used = not bench.used, True
    seen = repeat(runner, judged_by, case, failure.signature)
    if seen.failed and not fresh:
        again = confirm(runner, judged_by, case, failure.signature)
        # Seen once, it is not fixed.
        seen = again if again.failed else seen.joined(again)
    if seen.failed == 0 and bench.stored.fault:
        return bench.stored.fault
    then = counted(case, failure.signature, tuple(bench.stored.verdicts))
    return seen.skipped or _Seen(seen, then, changes, lapsed)


def _other_inputs(failure: Failure) -> str | None:
    """Why this version cannot make the inputs that the failure was found with."""
    try:
        now = digest(make_values(failure.case))
    except ValueError as error:
        return f"its inputs cannot be made: {error}"
    if now == failure.inputs_digest:
        return None
    return (
        f"inputs_digest={failure.inputs_digest!r}, but this version makes other inputs "
        f"({now!r}): it would be another test"
    )


def _another_test(case: Case, today: TargetSpec, contract: TargetSpec | None) -> str | None:
    """Why the target, called as the case says, would not do what it did."""
    given = {tensor.name for tensor in case.tensors}
    needed = {arg.name for arg in today.args if not arg.optional}
    flags = {flag.name for flag in today.flags}
    for problem, names in (
        ("takes no argument", given - {arg.name for arg in today.args}),
        ("needs an argument", needed - given),
        ("takes no flag", case.flags.keys() - flags),
        ("needs a flag", flags - case.flags.keys()),
    ):
        if names:
            listed = ", ".join(sorted(names))
            return f"the target now {problem} {listed}, unlike the case: it would be another test"
    config = case.launch.config
    if config is None:
        return None
    now = today.launch.configs[config : config + 1]
    then = now if contract is None else contract.launch.configs[config : config + 1]
    if now and now == then:
        return None
    return f"launch.config={config} stands for another configuration now: it would be another test"


def _outcome(path: Path, failure: Failure, seen: _Seen) -> Replayed:
    now = seen.now
    if seen.lapsed or now.failed == 0:
        return _passing(path, failure, seen)
    detail = f"{now.failed} of {now.runs}"
    if now.same < now.failed:
        others = {str(s) for v in now.verdicts for s in signatures(failure.case, v)} - {
            str(failure.signature)
        }
        detail += f", with another signature: {'; '.join(sorted(others))}"
    outcome: Outcome = "REPRODUCED" if now.failed == now.runs else "FLAKY"
    return Replayed(path, outcome, detail, failure, _message(failure, now))


def _message(failure: Failure, seen: Confirmation) -> str:
    """The mismatch as it is now: the one that was stored, or else the first."""
    findings = seen.findings(failure.case, failure.signature)
    return next(f.message for v in (findings, *(v.findings for v in seen.verdicts)) for f in v)


def _passing(path: Path, failure: Failure, seen: _Seen) -> Replayed:
    """The outcome where today's contract has nothing to find fault with: has the stored one?"""
    runs, then = seen.now.runs, seen.then
    passes = f"{runs} of {runs} runs {'owe nothing' if seen.lapsed else 'pass'}"
    weaker = tuple(change for change in seen.changes if change.weaker)
    if then.failed:
        changes = weaker or seen.changes
        but = f"{then.failed} of {then.runs} fail by the contract that it was found by"
        message = _message(failure, then)
    else:
        changes = tuple(change for change in weaker if _hides(change, failure.signature))
        but = "what it did is not watched any more"
        message = ""
    if not changes:
        return Replayed(path, "FIXED", f"{runs} of {runs} runs pass", failure)
    detail = f"{passes}, but {but}: {_told(changes)}"
    return Replayed(path, "FIXED", detail, failure, message, changes=changes)


_WATCHED_BY = {
    "no_out_of_bounds": ("role", "owns_storage"),
    "redzones_intact": ("role", "owns_storage"),
    "inputs_unchanged": ("role",),
    "no_conflicting_writes": ("reads_after_atomics",),
    "repeatable": ("reads_after_atomics",),
}
"""By check, the fields of a contract that decide what a run is watched for.

The kernel process goes by today's, so what it has not watched no other contract can judge.
"""


def _hides(change: Change, signature: Signature) -> bool:
    """Whether a change keeps a run from being watched for what a failure showed."""
    *place, last = change.field.split(".")
    if last not in _WATCHED_BY.get(signature.check, ()):
        return False
    return not place or signature.output in ("", place[-1])


def _told(changes: tuple[Change, ...]) -> str:
    return "; ".join(str(change) for change in changes)


def _notes(failure: Failure, device: str) -> tuple[str, ...]:
    notes = []
    if device != failure.device:
        notes.append(f"found on {failure.device} ({failure.device_name}), replayed on {device}")
    then, now = failure.target_file, target_file(failure.case.target)
    if then is not None and now is not None and then.sha256 != now.sha256:
        notes.append(f"{then.path} has changed since")
    return tuple(notes)
