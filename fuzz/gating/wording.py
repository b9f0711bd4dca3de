"""How the gate says what it found: the same words on the screen, in files and in annotations."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from fuzz.gating.outcome import (
    Affected,
    CompiledKernel,
    CompileReport,
    GateFinding,
    GateResult,
    Kind,
    Place,
)
from fuzz.store import OUT

KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which they are reported: what blocks comes first."""

PLURALS: dict[Kind, str] = {
    "changed signature": "changed signatures",
    "base cannot run": "that base cannot run",
    "weakened contract": "weakened contracts",
    "does not compile": "that do not compile",
    "regression": "regressions",
    "spills more": "that spill more",
}
SINGULARS: dict[Kind, str] = {
    "base cannot run": "that base cannot run",
    "does not compile": "that does not compile",
    "spills more": "that spills more",
}

LONGEST = 300
"""Characters of an error in the line that says how it ended."""


@dataclass(frozen=True)
class Concern:
    """What compiling brought to light of a kernel that does compile."""

    kernel: CompiledKernel
    message: str

    @property
    def place(self) -> Place | None:
        """Where the kernel stands in the sources."""
        return self.kernel.place


def verdict(result: GateResult) -> str:
    """How it ended, in one line that stands for itself."""
    if result.errors:
        others = len(result.errors) - 1
        # The lines behind a colon stand where the error is told in full.
        words = f"NO VERDICT: {clipped(first_line(result.errors[0]).rstrip(':'), LONGEST)}"
        if others:
            words += f" (and {number(others, 'more error')})"
        return words + (f"; so far {counted(result.blocking)}" if result.blocking else "")
    if result.blocking:
        return f"BLOCKED: {counted(result.blocking)}"
    rest = counted(finding for finding in result.findings if not finding.blocks)
    return f"MERGE: {_done(result)}{rest and '; '}{rest}"


def _done(result: GateResult) -> str:
    included = sum(target.included for target in result.affected)
    if result.executed:
        cases, targets = number(result.executed, "case"), number(included, "target")
        return f"{cases} of {targets}, no introduced failure"
    done = "no case was executed" if included else "no target is affected"
    if result.regressions:
        done += f", {number(result.regressions, 'stored failure')} replayed"
    return done


def counted(findings: Iterable[GateFinding]) -> str:
    """How many of each kind: "2 introduced, 1 weakened contract"."""
    counts = Counter(finding.kind for finding in findings)
    return ", ".join(
        f"{counts[kind]:,} {(SINGULARS if counts[kind] == 1 else PLURALS).get(kind, kind)}"
        for kind in KINDS
        if counts[kind]
    )


def ordered(findings: Iterable[GateFinding]) -> list[GateFinding]:
    """By kind, what blocks first, and otherwise as they were found."""
    return sorted(findings, key=lambda f: (not f.blocks, KINDS.index(f.kind)))


def replay_command(finding: GateFinding, store: Path) -> str:
    """The command that runs a failure of ``store`` again; empty where there is none to run."""
    if not finding.failure:
        return ""
    command = f"ln-fuzz replay {finding.failure}"
    # Where it is looked for unless something else is said.
    return command if store == OUT else f"{command} --out {shlex.quote(str(store))}"


def plan(result: GateResult) -> str:
    """Which cases, and what became of them."""
    if not result.plan_hash:
        return "no cases were planned"
    words = (
        f"{result.plan_hash} ({number(result.planned, 'case')}, seed {result.seed}): "
        f"{result.executed:,} executed, {result.failed:,} failing"
    )
    return words + (f", {result.skipped:,} skipped" if result.skipped else "")


def left_out(affected: Sequence[Affected]) -> dict[str, list[str]]:
    """The targets that the change does not affect, by the reason."""
    reasons: dict[str, list[str]] = {}
    for target in affected:
        if not target.included:
            reasons.setdefault(target.reason, []).append(target.target)
    return reasons


def compiled(report: CompileReport) -> str:
    """What cross-compiling gave, in one line."""
    gpus = ", ".join(dict.fromkeys(kernel.gpu for kernel in report.kernels))
    words = (
        f"{report.compiled:,} of {number(report.wanted, 'specialisation')}"
        f"{gpus and f' for {gpus}'} in {report.seconds:.0f} s"
    )
    good = [kernel for kernel in report.kernels if not kernel.error]
    counts = {
        "failed": len(report.kernels) - len(good),
        "spilling registers": sum(bool(kernel.spilled_bytes) for kernel in good),
        "over the shared memory": sum(map(_is_too_large, good)),
    }
    parts = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return f"{words}{parts and ': '}{parts}"


def concerns(report: CompileReport) -> list[Concern]:
    """Kernels that compile and still need a look, the worst first; failures are findings."""
    worst = sorted(
        (kernel for kernel in report.kernels if not kernel.error),
        key=lambda kernel: (not _is_too_large(kernel), -(kernel.spilled_bytes or 0)),
    )
    found = []
    for kernel in worst:
        said = []
        if _is_too_large(kernel):
            said.append(
                f"needs {kernel.shared_bytes:,} bytes of shared memory, has {kernel.shared_limit:,}"
            )
        if kernel.spilled_bytes:
            said.append(f"spills {kernel.spilled_bytes:,} bytes a thread")
        if said:
            message = f"{kernel.kernel} {' and '.join(said)} on {kernel.gpu}"
            found.append(Concern(kernel, f"{message} ({kernel.specialisation})"))
    return found


def _is_too_large(kernel: CompiledKernel) -> bool:
    if kernel.shared_bytes is None or kernel.shared_limit is None:
        return False
    return kernel.shared_bytes > kernel.shared_limit


def surroundings(result: GateResult) -> str:
    """Where it ran, and with what."""
    device = result.device + (f" ({result.device_name})" if result.device_name else "")
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return "; ".join(filter(None, (device, versions)))


def number(count: int, noun: str) -> str:
    """A count with its noun: "1 case", "1,204 cases"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def first_line(text: str) -> str:
    """What a text begins with; the rest is detail."""
    return next(iter(text.strip().splitlines()), "")


def clipped(text: str, length: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
