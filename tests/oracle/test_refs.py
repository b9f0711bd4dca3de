"""The value side of the decomposition against two independent witnesses.

mpmath computes each formula with 50 digits from the definition, one element at a time; torch
computes it in float64 with operators of its own. What one addition of exact inputs yields is
owed as rounded to float32, and so both witnesses round it.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch.nn import functional

from oracle.arithmetic import Arithmetic
from oracle.formats import F64, FORMATS, round_to
from oracle.refs import Problem, decompose
from tests.oracle.rows import bell, uniform

FP32 = FORMATS["float32"]
# fp64 keeps 53 bits; cancellation against the mean and the sums cost the rest.
CLOSE = {"rtol": 1e-12, "atol": 1e-13}

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight": {"weight": True},
    "bias": {"bias": True},
    "affine": {"weight": True, "bias": True},
    "weight offset": {"weight": True, "bias": True, "weight_offset": 1.0},
    "residual": {"weight": True, "residual": True},
    "residual and input_bias": {"bias": True, "residual": True, "input_bias": True},
    "groups": {"weight": True, "bias": True, "group_size": 4},
    "rms": {"weight": True, "is_rms_norm": True},
    "rms of a residual": {"residual": True, "is_rms_norm": True},
    "rms of groups": {"weight": True, "is_rms_norm": True, "group_size": 3},
    "gate after": {"weight": True, "bias": True, "z": True},
    "gate before": {"weight": True, "bias": True, "z": True, "norm_before_gate": False},
    "rms, gate after": {"weight": True, "z": True, "is_rms_norm": True, "group_size": 6},
    "rms, gate before": {
        "weight": True,
        "z": True,
        "is_rms_norm": True,
        "norm_before_gate": False,
        "group_size": 4,
    },
}


def problem_of(variant: str, n_rows: int, n_cols: int, eps: float, mean: float = 0.0) -> Problem:
    given = dict(VARIANTS[variant])
    full, cols = (n_rows, n_cols), (n_cols,)
    for k, (name, shape) in enumerate(
        {"weight": cols, "bias": cols, "input_bias": cols, "residual": full, "z": full}.items()
    ):
        if given.pop(name, False):
            given[name] = round_to(bell(20 + k, *shape) * 2.0, FP32)
    arguments = {"group_size": n_cols} | given
    x = round_to(bell(30, *full) + mean, FP32)
    return Problem(x=x, dtype="float32", eps=eps, depth=8, **arguments)


def single_sum(a: F64, b: F64 | float) -> F64:
    return (a.astype(np.float32) + np.asarray(b).astype(np.float32)).astype(np.float64)


def normalised_input(p: Problem) -> F64:
    total = p.x
    for other in (p.input_bias, p.residual):
        if other is not None:
            total = single_sum(total, other)
    return total


# --- mpmath --------------------------------------------------------------------------------------


def by_mpmath(p: Problem) -> dict[str, F64]:
    """Every output from its definition, in 50 digits."""
    with mpmath.workdps(50):
        return _by_mpmath(p)


def _by_mpmath(p: Problem) -> dict[str, F64]:
    n_rows, n_cols = p.x.shape
    n_groups = n_cols // p.group_size
    total = normalised_input(p)
    y, mean, rstd = (np.zeros((n_rows, k)) for k in (n_cols, n_groups, n_groups))

    def gate(row: int, col: int) -> Any:
        if p.z is None:
            return mpmath.mpf(1)
        z = mpmath.mpf(p.z[row, col])
        return z / (1 + mpmath.exp(-z))

    for row in range(n_rows):
        for group in range(n_groups):
            cols = range(group * p.group_size, (group + 1) * p.group_size)
            s = [mpmath.mpf(total[row, c]) for c in cols]
            if not p.norm_before_gate:
                s = [v * gate(row, c) for v, c in zip(s, cols, strict=True)]
            mu = mpmath.mpf(0) if p.is_rms_norm else mpmath.fsum(s) / len(s)
            var = mpmath.fsum((v - mu) ** 2 for v in s) / len(s)
            scale = 1 / mpmath.sqrt(var + mpmath.mpf(p.eps))
            mean[row, group], rstd[row, group] = float(mu), float(scale)
            for v, c in zip(s, cols, strict=True):
                out = (v - mu) * scale
                if p.weight is not None:
                    weight = p.weight[c]
                    if p.weight_offset:
                        weight = float(np.float32(weight) + np.float32(p.weight_offset))
                    out *= mpmath.mpf(weight)
                if p.bias is not None:
                    out += mpmath.mpf(p.bias[c])
                if p.norm_before_gate:
                    out *= gate(row, c)
                y[row, c] = float(out)
    return {"sum": total, "y": y, "rstd": rstd} | ({} if p.is_rms_norm else {"mean": mean})


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("eps", [0.0, 1e-5, 10.0])
def test_refs_values_are_those_of_50_digits(variant: str, eps: float) -> None:
    problem = problem_of(variant, n_rows=2, n_cols=12, eps=eps)
    computed, expected = decompose(problem, Arithmetic()), by_mpmath(problem)
    assert computed.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(computed[name].value, value, **CLOSE, err_msg=name)


@pytest.mark.parametrize("n_cols", [1, 2, 7])
def test_refs_values_of_narrow_rows_are_those_of_50_digits(n_cols: int) -> None:
    problem = problem_of("affine", n_rows=3, n_cols=n_cols, eps=1e-5, mean=3.0)
    computed, expected = decompose(problem, Arithmetic()), by_mpmath(problem)
    for name, value in expected.items():
        np.testing.assert_allclose(computed[name].value, value, **CLOSE, err_msg=name)


def test_refs_values_far_from_zero_are_those_of_50_digits() -> None:
    problem = problem_of("plain", n_rows=2, n_cols=12, eps=1e-5, mean=1e5)
    computed, expected = decompose(problem, Arithmetic()), by_mpmath(problem)
    # The mean is right to 1e-16 of itself, that is 1e-11 of the deviations.
    np.testing.assert_allclose(computed["y"].value, expected["y"], rtol=1e-9)


# --- torch ---------------------------------------------------------------------------------------


def by_torch(p: Problem) -> dict[str, F64]:
    """Every output by torch's own operators in float64."""
    s = torch.from_numpy(normalised_input(p))
    gate = None if p.z is None else functional.silu(torch.from_numpy(p.z))
    if gate is not None and not p.norm_before_gate:
        s = s * gate
    groups = s.unflatten(1, (-1, p.group_size))
    result = {"sum": normalised_input(p)}
    if p.is_rms_norm:
        y = functional.rms_norm(groups, (p.group_size,), eps=p.eps)
        rstd = torch.rsqrt(groups.square().mean(-1) + p.eps)
    else:
        y, mean, rstd = torch.native_layer_norm(groups, (p.group_size,), None, None, p.eps)
        result["mean"] = mean.flatten(1).numpy()
    y = y.flatten(1)
    if p.weight is not None:
        weight = single_sum(p.weight, p.weight_offset) if p.weight_offset else p.weight
        y = y * torch.from_numpy(weight)
    if p.bias is not None:
        y = y + torch.from_numpy(p.bias)
    if gate is not None and p.norm_before_gate:
        y = y * gate
    return result | {"y": y.numpy(), "rstd": rstd.flatten(1).numpy()}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("n_rows", "n_cols", "mean"), [(5, 1212, 0.0), (2, 65532, 10.0)])
