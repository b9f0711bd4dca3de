"""A backend that imports modules by name, or files by path, and says where they came from."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

from fuzz.fingerprint import Fingerprint
from fuzz.relations import Run
from fuzz.spec import TargetSpec
from fuzz.verdict import Bits, Observation
from tests.fuzz.fake_backend import right, spec_of

BACKEND = "tests.fuzz.importing_backend:ImportingBackend"


class ImportingBackend:
    def __init__(self, device: str) -> None:
        self.device = device

    def names(self) -> tuple[str, ...]:
        return (str(Path.cwd()),)

    def specs(self, name: str) -> tuple[TargetSpec, ...]:
        return (spec_of(self._file(name)),)

    def fingerprint(self, name: str, root: Path) -> Fingerprint:
        return Fingerprint(self._file(name), ())

    def run(self, target: str, run: Run, values: dict[str, Bits]) -> Observation:
        self._file(target)
        return right(run, values)

    def _file(self, name: str) -> str:
        if not name.endswith(".py"):
            return str(importlib.import_module(name).__file__)
        spec = importlib.util.spec_from_file_location(Path(name).stem, name)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # As targets do.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return str(module.__file__)
