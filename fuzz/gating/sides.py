"""One state of the sources, as a gate sees it: its kernel process and what targets it has."""

from __future__ import annotations

from pathlib import Path

from fuzz.gating.affected import Known
from fuzz.gating.trial import Bench
from fuzz.process.kernel_process import KernelProcess, KernelProcessError
from fuzz.runner import Runner
from fuzz.spec import TargetSpec


class Side:
    """Head or base: the targets of a folder, and a bench that runs their cases.

    ``top`` is the top of the repository that ``folder`` is in. ``known`` has what could be read of
    each target, or why nothing could; a target that is not there at all is not in it.
    """

    def __init__(self, kernel: KernelProcess, folder: Path, top: Path) -> None:
        self.kernel = kernel
        self.folder = folder
        self.top = top
        self.bench = Bench(Runner(kernel), {}, {})
        self.known: dict[str, Known | str] = {}

    def spec(self, name: str) -> TargetSpec | None:
        """The contract of a target that can be had."""
        item = self.known.get(name)
        return item.spec if isinstance(item, Known) else None

    def read(self, name: str, *, must: bool) -> None:
        """Enter every target that a name stands for. ``must``: that there is none is an error."""
        if not must and not self._is_there(name):
            return
        try:
            specs = self.kernel.specs(_file(name) or name)
        except KernelProcessError as error:
            self._enter_error(name, error)
            return
        found = [
            spec for spec in specs if spec.name == name or _file(name) == name or not _file(name)
        ]
        if not found and must:
            functions = ", ".join(spec.name.rpartition(":")[2] for spec in specs)
            self.known[name] = f"target={name!r} is no target of its file, must be of {functions}"
        for spec in found:
            try:
                fingerprint = self.kernel.fingerprint(spec.name, self.top)
            except KernelProcessError as error:
                self._enter_error(spec.name, error)
                continue
            self.known[spec.name] = Known(spec, fingerprint)
            self.bench.specs[spec.name] = spec

    def _is_there(self, name: str) -> bool:
        file = _file(name)
        return (self.folder / file).is_file() if file else name in self.kernel.names()

    def _enter_error(self, name: str, error: KernelProcessError) -> None:
        self.known[name] = str(error)
        self.bench.absent[name] = str(error).strip().splitlines()[-1]


def _file(name: str) -> str:
    """The file that a target's name begins with; empty for a built-in one."""
    if name.endswith(".py"):
        return name
    head, separator, _ = name.rpartition(".py:")
    return f"{head}.py" if separator else ""
