"""A night on many machines: what its shards are told, and the history that they begin with.

How they are handed out and joined is in :mod:`fuzz.nights.fleet`.
"""

from __future__ import annotations

from pathlib import Path

from fuzz.history import HISTORY, History, HistoryError, new_run_id
from fuzz.jobs.setup import UsageError
from fuzz.night import NightSettings, base_seed
from fuzz.nights.errand import Errand
from fuzz.nights.fleet import Teller, run_shards
from fuzz.nights.merge import MergeResult
from fuzz.nights.ray_fleet import RayFleet, check_ray

SHARDS = "shards"
"""Folder of the shards' folders, beside the history."""


def run_on_ray(settings: NightSettings, teller: Teller) -> MergeResult:
    """Run a night in as many shards as a Ray cluster has room for at a time.

    ``cases`` and ``seconds`` are limits of each shard. Raises: UsageError when it cannot begin.
    """
    check_ray()
    out = settings.out
    try:
        with History(out / HISTORY) as history:
            notes = history.recover(out)
            known = history.copy()
    except (HistoryError, OSError) as error:
        raise UsageError(f"out={str(out)!r}: {error}") from error
    seed = base_seed(settings)
    folder = out / SHARDS / new_run_id()
    with RayFleet(folder, device=settings.device, workers=settings.workers) as fleet:
        room = fleet.room
        workers = settings.workers if room.gpus else room.cpus
        options = night_options(settings, seed=seed, device=room.device, workers=workers)
        fleet.give(Errand(options, known, str(Path.cwd())))
        teller.stage(f"a night, --seed {seed}, in {room.shards} shards on {room.device}")
        result = run_shards(fleet, room.shards, out, teller)
    result.notes[:0] = notes
    _remove_if_empty(folder)
    return result


def night_options(
    settings: NightSettings, *, seed: int, device: str, workers: int | None
) -> tuple[str, ...]:
    """The options of ``ln-fuzz night`` that each shard is run with."""
    numbers = {
        "--time": None if settings.seconds is None else f"{settings.seconds:f}",
        "--cases": settings.cases,
        "--seed": seed,
        "--workers": workers,
        "--workers-per-gpu": settings.workers_per_gpu,
    }
    options = ["--device", device, "--regressions", str(settings.regressions)]
    for name, value in numbers.items():
        if value is not None:
            options += [name, str(value)]
    for target in settings.targets:
        options += ["--target", target]
    return tuple(options)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
