"""The kernels compiled, not interpreted: for GPUs that need not be there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("compile_for_gpus.py")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    import triton

    if not Path(triton.knobs.nvidia.ptxas.path).exists():
        pytest.skip("this Triton comes without ptxas")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(SCRIPT.parents[2])
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    run = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("target", ["cuda 80", "cuda 90", "cuda 100", "hip gfx942"])
def test_kernels_compile_for_every_target(compiled, target):
    assert len(compiled["compiled"][target]) == 19


def test_kernels_spill_nothing_at_their_defaults(compiled):
    spilled = {k: v["spilled_bytes"] for k, v in compiled["defaults"].items()}
    assert spilled == dict.fromkeys(spilled, 0)
    assert len(spilled) == 14


def test_kernels_load_16_bytes_at_once_where_all_is_aligned(compiled):
    assert all(v["wide_loads"] >= 2 for v in compiled["defaults"].values())


def test_launch_config_turns_fma_off(compiled):
    assert sum(compiled["fma"]["True"]) > 0
    assert max(compiled["fma"]["False"]) == 0


def test_lanes_of_a_warp_sum_the_same_products(compiled):
    found = compiled["fused_with_neighbours"]
    assert found == dict.fromkeys(found, 0)
    assert len(found) == 9


def test_kernels_are_not_compiled_again_for_other_row_counts(compiled):
    assert compiled["kernels_for_any_row_count"] == 1
    assert compiled["kernels_for_any_leading_size"] == 1
