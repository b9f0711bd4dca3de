"""The host's side of a launch where there is no GPU, and how its arguments become a kernel's.

A wrapper that asks for a GPU's properties gets torch's error: there is no right answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as stock
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import mangle_type


def run_first_config(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Launch with the first configuration that is left: replaces ``Autotuner.run``.

    Timing is all that the others are for, and asks for a GPU's driver. An autotuner that is pinned
    to one configuration launches that.
    """
    all_configs = self.configs
    if len(all_configs) > 1:
        self.nargs = dict(zip(self.arg_names, args, strict=False))
        self.configs = self.prune_configs(kwargs)[:1]
    try:
        return _stock_run(self, *args, **kwargs)
    finally:
        self.configs = all_configs


def converted(arg: Any) -> Any:
    """What a kernel finds of a launch argument: replaces ``_implicit_cvt``.

    A number is a tensor of its compiled type: stock leaves a float a number, which does not widen
    float16 or bfloat16 as the compiled float32 does, and keeps some integers in 32 bits.
    """
    if not isinstance(arg, bool | int | float):
        return _stock_converted(arg)
    dtype = tl.str_to_ty(mangle_type(arg), None)
    data = np.array([arg]).astype(stock._get_np_dtype(dtype))
    return tl.tensor(stock.TensorHandle(data, dtype), dtype)


class AnyDevice:
    """Stands in for torch.cuda.device and device_of; selects nothing."""

    def __init__(self, device: object) -> None:
        self.device = device

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc_info: object) -> None:
        return None


_stock_run = Autotuner.run
_stock_converted = stock._implicit_cvt
