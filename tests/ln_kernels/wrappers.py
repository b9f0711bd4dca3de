"""Every public function as `call(x, out=..., launch=...)`, for what holds for all of them."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import ln_kernels


@dataclass(frozen=True)
class Wrapper:
    """A function with one row-shaped input; `kernel` is where its kernel lives."""

    name: str
    call: Callable[..., Any]
    module: str
    kernel: str
    rms: bool = False

    def kernel_place(self) -> tuple[Any, str]:
        """What to give monkeypatch; the package's attributes name functions, not modules."""
        return importlib.import_module(f"ln_kernels.{self.module}"), self.kernel


def _layer_norm(x: Tensor, **options: Any) -> Tensor:
    return ln_kernels.layer_norm(x, None, None, **options)


def _native_layer_norm(x: Tensor, **options: Any) -> Tensor:
    return ln_kernels.native_layer_norm(x, x.shape[-1], None, None, 1e-5, **options)[0]


def _layer_norm_residual(x: Tensor, **options: Any) -> Tensor:
    # x + 0 is x: what the residual adds has tests of its own.
    return ln_kernels.layer_norm_residual(x, None, x.new_zeros(x.shape), None, None, **options)


def _triton_layer_norm(x: Tensor, **options: Any) -> Tensor:
    return ln_kernels.triton_layer_norm(x, None, None, **options)


def _fused_bias_layer_norm(x: Tensor, **options: Any) -> Tensor:
    return ln_kernels.fused_bias_layer_norm(x, x.new_zeros(x.shape[-1]), None, None, **options)


def _layernorm_fn(x: Tensor, **options: Any) -> Tensor:
    return ln_kernels.layernorm_fn(x, None, None, eps=1e-5, **options)


def _rmsnorm_fn(x: Tensor, **options: Any) -> Tensor:
    return ln_kernels.rmsnorm_fn(x, None, None, eps=1e-5, **options)


WRAPPERS = [
    Wrapper("layer_norm", _layer_norm, "layer_norm", "_layer_norm_kernel"),
    Wrapper("native_layer_norm", _native_layer_norm, "layer_norm", "_layer_norm_kernel"),
    Wrapper("layer_norm_residual", _layer_norm_residual, "residual", "_layer_norm_residual_kernel"),
    Wrapper("triton_layer_norm", _triton_layer_norm, "whole_row", "_whole_row_layer_norm_kernel"),
    Wrapper(
        "fused_bias_layer_norm", _fused_bias_layer_norm, "bias", "_fused_bias_layer_norm_kernel"
    ),
    Wrapper("layernorm_fn", _layernorm_fn, "grouped", "_gated_norm_kernel"),
    Wrapper("rmsnorm_fn", _rmsnorm_fn, "grouped", "_gated_norm_kernel", rms=True),
]
