"""What a side has of targets, and how it tells why it has not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuzz.fingerprint import Fingerprint
from fuzz.gating.sides import Side, file_of, headline
from fuzz.process.kernel_process import KernelProcessError
from fuzz.spec import TargetSpec
from tests.fuzz.builders import LAYER_NORM, NATIVE


class Kernel:
    """A kernel process that knows a file with two targets, and a built-in one."""

    def __init__(self, **errors: str) -> None:
        self._errors = errors
        self.broken = ""

    def names(self) -> tuple[str, ...]:
        if self.broken:
            raise KernelProcessError(self.broken)
        return ("layer_norm", "other")

    def specs(self, name: str) -> tuple[TargetSpec, ...]:
        if name in self._errors:
            raise KernelProcessError(self._errors[name])
        if not name.endswith(".py"):
            return (replace(LAYER_NORM, name=name, default=name != "other"),)
        return tuple(replace(NATIVE, name=f"{name}:{one}") for one in ("one", "two"))

    def fingerprint(self, name: str, root: Path) -> Fingerprint:
        if name in self._errors:
            raise KernelProcessError(self._errors[name])
        return Fingerprint("1", ())


def side(folder: Path, **errors: str) -> Side:
    (folder / "a.py").touch()
    kernel: Any = Kernel(**errors)
    return Side(kernel, folder, folder)


def test_side_reads_all_of_a_file_or_what_is_named(tmp_path: Path) -> None:
    whole, one, nothing = side(tmp_path), side(tmp_path), side(tmp_path)
    whole.read("a.py")
    assert whole.names == ("a.py:one", "a.py:two")
    assert whole.bench.specs.keys() == set(whole.names)
    one.read("a.py:two")
    one.read("layer_norm")
    assert one.names == ("a.py:two", "layer_norm")
    for name in ("a.py:three", "b.py", "b.py:one", "rms_norm"):
        nothing.read(name)
    assert nothing.known == {}


def test_side_tells_why_a_target_cannot_be_had(tmp_path: Path) -> None:
    text = f'cannot be imported:\n  File "{tmp_path}/a.py", line 3\nSyntaxError: invalid syntax'
    broken = side(tmp_path, **{"a.py": text})
    broken.read("a.py")
    assert broken.names == ()
    # The folder will be gone when this is read.
    told = 'cannot be imported:\n  File "a.py", line 3\nSyntaxError: invalid syntax'
    assert broken.known == {"a.py": told}
    assert broken.bench.absent == {"a.py": "SyntaxError: invalid syntax"}
    half = side(tmp_path, **{"a.py:one": "no source"})
    half.read("a.py")
    assert half.known["a.py:one"] == half.bench.absent["a.py:one"] == "no source"
    assert half.names == ("a.py:two",)


def test_side_with_a_program_that_cannot_begin_has_nothing(tmp_path: Path) -> None:
    broken = side(tmp_path)
    broken.kernel.broken = "no kernel process can be started"  # type: ignore[attr-defined]
    broken.read("layer_norm")
    assert broken.known == {"layer_norm": "no kernel process can be started"}
    with pytest.raises(KernelProcessError):
        broken.defaults("cpu")


def test_side_tells_of_a_contract_that_cannot_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = replace(LAYER_NORM.space, max_cols=np.int64(7))  # type: ignore[arg-type]
    found = side(tmp_path)
    monkeypatch.setattr(found.kernel, "specs", lambda name: (replace(LAYER_NORM, space=odd),))
    found.read("layer_norm")
    error = found.known["layer_norm"]
    assert isinstance(error, str)
    assert error.startswith("target='layer_norm': contract.space.max_cols=")


def test_side_shares_the_error_of_a_file_with_the_targets_of_the_other(tmp_path: Path) -> None:
    base, head = side(tmp_path, **{"a.py": "broken"}), side(tmp_path)
    for each in (base, head):
        each.read("a.py")
    base.share_errors(head)
    head.share_errors(base)
    assert base.known == {"a.py:one": "broken", "a.py:two": "broken"}
    assert base.bench.absent.keys() >= {"a.py:one", "a.py:two"}
    assert head.names == ("a.py:one", "a.py:two")
    # Where neither can be read, the file speaks for itself.
    other = side(tmp_path, **{"a.py": "broken too"})
    other.read("a.py")
    alone = side(tmp_path, **{"a.py": "broken"})
    alone.read("a.py")
    alone.share_errors(other)
    assert alone.known == {"a.py": "broken"}


def test_side_needs_a_target_without_comparing_it(tmp_path: Path) -> None:
    found = side(tmp_path, **{"b.py": "broken"})
    (tmp_path / "b.py").touch()
    found.need("a.py:one")
    found.need("b.py:one")
    found.need("c.py:one")
    assert found.known == {}
    assert found.bench.specs.keys() == {"a.py:one"}
    assert found.bench.absent == {"b.py:one": "broken"}


def test_side_has_default_targets_of_a_device(tmp_path: Path) -> None:
    assert side(tmp_path).defaults("cpu") == ("layer_norm",)
    assert side(tmp_path).defaults("tpu") == ()


def test_headline_has_what_an_error_ends_with_and_where() -> None:
    text = 'cannot be imported:\n  File "a.py", line 1\n  File "b.py", line 3\nValueError: no'
    assert headline(text).splitlines()[0] == "cannot be imported: ValueError: no (b.py, line 3)"
    assert headline(text).splitlines()[1:] == text.splitlines()[1:]
    assert headline("it is not there") == "it is not there"


def test_file_of_a_target_is_empty_for_a_built_in_one() -> None:
    assert [file_of(name) for name in ("a/b.py", "a/b.py:c", "layer_norm")] == [
        "a/b.py",
        "a/b.py",
        "",
    ]
