"""Targets that need no torch: layer norm in NumPy, and each way in which a process can end.

Loaded in kernel processes by the path that BACKEND holds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from fuzz.case import Case, Launch, Recipe, TensorCase, contiguous_strides
from fuzz.fingerprint import Fingerprint, Part
from fuzz.jobs.failures import CONFIRM_RUNS
from fuzz.relations import Run
from fuzz.spec import ArgSpec, LaunchSpace, OutputSpec, Space, TargetSpec
from fuzz.verdict import Array, Bits, ErrorInfo, Observation
from oracle.arithmetic import Arithmetic
from oracle.formats import decode, encode

BACKEND = "tests.fuzz.fake_backend:FakeBackend"
UNFIT_BACKEND = "tests.fuzz.fake_backend:UnfitBackend"

# Read by the target "flaky": it fails while this file holds a number above zero.
FLAKY_FILE = "LN_FUZZ_TEST_FLAKY"
# Read by the target "shifted": it is right once this file exists.
FIXED_FILE = "LN_FUZZ_TEST_FIXED"

WRONG_FROM = 5
"""The target "wrong_tail" is wrong in the columns from this one on."""


def layer_norm(run: Run, values: dict[str, Bits]) -> np.ndarray:
    case = run.case
    x = decode(values["x"], case.dtype).reshape(case.n_rows, case.n_cols).astype(np.float64)
    centred = x - x.mean(axis=1, keepdims=True)
    variance = np.square(centred).mean(axis=1, keepdims=True)
    return centred / np.sqrt(variance + case.eps)


def right(run: Run, values: dict[str, Bits], change=lambda y: y) -> Observation:
    with np.errstate(all="ignore"):
        y = change(layer_norm(run, values))
    bits = encode(y.reshape(run.case.shape), run.case.dtype)
    key = (f"n_cols {run.case.n_cols}",)
    outputs = {"y": Array(run.case.dtype, run.case.shape, bits)}
    return Observation(run.name, "ok", outputs, key=key, seconds=1e-4)


def wrong_tail(run: Run, values: dict[str, Bits]) -> Observation:
    def change(y: np.ndarray) -> np.ndarray:
        y[:, WRONG_FROM:] += 1.0
        return y

    return right(run, values, change)


def shifted(run: Run, values: dict[str, Bits]) -> Observation:
    fixed = Path(os.environ[FIXED_FILE]).exists()
    return right(run, values, lambda y: y if fixed else y + 1.0)


def flaky(run: Run, values: dict[str, Bits]) -> Observation:
    path = Path(os.environ[FLAKY_FILE])
    left = int(path.read_text())
    path.write_text(str(left - 1))
    return right(run, values, lambda y: y + 1.0 if left > 0 else y)


def segfault(run: Run, values: dict[str, Bits]) -> Observation:
    ctypes.string_at(0)
    raise AssertionError("not reached")


def ages(run: Run, values: dict[str, Bits]) -> Observation:
    """Right for as many cases as one confirmation runs, then wrong until the process ends."""
    global _age
    _age += run.name == "base"
    return right(run, values, lambda y: y + 1.0 if _age > CONFIRM_RUNS else y)


_age = 0


def large_then_segfault(run: Run, values: dict[str, Bits]) -> Observation:
    return segfault(run, values) if run.name == "repeat" else too_large(run, values)


def segfault_in_second_run(run: Run, values: dict[str, Bits]) -> Observation:
    return segfault(run, values) if run.name == "repeat" else right(run, values)


def leave(run: Run, values: dict[str, Bits]) -> Observation:
    os._exit(3)


def hang(run: Run, values: dict[str, Bits]) -> Observation:
    time.sleep(600)
    raise AssertionError("not reached")


def spin(run: Run, values: dict[str, Bits]) -> Observation:
    # In C, with the interpreter's lock held: no signal handler of Python ever runs.
    while True:
        sum(range(10**12))


def cuda_error(run: Run, values: dict[str, Bits]) -> Observation:
    error = ErrorInfo("AcceleratorError", "an illegal memory access was encountered")
    return Observation(run.name, "cuda_error", error=error)


def too_large(run: Run, values: dict[str, Bits]) -> Observation:
    bits = np.arange(1 << 20, dtype=np.uint32).reshape(1024, 1024)
    outputs = {"y": Array("float32", bits.shape, bits)}
    return Observation(run.name, "ok", outputs)


def unsupported(run: Run, values: dict[str, Bits]) -> Observation:
    return Observation(run.name, "unsupported", error=ErrorInfo("Unsupported", "not on this moon"))


def slow(run: Run, values: dict[str, Bits]) -> Observation:
    time.sleep(0.05)
    return right(run, values)


def kills_its_engine(run: Run, values: dict[str, Bits]) -> Observation:
    os.kill(os.getppid(), signal.SIGKILL)
    return hang(run, values)


def broken_harness(run: Run, values: dict[str, Bits]) -> Observation:
    raise LookupError("a fault of the harness itself")


def process_id(run: Run, values: dict[str, Bits]) -> Observation:
    bits = np.array([[os.getpid()]], np.uint32)
    return Observation(run.name, "ok", {"y": Array("float32", (1, 1), bits)})


def says_environment(run: Run, values: dict[str, Bits]) -> Observation:
    seen = {
        "interpret": os.environ.get("TRITON_INTERPRET"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "torch": "torch" in sys.modules,
    }
    return Observation(run.name, "raised", error=ErrorInfo("Environment", repr(seen)))


TARGETS = {
    function.__name__: function
    for function in (
        right,
        wrong_tail,
        shifted,
        flaky,
        segfault,
        segfault_in_second_run,
        large_then_segfault,
        ages,
        leave,
        hang,
        spin,
        cuda_error,
        too_large,
        unsupported,
        slow,
        kills_its_engine,
        broken_harness,
        process_id,
        says_environment,
    )
}

DEFAULTS = ("right", "wrong_tail")


def spec_of(name: str) -> TargetSpec:
    return TargetSpec(
        name=name,
        args=(ArgSpec("x", dtypes=("float32",)),),
        outputs=(OutputSpec("y"),),
        arithmetic=Arithmetic(),
        launch=LaunchSpace(blocks=(32, 128, 1024), num_warps=(1,)),
        space=Space(max_rank=3, max_cols=600, empty_batch=False),
        devices=("cpu",),
        default=name in DEFAULTS,
        description=f"the fake target {name}",
    )


def case_of(
    name: str,
    *,
    rows: int = 4,
    cols: int = 20,
    seed: int = 1,
    relations: tuple[str, ...] = ("repeat", "row_alone"),
) -> Case:
    shape = (rows, cols)
    x = TensorCase("x", "float32", shape, contiguous_strides(shape), 0, Recipe("normal"))
    return Case(name, shape, 1, (x,), {}, 1e-5, Launch(32, 1, True), seed, relations)


class FakeBackend:
    """Answers for the targets above."""

    def __init__(self, device: str) -> None:
        self.device = device

    def names(self) -> tuple[str, ...]:
        return tuple(TARGETS)

    def specs(self, name: str) -> tuple[TargetSpec, ...]:
        if name not in TARGETS:
            raise ValueError(f"target={name!r}, must be one of {', '.join(TARGETS)}")
        return (spec_of(name),)

    def fingerprint(self, name: str, root: Path) -> Fingerprint:
        (spec,) = self.specs(name)
        part = Part(f"fake:{name}", "fake.py", 1, 2, f"digest of {name} in {root}", False)
        return Fingerprint(f"of {spec.name}", (part,))

    def run(self, target: str, run: Run, values: dict[str, Bits]) -> Observation:
        return TARGETS[target](run, values)


class UnfitBackend:
    """A backend that cannot be set up."""

    def __init__(self, device: str) -> None:
        raise ImportError("no module named 'a_dependency'")
