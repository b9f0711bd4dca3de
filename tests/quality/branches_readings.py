"""What a case is, read off its shapes, strides and values and off nothing else."""

from __future__ import annotations

import math

from fuzz.case import Case, TensorCase, contiguous_strides


def launch_block(case: Case) -> int:
    """Columns of one step; 0 where the launch does not say."""
    return case.launch.block or 0


def is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))


def is_power_of_2(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


def own(case: Case, name: str) -> TensorCase | None:
    """The tensor, if it is there and has memory of its own."""
    tensor = case.tensor(name)
    return None if tensor is None or tensor.alias_of is not None else tensor


def leading(case: Case, name: str = "x") -> list[tuple[int, int]]:
    """Stride and size of the leading dims of more than one element, the first first."""
    tensor = case.tensor_or_fail(name)
    dims = zip(tensor.strides, tensor.shape, strict=True)
    return [(stride, size) for stride, size in list(dims)[: len(case.leading)] if size > 1]


def gaps(case: Case, name: str = "x") -> list[int]:
    """Unused elements behind a row, and behind each larger dim in the order of memory."""
    filled, found = case.n_cols, []
    for stride, size in sorted(leading(case, name)):
        if stride > 0:
            found.append(stride - filled)
            filled = stride * size
    return found


def manners(case: Case, name: str = "x") -> set[str]:
    """What is particular about the layout of a tensor's rows."""
    dims = leading(case, name)
    steps = [stride for stride, _ in dims if stride > 0]
    row_gap, *outer_gaps = [*gaps(case, name), 0]
    found = {
        "expanded": len(steps) < len(dims),
        "permuted": steps != sorted(steps, reverse=True),
        "row_gap": row_gap > 0,
        "outer_gap": any(gap > 0 for gap in outer_gaps),
    }
    return {manner for manner, there in found.items() if there}


def is_contiguous(tensor: TensorCase) -> bool:
    return tensor.strides == contiguous_strides(tensor.shape) and tensor.offset == 0


def exchanges(case: Case) -> int:
    """How many leading dims of x are not where their place in memory would have them."""
    steps = [stride for stride, _ in leading(case) if stride > 0]
    return sum(a != b for a, b in zip(steps, sorted(steps, reverse=True), strict=True))
