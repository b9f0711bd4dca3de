"""What the kernels should give, in plain torch fp64, and how far fp32 may take them from it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ln_kernels import LaunchConfig, default_launch

U = 2.0**-24

# One rounding at the store. For bfloat16 a whole ulp instead of half of one: Triton's own
# interpreter cuts fp32 off instead of rounding it.
STORE = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-7}


@dataclass
class Expected:
    """fp64 results with the bound on the distance of each."""

    y: Tensor
    y_bound: Tensor
    mean: Tensor
    mean_bound: Tensor
    rstd: Tensor
    rstd_bound: Tensor


def silu(z: Tensor) -> Tensor:
    z = z.double()
    return z * torch.sigmoid(z)


def expected(
    value: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    dims: int = 1,
    rms: bool = False,
    gate: Tensor | None = None,
    value_error: Tensor | float = 0.0,
    launch: LaunchConfig | None = None,
) -> Expected:
    """The norm of fp64 `value`, whose fp32 version is off by at most `value_error` per element.

    The bound is first-order and generous by a small factor: the sums have the depth that the
    launch gives them, every later step adds one rounding or two, and an error of the mean reaches
    x_hat divided by the standard deviation. It is orders of magnitude below the faults that these
    tests are after.
    """
    value = value.double()
    axes = tuple(range(-dims, 0))
    n = math.prod(value.shape[-dims:])
    launch = launch or default_launch(n, 4)
    threads = 32 * launch.num_warps
    depth = math.ceil(n / launch.block) * math.ceil(launch.block / threads)
    step = (depth + math.log2(threads) + 12) * U

    zero = torch.zeros_like(value.mean(axes, keepdim=True))
    mean = zero if rms else value.mean(axes, keepdim=True)
    centred = value - mean
    variance = centred.square().mean(axes, keepdim=True)
    rstd = (variance + eps).rsqrt()
    x_hat = centred * rstd

    error = torch.as_tensor(value_error, dtype=torch.float64, device=value.device).expand_as(value)
    spread = error.amax(axes, keepdim=True)
    mean_bound = zero if rms else step * value.abs().mean(axes, keepdim=True) + spread
    off = mean_bound + error
    worst = off.amax(axes, keepdim=True)
    variance_bound = step * variance + 2 * variance.sqrt() * worst + worst**2
    rstd_bound = rstd * (0.5 * variance_bound * rstd**2 + 4 * U)

    weight = torch.ones_like(value) if weight is None else weight.double()
    bias = torch.zeros_like(value) if bias is None else bias.double()
    y = x_hat * weight + bias
    y_bound = weight.abs() * (off * rstd + centred.abs() * rstd_bound + 8 * U * x_hat.abs())
    y_bound += 4 * U * (y.abs() + bias.abs())
    if gate is not None:
        y_bound = y_bound * silu(gate).abs() + silu_error(gate) * y.abs()
        y = y * silu(gate)
    return Expected(y, y_bound, mean, mean_bound, rstd, rstd_bound)


def silu_error(z: Tensor) -> Tensor:
    """How far fp32's z * sigmoid(z) may be off: exp is relatively wrong by about |z| units."""
    z = z.double()
    return (2 * z.abs() + 12) * U * silu(z).abs()


def assert_output(got: Tensor, want: Expected) -> None:
    """Fail unless `got` is within the bound, its own store included."""
    assert_within(got, want.y, want.y_bound)


def assert_within(got: Tensor, want: Tensor, bound: Tensor) -> None:
    assert got.shape == want.shape
    tiny = 2 * torch.finfo(got.dtype).smallest_normal * torch.finfo(got.dtype).eps
    allowed = bound + STORE[got.dtype] * (want.abs() + bound) + tiny
    ratio = (got.double() - want).abs() / allowed
    assert bool((ratio <= 1.0).all()), f"error/bound {float(ratio.max()):.3g}"
