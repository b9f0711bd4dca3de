"""Values from raw bits: the same everywhere, of the family they claim, and free of the layout."""

import dataclasses
import hashlib
import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest

from fuzz.case import Case, Launch, Plant, Recipe, TensorCase, contiguous_strides
from fuzz.inputs import FAMILIES, _round, digest, make_values, run_values
from fuzz.relations import RELATIONS, Run, expand, has_rows
from fuzz.verdict import Bits
from oracle.formats import FORMATS, decode, encode

DTYPES = tuple(FORMATS)

# Of one tensor of each dtype, three rows of 37. A stored case replays only while these hold.
GOLDEN = {
    "normal": "0d65549870317e8a",
    "uniform": "e5e7a0ee5230d2d3",
    "outliers": "ee27f0b64820698d",
    "constant": "8d9b55b6e6f4c8cd",
    "zeros": "6028913297f87f98",
    "tiny": "12845a1c3cd31e6f",
    "subnormal": "435dcd807a651188",
    "near_overflow": "1d36337d891bdea7",
    "sorted": "258d7593de736551",
    "alternating": "2210d3dcae2ac8e7",
    "integers": "f95e63cd2594fc9b",
    "ramp": "f3802284dcc9eb4c",
}


def tensor(
    name: str,
    shape: tuple[int, ...],
    recipe: Recipe,
    dtype: str = "float32",
    *,
    strides: tuple[int, ...] | None = None,
    offset: int = 0,
) -> TensorCase:
    strides = contiguous_strides(shape) if strides is None else strides
    return TensorCase(name, dtype, shape, strides, offset, recipe)


def make_case(
    *tensors: TensorCase, seed: int = 7, normalized_ndim: int = 1, relations: tuple[str, ...] = ()
) -> Case:
    return Case(
        target="none",
        shape=tensors[0].shape,
        normalized_ndim=normalized_ndim,
        tensors=tensors,
        flags={},
        eps=1e-5,
        launch=Launch(),
        seed=seed,
        relations=relations,
    )


def values_of(
    recipe: Recipe, dtype: str = "float32", shape: tuple[int, ...] = (64, 129)
) -> npt.NDArray[np.float64]:
    return decode(make_values(make_case(tensor("x", shape, recipe, dtype)))["x"], dtype)


# --- the same bits on every machine -----------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_golden_bits(family: str) -> None:
    recipe = Recipe(family, spread=1.25)
    tensors = [tensor(f"t_{dtype}", (3, 37), recipe, dtype) for dtype in DTYPES]
    assert digest(make_values(make_case(*tensors))) == GOLDEN[family]


def pcg64(state: int, increment: int, count: int) -> list[int]:
    """PCG XSL RR 128/64, written out: a witness that shares nothing with NumPy's."""
    outputs = []
    for _ in range(count):
        state = (state * 0x2360ED051FC65DA44385DF649FCCF645 + increment) % 2**128
        word, turn = (state >> 64) ^ (state % 2**64), state >> 122
        outputs.append(((word >> turn) | (word << (64 - turn))) % 2**64)
    return outputs


def test_inputs_raw_bits_follow_from_seed_and_name() -> None:
    label = hashlib.sha256(b"12/x/0").digest()
    words = pcg64(int.from_bytes(label[:16], "little"), int.from_bytes(label[16:], "little") | 1, 4)
    halves = [half for word in words for half in (word % 2**32, word >> 32)]
    signed = [half - 2**32 if half >= 2**31 else half for half in halves]
    # Two elements a word, rows padded to whole words.
    expected = [(n >> 8) * 2.0**-23 for n in (*signed[:3], *signed[4:7])]
    case = make_case(tensor("x", (2, 3), Recipe("uniform")), seed=12)
    assert decode(make_values(case)["x"], "float32").ravel().tolist() == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_round_as_the_oracle_does(dtype: str) -> None:
    bits = np.random.default_rng(1).integers(0, 1 << 32, 200_000, dtype=np.uint64)
    # Ties of bfloat16, and of float16, among random patterns.
    patterns = np.concatenate([bits, bits << 16, (bits << 16) | 0x8000, (bits << 13) | 0x1000])
    single = patterns.astype(np.uint32).view(np.float32)
    single = single[~np.isnan(single)]
    with np.errstate(over="ignore"):
        rounded = _round(single.copy(), dtype)
    assert np.array_equal(rounded, encode(single.astype(np.float64), dtype))


