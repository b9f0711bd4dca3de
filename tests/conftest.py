"""Settings that must be in force before any test module is imported."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# One thread per process: pytest-xdist already uses every core, and thread pools on top of it make
# the suite slower. The libraries read these when they are first imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


def has_cuda() -> bool:
    # torch takes seconds to import, in every xdist worker: it is asked only where a driver is.
    if not any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    import torch

    return torch.cuda.is_available()


HAS_CUDA = has_cuda()
if not HAS_CUDA:
    # Triton reads this while kernels are being defined, so it must precede their import.
    os.environ.setdefault("TRITON_INTERPRET", "1")

settings.register_profile(
    "tests",
    # The suite must give the same answer twice: no random seed, no memory of earlier runs, and
    # nothing that depends on how busy the machine is.
    database=None,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    if HAS_CUDA:
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
