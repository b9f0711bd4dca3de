"""Under a sanitizer every storage is an allocation of its own, and nothing is written unasked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fuzz.case import Case, Launch, Recipe, TensorCase, contiguous_strides
from fuzz.inputs import make_values
from fuzz.memory import Watch
from fuzz.separate_memory import SeparateMemory
from fuzz.verdict import POISON_BYTE, Damage

CPU = torch.device("cpu")
SHAPE = (3, 5)


def case_of(*, gap: int = 0, offset: int = 0, alias: bool = False) -> Case:
    strides = (SHAPE[1] + gap, 1)
    x = TensorCase("x", "float32", SHAPE, strides, offset, Recipe("normal"))
    weight = TensorCase("weight", "bfloat16", SHAPE[1:], (1,), 0, Recipe("normal"))
    out = TensorCase(
        "out", "float32", SHAPE, contiguous_strides(SHAPE), 0, None, "x" if alias else None
    )
    return Case("t", SHAPE, 1, (x, weight, out), {}, 1e-5, Launch(8, 1, True), 1)


def memory_of(case: Case, *, fill: bool = True, owned: frozenset[str] = frozenset()):
    values = make_values(case)
    writable = frozenset(("out",))
    return SeparateMemory(case, writable, values, "nan", CPU, fill=fill, owned=owned), values


def bits_of(tensor: torch.Tensor) -> np.ndarray:
    words = {2: torch.int16, 4: torch.int32}[tensor.element_size()]
    kinds = {2: np.uint16, 4: np.uint32}[tensor.element_size()]
    return tensor.contiguous().view(words).numpy().view(kinds)


def test_separate_memory_has_the_layout_and_the_values_of_the_case() -> None:
    memory, values = memory_of(case_of(gap=3, offset=7))
    x, weight = memory.tensors["x"], memory.tensors["weight"]
    assert (x.stride(), x.storage_offset(), weight.dtype) == ((8, 1), 7, torch.bfloat16)
    for name in ("x", "weight"):
        assert np.array_equal(bits_of(memory.tensors[name]), values[name])


def test_separate_memory_ends_where_the_storage_ends() -> None:
    memory, _ = memory_of(case_of(gap=3, offset=7))
    sizes = {s.name: s.n_bytes for s in memory.storages}
    assert sizes == {"x": (7 + 2 * 8 + 5) * 4, "weight": 10, "out": 60}
    for storage in memory.storages:
        tensor = memory.tensors[storage.name]
        assert tensor.untyped_storage().nbytes() == storage.n_bytes
        assert tensor.untyped_storage().data_ptr() == storage.address


def test_separate_memory_serves_what_the_target_allocates() -> None:
    memory, _ = memory_of(case_of())
    with Watch(memory):
        y = torch.empty(SHAPE, device=CPU)
        scratch = torch.empty(7, dtype=torch.bfloat16, device=CPU)
    assert y.untyped_storage().nbytes() == 60
    assert scratch.untyped_storage().nbytes() == 14
    assert set(bits_of(y).ravel()) == {0xFFFFFFFF}
    assert [s.name for s in memory.storages][-2:] == ["allocation 0", "allocation 1"]
    y[...] = 2.0
    arrays, damage = memory.collect({"y": y})
    assert np.array_equal(arrays["y"].bits.view(np.float32), np.full(SHAPE, 2, np.float32))
    assert (arrays["y"].poisoned, damage) == (True, ())


def test_separate_memory_writes_nothing_that_has_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty

    def seven(*size, **how):
        return empty(*size, **how).fill_(7)

    monkeypatch.setattr(torch, "empty", seven)
    memory, values = memory_of(case_of(), fill=False)
    like = empty(4, device="meta")
    tensors = {"out": memory.tensors["out"], "scratch": memory.allocate(like)}
    arrays, damage = memory.collect(tensors)
    for array in arrays.values():
        assert set(array.bits.ravel()) == {0x07070707}
        # It would be taken for poison.
        assert not array.poisoned
    assert damage == ()
    assert np.array_equal(bits_of(memory.tensors["x"]), values["x"])


def test_separate_memory_fills_with_poison_otherwise() -> None:
    memory, _ = memory_of(case_of())
    arrays, _ = memory.collect({"out": memory.tensors["out"]})
    assert arrays["out"].poisoned
    assert set(arrays["out"].bits.ravel()) == {int.from_bytes(bytes([POISON_BYTE["nan"]] * 4))}


@pytest.mark.parametrize("fill", [True, False])
def test_separate_memory_finds_damaged_inputs_and_gaps(fill: bool) -> None:
    memory, _ = memory_of(case_of(gap=3), fill=fill)
    memory.tensors["weight"][1] += 1
    memory.tensors["x"].as_strided((1,), (1,), 6)[0] = 1
    memory.tensors["out"][...] = 1
    _, damage = memory.collect({"out": memory.tensors["out"]})
    assert sorted((d.tensor, d.place, d.element) for d in damage) == [
        ("weight", "input", 1),
        ("x", "gap", 6),
    ]
    assert isinstance(damage[0], Damage)


def test_separate_memory_gives_an_alias_the_memory_of_its_input() -> None:
    memory, _ = memory_of(case_of(alias=True))
    assert memory.tensors["out"] is memory.tensors["x"]
    memory.tensors["out"][...] = 1
    arrays, damage = memory.collect({"y": memory.tensors["out"]})
    assert (arrays["y"].poisoned, damage) == (False, ())


def test_separate_memory_lets_an_owner_use_the_gaps() -> None:
    x = TensorCase("x", "float32", SHAPE, (5, 1), 0, Recipe("normal"))
    out = TensorCase("out", "float32", SHAPE, (8, 1), 0, None)
    case = Case("t", SHAPE, 1, (x, out), {}, 1e-5, Launch(8, 1, True), 1)
    for owned, places in ((frozenset[str](), ["gap"]), (frozenset(("out",)), [])):
        memory, _ = memory_of(case, owned=owned)
        memory.tensors["out"].as_strided((1,), (1,), 6)[0] = 1
        _, damage = memory.collect({})
        assert [d.place for d in damage] == places


def test_separate_memory_reads_what_lives_elsewhere() -> None:
    memory, _ = memory_of(case_of())
    elsewhere = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t()
    arrays, _ = memory.collect({"y": elsewhere, "nothing": torch.empty(0, 3)})
    assert arrays["y"].bits.view(np.float32).tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert not arrays["y"].poisoned
    assert arrays["nothing"].shape == (0, 3)


def test_separate_memory_of_an_empty_batch() -> None:
    x = TensorCase("x", "float32", (0, 5), (5, 1), 4, Recipe("normal"))
    case = Case("t", (0, 5), 1, (x,), {}, 1e-5, Launch(8, 1, True), 1)
    memory, _ = memory_of(case)
    assert memory.tensors["x"].shape == (0, 5)
    assert memory.collect({"x": memory.tensors["x"]})[1] == ()
