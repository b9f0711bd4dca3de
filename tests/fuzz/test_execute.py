"""The executor: what the target is handed, what is seen of what it does, and every way to end."""

import dataclasses
import hashlib
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton
from triton.compiler.compiler import LazyDict
from triton.compiler.errors import CompilationError
from triton.runtime import interpreter as stock
from triton.runtime.errors import InterpreterError, OutOfResources, PTXASError

from fuzz import execute, memory
from fuzz.builtin import Unsupported
from fuzz.case import Case, Launch, Recipe, TensorCase, contiguous_strides
from fuzz.execute import Executor, classify, describe_error, order_seed
from fuzz.relations import Run
from fuzz.verdict import POISON_BYTE, Bits, Damage, Observation, Poison
from oracle.formats import decode, encode

INTERPRETED = bool(triton.knobs.runtime.interpret)
interpreted_only = pytest.mark.skipif(not INTERPRETED, reason="is about the interpreter")

HEAD = """
import ctypes
import torch
import triton
import triton.language as tl
from fuzz.targets import target

@triton.jit
def scale_kernel(x_ptr, y_ptr, n_cols, stride, EXTRA: tl.constexpr, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    row = tl.program_id(0)
    value = tl.load(x_ptr + row * stride + cols, mask=cols < n_cols)
    tl.store(y_ptr + row * n_cols + cols, value * 2, mask=cols < n_cols + EXTRA)

def scale(x, y, extra=0, block=16):
    scale_kernel[(x.shape[0],)](x, y, x.shape[1], x.stride(0), extra, block)
    return y
"""


@pytest.fixture(scope="module")
def executor() -> Executor:
    return Executor("cpu" if INTERPRETED else "cuda")


class Bench:
    """Runs the target of a file written on the spot."""

    def __init__(self, executor: Executor, folder: Path) -> None:
        self.executor = executor
        self.path = folder / "kernels.py"

    def define(self, body: str) -> None:
        self.path.write_text(HEAD + textwrap.dedent(body), encoding="utf-8")

    def run(
        self,
        case: Case,
        *,
        poison: Poison = "nan",
        values: dict[str, Bits] | None = None,
        name: str = "mine",
    ) -> Observation:
        run = Run("base", case, poison=poison)
        values = values_of(case) if values is None else values
        return self.executor.run(f"{self.path.as_posix()}:{name}", run, values)


@pytest.fixture
def bench(executor: Executor, tmp_path: Path) -> Bench:
    return Bench(executor, tmp_path)


def tensor(
    name: str,
    shape: tuple[int, ...],
    dtype: str = "float32",
    strides: tuple[int, ...] | None = None,
    offset: int = 0,
    alias_of: str | None = None,
) -> TensorCase:
    recipe = None if name in ("out", "sum_out") else Recipe("normal")
    strides = contiguous_strides(shape) if strides is None else strides
    return TensorCase(name, dtype, shape, strides, offset, recipe, alias_of)


def case_of(*tensors: TensorCase, launch: Launch | None = None) -> Case:
    shape = tensors[0].shape
    return Case("mine", shape, 1, tensors, {}, 1e-5, launch or Launch(), 0)


def values_of(case: Case) -> dict[str, Bits]:
    """The numbers 1, 2, 3 ... in every input."""
    return {
        t.name: encode(np.arange(1.0, t.n_elements + 1).reshape(t.shape), t.dtype)
        for t in case.tensors
        if t.values is not None and t.alias_of is None
    }


X = tensor("x", (3, 10), strides=(13, 1), offset=2)
DOUBLE = np.arange(2.0, 62.0, 2.0).reshape(3, 10)


def poison_bits(poison: Poison, itemsize: int = 4) -> int:
    return int.from_bytes(bytes([POISON_BYTE[poison]]) * itemsize, "little")


def seen_y(seen: Observation) -> np.ndarray[Any, np.dtype[np.float64]]:
    assert seen.status == "ok", seen.error
    return decode(seen.outputs["y"].bits, seen.outputs["y"].dtype)


# --- what the target is handed, and what is read back --------------------------------------------


def test_executor_hands_over_the_cases_own_layouts(bench: Bench) -> None:
    bench.define(
        """
        @target(returns=("y", "mean"), dtypes=("bfloat16",))
        def mine(x, weight, out, eps, bias=None):
            assert bias is None and eps == 1e-5
            assert x.dtype == out.dtype == torch.bfloat16
            assert (x.shape, x.stride()) == ((2, 3, 4), (0, 6, 1))
            assert (out.shape, out.stride()) == ((2, 3, 4), (20, 6, 1))
            assert x.data_ptr() % 512 == 6 and out.data_ptr() % 512 == 2
            assert weight.data_ptr() % 512 == 0
            out.copy_(x * weight)
            return out, weight.sum().reshape(1)
        """
    )
    x = tensor("x", (2, 3, 4), "bfloat16", (0, 6, 1), 3)
    case = case_of(
        x, tensor("weight", (4,)), tensor("out", (2, 3, 4), "bfloat16", (20, 6, 1), offset=1)
    )
    seen = bench.run(case)
    rows = np.arange(1.0, 13.0).reshape(1, 3, 4) * np.arange(1.0, 5.0)
    np.testing.assert_array_equal(seen_y(seen), np.broadcast_to(rows, (2, 3, 4)))
    assert (seen.outputs["y"].dtype, seen.outputs["y"].shape) == ("bfloat16", (2, 3, 4))
    assert (seen.outputs["mean"].dtype, seen.outputs["mean"].shape) == ("float32", (1,))
    assert seen.outputs["y"].poisoned
    assert not seen.outputs["mean"].poisoned
    assert seen.damage == ()
    assert seen.run == "base"
    assert seen.seconds > 0


