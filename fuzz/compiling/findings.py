"""What cross-compiling says of a change: kernels that fail or spill on head and not on base."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from fuzz.compiling.gpus import failure
from fuzz.gating.outcome import CompiledKernel, CompileReport, GateFinding, Kind

Key = tuple[str, str]


def compile_findings(head: CompileReport, base: CompileReport) -> list[GateFinding]:
    """One finding for each target and GPU that has kernels which fail, or which spill anew.

    A kernel is looked for among base's by its specialisation. Where base has none like it, a spill
    is told without blocking, a failure blocks.
    """
    before = {(k.target, k.kernel, k.gpu, k.specialisation): k for k in base.kernels}
    worse: dict[tuple[Key, Kind, str], list[CompiledKernel]] = defaultdict(list)
    for kernel in head.kernels:
        was = before.get((kernel.target, kernel.kernel, kernel.gpu, kernel.specialisation))
        key = kernel.target, kernel.gpu
        if failure(kernel):
            kind: Kind = "pre-existing" if was is not None and failure(was) else "does not compile"
            worse[key, kind, "compile"].append(kernel)
        elif kernel.spilled_bytes:
            spilled = 0 if was is None or was.spilled_bytes is None else was.spilled_bytes
            if was is not None and kernel.spilled_bytes > spilled:
                worse[key, "does not compile", "spills"].append(kernel)
            else:
                worse[key, "pre-existing", "spills"].append(kernel)
    return [_finding(*key, kernels) for key, kernels in worse.items()]


def _finding(key: Key, kind: Kind, what: str, kernels: list[CompiledKernel]) -> GateFinding:
    target, gpu = key
    worst = max(kernels, key=lambda kernel: kernel.spilled_bytes or 0)
    if what == "spills":
        message = f"{worst.kernel} spills {worst.spilled_bytes} bytes a thread on {gpu}"
    else:
        message = f"{worst.kernel} on {gpu}: {failure(worst)}"
    return GateFinding(
        kind,
        target,
        f"{target} / {what} / {gpu}",
        message,
        case=worst.specialisation,
        detail=f"{_count(kernels)} of {gpu}",
        place=worst.place,
    )


def _count(kernels: Iterable[CompiledKernel]) -> str:
    number = len({kernel.specialisation for kernel in kernels})
    return f"{number} specialisation{'s' * (number != 1)}"
