"""Branches that decide ranks, rows, leading and normalized dims."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.case import Case
from fuzz.strategies import GPU_BUDGET, INTERPRETER_BUDGET
from tests.quality.branches_readings import launch_block
from tests.quality.branches_samples import (
    FIVE_LEADING,
    FREE,
    MANY_DIMS,
    NEVER_EMPTY,
    NO_ROWS,
    ONE_ROW,
    PLAIN,
    SEVEN_LEADING,
    SEVERAL,
)
from tests.quality.branches_sampling import Branch, Holds, valid


def shape_branches() -> Iterator[Branch]:
    yield from _ranks()
    yield from _normalized_dims()
    yield from _rows()
    yield from _empty_batches()
    yield from _deep_shapes()
    yield from _leading_dims()


def _ranks() -> Iterator[Branch]:
    for rank, least in ((1, 0.04), (2, 0.2), (3, 0.2), (4, 0.1), (5, 0.06), (6, 0.035)):
        yield Branch(f"rank {rank}", PLAIN, least, lambda c, r=rank: len(c.shape) == r)
    for rank in (7, 8):
        yield Branch(f"rank {rank}", MANY_DIMS, 0.003, lambda c, r=rank: len(c.shape) == r)


def _normalized_dims() -> Iterator[Branch]:
    def of(dims: int) -> Holds:
        return lambda c: valid(c) and c.normalized_ndim == dims and c.n_cols > 1

    for dims, least, alone in ((1, 0.25, 0.03), (2, 0.15, 0.15), (3, 0.1, 0.2)):
        name = f"{dims} normalized dims"
        yield Branch(name, SEVERAL, least, lambda c, d=dims: c.normalized_ndim == d)
        yield Branch(f"{name} and no others", SEVERAL, alone, lambda c: not c.leading, of(dims))
    yield Branch("4 normalized dims", MANY_DIMS, 0.02, lambda c: c.normalized_ndim == 4)
    yield Branch(
        "the first of 2 normalized dims is 1", SEVERAL, 0.1, lambda c: c.normalized[0] == 1, of(2)
    )
    yield Branch(
        "the last of 2 normalized dims is 1", SEVERAL, 0.1, lambda c: c.normalized[1] == 1, of(2)
    )
    for dims, least in ((2, 0.25), (3, 0.08)):
        yield Branch(
            f"none of {dims} normalized dims is 1",
            SEVERAL,
            least,
            lambda c: 1 not in c.normalized,
            of(dims),
        )


def _rows() -> Iterator[Branch]:
    def within(low: int, high: int) -> Holds:
        return lambda c: low <= c.n_rows <= high

    def narrow(case: Case) -> bool:
        """No budget has a say in the number of rows."""
        return valid(case) and 1 < len(case.leading) < 5 and case.n_cols < 100

    for low, high, least in (
        (1, 1, 0.06),
        (2, 4, 0.3),
        (5, 16, 0.22),
        (17, 64, 0.06),
        (65, 512, 0.013),
    ):
        yield Branch(f"{low} to {high} rows", FREE, least, within(low, high), narrow)
    yield Branch("more rows than 65535", FREE, 0.0012, within(65536, 1 << 17))
    yield Branch(
        "more rows than 65535, of several columns",
        FREE,
        0.3,
        lambda c: c.n_cols > 1,
        lambda c: valid(c) and c.n_rows > 65535,
    )
    for name, sample, budget in (
        ("interpreter", PLAIN, INTERPRETER_BUDGET),
        ("GPU", FREE, GPU_BUDGET),
    ):
        yield Branch(
            f"more elements than usual in the {name}'s budget",
            sample,
            0.005,
            lambda c, b=budget: c.n_rows > 1 and c.n_rows * c.n_cols > b.max_elements // 8,
            lambda c: valid(c) and c.n_rows < 65536,
        )
    yield Branch("all programs of the interpreter's budget", PLAIN, 0.003, within(64, 64))
    yield Branch(
        "several rows of more than 8 blocks",
        PLAIN,
        0.01,
        lambda c: c.n_rows > 1 and 0 < 8 * launch_block(c) < c.n_cols,
    )


def _empty_batches() -> Iterator[Branch]:
    yield Branch(
        "1 row without leading dims, where it must be 1", ONE_ROW, 0.02, lambda c: not c.leading
    )
    yield Branch("no rows", PLAIN, 0.02, lambda c: c.n_rows == 0)
    yield Branch(
        "rows in every case, where none are not taken", NEVER_EMPTY, 1, lambda c: c.n_rows > 0
    )
    for name, place in (("first", 0), ("second", 1), ("last", 2)):
        yield Branch(
            f"the {name} of 3 leading dims is 0",
            NO_ROWS,
            0.2,
            lambda c, p=place: c.leading[p] == 0,
        )
    yield Branch("no rows, beside a dim of several", NO_ROWS, 0.5, lambda c: max(c.leading) > 1)


def _deep_shapes() -> Iterator[Branch]:
    def rows_for_it(case: Case) -> bool:
        return valid(case) and 0 < case.n_rows < 65536 and case.n_cols < 1000

    for leading, sample in ((5, FIVE_LEADING), (7, SEVEN_LEADING)):
        yield Branch(
            f"{leading} leading dims of 2",
            sample,
            0.6,
            lambda c: set(c.leading) == {2},
            rows_for_it,
        )
        yield Branch(
            f"{leading} leading dims, some of 1",
            sample,
            0.08,
            lambda c: 1 in c.leading,
            rows_for_it,
        )


def _leading_dims() -> Iterator[Branch]:
    def known(case: Case) -> bool:
        """The dim that takes the rows that are left is the largest, and known by its size."""
        return valid(case) and len(case.leading) > 1 and max(case.leading) > 7

    for size, least in ((1, 0.3), (2, 0.2), (3, 0.1), (4, 0.02), (5, 0.005), (7, 0.0005)):
        yield Branch(
            f"a leading dim of {size} beside a larger one",
            FREE,
            least,
            lambda c, s=size: s in c.leading,
            known,
        )
    for name, place in (("first", 0), ("last", -1)):
        yield Branch(
            f"the {name} leading dim is the largest",
            FREE,
            0.3,
            lambda c, p=place: c.leading[p] == max(c.leading),
            known,
        )
