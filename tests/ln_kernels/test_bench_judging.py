import pytest
import torch

from ln_kernels.benchmark import promises, verify
from ln_kernels.benchmark.operations import EPS, KERNELS, OPERATIONS, make_inputs
from ln_kernels.benchmark.sides import Field, Side, verified
from ln_kernels.benchmark.verify import Judge

CPU = torch.device("cpu")
# More rows than distinct ones, by more than a power of two.
N_ROWS, N_COLS = 130, 64


def judge_of(operation, dtype, n_rows=N_ROWS, n_cols=N_COLS):
    inputs = make_inputs(OPERATIONS[operation], dtype, n_rows, n_cols, CPU)
    return inputs, Judge(OPERATIONS[operation], dtype, inputs, interpreted=True)


def exact(inputs, total=None):
    """The layer norm in fp64, rounded once."""
    x = (inputs.x if total is None else total).double()
    weight, bias = (t.double() for t in inputs.take("weight", "bias"))
    y = torch.nn.functional.layer_norm(x, weight.shape, weight, bias, EPS)
    return y.to(inputs.x.dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_of_this_project_is_right(device, name, dtype):
    operation = KERNELS[name].operation
    inputs = make_inputs(operation, dtype, 3, 200, device)
    sides = Field([name], []).sides(operation.name, inputs)
    right, rest = verified(sides, operation, dtype, inputs, interpreted=device.type == "cpu")
    assert [side.name for side in right] == [name]
    assert not rest


@pytest.mark.parametrize("operation", OPERATIONS)
def test_pytorch_eager_is_right_in_fp32(operation):
    inputs = make_inputs(OPERATIONS[operation], "float32", 5, 300, CPU)
    sides = Field([], ["eager"]).sides(operation, inputs)
    right, rest = verified(sides, OPERATIONS[operation], "float32", inputs, interpreted=True)
    assert [side.name for side in right] == ["eager"]
    assert not rest


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_correctly_rounded_result_is_right(dtype):
    inputs, judge = judge_of("layer_norm", dtype)
    assert judge.fault(exact(inputs), ("y",), promises.FUSED) is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize(("row", "sign"), [(0, 1), (0, -1), (61, 1), (N_ROWS - 1, -1)])
def test_one_wrong_element_is_found_in_any_row(monkeypatch, dtype, row, sign):
    # Several chunks, the last one shorter.
    monkeypatch.setattr(verify, "CHUNK", 17 * N_COLS)
    inputs, judge = judge_of("layer_norm", dtype)
    y = exact(inputs)
    # Further off than any order of summation explains, by far less than a usual tolerance.
    y[row, 7] += sign * {"bfloat16": 2**-4, "float16": 2**-7, "float32": 2**-14}[dtype]
    fault = judge.fault(y, ("y",), promises.FUSED)
    assert fault is not None
    assert fault.startswith(f"y[{row}, 7]=")
    assert "1 of 64 elements of this row, and 1 of 130 rows are wrong" in fault


@pytest.mark.parametrize("distance", [1, 2, 64, 128])
def test_rows_taken_for_others_are_found(distance):
    inputs, judge = judge_of("layer_norm", "float32")
    right = exact(inputs)
    y = right.clone()
    y[distance:] = right[:-distance]
    assert judge.fault(y, ("y",), promises.FUSED) is not None


def test_nan_is_wrong():
    inputs, judge = judge_of("layer_norm", "float32")
    y = exact(inputs)
    y[99, 3] = torch.nan
    fault = judge.fault(y, ("y",), promises.FUSED)
    assert fault is not None
    assert fault.startswith("y[99, 3]=nan")


def test_wrong_statistics_are_found():
    inputs, judge = judge_of("native_layer_norm", "float32")
    weight, bias = inputs.take("weight", "bias")
    y, mean, rstd = torch.native_layer_norm(inputs.x, weight.shape, weight, bias, EPS)
    names = ("y", "mean", "rstd")
    assert judge.fault((y, mean, rstd), names, promises.FUSED) is None
    assert judge.fault((y, mean + 1e-3, rstd), names, promises.FUSED).startswith("mean[0, 0]")
    assert judge.fault((y, mean, rstd * 1.001), names, promises.FUSED).startswith("rstd[0, 0]")
    assert "must be torch.float32" in judge.fault((y, mean.half(), rstd), names, promises.FUSED)
    assert "does not fit" in judge.fault((y, mean[:-1], rstd), names, promises.FUSED)


def test_a_result_of_another_dtype_or_shape_is_wrong():
    inputs, judge = judge_of("layer_norm", "float16")
    y = exact(inputs)
    assert "must be torch.float16" in judge.fault(y.float(), ("y",), promises.FUSED)
    assert "does not fit" in judge.fault(y.T, ("y",), promises.FUSED)


def test_a_sum_rounded_before_the_norm_is_wrong_for_one_launch_and_right_for_eager():
    inputs, judge = judge_of("residual", "bfloat16")
    rounded = exact(inputs, inputs.x + inputs.take("residual")[0])
    assert judge.fault(rounded, ("y",), promises.FUSED) is not None
    assert judge.fault(rounded, ("y",), promises.EAGER["sum"]) is None
    # A compiler may do either.
    whole = exact(inputs, inputs.x.double() + inputs.take("residual")[0].double())
    assert judge.fault(rounded, ("y",), promises.COMPILED) is None
    assert judge.fault(whole, ("y",), promises.COMPILED) is None
    assert judge.fault(whole, ("y",), promises.EAGER["sum"]) is not None


def test_who_is_wrong_or_raises_is_named_and_the_others_go_on():
    inputs, _ = judge_of("layer_norm", "float32")

    def raises():
        raise RuntimeError("rows of more than 64 KB\nand more lines")

    def side(name, run, ours=False):
        return Side(name, ours, run, ("y",), promises.FUSED)

    sides = [
        side("mine", raises, ours=True),
        side("off", lambda: exact(inputs) * 1.01),
        side("other", raises),
        side("good", lambda: exact(inputs)),
    ]
    right, rest = verified(sides, OPERATIONS["layer_norm"], "float32", inputs, interpreted=True)
    assert [s.name for s in right] == ["good"]
    assert {s.name: s.status for s in rest} == {
        "mine": "failed",
        "off": "wrong",
        "other": "refused",
    }
    assert all(s.timing is None for s in rest)
    assert rest[2].note == "RuntimeError: rows of more than 64 KB"
