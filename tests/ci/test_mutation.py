"""The mutation run: which mutants are drawn, and that its settings name what there is."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from ci import mutation

FOUND = {
    Path(name): [f"{name} {i}" for i in range(n)] for name, n in (("a", 7), ("b", 70), ("c", 3))
}


@pytest.mark.parametrize("number", [0, 1, 8, 39, 79, 80, 200])
def test_sample_is_in_proportion(number: int) -> None:
    chosen = mutation.sample(FOUND, number, seed=1)
    assert len(chosen) == min(number, 80)
    for path, names in FOUND.items():
        drawn = [name for name, file in chosen.items() if file == path]
        assert set(drawn) <= set(names)
        assert abs(len(drawn) - len(chosen) * len(names) / 80) < 1.0


def test_sample_depends_on_the_seed_alone() -> None:
    assert mutation.sample(FOUND, 20, seed=1) == mutation.sample(FOUND, 20, seed=1)
    assert mutation.sample(FOUND, 20, seed=1) != mutation.sample(FOUND, 20, seed=2)


def test_settings_name_files_that_are_there() -> None:
    settings = tomllib.loads(mutation.SETTINGS.read_text("utf-8"))["tool"]["mutmut"]
    tests = settings["pytest_add_cli_args_test_selection"][2:]
    for name in (*settings["only_mutate"], *tests, *settings["source_paths"]):
        assert (mutation.ROOT / name).exists()
    assert set(settings["source_paths"]) < set(mutation.COPIED)


def test_missing_mutmut_is_told_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mutmut", None)
    with pytest.raises(SystemExit):
        mutation.main([])
    assert "mutmut is not installed; `make mutation` installs it" in capsys.readouterr().err
