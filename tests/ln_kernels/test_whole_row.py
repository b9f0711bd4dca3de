import itertools

import pytest
import torch

from ln_kernels import LaunchConfig, triton_layer_norm
from tests.ln_kernels.reference import assert_output, expected

DTYPES = [torch.float16, torch.bfloat16, torch.float32]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_cols", [1, 2, 3, 64, 65, 257, 5000])
def test_triton_layer_norm_holds_any_row(device, dtype, n_cols):
    # A mean of 10 is what padded lanes would add to the variance.
    x = torch.randn(2, n_cols, device=device).add(10).to(dtype)
    weight = torch.randn(n_cols, device=device).to(dtype)
    bias = torch.randn(n_cols, device=device).to(dtype)
    y = triton_layer_norm(x, weight, bias)
    assert y.dtype == dtype
    assert_output(y, expected(x, weight, bias))


@pytest.mark.parametrize("block", [32, 64, 1024])
def test_triton_layer_norm_takes_a_block_wider_than_the_row(device, block):
    x = torch.randn(2, 30, device=device) + 10
    launch = LaunchConfig(block, 2)
    assert_output(triton_layer_norm(x, None, None, launch=launch), expected(x, launch=launch))


@pytest.mark.parametrize(
    ("x_dtype", "weight_dtype", "bias_dtype"), list(itertools.product(DTYPES, repeat=3))
)
def test_triton_layer_norm_mixes_dtypes(device, x_dtype, weight_dtype, bias_dtype):
    x = torch.randn(1, 33, device=device).to(x_dtype)
    weight = torch.randn(33, device=device).to(weight_dtype)
    bias = torch.randn(33, device=device).to(bias_dtype)
    assert_output(triton_layer_norm(x, weight, bias), expected(x, weight, bias))


@pytest.mark.parametrize("has_weight", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
def test_triton_layer_norm_does_without_weight_or_bias(device, has_weight, has_bias):
    x = torch.randn(2, 40, device=device)
    weight = torch.randn(40, device=device) if has_weight else None
    bias = torch.randn(40, device=device) if has_bias else None
    assert_output(triton_layer_norm(x, weight, bias), expected(x, weight, bias))


def test_triton_layer_norm_sums_half_precision_in_fp32(device):
    x = torch.ones(1, 4096, device=device, dtype=torch.float16)
    x[0, 0] = 2.0
    assert_output(triton_layer_norm(x, None, None), expected(x))


@pytest.mark.parametrize("eps", [1e-12, 1.0, 100.0])
def test_triton_layer_norm_adds_eps_inside_the_root(device, eps):
    x = torch.randn(2, 50, device=device) * 0.1
    assert_output(triton_layer_norm(x, None, None, eps), expected(x, eps=eps))
