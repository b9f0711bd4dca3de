"""Faults of the fake backend: what is planted is the choice of the target itself."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FakeFault:
    target: str
    kind: str
    seen: str = "cpu"
    file: str = "kernel.py"
    old: str = "right"
    new: str = "wrong"
    change: str = "What was right is wrong."

    @property
    def id(self) -> str:
        return f"{self.target}_fault"


CATALOGUE = (
    FakeFault("wrong_tail", "values"),
    FakeFault("right", "values"),
    FakeFault("segfault", "ends"),
    FakeFault("kills_its_engine", "ends"),
    FakeFault("broken_harness", "harness"),
    FakeFault("unsupported", "harness"),
    FakeFault("slow", "harness"),
    FakeFault("ages", "harness", seen="gpu"),
)


def plant(fault: FakeFault, folder: Path) -> Path:
    folder.mkdir()
    return folder
