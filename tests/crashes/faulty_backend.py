"""The real backend, which has the target of a run fail where the plan says so.

Loaded in kernel processes by the path that BACKEND of :mod:`tests.crashes.faults` holds.
"""

from __future__ import annotations

import os
from pathlib import Path

from fuzz.process.kernel_worker import TorchBackend
from fuzz.relations import Run
from fuzz.verdict import Bits, Observation
from tests.crashes.faults import FOLDER, Planned, note_strike, read_plan

_due: Planned | None = None


def take_due() -> str | None:
    """The fault that the run in progress must have. Asked by the target, once a run."""
    if _due is None:
        return None
    note_strike(Path(os.environ[FOLDER]), _due)
    return _due.fault


class FaultyBackend(TorchBackend):
    """Runs as the real backend does, and knows which fault the target is to have."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self._folder = Path(os.environ[FOLDER])
        self._planned: Planned | None = None
        if device == "cuda":
            import torch

            # Taking up the GPU takes longer than the short time limits of these tests.
            torch.zeros(1, device="cuda")

    def run(self, target: str, run: Run, values: dict[str, Bits]) -> Observation:
        global _due
        # Runs other than the first may be of a case of their own: another shape, another id.
        if run.name == "base":
            self._planned = read_plan(self._folder, run.case.case_id)
        mine = self._planned is not None and self._planned.run == run.name
        _due = self._planned if mine else None
        return super().run(target, run, values)
