"""An entry of the catalogue of planted faults: a fault, its class, and an input that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tests.faults.planted import Fault

Kind = Literal["masks", "strides", "numerics", "semantics", "memory", "special values"]

Place = Literal["cpu", "gpu"]
"""cpu: the strict interpreter shows it, and a GPU may as well; gpu: nothing but a GPU does."""


@dataclass(frozen=True)
class Entry(Fault):
    """A fault with its class. ``change`` says what was changed, ``shows_when`` what it takes.

    ``example`` is the simplest input that shows it, as :mod:`tests.faults.example` reads it.
    """

    kind: Kind
    change: str
    example: Mapping[str, Any]
    seen: Place = "cpu"
