"""Layouts: read as they are, written where they are, and nothing else touched."""

import pytest
import torch

from ln_kernels import LaunchConfig, layer_norm_residual, layernorm_fn, rows
from tests.ln_kernels.reference import assert_output, expected
from tests.ln_kernels.wrappers import WRAPPERS

LAYOUTS = {
    "rank 1": lambda t: t[0, 0, 0],
    "rank 1 at an offset": lambda t: t[1, 2, 3, 2:9],
    "rank 2": lambda t: t[1, 1],
    "sliced rows": lambda t: t[:, :3, :1, :7],
    "sliced columns": lambda t: t[1, :, :, 1:8],
    "every other row": lambda t: t[1, ::2, ::2],
    "permuted rows": lambda t: t.permute(2, 0, 1, 3)[:2],
    "expanded": lambda t: t[:1].expand(3, -1, -1, -1)[:, :1, :2],
    "expanded inside": lambda t: t[:, :, :1].expand(-1, -1, 2, -1)[:, :2],
    "one row expanded": lambda t: t[0, 0, :1].expand(4, -1),
    "size-1 dims": lambda t: t[:1, :, None, 2:3],
    "rank 6": lambda t: t[:, None, :2, :2].unsqueeze(3),
}


@pytest.fixture
def base(device):
    return torch.randn(2, 4, 5, 10, device=device) + torch.arange(10, device=device) * 0.1


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_wrapper_reads_x_in_its_own_layout(base, wrapper, layout):
    x = layout(base)
    before = base.clone()
    y = wrapper.call(x)
    assert_output(y, expected(x, rms=wrapper.rms))
    assert y.is_contiguous()
    assert torch.equal(base, before)


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
@pytest.mark.parametrize("name", [n for n in LAYOUTS if "expanded" not in n])
def test_wrapper_writes_out_in_its_own_layout_and_nothing_else(base, wrapper, name):
    memory = torch.full_like(base, 77.0)
    out = LAYOUTS[name](memory)
    x = torch.randn(out.shape, device=base.device)
    assert wrapper.call(x, out=out) is out
    assert_output(out, expected(x, rms=wrapper.rms))
    out.fill_(77.0)
    assert bool((memory == 77.0).all())


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
@pytest.mark.parametrize("launch", [None, LaunchConfig(8, 1)])
def test_wrapper_normalises_in_place(base, wrapper, launch):
    if wrapper.name == "triton_layer_norm":
        launch = None
    x = base[:, 1:3, ::2, :9]
    before = base.clone()
    want = expected(x.clone(), rms=wrapper.rms, launch=launch)
    assert wrapper.call(x, out=x, launch=launch) is x
    assert_output(x, want)
    x.copy_(before[:, 1:3, ::2, :9])
    assert torch.equal(base, before)


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrapper_takes_a_single_column_of_any_stride(device, wrapper):
    for x in (torch.randn(1, 5, device=device).t(), torch.randn(5, 3, device=device)[:, 1:2]):
        assert_output(wrapper.call(x), expected(x, rms=wrapper.rms))
        memory = torch.zeros(5, 3, device=device)
        out = memory.t()[:1].t()
        assert_output(wrapper.call(x, out=out), expected(x, rms=wrapper.rms))
        assert not bool(memory[:, 1:].any())


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrapper_walks_more_leading_dims_than_a_kernel_does(device, wrapper):
    sizes = (2, 2, 1, 2, 2, 2)
    base = torch.randn(*(n + 1 for n in sizes), 5, device=device)
    x = base[tuple(slice(n) for n in sizes)]
    out = torch.zeros_like(base)[tuple(slice(n) for n in sizes)]
    batches = list(rows.row_batches((x, out)))
    assert len(batches) == 2 and len(batches[0].strides[0]) == rows.MAX_LEAD_DIMS
    assert_output(wrapper.call(x, out=out), expected(x, rms=wrapper.rms))


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrapper_splits_a_grid_that_cuda_would_refuse(device, wrapper, monkeypatch):
    monkeypatch.setattr(rows, "MAX_PROGRAMS", 4)
    x = torch.randn(3, 5, 8, device=device)[:, :3]
    assert_output(wrapper.call(x), expected(x, rms=wrapper.rms))


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5), (0, 0, 1)])
def test_wrapper_returns_an_empty_batch_without_a_launch(device, wrapper, shape, monkeypatch):
    monkeypatch.setattr(*wrapper.kernel_place(), None)
    x = torch.empty(shape, device=device)
    assert wrapper.call(x).shape == shape
    out = torch.empty(shape, device=device)
    assert wrapper.call(x, out=out) is out


class Recorder:
    """Stands in for a kernel and keeps the grids it is launched on."""

    def __init__(self):
        self.grids = []

    def __getitem__(self, grid):
        self.grids.append(grid)
        return lambda *args, **options: None


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrapper_launches_more_than_65535_rows_on_one_dimension(device, wrapper, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(*wrapper.kernel_place(), recorder)
    x = torch.randn(2, 3, device=device).expand(70_000, 2, 3)
    wrapper.call(x, launch=LaunchConfig(4, 1))
    assert recorder.grids == [(140_000,)]


def test_groups_count_on_the_same_dimension_as_rows(device, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(*WRAPPERS[-1].kernel_place(), recorder)
    x = torch.randn(2, 70_000, device=device)
    layernorm_fn(x, None, None, group_size=1, launch=LaunchConfig(1, 1))
    assert recorder.grids == [(140_000,)]


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrapper_addresses_elements_past_int32(device, wrapper):
    # 4 GiB of addresses, of which the pages of three rows are touched.
    base = torch.empty(2**31 + 8, dtype=torch.float16, device=device)
    x = base.as_strided((3, 8), (2**30, 1))
    x.copy_(torch.randn(3, 8))
    want = expected(x.clone(), rms=wrapper.rms)
    assert_output(wrapper.call(x), want)
    assert_output(wrapper.call(x, out=x), want)


@pytest.mark.parametrize("launch", [None, LaunchConfig(4, 1)])
def test_each_tensor_of_a_call_has_strides_of_its_own(device, launch):
    x = torch.randn(3, 4, 9, device=device)[:, ::2]
    residual = torch.randn(2, 3, 12, device=device).transpose(0, 1)[..., 2:11]
    out = torch.zeros(3, 2, 20, device=device)[..., 1:10]
    total = torch.zeros(3, 1, 2, 9, device=device)[:, 0]
    y, got = layer_norm_residual(
        x, None, residual, None, None, out=out, sum_out=total, return_sum=True, launch=launch
    )
    assert got is total and y is out
    assert torch.equal(total, x + residual)
    assert_output(out, expected(total, launch=launch))
    z = torch.randn(9, device=device).expand(3, 2, 9)
    gated = layernorm_fn(x, None, None, z, 1e-5, out=out, launch=launch)
    assert_output(gated, expected(x, gate=z, launch=launch))


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrapper_allocates_nothing_but_its_results(device, wrapper, monkeypatch):
    # A copy of x would be an allocation of x's size on top of the output.
    x = torch.randn(4, 6, 16, device=device)[:, ::2, 3:]
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function.__name__)
            return function(*args, **(kwargs or {}))

    monkeypatch.setattr(*wrapper.kernel_place(), Recorder())
    zeros = wrapper.call(x)
    with Watch():
        wrapper.call(x, out=zeros)
    copies = [n for n in seen if any(w in n for w in ("copy", "clone", "contiguous", "reshape"))]
    assert not copies
