"""A target is affected where its code or its contract is another, and the reason says where."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from fuzz.fingerprint import Fingerprint, Part
from fuzz.gating.affected import NAMED, Known, affected
from fuzz.spec import Space, TargetSpec
from oracle.arithmetic import Arithmetic
from tests.fuzz.fake_backend import spec_of

SPEC = spec_of("right")


def known(spec: TargetSpec = SPEC, /, **digests: str) -> Known:
    """A target of definitions with these digests, in a file ``norm.py``."""
    parts = tuple(Part(f"norm:{n}", "norm.py", 1, 2, d, False) for n, d in digests.items())
    return Known(spec, Fingerprint(repr(sorted(digests.items())), parts))


def whole(*parts: tuple[str, str]) -> Known:
    """The same of parts by name, which need not be one of Python's."""
    return known(**dict(parts))


def reason(base: Known | str, head: Known | str) -> tuple[bool, str]:
    (found,) = affected({"right": base}, {"right": head})
    assert found.target == "right"
    return found.included, found.reason


@pytest.mark.parametrize(
    ("base", "head", "words"),
    [
        (known(f="1", g="1"), known(f="2", g="1"), "norm.py:f changed"),
        (known(f="1"), known(f="1", g="1"), "norm.py:g is new"),
        (known(f="1", g="1"), known(f="1"), "norm.py:g is gone"),
        (
            known(f="1", g="1", h="1"),
            known(f="2", g="2", h="1"),
            "2 of 3 definitions changed: norm.py:f, norm.py:g",
        ),
        (whole(("*", "1")), whole(("*", "2")), "norm.py changed"),
        (whole(("*", "1"), ("f", "1")), whole(("*", "2"), ("f", "2")), "norm.py:f changed"),
    ],
)
def test_affected_by_code_names_the_definitions(base: Known, head: Known, words: str) -> None:
    assert reason(base, head) == (True, words)


def test_affected_by_much_code_gives_the_number() -> None:
    names = [f"f{n}" for n in range(NAMED + 2)]
    words = reason(known(**dict.fromkeys(names, "1")), known(**dict.fromkeys(names, "2")))[1]
    listed = ", ".join(f"norm.py:{name}" for name in names[:NAMED])
    assert words == f"{len(names)} of {len(names)} definitions changed: {listed} and 2 more"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": Space(max_cols=7)}, "contract changed: space"),
        (
            {"arithmetic": Arithmetic(variance="one_pass"), "repeatable": False},
            "contract changed: arithmetic, repeatable",
        ),
    ],
)
def test_affected_by_the_contract_names_the_fields(changes: dict[str, object], words: str) -> None:
    spec = replace(SPEC, **changes)  # type: ignore[arg-type]
    assert set(changes) <= {field.name for field in fields(TargetSpec)}
    assert reason(known(f="1"), known(spec, f="1")) == (True, words)
    both = f"norm.py:f changed; {words}"
    assert reason(known(f="1"), known(spec, f="2")) == (True, both)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (known(f="1", g="1"), "none of the 2 definitions that it uses changed"),
        (known(f="1"), "the one definition that it uses is unchanged"),
        (known(), "nothing that it uses is part of the repository"),
    ],
)
def test_affected_is_nothing_that_is_as_it_was(target: Known, words: str) -> None:
    assert reason(target, target) == (False, words)
    described = replace(target, spec=replace(SPEC, description="in other words"))
    assert reason(target, described) == (False, words)


def test_affected_is_what_one_side_cannot_be_asked_for() -> None:
    target = known(f="1")
    assert reason("no such file", target) == (True, "base cannot be read: no such file")
    assert reason(target, "a typo") == (True, "head cannot be read: a typo")
    assert reason("no such file", "a typo") == (True, "head cannot be read: a typo")
    text = "target='a.py' cannot be imported:\n  File 'a.py', line 1\nImportError: no b"
    words = "target='a.py' cannot be imported: ImportError: no b"
    assert reason(text, target) == (True, f"base cannot be read: {words}")


def test_affected_has_every_target_of_either_side() -> None:
    target = known(f="1")
    found = affected(
        {"old": target, "kept": target, "lost": "broken"}, {"new": target, "kept": target}
    )
    assert [(a.target, a.included, a.reason) for a in found] == [
        ("new", True, "new target"),
        ("kept", False, "the one definition that it uses is unchanged"),
        ("old", True, "gone on head"),
        ("lost", True, "gone on head"),
    ]
