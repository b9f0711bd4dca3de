"""Whether strided tensors share memory, decided exactly on their addresses."""

from __future__ import annotations

from torch import Tensor

# Ordinary layouts are decided in a few steps a dim. A layout that takes more than this is
# answered with "shares", so that it is refused and never misread.
_MAX_STEPS = 10_000

# (stride in bytes, lowest and highest multiple of it): an address is a sum of one of each.
_Term = tuple[int, int, int]


def same_layout(a: Tensor, b: Tensor) -> bool:
    """Whether element [i, j, ...] of both is the same memory read as the same dtype."""
    return (
        a.data_ptr() == b.data_ptr()
        and a.dtype == b.dtype
        and a.shape == b.shape
        and all(n == 1 or s == t for n, s, t in zip(a.shape, a.stride(), b.stride(), strict=True))
    )


def overlaps_itself(t: Tensor) -> bool:
    """Whether two elements of t share an address (an expanded tensor, for one)."""
    if t.is_contiguous():
        return False
    size = t.element_size()
    dims = sorted((s * size, n) for s, n in zip(t.stride(), t.shape, strict=True) if n > 1)
    # Two indices with one address differ in some dim; take the one of largest stride, where the
    # difference can be taken positive, and look for it with the smaller strides free.
    for k, (stride, n) in enumerate(dims):
        smaller = [(s, 1 - m, m - 1) for s, m in dims[:k]]
        if _reaches([(stride, 1, n - 1), *smaller, (1, 1 - size, size - 1)], 0):
            return True
    return False


def overlap(a: Tensor, b: Tensor) -> bool:
    """Whether some byte belongs to an element of a and to an element of b."""
    if a.numel() == 0 or b.numel() == 0:
        return False
    distance = b.data_ptr() - a.data_ptr()
    if distance >= _extent(a) or -distance >= _extent(b):
        return False
    terms = [(s * a.element_size(), 0, n - 1) for s, n in zip(a.stride(), a.shape, strict=True)]
    terms += [(s * b.element_size(), 1 - n, 0) for s, n in zip(b.stride(), b.shape, strict=True)]
    terms.append((1, 1 - b.element_size(), a.element_size() - 1))
    return _reaches(terms, distance)


def _extent(t: Tensor) -> int:
    last = sum(s * (n - 1) for s, n in zip(t.stride(), t.shape, strict=True))
    return (last + 1) * t.element_size()


def _reaches(terms: list[_Term], target: int) -> bool:
    """Whether multiples of the strides, each within its limits, can add up to target."""
    limits: dict[int, tuple[int, int]] = {}
    for stride, low, high in terms:
        if stride == 0:
            continue
        old = limits.get(stride, (0, 0))
        limits[stride] = (old[0] + low, old[1] + high)
    strides = sorted(limits, reverse=True)
    # What the strides after each one can still add: everything else is cut off.
    reach = [(0, 0)]
    for stride in reversed(strides):
        low, high = limits[stride]
        reach.append((reach[-1][0] + low * stride, reach[-1][1] + high * stride))
    reach.reverse()
    steps = 0
    pending = [(0, target)]
    while pending:
        k, rest = pending.pop()
        if k == len(strides):
            if rest == 0:
                return True
            continue
        stride, (low, high) = strides[k], limits[strides[k]]
        rest_low, rest_high = reach[k + 1]
        first = max(low, -((rest_high - rest) // stride))
        last = min(high, (rest - rest_low) // stride)
        for multiple in range(first, last + 1):
            steps += 1
            if steps > _MAX_STEPS:
                return True
            pending.append((k + 1, rest - multiple * stride))
    return False
