"""Cases that share compiled kernels: variations of a limited number of drawn cases.

On a GPU a new specialisation takes as long to compile as some fifty warm cases to run. A campaign
there draws a number of *frames* for each target, and every case is a variation of one: other
rows, widths and values under the same dtypes, flags, launch and manner of layout. What Triton
specialises on (divisibility by 16, which leading dims coalesce, one block or several, of how many
parts the block) stays.
Another seed has other frames.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass, replace

from fuzz.case import Case
from fuzz.space.budget import USUAL_SHARE, Budget
from fuzz.space.case_plan import CasePlan
from fuzz.space.choices import Chooser, Table
from fuzz.space.resize import resized
from fuzz.space.widths import block_of, default_launch, draw_width
from fuzz.spec import TargetSpec

SPECIALISED = 16
"""Triton specialises integers and addresses on their divisibility by this."""

LEAST_PART = 128
"""Columns of a tensor that is not divided further: four for each thread of a warp."""

# Rows of a variation; its frame says which leading dims have more than one.
_ROWS = Table((40, (2, 4)), (40, (5, 16)), (16, (17, 64)), (4, (65, 512)))
_ATTEMPTS = 4

GRID_LIMIT = 65_535
"""Programs of a CUDA grid's second and third dimension."""

# One of a campaign's frames has so many rows that one of these can be too small for them.
_MANY_ROWS_FRAME = 0


@dataclass(frozen=True)
class Frames:
    """``count`` frames of each target; ``seed`` is the campaign's."""

    seed: int
    count: int


class FramedPlan:
    """Draws cases of one target within the frames of one campaign."""

    def __init__(self, spec: TargetSpec, budget: Budget, plan: CasePlan, frames: Frames) -> None:
        self._spec, self._budget, self._plan, self._frames = spec, budget, plan, frames
        self._frame = functools.lru_cache(maxsize=None)(self._draw_frame)

    def draw(self, chooser: Chooser) -> Case:
        """A variation of one of the frames."""
        frame = self._frame(chooser.below(self._frames.count))
        case = self._with_width(frame, chooser) if frame.n_rows else frame
        case = self._with_rows(case, chooser) if case.n_rows > 1 else case
        return self._plan.redraw_values(chooser, case)

    def _draw_frame(self, number: int) -> Case:
        name = f"{self._frames.seed}/{self._spec.name}/{number}"
        chooser = Chooser(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big"))
        if number != _MANY_ROWS_FRAME:
            return self._plan.draw(chooser)
        # A case of rank 1 has one row, and leading dims may lose some.
        drawn = (self._plan.draw(chooser, many_rows=True) for _ in range(4 * _ATTEMPTS))
        return max(drawn, key=lambda case: case.n_rows)

    def _with_width(self, frame: Case, chooser: Chooser) -> Case:
        """Another width of each group, of the same residue and in the same number of blocks."""
        width = frame.group_size
        fixed = {"n_cols", "group_size"} & dict(self._spec.space.fixed).keys()
        if frame.normalized_ndim > 1 or width == 1 or fixed:
            return frame
        groups = frame.n_groups
        elements = self._budget.max_elements // USUAL_SHARE
        most = min(self._spec.space.max_cols // groups, elements // (frame.n_rows * groups))
        block = block_of(frame.launch, self._spec.launch) or 0
        low, high = self._alike(width, block) if width <= block else (block + 1, most)
        low, high = max(low, 2), min(high, most)
        for _ in range(_ATTEMPTS if low < high else 0):
            other = draw_width(chooser, low, high, (block,) if block else ())
            other += (width - other) % SPECIALISED
            if other <= high and self._same_launch(frame, other):
                flags = frame.flags
                if flags.get("group_size") is not None:
                    flags = {**flags, "group_size": other}
                wider = replace(frame, flags=flags)
                return resized(wider, self._spec, frame.leading, (groups * other,))
        return frame

    def _alike(self, width: int, block: int) -> tuple[int, int]:
        """The widths, of those that fit the block, that a kernel cuts into as many parts."""
        parts = self._spec.arithmetic.depth.parts
        if parts == 1:
            return 2, block
        holds = 1 << (width - 1).bit_length()
        step = max(holds // parts, min(holds, LEAST_PART))
        return (width - 1) // step * step + 1, -(-width // step) * step

    def _same_launch(self, frame: Case, width: int) -> bool:
        """Whether the frame's launch fits the width as it fits the frame's own."""
        space, launch = self._spec.launch, frame.launch
        if launch.block is None:
            return True
        if space.whole_row:
            return launch.block // 4 < width
        itemsize = frame.tensor_or_fail("x").itemsize
        own = default_launch(space, frame.group_size, itemsize)
        if own is None or (own.block, own.num_warps) != (launch.block, launch.num_warps):
            return True
        return default_launch(space, width, itemsize) == own

    def _with_rows(self, case: Case, chooser: Chooser) -> Case:
        """Other sizes of the leading dims that have more than one."""
        if "n_rows" in dict(self._spec.space.fixed) or case.n_rows > GRID_LIMIT:
            return case
        usual = self._budget.max_elements // USUAL_SHARE
        elements = self._budget.max_elements if chooser.below(USUAL_SHARE) == 0 else usual
        most = min(elements // case.n_cols, self._budget.max_programs // case.n_groups)
        low, high = chooser.draw(_ROWS)
        n_rows = chooser.between(min(low, most), min(high, most))
        leading = list(case.leading)
        wide = [dim for dim, size in enumerate(leading) if size > 1]
        varied = chooser.any_of(wide)
        others = math.prod(leading[dim] for dim in wide if dim != varied)
        leading[varied] = max(n_rows // others, 2)
        return resized(case, self._spec, tuple(leading), case.normalized)
