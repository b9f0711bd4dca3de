"""A kernel process that works in a folder takes its imports from there first."""

from __future__ import annotations

import sys
from pathlib import Path

from fuzz.process.kernel_process import KernelProcess

BACKEND = """
import os
import sys

import ln_kernels


class Backend:
    def __init__(self, device):
        pass

    def names(self):
        return os.getcwd(), sys.path[0], ln_kernels.__file__
"""


def test_kernel_process_works_in_its_folder(tmp_path: Path) -> None:
    package = tmp_path / "ln_kernels"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / "a_backend.py").write_text(BACKEND)
    before = Path.cwd(), list(sys.path)
    with KernelProcess("cpu", backend="a_backend:Backend", folder=tmp_path) as kernel:
        seen = kernel.names()
        kernel.replace()
        assert kernel.names() == seen
    assert seen == (str(tmp_path), str(tmp_path), str(package / "__init__.py"))
    assert (Path.cwd(), sys.path) == before
