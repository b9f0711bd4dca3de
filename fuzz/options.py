"""What the commands' options have in common: their types, and how their values are read."""

from __future__ import annotations

import enum
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from fuzz import store
from fuzz.jobs.setup import UsageError

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


class Device(enum.StrEnum):
    """Where kernels run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Tool(enum.StrEnum):
    """What kernels may run under: a tool of compute-sanitizer."""

    MEMCHECK = "memcheck"
    RACECHECK = "racecheck"
    INITCHECK = "initcheck"


Targets = Annotated[
    list[str] | None,
    typer.Option("--target", help="A target's name, or path/to/file.py[:function]. Repeatable."),
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="cpu is Triton's interpreter; auto takes a GPU if any.")
]
SanitizerOption = Annotated[
    Tool | None,
    typer.Option("--sanitizer", help="Run the kernels under this tool of compute-sanitizer."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder of journals and failures.")]


def folders(out: Path) -> tuple[Path, ...]:
    """Where failures are looked for by their id."""
    return (out / store.FAILURES, store.REGRESSIONS)


def parse_seconds(text: str) -> float:
    """A length of time such as 90, 90s, 5m or 8h.

    Raises: UsageError.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None or float(match[1]) == 0:
        raise UsageError(f"time={text!r}, must be a length > 0 such as 90s, 5m or 8h")
    return float(match[1]) * UNITS[match[2]]


def parse_fixes(items: list[str]) -> dict[str, str]:
    """NAME=VALUE items by name; what they mean is for the target to say.

    Raises: UsageError.
    """
    fixes: dict[str, str] = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not separator or not name or not value:
            raise UsageError(f"fix={item!r}, must be NAME=VALUE")
        if name in fixes:
            raise UsageError(f"fix={item!r}, but {name} is fixed to {fixes[name]} already")
        fixes[name] = value
    return fixes


def check_at_least(least: int, **values: int | None) -> None:
    """Refuse an option's number that is too small; None is one that was not given.

    Raises: UsageError.
    """
    for name, value in values.items():
        if value is not None and value < least:
            raise UsageError(f"{name}={value}, must be >= {least}")


def check_writable(path: Path, option: str = "json") -> None:
    """Fail early where a result could not be written.

    Raises: UsageError.
    """
    place = path if path.exists() else path.parent
    if path.is_dir() or not os.access(place, os.W_OK):
        raise UsageError(f"{option}={str(path)!r}, must be a file that can be written")
