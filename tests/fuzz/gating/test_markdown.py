"""The summary page says the verdict first, survives any text, and stays short."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from fuzz.gating.markdown import MAX_BYTES, markdown
from fuzz.gating.outcome import Affected, GateResult
from tests.fuzz.gating.examples import (
    PLAN,
    UNTOUCHED,
    blocked,
    compile_report,
    finding,
    kernel,
    pre_existing,
    result,
)

# Rich brings it: the same rules as GitHub's for what is used here.
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])

# What the page is made of itself; text brings none of its own.
OURS = {"h2", "h3", "p", "br", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "b", "code"}


def tables(page: str) -> list[list[list[str]]]:
    """The cells of each table's rows, as a reader sees them."""
    rendered = READER.render(page)
    assert set(re.findall("<!?(\\w+|-)", rendered)) <= OURS
    return [
        [
            [html.unescape(cell) for cell in re.findall("<t[dh]>(.*?)</t[dh]>", row, re.S)]
            for row in re.findall("<tr>(.*?)</tr>", table, re.S)
        ]
        for table in re.findall("<table>(.*?)</table>", rendered, re.S)
    ]


def titles(page: str) -> list[str]:
    return [line[4:] for line in page.splitlines() if line.startswith("### ")]


def test_markdown_begins_with_the_verdict() -> None:
    lines = markdown(blocked()).splitlines()
    assert lines[0] == "## ln-fuzz gate: BLOCKED: 2 introduced, 1 weakened contract"
    assert f"Plan {PLAN} (1,204 cases, seed 7): 1,204 executed, 31 failing  " in lines


def test_markdown_orders_by_what_a_reader_needs() -> None:
    assert titles(markdown(blocked())) == [
        "Blocking",
        "Notes",
        "Targets",
        "Not blocking",
        "Compiled",
    ]
    assert titles(markdown(result(affected=(), errors=["e"]))) == ["Errors"]


def test_markdown_tells_each_finding_in_a_row() -> None:
    blocking, targets, others = tables(markdown(blocked()))
    assert [row[0] for row in blocking[1:]] == ["introduced", "introduced", "weakened contract"]
    shown = finding()
    assert blocking[1][1] == (f"<b>{shown.signature}</b><br>{shown.message}<br>{shown.detail}")
    assert blocking[1][2:] == [
        shown.case,
        "<code>ln_kernels/layer_norm.py:88</code>",
        "<code>ln-fuzz replay 3f9ac2d41b07</code>",
    ]
    assert [row[0] for row in others[1:]] == ["pre-existing"]
    assert targets[-1] == ["fused_bias_layer_norm", "out", UNTOUCHED]


def test_markdown_tells_targets_that_are_out_by_their_reason() -> None:
    out = tuple(Affected(f"t_{i}", False, UNTOUCHED) for i in range(3))
    assert tables(markdown(result(affected=out)))[0][1:] == [["t_0, t_1, t_2", "out", UNTOUCHED]]


@pytest.mark.parametrize(
    "text",
    [
        "a | b || c",
        "`x` ``y`` ```z```",
        "<script>alert(1)</script> </td></tr> <!-- x",
        "*bold* _it_ ~~gone~~ [a](b) ![c](d) \\| # 1",
        "@someone fixed #12, $x$ & &amp; &#124;",
    ],
)
def test_markdown_shows_text_as_it_is(text: str) -> None:
    shown = result(
        finding(message=text, case=text, signature=text),
        affected=(Affected(text, True, text),),
        errors=[text],
        notes=[text],
    )
    page = markdown(shown)
    blocking, targets = tables(page)
    assert blocking[1][1].startswith(f"<b>{text}</b><br>{text}<br>")
    assert blocking[1][2] == text
    assert targets[1] == [text, "in", text]
    items = re.findall("<li>(.*?)</li>", READER.render(page))
    assert [html.unescape(item) for item in items] == [text, text]
    assert READER.render(page).count("<h3>") == len(titles(page)) == 4


def test_markdown_of_text_with_breaks_and_controls_keeps_its_rows() -> None:
    page = markdown(result(finding(message="one\r\ntwo\n\n| three \x00\x1b[31m\ud800")))
    assert "one<br>two<br><br>| three \ufffd\ufffd[31m\ufffd<br>" in tables(page)[0][1][1]
    page.encode("utf-8")


def flood() -> GateResult:
    message = "ü|`" * 400
    return result(
        *[finding(message=message) for _ in range(2000)],
        *[pre_existing() for _ in range(2000)],
        errors=["e" * 5000] * 900,
        notes=["n" * 300] * 900,
        affected=tuple(Affected(f"target_{i}", i < 900, f"reason {i}") for i in range(1800)),
        compiled=replace(compile_report(), kernels=(kernel(spilled_bytes=4),) * 900),
    )


def test_markdown_stays_below_its_limit_and_says_what_is_left_out() -> None:
    page = markdown(flood())
    assert MAX_BYTES * 0.8 < len(page.encode("utf-8")) <= MAX_BYTES
    sections = re.split("^### ", page, flags=re.M)[1:]
    totals = {
        "Errors": 900,
        "Blocking": 2000,
        "Notes": 900,
        "Targets": 1800,
        "Not blocking": 2000,
        # The sum comes first.
        "Compiled": 901,
    }
    assert [section.splitlines()[0] for section in sections] == list(totals)
    for section in sections:
        name, *lines = section.splitlines()
        rows = [line for line in lines if line.startswith(("- ", "| "))]
        rows = rows[2:] if rows[0].startswith("|") else rows
        assert rows, name
        left = re.search("^([0-9,]+) more left out here", section, re.M)
        assert left is not None, name
        assert len(rows) + int(left[1].replace(",", "")) == totals[name]


def test_markdown_leaves_room_that_one_part_does_not_need_to_the_next() -> None:
    page = markdown(replace(flood(), errors=[], notes=[]))
    assert MAX_BYTES * 0.8 < len(page.encode("utf-8")) <= MAX_BYTES