def test_executor_reads_outputs_of_any_layout(bench: Bench) -> None:
    bench.define(
        """
        @target()
        def mine(x, eps):
            y = torch.empty(x.shape[1], 2 * x.shape[0], device=x.device)[:, ::2].t()
            return y.copy_(x * 2)
        """
    )
    seen = bench.run(case_of(X))
    np.testing.assert_array_equal(seen_y(seen), DOUBLE)
    assert seen.outputs["y"].poisoned


def test_executor_returns_dense_copies_of_its_own(bench: Bench) -> None:
    bench.define("@target()\ndef mine(x, eps):\n    return scale(x, torch.empty_like(x))")
    case = case_of(tensor("x", (3, 10)))
    first = seen_y(bench.run(case))
    zeros = {"x": np.zeros((3, 10), np.uint32)}
    assert (seen_y(bench.run(case, values=zeros)) == 0).all()
    np.testing.assert_array_equal(first, DOUBLE)


@pytest.mark.parametrize("poison", ["nan", "huge", "-huge"])
def test_executor_poisons_memory_that_is_given(bench: Bench, poison: Poison) -> None:
    bench.define("@target()\ndef mine(x, out, eps):\n    out[:, :4] = x[:, :4]")
    case = case_of(X, tensor("out", (3, 10), strides=(11, 1)))
    array = bench.run(case, poison=poison).outputs["y"]
    assert array.poisoned
    assert (array.bits[:, 4:] == poison_bits(poison)).all()
    assert not (array.bits[:, :4] == poison_bits(poison)).any()


def test_executor_looks_for_an_output_in_the_tensor_that_was_given_for_it(bench: Bench) -> None:
    bench.define("@target()\ndef mine(x, out, eps):\n    return 2 * x")
    array = bench.run(case_of(X, tensor("out", (3, 10)))).outputs["y"]
    assert (array.bits == poison_bits("nan")).all()
    assert array.poisoned


def test_executor_passes_one_tensor_twice_where_out_is_an_input(bench: Bench) -> None:
    bench.define("@target()\ndef mine(x, out, eps):\n    assert out is x\n    x *= 2")
    out = dataclasses.replace(X, name="out", values=None, alias_of="x")
    seen = bench.run(case_of(X, out))
    np.testing.assert_array_equal(seen_y(seen), DOUBLE)
    assert not seen.outputs["y"].poisoned, "it held the input"
    assert seen.damage == ()


@pytest.mark.parametrize("dtype", ["float64", "int64", "complex64"])
def test_executor_hands_over_dtypes_that_are_refused(bench: Bench, dtype: str) -> None:
    bench.define(
        """
        @target()
        def mine(x, eps):
            assert not x.any()
            raise TypeError(f"x.dtype={x.dtype}, {x.shape[0]} by {x.shape[1]}")
        """
    )
    seen = bench.run(case_of(tensor("x", (3, 10), dtype, (13, 1), 2)), values={})
    assert seen.status == "raised"
    assert seen.error is not None
    assert (seen.error.type, seen.error.message) == ("TypeError", f"x.dtype=torch.{dtype}, 3 by 10")


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (2, 0, 4)])
def test_executor_hands_over_empty_tensors(bench: Bench, shape: tuple[int, ...]) -> None:
    bench.define("@target()\ndef mine(x, out, eps):\n    return torch.empty_like(x).copy_(x)")
    x = tensor("x", shape, strides=(8,) * (len(shape) - 1) + (1,), offset=3)
    seen = bench.run(case_of(x, tensor("out", shape)))
    assert seen.status == "ok"
    assert seen.outputs["y"].shape == shape


def test_executor_says_where_a_target_cannot_run(bench: Bench) -> None:
    bench.define("@target(devices=())\ndef mine(x, eps):\n    return x")
    seen = bench.run(case_of(X))
    assert seen.status == "unsupported"
    assert seen.error is not None
    assert "mine runs on , not on" in seen.error.message


@interpreted_only
@pytest.mark.parametrize(("device", "message"), [("cuda", "must not be set"), ("meta", "must be")])
def test_executor_refuses_a_device_that_does_not_fit(device: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Executor(device)


# --- what the target allocates -------------------------------------------------------------------

SPELLINGS = {
    "empty": "torch.empty(x.shape, device=x.device)",
    "empty sizes": "torch.empty(*x.shape, device=x.device, dtype=torch.float32)",
    "empty_like": "torch.empty_like(x)",
    "empty_strided": "torch.empty_strided(x.shape, (1, 3), device=x.device)",
    "empty_permuted": "torch.empty_permuted(x.shape, (1, 0), device=x.device)",
    "new_empty": "x.new_empty(x.shape)",
    "new_empty_strided": "x.new_empty_strided(x.shape, (12, 1))",
    "new": "x.new(*x.shape)",
    "a view of more": "torch.empty(2, *x.shape, device=x.device)[1]",
}
if INTERPRETED:
    SPELLINGS["Tensor"] = "torch.Tensor(*x.shape)"


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_allocations_are_poisoned_however_spelled(bench: Bench, spelling: str) -> None:
    bench.define(
        f"""
        @target()
        def mine(x, eps):
            y = {spelling}
            assert y.device == x.device
            y[:, 4:] = x[:, 4:] * 2
            return y
        """
    )
    for poison in ("nan", "huge", "-huge"):
        seen = bench.run(case_of(X), poison=poison)
        assert seen.status == "ok", seen.error
        array = seen.outputs["y"]
        assert array.poisoned
        assert (array.bits[:, :4] == poison_bits(poison)).all()
        np.testing.assert_array_equal(seen_y(seen)[:, 4:], DOUBLE[:, 4:])
        assert seen.damage == ()


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "bool", "complex128"])
def test_allocations_of_any_width_come_back(bench: Bench, dtype: str) -> None:
    bench.define(
        f"""
        @target()
        def mine(x, eps):
            y = torch.empty(x.shape, dtype=torch.{dtype}, device=x.device)
            return y.fill_(1)
        """
    )
    array = bench.run(case_of(X)).outputs["y"]
    assert (array.dtype, array.shape) == (dtype, (3, 10))
    # No integer is as wide as complex128, and nothing that is judged is.
    assert array.poisoned is (dtype != "complex128")
    assert array.bits.nbytes == 30 * torch.empty(0, dtype=getattr(torch, dtype)).element_size()


