"""Reductions and scans by trees: functions that replace methods of the stock classes.

A compiled reduction combines what a thread holds, then what the threads hold, in an order of its
own choice; every result of a tree is one that it could give. With a NaN, ``tl.max`` and ``tl.min``
give the other number, as compiled (so that a poison of NaN may go unseen, and runs are repeated
with huge ones), and ``tl.argmax`` and ``tl.argmin`` give what the order makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter as stock

from fuzz.strict.bfloat16 import bf16_to_fp32, is_bf16, round_to_bf16
from fuzz.strict.refusals import unsupported

Arrays = list[NDArray[Any]]


def reduce(self: Any, input: tuple[Any, ...]) -> Any:
    """Reduce over one axis, or over all: replaces ``ReduceOps.apply_impl``."""
    tensor = input[0]
    standard = tl.standard
    if self.combine_fn is standard._sum_combine:
        return _reduced(self, _sum(_reduced_axis_last(self, tensor), tensor), tensor)
    if tensor.handle.data.dtype.kind == "f":
        if self.combine_fn is standard._elementwise_max:
            return _extreme(self, tensor, np.fmax, prefers=0.0)
        if self.combine_fn is standard._elementwise_min:
            return _extreme(self, tensor, np.fmin, prefers=-0.0)
    arrays = [_reduced_axis_last(self, tensor) for tensor in input]
    while arrays[0].shape[-1] > 1:
        # Far ones with far ones, as the lanes of a warp: compiled reductions do not keep the order
        # of the elements, and a combine function that does not commute is wrong there too.
        half = arrays[0].shape[-1] // 2
        left, right = [a[..., :half] for a in arrays], [a[..., half:] for a in arrays]
        arrays = _combined(self, input, left, right)
    return [_reduced(self, a, t) for a, t in zip(arrays, input, strict=True)]


def scan(self: Any, input: tuple[Any, ...]) -> list[Any]:
    """Combine each element with all before it, by doubling: replaces ``ScanOps.apply_impl``."""
    arrays = [np.moveaxis(tensor.handle.data, self.axis, -1) for tensor in input]
    arrays = [array[..., ::-1] for array in arrays] if self.reverse else arrays
    n = arrays[0].shape[-1]
    distance = 1
    while distance < n:
        # The first elements have nothing before them. What they are combined with is dropped, and
        # all are combined nevertheless: blocks must have powers of two as their sizes.
        left = [np.roll(array, distance, axis=-1) for array in arrays]
        combined = _combined(self, input, left, arrays)
        arrays = [
            np.concatenate([old[..., :distance], new[..., distance:]], axis=-1)
            for old, new in zip(arrays, combined, strict=True)
        ]
        distance *= 2
    arrays = [array[..., ::-1] for array in arrays] if self.reverse else arrays
    return [
        self.to_tensor(np.ascontiguousarray(np.moveaxis(array, -1, self.axis)), tensor.dtype)
        for array, tensor in zip(arrays, input, strict=True)
    ]


def _combined(self: Any, like: Sequence[Any], left: Arrays, right: Arrays) -> Arrays:
    """What the combine function makes of blocks, as the dtypes of the tensors in ``like``."""
    operands = [
        self.to_tensor(np.ascontiguousarray(array), tensor.dtype)
        for arrays in (left, right)
        for array, tensor in zip(arrays, like, strict=True)
    ]
    results = self.combine_fn(*operands)
    results = results if isinstance(results, tuple) else (results,)
    semantic = stock.interpreter_semantic
    # A combine function may return another dtype than it was given, or a constant.
    casts = (
        semantic.cast(semantic.to_tensor(result), tensor.dtype)
        for result, tensor in zip(results, like, strict=True)
    )
    return [np.broadcast_to(tensor.handle.data, right[0].shape) for tensor in casts]


def _sum(data: NDArray[Any], tensor: Any) -> NDArray[Any]:
    """Sum by halves, rounding at each step.

    NumPy's sum does neither: it adds float16 in float32, and sums other axes than the last one
    element after the other.
    """
    if tensor.dtype.is_fp8():
        raise unsupported(f"sum of {tensor.dtype}")
    bf16 = is_bf16(tensor.handle)
    data = bf16_to_fp32(data) if bf16 else data
    while data.shape[-1] > 1:
        half = data.shape[-1] // 2
        data = data[..., :half] + data[..., half:]
        data = bf16_to_fp32(round_to_bf16(data)) if bf16 else data
    return round_to_bf16(data) if bf16 else data


def _extreme(self: Any, tensor: Any, op: np.ufunc, *, prefers: float) -> Any:
    data = _reduced_axis_last(self, tensor)
    result = op.reduce(data, axis=-1, keepdims=True)
    zero = result == 0
    if zero.any():
        # Zeros are equal, yet 0 counts as more than -0.
        negative = np.signbit(prefers)
        wanted = (data == 0) & (np.signbit(data) == negative)
        found = wanted.any(axis=-1, keepdims=True)
        result = np.where(zero, np.where(found, prefers, -prefers), result)
    return _reduced(self, result, tensor)


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