def test_inputs_differ_by_seed_and_name() -> None:
    x, z = (tensor(name, (4, 16), Recipe("normal")) for name in "xz")
    first, second = make_values(make_case(x, z)), make_values(make_case(x, z, seed=8))
    assert not np.array_equal(first["x"], first["z"])
    assert not np.array_equal(first["x"], second["x"])


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_keep_rows_when_trailing_rows_go(family: str) -> None:
    recipe = Recipe(family, mean=0.5)
    for cols in (1, 2, 3, 5, 64, 101):
        many = make_values(make_case(tensor("x", (9, cols), recipe)))["x"]
        few = make_values(make_case(tensor("x", (4, cols), recipe)))["x"]
        assert np.array_equal(many[:4], few)


# --- families ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"near_overflow"}))
def test_inputs_are_finite(family: str, dtype: str) -> None:
    assert np.isfinite(values_of(Recipe(family), dtype)).all()


def test_inputs_normal_has_its_mean_and_spread() -> None:
    values = values_of(Recipe("normal", mean=100.0, spread=0.5), shape=(64, 1000))
    assert values.mean() == pytest.approx(100.0, abs=0.01)
    assert values.std() == pytest.approx(0.5, rel=0.01)
    assert np.abs(values - 100.0).max() <= 1.51


@pytest.mark.parametrize("ratio", [1e1, 1e2, 1e3, 1e4, 1e5])
def test_inputs_mean_over_std(ratio: float) -> None:
    values = values_of(Recipe("normal", mean=-1000.0, spread=1000.0 / ratio), shape=(4, 4096))
    assert -values.mean() / values.std() == pytest.approx(ratio, rel=0.05)


def test_inputs_normal_fills_the_significand() -> None:
    bits = make_values(make_case(tensor("x", (64, 129), Recipe("normal"))))["x"]
    # Multiples of a power of two would make sums exact and hide how they are rounded.
    assert (bits & 1).mean() == pytest.approx(0.5, abs=0.05)


def test_inputs_normal_elements_are_independent() -> None:
    values = values_of(Recipe("normal"), shape=(200, 128))
    for other in (values[:, 1:], values[1:, :]):
        here = values[: other.shape[0], : other.shape[1]]
        assert abs(np.corrcoef(here.ravel(), other.ravel())[0, 1]) < 0.03


def test_inputs_uniform() -> None:
    values = values_of(Recipe("uniform"), shape=(64, 1000))
    assert -1 <= values.min() < -0.999
    assert 0.999 < values.max() < 1
    assert values.std() == pytest.approx(math.sqrt(1 / 3), rel=0.01)


