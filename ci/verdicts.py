"""The same cases judged on two devices: do the verdicts agree, and how do the roundings differ?

    python -m ci.verdicts draw --cases 500 --seed 1 ci/verdicts.jsonl.gz
    python -m ci.verdicts judge ci/verdicts.jsonl.gz --device cpu --out cpu.jsonl
    python -m ci.verdicts judge ci/verdicts.jsonl.gz --device cuda --out cuda.jsonl
    python -m ci.verdicts compare cpu.jsonl cuda.jsonl

The set is stored, because another version of Hypothesis draws other cases. `judge` adds a line to
its result as soon as a case is judged; stopped and started again, it goes on where it was.

Exit codes: 0 all is well (for compare: the verdicts agree); 1 they do not; 2 the tool could not do
its job; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import math
import multiprocessing
import os
import sys
from collections.abc import Generator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# Run as a file, from anywhere, without an installation.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ci.agreement import ULPS, compare, statuses
from ci.verdict_files import (
    FORMAT,
    Row,
    VerdictsError,
    open_results,
    read_results,
    read_set,
    set_digest,
    write_set,
)
from fuzz.case import Case
from fuzz.checks import judge
from fuzz.inputs import make_values
from fuzz.jobs.failures import signatures, versions
from fuzz.jobs.plan import BATCH, Plan, draw_limits
from fuzz.jobs.setup import Settings, Setup, UsageError, prepare
from fuzz.judging.evidence import Evidence, Returned
from fuzz.judging.owed import expected_outputs
from fuzz.process.kernel_process import KernelProcess, KernelProcessError
from fuzz.process.lifecycle import enter_child, spawning, use_one_thread
from fuzz.process.mailbox import OutOfSharedMemory, remove_segments_of
from fuzz.relations import expand
from fuzz.report import make_console
from fuzz.spec import TargetSpec
from fuzz.strategies import draw_cases
from fuzz.verdict import Verdict
from oracle.compare import Expected
from oracle.formats import encode

STOP_LIMIT = 10.0
"""Seconds that processes get to end by themselves."""


def draw(specs: tuple[TargetSpec, ...], *, cases: int, seed: int) -> list[Case]:
    """Different cases of all targets, of a size that an interpreter can run."""
    budget, frames = draw_limits("cpu", seed)
    plan = Plan(
        specs, seed=seed, cases=None, batch=min(BATCH["cpu"], math.ceil(cases / len(specs)))
    )
    found: dict[str, Case] = {}
    while True:
        share = plan.next()
        assert share is not None, "a plan without a limit has no end"
        spec = specs[share.target]
        for case in draw_cases(
            spec, seed=share.seed, count=share.count, budget=budget, frames=frames
        ):
            found[case.case_id] = case
            if len(found) == cases:
                return list(found.values())


def judge_case(kernel: KernelProcess, spec: TargetSpec, case: Case) -> Row:
    """The verdict on a case, and how its outputs were rounded.

    Raises: VerdictsError when the harness failed; KernelProcessError.
    """
    values = make_values(case)
    runs = expand(case)
    try:
        outcome = kernel.collect(kernel.submit(spec, case, runs, values))
    except OutOfSharedMemory as error:
        return _row(case, Verdict(case.case_id, "skip", reason=str(error)))
    if outcome.problem is not None:
        raise VerdictsError(f"case {case.case_id}: {outcome.problem.trace}")
    by_name = {run.name: run for run in runs}
    asked = tuple(by_name[seen.run] for seen in outcome.observations)
    evidence = (spec, case, asked, values, outcome.observations)
    row = _row(case, judge(*evidence, interpreted=kernel.interpreted))
    if row["status"] != "skip":
        with np.errstate(all="ignore"):
            row["outputs"] = _rounding(Evidence(*evidence, interpreted=kernel.interpreted))
    return row


def _row(case: Case, verdict: Verdict) -> Row:
    return {
        "id": case.case_id,
        "target": case.target,
        "gated": case.tensor("z") is not None,
        "status": verdict.status,
        "signatures": sorted(str(s) for s in signatures(case, verdict)),
        "messages": [finding.message for finding in verdict.findings],
        "reason": verdict.reason,
        # Infinite ratios are no JSON numbers.
        "ratios": {name: f"{ratio:.4g}" for name, ratio in verdict.ratios.items()},
        "outputs": {},
    }


def _rounding(evidence: Evidence) -> Row:
    """How the outputs of the base run lie to the correctly rounded results.

    The reference follows from the inputs alone, never from statistics that came back, so that it
    is the same on every device.
    """
    outputs = evidence.outputs.get("base", {})
    if not outputs:
        return {}
    dtypes = {name: item.array.dtype for name, item in outputs.items()}
    expected = expected_outputs(evidence.spec, evidence.problem, dtypes, {})
    return {name: _rounding_of(item, expected[name]) for name, item in outputs.items()}


def _rounding_of(returned: Returned, expected: Expected) -> Row:
    dtype = returned.array.dtype
    # Elements that owe nothing in particular, or nothing finite, say nothing of roundings.
    counted = (
        np.isfinite(returned.values)
        & np.isfinite(expected.low)
        & np.isfinite(expected.high)
        & ~expected.free
    )
    distance = np.abs(_ordered(returned.bits) - _ordered(encode(expected.value, dtype)))[counted]
    counts = np.bincount(np.minimum(distance, ULPS), minlength=ULPS + 1)
    return {
        "dtype": dtype,
        "ulps": [int(n) for n in counts],
        "max_ulp": int(distance.max(initial=0)),
        "left_out": int(counted.size - counted.sum()),
        "digest": hashlib.sha256(returned.bits.tobytes()).hexdigest()[:12],
    }


def _ordered(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Float bits as integers in the order of the floats, neighbours one apart, both zeros 0."""
    sign = 1 << (8 * bits.itemsize - 1)
    size = bits.astype(np.int64) & (sign - 1)
    return np.where(bits & bits.dtype.type(sign), -size, size)


