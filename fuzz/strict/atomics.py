"""Atomic addition in bfloat16, which Triton's interpreter does not know."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from triton.runtime import interpreter as stock

from fuzz.strict.bfloat16 import bf16_to_fp32, round_to_bf16


def add_bf16(
    addresses: NDArray[np.uint64], addends: NDArray[np.uint16], mask: NDArray[np.bool_]
) -> NDArray[np.uint16]:
    """Add to memory, lane after lane where they share an address, each sum rounded once.

    Shapes: all three the same. Returns what was in memory before each lane's own addition.
    """
    old = np.zeros(addresses.shape, dtype=np.uint16)
    for turn in _turns(addresses, mask):
        now = stock._interpreter.load(addresses, turn, old, np.dtype(np.uint16))
        total = bf16_to_fp32(now).astype(np.float64) + bf16_to_fp32(addends)
        stock._interpreter.store(addresses, round_to_bf16(total), turn)
        old = np.where(turn, now, old)
    return old


def _turns(addresses: NDArray[np.uint64], mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The lanes that may go at once: the first of each address, then the second, and so on."""
    lanes = np.flatnonzero(mask)
    _, which = np.unique(addresses.ravel()[lanes], return_inverse=True)
    order = np.argsort(which, kind="stable")
    sizes = np.bincount(which)
    first = np.cumsum(sizes) - sizes
    turns = np.full(addresses.size, -1)
    turns[lanes[order]] = np.arange(lanes.size) - first[which[order]]
    in_place = turns.reshape(addresses.shape)
    return [in_place == turn for turn in range(int(sizes.max(initial=0)))]