@pytest.mark.parametrize(
    "made", ["torch.zeros_like(x) + 2 * x", "torch.full_like(x, 3.0)", "2 * x"]
)
def test_memory_made_otherwise_is_not_called_poisoned(bench: Bench, made: str) -> None:
    bench.define(f"@target()\ndef mine(x, eps):\n    return {made}")
    seen = bench.run(case_of(X))
    assert seen.status == "ok"
    assert not seen.outputs["y"].poisoned


@interpreted_only
@pytest.mark.parametrize(
    ("offset", "n_bytes", "damage"),
    [
        (120, 6, Damage("y", "after", 30, 6)),
        (-4, 4, Damage("y", "before", -1, 4)),
        (0, 120, None),
    ],
)
def test_allocations_have_red_zones(
    bench: Bench, offset: int, n_bytes: int, damage: Damage | None
) -> None:
    bench.define(
        f"""
        @target()
        def mine(x, eps):
            spare, y = x.new_empty(4), x.new_empty(x.shape)
            ctypes.memset(y.data_ptr() + {offset}, 0, {n_bytes})
            return y
        """
    )
    assert bench.run(case_of(X)).damage == (() if damage is None else (damage,))


@interpreted_only
def test_allocations_that_are_not_returned_are_watched_too(bench: Bench) -> None:
    bench.define(
        """
        @target()
        def mine(x, eps):
            spare, y = x.new_empty(4), x.new_empty(x.shape)
            ctypes.memset(spare.data_ptr() + 16, 0, 1)
            return y
        """
    )
    assert bench.run(case_of(X)).damage == (Damage("allocation 0", "after", 4, 1),)


def test_allocations_that_are_kept_are_never_reused(bench: Bench) -> None:
    bench.define(
        """
        KEPT = []

        @target()
        def mine(x, eps):
            if not KEPT:
                KEPT.append(torch.empty_like(x).fill_(7.0))
            return torch.empty_like(x).copy_(KEPT[0])
        """
    )
    for _ in range(3):
        assert (seen_y(bench.run(case_of(X), poison="huge")) == 7.0).all()


# --- damage --------------------------------------------------------------------------------------


def test_damage_to_an_input_is_seen(bench: Bench) -> None:
    bench.define(
        """
        @target()
        def mine(x, eps):
            x[1, 2:4].view(torch.int32).bitwise_not_()
            return x.clone()
        """
    )
    assert bench.run(case_of(X)).damage == (Damage("x", "input", 2 + 13 + 2, 8),)


def test_damage_between_rows_is_seen(bench: Bench) -> None:
    bench.define(
        """
        @target()
        def mine(x, out, eps):
            out.as_strided((2, 13), (13, 1)).fill_(1.0)
            out.fill_(2.0)
        """
    )
    case = case_of(X, tensor("out", (3, 10), strides=(13, 1), offset=2))
    assert bench.run(case).damage == (Damage("out", "gap", 2 + 10, 24),)


@interpreted_only
def test_damage_by_a_kernel_is_refused_with_its_line(bench: Bench) -> None:
    bench.define("@target()\ndef mine(x, eps):\n    return scale(x, torch.empty_like(x), extra=2)")
    seen = bench.run(case_of(tensor("x", (3, 10))))
    assert seen.status == "out_of_bounds"
    assert seen.error is not None
    assert seen.error.type == "OutOfBounds"
    assert "write outside 'y_ptr', at element 30 (float32), 2 of 12 lanes" in seen.error.message
    assert "tl.store(y_ptr" in seen.error.message


@interpreted_only
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("scale_kernel[(1,)](x, out, 12, 13, 0, 16)", "read outside 'x', at element 10"),
        ("scale_kernel[(1,)](x[:, 12:], out, 1, 1, 0, 1)", "read outside 'x'"),
        ("scale_kernel[(1,)](out, x, 1, 1, 0, 1)", "write to read-only 'x', at element 0"),
    ],
    ids=["gap", "offset into a gap", "input"],
)
def test_kernels_may_touch_the_elements_alone(bench: Bench, body: str, message: str) -> None:
    if "12:" in body:
        body = body.replace("x[:, 12:]", "x.as_strided((1, 1), (1, 1), x.storage_offset() + 11)")
    bench.define(f"@target()\ndef mine(x, out, eps):\n    {body}")
    seen = bench.run(case_of(X, tensor("out", (3, 20))))
    assert seen.status == "out_of_bounds", seen
    assert seen.error is not None
    assert message in seen.error.message


