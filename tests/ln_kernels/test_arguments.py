"""What the wrappers refuse, and in which words."""

import pytest
import torch

import ln_kernels
from ln_kernels import LaunchConfig, rows
from tests.ln_kernels.wrappers import WRAPPERS

X = torch.zeros(3, 4)


def refused(kind, call):
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


# Every function that takes eps, as a call of x and eps.
EPS_CALLS = {
    "layer_norm": lambda x, eps: ln_kernels.layer_norm(x, None, None, eps),
    "native_layer_norm": lambda x, eps: ln_kernels.native_layer_norm(x, 4, None, None, eps),
    "layer_norm_residual": lambda x, eps: ln_kernels.layer_norm_residual(
        x, None, x, None, None, eps
    ),
    "triton_layer_norm": lambda x, eps: ln_kernels.triton_layer_norm(x, None, None, eps),
    "fused_bias_layer_norm": lambda x, eps: ln_kernels.fused_bias_layer_norm(
        x, x[0], None, None, eps
    ),
    "layernorm_fn": lambda x, eps: ln_kernels.layernorm_fn(x, None, None, eps=eps),
    "rmsnorm_fn": lambda x, eps: ln_kernels.rmsnorm_fn(x, None, None, eps=eps),
    "layer_norm_forward": lambda x, eps: ln_kernels.layer_norm_forward(x, None, None, eps),
}


@pytest.fixture
def x(device):
    return X.to(device)


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.int32, torch.bool, torch.complex64, torch.float8_e5m2]
)
def test_wrapper_refuses_other_dtypes(x, wrapper, dtype):
    message = refused(TypeError, lambda: wrapper.call(x.to(dtype)))
    rule = "must be torch.float16, torch.bfloat16 or torch.float32"
    assert message == f"x.dtype={dtype}, {rule} [{wrapper.name}]"


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrapper_refuses_what_has_no_columns(device, wrapper):
    empty = torch.zeros(3, 0, device=device)
    message = refused(ValueError, lambda: wrapper.call(empty))
    assert message == f"n_cols=0, must be >= 1 [{wrapper.name}]"


@pytest.mark.parametrize("name", ["layer_norm", "triton_layer_norm", "layernorm_fn", "rmsnorm_fn"])
def test_wrapper_refuses_a_scalar_tensor(device, name):
    scalar = torch.zeros((), device=device)
    message = refused(ValueError, lambda: getattr(ln_kernels, name)(scalar, None, None))
    assert message == f"x.ndim=0, must be >= 1 [{name}]"


@pytest.mark.parametrize("name", ["layer_norm", "triton_layer_norm", "layernorm_fn", "rmsnorm_fn"])
@pytest.mark.parametrize("argument", ["weight", "bias"])
def test_wrapper_refuses_a_vector_that_does_not_fit(x, device, name, argument):
    def call(vector):
        function = getattr(ln_kernels, name)
        return function(x, **{"weight": None, "bias": None, argument: vector})

    for shape in [(5,), (1,), (1, 4), (3, 4), ()]:
        message = refused(ValueError, lambda s=shape: call(torch.zeros(s, device=device)))
        assert message == f"{argument}.shape={shape}, must be (4,) [{name}]"
    strided = torch.zeros(8, device=device)[::2]
    message = refused(ValueError, lambda: call(strided))
    assert message == f"{argument}.stride(-1)=2, must be 1 [{name}]"
    message = refused(ValueError, lambda: call(torch.zeros(4, device="meta")))
    assert message == f"{argument}.device=meta, must be {x.device} as x [{name}]"
    message = refused(TypeError, lambda: call(torch.zeros(4, dtype=torch.float64, device=device)))
    assert message.startswith(f"{argument}.dtype=torch.float64, must be ")
    message = refused(TypeError, lambda: call([1.0] * 4))
    assert message == f"{argument}=list, must be a torch.Tensor [{name}]"


def test_other_vectors_are_named_as_their_function_names_them(x, device):
    bad, good = torch.zeros(3, device=device), torch.zeros(4, device=device)
    fused = ln_kernels.fused_bias_layer_norm
    for position, argument in enumerate(["bias", "gamma", "beta"]):
        vectors = [good, good, good]
        vectors[position] = bad
        message = refused(ValueError, lambda v=vectors: fused(x, *v))
        assert message == f"{argument}.shape=(3,), must be (4,) [fused_bias_layer_norm]"
    message = refused(TypeError, lambda: fused(x, None, good, good))
    assert message == "bias=NoneType, must be a torch.Tensor [fused_bias_layer_norm]"
    residual = ln_kernels.layer_norm_residual
    for argument in ("input_bias", "weight", "bias"):
        vectors = {"input_bias": None, "weight": None, "bias": None, argument: bad}
        message = refused(ValueError, lambda v=vectors: residual(x=x, residual=x, **v))
        assert message == f"{argument}.shape=(3,), must be (4,) [layer_norm_residual]"


