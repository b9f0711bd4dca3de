"""Rows whose variance is nothing, with nothing added to it."""

import pytest
import torch

from ln_kernels import LaunchConfig, native_layer_norm, rows
from tests.ln_kernels.reference import assert_output, expected
from tests.ln_kernels.wrappers import WRAPPERS

# Means of 50 equal numbers that are not exact in fp32, at scales where the squares of what is left
# are ordinary, subnormal and zero.
SCALES = [0.1, 1e-8, 1e-13, 1e-16, 1e-20, 1e-30, 1e-41]


@pytest.fixture
def no_eps(monkeypatch):
    """eps=0 for every wrapper: the checks are where it passes through all of them."""
    monkeypatch.setattr(rows, "check_eps", lambda eps, function: 0.0)


@pytest.mark.usefixtures("no_eps")
@pytest.mark.parametrize("wrapper", [w for w in WRAPPERS if not w.rms], ids=lambda w: w.name)
@pytest.mark.parametrize("launch", [LaunchConfig(64, 1), LaunchConfig(16, 1)])
def test_a_constant_row_without_eps_stays_within_the_root_of_its_width(device, wrapper, launch):
    if wrapper.name == "triton_layer_norm":
        launch = None
    x = torch.randn(len(SCALES) + 1, 50, device=device)
    x[:-1] = torch.tensor(SCALES, device=device)[:, None]
    y = wrapper.call(x, launch=launch)
    assert bool((y[:-1].isnan() | (y[:-1].abs() <= 50**0.5)).all())
    assert_output(y[-1:], expected(x[-1:], eps=0.0, launch=launch))


@pytest.mark.parametrize("launch", [None, LaunchConfig(16, 1)])
@pytest.mark.parametrize("scale", [1e-19, 1e-22, 1e-30])
def test_a_variance_that_underflows_gives_no_infinity(device, launch, scale):
    x = torch.randn(2, 50, device=device) * scale
    y, mean, rstd = native_layer_norm(x, 50, None, None, 0.0, launch=launch)
    assert bool(rstd.isfinite().all()) and bool(mean.isfinite().all())
    assert float(y.abs().max()) <= 50**0.5
