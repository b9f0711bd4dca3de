"""Layer norm and RMS norm over groups of columns, with a gate before or after."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ln_kernels import rows
from ln_kernels.grouped import grouped_forward
from ln_kernels.launch import LaunchConfig


def layer_norm_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    z: Tensor | None = None,
    out: Tensor | None = None,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    is_rms_norm: bool = False,
    launch: LaunchConfig | None = None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Norm of each group of columns of each row; return (out, mean, rstd).

    With norm_before_gate the result is (x_hat * weight + bias) * silu(z), otherwise the norm of
    x * silu(z). An RMS norm subtracts no mean and returns None for it.

    Shapes: x and z (*, n_cols), any leading strides, columns of stride 1; weight and bias
        (n_cols,), the full width, each None for none; mean and rstd (groups * rows,), the entry
        of a row's group at group * rows + row.
    Dtypes: each of the inputs fp16, bf16 or fp32; out x's; mean and rstd fp32, the very values
        that out was computed from. No autograd graph.
    Raises: TypeError for a wrong kind or dtype, ValueError for a wrong value, shape, device or
        layout, or a group_size that does not divide n_cols. `out` may be x or z in the same
        layout, and else must not share memory with any argument.
    """
    return grouped_forward(
        x,
        weight,
        bias,
        eps,
        z,
        out,
        group_size,
        norm_before_gate,
        is_rms_norm,
        launch,
        function="layer_norm_forward",
    )


def layernorm_fn(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    is_rms_norm: bool = False,
    *,
    out: Tensor | None = None,
    launch: LaunchConfig | None = None,
) -> Tensor:
    """Layer norm, or RMS norm, of each group of columns, gated by silu(z).

    Shapes, Dtypes, Raises: as layer_norm_forward.
    """
    return grouped_forward(
        x,
        weight,
        bias,
        eps,
        z,
        out,
        group_size,
        norm_before_gate,
        is_rms_norm,
        launch,
        function="layernorm_fn",
    )[0]


def rmsnorm_fn(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    *,
    out: Tensor | None = None,
    launch: LaunchConfig | None = None,
) -> Tensor:
    """RMS norm of each group of columns, gated by silu(z).

    Shapes, Dtypes, Raises: as layer_norm_forward.
    """
    return grouped_forward(
        x,
        weight,
        bias,
        eps,
        z,
        out,
        group_size,
        norm_before_gate,
        True,
        launch,
        function="rmsnorm_fn",
    )[0]


class _GroupedNorm(nn.Module):
    """What the two modules share: the options and the weight."""

    def __init__(
        self,
        hidden_size: int,
        eps: float,
        group_size: int | None,
        norm_before_gate: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        function = type(self).__name__
        rows.check_count("hidden_size", hidden_size, function)
        self.hidden_size = hidden_size
        self.eps = rows.check_eps(eps, function)
        self.group_size = rows.check_group_size(group_size, hidden_size, function)
        self.norm_before_gate = norm_before_gate
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))

    def extra_repr(self) -> str:
        """The options, for repr()."""
        return (
            f"{self.hidden_size}, eps={self.eps}, group_size={self.group_size}, "
            f"norm_before_gate={self.norm_before_gate}"
        )


class LayerNorm(_GroupedNorm):
    """layernorm_fn as a module, with a weight of ones and a bias of zeros to load into."""

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(hidden_size, eps, group_size, norm_before_gate, device, dtype)
        self.bias = nn.Parameter(torch.zeros(hidden_size, device=device, dtype=dtype))

    def forward(
        self,
        x: Tensor,
        z: Tensor | None = None,
        *,
        out: Tensor | None = None,
        launch: LaunchConfig | None = None,
    ) -> Tensor:
        """layernorm_fn of x, gated by z where there is one."""
        return layernorm_fn(
            x,
            self.weight,
            self.bias,
            z,
            self.eps,
            self.group_size,
            self.norm_before_gate,
            out=out,
            launch=launch,
        )


class RMSNorm(_GroupedNorm):
    """rmsnorm_fn as a module, with a weight of ones to load into and no bias."""

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(hidden_size, eps, group_size, norm_before_gate, device, dtype)
        self.register_parameter("bias", None)

    def forward(
        self,
        x: Tensor,
        z: Tensor | None = None,
        *,
        out: Tensor | None = None,
        launch: LaunchConfig | None = None,
    ) -> Tensor:
        """rmsnorm_fn of x, gated by z where there is one."""
        return rmsnorm_fn(
            x,
            self.weight,
            None,
            z,
            self.eps,
            self.group_size,
            self.norm_before_gate,
            out=out,
            launch=launch,
        )