def test_residual_and_gate_must_have_the_shape_of_x(x):
    residual = ln_kernels.layer_norm_residual
    message = refused(ValueError, lambda: residual(x, None, x[:2], None, None))
    assert message == "residual.shape=(2, 4), must be (3, 4) as x [layer_norm_residual]"
    message = refused(TypeError, lambda: residual(x, None, None, None, None))
    assert message == "residual=NoneType, must be a torch.Tensor [layer_norm_residual]"
    message = refused(ValueError, lambda: ln_kernels.layernorm_fn(x, None, None, x[0]))
    assert message == "z.shape=(4,), must be (3, 4) as x [layernorm_fn]"
    columns = torch.zeros(4, 3, device=x.device).t()
    message = refused(ValueError, lambda: ln_kernels.rmsnorm_fn(x, None, None, columns))
    assert message == "z.stride(-1)=3, must be 1 [rmsnorm_fn]"


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrapper_refuses_columns_apart_from_each_other(device, wrapper):
    message = refused(ValueError, lambda: wrapper.call(torch.zeros(4, 3, device=device).t()))
    assert message == f"x.stride(-1)=3, must be 1 [{wrapper.name}]"
    one = torch.zeros(1, device=device)
    message = refused(ValueError, lambda: wrapper.call(one.expand(3, 4)))
    assert message == f"x.stride(-1)=0, must be 1 [{wrapper.name}]"


def test_native_layer_norm_refuses_normalised_dims_with_gaps(device):
    gaps = torch.zeros(2, 3, 5, device=device)[..., :4]
    native = ln_kernels.native_layer_norm
    message = refused(ValueError, lambda: native(gaps, (3, 4), None, None, 1e-5))
    assert message == "x.stride(-2)=5, must be 4 [native_layer_norm]"
    swapped = torch.zeros(2, 4, 3, device=device).transpose(1, 2)
    message = refused(ValueError, lambda: native(swapped, (3, 4), None, None, 1e-5))
    assert message == "x.stride(-1)=3, must be 1 [native_layer_norm]"
    out = torch.zeros(2, 3, 5, device=device)[..., :4]
    x = torch.zeros(2, 3, 4, device=device)
    message = refused(ValueError, lambda: native(x, (3, 4), None, None, 1e-5, out=out))
    assert message == "out.stride(-2)=5, must be 4 [native_layer_norm]"


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ((3,), ValueError, "normalized_shape=(3,), must be the end of x.shape=(3, 4)"),
        ((2, 3, 4), ValueError, "normalized_shape=(2, 3, 4), must be the end of x.shape=(3, 4)"),
        (5, ValueError, "normalized_shape=(5,), must be the end of x.shape=(3, 4)"),
        ((), ValueError, "normalized_shape=(), must name at least one dim"),
        (4.0, TypeError, "normalized_shape=4.0, must be an int or a sequence of ints"),
        ((4.0,), TypeError, "normalized_shape=(4.0,), must be an int or a sequence of ints"),
        ("4", TypeError, "normalized_shape='4', must be an int or a sequence of ints"),
    ],
)
def test_native_layer_norm_refuses_other_shapes(x, shape, kind, message):
    call = ln_kernels.native_layer_norm
    assert refused(kind, lambda: call(x, shape, None, None, 1e-5)) == (
        f"{message} [native_layer_norm]"
    )


def test_native_layer_norm_wants_weight_of_the_normalised_shape(device):
    x = torch.zeros(2, 3, 4, device=device)
    flat = torch.zeros(12, device=device)
    message = refused(ValueError, lambda: ln_kernels.native_layer_norm(x, (3, 4), flat, None, 1e-5))
    assert message == "weight.shape=(12,), must be (3, 4) [native_layer_norm]"


@pytest.mark.parametrize("name", EPS_CALLS)
@pytest.mark.parametrize(
    ("eps", "kind", "message"),
    [
        (-1e-5, ValueError, "eps=-1e-05, must be finite in float32 and >= 0"),
        (float("nan"), ValueError, "eps=nan, must be finite in float32 and >= 0"),
        (float("inf"), ValueError, "eps=inf, must be finite in float32 and >= 0"),
        (1e39, ValueError, "eps=1e+39, must be finite in float32 and >= 0"),
        ("1", TypeError, "eps='1', must be a number"),
        (None, TypeError, "eps=None, must be a number"),
        (True, TypeError, "eps=True, must be a number"),
    ],
)
def test_wrapper_refuses_other_eps(x, name, eps, kind, message):
    assert refused(kind, lambda: EPS_CALLS[name](x, eps)) == f"{message} [{name}]"


