"""A night: all targets on all that there is of a machine, with what earlier nights have learnt.

Former failures come first. Then a campaign that steers towards what was tried least, its every
report kept in the history. In the end it is checked that the night was what it looks like. The
parts are in :mod:`fuzz.nights`.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import secrets
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fuzz import campaign
from fuzz.campaign import CampaignResult, Listener
from fuzz.gating.worktree import head
from fuzz.history import HISTORY, History, HistoryError, Recording, RunInfo, new_run_id
from fuzz.jobs.failures import versions
from fuzz.jobs.setup import Settings, Setup, UsageError, prepare
from fuzz.jobs.totals import CellSum, Totals
from fuzz.nights.former import Replays, find_former, replay_former
from fuzz.nights.outcome import NIGHT, WHOLE, Kind, NightFailure, NightResult, Shard, TargetSum
from fuzz.nights.plan import NightPlan
from fuzz.nights.promise import missed, promised
from fuzz.nights.shards import begin_shard, end_shard
from fuzz.process.journal import Mark
from fuzz.process.kernel_process import TORCH_BACKEND
from fuzz.process.lifecycle import use_one_thread
from fuzz.store import OUT, REGRESSIONS

FORMER_SHARE = 0.25
"""Of the time: what former failures take at most. The rest of them have their turn tomorrow."""

END_SHARE = 0.05
MOST_END_SECONDS = 30.0
"""Of the time: what the end of a night takes, mostly for finding out what it must have hit. That
takes longer the more cases there were, up to four seconds a target."""

LEAST_SECONDS = 1.0
"""What is left to fuzz in, however long the beginning took."""

SEEDS = 10**9
"""Seeds below this are short enough to be typed again."""


@dataclass(frozen=True)
class NightSettings:
    """What a night is asked for: ``seconds`` for all of it, ``cases``, or both as limits.

    No target named: the built-in ones. ``workers_per_gpu`` is for GPUs, ``workers`` for a CPU.
    """

    seconds: float | None = None
    cases: int | None = None
    targets: tuple[str, ...] = ()
    device: str = "auto"
    shard: Shard = WHOLE
    seed: int | None = None
    workers: int | None = None
    workers_per_gpu: int | None = None
    out: Path = OUT
    regressions: Path = REGRESSIONS
    backend: str = TORCH_BACKEND


class Watcher(Listener, Protocol):
    """Who is told what a night is at, beside what happens in its campaign."""

    def stage(self, text: str) -> None:
        """The night has come to this."""

    def step(self, text: str) -> None:
        """Progress inside a stage: replaces what was told before."""


def run(settings: NightSettings, watcher: Watcher) -> NightResult:
    """Run a night, and leave what it learnt in the history.

    Raises: UsageError when it cannot begin.
    """
    began = time.monotonic()
    use_one_thread()
    if settings.cases is None and settings.seconds is None:
        raise UsageError("cases=None and seconds=None, one of them must be given")
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
        begin_shard(settings.out)
        history = History(settings.out / HISTORY)
    except (HistoryError, OSError) as error:
        raise UsageError(f"out={str(settings.out)!r}: {error}") from error
    with history:
        try:
            recovered = history.recover(settings.out)
        except HistoryError as error:
            raise UsageError(str(error)) from error
        night = _Night(settings, watcher, history, began)
        night.run()
    # They are of other runs: the history has them there.
    night.result.notes[:0] = recovered
    return night.result


def base_seed(settings: NightSettings) -> int:
    """The seed that repeats a night: the one asked for, else a new one."""
    if settings.seed is not None:
        return settings.seed
    # Two nights that begin with generators in the same state would be one and the same.
    return _number(f"{datetime.date.today()}/{settings.shard}/{secrets.token_hex(8)}")


def shard_seed(seed: int, shard: Shard) -> int:
    """The seed of a shard's campaign: shards of one seed draw other cases each."""
    return seed if shard.count == 1 else _number(f"{seed}/{shard}")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % SEEDS


def workers_of(settings: NightSettings, setup: Setup) -> int:
    """Runners of the night: so many for each GPU, on every GPU.

    Raises: UsageError.
    """
    each = settings.workers_per_gpu
    if each is None:
        return setup.workers
    if settings.workers is not None:
        raise UsageError(f"workers_per_gpu={each}, but workers={settings.workers} is given too")
    if not setup.info.gpus:
        raise UsageError(f"workers_per_gpu={each}, but device {setup.info.device} has no GPU")
    if each < 1:
        raise UsageError(f"workers_per_gpu={each}, must be >= 1")
    return each * len(setup.info.gpus)


