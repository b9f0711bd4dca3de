"""An entry of the catalogue of planted faults: a fault, its class, and an input that shows it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.faults.planted import ROOT, TARGET_FILES, Fault

PLAIN_FILES = Path(__file__).parent / "kernels_plain"

Kind = Literal["masks", "strides", "numerics", "semantics", "memory", "special values"]

Place = Literal["cpu", "gpu"]
"""cpu: the strict interpreter shows it, and a GPU may as well; gpu: nothing but a GPU does."""


@dataclass(frozen=True)
class Entry(Fault):
    """A fault with its class. ``change`` says what was changed, ``shows_when`` what it takes.

    ``example`` is the simplest input that shows it, as :mod:`tests.faults.example` reads it.
    """

    kind: Kind
    change: str
    example: Mapping[str, Any]
    seen: Place = "cpu"


def sources_of(fault: Fault) -> Path:
    """The folder with the correct kernels: of target files, or the project's own."""
    if not fault.target.endswith(".py"):
        return ROOT / "ln_kernels"
    return PLAIN_FILES if (PLAIN_FILES / fault.file).is_file() else TARGET_FILES


def plant(fault: Fault, folder: Path) -> Path:
    """``folder``, with a copy of the kernels in it that has the fault.

    It goes on PYTHONPATH, or is the folder to run in where the target is a file.
    """
    sources = sources_of(fault)
    copy = folder if fault.target.endswith(".py") else folder / sources.name
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(sources, copy, ignore=ignore, dirs_exist_ok=True)
    file = copy / fault.file
    text = file.read_text(encoding="utf-8")
    assert text.count(fault.old) == 1, f"{fault.id}: {text.count(fault.old)} places in {fault.file}"
    file.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    return folder
