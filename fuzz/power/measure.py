"""One fault measured in a process of its own, with a kernel process that has it planted."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from fuzz.case import Case, describe, to_json
from fuzz.jobs.engine import SWITCH_INTERVAL
from fuzz.jobs.failures import Investigator
from fuzz.jobs.setup import UsageError
from fuzz.power.catalogue import PlantedFault, fingerprint, is_expected, load
from fuzz.power.closeness import rejections
from fuzz.power.draws import CASES
from fuzz.power.judges import ENDED, JUDGES, NOTHING, Hunter, Sighting, first_signature
from fuzz.power.results import Attempt, Measured, Shrunk, Status
from fuzz.process.kernel_process import KernelProcess, KernelProcessError, Stopped, never
from fuzz.process.lifecycle import enter_child
from fuzz.runner import Result, Runner
from fuzz.spec import TargetSpec
from fuzz.verdict import Bits, Observation


@dataclass(frozen=True)
class Order:
    """What a measuring process is told. ``folder`` does not exist yet: the fault goes there."""

    parent: int
    catalogue: Path
    fault: str
    folder: Path
    device: str
    gpu: str | None
    backend: str
    seeds: tuple[int, ...]
    budget: int
    judges: tuple[str, ...]
    shrink: bool


def measure_main(connection: Connection, order: Order) -> None:
    """The whole life of a measuring process. Any message that it gets means that it is to end."""
    enter_child(order.parent)
    sys.setswitchinterval(SWITCH_INTERVAL)
    with contextlib.suppress(Stopped):
        connection.send(measure(order, stop=lambda: connection.poll(0)))
    connection.close()


def measure(order: Order, *, stop: Callable[[], bool] = never) -> Measured:
    """Plant a fault and have every judge look for it with every seed.

    Raises: Stopped.
    """
    began = time.monotonic()
    catalogue = load(order.catalogue)
    fault = catalogue.fault(order.fault)
    status: Status = "error"
    attempts: tuple[Attempt, ...] = ()
    shrunk: Shrunk | None = None
    reason = ""
    try:
        folder = catalogue.plant(fault, order.folder)
        with KernelProcess(
            order.device,
            gpu=order.gpu,
            backend=order.backend,
            stop=stop,
            folder=folder.resolve(),
        ) as kernel:
            spec = _spec_of(kernel, fault)
            if kernel.info.device in spec.devices:
                bench = _Bench(kernel, spec, stop)
                attempts = bench.attempts(order.judges, order.seeds, order.budget)
                shrunk = bench.shrunk() if order.shrink else None
                status, reason = "measured", bench.trouble
            else:
                status, reason = "elsewhere", f"{spec.name} runs on {', '.join(spec.devices)}"
    except (KernelProcessError, UsageError) as error:
        reason = str(error)
    except Stopped:
        raise
    except Exception:
        # One fault that cannot be measured must not cost the others.
        reason = f"internal error: {traceback.format_exc()}"
    seconds = time.monotonic() - began
    return dataclasses.replace(
        unmeasured(fault, order.device, status, reason),
        attempts=attempts,
        shrunk=shrunk,
        seconds=seconds,
    )


def unmeasured(fault: PlantedFault, device: str, status: Status, reason: str) -> Measured:
    """The result of a fault of which nothing was measured."""
    return Measured(
        fault=fault.id,
        kind=fault.kind,
        target=fault.target,
        change=fault.change,
        fingerprint=fingerprint(fault),
        expected=is_expected(fault, device),
        status=status,
        reason=reason,
    )


def _spec_of(kernel: KernelProcess, fault: PlantedFault) -> TargetSpec:
    specs = kernel.specs(fault.target)
    if len(specs) != 1:
        names = ", ".join(spec.name for spec in specs)
        raise UsageError(f"target={fault.target!r} stands for {names}, must be one")
    return specs[0]


class _Bench:
    """A faulty target, and the judges that look for the fault."""

    def __init__(self, kernel: KernelProcess, spec: TargetSpec, stop: Callable[[], bool]) -> None:
        self._kernel = kernel
        self._spec = spec
        self._stop = stop
        self._main = spec.outputs[0].name
        # Whether assert_close is to be asked of the cases that run.
        self._comparing = False
        # Of the case whose result comes next.
        self._sighting = NOTHING
        self._first: Result | None = None
        self.trouble = ""

    def attempts(
        self, judges: Sequence[str], seeds: Sequence[int], budget: int
    ) -> tuple[Attempt, ...]:
        """Every judge with every seed, in the order of the judges."""
        found: list[Attempt] = []
        for seed in seeds:
            for source, draw in CASES.items():
                named = [j for j in judges if JUDGES[j].source == source]
                hunters = [Hunter(JUDGES[name], seed, self._main) for name in named]
                if not hunters:
                    continue
                cases = draw(self._spec, self._kernel.info.device, seed=seed, count=budget)
                self._hunt(hunters, cases)
                found += [hunter.attempt() for hunter in hunters]
                for hunter in hunters:
                    if hunter.judge.name == "bounds" and self._first is None:
                        self._first = hunter.first
        return tuple(sorted(found, key=lambda attempt: judges.index(attempt.judge)))

    def _hunt(self, hunters: list[Hunter], cases: Iterable[Case]) -> None:
        """Run cases until each judge has found one wrong, or there are no more."""

        def is_done() -> bool:
            looking = [hunter for hunter in hunters if hunter.first is None]
            self._comparing = any(hunter.compares_values for hunter in looking)
            return not looking

        runner = Runner(self._kernel, witness=self._witness)
        for result in runner.judge_all(self._spec, _until(cases, is_done)):
            for hunter in hunters:
                hunter.look(result, self._sighting)
            self._sighting = NOTHING

    def _witness(
        self,
        spec: TargetSpec,
        case: Case,
        values: dict[str, Bits],
        observations: tuple[Observation, ...],
    ) -> None:
        if not self._comparing:
            return
        base = observations[0]
        if base.status in ENDED:
            said = f": {base.error.type}: {base.error.message}" if base.error else ""
            self._sighting = Sighting(error=base.status.replace("_", " ") + said)
        elif base.status == "ok" and case.refusal is None:
            names = [output.name for output in spec.outputs]
            interpreted = self._kernel.interpreted
            far = rejections(spec, case, values, base, names, interpreted=interpreted)
            self._sighting = Sighting(far=far)

    def shrunk(self) -> Shrunk | None:
        """The smallest case that shows what the tool itself found first; None: it found nothing."""
        if self._first is None:
            return None
        began = time.monotonic()
        case, verdict = self._first.case, self._first.verdict
        wanted, _ = first_signature(self._first)
        investigator = Investigator(Runner(self._kernel), deadline=None, stop=self._stop)
        try:
            failure = investigator.investigate(self._spec, case, wanted, verdict)
        except KernelProcessError as error:
            # What was found stays found.
            self.trouble = f"not shrunk: {error}"
            return None
        return Shrunk(
            signature=str(wanted),
            message=failure.message,
            text=describe(failure.case),
            case=to_json(failure.case),
            confirmed=failure.confirmed,
            confirm_runs=failure.confirm_runs,
            seconds=time.monotonic() - began,
        )


def _until(cases: Iterable[Case], is_done: Callable[[], bool]) -> Iterator[Case]:
    """The cases up to where no more are wanted: the runner then ends in order, with the one that it
    has ahead."""
    for case in cases:
        if is_done():
            return
        yield case
