"""What runs inside a compiling process: no interpreter, no GPU; it may die of any task.

Whatever imports NumPy, torch or Triton is imported late: the environment must be set first.
"""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz.compiling.tasks import Answer, Ready, Setting, Task
from fuzz.process.lifecycle import enter_child
from fuzz.process.origin import Origin

if TYPE_CHECKING:
    from fuzz.compiling.workshop import Workshop


def worker_main(connection: Connection, setting: Setting) -> None:
    """The whole life of a compiling process: it answers until nobody asks any more."""
    enter_child(setting.parent)
    _print_to(setting.log)
    try:
        workshop = _open_workshop(setting)
    except Exception as error:
        connection.send(Ready(f"{type(error).__name__}: {error}"))
        return
    connection.send(Ready())
    while True:
        try:
            task: Task = connection.recv()
        except EOFError:
            return
        connection.send(_answer(workshop, task))


def _open_workshop(setting: Setting) -> Workshop:
    # Triton reads the one while kernels are being defined. A wrapper that asks the GPU for its
    # properties would have those of the machine's own.
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    origin = None
    if setting.folder is not None:
        origin = Origin(setting.folder, setting.foreign)
        origin.enter()
    from fuzz.compiling.workshop import Workshop

    return Workshop(setting.gpu, setting.log, origin)


def _answer(workshop: Workshop, task: Task) -> Answer:
    sys.stdout.flush()
    sys.stderr.flush()
    # What was printed for one task explains the end of that one alone.
    os.ftruncate(sys.stderr.fileno(), 0)
    return workshop.answer(task)


def _print_to(log: Path) -> None:
    """Have this process, its compilers and its C++ code print to a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