@interpreted_only
@pytest.mark.parametrize("poison", ["nan", "huge", "-huge"])
def test_undefined_lanes_hold_the_runs_poison(bench: Bench, poison: Poison) -> None:
    # The lanes past n_cols are loaded without `other` and stored.
    bench.define(
        """
        @target()
        def mine(x, out, eps):
            scale_kernel[(1,)](x, out, 3, 1, 1, 4)
        """
    )
    case = case_of(tensor("x", (1, 3)), tensor("out", (1, 4)))
    bits = bench.run(case, poison=poison).outputs["y"].bits[0]
    with np.errstate(over="ignore"):
        doubled = np.array(poison_bits(poison), np.uint32).view(np.float32) * np.float32(2)
    np.testing.assert_array_equal(bits.view(np.float32), np.float32([2, 4, 6, doubled]))


@interpreted_only
def test_storage_that_a_kernel_owns_is_its_gaps_too(bench: Bench) -> None:
    bench.define(
        """
        import dataclasses

        def owning(target, *names):
            args = tuple(
                dataclasses.replace(arg, owns_storage=arg.name in names) for arg in target.spec.args
            )
            return dataclasses.replace(target, spec=dataclasses.replace(target.spec, args=args))

        @target(strided=True)
        def mine(x, out, eps):
            # One row, as wide as the storage but for what lies before it.
            scale_kernel[(1,)](x, out, 36, 0, 0, 64)

        all_of_x = owning(mine, "x")
        all_of_out = owning(mine, "out")
        both = owning(mine, "x", "out")

        @target(strided=True)
        def behind(x, out, eps):
            ctypes.memset(out.data_ptr() - 4, 0, 4)
            ctypes.memset(out.data_ptr() + 36 * 4, 0, 4)

        behind = owning(behind, "out")
        """
    )
    case = case_of(X, tensor("out", (3, 10), strides=(13, 1), offset=2))
    messages = {}
    for name in ("mine", "all_of_x", "all_of_out"):
        seen = bench.run(case, name=name)
        assert seen.status == "out_of_bounds"
        assert seen.error is not None
        messages[name] = seen.error.message
    assert messages["mine"].startswith("read outside 'x', at element 10")
    assert messages["all_of_x"].startswith("write outside 'out', at element 10")
    assert messages["all_of_out"].startswith("read outside 'x', at element 10")
    seen = bench.run(case, name="both")
    np.testing.assert_array_equal(seen_y(seen), DOUBLE)
    assert (seen.damage, seen.hazards) == ((), ())
    # Red zones are nobody's; the elements before an offset are the storage's.
    assert bench.run(case, name="behind").damage == (Damage("out", "after", 38, 4),)


# --- hazards, and the order of programs -----------------------------------------------------------

ORDERS = """
import dataclasses

@triton.jit
def order_kernel(y_ptr, turn_ptr):
    tl.store(y_ptr + tl.atomic_add(turn_ptr, 1), tl.program_id(0).to(tl.float32))

@target()
def mine(x, eps):
    y = torch.empty_like(x)
    turn = torch.zeros(1, dtype=torch.int32, device=x.device)
    order_kernel[(x.numel(),)](y, turn)
    return y

spec = dataclasses.replace(mine.spec, reads_after_atomics=True)
ordered = dataclasses.replace(mine, spec=spec)
"""


@interpreted_only
def test_programs_run_in_an_order_of_the_case_and_run(bench: Bench) -> None:
    bench.define(ORDERS)
    case = case_of(tensor("x", (20,)))

    def order(name: str, case: Case, run: str) -> tuple[float, ...]:
        target = f"{bench.path.as_posix()}:{name}"
        seen = bench.executor.run(target, Run(run, case), values_of(case))
        assert seen.hazards == ()
        return tuple(seen_y(seen))

    other = dataclasses.replace(case, seed=1)
    asked = [(c, run) for c in (case, other) for run in ("base", "repeat")]
    orders = [order("mine", *item) for item in asked]
    assert [order("mine", *item) for item in asked] == orders
    assert len(set(orders)) == 4
    assert all(sorted(found) == list(range(20)) != list(found) for found in orders)
    assert {order("ordered", *item) for item in asked} == {tuple(range(20))}


def test_order_of_a_run_is_decided_by_its_name_and_case() -> None:
    case = case_of(X)
    digest = hashlib.sha256(f"{case.case_id} repeat".encode()).hexdigest()
    assert order_seed(Run("repeat", case)).to_bytes(8, "little").hex() == digest[:16]
    # The one run that differs from the base run in nothing but poison.
    assert order_seed(Run("poisoned", case)) == order_seed(Run("base", case))


HAZARDS = """
@triton.jit
def add_kernel(x_ptr, sums_ptr, n_cols, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * n_cols + cols, mask=cols < n_cols, other=0.0)
    sums = tl.load(sums_ptr + cols, mask=cols < n_cols, other=0.0)
    tl.store(sums_ptr + cols, sums + x, mask=cols < n_cols)

def sums_of(x, sums, n_rows):
    add_kernel[(n_rows,)](x, sums, x.shape[1], 16)
    return torch.empty_like(x).copy_(x)
"""

