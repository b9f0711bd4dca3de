"""How many small cases a second a night can do: by runners a GPU, and by GPUs.

    python ci/night_rates.py --json rates.json

For each number of runners a GPU, and then on all GPUs with the most runners, runs the plan of
`ci/throughput.py --small` once, and then warm again and again for ``--seconds``. Triton's cache is
empty at first, and filled with the most runners before anything is measured. Printed are

  cases/s    of the warm passes
  compiling  the share of the first pass that a warm one does not take: there kernels are compiled,
             or read from Triton's cache; in the line `filling` they are compiled
  kernels    specialisations that the plan has
  engine     wall time of a case in a runner's engine, but for waiting; of its kernel process
  kernel     process, busy with a case; and how much of that is `in a target`, with its launches
  limit      which of the two is the slower one, or that all cores are busy

and then what the engines' time went into. On a machine with 2 GPUs and 32 cores it takes about 7
minutes. Without a GPU it measures runners in the interpreter.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

# Run as a file, from anywhere, without an installation.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ci.throughput import measure
from fuzz.jobs.setup import Settings, Setup, UsageError, prepare
from fuzz.process.lifecycle import use_one_thread

BATCH = 16
"""Cases of a batch: so few that every runner has some of each target."""

ALL_BUSY = 0.9
"""Share of the cores' time above which it is them that limit."""


def on(setup: Setup, gpus: int, runners: int) -> Setup:
    """The first so many GPUs, with so many runners each."""
    info = dataclasses.replace(setup.info, gpus=setup.info.gpus[:gpus])
    return dataclasses.replace(setup, info=info, workers=runners * max(gpus, 1))


def rate(setup: Setup, gpus: int, runners: int, options: argparse.Namespace) -> dict[str, Any]:
    """One line of the table."""
    began = time.monotonic()
    psutil.cpu_percent()
    report = measure(on(setup, gpus, runners), options)
    # Of the start and the first pass too, where fewer are busy.
    cores = psutil.cpu_percent() / 100.0
    return {
        **report,
        "gpus": gpus,
        "runners": runners,
        "cores_busy": cores,
        "seconds": time.monotonic() - began,
    }


def compiling(report: dict[str, Any]) -> float:
    """The share of the first pass that a warm one does not take."""
    cold, warm = report["cold"], report["warm"]
    as_warm = cold["executed"] / warm["cases_per_second"] if warm["executed"] else 0.0
    return max(0.0, 1.0 - as_warm / cold["seconds"])


def costs(report: dict[str, Any]) -> tuple[float, float, float]:
    """Milliseconds of a warm case: in the engine, in its kernel process, of that in a target."""
    warm = report["warm"]
    wall = 1000.0 / warm["cases_per_second_a_runner"] if warm["cases_per_second_a_runner"] else 0.0
    kernel = warm["kernel_process"]
    return wall * (1.0 - warm["waited"]), kernel["busy"], kernel["launched"]


def limit(report: dict[str, Any]) -> str:
    """What is the slowest."""
    if report["cores_busy"] > ALL_BUSY:
        return "cores"
    engine, kernel, _ = costs(report)
    return "engine" if engine > kernel else "kernel process"


def print_head() -> None:
    """The heading."""
    print(
        f"{'':8}{'GPUs':>5}{'runners a GPU':>15}{'cases/s':>10}{'a GPU':>9}{'compiling':>11}"
        f"{'kernels':>9}{'engine':>9}{'kernel':>9}{'in a target':>13}  limit"
    )


def print_line(name: str, report: dict[str, Any]) -> None:
    """One line, as soon as it is there, and what the engines' time went into."""
    warm = report["warm"]
    engine, kernel, target = costs(report)
    print(
        f"{name:8}{report['gpus']:>5}{report['runners']:>15}{warm['cases_per_second']:>10.0f}"
        f"{warm['cases_per_second'] / max(report['gpus'], 1):>9.0f}{compiling(report):>11.0%}"
        f"{report['cold']['specialisation_keys']:>9}{engine:>6.2f} ms{kernel:>6.2f} ms"
        f"{target:>10.2f} ms  {limit(report)}"
    )
    shares = ", ".join(f"{part} {share:.0%}" for part, share in warm["shares"].items())
    print(
        f"{'':8}{shares}; {warm['runs_a_case']:.1f} runs a case; {report['cores_busy']:.0%} of the "
        f"cores; {warm['failing']} failing; {report['seconds']:.0f} s"
    )
    for fault in (*report["cold"]["faults"], *warm["faults"])[:3]:
        print(fault)
    sys.stdout.flush()


def run(setup: Setup, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All lines, the first of which only fills Triton's cache."""
    gpus = len(setup.info.gpus)
    most = max(options.runners)
    print(f"{setup.info.device} ({setup.info.name}), {gpus} GPUs, {os.cpu_count()} cores")
    print_head()
    lines = []
    if gpus:
        filling = argparse.Namespace(**{**vars(options), "seconds": 1.0})
        lines.append(rate(setup, gpus, most, filling))
        print_line("filling", lines[-1])
    for runners in options.runners:
        lines.append(rate(setup, min(gpus, 1), runners, options))
        print_line("", lines[-1])
    if gpus > 1:
        lines.append(rate(setup, gpus, most, options))
        print_line("", lines[-1])
    return lines


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--runners", nargs="+", type=int, default=[1, 2, 4, 8], help="a GPU")
    parser.add_argument("--cases", type=int, default=1400, help="of the plan")
    parser.add_argument("--seconds", type=float, default=25.0, help="of each warm measurement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures for programs")
    options = parser.parse_args(arguments)
    options.parent, options.batch, options.small = os.getpid(), BATCH, True
    use_one_thread()
    with tempfile.TemporaryDirectory() as cache:
        # Read by Triton in the kernel processes, which inherit it.
        os.environ["TRITON_CACHE_DIR"] = cache
        try:
            setup = prepare(Settings(targets=tuple(options.target), device=options.device))
        except UsageError as error:
            parser.error(str(error))
        lines = run(setup, options)
    if options.json is not None:
        options.json.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    return int(any(not line["warm"]["executed"] for line in lines))


if __name__ == "__main__":
    sys.exit(main())
