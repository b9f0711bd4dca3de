"""The results of a measurement in a file, one line each: a second run goes on where one ended."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.jobs.setup import UsageError
from fuzz.power.results import Measured, from_data, to_data

FORMAT = 1
"""Version of a line. A reader leaves out any other and says so."""

FILE = "power.jsonl"


@dataclass
class Log:
    """The results in a folder that were measured with ``settings``, the latest of each fault.

    ``broken`` tells the lines that cannot be read.
    """

    path: Path
    settings: dict[str, Any]
    known: dict[str, Measured] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def append(self, measured: Measured) -> None:
        """Write one result; it is on the disk when this returns."""
        line = {"format": FORMAT, "settings": self.settings, "result": to_data(measured)}
        text = json.dumps(line, allow_nan=False) + "\n"
        with self.path.open("a+b") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    # What was being written when a run was killed must not spoil this line.
                    text = "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        self.known[measured.fault] = measured


def open_log(folder: Path, settings: dict[str, Any]) -> Log:
    """The log of a folder, made where there is none.

    Raises: UsageError naming the settings in which what is there differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = Log(folder / FILE, settings)
    if not log.path.exists():
        return log
    lines = log.path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            if data["format"] != FORMAT:
                raise ValueError(f"format={data['format']!r}, this version reads {FORMAT}")
            measured, other = from_data(data["result"]), data["settings"]
        except (ValueError, KeyError, TypeError) as error:
            said = f"has no {error}" if isinstance(error, KeyError) else str(error)
            log.broken.append(f"{log.path}, line {number}: left out: {said}")
            continue
        if other != settings:
            raise UsageError(
                f"{log.path}: measured with {_differences(other, settings)}; "
                f"name another folder with --out, or remove the file"
            )
        log.known[measured.fault] = measured
    return log


def _differences(then: object, now: dict[str, Any]) -> str:
    if not isinstance(then, dict):
        return f"settings={then!r}"
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    return ", ".join(f"{name}={then.get(name)!r}, not {now.get(name)!r}" for name in names)
