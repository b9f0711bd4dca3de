import itertools

import pytest

from ln_kernels import LaunchConfig, default_launch, whole_row_launch
from ln_kernels.launch import Tiling, next_power_of_2

ODD_WIDTHS = (1, 3, 127, 129, 257, 1000, 5000, 12345, 40000, 65537, 2**20)
WIDTHS = (*ODD_WIDTHS, *(2**power for power in range(21)))


@pytest.mark.parametrize("element_size", [2, 4])
def test_default_launch_follows_from_the_power_of_two_that_holds_the_row(element_size):
    for n_cols in ODD_WIDTHS:
        holds = next_power_of_2(n_cols)
        assert default_launch(n_cols, element_size) == default_launch(holds, element_size)
    # No GPU has more threads a program, and columns need not be cut finer than a vector.
    assert all(default_launch(n, element_size).num_warps <= 32 for n in WIDTHS)


@pytest.mark.parametrize("element_size", [2, 4])
def test_default_launch_reads_rows_once_that_fit_the_registers(element_size):
    for n_cols in WIDTHS:
        if n_cols * element_size <= 65536:
            assert default_launch(n_cols, element_size).block >= n_cols


@pytest.mark.parametrize("element_size", [2, 4])
def test_default_launch_takes_several_short_rows(element_size):
    rows = [default_launch(n, element_size).tiling(n, 1).rows for n in (8, 64, 256, 1000, 2048)]
    assert rows[0] == 16
    assert all(more >= fewer for more, fewer in itertools.pairwise(rows))
    assert rows[-2:] == [2, 1]


@pytest.mark.parametrize("n_cols", WIDTHS)
@pytest.mark.parametrize("element_size", [2, 4])
def test_whole_row_launch_holds_the_row(n_cols, element_size):
    launch = whole_row_launch(n_cols, element_size)
    tiling = launch.tiling(n_cols, 1)
    assert launch.block >= n_cols
    assert not tiling.more
    assert (tiling.parts - 1) * tiling.part < n_cols <= tiling.parts * tiling.part


@pytest.mark.parametrize("n_cols", WIDTHS)
@pytest.mark.parametrize("vector", [1, 2, 8])
def test_tiling_covers_every_column_once(n_cols, vector):
    for launch in (LaunchConfig(1, 1), LaunchConfig(64, 32), LaunchConfig(4096, 4)):
        tiling = launch.tiling(n_cols, vector)
        held = tiling.parts * tiling.part
        # Tiles that stay in registers are full, but for the last one of a row that ends there.
        assert held - tiling.part < n_cols
        assert tiling.more == (n_cols > held)
        assert tiling.part * tiling.rows <= launch.block
        assert 1 <= tiling.parts <= 8
        assert 1 <= tiling.rows <= 16
        assert tiling.rows == 1 or not tiling.more
        more = n_cols > held
        assert tiling.constants() == (tiling.rows, tiling.part, tiling.parts, more, vector)


def test_tiling_takes_as_many_rows_as_the_block_holds():
    launch = LaunchConfig(4096, 4)
    rows = {4096: 1, 2049: 1, 2048: 2, 1000: 4, 300: 8, 1: 16}
    assert {n: launch.tiling(n, 1).rows for n in rows} == rows
    assert [launch.tiling(1000, 1).programs(n) for n in (1, 4, 5)] == [1, 1, 2]


def test_tiling_gives_threads_vectors_and_leaves_out_tiles_past_the_row():
    launch = LaunchConfig(8192, 4)
    assert launch.tiling(5000, 8) == Tiling(rows=1, part=1024, parts=5, more=False, vector=8)
    # As wide as fills the eighths of the block that the row reaches into.
    widths = {7168: 1024, 6000: 2048, 8192: 8192, 7169: 8192, 4097: 1024}
    assert {n: launch.tiling(n, 8).part for n in widths} == widths
    # No thread is left with less than a vector or two, but where it loads element by element.
    assert LaunchConfig(8192, 8).tiling(5000, 8).part == 2048
    assert LaunchConfig(8192, 8).tiling(5001, 1).part == 1024
    assert launch.tiling(8193, 1) == Tiling(rows=1, part=1024, parts=8, more=True, vector=1)
    wide = LaunchConfig(32768, 16).tiling(32768, 8)
    assert (wide.part, wide.parts) == (8192, 4)


@pytest.mark.parametrize("launch", [LaunchConfig(8192, 1), LaunchConfig(1024, 4)])
@pytest.mark.parametrize("vector", [1, 8])
def test_tiling_is_the_same_for_all_widths_that_reach_into_the_same_eighth(launch, vector):
    tilings = {}
    for n_cols in range(9, launch.block + 1):
        holds = next_power_of_2(n_cols)
        eighths = -(-8 * n_cols // holds)
        tilings.setdefault((holds, eighths), set()).add(launch.tiling(n_cols, vector))
    assert {len(found) for found in tilings.values()} == {1}


def test_launch_config_options_pin_fp_fusion():
    assert LaunchConfig(64, 2).options() == {"num_warps": 2, "enable_fp_fusion": True}
    assert LaunchConfig(64, 2, fp_fusion=False).options()["enable_fp_fusion"] is False


@pytest.mark.parametrize("block", [1, 2, 128, 2**20])
def test_launch_config_takes_powers_of_two(block):
    assert LaunchConfig(block, 4).block == block


@pytest.mark.parametrize("block", [0, -2, 3, 100, 2**21])
def test_launch_config_refuses_other_blocks(block):
    with pytest.raises(ValueError) as caught:
        LaunchConfig(block, 4)
    rule = "must be a power of two in 1 ... 1048576"
    assert str(caught.value) == f"block={block}, {rule} [LaunchConfig]"


@pytest.mark.parametrize("num_warps", [0, -1, 3, 64])
def test_launch_config_refuses_other_warps(num_warps):
    with pytest.raises(ValueError) as caught:
        LaunchConfig(128, num_warps)
    rule = "must be one of (1, 2, 4, 8, 16, 32)"
    assert str(caught.value) == f"num_warps={num_warps}, {rule} [LaunchConfig]"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((128.0, 4), "block=128.0, must be an int [LaunchConfig]"),
        ((True, 4), "block=True, must be an int [LaunchConfig]"),
        ((128, None), "num_warps=None, must be an int [LaunchConfig]"),
        ((128, 4, 1), "fp_fusion=1, must be a bool [LaunchConfig]"),
    ],
)
def test_launch_config_refuses_other_kinds(args, message):
    with pytest.raises(TypeError) as caught:
        LaunchConfig(*args)
    assert str(caught.value) == message
