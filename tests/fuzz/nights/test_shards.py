"""Shards: named by i/n, told apart by their last words, and joined without losing or doubling."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from fuzz import store
from fuzz.history import HISTORY, History
from fuzz.jobs.setup import UsageError
from fuzz.nights.merge import MergeResult, merge_shards
from fuzz.nights.outcome import NightResult, Shard
from fuzz.nights.screen import print_merge
from fuzz.nights.shards import (
    SHARD,
    ShardError,
    begin_shard,
    end_shard,
    parse_shard,
    read_shard,
)
from fuzz.process.journal import Mark
from fuzz.store import FAILURES
from tests.fuzz.nights.folders import (
    CELL,
    begin,
    failure_of,
    shard_folder,
    totals_of,
    unfinished_folder,
)


def screen(result: MergeResult) -> list[str]:
    console = Console(width=200, highlight=False)
    with console.capture() as captured:
        print_merge(console, result)
    return captured.get().splitlines()


def executed_in(folder: Path) -> int:
    with History(folder / HISTORY, read_only=True) as history:
        return sum(run.executed for run in history.runs())


# --- names and last words -------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "shard"), [("1/1", Shard()), ("3/12", Shard(3, 12))])
def test_shard_is_read_from_its_name(text: str, shard: Shard) -> None:
    assert parse_shard(text) == shard
    assert str(shard) == text


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "a/3", "1/-3", "1/3/5", "1.5/3"])
def test_shard_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="must be i/n with 1 <= i <= n"):
        parse_shard(text)


def test_last_words_are_read_back(tmp_path: Path) -> None:
    assert read_shard(tmp_path) is None
    result = NightResult("run", 5, Shard(2, 3), executed=9, interrupted=True, out=tmp_path)
    path = end_shard(result, executed=9, failed=1, skipped=2)
    words = read_shard(tmp_path)
    assert path == tmp_path / SHARD
    assert words is not None
    assert (words.run, words.seed, words.shard, words.shards) == ("run", 5, 2, 3)
    assert (words.executed, words.failed, words.skipped) == (9, 1, 2)
    assert (words.exit_code, words.interrupted) == (0, True)
    assert list(tmp_path.iterdir()) == [path]


def test_last_words_of_an_earlier_night_are_taken_back(tmp_path: Path) -> None:
    begin_shard(tmp_path)
    end_shard(NightResult("run", 5, out=tmp_path), executed=1, failed=0, skipped=0)
    begin_shard(tmp_path)
    assert read_shard(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text[:40], "truncated"),
        (lambda text: text.replace('"format": 1', '"format": 9'), "format=9, this version reads"),
        (lambda text: text.replace('"seed": 5', '"seed": "x"'), "seed='x', must be int"),
        (lambda text: "[]", "format=None"),
    ],
)
def test_last_words_that_are_damaged_are_refused(tmp_path: Path, change: object, told: str) -> None:
    path = end_shard(NightResult("run", 5, out=tmp_path), executed=1, failed=0, skipped=0)
    assert callable(change)
    path.write_text(change(path.read_text()))
    with pytest.raises(ShardError, match=told):
        read_shard(tmp_path)


# --- the merge ------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """The folders of three shards that are whole, the second with a failure."""
    folders = [tmp_path / f"machine-{index}" for index in (1, 2, 3)]
    for index, folder in enumerate(folders, start=1):
        failure = failure_of() if index == 2 else None
        shard_folder(folder, index, 3, executed=10 * index, failure=failure)
    return folders


def test_merge_joins_whole_shards(tmp_path: Path, three: list[Path]) -> None:
    result = merge_shards(three, tmp_path / "all")
    assert [shard.state for shard in result.shards] == ["whole"] * 3
    assert (result.missing, result.errors) == ([], [])
    assert (result.executed, result.failed, result.exit_code) == (60, 1, 1)
    with History(tmp_path / "all" / HISTORY) as history:
        assert [run.shard for run in history.runs()] == [1, 2, 3]
        assert history.cells()[CELL].executed == 60
        (failure,) = history.failures()
    # Its file is there too: replay looks for files.
    assert store.read(tmp_path / "all" / FAILURES / f"{failure.id}.json").id == failure.id
    assert screen(result)[-1] == "Failures: 1 of 60 cases fail, in 3 shards."


def test_merge_of_shards_without_a_failure_is_clean(tmp_path: Path) -> None:
    for index in (1, 2):
        shard_folder(tmp_path / str(index), index, 2)
    result = merge_shards([tmp_path / "2", tmp_path / "1"], tmp_path / "all")
    assert result.exit_code == 0
    assert screen(result)[-1] == "Clean: no failure in 20 cases of 2 shards."


def test_merge_takes_the_worst_exit_code(tmp_path: Path) -> None:
    shard_folder(tmp_path / "1", 1, 2)
    # No case was executed.
    shard_folder(tmp_path / "2", 2, 2, executed=0)
    result = merge_shards([tmp_path / "1", tmp_path / "2"], tmp_path / "all")
    assert result.exit_code == 2
    assert screen(result)[-1].startswith("No verdict: a shard ended with exit code 2")


def test_merge_done_again_changes_nothing(tmp_path: Path, three: list[Path]) -> None:
    merge_shards(three[:2], tmp_path / "all")
    first = merge_shards(three, tmp_path / "all")
    assert [shard.new for shard in first.shards] == [0, 0, 1]
    again = merge_shards(three, tmp_path / "all")
    assert [shard.new for shard in again.shards] == [0, 0, 0]
    assert (again.executed, again.failed, again.exit_code) == (60, 1, 1)
    assert executed_in(tmp_path / "all") == 60
    assert "known already" in screen(again)[0]


def test_merge_does_not_count_a_folder_twice(tmp_path: Path, three: list[Path]) -> None:
    again = three[0].parent / "x" / ".." / three[0].name
    (three[0].parent / "x").mkdir()
    result = merge_shards([*three, again], tmp_path / "all")
    assert (len(result.shards), result.exit_code) == (3, 1)


def test_merge_names_a_missing_shard_and_joins_the_others(
    tmp_path: Path, three: list[Path]
) -> None:
    result = merge_shards([three[0], three[2]], tmp_path / "all")
    assert result.missing == ["2/3"]
    assert result.exit_code == 2
    assert executed_in(tmp_path / "all") == 40
    assert screen(result)[-2:] == [
        "MISSING shard 2/3",
        "Not whole: 2 of 3 shards; 0 of 40 cases fail.",
    ]


@pytest.mark.parametrize("gone", ["folder", "history"])
def test_merge_names_a_folder_that_holds_nothing(
    tmp_path: Path, three: list[Path], gone: str
) -> None:
    if gone == "folder":
        shutil.rmtree(three[1])
    else:
        (three[1] / HISTORY).unlink()
    result = merge_shards(three, tmp_path / "all")
    assert [shard.state for shard in result.shards] == ["whole", "absent", "whole"]
    assert str(three[1]) in result.shards[1].name
    assert (result.missing, result.exit_code) == (["2/3"], 2)
    assert executed_in(tmp_path / "all") == 40


def test_merge_names_a_shard_that_did_not_finish_and_keeps_what_it_did(
    tmp_path: Path, three: list[Path]
) -> None:
    shutil.rmtree(three[2])
    run = unfinished_folder(three[2], 3, 3, executed=7)
    result = merge_shards(three, tmp_path / "all")
    last = result.shards[2]
    assert (last.state, last.index, last.run, last.executed) == ("unfinished", 3, run, 7)
    assert "was killed" in last.why
    assert (result.missing, result.exit_code) == ([], 2)
    assert executed_in(tmp_path / "all") == 37
    assert any(
        line.startswith(f"UNFINISHED shard 3/3 ({three[2]}): it was") for line in screen(result)
    )


def test_merge_names_a_shard_that_was_told_to_end(tmp_path: Path, three: list[Path]) -> None:
    path = three[0] / SHARD
    path.write_text(path.read_text().replace('"interrupted": false', '"interrupted": true'))
    result = merge_shards(three, tmp_path / "all")
    assert [shard.state for shard in result.shards] == ["interrupted", "whole", "whole"]
    assert result.exit_code == 2
    assert executed_in(tmp_path / "all") == 60


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_merge_names_a_history_that_is_cut_off(
    tmp_path: Path, three: list[Path], share: float
) -> None:
    path = three[1] / HISTORY
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    result = merge_shards(three, tmp_path / "all")
    assert [shard.state for shard in result.shards] == ["whole", "truncated", "whole"]
    assert str(three[1]) in result.shards[1].why
    assert result.exit_code == 2
    assert executed_in(tmp_path / "all") == 40


def test_merge_names_last_words_that_are_cut_off_and_keeps_the_history(
    tmp_path: Path, three: list[Path]
) -> None:
    path = three[1] / SHARD
    path.write_text(path.read_text()[:30])
    result = merge_shards(three, tmp_path / "all")
    assert [shard.state for shard in result.shards] == ["whole", "truncated", "whole"]
    assert result.exit_code == 2
    assert executed_in(tmp_path / "all") == 60


def test_merge_names_a_history_that_lacks_what_the_last_words_tell(
    tmp_path: Path, three: list[Path]
) -> None:
    path = three[1] / SHARD
    path.write_text(path.read_text().replace('"executed": 20', '"executed": 21'))
    result = merge_shards(three, tmp_path / "all")
    assert result.shards[1].state == "truncated"
    assert "its history has 20 cases" in result.shards[1].why
    assert result.exit_code == 2

    # A copy of the history made before the night.
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "run": "another"}))
    result = merge_shards(three, tmp_path / "all")
    assert "has no run another" in result.shards[1].why


def test_merge_names_a_shard_that_is_there_twice(tmp_path: Path, three: list[Path]) -> None:
    shard_folder(tmp_path / "again", 1, 3)
    result = merge_shards([*three, tmp_path / "again"], tmp_path / "all")
    assert result.exit_code == 2
    assert result.errors[0].startswith("shard 1/3 is there 2 times: ")


def test_merge_names_shards_of_different_nights(tmp_path: Path, three: list[Path]) -> None:
    shard_folder(tmp_path / "other", 4, 4)
    result = merge_shards([*three, tmp_path / "other"], tmp_path / "all")
    assert result.exit_code == 2
    assert result.errors[0].startswith("these are shards of different nights: shard 1/3 ")


def test_merge_leaves_a_shard_that_still_runs_alone(tmp_path: Path, three: list[Path]) -> None:
    shutil.rmtree(three[2])
    with History(three[2] / HISTORY) as history:
        run = begin(history, Shard(3, 3))
        result = merge_shards(three, tmp_path / "all")
        assert result.shards[2].state == "unfinished"
        assert "still runs" in result.shards[2].why
        assert executed_in(tmp_path / "all") == 30
        # It goes on as if nothing had been.
        history.add(run, 0, totals_of(5), Mark())
        history.end(run)


def test_merge_refuses_to_join_a_shard_into_itself(three: list[Path]) -> None:
    with pytest.raises(UsageError, match="must not be one of the shards"):
        merge_shards(three, three[0])
    with pytest.raises(UsageError, match="must be at least one"):
        merge_shards([], three[0])


def test_merge_refuses_what_it_cannot_write_to(tmp_path: Path, three: list[Path]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file"):
        merge_shards(three, tmp_path / "file")
