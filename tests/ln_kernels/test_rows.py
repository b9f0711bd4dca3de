import itertools

import pytest
import torch

from ln_kernels import rows


def row_starts(tensors, **options):
    """What the kernels make of the batches: the offset of every row of every tensor, in order."""
    starts = [[] for _ in tensors]
    for batch in rows.row_batches(tensors, **options):
        assert batch.first_row == len(starts[0])
        assert len(batch.inner_sizes) == rows.MAX_LEAD_DIMS - 1
        for row in range(batch.n_rows):
            for t, (view, strides) in enumerate(zip(batch.tensors, batch.strides, strict=True)):
                rest, offset = row, 0
                for dim in range(len(strides) - 1, 0, -1):
                    offset += rest % batch.inner_sizes[dim - 1] * strides[dim]
                    rest //= batch.inner_sizes[dim - 1]
                offset += rest * strides[0]
                starts[t].append(view.storage_offset() + offset * batch.vector)
    return starts


def row_starts_by_index(t, n_norm_dims=1):
    lead = t.shape[: t.ndim - n_norm_dims]
    return [
        t.storage_offset() + sum(i * s for i, s in zip(index, t.stride(), strict=False))
        for index in itertools.product(*map(range, lead))
    ]


BASE = torch.zeros(3, 4, 3, 4, 3, 6)
VIEWS = [
    BASE,
    BASE[:, 1:3],
    BASE[:, ::2, :, 1:3],
    BASE[:2, :3, :2, :3, :2],
    BASE.permute(4, 3, 2, 1, 0, 5)[:2, :2],
    BASE[:1, :, :1].expand(2, 4, 3, 4, 3, 6),
    BASE[0, 0, 0, 0, 0],
    BASE[1, 2, 1, 3],
]


@pytest.mark.parametrize("x", VIEWS)
@pytest.mark.parametrize("max_programs", [2**31 - 1, 7])
def test_row_batches_visit_every_row_in_order(x, max_programs, monkeypatch):
    monkeypatch.setattr(rows, "MAX_PROGRAMS", max_programs)
    out = torch.zeros(x.shape)
    wanted = [row_starts_by_index(x), row_starts_by_index(out)]
    assert row_starts((x, out)) == wanted
    assert row_starts((x, out), groups_per_row=3) == wanted


def test_row_batches_keep_normalised_dims_together():
    x, out = BASE[:, :2], torch.zeros(3, 2, 3, 4, 3, 6)
    for n in (1, 2, 4):
        wanted = [row_starts_by_index(x, n), row_starts_by_index(out, n)]
        assert row_starts((x, out), n_norm_dims=n) == wanted


@pytest.mark.parametrize(
    ("x", "inner_sizes", "strides"),
    [
        (torch.zeros(4, 5, 6, 8), (), (8,)),
        (torch.zeros(4, 5, 6, 8)[:, :3], (18,), (240, 8)),
        (torch.zeros(4, 5, 6, 8)[..., 1:7], (), (8,)),
        (torch.zeros(4, 1, 6, 8)[:, :, :3], (3,), (48, 8)),
        (torch.zeros(8).expand(4, 5, 8), (), (0,)),
        (torch.zeros(8), (), (0,)),
        (torch.zeros(1, 1, 8), (), (0,)),
    ],
)
def test_row_batches_merge_what_is_evenly_spaced(x, inner_sizes, strides):
    (batch,) = rows.row_batches((x,))
    assert batch.strides == (tuple(stride // batch.vector for stride in strides),)
    assert batch.inner_sizes == inner_sizes + (1,) * (3 - len(inner_sizes))
    assert batch.tensors[0] is x


def test_row_batches_merge_only_what_all_tensors_allow():
    whole, sliced = torch.zeros(4, 3, 8), torch.zeros(4, 5, 8)[:, :3]
    (batch,) = rows.row_batches((whole, sliced))
    assert batch.inner_sizes == (3, 1, 1)
    assert batch.strides == ((24 // 4, 8 // 4), (40 // 4, 8 // 4))


def aligned(*shape, dtype=torch.float32):
    base = torch.zeros(*shape, dtype=dtype)
    assert base.data_ptr() % 16 == 0
    return base


@pytest.mark.parametrize(
    ("x", "vector"),
    [
        (aligned(3, 40), 4),
        (aligned(3, 40, dtype=torch.float16), 8),
        (aligned(3, 36, dtype=torch.float16), 4),
        (aligned(3, 38), 2),
        (aligned(3, 33), 1),
        # The row stride, the offset of the first row, the width: each alone.
        (aligned(3, 42)[:, :40], 2),
        (aligned(3, 48)[:, 2:42], 2),
        (aligned(3, 48)[:, :39], 1),
        # A stride that is not stepped along does not count.
        (aligned(1, 41)[:, :40], 4),
    ],
)
def test_row_batches_tell_how_far_all_rows_are_aligned(x, vector):
    (batch,) = rows.row_batches((x,))
    assert batch.vector == vector


def test_row_batches_are_aligned_as_the_least_aligned_tensor():
    x, odd = aligned(3, 40), aligned(50)[1:41]
    (batch,) = rows.row_batches((x, aligned(3, 42)[:, :40]))
    assert batch.vector == 2
    (batch,) = rows.row_batches((x,), (None, odd))
    assert batch.vector == 1
    # Each group begins where the one before ends.
    (batch,) = rows.row_batches((x,), groups_per_row=4)
    assert batch.vector == 2


def test_row_batches_of_no_rows_are_none():
    assert list(rows.row_batches((torch.zeros(3, 0, 8),))) == []
