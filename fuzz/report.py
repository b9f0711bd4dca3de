"""What people and programs see of a campaign: progress, failures, the final table, JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fuzz.campaign import CampaignResult
from fuzz.case import describe
from fuzz.jobs.failures import versions
from fuzz.jobs.setup import Settings
from fuzz.replay import Replayed
from fuzz.spec import TargetSpec
from fuzz.store import FAILURES, REGRESSIONS, Failure, short_id

FORMAT = 1
"""Version of the JSON result."""

PLAIN_WIDTH = 120

STYLES = {
    "REPRODUCED": "bold red",
    "FLAKY": "bold yellow",
    "FIXED": "green",
    "ERROR": "bold magenta",
}


def make_console() -> Console:
    """A console on stdout, wide enough for a table where there is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def print_failure(console: Console, failure: Failure, path: Path, *, brief: bool = False) -> None:
    """The mismatch, the case in one line, and how to see it again; brief: only the last."""
    if brief:
        line = f"also {failure.signature}  replay: {replay_command(failure, path)}"
        console.print(Text(line), soft_wrap=True)
        return
    lines = Text()
    lines.append("FAIL ", style="bold red")
    lines.append(f"{failure.signature}\n", style="bold")
    lines.append(f"  {failure.message}\n")
    lines.append(f"  {describe(failure.case)}\n")
    if failure.confirmed < failure.confirm_runs:
        lines.append(
            f"  flaky: {failure.confirmed} of {failure.confirm_runs} runs in a fresh process\n",
            style="yellow",
        )
    elif not failure.confirm_runs:
        lines.append("  neither shrunk nor confirmed\n", style="yellow")
    lines.append(f"  replay: {replay_command(failure, path)}")
    console.print(lines, soft_wrap=True)


def replay_command(failure: Failure, path: Path) -> str:
    """The command that runs a failure again, from this folder."""
    folders = (path.parent, REGRESSIONS)
    usual = path.parent == Path(".ln-fuzz") / FAILURES
    return f"ln-fuzz replay {short_id(failure.id, folders) if usual else path}"


def print_result(console: Console, result: CampaignResult) -> None:
    """The table, the sums, and what they amount to."""
    table = Table(title=None, pad_edge=False)
    table.add_column("target")
    table.add_column("dtype")
    for heading in ("cases", "failing"):
        table.add_column(heading, justify="right")
    table.add_column("largest error/bound")
    table.add_column("skipped", justify="right")
    totals = result.totals
    reasons: dict[str, int] = {}
    for (target, dtype), row in sorted(totals.rows.items()):
        ratios = ", ".join(f"{name} {ratio:.3g}" for name, ratio in sorted(row.ratios.items()))
        cells = [target, dtype, str(row.executed), str(row.failed), ratios]
        table.add_row(*map(Text, [*cells, str(row.skipped.total())]))
        for reason, count in row.skipped.items():
            reasons[reason] = reasons.get(reason, 0) + count
    if totals.rows:
        console.print(table)
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        console.print(Text(f"{count} skipped: {reason}"), soft_wrap=True)
    shares = ", ".join(f"{part} {share:.0%}" for part, share in totals.shares().items())
    rate = totals.executed / result.seconds if result.seconds else 0.0
    lines = [
        f"{result.planned} planned = {totals.executed} executed + {totals.skipped} skipped + "
        f"{totals.not_reached} not reached" + (f" + {result.lost} LOST" if result.lost else ""),
        f"{result.seconds:.0f} s, {rate:.1f} cases/s; time of the runners: {shares}",
        f"journal: {result.run_folder}",
    ]
    console.print(Text("\n".join(lines)), soft_wrap=True)
    console.print(Text(conclusion(result), style="bold"), soft_wrap=True)


def conclusion(result: CampaignResult) -> str:
    """One line that says how it ended."""
    stopped = "Interrupted. " if result.interrupted else ""
    code = result.exit_code
    if code == 2:
        why = "no case was executed" if result.totals.executed == 0 else "see the errors above"
        return f"{stopped}The tool could not do its job: {why}."
    if code == 1:
        kinds: dict[str, None] = {}
        for failure, _ in result.failures:
            target, check, output = failure.signature.kind
            kinds[f"{target} ({check}{' of ' * bool(output)}{output})"] = None
        return (
            f"{stopped}{result.totals.failed} of {result.totals.executed} cases fail: "
            f"{', '.join(kinds)}."
        )
    return f"{stopped}No failure in {result.totals.executed} cases."


