"""Any-rank strided tensors as rows, without copying, and the checks of every argument.

A row is the run of normalised columns; the leading dims count the rows in row-major order.
Messages name the argument, its value, the rule and, in brackets, the function called.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
import triton
from torch import Tensor

from ln_kernels.launch import LaunchConfig
from ln_kernels.overlap import overlap, overlaps_itself, same_layout

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32)

# Columns are counted in int32 inside a kernel, and the last block reaches past the last column.
MAX_COLS = 2**30
MAX_EPS = torch.finfo(torch.float32).max

# Leading dims that a kernel walks by itself, after coalescing. More are walked on the host.
MAX_LEAD_DIMS = 4
# The widest load of a thread.
MAX_VECTOR_BYTES = 16
# CUDA's limit on the first dimension of a grid.
MAX_PROGRAMS = 2**31 - 1

# Settled when the kernels are decorated, that is when this package is imported.
_INTERPRETED = triton.knobs.runtime.interpret


@dataclass(frozen=True, slots=True)
class RowBatch:
    """The rows of one launch: `tensors` start at row `first_row` of the call."""

    first_row: int
    n_rows: int
    # Sizes of the leading dims but the outermost, 1 where there are fewer than MAX_LEAD_DIMS. They
    # are arguments one by one: Triton specialises on the members of a tuple whatever it is told.
    inner_sizes: tuple[int, ...]
    tensors: tuple[Tensor, ...]
    # Columns that lie together on an aligned address in every tensor, wherever a vector of that
    # many columns begins: a power of two, of at most 16 bytes of x.
    vector: int
    strides: tuple[tuple[int, ...], ...]  # of the leading dims, in vectors, for each tensor
    whole: bool  # these are all the rows of the call


def row_batches(
    tensors: Sequence[Tensor],
    vectors: Sequence[Tensor | None] = (),
    n_norm_dims: int = 1,
    groups_per_row: int = 1,
) -> Iterator[RowBatch]:
    """Split tensors of one shape, which have passed their checks, into as few launches as can be.

    `vectors` are those that all rows share. One launch, as a rule. More than MAX_LEAD_DIMS leading
    dims that no tensor lets merge, or more than MAX_PROGRAMS groups, take one launch for each slice
    of the outermost dim.
    """
    lead = tensors[0].shape[: tensors[0].ndim - n_norm_dims]
    if 0 in lead:
        return
    n_cols = math.prod(tensors[0].shape[len(lead) :])
    sizes, strides = _coalesce(lead, [t.stride()[: len(lead)] for t in tensors])
    shared = [t for t in vectors if t is not None]
    for first_row, part, offsets in _split(sizes, strides, groups_per_row):
        dims = len(part)
        part_strides = tuple(s[-dims:] for s in strides)
        parts = (
            tuple(tensors)
            if part == sizes
            else tuple(
                t.detach().as_strided((*part, n_cols), (*s, 1), t.storage_offset() + offset)
                for t, s, offset in zip(tensors, part_strides, offsets, strict=True)
            )
        )
        vector = _vector((*parts, *shared), n_cols // groups_per_row, part_strides)
        yield RowBatch(
            first_row,
            math.prod(part),
            part[1:] + (1,) * (MAX_LEAD_DIMS - dims),
            parts,
            vector,
            tuple(tuple(s // vector for s in steps) for steps in part_strides),
            part == sizes,
        )


def _vector(tensors: Sequence[Tensor], n_cols: int, strides: Sequence[tuple[int, ...]]) -> int:
    """The largest power of two that divides every width, stride and address, in elements."""
    bits = MAX_VECTOR_BYTES // tensors[0].element_size() | n_cols
    for tensor_strides in strides:
        for stride in tensor_strides:
            bits |= stride
    for tensor in tensors:
        bits |= tensor.data_ptr() // tensor.element_size()
    return bits & -bits


def _coalesce(
    lead: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Drop dims of size 1 and merge neighbours that every tensor steps through evenly."""
    sizes: list[int] = []
    kept: list[list[int]] = [[] for _ in strides]
    for dim, size in enumerate(lead):
        if size == 1:
            continue
        if sizes and all(k[-1] == s[dim] * size for k, s in zip(kept, strides, strict=True)):
            sizes[-1] *= size
            for k, s in zip(kept, strides, strict=True):
                k[-1] = s[dim]
        else:
            sizes.append(size)
            for k, s in zip(kept, strides, strict=True):
                k.append(s[dim])
    if not sizes:
        return (1,), [(0,) for _ in strides]
    return tuple(sizes), [tuple(k) for k in kept]