def test_refs_values_are_those_of_torch_in_float64(
    variant: str, n_rows: int, n_cols: int, mean: float
) -> None:
    problem = problem_of(variant, n_rows, n_cols, eps=1e-5, mean=mean)
    computed, expected = decompose(problem, Arithmetic()), by_torch(problem)
    assert computed.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            computed[name].value, value, rtol=1e-10, atol=1e-11, err_msg=name
        )


@pytest.mark.parametrize("planted", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("variant", ["affine", "groups"])
def test_refs_non_finite_values_spread_as_in_torch(variant: str, planted: float) -> None:
    problem = problem_of(variant, n_rows=3, n_cols=12, eps=1e-5)
    problem.x[1, 5] = planted
    computed, expected = decompose(problem, Arithmetic()), by_torch(problem)
    # The CPU kernel keeps a running mean, and makes NaN of infinity; a sum does not.
    groups = torch.from_numpy(problem.x).unflatten(1, (-1, problem.group_size))
    expected["mean"] = groups.mean(-1).numpy()
    assert np.isnan(expected["y"]).any()
    for name, value in expected.items():
        np.testing.assert_allclose(computed[name].value, value, **CLOSE, err_msg=name)


# --- what the arithmetic changes in the value ----------------------------------------------------


def test_refs_sum_is_added_in_order_and_rounded_each_time() -> None:
    tiny = 2.0**-24
    problem = Problem(
        x=np.array([[1.0]]),
        dtype="float32",
        eps=1.0,
        depth=0,
        group_size=1,
        input_bias=np.array([tiny]),
        residual=np.array([[tiny]]),
    )
    # In any other order, or with one rounding, it would be 1 + 2^-23.
    total = decompose(problem, Arithmetic())["sum"]
    assert total.value[0, 0] == 1.0
    assert total.exact


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_refs_stored_sum_is_rounded_to_its_dtype(dtype: str) -> None:
    problem = problem_of("residual and input_bias", 3, 12, eps=1e-5)
    total = decompose(problem, Arithmetic(roundings=(("sum", dtype),)))["sum"]
    assert (total.value == round_to(normalised_input(problem), FORMATS[dtype])).all()
    assert total.exact


def test_refs_rounding_to_x_is_to_the_dtype_of_x() -> None:
    arithmetic = Arithmetic(roundings=(("sum", "x"),))
    x, residual = np.full((1, 4), 2048.0), np.ones((1, 4))
    for dtype, value in (("float16", 2048.0), ("float32", 2049.0)):
        problem = Problem(x=x, dtype=dtype, eps=1e-5, depth=3, group_size=4, residual=residual)
        assert (decompose(problem, arithmetic)["sum"].value == value).all()


def test_refs_steps_read_the_sum_they_promise_to() -> None:
    problem = Problem(
        x=np.array([[2048.0, 2048.0, 2050.0, 2050.0]]),
        dtype="float16",
        eps=1e-5,
        depth=3,
        group_size=4,
        residual=np.ones((1, 4)),
    )
    # Computed: 2049, 2051, mean 2050. Stored: 2048, 2052 (ties to even), mean 2050.
    rounding = (("sum", "float16"),)
    computed = decompose(problem, Arithmetic(roundings=rounding))
    stored = decompose(problem, Arithmetic(roundings=rounding, variance_reads="stored"))
    output = decompose(problem, Arithmetic(roundings=rounding, output_reads="stored"))
    assert computed["rstd"].value[0, 0] == 1.0 / np.sqrt(1.0 + 1e-5)
    assert stored["rstd"].value[0, 0] == 1.0 / np.sqrt(4.0 + 1e-5)
    assert output["y"].value[0, 0] == -2.0 / np.sqrt(1.0 + 1e-5)
    first = Problem(
        x=np.array([[2048.0, 0.0]]),
        dtype="float16",
        eps=1e-5,
        depth=1,
        group_size=2,
        residual=np.array([[1.0, 0.0]]),
    )
    for use, mean in (("computed", 1024.5), ("stored", 1024.0)):
        arithmetic = Arithmetic(roundings=rounding, mean_reads=use)  # type: ignore[arg-type]
        assert decompose(first, arithmetic)["mean"].value[0, 0] == mean


def test_refs_reused_outputs_are_judged_and_then_believed() -> None:
    problem = problem_of("affine", n_rows=3, n_cols=12, eps=1e-5)
    plain = decompose(problem, Arithmetic())
    observed = {
        "mean": round_to(plain["mean"].value + 0.25, FP32),
        "rstd": round_to(plain["rstd"].value * 2.0, FP32),
    }
    # Not promised to be those used: not believed.
    assert (decompose(problem, Arithmetic(), observed)["y"].value == plain["y"].value).all()
    believed = decompose(problem, Arithmetic(reused=("mean", "rstd")), observed)
    assert (believed["mean"].value == plain["mean"].value).all()
    deviation = np.square(problem.x - observed["mean"]).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(believed["rstd"].value, 1.0 / np.sqrt(deviation + 1e-5), rtol=1e-14)
    assert problem.weight is not None
    assert problem.bias is not None
    centred = single_sum(problem.x, -observed["mean"])
    expected = centred * observed["rstd"] * problem.weight + problem.bias
    np.testing.assert_allclose(believed["y"].value, expected, rtol=1e-14, atol=1e-15)


def test_refs_observed_sum_is_believed() -> None:
    problem = problem_of("residual", n_rows=2, n_cols=12, eps=1e-5)
    observed = {"sum": round_to(uniform(40, 2, 12), FP32)}
    believed = decompose(problem, Arithmetic(reused=("sum",)), observed)
    instead = Problem(
        x=observed["sum"],
        dtype="float32",
        eps=1e-5,
        depth=8,
        group_size=12,
        weight=problem.weight,
    )
    for name in ("y", "mean", "rstd"):
        assert (believed[name].value == decompose(instead, Arithmetic())[name].value).all()
    assert (believed["sum"].value == normalised_input(problem)).all()


def test_refs_observed_non_finite_statistics_are_not_computed_with() -> None:
    problem = problem_of("plain", n_rows=3, n_cols=12, eps=1e-5)
    plain = decompose(problem, Arithmetic())
    observed = {name: plain[name].value.copy() for name in ("mean", "rstd")}
    observed["mean"][1] = np.nan
    observed["rstd"][2] = np.inf
    believed = decompose(problem, Arithmetic(reused=("mean", "rstd")), observed)
    assert np.isfinite(believed["y"].value).all()
    np.testing.assert_allclose(believed["y"].value, plain["y"].value, rtol=1e-5, atol=1e-6)


def test_refs_accept_empty_batches() -> None:
    problem = problem_of("residual", n_rows=0, n_cols=12, eps=1e-5)
    result = decompose(problem, Arithmetic())
    assert result["y"].value.shape == (0, 12)
    assert result["mean"].value.shape == result["rstd"].value.shape == (0, 1)


def test_refs_statistics_are_rows_by_groups() -> None:
    result = decompose(problem_of("groups", 5, 12, eps=1e-5), Arithmetic())
    assert result["mean"].value.shape == result["rstd"].value.shape == (5, 3)


def test_refs_refuse_float64_kernels() -> None:
    with pytest.raises(ValueError, match="dtype='float64', must be one of"):
        decompose(problem_of("plain", 1, 2, eps=1e-5), Arithmetic(compute="float64"))
