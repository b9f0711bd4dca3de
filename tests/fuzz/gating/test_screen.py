"""What the gate prints can be read on 80 columns, without colours, and ends with the verdict."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fuzz.gating.outcome import Affected, GateResult
from fuzz.gating.screen import MOST_CONCERNS, MOST_OF_A_KIND, print_gate
from fuzz.gating.wording import KINDS, PLURALS, SINGULARS, verdict
from tests.fuzz.gating.examples import (
    PLAN,
    REASON,
    UNTOUCHED,
    blocked,
    compile_report,
    finding,
    kernel,
    pre_existing,
    result,
    weakened,
)


def printed(shown: GateResult, **how: Any) -> list[str]:
    buffer = io.StringIO()
    print_gate(Console(file=buffer, highlight=False, **{"width": 80, **how}), shown)
    return buffer.getvalue().splitlines()


# --- the verdict ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (blocked(), "BLOCKED: 2 introduced, 1 weakened contract"),
        (result(), "MERGE: 1,204 cases of 3 targets, no introduced failure"),
        (
            result(pre_existing(), finding("accepted"), finding("accepted")),
            "MERGE: 1,204 cases of 3 targets, no introduced failure; 1 pre-existing, 2 accepted",
        ),
        (
            result(executed=0, affected=(Affected("layer_norm", False, UNTOUCHED),)),
            "MERGE: no target is affected, 12 stored failures replayed",
        ),
        (result(errors=["no case was executed"]), "NO VERDICT: no case was executed"),
        (
            result(finding(), errors=["my.py cannot be imported:\nSyntaxError", "b", "c"]),
            "NO VERDICT: my.py cannot be imported (and 2 more errors); so far 1 introduced",
        ),
    ],
)
def test_verdict_is_the_last_line_and_says_why(shown: GateResult, line: str) -> None:
    assert printed(shown)[-1] == line


def test_verdict_is_one_line_however_long_the_error() -> None:
    line = verdict(result(errors=["x" * 5000]))
    assert len(line) < 400
    assert line.endswith("x...")


def test_verdict_names_every_kind_that_blocks_alone_and_in_numbers() -> None:
    for kind in KINDS:
        shown = finding(kind)
        for count in (1, 2):
            line = verdict(result(*[shown] * count))
            assert line.startswith("BLOCKED" if shown.blocks else "MERGE")
            words = SINGULARS.get(kind, kind) if count == 1 else PLURALS.get(kind, kind)
            assert line.endswith(f"{count} {words}")


@pytest.mark.parametrize(
    ("shown", "style"), [(blocked(), "31"), (result(), "32"), (result(errors=["e"]), "35")]
)
def test_verdict_has_the_colour_of_the_exit_code(shown: GateResult, style: str) -> None:
    last = printed(shown, force_terminal=True, color_system="standard")[-1]
    assert last.startswith(f"\x1b[1;{style}m")


def test_screen_without_a_terminal_has_no_escapes() -> None:
    assert not re.search("[^ -~]", "".join(printed(blocked())))


# --- what is above it -----------------------------------------------------------------------------


def test_screen_says_which_targets_are_in_and_why() -> None:
    lines = printed(blocked())
    assert f"in     layer_norm             {REASON}" in lines
    assert f"out    fused_bias_layer_norm  {UNTOUCHED}" in lines
    plan = f"plan   {PLAN} (1,204 cases, seed 7): 1,204 executed, 31 failing"
    assert plan in lines


def test_screen_sums_up_many_targets_that_are_out() -> None:
    out = tuple(Affected(f"t{i}", False, UNTOUCHED if i else "it is new") for i in range(9))
    lines = printed(result(affected=out))
    assert [line for line in lines if line.startswith("out")] == [
        "out    1 target: it is new",
        f"out    8 targets: {UNTOUCHED}",
    ]


def test_screen_shows_what_blocks_first_and_each_with_its_replay() -> None:
    lines = printed(blocked())
    heads = [line for line in lines if re.match("[A-Za-z-]+( [A-Z]+)? layer_norm /", line)]
    assert [line.partition(" layer")[0] for line in heads] == [
        "INTRODUCED",
        "INTRODUCED",
        "WEAKENED CONTRACT",
        "pre-existing",
    ]
    first = lines.index(heads[0])
    shown = finding()
    assert lines[first + 1 : first + 6] == [
        f"  {shown.message}",
        f"  {shown.case}",
        f"  {shown.detail}",
        "  at ln_kernels/layer_norm.py:88",
        "  replay: ln-fuzz replay 3f9ac2d41b07",
    ]
    # Nothing to replay, no place, no case: no empty lines in their stead.
    contract = lines.index(heads[2])
    assert lines[contract + 1 : contract + 3] == [f"  {weakened().message}", heads[3]]


def test_screen_names_the_folder_in_which_replay_finds_a_failure() -> None:
    lines = printed(result(finding(), store=Path("my out")))
    assert "  replay: ln-fuzz replay 3f9ac2d41b07 --out 'my out'" in lines


def test_screen_shows_many_findings_of_a_kind_in_one_line_each() -> None:
    many = [finding(failure=f"{i:012x}") for i in range(MOST_OF_A_KIND + 5)]
    lines = printed(result(*many, weakened()))
    assert sum(line.startswith("INTRODUCED") for line in lines) == MOST_OF_A_KIND
    also = [line for line in lines if line.startswith("also")]
    assert len(also) == 5
    assert also[0].endswith(f"replay: ln-fuzz replay {MOST_OF_A_KIND:012x}")
    # Another kind is whole again.
    assert f"  {weakened().message}" in lines


def test_screen_takes_messages_for_text_and_not_for_markup() -> None:
    message = "x[/]=[bold red]nan :smile: \\[x]"
    assert f"  {message}" in printed(result(finding(message=message)))


def test_screen_tells_what_compiling_gave() -> None:
    lines = printed(result(compiled=compile_report()))
    told = next(i for i, line in enumerate(lines) if line.startswith("compiled"))
    assert lines[told] == (
        "compiled 1 of 2 specialisations for cuda 90, cuda 80, hip gfx942, cuda 100 in 12 s: "
        "1 failed, 1 spilling registers, 1 over the shared memory"
    )
    assert "70,000 bytes of shared memory, has 65,536 on hip gfx942" in lines[told + 1]
    assert "spills 128 bytes a thread on cuda 80" in lines[told + 2]


def test_screen_shows_the_worst_spills_and_counts_the_others() -> None:
    many = tuple(kernel(spilled_bytes=8 * i) for i in range(MOST_CONCERNS + 4))
    shown = replace(compile_report(), kernels=many)
    lines = [line for line in printed(result(compiled=shown)) if line.startswith("  ")]
    assert len(lines) == MOST_CONCERNS + 1
    assert f"spills {8 * (MOST_CONCERNS + 3)} bytes" in lines[0]
    assert lines[-1] == "  and 3 more like these"


def test_screen_shows_notes_and_errors_whole() -> None:
    lines = printed(result(errors=["first\n  detail", "second"], notes=["an entry expired"]))
    for line in ("note   an entry expired", "ERROR  first", "  detail", "ERROR  second"):
        assert line in lines
