"""Compile the kernels for GPUs that are absent, through the wrappers; print JSON.

A program of its own, because Triton cannot compile in a process that interprets. Launches are
turned into compilations, so that what is compiled is what a GPU would be given: the same
specialisations of alignment, divisibility and absent arguments.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.runtime.jit import JITFunction

import ln_kernels
from ln_kernels import LaunchConfig, rows

TARGETS = [
    GPUTarget("cuda", 80, 32),
    GPUTarget("cuda", 90, 32),
    GPUTarget("cuda", 100, 32),
    GPUTarget("hip", "gfx942", 64),
]


class AbsentGpu:
    """As much of a Triton driver as compiling asks for."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_device(self) -> int:
        # Triton keeps what it compiled by device, so each target is a device of its own.
        return TARGETS.index(self.target)

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self.target


def compile_calls(target: GPUTarget, *calls: Any) -> list[Any]:
    """The distinct kernels that the calls would launch on the target."""
    triton.runtime.driver.set_active(AbsentGpu(target))
    compiled: dict[int, Any] = {}
    launch = JITFunction.run

    def compile_only(self: JITFunction, *args: Any, **options: Any) -> Any:
        kernel = launch(self, *args, **{**options, "warmup": True})
        compiled[id(kernel)] = kernel
        return kernel

    JITFunction.run = compile_only
    try:
        for call in calls:
            call()
    finally:
        JITFunction.run = launch
    return list(compiled.values())


