"""Processes that each measure one fault: one that dies costs its own fault and no other."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from fuzz.power.measure import Order, measure_main
from fuzz.power.results import Measured
from fuzz.process.children import end_child, start_child

STOP = "stop"
"""Told to a measuring process; what it has so far is lost."""

STOP_LIMIT = 10.0
"""Seconds that all of them get to end by themselves: they give semaphores and memory back."""

END_LIMIT = 5.0
"""Seconds between a measuring process's last word and its end."""


@dataclass
class _Member:
    """One measuring process. ``place`` is its number among those at work."""

    order: Order
    place: int
    process: BaseProcess
    connection: Connection

    def hear(self) -> Measured | None:
        """The result; None where the process died without one."""
        try:
            found = self.connection.recv()
        except (EOFError, OSError):
            return None
        assert isinstance(found, Measured)
        return found

    def close(self, patience: float) -> None:
        """End the process, if it has not ended, and remove what it left."""
        end_child(self.process, self.connection, patience)


class Crew:
    """At most ``size`` faults measured at a time. Use as a context manager."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._members: list[_Member] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            with contextlib.suppress(BrokenPipeError):
                member.connection.send(STOP)
        deadline = time.monotonic() + STOP_LIMIT
        for member in self._members:
            member.close(max(deadline - time.monotonic(), 0.0))
        self._members.clear()

    @property
    def at_work(self) -> tuple[str, ...]:
        """The faults that are being measured."""
        return tuple(member.order.fault for member in self._members)

    @property
    def free_place(self) -> int | None:
        """The number of a place that nobody has; None where all are taken."""
        taken = {member.place for member in self._members}
        return next((place for place in range(self._size) if place not in taken), None)

    def begin(self, order: Order, place: int) -> None:
        """Measure one fault more."""
        child = start_child(measure_main, order, f"ln-fuzz-power-{order.fault}")
        self._members.append(_Member(order, place, *child))

    def wait(self, seconds: float) -> list[tuple[Order, Measured | str]]:
        """The orders that are done, each with its result or with what became of its process."""
        ready = wait([member.connection for member in self._members], timeout=seconds)
        done: list[tuple[Order, Measured | str]] = []
        for member in [m for m in self._members if m.connection in ready]:
            found = member.hear()
            member.close(END_LIMIT)
            self._members.remove(member)
            said = f"the measuring process died (exit code {member.process.exitcode})"
            done.append((member.order, said if found is None else found))
        return done
