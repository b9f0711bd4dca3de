"""What compiling for absent GPUs says of a change."""

from __future__ import annotations

from typing import Any

from fuzz.compiling.findings import compile_findings
from fuzz.gating.outcome import CompiledKernel, CompileReport, GateFinding
from tests.fuzz.gating.examples import PLACE, kernel

ERROR = "ptxas: too many resources requested"


def findings(head: list[CompiledKernel], *base: CompiledKernel) -> list[GateFinding]:
    return compile_findings(CompileReport(tuple(head)), CompileReport(base))


def kinds(head: CompiledKernel, *base: CompiledKernel) -> list[tuple[str, str]]:
    return [(found.kind, found.signature) for found in findings([head], *base)]


def test_compile_findings_are_none_where_all_is_well() -> None:
    assert findings([kernel(), kernel("hip gfx942")]) == []
    assert findings([kernel(spilled_bytes=None)], kernel(spilled_bytes=8)) == []


def test_compile_findings_block_what_compiles_no_more() -> None:
    key = "layer_norm / compile / cuda 90"
    assert kinds(kernel(error=ERROR), kernel()) == [("does not compile", key)]
    assert kinds(kernel(error=ERROR), kernel(error=ERROR)) == [("pre-existing", key)]
    assert kinds(kernel(error=ERROR)) == [("does not compile", key)]
    # Base's is another kernel, of another GPU, or of another launch.
    for how in ({"gpu": "cuda 80"}, {"kernel": "_other"}, {"specialisation": "x *fp16"}):
        other: Any = {"error": ERROR, **how}
        assert kinds(kernel(error=ERROR), kernel(**other)) == [("does not compile", key)]


def test_compile_findings_block_shared_memory_over_the_limit() -> None:
    large = kernel(shared_bytes=300_000)
    assert kinds(large, kernel()) == [("does not compile", "layer_norm / compile / cuda 90")]
    assert kinds(large, large) == [("pre-existing", "layer_norm / compile / cuda 90")]
    assert "300000 bytes of shared memory" in findings([large])[0].message


def test_compile_findings_tell_more_spills_than_base_has_without_blocking() -> None:
    key = "layer_norm / compile / cuda 90 / spills"
    head = kernel(spilled_bytes=64)
    assert kinds(head, kernel()) == [("spills more", key)]
    assert kinds(head, kernel(spilled_bytes=32)) == [("spills more", key)]
    assert kinds(head, kernel(spilled_bytes=64)) == [("pre-existing", key)]
    assert kinds(head, kernel(spilled_bytes=None)) == [("spills more", key)]
    assert not findings([head], kernel(spilled_bytes=32))[0].blocks
    assert findings([head], kernel())[0].message == "_forward spills 64 bytes a thread on cuda 90"


def test_compile_findings_do_not_call_spills_of_a_new_kernel_old() -> None:
    """What compiling gave is reported besides; nothing says that it was ever better."""
    assert kinds(kernel(spilled_bytes=64)) == []
    assert kinds(kernel(spilled_bytes=64), kernel(error=ERROR)) == []


def test_compile_findings_are_one_for_each_target_gpu_and_kind() -> None:
    head = [
        kernel(error=ERROR, specialisation="x *fp16"),
        kernel(error=ERROR, specialisation="x *bf16"),
        kernel("cuda 80", error=ERROR),
        kernel(spilled_bytes=16, specialisation="x *fp32"),
        kernel(spilled_bytes=48, specialisation="x *fp32, num_warps=1"),
    ]
    base = [kernel(specialisation=k.specialisation) for k in head]
    found = {f.signature: f for f in findings(head, *base)}
    assert set(found) == {
        "layer_norm / compile / cuda 90",
        "layer_norm / compile / cuda 80",
        "layer_norm / compile / cuda 90 / spills",
    }
    failed = found["layer_norm / compile / cuda 90"]
    assert (failed.detail, failed.place) == ("2 specialisations of cuda 90", PLACE)
    assert failed.message == f"_forward on cuda 90: {ERROR}"
    # The worst speaks for the others.
    spilling = found["layer_norm / compile / cuda 90 / spills"]
    assert spilling.case == "x *fp32, num_warps=1"
    assert "48 bytes" in spilling.message
