"""Chrome traces of a few calls: this project's kernel, and PyTorch eager."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from ln_kernels.benchmark.operations import OPERATIONS, Run, make_inputs
from ln_kernels.benchmark.points import Point
from ln_kernels.benchmark.sides import Field

CALLS = 10
"""Enough to see that they are alike."""


def write_traces(field: Field, point: Point, folder: Path, device: torch.device) -> list[Path]:
    """Write triton_profile.json, and pytorch_profile.json where eager takes part.

    They are read by chrome://tracing and by Perfetto.
    """
    operation = OPERATIONS[point.operation]
    inputs = make_inputs(operation, point.dtype, point.n_rows, point.n_cols, device)
    sides = field.sides(point.operation, inputs)
    ours = next(side for side in sides if side.ours)
    runs = {"triton_profile.json": ours.run}
    for side in sides:
        if side.name == "eager":
            runs["pytorch_profile.json"] = side.run
    written: list[Path] = []
    for name, run in runs.items():
        _trace(run, folder / name, device)
        written.append(folder / name)
    return written


def _trace(run: Run, path: Path, device: torch.device) -> None:
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with torch.no_grad():
        run()
        if cuda:
            torch.cuda.synchronize()
        with profile(activities=activities) as recorded:
            for _ in range(CALLS):
                run()
            if cuda:
                torch.cuda.synchronize()
    recorded.export_chrome_trace(str(path))