def result_json(result: CampaignResult, settings: Settings) -> dict[str, Any]:
    """The result for programs."""
    totals = result.totals
    return {
        "format": FORMAT,
        "exit_code": result.exit_code,
        "seed": settings.seed,
        "device": result.setup.info.device,
        "device_name": result.setup.info.name,
        "sanitizer": settings.sanitizer,
        "workers": result.setup.workers,
        "versions": versions(),
        "targets": [spec.name for spec in result.setup.specs],
        "fixes": settings.fixes,
        "planned": result.planned,
        "executed": totals.executed,
        "skipped": totals.skipped,
        "not_reached": totals.not_reached,
        "lost": result.lost,
        "failing": totals.failed,
        "interrupted": result.interrupted,
        "seconds": result.seconds,
        "cases_per_second": totals.executed / result.seconds if result.seconds else 0.0,
        "runner_seconds": dict(totals.seconds),
        "shares": totals.shares(),
        "specialisation_keys": len(totals.keys),
        "rows": [
            {
                "target": target,
                "dtype": dtype,
                "executed": row.executed,
                "failing": row.failed,
                "skipped": dict(row.skipped),
                # Infinity is no JSON number.
                "ratios": {name: min(ratio, 1e308) for name, ratio in row.ratios.items()},
                "ratios_of_999_in_1000": {
                    name: min(row.quantile(name, 0.999), 1e308) for name in row.ratios
                },
            }
            for (target, dtype), row in sorted(totals.rows.items())
        ],
        "failures": [
            {
                "id": failure.id,
                "file": str(path),
                "signature": str(failure.signature),
                "message": failure.message,
                "confirmed": failure.confirmed,
                "confirm_runs": failure.confirm_runs,
            }
            for failure, path in result.failures
        ],
        "errors": result.errors + totals.faults,
        "run_folder": str(result.run_folder),
    }


def print_replayed(console: Console, item: Replayed) -> None:
    """One line for a file, and the mismatch where it is still there."""
    line = Text()
    style = STYLES["FLAKY"] if item.changes else STYLES[item.outcome]
    line.append(f"{item.label:<10} ", style=style)
    name = item.failure.id[:6] if item.failure is not None else item.path.name
    line.append(f"{name} {item.detail}")
    if item.failure is not None:
        line.append(f"\n  {item.failure.signature}")
    if item.message:
        line.append(f"\n  {item.message}")
    for note in item.notes:
        line.append(f"\n  note: {note}", style="yellow")
    console.print(line, soft_wrap=True)


def print_targets(console: Console, specs: list[TargetSpec]) -> None:
    """What can be fuzzed."""
    table = Table(pad_edge=False)
    for heading in ("target", "devices", "dtypes", "default", "description"):
        table.add_column(heading)
    for spec in specs:
        x = spec.arg("x")
        dtypes = ", ".join(x.dtypes) if x is not None else ""
        default = "yes" if spec.default else "no"
        cells = (spec.name, ", ".join(spec.devices), dtypes, default, spec.description)
        table.add_row(*map(Text, cells))
    console.print(table)


def print_case(console: Console, failure: Failure, path: Path) -> None:
    """A failure in words."""
    case = failure.case
    lines = [
        f"{failure.id}  {failure.signature}",
        f"  {failure.message}",
        "",
        f"target      {case.target}",
        f"shape       {list(case.shape)}, the last {case.normalized_ndim} normalized: "
        f"{case.n_rows} rows of {case.n_cols} columns"
        + (f" in {case.n_groups} groups" if case.n_groups > 1 else ""),
    ]
    for tensor in case.tensors:
        words = f"{tensor.dtype}{list(tensor.shape)}, strides {list(tensor.strides)}"
        if tensor.offset:
            words += f", offset {tensor.offset}"
        if tensor.alias_of is not None:
            words = f"the memory of {tensor.alias_of}"
        elif tensor.values is not None:
            recipe = tensor.values
            words += f", {recipe.family} (mean {recipe.mean:g}, spread {recipe.spread:g})"
            words += "".join(f", {p.value} at {p.index}" for p in recipe.plants)
        lines.append(f"{tensor.name:<11} {words}")
    lines += [f"{name:<11} {value}" for name, value in sorted(case.flags.items())]
    pinned = {k: v for k, v in vars(case.launch).items() if v is not None}
    launch = ", ".join(f"{k} {v}" for k, v in pinned.items()) or "the target's own"
    lines += [
        f"eps         {case.eps:g}",
        f"launch      {launch}",
        f"seed        {case.seed}",
        f"relations   {', '.join(case.relations) or 'none'}",
    ]
    if case.refusal is not None:
        lines.append(f"must refuse {case.refusal}")
    confirmed = f"{failure.confirmed} of {failure.confirm_runs} runs in a fresh process"
    lines += [
        "",
        f"found       {failure.first_seen} on {failure.device} ({failure.device_name}), "
        + ", ".join(f"{name} {version}" for name, version in failure.versions.items()),
        f"confirmed   {confirmed if failure.confirm_runs else 'not tried'}",
    ]
    if failure.target_file is not None:
        lines.append(f"file        {failure.target_file.path}")
    if failure.original != failure.case:
        lines.append(f"shrunk from {describe(failure.original)}")
    for finding in failure.findings[1:]:
        lines.append(f"also        {finding.check}: {finding.message}")
    lines += ["", f"replay: {replay_command(failure, path)}"]
    console.print(Text("\n".join(lines)), soft_wrap=True)
