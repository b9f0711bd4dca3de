"""Widths, groups and launches by themselves: what may be drawn, how often, and the limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from fuzz.case import Launch
from fuzz.space import widths
from fuzz.space.choices import Chooser
from fuzz.space.widths import BLOCK_NAMES, Width, WidthPlan, block_of, draw_width
from fuzz.spec import ArgSpec, DefaultLaunch, FlagSpec, LaunchSpace, OutputSpec, Space, TargetSpec
from fuzz.strategies import Budget
from oracle.arithmetic import Arithmetic

ROOMY = Budget(max_programs=1 << 17, max_elements=1 << 24, max_cols=65_537, max_steps=1 << 18)
DRAWS = 3000
PLAIN = TargetSpec("plain", (ArgSpec("x"),), (OutputSpec("y"),), Arithmetic())
GROUPED = replace(PLAIN, flags=(FlagSpec("group_size", (None,)),))


def with_launch(spec: TargetSpec = PLAIN, **given: object) -> TargetSpec:
    return replace(spec, launch=LaunchSpace(**given))  # type: ignore[arg-type]


def drawn(
    spec: TargetSpec, budget: Budget = ROOMY, *, count: int = DRAWS, rows: int = 1, dtype="float32"
) -> list[Width]:
    chooser, plan = Chooser(7), WidthPlan(spec, budget)
    return [plan.draw(chooser, dtype, rows=rows) for _ in range(count)]


def share(draw: Callable[[Chooser], object], wanted: object, count: int = DRAWS) -> float:
    chooser = Chooser(7)
    return Counter(draw(chooser) == wanted for _ in range(count))[True] / count


# --- widths -----------------------------------------------------------------------------------

RANGES = ((1, 1), (1, 3), (1, 40), (7, 9), (16, 16), (17, 30), (24, 28), (47, 49), (4097, 65537))


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_width_stays_in_range(low: int, high: int) -> None:
    chooser = Chooser(3)
    found = {draw_width(chooser, low, high, (8, 24)) for _ in range(DRAWS)}
    assert low <= min(found) <= max(found) <= high
    # Small ranges have no gap.
    assert high - low > 40 or len(found) == high - low + 1


def test_width_least_of_a_wide_range_is_not_drawn_for_itself() -> None:
    assert share(lambda c: draw_width(c, 4097, 65537), 4097) < 0.025


def test_width_of_few_columns_is_even() -> None:
    """Kinds that do not fit fall back on doublings, of which 1 is one by itself."""
    assert 0.2 < share(lambda c: draw_width(c, 1, 4), 1) < 0.42


def test_width_powers_of_2_are_not_the_small_ones() -> None:
    chooser = Chooser(5)
    found = Counter(draw_width(chooser, 1, 4096) for _ in range(4 * DRAWS))
    small = sum(found[n] for n in range(2, 15))
    assert 0.26 < small / found.total() < 0.325


@pytest.mark.parametrize(("low", "high", "prime"), [(90, 100, 97), (98, 110, 101)])
def test_width_prime_is_sought_on_both_sides(low: int, high: int, prime: int) -> None:
    chooser = Chooser(1)
    assert {widths._prime(chooser, low, high) for _ in range(200)} >= {prime}
    assert widths._prime(chooser, 24, 28) is None
    assert {widths._prime(chooser, 90, 100) for _ in range(200)} == {97}


def test_width_powers_and_borders_lie_in_range() -> None:
    chooser = Chooser(1)
    powers = {widths._power_of_2(chooser, 17, 65, (-1, 0, 1)) for _ in range(300)}
    assert powers == {17, 31, 32, 33, 63, 64, 65}
    assert widths._power_of_2(chooser, 18, 30, (-1, 0, 1)) is None
    borders = {widths._border(chooser, 10, 40, 10) for _ in range(300)}
    assert borders == {10, 11, 19, 20, 21, 29, 30, 31, 39, 40}
    assert widths._border(chooser, 12, 18, 10) is None


# --- groups -----------------------------------------------------------------------------------

KINDS = ("prime", "power_of_2", "larger_than_block", "any")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("low", "high"), [(1, 5), (1, 300), (290, 300), (4097, 9000)])
@pytest.mark.parametrize("blocks", [(), (64,), (200, 70)])
def test_groups_fill_a_width_in_range(
    kind: str, low: int, high: int, blocks: tuple[int, ...]
) -> None:
    chooser = Chooser(9)
    for _ in range(300):
        n_cols, size = widths._draw_groups(chooser, kind, low, high, 8, blocks)
        assert low <= n_cols <= high
        assert n_cols % size == 0
        assert n_cols // size <= 8
        if kind == "larger_than_block" and blocks and high > max(blocks):
            assert size > max(blocks)


def test_groups_of_a_power_of_2_are_not_of_1_column() -> None:
    chooser = Chooser(1)
    found = Counter(
        widths._draw_groups(chooser, "power_of_2", 1, 64, 64, ())[1] for _ in range(2000)
    )
    assert found[1] < 100
    assert sum(found[2**k] for k in range(1, 7)) > 1500


def test_groups_are_as_many_as_there_are_columns_at_most() -> None:
    draw = lambda chooser: widths._draw_groups(chooser, "prime", 5, 5, 99, ())  # noqa: E731
    assert 0.25 < share(draw, (5, 1)) < 0.4


def test_groups_of_a_given_width_are_of_every_kind() -> None:
    def sizes(n_cols: int, max_groups: int, blocks: tuple[int, ...]) -> Counter[int | None]:
        chooser = Chooser(1)
        return Counter(widths._group_of(chooser, n_cols, max_groups, blocks) for _ in range(DRAWS))

    # Without a size that is a power of 2, or larger than a block, those kinds take no share.
    found = sizes(3, 9, ())
    assert found[1] / DRAWS == pytest.approx(1 / 5 + 1 / 10, abs=0.03)
    assert found[None] / DRAWS == pytest.approx(1 / 5, abs=0.03)
    assert found[3] / DRAWS == pytest.approx(2 / 5 + 1 / 10, abs=0.03)
    found = sizes(12, 9, (5,))
    assert found[1] == 0, "12 groups are too many"
    assert found[12] / DRAWS == pytest.approx(1 / 6 + 1 / 12 + 1 / 30, abs=0.03)
    assert found[6] / DRAWS == pytest.approx(1 / 12 + 1 / 30, abs=0.03)
    assert found[4] / DRAWS == pytest.approx(1 / 12 + 1 / 30, abs=0.03)


def test_groups_constant_of_the_target_alone_is_fixed() -> None:
    constant = replace(PLAIN, flags=(FlagSpec("group_size", (12,)),))
    assert {width.group_size for width in drawn(constant, count=200)} == {12}
    # Otherwise the choices do not count.
    several = replace(PLAIN, flags=(FlagSpec("group_size", (12, 24)),))
    assert len({width.group_size for width in drawn(several, count=200)}) > 20


def test_groups_of_a_fixed_size_stay_within_columns_and_programs() -> None:
    fixed = GROUPED.fixed({"group_size": 100})
    found = {width.n_cols for width in drawn(fixed, replace(ROOMY, max_cols=350), count=300)}
    assert found == {100, 200, 300}
    found = {width.n_cols for width in drawn(fixed, replace(ROOMY, max_programs=2), count=300)}
    assert found == {100, 200}
    assert {width.n_cols for width in drawn(fixed, replace(ROOMY, max_cols=50), count=30)} == {100}
    # None is a size too: one group, whose width is drawn.
    whole = drawn(GROUPED.fixed({"group_size": None}), count=100)
    assert {width.group_size for width in whole} == {None}
    assert len({width.n_cols for width in whole}) > 50


def test_groups_of_one_column_are_no_more_than_columns_or_programs() -> None:
    for budget in (replace(ROOMY, max_cols=5000), replace(ROOMY, max_programs=50)):
        ones = [w.n_cols for w in drawn(GROUPED, budget, count=1000) if w.group_size == 1]
        assert len(ones) > 20
        assert max(ones) <= min(budget.max_cols, budget.max_programs)


def test_fixed_columns_leave_the_group_size_that_is_fixed() -> None:
    for size in (None, 6):
        fixed = GROUPED.fixed({"n_cols": 24, "group_size": size})
        assert {(w.n_cols, w.group_size) for w in drawn(fixed, count=50)} == {(24, size)}
    assert {(w.n_cols, w.group_size) for w in drawn(PLAIN.fixed({"n_cols": 24}), count=50)} == {
        (24, None)
    }


def test_fixed_value_that_is_no_integer_is_an_error() -> None:
    with pytest.raises(ValueError, match="a fixed dimension is 'many', must be an integer"):
        drawn(PLAIN.fixed({"n_cols": "many"}), count=1)


# --- limits -----------------------------------------------------------------------------------

NARROW = replace(PLAIN, space=Space(max_cols=70))
SMALL_BLOCKS = with_launch(blocks=(16, 32))


@pytest.mark.parametrize(
    ("spec", "budget", "most"),
    [
        (NARROW, ROOMY, 70),
        (PLAIN, replace(ROOMY, max_cols=60), 60),
        (PLAIN, replace(ROOMY, max_elements=50), 50),
        # The largest block walks the row within the steps.
        (SMALL_BLOCKS, replace(ROOMY, max_steps=2), 64),
        (replace(SMALL_BLOCKS, space=Space(max_cols=40)), replace(ROOMY, max_steps=2), 40),
        # It holds the row, where it must.
        (with_launch(blocks=(16, 32), whole_row=True), ROOMY, 32),
        (with_launch(blocks=(16, 32), whole_row=True).fixed({"block": 16}), ROOMY, 16),
        # Those of the default launch count as well, and alone.
        (
            with_launch(blocks=(16,), whole_row=True, defaults=(DefaultLaunch(64, 4, 64, 1),)),
            ROOMY,
            64,
        ),
        (with_launch(whole_row=True, defaults=(DefaultLaunch(64, 4, 64, 1),)), ROOMY, 64),
        # That of a fixed configuration.
        (
            with_launch(whole_row=True, configs=((("BLOCK", 8),), (("BLOCK", 64),))).fixed(
                {"config": 0}
            ),
            ROOMY,
            8,
        ),
    ],
)
def test_columns_have_a_limit(spec: TargetSpec, budget: Budget, most: int) -> None:
    found = {width.n_cols for width in drawn(spec, budget, count=1500)}
    assert max(found) == most
    assert min(found) == 1


def test_columns_and_groups_shrink_with_the_rows() -> None:
    budget = Budget(max_programs=600, max_elements=5000, max_cols=65_537, max_steps=900)
    spec = with_launch(GROUPED, blocks=(16, 64))
    for width in drawn(spec, budget, count=800, rows=100):
        assert width.n_cols <= 50
        assert width.n_groups <= 6
        assert width.steps <= 9
        assert width.steps == width.n_groups * -(
            -(width.n_cols // width.n_groups) // width.launch.block
        )


def test_columns_where_the_rows_alone_are_too_many() -> None:
    """A number of rows that a user fixed may exceed any budget."""
    spec = with_launch(GROUPED, blocks=(16, 64))
    budget = Budget(max_programs=64, max_elements=4000, max_cols=512, max_steps=64)
    assert {width.n_cols for width in drawn(spec, budget, count=50, rows=10**6)} == {1}
    fixed = spec.fixed({"n_cols": 48})
    found = drawn(fixed, budget, count=100, rows=10**6)
    # One program a row at most, and the largest block where none is large enough.
    assert {width.group_size for width in found} == {None, 48}
    assert {width.launch.block for width in found} == {64}


# --- launches ---------------------------------------------------------------------------------


def test_launch_fusion_is_the_usual_one_and_not_always() -> None:
    both = [width.launch.fp_fusion for width in drawn(with_launch(fp_fusion=(True, False)))]
    assert 0.12 < both.count(False) / DRAWS < 0.18
    for choice in (True, False):
        found = drawn(with_launch(fp_fusion=(choice,)), count=200)
        assert {width.launch.fp_fusion for width in found} == {choice}


def test_launch_of_defaults_alone_is_the_default() -> None:
    spec = with_launch(num_warps=(7,), defaults=(DefaultLaunch(1 << 20, 4, 64, 2),))
    assert {width.launch for width in drawn(spec, count=200)} == {Launch(64, 2, True)}
    # None is known for half precision.
    found = {width.launch for width in drawn(spec, count=50, dtype="float16")}
    assert found == {Launch(None, 7, True)}


def test_launch_without_any_choice_is_empty() -> None:
    assert {w.launch for w in drawn(with_launch(num_warps=(), fp_fusion=()), count=20)} == {
        Launch()
    }


def test_launch_that_is_fixed_is_no_default() -> None:
    spec = with_launch(
        blocks=(16, 64), num_warps=(1, 2), defaults=(DefaultLaunch(1 << 20, 4, 64, 8),)
    )
    assert {w.launch.num_warps for w in drawn(spec, count=300)} == {1, 2, 8}
    assert {w.launch.num_warps for w in drawn(spec.fixed({"num_warps": 2}), count=300)} == {2}
    found = {w.launch for w in drawn(spec.fixed({"block": 16}), count=300)}
    assert found == {Launch(16, 1, True), Launch(16, 2, True)}


def test_launch_that_is_fixed_stays_beyond_the_budget() -> None:
    tight = replace(ROOMY, max_steps=1)
    block = with_launch(blocks=(16, 64)).fixed({"block": 16, "n_cols": 60})
    assert {width.launch.block for width in drawn(block, tight, count=50)} == {16}
    config = with_launch(configs=((("BLOCK", 16),), (("BLOCK", 64),)))
    config = config.fixed({"config": 0, "n_cols": 60})
    assert {width.launch.config for width in drawn(config, tight, count=50)} == {0}


def test_launch_has_a_block_that_walks_the_row_within_the_steps() -> None:
    spec = with_launch(blocks=(4, 16, 64, 256)).fixed({"n_cols": 100})
    found = {width.launch.block for width in drawn(spec, replace(ROOMY, max_steps=7), count=300)}
    assert found == {16, 64, 256}
    assert {width.launch.block for width in drawn(spec, count=300)} == {4, 16, 64, 256}


def test_launch_has_the_least_block_that_holds_the_row_or_the_next() -> None:
    spec = with_launch(blocks=(256, 64, 16, 4, 1024), whole_row=True)
    found = drawn(spec.fixed({"n_cols": 16}), count=300)
    assert {width.launch.block for width in found} == {16, 64}
    assert {width.launch.block for width in drawn(spec.fixed({"n_cols": 900}), count=50)} == {1024}


def test_launch_configuration_without_a_block_takes_any_row() -> None:
    spec = with_launch(configs=((("BLOCK", 16),), (("num_warps", 8),), (("BLOCK", 64),)))
    found = drawn(spec.fixed({"n_cols": 60}), replace(ROOMY, max_steps=2), count=300)
    assert {width.launch.config for width in found} == {1, 2}


def test_borders_are_those_of_the_blocks_of_the_dtype() -> None:
    spec = with_launch(
        defaults=(DefaultLaunch(1 << 20, 4, 1009, 1), DefaultLaunch(1 << 20, 2, 700, 1))
    )

    def at(block: int, dtype: str) -> int:
        found = drawn(spec, dtype=dtype)
        return sum(abs(w.n_cols - k * block) < 2 for w in found for k in (1, 2, 3))

    assert at(1009, "float32") > 10 * at(700, "float32")
    assert at(700, "float16") > 10 * at(1009, "float16")


@pytest.mark.parametrize("name", BLOCK_NAMES)
def test_block_is_what_a_configuration_calls_one(name: str) -> None:
    space = LaunchSpace(configs=(((name, 32), ("BLOCK_M", 4)), (("num_warps", 4),)))
    assert block_of(Launch(config=0), space) == 32
    assert block_of(Launch(config=1), space) is None
    assert block_of(Launch(block=8), space) == 8
    assert block_of(Launch(), space) is None


def test_block_has_the_plainest_name_last() -> None:
    names = ["BLOCK_N", "BLOCK_COLS", "BLOCK_SIZE_N", "BLOCK_SIZE", "BLOCK", "block"]
    assert list(BLOCK_NAMES) == names
    space = LaunchSpace(configs=((("BLOCK", 64), ("BLOCK_N", 32)), (("BLOCK", "all"),)))
    assert block_of(Launch(config=0), space) == 32
    assert block_of(Launch(config=1), space) is None
