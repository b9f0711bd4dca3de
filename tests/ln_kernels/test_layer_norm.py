import itertools

import pytest
import torch

from ln_kernels import LaunchConfig, layer_norm, native_layer_norm, rows
from tests.ln_kernels.reference import assert_output, assert_within, expected

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
SMALL = LaunchConfig(16, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_cols", [1, 2, 15, 16, 17, 48, 257])
@pytest.mark.parametrize("launch", [None, SMALL, LaunchConfig(64, 4, fp_fusion=False)])
def test_layer_norm_is_right_around_block_borders(device, dtype, n_cols, launch):
    x = torch.randn(2, n_cols, device=device).mul(3).add(5).to(dtype)
    weight = torch.randn(n_cols, device=device).to(dtype)
    bias = torch.randn(n_cols, device=device).to(dtype)
    y = layer_norm(x, weight, bias, launch=launch)
    assert y.dtype == dtype
    assert_output(y, expected(x, weight, bias, launch=launch))


@pytest.mark.parametrize("n_cols", [4096, 4097, 5000, 8193, 20011])
def test_layer_norm_takes_any_width(device, n_cols):
    x = torch.randn(1, n_cols, device=device) + 2
    weight = torch.randn(n_cols, device=device)
    assert_output(layer_norm(x, weight, None), expected(x, weight))


@pytest.mark.parametrize(
    ("x_dtype", "weight_dtype", "bias_dtype"), list(itertools.product(DTYPES, repeat=3))
)
def test_layer_norm_mixes_dtypes(device, x_dtype, weight_dtype, bias_dtype):
    x = torch.randn(1, 33, device=device).to(x_dtype)
    weight = torch.randn(33, device=device).to(weight_dtype)
    bias = torch.randn(33, device=device).to(bias_dtype)
    y = layer_norm(x, weight, bias)
    assert y.dtype == x_dtype
    assert_output(y, expected(x, weight, bias))


@pytest.mark.parametrize("has_weight", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("launch", [None, SMALL])
def test_layer_norm_does_without_weight_or_bias(device, has_weight, has_bias, launch):
    x = torch.randn(2, 40, device=device)
    weight = torch.randn(40, device=device) if has_weight else None
    bias = torch.randn(40, device=device) if has_bias else None
    y = layer_norm(x, weight, bias, launch=launch)
    assert_output(y, expected(x, weight, bias, launch=launch))


@pytest.mark.parametrize("launch", [None, SMALL])
@pytest.mark.parametrize("mean", [1e3, 1e4, -1e5])
def test_layer_norm_survives_a_mean_far_above_the_spread(device, mean, launch):
    x = torch.randn(2, 257, device=device) + mean
    assert_output(layer_norm(x, None, None, launch=launch), expected(x, launch=launch))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("launch", [None, SMALL])
@pytest.mark.parametrize("constant", [0.0, 1.0, -3.0, 1024.0])
def test_layer_norm_of_a_constant_row_is_the_bias(device, dtype, launch, constant):
    # Sums of 256 of these are exact in fp32, so that nothing is left for rstd to enlarge.
    x = torch.full((1, 256), constant, device=device).to(dtype)
    bias = torch.randn(256, device=device).to(dtype)
    assert torch.equal(layer_norm(x, None, bias, launch=launch)[0], bias)


@pytest.mark.parametrize("eps", [1e-30, 1e-12, 1e-3, 1.0, 1e3, 7])
def test_layer_norm_adds_eps_inside_the_root(device, eps):
    x = torch.randn(2, 100, device=device) * 0.1
    assert_output(layer_norm(x, None, None, eps), expected(x, eps=eps))


@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm_takes_eps_zero_and_subnormal(device, dtype):
    x = torch.randn(2, 100, device=device).to(dtype)
    for eps in (0, 0.0, 1e-40, 1e-300):
        assert_output(layer_norm(x, None, None, eps), expected(x, eps=0.0))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("launch", [None, SMALL])
def test_layer_norm_keeps_a_constant_row_at_eps_zero_to_itself(device, launch):
    x = torch.randn(3, 50, device=device)
    x[1] = 0.1
    y = layer_norm(x, None, None, 0.0, launch=launch)
    constant = y[1]
    assert bool((constant.isnan() | (constant.abs() <= 50**0.5)).all())
    assert_output(y[::2], expected(x[::2], eps=0.0, launch=launch))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("launch", [None, SMALL])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_layer_norm_keeps_nonfinite_values_in_their_row(device, launch, bad):
    x = torch.randn(3, 50, device=device)
    x[1, 17] = bad
    y, mean, rstd = native_layer_norm(x, 50, None, None, 1e-5, launch=launch)
    assert bool(y[1].isnan().all()) and bool(rstd[1].isnan().all())
    assert not bool(mean[1].isfinite().any())
    assert_output(y[::2], expected(x[::2], launch=launch))


def test_layer_norm_sums_half_precision_in_fp32(device):
    # In fp16 the sum of these 4096 ones would stop at 2048, in bfloat16 at 256.
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.ones(1, 4096, device=device, dtype=dtype)
        x[0, 0] = 2.0
        assert_output(layer_norm(x, None, None), expected(x))


def test_layer_norm_repeats_its_bits(device):
    x = torch.randn(2, 300, device=device)
    assert torch.equal(layer_norm(x, None, None), layer_norm(x, None, None))


@pytest.mark.parametrize("launch", [None, SMALL])
@pytest.mark.parametrize(
    ("shape", "normalized"),
    [
        ((6,), (6,)),
        ((2, 3, 4), (3, 4)),
        ((2, 3, 5, 7), (3, 5, 7)),
        ((2, 1, 5), (1, 5)),
        ((3, 4), 4),
    ],
)
def test_native_layer_norm_returns_the_statistics(device, shape, normalized, launch):
    x = torch.randn(shape, device=device) * 2 + 1
    dims = 1 if isinstance(normalized, int) else len(normalized)
    weight = torch.randn(normalized, device=device)
    bias = torch.randn(normalized, device=device)
    y, mean, rstd = native_layer_norm(x, normalized, weight, bias, 1e-5, launch=launch)
    want = expected(x, weight, bias, dims=dims, launch=launch)
    assert_output(y, want)
    assert_within(mean, want.mean, want.mean_bound)
    assert_within(rstd, want.rstd, want.rstd_bound)
    assert mean.dtype == rstd.dtype == torch.float32
    assert (
        mean.shape
        == rstd.shape
        == torch.native_layer_norm(x, weight.shape, weight, bias, 0)[1].shape
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_native_layer_norm_keeps_statistics_in_fp32(device, dtype):
    x = (torch.randn(2, 64, device=device) + 3).to(dtype)
    _, mean, rstd = native_layer_norm(x, [64], None, None, 1e-5)
    want = expected(x)
    assert mean.dtype == rstd.dtype == torch.float32
    assert_within(mean, want.mean, want.mean_bound)
    assert_within(rstd, want.rstd, want.rstd_bound)


def test_native_layer_norm_normalises_strided_slices_jointly(device):
    big = torch.randn(3, 4, 5, 6, device=device)
    x = big[:, 1:3]
    y, mean, _ = native_layer_norm(x, (5, 6), None, None, 1e-5)
    assert_output(y, expected(x, dims=2))
    assert mean.shape == (3, 2, 1, 1)
    out = torch.empty(3, 2, 2, 5, 6, device=device)[:, :, 1]
    assert native_layer_norm(x, (5, 6), None, None, 1e-5, out=out)[0] is out
    assert torch.equal(out, y)


def test_native_layer_norm_keeps_statistics_in_place_over_many_launches(device, monkeypatch):
    x = torch.randn(4, 5, 6, device=device)[:, :3]
    whole = native_layer_norm(x, 6, None, None, 1e-5)
    monkeypatch.setattr(rows, "MAX_PROGRAMS", 5)
    split = native_layer_norm(x, 6, None, None, 1e-5)
    for one, other in zip(whole, split, strict=True):
        assert torch.equal(one, other)
