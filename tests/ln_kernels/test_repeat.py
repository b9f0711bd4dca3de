"""Calls that are made again: what they are known by, and that nothing of the first one sticks."""

import pytest
import torch

from ln_kernels import (
    LaunchConfig,
    fused_bias_layer_norm,
    layer_norm,
    layer_norm_residual,
    layernorm_fn,
    native_layer_norm,
    repeat,
    rmsnorm_fn,
    triton_layer_norm,
)

gpu = pytest.mark.gpu


def x_of(*shape, dtype=torch.float32, offset=0, device="cpu"):
    size = torch.Size(shape).numel()
    return torch.randn(size + offset, device=device).to(dtype)[offset:].view(shape)


BASE = x_of(4, 8)


@pytest.mark.parametrize(
    "other",
    [
        x_of(4, 8, dtype=torch.float16),
        x_of(8, 4),
        x_of(4, 16)[:, ::2],
        x_of(4, 16)[:, :8],
        x_of(4, 8, offset=1),
        None,
    ],
)
def test_key_tells_tensors_apart_by_all_that_a_launch_depends_on(other):
    assert repeat.key_of("f", (BASE, BASE)) != repeat.key_of("f", (BASE, other))


def test_key_is_the_same_for_another_tensor_like_it():
    assert repeat.key_of("f", (BASE,), 1e-5) == repeat.key_of("f", (x_of(4, 8),), 1e-5)
    # 64 bytes on.
    assert repeat.key_of("f", (BASE,)) == repeat.key_of("f", (x_of(4, 8, offset=16),))


@pytest.mark.parametrize(
    ("scalars", "others"),
    [
        ((1e-5,), (1e-6,)),
        ((1,), (True,)),
        ((1,), (1.0,)),
        ((None,), (LaunchConfig(64, 1),)),
        ((LaunchConfig(64, 1),), (LaunchConfig(64, 1, fp_fusion=False),)),
    ],
)
def test_key_tells_scalars_apart_with_their_kinds(scalars, others):
    assert repeat.key_of("f", (BASE,), *scalars) != repeat.key_of("f", (BASE,), *others)


def test_key_tells_functions_apart():
    assert repeat.key_of("f", (BASE,)) != repeat.key_of("g", (BASE,))


def test_key_of_what_is_no_dense_tensor_is_none():
    assert repeat.key_of("f", ([1.0],)) is None
    assert repeat.key_of("f", (BASE.to_sparse(),)) is None


def test_nothing_is_kept_of_a_launch_on_the_cpu(monkeypatch):
    monkeypatch.setattr(repeat, "_kept", {})
    x = x_of(4, 8)
    repeat.keep(repeat.key_of("f", (x,)), object(), 1, x, (x,), (0, 1), ())
    assert not repeat._kept


def test_a_scalar_that_cannot_be_hashed_is_no_obstacle():
    key = repeat.key_of("f", (BASE,), [8])
    assert repeat.again(key, (BASE,)) is None


CALLS = {
    "layer_norm": lambda x, w, b: layer_norm(x, w, b),
    "no weight": lambda x, w, b: layer_norm(x, None, b),
    "native": lambda x, w, b: native_layer_norm(x, x.shape[-1], w, b, 1e-5),
    "whole row": lambda x, w, b: triton_layer_norm(x, w, b),
    "bias": lambda x, w, b: fused_bias_layer_norm(x, b, w, b),
    "residual": lambda x, w, b: layer_norm_residual(x, b, x.flip(0), w, b),
    "sum": lambda x, w, b: layer_norm_residual(x, None, x.flip(0), w, b, return_sum=True),
    "gate after": lambda x, w, b: layernorm_fn(x, w, b, x.flip(0), group_size=x.shape[-1] // 2),
    "gate before": lambda x, w, b: rmsnorm_fn(x, w, None, x.flip(0), norm_before_gate=False),
}


def outputs_of(result):
    return result if isinstance(result, tuple) else (result,)


@gpu
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("shape", [(4, 8), (3, 1000), (2, 3, 12346), (1, 40000)])
def test_a_launch_made_again_gives_the_bits_of_the_first(name, shape, monkeypatch):
    made = []
    again = repeat.again
    monkeypatch.setattr(repeat, "_kept", {})
    monkeypatch.setattr(repeat, "again", lambda *args: made.append(again(*args)) or made[-1])
    call = CALLS[name]
    n = shape[-1]
    inputs = [(x_of(*shape), x_of(n), x_of(n)) for _ in range(3)]
    inputs = [tuple(t.cuda() for t in one) for one in inputs]
    prepared = [outputs_of(call(*inputs[0]))]
    for one in inputs[1:]:
        repeat._kept.clear()
        prepared.append(outputs_of(call(*one)))
    repeat._kept.clear()
    made.clear()
    call(*inputs[0])
    assert made == [None]
    for one, wanted in zip(inputs, prepared, strict=True):
        found = outputs_of(call(*one))
        assert made.pop() is not None
        assert all(torch.equal(f, w) for f, w in zip(found, wanted, strict=True))
        assert [t.shape for t in found] == [t.shape for t in wanted]


@gpu
def test_tensors_that_were_one_may_be_two_the_next_time(monkeypatch):
    monkeypatch.setattr(repeat, "_kept", {})
    x, w, b = (t.cuda() for t in (x_of(4, 64), x_of(64), x_of(64)))
    layer_norm(x, w, w)
    wanted = torch.nn.functional.layer_norm(x, (64,), w, b)
    assert (layer_norm(x, w, b) - wanted).abs().max() < 1e-5


@gpu
def test_what_is_refused_is_refused_every_time():
    x = x_of(4, 64).cuda()
    for _ in range(2):
        with pytest.raises(ValueError, match="eps"):
            layer_norm(x, None, None, -1.0)
    layer_norm(x, None, None, 1.0)
    with pytest.raises(TypeError, match="eps"):
        layer_norm(x, None, None, True)
