"""Refusing, by name and place, what this interpreter cannot do as compiled."""

from __future__ import annotations

import linecache
from pathlib import Path

from fuzz.strict.faults import UnsupportedInInterpreter, kernel_frame


def unsupported(what: str) -> UnsupportedInInterpreter:
    """The error for an operation, which it names with the kernel's line."""
    return UnsupportedInInterpreter(f"{what} {place()}")


def place() -> str:
    """The line of the kernel that is being executed, as reports give it."""
    frame = kernel_frame()
    file, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(file, line).strip()
    return f"[{frame.f_code.co_name}, {Path(file).name}:{line}: {text}]"
