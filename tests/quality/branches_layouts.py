"""Branches that decide strides and offsets."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.case import Case, contiguous_strides
from tests.quality.branches_readings import exchanges, gaps, is_contiguous, leading, manners, own
from tests.quality.branches_samples import (
    AMONG_UNIT_DIMS,
    FIVE_LEADING,
    FREE,
    GATING,
    NO_ROWS,
    OTHER_ROLES,
    PLAIN,
    SEVERAL,
    THREE_LEADING,
)
from tests.quality.branches_sampling import Branch, Holds, Sample, valid

MANNERS = ("row_gap", "permuted", "expanded", "outer_gap")


def layout_branches() -> Iterator[Branch]:
    yield from _manners()
    yield from _gaps()
    yield from _permutations()
    yield from _expanded()
    yield from _offsets()
    yield from _loose_strides()
    yield from _other_tensors()


def _wide(dims: int) -> Holds:
    """So many leading dims of more than one element, which all of the layout is about."""
    return lambda c: valid(c) and c.n_rows > 0 and len(leading(c)) == dims


def _manners() -> Iterator[Branch]:
    def just(*wanted: str) -> Holds:
        return lambda c: manners(c) == set(wanted)

    for manner, least in zip(MANNERS, (0.1, 0.08, 0.05, 0.05), strict=True):
        yield Branch(f"{manner} alone", THREE_LEADING, least, just(manner), _wide(3))
    yield Branch("rows of a strided tensor as they come", THREE_LEADING, 0.2, just(), _wide(3))
    for manner in MANNERS:
        yield Branch(
            f"{manner} and another",
            THREE_LEADING,
            0.01,
            lambda c, m=manner: {m} < manners(c),
            _wide(3),
        )
        yield Branch(
            f"several manners of layout without {manner}",
            THREE_LEADING,
            0.005,
            lambda c, m=manner: m not in manners(c) and len(manners(c)) > 1,
            _wide(3),
        )
    yield Branch(
        "tensors without elements as they come",
        NO_ROWS,
        1,
        lambda c: all(is_contiguous(t) for t in c.tensors if t.n_elements == 0),
    )


def _gaps() -> Iterator[Branch]:
    def of(manner: str) -> Holds:
        return lambda c: valid(c) and c.n_cols > 64 and manner in manners(c)

    for gap in (1, 3, 7, 8, 16, 48, 64):
        yield Branch(
            f"gap of {gap} behind rows",
            FREE,
            0.02,
            lambda c, g=gap: gaps(c)[0] == g,
            of("row_gap"),
        )
        yield Branch(
            f"gap of {gap} behind outer dims",
            THREE_LEADING,
            0.01,
            lambda c, g=gap: g in gaps(c)[1:],
            of("outer_gap"),
        )
    yield Branch(
        "a gap behind one outer dim alone",
        THREE_LEADING,
        1,
        lambda c: sum(gap > 0 for gap in gaps(c)[1:]) == 1,
        of("outer_gap"),
    )
    yield Branch("gap of a whole row", FREE, 0.12, lambda c: gaps(c)[0] == c.n_cols, of("row_gap"))


def _permutations() -> Iterator[Branch]:
    def permuted(case: Case) -> bool:
        return _wide(5)(case) and manners(case) == {"permuted"}

    yield Branch(
        "2 of 5 leading dims exchanged",
        FIVE_LEADING,
        0.25,
        lambda c: exchanges(c) == 2,
        permuted,
    )
    yield Branch(
        "more than 2 of 5 leading dims exchanged",
        FIVE_LEADING,
        0.25,
        lambda c: exchanges(c) > 2,
        permuted,
    )
    yield Branch(
        "5 leading dims permuted", FIVE_LEADING, 0.5, lambda c: "permuted" in manners(c), _wide(5)
    )
    yield Branch(
        "5 leading dims, not permuted",
        FIVE_LEADING,
        0.2,
        lambda c: "permuted" not in manners(c),
        _wide(5),
    )
    yield Branch(
        "3 leading dims permuted", THREE_LEADING, 0.12, lambda c: "permuted" in manners(c), _wide(3)
    )


def _expanded() -> Iterator[Branch]:
    def expanded(case: Case) -> bool:
        return _wide(3)(case) and "expanded" in manners(case)

    def zero_strides(case: Case) -> list[bool]:
        return [stride == 0 for stride, _ in leading(case)]

    for dims, least in ((1, 0.3), (2, 0.12), (3, 0.002)):
        yield Branch(
            f"{dims} of 3 leading dims expanded",
            THREE_LEADING,
            least,
            lambda c, d=dims: sum(zero_strides(c)) == d,
            expanded,
        )
    for place, name in enumerate(("first", "second", "last")):
        yield Branch(
            f"the {name} of 3 leading dims expanded",
            THREE_LEADING,
            0.25,
            lambda c, p=place: zero_strides(c)[p],
            expanded,
        )
    yield Branch("all rows in the same memory", FREE, 0.08, lambda c: zero_strides(c)[0], _wide(1))


def _offsets() -> Iterator[Branch]:
    def there(name: str) -> Holds:
        return lambda c: valid(c) and c.n_rows > 0 and own(c, name) is not None

    def at(offset: int, name: str) -> Holds:
        return lambda c: c.tensor_or_fail(name).offset == offset

    for offset, least in (
        (0, 0.4),
        (1, 0.03),
        (2, 0.015),
        (3, 0.02),
        (4, 0.015),
        (7, 0.015),
        (8, 0.03),
        (16, 0.03),
        (64, 0.03),
    ):
        yield Branch(f"x at offset {offset}", FREE, least, at(offset, "x"), there("x"))
        yield Branch(
            f"weight at offset {offset}",
            PLAIN,
            0.8 if offset == 0 else least / 10,
            at(offset, "weight"),
            there("weight"),
        )
    for name, sample in (("out", PLAIN), ("z", GATING), ("mean", OTHER_ROLES)):
        yield Branch(
            f"{name} at an offset",
            sample,
            0.3,
            lambda c, n=name: c.tensor_or_fail(n).offset > 0,
            there(name),
        )


def _loose_strides() -> Iterator[Branch]:
    def unit_dims(case: Case) -> bool:
        several = case.n_rows > 1 and case.n_cols > 9
        return valid(case) and several and 1 in case.leading and bool(manners(case))

    def unit_strides(case: Case) -> set[int]:
        strides = case.tensor_or_fail("x").strides
        return {stride for size, stride in zip(case.shape, strides, strict=True) if size == 1}

    for stride in (3, 5, 7, 9):
        yield Branch(
            f"stride {stride} of a leading dim of 1",
            FREE,
            0.1,
            lambda c, s=stride: s in unit_strides(c),
            unit_dims,
        )
    yield Branch(
        "a leading dim of 1 with the stride of its place",
        FREE,
        0.3,
        lambda c: not unit_strides(c) <= {3, 5, 7, 9},
        unit_dims,
    )

    for dims, manner, least in (
        (1, "expanded", 0.08),
        (2, "expanded", 0.08),
        (2, "permuted", 0.12),
    ):
        yield Branch(
            f"{manner}, {dims} wide dims among those of 1",
            AMONG_UNIT_DIMS,
            least,
            lambda c, m=manner: m in manners(c),
            _wide(dims),
        )
    yield Branch(
        "outer_gap, the last leading dim of 1",
        AMONG_UNIT_DIMS,
        0.04,
        lambda c: "outer_gap" in manners(c),
        lambda c: _wide(2)(c) and c.leading[-1] == 1 and "permuted" not in manners(c),
    )
    yield Branch(
        "rows as they come, dims of 1 too",
        AMONG_UNIT_DIMS,
        0.4,
        lambda c: c.tensor_or_fail("x").strides == contiguous_strides(c.shape),
        lambda c: valid(c) and c.n_rows > 1 and not manners(c),
    )

    def one_column(case: Case) -> bool:
        return valid(case) and case.n_cols == 1 and case.n_rows > 1 and bool(manners(case))

    for name, strides in (("another stride", (3, 5, 7, 9)), ("stride 1", (1,))):
        yield Branch(
            f"1 column of {name}",
            FREE,
            0.3,
            lambda c, s=strides: c.tensor_or_fail("x").strides[-1] in s,
            one_column,
        )


def _other_tensors() -> Iterator[Branch]:
    def there(name: str) -> Holds:
        return lambda c: own(c, name) is not None and 1 < len(leading(c, name)) < 5

    tensors: tuple[tuple[str, Sample], ...] = (
        ("z", GATING),
        ("out", PLAIN),
        ("dy", OTHER_ROLES),
    )
    for name, sample in tensors:
        for manner in MANNERS:
            if (name, manner) == ("out", "expanded"):
                continue
            yield Branch(
                f"{name} {manner}",
                sample,
                0.06,
                lambda c, n=name, m=manner: m in manners(c, n),
                lambda c, n=name: valid(c) and c.n_rows > 0 and there(n)(c),
            )
    yield Branch(
        "out of another layout than x",
        PLAIN,
        0.4,
        lambda c: c.tensor_or_fail("out").strides != c.tensor_or_fail("x").strides,
        lambda c: valid(c) and c.n_rows > 0 and there("out")(c),
    )
    yield Branch(
        "rows of several normalized dims with gaps",
        SEVERAL,
        0.15,
        lambda c: "row_gap" in manners(c),
        lambda c: valid(c) and c.normalized_ndim > 1 and c.n_rows > 1,
    )
    for name in ("mean", "rstd"):
        yield Branch(
            f"{name} strided",
            OTHER_ROLES,
            0.4,
            lambda c, n=name: not is_contiguous(c.tensor_or_fail(n)),
            lambda c: valid(c) and c.n_rows > 1,
        )
