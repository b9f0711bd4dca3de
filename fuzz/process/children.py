"""Processes that the main one talks to over a pipe: how they begin, and how they end."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from fuzz.process.lifecycle import spawning
from fuzz.process.mailbox import remove_segments_of


def start_child(
    target: Callable[[Connection, Any], None], told: object, name: str
) -> tuple[BaseProcess, Connection]:
    """A process that runs ``target`` on its end of a pipe and on what it is told; our end."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, told), name=name)
    with spawning():
        process.start()
    theirs.close()
    return process, ours


def end_child(process: BaseProcess, connection: Connection, patience: float) -> None:
    """End a process that has not ended after ``patience`` seconds, and remove what it left."""
    process.join(patience)
    process.kill()
    process.join()
    connection.close()
    if process.pid is not None and process.exitcode:
        remove_segments_of(process.pid)
