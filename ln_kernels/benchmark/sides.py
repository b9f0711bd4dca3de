"""Who takes part in a point: this project's kernels and the competitors, each verified first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ln_kernels.benchmark import promises
from ln_kernels.benchmark.competitors import COMPETITORS, Entry
from ln_kernels.benchmark.operations import KERNELS, Inputs, Operation, Run
from ln_kernels.benchmark.results import Measured, Status
from ln_kernels.benchmark.verify import Judge
from oracle.arithmetic import Arithmetic


class DeviceLost(Exception):
    """After an illegal access or the like every later call fails, whoever makes it."""


@dataclass(frozen=True)
class Side:
    """One implementation of an operation, on inputs that it holds."""

    name: str
    ours: bool
    run: Run
    returns: tuple[str | None, ...]
    arithmetics: tuple[Arithmetic, ...]


class Field:
    """The implementations that take part, loaded once."""

    def __init__(self, kernels: Sequence[str], competitors: Sequence[str]):
        self._kernels = tuple(kernels)
        self.competitors = tuple(competitors)
        self.absent = tuple(name for name in competitors if not COMPETITORS[name].installed)
        self._entries: dict[str, Mapping[str, Entry]] = {
            name: COMPETITORS[name].load() for name in competitors if name not in self.absent
        }

    @property
    def operations(self) -> list[str]:
        """The operations that the kernels do, each once, in the kernels' order."""
        return list(dict.fromkeys(KERNELS[name].operation.name for name in self._kernels))

    def kernels_of(self, operation: str) -> tuple[str, ...]:
        """The kernels that do an operation."""
        return tuple(k for k in self._kernels if KERNELS[k].operation.name == operation)

    def sides(self, operation: str, inputs: Inputs) -> list[Side]:
        """Ours, then the competitors that do the operation."""
        ours = [
            Side(name, True, KERNELS[name].bind(inputs), KERNELS[name].returns, promises.FUSED)
            for name in self.kernels_of(operation)
        ]
        others = [
            Side(name, False, entry.bind(inputs), entry.returns, entry.arithmetics)
            for name, entries in self._entries.items()
            if (entry := entries.get(operation)) is not None
        ]
        return ours + others


def verified(
    sides: Sequence[Side], operation: Operation, dtype: str, inputs: Inputs, *, interpreted: bool
) -> tuple[list[Side], list[Measured]]:
    """Those whose result is right, and what is to be said of the others.

    Raises: DeviceLost.
    """
    judge = Judge(operation, dtype, inputs, interpreted=interpreted)
    right: list[Side] = []
    rest: list[Measured] = []
    for side in sides:
        try:
            result = side.run()
            if inputs.x.is_cuda:
                torch.cuda.synchronize()
        except Exception as error:
            _check_device(inputs, side, error)
            status: Status = "failed" if side.ours else "refused"
            rest.append(Measured(side.name, side.ours, status, note=_brief(error)))
            continue
        fault = judge.fault(result, side.returns, side.arithmetics)
        if fault is None:
            right.append(side)
        else:
            rest.append(Measured(side.name, side.ours, "wrong", note=fault))
    return right, rest


def _check_device(inputs: Inputs, side: Side, error: Exception) -> None:
    try:
        if inputs.x.is_cuda:
            torch.cuda.synchronize()
    except Exception as lost:
        raise DeviceLost(f"{side.name}: {_brief(error)}") from lost


def _brief(error: Exception) -> str:
    """The error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]
