"""Observed values against what is owed: rounding, overflow, non-finite values, the ratio."""

from typing import Any

import numpy as np
import pytest

from oracle.bounds import Bounded
from oracle.compare import Comparison, compare, expect
from oracle.formats import FORMATS
from tests.oracle.rows import bell

INF, NAN = np.inf, np.nan
ULP16 = 2.0**-10
"""The spacing of float16 in [1, 2)."""


def judge(
    observed: float,
    value: float,
    error: float = 0.0,
    *,
    free: bool = False,
    dtype: str = "float16",
    strict: bool = True,
) -> Comparison:
    bounded = Bounded(np.array([value]), np.array([error]), np.array([free]))
    return compare(np.array([observed]), expect(bounded, dtype), strict_nonfinite=strict)


@pytest.mark.parametrize(
    ("observed", "value", "error", "right"),
    [
        (1.0, 1.0, 0.0, True),
        (-0.0, 0.0, 0.0, True),
        (1.0 + ULP16, 1.0, 0.0, False),
        # A value between two numbers is owed its rounding alone.
        (1.0, 1.0 + 0.4 * ULP16, 0.0, True),
        (1.0 + ULP16, 1.0 + 0.4 * ULP16, 0.0, False),
        # With an error, the roundings of both ends and what lies between.
        (1.0 + ULP16, 1.0 + 0.4 * ULP16, 0.2 * ULP16, True),
        (1.0 + 3 * ULP16, 1.0, 3.4 * ULP16, True),
        (1.0 + 4 * ULP16, 1.0, 3.4 * ULP16, False),
        (1.0 - 3.5 * ULP16, 1.0, 3.4 * ULP16, True),
        (1.0 - 4 * ULP16, 1.0, 3.4 * ULP16, False),
        # Underflow.
        (0.0, 2.0**-26, 0.0, True),
        (2.0**-24, 2.0**-26, 0.0, False),
    ],
)
def test_compare_judges_the_store(observed: float, value: float, error: float, right: bool) -> None:
    result = judge(observed, value, error)
    assert bool(result.wrong[0]) is not right
    assert bool(result.value_wrong[0]) is not right
    assert not result.nonfinite_wrong.any()
    assert bool(result.ratio[0] <= 1.0) is right


@pytest.mark.parametrize(
    ("observed", "value", "error", "right"),
    [
        (INF, 65520.0, 0.0, True),
        (65504.0, 65520.0, 0.0, False),
        (65504.0, 65519.0, 0.0, True),
        (INF, 65519.0, 0.0, False),
        # Either is right where only one end overflows.
        (INF, 65519.0, 2.0, True),
        (65504.0, 65519.0, 2.0, True),
        (-INF, 65519.0, 2.0, False),
        (-INF, -7e4, 0.0, True),
        (NAN, 7e4, 1e3, False),
    ],
)
def test_compare_applies_the_overflow_of_the_store(
    observed: float, value: float, error: float, right: bool
) -> None:
    assert bool(judge(observed, value, error).wrong[0]) is not right


@pytest.mark.parametrize("observed", [0.0, 1e4, INF, -INF, NAN])
def test_compare_owes_nothing_where_the_bound_is_infinite_and_free(observed: float) -> None:
    result = judge(observed, 1.0, INF, free=True)
    assert not result.wrong.any()
    assert result.ratio[0] == 0.0


def test_compare_owes_a_number_or_infinity_where_the_bound_is_infinite() -> None:
    for observed in (0.0, 1e4, INF, -INF):
        assert not judge(observed, 1.0, INF).wrong.any()
    assert judge(NAN, 1.0, INF).nonfinite_wrong.all()


