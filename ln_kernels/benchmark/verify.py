"""Judging what an implementation returns, element by element, by the oracle's bounds.

Rows repeat after a few distinct ones, so the oracle walks those alone and yet every element is
judged: on the device, by the test that ``oracle.compare`` makes, between the least and the largest
right store. What is wrong comes back and is described by the oracle itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ln_kernels.benchmark.operations import DTYPES, EPS, Inputs, Operation
from oracle.arithmetic import Arithmetic, reduction_depth
from oracle.compare import Expected, compare, expect
from oracle.refs import Problem, decompose

CHUNK = 2**26
"""Elements that are judged at once: what the comparison needs stays below 1 GB."""


@dataclass(frozen=True)
class _Owed:
    """What one output must be for the distinct rows, on the host and on the device."""

    expected: Expected
    low: Tensor
    high: Tensor


class Judge:
    """Knows what is owed for one set of inputs; the implementations share what it works out."""

    def __init__(self, operation: Operation, dtype: str, inputs: Inputs, *, interpreted: bool):
        self._operation = operation
        self._dtype = dtype
        self._inputs = inputs
        self._interpreted = interpreted
        self._owed: dict[Arithmetic, dict[str, _Owed]] = {}

    def fault(
        self, result: Any, returns: Sequence[str | None], arithmetics: Sequence[Arithmetic]
    ) -> str | None:
        """What is wrong with a result, or None: it must fit one of the arithmetics as a whole."""
        parts = result if isinstance(result, tuple | list) else (result,)
        found: dict[str, Tensor] = {}
        for name, part in zip(returns, parts, strict=True):
            if name is None:
                continue
            fault = self._shape_fault(name, part)
            if fault is not None:
                return fault
            found[name] = part.reshape(self._inputs.x.shape[0], -1)
        faults: list[str] = []
        for arithmetic in arithmetics:
            fault = self._value_fault(found, self._owed_under(arithmetic))
            if fault is None:
                return None
            faults.append(fault)
        return faults[0]

    def _shape_fault(self, name: str, part: Any) -> str | None:
        x = self._inputs.x
        statistic = name in ("mean", "rstd")
        dtype = torch.float32 if statistic else x.dtype
        if not isinstance(part, Tensor) or part.dtype != dtype:
            return f"{name} is {getattr(part, 'dtype', type(part))}, must be {dtype}"
        right = part.numel() == x.shape[0] if statistic else part.shape == x.shape
        if not right:
            return f"{name}.shape={tuple(part.shape)}, does not fit x.shape={tuple(x.shape)}"
        return None

    def _owed_under(self, arithmetic: Arithmetic) -> dict[str, _Owed]:
        if arithmetic not in self._owed:
            bounded = decompose(self._problem(arithmetic), arithmetic)
            owed: dict[str, _Owed] = {}
            for name in self._operation.outputs:
                dtype = "float32" if name in ("mean", "rstd") else self._dtype
                expected = expect(bounded[name], dtype)
                low, high = (
                    # Both are values of the dtype: nothing is rounded here.
                    torch.from_numpy(end).to(DTYPES[dtype]).to(self._inputs.x.device)
                    for end in (expected.low, expected.high)
                )
                owed[name] = _Owed(expected, low, high)
            self._owed[arithmetic] = owed
        return self._owed[arithmetic]

    def _problem(self, arithmetic: Arithmetic) -> Problem:
        values = {
            name: tensor.to(torch.float64).numpy() for name, tensor in self._inputs.distinct.items()
        }
        n_cols = values["x"].shape[1]
        depth = reduction_depth(
            arithmetic.depth,
            n_cols=n_cols,
            block=None,
            num_warps=None,
            interpreted=self._interpreted,
        )
        return Problem(
            dtype=self._dtype,
            eps=EPS,
            depth=depth,
            group_size=n_cols,
            is_rms_norm=self._operation.is_rms_norm,
            x=values["x"],
            residual=values.get("residual"),
            input_bias=values.get("input_bias"),
            z=values.get("z"),
            weight=values["weight"],
            bias=values.get("bias"),
        )

    def _value_fault(self, found: dict[str, Tensor], owed: dict[str, _Owed]) -> str | None:
        for name, observed in found.items():
            rows = _wrong_rows(observed, owed[name])
            if rows.numel():
                return _description(name, observed, owed[name].expected, rows)
        return None


def _wrong_rows(observed: Tensor, owed: _Owed) -> Tensor:
    """The rows that hold a wrong element."""
    n_rows, width = observed.shape
    n_distinct = owed.low.shape[0]
    wrong: list[Tensor] = []
    step = max(1, CHUNK // width)
    for first in range(0, n_rows, step):
        rows = torch.arange(first, min(first + step, n_rows), device=observed.device)
        part, same = observed[first : first + step], rows % n_distinct
        inside = (part >= owed.low[same]) & (part <= owed.high[same])
        wrong.append(rows[~inside.all(dim=1)])
    return torch.cat(wrong)


def _description(name: str, observed: Tensor, expected: Expected, rows: Tensor) -> str:
    """The worst element of the first wrong row, as the oracle sees it."""
    row = int(rows[0])
    same = row % expected.value.shape[0]
    values = observed[row].to(torch.float64).cpu().numpy()
    owed = Expected(
        *(
            part[same]
            for part in (
                expected.value,
                expected.low,
                expected.high,
                expected.tolerance,
                expected.free,
            )
        )
    )
    comparison = compare(values, owed)
    column = int(np.argmax(comparison.ratio))
    return (
        f"{name}[{row}, {column}]={values[column]:.8g}, but should be "
        f"{owed.value[column]:.8g} +- {owed.tolerance[column]:.2g} "
        f"(error/bound {comparison.ratio[column]:.3g}); {int(comparison.wrong.sum())} of "
        f"{len(values)} elements of this row, and {len(rows)} of {observed.shape[0]} rows are wrong"
    )
