import itertools

import pytest
import torch

from ln_kernels import LaunchConfig, layer_norm_residual
from tests.ln_kernels.reference import assert_output, expected

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
SMALL = LaunchConfig(16, 1)


def fp32_sum(x, input_bias, residual):
    """The contract's sum: these additions are IEEE, so a kernel must give the same bits."""
    total = x.float()
    if input_bias is not None:
        total = total + input_bias.float()
    return total + residual.float()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("launch", [None, SMALL])
@pytest.mark.parametrize("has_input_bias", [True, False])
@pytest.mark.parametrize("n_cols", [1, 17, 100])
def test_layer_norm_residual_normalises_the_sum(device, dtype, launch, has_input_bias, n_cols):
    x = torch.randn(2, n_cols, device=device).to(dtype)
    residual = (torch.randn(2, n_cols, device=device) * 4 + 1).to(dtype)
    input_bias = torch.randn(n_cols, device=device).to(dtype) if has_input_bias else None
    weight = torch.randn(n_cols, device=device).to(dtype)
    bias = torch.randn(n_cols, device=device).to(dtype)
    y = layer_norm_residual(x, input_bias, residual, weight, bias, launch=launch)
    assert y.dtype == dtype
    assert_output(y, expected(fp32_sum(x, input_bias, residual), weight, bias, launch=launch))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("launch", [None, SMALL])
def test_layer_norm_residual_does_not_round_the_sum_for_its_statistics(device, launch):
    # 2049 is no fp16 number: a sum rounded for the variance alone gives -1 or 1 everywhere.
    x = torch.full((2, 96), 2048.0, device=device, dtype=torch.float16)
    residual = torch.ones_like(x)
    y, total = layer_norm_residual(x, None, residual, None, None, return_sum=True, launch=launch)
    assert not bool(y.any())
    assert torch.equal(total, (x.float() + residual.float()).half())


@pytest.mark.parametrize("launch", [None, SMALL])
def test_layer_norm_residual_output_reads_the_unrounded_sum(device, launch):
    # In fp16 every sum below rounds to 2048, and the norm of that would be 0.
    x = torch.full((1, 64), 2048.0, device=device, dtype=torch.float16)
    residual = torch.rand(1, 64, device=device).mul(0.9).half()
    y = layer_norm_residual(x, None, residual, None, None, launch=launch)
    assert_output(y, expected(fp32_sum(x, None, residual), launch=launch))


def test_layer_norm_residual_adds_the_input_bias_first(device):
    # (x + input_bias) + residual is 0 + 1; x + (input_bias + residual) is 0 in fp32.
    x = torch.tensor([[1e9, 5.0]], device=device)
    input_bias = torch.tensor([-1e9, 0.0], device=device)
    residual = torch.tensor([[1.0, 0.0]], device=device)
    _, total = layer_norm_residual(x, input_bias, residual, None, None, return_sum=True)
    assert total.tolist() == [[1.0, 5.0]]
    x, residual = (
        torch.tensor([[1.0, 5.0]], device=device),
        torch.tensor([[-1e9, 0.0]], device=device),
    )
    _, total = layer_norm_residual(x, -input_bias, residual, None, None, return_sum=True)
    assert total.tolist() == [[0.0, 5.0]]


@pytest.mark.parametrize(
    ("x_dtype", "residual_dtype", "bias_dtype"), list(itertools.product(DTYPES, repeat=3))
)
def test_layer_norm_residual_mixes_dtypes(device, x_dtype, residual_dtype, bias_dtype):
    x = torch.randn(1, 20, device=device).to(x_dtype)
    residual = torch.randn(1, 20, device=device).to(residual_dtype)
    input_bias = torch.randn(20, device=device).to(bias_dtype)
    y = layer_norm_residual(x, input_bias, residual, None, None)
    assert y.dtype == x_dtype
    assert_output(y, expected(fp32_sum(x, input_bias, residual)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("launch", [None, SMALL])
def test_layer_norm_residual_returns_the_sum_rounded_once(device, dtype, launch):
    x = torch.randn(2, 40, device=device).to(dtype)
    residual = torch.randn(2, 40, device=device).to(dtype)
    input_bias = torch.randn(40, device=device)
    total = fp32_sum(x, input_bias, residual)
    y, got = layer_norm_residual(
        x, input_bias, residual, None, None, return_sum=True, launch=launch
    )
    assert got.dtype == dtype
    if dtype == torch.bfloat16:
        # Triton's own interpreter cuts bfloat16 off, up to an ulp below.
        assert bool(((got.float() - total).abs() <= 2.0**-7 * total.abs()).all())
    else:
        assert torch.equal(got, total.to(dtype))
    kept = torch.empty(2, 40, device=device)
    out, same = layer_norm_residual(
        x, input_bias, residual, None, None, sum_out=kept, return_sum=True, launch=launch
    )
    assert same is kept and torch.equal(kept, total)
    assert torch.equal(out, y)


def test_layer_norm_residual_fills_sum_out_without_returning_it(device):
    x, residual = torch.randn(2, 2, 40, device=device)
    kept = torch.empty(2, 40, device=device)
    y = layer_norm_residual(x, None, residual, None, None, sum_out=kept)
    assert torch.equal(kept, x + residual)
    assert_output(y, expected(kept))


@pytest.mark.parametrize("launch", [None, SMALL])
def test_layer_norm_residual_updates_a_residual_stream_in_place(device, launch):
    x = torch.randn(3, 40, device=device).half()
    residual = torch.randn(3, 40, device=device)
    total = fp32_sum(x, None, residual)
    y, stream = layer_norm_residual(
        x, None, residual, None, None, out=x, sum_out=residual, return_sum=True, launch=launch
    )
    assert y is x and stream is residual
    assert torch.equal(stream, total)
    assert_output(y, expected(total, launch=launch))


@pytest.mark.parametrize("launch", [None, SMALL])
def test_layer_norm_residual_writes_over_the_residual(device, launch):
    x, residual = torch.randn(2, 3, 40, device=device)
    total = x + residual
    assert_output(
        layer_norm_residual(x, None, residual, None, None, out=residual, launch=launch),
        expected(total, launch=launch),
    )


def test_layer_norm_residual_takes_any_width(device):
    x, residual = torch.randn(2, 1, 9001, device=device)
    residual += 100.0
    input_bias = torch.randn(9001, device=device)
    y = layer_norm_residual(x, input_bias, residual, None, None)
    assert_output(y, expected(fp32_sum(x, input_bias, residual)))
