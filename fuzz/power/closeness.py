"""What most tests of kernels say of a result: torch.testing.assert_close at its defaults.

In NumPy, because the engine has no torch, and step by step in the dtype of the tensors as torch
computes it, so that both agree on every element.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from fuzz.case import Case
from fuzz.judging.owed import (
    as_rows,
    dtype_of,
    due_outputs,
    expected_outputs,
    problem_of,
    shape_of,
)
from fuzz.judging.regions import Mask
from fuzz.spec import TargetSpec
from fuzz.verdict import Bits, Observation
from oracle.formats import F64, FORMATS, decode, round_to

TOLERANCES: dict[str, tuple[float, float]] = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
}
"""rtol and atol by dtype. Source: ``torch.testing._comparison._DTYPE_PRECISIONS``."""


def is_close(observed: F64, expected: F64, dtype: str) -> Mask:
    """Where torch.testing.assert_close accepts an element of two tensors of this dtype.

    NaN equals NaN, which assert_close has to be told: a judge that calls every NaN wrong that is
    owed would be of no use on inputs that have some.
    Shapes: any, both the same. Source: ``torch.isclose``.
    """
    fmt = FORMATS[dtype]

    def stored(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        # Half-precision tensors are computed in float32, and each result is stored in half.
        return round_to(values.astype(np.float64), fmt).astype(np.float32)

    rtol, atol = (np.array(tolerance, np.float32) for tolerance in TOLERANCES[dtype])
    with np.errstate(all="ignore"):
        a, b = observed.astype(np.float32), expected.astype(np.float32)
        # A factor stays in float32, a summand takes the dtype of the tensor.
        allowed = stored(np.abs(stored(rtol * b)) + stored(atol))
        error = np.abs(stored(a - b))
    same = (observed == expected) | (np.isnan(observed) & np.isnan(expected))
    close: Mask = same | (np.isfinite(error) & (error <= allowed))
    return close


def rejections(
    spec: TargetSpec,
    case: Case,
    values: dict[str, Bits],
    observation: Observation,
    outputs: Collection[str],
    *,
    interpreted: bool,
) -> dict[str, str]:
    """What assert_close says of the base run, by output: only of those it rejects.

    The reference is the oracle's value, correctly rounded to the dtype of the output, computed
    from the inputs alone: returned statistics play no part in what follows from them.
    """
    said: dict[str, str] = {}
    present = {}
    for output in due_outputs(spec, case):
        if output.name not in outputs:
            continue
        array = observation.outputs.get(output.name)
        shape, dtype = shape_of(output, case), dtype_of(output, case)
        if array is None:
            said[output.name] = f"{output.name} is missing"
        elif (array.shape, array.dtype) != (shape, dtype):
            said[output.name] = (
                f"{output.name} is {array.dtype}{list(array.shape)}, must be {dtype}{list(shape)}"
            )
        else:
            present[output.name] = decode(as_rows(output, case, array.bits), dtype), dtype
    if present:
        problem = problem_of(spec, case, values, interpreted=interpreted)
        with np.errstate(all="ignore"):
            dtypes = {name: dtype for name, (_, dtype) in present.items()}
            expected = expected_outputs(spec, problem, dtypes, {})
    for name, (observed, dtype) in present.items():
        rounded = round_to(expected[name].value, FORMATS[dtype])
        wrong = ~is_close(observed, rounded, dtype)
        if wrong.any():
            said[name] = f"{name}: {int(wrong.sum())} of {wrong.size} elements are not close"
    return said