def test_compare_owes_numbers_within_a_finite_bound_even_where_free() -> None:
    for observed in (1.0, INF, -INF, NAN):
        assert not judge(observed, 1.0, ULP16, free=True).wrong.any()
    assert judge(3.0, 1.0, ULP16, free=True).value_wrong.all()


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_compare_owes_the_same_non_finite_value(value: float) -> None:
    for observed in (0.0, INF, -INF, NAN):
        same = np.array_equal(observed, value, equal_nan=True)
        strict = judge(observed, value, INF)
        assert bool(strict.nonfinite_wrong[0]) is not same
        assert strict.ratio[0] == (0.0 if same else INF)
        loose = judge(observed, value, INF, strict=False)
        assert bool(loose.nonfinite_wrong[0]) is bool(np.isfinite(observed))


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_compare_owes_any_non_finite_value_where_free(value: float) -> None:
    for observed in (INF, -INF, NAN):
        assert not judge(observed, value, INF, free=True).wrong.any()
    assert judge(0.0, value, INF, free=True).nonfinite_wrong.all()


@pytest.mark.parametrize("observed", [INF, -INF, NAN])
def test_compare_owes_finite_values(observed: float) -> None:
    result = judge(observed, 1.0, ULP16)
    assert result.nonfinite_wrong.all()
    assert not result.value_wrong.any()
    assert result.ratio[0] == INF


@pytest.mark.parametrize("dtype", FORMATS)
def test_compare_ratio_is_one_exactly_where_right_ends(dtype: str) -> None:
    fmt = FORMATS[dtype]
    spacing = 2.0 * fmt.u
    for error in (0.0, 0.3, 0.5, 0.9, 3.0, 100.0):
        for value in (1.0, 1.0 + 0.3 * spacing, 1.0 + 0.5 * spacing):
            for k in range(-105, 106):
                result = judge(1.0 + k * spacing, value, error * spacing, dtype=dtype)
                assert (result.ratio[0] > 1.0) == result.wrong[0]


def test_compare_ratio_is_the_error_over_the_tolerance() -> None:
    # 2 spacings off, where 7 and half a spacing for the store are allowed.
    assert judge(1.0 + 2 * ULP16, 1.0, 7.0 * ULP16).ratio[0] == pytest.approx(2.0 / 7.5)
    assert judge(1.0 + 30 * ULP16, 1.0, 7.0 * ULP16).ratio[0] == pytest.approx(30.0 / 7.5)


@pytest.mark.parametrize(
    ("observed", "value", "error", "free"),
    [
        (INF, 65520.0, 0.0, False),
        (INF, 65519.0, 2.0, False),
        (-INF, -7e4, 1.0, False),
        (INF, 1.0, ULP16, True),
        (NAN, 1.0, ULP16, True),
    ],
)
def test_compare_ratio_of_a_right_non_finite_value_is_zero(
    observed: float, value: float, error: float, free: bool
) -> None:
    result = judge(observed, value, error, free=free)
    assert not result.wrong.any()
    assert result.ratio[0] == 0.0


def test_compare_works_element_by_element() -> None:
    value = bell(1, 3, 4)
    error = np.full((3, 1), 0.5)
    expected = expect(Bounded(value, error, np.zeros((), dtype=np.bool_)), "float32")
    observed = value.copy()
    observed[1, 2] += 0.6
    observed[2, 0] = NAN
    result = compare(observed, expected)
    assert np.argwhere(result.value_wrong).tolist() == [[1, 2]]
    assert np.argwhere(result.nonfinite_wrong).tolist() == [[2, 0]]
    assert np.argwhere(result.wrong).tolist() == [[1, 2], [2, 0]]


@pytest.mark.parametrize("shape", [(0, 5), (1, 1)])
def test_compare_accepts_empty_batches(shape: Any) -> None:
    zero = np.zeros(())
    expected = expect(Bounded(np.zeros(shape), zero, zero.astype(np.bool_)), "bfloat16")
    assert compare(np.zeros(shape), expected).wrong.shape == shape


def test_compare_refuses_dtypes_that_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="dtype='float64'"):
        expect(Bounded(np.zeros(1), np.zeros(1), np.zeros(1, dtype=np.bool_)), "float64")
