"""Branches that decide columns and groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fuzz.case import Case
from tests.quality.branches_readings import is_power_of_2, is_prime, launch_block
from tests.quality.branches_samples import (
    BORDERED,
    BORDERED_BY_DEFAULT,
    CONFIGURED,
    EVERY_WIDTH,
    FREE,
    GATING,
    GROUPED_ROWS,
    ONE_GROUP_SIZE,
    ONE_WIDTH,
    OTHER_ROLES,
    SEVERAL,
)
from tests.quality.branches_sampling import Branch, Holds, valid


def width_branches() -> Iterator[Branch]:
    yield from _widths()
    yield from _borders()
    yield from _groups()
    yield from _groups_of_one_width()
    yield from _numbers_of_groups()


def _widths() -> Iterator[Branch]:
    def narrow(case: Case) -> bool:
        return case.n_cols <= 4096

    def wide(case: Case) -> bool:
        return case.n_cols > 4096

    def in_between(case: Case) -> bool:
        return 32 <= case.n_cols <= 4095

    yield Branch("1 column", FREE, 0.05, lambda c: c.n_cols == 1, narrow)
    yield Branch("1 to 16 columns", FREE, 0.32, lambda c: c.n_cols <= 16, narrow)
    yield Branch("16 columns", FREE, 0.01, lambda c: c.n_cols == 16, narrow)
    yield Branch("more than 4096 columns", FREE, 0.25, wide)
    for power in (13, 14, 15, 16):
        yield Branch(
            f"{2**power // 2} to {2**power} columns",
            FREE,
            0.15,
            lambda c, p=power: c.n_cols.bit_length() == p,
            wide,
        )
    yield Branch("65537 columns", FREE, 0.003, lambda c: c.n_cols == 65537, wide)
    for step in (-1, 0, 1):
        for name, among in (("narrow", in_between), ("wide", wide)):
            yield Branch(
                f"power of 2 {step:+d} columns, {name}",
                FREE,
                0.025,
                lambda c, s=step: is_power_of_2(c.n_cols - s),
                among,
            )
        yield Branch(
            f"multiple of 16 {step:+d} columns",
            FREE,
            0.07,
            lambda c, s=step: (c.n_cols - s) % 16 == 0,
            lambda c: in_between(c) and not any(is_power_of_2(c.n_cols - s) for s in (-1, 0, 1)),
        )
    yield Branch("a prime number of columns, narrow", FREE, 0.2, _prime, in_between)
    yield Branch("a prime number of columns, wide", FREE, 0.15, _prime, wide)
    # A prime is sought upwards, and downwards where there is none.
    yield Branch("the largest prime number of columns", FREE, 0.0003, lambda c: c.n_cols == 65537)

    yield Branch(
        "no particular number of columns",
        EVERY_WIDTH,
        0.06,
        lambda c: is_plain(c.n_cols),
        in_between,
    )
    yield Branch(
        "several normalized dims of a wide row",
        SEVERAL,
        0.2,
        wide,
        lambda c: valid(c) and c.normalized_ndim > 1,
    )


def is_plain(width: int) -> bool:
    """Whether no kind of width but the one without any particulars is meant."""
    border = any(abs(width - times * 1500) < 2 for times in (1, 2, 3, 4))
    return width > 16 and width % 16 not in (15, 0, 1) and not is_prime(width) and not border


def _prime(case: Case) -> bool:
    return is_prime(case.n_cols)


def _borders() -> Iterator[Branch]:
    def at(block: int, times: int, step: int) -> Holds:
        return lambda c: c.n_cols == times * block + step

    for times in (1, 2, 3, 4):
        for step in (-1, 0, 1):
            yield Branch(
                f"{times} blocks {step:+d} columns", BORDERED, 0.003, at(1500, times, step)
            )
    yield Branch(
        "blocks of the default launch, +-1 column",
        BORDERED_BY_DEFAULT,
        0.1,
        lambda c: any(abs(c.n_cols - times * 1500) < 2 for times in (1, 2, 3, 4)),
        lambda c: valid(c) and launch_block(c) == 1500,
    )
    yield Branch("1 block of a configuration", CONFIGURED, 0.001, at(3100, 1, 0))
    yield Branch("1 block of a configuration among rows", CONFIGURED, 0.001, at(1500, 1, 0))


def _groups() -> Iterator[Branch]:
    def flag(case: Case) -> bool:
        return case.flags["group_size"] is None

    def several(case: Case) -> bool:
        return valid(case) and case.n_groups > 1 and case.group_size > 1

    def one(case: Case) -> bool:
        return valid(case) and not flag(case) and case.n_groups == 1

    yield Branch("no groups", GATING, 0.15, flag)
    yield Branch("one group of all columns", GATING, 0.1, one)
    yield Branch("groups of 1 column", GATING, 0.04, lambda c: c.group_size == 1)
    yield Branch("groups of 1 column, many", GATING, 0.005, _many_of_one)
    yield Branch("several groups", GATING, 0.3, several)
    yield Branch(
        "several groups of a wide row",
        GATING,
        0.1,
        several,
        lambda c: valid(c) and c.n_cols > 4096,
    )

    def large(case: Case) -> bool:
        return several(case) and case.group_size > 32

    yield Branch(
        "groups of a prime number of columns", GATING, 0.2, lambda c: is_prime(c.group_size), large
    )
    yield Branch(
        "groups of a power of 2", GATING, 0.2, lambda c: is_power_of_2(c.group_size), large
    )
    yield Branch("several groups of more than a block", GATING, 0.1, _more_than_block, several)

    def narrow(case: Case) -> bool:
        return several(case) and case.n_cols <= 4096

    yield Branch(
        "several groups of more than a block in narrow rows",
        GROUPED_ROWS,
        0.025,
        lambda c: c.group_size > 1500,
        narrow,
    )
    yield Branch(
        "groups of no particular size",
        GROUPED_ROWS,
        0.015,
        lambda c: is_plain(c.group_size) and c.group_size < 1500,
        narrow,
    )
    yield Branch("one group of all columns, without launch", OTHER_ROLES, 0.095, one)
    yield Branch("groups of a target without launch", OTHER_ROLES, 0.2, several)


def _many_of_one(case: Case) -> bool:
    return case.group_size == 1 and case.n_cols > 16


def _more_than_block(case: Case) -> bool:
    return 0 < launch_block(case) < case.group_size


def _groups_of_one_width() -> Iterator[Branch]:
    kinds: dict[str, Callable[[int | None], bool]] = {
        "no groups": lambda size: size is None,
        "one group": lambda size: size == 64 * 3 * 37,
        "prime groups": lambda size: size in (2, 3, 37) and size is not None,
        "power of 2 groups": lambda size: size in (16, 32, 64),
        "larger groups than default blocks": lambda size: size is not None and size > 1024,
        "groups of another size": lambda size: size in (3 * 37, 6 * 37, 12 * 37, 24 * 37, 48, 96),
    }
    for name, holds in kinds.items():
        yield Branch(
            f"{name} of a given width",
            ONE_WIDTH,
            0.012,
            lambda c, h=holds: h(c.flags["group_size"]),
        )


def _numbers_of_groups() -> Iterator[Branch]:
    def several(case: Case) -> bool:
        return valid(case) and case.n_groups > 1 and case.group_size > 1

    for groups, least in (
        (2, 0.1),
        (3, 0.1),
        (4, 0.08),
        (5, 0.05),
        (7, 0.03),
        (8, 0.05),
        (16, 0.01),
        (31, 0.01),
    ):
        yield Branch(
            f"{groups} groups", GATING, least, lambda c, n=groups: c.n_groups == n, several
        )
    for groups in (1, 2, 3, 4, 5, 7, 8, 16, 31):
        yield Branch(
            f"{groups} groups of a given size",
            ONE_GROUP_SIZE,
            0.01,
            lambda c, n=groups: c.n_groups == n,
        )
