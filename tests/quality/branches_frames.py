"""Branches of cases that share compiled kernels: what frames have, and what is varied in one."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from fuzz.case import Case
from fuzz.spec import TargetSpec
from fuzz.strategies import GPU_BUDGET, Frames
from tests.quality.branches_layouts import MANNERS
from tests.quality.branches_readings import launch_block, manners
from tests.quality.branches_samples import FEW_FRAMES, FRAMED
from tests.quality.branches_sampling import Branch, Holds, Sample, valid
from tests.quality.branches_targets import GATED, LAYER_NORM, NATIVE, TUNED, WHOLE_ROW

# --- what the cases of frames have ---------------------------------------------------------------


def frame_branches() -> Iterator[Branch]:
    def several(case: Case) -> bool:
        """Rows that no budget has a say in."""
        return valid(case) and 1 < case.n_rows < 65536 and case.programs * case.n_cols < 100_000

    for low, high, least in ((2, 4, 0.15), (5, 16, 0.15), (17, 64, 0.06), (65, 512, 0.012)):
        yield Branch(
            f"{low} to {high} rows in frames",
            FRAMED,
            least,
            lambda c, low=low, high=high: low <= c.n_rows <= high,
            several,
        )
    yield Branch("1 row in frames", FRAMED, 0.06, lambda c: c.n_rows == 1)
    yield Branch("no rows in frames", FRAMED, 0.008, lambda c: c.n_rows == 0)
    yield Branch(
        "more elements than usual in frames",
        FRAMED,
        0.004,
        lambda c: 1 < c.n_rows < 65536 and c.n_rows * c.n_cols > GPU_BUDGET.max_elements // 8,
    )
    yield Branch("more rows than 65535 in frames", FEW_FRAMES, 0.04, lambda c: c.n_rows > 65535)
    yield Branch("other rows in frames", FEW_FRAMES, 0.8, lambda c: c.n_rows <= 65535)
    yield Branch("refusals beside frames", FRAMED, 0.03, lambda c: not valid(c), lambda c: True)
    yield Branch(
        "planted values in frames",
        FRAMED,
        0.08,
        lambda c: any(t.values and t.values.plants for t in c.tensors),
    )
    for manner in MANNERS:
        yield Branch(
            f"{manner} in frames", FRAMED, 0.02, lambda c, m=manner: m in manners(c), several
        )


# --- what is varied in a frame -------------------------------------------------------------------

_FRAMES = Frames(seed=1, count=100)
# What is seen less often does not show what it varies.
_LEAST_CASES = 10


@dataclass(frozen=True)
class Variation:
    """What takes at least three values in most of the frames of a kind.

    Of the frames ``among``, a share of ``least`` at least must vary it.
    """

    name: str
    spec: TargetSpec
    among: Holds
    what: Callable[[Case], Hashable]
    least: float = 0.5


def variations() -> Iterator[Variation]:
    yield from _widths()
    yield from _rows()
    yield from _values()


def varying(variation: Variation) -> tuple[int, int]:
    """In how many of how many frames of its kind something is varied."""
    kinds = [frame for frame in _drawn_frames(variation.spec) if all(map(variation.among, frame))]
    varied = [frame for frame in kinds if len(set(map(variation.what, frame))) > 2]
    return len(varied), len(kinds)


@functools.cache
def _drawn_frames(spec: TargetSpec) -> list[list[Case]]:
    frames: dict[Hashable, list[Case]] = defaultdict(list)
    for case in Sample(spec, GPU_BUDGET, _FRAMES, count=2500).draw():
        if valid(case):
            frames[_frame_of(case)].append(case)
    return [cases for cases in frames.values() if len(cases) >= _LEAST_CASES]


def _frame_of(case: Case) -> Hashable:
    """What all cases of one frame have in common, and hardly two frames."""
    flags = tuple((name, value) for name, value in case.flags.items() if name != "group_size")
    tensors = tuple((t.name, t.dtype, t.offset, t.alias_of) for t in case.tensors)
    sizes = tuple(min(size, 2) for size in case.leading)
    return (case.normalized_ndim, case.n_groups, sizes, tensors, flags, case.launch)


def _is_default(case: Case) -> bool:
    """A launch whose block the wrapper alone takes."""
    return launch_block(case) in (512, 2048, 16384, 32768)


def _widths() -> Iterator[Variation]:
    def n_cols(case: Case) -> int:
        return case.n_cols

    def in_one_block(case: Case) -> bool:
        return case.n_rows > 0 and 64 < case.group_size <= launch_block(case)

    yield Variation(
        "width in one pinned block",
        LAYER_NORM,
        lambda c: in_one_block(c) and not _is_default(c),
        n_cols,
    )
    yield Variation(
        "width in one block of the default launch",
        LAYER_NORM,
        lambda c: in_one_block(c) and _is_default(c),
        n_cols,
    )
    yield Variation(
        "width in several blocks",
        LAYER_NORM,
        lambda c: c.n_rows > 0 and c.n_cols > launch_block(c),
        n_cols,
    )
    yield Variation(
        "width of a few columns",
        LAYER_NORM,
        lambda c: c.n_rows > 0 and 1 < c.n_cols <= 256 <= launch_block(c),
        n_cols,
    )
    yield Variation(
        "width of a whole row in a block",
        WHOLE_ROW,
        lambda c: c.n_rows > 0 and launch_block(c) >= 256,
        n_cols,
    )
    yield Variation(
        "group size",
        GATED,
        lambda c: c.n_rows > 0 and c.n_groups > 1 and c.group_size > 1 and launch_block(c) >= 128,
        lambda c: c.group_size,
        # Groups of up to 16 columns have one width of their residue in their power of two.
        least=0.4,
    )
    yield Variation(
        "width under a configuration", TUNED, lambda c: c.n_rows > 0 and c.n_cols > 64, n_cols
    )


def _rows() -> Iterator[Variation]:
    def several(dims: int) -> Holds:
        return lambda c: 1 < c.n_rows < 65536 and sum(size > 1 for size in c.leading) == dims

    yield Variation("rows of one dim", LAYER_NORM, several(1), lambda c: c.n_rows)
    yield Variation(
        "rows of several normalized dims",
        NATIVE,
        lambda c: 1 < c.n_rows < 65536 and c.normalized_ndim > 1,
        lambda c: c.n_rows,
    )
    for name, place in (("first", 0), ("last", -1)):
        yield Variation(
            f"rows by the {name} of two dims",
            LAYER_NORM,
            several(2),
            lambda c, p=place: [size for size in c.leading if size > 1][p],
        )


def _values() -> Iterator[Variation]:
    def anything(case: Case) -> bool:
        return True

    yield Variation("eps", LAYER_NORM, anything, lambda c: c.eps)
    yield Variation("seed", LAYER_NORM, anything, lambda c: c.seed)
    for name in ("x", "weight"):
        yield Variation(
            f"values of {name}",
            LAYER_NORM,
            lambda c, n=name: c.tensor(n) is not None,
            lambda c, n=name: str(c.tensor_or_fail(n).values),
        )
