"""How many cases a second: one fixed plan, run cold and then again warm in the same processes.

    python ci/throughput.py --device cuda --workers 4 --cases 2000 --small

Prints cases/s of both passes, where the runners' wall time went, and the number of specialisation
keys (compiled kernels) that the plan has. `--small` draws cases of at most 1600 columns and some
thousand elements. With `--seconds` the warm pass goes through the plan again and again for so long.
Nothing is shrunk or stored; failing cases are counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

# Run as a file, from anywhere, without an installation.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzz.case import Case
from fuzz.jobs.engine import SWITCH_INTERVAL
from fuzz.jobs.plan import BATCH, Plan, draw_limits
from fuzz.jobs.setup import Settings, Setup, UsageError, prepare
from fuzz.jobs.totals import Totals
from fuzz.process.journal import Journal
from fuzz.process.kernel_process import KernelProcess, Outcome, Ticket
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


class TimedProcess(KernelProcess):
    """A kernel process that notes how long it was waited for, and how busy it was."""

    def __init__(self, device: str, *, gpu: str | None) -> None:
        super().__init__(device, gpu=gpu)
        self.times = Counter[str]()

    def collect(self, ticket: Ticket) -> Outcome:
        """Wait for a case."""
        began = time.perf_counter()
        outcome = super().collect(ticket)
        self.times["waited"] += time.perf_counter() - began
        self.times["busy"] += outcome.busy
        self.times["launched"] += sum(seen.seconds for seen in outcome.observations)
        self.times["runs"] += len(outcome.observations)
        return outcome


def is_past(deadline: float | None) -> bool:
    """Whether the time is over."""
    return deadline is not None and time.monotonic() >= deadline


def until(deadline: float | None, cases: Iterable[Case]) -> Iterator[Case]:
    """The cases, as long as there is time."""
    for case in cases:
        if is_past(deadline):
            return
        yield case


def run_share(
    connection: Connection, barrier: Barrier, setup: Setup, number: int, options: argparse.Namespace
) -> None:
    """One runner: its share of the batches, twice or more; sends sums and seconds of each pass."""
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
        TimedProcess(info.device, gpu=gpu) as kernel,
    ):
        runner = Runner(kernel, journal)
        # Imports are no part of either pass.
        kernel.specs(setup.specs[0].name)
        for name in PASSES:
            barrier.wait(START_LIMIT)
            began = time.monotonic()
            totals = Totals()
            kernel.times.clear()
            timed = name == "warm" and options.seconds is not None
            deadline = began + options.seconds if timed else None
            is_over = False
            while not is_over:
                plan = Plan(
                    setup.specs, seed=options.seed, cases=options.cases, batch=options.batch
                )
                while not is_past(deadline) and (batch := plan.next()) is not None:
                    if batch.number % setup.workers != number:
                        continue
                    spec = setup.specs[batch.target]
                    cases = draw_cases(
                        spec, seed=batch.seed, count=batch.count, budget=budget, frames=frames
                    )
                    for result in runner.judge_all(spec, until(deadline, cases)):
                        totals.add(result)
                is_over = deadline is None or is_past(deadline)
            connection.send((totals, time.monotonic() - began, kernel.times))
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
        times = Counter[str]()
        slowest = 0.0
        rates = []
        for connection in connections:
            totals, seconds, of_kernel = connection.recv()
            slowest = max(slowest, seconds)
            times.update(of_kernel)
            times["wall"] += seconds
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
            # Of the engines, how long they had nothing to do; of the kernel processes, how long
            # they had something to do, and how much of that was in a target.
            "runs_a_case": times["runs"] / max(sums.executed, 1),
            "waited": times["waited"] / times["wall"],
            "kernel_process": {
                part: 1000 * times[part] / max(sums.executed, 1) for part in ("busy", "launched")
            },
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
        kernel = one["kernel_process"]
        print(
            f"      {one['runs_a_case']:.1f} runs a case; kernel process busy "
            f"{kernel['busy']:.2f} ms a case, {kernel['launched']:.2f} of it in a target; engine "
            f"waiting for it {one['waited']:.0%} of the time"
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
    parser.add_argument("--seconds", type=float, help="of the warm pass")
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
    options.batch = BATCH[setup.info.device]
    report = measure(setup, options)
    print_report(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
