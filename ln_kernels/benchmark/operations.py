"""The operations that are measured, their inputs, and this project's kernels for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import ln_kernels

EPS = 1e-5

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

DISTINCT_ROWS = (61, 31, 13, 7, 3)
"""Rows repeat after one of these many. Primes: a kernel that takes a row for its neighbour at some
power of two away, where grids and addresses wrap, still takes it for a different one."""

DISTINCT_ELEMENTS = 2**18
"""Elements of the distinct rows of a tensor, about: the oracle walks them in 0.1 s."""


@dataclass(frozen=True)
class Operation:
    """What is computed, whoever does it.

    ``inputs`` are x and weight always, and those of bias, input_bias, residual and z that it has;
    ``outputs`` those of y, sum, mean and rstd that are asked for.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ("y",)
    is_rms_norm: bool = False


_PLAIN = ("x", "weight", "bias")

OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("layer_norm", _PLAIN),
        Operation("native_layer_norm", _PLAIN, ("y", "mean", "rstd")),
        Operation("residual", (*_PLAIN, "residual")),
        Operation("residual_sum", (*_PLAIN, "residual"), ("y", "sum")),
        Operation("bias", (*_PLAIN, "input_bias")),
        Operation("gated", (*_PLAIN, "z")),
        Operation("rms", ("x", "weight"), is_rms_norm=True),
        Operation("gated_rms", ("x", "weight", "z"), is_rms_norm=True),
    )
}


@dataclass(frozen=True)
class Inputs:
    """The tensors of a point on the device by name, and their distinct rows on the host.

    Shapes: x, residual and z (n_rows, n_cols), row i the distinct row i % n_distinct; the others
        (n_cols,). In ``distinct`` the former are (n_distinct, n_cols).
    """

    tensors: dict[str, Tensor]
    distinct: dict[str, Tensor]

    @property
    def x(self) -> Tensor:
        """What every operation has."""
        return self.tensors["x"]

    def take(self, *names: str) -> list[Tensor]:
        """The tensors of these names, which the operation must have."""
        return [self.tensors[name] for name in names]


def make_inputs(
    operation: Operation, dtype: str, n_rows: int, n_cols: int, device: torch.device
) -> Inputs:
    """Draw the inputs of an operation: ordinary values, the same for every run.

    The mean is half a standard deviation off 0, so that no step of the arithmetic is idle.
    """
    generator = np.random.Generator(np.random.PCG64(0))
    n_distinct = next((n for n in DISTINCT_ROWS if n * n_cols <= DISTINCT_ELEMENTS), 3)
    n_distinct = min(n_distinct, n_rows)
    index = torch.arange(n_rows, device=device) % n_distinct

    distinct: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    for name in operation.inputs:
        full = name in ("x", "residual", "z")
        shape = (n_distinct, n_cols) if full else (n_cols,)
        values = generator.standard_normal(shape, dtype=np.float32)
        drawn = torch.from_numpy(values)
        drawn = 1 + drawn / 8 if name == "weight" else drawn + 0.5
        distinct[name] = drawn.to(DTYPES[dtype])
        there = distinct[name].to(device)
        tensors[name] = there.index_select(0, index) if full else there
    return Inputs(tensors, distinct)


Run = Callable[[], Any]
"""Computes an operation once, on inputs that it holds; returns one tensor or a tuple."""

Bind = Callable[[Inputs], Run]


@dataclass(frozen=True)
class Kernel:
    """One of this project's kernels; ``returns`` names what it returns, in order."""

    operation: Operation
    bind: Bind
    returns: tuple[str, ...]


def _layer_norm(inputs: Inputs) -> Run:
    x, weight, bias = inputs.take("x", "weight", "bias")
    return lambda: ln_kernels.layer_norm(x, weight, bias, EPS)


def _whole_row(inputs: Inputs) -> Run:
    x, weight, bias = inputs.take("x", "weight", "bias")
    return lambda: ln_kernels.triton_layer_norm(x, weight, bias, EPS)


def _native(inputs: Inputs) -> Run:
    x, weight, bias = inputs.take("x", "weight", "bias")
    shape = weight.shape
    return lambda: ln_kernels.native_layer_norm(x, shape, weight, bias, EPS)


def _residual(inputs: Inputs) -> Run:
    x, residual, weight, bias = inputs.take("x", "residual", "weight", "bias")
    return lambda: ln_kernels.layer_norm_residual(x, None, residual, weight, bias, EPS)


def _residual_sum(inputs: Inputs) -> Run:
    x, residual, weight, bias = inputs.take("x", "residual", "weight", "bias")
    return lambda: ln_kernels.layer_norm_residual(
        x, None, residual, weight, bias, EPS, return_sum=True
    )


def _bias(inputs: Inputs) -> Run:
    x, input_bias, weight, bias = inputs.take("x", "input_bias", "weight", "bias")
    return lambda: ln_kernels.fused_bias_layer_norm(x, input_bias, weight, bias, EPS)


def _gated(inputs: Inputs) -> Run:
    x, weight, bias, z = inputs.take("x", "weight", "bias", "z")
    return lambda: ln_kernels.layernorm_fn(x, weight, bias, z, EPS)


def _rms(inputs: Inputs) -> Run:
    x, weight = inputs.take("x", "weight")
    return lambda: ln_kernels.rmsnorm_fn(x, weight, None, None, EPS)


def _gated_rms(inputs: Inputs) -> Run:
    x, weight, z = inputs.take("x", "weight", "z")
    return lambda: ln_kernels.rmsnorm_fn(x, weight, None, z, EPS)


def _kernel(operation: str, bind: Bind) -> Kernel:
    return Kernel(OPERATIONS[operation], bind, OPERATIONS[operation].outputs)


KERNELS = {
    "layer_norm": _kernel("layer_norm", _layer_norm),
    "triton_layer_norm": _kernel("layer_norm", _whole_row),
    "native_layer_norm": _kernel("native_layer_norm", _native),
    "layer_norm_residual": _kernel("residual", _residual),
    "layer_norm_residual_sum": _kernel("residual_sum", _residual_sum),
    "fused_bias_layer_norm": _kernel("bias", _bias),
    "layernorm_fn": _kernel("gated", _gated),
    "rmsnorm_fn": _kernel("rms", _rms),
    "rmsnorm_fn_gated": _kernel("gated_rms", _gated_rms),
}
"""By the name that ``--kernel`` takes: the function's, and what of it is meant."""
