"""What Python's own operators, names and statements mean in a kernel."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice
from triton.runtime import interpreter as stock
from triton.runtime.errors import InterpreterError

from fuzz.strict.faults import UnsupportedInInterpreter
from tests.fuzz.strict.arrays import BF16, computed, launched

if not isinstance(tl.sum, stock.InterpretedFunction):
    pytest.skip("the suite runs compiled", allow_module_level=True)

# --- and, or, not --------------------------------------------------------------------------------


@triton.jit
def logic(a_ptr, b_ptr, y_ptr, BLOCK: tl.constexpr, HOW: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(a_ptr + at)
    b = tl.load(b_ptr + at)
    if HOW == "and":
        y = (a > 0) and (b > 0)
    elif HOW == "or":
        y = (a > 0) or (b > 0)
    elif HOW == "not":
        y = not (a > 0)
    elif HOW == "mixed":
        y = (a > 0) and HOW == "mixed" and (b > 0) and not (a > b)
    elif HOW == "nested":
        y = (a > 0) or ((b > 0) and (a > b))
    else:
        y = tl.zeros((BLOCK,), tl.int1) or (a > b)
    tl.store(y_ptr + at, y.to(tl.int8))


@pytest.mark.parametrize(
    ("how", "want"),
    [
        ("and", lambda a, b: (a > 0) & (b > 0)),
        ("or", lambda a, b: (a > 0) | (b > 0)),
        ("not", lambda a, b: ~(a > 0)),
        ("mixed", lambda a, b: (a > 0) & (b > 0) & ~(a > b)),
        ("nested", lambda a, b: (a > 0) | ((b > 0) & (a > b))),
        ("zeros", lambda a, b: a > b),
    ],
)
def test_logical_operators_act_element_by_element(how: str, want) -> None:
    a, b = (grid.ravel() for grid in np.meshgrid(np.arange(-2, 3.0), np.arange(-2, 3.0)))
    got = computed(logic, a, b, dtype=torch.int8, HOW=how)
    np.testing.assert_array_equal(got, want(a, b))


@triton.jit
def short_circuit(x_ptr, y_ptr, at_ptr, FLAG: tl.constexpr):
    n = tl.load(at_ptr)
    # The second operand is an access out of bounds, or an error of the compiler.
    if FLAG and (tl.load(x_ptr + 1000) > 0):
        tl.store(y_ptr, 1)
    if (not FLAG) or (tl.load(x_ptr + 1000) > 0):
        tl.store(y_ptr + 1, 2)
    if x_ptr is None or FLAG is not None:
        tl.store(y_ptr + 2, 3)
    if not FLAG and n > 2:
        tl.store(y_ptr + 3, 4)
    y = (n > 7) and FLAG
    if y:
        tl.store(y_ptr + 4, 5)


def test_constant_operand_decides_before_the_next_is_evaluated() -> None:
    y = torch.zeros(8, dtype=torch.int32)
    launched(short_circuit, torch.zeros(4), y, torch.tensor([9]), FLAG=False)
    assert y.tolist() == [0, 2, 3, 4, 0, 0, 0, 0]


@triton.jit
def binds_a_name(x_ptr, y_ptr):
    if (a := tl.load(x_ptr)) > 1 and (b := tl.load(x_ptr + 1)) > 1:
        tl.store(y_ptr, a + b)


def test_named_expressions_bind_in_the_kernel() -> None:
    y = torch.zeros(1)
    launched(binds_a_name, torch.tensor([2.0, 3.0]), y)
    assert y.item() == 5


@triton.jit
def integer_logic(x_ptr, HOW: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, 4))
    if HOW == "and":
        tl.store(x_ptr + tl.arange(0, 4), x and x)
    else:
        tl.store(x_ptr + tl.arange(0, 4), not x)


@pytest.mark.parametrize("how", ["and", "not"])
def test_logic_of_integers_is_an_error_as_compiled(how: str) -> None:
    with pytest.raises(InterpreterError, match="Cannot bitcast data-type of size 32"):
        launched(integer_logic, torch.ones(4, dtype=torch.int32), HOW=how)


@triton.jit
def branch_on_block(x_ptr, HOW: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, 4))
    if HOW == "if":
        if x > 0:
            tl.store(x_ptr, 1.0)
    elif HOW == "while":
        while x > 0:
            x -= 1
    else:
        tl.store(x_ptr, 1.0 if x > 0 else 2.0)


@pytest.mark.parametrize(
    ("how", "line"), [("if", "if x > 0"), ("while", "while x > 0"), ("conditional", "1.0 if x > 0")]
)
def test_block_as_a_condition_is_an_error_with_its_line(how: str, line: str) -> None:
    with pytest.raises(InterpreterError, match=rf"shape \(4,\) is .* \[branch_on_block, .*{line}"):
        launched(branch_on_block, torch.zeros(4), HOW=how)


@triton.jit
def chain(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, (-1 <= x < 2).to(tl.int8))


def test_chained_comparison_is_elementwise_or_an_error() -> None:
    x = np.arange(-4, 5.0)
    if hasattr(stock.ASTTransformer, "visit_Compare"):
        got = computed(chain, x, dtype=torch.int8)
        np.testing.assert_array_equal(got, (x >= -1) & (x < 2))
    else:
        with pytest.raises(SyntaxError, match="-1 <= x < 2: simultaneous multiple comparison"):
            computed(chain, x, dtype=torch.int8)


@triton.jit
def scalar_branches(x_ptr, y_ptr, flag, n):
    a = tl.load(x_ptr)
    b = tl.load(x_ptr + 1)
    out = 0
    if a > 3 and b > 3:
        out += 1
    if a > 3 or b > 3:
        out += 10
    if not (a > 3):
        out += 100
    if flag and n > 2:
        out += 1000
    out += 10000 if a > b else 20000
    one = tl.arange(0, 1) + 1
    if one > 0:
        out += 100000
    tl.store(y_ptr, out)


def test_scalar_tensors_decide_branches() -> None:
    y = torch.zeros(1, dtype=torch.int32)
    launched(scalar_branches, torch.tensor([5, 1]), y, True, 7)
    assert y.item() == 111010
    launched(scalar_branches, torch.tensor([1, 5]), y, False, 7)
    assert y.item() == 120110


@triton.jit
def asserts(x_ptr):
    x = tl.load(x_ptr + tl.arange(0, 4))
    assert x > 0, "positive"
    tl.store(x_ptr, 5.0)


def test_assert_has_no_effect_unless_in_debug_mode() -> None:
    x = torch.tensor([1.0, -1.0, 1.0, 1.0])
    launched(asserts, x)
    assert x[0] == 5


# --- loops ---------------------------------------------------------------------------------------


@triton.jit
def count_steps(y_ptr, n, step, BLOCK: tl.constexpr):
    steps = 0
    for _i in range(0, n, BLOCK):
        steps += 1
    for _i in tl.range(0, n, step):
        steps += 100
    for _i in tl.range(n, num_stages=2):
        steps += 1
    tl.store(y_ptr, steps)


def test_range_takes_run_time_bounds() -> None:
    y = torch.zeros(1, dtype=torch.int32)
    launched(count_steps, y, 1000, 300, BLOCK=256)
    assert y.item() == 1404


@triton.jit
def ranges(x_ptr, y_ptr, n):
    at = 0
    for i in range(10, 0, -3):
        tl.store(y_ptr + at, i)
        at += 1
    for i in range(tl.load(x_ptr), tl.load(x_ptr + 1), tl.load(x_ptr + 2)):
        tl.store(y_ptr + at, i)
        at += 1
    for i in tl.static_range(5, 1, -2):
        tl.store(y_ptr + at, i)
        at += 1
    for i in tl.static_range(0, 4, step=2):
        tl.store(y_ptr + at, i)
        at += 1
    for i in tl.range(n, n + 3):
        tl.store(y_ptr + at, i)
        at += 1
    for i in range(n, 0):
        tl.store(y_ptr + at, i)
        at += 1
    tl.store(y_ptr + at, 12345)


def test_ranges_give_what_a_compiled_loop_does() -> None:
    x = torch.tensor([2**40, 2**40 + 30, 10])
    y = torch.zeros(20, dtype=torch.int64)
    launched(ranges, x, y, 2**33)
    loops = [10, 7, 4, 1, *range(2**40, 2**40 + 30, 10), 5, 3, 0, 2, 2**33, 2**33 + 1, 2**33 + 2]
    assert y[: len(loops) + 1].tolist() == [*loops, 12345]


@triton.jit
def bad_range(y_ptr, n, step, bound):
    for _i in range(n, 0, step):
        tl.store(y_ptr, 1.0)
    for _i in range(bound):
        tl.store(y_ptr, 2.0)


def test_run_time_step_that_is_not_positive_is_an_error() -> None:
    y = torch.zeros(1)
    for step in (-1, 0):
        with pytest.raises(
            InterpreterError, match=f"step={step} at run time, .*bad_range, test_language.py"
        ):
            launched(bad_range, y, 4, step, 3)
    with pytest.raises(InterpreterError, match="must be integers, not int32, fp32, int32"):
        launched(bad_range, y, 4, 1, 3.0)


@triton.jit
def carried(x_ptr, y_ptr, n):
    total = 0.0
    count = 0
    while (count < n) and (total < 9):
        total += tl.load(x_ptr + count)
        count += 1
    tl.store(y_ptr, total)
    tl.store(y_ptr + 1, count)


def test_while_runs_on_scalar_tensors_and_carries_them() -> None:
    x, y = torch.arange(8.0), torch.zeros(2)
    launched(carried, x, y, 8)
    assert y.tolist() == [10, 5]
    launched(carried, x, y, 3)
    assert y.tolist() == [3, 3]


@triton.jit
def conditional_loop(y_ptr, n):
    i = 0
    while tl.condition(i < n, disable_licm=True):
        i += 1
    tl.store(y_ptr, i)


def test_wrapped_loop_condition_ends_the_loop() -> None:
    y = torch.zeros(1, dtype=torch.int32)
    launched(conditional_loop, y, 5)
    assert y.item() == 5


# --- numbers become tensors ----------------------------------------------------------------------


@triton.jit
def wraps(y_ptr, n, stride, K: tl.constexpr):
    for i in range(n):
        tl.store(y_ptr + i, (i * stride).to(tl.int64))
    total = 1
    for _i in range(3):
        total = total * 100000
    a, b = 65536, 65536
    c = 65536
    c *= 65536
    d: tl.int32 = 65536
    tl.store(y_ptr + 8, total.to(tl.int64))
    tl.store(y_ptr + 9, (a * b).to(tl.int64))
    tl.store(y_ptr + 10, c.to(tl.int64))
    tl.store(y_ptr + 11, (d * d + (e := 65536) * e).to(tl.int64))
    row = tl.program_id(0) + 7
    tl.store(y_ptr + 12, (row * stride).to(tl.int64))
    tl.store(y_ptr + 13, row.to(tl.int64) * stride)
    f: tl.constexpr = 65536
    tl.store(y_ptr + 14, f * f)
    K += 0
    tl.store(y_ptr + 15, K * K)


@triton.jit
def constant():
    return 65536


@triton.jit
def multiply_returned(y_ptr):
    tl.store(y_ptr, constant() * constant())


def test_returned_constant_is_what_it_is_to_the_compiler() -> None:
    y = torch.ones(1, dtype=torch.int64)
    launched(multiply_returned, y)
    assert y.item() == (0 if triton.__version__.startswith("3.6.") else 2**32)


def wrapped(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31


def test_offsets_of_32_bits_wrap_around() -> None:
    y = torch.zeros(16, dtype=torch.int64)
    stride = 700_000_000
    launched(wraps, y, 8, stride, K=65536)
    assert y[:8].tolist() == [wrapped(i * stride) for i in range(8)]
    assert y[8:].tolist() == [
        wrapped(10**15), 0, 0, 0, wrapped(7 * stride), 7 * stride, 2**32, 0,
    ]  # fmt: skip


@triton.jit
def arguments(x_ptr, y_ptr, scale, flag, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    # A float argument is a float32 tensor, a literal takes the other operand's type.
    tl.store(y_ptr + at, (x * scale).to(tl.float32))
    tl.store(y_ptr + BLOCK + at, (x * 1.1).to(tl.float32))
    tl.store(y_ptr + 2 * BLOCK, n.to(tl.float32))
    if flag:
        tl.store(y_ptr + 2 * BLOCK + 1, 1.0)


@pytest.mark.parametrize("kind", [BF16, np.float16])
def test_float_argument_widens_as_compiled(kind: type) -> None:
    x = np.linspace(-3, 3, 512).astype(kind)
    y = torch.zeros(1026)
    dtype = torch.bfloat16 if kind is BF16 else torch.float16
    x_torch = torch.from_numpy(x.view(np.uint16)).view(dtype)
    launched(arguments, x_torch, y, 1.1, True, 2**31 + 5, BLOCK=512)
    wide = x.astype(np.float32) * np.float32(1.1)
    np.testing.assert_array_equal(y[:512].numpy(), wide)
    narrow = (x.astype(np.float64) * np.array(1.1).astype(kind).astype(np.float64)).astype(kind)
    np.testing.assert_array_equal(y[512:1024].numpy(), narrow.astype(np.float32))
    assert y[1024:].tolist() == [2**31, 1]


@triton.jit
def documented(y_ptr):
    """A kernel that shows code:

    def f(x): pass
    """
    tl.store(y_ptr, 3.0)


def test_docstring_may_hold_code() -> None:
    y = torch.zeros(1)
    launched(documented, y)
    assert y.item() == 3


def test_kernel_without_source_is_refused() -> None:
    names = {"tl": tl}
    exec("def nowhere(y_ptr):\n    tl.store(y_ptr, 1.0)", names)
    with pytest.raises(UnsupportedInInterpreter, match="kernel nowhere without a source file"):
        launched(triton.jit(names["nowhere"]), torch.zeros(1))


# --- names ---------------------------------------------------------------------------------------

from triton.language import maximum as imported_maximum  # noqa: E402
from triton.language.extra.cuda.libdevice import rint as imported_rint  # noqa: E402
from triton.language.extra.libdevice import tanh as imported_tanh  # noqa: E402
from triton.language.math import rsqrt as imported_rsqrt  # noqa: E402


@triton.jit
def calls(x_ptr, y_ptr, BLOCK: tl.constexpr, FUNCTION: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, FUNCTION(x))


@triton.jit
def calls_imported(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = imported_maximum(tl.load(x_ptr + at), 0.25)
    tl.store(y_ptr + at, imported_rsqrt(x) + imported_rint(x) + imported_tanh(x))


@triton.jit
def calls_clock(y_ptr):
    tl.store(y_ptr, tl.extra.cuda.globaltimer())


def test_function_in_assembly_is_refused_by_name() -> None:
    with pytest.raises(
        UnsupportedInInterpreter, match=r"inline assembly \(mov.u64 \$0, %globaltim"
    ):
        launched(calls_clock, torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("function", [libdevice.tanh, imported_tanh])
def test_function_may_be_an_argument(function) -> None:
    x = np.linspace(-2, 2, 64, dtype=np.float32)
    got = computed(calls, x, FUNCTION=function)
    np.testing.assert_allclose(got, np.tanh(x), rtol=1e-6)


def test_functions_imported_by_name_work() -> None:
    x = np.linspace(-2, 2, 64, dtype=np.float32)
    floor = np.maximum(x, 0.25)
    want = 1 / np.sqrt(floor) + np.rint(floor) + np.tanh(floor)
    np.testing.assert_allclose(computed(calls_imported, x), want, rtol=1e-6)