SCRATCH = {
    "empty": ("torch.empty(10, device=x.device)", 10),
    "zeros": ("torch.zeros(10, device=x.device)", 0),
    "zero_": ("torch.empty(10, device=x.device).zero_()", 0),
    "fill_ nan": ("torch.empty(10, device=x.device).fill_(torch.nan)", 0),
    "copy_": ("torch.empty(10, device=x.device).copy_(x[0])", 0),
    "out=": ("torch.add(x[0], 1, out=torch.empty(10, device=x.device))", 0),
    "a view": ("y = torch.empty(2, 10, device=x.device); y[1].zero_(); y = y[1]", 0),
    "every other": ("y = torch.empty(10, device=x.device); y[::2] = 0.0", 5),
    "list": (
        "y = torch.empty(10, device=x.device); "
        "torch._foreach_copy_([y.view(torch.int32)], [torch.full((10,), -1, dtype=torch.int32)])",
        0,
    ),
    "in place view": ("y = torch.empty(1, 10, device=x.device).squeeze_(0)", 10),
    "with the bits of poison": (
        "y = torch.empty(10, device=x.device); y.view(torch.int32).fill_(-1)",
        0,
    ),
    "given to a launch before": (
        "y = torch.empty(10, device=x.device); scale_kernel[(1,)](x, y, 0, 1, 0, 16)",
        10,
    ),
    "numpy": ("y = torch.empty(10, device=x.device); y.numpy()[1:] = 0.0", 1),
    "reused": ("y = torch.empty(10, device=x.device); scale(x[:1] * 1, y[None])", 0),
}


@interpreted_only
@pytest.mark.parametrize(("made", "n_bare"), SCRATCH.values(), ids=SCRATCH.keys())
def test_scratch_must_be_written_before_it_is_read(bench: Bench, made: str, n_bare: int) -> None:
    made = made if made.startswith("y = ") else f"y = {made}"
    bench.define(
        HAZARDS
        + f"""
@target()
def mine(x, eps):
    {made}
    return sums_of(x, y, 1)
"""
    )
    for poison in ("nan", "huge"):
        seen = bench.run(case_of(tensor("x", (3, 10))), poison=poison)
        assert seen.status == "ok", seen.error
        if not n_bare:
            assert seen.hazards == ()
            continue
        (hazard,) = seen.hazards
        assert (hazard.kind, hazard.tensor) == ("uninitialised_read", "sums_ptr")
        assert f"(float32), {n_bare} of 10 lanes [add_kernel, program (0, 0, 0)" in hazard.message


@interpreted_only
def test_given_output_must_be_written_before_it_is_read(bench: Bench) -> None:
    bench.define(HAZARDS + "\n@target()\ndef mine(x, out, eps):\n    sums_of(x, out, 1)\n")
    x = tensor("x", (1, 10))
    (hazard,) = bench.run(case_of(x, tensor("out", (1, 10)))).hazards
    assert (hazard.kind, hazard.tensor, hazard.count) == ("uninitialised_read", "out", 1)
    # An input that is the output as well has its values, whichever they are.
    case = case_of(x, dataclasses.replace(x, name="out", alias_of="x"))
    values = {"x": np.full((1, 10), poison_bits("nan"), np.uint32)}
    assert bench.run(case, values=values).hazards == ()


@interpreted_only
def test_programs_that_add_to_one_row_are_told(bench: Bench) -> None:
    bench.define(
        HAZARDS + "\n@target()\ndef mine(x, eps):\n    return sums_of(x, torch.zeros(10), 3)\n"
    )
    hazards = bench.run(case_of(tensor("x", (3, 10)))).hazards
    assert [(h.kind, h.tensor, h.count) for h in hazards] == [
        ("conflicting_write", "sums_ptr", 2),
        ("conflicting_write", "sums_ptr", 2),
    ]
    assert hazards[0].message.startswith("read of 'sums_ptr', at element 0 (float32), 10 of 10")
    assert "where program (" in hazards[0].message


@interpreted_only
def test_lock_protects_a_target_that_declares_it(bench: Bench) -> None:
    bench.define(
        """
        import dataclasses

        @triton.jit
        def locked_kernel(x_ptr, sum_ptr, lock_ptr):
            x = tl.load(x_ptr + tl.program_id(0))
            while tl.atomic_cas(lock_ptr, 0, 1) == 1:
                pass
            tl.store(sum_ptr, tl.load(sum_ptr) + x)
            tl.atomic_xchg(lock_ptr, 0)

        @target()
        def mine(x, eps):
            y = torch.zeros_like(x)
            locked_kernel[(x.numel(),)](x, y, torch.zeros(1, dtype=torch.int32, device=x.device))
            return y

        spec = dataclasses.replace(mine.spec, reads_after_atomics=True)
        declared = dataclasses.replace(mine, spec=spec)
        """
    )
    for name, kinds in (("mine", {"conflicting_write"}), ("declared", set())):
        seen = bench.run(case_of(tensor("x", (8,))), name=name)
        assert seen_y(seen)[0] == 36
        assert {hazard.kind for hazard in seen.hazards} == kinds


@interpreted_only
def test_hazards_before_a_failure_are_kept(bench: Bench) -> None:
    bench.define(
        HAZARDS
        + """
@target()
def mine(x, eps):
    sums_of(x, torch.empty(10), 1)
    raise ValueError("late")

@target()
def astray(x, eps):
    sums_of(x, torch.empty(10), 1)
    return scale(x, torch.empty_like(x), extra=2)
"""
    )
    for name, status in (("mine", "raised"), ("astray", "out_of_bounds")):
        seen = bench.run(case_of(tensor("x", (1, 10))), name=name)
        assert seen.status == status
        assert [h.kind for h in seen.hazards] == ["uninitialised_read"]


