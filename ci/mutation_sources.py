"""For a mutation run, a plugin of pytest: tests that edit the source of a module get it unmutated.

Such a test changes one term of a module's text, and would fail with any mutant of that text, having
seen nothing of what it does.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def unmutated_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the source of a mutated module read from the tree that was mutated."""
    get = inspect.getsource
    mutated = Path.cwd()

    def getsource(item: Any) -> str:
        path = Path(inspect.getfile(item)) if isinstance(item, ModuleType) else Path()
        if path.is_relative_to(mutated):
            return (mutated.parent / path.relative_to(mutated)).read_text(encoding="utf-8")
        return get(item)

    monkeypatch.setattr(inspect, "getsource", getsource)