def _split(
    sizes: tuple[int, ...], strides: Sequence[tuple[int, ...]], programs_per_row: int
) -> Iterator[tuple[int, tuple[int, ...], list[int]]]:
    """Yield (first row, sizes, offset of each tensor) of every launch, rows in order."""
    inner = math.prod(sizes[1:])
    step = MAX_PROGRAMS // (inner * programs_per_row)
    if len(sizes) <= MAX_LEAD_DIMS and step >= 1:
        for start in range(0, sizes[0], step):
            part = (min(step, sizes[0] - start), *sizes[1:])
            yield start * inner, part, [start * s[0] for s in strides]
        return
    for index in range(sizes[0]):
        for row, part, offsets in _split(sizes[1:], [s[1:] for s in strides], programs_per_row):
            moved = [index * s[0] + o for s, o in zip(strides, offsets, strict=True)]
            yield index * inner + row, part, moved


def check_tensor(name: str, tensor: Tensor, function: str) -> None:
    """Refuse what is not a dense tensor of a supported dtype."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}={type(tensor).__name__}, must be a torch.Tensor [{function}]")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name}.layout={tensor.layout}, must be torch.strided [{function}]")
    if tensor.dtype not in FLOAT_DTYPES:
        raise TypeError(
            f"{name}.dtype={tensor.dtype}, must be {_either(FLOAT_DTYPES)} [{function}]"
        )


def check_x(x: Tensor, function: str, n_norm_dims: int = 1) -> int:
    """Refuse what no kernel can read as rows; return n_cols."""
    check_tensor("x", x, function)
    if x.ndim == 0:
        raise ValueError(f"x.ndim=0, must be >= 1 [{function}]")
    if _INTERPRETED:
        if x.device.type not in ("cpu", "cuda"):
            raise ValueError(f"x.device={x.device}, must be cpu or cuda [{function}]")
    elif x.device.type != "cuda":
        raise ValueError(
            f"x.device={x.device}, must be cuda, or set TRITON_INTERPRET=1 before ln_kernels is "
            f"imported [{function}]"
        )
    n_cols = math.prod(x.shape[x.ndim - n_norm_dims :])
    if n_cols < 1:
        raise ValueError(f"n_cols=0, must be >= 1 [{function}]")
    if n_cols > MAX_COLS:
        raise ValueError(f"n_cols={n_cols}, must be <= {MAX_COLS} [{function}]")
    _check_columns("x", x, function, n_norm_dims)
    return n_cols


def check_vector(
    name: str, vector: Tensor | None, shape: Sequence[int], x: Tensor, function: str
) -> None:
    """Refuse a weight or bias (None is none) that does not span the normalised columns."""
    if vector is None:
        return
    check_tensor(name, vector, function)
    if tuple(vector.shape) != tuple(shape):
        raise ValueError(f"{name}.shape={tuple(vector.shape)}, must be {tuple(shape)} [{function}]")
    _check_device(name, vector, x, function)
    _check_columns(name, vector, function, len(shape))


def check_rows(name: str, rows: Tensor, x: Tensor, function: str, n_norm_dims: int = 1) -> None:
    """Refuse a tensor that does not go with x row by row; its leading strides are its own."""
    check_tensor(name, rows, function)
    if rows.shape != x.shape:
        raise ValueError(
            f"{name}.shape={tuple(rows.shape)}, must be {tuple(x.shape)} as x [{function}]"
        )
    _check_device(name, rows, x, function)
    _check_columns(name, rows, function, n_norm_dims)


def output(
    name: str,
    out: Tensor | None,
    x: Tensor,
    function: str,
    *,
    in_place_of: Mapping[str, Tensor | None],
    apart_from: Mapping[str, Tensor | None],
    dtypes: Sequence[torch.dtype] = (),
    n_norm_dims: int = 1,
) -> Tensor:
    """The tensor to fill: contiguous memory of x's shape and dtype, or `out` when it can be.

    `in_place_of` are inputs that each program reads, element by element, before it stores the
    same element: the output may be one of them, in the same layout. `apart_from` are the others.
    `dtypes` are those allowed, x's alone when empty.
    """
    if out is None:
        return torch.empty(x.shape, dtype=x.dtype, device=x.device)
    check_rows(name, out, x, function, n_norm_dims)
    allowed = tuple(dtypes) or (x.dtype,)
    if out.dtype not in allowed:
        raise TypeError(f"{name}.dtype={out.dtype}, must be {_either(allowed)} [{function}]")
    if overlaps_itself(out):
        raise ValueError(
            f"{name}.stride()={out.stride()}, must give each element an address of its own "
            f"[{function}]"
        )
    for other, tensor in in_place_of.items():
        if tensor is not None and not same_layout(out, tensor) and overlap(out, tensor):
            raise ValueError(
                f"{name} shares memory with {other}, must be {other} in the same layout or apart "
                f"from it [{function}]"
            )
    for other, tensor in apart_from.items():
        if tensor is not None and overlap(out, tensor):
            raise ValueError(
                f"{name} shares memory with {other}, must be apart from it [{function}]"
            )
    return out


def check_eps(eps: float, function: str) -> float:
    """Refuse an eps that fp32 cannot hold; return it as a float."""
    if not isinstance(eps, Real) or isinstance(eps, bool):
        raise TypeError(f"eps={eps!r}, must be a number [{function}]")
    if not 0.0 <= eps <= MAX_EPS:
        raise ValueError(f"eps={eps}, must be finite in float32 and >= 0 [{function}]")
    return float(eps)


def check_count(name: str, count: int, function: str) -> None:
    """Refuse what is not a whole number of at least 1."""
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{name}={count!r}, must be an int [{function}]")
    if count < 1:
        raise ValueError(f"{name}={count}, must be >= 1 [{function}]")


def check_group_size(group_size: int | None, n_cols: int, function: str) -> int:
    """Refuse groups that do not divide the columns; return their size (None is one group)."""
    if group_size is None:
        return n_cols
    check_count("group_size", group_size, function)
    if n_cols % group_size:
        raise ValueError(f"group_size={group_size}, must divide n_cols={n_cols} [{function}]")
    return group_size


def check_launch(launch: LaunchConfig | None, function: str) -> None:
    """Refuse what is not a launch configuration."""
    if launch is not None and not isinstance(launch, LaunchConfig):
        raise TypeError(f"launch={launch!r}, must be a LaunchConfig or None [{function}]")


def _check_device(name: str, tensor: Tensor, x: Tensor, function: str) -> None:
    if tensor.device != x.device:
        raise ValueError(f"{name}.device={tensor.device}, must be {x.device} as x [{function}]")


def _check_columns(name: str, tensor: Tensor, function: str, n_norm_dims: int) -> None:
    """Refuse columns that are not one run of memory: reading them would need a copy."""
    expected = 1
    for dim in range(-1, -n_norm_dims - 1, -1):
        size, stride = tensor.shape[dim], tensor.stride(dim)
        if size != 1 and stride != expected:
            raise ValueError(f"{name}.stride({dim})={stride}, must be {expected} [{function}]")
        expected *= size


def _either(dtypes: Sequence[torch.dtype]) -> str:
    names = [str(dtype) for dtype in dtypes]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