@interpreted_only
def test_neighbours_of_what_is_not_written_are_told(bench: Bench) -> None:
    bench.define(
        """
        @target()
        def mine(x, eps):
            y = torch.empty_like(x)
            return scale(x[:2], y, extra=-3), scale(x, torch.empty_like(x)).mean(1)

        @target()
        def given(x, out, eps):
            scale(x, out, extra=-1)
        """
    )
    bench.path.write_text(
        bench.path.read_text().replace("@target()", '@target(returns=("y", "mean"))', 1)
    )
    case = case_of(tensor("x", (3, 10)))
    line = HEAD[: HEAD.index("tl.store")].count("\n") + 1
    neighbours = bench.run(case).neighbours
    assert neighbours == {"y": f"program (0, 0, 0) wrote y[0, 0:7] at kernels.py:{line}"}
    case = case_of(tensor("x", (3, 10)), tensor("out", (3, 10)))
    neighbours = bench.run(case, name="given").neighbours
    assert neighbours == {"y": f"program (0, 0, 0) wrote y[0, 0:9] at kernels.py:{line}"}


@interpreted_only
def test_memory_of_the_call_may_be_named_by_a_pointer_in_memory(bench: Bench) -> None:
    bench.define(
        """
        @triton.jit
        def follow_kernel(where_ptr, y_ptr, n, BLOCK: tl.constexpr):
            at = tl.arange(0, BLOCK)
            x_ptr = tl.load(where_ptr).to(tl.pointer_type(tl.float32))
            tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)

        @target()
        def mine(x, eps):
            y, copy = torch.empty_like(x), torch.empty_like(x).copy_(x)
            where = torch.tensor([copy.data_ptr()], device=x.device)
            follow_kernel[(1,)](where, y, x.numel(), 32)
            return y
        """
    )
    seen = bench.run(case_of(tensor("x", (3, 10))))
    np.testing.assert_array_equal(seen_y(seen), DOUBLE / 2)
    assert seen.hazards == ()


# --- the specialisation key ----------------------------------------------------------------------

KEYS = """
@target(configs=({"extra": 0}, {"extra": 0, "block": 32}))
def mine(x, eps, config):
    return scale(x, torch.empty_like(x), **config)

@target()
def twice(x, eps):
    return scale(x, scale(x, torch.empty_like(x)))

@target()
def torch_only(x, eps):
    return torch.empty_like(x).copy_(x)

@target()
def mixed(x, eps):
    return scale(x + 1, torch.empty_like(x))

@target()
def moved(x, eps):
    return scale(x.float().contiguous().view(-1, x.shape[1]), torch.zeros_like(x))
"""


def test_key_names_the_kernels_in_order(bench: Bench) -> None:
    bench.define(KEYS)
    x = tensor("x", (3, 10))
    keys = {n: bench.run(case_of(x), name=n).key for n in ("twice", "torch_only", "mixed", "moved")}
    first, other = (bench.run(case_of(x, launch=Launch(config=i))).key for i in (0, 1))
    assert first is not None and other is not None
    assert first != other
    assert "scale_kernel" in first[0]
    assert keys["twice"] == first * 2
    assert keys["moved"] == first, "copies and conversions depend on no layout"
    assert keys["torch_only"] is None
    assert keys["mixed"] is None, "torch's own arithmetic is no part of the key"


@interpreted_only
def test_key_of_interpreted_launches_ignores_layout_and_poison(bench: Bench) -> None:
    bench.define(KEYS)
    keys = {
        bench.run(case_of(x), poison=poison, name="twice").key
        for x in (X, tensor("x", (3, 10)), tensor("x", (1, 10)))
        for poison in ("nan", "huge")
    }
    assert len(keys) == 1


def test_key_of_compiled_launches_is_the_function() -> None:
    hook = triton.knobs.runtime.launch_enter_hook
    before = list(hook.calls)
    with execute._launches(interpreted=False) as found:
        hook(LazyDict({"name": "kernel", "function": 0xABC, "stream": 0}))
        hook(LazyDict({"name": "other", "function": 0xDEF, "stream": 0}))
    assert found == ["kernel@0xabc", "other@0xdef"]
    assert hook.calls == before
    hook(LazyDict({"name": "late", "function": 1, "stream": 0}))
    assert len(found) == 2


# --- every way to end ----------------------------------------------------------------------------

ENDS = {
    "a wrapper's own": ("raise ValueError('n_cols=0, must be >= 1')", "raised", "ValueError"),
    "exit": ("raise SystemExit(3)", "raised", "SystemExit"),
    "no tensor": ("return [1.0]", "raised", "TypeError"),
    "sparse": ("return x.to_sparse()", "raised", "TypeError"),
    "memory": ("raise MemoryError", "out_of_memory", "MemoryError"),
    "allocation": ("torch.empty(1 << 60, device=x.device)", "out_of_memory", "MemoryError"),
    "allocator": ("torch.ones(1 << 60, device=x.device)", "out_of_memory", "RuntimeError"),
    "not here": (
        "from fuzz.builtin import Unsupported; raise Unsupported('by design')",
        "unsupported",
        "Unsupported",
    ),
}


@interpreted_only
@pytest.mark.parametrize(("body", "status", "kind"), ENDS.values(), ids=ENDS.keys())
def test_run_ends_with_a_status(bench: Bench, body: str, status: str, kind: str) -> None:
    bench.define(f"@target()\ndef mine(x, eps):\n    {body}")
    seen = bench.run(case_of(X))
    assert seen.status == status
    assert seen.error is not None
    assert seen.error.type == kind
    assert seen.outputs == {} and seen.key is None


def test_run_describes_an_error_with_the_users_line(bench: Bench) -> None:
    bench.define("@target()\ndef mine(x, eps):\n    return x.no_such_method()  # mine")
    seen = bench.run(case_of(X))
    assert seen.error is not None
    assert seen.error.type == "AttributeError"
    assert "no_such_method" in seen.error.message
    assert "return x.no_such_method()  # mine" in seen.error.trace


