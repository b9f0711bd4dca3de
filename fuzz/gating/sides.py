"""One state of the sources, as a gate sees it: its kernel process and what targets it has."""

from __future__ import annotations

import re
from pathlib import Path

from fuzz import contract
from fuzz.gating.affected import Known
from fuzz.gating.trial import KernelBench
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
        self.bench = KernelBench(Runner(kernel))
        self.known: dict[str, Known | str] = {}

    def spec(self, name: str) -> TargetSpec | None:
        """The contract of a target that can be had."""
        item = self.known.get(name)
        return item.spec if isinstance(item, Known) else None

    @property
    def names(self) -> tuple[str, ...]:
        """The targets that can be had."""
        return tuple(name for name in self.known if self.spec(name) is not None)

    def defaults(self, device: str) -> tuple[str, ...]:
        """The built-in targets that are fuzzed where none is named.

        Raises: KernelProcessError.
        """
        # Not what torch brings: no change of the repository affects it.
        specs = [spec for name in self.kernel.names() for spec in self.kernel.specs(name)]
        return tuple(spec.name for spec in specs if spec.default and device in spec.devices)

    def read(self, name: str) -> None:
        """Enter every target that a name stands for; where it stands for none, nothing."""
        try:
            if not self._is_there(name):
                return
            specs = self.kernel.specs(file_of(name) or name)
        except KernelProcessError as error:
            self.enter_error(name, self._told(error))
            return
        for spec in specs:
            if name in (spec.name, file_of(name)):
                self._enter(spec)

    def need(self, name: str) -> None:
        """Enter a target on the bench alone, where it is not: it is not one that is compared."""
        if name not in self.known and name not in self.bench.specs:
            asked = Side(self.kernel, self.folder, self.top)
            asked.read(name)
            self.bench.specs |= asked.bench.specs
            self.bench.absent |= asked.bench.absent

    def share_errors(self, other: Side) -> None:
        """Where a file could not be read, say so of each target that the other side has of it."""
        for file, error in list(self.known.items()):
            if not isinstance(error, str) or file != file_of(file):
                continue
            targets = [name for name in other.names if file_of(name) == file]
            if targets:
                del self.known[file]
            for name in targets:
                self.enter_error(name, error)

    def enter_error(self, name: str, error: str) -> None:
        """Enter why a target cannot be had."""
        self.known[name] = error
        self.bench.absent[name] = error.strip().splitlines()[-1].strip()

    def _enter(self, spec: TargetSpec) -> None:
        try:
            fingerprint = self.kernel.fingerprint(spec.name, self.top)
            contract.digest(spec)
        except KernelProcessError as error:
            self.enter_error(spec.name, self._told(error))
        except contract.ContractError as error:
            self.enter_error(spec.name, f"target={spec.name!r}: {error}")
        else:
            self.known[spec.name] = Known(spec, fingerprint)
            self.bench.specs[spec.name] = spec

    def _told(self, error: KernelProcessError) -> str:
        """An error with files named from the top: base's are in a folder that will be gone."""
        lines = str(error).replace(f"{self.top}/", "").splitlines()
        return "\n".join(line for line in lines if '"<frozen importlib' not in line)

    def _is_there(self, name: str) -> bool:
        file = file_of(name)
        return (self.folder / file).is_file() if file else name in self.kernel.names()


def headline(error: str) -> str:
    """The same error, with what its traceback ends with and where in its first line."""
    first, *more = error.strip().splitlines()
    places = re.findall(r'^ *File "(.+)", line (\d+)', error, re.MULTILINE)
    if not more or not places:
        return error
    file, line = places[-1]
    return "\n".join((f"{first.rstrip(':')}: {more[-1].strip()} ({file}, line {line})", *more))


def file_of(name: str) -> str:
    """The file that a target's name begins with; empty for a built-in one."""
    if name.endswith(".py"):
        return name
    head, separator, _ = name.rpartition(".py:")
    return f"{head}.py" if separator else ""
