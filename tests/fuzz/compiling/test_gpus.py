"""GPUs by name, and what a kernel may take of one."""

import pytest

from fuzz.compiling.gpus import GPUS, failure, find_gpu
from fuzz.gating.outcome import CompiledKernel

KERNEL = CompiledKernel("layer_norm", "_kernel", "cuda 80", "BLOCK=1", shared_limit=166_912)


def test_gpus_are_found_by_both_spellings():
    assert [find_gpu(gpu.name.replace(" ", ":")) for gpu in GPUS] == list(GPUS)
    assert find_gpu("hip gfx942").warp_size == 64


def test_gpus_that_are_not_known_are_refused_by_name():
    with pytest.raises(ValueError, match=r"gpu='cuda:75', must be one of cuda:80, .*hip:gfx942"):
        find_gpu("cuda:75")


@pytest.mark.parametrize(
    ("shared", "error", "said"),
    [
        (None, "", ""),
        (166_912, "", ""),
        (166_913, "", "needs 166913 bytes of shared memory a program, cuda 80 has 166912"),
        (None, "bad types", "bad types"),
    ],
)
def test_failure_is_an_error_or_too_much_shared_memory(shared, error, said):
    kernel = CompiledKernel(
        **{**vars(KERNEL), "shared_bytes": shared, "error": error}  # type: ignore[arg-type]
    )
    assert failure(kernel) == said
