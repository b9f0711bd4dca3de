"""A leased GPU is one holder's alone, and free again when the holder is gone."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fuzz.jobs import lease
from fuzz.jobs.lease import gpu_lease, lock_file

ROOT = Path(__file__).resolve().parents[2]

HOLDER = """
import sys, time
from pathlib import Path
from fuzz.jobs.lease import gpu_lease

folder, gpus = Path(sys.argv[1]), sys.argv[2].split(",")
with gpu_lease(gpus, folder, say=lambda words: print("waits", flush=True)) as gpu:
    print("has", gpu, flush=True)
    sys.stdin.readline()
"""


def holder(folder: Path, gpus: str) -> subprocess.Popen[str]:
    """Another process that leases a GPU, and keeps it until its standard input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), gpus],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def no_word(words: str) -> None:
    raise AssertionError(words)


def test_lease_gives_each_holder_another_gpu(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    with (
        gpu_lease(("4", "GPU-5"), folder, say=no_word) as first,
        gpu_lease(("4", "GPU-5"), folder, say=no_word) as second,
    ):
        assert (first, second) == ("4", "GPU-5")
    with gpu_lease(("GPU-5", "4"), folder, say=no_word) as again:
        assert again == "GPU-5"


def test_lease_is_given_back_when_its_use_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), gpu_lease(("0",), tmp_path, say=no_word):
        raise RuntimeError
    with gpu_lease(("0",), tmp_path, say=no_word) as gpu:
        assert gpu == "0"


def test_lease_waits_for_a_gpu_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "POLL", 0.01)
    said: list[str] = []
    got: list[str] = []

    def wait() -> None:
        with gpu_lease(("0", "1"), tmp_path, say=said.append) as gpu:
            got.append(gpu)

    waiter = threading.Thread(target=wait)
    with gpu_lease(("0",), tmp_path, say=no_word):
        with gpu_lease(("1",), tmp_path, say=no_word):
            waiter.start()
            # Many looks.
            time.sleep(0.2)
            assert got == []
        waiter.join(timeout=10)
        assert got == ["1"]
    assert said == [f"waiting for a GPU: 0, 1 taken, by the locks in {tmp_path}"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_lease_of_a_killed_process_is_free_again(tmp_path: Path, number: signal.Signals) -> None:
    with holder(tmp_path, "0,1") as first, holder(tmp_path, "0,1") as second:
        assert sorted([line_of(first), line_of(second)]) == ["has 0", "has 1"]
        with holder(tmp_path, "0,1") as third:
            assert line_of(third) == "waits"
            first.send_signal(number)
            assert line_of(third).startswith("has ")
            assert first.wait() == -number
            third.communicate("\n")
        second.communicate("\n")
    assert second.returncode == third.returncode == 0


def test_lease_goes_by_the_folder_and_the_name(tmp_path: Path) -> None:
    names = ("0", "1", "MIG-GPU-5c/1/0", "MIG-GPU-5c/1/1", "GPU-5c")
    assert len({lock_file(tmp_path, name) for name in names}) == len(names)
    assert {lock_file(tmp_path, name).parent for name in names} == {tmp_path}
    with (
        gpu_lease(("0",), tmp_path / "a", say=no_word),
        gpu_lease(("0",), tmp_path / "b", say=no_word) as gpu,
    ):
        assert gpu == "0"


def test_lease_of_no_gpu_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"gpus=\(\), must name at least one"),
        gpu_lease((), tmp_path, say=no_word),
    ):
        pass
