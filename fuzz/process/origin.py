"""Where a kernel process imports from: a folder before anything else, another work tree never.

The work tree of an earlier commit holds the modules that its targets are to run with. Python would
also find those of the one that the program was called in: by an editable install, by PYTHONPATH, or
because they lie on the path for other reasons.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from fuzz.fingerprint import ADAPTERS, HARNESS, is_under_test

BUILTIN = "fuzz.builtin"
"""The one module of this program that belongs to what is under test."""

KERNELS = Path("ln_kernels")
"""What a folder has beside the adapters where it is a checkout of this project."""

MAINS = ("__main__", "__mp_main__")
"""What the program was called by, which may lie anywhere."""


class Origin:
    """The folder that this process works in, in the work tree that is not the one at ``foreign``.

    ``foreign`` is the top of the other one; what the folder is in has the same layout.
    """

    def __init__(self, folder: Path, foreign: Path | None) -> None:
        self._folder = folder.resolve()
        self._foreign = None if foreign is None else foreign.resolve()
        self._top = self._folder if foreign is None else _top(self._folder)
        self._builtin = self._top / ADAPTERS
        self._has_builtin = self._builtin.is_file() and (self._top / KERNELS).is_dir()
        # Modules that were loaded when they were looked at last.
        self._known = 0

    def enter(self) -> None:
        """Work in the folder, and import from there."""
        os.chdir(self._folder)
        # Here, and not by way of PYTHONPATH: a spawned process takes its parent's path over.
        sys.path[:0] = [str(self._folder), *self._mapped_path()]
        sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a module is to be imported from; None where Python's own way is right.

        Raises: ModuleNotFoundError for a module that nothing but the other work tree has.
        """
        if name == BUILTIN and self._has_builtin:
            return importlib.util.spec_from_file_location(name, self._builtin)
        if self._foreign is None:
            return None
        spec = self._found_by_others(name, path, target)
        if spec is None or not spec.has_location or not spec.origin:
            return spec
        file = Path(spec.origin).resolve()
        if not self._is_foreign(file):
            return spec
        here = self._mapped(file)
        if not here.is_file():
            raise ModuleNotFoundError(f"No module named {name!r} in {self._top}", name=name)
        # A package's modules are then looked for beside it.
        folders = None if spec.submodule_search_locations is None else [str(here.parent)]
        return importlib.util.spec_from_file_location(
            name, here, submodule_search_locations=folders
        )

    def check(self, target: str) -> None:
        """See that nothing under test was imported from the other work tree.

        Raises: ValueError naming the module.
        """
        if self._foreign is None or len(sys.modules) == self._known:
            return
        for name, module in sorted(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and name not in MAINS and self._is_out_of_place(name, Path(file).resolve()):
                raise ValueError(
                    f"target={target!r}: module {name} is imported from {file}, not from the "
                    f"base's work tree {self._top}: a name of a target must be relative, and "
                    f"its imports must not go by absolute paths"
                )
        self._known = len(sys.modules)

    def _is_out_of_place(self, name: str, file: Path) -> bool:
        if name == BUILTIN and self._has_builtin:
            return file != self._builtin
        return self._is_foreign(file)

    def _is_foreign(self, file: Path) -> bool:
        """Whether a file is of the other work tree, and neither installed there nor of HARNESS."""
        if self._foreign is None or file.is_relative_to(self._top):
            return False
        if any(file.is_relative_to(package) for package in HARNESS):
            return False
        return is_under_test(file, self._foreign)

    def _mapped(self, file: Path) -> Path:
        assert self._foreign is not None
        return self._top / file.relative_to(self._foreign)

    def _mapped_path(self) -> list[str]:
        """The folder's counterparts of what lies on the path: those of editable installs too."""
        places = [Path(entry or ".").resolve() for entry in sys.path]
        return [str(self._mapped(place)) for place in places if self._is_foreign(place)]

    def _found_by_others(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return spec
        return None


def _top(folder: Path) -> Path:
    """The top of the work tree that a folder is in, or the folder itself where it is in none."""
    return next((p for p in (folder, *folder.parents) if (p / ".git").exists()), folder)
