"""The builder, its arithmetic side: conversions and element-wise operations as compiled.

As compiled for an NVIDIA GPU, that is. What is not reproduced is the error of its approximate
float32 operations (``/``, ``tl.exp``, ``tl.sqrt``, ``tl.rsqrt``, ``tl.sin``, most of libdevice):
here they are right to less than one unit in the last place. ``tl.dot`` does not round its float32
operands to tf32, and nothing is fused that the kernel does not fuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter as stock

from fuzz.strict import float8, integers, libdevice
from fuzz.strict.bfloat16 import bf16_to_fp32, is_bf16, narrowed, round_to_bf16, widened
from fuzz.strict.refusals import unsupported
from fuzz.strict.rounding import flushed, fma, truncated_to_fp16


class ArithmeticBuilder(stock.InterpreterBuilder):  # type: ignore[misc]  # Triton is untyped
    """Stock builder with right conversions, and with the arithmetic that stock gets wrong."""

    # conversions

    def cast_impl(self, src: Any, dst_type: Any) -> Any:
        if dst_type.scalar.is_fp8():
            return self.create_fp_to_fp(src, dst_type, None)
        source = widened(src, tl.float32, np.float32)
        if dst_type.scalar == tl.bfloat16:
            return stock.TensorHandle(round_to_bf16(source.data), tl.bfloat16)
        np_dtype = stock._get_np_dtype(dst_type)
        return stock.TensorHandle(source.data.astype(np_dtype), dst_type.scalar)

    def create_fp_to_si(self, src: Any, dst_type: Any) -> Any:
        source = widened(src, tl.float32, np.float32)
        data = integers.truncated(source.data, stock._get_np_dtype(dst_type))
        return stock.TensorHandle(data, dst_type.scalar)

    create_fp_to_ui = create_fp_to_si

    def create_fp_to_fp(self, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        source, target = src.dtype.scalar, dst_type.scalar
        toward_zero = rounding_mode == stock._ir.ROUNDING_MODE.RTZ
        if source.is_fp8() or target.is_fp8():
            convert = _from_fp8 if source.is_fp8() else _to_fp8
            return stock.TensorHandle(convert(src, source, target, toward_zero), target)
        if not toward_zero:
            return self.cast_impl(src, dst_type)
        if source == tl.float32 and target == tl.float16:
            return stock.TensorHandle(truncated_to_fp16(src.data), target)
        if source == tl.float32 and target == tl.bfloat16:
            return stock.TensorHandle(round_to_bf16(src.data, toward_zero=True), target)
        raise unsupported(f"conversion from {source} to {target} toward zero")

    def get_bf16(self, value: float) -> Any:
        return narrowed(np.array([value], dtype=np.float32))

    def get_all_ones_value(self, type: Any) -> Any:
        np_dtype = stock._get_np_dtype(type)
        ones = np.array([True]) if np_dtype == np.bool_ else ~np.zeros(1, dtype=np_dtype)
        return stock.TensorHandle(ones, type.scalar)

    # arithmetic: float64 holds every product of two bfloat16, and its other results are fine enough
    # (53 >= 2 * 8 + 2 bits) for the second rounding to be the only one that shows

    def binary_op(self, lhs: Any, rhs: Any, op: Callable[..., Any]) -> Any:
        kind = lhs.data.dtype.kind
        if kind == "b" and rhs.data.dtype == np.bool_:
            return stock.TensorHandle(integers.one_bit(lhs.data, rhs.data, op), tl.int1)
        if kind == "u":
            _refuse_fp8(lhs, op)
            if is_bf16(lhs) and is_bf16(rhs):
                left, right = (widened(handle, tl.float64, np.float64) for handle in (lhs, rhs))
                return narrowed(op(left.data, right.data))
        result = super().binary_op(lhs, rhs, op)
        # Stock leaves comparisons under the operands' dtype, by which a scalar one is then spread.
        return stock.TensorHandle(result.data, tl.int1) if result.data.dtype == np.bool_ else result

    def unary_op(self, arg: Any, op: Callable[..., Any]) -> Any:
        _refuse_fp8(arg, op)
        if not is_bf16(arg):
            return super().unary_op(arg, op)
        return narrowed(op(widened(arg, tl.float64, np.float64).data))

    def create_fma(self, x: Any, y: Any, z: Any) -> Any:
        if not (is_bf16(z) or z.data.dtype.kind == "f"):
            raise unsupported(f"fma of {z.dtype.scalar}")
        return stock.TensorHandle(fma(x.data, y.data, z.data), z.dtype.scalar)

    def create_frem(self, lhs: Any, rhs: Any) -> Any:
        # As compiled: not the exact remainder where the quotient is large.
        whole = np.trunc(lhs.data / rhs.data)
        remainder = fma(-whole, rhs.data, lhs.data)
        data = np.where(np.isinf(rhs.data), lhs.data, remainder)
        return stock.TensorHandle(data, lhs.dtype.scalar)

    def create_umulhi(self, lhs: Any, rhs: Any) -> Any:
        return stock.TensorHandle(integers.high_half(lhs.data, rhs.data), lhs.dtype.scalar)

    # extremes: 0 counts as more than -0; a NaN loses against a number, or wins where it propagates

    def create_maxnumf(self, lhs: Any, rhs: Any) -> Any:
        return _extreme(lhs, rhs, np.fmax, np.bitwise_and)

    def create_minnumf(self, lhs: Any, rhs: Any) -> Any:
        return _extreme(lhs, rhs, np.fmin, np.bitwise_or)

    def create_maximumf(self, lhs: Any, rhs: Any) -> Any:
        return _extreme(lhs, rhs, np.maximum, np.bitwise_and)

    def create_minimumf(self, lhs: Any, rhs: Any) -> Any:
        return _extreme(lhs, rhs, np.minimum, np.bitwise_or)

    def create_clampf(self, arg: Any, lo: Any, hi: Any, propagate_nans: Any) -> Any:
        if propagate_nans == stock._ir.PROPAGATE_NAN.NONE:
            return self.create_minnumf(self.create_maxnumf(arg, lo), hi)
        return self.create_minimumf(self.create_maximumf(arg, lo), hi)

    # float32 operations that take subnormals for zeros, as their operands or as their results

    def create_sqrt(self, arg: Any) -> Any:
        return super().create_sqrt(_without_subnormals(arg))

    def create_rsqrt(self, arg: Any) -> Any:
        return super().create_rsqrt(_without_subnormals(arg))

    def create_floor(self, arg: Any) -> Any:
        return super().create_floor(_without_subnormals(arg))

    def create_ceil(self, arg: Any) -> Any:
        return super().create_ceil(_without_subnormals(arg))

    def create_exp2(self, arg: Any) -> Any:
        return _without_subnormals(super().create_exp2(arg))

    # products of matrices, and what is not Triton's own

    def create_dot(self, a: Any, b: Any, d: Any, *args: Any, **kwargs: Any) -> Any:
        return super().create_dot(_as_fp32(a), _as_fp32(b), d, *args, **kwargs)

    def create_extern_elementwise(
        self, lib_name: str, lib_path: str, symbol: str, args: Any, ret_type: Any, is_pure: bool
    ) -> Any:
        data = libdevice.call(symbol, [arg.data for arg in args])
        return stock.TensorHandle(data, ret_type.scalar)

    def create_inline_asm(self, asm: str, *args: Any, **kwargs: Any) -> Any:
        raise unsupported(f"inline assembly ({asm.split(';')[0].strip()} ...)")


def dot_scaled(semantic: Any, *args: Any, **kwargs: Any) -> Any:
    """Refuse a scaled product: replaces ``TritonSemantic.dot_scaled``."""
    raise unsupported("tl.dot_scaled")


def _from_fp8(src: Any, source: Any, target: Any, toward_zero: bool) -> NDArray[Any]:
    if target == tl.bfloat16 and source != tl.float8e4b15:
        return float8.widen_fp8_to_bf16(src.data, source)
    if target in (tl.float16, tl.float32):
        values = float8.widen_fp8(src.data, source)
        narrow: NDArray[Any] = values.astype(stock._get_np_dtype(target))
        return narrow
    raise unsupported(f"conversion from {source} to {target}")


def _to_fp8(src: Any, source: Any, target: Any, toward_zero: bool) -> NDArray[Any]:
    to_e4b15 = target == tl.float8e4b15
    if source == tl.float32 and (to_e4b15 or (toward_zero and target == tl.float8e5)):
        halves = truncated_to_fp16(src.data)
        return float8.round_to_fp8e4b15(halves) if to_e4b15 else float8.truncate_to_fp8e5(halves)
    if source == tl.float16 and to_e4b15:
        return float8.round_to_fp8e4b15(src.data)
    if to_e4b15 or toward_zero or source not in (tl.float16, tl.bfloat16, tl.float32):
        how = " toward zero" if toward_zero else ""
        raise unsupported(f"conversion from {source} to {target}{how}")
    numbers = bf16_to_fp32(src.data) if source == tl.bfloat16 else src.data.astype(np.float32)
    return float8.round_to_fp8(numbers, target)


def _is_fp8(handle: Any) -> bool:
    return bool(handle.data.dtype == np.uint8 and handle.dtype.scalar.is_fp8())


def _refuse_fp8(handle: Any, op: Callable[..., Any]) -> None:
    """Compilers know no arithmetic on float8, nor comparisons."""
    if _is_fp8(handle):
        raise unsupported(f"{getattr(op, '__name__', op)} of {handle.dtype.scalar}")


def _as_fp32(handle: Any) -> Any:
    if _is_fp8(handle):
        values = float8.widen_fp8(handle.data, handle.dtype.scalar)
        return stock.TensorHandle(values, tl.float32)
    return widened(handle, tl.float32, np.float32)


def _without_subnormals(handle: Any) -> Any:
    if handle.data.dtype != np.float32:
        return handle
    return stock.TensorHandle(flushed(handle.data), handle.dtype.scalar)


def _extreme(lhs: Any, rhs: Any, op: Callable[..., Any], of_equal_bits: Callable[..., Any]) -> Any:
    _refuse_fp8(lhs, op)
    left, right = (widened(handle, tl.float32, np.float32).data for handle in (lhs, rhs))
    # Equal numbers differ in bits only as zeros do: in the sign.
    as_bits = f"u{left.itemsize}"
    bits = of_equal_bits(left.view(as_bits), right.view(as_bits))
    data = np.where(left == right, bits.view(left.dtype), op(left, right))
    if is_bf16(lhs):
        return narrowed(data)
    return stock.TensorHandle(data, lhs.dtype.scalar)
