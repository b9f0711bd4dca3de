"""Kernels that a GPU need not run twice alike: each hazard is found, and none in a right kernel."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

import mmap

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter as stock

from fuzz.interpreter import StrictInterpreter
from fuzz.strict.faults import OutOfBounds, UnsupportedInInterpreter
from fuzz.strict.regions import Region, Regions
from fuzz.strict.shadow import Ledger
from fuzz.verdict import Hazard

if not isinstance(tl.sum, stock.InterpretedFunction):
    pytest.skip("the suite runs compiled", allow_module_level=True)


def poisoned(ledger: Ledger, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Memory that nobody has written, as the ledger knows."""
    n_bytes = int(np.prod(shape)) * torch.empty(0, dtype=dtype).element_size()
    raw = torch.full((n_bytes,), 0xFF, dtype=torch.uint8)
    ledger.watch("memory of the call", raw.data_ptr(), n_bytes, poison=0xFF)
    return raw.view(dtype).reshape(shape)


def line(kernel, n: int) -> int:
    """The line of a kernel's n-th statement, its arguments on one line."""
    return kernel.fn.__code__.co_firstlineno + 1 + n


def only(ledger: Ledger) -> Hazard:
    assert len(ledger.hazards) == 1, [h.message for h in ledger.hazards]
    return ledger.hazards[0]


# --- uninitialised reads --------------------------------------------------------------------------


