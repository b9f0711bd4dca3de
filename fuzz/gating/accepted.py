"""The reviewed file of failures that are known and may stay for a while.

::

    [[accepted]]
    signature = "layer_norm / values_within_bound / y / half / everywhere"
    reason = "The old mask; the new one comes with the next release."
    link = "https://example.org/tracker/12"
    expires = 2027-01-31
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

from fuzz.gating.outcome import GateFinding
from fuzz.jobs.setup import UsageError

ACCEPTED = Path("ci/accepted.toml")

MAX_AHEAD = timedelta(days=366)
"""A year: what is accepted for longer is accepted for ever, without being looked at again."""

_KEYS = ("signature", "reason", "link", "expires")


@dataclass(frozen=True)
class Entry:
    """One accepted failure. ``expires`` is the last day; ``where`` names file and entry."""

    signature: str
    reason: str
    link: str
    expires: date
    where: str


def read(path: Path, *, today: date) -> tuple[Entry, ...]:
    """The entries of the file; none where there is no file.

    Raises: UsageError naming file, entry, field, value and rule.
    """
    entries: dict[str, Entry] = {}
    for number, table in enumerate(_tables(path), start=1):
        entry = _entry(table, f"{path}, entry {number}", today)
        first = entries.setdefault(entry.signature, entry)
        if first is not entry:
            raise _wrong(entry.where, "signature", entry.signature, f"is that of {first.where} too")
    return tuple(entries.values())


def apply(
    entries: Iterable[Entry],
    findings: Sequence[GateFinding],
    *,
    today: date,
    ran_targets: Collection[str],
) -> tuple[tuple[GateFinding, ...], tuple[str, ...]]:
    """The findings with the accepted ones marked, and notes on entries to be mended or removed.

    An entry accepts its very signature. One whose target did not run may still be needed.
    """
    valid: dict[str, Entry] = {}
    notes = []
    failing = {finding.signature for finding in findings if finding.kind != "fixed"}
    for entry in entries:
        expired = today > entry.expires
        if not expired:
            valid[entry.signature] = entry
        about = []
        if expired:
            about.append(f"expired on {entry.expires}: it accepts nothing any more")
        if entry.signature not in failing and _ran(entry, ran_targets):
            about.append("was not seen: remove it?")
        notes += [f"{entry.where}: {entry.signature!r} {' and '.join(about)}"] if about else []
    judged = tuple(_judged(finding, valid.get(finding.signature)) for finding in findings)
    return judged, tuple(notes)


def _ran(entry: Entry, ran_targets: Collection[str]) -> bool:
    return any(entry.signature.startswith(f"{target} / ") for target in ran_targets)


def _judged(finding: GateFinding, entry: Entry | None) -> GateFinding:
    if entry is None or not finding.blocks:
        return finding
    was = f"{finding.kind}, {finding.detail}" if finding.detail else finding.kind
    detail = f"{was}; accepted until {entry.expires}: {entry.reason} {entry.link}"
    return replace(finding, kind="accepted", detail=detail)


# --- reading --------------------------------------------------------------------------------------


def _tables(path: Path) -> list[object]:
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from error
    try:
        data = tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    for key in data:
        if key != "accepted":
            raise UsageError(f"{path}: {key!r} is not known, entries begin with [[accepted]]")
    tables = data.get("accepted", [])
    if not isinstance(tables, list):
        raise UsageError(f"{path}: accepted must be entries that begin with [[accepted]] each")
    return tables


def _entry(table: object, where: str, today: date) -> Entry:
    if not isinstance(table, dict):
        raise UsageError(f"{where}: {table!r}, must begin with [[accepted]]")
    for key in table:
        if key not in _KEYS:
            raise _wrong(where, key, table[key], f"is not known, must be one of {', '.join(_KEYS)}")
    signature = _text(table, "signature", where)
    if "*" in signature:
        raise _wrong(where, "signature", signature, "must be one signature, there are no wildcards")
    link = _text(table, "link", where)
    if not re.fullmatch(r"https?://[^\s/]\S*", link):
        raise _wrong(where, "link", link, "must begin with http:// or https://")
    reason = " ".join(_text(table, "reason", where).split())
    return Entry(signature, reason, link, _expires(table, where, today), where)


def _value(table: dict[str, object], field: str, where: str) -> object:
    if field not in table:
        raise UsageError(f"{where}: {field} is missing, must be given")
    return table[field]


def _text(table: dict[str, object], field: str, where: str) -> str:
    value = _value(table, field, where)
    if not isinstance(value, str) or not value.strip():
        raise _wrong(where, field, value, "must be a text that is not empty")
    return value


def _expires(table: dict[str, object], where: str, today: date) -> date:
    value = _value(table, "expires", where)
    # A time of day is a date too, to Python.
    if type(value) is not date:
        raise _wrong(where, "expires", value, f"must be a date without quotes, as {today}")
    if value > today + MAX_AHEAD:
        latest = today + MAX_AHEAD
        raise _wrong(where, "expires", str(value), f"must be a year ahead at most: {latest}")
    return value


def _wrong(where: str, field: str, value: object, rule: str) -> UsageError:
    return UsageError(f"{where}: {field}={value!r}, {rule}")
