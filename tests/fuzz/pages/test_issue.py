"""The text of an issue: what is new since the night before, shown and never obeyed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fuzz.history import History, RunInfo
from fuzz.night_commands import report_command
from fuzz.pages.data import PageData, read
from fuzz.pages.issue import MAX_BYTES, issue_text
from fuzz.pages.nights import Night
from tests.fuzz.nights import folders
from tests.fuzz.pages.records import failure_of, night_of, run_of

EVIL = "</h3> @everyone [x](http://e) `a` <img src=x onerror=a> | #1 $x$ \x1b[31m"


def page(*failures: Any, **changes: Any) -> str:
    usual = PageData(nights=(night_of("r0", 18), night_of("r1")), failures=failures)
    return issue_text(replace(usual, **changes))


def test_issue_tells_what_is_new() -> None:
    text = page(failure_of("layer norm"), failure_of("rms norm"))
    assert text.startswith(
        "## ln-fuzz night: 2 new failures\n\nThe night of 19 Nov 2026, 22:00 UTC at 012345678 on "
        "NVIDIA H200: 0 of 900 cases fail\n"
    )
    failure = failure_of("layer norm")
    assert "\n### NEW layer norm\n\ny&#91;0&#93;=1, but should be 2  \n" in text
    assert f"  \nreplay: <code>ln-fuzz replay {failure.id}.json</code>\n" in text
    assert text.count("### NEW") == 2


def test_issue_leaves_out_what_is_known_or_fixed() -> None:
    known = failure_of("known", first_run="r0")
    fixed = failure_of("fixed", fixed_seen="2026-11-19T23:00:00+00:00", fixed_run="r1")
    assert page(known, fixed) == ""
    assert page(known, fixed, failure_of("new")).count("###") == 1


def test_issue_tells_what_is_back() -> None:
    text = page(failure_of("again", first_run="r0"), back=frozenset({"again"}))
    assert text.startswith("## ln-fuzz night: 1 failure back that had passed\n")
    assert "### BACK again\n" in text


def test_issue_says_what_speaks_against_a_failure() -> None:
    failure = failure_of("layer norm")
    flaky = replace(failure, failure=replace(failure.failure, confirmed=1, confirm_runs=3))
    assert "  \nflaky: 1 of 3 runs in a fresh process  \n" in page(flaky)


def test_issue_says_that_shards_are_missing() -> None:
    night = Night((replace(run_of("r1"), shards=3),))
    assert "; 2 shards missing\n" in page(failure_of("a"), nights=(night,))


def test_issue_shows_whatever_it_is_given() -> None:
    text = page(failure_of(EVIL, message=EVIL))
    for mark in ("</h3>", "@everyone", "[x]", "`", "<img", " | ", " #1", "$x", "\x1b"):
        assert mark not in text, mark
    assert "&#64;everyone" in text
    assert text.count("###") == 1


def test_issue_of_very_many_failures_is_cut() -> None:
    text = page(*(failure_of(f"{number} {'@' * 900}", message="<" * 9000) for number in range(99)))
    assert len(text.encode()) <= MAX_BYTES
    left = 99 - text.count("### NEW")
    assert 0 < left < 99
    assert text.endswith(f"\n{left} more are in the report.\n")


def test_report_writes_the_issue_beside_the_page(tmp_path: Path) -> None:
    folders.shard_folder(tmp_path, 1, 1, failure=folders.failure_of())
    report_command(tmp_path / "page.html", tmp_path / "history.sqlite", tmp_path / "issue.md")
    assert (tmp_path / "page.html").stat().st_size > 1000
    assert "1 new failure" in (tmp_path / "issue.md").read_text()


def test_history_knows_what_is_back(tmp_path: Path) -> None:
    failure = folders.failure_of()
    with History(tmp_path / "history.sqlite") as history:
        for night, ends in enumerate((["found"], ["found"], ["fixed"], ["found"], ["found"])):
            run = RunInfo(f"r{night}", "night", 7, "cpu", "machine", 2)
            history.begin(run)
            for end in ends:
                if end == "found":
                    history.found(run.id, failure)
                else:
                    history.fixed(run.id, failure.signature)
            history.end(run.id)
            back = read(tmp_path / "history.sqlite").back
            assert bool(back) == (night == 3), night
    assert issue_text(read(tmp_path / "history.sqlite")) == ""