def test_eps_reaches_a_kernel_as_a_float():
    # Triton would compile an integer eps of 1 into the kernel.
    assert type(rows.check_eps(1, "layer_norm")) is float


@pytest.mark.parametrize(
    ("group_size", "kind", "message"),
    [
        (0, ValueError, "group_size=0, must be >= 1"),
        (-2, ValueError, "group_size=-2, must be >= 1"),
        (3, ValueError, "group_size=3, must divide n_cols=4"),
        (8, ValueError, "group_size=8, must divide n_cols=4"),
        (2.0, TypeError, "group_size=2.0, must be an int"),
        (True, TypeError, "group_size=True, must be an int"),
    ],
)
def test_groups_must_divide_the_columns(x, group_size, kind, message):
    call = ln_kernels.layer_norm_forward
    assert refused(kind, lambda: call(x, None, None, 1e-5, group_size=group_size)) == (
        f"{message} [layer_norm_forward]"
    )
    assert refused(kind, lambda: ln_kernels.RMSNorm(4, group_size=group_size)) == (
        f"{message} [RMSNorm]"
    )


def test_modules_refuse_other_options():
    assert refused(ValueError, lambda: ln_kernels.LayerNorm(0)) == (
        "hidden_size=0, must be >= 1 [LayerNorm]"
    )
    assert refused(ValueError, lambda: ln_kernels.RMSNorm(4, eps=-1.0)) == (
        "eps=-1.0, must be finite in float32 and >= 0 [RMSNorm]"
    )


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrapper_refuses_an_out_of_another_kind(x, wrapper):
    def call(out):
        return lambda: wrapper.call(x, out=out)

    end = f"[{wrapper.name}]"
    assert refused(ValueError, call(x.new_zeros(4, 4))) == (
        f"out.shape=(4, 4), must be (3, 4) as x {end}"
    )
    assert refused(TypeError, call(x.half())) == (
        f"out.dtype=torch.float16, must be torch.float32 {end}"
    )
    assert refused(ValueError, call(torch.empty(3, 4, device="meta"))) == (
        f"out.device=meta, must be {x.device} as x {end}"
    )
    assert refused(ValueError, call(x.new_zeros(4, 3).t())) == (
        f"out.stride(-1)=3, must be 1 {end}"
    )
    assert refused(ValueError, call(x.new_zeros(4).expand(3, 4))) == (
        f"out.stride()=(0, 1), must give each element an address of its own {end}"
    )
    assert refused(ValueError, call(x.new_zeros(20).as_strided((3, 4), (3, 1)))) == (
        f"out.stride()=(3, 1), must give each element an address of its own {end}"
    )
    assert refused(TypeError, call([0.0])) == f"out=list, must be a torch.Tensor {end}"


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrapper_refuses_an_out_that_overlaps_x_in_part(device, wrapper):
    memory = torch.zeros(8, 12, device=device)
    rule = "out shares memory with x, must be x in the same layout or apart from it"
    for x, out in [
        (memory[:4, :8], memory[1:5, :8]),
        (memory[:4, :8], memory[:4, 1:9]),
        (memory.view(-1)[:16].view(4, 4), memory.view(-1)[:32].view(4, 8)[:, :4]),
        (memory[0, :4].expand(4, 4), memory[:4, :4]),
    ]:
        assert refused(ValueError, lambda x=x, out=out: wrapper.call(x, out=out)) == (
            f"{rule} [{wrapper.name}]"
        )
    wrapper.call(memory[:, :6], out=memory[:, 6:])
    wrapper.call(memory[::2], out=memory[1::2])


def test_out_stays_apart_from_weight_and_bias(x):
    memory = torch.zeros(3, 4, device=x.device)
    rule = "must be apart from it"
    for name in ("layer_norm", "triton_layer_norm", "layernorm_fn"):
        call = getattr(ln_kernels, name)
        assert refused(ValueError, lambda c=call: c(x, memory[1], None, out=memory)) == (
            f"out shares memory with weight, {rule} [{name}]"
        )
        assert refused(ValueError, lambda c=call: c(x, None, memory[2], out=memory)) == (
            f"out shares memory with bias, {rule} [{name}]"
        )
    for name, arguments in {
        "fused_bias_layer_norm": ("bias", "gamma", "beta"),
        "layer_norm_residual": ("input_bias", "weight", "bias"),
    }.items():
        for argument in arguments:
            vectors = {a: torch.zeros(4, device=x.device) for a in arguments}
            vectors[argument] = memory[1]
            rows_of = {"residual": x.clone()} if name == "layer_norm_residual" else {}
            call = getattr(ln_kernels, name)
            message = refused(
                ValueError, lambda c=call, v=vectors, r=rows_of: c(x=x, **v, **r, out=memory)
            )
            assert message == f"out shares memory with {argument}, {rule} [{name}]"


