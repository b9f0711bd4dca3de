"""The battery of memory faults: each must be found, by name, and be gone when it is taken out.

    python -m tests.faults.battery --device cuda --jobs 6 --json result.json

On a GPU those that leave no trace there are left out; name one with --fault to try it anyway.
Exit code 0: all were found and taken out; 1: some were not; 2: the tool could not do its job.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.memory_faults import MEMORY_FAULTS, MemoryFault
from tests.faults.planted import ROOT, TARGET_FILES, plant

CASES = 150
SEED = 7

LIMIT = 420.0
"""Seconds for one fault. The slowest here needs a tenth of that."""


class HuntError(Exception):
    """A hunt that ended without an answer; the message holds its last words."""


@dataclass(frozen=True)
class Hunt:
    """What came of looking for a fault. ``fixed``: its case passes without it."""

    fault: MemoryFault
    found: bool
    cases: int
    seconds: float
    check: str = ""
    message: str = ""
    fixed: bool = False
    left: str = ""
    case: dict[str, Any] | None = None

    @property
    def right(self) -> bool:
        """Found with the fault in, and with it alone."""
        return self.found and self.fixed


def wanted_checks(fault: MemoryFault, device: str) -> tuple[str, ...]:
    """The checks by any of which a fault may be found on a device."""
    return (fault.check,) if device == "cpu" else fault.on_gpu


def hunt(
    fault: MemoryFault,
    folder: Path,
    device: str,
    *,
    checks: Sequence[str] = (),
    cases: int = CASES,
    seed: int = SEED,
) -> Hunt:
    """Look for a planted fault with the cases of a campaign, then run its case without the fault.

    Raises: HuntError.
    """
    arguments = ["find", "--target", fault.target, "--cases", str(cases), "--seed", str(seed)]
    for check in checks or wanted_checks(fault, device):
        arguments += ["--check", check]
    answer = _ask(arguments, plant(fault, folder), device)
    found = Hunt(
        fault,
        answer["found"],
        answer["cases"],
        answer["seconds"],
        answer.get("check", ""),
        answer.get("message", f"other checks: {answer['checks'] or 'none'}"),
        case=answer.get("case"),
    )
    return found if found.case is None else _without_fault(found, folder, device)


def _without_fault(found: Hunt, folder: Path, device: str) -> Hunt:
    file = folder / "case.json"
    file.write_text(json.dumps([found.case]), encoding="utf-8")
    # The files of kernels where they lie, the project's own kernels from the root.
    (answer,) = _ask(["judge", str(file)], TARGET_FILES, device)
    fixed = answer["status"] == "pass"
    return Hunt(**{**vars(found), "fixed": fixed, "left": "" if fixed else answer["said"]})


def _ask(arguments: list[str], folder: Path, device: str) -> Any:
    # What the folder has goes before all of these.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.hunt", *arguments, "--device", device],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HuntError(f"no answer within {LIMIT:.0f} s") from error
    if done.returncode != 0:
        raise HuntError(f"exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def hunt_all(
    faults: Sequence[MemoryFault], device: str, *, jobs: int, cases: int, seed: int
) -> Iterator[tuple[MemoryFault, Hunt | HuntError]]:
    """Hunt several faults at once; results as they come."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(
                hunt,
                fault,
                Path(folder) / fault.id,
                device,
                # A fault that should leave no trace: any check may prove that wrong.
                checks=wanted_checks(fault, device) or (*_ANY_ON_GPU, fault.check),
                cases=cases,
                seed=seed,
            ): fault
            for fault in faults
        }
        try:
            for future in as_completed(futures):
                error = future.exception()
                if error is not None and not isinstance(error, HuntError):
                    raise error
                yield futures[future], error or future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            raise


_ANY_ON_GPU = (
    "survived",
    "outputs_fully_written",
    "redzones_intact",
    "inputs_unchanged",
    "nonfinite_match",
    "values_within_bound",
    "repeatable",
)


def main() -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--fault", action="append", choices=[f.id for f in MEMORY_FAULTS])
    parser.add_argument("--jobs", type=int, default=max(1, len(os.sched_getaffinity(0)) // 2))
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    faults = [f for f in MEMORY_FAULTS if not given.fault or f.id in given.fault]
    if not given.fault:
        faults = [f for f in faults if wanted_checks(f, given.device)]
    width = max(len(f.id) for f in faults)
    rows: list[dict[str, Any]] = []
    print(f"{'fault':{width}}  found  check                   cases  seconds  without it")
    for fault, result in hunt_all(
        faults, given.device, jobs=given.jobs, cases=given.cases, seed=given.seed
    ):
        if isinstance(result, HuntError):
            rows.append({"fault": fault.id, "error": str(result)})
            print(f"{fault.id:{width}}  ERROR  {result}", flush=True)
            continue
        rows.append({**vars(result), "fault": fault.id})
        without = "passes" if result.fixed else result.left or "-"
        print(
            f"{fault.id:{width}}  {'yes' if result.found else 'NO':5}  {result.check:22}  "
            f"{result.cases:5}  {result.seconds:7.1f}  {without}",
            flush=True,
        )
        print(f"{'':{width}}    {result.message}", flush=True)
    broken = sum("error" in row for row in rows)
    right = sum(bool(row.get("found") and row.get("fixed")) for row in rows)
    print(f"{right} of {len(rows)} found, and passing without the fault; {broken} errors")
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if broken:
        return 2
    return 0 if right == len(rows) else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
