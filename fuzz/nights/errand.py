"""A shard of a night run for somebody elsewhere: what it needs is data, and so is its folder.

Runs the command line in a process of its own, which ends with this one however that ends.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz.history import HISTORY
from fuzz.nights.shards import SHARD
from fuzz.process.kernel_process import never

LOG = "night.log"
"""What the night printed, in its folder."""

POLL = 1.0
"""Seconds between two looks whether the night must end."""

PROGRAM = """
import sys
from fuzz.process.lifecycle import die_with_parent
die_with_parent(int(sys.argv.pop(1)))
from fuzz.cli import main
main()
"""
"""As ``python -m fuzz``, but a night whose machine is taken away does not go on in secret."""


@dataclass(frozen=True)
class Errand:
    """``options`` of ``ln-fuzz night``, but for the shard and its folder; the ``history`` that it
    begins with, as the bytes of a file; the folder that it works in (``cwd``)."""

    options: tuple[str, ...]
    history: bytes
    cwd: str


def run_errand(errand: Errand, shard: str, must_stop: Callable[[], bool] = never) -> bytes:
    """Run a shard, and pack its folder; once it must stop, it ends early with what it has.

    Raises: FileNotFoundError where ``cwd`` is not there.
    """
    with tempfile.TemporaryDirectory(prefix="ln-fuzz-") as scratch:
        folder = Path(scratch)
        (folder / HISTORY).write_bytes(errand.history)
        command = [sys.executable, "-c", PROGRAM, str(os.getpid()), "night", *errand.options]
        command += ["--shard", shard, "--out", scratch]
        with (folder / LOG).open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=errand.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            _wait(process, must_stop)
        return pack(folder)


def _wait(process: subprocess.Popen[bytes], must_stop: Callable[[], bool]) -> None:
    is_told = False
    while True:
        try:
            process.wait(POLL)
        except subprocess.TimeoutExpired:
            if not is_told and must_stop():
                is_told = True
                process.send_signal(signal.SIGINT)
        else:
            return


def pack(folder: Path) -> bytes:
    """A shard's folder: last words and history, which has all of it; everything where it has not
    said any."""
    is_whole = (folder / SHARD).is_file()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path in folder.iterdir():
            if not is_whole or path.name in (SHARD, HISTORY, LOG):
                archive.add(path, arcname=path.name)
    return packed.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """Make the folder that was packed."""
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        archive.extractall(folder, filter="data")
