"""The memory that a launch may touch, prepared for fast look-up."""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Region:
    """Memory of one tensor that a launch may touch.

    Shapes: ``intervals`` (k, 2), byte addresses [start, stop), in any order, may overlap.
    Dtypes: uint64.

    ``origin`` is the address of the tensor's element 0, from which reports count.
    """

    name: str
    intervals: NDArray[np.uint64]
    origin: int
    writable: bool = True

    def __post_init__(self) -> None:
        if self.intervals.ndim != 2 or self.intervals.shape[1] != 2:
            raise ValueError(
                f"intervals.shape={self.intervals.shape}, must be (k, 2) [{self.name}]"
            )
        if self.intervals.dtype != np.uint64:
            raise ValueError(
                f"intervals.dtype={self.intervals.dtype}, must be uint64 [{self.name}]"
            )

    @classmethod
    def of_bytes(
        cls,
        name: str,
        start: int,
        n_bytes: int,
        *,
        writable: bool = True,
        origin: int | None = None,
    ) -> Region:
        """The region of one contiguous stretch; ``origin`` defaults to ``start``."""
        intervals = np.array([[start, start + n_bytes]], dtype=np.uint64)
        return cls(name, intervals, start if origin is None else origin, writable)

    @functools.cached_property
    def extent(self) -> NDArray[np.uint64]:
        """From the first byte to the last. Shapes: (1, 2), or (0, 2) for an empty region."""
        if not self.intervals.size:
            return self.intervals
        return np.array([[self.intervals[:, 0].min(), self.intervals[:, 1].max()]], dtype=np.uint64)

    def distance(self, address: int) -> int:
        """Bytes from an address to the nearest byte of the region; 0 inside."""
        distances = (
            0 if start <= address < stop else min(abs(start - address), abs(address - stop + 1))
            for start, stop in self.intervals.tolist()
            if start < stop
        )
        return min(distances, default=1 << 64)


class Spans:
    """The union of the byte intervals of several tensors, sorted and merged.

    Intervals of two tensors that only touch stay apart: no element lies half in each.
    """

    def __init__(self, tensors: list[NDArray[np.uint64]]) -> None:
        merged = [_merged(intervals, touching=True) for intervals in tensors]
        table = np.concatenate([np.empty((0, 2), dtype=np.uint64), *merged])
        table = _merged(table, touching=False)
        self._starts: NDArray[np.uint64] = table[:, 0].copy()
        self._stops: NDArray[np.uint64] = table[:, 1].copy()
        # Python integers: a bisection of a list is ten times as fast as one small NumPy call.
        self._start_list: list[int] = self._starts.tolist()
        self._stop_list: list[int] = self._stops.tolist()

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The merged intervals, ascending."""
        return list(zip(self._start_list, self._stop_list, strict=True))

    def hold(self, start: int, stop: int) -> bool:
        """Whether all bytes of [start, stop) lie in one merged interval."""
        index = bisect_right(self._start_list, start) - 1
        return index >= 0 and stop <= self._stop_list[index]

    def touch(self, start: int, stop: int) -> bool:
        """Whether any byte of [start, stop) lies in the union."""
        index = bisect_right(self._start_list, stop - 1) - 1
        return start < stop and index >= 0 and start < self._stop_list[index]

    def outside(self, addresses: NDArray[np.uint64], n_bytes: int) -> NDArray[np.bool_]:
        """Which addresses start an access of ``n_bytes`` that leaves the union."""
        if not self._start_list:
            return np.ones(addresses.shape, dtype=np.bool_)
        index = np.searchsorted(self._starts, addresses, side="right") - 1
        # Room is compared, not the end of the access: a wild address plus n_bytes may wrap round.
        room = self._stops[index] - addresses
        inside = (index >= 0) & (addresses < self._stops[index]) & (room >= np.uint64(n_bytes))
        return ~inside


def _merged(table: NDArray[np.uint64], *, touching: bool) -> NDArray[np.uint64]:
    """Disjoint intervals with the same union, ascending; ``touching`` ones become one."""
    table = table[table[:, 0] < table[:, 1]]
    if len(table) < 2:
        return table
    table = table[np.argsort(table[:, 0], kind="stable")]
    reach = np.maximum.accumulate(table[:, 1])
    first = np.ones(len(table), dtype=np.bool_)
    first[1:] = table[1:, 0] > reach[:-1] if touching else table[1:, 0] >= reach[:-1]
    last = np.ones(len(table), dtype=np.bool_)
    last[:-1] = first[1:]
    return np.stack([table[first, 0], reach[last]], axis=1)


class Regions:
    """All memory that launches may touch; immutable, prepared for fast look-up."""

    def __init__(self, regions: Iterable[Region] = ()) -> None:
        self.regions = tuple(regions)
        self.readable = Spans([region.intervals for region in self.regions])
        self.writable = Spans([region.intervals for region in self.regions if region.writable])

    def extended(self, more: Iterable[Region]) -> Regions:
        """These regions and more."""
        return Regions((*self.regions, *more))

    def owner(self, address: int) -> Region | None:
        """The region with its element 0 at an address, else the nearest; the first of several."""
        return min(
            self.regions,
            key=lambda region: -1 if region.origin == address else region.distance(address),
            default=None,
        )
