import pytest
import torch

from ln_kernels import LaunchConfig, fused_bias_layer_norm
from tests.ln_kernels.reference import assert_output, expected

DTYPES = [torch.float16, torch.bfloat16, torch.float32]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias_dtype", DTYPES)
@pytest.mark.parametrize("launch", [None, LaunchConfig(16, 1)])
@pytest.mark.parametrize("n_cols", [1, 16, 17, 100])
def test_fused_bias_layer_norm_normalises_the_sum(device, dtype, bias_dtype, launch, n_cols):
    x = torch.randn(2, n_cols, device=device).to(dtype)
    bias = torch.randn(n_cols, device=device).mul(3).to(bias_dtype)
    gamma = torch.randn(n_cols, device=device).to(bias_dtype)
    beta = torch.randn(n_cols, device=device).to(dtype)
    y = fused_bias_layer_norm(x, bias, gamma, beta, launch=launch)
    assert y.dtype == dtype
    assert_output(y, expected(x.float() + bias.float(), gamma, beta, launch=launch))


@pytest.mark.parametrize("has_gamma", [True, False])
@pytest.mark.parametrize("has_beta", [True, False])
def test_fused_bias_layer_norm_does_without_gamma_or_beta(device, has_gamma, has_beta):
    x, bias = torch.randn(2, 30, device=device), torch.randn(30, device=device)
    gamma = torch.randn(30, device=device) if has_gamma else None
    beta = torch.randn(30, device=device) if has_beta else None
    assert_output(fused_bias_layer_norm(x, bias, gamma, beta), expected(x + bias, gamma, beta))


@pytest.mark.parametrize("launch", [None, LaunchConfig(16, 1)])
@pytest.mark.parametrize("mean", [1e3, 1e4])
def test_fused_bias_layer_norm_variance_does_not_cancel(device, launch, mean):
    x = torch.randn(2, 300, device=device)
    bias = torch.full((300,), mean, device=device)
    y = fused_bias_layer_norm(x, bias, None, None, launch=launch)
    assert_output(y, expected(x + bias, launch=launch))


@pytest.mark.parametrize("n_cols", [4097, 6000])
def test_fused_bias_layer_norm_takes_any_width(device, n_cols):
    x, bias = torch.randn(1, n_cols, device=device), torch.randn(n_cols, device=device)
    assert_output(fused_bias_layer_norm(x, bias, bias, x[0]), expected(x + bias, bias, x[0]))


def test_fused_bias_layer_norm_does_not_round_the_sum(device):
    x = torch.full((1, 64), 2048.0, device=device, dtype=torch.float16)
    bias = torch.rand(64, device=device).mul(0.9).half()
    y = fused_bias_layer_norm(x, bias, None, None)
    assert_output(y, expected(x.float() + bias.float()))
