"""How much work one run of a case may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Upper limits on drawn cases; a dimension fixed by the user may exceed them.

    ``max_programs`` counts (row, group) pairs, ``max_steps`` the column blocks of all programs,
    ``max_elements`` those of x. ``all_relations`` gives every case all relations that apply to it.
    """

    max_programs: int
    max_elements: int
    max_cols: int
    max_steps: int
    all_relations: bool = False


# Triton's interpreter takes 3 ms for a program and as much again for each further column block,
# nearly whatever the width: steps are what costs. 64 are 0.2 s a run, and a case has about three.
INTERPRETER_BUDGET = Budget(max_programs=64, max_elements=400_000, max_cols=65_537, max_steps=64)

# Programs and steps are nearly free; copies and the fp64 oracle cost by the element. More than
# 65535 rows must fit: CUDA caps all but the first dimension of a grid there.
GPU_BUDGET = Budget(
    max_programs=1 << 17,
    max_elements=2_000_000,
    max_cols=65_537,
    max_steps=1 << 18,
    all_relations=True,
)

GPU_FRAMES = 48
"""Drawn cases whose variations share compiled kernels; see :mod:`fuzz.space.frames`. Each compiles
some four kernels (its own, a row alone, a contiguous copy ...)."""

# Invalid cases are refused before anything is computed: small ones say as much.
REFUSAL_BUDGET = Budget(max_programs=12, max_elements=4096, max_cols=512, max_steps=64)

USUAL_SHARE = 8
"""Most cases stay below ``max_elements / USUAL_SHARE``; one in as many may be larger."""
