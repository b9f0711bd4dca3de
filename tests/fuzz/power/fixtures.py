"""Results made by hand."""

from __future__ import annotations

from fuzz.power.results import Attempt, Measured, Status


def attempt(judge: str, cases: int, *, found: bool = True, seed: int = 0, **more) -> Attempt:
    return Attempt(judge, seed, found, cases, cases / 10, **more)


def measured(
    fault: str,
    *attempts: Attempt,
    kind: str = "values",
    status: Status = "measured",
    expected: bool = True,
    **more,
) -> Measured:
    return Measured(
        fault=fault,
        kind=kind,
        target="a_target",
        change="One spot.",
        fingerprint="0123456789ab",
        expected=expected,
        status=status,
        attempts=attempts,
        **more,
    )


def of_bounds(*counts: int | None) -> tuple[Attempt, ...]:
    """Attempts of the tool itself, one a seed; None: not found in 300 cases."""
    return tuple(
        attempt("bounds", 300 if n is None else n, found=n is not None, seed=seed)
        for seed, n in enumerate(counts)
    )
