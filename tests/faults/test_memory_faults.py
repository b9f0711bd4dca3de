"""Each planted memory fault is found by the check that must name it, and is gone without it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fuzz.checks import CHECKS
from tests.faults.battery import Hunt, HuntError, hunt
from tests.faults.hunt import find
from tests.faults.memory_faults import MEMORY_FAULTS, MemoryFault
from tests.faults.planted import TARGET_FILES, Fault, plant

# A read, a lane and a conflict; the others take as long again each.
QUICK = ("over_read", "weight_without_other", "racy_accumulation")

# What a kernel may leave undefined, because it stores nothing of it.
HARMLESS = Fault(
    "weight_without_other_where_it_is_not_stored",
    "layer_norm",
    "blocks.py",
    'weight_ptr + cols, mask=inside, other=inside_other, eviction_policy="evict_last"',
    'weight_ptr + cols, mask=inside, eviction_policy="evict_last"',
    "never",
)


def assert_right(found: Hunt) -> None:
    assert found.found, f"not in {found.cases} cases; {found.message}"
    assert found.fixed, f"without the fault: {found.left}"


@pytest.mark.parametrize(
    "fault",
    [pytest.param(f, marks=[] if f.id in QUICK else [pytest.mark.slow]) for f in MEMORY_FAULTS],
    ids=lambda fault: fault.id,
)
def test_memory_fault_is_found_by_its_check_and_gone_without_it(
    fault: MemoryFault, tmp_path: Path
) -> None:
    assert_right(hunt(fault, tmp_path / "planted", "cpu"))


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("fault", [f for f in MEMORY_FAULTS if f.on_gpu], ids=lambda f: f.id)
def test_memory_fault_is_found_on_a_gpu_and_gone_without_it(
    fault: MemoryFault, tmp_path: Path
) -> None:
    assert_right(hunt(fault, tmp_path / "planted", "cuda"))


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(p.name for p in TARGET_FILES.glob("*.py")))
def test_target_file_without_a_fault_gives_no_alarm(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TARGET_FILES)
    answer = find(file, ["any"], "cpu", seed=11, cases=100)
    assert (answer["cases"], answer["checks"]) == (100, {})


@pytest.mark.slow
def test_undefined_lanes_that_are_not_stored_give_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(plant(HARMLESS, tmp_path))
    answer = find(HARMLESS.target, ["any"], "cpu", seed=11, cases=60)
    assert (answer["cases"], answer["checks"]) == (60, {})


@pytest.mark.parametrize("fault", MEMORY_FAULTS, ids=lambda fault: fault.id)
def test_memory_fault_still_has_its_place_in_the_kernels(
    fault: MemoryFault, tmp_path: Path
) -> None:
    planted = plant(fault, tmp_path / "planted")
    (file,) = planted.rglob(fault.file)
    compile(file.read_text(encoding="utf-8"), fault.file, "exec")
    assert fault.check in CHECKS
    assert set(fault.on_gpu) <= CHECKS.keys()


def test_hunt_that_ends_without_an_answer_is_an_error(tmp_path: Path) -> None:
    lost = dataclasses.replace(MEMORY_FAULTS[0], target="no_such_target")
    with pytest.raises(HuntError, match="no_such_target"):
        hunt(lost, tmp_path / "planted", "cpu")
