"""The depth of a reduction, counted addition by addition."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from oracle.arithmetic import WARP, Arithmetic, Depth, reduction_depth
from tests.oracle.rows import bell

Depths = npt.NDArray[np.int64]


def depth_of(n_cols: int, **launch: Any) -> int:
    arguments = {"block": None, "num_warps": None, "interpreted": False} | launch
    return reduction_depth(arguments.pop("depth", Depth()), n_cols=n_cols, **arguments)


def joined(a: Depths, b: Depths) -> Depths:
    """Additions passed through after a + b; -1 stands for the 0 of a masked lane."""
    return np.where((a < 0) | (b < 0), np.maximum(a, b), np.maximum(a, b) + 1)


def tree(lanes: Depths) -> int:
    while len(lanes) > 1:
        lanes = joined(lanes[: len(lanes) // 2], lanes[len(lanes) // 2 :])
    return int(lanes[0])


def counted(n_cols: int, block: int, threads: int, vector: int, *, columns_first: bool) -> int:
    """The depth of a blocked loop, its lanes or its blocks summed first."""
    per_thread = max(block // threads, min(vector, block))
    lanes = np.full(-(-n_cols // block) * block, -1, dtype=np.int64)
    lanes[:n_cols] = 0
    blocks = lanes.reshape(-1, min(threads, block // per_thread), per_thread)
    if columns_first:
        # Each column of every block, then the columns of a thread, then the threads.
        total = np.full(blocks.shape[1:], -1, dtype=np.int64)
        for one in blocks:
            total = joined(total, one)
        chains = total[None]
    else:
        chains = blocks
    sums = []
    for one in chains:
        thread = np.full(len(one), -1, dtype=np.int64)
        for column in one.T:
            thread = joined(thread, column)
        sums.append(tree(thread))
    scalar = np.array([-1])
    for block_sum in sums:
        scalar = joined(scalar, np.array([block_sum]))
    return int(scalar[0])


@pytest.mark.parametrize("vector", [1, 2, 4, 8])
@pytest.mark.parametrize("columns_first", [True, False])
def test_depth_covers_every_launch(columns_first: bool, vector: int) -> None:
    slack = []
    for n_cols in (1, 2, 3, 31, 32, 33, 127, 129, 1000, 4097, 8192, 65537):
        for block in (1, 32, 128, 1024, 8192):
            for num_warps in (1, 2, 4, 8, 32):
                if n_cols // block > 600:
                    continue
                depth = depth_of(n_cols, block=block, num_warps=num_warps)
                threads = WARP * num_warps
                real = counted(n_cols, block, threads, vector, columns_first=columns_first)
                assert real <= depth, (n_cols, block, num_warps)
                slack.append(depth - real)
    assert min(slack) == 0


def test_depth_follows_the_launch_not_the_width_alone() -> None:
    # A rule such as n / 128 + 16 would give 80 here.
    assert depth_of(8192, block=8192, num_warps=1) == 256 + 5 + 2
    assert depth_of(8192, block=1024, num_warps=8) == 4 * 8 + 8 + 2


def test_depth_never_exceeds_the_other_elements() -> None:
    for n_cols in (1, 2, 7):
        assert depth_of(n_cols, block=1024, num_warps=1) == n_cols - 1
        assert depth_of(n_cols, block=1024, num_warps=1, interpreted=True) == n_cols - 1
        assert depth_of(n_cols, depth=Depth("linear")) == n_cols - 1


def test_depth_of_an_unknown_launch_is_that_of_one_chain() -> None:
    assert depth_of(1000) == 999
    assert depth_of(1000, block=128) == 999


def test_depth_by_a_linear_rule() -> None:
    assert depth_of(1000, depth=Depth("linear", divisor=128, extra=32)) == 8 + 32
    assert depth_of(1000, depth=Depth("linear", divisor=1000, extra=0), interpreted=True) == 23


def pairwise(row: list[Any], add: Any) -> Any:
    """NumPy's order of summation of contiguous floats."""
    n = len(row)
    if n < 8:
        total = row[0]
        for item in row[1:]:
            total = add(total, item)
        return total
    if n <= 128:
        lanes = row[:8]
        for start in range(8, n - n % 8, 8):
            lanes = [add(lane, item) for lane, item in zip(lanes, row[start:], strict=False)]
        pairs = [add(lanes[k], lanes[k + 1]) for k in range(0, 8, 2)]
        total = add(add(pairs[0], pairs[1]), add(pairs[2], pairs[3]))
        for item in row[n - n % 8 :]:
            total = add(total, item)
        return total
    half = n // 2
    half -= half % 8
    return add(pairwise(row[:half], add), pairwise(row[half:], add))


@pytest.mark.parametrize("block", [1, 4, 8, 16, 64, 128, 256, 1024, 8192])
def test_depth_under_the_interpreter_is_numpys(block: int) -> None:
    row = bell(17, block).astype(np.float32)
    # The model sums in NumPy's order: otherwise their last bits would differ.
    assert pairwise(list(row), np.add) == row.sum()
    real = pairwise([0] * block, lambda a, b: max(a, b) + 1)
    assert real <= depth_of(10**6, block=block, num_warps=4, interpreted=True)
    for n_cols in (block, 3 * block - 1):
        loops = math.ceil(n_cols / block) - 1
        depth = depth_of(n_cols, block=block, num_warps=4, interpreted=True)
        assert min(real + loops, n_cols - 1) <= depth


def test_depth_counts_the_parts_of_a_block_one_by_one_under_the_interpreter() -> None:
    deep, plain = Depth(parts=16), Depth()
    for n_cols, blocks in ((1000, 1), (1025, 2)):
        more = depth_of(n_cols, block=1024, num_warps=4, interpreted=True, depth=deep)
        less = depth_of(n_cols, block=1024, num_warps=4, interpreted=True, depth=plain)
        assert more - less == 15 * blocks
        compiled = [depth_of(n_cols, block=1024, num_warps=4, depth=d) for d in (deep, plain)]
        assert compiled[0] == compiled[1]


def test_arithmetic_rounds_where_it_says() -> None:
    arithmetic = Arithmetic(roundings=(("x_hat", "bfloat16"), ("sum", "x")))
    assert arithmetic.rounding("x_hat") == "bfloat16"
    assert arithmetic.rounding("sum") == "x"
    assert arithmetic.rounding("gate") is None
