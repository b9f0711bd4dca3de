"""Arithmetic and memory traffic of layer normalisation, step by step and fused.

Each step of the reference decomposition is counted as a kernel of its own that reads its operands
from memory and writes its results; a fused kernel reads the inputs and writes the output once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step: floating-point operations, bytes read, bytes written."""

    name: str
    flops: int
    reads: int
    writes: int


@dataclass(frozen=True)
class Cost:
    """The steps in the order in which they run, and what a fused kernel moves instead."""

    steps: tuple[Step, ...]
    fused_bytes: int

    @property
    def flops(self) -> int:
        """Floating-point operations of all steps."""
        return sum(step.flops for step in self.steps)

    @property
    def reads(self) -> int:
        """Bytes that all steps read."""
        return sum(step.reads for step in self.steps)

    @property
    def writes(self) -> int:
        """Bytes that all steps write."""
        return sum(step.writes for step in self.steps)

    @property
    def bytes(self) -> int:
        """Bytes that all steps move."""
        return self.reads + self.writes


def layer_norm_cost(
    n_rows: int,
    n_cols: int,
    *,
    element_bytes: int,
    parameter_bytes: int,
    has_weight: bool = True,
    has_bias: bool = True,
    converts: bool = False,
    compute_bytes: int | None = None,
) -> Cost:
    """The cost of normalising n_rows rows of n_cols elements.

    ``converts`` adds the conversions to the compute format and back; without it x is of that
    format already. ``compute_bytes`` is the width of what passes between the steps: by default
    that of x, as in the usual table; 4 gives the traffic of half-precision x computed in fp32.

    Operations: 4 an element for the variance and the mean (add; subtract, square, add), 2 a row
    for rsqrt(variance + eps), 2 an element to normalise, 1 an element each for weight and bias.
    Raises: ValueError for a size that is negative or a width below 1.
    Source: torch/_refs ``native_layer_norm`` and ``_normalize``.
    """
    for name, value, least in (
        ("n_rows", n_rows, 0),
        ("n_cols", n_cols, 0),
        ("element_bytes", element_bytes, 1),
        ("parameter_bytes", parameter_bytes, 1),
        ("compute_bytes", 1 if compute_bytes is None else compute_bytes, 1),
    ):
        if value < least:
            raise ValueError(f"{name}={value}, must be >= {least} [layer_norm_cost]")
    size = n_rows * n_cols
    stored = size * element_bytes
    width = element_bytes if compute_bytes is None else compute_bytes
    full, row = size * width, n_rows * width
    n_parameters = int(has_weight) + int(has_bias)
    parameters = n_parameters * n_cols * parameter_bytes

    steps = [
        Step("var_mean", 4 * size, full, 2 * row),
        Step("rsqrt", 2 * n_rows, row, row),
        Step("normalize", 2 * size, full + 2 * row, full),
    ]
    if n_parameters:
        steps.append(Step("affine", n_parameters * size, full + parameters, full))
    if converts:
        steps.insert(0, Step("convert", 0, stored, full))
        steps.append(Step("convert_back", 0, full, stored))
    return Cost(tuple(steps), 2 * stored + parameters)
