"""Branches that decide relations and refusals, and what is varied within frames."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.case import Case
from fuzz.relations import RELATIONS, Run
from tests.quality.branches_readings import is_contiguous
from tests.quality.branches_samples import (
    COMPILED,
    GATING,
    PLAIN,
    SEVERAL,
    SUMMED,
)
from tests.quality.branches_sampling import Branch, Holds, valid

MORE = ("repeat", "contiguous", "row_alone", "permuted", "drowned")


def run_branches() -> Iterator[Branch]:
    yield from _relations()
    yield from _runs()
    yield from _refusals()


def _several_rows(case: Case) -> bool:
    return valid(case) and case.n_rows > 1 and not all(map(is_contiguous, case.tensors))


def _relations() -> Iterator[Branch]:
    yield Branch("relation poisoned", PLAIN, 1.0, lambda c: c.relations[0] == "poisoned")
    for name, least in (("repeat", 0.07), *((name, 0.15) for name in MORE[1:])):
        yield Branch(
            f"relation {name}", PLAIN, least, lambda c, n=name: n in c.relations, _several_rows
        )
    # Others come first where there are others.
    yield Branch(
        "relations other than repeat",
        PLAIN,
        0.85,
        lambda c: "repeat" not in c.relations,
        _several_rows,
    )
    for number, least in ((0, 0.15), (1, 0.3), (2, 0.15)):
        yield Branch(
            f"{number} relations beside poisoned",
            PLAIN,
            least,
            lambda c, n=number: len(c.relations) == 1 + n,
            _several_rows,
        )
    yield Branch(
        "relation repeat, where no other applies",
        PLAIN,
        0.5,
        lambda c: "repeat" in c.relations,
        lambda c: valid(c) and c.n_rows < 2 and all(map(is_contiguous, c.tensors)),
    )
    yield Branch(
        "all relations on a GPU",
        COMPILED,
        1.0,
        lambda c: set(c.relations) == {"poisoned", *MORE},
        _several_rows,
    )


def _runs() -> Iterator[Branch]:
    """The relation's own choices follow from the case's seed."""

    def related(name: str) -> Holds:
        return lambda c: valid(c) and name in c.relations and c.n_rows > 2

    for poison in ("huge", "-huge"):
        yield Branch(
            f"poisoned with {poison}",
            PLAIN,
            0.4,
            lambda c, p=poison: _run(c, "poisoned").poison == p,
        )
    for place in ("first", "last", "inner"):
        yield Branch(
            f"the {place} row alone",
            PLAIN,
            0.07,
            lambda c, p=place: _place(_run(c, "row_alone").rows[0], c) == p,
            related("row_alone"),
        )
        yield Branch(
            f"the {place} row among rows of NaN",
            PLAIN,
            0.07,
            lambda c, p=place: _place(_run(c, "drowned").drowned, c) == p,
            related("drowned"),
        )

    for place in ("last", "inner"):
        yield Branch(
            f"the {place} row first",
            PLAIN,
            0.07,
            lambda c, p=place: _place(_run(c, "permuted").rows[0], c) == p,
            lambda c: related("permuted")(c) and c.n_rows > 3,
        )


def _run(case: Case, name: str) -> Run:
    run = RELATIONS[name](case)
    assert run is not None
    return run


def _place(row: int | None, case: Case) -> str:
    assert row is not None
    return {0: "first", case.n_rows - 1: "last"}.get(row, "inner")


REFUSALS = {
    GATING: (
        *("n_cols_zero", "x_zero_dim", "x_float64", "x_int64", "x_complex64", "x_column_stride"),
        *("weight_shape", "weight_int64", "bias_shape", "z_shape", "eps_negative"),
        *("out_shape", "out_dtype", "out_expanded", "group_size_not_divisor", "group_size_zero"),
    ),
    SUMMED: ("input_bias_shape", "residual_shape"),
    SEVERAL: ("normalized_shape_mismatch",),
}


def _refusals() -> Iterator[Branch]:
    def everything(case: Case) -> bool:
        return True

    for sample, names in REFUSALS.items():
        target = sample.spec.name
        yield Branch(
            f"refusals of {target}", sample, 0.03, lambda c: c.refusal is not None, everything
        )
        yield Branch(f"valid cases of {target}", sample, 0.92, valid, everything)
        for name in names:
            yield Branch(
                f"refusal {name}", sample, 0.0005, lambda c, n=name: c.refusal == n, everything
            )
    for dtype, other in (("float32", "float16"), ("bfloat16", "float32")):
        yield Branch(
            f"refusal of an out of {other} beside x {dtype}",
            GATING,
            0.01,
            lambda c, d=dtype, o=other: c.dtype == d and c.tensor_or_fail("out").dtype == o,
            lambda c: c.refusal == "out_dtype",
        )
    for refusal in ("x_float64", "x_int64", "x_complex64"):
        dtype = refusal.removeprefix("x_")
        yield Branch(
            f"refusal of {dtype}, an out of that dtype",
            GATING,
            0.05,
            lambda c, d=dtype: any(t.name == "out" and t.dtype == d for t in c.tensors),
            lambda c, n=refusal: c.refusal == n,
        )
    yield Branch(
        "refusal of no columns, weight and out without any",
        GATING,
        0.03,
        lambda c: {t.name for t in c.tensors if t.n_elements == 0} >= {"x", "weight", "out"},
        lambda c: c.refusal == "n_cols_zero",
    )
    yield Branch(
        "refusal of a group size that is not 0",
        GATING,
        1.0,
        lambda c: c.n_cols % c.group_size > 0,
        lambda c: c.refusal == "group_size_not_divisor",
    )
    yield Branch(
        "refused cases have no planted values",
        GATING,
        1.0,
        lambda c: not any(t.values and t.values.plants for t in c.tensors),
        lambda c: c.refusal is not None,
    )