@interpreted_only
def test_run_names_a_kernels_error_and_not_the_interpreters(bench: Bench) -> None:
    bench.define("@target()\ndef mine(x, eps):\n    return scale(x, torch.empty_like(x), block=15)")
    seen = bench.run(case_of(X))
    assert seen.status == "raised"
    assert seen.error is not None
    assert seen.error.type == "ValueError"
    assert "power of 2" in seen.error.message


def caused(error: Exception) -> Exception:
    outer = InterpreterError("outer")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CompilationError("src", None, "bad"), "compile_error"),
        (OutOfResources(300_000, 232_448, "shared memory"), "compile_error"),
        (PTXASError("ptxas died"), "compile_error"),
        (RuntimeError("PassManager::run failed"), "compile_error"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out_of_memory"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "out_of_memory"),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access"), "cuda_error"),
        (RuntimeError("CUDA error: device-side assert triggered"), "cuda_error"),
        (torch.AcceleratorError("CUDA error: misaligned address"), "cuda_error"),
        (RuntimeError("shape mismatch"), "raised"),
        (Unsupported("not here"), "unsupported"),
        (caused(MemoryError()), "out_of_memory"),
        (caused(caused(ValueError("inner"))), "raised"),
        (InterpreterError("alone"), "raised"),
    ],
    ids=str,
)
def test_error_class_decides_the_status(error: Exception, status: str) -> None:
    assert classify(error)[0] == status


def test_error_of_the_compiler_behind_torch_compile_is_one_of_compilation() -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    error = BackendCompilerFailed(lambda graph, inputs: graph, RuntimeError("no"), None)
    assert classify(error)[0] == "compile_error"


def test_error_text_is_short() -> None:
    info = describe_error(RuntimeError("x" * 100_000))
    assert len(info.message) == 4000
    assert len(info.trace) == 4000


# --- the state of torch and Triton around a run --------------------------------------------------


@interpreted_only
def test_run_leaves_torch_and_triton_as_they_were(bench: Bench) -> None:
    def state() -> list[Any]:
        return [
            stock.GridExecutor.__call__,
            type(stock.interpreter_builder),
            torch.cuda.device,
            torch.cuda.device_of,
            torch.is_grad_enabled(),
            torch._C._len_torch_dispatch_stack(),
        ]

    bench.define("@target()\ndef mine(x, eps):\n    assert eps < 1\n    return scale(x, 2 * x)")
    before = state()
    assert bench.run(case_of(X)).status == "ok"
    assert state() == before
    bad = dataclasses.replace(case_of(X), eps=2.0)
    assert bench.run(bad).status == "raised"
    assert state() == before


@interpreted_only
def test_wrappers_that_select_a_gpu_run_without_one(bench: Bench) -> None:
    bench.define(
        """
        @target()
        def mine(x, eps):
            with torch.cuda.device(x.device), torch.cuda.device_of(x):
                return torch.empty_like(x).copy_(x)
        """
    )
    assert bench.run(case_of(X)).status == "ok"


@interpreted_only
def test_run_loads_no_compiler(tmp_path: Path) -> None:
    """Importing torch's takes a second of each start of a kernel process."""
    import subprocess

    path = tmp_path / "kernels.py"
    path.write_text(
        HEAD + "@target()\ndef mine(x, eps):\n    return scale(x, torch.empty_like(x))\n",
        encoding="utf-8",
    )
    program = f"""
import sys, numpy as np
from fuzz.case import Case, Launch, Recipe, TensorCase
from fuzz.execute import Executor
from fuzz.relations import Run
x = TensorCase("x", "float32", (2, 4), (4, 1), 0, Recipe("normal"))
case = Case("mine", (2, 4), 1, (x,), {{}}, 1e-5, Launch(), 0)
seen = Executor("cpu").run({str(path)!r}, Run("base", case), {{"x": np.zeros((2, 4), np.uint32)}})
print(seen.status, "torch._dynamo" in sys.modules)
"""
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ["ok", "False"], result.stderr


@interpreted_only
def test_watching_lets_torch_compile_compile(bench: Bench) -> None:
    bench.define(
        """
        RUNS = []

        def backend(graph, inputs):
            def run(*args):
                RUNS.append(1)
                return graph.forward(*args)
            return run

        @torch.compile(backend=backend)
        def double(x):
            return torch.empty_like(x).copy_(x * 2)

        @target()
        def mine(x, eps):
            before = len(RUNS)
            y = double(x)
            assert len(RUNS) == before + 1, "ran eager"
            return y
        """
    )
    for x in (X, tensor("x", (3, 11)), X):
        assert bench.run(case_of(x)).status == "ok", bench.run(case_of(x)).error


@interpreted_only
def test_watching_is_hidden_from_the_compiler(bench: Bench) -> None:
    # A break inside a loop leaves the function to run eager, and what it calls to be compiled.
    bench.define(
        """
        @torch.compile(backend="eager")
        def double(x):
            for _ in range(2):
                torch._dynamo.graph_break()
                y = torch.empty_like(x)
            return y.copy_(x * 2)

        @target()
        def mine(x, eps):
            return double(x)
        """
    )
    seen = bench.run(case_of(X))
    np.testing.assert_array_equal(seen_y(seen), DOUBLE)
    assert seen.outputs["y"].poisoned


# --- autotuned kernels ---------------------------------------------------------------------------

