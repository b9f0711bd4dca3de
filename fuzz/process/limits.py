"""What one case may take: seconds before it counts as hung, bytes of shared memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fuzz.relations import Run
from fuzz.spec import TargetSpec

TEXT_ROOM = 4096
"""Bytes of an outbox for all of an observation but its arrays."""


@dataclass(frozen=True)
class Limits:
    """Seconds that a case may take: ``base``, and more with its number of runs and its size."""

    base: float
    per_run: float
    per_program: float
    per_element: float

    def of(self, runs: tuple[Run, ...]) -> float:
        """The limit of a case with these runs."""
        programs = sum(run.case.programs for run in runs)
        elements = sum(math.prod(run.case.shape) for run in runs)
        return (
            self.base
            + self.per_run * len(runs)
            + self.per_program * programs
            + self.per_element * elements
        )


LIMITS = {
    # The interpreter takes about 1.3 ms a program and, where a narrow block walks a wide row,
    # up to 1 us an element. Twenty times that, and a base for wrappers that launch many kernels:
    # a group norm that also runs its backward took 22 s on a busy machine.
    "cpu": Limits(base=60.0, per_run=0.0, per_program=0.03, per_element=2e-5),
    # A cold specialisation takes up to 0.4 s alone, several times that where all runners of a
    # machine compile at once; copies to and from the device go at 1 GB/s or better.
    "cuda": Limits(base=30.0, per_run=5.0, per_program=0.0, per_element=1e-7),
}


def outbox_room(spec: TargetSpec, runs: tuple[Run, ...]) -> int:
    """Bytes that the observations of a case take, unless a target returns what it should not."""
    bytes_of_float32 = 4
    total = 0
    for run in runs:
        case = run.case
        sizes = {"full": math.prod(case.shape), "cols": case.n_cols}
        per_row = case.n_rows * max(case.n_groups, 1)
        elements = sum(sizes.get(output.shape, per_row) for output in spec.outputs)
        total += elements * bytes_of_float32 + TEXT_ROOM * (1 + len(spec.outputs))
    return total
