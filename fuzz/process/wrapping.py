"""Processes under another program: the program is started in their place, and starts them below it.

    engine -> program -> process
              guard: waits for the program's end, then ends the process

The engine starts, times and kills the program, for all it knows the process itself. That the
process ends with the program is not the program's concern, which may die of SIGKILL: a guard sees
to it. All but the guard are one process group, whose number is the program's process id: by it
the engine and the process name the same thing. Standard library only: imported before NumPy.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import popen_spawn_posix, resource_tracker, spawn
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from fuzz.process.lifecycle import (
    WatchedContext,
    WatchedProcess,
    die_with_parent,
    ignore_interrupt,
    use_one_thread,
)

PID = "{pid}"
"""Stands in a program's arguments for its own process id."""

LEADER = "LN_FUZZ_LEADER"
"""Tells the process under the program the number of their group."""

_executable = threading.Lock()
"""Held while Python's own setting names the launcher: every start in this process reads it."""


def write_launcher(
    folder: Path, command: Sequence[str], environment: Mapping[str, str | None]
) -> Path:
    """A script that takes Python's arguments and runs Python with them under ``command``.

    ``environment`` is set, or unset where it is None, for both. The script's parent is this
    process.
    """
    root = Path(__file__).parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); "
        "from fuzz.process.wrapping import become; become(int(sys.argv[1]), sys.argv[2:])"
    )
    # -I: neither the user's packages nor the working directory get in the launcher's way.
    words = [sys.executable, "-I", "-c", code, str(os.getpid()), *command, sys.executable]
    lines = ["#!/bin/sh"]
    for name, value in environment.items():
        lines.append(f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}")
    lines.append(f'exec {shlex.join(words)} "$@"')
    path = folder / "launch.sh"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.chmod(0o700)
    return path


def become(parent: int, command: list[str]) -> NoReturn:
    """Turn this process into the program, with a guard beside it."""
    die_with_parent(parent)
    os.setpgid(0, 0)
    ignore_interrupt()
    leader = os.getpid()
    os.environ[LEADER] = str(leader)
    _leave_guard(leader)
    os.execvp(command[0], [word.replace(PID, str(leader)) for word in command])


def _leave_guard(leader: int) -> None:
    """Start the guard. Nobody's child: the program would find one that it did not start."""
    watched = os.pidfd_open(leader)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os.close(watched)
        return
    try:
        if os.fork() == 0:
            _guard(leader, watched)
    finally:
        os._exit(0)


def _guard(leader: int, watched: int) -> None:
    os.setsid()
    # An end of a pipe that is kept open here would hide from others that it was closed.
    os.closerange(0, watched)
    os.closerange(watched + 1, os.sysconf("SC_OPEN_MAX"))
    select.select([watched], [], [])
    os.killpg(leader, signal.SIGKILL)


def enter_wrapped() -> None:
    """What a process under a program does first, instead of ``enter_child``."""
    leader = int(os.environ[LEADER])
    os.setpgid(0, leader)
    ignore_interrupt()
    use_one_thread()
    _answer_as(leader)


def _answer_as(pid: int) -> None:
    """Have the pool's side of this process sign its answers with the pid that the pool knows."""
    from pebble.pool import process as pool

    setattr(pool, "os", SimpleNamespace(**{**vars(os), "getpid": lambda: pid}))  # noqa: B010


class WrappedProcess(WatchedProcess):
    """A watched process that is started by ``launcher``."""

    launcher = ""

    @staticmethod
    def _Popen(process: BaseProcess) -> Any:  # noqa: N802  # multiprocessing's name
        return _Popen(process)


class _Popen(popen_spawn_posix.Popen):
    def _launch(self, process: BaseProcess) -> None:
        assert isinstance(process, WrappedProcess)
        # Not under the program.
        resource_tracker.ensure_running()
        with _executable:
            python = spawn.get_executable()
            spawn.set_executable(process.launcher)
            try:
                super()._launch(process)  # type: ignore[misc]  # not in the stubs
            finally:
                spawn.set_executable(python)


class WrappedContext(WatchedContext):
    """Starts wrapped processes."""

    def __init__(self, launcher: Path) -> None:
        super().__init__()
        self._launcher = str(launcher)

    def Process(self, *args: Any, **kwargs: Any) -> WatchedProcess:  # type: ignore[override]  # noqa: N802
        """A process that is not started yet."""
        process = WrappedProcess(*args, **kwargs)
        process.launcher = self._launcher
        self.latest = process
        return process
