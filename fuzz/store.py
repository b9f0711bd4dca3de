"""Failures as files: one JSON file each, that replays for ever or is refused with a reason."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cattrs

from fuzz.case import Case, CaseError, from_json, to_json
from fuzz.verdict import Finding, Signature

FORMAT = 1
"""Version of a failure file. A reader refuses any other by name."""

OUT = Path(".ln-fuzz")
FAILURES = "failures"
REGRESSIONS = Path("ci/regressions")
"""Failures that are kept with the sources: they must never come back."""

MIN_PREFIX = 4
"""Hex digits by which a failure may be named at least."""


class StoreError(Exception):
    """A failure file that cannot be read or found; the message names file, field and rule."""


@dataclass(frozen=True)
class TargetFile:
    """The user's file that holds the target, as it was when the failure was found."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Failure:
    """A fault that was found: the smallest case for it, and all that is needed to see it again.

    ``inputs_digest`` is that of the shrunk case's values. ``confirmed`` of ``confirm_runs`` runs
    in a fresh process failed in the same way; 0 of 0 means that there was no time to confirm it.
    """

    signature: Signature
    case: Case
    original: Case
    inputs_digest: str
    findings: tuple[Finding, ...]
    device: str
    device_name: str
    versions: dict[str, str]
    first_seen: str
    confirmed: int = 0
    confirm_runs: int = 0
    target_file: TargetFile | None = None

    @property
    def id(self) -> str:
        """Content address of case and signature: one case may show several faults."""
        text = f"{self.case.case_id} {self.signature}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def message(self) -> str:
        """The mismatch in one line."""
        return self.findings[0].message if self.findings else str(self.signature)


def _exact(kind: type) -> Callable[[Any, Any], Any]:
    """Reads one kind of JSON value; cattrs would make the string "None" of a null."""

    def read(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"{value!r}, must be {kind.__name__}")
        return value

    return read


def _number(value: Any, _: Any) -> float:
    if type(value) in (int, float) or value in ("inf", "-inf", "nan"):
        return float(value)
    raise TypeError(f"{value!r}, must be a number, inf, -inf or nan")


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (int, str):
        converter.register_structure_hook(kind, _exact(kind))
    converter.register_structure_hook(float, _number)
    # Infinity is no JSON number.
    converter.register_unstructure_hook(float, lambda v: v if math.isfinite(v) else str(v))
    converter.register_unstructure_hook(Case, to_json)
    converter.register_structure_hook(Case, lambda data, _: from_json(data))
    return converter


_converter = _make_converter()


def to_data(failure: Failure) -> dict[str, Any]:
    """A failure as plain JSON values, its names and versions first."""
    body = _converter.unstructure(failure)
    names = {"format": FORMAT, "id": failure.id, "case_id": failure.case.case_id}
    return {**names, "message": failure.message, **body}


def from_data(data: object) -> Failure:
    """Read a failure.

    Raises: StoreError naming the field and the rule.
    """
    if not isinstance(data, dict):
        raise StoreError(f"{type(data).__name__} found, must be a JSON object")
    version = data.get("format")
    if version != FORMAT:
        newer = isinstance(version, int) and version > FORMAT
        hint = ": written by a newer version of this program" if newer else ""
        raise StoreError(f"format={version!r}, this version reads format {FORMAT}{hint}")
    body = {k: v for k, v in data.items() if k not in ("format", "id", "case_id", "message")}
    for name in ("case", "original"):
        try:
            from_json(body.get(name))
        except CaseError as error:
            raise StoreError(f"{name}: {error}") from error
    try:
        failure = _converter.structure(body, Failure)
    except (cattrs.BaseValidationError, TypeError, ValueError, KeyError) as error:
        reasons = "; ".join(cattrs.transform_error(error, path="failure"))
        raise StoreError(f"not a valid failure: {reasons}") from error
    for field, is_ in (("case_id", failure.case.case_id), ("id", failure.id)):
        if data.get(field) != is_:
            raise StoreError(
                f"{field}={data.get(field)!r}, but the content has {is_!r}: the file was changed"
            )
    return failure


def write(failure: Failure, folder: Path) -> Path:
    """Write a failure under its id, atomically. One that is known keeps its first_seen."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{failure.id}.json"
    if path.exists():
        try:
            failure = dataclasses.replace(failure, first_seen=read(path).first_seen)
        except StoreError:
            # Not readable, so there is nothing in it to keep.
            path.replace(path.with_suffix(".unreadable"))
    text = json.dumps(to_data(failure), indent=1, allow_nan=False) + "\n"
    # In the same folder, because a rename is atomic only within one file system.
    with tempfile.NamedTemporaryFile(
        "w", dir=folder, prefix=".", suffix=".tmp", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    Path(file.name).replace(path)
    return path


def read(path: Path) -> Failure:
    """Read one file.

    Raises: StoreError naming the file, the field and the rule.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise StoreError(
            f"{path}: not valid JSON at line {error.lineno}: {error.msg}; truncated?"
        ) from error
    try:
        return from_data(data)
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from error


def find(name: str, folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files that a name means: a file, all of a folder, or one by the beginning of its id.

    Raises: StoreError when it means none, or an id means several.
    """
    path = Path(name)
    if path.is_dir():
        found = tuple(sorted(path.glob("*.json")))
        if not found:
            raise StoreError(f"{path}: holds no failure (*.json)")
        return found
    if path.is_file():
        return (path,)
    places = ", ".join(str(folder) for folder in folders)
    if not re.fullmatch(r"[0-9a-f]+", name):
        raise StoreError(f"{name!r}: no such file or folder, nor the id of a failure")
    if len(name) < MIN_PREFIX:
        raise StoreError(f"id={name!r}, must have at least {MIN_PREFIX} digits")
    matches = {p.stem: p for folder in folders for p in _files(folder) if p.stem.startswith(name)}
    if not matches:
        raise StoreError(f"id={name!r}: no such failure in {places}")
    if len(matches) > 1:
        raise StoreError(f"id={name!r} is ambiguous: {', '.join(sorted(matches))}")
    return tuple(matches.values())


def short_id(failure_id: str, folders: tuple[Path, ...]) -> str:
    """The shortest beginning of an id, of 6 digits or more, that no other failure shares."""
    others = [p.stem for folder in folders for p in _files(folder) if p.stem != failure_id]
    for length in range(6, len(failure_id)):
        if not any(other.startswith(failure_id[:length]) for other in others):
            return failure_id[:length]
    return failure_id


def _files(folder: Path) -> Iterator[Path]:
    return folder.glob("*.json") if folder.is_dir() else iter(())
