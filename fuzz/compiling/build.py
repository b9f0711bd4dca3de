"""One specialisation compiled, and what the compiler says of it."""

from __future__ import annotations

import io
import math
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from triton import knobs
from triton.compiler.compiler import make_backend
from triton.compiler.errors import CompilationError
from triton.runtime.errors import PTXASError

from fuzz.compiling.gpus import MAX_THREADS
from fuzz.compiling.launches import (
    Launch,
    called_by,
    forget_half_hashes,
    place_of,
    seen_from_here,
    without_addresses,
)
from fuzz.compiling.tasks import Built

MAX_TEXT = 400
"""Characters of a compiler's message that are told."""

REGISTER_BYTES = 4


def build(launch: Launch, *, memory: int, printed: Path) -> Built:
    """Compile what was to be launched, taking at most ``memory`` bytes more than now.

    ``printed`` holds what the compiler prints, where it does not raise what is wrong.
    """
    function = launch.function
    before = printed.stat().st_size
    said = io.StringIO()
    try:
        with _at_most(memory), _told_by_ptxas(), redirect_stdout(said):
            source = function.ASTSource(
                function, launch.signature, launch.constants, launch.attributes
            )
            options = vars(launch.options)
            kernel = function.compile(source, target=launch.target, options=options)
            if launch.target.backend == "hip":
                registers, spilled = _of_amdgcn(kernel.asm["amdgcn"])
            else:
                registers, spilled = _of_ptxas(said.getvalue() or _ptxas_again(launch, kernel))
    # A function that is evaluated while compiling may raise anything.
    except (Exception, SystemExit) as error:
        forget_half_hashes(function)
        if isinstance(error, CompilationError):
            return _of_source(error, function)
        return _diagnosis(printed, before) or Built(error=_words(error))
    wrong = _diagnosis(printed, before)
    if wrong is not None:
        # LLVM goes on after some errors. Out of the cache, the same kernel would come in silence.
        for file in kernel.metadata_group.values():
            Path(file).unlink(missing_ok=True)
        return wrong
    threads = kernel.metadata.num_warps * launch.target.warp_size
    too_many = f"needs {threads} threads a program, must be at most {MAX_THREADS}"
    return Built(
        error=too_many if threads > MAX_THREADS else "",
        registers=registers,
        spilled_bytes=spilled,
        shared_bytes=kernel.metadata.shared,
    )


@contextmanager
def _at_most(memory: int) -> Iterator[None]:
    """Keep this process, and those it starts meanwhile, from growing by more than ``memory``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert used is not None
    limit = int(used[1]) * 1024 + memory
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextmanager
def _told_by_ptxas() -> Iterator[None]:
    """Have Triton print what ``ptxas -v`` says."""
    before = knobs.nvidia.dump_ptxas_log
    knobs.nvidia.dump_ptxas_log = True
    try:
        yield
    finally:
        knobs.nvidia.dump_ptxas_log = before


def _ptxas_again(launch: Launch, kernel: Any) -> str:
    """What ``ptxas -v`` says of a kernel that came out of Triton's cache, under the same options.

    Raises: RuntimeError where it says nothing.
    """
    said = io.StringIO()
    backend = make_backend(launch.target)
    with redirect_stdout(said):
        backend.make_cubin(kernel.asm["ptx"], {}, launch.options, launch.target.arch)
    return said.getvalue()


def _of_ptxas(said: str) -> tuple[int, int]:
    """Registers and spilled bytes of a thread."""
    registers = re.search(r"Used (\d+) registers", said)
    spilled = re.search(r"(\d+) bytes spill stores", said)
    if registers is None or spilled is None:
        raise RuntimeError(f"ptxas does not tell what the kernel uses: {said!r}")
    return int(registers[1]), int(spilled[1])


def _of_amdgcn(assembly: str) -> tuple[int, int]:
    """Registers and spilled bytes of a thread.

    Source: LLVM, User Guide for the AMDGPU Backend, code object metadata: vector registers are
    counted by work-item, scalar ones by wavefront.
    """
    found = dict(re.findall(r"\.(vgpr_count|[sv]gpr_spill_count|wavefront_size): +(\d+)", assembly))
    vector, scalar = int(found["vgpr_spill_count"]), int(found["sgpr_spill_count"])
    shared_by = int(found["wavefront_size"])
    return int(found["vgpr_count"]), REGISTER_BYTES * vector + math.ceil(
        REGISTER_BYTES * scalar / shared_by
    )


_ERROR = re.compile(
    r"^(?:(?P<file>[^\s:\"]+):(?P<line>\d+):\d+: |loc\((?P<loc>.*)\): )?error: (?P<said>.+)$", re.M
)
"""What MLIR and LLVM print of an error."""


def _diagnosis(printed: Path, before: int) -> Built | None:
    """The first error that was printed behind ``before`` bytes."""
    with printed.open("rb") as file:
        file.seek(before)
        found = _ERROR.search(file.read().decode(errors="replace"))
    if found is None:
        return None
    where = (found["file"], found["line"])
    if found["loc"] is not None and (inside := re.search(r'"([^"]+)":(\d+):', found["loc"])):
        where = (inside[1], inside[2])
    # It may be a line of assembly that has no file.
    place = (
        seen_from_here(where[0], int(where[1])) if where[0] and Path(where[0]).exists() else None
    )
    return Built(error=shortened(found["said"]), place=place)


def _words(error: BaseException) -> str:
    """An exception in the compiler's own words."""
    if isinstance(error, PTXASError):
        said = re.search(r"(?:; error|^ptxas\S* (?:error|fatal))\s*: (.+)", str(error), re.M)
        if said is not None:
            return shortened(f"ptxas: {said[1]}")
    return shortened(": ".join(part for part in (type(error).__name__, str(error)) if part))


def _of_source(error: CompilationError, function: Any) -> Built:
    """An error of the source: those of called functions are the causes of their callers'."""
    chain: list[CompilationError] = [error]
    while isinstance(cause := chain[-1].__cause__, CompilationError):
        chain.append(cause)
    innermost = chain[-1]
    said = innermost.error_message or str(innermost.__cause__ or type(innermost).__name__)
    homes = {found.src: found for found in called_by(function)}
    for link in reversed(chain):
        home = homes.get(link.src)
        if home is None or not hasattr(link.node, "lineno"):
            continue
        place = place_of(home, link.node.lineno)
        # A line of Triton's own library is not where the mistake is.
        if not Path(place.file).is_absolute():
            code = link.src.splitlines()[link.node.lineno - 1].strip()
            return Built(error=shortened(f"{said}: {code}"), place=place)
    return Built(error=shortened(said))


def shortened(text: str) -> str:
    """One line of a text that may have many."""
    line = " ".join(without_addresses(text).split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 3] + "..."
