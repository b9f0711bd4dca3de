"""Each branch of the strategies is seen in drawn cases: without it, a row of the tables fails."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.quality.branches_calls import call_branches
from tests.quality.branches_frames import Variation, frame_branches, variations, varying
from tests.quality.branches_layouts import layout_branches
from tests.quality.branches_runs import run_branches
from tests.quality.branches_sampling import Branch, Sample, counts
from tests.quality.branches_shapes import shape_branches
from tests.quality.branches_values import value_branches
from tests.quality.branches_widths import width_branches

BRANCHES = (
    *shape_branches(),
    *width_branches(),
    *layout_branches(),
    *value_branches(),
    *call_branches(),
    *run_branches(),
    *frame_branches(),
)
VARIATIONS = tuple(variations())


def _by_sample() -> dict[Sample, tuple[Branch, ...]]:
    found: dict[Sample, list[Branch]] = defaultdict(list)
    for branch in BRANCHES:
        found[branch.sample].append(branch)
    return {sample: tuple(branches) for sample, branches in found.items()}


BY_SAMPLE = _by_sample()


@pytest.mark.parametrize("branch", BRANCHES, ids=[branch.name for branch in BRANCHES])
def test_branch_is_drawn(branch: Branch) -> None:
    share = counts(branch.sample, BY_SAMPLE[branch.sample]).share(branch)
    said = f"{share.count} of {share.total} cases of {branch.sample.spec.name}"
    assert share.value >= branch.least, f"{branch.name}: {said}, must be {branch.least:.1%}"


@pytest.mark.parametrize("variation", VARIATIONS, ids=[each.name for each in VARIATIONS])
def test_frame_varies(variation: Variation) -> None:
    varied, frames = varying(variation)
    assert frames >= 5
    assert varied >= variation.least * frames, f"{variation.name}: {varied} of {frames} frames"


def test_branches_are_named_once() -> None:
    names = [branch.name for branch in BRANCHES]
    assert len(set(names)) == len(names)