AUTOTUNED = """
CONFIGS = [
    triton.Config({"BLOCK": 16}, num_warps=2),
    triton.Config({"BLOCK": 32}, num_warps=4, num_stages=2),
    triton.Config({"BLOCK": 64}, num_warps=8),
]

@triton.autotune(CONFIGS, key=["n"])
@triton.jit
def tuned(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + cols, mask=cols < n, other=0.0)
    tl.store(y_ptr + cols, x + BLOCK, mask=cols < n)

@triton.heuristics({"EVEN": lambda args: args["n"] % 2 == 0})
@triton.autotune(CONFIGS[:2], key=["n"])
@triton.jit
def wrapped(x_ptr, y_ptr, n, EVEN: tl.constexpr, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + cols, mask=cols < n, other=0.0)
    tl.store(y_ptr + cols, x + BLOCK * 100, mask=cols < n)

@target(autotuned=[tuned])
def mine(x, eps):
    y = torch.empty_like(x)
    tuned[(1,)](x, y, x.numel())
    return y

@target(autotuned=[tuned, wrapped])
def both(x, eps):
    y = torch.empty_like(x)
    tuned[(1,)](x, y, x.numel())
    wrapped[(1,)](y, y, x.numel())
    return y
"""


def test_autotuned_kernels_run_the_pinned_config(bench: Bench) -> None:
    bench.define(AUTOTUNED)
    x = tensor("x", (1, 8))
    spec = bench.executor.spec(f"{bench.path.as_posix()}:mine")
    assert [dict(c)["BLOCK"] for c in spec.launch.configs] == [16, 32, 64]
    assert dict(spec.launch.configs[1])["num_warps"] == 4
    for index, block in ((1, 32), (0, 16), (2, 64), (1, 32)):
        seen = bench.run(case_of(x, launch=Launch(config=index)))
        np.testing.assert_array_equal(seen_y(seen), np.arange(1.0, 9.0)[None] + block)
        assert seen.key is not None and len(seen.key) == 1


def test_autotuned_kernels_each_have_a_config_of_the_product(bench: Bench) -> None:
    bench.define(AUTOTUNED)
    x = tensor("x", (1, 8))
    spec = bench.executor.spec(f"{bench.path.as_posix()}:both")
    assert len(spec.launch.configs) == 6
    for index in (0, 1, 5):
        config = dict(spec.launch.configs[index])
        added = config["tuned.BLOCK"] + 100 * config["wrapped.BLOCK"]  # type: ignore[operator]
        seen = bench.run(case_of(x, launch=Launch(config=index)), name="both")
        np.testing.assert_array_equal(seen_y(seen), np.arange(1.0, 9.0)[None] + added)


def test_autotuned_kernels_have_all_configs_again_after_a_run(bench: Bench) -> None:
    bench.define(AUTOTUNED + "\n@target(autotuned=[tuned])\ndef bad(x, eps):\n    raise ValueError")
    assert bench.run(case_of(X, launch=Launch(config=1)), name="bad").status == "raised"
    tuner = next(
        value
        for name, module in sys.modules.items()
        if name.startswith("ln_fuzz_target_") and module.__file__ == str(bench.path)
        for key, value in vars(module).items()
        if key == "tuned"
    )
    assert len(tuner.configs) == 3


# --- the path of a GPU's memory, walked without one ----------------------------------------------


class PlainStaging(memory.Staging):
    """Host memory that is not page-locked."""

    def up(self, size: int) -> torch.Tensor:
        self._up = torch.empty(size, dtype=torch.uint8)
        return self._up

    def down(self, size: int) -> torch.Tensor:
        self._down = torch.empty(size, dtype=torch.uint8)
        return self._down


@interpreted_only
def test_device_memory_is_copied_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    x = tensor("x", (3, 10), "bfloat16", (13, 1), 2)
    case = case_of(
        x, tensor("z", (0, 4)), tensor("weight", (10,)), tensor("out", (3, 10), strides=(11, 1))
    )
    here = memory.Memory(
        case, frozenset({"out"}), values_of(case), "huge", torch.device("cpu"), PlainStaging()
    )
    with memory.Watch(here) as watch:
        given = here.tensors
        assert given["x"].stride() == (13, 1) and given["z"].shape == (0, 4)
        assert given["out"].is_contiguous() is False
        assert (given["x"].data_ptr() - here.address) % 512 == 4
        own = torch.empty(4, 10)[:, ::2]
        own[1:] = 1.0
        given["out"][:, 1:].copy_(given["x"][:, 1:])
        given["weight"][3:4].view(torch.int32).fill_(-1)
        torch.empty(5).as_strided((2,), (1,), 5 + own.storage_offset()).fill_(0.0)
    arrays, damage = here.collect({"y": given["out"], "own": own, "made": torch.ones(2)})
    assert not watch.computed
    bits = arrays["y"].bits
    assert arrays["y"].poisoned and arrays["own"].poisoned and not arrays["made"].poisoned
    assert (bits[:, 0] == poison_bits("huge")).all()
    np.testing.assert_array_equal(
        decode(bits[:, 1:], "float32"), np.arange(1.0, 31.0).reshape(3, 10)[:, 1:]
    )
    assert (arrays["own"].bits[0] == poison_bits("huge")).all()
    assert (arrays["own"].bits[1:].view(np.float32) == 1.0).all()
    assert Damage("weight", "input", 3, 4) in damage
    assert len(damage) == 2


def test_staging_memory_grows_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.empty
    monkeypatch.setattr(torch, "empty", lambda n, dtype, pin_memory=False: real(n, dtype=dtype))
    staging = memory.Staging()
    small = staging.up(100)
    assert small.numel() == 100
    assert staging.up(110).data_ptr() == small.data_ptr(), "a little more fits"
    assert staging.up(1000).numel() == 1000
    assert staging.down(64).data_ptr() != staging.up(64).data_ptr()
