"""The GPUs that kernels are compiled for, and what each gives a program."""

from __future__ import annotations

from dataclasses import dataclass

from fuzz.gating.outcome import CompiledKernel

KIB = 1024

MAX_THREADS = 1024
"""Of one program, on GPUs of both makers. Triton refuses to load a kernel that has more.

Source: NVIDIA, CUDA C++ Programming Guide, technical specifications per compute capability; LLVM,
User Guide for the AMDGPU Backend, amdgpu-flat-work-group-size.
"""


@dataclass(frozen=True)
class Gpu:
    """A GPU as Triton names it. ``shared_limit``: bytes of shared memory that a program may have.

    Source: NVIDIA, CUDA C++ Programming Guide, technical specifications per compute capability
    (maximum amount of shared memory per thread block); AMD, ROCm GPU hardware specifications
    (LDS), all of which one work-group may have.
    """

    backend: str
    arch: int | str
    warp_size: int
    shared_limit: int

    @property
    def name(self) -> str:
        """As reports name it."""
        return f"{self.backend} {self.arch}"

    @property
    def max_warps(self) -> int:
        """Of a program."""
        return MAX_THREADS // self.warp_size


GPUS = (
    # 1 KiB of an SM's 164 and 228 KiB belongs to the system.
    Gpu("cuda", 80, 32, 163 * KIB),
    Gpu("cuda", 90, 32, 227 * KIB),
    Gpu("cuda", 100, 32, 227 * KIB),
    Gpu("hip", "gfx942", 64, 64 * KIB),
)
"""A100, H100 and H200, B200, MI300: where such kernels run."""


def find_gpu(name: str) -> Gpu:
    """The GPU that "cuda:90" or "cuda 90" names.

    Raises: ValueError for one that is not known.
    """
    for gpu in GPUS:
        if gpu.name == name.replace(":", " "):
            return gpu
    known = ", ".join(gpu.name.replace(" ", ":") for gpu in GPUS)
    raise ValueError(f"gpu={name!r}, must be one of {known}")


def failure(kernel: CompiledKernel) -> str:
    """Why a kernel cannot run on its GPU, in one line; empty where it can."""
    if kernel.error:
        return kernel.error
    shared, limit = kernel.shared_bytes, kernel.shared_limit
    if shared is not None and limit is not None and shared > limit:
        return f"needs {shared} bytes of shared memory a program, {kernel.gpu} has {limit}"
    return ""
