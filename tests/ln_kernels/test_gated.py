import pytest
import torch

from ln_kernels import (
    LaunchConfig,
    LayerNorm,
    RMSNorm,
    layer_norm_forward,
    layernorm_fn,
    rmsnorm_fn,
    rows,
)
from tests.ln_kernels.reference import assert_output, assert_within, expected, silu, silu_error

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
SMALL = LaunchConfig(16, 1)


def want_gated(x, weight, bias, z, eps, group_size=None, before=True, rms=False, launch=None):
    """Each group as a row of its own: what `expected` says of (*, groups, group_size)."""
    group_size = group_size or x.shape[-1]
    split = (*x.shape[:-1], x.shape[-1] // group_size, group_size)
    value, error, gate = x.double(), 0.0, None
    if z is not None and before:
        gate = z.reshape(split)
    elif z is not None:
        value = x.double() * silu(z)
        error = (silu_error(z) * x.double().abs() + 2.0**-23 * value.abs()).reshape(split)
    return expected(
        value.reshape(split),
        None if weight is None else weight.reshape(split[-2:]).expand(split),
        None if bias is None else bias.reshape(split[-2:]).expand(split),
        eps,
        rms=rms,
        gate=gate,
        value_error=error,
        launch=launch,
    )


def assert_gated(y, want):
    assert_output(y.reshape(want.y.shape), want)


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("gate", [None, "after", "before"])
@pytest.mark.parametrize("launch", [None, SMALL])
@pytest.mark.parametrize("group_size", [None, 1, 7, 18])
@pytest.mark.parametrize("dtype", DTYPES)
def test_layernorm_fn_normalises_each_group(device, rms, gate, launch, group_size, dtype):
    n_cols = {None: 35, 1: 5, 7: 21, 18: 36}[group_size]
    x = (torch.randn(2, n_cols, device=device) * 2 + 1).to(dtype)
    z = None if gate is None else torch.randn(2, n_cols, device=device).mul(3).to(dtype)
    weight = torch.randn(n_cols, device=device).to(dtype)
    bias = torch.randn(n_cols, device=device).to(dtype)
    before = gate != "before"
    y = layernorm_fn(x, weight, bias, z, 1e-5, group_size, before, rms, launch=launch)
    assert y.dtype == dtype
    assert_gated(y, want_gated(x, weight, bias, z, 1e-5, group_size, before, rms, launch))
    if rms:
        same = rmsnorm_fn(x, weight, bias, z, 1e-5, group_size, before, launch=launch)
        assert torch.equal(same, y)


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("group_size", [None, 4])
@pytest.mark.parametrize("launch", [None, LaunchConfig(2, 1)])
def test_layer_norm_forward_returns_group_major_statistics(device, rms, group_size, launch):
    x = torch.randn(3, 2, 12, device=device)[:, :1] + torch.arange(12, device=device)
    y, mean, rstd = layer_norm_forward(
        x, None, None, 1e-5, group_size=group_size, is_rms_norm=rms, launch=launch
    )
    want = want_gated(x, None, None, None, 1e-5, group_size, True, rms, launch)
    assert_gated(y, want)

    def group_major(t):
        # (*, groups, 1) over 3 rows -> groups * rows
        return t.reshape(3, -1).t().reshape(-1)

    assert rstd.dtype == torch.float32
    assert_within(rstd, group_major(want.rstd), group_major(want.rstd_bound))
    if rms:
        assert mean is None
    else:
        assert_within(mean, group_major(want.mean), group_major(want.mean_bound))


def test_layer_norm_forward_keeps_statistics_in_place_over_many_launches(device, monkeypatch):
    x = torch.randn(4, 5, 6, device=device)[:, :3]
    whole = layer_norm_forward(x, None, None, 1e-5, group_size=3)
    monkeypatch.setattr(rows, "MAX_PROGRAMS", 8)
    split = layer_norm_forward(x, None, None, 1e-5, group_size=3)
    for one, other in zip(whole, split, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("x_dtype", DTYPES)
@pytest.mark.parametrize("z_dtype", DTYPES)
@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_layernorm_fn_mixes_dtypes(device, x_dtype, z_dtype, weight_dtype):
    x = torch.randn(1, 24, device=device).to(x_dtype)
    z = torch.randn(1, 24, device=device).to(z_dtype)
    weight = torch.randn(24, device=device).to(weight_dtype)
    y = layernorm_fn(x, weight, None, z, group_size=12)
    assert y.dtype == x_dtype
    assert_gated(y, want_gated(x, weight, None, z, 1e-6, 12))


@pytest.mark.parametrize("has_weight", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("rms", [True, False])
def test_layernorm_fn_does_without_weight_or_bias(device, has_weight, has_bias, rms):
    x, z = torch.randn(2, 2, 24, device=device)
    weight = torch.randn(24, device=device) if has_weight else None
    bias = torch.randn(24, device=device) if has_bias else None
    y = layernorm_fn(x, weight, bias, z, group_size=8, is_rms_norm=rms)
    assert_gated(y, want_gated(x, weight, bias, z, 1e-6, 8, True, rms))


@pytest.mark.parametrize("before", [True, False])
def test_layernorm_fn_takes_groups_above_64_kib(device, before):
    group_size = 16384 + 3  # 64 KiB of fp32 and a little
    x, z = torch.randn(2, 1, 2 * group_size, device=device)
    x[:, group_size:] += 5
    y = layernorm_fn(x, None, None, z, 1e-5, group_size, before)
    assert_gated(y, want_gated(x, None, None, z, 1e-5, group_size, before))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("launch", [None, SMALL])
def test_layernorm_fn_gates_to_zero_and_to_z_far_from_zero(device, launch):
    x = torch.randn(1, 40, device=device)
    z = torch.linspace(-200, 200, 40, device=device)[None]
    y = layernorm_fn(x, None, None, z, 1e-5, launch=launch)
    assert bool(y.isfinite().all())
    assert not bool(y[z < -110].any())
    plain = layernorm_fn(x, None, None, None, 1e-5, launch=launch)
    torch.testing.assert_close(y[z > 20], (plain * z)[z > 20], rtol=1e-5, atol=0)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("launch", [None, SMALL])
@pytest.mark.parametrize("over", ["x", "z"])
def test_layernorm_fn_writes_over_x_or_z(device, before, launch, over):
    x = torch.randn(3, 50, device=device)[:, 3:43]
    z = torch.randn(3, 40, device=device)
    out = x if over == "x" else z
    want = want_gated(x.clone(), None, None, z.clone(), 1e-6, 20, before, launch=launch)
    y = layernorm_fn(
        x, None, None, z, group_size=20, norm_before_gate=before, out=out, launch=launch
    )
    assert y is out
    assert_gated(y, want)


def test_layernorm_fn_keeps_nonfinite_values_in_their_group(device):
    x = torch.randn(2, 30, device=device)
    x[1, 12] = float("nan")
    y = layernorm_fn(x, None, None, group_size=10)
    bad = torch.zeros(2, 30, dtype=torch.bool, device=device)
    bad[1, 10:20] = True
    assert torch.equal(y.isnan(), bad)


@pytest.mark.parametrize("module", [LayerNorm, RMSNorm])
@pytest.mark.parametrize("before", [True, False])
def test_modules_do_what_their_functions_do(device, module, before):
    norm = module(24, group_size=8, norm_before_gate=before, device=device, dtype=torch.float32)
    x, z = torch.randn(2, 3, 24, device=device)
    rms = module is RMSNorm
    fresh = norm(x, z)
    assert_gated(fresh, want_gated(x, None, None, z, 1e-5, 8, before, rms))
    torch.nn.init.normal_(norm.weight)
    bias = norm.bias
    assert (bias is None) == rms
    if bias is not None:
        torch.nn.init.normal_(bias)
    y = norm(x, z, launch=SMALL)
    detached = None if bias is None else bias.detach()
    assert not y.requires_grad
    assert_gated(y, want_gated(x, norm.weight.detach(), detached, z, 1e-5, 8, before, rms, SMALL))
    assert norm(x, out=x) is x


@pytest.mark.parametrize("module", [LayerNorm, RMSNorm])
def test_modules_have_the_documented_defaults(device, module):
    norm = module(16, device=device, dtype=torch.bfloat16)
    assert (norm.eps, norm.group_size, norm.norm_before_gate) == (1e-5, 16, True)
    assert norm.weight.dtype == torch.bfloat16
    names = ["weight"] if module is RMSNorm else ["weight", "bias"]
    assert list(norm.state_dict()) == names
    assert repr(norm) == f"{module.__name__}(16, eps=1e-05, group_size=16, norm_before_gate=True)"
