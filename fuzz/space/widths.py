"""Row widths, group sizes and launches, drawn together: block borders tie them to each other.

A *width* is the number of columns that one program reduces over: the group size where the target
has groups, else n_cols.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fuzz.case import ITEMSIZE, Launch
from fuzz.space.budget import Budget
from fuzz.space.choices import Chooser, Table
from fuzz.spec import DefaultLaunch, FlagValue, LaunchSpace, TargetSpec

WIDE = 4096
"""Wider rows have a share of their own: kernels and heuristics of one block end about here."""

MAX_BORDER = 4
"""Borders k * block are hit on purpose up to this k."""

# A quarter is the promise.
_WIDE_SHARE = 0.3
_DEFAULT_LAUNCH_SHARE = 0.5
# The two values of the flag are two programs to compile: the usual one takes most cases.
_FUSION_SHARE = 0.85

# Of the small widths, beyond their even share.
_LEAST_SHARE = 0.15

_WIDTHS = Table(
    (20, "small"),
    (14, "power_of_2"),
    (22, "border"),
    (12, "prime"),
    (12, "sixteen"),
    (20, "any"),
)

_GROUPS = Table(
    (28, "none"),
    (8, "n_cols"),
    (8, "one"),
    (16, "prime"),
    (16, "power_of_2"),
    (12, "larger_than_block"),
    (12, "any"),
)

# Few groups in a row as a rule, since each is a program.
_N_GROUPS = Table((3, 1), (8, 2), (6, 3), (5, 4), (3, 5), (2, 7), (3, 8), (1, 16), (1, 31))


@dataclass(frozen=True)
class Width:
    """What one row is: its columns, their division into groups, and the launch that walks them.

    ``group_size`` is the flag's value: None for one group, as for targets without the flag.
    ``steps`` counts the column blocks of a row, over all its groups.
    """

    n_cols: int
    group_size: int | None
    launch: Launch
    steps: int

    @property
    def n_groups(self) -> int:
        """Groups a row is divided into."""
        return 1 if self.group_size is None else self.n_cols // self.group_size


class WidthPlan:
    """Draws widths for one target and budget."""

    def __init__(self, spec: TargetSpec, budget: Budget) -> None:
        self._space = spec.launch
        self._budget = budget
        self._fixed = dict(spec.space.fixed)
        flag = spec.flag("group_size")
        self._grouped = flag is not None
        if flag is not None and len(flag.choices) == 1 and flag.choices[0] is not None:
            # A constant of the target.
            self._fixed.setdefault("group_size", flag.choices[0])
        self._max_cols = min(spec.space.max_cols, budget.max_cols)
        blocks = self._all_blocks()
        if blocks:
            # The largest block holds the whole row, or walks it within the budget.
            steps = 1 if spec.launch.whole_row else budget.max_steps
            self._max_cols = min(self._max_cols, max(blocks) * steps)

    def _all_blocks(self) -> list[int]:
        """Every block that a launch can have."""
        space, fixed = self._space, self._fixed
        if "block" in fixed:
            return [_integer(fixed["block"])]
        if "config" in fixed:
            pinned = [Launch(config=_integer(fixed["config"]))]
        else:
            pinned = _variants(Launch(config=0) if space.configs else Launch(), space)
        found = [block_of(launch, space) for launch in pinned]
        return [b for b in (*found, *(row.block for row in space.defaults)) if b is not None]

    def draw(self, chooser: Chooser, dtype: str, *, rows: int = 1) -> Width:
        """A row of x in ``dtype``, such that ``rows`` of them stay within the budget."""
        itemsize, rows = ITEMSIZE[dtype], max(rows, 1)
        max_cols = max(min(self._max_cols, self._budget.max_elements // rows), 1)
        max_groups = max(self._budget.max_programs // rows, 1)
        launch = self._choose_launch(chooser)
        blocks = self._expected_blocks(launch, itemsize)
        n_cols, group_size = self._draw_cols(chooser, max_cols, max_groups, blocks)
        width = n_cols if group_size is None else group_size
        n_groups = n_cols // width
        max_steps = max(self._budget.max_steps // (rows * n_groups), 1)
        launch = self._fit_launch(chooser, launch, width, itemsize, max_steps)
        block = block_of(launch, self._space)
        steps = n_groups * (1 if block is None else math.ceil(width / block))
        return Width(n_cols, group_size, launch, steps)

    # --- the launch ------------------------------------------------------------------------------

    def _choose_launch(self, chooser: Chooser) -> Launch | None:
        """A launch whose block does not know the width yet; None for the default one."""
        space, fixed = self._space, self._fixed
        if space.configs:
            config = fixed["config"] if "config" in fixed else chooser.below(len(space.configs))
            return Launch(fp_fusion=self._fusion(chooser), config=_integer(config))
        if (
            space.defaults
            and not {"block", "num_warps"} & fixed.keys()
            and (not space.blocks or chooser.chance(_DEFAULT_LAUNCH_SHARE))
        ):
            return None
        return self._pinned(chooser)

    def _pinned(self, chooser: Chooser) -> Launch:
        space, fixed = self._space, self._fixed
        block = chooser.any_of(space.blocks) if space.blocks else None
        if "block" in fixed:
            block = _integer(fixed["block"])
        num_warps = chooser.any_of(space.num_warps) if space.num_warps else None
        if "num_warps" in fixed:
            num_warps = _integer(fixed["num_warps"])
        return Launch(block, num_warps, self._fusion(chooser))

    def _fusion(self, chooser: Chooser) -> bool | None:
        choices = self._space.fp_fusion
        if "fp_fusion" in self._fixed:
            return bool(self._fixed["fp_fusion"])
        if not choices:
            return None
        if True in choices and chooser.chance(_FUSION_SHARE):
            return True
        return chooser.any_of([c for c in choices if not c] or choices)

    def _expected_blocks(self, launch: Launch | None, itemsize: int) -> list[int]:
        """The blocks that the launch can come to have: borders of one are worth hitting."""
        if launch is None:
            return [row.block for row in self._space.defaults if row.itemsize == itemsize]
        block = block_of(launch, self._space)
        return [] if block is None else [block]

    def _fit_launch(
        self, chooser: Chooser, launch: Launch | None, width: int, itemsize: int, max_steps: int
    ) -> Launch:
        """The default launch of this width, or the chosen one with a block that fits it."""
        space = self._space
        if launch is None:
            row = default_launch(space, width, itemsize)
            if row is not None:
                return Launch(row.block, row.num_warps, self._fusion(chooser))
            launch = self._pinned(chooser)
        block = block_of(launch, space)
        if block is None or {"block", "config"} & self._fixed.keys():
            return launch
        if not space.whole_row and math.ceil(width / block) <= max_steps:
            return launch
        blocks = {
            block: other
            for other in _variants(launch, space)
            if (block := block_of(other, space)) is not None
        }
        least = width if space.whole_row else math.ceil(width / max_steps)
        fitting = sorted(block for block in blocks if block >= least)
        if space.whole_row:
            # The smallest that holds the row, or the next: with it, most lanes are masked.
            del fitting[2:]
        return blocks[chooser.any_of(fitting) if fitting else max(blocks)]

    # --- columns and groups ----------------------------------------------------------------------

    def _draw_cols(
        self, chooser: Chooser, max_cols: int, max_groups: int, blocks: Sequence[int]
    ) -> tuple[int, int | None]:
        """n_cols and group_size, which divides it."""
        fixed = self._fixed
        group_size = fixed.get("group_size")
        if "n_cols" in fixed:
            n_cols = _integer(fixed["n_cols"])
            if not self._grouped:
                return n_cols, None
            if "group_size" in fixed:
                return n_cols, None if group_size is None else _integer(group_size)
            return n_cols, _group_of(chooser, n_cols, max_groups, blocks)
        if self._grouped and group_size is not None:
            size = _integer(group_size)
            most = max(min(max_cols // size, max_groups), 1)
            return size * min(chooser.draw(_N_GROUPS), most), size
        low, high = 1, min(max_cols, WIDE)
        if max_cols > WIDE and chooser.chance(_WIDE_SHARE):
            low, high = WIDE + 1, max_cols
        kind = chooser.draw(_GROUPS) if self._grouped and "group_size" not in fixed else "none"
        if kind == "one" and low <= max_groups:
            return chooser.octave(low, min(high, max_groups)), 1
        if kind in ("none", "n_cols"):
            n_cols = draw_width(chooser, low, high, blocks)
            return n_cols, None if kind == "none" else n_cols
        return _draw_groups(chooser, kind, low, high, max_groups, blocks)


def _draw_groups(
    chooser: Chooser, kind: str, low: int, high: int, max_groups: int, blocks: Sequence[int]
) -> tuple[int, int]:
    """n_cols in low ... high and a group size of this kind that divides it."""
    n_groups = min(chooser.draw(_N_GROUPS), max_groups, high)
    first, last = -(-low // n_groups), high // n_groups
    if kind == "larger_than_block" and blocks:
        least = max(blocks) + 1
        first = max(first, least)
        if first > last:
            n_groups, first, last = 1, max(low, least), high
    if first > last:
        n_groups, first, last = 1, low, high
    group_size = None
    if kind == "prime":
        group_size = _prime(chooser, first, last)
    elif kind == "power_of_2":
        group_size = _power_of_2(chooser, max(first, 2), last, (0,))
    if group_size is None:
        group_size = draw_width(chooser, first, last, blocks)
    return group_size * n_groups, group_size


def _group_of(chooser: Chooser, n_cols: int, max_groups: int, blocks: Sequence[int]) -> int | None:
    """A group size for these columns, of a kind that has one."""
    sizes = [d for d in divisors(n_cols) if n_cols // d <= max_groups]
    kinds: list[Sequence[int | None]] = [
        (None,),
        [n_cols],
        [d for d in sizes if d == 1],
        [d for d in sizes if is_prime(d)],
        [d for d in sizes if d > 1 and d & (d - 1) == 0],
        [d for d in sizes if blocks and d > max(blocks)],
        sizes,
    ]
    return chooser.any_of(chooser.any_of([kind for kind in kinds if kind]))


def draw_width(chooser: Chooser, low: int, high: int, blocks: Sequence[int] = ()) -> int:
    """A width in low ... high, with mass where kernels go wrong: see the table of kinds."""
    kind = chooser.draw(_WIDTHS)
    width = None
    if kind == "small" and low <= 16:
        # One column has no variance, and code of its own more often than other widths have.
        width = low if chooser.chance(_LEAST_SHARE) else chooser.between(low, min(16, high))
    elif kind == "power_of_2":
        # Smaller ones have a kind of their own.
        width = _power_of_2(chooser, max(low, 16), high, (-1, 0, 1))
    elif kind == "border" and blocks:
        width = _border(chooser, low, high, chooser.any_of(blocks))
    elif kind == "prime":
        width = _prime(chooser, low, high)
    elif kind == "sixteen":
        width = chooser.octave(max(low // 16, 1), max(high // 16, 1)) * 16 + chooser.between(-1, 1)
    if width is None or not low <= width <= high:
        width = chooser.octave(low, high)
    return width


def _power_of_2(chooser: Chooser, low: int, high: int, steps: tuple[int, ...]) -> int | None:
    found = [
        (1 << power) + step
        for power in range(low.bit_length() - 1, high.bit_length())
        for step in steps
        if low <= (1 << power) + step <= high
    ]
    return chooser.any_of(found) if found else None


def _border(chooser: Chooser, low: int, high: int, block: int) -> int | None:
    found = [
        width
        for k in range(1, MAX_BORDER + 1)
        for width in (k * block - 1, k * block, k * block + 1)
        if low <= width <= high
    ]
    return chooser.any_of(found) if found else None


def _prime(chooser: Chooser, low: int, high: int) -> int | None:
    start = chooser.octave(low, high)
    for width in itertools.chain(range(start, high + 1), range(start - 1, low - 1, -1)):
        if is_prime(width):
            return width
    return None


def _variants(launch: Launch, space: LaunchSpace) -> list[Launch]:
    """The same launch with each block, or each configuration, of the space."""
    if launch.config is not None:
        return [replace(launch, config=index) for index in range(len(space.configs))]
    return [replace(launch, block=block) for block in space.blocks]


@functools.lru_cache(maxsize=4096)
def is_prime(n: int) -> bool:
    """Whether n is a prime number."""
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))


@functools.lru_cache(maxsize=256)
def divisors(n: int) -> tuple[int, ...]:
    """The divisors of n >= 1, ascending."""
    low = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return tuple(sorted({*low, *(n // d for d in low)}))


def default_launch(space: LaunchSpace, width: int, itemsize: int) -> DefaultLaunch | None:
    """The wrapper's own launch for this width, None where it is not known."""
    rows = [r for r in space.defaults if r.itemsize == itemsize and r.max_cols >= width]
    return min(rows, key=lambda row: row.max_cols, default=None)


# How autotuned kernels name the width of their block of columns, the plainest name last. Another
# name with "block" in it (BLOCK_M) may count rows.
BLOCK_NAMES = ("BLOCK_N", "BLOCK_COLS", "BLOCK_SIZE_N", "BLOCK_SIZE", "BLOCK", "block")


def block_of(launch: Launch, space: LaunchSpace) -> int | None:
    """The columns of one step: the launch's block, or what its autotuner config calls one."""
    if launch.block is not None or launch.config is None:
        return launch.block
    config = dict(space.configs[launch.config])
    for name in BLOCK_NAMES:
        block = config.get(name)
        if isinstance(block, int):
            return block
    return None


def _integer(value: FlagValue) -> int:
    if not isinstance(value, int):
        raise ValueError(f"a fixed dimension is {value!r}, must be an integer")
    return value
