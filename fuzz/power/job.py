"""The measurement of a catalogue: which faults are left, who measures them, what came of it."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fuzz.jobs.failures import versions
from fuzz.jobs.setup import UsageError, default_workers
from fuzz.power.catalogue import (
    CATALOGUE,
    Catalogue,
    PlantedFault,
    fingerprint,
    is_out_of_sight,
    load,
)
from fuzz.power.crew import Crew
from fuzz.power.judges import JUDGES
from fuzz.power.log import Log, open_log
from fuzz.power.measure import Order, unmeasured
from fuzz.power.results import Measured
from fuzz.process.interrupts import Interrupts, counting_interrupts
from fuzz.process.kernel_process import TORCH_BACKEND, KernelProcess, KernelProcessError
from fuzz.process.kernel_worker import DeviceInfo, find_device
from fuzz.process.lifecycle import use_one_thread
from fuzz.store import OUT

FOLDER = "power"
"""Below the usual folder of results."""

PACKAGES = ("fuzz", "oracle", "ln_kernels")
"""What a result depends on, beside the fault itself."""

TICK = 0.2
"""Seconds between two looks at Ctrl-C."""


@dataclass(frozen=True)
class PowerSettings:
    """What is to be measured. ``budget`` is in cases, of one seed and judge.

    No fault and no class named: all. ``out`` None: a folder of the settings' own. ``expect`` makes
    a fault that is marked as visible on the device, and is not found, one that fails the job.
    """

    faults: Path = CATALOGUE
    only: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    budget: int = 300
    seeds: int = 3
    judges: tuple[str, ...] = tuple(JUDGES)
    device: str = "auto"
    workers: int | None = None
    shrink: bool = True
    expect: bool = False
    out: Path | None = None
    backend: str = TORCH_BACKEND


@dataclass
class PowerResult:
    """What came of it; ``measured`` in the order of the catalogue."""

    settings: PowerSettings
    info: DeviceInfo
    recorded: dict[str, Any]
    log: Log
    measured: list[Measured] = field(default_factory=list)
    total: int = 0
    resumed: int = 0
    workers: int = 1
    at_work: tuple[str, ...] = ()
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def errors(self) -> list[str]:
        """Why the tool could not do (all of) its job."""
        return [f"{m.fault}: {problem}" for m in self.measured for problem in m.problems]

    @property
    def missed(self) -> list[str]:
        """Faults that the tool itself did not find with every seed."""
        return [m.fault for m in self._measured if not _is_found(m)]

    @property
    def exit_code(self) -> int:
        """0 done, 1 a fault was not found that had to be, 2 the tool could not do its job."""
        short = len(self.measured) < self.total or not self._measured
        if short or self.errors or self.interrupted:
            return 2
        expected = [m for m in self._measured if m.expected]
        return 1 if self.settings.expect and not all(map(_is_found, expected)) else 0

    @property
    def _measured(self) -> list[Measured]:
        return [m for m in self.measured if m.status == "measured"]


def _is_found(measured: Measured) -> bool:
    """Whether the tool itself found a fault with every seed."""
    return all(attempt.found for attempt in measured.of("bounds"))


class Listener(Protocol):
    """Who is told what happens."""

    def started(self, result: PowerResult) -> None:
        """It is known what is left to do."""

    def progress(self, result: PowerResult) -> None:
        """Called often, whether or not there is news."""

    def done(self, measured: Measured) -> None:
        """A fault was measured."""


def run(settings: PowerSettings, listener: Listener) -> PowerResult:
    """Measure the faults that are left, and answer for all.

    Raises: UsageError when it cannot begin.
    """
    _check(settings)
    # Inherited by every process from here on.
    use_one_thread()
    catalogue = load(settings.faults)
    faults = catalogue.chosen(settings.only, settings.kinds)
    with counting_interrupts() as interrupts:
        info = _find_device(settings)
        recorded = _recorded(settings, info)
        log = open_log(_folder(settings, recorded), recorded)
        result = PowerResult(settings, info, recorded, log, total=len(faults))
        result.workers = settings.workers or default_workers(info)
        _Job(catalogue, faults, result, listener, interrupts).run()
    return result


def _check(settings: PowerSettings) -> None:
    for name, number in (("budget", settings.budget), ("seeds", settings.seeds)):
        if number < 1:
            raise UsageError(f"{name}={number}, must be >= 1")
    if settings.workers is not None and settings.workers < 1:
        raise UsageError(f"workers={settings.workers}, must be >= 1")
    for name in settings.judges:
        if name not in JUDGES:
            raise UsageError(f"judges={name!r}, must be of {', '.join(JUDGES)}")
    if not settings.judges or len(set(settings.judges)) < len(settings.judges):
        raise UsageError(f"judges={','.join(settings.judges)!r}, must name each judge once")
    if settings.expect and "bounds" not in settings.judges:
        raise UsageError("expect: the judges must have bounds among them")


def _find_device(settings: PowerSettings) -> DeviceInfo:
    if settings.device == "cpu":
        return find_device("cpu")
    try:
        # torch is asked in a process of its own.
        with KernelProcess(settings.device, backend=settings.backend) as kernel:
            return kernel.info
    except KernelProcessError as error:
        raise UsageError(str(error)) from error


def _recorded(settings: PowerSettings, info: DeviceInfo) -> dict[str, Any]:
    """What a result depends on, as it is stored beside it."""
    return {
        "device": info.device,
        "device_name": info.name,
        "budget": settings.budget,
        "seeds": settings.seeds,
        "judges": list(settings.judges),
        "shrink": settings.shrink,
        "versions": versions(),
        "sources": digest_of_sources(),
    }


def digest_of_sources() -> str:
    """12 hex digits of the tool's and the kernels' own sources."""
    root = Path(__file__).parents[2]
    hashed = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            hashed.update(f"{path.relative_to(root)}\n".encode())
            hashed.update(path.read_bytes())
    return hashed.hexdigest()[:12]


def _folder(settings: PowerSettings, recorded: dict[str, Any]) -> Path:
    """Where the results are: with no folder named, other settings have another one."""
    if settings.out is not None:
        return settings.out
    name = hashlib.sha256(repr(sorted(recorded.items())).encode()).hexdigest()[:8]
    return OUT / FOLDER / f"{recorded['device']}-{name}"


class _Job:
    def __init__(
        self,
        catalogue: Catalogue,
        faults: Sequence[PlantedFault],
        result: PowerResult,
        listener: Listener,
        interrupts: Interrupts,
    ) -> None:
        self._catalogue = catalogue
        self._faults = faults
        self._result = result
        self._listener = listener
        self._interrupts = interrupts
        self._began = time.monotonic()

    def run(self) -> None:
        """Measure what is left."""
        waiting = [fault for fault in self._faults if not self._is_settled(fault)]
        self._result.resumed = len(self._result.measured)
        self._listener.started(self._result)
        with (
            tempfile.TemporaryDirectory(prefix="ln-fuzz-power-") as folder,
            Crew(self._result.workers) as crew,
        ):
            while (waiting or crew.at_work) and not self._interrupts.count:
                while waiting and (place := crew.free_place) is not None:
                    crew.begin(self._order(waiting.pop(0), Path(folder), place), place)
                for order, found in crew.wait(TICK):
                    self._take(order, found)
                self._result.at_work = crew.at_work
                self._result.seconds = time.monotonic() - self._began
                self._listener.progress(self._result)
        self._result.interrupted = bool(self._interrupts.count)
        places = {fault.id: number for number, fault in enumerate(self._faults)}
        self._result.measured.sort(key=lambda m: places[m.fault])

    def _is_settled(self, fault: PlantedFault) -> bool:
        """Whether nothing is left to measure of a fault: then its result is taken over."""
        device = self._result.info.device
        known = self._result.log.known.get(fault.id)
        if is_out_of_sight(fault, device):
            known = unmeasured(fault, device, "elsewhere", "needs a GPU")
        elif known is None or known.fingerprint != fingerprint(fault) or known.problems:
            # What could not be measured is tried again.
            return False
        self._result.measured.append(known)
        return True

    def _order(self, fault: PlantedFault, folder: Path, place: int) -> Order:
        settings, info = self._result.settings, self._result.info
        return Order(
            parent=os.getpid(),
            catalogue=self._catalogue.path,
            fault=fault.id,
            folder=folder / fault.id,
            device=info.device,
            gpu=info.gpus[place % len(info.gpus)] if info.gpus else None,
            backend=settings.backend,
            seeds=tuple(range(settings.seeds)),
            budget=settings.budget,
            judges=settings.judges,
            shrink=settings.shrink,
        )

    def _take(self, order: Order, found: Measured | str) -> None:
        if isinstance(found, str):
            fault = self._catalogue.fault(order.fault)
            found = unmeasured(fault, order.device, "error", found)
        self._result.log.append(found)
        self._result.measured.append(found)
        self._listener.done(found)
