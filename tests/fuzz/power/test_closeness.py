"""assert_close in NumPy: element by element what torch says, and asked of whole observations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fuzz.case import Recipe
from fuzz.power.closeness import TOLERANCES, is_close, rejections
from oracle.formats import FORMATS, decode, encode
from tests.fuzz.builders import GATED, LAYER_NORM, NATIVE, edited, make_case, observe, planted

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def accepts(observed: float, expected: float, dtype: torch.dtype) -> bool:
    pair = (torch.tensor(value, dtype=torch.float64).to(dtype) for value in (observed, expected))
    try:
        torch.testing.assert_close(*pair, equal_nan=True)
    except AssertionError:
        return False
    return True


def pairs(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and others at about the distance that the tolerances allow, and special ones."""
    random = np.random.default_rng(7)
    rtol, atol = TOLERANCES[dtype]
    expected = random.standard_normal(400) * 2.0 ** random.integers(-24, 14, 400)
    distance = (atol + rtol * np.abs(expected)) * random.uniform(0.9, 1.1, 400)
    observed = expected + distance * random.choice((-1.0, 1.0), 400)
    largest, inf, nan = FORMATS[dtype].largest, np.inf, np.nan
    special = [(inf, inf), (inf, -inf), (nan, nan), (nan, 1.0), (1.0, nan), (inf, largest)]
    special += [(largest, -largest), (0.0, -0.0), (0.0, 1e-5), (largest, largest / 2)]
    observed = np.concatenate((observed, [a for a, _ in special]))
    expected = np.concatenate((expected, [b for _, b in special]))
    return tuple(decode(encode(values, dtype), dtype) for values in (observed, expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_closeness_is_what_torch_says(dtype: str) -> None:
    observed, expected = pairs(dtype)
    said = [accepts(a, b, DTYPES[dtype]) for a, b in zip(observed, expected, strict=True)]
    assert is_close(observed, expected, dtype).tolist() == said
    assert 100 < sum(said[:400]) < 300


@pytest.mark.parametrize("dtype", DTYPES)
def test_closeness_has_the_default_tolerances(dtype: str) -> None:
    one = torch.ones((), dtype=DTYPES[dtype])
    with pytest.raises(AssertionError) as caught:
        torch.testing.assert_close(one, 2 * one)
    rtol, atol = TOLERANCES[dtype]
    assert f"(up to {rtol} allowed)" in str(caught.value)
    with pytest.raises(AssertionError, match=rf"up to {atol}"):
        torch.testing.assert_close(one, 2 * one, rtol=0.0, atol=atol)


def said_of(spec, case, fault=None, outputs=("y", "mean", "rstd")) -> dict[str, str]:
    _, values, observations = observe(spec, case, fault)
    return rejections(spec, case, values, observations[0], outputs, interpreted=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", [LAYER_NORM, NATIVE, GATED], ids=lambda spec: spec.name)
def test_closeness_accepts_a_correct_kernel(spec, dtype: str) -> None:
    assert said_of(spec, make_case(spec, (4, 60), dtype=dtype)) == {}


def test_closeness_accepts_nan_where_it_is_owed() -> None:
    case = make_case(NATIVE, (3, 8), values={"x": planted(9, "nan")})
    assert said_of(NATIVE, case) == {}


def off(name: str, by: float):
    def fault(run, seen):
        def change(bits):
            values = decode(bits, "float32")
            values[0] += by
            bits[...] = encode(values, "float32")

        return edited(seen, name, change)

    return fault


def test_closeness_names_each_output_that_is_far() -> None:
    case = make_case(NATIVE, (4, 8))
    assert said_of(NATIVE, case, off("mean", 1.0)) == {
        "mean": "mean: 1 of 4 elements are not close"
    }
    assert said_of(NATIVE, case, off("mean", 1.0), outputs=("y",)) == {}
    assert said_of(NATIVE, case, off("y", 1e-6)) == {}


def test_closeness_knows_nothing_of_returned_statistics() -> None:
    # A mean that is off by much, and a y that follows from it: both are far from the reference.
    case = make_case(NATIVE, (4, 8), absent=("weight", "bias"), values={"x": Recipe("normal")})

    def fault(run, seen):
        return off("y", -1.0)(run, off("mean", 1.0)(run, seen))

    assert set(said_of(NATIVE, case, fault)) == {"y", "mean"}


def test_closeness_rejects_what_is_missing_or_of_another_shape() -> None:
    case = make_case(NATIVE, (4, 8))

    def fault(run, seen):
        kept = {"y": replace(seen.outputs["y"], shape=(8, 4)), "mean": seen.outputs["mean"]}
        return replace(seen, outputs=kept)

    assert said_of(NATIVE, case, fault) == {
        "y": "y is float32[8, 4], must be float32[4, 8]",
        "rstd": "rstd is missing",
    }