@triton.jit
def sum_up(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(y_ptr + tl.program_id(0), tl.sum(x))


@triton.jit
def fill(x_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x_ptr + at, at.to(tl.float32), mask=at < n)


def test_read_of_scratch_that_nobody_wrote_is_told() -> None:
    ledger = Ledger()
    x, y = poisoned(ledger, 32), torch.zeros(2)
    with StrictInterpreter(ledger=ledger):
        fill[(1,)](x, 20, BLOCK=32)
        assert ledger.hazards == ()
        sum_up[(2,)](x, y, 30, BLOCK=16)
    where = line(sum_up, 2)
    assert only(ledger) == Hazard(
        kind="uninitialised_read",
        tensor="x_ptr",
        function="sum_up",
        message=(
            "read of uninitialised 'x_ptr', at element 20 (float32), 10 of 14 lanes [sum_up, "
            f"program (1, 0, 0), test_hazards.py:{where}: "
            "x = tl.load(x_ptr + at, mask=at < n, other=0.0)]"
        ),
        count=1,
    )


def test_read_of_what_a_launch_before_wrote_is_right() -> None:
    ledger = Ledger()
    x, y = poisoned(ledger, 32), poisoned(ledger, 2)
    with StrictInterpreter(ledger=ledger, order_seed=3):
        fill[(4,)](x, 30, BLOCK=8)
        # Masked lanes do not read, and what is written with the poison's bits is written.
        sum_up[(2,)](x, y, 30, BLOCK=16)
        x.fill_(torch.nan)
        fill[(1,)](y, 2, BLOCK=8)
    assert ledger.hazards == ()


@triton.jit
def count(counter_ptr, y_ptr):
    turn = tl.atomic_add(counter_ptr, 1)
    tl.store(y_ptr + turn, turn)


def test_atomic_on_memory_that_nobody_wrote_is_told() -> None:
    ledger = Ledger()
    counter = poisoned(ledger, 1, dtype=torch.int32)
    regions = Regions([Region.of_bytes("counter", counter.data_ptr(), 4)])
    with StrictInterpreter(ledger=ledger, regions=regions), pytest.raises(OutOfBounds):
        # It leads astray as well.
        count[(1,)](counter, torch.zeros(4, dtype=torch.int32))
    assert "atomic on uninitialised 'counter', at element 0 (int32)" in only(ledger).message


@triton.jit
def exchange(x_ptr):
    tl.atomic_xchg(x_ptr, 1)


def test_exchange_is_a_write() -> None:
    ledger = Ledger()
    x = poisoned(ledger, 1, dtype=torch.int32)
    y = poisoned(ledger, 1)
    with StrictInterpreter(ledger=ledger):
        exchange[(3,)](x)
        sum_up[(1,)](x, y, 1, BLOCK=1)
    assert ledger.hazards == ()


@triton.jit
def follow(where_ptr, y_ptr):
    pointer = tl.load(where_ptr).to(tl.pointer_type(tl.float32))
    tl.store(y_ptr, tl.load(pointer))


def test_memory_of_the_call_may_be_found_by_a_pointer_in_memory() -> None:
    ledger = Ledger()
    x = poisoned(ledger, 4)
    where, y = torch.tensor([x.data_ptr()]), torch.zeros(1)
    with StrictInterpreter(ledger=ledger):
        follow[(1,)](where, y)
        assert only(ledger).tensor == "memory of the call"
        where += 16
        with pytest.raises(OutOfBounds):
            follow[(1,)](where, y)


# --- conflicting writes ---------------------------------------------------------------------------


@triton.jit
def store_rows(y_ptr, shift, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + row * shift + at, row.to(tl.float32) + at * 0, mask=at < n)


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_rows_that_overlap_are_told_in_any_order(seed: int | None) -> None:
    y = torch.zeros(40)
    with StrictInterpreter(order_seed=seed) as strict:
        store_rows[(4,)](y, 8, 8, BLOCK=8)
        assert strict.ledger.hazards == ()
        store_rows[(4,)](y, 8, 9, BLOCK=16)
        found = only(strict.ledger)
    assert (found.kind, found.tensor, found.function) == (
        "conflicting_write",
        "y_ptr",
        "store_rows",
    )
    assert "write to 'y_ptr', at element " in found.message
    assert " of 9 lanes, where program (" in found.message
    if seed is None:
        assert found.count == 3
        where = line(store_rows, 3)
        assert found.message == (
            "write to 'y_ptr', at element 8 (float32), 1 of 9 lanes, where program (0, 0, 0) "
            f"wrote other bits at test_hazards.py:{where} [store_rows, program (1, 0, 0), "
            f"test_hazards.py:{where}: "
            "tl.store(y_ptr + row * shift + at, row.to(tl.float32) + at * 0, mask=at < n)]"
        )


@triton.jit
def store_constant(y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, at * 2.0)
    tl.store(y_ptr + at, at * 3.0)


def test_programs_may_write_the_same_and_one_program_twice() -> None:
    with StrictInterpreter() as strict:
        store_rows[(4,)](torch.zeros(8), 0, 0, BLOCK=8)
        fill[(1,)](torch.zeros(8), 8, BLOCK=8)
        assert strict.ledger.hazards == ()
        # They agree at the end, not on the way.
        store_constant[(2,)](torch.zeros(8), BLOCK=8)
        assert "where program (0, 0, 0) wrote other bits" in only(strict.ledger).message
    with StrictInterpreter() as strict:
        store_constant[(1,)](torch.zeros(8), BLOCK=8)
        assert strict.ledger.hazards == ()


@triton.jit
def store_half(y_ptr, wanted):
    if tl.program_id(0) == 0:
        tl.store(y_ptr, 1.0)
    else:
        tl.store((y_ptr + 0).to(tl.pointer_type(tl.int16)) + wanted, tl.cast(0x3F80, tl.int16))


@pytest.mark.parametrize(("half", "n_hazards"), [(1, 0), (0, 1)])
def test_bytes_are_compared_whatever_the_width_of_the_stores(half: int, n_hazards: int) -> None:
    # 1.0 is 0x3F800000.
    with StrictInterpreter() as strict:
        store_half[(2,)](torch.zeros(1), half)
        assert len(strict.ledger.hazards) == n_hazards


@triton.jit
def shift_down(x_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at + 1, mask=at + 1 < n, other=0.0)
    tl.store(x_ptr + at, x, mask=at < n)


@pytest.mark.parametrize(
    ("seed", "words"),
    [
        # In ascending order each program reads before the next one writes, and nothing is wrong.
        (
            None,
            "write to 'x_ptr', at element 8 (float32), 1 of 8 lanes, where program (0, 0, 0) read",
        ),
        (1, ""),
        (2, ""),
    ],
)
def test_reading_what_another_program_writes_is_told_in_any_order(
    seed: int | None, words: str
) -> None:
    with StrictInterpreter(order_seed=seed) as strict:
        shift_down[(1,)](torch.arange(16.0), 16, BLOCK=16)
        assert strict.ledger.hazards == ()
        x = torch.arange(32.0)
        shift_down[(4,)](x, 32, BLOCK=8)
        assert {h.kind for h in strict.ledger.hazards} == {"conflicting_write"}
        assert strict.ledger.hazards[0].message.startswith(words)
    if seed is None:
        assert x.tolist() == [*range(1, 32), 0]
    else:
        texts = [h.message for h in strict.ledger.hazards]
        assert any("read of 'x_ptr'" in text and " wrote at " in text for text in texts)


def test_programs_may_read_the_same_and_write_apart() -> None:
    x, y = torch.arange(16.0), torch.zeros(4)
    with StrictInterpreter() as strict:
        sum_up[(4,)](x, y, 16, BLOCK=4)
        # In place: each program reads and writes its own.
        sum_up[(1,)](x, x, 16, BLOCK=16)
        assert strict.ledger.hazards == ()
    assert y.tolist() == [6, 22, 38, 54]


@triton.jit
def scatter(at_ptr, y_ptr, SAME: tl.constexpr):
    lanes = tl.arange(0, 8)
    at = tl.load(at_ptr + lanes)
    tl.store(y_ptr + at, lanes * 0.0 if SAME else lanes * 1.0)


@pytest.mark.parametrize(
    ("at", "same", "lanes"),
    [
        ([7, 6, 5, 4, 3, 2, 1, 0], False, 0),
        ([0, 1, 2, 2, 4, 5, 6, 7], False, 1),
        ([3] * 8, False, 7),
        ([3] * 8, True, 0),
    ],
)
def test_lanes_of_one_store_must_not_differ_at_one_address(at, same: bool, lanes: int) -> None:
    with StrictInterpreter() as strict:
        scatter[(1,)](torch.tensor(at), torch.zeros(8), SAME=same)
        if lanes:
            words = f"{lanes} of 8 lanes, several with different bits to one address [scatter, "
            assert words in only(strict.ledger).message
        else:
            assert strict.ledger.hazards == ()


def test_inputs_that_are_read_only_are_not_watched() -> None:
    x, y = torch.arange(16.0), torch.zeros(4)
    regions = Regions(
        [
            Region.of_bytes("x", x.data_ptr(), 64, writable=False),
            Region.of_bytes("y", y.data_ptr(), 16),
        ]
    )
    with StrictInterpreter(regions=regions) as strict:
        sum_up[(4,)](x, y, 16, BLOCK=4)
        assert strict.ledger.at(x.data_ptr(), x.data_ptr() + 64) == []
        assert len(strict.ledger.at(y.data_ptr(), y.data_ptr() + 16)) == 1


# --- atomics --------------------------------------------------------------------------------------


@triton.jit
def add_rows(x_ptr, total_ptr, n_cols, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * n_cols + at, mask=at < n_cols, other=0.0)
    tl.atomic_add(total_ptr + at, x, mask=at < n_cols)


@triton.jit
def add_under_lock(x_ptr, total_ptr, lock_ptr, n_cols, LOCKED: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * n_cols + at, mask=at < n_cols, other=0.0)
    if LOCKED:
        while tl.atomic_cas(lock_ptr, 0, 1) == 1:
            pass
    total = tl.load(total_ptr + at, mask=at < n_cols, other=0.0)
    tl.store(total_ptr + at, total + x, mask=at < n_cols)
    if LOCKED:
        tl.atomic_xchg(lock_ptr, 0)


@triton.jit
def last_one_adds(x_ptr, part_ptr, counter_ptr, y_ptr, BLOCK: tl.constexpr):
    n = tl.num_programs(0)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(part_ptr + tl.program_id(0), tl.sum(tl.load(x_ptr + at)))
    if tl.atomic_add(counter_ptr, 1) == n - 1:
        total = 0.0
        for part in range(n):
            total += tl.load(part_ptr + part)
        tl.store(y_ptr, total)


def test_atomics_do_not_conflict_with_atomics() -> None:
    x, total = torch.arange(20.0).reshape(4, 5), torch.zeros(5)
    with StrictInterpreter(order_seed=1) as strict:
        add_rows[(4,)](x, total, 5, BLOCK=8)
        sum_up[(1,)](total, total, 5, BLOCK=8)
        assert strict.ledger.hazards == ()
    assert total[0] == x.sum()


@pytest.mark.parametrize("declared", [False, True])
def test_lock_protects_where_the_kernel_declares_it(declared: bool) -> None:
    x, total = torch.arange(20.0).reshape(4, 5), torch.zeros(5)
    lock = torch.zeros(1, dtype=torch.int32)
    with StrictInterpreter(reads_after_atomics=declared) as strict:
        add_under_lock[(4,)](x, total, lock, 5, LOCKED=True, BLOCK=8)
        kinds = {(h.kind, h.tensor) for h in strict.ledger.hazards}
        assert kinds == (set() if declared else {("conflicting_write", "total_ptr")})
        add_under_lock[(4,)](x, total, lock, 5, LOCKED=False, BLOCK=8)
        assert {h.tensor for h in strict.ledger.hazards} == {"total_ptr"}
    assert torch.equal(total, 2 * x.sum(0))


@pytest.mark.parametrize("declared", [False, True])
def test_last_program_may_read_what_all_wrote_where_the_kernel_declares_it(declared: bool) -> None:
    x, y = torch.arange(32.0), torch.zeros(1)
    parts, counter = torch.zeros(4), torch.zeros(1, dtype=torch.int32)
    with StrictInterpreter(reads_after_atomics=declared) as strict:
        last_one_adds[(4,)](x, parts, counter, y, BLOCK=8)
        assert len(strict.ledger.hazards) == (not declared)
    assert y.item() == x.sum()
    if not declared:
        assert "read of 'part_ptr'" in only(strict.ledger).message


@triton.jit
def pass_a_token(flag_ptr, y_ptr):
    me = tl.program_id(0)
    tl.atomic_poll(flag_ptr, me)
    tl.store(y_ptr, tl.load(y_ptr) * 2.0 + me)
    tl.atomic_store(flag_ptr, me + 1)


@pytest.mark.skipif(not hasattr(tl, "atomic_poll"), reason="came with Triton 3.9")
def test_atomic_loads_and_stores_are_atomics() -> None:
    flag, y = torch.zeros(1, dtype=torch.int32), torch.zeros(1)
    with StrictInterpreter(reads_after_atomics=True) as strict:
        pass_a_token[(4,)](flag, y)
        assert strict.ledger.hazards == ()
        assert (flag.item(), y.item()) == (4, 11)
        with pytest.raises(UnsupportedInInterpreter, match="atomic_poll for what no earlier"):
            pass_a_token[(4,)](flag, y)
    flag.zero_()
    with StrictInterpreter() as strict:
        pass_a_token[(4,)](flag, y)
        assert {h.tensor for h in strict.ledger.hazards} == {"y_ptr"}


# --- memory that is larger than the machine's -----------------------------------------------------


@triton.jit
def first_of_rows(x_ptr, y_ptr, stride, WIDE: tl.constexpr):
    row = tl.program_id(0)
    if WIDE:
        row = row.to(tl.int64)
    tl.store(y_ptr + tl.program_id(0), tl.load(x_ptr + row * stride))


def test_product_that_wraps_in_int32_leads_out_of_bounds() -> None:
    # Rows 2^30 elements apart: the third begins 2^31 from the first. Memory of a private mapping
    # comes into being where it is written.
    stride = 1 << 30
    memory = np.frombuffer(mmap.mmap(-1, 2 * stride + 8, flags=0x4022), dtype=np.int8)
    x = torch.from_numpy(memory).as_strided((3, 8), (stride, 1))
    x[:, 0] = torch.tensor([1, 2, 3])
    y = torch.zeros(3, dtype=torch.int8)
    with StrictInterpreter(order_seed=1) as strict:
        first_of_rows[(3,)](x, y, x.stride(0), WIDE=True)
        assert y.tolist() == [1, 2, 3]
        assert strict.ledger.hazards == ()
        with pytest.raises(OutOfBounds, match="read outside 'x_ptr', at element -2147483648"):
            first_of_rows[(3,)](x, y, x.stride(0), WIDE=False)
