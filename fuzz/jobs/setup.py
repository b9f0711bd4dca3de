"""What a campaign is asked for, and what it finds before it begins."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.process.kernel_process import TORCH_BACKEND, KernelProcess, KernelProcessError
from fuzz.process.kernel_worker import DeviceInfo
from fuzz.process.sanitizer import Sanitizer, SanitizerError, find_program
from fuzz.spec import FlagValue, TargetSpec
from fuzz.store import OUT
from fuzz.strategies import check_fixes

MAX_CPU_WORKERS = 8
"""Runners on a CPU by default; a large shared machine is not taken over unasked."""

WORKERS_PER_GPU = 4
"""Runners on a GPU by default: one alone leaves it idle while its engine computes."""

CORES_PER_WORKER = 2
"""An engine and its kernel process each keep a core busy where a GPU does the work."""


class UsageError(Exception):
    """Something that the user must mend; the message names argument, value and rule."""


class WrongDevice(UsageError):
    """A target that does not run on the device that there is."""


@dataclass(frozen=True)
class Settings:
    """What to fuzz and for how long. No target named: the built-in ones that run on the device.

    ``cases`` and ``seconds`` are both limits; at least one must be given. ``sanitizer`` names the
    tool of compute-sanitizer that the kernels run under.
    """

    targets: tuple[str, ...] = ()
    device: str = "auto"
    cases: int | None = None
    seconds: float | None = None
    seed: int = 0
    workers: int | None = None
    fixes: dict[str, str] = field(default_factory=dict)
    out: Path = OUT
    backend: str = TORCH_BACKEND
    sanitizer: str | None = None


@dataclass(frozen=True)
class Setup:
    """What a campaign found before it began."""

    info: DeviceInfo
    specs: tuple[TargetSpec, ...]
    workers: int
    sanitizer: Sanitizer | None = None


def prepare(settings: Settings) -> Setup:
    """Find the device and the targets, and check what can be checked before any case runs.

    Raises: UsageError.
    """
    with tempfile.TemporaryDirectory(prefix="ln-fuzz-") as folder:
        try:
            info, specs, sanitizer = _look(settings, Path(folder))
        except SanitizerError as error:
            raise UsageError(str(error)) from error
        except KernelProcessError as error:
            # What the user cannot mend is an error of this program, to be told with its trace.
            words = str(error) if error.user else f"{error}\n{error.trace}".rstrip()
            raise UsageError(words) from error
    if not settings.targets:
        specs = [spec for spec in specs if spec.default and info.device in spec.devices]
    specs = list({spec.name: spec for spec in specs}.values())
    if not specs:
        raise UsageError(f"target: none runs on device {info.device}")
    for spec in specs:
        if info.device not in spec.devices:
            raise WrongDevice(
                f"target={spec.name!r} runs on {', '.join(spec.devices)}, not on {info.device}"
            )
    if settings.fixes:
        specs = [_fixed(spec, settings.fixes) for spec in specs]
    return Setup(info, tuple(specs), settings.workers or default_workers(info), sanitizer)


def _look(
    settings: Settings, folder: Path
) -> tuple[DeviceInfo, list[TargetSpec], Sanitizer | None]:
    """Device, targets, and the sanitizer as a planted fault shows it; its logs are in ``folder``.

    Raises: SanitizerError, KernelProcessError.
    """
    sanitizer = None
    if settings.sanitizer is not None:
        program = find_program(settings.sanitizer, settings.device)
        sanitizer = Sanitizer(settings.sanitizer, program, folder)
    with KernelProcess(settings.device, backend=settings.backend, sanitizer=sanitizer) as kernel:
        info = kernel.info
        if sanitizer is not None:
            sanitizer = kernel.prove_sanitizer()
        names = settings.targets or kernel.names()
        return info, [spec for name in names for spec in kernel.specs(name)], sanitizer


def _fixed(spec: TargetSpec, fixes: dict[str, str]) -> TargetSpec:
    try:
        values: dict[str, FlagValue] = check_fixes(spec, fixes)
    except ValueError as error:
        raise UsageError(f"fix: {error}") from error
    return spec.fixed({**dict(spec.space.fixed), **values})


def default_workers(info: DeviceInfo) -> int:
    """Runners for this machine."""
    cores = len(os.sched_getaffinity(0))
    if info.device == "cpu":
        return max(1, min(cores, MAX_CPU_WORKERS))
    return max(1, min(len(info.gpus) * WORKERS_PER_GPU, cores // CORES_PER_WORKER))
