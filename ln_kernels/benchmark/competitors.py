"""Other implementations of the operations, each where it is installed and does the same work."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ln_kernels.benchmark import promises
from ln_kernels.benchmark.operations import EPS, Bind, Inputs, Run
from oracle.arithmetic import Arithmetic


@dataclass(frozen=True)
class Entry:
    """How a competitor does one operation; ``returns`` names its results, None: not looked at."""

    bind: Bind
    arithmetics: tuple[Arithmetic, ...]
    returns: tuple[str | None, ...] = ("y",)


@dataclass(frozen=True)
class Competitor:
    """One implementation: the package that it needs, and the operations that it has."""

    package: str
    distribution: str
    load: Callable[[], Mapping[str, Entry]]

    @property
    def installed(self) -> bool:
        """Whether its package can be found."""
        return importlib.util.find_spec(self.package) is not None


# --- PyTorch, step by step and compiled -----------------------------------------------------------


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, EPS)


def _native(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.native_layer_norm(x, weight.shape, weight, bias, EPS)


def _residual(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x + residual, weight.shape, weight, bias, EPS)


def _residual_sum(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    total = x + residual
    return F.layer_norm(total, weight.shape, weight, bias, EPS), total


def _gated(x: Tensor, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, EPS) * F.silu(z)


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, EPS)


def _gated_rms(x: Tensor, z: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, EPS) * F.silu(z)


_TORCH: dict[str, tuple[Callable[..., Any], tuple[str, ...], tuple[str, ...]]] = {
    "layer_norm": (_layer_norm, ("x", "weight", "bias"), ("y",)),
    "native_layer_norm": (_native, ("x", "weight", "bias"), ("y", "mean", "rstd")),
    "residual": (_residual, ("x", "residual", "weight", "bias"), ("y",)),
    "residual_sum": (_residual_sum, ("x", "residual", "weight", "bias"), ("y", "sum")),
    # The bias is added as a residual is; it is one row that all share.
    "bias": (_residual, ("x", "input_bias", "weight", "bias"), ("y",)),
    "gated": (_gated, ("x", "z", "weight", "bias"), ("y",)),
    "rms": (_rms, ("x", "weight"), ("y",)),
    "gated_rms": (_gated_rms, ("x", "z", "weight"), ("y",)),
}


def _bound(function: Callable[..., Any], names: tuple[str, ...]) -> Bind:
    def bind(inputs: Inputs) -> Run:
        arguments = inputs.take(*names)
        return lambda: function(*arguments)

    return bind


def _beside(names: tuple[str, ...]) -> str:
    """What an operation with these inputs does beside the norm."""
    if "z" in names:
        return "gated"
    return "sum" if {"residual", "input_bias"} & set(names) else "plain"


def _eager() -> Mapping[str, Entry]:
    return {
        name: Entry(_bound(function, names), promises.EAGER[_beside(names)], returns)
        for name, (function, names, returns) in _TORCH.items()
    }


def _compiled(mode: str) -> Callable[[], Mapping[str, Entry]]:
    def load() -> Mapping[str, Entry]:
        from torch._dynamo import config

        # Beyond the usual limit torch.compile would run eager in silence.
        config.recompile_limit = 1 << 16
        config.accumulated_recompile_limit = 1 << 16
        config.fail_on_recompile_limit_hit = True

        def entry(
            function: Callable[..., Any], names: tuple[str, ...], returns: tuple[str, ...]
        ) -> Entry:
            # A graph break is an error: what is timed is compiled as a whole.
            compiled = torch.compile(function, fullgraph=True, dynamic=False, mode=mode)
            return Entry(_bound(compiled, names), promises.COMPILED, returns)

        return {name: entry(*parts) for name, parts in _TORCH.items()}

    return load


def forget_compiled() -> None:
    """Drop what torch.compile holds, so that no call looks through the guards of other shapes."""
    torch._dynamo.reset()


_NOTHING: tuple[None, ...] = (None,)
"""A result that is not looked at."""

# --- libraries ------------------------------------------------------------------------------------


def _liger() -> Mapping[str, Entry]:
    from liger_kernel import ops

    def layer_norm(inputs: Inputs) -> Run:
        x, weight, bias = inputs.take("x", "weight", "bias")
        return lambda: ops.layer_norm_forward(x, weight, bias, EPS)

    def rms(inputs: Inputs) -> Run:
        x, weight = inputs.take("x", "weight")
        # "gemma" computes all in fp32, as the others do.
        return lambda: ops.rms_norm_forward(x, weight, EPS, 0.0, "gemma", None)

    return {
        "layer_norm": Entry(layer_norm, promises.FUSED, ("y", *_NOTHING * 5)),
        "native_layer_norm": Entry(
            layer_norm, promises.FUSED, ("y", None, "mean", "rstd", *_NOTHING * 2)
        ),
        "rms": Entry(rms, promises.FUSED, ("y", *_NOTHING * 5)),
    }


def _fla() -> Mapping[str, Entry]:
    from fla.modules.norm.layernorm import layer_norm_fwd
    from fla.modules.norm.layernorm_gated import layer_norm_fwd as gated_fwd

    def layer_norm(inputs: Inputs) -> Run:
        x, weight, bias = inputs.take("x", "weight", "bias")
        return lambda: layer_norm_fwd(x, weight, bias, EPS)

    def residual(inputs: Inputs) -> Run:
        x, residual, weight, bias = inputs.take("x", "residual", "weight", "bias")
        return lambda: layer_norm_fwd(x, weight, bias, EPS, residual)

    def rms(inputs: Inputs) -> Run:
        x, weight = inputs.take("x", "weight")
        return lambda: layer_norm_fwd(x, weight, None, EPS, is_rms_norm=True)

    def gated(inputs: Inputs) -> Run:
        x, weight, bias, z = inputs.take("x", "weight", "bias", "z")
        return lambda: gated_fwd(x, weight, bias, EPS, z)

    def gated_rms(inputs: Inputs) -> Run:
        x, weight, z = inputs.take("x", "weight", "z")
        return lambda: gated_fwd(x, weight, None, EPS, z, is_rms_norm=True)

    plain, gate = ("y", *_NOTHING * 3), ("y", *_NOTHING * 2)
    return {
        "layer_norm": Entry(layer_norm, promises.FUSED, plain),
        "native_layer_norm": Entry(layer_norm, promises.FUSED, ("y", "mean", "rstd", None)),
        # It always writes the sum.
        "residual": Entry(residual, promises.FUSED, plain),
        "residual_sum": Entry(residual, promises.FUSED, ("y", *_NOTHING * 2, "sum")),
        "gated": Entry(gated, promises.FUSED, gate),
        "rms": Entry(rms, promises.FUSED, plain),
        "gated_rms": Entry(gated_rms, promises.FUSED, gate),
    }


def _fla_gate() -> Mapping[str, Entry]:
    from fla.modules.norm.fused_norm_gate import layer_norm_gated_fwd

    def gated(inputs: Inputs) -> Run:
        x, weight, bias, z = inputs.take("x", "weight", "bias", "z")
        return lambda: layer_norm_gated_fwd(x, z, weight, bias, "swish", EPS)

    def gated_rms(inputs: Inputs) -> Run:
        x, weight, z = inputs.take("x", "weight", "z")
        return lambda: layer_norm_gated_fwd(x, z, weight, None, "swish", EPS, is_rms_norm=True)

    returns = ("y", *_NOTHING * 3)
    return {
        "gated": Entry(gated, promises.FUSED, returns),
        "gated_rms": Entry(gated_rms, promises.FUSED, returns),
    }


def _quack() -> Mapping[str, Entry]:
    from quack.rmsnorm import layernorm_fwd, rmsnorm_fwd

    def widened(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        # It takes parameters in fp32 alone; so widened, they are the same values.
        x, weight, bias = inputs.take("x", "weight", "bias")
        return x, weight.float(), bias.float()

    def layer_norm(inputs: Inputs) -> Run:
        x, weight, bias = widened(inputs)
        return lambda: layernorm_fwd(x, weight, bias, EPS)

    def native(inputs: Inputs) -> Run:
        x, weight, bias = widened(inputs)
        return lambda: layernorm_fwd(x, weight, bias, EPS, return_rstd=True, return_mean=True)

    def rms(inputs: Inputs) -> Run:
        x, weight = inputs.take("x", "weight")
        return lambda: rmsnorm_fwd(x, weight, eps=EPS)

    return {
        "layer_norm": Entry(layer_norm, promises.FUSED),
        "native_layer_norm": Entry(native, promises.FUSED, ("y", "rstd", "mean")),
        "rms": Entry(rms, promises.FUSED, ("y", *_NOTHING * 2)),
    }


COMPETITORS = {
    "eager": Competitor("torch", "torch", _eager),
    "compile": Competitor("torch", "torch", _compiled("max-autotune-no-cudagraphs")),
    "compile-default": Competitor("torch", "torch", _compiled("default")),
    "liger": Competitor("liger_kernel", "liger-kernel", _liger),
    "fla": Competitor("fla", "fla-core", _fla),
    "fla-gate": Competitor("fla", "fla-core", _fla_gate),
    "quack": Competitor("quack", "quack-kernels", _quack),
}
"""By the name that ``--competitor`` takes; the first is what speed-ups are measured against."""
