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

from fuzz import contract
from fuzz.case import Case, CaseError, from_json, to_json
from fuzz.spec import TargetSpec
from fuzz.verdict import Finding, Signature

FORMAT = 2
"""Version of a failure file. Older ones are migrated as they are read, newer ones refused by name.

What is added to a contract needs a new format too, and a migration that says what it was before.
"""

OUT = Path(".ln-fuzz")
FAILURES = "failures"
REGRESSIONS = Path("ci/regressions")
"""Failures that are kept with the sources: they must never come back."""

LINE = 100
"""What fits a line of a file is on one line."""

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
    ``contract`` is what it was judged by; None: not known, the file is of before it was kept.
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
    contract: TargetSpec | None = None

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
    converter.register_unstructure_hook(TargetSpec, contract.to_data)
    converter.register_structure_hook(TargetSpec, lambda data, _: contract.from_data(data))
    return converter


_converter = _make_converter()


def to_data(failure: Failure) -> dict[str, Any]:
    """A failure as plain JSON values, its names and versions first.

    Raises: ContractError for a contract that is no plain data.
    """
    body = _converter.unstructure(failure)
    known = body["contract"] is not None
    names = {
        "format": FORMAT,
        "id": failure.id,
        "case_id": failure.case.case_id,
        "contract_digest": contract.digest_of(body["contract"]) if known else None,
    }
    return {**names, "message": failure.message, **body}


def from_data(data: object) -> Failure:
    """Read a failure of this format or an older one.

    Raises: StoreError naming the field and the rule.
    """
    if not isinstance(data, dict):
        raise StoreError(f"{type(data).__name__} found, must be a JSON object")
    data = _migrated(data)
    names = ("format", "id", "case_id", "contract_digest", "message")
    body = {k: v for k, v in data.items() if k not in names}
    for name in ("case", "original"):
        try:
            from_json(body.get(name))
        except CaseError as error:
            raise StoreError(f"{name}: {error}") from error
    contract_digest = _contract_digest(body)
    try:
        failure = _converter.structure(body, Failure)
    except (cattrs.BaseValidationError, TypeError, ValueError, KeyError) as error:
        reasons = "; ".join(cattrs.transform_error(error, path="failure"))
        raise StoreError(f"not a valid failure: {reasons}") from error
    for field, is_ in (
        ("case_id", failure.case.case_id),
        ("contract_digest", contract_digest),
        ("id", failure.id),
    ):
        if data.get(field) != is_:
            raise StoreError(
                f"{field}={data.get(field)!r}, but the content has {is_!r}: the file was changed"
            )
    if failure.contract is not None and failure.contract.name != failure.case.target:
        raise StoreError(
            f"contract.name={failure.contract.name!r}, must be the case's "
            f"target={failure.case.target!r}: the file was changed"
        )
    return failure


def _contract_digest(body: dict[str, Any]) -> str | None:
    """The digest of what the file says of the contract, None where that is nothing."""
    if "contract" not in body:
        raise StoreError("contract: is missing, must be there (null: not known)")
    if body["contract"] is None:
        return None
    try:
        contract.from_data(body["contract"])
    except contract.ContractError as error:
        raise StoreError(str(error)) from error
    return contract.digest_of(body["contract"])


def _migrated(data: dict[str, Any]) -> dict[str, Any]:
    """The data of a file as this format would have it.

    Raises: StoreError for a format that is not known.
    """
    version = data.get("format")
    if type(version) is not int or not 1 <= version <= FORMAT:
        newer = isinstance(version, int) and version > FORMAT
        hint = ": written by a newer version of this program" if newer else ""
        raise StoreError(f"format={version!r}, this version reads formats 1 to {FORMAT}{hint}")
    for migrate in _MIGRATIONS[version - 1 :]:
        data = migrate(data)
    return data


def _from_1(data: dict[str, Any]) -> dict[str, Any]:
    """Format 1 did not keep the contract."""
    added = {"contract_digest": None, "contract": None}
    for name in added:
        if name in data:
            raise StoreError(f"{name}: is no field of format 1")
    return {**data, **added}


_MIGRATIONS: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = (_from_1,)
"""From each format to the next, the oldest first."""


def write(failure: Failure, folder: Path) -> Path:
    """Write a failure under its id, atomically. One that is known keeps its first_seen.

    Raises: ContractError as :func:`to_data` does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{failure.id}.json"
    if path.exists():
        try:
            failure = dataclasses.replace(failure, first_seen=read(path).first_seen)
        except StoreError:
            # Not readable, so there is nothing in it to keep.
            path.replace(path.with_suffix(".unreadable"))
    text = _laid_out(to_data(failure)) + "\n"
    # In the same folder, because a rename is atomic only within one file system.
    with tempfile.NamedTemporaryFile(
        "w", dir=folder, prefix=".", suffix=".tmp", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    Path(file.name).replace(path)
    return path


def _laid_out(value: Any, indent: str = "") -> str:
    """JSON for people: lists and objects that fit a line are on one."""
    line = json.dumps(value, allow_nan=False)
    if not isinstance(value, dict | list) or len(indent) + len(line) <= LINE:
        return line
    inner = indent + " "
    if isinstance(value, dict):
        items = [f"{json.dumps(name)}: {_laid_out(item, inner)}" for name, item in value.items()]
    else:
        items = [_laid_out(item, inner) for item in value]
    return line[0] + ",".join(f"\n{inner}{item}" for item in items) + f"\n{indent}{line[-1]}"


def promote(path: Path, folder: Path = REGRESSIONS, *, force: bool = False) -> Path:
    """Keep a failure for ever: a copy in the folder of regressions, in the newest format.

    A regression must come back whenever its fault does, so one that no run has confirmed is
    refused unless ``force`` is set. What a sanitizer reported may be kept like any other.
    Raises: StoreError for one that cannot be read, is there already, or was not confirmed.
    """
    failure = read(path)
    if failure.confirmed == 0 and not force:
        tried = f"0 of {failure.confirm_runs} runs" if failure.confirm_runs else "not tried"
        raise StoreError(
            f"{path}: confirmed=0, must be >= 1 ({tried}): only what surely comes back is kept"
        )
    for known in _files(folder):
        if _holds(known, failure.id):
            raise StoreError(f"{path}: is kept already, as {known}")
    try:
        return write(failure, folder)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from error


def _holds(path: Path, failure_id: str) -> bool:
    """Whether a file is that failure, under whatever name."""
    try:
        return read(path).id == failure_id
    except StoreError:
        if path.stem == failure_id:
            raise
        # What another file suffers from is for its replay to say.
        return False


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
