"""Compiling processes that compile nothing: they do what each task names."""

import os
import time
from multiprocessing.connection import Connection

from fuzz.compiling.tasks import Built, Ready, Setting
from fuzz.process.lifecycle import enter_child


def obedient(connection: Connection, setting: Setting) -> None:
    enter_child(setting.parent)
    connection.send(Ready())
    while True:
        task = connection.recv()
        if task == "die":
            setting.log.write_text("note\nLLVM ERROR: no more\n")
            os.abort()
        if task == "hang":
            time.sleep(600)
        connection.send(Built(error=f"{task} by {os.getpid()}"))
        if task == "answer and die":
            os._exit(1)


def unfit(connection: Connection, setting: Setting) -> None:
    enter_child(setting.parent)
    connection.send(Ready("ImportError: no torch"))


def stillborn(connection: Connection, setting: Setting) -> None:
    enter_child(setting.parent)
    os._exit(7)
