"""The planted faults: a Python file that lists them, and what is needed of it here."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fuzz.jobs.setup import UsageError

CATALOGUE = Path("tests/faults/catalogue.py")
"""Where a checkout has its faults."""

MODULE = "ln_fuzz_catalogue"
"""The name that a catalogue has as a module; dataclasses look theirs up."""


class PlantedFault(Protocol):
    """One changed spot in a copy of correct kernels: ``old`` in ``file`` becomes ``new``.

    ``kind`` is its class, ``change`` says in words what was changed. ``seen``: "cpu" where the
    strict interpreter shows it, and a GPU perhaps; "gpu" where nothing but a GPU does.
    """

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def target(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def file(self) -> str: ...  # noqa: D102
    @property
    def old(self) -> str: ...  # noqa: D102
    @property
    def new(self) -> str: ...  # noqa: D102
    @property
    def change(self) -> str: ...  # noqa: D102
    @property
    def seen(self) -> str: ...  # noqa: D102


ATTRIBUTES = ("id", "target", "kind", "file", "old", "new", "change", "seen")
PLACES = ("cpu", "gpu")


Plant = Callable[[PlantedFault, Path], Path]
"""Makes a folder with the faulty kernels; the kernel process works in it and imports from it."""


@dataclass(frozen=True)
class Catalogue:
    """The faults of a file, and how they are planted."""

    path: Path
    faults: tuple[PlantedFault, ...]
    plant: Plant

    def fault(self, name: str) -> PlantedFault:
        """The fault of that id.

        Raises: UsageError.
        """
        found = next((fault for fault in self.faults if fault.id == name), None)
        if found is None:
            near = difflib.get_close_matches(name, [fault.id for fault in self.faults])
            hint = f", did you mean {' or '.join(near)}?" if near else ""
            raise UsageError(f"only={name!r}: no such fault in {self.path}{hint}")
        return found

    def chosen(self, only: Sequence[str], kinds: Sequence[str]) -> tuple[PlantedFault, ...]:
        """The faults of these ids and classes, in the order of the file; none named: all.

        Raises: UsageError for an id or a class that is not there, or where nothing is left.
        """
        names = {self.fault(name).id for name in only}
        known = tuple(dict.fromkeys(fault.kind for fault in self.faults))
        for kind in kinds:
            if kind not in known:
                raise UsageError(f"class={kind!r}, must be one of {', '.join(known)}")
        chosen = tuple(
            fault
            for fault in self.faults
            if (not names or fault.id in names) and (not kinds or fault.kind in kinds)
        )
        if not chosen:
            raise UsageError(f"{self.path}: no fault of these ids is of these classes")
        return chosen


def load(path: Path) -> Catalogue:
    """Read a catalogue.

    Raises: UsageError naming the file and what it lacks.
    """
    if not path.is_file():
        raise UsageError(
            f"faults={str(path)!r}: no such file; planted faults come with the sources, so run "
            f"this in a checkout, or name a catalogue with --faults"
        )
    path = path.resolve()
    module = _import(path)
    faults = getattr(module, "CATALOGUE", None)
    if not isinstance(faults, tuple) or not faults:
        raise UsageError(f"{path}: must have a tuple CATALOGUE of faults")
    # Its own, or that of the module which the faults' class is from.
    home = sys.modules.get(type(faults[0]).__module__)
    plant = getattr(module, "plant", getattr(home, "plant", None))
    if not callable(plant):
        raise UsageError(f"{path}: must have a function plant(fault, folder)")
    known: set[str] = set()
    for number, fault in enumerate(faults):
        lacking = [name for name in ATTRIBUTES if not hasattr(fault, name)]
        if lacking:
            raise UsageError(f"{path}: CATALOGUE[{number}] has no {', '.join(lacking)}")
        if fault.seen not in PLACES:
            raise UsageError(
                f"{path}: {fault.id}.seen={fault.seen!r}, must be of {', '.join(PLACES)}"
            )
        if fault.id in known:
            raise UsageError(f"{path}: CATALOGUE has two faults with id={fault.id!r}")
        known.add(fault.id)
    return Catalogue(path, faults, plant)


def _import(path: Path) -> object:
    """The file as a module, with the root of its checkout on the path as its imports expect."""
    root = next((p for p in path.parents if (p / "pyproject.toml").is_file()), path.parent)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    return module


def fingerprint(fault: PlantedFault) -> str:
    """12 hex digits that change with the fault: a result holds for the fault it was measured on."""
    text = "\0".join((fault.target, fault.file, fault.old, fault.new))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_out_of_sight(fault: PlantedFault, device: str) -> bool:
    """Whether nothing on this device shows the fault."""
    return fault.seen == "gpu" and device == "cpu"


def is_expected(fault: PlantedFault, device: str) -> bool:
    """Whether the fault is marked as one that this device shows."""
    return fault.seen == ("cpu" if device == "cpu" else "gpu")