def run_share(
    connection: Connection, setup: Setup, gpu: str | None, cases: list[Case], parent: int
) -> None:
    """One process's share of the cases: sends a row for each, then None, or what went wrong."""
    enter_child(parent)
    specs = {spec.name: spec for spec in setup.specs}
    try:
        with KernelProcess(setup.info.device, gpu=gpu) as kernel:
            for case in cases:
                connection.send(judge_case(kernel, specs[case.target], case))
        connection.send(None)
    except BrokenPipeError:
        # Nobody listens any more: it was stopped.
        return
    except (VerdictsError, KernelProcessError, ValueError) as error:
        connection.send(f"{type(error).__name__}: {error}")
    connection.close()


def judge_all(setup: Setup, cases: list[Case]) -> Generator[Row]:
    """Judge cases with several processes; rows as they come.

    Raises: VerdictsError.
    """
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    connections: list[Connection] = []
    try:
        for number in range(min(setup.workers, len(cases))):
            gpus = setup.info.gpus
            gpu = gpus[number % len(gpus)] if gpus else None
            ours, theirs = context.Pipe(duplex=False)
            share = cases[number :: setup.workers]
            process: BaseProcess = context.Process(
                target=run_share, args=(theirs, setup, gpu, share, os.getpid())
            )
            with spawning():
                process.start()
            theirs.close()
            processes.append(process)
            connections.append(ours)
        while connections:
            for ready in wait(connections):
                assert isinstance(ready, Connection)
                try:
                    said = ready.recv()
                except EOFError:
                    raise VerdictsError("a judging process died without a word") from None
                if isinstance(said, str):
                    raise VerdictsError(said)
                if said is None:
                    connections.remove(ready)
                else:
                    yield said
    finally:
        for connection in connections:
            # Stopped early: a process notices with its next case.
            connection.close()
        for process in processes:
            process.join(STOP_LIMIT)
            process.kill()
            process.join()
            if process.exitcode and process.pid is not None:
                remove_segments_of(process.pid)


def draw_command(given: argparse.Namespace) -> int:
    """Draw a set and write it."""
    setup = prepare(Settings(device="cpu"))
    cases = draw(setup.specs, cases=given.cases, seed=given.seed)
    write_set(cases, given.file)
    print(
        f"{len(cases)} cases of {len(setup.specs)} targets, set {set_digest(cases)}: {given.file}"
    )
    return 0


def judge_command(given: argparse.Namespace) -> int:
    """Judge the cases of a set that are not judged yet."""
    cases = read_set(given.file)
    names = tuple(dict.fromkeys(case.target for case in cases))
    setup = prepare(Settings(targets=names, device=given.device, workers=given.workers))
    header = {
        "format": FORMAT,
        "set": set_digest(cases),
        "cases": len(cases),
        "device": setup.info.device,
        "device_name": setup.info.name,
        "versions": versions(),
    }
    results = open_results(given.out, header)
    left = [case for case in cases if case.case_id not in results.rows]
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[failing]} failing"))
    with Progress(*columns, TimeRemainingColumn(), console=make_console()) as progress:
        bar = progress.add_task("", total=len(cases), completed=len(cases) - len(left), failing=0)
        try:
            with contextlib.closing(judge_all(setup, left)) as rows:
                for row in rows:
                    results.add(row)
                    failing = statuses(results).get("fail", 0)
                    progress.update(bar, advance=1, failing=failing)
        except KeyboardInterrupt:
            print(
                f"stopped: {len(results.rows)} of {len(cases)} are judged; the same command goes on"
            )
            return 130
    counts = ", ".join(f"{n} {status}" for status, n in sorted(statuses(results).items()))
    print(f"{len(results.rows)} cases on {setup.info.device} ({setup.info.name}): {counts}")
    for row in itertools.islice((r for r in results.rows.values() if r["status"] == "fail"), 10):
        print(f"  {row['target']} {row['id']}: {'; '.join(row['messages'])}")
    return 0


def compare_command(given: argparse.Namespace) -> int:
    """Compare two results."""
    return 0 if compare(read_results(given.a), read_results(given.b)) else 1


def main() -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    drawing = commands.add_parser("draw", help="draw a set of cases of all built-in targets")
    drawing.add_argument("file", type=Path)
    drawing.add_argument("--cases", type=int, default=500)
    drawing.add_argument("--seed", type=int, default=1)
    drawing.set_defaults(run=draw_command)
    judging = commands.add_parser("judge", help="judge the cases of a set, or go on with it")
    judging.add_argument("file", type=Path)
    judging.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    judging.add_argument("--out", type=Path, required=True)
    judging.add_argument("--workers", type=int)
    judging.set_defaults(run=judge_command)
    comparing = commands.add_parser("compare", help="compare two results of one set")
    comparing.add_argument("a", type=Path)
    comparing.add_argument("b", type=Path)
    comparing.set_defaults(run=compare_command)
    given = parser.parse_args()
    for name in ("cases", "workers"):
        value = getattr(given, name, None)
        if value is not None and value < 1:
            parser.error(f"{name}={value}, must be >= 1")
    use_one_thread()
    try:
        code: int = given.run(given)
    except (VerdictsError, UsageError) as error:
        print(f"ci/verdicts.py: {error}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