class _Learning(Recording):
    """Tells the history what is reported, and the plan what was tried."""

    def __init__(self, history: History, run_id: str, plan: NightPlan) -> None:
        super().__init__(history, run_id)
        self._plan = plan

    def reported(self, runner: int, totals: Totals, mark: Mark) -> None:
        """What a runner did since it reported last.

        Raises: HistoryError.
        """
        self._plan.learn(totals.cells.items())
        super().reported(runner, totals, mark)


class _Night:
    def __init__(
        self, settings: NightSettings, watcher: Watcher, history: History, began: float
    ) -> None:
        self._settings = settings
        self._watcher = watcher
        self._history = history
        self._began = began
        self._deadline = None
        if settings.seconds is not None:
            end = min(END_SHARE * settings.seconds, MOST_END_SECONDS)
            self._deadline = began + settings.seconds - end
        self.result = NightResult(
            new_run_id(), base_seed(settings), shard=settings.shard, out=settings.out
        )
        self._seed = shard_seed(self.result.seed, settings.shard)

    def run(self) -> None:
        """All of it, from looking at the machine to the shard's last words."""
        settings, result, history = self._settings, self.result, self._history
        self._watcher.stage(f"a night, --seed {result.seed} --shard {settings.shard}")
        asked = Settings(
            targets=settings.targets,
            device=settings.device,
            cases=settings.cases,
            seconds=settings.seconds,
            seed=self._seed,
            workers=settings.workers,
            out=settings.out,
            backend=settings.backend,
        )
        setup = prepare(asked)
        setup = dataclasses.replace(setup, workers=workers_of(settings, setup))
        result.device, result.device_name = setup.info.device, setup.info.name
        result.gpus, result.workers = len(setup.info.gpus), setup.workers
        self._known = {record.signature: record.is_open for record in history.failures()}
        before = history.cells()
        history.begin(
            RunInfo(
                result.run,
                NIGHT,
                seed=result.seed,
                device=setup.info.device,
                device_name=setup.info.name,
                workers=setup.workers,
                versions=versions(),
                revision=_revision(),
                shard=settings.shard.index,
                shards=settings.shard.count,
            )
        )
        self._replay(setup)
        if not result.interrupted:
            self._fuzz(asked, setup, before)
        result.seconds = time.monotonic() - self._began
        self._end()

    # --- former failures --------------------------------------------------------------------------

    def _replay(self, setup: Setup) -> None:
        settings, result = self._settings, self.result
        names = [spec.name for spec in setup.specs] if settings.targets else []
        with tempfile.TemporaryDirectory(prefix="ln-fuzz-") as scratch:
            found, notes = find_former(
                self._history.failures(),
                settings.regressions,
                settings.out,
                device=setup.info.device,
                targets=names,
                scratch=Path(scratch),
            )
            result.notes += notes
            if not found:
                return
            self._watcher.stage(f"replaying {_number_of(len(found), 'former failure')}")
            deadline = None
            if settings.seconds is not None:
                deadline = time.monotonic() + FORMER_SHARE * settings.seconds
            replays = replay_former(
                found,
                device=setup.info.device,
                deadline=deadline,
                step=self._watcher.step,
                backend=settings.backend,
            )
        self._enter(replays)

    def _enter(self, replays: Replays) -> None:
        result = self.result
        result.replayed, result.interrupted = replays.replayed, replays.interrupted
        result.failures += replays.standing
        result.notes += replays.notes
        result.errors += replays.errors
        for failure in replays.fixed:
            signature = str(failure.signature)
            self._keep(functools.partial(self._history.fixed, result.run, signature))
            self._known[signature] = False
            result.fixed.append(signature)
        for standing in replays.standing:
            self._keep(functools.partial(self._history.found, result.run, standing.failure))

    # --- the campaign -----------------------------------------------------------------------------

    def _fuzz(self, asked: Settings, setup: Setup, before: dict[str, CellSum]) -> None:
        settings, result = self._settings, self.result
        plan = NightPlan(
            setup.specs, device=setup.info.device, seed=self._seed, cases=settings.cases
        )
        plan.learn(before.items())
        seconds = None
        if self._deadline is not None:
            seconds = max(self._deadline - time.monotonic(), LEAST_SECONDS)
        asked = dataclasses.replace(asked, seconds=seconds)
        self._watcher.stage("fuzzing")
        done = campaign.run_plan(
            asked, setup, plan, self._watcher, record=_Learning(self._history, result.run, plan)
        )
        self._watcher.stage("looking at what was hit")
        self._sum_up(done, plan, before)

    def _sum_up(self, done: CampaignResult, plan: NightPlan, before: dict[str, CellSum]) -> None:
        result, totals = self.result, done.totals
        result.fuzzing_seconds = done.seconds
        result.run_folder = done.run_folder
        result.interrupted = done.interrupted
        result.executed, result.failed = totals.executed, totals.failed
        result.skipped, result.not_reached = totals.skipped, totals.not_reached
        result.faulty, result.lost = totals.faulty, done.lost
        result.keys, result.shares = len(totals.keys), totals.shares()
        result.errors += done.errors
        result.faults += totals.faults
        standing = {failure.signature for failure in result.failures}
        for failure, path in done.failures:
            signature = str(failure.signature)
            if signature not in standing:
                kind = self._kind(signature)
                result.failures.append(NightFailure(kind, failure, path, failure.message))
            if signature in result.fixed:
                result.fixed.remove(signature)
        for spec in done.setup.specs:
            cells = promised(
                spec,
                totals,
                device=result.device,
                seed=self._seed,
                sets=plan.sets.get(spec.name, {}),
            )
            gone = missed(cells, totals)
            target = _target_sum(spec.name, totals, before, len(cells), tuple(gone))
            result.targets.append(target)
            if plan.reached[spec.name] and not target.executed and not result.interrupted:
                why = f"all {target.skipped} skipped" if target.skipped else "there was no time"
                result.errors.append(f"{spec.name}: no case was executed: {why}")

    def _kind(self, signature: str) -> Kind:
        is_open = self._known.get(signature)
        if is_open is None:
            return "new"
        return "known" if is_open else "back"

    # --- the end ----------------------------------------------------------------------------------

    def _end(self) -> None:
        """End the run in the history, and then say the shard's last words."""
        result, history = self.result, self._history
        notes = [*result.notes, *result.errors]
        promises = sum(target.promised for target in result.targets)
        if promises:
            hit = promises - len(result.missed)
            notes.append(f"{hit} of {_number_of(promises, 'promised cell')} hit")
        notes += [f"promised and not hit: {cell}" for cell in result.missed]
        try:
            result.notes += history.end(
                result.run, outcome="interrupted" if result.interrupted else "ended", notes=notes
            )
            (record,) = (run for run in history.runs() if run.id == result.run)
        except HistoryError as error:
            # Without last words the merge takes the shard for what it is: not whole.
            self._enter_error(error)
            return
        end_shard(result, executed=record.executed, failed=record.failed, skipped=record.skipped)

    def _keep(self, write: Callable[[], None]) -> None:
        try:
            write()
        except HistoryError as error:
            self._enter_error(error)

    def _enter_error(self, error: HistoryError) -> None:
        self.result.errors.append(str(error))
        self._watcher.error(str(error))


def _target_sum(
    target: str, totals: Totals, before: dict[str, CellSum], promises: int, gone: tuple[str, ...]
) -> TargetSum:
    rows = [row for (name, _), row in totals.rows.items() if name == target]
    largest: dict[str, float] = {}
    for row in rows:
        for output, ratio in row.ratios.items():
            largest[output] = max(ratio, largest.get(output, 0.0))
    tried = _tried(totals.cells, target)
    return TargetSum(
        target,
        executed=sum(row.executed for row in rows),
        failed=sum(row.failed for row in rows),
        skipped=sum(row.skipped.total() for row in rows),
        cells=len(tried),
        new_cells=len(tried - _tried(before, target)),
        promised=promises,
        missed=gone,
        largest=largest,
    )


def _tried(cells: dict[str, CellSum], target: str) -> set[str]:
    start = f"{target} | "
    return {name for name, sums in cells.items() if sums.executed and name.startswith(start)}


def _number_of(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _revision() -> str:
    """The commit that is checked out, empty where there is none."""
    with suppress(UsageError):
        commit = head(Path.cwd())
        return f"{commit.sha[:12]}{' with uncommitted changes' * commit.dirty}"
    return ""
