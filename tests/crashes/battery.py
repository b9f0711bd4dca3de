"""The fault battery: random faults among many cases, each to be charged to its own case.

    python -m tests.crashes.battery --cases 5000 --faults 200 --seed 1 --workers 2

Every case is journalled by the runner that judges it, as in a campaign. The audit afterwards reads
the journals case by case: one verdict for each; a fault found in the run that had it, with the
right words; a pass everywhere else. Exit codes: 0 all charged rightly, 1 not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.case import Case
from fuzz.jobs.engine import SWITCH_INTERVAL
from fuzz.process.journal import Journal
from fuzz.process.kernel_process import KernelProcess
from fuzz.process.kernel_worker import DeviceInfo
from fuzz.process.lifecycle import enter_child, use_one_thread
from fuzz.process.limits import Limits
from fuzz.relations import expand
from fuzz.runner import Runner
from fuzz.spec import TargetSpec
from fuzz.strategies import Budget, draw_cases
from tests.crashes.faults import (
    BACKEND,
    FAULTS,
    FOLDER,
    TARGET_FILE,
    Planned,
    Strike,
    faults_of,
    read_strikes,
    write_plan,
)

BUDGET = Budget(max_programs=3, max_elements=1024, max_cols=64, max_steps=3)
"""Cases that take some 10 ms, so that the faults are most of what a battery costs."""

LIMITS = {
    # A case takes some 20 ms; the rest is for a machine that does other things as well.
    "cpu": Limits(base=3.0, per_run=0.0, per_program=0.0, per_element=0.0),
    # A cold specialisation takes up to 0.4 s alone, and one run may need several.
    "cuda": Limits(base=8.0, per_run=1.0, per_program=0.0, per_element=0.0),
}
"""Short beside those of a campaign: a hang is waited for to the end of it."""

LOOK_EVERY = 10.0
"""Seconds between two words about the progress."""


def draw(spec: TargetSpec, *, seed: int, count: int) -> list[Case]:
    """So many different cases."""
    found: dict[str, Case] = {}
    number = 0
    while len(found) < count:
        for case in draw_cases(spec, seed=seed + number, count=count, budget=BUDGET):
            found.setdefault(case.case_id, case)
        number += 1
    return list(found.values())[:count]


def plan_faults(cases: Sequence[Case], *, device: str, count: int, seed: int) -> list[Planned]:
    """Which cases fail, how, and in which of their runs: each fault once, then by weight."""
    chance = random.Random(f"battery/{seed}")
    kinds = faults_of(device)
    weights = [fault.weight for fault in kinds]
    drawn = (kinds + chance.choices(kinds, weights, k=max(0, count - len(kinds))))[:count]
    chance.shuffle(drawn)
    places = sorted(chance.sample(range(len(cases)), count))
    return [
        Planned(cases[at].case_id, fault.id, chance.choice(expand(cases[at])).name)
        for at, fault in zip(places, drawn, strict=True)
    ]


@dataclass(frozen=True)
class Share:
    """What one runner is told."""

    number: int
    parent: int
    info: DeviceInfo
    limits: Limits
    spec: TargetSpec
    cases: tuple[Case, ...]
    folder: Path

    @property
    def journal(self) -> Path:
        """Its journal."""
        return self.folder / f"journal-{self.number}.jsonl"

    @property
    def noticed(self) -> Path:
        """When it had each verdict."""
        return self.folder / f"noticed-{self.number}.jsonl"


def run_share(share: Share) -> None:
    """One runner: a process of its own, as the engine of a campaign is."""
    enter_child(share.parent)
    sys.setswitchinterval(SWITCH_INTERVAL)
    gpus = share.info.gpus
    kernel = KernelProcess(
        share.info.device,
        gpu=gpus[share.number % len(gpus)] if gpus else None,
        backend=BACKEND,
        limits=share.limits,
    )
    with (
        kernel,
        Journal(share.journal) as journal,
        share.noticed.open("w", buffering=1, encoding="utf-8") as noticed,
    ):
        for result in Runner(kernel, journal).judge_all(share.spec, share.cases):
            noticed.write(json.dumps([result.case.case_id, time.monotonic()]) + "\n")


def run_shares(shares: Sequence[Share]) -> list[str]:
    """Run all runners to their ends; says which of them did not end well."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=run_share, args=(share,)) for share in shares]
    for process in processes:
        process.start()
    total = sum(len(share.cases) for share in shares)
    began = told = time.monotonic()
    while any(process.is_alive() for process in processes):
        time.sleep(0.1)
        if time.monotonic() - told > LOOK_EVERY:
            told = time.monotonic()
            done = sum(len(share.noticed.read_bytes().splitlines()) for share in shares)
            print(f"{told - began:.0f} s: {done} of {total} cases", file=sys.stderr, flush=True)
    for process in processes:
        process.join()
    return [
        f"runner {number} ended with exit code {process.exitcode}"
        for number, process in enumerate(processes)
        if process.exitcode
    ]


