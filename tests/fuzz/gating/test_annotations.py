"""Workflow commands are what GitHub parses: one line each, escaped, and no more than it shows."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest

from fuzz.gating.annotations import MOST, workflow_commands
from fuzz.gating.outcome import GateResult, Place
from tests.fuzz.gating.examples import blocked, finding, kernel, pre_existing, result, weakened


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """Level, properties and message, read in the way in which a runner reads them."""
    match = re.fullmatch("::([a-z]+) ([^:\r\n]*)::([^\r\n]*)", line)
    assert match is not None, line
    properties = dict(item.split("=", 1) for item in match[2].split(","))
    return match[1], {k: unquote(v) for k, v in properties.items()}, unquote(match[3])


def levels(shown: GateResult) -> list[str]:
    return [parsed(line)[0] for line in workflow_commands(shown)]


def test_annotation_stands_at_the_kernels_line() -> None:
    (line,) = workflow_commands(result(finding()))
    assert line.startswith(
        "::error file=ln_kernels/layer_norm.py,line=88,"
        "title=ln-fuzz gate%3A introduced in layer_norm::y[3, 768]=1.25"
    )
    shown = finding()
    message = [shown.message, shown.case, shown.detail, "replay: ln-fuzz replay 3f9ac2d41b07"]
    assert parsed(line)[2].splitlines() == message


def test_annotation_without_a_place_has_no_file() -> None:
    (line,) = workflow_commands(result(weakened()))
    assert parsed(line)[1] == {"title": "ln-fuzz gate: weakened contract in layer_norm"}


def test_annotation_levels_tell_what_blocks() -> None:
    shown = result(
        pre_existing(),
        finding("flaky"),
        finding("fixed"),
        finding("accepted"),
        notes=["an entry expired"],
    )
    assert [parsed(line)[0] for line in workflow_commands(shown)] == ["error", "warning", "warning"]
    assert "flaky" in parsed(workflow_commands(shown)[0])[1]["title"]


def test_annotations_tell_errors_of_the_gate_and_kernels_that_spill() -> None:
    lines = [parsed(line) for line in workflow_commands(blocked())]
    assert [line[0] for line in lines] == ["error"] * 3 + ["warning"] * 4
    assert lines[-1][1]["file"] == "ln_kernels/layer_norm.py"
    assert lines[-1][2].startswith("_forward spills 128 bytes")
    first = parsed(workflow_commands(result(finding(), errors=["no base\nat all"]))[0])
    assert first == ("error", {"title": "ln-fuzz gate"}, "no base\nat all")


@pytest.mark.parametrize("text", ["100 % wrong", "a\r\nb", "%0A", "a::b", "x: y, z=1", "::error::"])
def test_annotation_survives_what_the_syntax_is_made_of(text: str) -> None:
    place = Place(f"dir/{text}.py", 3)
    (line,) = workflow_commands(result(finding(message=text, target=text, place=place)))
    level, properties, message = parsed(line)
    assert level == "error"
    assert properties["file"] == place.file
    assert properties["line"] == "3"
    assert properties["title"].endswith(f"in {text}")
    assert message.startswith(f"{text}\n")


def test_annotations_are_no_more_than_github_shows() -> None:
    exact = result(*[finding()] * MOST, *[pre_existing()] * MOST)
    assert levels(exact) == ["error"] * MOST + ["warning"] * MOST
    assert "more" not in workflow_commands(exact)[MOST - 1]
    many = result(*[pre_existing()] * 1500, *[finding()] * (MOST + 1), notes=["n"])
    lines = workflow_commands(many)
    assert levels(many) == ["error"] * MOST + ["warning"] * MOST
    assert parsed(lines[MOST - 1])[2] == "2 more errors are in the summary of this job"
    assert parsed(lines[-1])[2] == "1,492 more warnings are in the summary of this job"


def test_annotations_of_a_clean_gate_are_none() -> None:
    assert workflow_commands(result()) == []
    assert kernel().spilled_bytes == 0
