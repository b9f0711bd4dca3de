"""What the measurements were made on: the card and the versions."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any

import torch
import triton

from ln_kernels.benchmark.competitors import COMPETITORS

# Of CUDA's compute capability: lanes for fp32 of a multiprocessor.
FP32_LANES = {(8, 0): 64, (8, 6): 128, (8, 7): 128, (8, 9): 128, (9, 0): 128, (10, 0): 128}


def card() -> dict[str, Any]:
    """The current CUDA device."""
    properties = torch.cuda.get_device_properties()
    facts: dict[str, Any] = {
        "name": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "l2_mib": round(properties.L2_cache_size / 2**20, 1),
    }
    lanes = FP32_LANES.get((properties.major, properties.minor))
    if lanes:
        device = torch.cuda.current_device()
        driver: Any = triton.runtime.driver.active
        # PyTorch's own properties have no clock under CUDA 13.
        clock_khz = driver.utils.get_device_properties(device)["sm_clock_rate"]
        # Two operations a fused multiply-add.
        facts["fp32_gflops"] = round(2 * lanes * properties.multi_processor_count * clock_khz / 1e6)
    return facts


def versions(competitors: Sequence[str]) -> dict[str, str]:
    """Of Python, PyTorch, CUDA, Triton and the competitors' packages that are installed."""
    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "triton": triton.__version__,
    }
    for name in competitors:
        distribution = COMPETITORS[name].distribution
        if distribution not in found and COMPETITORS[name].installed:
            try:
                found[distribution] = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                found[distribution] = "unknown"
    return found
