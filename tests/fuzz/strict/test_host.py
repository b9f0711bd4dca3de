"""The host's side of a launch on a machine without a GPU."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter as stock

from fuzz.interpreter import StrictInterpreter

if not isinstance(tl.sum, stock.InterpretedFunction):
    pytest.skip("the suite runs compiled", allow_module_level=True)

CONFIGS = [triton.Config({"BLOCK": block}, num_warps=block // 32) for block in (256, 64, 128)]


@triton.autotune(CONFIGS, key=["n"])
@triton.heuristics({"EVEN": lambda args: args["n"] % args["BLOCK"] == 0})
@triton.jit
def tuned(x_ptr, y_ptr, used_ptr, n, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    x = tl.load(x_ptr + at) if EVEN else tl.load(x_ptr + at, mask=mask, other=0.0)
    tl.store(y_ptr + at, x * 2, mask=mask)
    tl.store(used_ptr, BLOCK)


def keep_small(configs, named_args, **kwargs):
    return [config for config in configs if config.kwargs["BLOCK"] <= named_args["n"]]


@triton.autotune(CONFIGS, key=["n"], prune_configs_by={"early_config_prune": keep_small})
@triton.jit
def pruned(x_ptr, y_ptr, used_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n, other=0.0) * 2, mask=at < n)
    tl.store(used_ptr, BLOCK)


def block_used(kernel, n: int) -> int:
    x, y, used = torch.arange(float(n)), torch.zeros(n), torch.zeros(1, dtype=torch.int32)
    kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, y, used, n)
    assert torch.equal(y, 2 * x)
    return used.item()


def test_autotuned_kernel_runs_its_first_config_without_a_driver() -> None:
    with StrictInterpreter():
        assert block_used(tuned, 256) == 256
        assert block_used(tuned, 100) == 256
    # All of them are there again, and nothing was timed.
    assert tuned.configs == CONFIGS
    assert not tuned.cache


def test_autotuned_kernel_runs_the_config_it_is_pinned_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned, "configs", CONFIGS[2:])
    with StrictInterpreter():
        assert block_used(tuned, 100) == 128


def test_configs_that_the_kernel_prunes_are_not_run() -> None:
    with StrictInterpreter():
        assert block_used(pruned, 300) == 256
        assert block_used(pruned, 100) == 64
    assert pruned.configs == CONFIGS


def test_configs_are_put_back_after_an_error() -> None:
    with StrictInterpreter(), pytest.raises(KeyError, match="n"):
        tuned[(1,)](torch.zeros(4))
    assert tuned.configs == CONFIGS


@triton.jit
def copy(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n, other=0.0), mask=at < n)


def wrapper(x: torch.Tensor) -> torch.Tensor:
    """As many wrappers are written: with the tensor's device made current."""
    y = torch.empty_like(x)
    with torch.cuda.device(x.device), torch.cuda.device_of(x):
        copy[(1,)](x, y, x.numel(), BLOCK=triton.next_power_of_2(x.numel()))
    return y


def test_wrapper_may_select_a_gpu_where_there_is_none() -> None:
    x = torch.arange(5.0)
    real = torch.cuda.device, torch.cuda.device_of
    with StrictInterpreter():
        assert torch.equal(wrapper(x), x)
    assert (torch.cuda.device, torch.cuda.device_of) == real
