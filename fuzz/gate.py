"""A gate: may this change of the sources be merged?

Head is the work tree as it is, base the last commit that it shares with the branch it is to be
merged into. Both are asked what targets they have; what the change can affect is fuzzed on head,
and what fails there is run on base. The parts are in :mod:`fuzz.gating`.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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
from fuzz.gating.outcome import CompileReport, GateFinding, GateResult, Place
from fuzz.gating.places import place_of
from fuzz.gating.plan import (
    NOMINAL_RATE,
    GatePlan,
    StoredBatches,
    Unit,
    draw_plan,
    first_cases,
    size_of,
)
from fuzz.gating.sides import Side
from fuzz.gating.trial import Judged, classify
from fuzz.gating.weakened import Weakened
from fuzz.gating.worktree import common_commit, head, root, work_tree
from fuzz.jobs.failures import versions
from fuzz.jobs.setup import Settings, Setup, UsageError, default_workers
from fuzz.process.journal import failing
from fuzz.process.kernel_process import KernelProcess
from fuzz.process.lifecycle import use_one_thread
from fuzz.replay import Replayed, replay
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
    """Run a gate.

    Raises: UsageError when it cannot begin.
    """
    began = time.monotonic()
    use_one_thread()
    entries = read(settings.accepted, today=datetime.date.today())
    here = Path.cwd().resolve()
    top = root(here)
    now = head(here)
    base = common_commit(settings.base, here)
    out = settings.out / GATES / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        while out.exists():
            out = out.with_name(f"{out.name}-{os.getpid()}")
        out.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"out={str(settings.out)!r}: {error.strerror}") from error
    result = GateResult(now, base, versions=versions(), out=out, store=settings.out)
    with ExitStack() as stack:
        watcher.stage(f"reading the targets of {now} and of {base}")
        tree = stack.enter_context(work_tree(base.sha, top))
        gate = _Gate(settings, watcher, result, stack, top, tree / here.relative_to(top), entries)
        gate.run()
    result.seconds = time.monotonic() - began
    return result


class _Gate:
    def __init__(
        self,
        settings: GateSettings,
        watcher: Watcher,
        result: GateResult,
        stack: ExitStack,
        top: Path,
        base_folder: Path,
        entries: tuple[Entry, ...],
    ) -> None:
        self._settings = settings
        self._watcher = watcher
        self._result = result
        self._entries = entries
        self._changes = changed_lines(result.base.sha, top)
        here = Path.cwd().resolve()
        device = settings.device
        # These processes end before the work tree goes: it was on the stack before them.
        kernel = stack.enter_context(KernelProcess(device, folder=here))
        self._head = Side(kernel, here, top)
        kernel = stack.enter_context(KernelProcess(device, folder=base_folder, foreign=top))
        depth = len(here.relative_to(top).parts)
        self._base = Side(kernel, base_folder, (base_folder, *base_folder.parents)[depth])

    def run(self) -> None:
        """All stages; a finding that is told is never taken back by a later one."""
        result, settings = self._result, self._settings
        info = self._head.kernel.info
        result.device, result.device_name = info.device, info.name
        self._read_targets()
        names = [item.target for item in result.affected if item.included]
        weaker = self._compare_contracts(names)
        self._replay_regressions(names)
        runnable = tuple(name for name in names if self._head.spec(name) is not None)
        seconds = settings.seconds
        if not runnable and not result.errors:
            runnable = tuple(self._head.bench.specs)
            seconds *= SANITY_SHARE
            result.notes.append("the change affects no target: a short run over all of them")
        if runnable:
            plan = self._draw(self._units(runnable), seconds)
            done = self._fuzz(plan)
            self._judge_failures(done, weaker)
            if set(runnable) & set(names) and settings.gpus and not done.interrupted:
                self._compile(plan)
        result.findings += weaker.findings(self._place)
        if result.executed == 0 and not result.errors:
            result.errors.append("no case was run")
        ran = {*runnable, *names}
        findings, notes = apply(
            self._entries, result.findings, today=datetime.date.today(), ran_targets=ran
        )
        result.findings = sorted(findings, key=lambda f: (not f.blocks, f.target, f.kind))
        result.notes += notes

    # --- what is compared before anything runs ----------------------------------------------------

    def _read_targets(self) -> None:
        result = self._result
        for name in self._settings.targets or self._default_targets():
            self._watcher.step(name)
            self._base.read(name, must=False)
            self._head.read(name, must=True)
        result.errors += [f"head: {e}" for e in self._head.known.values() if isinstance(e, str)]
        result.affected = affected(self._base.known, self._head.known)

    def _default_targets(self) -> tuple[str, ...]:
        # Not what torch brings: no change of the repository affects it.
        kernel, device = self._head.kernel, self._result.device
        specs = [spec for name in kernel.names() for spec in kernel.specs(name)]
        return tuple(spec.name for spec in specs if spec.default and device in spec.devices)

    def _compare_contracts(self, names: Iterable[str]) -> Weakened:
        weaker = Weakened()
        for name in names:
            before, now = self._base.spec(name), self._head.spec(name)
            if before is None:
                continue
            if now is None:
                if name not in self._head.known:
                    weaker.gone(name)
                continue
            for change in differences(before, now):
                if change.weaker:
                    weaker.add(name, change)
                else:
                    self._result.notes.append(f"{name}: contract: {change}: {change.words}")
        return weaker

    def _place(self, target: str, *messages: str) -> Place | None:
        known = self._head.known.get(target)
        if not isinstance(known, Known):
            known = self._base.known.get(target)
        if not isinstance(known, Known):
            return None
        return place_of(known.fingerprint.parts, self._changes, messages)

    # --- stored failures --------------------------------------------------------------------------

    def _replay_regressions(self, names: Collection[str]) -> None:
        folder, result = self._settings.regressions, self._result
        paths = tuple(sorted(folder.glob("*.json"))) if folder.is_dir() else ()
        if not paths:
            return
        self._watcher.stage(f"replaying {len(paths)} stored failures")
        for number, item in enumerate(replay(paths, device=result.device), start=1):
            self._watcher.step(f"{number} of {len(paths)}: {item.label} {item.path.name}")
            result.regressions += 1
            if item.outcome == "ERROR" or item.failure is None:
                result.errors.append(f"{item.path}: cannot be replayed: {item.detail}")
                continue
            finding = self._replayed(item, item.failure, names)
            if finding is not None:
                result.findings.append(finding)

    def _replayed(
        self, item: Replayed, stored: Failure, names: Collection[str]
    ) -> GateFinding | None:
        target = stored.case.target
        if not item.is_fixed:
            judged = classify(
                stored, (), self._head.bench, self._base.bench, new=False, when_back="regression"
            )
            if item.changes and judged.kind != "pre-existing":
                # It passes for no other reason than that less is promised.
                told = "; ".join(str(change) for change in item.changes)
                judged = Judged("regression", f"passes by a changed contract alone: {told}")
            return self._finding(stored, judged, item.message)
        if target not in names:
            return None
        seen = self._base.bench.run(stored.case, stored.signature)
        if isinstance(seen, str) or not seen.failed:
            return None
        words = f"{seen.failed} of {seen.runs} runs fail on base, none on head"
        return self._finding(stored, Judged("fixed", words), stored.message)

    # --- the plan ---------------------------------------------------------------------------------

    def _units(self, names: Iterable[str]) -> tuple[Unit, ...]:
        units = []
        for name in names:
            now, before = self._head.bench.specs[name], self._base.spec(name)
            units.append(Unit(now, "head"))
            if before is not None and any(change.weaker for change in differences(before, now)):
                units.append(Unit(before, "base"))
        return tuple(units)

    def _draw(self, units: tuple[Unit, ...], seconds: float) -> GatePlan:
        settings, result = self._settings, self._result
        count = settings.cases or size_of(len(units), result.device, seconds)
        result.seed = self._seed(units) if settings.seed is None else settings.seed
        self._watcher.stage(f"drawing {count} cases, --seed {result.seed}")
        plan = draw_plan(
            units,
            seed=result.seed,
            cases=count,
            device=result.device,
            path=result.out / "plan.jsonl",
            progress=lambda n: self._watcher.step(f"{n} of {count}"),
        )
        result.plan_hash, result.planned = plan.digest, plan.cases
        return plan

    def _seed(self, units: tuple[Unit, ...]) -> int:
        """The seed of these two states of the sources: another change is tried with other cases."""
        text = repr(sorted((unit.spec.name, unit.contract) for unit in units))
        for side in (self._base, self._head):
            for name, known in sorted(side.known.items()):
                text += f"{name} {known.fingerprint.digest if isinstance(known, Known) else known}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 10**9

    def _fuzz(self, plan: GatePlan) -> CampaignResult:
        settings, result = self._settings, self._result
        info = self._head.kernel.info
        specs = tuple(unit.spec for unit in plan.units)
        setup = Setup(info, specs, settings.workers or default_workers(info))
        nominal = max(settings.seconds, plan.cases / NOMINAL_RATE[info.device])
        told = Settings(
            device=info.device,
            cases=plan.cases,
            seconds=START + PATIENCE * nominal,
            seed=result.seed,
            workers=setup.workers,
            out=settings.out,
        )
        self._watcher.stage(f"running plan {plan.digest} on head")
        with StoredBatches(plan) as batches:
            done = campaign.run_plan(told, setup, batches, self._watcher)
        totals = done.totals
        result.executed, result.failed = totals.executed, totals.failed
        result.skipped = totals.skipped
        result.errors += done.errors + totals.faults
        if done.interrupted:
            result.errors.append("interrupted")
        elif totals.not_reached:
            # Failures are a verdict, whatever the other cases would have shown.
            words = result.notes if totals.failed else result.errors
            words.append(
                f"{totals.not_reached} of {plan.cases} cases were not reached in "
                f"{done.seconds:.0f} s: give it a smaller --cases, or more --workers"
            )
        return done

    # --- what failed ------------------------------------------------------------------------------

    def _judge_failures(self, done: CampaignResult, weaker: Weakened) -> None:
        failures = [failure for failure, _ in done.failures]
        if not failures:
            return
        self._watcher.stage(f"running what fails on base ({self._result.base})")
        more = _more_cases(done.run_folder, {f.signature for f in failures})
        for number, found in enumerate(failures, start=1):
            self._watcher.step(f"{number} of {len(failures)}: {found.signature}")
            name = found.case.target
            if weaker.excuses(found, self._head.bench):
                continue
            judged = classify(
                found,
                more.get(found.signature, ()),
                self._head.bench,
                self._base.bench,
                new=name not in self._base.known,
            )
            self._result.findings.append(self._finding(found, judged, found.message))

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
        settings = self._settings
        self._watcher.stage(f"compiling for {', '.join(gpu.name for gpu in settings.gpus)}")
        cases = [
            case
            for number, unit in enumerate(plan.units)
            if unit.contract == "head"
            for case in first_cases(plan, number, COMPILED_CASES)
        ]
        now = self._compiled(cases, None)
        self._result.compiled = now
        self._result.errors += [f"compile: {error}" for error in now.errors]
        suspects = {k.target for k in now.kernels if failure(k) or k.spilled_bytes}
        if not suspects:
            return
        known = {name for name in suspects if self._base.spec(name) is not None}
        before = CompileReport()
        if known:
            self._watcher.stage(f"compiling {', '.join(sorted(known))} of base")
            theirs = [case for case in cases if case.target in known]
            before = self._compiled(theirs, self._base.folder)
        self._result.findings += compile_findings(now, before)

    def _compiled(self, cases: list[Case], folder: Path | None) -> CompileReport:
        def progress(what: str, done: int, total: int) -> None:
            self._watcher.step(f"{what}: {done} of {total}")

        return compile_cases(
            cases,
            gpus=self._settings.gpus,
            limit=self._settings.compile_limit,
            workers=self._settings.workers,
            progress=progress,
            folder=folder,
        )


def _more_cases(folder: Path, wanted: set[Signature]) -> dict[Signature, list[Case]]:
    """Some more of the cases that failed, by the way they failed in."""
    found: dict[Signature, list[Case]] = defaultdict(list)
    for path in sorted(folder.glob("journal-*.jsonl")):
        for case, findings in failing(path):
            for which in {signature(case, finding) for finding in findings} & wanted:
                if len(found[which]) < MORE_CASES:
                    found[which].append(case)
    return found
