"""Launches that are made again without being prepared again.

To check the arguments, to see what strides have in common and to bind them to a kernel takes
several times as long as a small kernel runs. All of it follows from what a call's key holds: the
dtype, shape, strides, device and alignment of every tensor, and every scalar. A call whose key was
seen before therefore goes straight to the compiled kernel. Only calls that allocate their outputs
are kept: for memory that a caller gives, it matters where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

# Triton specialises on addresses that this divides; the widest vector load needs no more.
_ALIGNMENT = 16
# Keys are small. A program whose shapes never come again only fills the table: it is emptied then.
_MAX_KEPT = 4096

Key = tuple[Any, ...]

Places = tuple[int | None, ...]
"""The pointer arguments of a kernel, each by its place among the tensors of a call and, after them,
its outputs; None is an absent one."""


@dataclass(frozen=True, slots=True)
class _Launch:
    """What is left of a call once everything in its key is settled."""

    kernel: Any  # triton.compiler.CompiledKernel
    grid: int
    device: int
    outputs: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    pointers: Places
    rest: tuple[Any, ...]  # the arguments after the pointers


_kept: dict[Key, _Launch] = {}


def key_of(function: str, tensors: Sequence[Tensor | None], *scalars: Any) -> Key | None:
    """What a call depends on; None where it cannot be kept."""
    key: list[Any] = [function, *scalars, *map(type, scalars)]
    try:
        for tensor in tensors:
            if tensor is None:
                key.append(None)
            else:
                key += (
                    tensor.dtype,
                    tensor.shape,
                    tensor.stride(),
                    tensor.get_device(),
                    tensor.data_ptr() % _ALIGNMENT,
                )
    except (AttributeError, RuntimeError):
        # No dense tensor: the checks have words for it.
        return None
    return tuple(key)


def again(key: Key | None, tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...] | None:
    """The outputs of a launch that was made before with this key; None where there was none."""
    try:
        launch = _kept.get(key)  # type: ignore[arg-type]
    except TypeError:  # a scalar that cannot be hashed
        return None
    if launch is None or launch.device != torch.cuda.current_device():
        return None
    like = tensors[0]
    assert like is not None, "the first tensor is x"
    outputs = tuple(like.new_empty(shape, dtype=dtype) for shape, dtype in launch.outputs)
    addresses = [None if t is None else t.data_ptr() for t in tensors]
    for output in outputs:
        address = output.data_ptr()
        if address % _ALIGNMENT:
            return None
        addresses.append(address)
    arguments = [None if place is None else addresses[place] for place in launch.pointers]
    kernel, knobs = launch.kernel, triton.knobs.runtime
    if knobs.launch_enter_hook.calls or knobs.launch_exit_hook.calls:
        kernel[launch.grid, 1, 1](*arguments, *launch.rest)
    else:
        # What the line above does, without the metadata that hooks would read.
        stream = torch._C._cuda_getCurrentRawStream(launch.device)
        kernel.run(
            launch.grid,
            1,
            1,
            stream,
            kernel.function,
            kernel.packed_metadata,
            None,
            None,
            None,
            *arguments,
            *launch.rest,
        )
    return outputs


def keep(
    key: Key | None,
    kernel: Any,
    grid: int,
    x: Tensor,
    outputs: Sequence[Tensor],
    pointers: Places,
    rest: tuple[Any, ...],
) -> None:
    """Remember a launch that was made: `kernel` as Triton returned it, None where interpreted."""
    if key is None or kernel is None or not x.is_cuda:
        return
    if any(t.data_ptr() % _ALIGNMENT or not t.is_contiguous() for t in outputs):
        return
    if len(_kept) >= _MAX_KEPT:
        _kept.clear()
    shapes = tuple((tuple(t.shape), t.dtype) for t in outputs)
    with suppress(TypeError):  # a scalar that cannot be hashed
        _kept[key] = _Launch(kernel, grid, x.get_device(), shapes, pointers, rest)
