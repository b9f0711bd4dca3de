"""Which targets a change can affect, and why: by what they consist of, and what they promise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from fuzz.contract import UNREAD
from fuzz.fingerprint import Fingerprint, Part
from fuzz.gating.outcome import Affected
from fuzz.spec import TargetSpec

NAMED = 5
"""Changed definitions that a reason names; of more it gives the number."""


@dataclass(frozen=True)
class Known:
    """A target as one commit has it."""

    spec: TargetSpec
    fingerprint: Fingerprint


def affected(
    base: Mapping[str, Known | str], head: Mapping[str, Known | str]
) -> tuple[Affected, ...]:
    """Whether each target is affected, in the order of head and then of base.

    A text stands for a target that could not be had, and says why.
    """
    gone = [name for name in base if name not in head]
    return (
        *(_judged(name, base.get(name), now) for name, now in head.items()),
        *(Affected(name, True, "gone on head") for name in gone),
    )


def _judged(name: str, before: Known | str | None, now: Known | str) -> Affected:
    if isinstance(now, str):
        return Affected(name, True, f"head cannot be read: {_in_one_line(now)}")
    if before is None:
        return Affected(name, True, "new target")
    if isinstance(before, str):
        return Affected(name, True, f"base cannot be read: {_in_one_line(before)}")
    reasons = [
        *_code_changes(before.fingerprint, now.fingerprint),
        *_contract_changes(before.spec, now.spec),
    ]
    if reasons:
        return Affected(name, True, "; ".join(reasons))
    n_parts = len(now.fingerprint.parts)
    if n_parts == 0:
        return Affected(name, False, "nothing that it uses is part of the repository")
    if n_parts == 1:
        return Affected(name, False, "the one definition that it uses is unchanged")
    return Affected(name, False, f"none of the {n_parts} definitions that it uses changed")


def _contract_changes(before: TargetSpec, now: TargetSpec) -> Iterator[str]:
    names = [
        field.name
        for field in fields(TargetSpec)
        if field.name not in UNREAD and getattr(before, field.name) != getattr(now, field.name)
    ]
    if names:
        yield f"contract changed: {', '.join(names)}"


def _code_changes(before: Fingerprint, now: Fingerprint) -> Iterator[str]:
    if before.digest == now.digest:
        return
    old, new = ({part.place: part for part in each.parts} for each in (before, now))
    places = sorted(old.keys() | new.keys())
    changes = {
        place: _change(old.get(place), new.get(place))
        for place in places
        if place not in old or place not in new or old[place].digest != new[place].digest
    }
    if len(changes) > 1:
        # Of a file that counts as a whole, say what was changed in it, where that is known.
        named = {place.partition(":")[0] for place in changes if ":" in place}
        changes = {place: change for place, change in changes.items() if place not in named}
    if len(changes) == 1:
        ((place, change),) = changes.items()
        yield f"{place} {change}"
    else:
        yield f"{len(changes)} of {len(places)} definitions changed: {_listed(list(changes))}"


def _change(before: Part | None, now: Part | None) -> str:
    if before is None:
        return "is new"
    return "is gone" if now is None else "changed"


def _in_one_line(text: str) -> str:
    """What begins an error's text, and what a traceback in it ends with."""
    first, *more = text.strip().splitlines()
    return f"{first.rstrip(':')}: {more[-1].strip()}" if more else first


def _listed(places: Sequence[str]) -> str:
    more = len(places) - NAMED
    return ", ".join(places[:NAMED]) + (f" and {more} more" if more > 0 else "")