# --- the audit ------------------------------------------------------------------------------------


@dataclass
class Row:
    """What became of one fault. ``seconds``: from the fault to the verdict."""

    injected: int = 0
    charged: int = 0
    seconds: list[float] = field(default_factory=list)


@dataclass
class Audit:
    """What the journals say. ``complaints`` are in words; there must be none."""

    cases: int
    rows: dict[str, Row] = field(default_factory=dict)
    passed: int = 0
    complaints: list[str] = field(default_factory=list)

    @property
    def injected(self) -> int:
        """Faults in all."""
        return sum(row.injected for row in self.rows.values())

    @property
    def charged(self) -> int:
        """Faults that were found where they were, as what they were."""
        return sum(row.charged for row in self.rows.values())


def audit(
    cases: Sequence[Case],
    plan: Sequence[Planned],
    strikes: Sequence[Strike],
    lines: Sequence[dict[str, Any]],
    noticed: dict[str, float],
    *,
    device: str,
) -> Audit:
    """Compare what was planned with what happened and with what the journals say, case by case."""
    found = Audit(len(cases))
    planned = {item.case_id: item for item in plan}
    struck = {strike.planned.case_id: strike for strike in strikes}
    events: dict[str, list[dict[str, Any]]] = {case.case_id: [] for case in cases}
    for line in lines:
        if line["id"] in events:
            events[line["id"]].append(line)
        else:
            found.complaints.append(f"case {line['id']} is none of the battery's")
    # A case that is run again, because its process died beside it, would strike again.
    again = Counter(strike.planned.case_id for strike in strikes)
    for case_id, mine in events.items():
        item = planned.get(case_id)
        wrong = _wrong(item, mine, device)
        if item is not None:
            row = found.rows.setdefault(item.fault, Row())
            row.injected += 1
            if case_id not in struck or struck[case_id].planned != item:
                wrong = wrong or "the fault never came to pass"
            elif again[case_id] != 1:
                wrong = wrong or f"the fault came to pass {again[case_id]} times"
            if not wrong:
                row.charged += 1
                row.seconds.append(noticed[case_id] - struck[case_id].at)
        elif case_id in struck:
            wrong = wrong or "a fault came to pass that was not planned"
        elif not wrong:
            found.passed += 1
        if wrong:
            what = f"{item.fault} in {item.run}" if item is not None else "no fault"
            found.complaints.append(f"case {case_id} ({what}): {wrong}")
    return found


def _wrong(item: Planned | None, lines: list[dict[str, Any]], device: str) -> str:
    """What is wrong with one case's lines in the journal, nothing if all is well."""
    said = [line["event"] for line in lines]
    if said != ["begin", "end"]:
        return f"its journal says {' '.join(said) or 'nothing'}"
    end = lines[1]
    findings = end.get("findings", [])
    if item is None:
        return "" if end["status"] == "pass" else f"{end['status']}: {_brief(end)}"
    fault = FAULTS[item.fault]
    if end["status"] != "fail" or len(findings) != 1:
        return f"{end['status']} with {len(findings)} findings: {_brief(end)}"
    (finding,) = findings
    right = (
        finding["check"] == "survived"
        and finding["run"] == item.run
        and re.fullmatch(fault.region_on(device), finding["region"])
        and fault.says in finding["message"]
    )
    return "" if right else f"charged as {_brief(end)}"


