"""Results of gates that never ran, for the reports to show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fuzz.gating.outcome import (
    Affected,
    Commit,
    CompiledKernel,
    CompileReport,
    GateFinding,
    GateResult,
    Kind,
    Place,
)

PLAN = "5e0f6bd1c2a94c7d"
PLACE = Place("ln_kernels/layer_norm.py", 88)
REASON = "its kernel differs: ln_kernels/layer_norm.py:_forward"
UNTOUCHED = "neither sources nor contract differ"


def finding(kind: Kind = "introduced", **how: Any) -> GateFinding:
    usual: dict[str, Any] = {
        "target": "layer_norm",
        "signature": "layer_norm / values_within_bound / y / half / tail columns",
        "message": (
            "y[3, 768]=1.25 (bfloat16), but should be 1.1953 +- 0.0039 (error/bound 14.0); "
            "1536 of 4096 elements, all in columns >= 4096"
        ),
        "case": "layer_norm bfloat16[4, 5000], weight, bias, block 4096",
        "detail": "3 of 3 runs fail on head, 0 of 3 on base",
        "failure": "3f9ac2d41b07",
        "place": PLACE,
    }
    return GateFinding(kind, **{**usual, **how})


def weakened() -> GateFinding:
    return finding(
        "weakened contract",
        signature="layer_norm / contract / arithmetic.roundings",
        message="promises the sum in float32 no longer: () became (('sum', 'x'),)",
        case="",
        detail="",
        failure="",
        place=None,
    )


def pre_existing() -> GateFinding:
    return finding(
        "pre-existing",
        signature="layer_norm / nonfinite_match / y / single / everywhere",
        failure="77aa01e5c9d2",
    )


def kernel(gpu: str = "cuda 90", **how: Any) -> CompiledKernel:
    usual: dict[str, Any] = {
        "target": "layer_norm",
        "kernel": "_forward",
        "gpu": gpu,
        "specialisation": "x *bf16, BLOCK=8192, num_warps=8",
        "registers": 255,
        "spilled_bytes": 0,
        "shared_bytes": 2048,
        "shared_limit": 232448,
        "place": PLACE,
    }
    return CompiledKernel(**{**usual, **how})


def compile_report() -> CompileReport:
    kernels = (
        kernel(),
        kernel("cuda 80", spilled_bytes=128),
        kernel("hip gfx942", shared_bytes=70000, shared_limit=65536),
        kernel("cuda 100", error="ptxas: too many resources requested", registers=None),
    )
    return CompileReport(kernels, wanted=2, compiled=1, seconds=12.3)


def result(*findings: GateFinding, **how: Any) -> GateResult:
    usual: dict[str, Any] = {
        "head": Commit("HEAD", "0123456789abcdef0123456789abcdef01234567", dirty=True),
        "base": Commit("origin/main", "fedcba9876543210fedcba9876543210fedcba98"),
        "device": "cuda",
        "device_name": "NVIDIA H200",
        "versions": {"python": "3.12.3", "torch": "2.11.0", "triton": "3.6.0"},
        "affected": (
            Affected("layer_norm", True, REASON),
            Affected("native_layer_norm", True, REASON),
            Affected("layer_norm_residual", True, "its contract differs: arithmetic.roundings"),
            Affected("fused_bias_layer_norm", False, UNTOUCHED),
        ),
        "seed": 7,
        "plan_hash": PLAN,
        "planned": 1204,
        "executed": 1204,
        "regressions": 12,
        "seconds": 61.4,
        "out": Path(".ln-fuzz"),
    }
    return GateResult(**{**usual, **how, "findings": list(findings)})


def blocked() -> GateResult:
    return result(
        pre_existing(),
        finding(),
        weakened(),
        finding(
            signature="layer_norm / redzones_intact / y / half / after",
            failure="90b1c2d3e4f5",
        ),
        compiled=compile_report(),
        failed=31,
        notes=["accepted failure 'layer_norm / ...' expired on 2026-01-31"],
    )
