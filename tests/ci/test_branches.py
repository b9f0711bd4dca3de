"""The removal of branches: what is found in a module, what is left without it, and who sees it."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest

from ci import branches
from ci.forks import answer_of
from ci.removals import MARK, mark, removals

SOURCE = '''
TABLE = Table((1, "a"), (2, "b"))
NAMES: tuple[str, ...] = ("a", "b")
__all__ = ["f"]

def f(x, *, low: int | None = None):
    """Text."""
    if x > 2 and low:
        x += 1
    elif low < x <= 3:
        del NAMES[0]
    else:
        low = min(x, 3)
    first, second = x, low
    for name in [n for n in NAMES if n]:
        yield {"a": 1, **{}}.get(name, 2) if x else {name} | {x}
    try:
        note(x)
    except ValueError:
        return 1, 2
'''

# What is left of the line, or of the block, that is told.
FOUND = {
    (2, "entry", "(1, 'a')"): "TABLE = Table((2, 'b'))",
    (2, "entry", "(2, 'b')"): "TABLE = Table((1, 'a'))",
    (3, "entry", "'a'"): "NAMES: tuple[str, ...] = ('b',)",
    (3, "entry", "'b'"): "NAMES: tuple[str, ...] = ('a',)",
    (8, "arm", "if x > 2 and low"): "if False:",
    (8, "arm", "else of x > 2 and low"): "if True:",
    (8, "guard", "x > 2"): "if low:",
    (8, "guard", "low"): "if x > 2:",
    (9, "step", "x += 1"): "pass",
    (10, "arm", "if low < x <= 3"): "elif False:",
    (10, "arm", "else of low < x <= 3"): "elif True:",
    (10, "guard", "low < x"): "elif x <= 3:",
    (10, "guard", "x <= 3"): "elif low < x:",
    (11, "step", "del NAMES[0]"): "pass",
    (13, "cap", "x of min(x, 3)"): "low = 3",
    (13, "cap", "3 of min(x, 3)"): "low = x",
    (15, "guard", "if n"): "for name in [n for n in NAMES]:",
    (16, "yield", "yield ({'a': 1, **{}}.get(name, 2) if x else {name} | {x})"): "pass",
    (16, "arm", "{'a': 1, **{}}.get(name, 2) if x"): "yield ({name} | {x})",
    (16, "arm", "{name} | {x} if not x"): "yield {'a': 1, **{}}.get(name, 2)",
    (16, "default", "2 of {'a': 1, **{}}.get(name, 2)"): ".get(name) if x",
    (16, "entry", "'a': 1"): "yield ({**{}}.get(name, 2) if x",
    (16, "entry", "**{}"): "yield ({'a': 1}.get(name, 2) if x",
    (16, "entry", "{name}"): "else {x})",
    (16, "entry", "{x}"): "else {name})",
    (16, "entry", "name"): "else set() | {x})",
    (16, "entry", "x"): "else {name} | set())",
    (17, "handler", "except ValueError: return (1, 2)"): "for name",
    (18, "step", "note(x)"): "pass",
}


def test_removals_are_these() -> None:
    found = [(r.line, r.kind, r.what) for r in removals(ast.parse(SOURCE))]
    # The handler's line is its own.
    assert sorted((k, w) for _, k, w in found) == sorted((k, w) for _, k, w in FOUND)
    assert {r.where for r in removals(ast.parse(SOURCE))} == {"TABLE", "NAMES", "f"}


@pytest.mark.parametrize(("line", "kind", "what"), FOUND)
def test_removal_leaves_the_rest(line: int, kind: str, what: str) -> None:
    tree = ast.parse(SOURCE)
    before = ast.unparse(tree)
    (removal,) = [r for r in removals(tree) if (r.kind, r.what) == (kind, what)]
    removal.edit()
    after = ast.unparse(ast.fix_missing_locations(tree))
    assert after != before
    assert FOUND[line, kind, what] in after
    assert kind != "handler" or "try" not in after
    compile(tree, "<tree>", "exec")


def test_removal_knows_the_block_that_must_be_reached() -> None:
    blocks = {(r.kind, r.what): r.block for r in removals(ast.parse(SOURCE))}
    assert blocks["entry", "'a'"] is None
    assert blocks["arm", "if x > 2 and low"] == 9
    assert blocks["arm", "else of x > 2 and low"] == 10
    assert blocks["arm", "else of low < x <= 3"] == 13
    assert blocks["guard", "x > 2"] == 8
    assert blocks["entry", "{name}"] == 16


def test_marks_tell_the_blocks_that_are_reached() -> None:
    tree = ast.parse("def f(x):\n    'Text.'\n    if x:\n        return 1\n    return 2\n")
    mark(tree, "m")
    reached: set[tuple[str, int]] = set()
    space = {MARK: lambda *block: reached.add(block)}
    exec(compile(tree, "<tree>", "exec"), space)
    f = space["f"]
    assert f.__doc__ == "Text."
    assert (f(0), reached) == (2, {("m", 3)})
    assert (f(1), reached) == (1, {("m", 3), ("m", 4)})


def test_fork_answers_or_is_told_to_have_ended() -> None:
    assert answer_of(lambda: {"a": 1}, seconds=9.0, memory=1 << 40) == {"a": 1}
    assert answer_of(lambda: os._exit(3), seconds=9.0, memory=1 << 40) == {"ended": "with status 3"}
    endless = answer_of(lambda: [None for _ in iter(int, 1)], seconds=0.1, memory=1 << 40)
    assert endless == {"ended": "by its time limit"}


def test_journal_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "branches.jsonl"
    journal = branches.Journal(path)
    journal.add({"name": "a", "verdict": "unseen"})
    journal.add({"name": "a", "verdict": "seen"})
    path.write_text(path.read_text() + '{"name": "b", "verd')
    again = branches.Journal(path)
    assert again.verdicts == {"a": {"name": "a", "verdict": "seen"}}
    again.add({"name": "c", "verdict": "seen"})
    assert set(branches.Journal(path).verdicts) == {"a", "c"}


def test_names_of_branches_are_one_each() -> None:
    _, found = branches.find(["fuzz/space/widths.py", "fuzz/space/recipes.py"])
    names = [branch.name for branch in found]
    assert len(set(names)) == len(names) > 300
    assert {branch.module for branch in found} == {"fuzz.space.widths", "fuzz.space.recipes"}


def test_report_is_0_only_where_all_are_seen(tmp_path: Path) -> None:
    _, found = branches.find(["fuzz/space/choices.py"])
    now = branches.digest()
    seen = {b.name: {"verdict": "seen", "test": "t", "digest": now} for b in found}
    first = found[0].name

    def status(verdicts: dict[str, dict[str, str]], equivalent: dict[str, str], *lost: str) -> int:
        return branches.report(found, verdicts, equivalent, list(lost), tmp_path)

    unseen = {**seen, first: {"verdict": "unseen", "digest": now}}
    assert status(seen, {}) == 0
    assert status(unseen, {}) == 1
    assert found[0].place in (tmp_path / "unseen.txt").read_text()
    assert status(unseen, {first: "why"}) == 0
    # A reason must not outlive what it is about.
    assert status(seen, {first: "why"}) == 1
    assert status(seen, {"gone": "why"}, "gone") == 1
    # Verdicts on other sources are none.
    assert status({**seen, first: {"verdict": "seen", "test": "t", "digest": "old"}}, {}) == 2
    assert len(json.loads((tmp_path / "branches.json").read_text())["branches"]) == len(found)