def resources(kernel: Any, arch: int) -> dict[str, int]:
    """What ptxas says of a CUDA kernel."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(kernel.asm["ptx"])
        tool = [get_ptxas(arch).path, "-v", f"--gpu-name=sm_{arch}{'a' if arch >= 90 else ''}"]
        said = subprocess.run(
            [*tool, str(source), "-o", str(source.with_suffix(".o"))],
            check=True,
            capture_output=True,
            text=True,
        ).stderr
    return {
        "spilled_bytes": int(re.search(r"(\d+) bytes spill stores", said)[1]),
        "registers": int(re.search(r"Used (\d+) registers", said)[1]),
        "wide_loads": len(re.findall(r"ld\.global\S*\.v4", kernel.asm["ptx"])),
        # Those that add 0 round a product by itself: they are the source's own.
        "fma": len(re.findall(r"\bfma\.rn(?!.*, 0f00000000;)", kernel.asm["ptx"])),
    }


def fused_with_neighbours(ptx: str) -> int:
    """How many products are fused with a value that comes from another lane of the warp."""
    received = set(re.findall(r"shfl\.sync\.\S+\s+(%\w+?)(?:\||,)", ptx))
    # Floats may be moved to a register of another kind first.
    moved = re.findall(r"mov\.b32\s+(%\w+), (%\w+);", ptx)
    received |= {to for to, source in moved if source in received}
    fused = re.findall(r"fma\.rn\.f32\s+%\w+, (%\w+), (%\w+), (%\w+);", ptx)
    return sum(bool(received & set(operands)) for operands in fused)


def calls_of(x: torch.Tensor, w: torch.Tensor, **options: Any) -> dict[str, Any]:
    """One call of every kernel with everything in use, at least once in each branch."""
    z, b = torch.empty_like(x), w.to(x.dtype)
    n = x.shape[-1]
    return {
        "layer_norm": lambda: ln_kernels.layer_norm(x, w, b, **options),
        "native": lambda: ln_kernels.native_layer_norm(x, n, w, b, 1e-5, **options),
        "residual": lambda: ln_kernels.layer_norm_residual(
            x, b, z, w, b, return_sum=True, **options
        ),
        "whole_row": lambda: ln_kernels.triton_layer_norm(x, w, b, **options),
        "bias": lambda: ln_kernels.fused_bias_layer_norm(x, b, w, b, **options),
        "gate_after": lambda: ln_kernels.layernorm_fn(x, w, b, z, group_size=n // 2, **options),
        "gate_before_rms": lambda: ln_kernels.rmsnorm_fn(
            x, w, None, z, group_size=n // 2, norm_before_gate=False, **options
        ),
    }


def bare_calls(x: torch.Tensor) -> dict[str, Any]:
    """Every kernel with everything absent that can be, in loops over blocks where it loops."""
    loop = LaunchConfig(16, 2)
    return {
        "layer_norm": lambda: ln_kernels.layer_norm(x, None, None, launch=loop),
        "residual": lambda: ln_kernels.layer_norm_residual(x, None, x, None, None, launch=loop),
        "whole_row": lambda: ln_kernels.triton_layer_norm(x, None, None),
        "bias": lambda: ln_kernels.fused_bias_layer_norm(x, x[0, 0, 0, 0], None, None, launch=loop),
        "gated": lambda: ln_kernels.layernorm_fn(x, None, None, launch=loop),
        "rms": lambda: ln_kernels.rmsnorm_fn(x, None, None, launch=loop),
    }


def main() -> dict[str, Any]:
    """Everything that the tests ask about."""
    rows._INTERPRETED = True  # the tensors that stand for the GPU's are on the CPU
    cuda = TARGETS[1]
    result: dict[str, Any] = {"compiled": {}, "defaults": {}}
    # Halves are held as they are, floats and sums as floats: loops must keep each in its type.
    big, half = torch.empty(3, 5, 7, 4, 40), torch.empty(3, 5, 7, 4, 40, dtype=torch.bfloat16)
    for target in TARGETS:
        done = result["compiled"][f"{target.backend} {target.arch}"] = []
        for name, call in calls_of(
            torch.empty(4, 100, dtype=torch.float16), torch.empty(100)
        ).items():
            done += [name for _ in compile_calls(target, call)]
        # Four leading dims to walk, of strides that nothing divides, in blocks of a looping kernel.
        for x in (big, half):
            for name, call in bare_calls(x[:2, :3, ::2, :3, :33]).items():
                done += [f"bare {name}" for _ in compile_calls(target, call)]
    for dtype, n in ((torch.float32, 16384), (torch.bfloat16, 4096)):
        for name, call in calls_of(torch.empty(4, n, dtype=dtype), torch.empty(n)).items():
            (kernel,) = compile_calls(cuda, call)
            result["defaults"][f"{name} {n} {dtype}"] = resources(kernel, cuda.arch)
    x, w = torch.empty(4, 4096), torch.empty(4096)
    result["fma"] = {}
    for fusion in (True, False):
        launch = LaunchConfig(4096, 8, fp_fusion=fusion)
        found = [compile_calls(cuda, call)[0] for call in calls_of(x, w, launch=launch).values()]
        result["fma"][str(fusion)] = [resources(kernel, cuda.arch)["fma"] for kernel in found]
    # One element a thread: the products meet those of other lanes at once.
    narrow = calls_of(torch.empty(4, 32), torch.empty(32), launch=LaunchConfig(32, 1))
    narrow |= {
        f"gated, then {name}": lambda rms=name == "rms": ln_kernels.layernorm_fn(
            torch.empty(4, 32),
            None,
            None,
            z=torch.empty(4, 32),
            norm_before_gate=False,
            is_rms_norm=rms,
            launch=LaunchConfig(32, 1),
        )
        for name in ("layer", "rms")
    }
    result["fused_with_neighbours"] = {
        name: fused_with_neighbours(compile_calls(cuda, call)[0].asm["ptx"])
        for name, call in narrow.items()
    }
    result["kernels_for_any_row_count"] = len(
        compile_calls(
            cuda,
            *[
                lambda m=m: ln_kernels.layernorm_fn(torch.empty(m, 4096), None, None, group_size=64)
                for m in (1, 2, 3, 16, 17, 70_000)
            ],
        )
    )
    result["kernels_for_any_leading_size"] = len(
        compile_calls(
            cuda,
            *[
                lambda m=m, k=k: ln_kernels.layer_norm(torch.empty(m, 32, 64)[:, :k], None, None)
                for m, k in ((2, 2), (3, 16), (16, 7))
            ],
        )
    )
    return result


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
