"""Deterministic rows: built from raw generator bits by exact arithmetic, the same everywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from oracle.formats import F64, FORMATS, Format, round_to


def uniform(seed: int, *shape: int) -> F64:
    """Numbers in [0, 1), multiples of 2^-32."""
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.random.PCG64(seed).random_raw(count)
    return ((raw >> np.uint64(32)).astype(np.float64) * 2.0**-32).reshape(shape)


def bell(seed: int, *shape: int) -> F64:
    """Mean 0, variance 1, roughly normal: the sum of 12 uniforms, less 6."""
    return uniform(seed, *shape, 12).sum(axis=-1) - 6.0


def signs(seed: int, *shape: int) -> F64:
    """Each -1 or 1."""
    return np.where(uniform(seed, *shape) < 0.5, -1.0, 1.0)


def _offset(ratio: float) -> Callable[[int, int, Format], F64]:
    def make(seed: int, n: int, fmt: Format) -> F64:
        return bell(seed, n) + ratio

    return make


def _outliers(seed: int, n: int, fmt: Format) -> F64:
    row = bell(seed, n)
    row[:: max(n // 3, 1)] *= 1000.0
    return row


def _alternating(seed: int, n: int, fmt: Format) -> F64:
    return (1.0 + 0.01 * uniform(seed, n)) * np.where(np.arange(n) % 2, -1.0, 1.0)


def _integers(seed: int, n: int, fmt: Format) -> F64:
    return np.floor(uniform(seed, n) * 17.0) - 8.0


def _subnormal(seed: int, n: int, fmt: Format) -> F64:
    return np.floor(uniform(seed, n) * 2.0**fmt.precision) * fmt.quantum * signs(seed + 1, n)


def _near_overflow(seed: int, n: int, fmt: Format) -> F64:
    return fmt.largest * (1.0 - uniform(seed, n) / 4.0) * signs(seed + 1, n)


def _near_overflow_one_sign(seed: int, n: int, fmt: Format) -> F64:
    return fmt.largest * (1.0 - uniform(seed, n) / 4.0)


def _near_overflow_of_sum(seed: int, n: int, fmt: Format) -> F64:
    return fmt.largest / n * (1.0 - uniform(seed, n) / 64.0)


def _wide(seed: int, n: int, fmt: Format) -> F64:
    exponent = (uniform(seed, n) * 60.0).astype(np.int64) - 30
    return np.ldexp(1.0 + uniform(seed + 1, n), exponent) * signs(seed + 2, n)


FAMILIES: dict[str, Callable[[int, int, Format], F64]] = {
    "normal": _offset(0.0),
    "mean 1e1": _offset(1e1),
    "mean 1e3": _offset(1e3),
    "mean 1e5": _offset(1e5),
    "outliers": _outliers,
    "constant": lambda seed, n, fmt: np.full(n, 1000.1),
    "constant tiny": lambda seed, n, fmt: np.full(n, 1.1 * 2.0**-38),
    "constant minute": lambda seed, n, fmt: np.full(n, 1.1 * 2.0**-80),
    "constant huge": lambda seed, n, fmt: np.full(n, 1.1 * 2.0**62),
    "constant vast": lambda seed, n, fmt: np.full(n, 1.1 * 2.0**127),
    "nearly constant": lambda seed, n, fmt: 1.0 + np.floor(uniform(seed, n) * 3.0) * 2.0 * fmt.u,
    "zeros": lambda seed, n, fmt: np.zeros(n),
    "tiny": lambda seed, n, fmt: bell(seed, n) * 2.0**-60,
    "squares underflow": lambda seed, n, fmt: bell(seed, n) * 2.0**-74,
    "subnormal": _subnormal,
    "squares overflow": lambda seed, n, fmt: bell(seed, n) * 2.0**63,
    "near overflow": _near_overflow,
    "near overflow, one sign": _near_overflow_one_sign,
    "near overflow of the sum": _near_overflow_of_sum,
    "sorted": lambda seed, n, fmt: np.sort(bell(seed, n)),
    "alternating": _alternating,
    "integers": _integers,
    "wide": _wide,
    "uniform": lambda seed, n, fmt: uniform(seed, n),
}


def rows_of(n: int, dtype: str, seed: int = 0) -> F64:
    """One row of every family, then rows with NaN and infinities planted, rounded to ``dtype``."""
    fmt = FORMATS[dtype]
    rows = [make(1000 * seed + k, n, fmt) for k, make in enumerate(FAMILIES.values())]
    for planted in ((np.nan,), (np.inf,), (-np.inf,), (np.inf, -np.inf)):
        row = bell(7, n)
        for k, value in enumerate(planted):
            row[(n // 2 + k) % n] = value
        rows.append(row)
    # Infinity beside finite values whose own sum overflows the other way.
    row = _near_overflow(3, n, fmt)
    row[n // 2 :] = -np.abs(row[n // 2 :])
    row[0] = np.inf
    rows.append(row)
    return round_to(np.array(rows), fmt)
