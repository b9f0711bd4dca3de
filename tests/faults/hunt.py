"""Looks for one fault as a campaign does, or runs known cases: started in a folder of its own.

    python -m tests.faults.hunt find --target T --check C --device cpu --cases 150 --seed 7
    python -m tests.faults.hunt judge FILE --device cpu

Kernels are taken from the folder it is started in, if it has any. One JSON object is printed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.case import Case, from_json, to_json
from fuzz.jobs.plan import BATCH, Plan, draw_limits
from fuzz.process.kernel_process import KernelProcess
from fuzz.process.lifecycle import use_one_thread
from fuzz.runner import Runner
from fuzz.spec import TargetSpec
from fuzz.strategies import draw_cases


def campaign_cases(spec: TargetSpec, device: str, *, seed: int, count: int) -> Iterator[Case]:
    """The cases of `ln-fuzz run --target ... --seed SEED --cases COUNT`, in its order."""
    budget, frames = draw_limits(device, seed)
    plan = Plan((spec,), seed=seed, cases=count, batch=BATCH[device])
    while (batch := plan.next()) is not None:
        yield from draw_cases(
            spec, seed=batch.seed, count=batch.count, budget=budget, frames=frames
        )


def find(target: str, checks: list[str], device: str, *, seed: int, cases: int) -> dict[str, Any]:
    """Judge a campaign's cases up to the first that fails by one of the checks."""
    began = time.monotonic()
    seen: Counter[str] = Counter()
    answer: dict[str, Any] = {"found": False, "cases": 0, "checks": seen}
    with KernelProcess(device) as kernel:
        (spec,) = kernel.specs(target)
        runner = Runner(kernel)
        drawn = campaign_cases(spec, kernel.info.device, seed=seed, count=cases)
        for result in runner.judge_all(spec, drawn):
            assert not result.fault, result.fault
            answer["cases"] += 1
            seen.update({finding.check for finding in result.verdict.findings})
            fits = [f for f in result.verdict.findings if f.check in checks]
            if fits:
                answer |= {"found": True, "check": fits[0].check, "message": fits[0].message}
                answer["case"] = to_json(result.case)
                break
    return answer | {"seconds": time.monotonic() - began}


def judge(cases: list[dict[str, Any]], device: str) -> list[dict[str, str]]:
    """What becomes of known cases."""
    answers = []
    with KernelProcess(device) as kernel:
        runner = Runner(kernel)
        for data in cases:
            case = from_json(data)
            (spec,) = kernel.specs(case.target)
            verdict = runner.judge_one(spec, case)
            said = [f"{f.check}: {f.message}" for f in verdict.findings]
            answers.append({"status": verdict.status, "said": "; ".join(said) or verdict.reason})
    return answers


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    modes = parser.add_subparsers(dest="mode", required=True)
    finding = modes.add_parser("find")
    finding.add_argument("--target", required=True)
    finding.add_argument("--check", action="append", required=True)
    finding.add_argument("--cases", type=int, required=True)
    finding.add_argument("--seed", type=int, required=True)
    judging = modes.add_parser("judge")
    judging.add_argument("file", type=Path, help="a JSON list of cases")
    for mode in (finding, judging):
        mode.add_argument("--device", choices=("cpu", "cuda"), required=True)
    given = parser.parse_args()
    use_one_thread()
    answer: object
    if given.mode == "find":
        answer = find(given.target, given.check, given.device, seed=given.seed, cases=given.cases)
    else:
        answer = judge(json.loads(given.file.read_text(encoding="utf-8")), given.device)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
