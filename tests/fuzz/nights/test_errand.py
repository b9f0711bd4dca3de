"""A shard run as an errand: what it is told, what comes back, and how it is ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.history import HISTORY, History
from fuzz.nights import errand
from fuzz.nights.errand import LOG, Errand, pack, run_errand, unpack
from fuzz.nights.shards import SHARD
from fuzz.process.kernel_process import never
from tests.fuzz.nights.folders import shard_folder, unfinished_folder
from tests.fuzz.processes import descendants, is_alive, wait_until

ROOT = Path(__file__).resolve().parents[3]

STUB = """
import json, os, signal, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
def end(*_):
    (out / "shard.json").write_text(json.dumps([sys.argv[2:], os.getcwd(), "told to end"]))
    sys.exit(0)
signal.signal(signal.SIGINT, end)
print("begun", flush=True)
Path("begun").touch()
if "--wait" in sys.argv:
    time.sleep(60)
(out / "runs").mkdir()
if "--die" in sys.argv:
    sys.exit(3)
(out / "shard.json").write_text(json.dumps([sys.argv[2:], os.getcwd(), "ended"]))
"""
"""In the place of ln-fuzz."""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errand, "PROGRAM", STUB)


def run(tmp_path: Path, *options: str, must_stop: Callable[[], bool] = never) -> Path:
    """The folder that comes back."""
    packed = run_errand(Errand(options, b"a history", str(tmp_path)), "2/3", must_stop)
    unpack(packed, tmp_path / "there" / "back")
    return tmp_path / "there" / "back"


@pytest.mark.usefixtures("stub")
def test_errand_brings_back_what_the_merge_needs(tmp_path: Path) -> None:
    back = run(tmp_path, "--seed", "4")
    assert {path.name for path in back.iterdir()} == {HISTORY, SHARD, LOG}
    words, cwd, how = json.loads((back / SHARD).read_text())
    assert words[:5] == ["night", "--seed", "4", "--shard", "2/3"]
    assert (Path(cwd), how) == (tmp_path, "ended")
    assert (back / HISTORY).read_bytes() == b"a history"
    assert (back / LOG).read_text() == "begun\n"
    # Nothing is left where it ran.
    assert not Path(words[6]).exists()


@pytest.mark.usefixtures("stub")
def test_errand_that_said_no_last_words_brings_back_all_there_is(tmp_path: Path) -> None:
    back = run(tmp_path, "--die")
    assert {path.name for path in back.iterdir()} == {HISTORY, LOG, "runs"}


@pytest.mark.usefixtures("stub")
def test_errand_that_is_told_to_end_brings_back_what_it_has(tmp_path: Path) -> None:
    began = time.monotonic()
    back = run(tmp_path, "--wait", must_stop=(tmp_path / "begun").exists)
    assert time.monotonic() - began < 20
    assert json.loads((back / SHARD).read_text())[2] == "told to end"


def test_errand_without_its_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not here"):
        run_errand(Errand((), b"", str(tmp_path / "not here")), "1/1")


def test_folder_is_the_same_when_it_comes_back(tmp_path: Path) -> None:
    shard_folder(tmp_path / "whole", 1, 2)
    unfinished_folder(tmp_path / "unfinished", 2, 2)
    for name, run_count in (("whole", 1), ("unfinished", 1)):
        unpack(pack(tmp_path / name), tmp_path / "back" / name)
        with History(tmp_path / "back" / name / HISTORY) as history:
            assert len(history.runs()) == run_count
    assert (tmp_path / "back" / "whole" / SHARD).is_file()


PROGRAM = """
import sys
from fuzz.nights.errand import Errand, run_errand
run_errand(Errand(tuple(sys.argv[3:]), open(sys.argv[1], "rb").read(), sys.argv[2]), "1/1")
"""


def test_errand_ends_with_whoever_runs_it(tmp_path: Path) -> None:
    with History(tmp_path / HISTORY) as history:
        (tmp_path / "copy").write_bytes(history.copy())
    arguments = [str(tmp_path / "copy"), str(ROOT), "--target", "layer_norm", "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT)
    below: list[int] = []
    try:
        # The night itself, and what it starts.
        wait_until(lambda: len(descendants(process.pid)) >= 3, seconds=60)
        below = descendants(process.pid)
        process.kill()
        process.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in below), seconds=10)
    finally:
        for pid in (process.pid, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
