"""Former failures: those that the history has open, and those kept with the sources, run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fuzz import store
from fuzz.checks import sanitizer_of
from fuzz.history import FailureRecord
from fuzz.nights.outcome import Kind, NightFailure
from fuzz.process.interrupts import counting_interrupts
from fuzz.process.kernel_process import TORCH_BACKEND
from fuzz.replay import Replayed, replay
from fuzz.store import FAILURES, Failure, StoreError


@dataclass(frozen=True)
class Former:
    """A file to replay. ``failure`` is None where the file cannot be read: its replay says why.

    ``kept``: it is among the sources' regressions. ``known``: the history has it as open.
    """

    path: Path
    failure: Failure | None
    kept: bool = False
    known: bool = False


@dataclass
class Replays:
    """What came of former failures: how many were replayed, those that pass, those still there."""

    replayed: int = 0
    fixed: list[Failure] = field(default_factory=list)
    standing: list[NightFailure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    interrupted: bool = False


def find_former(
    records: Iterable[FailureRecord],
    regressions: Path,
    out: Path,
    *,
    device: str,
    targets: Collection[str],
    scratch: Path,
) -> tuple[list[Former], list[str]]:
    """What can be replayed on this device, regressions first; and notes on what cannot.

    ``targets`` narrows it where any are named. A failure whose file is gone is written to
    ``scratch``: the history has all of it.
    """
    is_open = {r.failure.id: r for r in records if r.is_open}
    paths = sorted(regressions.glob("*.json")) if regressions.is_dir() else []
    kept = [Former(path, _read(path), kept=True) for path in paths]
    ids = {item.failure.id for item in kept if item.failure is not None}
    kept = [
        Former(i.path, i.failure, True, i.failure is not None and i.failure.id in is_open)
        for i in kept
    ]
    others = [
        Former(_file(record.failure, out, scratch), record.failure, known=True)
        for failure_id, record in is_open.items()
        if failure_id not in ids
    ]
    found: list[Former] = []
    left: dict[str, int] = {}
    for item in kept + others:
        why = _hindrance(item, device, targets)
        if why is None:
            found.append(item)
        elif why:
            left[why] = left.get(why, 0) + 1
    return found, [f"{count} former failures not replayed: {why}" for why, count in left.items()]


def _read(path: Path) -> Failure | None:
    try:
        return store.read(path)
    except StoreError:
        return None


def _file(failure: Failure, out: Path, scratch: Path) -> Path:
    path = out / FAILURES / f"{failure.id}.json"
    return path if path.is_file() else store.write(failure, scratch)


def _hindrance(item: Former, device: str, targets: Collection[str]) -> str | None:
    """Why a failure is not replayed, empty where there is nothing to say; None: it is."""
    failure = item.failure
    if failure is None:
        return None
    if targets and failure.case.target not in targets:
        return ""
    tool = sanitizer_of(failure.signature)
    if tool is not None and device != "cuda":
        return f"it takes {tool}, and with it a GPU"
    if item.kept:
        able = device if failure.contract is None else failure.contract.devices
        return None if device in able else f"their targets run on {', '.join(able)}"
    # That it passes elsewhere would not say that it is fixed.
    return None if failure.device == device else f"found on {failure.device}, this is {device}"


def replay_former(
    formers: list[Former],
    *,
    device: str,
    deadline: float | None,
    step: Callable[[str], None],
    backend: str = TORCH_BACKEND,
) -> Replays:
    """Replay them one after the other until a deadline (of the monotonic clock) or a Ctrl-C."""
    result = Replays()
    by_path = {item.path: item for item in formers}
    replays = replay(tuple(by_path), device=device, backend=backend)
    with counting_interrupts() as interrupts, ExitStack() as at_the_end:
        if isinstance(replays, Generator):
            # Its kernel processes end with it, though not all files were asked for.
            at_the_end.callback(replays.close)
        for number in range(len(by_path)):
            if deadline is not None and time.monotonic() >= deadline:
                left = len(by_path) - number
                result.notes.append(f"{left} former failures not replayed: there was no time")
                break
            item = next(replays)
            step(f"{number + 1} of {len(by_path)}: {item.label} {item.path.name}")
            _enter(result, by_path[item.path], item, device)
            result.interrupted = interrupts.count > 0
            if result.interrupted:
                break
    return result


def _enter(result: Replays, former: Former, item: Replayed, device: str) -> None:
    if item.outcome == "ERROR" or item.failure is None:
        where = "" if item.detail.startswith(str(item.path)) else f"{item.path}: "
        # The history's may be of kernels that are gone; what is kept must be replayable.
        told = result.errors if former.kept else result.notes
        told.append(f"cannot be replayed: {where}{item.detail}")
        return
    result.replayed += 1
    if not item.is_fixed:
        kind: Kind = "back" if former.kept else "known"
        told_now = item.message or item.failure.message
        result.standing.append(NightFailure(kind, item.failure, item.path, told_now))
    elif former.known and item.failure.device == device:
        result.fixed.append(item.failure)
