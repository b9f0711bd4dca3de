"""What an operation costs: the oracle's model of the norm, and the steps around it."""

from __future__ import annotations

from ln_kernels.benchmark.operations import DTYPES, Operation
from oracle.cost import Cost, Step, layer_norm_cost

STATISTIC_BYTES = 4
"""mean and rstd are fp32."""


def cost_of(operation: Operation, dtype: str, n_rows: int, n_cols: int) -> Cost:
    """The steps that a launch for each would take, and the bytes that one launch moves.

    The fused bytes are every input read once and every output that is asked for written once.
    """
    width = DTYPES[dtype].itemsize
    size, full, vector = n_rows * n_cols, n_rows * n_cols * width, n_cols * width
    norm = layer_norm_cost(
        n_rows,
        n_cols,
        element_bytes=width,
        parameter_bytes=width,
        has_bias="bias" in operation.inputs,
    )
    steps = list(norm.steps)
    fused = norm.fused_bytes
    if operation.is_rms_norm:
        row = n_rows * width
        # Square and add; then only the product with rstd.
        steps[0] = Step("mean_square", 2 * size, full, row)
        steps[2] = Step("normalize", size, full + row, full)
    if "input_bias" in operation.inputs:
        steps.insert(0, Step("add_bias", size, full + vector, full))
        fused += vector
    if "residual" in operation.inputs:
        steps.insert(0, Step("add_residual", size, 2 * full, full))
        fused += full
    if "z" in operation.inputs:
        # exp, add, divide, multiply; then the product with what is gated.
        steps.append(Step("silu", 4 * size, full, full))
        steps.append(Step("gate", size, 2 * full, full))
        fused += full
    if "sum" in operation.outputs:
        fused += full
    fused += STATISTIC_BYTES * n_rows * len({"mean", "rstd"} & set(operation.outputs))
    return Cost(tuple(steps), fused)