def test_inputs_outliers_are_few_and_large() -> None:
    values = np.abs(values_of(Recipe("outliers"), shape=(64, 1000)))
    assert (values > 3).mean() == pytest.approx(1 / 64, rel=0.1)
    assert 2000 < values.max() <= 3 * 1024


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_constant_rows(dtype: str) -> None:
    values = values_of(Recipe("constant"), dtype)
    assert (values == values[:, :1]).all()
    assert len(np.unique(values[:, 0])) > 32
    assert (values_of(Recipe("constant", mean=1.0, spread=0.0), dtype) == 1.0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_zeros(dtype: str) -> None:
    bits = make_values(make_case(tensor("x", (3, 5), Recipe("zeros"), dtype)))["x"]
    assert bits.shape == (3, 5)
    assert not bits.any()
    assert (values_of(Recipe("zeros", mean=3.0), dtype) == 3.0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_tiny_straddle_the_smallest_normal(dtype: str) -> None:
    fmt, values = FORMATS[dtype], np.abs(values_of(Recipe("tiny"), dtype))
    assert values.max() <= 3.001 * fmt.smallest_normal
    below = (values < fmt.smallest_normal).mean()
    assert 0.3 < below < 0.8


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_subnormal(dtype: str) -> None:
    fmt, values = FORMATS[dtype], values_of(Recipe("subnormal"), dtype)
    assert (np.abs(values) < fmt.smallest_normal).all()
    assert (values / fmt.quantum == np.rint(values / fmt.quantum)).all()
    assert (values > 0).any()
    assert (values < 0).any()
    assert np.abs(values).max() > 0.9 * fmt.smallest_normal


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_near_overflow_stay_finite(dtype: str) -> None:
    fmt, values = FORMATS[dtype], np.abs(values_of(Recipe("near_overflow"), dtype))
    assert (values >= 0.5 * fmt.largest).all()
    assert 0.999 * fmt.largest <= values.max() <= fmt.largest


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_sorted_rows_ascend(dtype: str) -> None:
    values = values_of(Recipe("sorted"), dtype)
    assert (np.diff(values, axis=1) >= 0).all()
    assert (values[:, -1] > values[:, 0]).all()
    assert len(np.unique(values[:, 0])) > 16


def test_inputs_alternating_signs() -> None:
    values = values_of(Recipe("alternating"))
    assert (np.sign(values) == np.where(np.arange(129) % 2, -1.0, 1.0)).all()
    assert np.abs(values).min() >= 0.5
    assert np.abs(values).max() <= 1.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_integers_are_small(dtype: str) -> None:
    values = values_of(Recipe("integers"), dtype)
    assert set(np.unique(values)) == set(map(float, range(-8, 9)))
    assert set(np.unique(values_of(Recipe("integers", mean=16.0), dtype))) == set(range(8, 25))


def test_inputs_ramp() -> None:
    values = values_of(Recipe("ramp"), shape=(3, 10))
    assert values[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]
    assert values[2, :3].tolist() == [2, 3, 4]


def test_inputs_families_say_what_they_are() -> None:
    for name, family in FAMILIES.items():
        assert family.__doc__, name


# --- shapes, layouts, plants ------------------------------------------------------------------


def test_inputs_have_each_tensors_shape_and_dtype() -> None:
    case = make_case(
        tensor("x", (2, 1, 3, 4), Recipe("normal"), "bfloat16"),
        tensor("weight", (4,), Recipe("sorted"), "float32"),
        dataclasses.replace(tensor("out", (2, 1, 3, 4), Recipe("zeros")), values=None),
        dataclasses.replace(tensor("sum_out", (2, 1, 3, 4), Recipe("zeros")), alias_of="x"),
        tensor("z", (0, 4), Recipe("normal"), "float16"),
        tensor("scalar", (), Recipe("normal")),
    )
    found = {name: (v.shape, v.dtype) for name, v in make_values(case).items()}
    assert found == {
        "x": ((2, 1, 3, 4), np.uint16),
        "weight": ((4,), np.uint32),
        "z": ((0, 4), np.uint16),
        "scalar": ((), np.uint32),
    }


def test_inputs_do_not_depend_on_the_layout() -> None:
    recipe = Recipe("normal")
    plain = make_values(make_case(tensor("x", (3, 4, 8), recipe)))["x"]
    gaps = make_case(tensor("x", (3, 4, 8), recipe, strides=(11, 40, 1), offset=3))
    assert np.array_equal(make_values(gaps)["x"], plain)


def test_inputs_joint_normalized_dims_are_one_row() -> None:
    case = make_case(tensor("x", (5, 3, 4), Recipe("sorted")), normalized_ndim=2)
    flat = decode(make_values(case)["x"], "float32").reshape(5, 12)
    assert (np.diff(flat, axis=1) >= 0).all()


def test_inputs_expanded_dims_agree_with_shared_memory() -> None:
    recipe = Recipe("normal", plants=(Plant(2 * 24 + 1 * 8 + 5, "inf"),))
    shape, strides = (4, 3, 8), (0, 8, 1)
    values = make_values(make_case(tensor("x", shape, recipe, strides=strides)))["x"]
    assert (values == values[:1]).all()
    assert np.isinf(decode(values, "float32")[:, 1, 5]).all()
    base = make_values(make_case(tensor("x", (1, 3, 8), Recipe("normal"))))["x"]
    assert (values[0] != base[0]).sum() == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_plants(dtype: str) -> None:
    plants = (Plant(0, "nan"), Plant(7, "inf"), Plant(8, "-inf"), Plant(15, "-2.5"))
    values = values_of(Recipe("normal", plants=plants), dtype, shape=(2, 8)).ravel()
    assert np.isnan(values[0])
    assert values[7:9].tolist() == [np.inf, -np.inf]
    assert values[15] == -2.5
    assert np.isfinite(values[[*range(1, 7), *range(9, 15)]]).all()


def test_inputs_plant_outside_is_refused() -> None:
    case = make_case(tensor("x", (2, 8), Recipe("normal", plants=(Plant(16, "nan"),))))
    with pytest.raises(ValueError, match=r"x\.values\.plants: index=16, must be in 0 \.\.\. 15"):
        make_values(case)


def test_inputs_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x\.values\.family='cauchy', must be one of normal, "):
        make_values(make_case(tensor("x", (2, 8), Recipe("cauchy"))))


@pytest.mark.parametrize("dtype", ["float64", "int64", "complex64"])
def test_inputs_of_refused_dtypes_are_zeros(dtype: str) -> None:
    values = make_values(make_case(tensor("x", (2, 8), Recipe("normal"), dtype)))["x"]
    assert values.dtype == np.uint64
    assert values.shape == (2, 8)
    assert not values.any()


# --- runs -------------------------------------------------------------------------------------


def relation_case() -> tuple[Case, dict[str, Bits]]:
    shape = (2, 3, 4)
    case = make_case(
        tensor("x", shape, Recipe("normal"), "bfloat16", strides=(0, 4, 1)),
        tensor("residual", shape, Recipe("normal"), strides=(5, 10, 1)),
        tensor("weight", (4,), Recipe("normal")),
        dataclasses.replace(tensor("out", shape, Recipe("zeros")), values=None),
        seed=12345,
        relations=tuple(RELATIONS),
    )
    return case, make_values(case)


def test_inputs_of_runs_are_the_rows_they_name() -> None:
    case, values = relation_case()
    originals = {name: bits.copy() for name, bits in values.items()}
    seen = set()
    for run in expand(case):
        found = run_values(run, case, values)
        assert found.keys() == values.keys()
        for name, bits in found.items():
            own = run.case.tensor_or_fail(name)
            assert bits.shape == own.shape
            if not has_rows(case.tensor_or_fail(name), case):
                assert bits is values[name]
                continue
            rows = run.rows or range(case.n_rows)
            base = originals[name].reshape(case.n_rows, case.n_cols)
            for index, (row, bits_of_row) in enumerate(
                zip(rows, bits.reshape(-1, case.n_cols), strict=True)
            ):
                if run.drowned in (None, index):
                    assert np.array_equal(bits_of_row, base[row])
                else:
                    assert np.isnan(decode(bits_of_row, own.dtype)).all()
        seen.add(run.name)
    assert seen == {"base", *RELATIONS}


def test_inputs_of_a_drowned_run_leave_the_base_alone() -> None:
    case, values = relation_case()
    before = {name: bits.copy() for name, bits in values.items()}
    run_values(Run("drowned", case, drowned=2), case, values)
    assert all(np.array_equal(values[name], before[name]) for name in values)


# --- the digest -------------------------------------------------------------------------------


def test_inputs_digest_sees_names_dtypes_shapes_and_bits() -> None:
    bits = np.arange(6, dtype=np.uint16)
    variants: list[dict[str, Bits]] = [
        {"x": bits},
        {"z": bits},
        {"x": bits.reshape(2, 3)},
        {"x": bits.view(np.uint32)},
        {"x": bits + np.uint16(1)},
        {"x": bits, "z": bits},
    ]
    digests = [digest(values) for values in variants]
    assert len(set(digests)) == len(digests)
    assert all(len(d) == 16 and int(d, 16) >= 0 for d in digests)


def test_inputs_digest_sees_no_order_and_no_layout() -> None:
    first, second = np.arange(6, dtype=np.uint16).reshape(2, 3), np.arange(3, dtype=np.uint32)
    same = [{"x": first, "z": second}, {"z": second, "x": np.asfortranarray(first)}]
    for a, b in itertools.pairwise(same):
        assert digest(a) == digest(b)
