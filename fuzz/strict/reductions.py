"""Reductions and scans by trees: functions that replace methods of the stock classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter as stock

from fuzz.strict.bfloat16 import bf16_to_fp32, is_bf16, round_to_bf16
from fuzz.strict.faults import UnsupportedInInterpreter


def tree_sum(self: Any, input: Any) -> Any:
    """Sum by halves, rounding at each step: replaces ``ReduceOps.sum``.

    A balanced tree is an order that a compiled reduction could take, with no more roundings on any
    path. NumPy's sum is neither: it adds float16 in float32, and sums other axes than the last one
    element after the other.
    """
    if input.dtype.is_fp8():
        raise UnsupportedInInterpreter(f"sum of {input.dtype.name}")
    data = _reduced_axis_last(self, input)
    bf16 = is_bf16(input.handle)
    data = bf16_to_fp32(data) if bf16 else data
    while data.shape[-1] > 1:
        half = data.shape[-1] // 2
        data = data[..., :half] + data[..., half:]
        data = bf16_to_fp32(round_to_bf16(data)) if bf16 else data
    return _reduced(self, round_to_bf16(data) if bf16 else data, input)


def tree_reduce(self: Any, input: tuple[Any, ...]) -> list[Any]:
    """Reduce by any combine function, whole blocks at a time: replaces ``generic_reduce``.

    Neighbours are combined with neighbours, so that a combine function need be associative only.
    """
    arrays = [_reduced_axis_last(self, tensor) for tensor in input]
    while arrays[0].shape[-1] > 1:
        left = (self.to_tensor(a[..., 0::2], t.dtype) for a, t in zip(arrays, input, strict=True))
        right = (self.to_tensor(a[..., 1::2], t.dtype) for a, t in zip(arrays, input, strict=True))
        combined = self.combine_fn(*left, *right)
        combined = combined if isinstance(combined, tuple) else (combined,)
        shape = arrays[0][..., 0::2].shape
        semantic = stock.interpreter_semantic
        # A combine function may return another dtype than it was given, or a constant.
        cast = (
            semantic.cast(semantic.to_tensor(c), t.dtype)
            for c, t in zip(combined, input, strict=True)
        )
        arrays = [np.broadcast_to(tensor.handle.data, shape) for tensor in cast]
    return [_reduced(self, a, t) for a, t in zip(arrays, input, strict=True)]


def reduce(self: Any, input: tuple[Any, ...]) -> Any:
    """Keep bfloat16 from the stock short cuts, which see its bits: ``ReduceOps.apply_impl``."""
    is_sum = self.combine_fn is tl.standard._sum_combine
    if not is_sum and any(is_bf16(tensor.handle) for tensor in input):
        return self.generic_reduce(input)
    return _stock_reduce(self, input)


def scan(self: Any, input: tuple[Any, ...]) -> Any:
    """Refuse what the stock scan gets wrong: replaces ``ScanOps.apply_impl``."""
    if any(is_bf16(tensor.handle) for tensor in input):
        raise UnsupportedInInterpreter("associative_scan (cumsum, cumprod) of bfloat16")
    return _stock_scan(self, input)


def _reduced_axis_last(self: Any, tensor: Any) -> NDArray[Any]:
    data: NDArray[Any] = tensor.handle.data
    return data.reshape(-1) if self.axis is None else np.moveaxis(data, self.axis, -1)


def _reduced(self: Any, data: NDArray[Any], tensor: Any) -> Any:
    """The result tensor of a reduction whose last axis has shrunk to one element."""
    result = data[..., 0]
    if self.keep_dims:
        ndim = tensor.handle.data.ndim
        result = (
            result.reshape((1,) * ndim) if self.axis is None else np.moveaxis(data, -1, self.axis)
        )
    return self.to_tensor(result, tensor.dtype)


_stock_reduce = stock.ReduceOps.apply_impl
_stock_scan = stock.ScanOps.apply_impl