def _brief(end: dict[str, Any]) -> str:
    words = [end["reason"]] if "reason" in end else []
    words += [
        f"{f['check']} {f['run']} {f['region']}: {f['message']}" for f in end.get("findings", [])
    ]
    return "; ".join(words)[:300]


def read_lines(paths: Sequence[Path]) -> Iterator[Any]:
    """Every line of some files, each a JSON text of its own."""
    for path in paths:
        if path.exists():
            yield from (json.loads(line) for line in path.read_text().splitlines())


# --- the program ----------------------------------------------------------------------------------


def run_battery(
    *,
    device: str,
    count: int,
    faults: int,
    seed: int,
    workers: int,
    folder: Path,
    limit: float | None = None,
) -> tuple[Audit, dict[str, Any]]:
    """Run a battery in a folder; what the audit found, and all of it as data."""
    plans = folder / "plan"
    plans.mkdir(parents=True)
    os.environ[FOLDER] = str(plans)
    use_one_thread()
    with KernelProcess(device, backend=BACKEND) as kernel:
        info = kernel.info
        (spec,) = kernel.specs(str(TARGET_FILE))
    cases = draw(spec, seed=seed, count=count)
    plan = plan_faults(cases, device=info.device, count=faults, seed=seed)
    for item in plan:
        write_plan(plans, item)
    limits = LIMITS[info.device]
    if limit is not None:
        limits = Limits(limit, limits.per_run, 0.0, 0.0)
    shares = [
        Share(number, os.getpid(), info, limits, spec, tuple(cases[number::workers]), folder)
        for number in range(workers)
    ]
    began = time.monotonic()
    complaints = run_shares(shares)
    seconds = time.monotonic() - began
    lines = list(read_lines([share.journal for share in shares]))
    noticed = dict(read_lines([share.noticed for share in shares]))
    found = audit(cases, plan, read_strikes(plans), lines, noticed, device=info.device)
    found.complaints += complaints
    return found, {
        "device": info.device,
        "device_name": info.name,
        "workers": workers,
        "seed": seed,
        "seconds": seconds,
        "time_limit": limits.base,
        "cases": found.cases,
        "passed": found.passed,
        "injected": found.injected,
        "charged": found.charged,
        "faults": {
            name: {
                "injected": row.injected,
                "charged": row.charged,
                "seconds_to_notice": {
                    "median": statistics.median(row.seconds),
                    "largest": max(row.seconds),
                }
                if row.seconds
                else None,
            }
            for name, row in sorted(found.rows.items())
        },
        "complaints": found.complaints,
    }


def print_result(data: dict[str, Any]) -> None:
    """The table, the sums and the first complaints."""
    print(f"{'fault':24}{'injected':>9}{'charged':>9}   seconds to notice, median and largest")
    for name, row in data["faults"].items():
        took = row["seconds_to_notice"]
        times = f"{took['median']:8.2f}{took['largest']:8.2f}" if took else ""
        print(f"{name:24}{row['injected']:9}{row['charged']:9}   {times}")
    print(
        f"{data['device']} ({data['device_name']}), {data['workers']} runners, seed {data['seed']}:"
        f" {data['charged']} of {data['injected']} faults charged rightly,"
        f" {data['passed']} of {data['cases'] - data['injected']} other cases passed,"
        f" {data['seconds']:.0f} s"
    )
    for complaint in data["complaints"][:20]:
        print(complaint)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, help="seconds before a case counts as hung")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, help="a new folder that keeps plan and journals")
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        folder = options.out
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found, data = run_battery(
            device=options.device,
            count=options.cases,
            faults=options.faults,
            seed=options.seed,
            workers=options.workers,
            folder=folder,
            limit=options.limit,
        )
    print_result(data)
    if options.json is not None:
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return 1 if found.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
