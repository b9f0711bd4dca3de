"""A gate: may this change of the sources be merged?

Head is the work tree as it is, base the last commit that it shares with the branch it is to be
merged into. Both are asked what targets they have; what the change can affect is fuzzed on head,
and what fails there is run on base. The parts are in :mod:`fuzz.gating`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import os
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fuzz import campaign
from fuzz.campaign import CampaignResult, Listener
from fuzz.case import Case, describe
from fuzz.checks import signature
from fuzz.compiling.findings import compile_findings
from fuzz.compiling.gpus import GPUS, Gpu, failure
from fuzz.compiling.job import LIMIT, compile_cases
from fuzz.contract import differences
from fuzz.gating.accepted import ACCEPTED, Entry, apply, read
from fuzz.gating.affected import Known, affected
from fuzz.gating.changes import changed_lines
from fuzz.gating.covers import same_calls
from fuzz.gating.outcome import Affected, CompileReport, GateFinding, GateResult, Place
from fuzz.gating.places import place_of
from fuzz.gating.plan import (
    OWNERS,
    GatePlan,
    Owner,
    StoredBatches,
    Unit,
    draw_plan,
    first_cases,
    nominal_seconds,
    size_of,
)
from fuzz.gating.regressions import judge_replay, split
from fuzz.gating.sides import Side, file_of, headline
from fuzz.gating.trial import Judged, classify
from fuzz.gating.weakened import Weakened
from fuzz.gating.worktree import common_commit, head, root, work_tree
from fuzz.jobs.failures import versions
from fuzz.jobs.setup import Settings, Setup, UsageError, default_workers
from fuzz.process.journal import failing
from fuzz.process.kernel_process import KernelProcess, KernelProcessError
from fuzz.process.lifecycle import use_one_thread
from fuzz.replay import replay
from fuzz.store import OUT, REGRESSIONS, Failure
from fuzz.verdict import Signature

GATES = "gates"
"""Folder of the plans and reports, in the folder of journals and failures."""

PATIENCE = 3.0
START = 60.0
"""A plan that is not done after START seconds and PATIENCE times its nominal length is given up:
without a failure in what was run there is no verdict."""

SANITY_SHARE = 0.1
"""Of the time, where nothing is affected: the gate's word is never that of nothing run."""

MORE_CASES = 3
"""Cases beside the shrunk one that base is asked about, for each signature."""

COMPILED_CASES = 300
"""Cases of a target whose launches are looked at: far more than specialisations are compiled."""


@dataclass(frozen=True)
class GateSettings:
    """What a gate is asked for. ``seconds`` is the nominal length of its plan."""

    base: str
    targets: tuple[str, ...] = ()
    device: str = "auto"
    seconds: float = 300.0
    cases: int | None = None
    seed: int | None = None
    workers: int | None = None
    out: Path = OUT
    regressions: Path = REGRESSIONS
    accepted: Path = ACCEPTED
    gpus: tuple[Gpu, ...] = GPUS
    compile_limit: int = LIMIT


class Watcher(Listener, Protocol):
    """Who is told what a gate is at, beside what happens in its campaign."""

    def stage(self, text: str) -> None:
        """The gate has come to this."""

    def step(self, text: str) -> None:
        """Progress inside a stage: replaces what was told before."""


def run(settings: GateSettings, watcher: Watcher) -> GateResult:
    """Run a gate. What it had found is told also where it was interrupted.

    Raises: UsageError when it cannot begin.
    """
    began = time.monotonic()
    use_one_thread()
    settings = dataclasses.replace(settings, targets=tuple(map(_named, settings.targets)))
    entries = read(settings.accepted, today=datetime.date.today())
    here = Path.cwd().resolve()
    top = root(here)
    now = head(here)
    base = common_commit(settings.base, here)
    result = GateResult(
        now, base, versions=versions(), out=_new_folder(settings.out), store=settings.out
    )
    with _interruptible():
        try:
            with ExitStack() as stack:
                watcher.stage(f"reading the targets of {now} and of {base}")
                tree = stack.enter_context(work_tree(base.sha, top))
                gate = _Gate(settings, watcher, result, stack, top, tree / here.relative_to(top))
                gate.run()
        except _Interrupted:
            result.errors.append("interrupted")
        except KernelProcessError as error:
            result.errors.append(str(error))
    _accept(result, entries)
    result.seconds = time.monotonic() - began
    return result


