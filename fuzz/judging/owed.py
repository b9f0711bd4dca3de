"""What a target owes for a case: the oracle asked in the case's terms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fuzz.case import Case
from fuzz.space.widths import block_of
from fuzz.spec import OutputSpec, TargetSpec
from fuzz.verdict import Bits
from oracle.arithmetic import Depth, reduction_depth
from oracle.bounds import Bounded
from oracle.compare import Expected, expect
from oracle.formats import F64, decode
from oracle.refs import Problem, Walk, walk

Rows = slice | list[int]
"""A choice of rows, as an index."""


def due_outputs(spec: TargetSpec, case: Case) -> tuple[OutputSpec, ...]:
    """The outputs that this case must return: no mean for RMS, no sum unless asked for."""
    absent = set()
    if case.flags.get("is_rms_norm"):
        absent.add("mean")
    if case.flags.get("return_sum") is False:
        absent.add("sum")
    return tuple(o for o in spec.outputs if o.name not in absent)


def shape_of(output: OutputSpec, case: Case) -> tuple[int, ...]:
    """The shape that an output must have."""
    if output.shape == "full":
        return case.shape
    if output.shape == "cols":
        return case.normalized
    if output.shape == "rows":
        return case.leading
    if output.shape == "rows_keepdim":
        return case.leading + (1,) * case.normalized_ndim
    return (case.n_groups * case.n_rows,)


def dtype_of(output: OutputSpec, case: Case) -> str:
    """The dtype that an output must have: that of the tensor it was given, else the spec's."""
    given = case.tensor(output.given_as) if output.given_as else None
    if given is not None:
        return given.dtype
    return case.dtype if output.dtype == "x" else output.dtype


def as_rows(output: OutputSpec, case: Case, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An output's elements as (n_rows, columns): group-major statistics are turned.

    The columns are n_cols, the groups, or 1. What has no rows ("cols") is one row.
    """
    if output.shape == "groups":
        return array.reshape(case.n_groups, case.n_rows).T
    if output.shape == "cols":
        return array.reshape(1, case.n_cols)
    return array.reshape(case.n_rows, case.n_cols if output.shape == "full" else 1)


def index_of(output: OutputSpec, case: Case, row: int, column: int) -> tuple[int, ...]:
    """Where an element of :func:`as_rows` lies in the output itself."""
    shape = shape_of(output, case)
    if output.shape == "groups":
        return (column * case.n_rows + row,)
    flat = row * (case.n_cols if output.shape == "full" else 1) + column
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def problem_of(
    spec: TargetSpec, case: Case, values: dict[str, Bits], *, interpreted: bool
) -> Problem:
    """The oracle's problem for a case and its dense input bits."""

    def full(name: str) -> F64 | None:
        tensor = case.tensor(name)
        if tensor is None:
            return None
        return decode(values[name], tensor.dtype).reshape(case.n_rows, case.n_cols)

    def cols(name: str) -> F64 | None:
        tensor = case.tensor(name)
        return None if tensor is None else decode(values[name], tensor.dtype).reshape(case.n_cols)

    x = full("x")
    assert x is not None, "a valid case has x"
    offset = case.flags.get("weight_offset")
    return Problem(
        x=x,
        dtype=case.dtype,
        eps=case.eps,
        depth=_depth(spec, case, interpreted=interpreted),
        group_size=case.group_size,
        residual=full("residual"),
        input_bias=cols("input_bias"),
        z=full("z"),
        weight=cols("weight"),
        bias=cols("bias"),
        is_rms_norm=bool(case.flags.get("is_rms_norm", False)),
        norm_before_gate=bool(case.flags.get("norm_before_gate", True)),
        weight_offset=float(offset) if offset else 0.0,
    )


def _depth(spec: TargetSpec, case: Case, *, interpreted: bool) -> int:
    num_warps = case.launch.num_warps
    if case.launch.config is not None:
        warps = dict(spec.launch.configs[case.launch.config]).get("num_warps")
        num_warps = None if warps is None else int(warps)
    return reduction_depth(
        spec.arithmetic.depth or Depth(),
        n_cols=case.group_size,
        block=block_of(case.launch, spec.launch),
        num_warps=num_warps,
        interpreted=interpreted,
    )


def expected_outputs(
    spec: TargetSpec, problem: Problem, dtypes: dict[str, str], observed: dict[str, F64]
) -> dict[str, Expected]:
    """What each of the outputs named in ``dtypes`` must be, rows by columns.

    ``observed`` are outputs that came back: the steps after a reused one are judged from it.
    Raises: ValueError for an output that the oracle does not know.
    """
    return expected_of(spec, walk(problem, spec.arithmetic, observed), dtypes)


def expected_of(spec: TargetSpec, walked: Walk, dtypes: dict[str, str]) -> dict[str, Expected]:
    """What each of the outputs named in ``dtypes`` must be after the oracle's walk.

    Raises: ValueError for an output that the oracle does not know.
    """
    bounded = walked.outputs
    for name in dtypes:
        if name not in bounded:
            raise ValueError(f"output={name!r}, must be one of {', '.join(bounded)} [{spec.name}]")
    return {name: expect(bounded[name], dtype) for name, dtype in dtypes.items()}


def rows_of_problem(problem: Problem, rows: Rows) -> Problem:
    """The same problem for chosen rows, in that order."""

    def chosen(values: F64 | None) -> F64 | None:
        return None if values is None else values[rows]

    return replace(
        problem, x=problem.x[rows], residual=chosen(problem.residual), z=chosen(problem.z)
    )


def rows_of_walk(walked: Walk, rows: Rows) -> Walk:
    """The walk of chosen rows, in that order."""

    def part(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # A scalar stands for every element.
        return values if values.ndim == 0 else values[rows]

    def chosen(a: Bounded) -> Bounded:
        return Bounded(part(a.value), part(a.error), part(a.free))

    return replace(
        walked,
        outputs={name: chosen(a) for name, a in walked.outputs.items()},
        s=chosen(walked.s),
        mean=None if walked.mean is None else chosen(walked.mean),
        rstd=chosen(walked.rstd),
        gate=None if walked.gate is None else chosen(walked.gate),
    )


def rows_of_expected(expected: Expected, rows: Rows) -> Expected:
    """The expectation of chosen rows, in that order."""
    return Expected(
        expected.value[rows],
        expected.low[rows],
        expected.high[rows],
        expected.tolerance[rows],
        expected.free[rows],
    )
