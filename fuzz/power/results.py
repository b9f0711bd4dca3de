"""What was measured, as data: of one judge and seed, of one fault; and its JSON form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cattrs

REFUSED = "out of bounds"
"""What a judge with assert_close finds where the strict interpreter refused an access."""

Status = Literal["measured", "elsewhere", "error"]
"""elsewhere: the fault cannot be seen on this device, ``reason`` says where it can; error: it
could not be measured, which says nothing of whether it would be found."""


@dataclass(frozen=True)
class Attempt:
    """How one judge fared with the cases of one seed.

    ``cases`` and ``seconds`` are those up to the verdict, or all where it found nothing; ``by``
    holds the signatures, or what was not close. ``case`` is the failing one, as it is stored.
    ``alarms`` counts cases that assert_close rejects, though all is within its bound. ``skipped``
    were not run; ``problems`` are errors of the harness.
    """

    judge: str
    seed: int
    found: bool
    cases: int
    seconds: float
    by: tuple[str, ...] = ()
    message: str = ""
    case: dict[str, Any] | None = None
    alarms: int = 0
    skipped: int = 0
    problems: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether assert_close was spared its judgement: the interpreter had refused an access."""
        return self.by == (REFUSED,)


@dataclass(frozen=True)
class Shrunk:
    """The smallest case of a fault that was found, and how often it failed in a fresh process."""

    signature: str
    message: str
    text: str
    case: dict[str, Any]
    confirmed: int
    confirm_runs: int
    seconds: float


@dataclass(frozen=True)
class Measured:
    """All that was measured of one fault. ``expected``: it is marked as one for this device."""

    fault: str
    kind: str
    target: str
    change: str
    fingerprint: str
    expected: bool
    status: Status
    reason: str = ""
    attempts: tuple[Attempt, ...] = ()
    shrunk: Shrunk | None = None
    seconds: float = 0.0

    def of(self, judge: str) -> tuple[Attempt, ...]:
        """The attempts of one judge, by seed."""
        return tuple(attempt for attempt in self.attempts if attempt.judge == judge)

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong with the tool, without repetition."""
        said = dict.fromkeys(p for attempt in self.attempts for p in attempt.problems)
        return (*([self.reason] if self.status == "error" else []), *said)


def _exact(kind: type) -> Callable[[Any, Any], Any]:
    """Reads one kind of JSON value and converts nothing."""

    def read(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"{value!r}, must be {kind.__name__}")
        return value

    return read


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (bool, int, str):
        converter.register_structure_hook(kind, _exact(kind))
    return converter


_converter = _make_converter()


def to_data(measured: Measured) -> dict[str, Any]:
    """A result as plain JSON values."""
    data: dict[str, Any] = _converter.unstructure(measured)
    return data


def from_data(data: object) -> Measured:
    """Read a result.

    Raises: ValueError saying what is wrong with it.
    """
    try:
        return _converter.structure(data, Measured)
    except (cattrs.BaseValidationError, TypeError, ValueError, KeyError) as error:
        raise ValueError("; ".join(cattrs.transform_error(error, path="result"))) from error
