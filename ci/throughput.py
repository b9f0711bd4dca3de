"""How many cases a second: one fixed plan, run cold and then again warm in the same processes.

    python ci/throughput.py --device cuda --workers 4 --cases 2000 --small

Prints cases/s of both passes, where the runners' wall time went, and the number of specialisation
keys (compiled kernels) that the plan has. `--small` draws cases of at most 1600 columns and some
thousand elements. Nothing is shrunk or stored; failing cases are counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

# Run as a file, from anywhere, without an installation.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzz.jobs.engine import SWITCH_INTERVAL
from fuzz.jobs.plan import BATCH, Plan, draw_limits
from fuzz.jobs.setup import Settings, Setup, UsageError, prepare
from fuzz.jobs.totals import Totals
from fuzz.process.journal import Journal
from fuzz.process.kernel_process import KernelProcess
from fuzz.process.lifecycle import enter_child, use_one_thread
from fuzz.runner import PARTS, Runner
from fuzz.space.budget import USUAL_SHARE
from fuzz.strategies import Budget, draw_cases

PASSES = ("cold", "warm")
START_LIMIT = 300.0


# Cases whose kernels take next to nothing: what is left is what a case costs by itself.
SMALL_BUDGET = Budget(
    max_programs=16,
    max_elements=USUAL_SHARE * 1600,
    max_cols=1600,
    max_steps=64,
    all_relations=True,
)


def run_share(
    connection: Connection, barrier: Barrier, setup: Setup, number: int, options: argparse.Namespace
) -> None:
    """One runner: its share of the batches, twice; sends sums and seconds of each pass."""
    enter_child(options.parent)
    sys.setswitchinterval(SWITCH_INTERVAL)
    info = setup.info
    budget, frames = draw_limits(info.device, options.seed)
    if options.small:
        budget = SMALL_BUDGET
    gpu = info.gpus[number % len(info.gpus)] if info.gpus else None
    with (
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder) / "journal.jsonl") as journal,
        KernelProcess(info.device, gpu=gpu) as kernel,
    ):
        runner = Runner(kernel, journal)
        # Imports are no part of either pass.
        kernel.specs(setup.specs[0].name)
        for _ in PASSES:
            barrier.wait(START_LIMIT)
            began = time.monotonic()
            totals = Totals()
            plan = Plan(
                setup.specs, seed=options.seed, cases=options.cases, batch=BATCH[info.device]
            )
            while (batch := plan.next()) is not None:
                if batch.number % setup.workers != number:
                    continue
                spec = setup.specs[batch.target]
                cases = draw_cases(
                    spec, seed=batch.seed, count=batch.count, budget=budget, frames=frames
                )
                for result in runner.judge_all(spec, cases):
                    totals.add(result)
            connection.send((totals, time.monotonic() - began))
    connection.close()


def measure(setup: Setup, options: argparse.Namespace) -> dict[str, Any]:
    """Run both passes with all runners at once."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(setup.workers)
    processes, connections = [], []
    for number in range(setup.workers):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=run_share, args=(theirs, barrier, setup, number, options))
        process.start()
        theirs.close()
        processes.append(process)
        connections.append(ours)
    report: dict[str, Any] = {
        "device": setup.info.device,
        "device_name": setup.info.name,
        "workers": setup.workers,
        "seed": options.seed,
        "small": options.small,
    }
    for name in PASSES:
        sums = Totals()
        slowest = 0.0
        rates = []
        for connection in connections:
            totals, seconds = connection.recv()
            slowest = max(slowest, seconds)
            if totals.executed:
                rates.append(totals.executed / seconds)
            sums.merge(totals)
        report[name] = {
            "executed": sums.executed,
            "failing": sums.failed,
            "skipped": sums.skipped,
            "faults": sums.faults,
            "seconds": slowest,
            "cases_per_second": sums.executed / slowest,
            "cases_per_second_a_runner": sum(rates) / max(len(rates), 1),
            "milliseconds_a_case": {
                part: 1000 * sums.seconds[part] / max(sums.executed, 1) for part in PARTS
            },
            "shares": sums.shares(),
            "specialisation_keys": len(sums.keys),
        }
    for process in processes:
        process.join()
    return report


def print_report(report: dict[str, Any]) -> None:
    """The figures as text."""
    print(
        f"{report['device']} ({report['device_name']}), {report['workers']} runners, "
        f"seed {report['seed']}"
    )
    for name in PASSES:
        one = report[name]
        print(
            f"{name}: {one['executed']} cases in {one['seconds']:.1f} s = "
            f"{one['cases_per_second']:.1f} cases/s "
            f"({one['cases_per_second_a_runner']:.1f} a runner), {one['failing']} failing, "
            f"{one['skipped']} skipped, {one['specialisation_keys']} specialisation keys"
        )
        print(
            "      "
            + ", ".join(
                f"{part} {one['shares'][part]:.1%} ({one['milliseconds_a_case'][part]:.2f} ms)"
                for part in PARTS
            )
        )
        for fault in one["faults"][:3]:
            print(fault)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--workers", type=int)
    parser.add_argument("--cases", type=int, default=200, help="of each pass, over all runners")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.parent = os.getpid()
    use_one_thread()
    try:
        setup = prepare(
            Settings(targets=tuple(options.target), device=options.device, workers=options.workers)
        )
    except UsageError as error:
        parser.error(str(error))
    report = measure(setup, options)
    print_report(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