def _named(target: str) -> str:
    """A target's name as its spec has it.

    Raises: UsageError for a file that base could not have another version of.
    """
    file = file_of(target)
    if file and Path(file).is_absolute():
        raise UsageError(f"target={target!r}, must be named from the current folder")
    return f"{Path(file).as_posix()}{target[len(file) :]}" if file else target


def _new_folder(out: Path) -> Path:
    """A folder for the plan and the reports.

    Raises: UsageError.
    """
    folder = out / GATES / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        while folder.exists():
            folder = folder.with_name(f"{folder.name}-{os.getpid()}")
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"out={str(out)!r}: {error.strerror}") from error
    return folder


class _Interrupted(BaseException):
    """Ctrl-C or SIGTERM. What else catches exceptions in general lets it through."""


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """The first signal inside ends what is being done, later ones leave the clearing up alone."""

    def end(*_: object) -> None:
        for name in before:
            signal.signal(name, signal.SIG_IGN)
        raise _Interrupted

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {name: signal.signal(name, end) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _accept(result: GateResult, entries: tuple[Entry, ...]) -> None:
    """Put the findings in order, and mark those that are accepted."""
    # A short run over targets that are not affected does not tell what has gone.
    ran = {item.target for item in result.affected if item.included}
    findings, notes = apply(
        entries,
        result.findings,
        today=datetime.date.today(),
        ran_targets=() if result.errors else ran,
    )
    result.findings = sorted(findings, key=lambda f: (not f.blocks, f.target, f.kind, f.signature))
    result.notes += notes


class _Gate:
    def __init__(
        self,
        settings: GateSettings,
        watcher: Watcher,
        result: GateResult,
        stack: ExitStack,
        top: Path,
        base_folder: Path,
    ) -> None:
        self._settings = settings
        self._watcher = watcher
        self._result = result
        self._changes = changed_lines(result.base.sha, top)
        here = Path.cwd().resolve()
        device = settings.device
        # These processes end before the work tree goes: it was on the stack before them.
        kernel = stack.enter_context(KernelProcess(device, folder=here))
        self._head = Side(kernel, here, top)
        kernel = stack.enter_context(KernelProcess(device, folder=base_folder, foreign=top))
        depth = len(here.relative_to(top).parts)
        self._base = Side(kernel, base_folder, (base_folder, *base_folder.parents)[depth])
        self._weaker = Weakened()

    def run(self) -> None:
        """All stages; a finding that is told is never taken back by a later one."""
        result, settings = self._result, self._settings
        info = self._head.kernel.info
        result.device, result.device_name = info.device, info.name
        found = self._read_targets()
        self._compare_contracts([item.target for item in found if item.included])
        result.affected = tuple(self._if_it_runs(item) for item in found)
        names = [item.target for item in result.affected if item.included]
        try:
            self._replay_regressions(names)
            runnable = tuple(name for name in names if self._head.spec(name) is not None)
            if runnable:
                self._try(runnable, settings.seconds)
            elif not result.errors:
                result.notes.append(
                    "the change affects no target that runs here: a short run over all that do"
                )
                self._try(self._able(), settings.seconds * SANITY_SHARE)
        finally:
            result.findings += self._weaker.findings(self._place_of_contract)
        if result.executed == 0 and not result.errors:
            result.errors.append("no case was run")

    def _try(self, names: tuple[str, ...], seconds: float) -> None:
        """Fuzz these targets, judge what fails, and compile what the change affects."""
        plan = self._draw(self._units(names), seconds) if names else None
        if plan is None:
            return
        known: set[Signature] = set()
        for owner in OWNERS:
            if any(unit.owner == owner for unit in plan.units):
                done = self._fuzz(plan, owner)
                if done.interrupted:
                    return
                self._check_executed(plan, owner, done)
                self._judge_failures(done, known)
                known |= {found.signature for found, _ in done.failures}
        included = {item.target for item in self._result.affected if item.included}
        if self._settings.gpus and included & set(names):
            self._compile(plan)

    # --- what is compared before anything runs ----------------------------------------------------

    def _read_targets(self) -> tuple[Affected, ...]:
        """Every target of either side, and whether the change can affect it."""
        result, head, base = self._result, self._head, self._base
        for name in self._settings.targets or self._default_targets():
            self._watcher.step(name)
            base.read(name)
            head.read(name)
            if not any(_stands_for(name, known) for side in (head, base) for known in side.known):
                self._enter_missing(name)
        head.share_errors(base)
        base.share_errors(head)
        for name, error in head.known.items():
            if isinstance(error, str):
                about = "" if (file_of(name) or name) in error else f"target={name!r}: "
                result.errors.append(f"head: {about}{headline(error)}")
        # A file's error is that of all its targets.
        result.errors = list(dict.fromkeys(result.errors))
        for name in head.names:
            why = base.known.get(name)
            if isinstance(why, str):
                result.notes.append(f"{name}: base cannot be read: its contract is not compared")
        fingerprints = [k.fingerprint for k in head.known.values() if isinstance(k, Known)]
        if fingerprints and not any(fingerprint.parts for fingerprint in fingerprints):
            result.errors.append(
                f"nothing of what would be tested ({', '.join(head.names)}) is part of the "
                f"repository {head.top}: name your kernels with --target"
            )
        return affected(base.known, head.known)

    def _default_targets(self) -> tuple[str, ...]:
        device = self._result.device
        names = self._head.defaults(device)
        try:
            names += self._base.defaults(device)
        except KernelProcessError:
            # It is told of each target that is read.
            return names
        return tuple(dict.fromkeys(names))

    def _enter_missing(self, name: str) -> None:
        """Enter the error of a target that neither side has."""
        try:
            self._head.kernel.specs(name)
        except KernelProcessError as error:
            self._head.enter_error(name, str(error))

    def _if_it_runs(self, item: Affected) -> Affected:
        """An affected target as one that is left out where it does not run on this device."""
        spec, device = self._head.spec(item.target), self._result.device
        if not item.included or spec is None or device in spec.devices:
            return item
        why = f"it runs on {', '.join(spec.devices)}, not on {device}"
        self._result.notes.append(f"{item.target}: is affected, and was not run: {why}")
        return Affected(item.target, False, f"{why} ({item.reason})")

    def _compare_contracts(self, names: Iterable[str]) -> None:
        for name in names:
            before, now = self._base.spec(name), self._head.spec(name)
            if before is None:
                continue
            if now is None:
                if name not in self._head.known:
                    self._weaker.gone(name)
                continue
            for change in differences(before, now):
                if change.weaker:
                    self._weaker.add(name, change)
                else:
                    self._result.notes.append(f"{name}: contract: {change}: {change.words}")

    def _place(self, target: str, *messages: str) -> Place | None:
        known = self._head.known.get(target)
        if not isinstance(known, Known):
            known = self._base.known.get(target)
        if not isinstance(known, Known):
            return None
        return place_of(known.fingerprint.parts, self._changes, messages)

    def _place_of_contract(self, target: str) -> Place | None:
        """Where a target is declared, if that is told apart, or else as for any finding."""
        known = self._head.known.get(target)
        if isinstance(known, Known):
            own = [p for p in known.fingerprint.parts if p.name.endswith(f":{_function(target)}")]
            if own:
                return place_of(own, self._changes, ())
        return self._place(target)

    # --- stored failures --------------------------------------------------------------------------

    def _replay_regressions(self, names: Collection[str]) -> None:
        folder, result = self._settings.regressions, self._result
        paths = tuple(sorted(folder.glob("*.json"))) if folder.is_dir() else ()
        if not paths:
            return
        self._watcher.stage(f"replaying {len(paths)} stored failures")
        paths, notes = split(paths, self._head, result.device)
        result.notes += notes
        for number, item in enumerate(replay(paths, device=result.device), start=1):
            self._watcher.step(f"{number} of {len(paths)}: {item.label} {item.path.name}")
            if item.outcome == "ERROR" or item.failure is None:
                where = "" if item.detail.startswith(str(item.path)) else f"{item.path}: "
                result.errors.append(f"cannot be replayed: {where}{item.detail}")
                continue
            result.regressions += 1
            stored = item.failure
            judged = judge_replay(
                item, stored, self._head, self._base, affected=stored.case.target in names
            )
            if judged is not None:
                result.findings.append(self._finding(stored, judged, item.message))

    # --- the plan ---------------------------------------------------------------------------------

    def _able(self) -> tuple[str, ...]:
        """The targets of head that run on this device."""
        specs = [self._head.spec(name) for name in self._head.names]
        return tuple(s.name for s in specs if s is not None and self._result.device in s.devices)

    def _units(self, names: Iterable[str]) -> tuple[Unit, ...]:
        units = []
        for name in names:
            now, before = self._head.bench.specs[name], self._base.spec(name)
            units.append(Unit(now, "head"))
            if before is None or name not in self._weaker.changes:
                continue
            if same_calls(before, now):
                units.append(Unit(before, "base"))
            else:
                self._weaker.untried.add(name)
        return tuple(units)

    def _draw(self, units: tuple[Unit, ...], seconds: float) -> GatePlan | None:
        settings, result = self._settings, self._result
        count = settings.cases or size_of(len(units), result.device, seconds)
        result.seed = self._seed(units) if settings.seed is None else settings.seed
        self._watcher.stage(f"drawing {count} cases, --seed {result.seed}")
        try:
            plan = draw_plan(
                units,
                seed=result.seed,
                cases=count,
                device=result.device,
                path=result.out / "plan.jsonl",
                progress=lambda n: self._watcher.step(f"{n} of {count}"),
            )
        except ValueError as error:
            result.errors.append(f"no cases can be drawn: {error}")
            return None
        result.plan_hash, result.planned = plan.digest, plan.cases
        return plan

    def _seed(self, units: tuple[Unit, ...]) -> int:
        """The seed of these two states of the sources: another change is tried with other cases."""
        text = repr(sorted((unit.spec.name, unit.owner) for unit in units))
        for side in (self._base, self._head):
            for name, known in sorted(side.known.items()):
                # An error's text names a temporary folder.
                digest = known.fingerprint.digest if isinstance(known, Known) else "unreadable"
                text += f"{name} {digest} "
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 10**9

    def _fuzz(self, plan: GatePlan, owner: Owner) -> CampaignResult:
        """Run what a plan has of one contract's owner, on head."""
        settings, result = self._settings, self._result
        info = self._head.kernel.info
        by = "" if owner == "head" else ", by what base promises"
        self._watcher.stage(f"running plan {plan.digest} on head{by}")
        with StoredBatches(plan, owner) as batches:
            setup = Setup(info, batches.specs, settings.workers or default_workers(info))
            told = Settings(
                device=info.device,
                cases=batches.cases,
                seconds=START + PATIENCE * nominal_seconds(batches.cases, info.device),
                seed=result.seed,
                workers=setup.workers,
                out=settings.out,
            )
            done = campaign.run_plan(told, setup, batches, self._watcher)
        totals = done.totals
        result.executed += totals.executed
        result.failed += totals.failed
        result.skipped += totals.skipped
        result.errors += done.errors + totals.faults
        if done.interrupted:
            result.errors.append("interrupted")
            self._note_uncompared(done.failures)
        elif totals.not_reached:
            # Failures are a verdict, whatever the other cases would have shown.
            where = result.notes if totals.failed else result.errors
            where.append(
                f"{totals.not_reached} of {batches.cases} cases were not reached in "
                f"{done.seconds:.0f} s: give it a smaller --cases, or more --workers"
            )
        return done

    def _check_executed(self, plan: GatePlan, owner: Owner, done: CampaignResult) -> None:
        """A target of which nothing could be run is no target that passed."""
        for name in [unit.spec.name for unit in plan.units if unit.owner == owner]:
            rows = [row for (target, _), row in done.totals.rows.items() if target == name]
            reasons: Counter[str] = sum((row.skipped for row in rows), Counter())
            if reasons and not any(row.executed for row in rows):
                self._result.errors.append(
                    f"{name}: none of {reasons.total()} cases could be run: "
                    f"{reasons.most_common(1)[0][0]}"
                )

    # --- what failed ------------------------------------------------------------------------------

    def _judge_failures(self, done: CampaignResult, told: Collection[Signature]) -> None:
        """Compare failures with base. ``told``: those that were compared before."""
        if not done.failures:
            return
        self._watcher.stage(f"running what fails on base ({self._result.base})")
        more = _more_cases(done.run_folder, {found.signature for found, _ in done.failures})
        for number, (found, _) in enumerate(done.failures):
            which = f"{number + 1} of {len(done.failures)}: {found.signature}"
            self._watcher.step(which)
            try:
                if self._weaker.excuses(found, self._head.bench) or found.signature in told:
                    continue
                judged = classify(
                    found,
                    more.get(found.signature, ()),
                    self._head.bench,
                    self._base.bench,
                    progress=functools.partial(self._watcher.step, which),
                )
            except _Interrupted:
                self._note_uncompared(done.failures[number:])
                raise
            self._result.findings.append(self._finding(found, judged, found.message))

    def _note_uncompared(self, failures: Iterable[tuple[Failure, Path]]) -> None:
        self._result.notes += [
            f"{found.signature}: fails on head, was not run on base: {path}"
            for found, path in failures
        ]

    def _finding(self, found: Failure, judged: Judged, message: str) -> GateFinding:
        return GateFinding(
            judged.kind,
            found.case.target,
            str(found.signature),
            message or found.message,
            case=describe(found.case),
            detail=judged.detail,
            failure=found.id,
            place=self._place(found.case.target, message, found.message),
        )

    # --- GPUs that are not here -------------------------------------------------------------------

    def _compile(self, plan: GatePlan) -> None:
        settings, result = self._settings, self._result
        self._watcher.stage(f"compiling for {', '.join(gpu.name for gpu in settings.gpus)}")
        cases = [
            case
            for number, unit in enumerate(plan.units)
            if unit.owner == "head"
            for case in first_cases(plan, number, COMPILED_CASES)
        ]
        now = self._compiled(cases)
        result.compiled = now
        targets = {unit.spec.name for unit in plan.units}
        suspects = {k.target for k in now.kernels if failure(k) or k.spilled_bytes}
        suspects |= {name for name in targets for e in now.errors if e.startswith(f"{name}: ")}
        known = {name for name in suspects if self._base.spec(name) is not None}
        before = CompileReport()
        if known:
            self._watcher.stage(f"compiling {', '.join(sorted(known))} of base")
            theirs = [case for case in cases if case.target in known]
            before = self._compiled(theirs, base_of=now)
        for error in now.errors:
            if error in before.errors:
                # The change has nothing to do with it.
                result.notes.append(f"compile: {error}, as on base")
            else:
                result.errors.append(f"compile: {error} (--gpu none leaves compiling out)")
        result.notes += [f"compile: base: {e}" for e in before.errors if e not in now.errors]
        result.findings += compile_findings(now, before)

    def _compiled(
        self, cases: list[Case], *, base_of: CompileReport | None = None
    ) -> CompileReport:
        """The cases compiled on head; or on base, what of head's there is to compare with."""
        concerns = [k for k in base_of.kernels if failure(k) or k.spilled_bytes] if base_of else []

        def progress(what: str, done: int, total: int) -> None:
            self._watcher.step(f"{what}: {done} of {total}")

        return compile_cases(
            cases,
            gpus=self._settings.gpus,
            limit=self._settings.compile_limit,
            workers=self._settings.workers,
            progress=progress,
            folder=self._base.folder if base_of else None,
            foreign=self._head.top if base_of else None,
            like=concerns,
        )


def _stands_for(name: str, target: str) -> bool:
    """Whether a name that was given means a target, or the file that it is in."""
    return target == name or file_of(target) == name or target == file_of(name)


def _function(target: str) -> str:
    return target.rpartition(":")[2]


def _more_cases(folder: Path, wanted: set[Signature]) -> dict[Signature, list[Case]]:
    """Some more of the cases that failed, by the way they failed in."""
    found: dict[Signature, list[Case]] = defaultdict(list)
    for path in sorted(folder.glob("journal-*.jsonl")):
        for case, findings in failing(path):
            for which in {signature(case, finding) for finding in findings} & wanted:
                if len(found[which]) < MORE_CASES:
                    found[which].append(case)
    return found
