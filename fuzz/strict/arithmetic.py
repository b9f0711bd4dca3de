"""The builder, its arithmetic side: conversions and element-wise operations as compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as stock

from fuzz.strict.bfloat16 import is_bf16, narrowed, round_to_bf16, widened
from fuzz.strict.faults import UnsupportedInInterpreter


class ArithmeticBuilder(stock.InterpreterBuilder):  # type: ignore[misc]  # Triton is untyped
    """Stock builder with right conversions and bfloat16 arithmetic."""

    # conversions

    def cast_impl(self, src: Any, dst_type: Any) -> Any:
        source = widened(src, tl.float32, np.float32)
        if dst_type.scalar == tl.bfloat16:
            return stock.TensorHandle(round_to_bf16(source.data), tl.bfloat16)
        np_dtype = stock._get_np_dtype(dst_type)
        return stock.TensorHandle(source.data.astype(np_dtype), dst_type.scalar)

    def create_fp_to_fp(self, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        fp8 = src.dtype.scalar.is_fp8() or dst_type.scalar.is_fp8()
        if fp8 or tl.bfloat16 not in (src.dtype.scalar, dst_type.scalar):
            return super().create_fp_to_fp(src, dst_type, rounding_mode)
        if rounding_mode == stock._ir.ROUNDING_MODE.RTZ and dst_type.scalar == tl.bfloat16:
            return stock.TensorHandle(round_to_bf16(src.data, toward_zero=True), tl.bfloat16)
        return self.cast_impl(src, dst_type)

    def get_bf16(self, value: float) -> Any:
        return narrowed(np.array([value], dtype=np.float32))

    # arithmetic: float64 holds every product of two bfloat16, and its other results are fine enough
    # (53 >= 2 * 8 + 2 bits) for the second rounding to be the only one that shows

    def binary_op(self, lhs: Any, rhs: Any, op: Callable[..., Any]) -> Any:
        if not (is_bf16(lhs) and is_bf16(rhs)):
            return super().binary_op(lhs, rhs, op)
        left, right = (widened(handle, tl.float64, np.float64) for handle in (lhs, rhs))
        return narrowed(op(left.data, right.data))

    def unary_op(self, arg: Any, op: Callable[..., Any]) -> Any:
        if not is_bf16(arg):
            return super().unary_op(arg, op)
        return narrowed(op(widened(arg, tl.float64, np.float64).data))

    def ternary_op(self, lhs: Any, rhs: Any, other: Any, op: Callable[..., Any]) -> Any:
        # A selection moves bits and is right as it is; only the clamp computes.
        if op is np.where or not is_bf16(other):
            return super().ternary_op(lhs, rhs, other, op)
        wide = (widened(handle, tl.float64, np.float64).data for handle in (lhs, rhs, other))
        return narrowed(op(*wide))

    def create_fma(self, x: Any, y: Any, z: Any) -> Any:
        if is_bf16(z):
            raise UnsupportedInInterpreter("fma on bfloat16")
        return super().create_fma(x, y, z)

    def create_dot(self, a: Any, b: Any, d: Any, *args: Any, **kwargs: Any) -> Any:
        a, b = (widened(handle, tl.float32, np.float32) for handle in (a, b))
        return super().create_dot(a, b, d, *args, **kwargs)
