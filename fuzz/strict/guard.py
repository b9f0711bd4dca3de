"""Watches every access of one launch: refuses it, before it is done, where it is not allowed."""

from __future__ import annotations

import linecache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from triton.runtime import interpreter as stock

from fuzz.strict.faults import DTYPE_NAMES, Access, Action, OutOfBounds, kernel_frame
from fuzz.strict.regions import Regions


class Guard:
    """What one launch of ``kernel`` may touch."""

    def __init__(self, kernel: str, memory: Regions) -> None:
        self.kernel = kernel
        self.memory = memory

    def check(
        self,
        ptrs: Any,
        mask: Any,
        n_bytes: int,
        action: Action,
    ) -> None:
        """Refuse an access, before it is done, unless all its unmasked lanes are allowed.

        Shapes: ``mask`` broadcasts to that of the pointers.
        Raises: ``OutOfBounds``.
        """
        addresses: NDArray[np.uint64] = ptrs.data
        on = np.asarray(mask)
        wanted = addresses if on.all() else addresses[np.broadcast_to(on, addresses.shape)]
        if wanted.size == 0:
            return
        memory = self.memory
        spans = memory.readable if action == "read" else memory.writable
        if spans.hold(int(wanted.min()), int(wanted.max()) + n_bytes):
            return
        bad = wanted[spans.outside(wanted, n_bytes)]
        if bad.size == 0:
            return
        address = int(bad[0])
        region = memory.owner(ptrs.attr.get("base", address))
        dtype = ptrs.get_element_ty().name
        frame = kernel_frame()
        file, line = frame.f_code.co_filename, frame.f_lineno
        access = Access(
            kernel=self.kernel,
            action=action,
            file=file,
            line=line,
            text=linecache.getline(file, line).strip(),
            program=stock.interpreter_builder.grid_idx,
            region=None if region is None else region.name,
            element=None if region is None else (address - region.origin) // n_bytes,
            dtype=DTYPE_NAMES.get(dtype, dtype),
            n_bad=bad.size,
            n_lanes=wanted.size,
            read_only=action != "read" and memory.readable.hold(address, address + n_bytes),
        )
        raise OutOfBounds(access)
