"""Every entry of the catalogue has its place, changes the code, can be imported and be drawn."""

from __future__ import annotations

import ast
import functools
import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest

from fuzz.case import validate
from fuzz.spec import TargetSpec
from fuzz.targets import load
from tests.faults.catalogue import CATALOGUE
from tests.faults.entry import Entry, Kind
from tests.faults.example import case_of
from tests.faults.planted import plant, sources_of

each_fault = pytest.mark.parametrize("fault", CATALOGUE, ids=lambda fault: fault.id)


@contextmanager
def importable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels are taken from a folder; what other tests have imported comes back."""
    ours = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == "ln_kernels"}
    for name in ours:
        del sys.modules[name]
    try:
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            patch.chdir(folder)
            yield
    finally:
        for name in [n for n in sys.modules if n.partition(".")[0] == "ln_kernels"]:
            del sys.modules[name]
        sys.modules.update(ours)


@functools.cache
def spec_of(target: str) -> TargetSpec:
    return load(target).spec


def test_catalogue_has_sixty_faults_and_several_of_each_class() -> None:
    kinds = Counter(fault.kind for fault in CATALOGUE)
    assert len(CATALOGUE) >= 60
    assert kinds.keys() == set(get_args(Kind))
    assert min(kinds.values()) >= 5, kinds


def test_catalogue_names_each_fault_once() -> None:
    names = Counter(fault.id for fault in CATALOGUE)
    places = Counter((f.target, f.file, f.old, f.new) for f in CATALOGUE)
    assert [name for name, count in names.items() if count > 1] == []
    assert [place for place, count in places.items() if count > 1] == []


@each_fault
def test_planted_kernel_differs_and_can_be_imported(
    fault: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plant(fault, tmp_path / "planted")
    (file,) = folder.rglob(fault.file)
    correct = (sources_of(fault) / fault.file).read_text(encoding="utf-8")
    # Not its comments or its form alone.
    assert ast.dump(ast.parse(file.read_text(encoding="utf-8"))) != ast.dump(ast.parse(correct))
    with importable(folder, monkeypatch):
        if fault.target.endswith(".py"):
            load(fault.target)
        else:
            assert Path(importlib.import_module("ln_kernels").__file__ or "").is_relative_to(folder)


@each_fault
def test_example_is_a_case_of_its_target(fault: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault.target.endswith(".py"):
        monkeypatch.chdir(sources_of(fault))
    case = case_of(spec_of(fault.target), fault.example)
    validate(case)
