"""The page says the verdict first, survives any text, is valid, and stays small."""

from __future__ import annotations

import base64
import hashlib
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuzz.cells import Cell
from fuzz.history import History, HistoryError, RunInfo, SpreadSum
from fuzz.history.records import RowSum
from fuzz.jobs.maps import FailureMap
from fuzz.jobs.setup import UsageError
from fuzz.jobs.totals import CellSum
from fuzz.pages.data import PageData, read
from fuzz.pages.failures import MOST_FIXED, MOST_LINES, MOST_OPEN
from fuzz.pages.nights import Night
from fuzz.pages.page import MAX_BYTES, render, write_report
from tests.fuzz.pages import reader
from tests.fuzz.pages.example import NOW, story, write_history
from tests.fuzz.pages.records import failure_of, night_of, run_of

HOSTILE = "</script></style><img src=x onerror=alert(1)> \"'&amp; \u202eesrever\x00\x1b[31m\ud800"
HOSTILE_SEEN = (
    "</script></style><img src=x onerror=alert(1)> \"'&amp; \ufffdesrever\ufffd\ufffd[31m\ufffd"
)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    history = tmp_path_factory.mktemp("example") / "history.sqlite"
    write_history(history, cases=3000)
    return history


@pytest.fixture(scope="module")
def page(example: Path) -> str:
    return render(read(example), NOW)


def shown(data: PageData) -> Any:
    return reader.parsed(render(data, NOW))


def heading(data: PageData) -> tuple[str, str]:
    title = reader.one(shown(data), "h1")
    return title.get("class"), reader.words(title)


def warnings(data: PageData) -> list[str]:
    (found,) = reader.all_of(shown(data), "ul", "warnings") or [None]
    return [] if found is None else [reader.words(item) for item in reader.all_of(found, "li")]


# --- the verdict ----------------------------------------------------------------------------------


def test_page_begins_with_the_verdict(page: str) -> None:
    root = reader.parsed(page)
    assert reader.words(reader.one(root, "h1")) == "2 open failures, 1 of them new"
    title = reader.all_of(reader.one(root, "head"), "title")[0]
    assert reader.words(title) == "2 open failures, 1 of them new - ln-fuzz"
    header = reader.words(reader.one(root, "header"))
    assert re.search(r"6 nights since 15 Nov, [\d,]+ cases", header)
    assert re.search(r"Last night, 20 Nov 2026, 22:00 UTC: [\d,]+ cases, [\d,]+ failing", header)
    assert "on NVIDIA H200 with 16 runners, 2 shards." in header


def test_verdict_without_a_failure_is_good() -> None:
    fixed = failure_of("a", fixed_seen="2026-11-20T22:00:00+00:00", fixed_run="r2")
    data = PageData(nights=(night_of("r1"), night_of("r2", day=20)), failures=(fixed,))
    assert heading(data) == ("good", "No open failure")


def test_verdict_of_one_new_failure_says_so() -> None:
    data = PageData(nights=(night_of("r1"),), failures=(failure_of("a"),))
    assert heading(data) == ("bad", "1 open failure, new")


def test_verdict_of_old_failures_calls_none_new() -> None:
    nights = (night_of("r1"), night_of("r2", day=20))
    data = PageData(nights=nights, failures=(failure_of("a"), failure_of("b")))
    assert heading(data) == ("bad", "2 open failures")


def test_verdict_of_an_empty_history_is_no_pass() -> None:
    assert heading(PageData()) == ("doubt", "No night yet")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ended": None, "outcome": None}, "It has not ended"),
        ({"outcome": "killed"}, "It was killed before its end"),
        ({"outcome": "interrupted"}, "It was interrupted before its end"),
        ({"shards": 3}, "2 of 3 shards did not report"),
        ({"executed": 0}, "No case was executed"),
        ({"faulty": 4}, "4 errors of the tool itself"),
        ({"notes": ("3 cells were not hit",)}, "3 cells were not hit"),
    ],
)
def test_verdict_of_a_doubtful_night_is_no_pass(changes: dict[str, Any], said: str) -> None:
    data = PageData(nights=(Night((replace(run_of("r1"), **changes),)),))
    assert heading(data) == ("doubt", "No open failure")
    assert any(said in warning for warning in warnings(data))


def test_verdict_of_a_plain_night_has_no_warning() -> None:
    assert warnings(PageData(nights=(night_of("r1"),))) == []


def test_page_says_what_changed_since_the_night_before(page: str) -> None:
    said = reader.words(reader.section(reader.parsed(page), "failures"))
    assert "New since the night before: revision 5c0de77f3 → e8127ab99" in said
    assert "triton 3.6.0 → 3.9.0." in said


# --- failures -------------------------------------------------------------------------------------


