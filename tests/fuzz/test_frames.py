"""Framed cases: few compiled kernels, other shapes and values, the same spec obeyed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from fuzz.case import Case, from_json, to_json
from fuzz.space.frames import GRID_LIMIT
from fuzz.spec import TargetSpec
from fuzz.strategies import GPU_BUDGET, Frames, draw_cases
from oracle.arithmetic import Arithmetic, Depth
from tests.fuzz.builders import GATED, LAYER_NORM, RESIDUAL

SPECS = [replace(spec, refuses=()) for spec in (LAYER_NORM, GATED, RESIDUAL)]
FRAMES = Frames(seed=3, count=12)


def drawn(spec: TargetSpec, count: int = 400, frames: Frames | None = FRAMES) -> list[Case]:
    return list(draw_cases(spec, seed=1, count=count, budget=GPU_BUDGET, frames=frames))


def specialisation(case: Case) -> tuple[object, ...]:
    """What decides, by the case alone, which kernel the base run compiles."""
    return (
        case.launch,
        tuple(sorted((k, v) for k, v in case.flags.items() if k != "group_size")),
        case.group_size % 16,
        case.launch.block is not None and case.group_size <= case.launch.block,
        tuple((t.name, t.dtype, t.offset * t.itemsize % 16) for t in case.tensors),
    )


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_frames_bound_the_number_of_kernels(spec: TargetSpec) -> None:
    framed = {specialisation(case) for case in drawn(spec)}
    assert len(framed) <= FRAMES.count
    assert len({specialisation(case) for case in drawn(spec, frames=None)}) > 5 * len(framed)


def parts_of_a_block(case: Case) -> tuple[int, int] | None:
    """The power of two that holds the row and the eighths of it that the row reaches into."""
    width, block = case.group_size, case.launch.block
    if block is None or width > block:
        return None
    holds = 1 << (width - 1).bit_length()
    return holds, -(-8 * width // holds)


def test_frames_keep_the_parts_of_a_block_where_a_kernel_depends_on_them() -> None:
    parted = replace(LAYER_NORM, refuses=(), arithmetic=Arithmetic(depth=Depth(parts=8)))
    kernels = {(specialisation(case), parts_of_a_block(case)) for case in drawn(parted)}
    assert len(kernels) <= FRAMES.count
    assert len({case.n_cols for case in drawn(parted)}) > 3 * FRAMES.count
    plain = {(specialisation(case), parts_of_a_block(case)) for case in drawn(SPECS[0])}
    assert len(plain) > 2 * FRAMES.count


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_frames_vary_shapes_and_values(spec: TargetSpec) -> None:
    cases = drawn(spec)
    assert len({case.case_id for case in cases}) == len(cases)
    assert len({case.n_cols for case in cases}) > 3 * FRAMES.count
    assert len({case.n_rows for case in cases}) > FRAMES.count
    families = Counter(case.tensor_or_fail("x").values.family for case in cases)  # type: ignore[union-attr]
    assert len(families) >= 10


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_frames_give_valid_cases_within_the_budget(spec: TargetSpec) -> None:
    for case in drawn(spec):
        # Reading a case back checks shapes, strides, aliases and overlaps.
        assert from_json(to_json(case)) == case
        assert case.n_cols % case.group_size == 0
        assert case.programs <= GPU_BUDGET.max_programs
        assert case.n_rows * case.n_cols <= GPU_BUDGET.max_elements


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("seed", range(4))
def test_frames_have_more_rows_than_a_grid_dimension_holds(spec: TargetSpec, seed: int) -> None:
    cases = drawn(spec, 150, Frames(seed, 12))
    assert sum(case.n_rows > GRID_LIMIT for case in cases) >= 5
    assert sum(case.n_rows > GRID_LIMIT for case in cases) <= 45


def test_frames_follow_from_the_campaign_seed() -> None:
    spec = SPECS[0]
    assert drawn(spec, 40) == drawn(spec, 40)
    other = {specialisation(case) for case in drawn(spec, 200, Frames(4, 12))}
    assert len(other & {specialisation(case) for case in drawn(spec, 200)}) < 6
