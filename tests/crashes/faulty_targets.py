"""A correct layer norm that fails by design where the plan of tests.crashes.faults says so."""

from __future__ import annotations

import collections
import ctypes
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import torch
import triton
import triton.language as tl

from fuzz.process.kernel_worker import REPLACE_ME
from fuzz.targets import target
from tests.crashes.faulty_backend import take_due

MAX_COLS = 64


@triton.jit
def _layer_norm(x_ptr, weight_ptr, bias_ptr, y_ptr, n_cols, eps, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * n_cols
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    x = tl.load(x_ptr + start + cols, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(x) / n_cols
    centred = tl.where(mask, x - mean, 0.0)
    variance = tl.sum(centred * centred) / n_cols
    weight = tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    y = centred * (1.0 / tl.sqrt(variance + eps)) * weight + bias
    tl.store(y_ptr + start + cols, y.to(y_ptr.dtype.element_ty), mask=mask)


@target(blocks=(MAX_COLS,), num_warps=(4,), whole_row=True, ranks=(1, 2), max_cols=MAX_COLS)
def faulty_layer_norm(x, weight, bias, *, eps, block, num_warps):
    """Layer norm of short rows, with a fault where the plan has one"""
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    n_rows = x.numel() // n_cols
    _layer_norm[(n_rows,)](x, weight, bias, y, n_cols, eps, BLOCK=block, num_warps=num_warps)
    due = take_due()
    if due is not None:
        STRIKES[due](x.device)
    return y


Device = torch.device


# --- on any device --------------------------------------------------------------------------------


def segfault(device: Device) -> None:
    ctypes.string_at(0)


def segfault_in_a_thread(device: Device) -> None:
    thread = threading.Thread(target=ctypes.string_at, args=(0,))
    thread.start()
    thread.join()


def abort(device: Device) -> None:
    os.abort()


def leave(device: Device) -> None:
    os._exit(3)


def leave_quietly(device: Device) -> None:
    # By way of C, where nothing in Python could have seen it.
    ctypes.CDLL(None)._exit(0)


def leave_as_if_unfit(device: Device) -> None:
    os._exit(REPLACE_ME)


def sys_exit(device: Device) -> None:
    sys.exit(4)


def interrupt(device: Device) -> None:
    raise KeyboardInterrupt


def python_loop(device: Device) -> None:
    while True:
        pass


def c_loop(device: Device) -> None:
    # With the interpreter's lock held and no look at signals, for ever.
    collections.deque(itertools.repeat(0), maxlen=0)


def memory_error(device: Device) -> None:
    bytearray(1 << 60)


def tensor_too_large(device: Device) -> None:
    torch.empty(1 << 58, dtype=torch.uint8, device="cpu")


def oom_killed(device: Device) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_from_outside(device: Device) -> None:
    subprocess.run(["kill", "-KILL", str(os.getpid())], check=True)
    time.sleep(60)


@triton.jit
def _not_a_power_of_two(y_ptr, BLOCK: tl.constexpr):
    tl.store(y_ptr + tl.arange(0, BLOCK), 0.0)


def does_not_compile(device: Device) -> None:
    _not_a_power_of_two[(1,)](torch.empty(4, device=device), BLOCK=3)


# --- on a GPU -------------------------------------------------------------------------------------


@triton.jit
def _spin(flag_ptr):
    # Volatile: the compiler may not take one answer for all.
    while tl.load(flag_ptr, volatile=True) == 0:
        tl.store(flag_ptr + 1, 1)


def endless_kernel(device: Device) -> None:
    _spin[(1,)](torch.zeros(2, dtype=torch.int32, device=device))


@triton.jit
def _store_astray(y_ptr, distance):
    tl.store(y_ptr + distance, 0.0)


def illegal_address(device: Device) -> None:
    # 64 TiB off: no machine has memory there.
    _store_astray[(1,)](torch.empty(1, device=device), 1 << 44)


@triton.jit(debug=True)
def _assert_positive(x_ptr):
    tl.device_assert(tl.load(x_ptr) > 0, "x must be > 0")


def device_assert(device: Device) -> None:
    # One warp: every thread of it says what it found.
    _assert_positive[(1,)](torch.zeros(1, device=device), num_warps=1)


def out_of_device_memory(device: Device) -> None:
    torch.empty(1 << 44, dtype=torch.uint8, device=device)


@triton.jit
def _matmul(a_ptr, b_ptr, c_ptr, n_steps, SIZE: tl.constexpr, DEPTH: tl.constexpr):
    rows = tl.arange(0, SIZE)
    depth = tl.arange(0, DEPTH)
    total = tl.zeros((SIZE, SIZE), tl.float32)
    for step in range(n_steps):
        at = step * DEPTH + depth
        a = tl.load(a_ptr + rows[:, None] * DEPTH * n_steps + at[None, :])
        b = tl.load(b_ptr + at[:, None] * SIZE + rows[None, :])
        total += tl.dot(a, b)
    tl.store(c_ptr + rows[:, None] * SIZE + rows[None, :], total)


def too_much_shared_memory(device: Device) -> None:
    # Eight stages of two tiles of 128 x 128 halves: 512 KiB, of which no GPU has the half.
    a = torch.zeros(128, 1024, dtype=torch.float16, device=device)
    c = torch.empty(128, 128, device=device)
    _matmul[(1,)](a, a, c, 8, SIZE=128, DEPTH=128, num_stages=8)


STRIKES: dict[str, Callable[[Device], None]] = {
    "segfault": segfault,
    "segfault_in_a_thread": segfault_in_a_thread,
    "abort": abort,
    "exit": leave,
    "exit_quietly": leave_quietly,
    "exit_as_if_unfit": leave_as_if_unfit,
    "sys_exit": sys_exit,
    "interrupt": interrupt,
    "python_loop": python_loop,
    "c_loop": c_loop,
    "memory_error": memory_error,
    "tensor_too_large": tensor_too_large,
    "oom_killed": oom_killed,
    "killed_from_outside": killed_from_outside,
    "does_not_compile": does_not_compile,
    "endless_kernel": endless_kernel,
    "illegal_address": illegal_address,
    "device_assert": device_assert,
    "out_of_device_memory": out_of_device_memory,
    "too_much_shared_memory": too_much_shared_memory,
}