def test_page_shows_each_failure_with_what_is_needed_to_see_it_again(page: str) -> None:
    new, old, fixed = reader.all_of(reader.parsed(page), "article", "failure")
    assert [reader.words(reader.one(a, "b", "badge")) for a in (new, old, fixed)] == [
        "new",
        "open",
        "fixed",
    ]
    faults = {fault.failure.signature.target: fault for fault in story()}
    for article, target in ((new, "layernorm_fn"), (old, "triton_layer_norm")):
        said, fault = reader.words(article), faults[target]
        assert fault.failure.message in said
        assert f"ln-fuzz replay {fault.failure.id[:6]}" in said
        assert "Smallest case" in said and f"{target} x[" in said
        assert len(reader.all_of(article, "svg")) == 1
    assert "flaky: 2 of 3 runs in a fresh process" in reader.words(new)
    assert "17 Nov 2026" in reader.words(old) and "in 4 runs" in reader.words(old)
    assert "at 91ad0f4c2, did not see it" in reader.words(old)
    assert "passed on 19 Nov 2026" in reader.words(fixed)
    assert not reader.all_of(fixed, "svg")


def test_page_tells_ids_apart_that_begin_alike() -> None:
    failures = (failure_of("a", id="abcdef123456"), failure_of("b", id="abcdef9999"))
    data = PageData(nights=(night_of("r1"),), failures=failures)
    replays = [reader.words(code) for code in reader.all_of(shown(data), "code", "replay")]
    assert replays == ["ln-fuzz replay abcdef1", "ln-fuzz replay abcdef9"]


def test_page_says_how_many_failures_are_left_out() -> None:
    still = [failure_of(f"open {i}") for i in range(MOST_OPEN + MOST_LINES + 7)]
    fixed = [
        failure_of(f"fixed {i}", fixed_seen="2026-11-20T22:00:00+00:00", fixed_run="r1")
        for i in range(MOST_FIXED + 5)
    ]
    root = shown(PageData(nights=(night_of("r1"),), failures=(*still, *fixed)))
    said = reader.words(reader.section(root, "failures"))
    assert heading(PageData(failures=tuple(still), nights=(night_of("r1"),)))[1].startswith("147 ")
    assert len(reader.all_of(root, "article", "open")) == MOST_OPEN
    assert f"{MOST_LINES} more open failures" in said
    assert "7 more open failures are left out here" in said
    assert "5 more that were fixed earlier are left out here" in said


# --- what it is made of ---------------------------------------------------------------------------


def test_page_of_an_empty_history_is_valid() -> None:
    root = shown(PageData())
    assert "The history is empty." in reader.words(reader.one(root, "header"))


