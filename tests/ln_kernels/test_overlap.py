import importlib
import random

import pytest
import torch

from ln_kernels.overlap import overlap, overlaps_itself, same_layout


def addresses(t):
    """Every byte of t, with repetition, by plain enumeration."""
    offsets = [0]
    for stride, n in zip(t.stride(), t.shape, strict=True):
        offsets = [o + stride * i for o in offsets for i in range(n)]
    size = t.element_size()
    return [t.data_ptr() + o * size + byte for o in offsets for byte in range(size)]


def random_view(draw, memory):
    rank = draw.randint(1, 3)
    shape = [draw.randint(1, 4) for _ in range(rank)]
    strides = [draw.randint(0, 7) for _ in range(rank)]
    dtype = draw.choice([torch.float16, torch.float32])
    return memory.view(dtype).as_strided(shape, strides, draw.randint(0, 20))


def test_overlap_agrees_with_enumeration():
    draw = random.Random(3)
    memory = torch.zeros(400, dtype=torch.uint8)
    seen = {True: 0, False: 0}
    for _ in range(2000):
        a, b = random_view(draw, memory), random_view(draw, memory)
        shared = not set(addresses(a)).isdisjoint(addresses(b))
        assert overlap(a, b) == overlap(b, a) == shared
        seen[shared] += 1
    assert min(seen.values()) > 200


def test_overlaps_itself_agrees_with_enumeration():
    draw = random.Random(4)
    memory = torch.zeros(400, dtype=torch.uint8)
    seen = {True: 0, False: 0}
    for _ in range(2000):
        t = random_view(draw, memory)
        taken = addresses(t)
        repeated = len(set(taken)) < len(taken)
        assert overlaps_itself(t) == repeated
        seen[repeated] += 1
    assert min(seen.values()) > 200


@pytest.mark.parametrize("n_rows", [1, 1000, 1_000_000])
def test_interleaved_rows_do_not_overlap_however_many(n_rows):
    memory = torch.empty(n_rows, 20)
    left, right = memory[:, :10], memory[:, 10:]
    assert not overlaps_itself(memory)
    assert not overlap(left, right)
    assert overlap(left, memory[:, 9:19])


def test_a_layout_that_takes_too_long_to_decide_counts_as_overlapping(monkeypatch):
    memory = torch.empty(40)
    fives, sevens = memory.as_strided((3,), (5,)), memory.as_strided((3,), (7,), 1)
    woven = memory.as_strided((3, 3), (5, 3))
    assert not overlap(fives, sevens) and not overlaps_itself(woven)
    monkeypatch.setattr(importlib.import_module("ln_kernels.overlap"), "_MAX_STEPS", 0)
    assert overlap(fives, sevens) and overlaps_itself(woven)


def test_same_layout_ignores_strides_of_single_rows():
    x = torch.zeros(3, 8)
    assert same_layout(x[:1], x.as_strided((1, 8), (99, 1)))
    assert not same_layout(x[:2], x[1:])
    assert not same_layout(x[:2], x[:2].t())
    assert not same_layout(x[:2], x[:2].view(torch.int32))
