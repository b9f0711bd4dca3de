import pytest

from ln_kernels import LaunchConfig, default_launch, whole_row_launch


@pytest.mark.parametrize(
    ("n_cols", "block", "num_warps"),
    [
        (1, 128, 1),
        (128, 128, 1),
        (129, 256, 1),
        (512, 512, 2),
        (1000, 1024, 4),
        (2048, 2048, 8),
        (4096, 4096, 8),
        (4097, 8192, 8),
        (65537, 8192, 8),
    ],
)
@pytest.mark.parametrize("element_size", [2, 4])
def test_default_launch_follows_the_documented_heuristic(n_cols, block, num_warps, element_size):
    assert default_launch(n_cols, element_size) == LaunchConfig(block, num_warps)


@pytest.mark.parametrize("n_cols", [1, 3, 256, 257, 4097, 65537, 2**20])
@pytest.mark.parametrize("element_size", [2, 4])
def test_whole_row_launch_holds_the_row_in_the_next_power_of_two(n_cols, element_size):
    launch = whole_row_launch(n_cols, element_size)
    assert n_cols <= launch.block < 2 * n_cols


def test_whole_row_launch_gives_wide_rows_more_threads():
    warps = [whole_row_launch(n, 2).num_warps for n in (512, 1024, 4096, 16384, 65536)]
    assert warps == [1, 2, 8, 32, 32]
    assert whole_row_launch(4096, 4).num_warps == 16


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