def test_residual_outputs_stay_apart_from_each_other(x):
    def call(**options):
        return lambda: ln_kernels.layer_norm_residual(x, None, residual, None, None, **options)

    residual, out = torch.zeros(4, 4, device=x.device)[:3], torch.zeros(3, 4, device=x.device)
    end = "[layer_norm_residual]"
    assert refused(ValueError, call(out=out, sum_out=out)) == (
        f"sum_out shares memory with out, must be apart from it {end}"
    )
    assert refused(ValueError, call(out=x, sum_out=x)) == (
        f"sum_out shares memory with out, must be apart from it {end}"
    )
    shifted = residual.as_strided((3, 4), (4, 1), 4)
    assert refused(ValueError, call(sum_out=shifted)) == (
        "sum_out shares memory with residual, must be residual in the same layout or apart from "
        f"it {end}"
    )
    assert refused(TypeError, call(sum_out=out.half())) == (
        f"sum_out.dtype=torch.float16, must be torch.float32 {end}"
    )
    half = x.half()
    message = refused(
        TypeError,
        lambda: ln_kernels.layer_norm_residual(
            half, None, residual, None, None, sum_out=half.bfloat16()
        ),
    )
    rule = "must be torch.float16 or torch.float32"
    assert message == f"sum_out.dtype=torch.bfloat16, {rule} {end}"


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrapper_refuses_a_launch_of_another_kind(x, wrapper):
    message = refused(TypeError, lambda: wrapper.call(x, launch=128))
    assert message == f"launch=128, must be a LaunchConfig or None [{wrapper.name}]"


def test_triton_layer_norm_refuses_a_block_below_the_row(x):
    call = ln_kernels.triton_layer_norm
    message = refused(ValueError, lambda: call(x, None, None, launch=LaunchConfig(2, 1)))
    assert message == "launch.block=2, must be >= n_cols=4 [triton_layer_norm]"


def test_triton_layer_norm_refuses_a_row_that_no_block_holds(device):
    wide = torch.zeros(1, device=device).as_strided((0, 2**20 + 1), (2**20 + 1, 1))
    message = refused(ValueError, lambda: ln_kernels.triton_layer_norm(wide, None, None))
    assert message == "n_cols=1048577, must be <= 1048576 [triton_layer_norm]"


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrapper_refuses_more_columns_than_int32_counts(x, wrapper, monkeypatch):
    assert rows.MAX_COLS + ln_kernels.launch.MAX_BLOCK < 2**31
    monkeypatch.setattr(rows, "MAX_COLS", 3)
    message = refused(ValueError, lambda: wrapper.call(x))
    assert message == f"n_cols=4, must be <= 3 [{wrapper.name}]"


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_wrapper_says_what_a_cpu_tensor_needs_outside_the_interpreter(wrapper, monkeypatch):
    monkeypatch.setattr(rows, "_INTERPRETED", False)
    message = refused(ValueError, lambda: wrapper.call(X))
    rule = "must be cuda, or set TRITON_INTERPRET=1 before ln_kernels is imported"
    assert message == f"x.device=cpu, {rule} [{wrapper.name}]"


def test_inputs_that_require_grad_give_a_plain_result(x):
    leaf = x.clone().requires_grad_()
    y = ln_kernels.layer_norm(leaf, None, None)
    assert not y.requires_grad


@pytest.mark.parametrize("argument", ["x", None, 3.0])
def test_x_must_be_a_tensor(argument):
    name = type(argument).__name__
    rule = "must be a torch.Tensor"
    message = refused(TypeError, lambda: ln_kernels.layer_norm(argument, None, None))
    assert message == f"x={name}, {rule} [layer_norm]"
    message = refused(TypeError, lambda: ln_kernels.native_layer_norm(argument, 4, None, None, 0))
    assert message == f"x={name}, {rule} [native_layer_norm]"


def test_sparse_tensors_are_refused(x):
    message = refused(TypeError, lambda: ln_kernels.layer_norm(x.to_sparse(), None, None))
    assert message == "x.layout=torch.sparse_coo, must be torch.strided [layer_norm]"
