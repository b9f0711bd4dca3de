"""NumPy's view of what kernels compute, with ml_dtypes for the formats that NumPy lacks."""

from collections.abc import Iterable

import ml_dtypes
import numpy as np
import torch

from fuzz.interpreter import StrictInterpreter

BF16 = ml_dtypes.bfloat16

# numpy() and from_numpy() know none of these.
_NUMPY_TYPES = {
    torch.bfloat16: BF16,
    torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn,
    torch.float8_e5m2: ml_dtypes.float8_e5m2,
    torch.float8_e4m3fnuz: ml_dtypes.float8_e4m3fnuz,
    torch.float8_e5m2fnuz: ml_dtypes.float8_e5m2fnuz,
}
_TORCH_TYPES = {np.dtype(kind): dtype for dtype, kind in _NUMPY_TYPES.items()}

ALL_8_BITS = np.arange(1 << 8, dtype=np.uint8)
ALL_16_BITS = np.arange(1 << 16, dtype=np.uint16)

# Every bfloat16 as the upper half, and what lies just around a tie as the lower: the whole range,
# subnormals, NaN of all kinds, and what overflows to Inf are among them.
_AROUND_TIES = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=np.uint32)
FP32_AROUND_BF16_TIES = (
    ((ALL_16_BITS.astype(np.uint32) << 16) | _AROUND_TIES[:, None]).view(np.float32).reshape(-1)
)


def around_ties(kind: type) -> np.ndarray:
    """float32: the values of a narrower format, what is half way between them, and neighbours."""
    n_codes = 1 << (8 * np.dtype(kind).itemsize - 1)
    values = np.arange(n_codes, dtype=f"u{np.dtype(kind).itemsize}").view(kind).astype(np.float64)
    values = np.sort(values[np.isfinite(values)]).astype(np.float32)
    centres = np.concatenate([values, (values[1:] + values[:-1]) / 2, 2 * values[-1:]])
    infinity = np.float32(np.inf)
    near = [np.nextafter(centres, -infinity), centres, np.nextafter(centres, infinity)]
    rest = np.array([np.inf, -np.inf, np.nan], dtype=np.float32)
    return np.concatenate([*near, *(-array for array in near), rest])


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The same memory."""
    kind = _NUMPY_TYPES.get(tensor.dtype)
    if kind is None:
        return tensor.numpy()
    bits = {1: torch.uint8, 2: torch.uint16}[tensor.element_size()]
    return tensor.view(bits).numpy().view(kind)


def as_torch(array: np.ndarray) -> torch.Tensor:
    """The same memory."""
    dtype = _TORCH_TYPES.get(array.dtype)
    if dtype is None:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(f"u{array.itemsize}")).view(dtype)


def assert_same_bits(got: np.ndarray, want: np.ndarray) -> None:
    """Equal bit by bit, except that any NaN is as good as another."""
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    as_bits = f"u{want.dtype.itemsize}"
    if want.dtype.kind in "iub":
        np.testing.assert_array_equal(got, want)
        return
    nan = np.isnan(want)
    np.testing.assert_array_equal(np.isnan(got), nan)
    np.testing.assert_array_equal(got.view(as_bits)[~nan], want.view(as_bits)[~nan])


def units_apart(got: np.ndarray, want: np.ndarray) -> float:
    """The largest distance from values of float64, in units in the last place of ``got``'s format.

    Infinities and NaN must be in the same places.
    """
    rounded = want.astype(got.dtype)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded))
    np.testing.assert_array_equal(got[np.isinf(got)], rounded[np.isinf(got)])
    finite = np.isfinite(rounded) & np.isfinite(got)
    unit = np.spacing(np.abs(rounded[finite])).astype(np.float64)
    return float(np.max(np.abs(got[finite] - want[finite]) / unit, initial=0.0))


def computed(
    kernel, *inputs: np.ndarray, dtype: torch.dtype = torch.float32, **kwargs
) -> np.ndarray:
    """What a kernel makes of arrays, element by element; its last pointer is the result.

    Shapes: all the same, of any size; a block holds 1024 elements. The kernel's constexpr is BLOCK.
    """
    n = inputs[0].size
    block = 1024
    size = -(-n // block) * block
    padded = [np.resize(array, size) for array in inputs]
    result = torch.empty(size, dtype=dtype)
    with np.errstate(all="ignore"), StrictInterpreter():
        kernel[(size // block,)](*map(as_torch, padded), result, BLOCK=block, **kwargs)
    return as_numpy(result)[:n]


def launched(kernel, *args, grid: Iterable[int] = (1,), **kwargs) -> None:
    """One launch in a strict interpreter of its own."""
    with StrictInterpreter():
        kernel[tuple(grid)](*args, **kwargs)
