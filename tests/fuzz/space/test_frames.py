"""Variations of one frame by themselves: which width and which rows it may come to have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuzz.case import Case, Launch, Recipe, TensorCase, contiguous_strides
from fuzz.space.case_plan import CasePlan
from fuzz.space.choices import Chooser
from fuzz.space.frames import GRID_LIMIT, FramedPlan, Frames
from fuzz.spec import ArgSpec, DefaultLaunch, FlagSpec, LaunchSpace, OutputSpec, Space, TargetSpec
from fuzz.strategies import GPU_BUDGET, Budget
from oracle.arithmetic import Arithmetic

BUDGET = Budget(max_programs=1000, max_elements=80_000, max_cols=65_537, max_steps=1 << 18)
LOOPED = TargetSpec(
    "looped",
    (ArgSpec("x", strided=True),),
    (OutputSpec("y"),),
    Arithmetic(),
    launch=LaunchSpace(blocks=(64, 1024), num_warps=(4,), fp_fusion=()),
)
GROUPED = replace(LOOPED, flags=(FlagSpec("group_size", (None,)),))
WHOLE_ROW = replace(LOOPED, launch=replace(LOOPED.launch, blocks=(64, 256, 1024), whole_row=True))
DEFAULT = replace(
    LOOPED,
    launch=replace(
        LOOPED.launch, defaults=(DefaultLaunch(500, 4, 64, 4), DefaultLaunch(9000, 4, 1024, 4))
    ),
)
ANY = replace(LOOPED, launch=LaunchSpace(fp_fusion=()))


def frame(
    *shape: int, dims: int = 1, block: int | None = 64, warps: int = 4, **flags: int | None
) -> Case:
    x = TensorCase("x", "float32", shape, contiguous_strides(shape), 0, Recipe("normal", 0.0, 1.0))
    return Case(
        target="looped",
        shape=shape,
        normalized_ndim=dims,
        tensors=(x,),
        flags=dict(flags),
        eps=0.0,
        launch=Launch(block, warps, None),
        seed=1,
        relations=(),
    )


def varied(
    case: Case, spec: TargetSpec = LOOPED, budget: Budget = BUDGET, count: int = 400
) -> list[Case]:
    """Variations of this frame."""
    plan = FramedPlan(spec, budget, CasePlan(spec, budget), Frames(1, 1))
    plan._frame = lambda number: case  # type: ignore[assignment,return-value]
    chooser = Chooser(3)
    return [plan.draw(chooser) for _ in range(count)]


def widths(case: Case, spec: TargetSpec = LOOPED, budget: Budget = BUDGET) -> set[int]:
    return {each.n_cols for each in varied(case, spec, budget)}


# --- widths -------------------------------------------------------------------------------------


def test_width_stays_in_one_block_and_its_residue() -> None:
    assert widths(frame(2, 20)) == {4, 20, 36, 52}
    assert widths(frame(2, 64)) == {16, 32, 48, 64}
    # Of several blocks it is more than one, up to a share of the elements.
    found = widths(frame(2, 65))
    assert {width % 16 for width in found} == {1}
    assert min(found) == 65
    assert 3000 < max(found) <= 80_000 // 8 // 2
    # Without a block, any.
    found = widths(frame(2, 20, block=None), ANY)
    assert min(found) == 4
    assert max(found) > 3000


def test_width_is_often_at_the_border_of_the_block() -> None:
    spec = replace(LOOPED, launch=replace(LOOPED.launch, blocks=(48,)))
    found = [case.n_cols for case in varied(frame(2, 96, block=48), spec, count=1500)]
    assert sum(width in (96, 144, 192) for width in found) > 0.13 * 1500
    # Without a block there is none: not every second row is of a few columns.
    few = [case.n_cols for case in varied(frame(2, 20, block=None), ANY, count=1500)]
    assert sum(width == 4 for width in few) < 0.25 * 1500


def test_width_under_a_configuration_that_holds_the_row() -> None:
    space = LaunchSpace(fp_fusion=(), whole_row=True, configs=((("BLOCK", 64),), ()))
    tuned = replace(LOOPED, launch=space)
    assert widths(replace(frame(2, 20), launch=Launch(config=0)), tuned) == {4, 20, 36, 52}
    assert max(widths(replace(frame(2, 20), launch=Launch(config=1)), tuned)) > 3000


def test_width_has_the_limits_of_the_target_and_the_budget() -> None:
    narrow = replace(LOOPED, space=Space(max_cols=120))
    assert widths(frame(2, 65), narrow) == {65, 81, 97, 113}
    assert widths(frame(10, 65), budget=replace(BUDGET, max_elements=8000)) == {65, 81, 97}
    assert widths(frame(10, 20), budget=replace(BUDGET, max_elements=3200)) == {4, 20, 36}


def test_width_stays_where_there_is_no_other() -> None:
    assert widths(frame(2, 1)) == {1}
    assert widths(frame(2, 4, 5, dims=2)) == {20}
    assert widths(frame(2, 20), LOOPED.fixed({"n_cols": 20})) == {20}
    assert widths(frame(2, 20), GROUPED.fixed({"group_size": 20})) == {20}
    assert widths(frame(0, 20)) == {20}
    # The budget leaves fewer columns than the frame has.
    assert widths(frame(1000, 65)) == {65}
    assert widths(frame(8000, 2)) == {2}
    # One is no choice.
    assert widths(frame(10, 81), budget=replace(BUDGET, max_elements=10 * 65 * 8)) == {81}


def test_width_of_groups_changes_with_their_number_kept() -> None:
    found = varied(frame(2, 60, group_size=20), GROUPED)
    assert {(case.n_cols, case.flags["group_size"]) for case in found} == {
        (3 * size, size) for size in (4, 20, 36, 52)
    }
    # The limit is that of all groups.
    narrow = replace(GROUPED, space=Space(max_cols=120))
    assert {case.group_size for case in varied(frame(2, 60, group_size=20), narrow)} == {
        *(4, 20, 36)
    }
    tight = varied(frame(10, 60, group_size=20), GROUPED, replace(BUDGET, max_elements=9600))
    assert {case.group_size for case in tight} == {4, 20, 36}
    # Other flags stay.
    rms = varied(frame(2, 60, group_size=20, is_rms_norm=1), GROUPED)
    assert {case.flags.get("is_rms_norm") for case in rms} == {1}
    # No groups is no number.
    whole = varied(frame(2, 20, group_size=None), GROUPED)
    assert {case.flags["group_size"] for case in whole} == {None}
    assert {case.n_cols for case in whole} == {4, 20, 36, 52}


def test_width_fits_a_whole_row_as_the_frame_does() -> None:
    found = widths(frame(2, 200, block=256), WHOLE_ROW)
    # More than a quarter: of less, a smaller block would be the next one.
    assert {width % 16 for width in found} == {8}
    assert min(found) == 72
    assert max(found) == 248
    assert min(widths(frame(2, 64, block=256), WHOLE_ROW)) in (64, 80)


def test_width_keeps_the_default_launch() -> None:
    # Up to 500 columns the wrapper takes 64 of them, and beyond it 1024.
    found = widths(frame(2, 100), DEFAULT)
    assert min(found) == 68
    assert max(found) <= 500
    # Blocks of 64 for more columns than that were pinned, whatever the width.
    assert max(widths(frame(2, 1000), DEFAULT)) > 1500
    # So are other warps.
    assert max(widths(frame(2, 100, warps=8), DEFAULT)) > 1500
    # No default launch is known beyond 9000.
    assert max(widths(frame(1, 9012), DEFAULT)) > 9012
    assert min(widths(frame(2, 601, block=1024), DEFAULT)) > 500


# --- rows ---------------------------------------------------------------------------------------


def test_rows_vary_in_the_dims_that_have_several() -> None:
    found = {case.leading for case in varied(frame(1, 3, 1, 1))}
    assert {dims[0] for dims in found} == {dims[2] for dims in found} == {1}
    assert {1, 2, 3, 4} & {dims[1] for dims in found} == {2, 3, 4}
    assert max(dims[1] for dims in found) > 300
    # One of two at a time, and about as many rows in all.
    found = {case.leading for case in varied(frame(3, 5, 1))}
    assert all(dims[0] == 3 or dims[1] == 5 for dims in found)
    assert len({dims[0] for dims in found}) > 20
    assert len({dims[1] for dims in found}) > 20
    assert max(a * b for a, b in found) <= 512
    assert min(a for a, _ in found) == min(b for _, b in found) == 2


def test_rows_stay_within_the_budget() -> None:
    tight = replace(BUDGET, max_elements=8000)
    rows = [case.n_rows for case in varied(frame(2, 4, 25, dims=2), budget=tight, count=2000)]
    assert 64 < max(rows) <= 80
    # Most are within a share of it.
    assert sum(n > 10 for n in rows) < 2000 // 8
    few = replace(BUDGET, max_programs=90)
    assert max(case.n_rows for case in varied(frame(2, 1), budget=few, count=1000)) == 90
    groups = varied(frame(2, 3, group_size=1), GROUPED, few, count=1000)
    assert max(case.n_rows for case in groups) == 30
    # Two are left of several, where none more fits.
    assert {c.n_rows for c in varied(frame(2, 65), budget=replace(BUDGET, max_elements=100))} == {2}


@pytest.mark.parametrize("n_rows", [0, 1, GRID_LIMIT + 1])
def test_rows_that_say_something_stay(n_rows: int) -> None:
    assert {case.n_rows for case in varied(frame(n_rows, 1), budget=GPU_BUDGET)} == {n_rows}


def test_rows_of_as_many_as_a_grid_dimension_holds_vary() -> None:
    assert len({case.n_rows for case in varied(frame(GRID_LIMIT, 1), budget=GPU_BUDGET)}) > 50


def test_rows_that_are_fixed_stay() -> None:
    fixed = LOOPED.fixed({"n_rows": 6})
    assert {case.leading for case in varied(frame(2, 3, 1), fixed)} == {(2, 3)}


def test_frames_are_so_many_and_one_has_many_rows() -> None:
    plan = FramedPlan(LOOPED, GPU_BUDGET, CasePlan(LOOPED, GPU_BUDGET), Frames(1, 3))
    chooser = Chooser(3)
    found = [plan.draw(chooser) for _ in range(300)]
    assert len({(c.launch, tuple(t.offset for t in c.tensors), c.leading[:0]) for c in found}) <= 3
    many = sum(case.n_rows > GRID_LIMIT for case in found)
    assert 60 < many < 140
    other = FramedPlan(LOOPED, GPU_BUDGET, CasePlan(LOOPED, GPU_BUDGET), Frames(2, 3))
    assert [plan._frame(n) for n in range(3)] == [plan._frame(n) for n in range(3)]
    assert plan._frame(1) != other._frame(1)
