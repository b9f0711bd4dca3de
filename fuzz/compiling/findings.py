"""What cross-compiling says of a change: kernels that fail or spill on head and not on base."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from fuzz.compiling.gpus import failure
from fuzz.gating.outcome import CompiledKernel, CompileReport, GateFinding, Kind

Key = tuple[str, str]


def compile_findings(head: CompileReport, base: CompileReport) -> list[GateFinding]:
    """One finding for each target and GPU that has kernels which fail, or which spill as on base
    or more.

    A kernel is looked for among base's by its specialisation. Where base has none like it that
    compiles, a failure blocks, and a spill is a matter for the report alone. That a kernel spills
    more than it did is told without blocking: the bits are right.
    """
    before = {(k.target, k.kernel, k.gpu, k.specialisation): k for k in base.kernels}
    worse: dict[tuple[Key, Kind, bool], list[CompiledKernel]] = defaultdict(list)
    for kernel in head.kernels:
        was = before.get((kernel.target, kernel.kernel, kernel.gpu, kernel.specialisation))
        key = kernel.target, kernel.gpu
        if failure(kernel):
            kind: Kind = "pre-existing" if was is not None and failure(was) else "does not compile"
            worse[key, kind, False].append(kernel)
        elif kernel.spilled_bytes and was is not None and not failure(was):
            more = kernel.spilled_bytes > (was.spilled_bytes or 0)
            worse[key, "spills more" if more else "pre-existing", True].append(kernel)
    return [_finding(*key, kernels) for key, kernels in worse.items()]


def _finding(key: Key, kind: Kind, spills: bool, kernels: list[CompiledKernel]) -> GateFinding:
    target, gpu = key
    signature = f"{target} / compile / {gpu}"
    worst = max(kernels, key=lambda kernel: kernel.spilled_bytes or 0)
    message = f"{worst.kernel} on {gpu}: {failure(worst)}"
    if spills:
        signature += " / spills"
        message = f"{worst.kernel} spills {worst.spilled_bytes} bytes a thread on {gpu}"
    return GateFinding(
        kind,
        target,
        signature,
        message,
        case=worst.specialisation,
        detail=f"{_count(kernels)} of {gpu}",
        place=worst.place,
    )


def _count(kernels: Iterable[CompiledKernel]) -> str:
    number = len({kernel.specialisation for kernel in kernels})
    return f"{number} specialisation{'s' * (number != 1)}"