def test_page_holds_any_text_as_text() -> None:
    run = replace(
        run_of("r1"),
        kind=HOSTILE,
        device_name=HOSTILE,
        revision=HOSTILE,
        versions={HOSTILE: HOSTILE},
        notes=(HOSTILE,),
        part_seconds={HOSTILE: 1.0},
        started=HOSTILE,
    )
    picture = FailureMap(2, 2, ((0.5, 3.0), (0.5, 0.5)), None, HOSTILE)
    failure = failure_of(HOSTILE, message=HOSTILE, map=picture, region=HOSTILE)
    cell = Cell(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    spread = (SpreadSum(HOSTILE, HOSTILE, HOSTILE, {0: 3, 5: 1}, 1.1),)
    data = PageData(
        nights=(Night((run_of("r0"),)), Night((run,))),
        rows=(RowSum(HOSTILE, HOSTILE, 4, 1, 0), RowSum("plain", "float32", 1, 0, 0)),
        spread=spread,
        last_spread=spread,
        cells={str(cell): CellSum(4, 1, 3.0)},
        widths={(HOSTILE, 5, 8): CellSum(4, 1, 3.0)},
        failures=(failure, failure_of("b", failed_by=HOSTILE)),
    )
    text = render(data, NOW)
    root = reader.parsed(text)
    for place in ("failures", "distribution", "cells", "widths", "nights", "environment"):
        assert HOSTILE_SEEN in reader.words(reader.section(root, place)), place
    text.encode("utf-8")
    assert "\u202e" not in text and "\x1b" not in text
    # Ours alone: one script, one style.
    assert len(reader.all_of(root, "script")) == len(reader.all_of(root, "style")) == 1


def test_page_lets_a_browser_run_only_what_is_its_own(page: str) -> None:
    root = reader.parsed(page)
    (policy,) = (
        meta.get("content", "")
        for meta in reader.all_of(root, "meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; ")
    for kind in ("script", "style"):
        text = "".join(reader.one(root, kind).itertext())
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_page_loads_nothing(page: str) -> None:
    root = reader.parsed(page)
    links = {element.get("href") for element in root.iter()} - {None}
    assert {link for link in links if not link.startswith("#")} == {"data:,"}
    assert "url(" not in page and "@import" not in page and "://" not in page


def test_page_links_lead_to_its_sections(page: str) -> None:
    root = reader.parsed(page)
    ids = {element.get("id") for element in root.iter()}
    assert {link.get("href", "")[1:] for link in reader.all_of(root, "a")} <= ids


def test_page_tells_each_picture_in_words(page: str) -> None:
    pictures = reader.all_of(reader.parsed(page), "svg")
    assert len(pictures) > 10
    for picture in pictures:
        assert picture.get("role") == "img"
        assert reader.name(picture[0]) == "title"
        assert re.search(r"\d", reader.words(picture[0]))


# --- its size -------------------------------------------------------------------------------------


def test_page_of_a_million_cases_is_small(tmp_path: Path) -> None:
    history = tmp_path / "history.sqlite"
    write_history(history, nights=8, cases=105_000)
    with closing(sqlite3.connect(history)) as database:
        assert database.execute("SELECT sum(executed) FROM runs").fetchone()[0] >= 1_000_000
    write_report(history, tmp_path / "report.html", now=NOW)
    assert (tmp_path / "report.html").stat().st_size < MAX_BYTES / 4


def test_page_stays_below_its_limit_whatever_the_history() -> None:
    random = np.random.default_rng(0)
    targets = [f"{'<&' * 60}{i}" for i in range(60)]
    dtypes = [f"float{i}<&" for i in range(6)]
    # Noise has the largest picture.
    noise = 10 ** random.uniform(-2, 5, (32, 96))
    picture = FailureMap(32, 96, tuple(map(tuple, noise.tolist())), 2, "<&" * 200)
    failures = [
        failure_of(f"{'<&' * 300}{i}", message="<&" * 2000, map=picture, fixed_seen=seen)
        for seen in (None, "2026-11-20T22:00:00+00:00")
        for i in range(300)
    ]
    bins = dict.fromkeys(range(-1000, 1000, 7), 5)
    spread = tuple(
        SpreadSum(target, dtype, output, bins, 9.0)
        for target in targets
        for dtype in dtypes
        for output in ("y", "mean", "rstd")
    )
    cells = {
        str(Cell(target, dtype, f"tail<{i}", f"layout<{i}", f"family<{i}", "-")): CellSum(9, 1, 3.0)
        for target in targets
        for dtype in dtypes
        for i in range(40)
    }
    widths = {
        (target, 1 + n * n, 128): CellSum(5, 1, 7.0) for target in targets for n in range(200)
    }
    runs = [
        replace(run_of(f"r{i}"), shard=i, notes=("<&" * 999,) * 40, versions={"<&" * 90: "<&" * 90})
        for i in range(100)
    ]
    data = PageData(
        nights=tuple(Night((run,)) for run in runs),
        rows=tuple(RowSum(t, d, 9, 1, 0) for t in targets for d in dtypes),
        spread=spread,
        last_spread=spread,
        cells=cells,
        widths=widths,
        failures=tuple(failures),
    )
    text = render(data, NOW)
    assert len(text.encode()) < MAX_BYTES
    said = reader.words(reader.parsed(text))
    assert "targets with the fewest cases are left out here and below" in said
    assert "70 earlier nights are left out here" in said
    assert "No picture: the page has too many of them." in said


def test_page_that_is_too_large_has_fewer_targets(
    example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read(example)
    whole = render(data, NOW)
    widths = reader.section(reader.parsed(whole), "widths")
    assert len(reader.all_of(widths, "svg")) == 3
    monkeypatch.setattr("fuzz.pages.page.MAX_BYTES", len(whole.encode()) - 1)
    monkeypatch.setattr("fuzz.pages.page.MOST_TARGETS", (3, 1))
    page = reader.parsed(render(data, NOW))
    assert "2 targets with the fewest cases are left out here and below." in reader.words(page)
    figures = reader.all_of(reader.section(page, "widths"), "article")
    assert [figure.get("data-target") for figure in figures] == [data.targets[0]]


# --- the file -------------------------------------------------------------------------------------


def test_write_report_says_the_verdict_and_replaces_the_page(example: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("yesterday's")
    assert write_report(example, path, now=NOW) == "2 open failures, 1 of them new"
    assert reader.words(reader.one(reader.parsed(path.read_text()), "h1"))
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_write_report_leaves_the_history_as_it_is(example: Path, tmp_path: Path) -> None:
    before = example.read_bytes()
    write_report(example, tmp_path / "report.html")
    assert example.read_bytes() == before


def test_write_report_refuses_a_history_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        write_report(tmp_path / "history.sqlite", tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_write_report_refuses_what_is_no_history(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    other.write_text("something else, and long enough to be taken for a header " * 20)
    with pytest.raises(HistoryError, match=r"other\.sqlite"):
        write_report(other, tmp_path / "report.html")


def test_write_report_shows_a_night_that_is_under_way(tmp_path: Path) -> None:
    with History(tmp_path / "history.sqlite") as history:
        history.begin(RunInfo("r1", "night", 7, "cpu", "Triton interpreter", 2))
        line = write_report(history.path, tmp_path / "report.html")
    assert line == "No open failure"
    root = reader.parsed((tmp_path / "report.html").read_text())
    assert "It has not ended" in reader.words(reader.one(root, "header"))


# --- nights ---------------------------------------------------------------------------------------


def test_page_counts_the_shards_of_a_night_as_one(page: str) -> None:
    table = reader.one(reader.section(reader.parsed(page), "nights"), "table")
    head, *body = reader.rows(table)
    assert len(body) == 6
    last = dict(zip(head, body[0], strict=True))
    assert last["Shards"] == "2 of 2"
    assert last["Revision"] == "e8127ab99"
    assert last["Seeds"].count(",") == 1
