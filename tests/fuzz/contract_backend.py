"""Fake targets whose contract is what a file says, as it stands when a process begins.

Loaded in kernel processes by the path that BACKEND holds.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from fuzz.contract import from_data
from fuzz.relations import Run
from fuzz.spec import TargetSpec
from fuzz.verdict import Array, Bits, Damage, Hazard, Observation
from oracle.formats import decode, encode
from tests.fuzz import fake_backend
from tests.fuzz.fake_backend import FakeBackend, right

BACKEND = "tests.fuzz.contract_backend:ContractBackend"

# Names a file with today's contract, as JSON.
CONTRACT_FILE = "LN_FUZZ_TEST_CONTRACT"


def today() -> TargetSpec:
    return from_data(json.loads(Path(os.environ[CONTRACT_FILE]).read_text()))


def one_pass(run: Run, values: dict[str, Bits]) -> Observation:
    """In float32, the variance as the mean of the squares less the square of the mean."""
    case = run.case
    x = decode(values["x"], "float32").reshape(case.n_rows, case.n_cols).astype(np.float32)
    mean = x.mean(axis=1, keepdims=True)
    variance = (x * x).mean(axis=1, keepdims=True) - mean * mean
    y = (x - mean) / np.sqrt(variance + np.float32(case.eps))
    bits = encode(y.astype(np.float64).reshape(case.shape), "float32")
    return Observation(run.name, "ok", {"y": Array("float32", case.shape, bits)}, key=("kernel",))


def stores_to_x(run: Run, values: dict[str, Bits]) -> Observation:
    """Looked at as the kernel process does: elements of what may be written are not compared."""
    x = today().arg("x")
    assert x is not None
    damage = (Damage("x", "input", 0, 4),) if x.role == "in" else ()
    return replace(right(run, values), damage=damage)


def reads_others(run: Run, values: dict[str, Bits]) -> Observation:
    hazard = Hazard("conflicting_write", "y", "kernel", "y[0] is read by program 1")
    return replace(right(run, values), hazards=() if today().reads_after_atomics else (hazard,))


TARGETS = {function.__name__: function for function in (one_pass, stores_to_x, reads_others)}


class ContractBackend(FakeBackend):
    """Answers for the targets above, and with their contract for those of the other file."""

    def specs(self, name: str) -> tuple[TargetSpec, ...]:
        spec = today()
        return (spec,) if spec.name == name else super().specs(name)

    def run(self, target: str, run: Run, values: dict[str, Bits]) -> Observation:
        return {**fake_backend.TARGETS, **TARGETS}[target](run, values)
