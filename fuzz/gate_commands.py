"""The commands of a gate: ln-fuzz gate, compile, promote."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from fuzz import gate, report, store
from fuzz.compiling.gpus import GPUS, Gpu, failure, find_gpu
from fuzz.compiling.job import LIMIT, compile_cases
from fuzz.display import StagedDisplay
from fuzz.gating.accepted import ACCEPTED
from fuzz.gating.annotations import workflow_commands
from fuzz.gating.junit import junit
from fuzz.gating.markdown import markdown
from fuzz.gating.outcome import CompileReport, GateResult
from fuzz.gating.screen import print_compiled, print_gate
from fuzz.jobs.plan import draw_limits
from fuzz.jobs.setup import Settings, UsageError, prepare
from fuzz.options import Device, DeviceOption, Out, Targets, check_at_least, folders, parse_seconds
from fuzz.strategies import draw_cases

FORMAT = 1
"""Version of result.json."""

commands = typer.Typer()

Gpus = Annotated[
    list[str] | None,
    typer.Option("--gpu", help="To compile for: cuda:90, hip:gfx942; or none. Repeatable."),
]


@commands.command("gate")
def gate_command(
    base: Annotated[str, typer.Option(help="What to compare with: a branch, tag or commit.")],
    target: Targets = None,
    time: Annotated[str, typer.Option(help="Nominal length of the plan: 90s, 5m.")] = "5m",
    cases: Annotated[int | None, typer.Option(help="Number of cases, in place of --time.")] = None,
    seed: Annotated[int | None, typer.Option(help="[default: from the two commits]")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of runners.")] = None,
    device: DeviceOption = Device.AUTO,
    gpu: Gpus = None,
    accepted: Annotated[Path, typer.Option(help="The file of accepted failures.")] = ACCEPTED,
    regressions: Annotated[
        Path, typer.Option(help="Folder of the failures that must not come back.")
    ] = store.REGRESSIONS,
    out: Out = store.OUT,
) -> None:
    """Judge a change of kernels: exit 0 it may be merged, 1 it may not, 2 no verdict."""
    check_at_least(1, cases=cases, workers=workers)
    check_at_least(0, seed=seed)
    # Where nothing is said, a project need not have any.
    if accepted != ACCEPTED and not accepted.is_file():
        raise UsageError(f"accepted={str(accepted)!r}, must be a file")
    if regressions != store.REGRESSIONS and not regressions.is_dir():
        raise UsageError(f"regressions={str(regressions)!r}, must be a folder")
    settings = gate.GateSettings(
        base=base,
        targets=tuple(target or ()),
        device=device.value,
        seconds=parse_seconds(time),
        cases=cases,
        seed=seed,
        workers=workers,
        out=out,
        regressions=regressions,
        accepted=accepted,
        gpus=_gpus(gpu),
    )
    console = report.make_console()
    with StagedDisplay(console) as display:
        result = gate.run(settings, display)
    # First what nothing can keep from being read.
    print_gate(console, result)
    _write(result)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in workflow_commands(result):
            # Not by way of the console, which would wrap them.
            typer.echo(line)
    raise typer.Exit(result.exit_code)


@commands.command("compile")
def compile_command(
    target: Targets = None,
    cases: Annotated[int, typer.Option(help="Cases of a target whose launches are taken.")] = 200,
    limit: Annotated[int, typer.Option(help="Specialisations of a target at most.")] = LIMIT,
    seed: Annotated[int, typer.Option(help="Of the cases.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Compilations at a time.")] = None,
    gpu: Gpus = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result to a file.")
    ] = None,
) -> None:
    """Compile kernels for GPUs that need not be there, as drawn cases launch them."""
    gpus = _gpus(gpu)
    if not gpus:
        raise UsageError("gpu='none', must name at least one")
    setup = prepare(Settings(targets=tuple(target or ()), device="cpu", cases=1))
    budget, frames = draw_limits("cpu", seed)
    drawn = [
        case
        for spec in setup.specs
        for case in draw_cases(spec, seed=seed, count=cases, budget=budget, frames=frames)
    ]
    console = report.make_console()
    with StagedDisplay(console) as display:
        display.stage(f"compiling for {', '.join(g.name for g in gpus)}")
        found = compile_cases(
            drawn,
            gpus=gpus,
            limit=limit,
            workers=workers,
            progress=lambda what, done, total: display.step(f"{what}: {done} of {total}"),
        )
    print_compiled(console, found)
    if json_file is not None:
        json_file.write_text(json.dumps(_plain(found), indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(_compile_code(found))


@commands.command("promote")
def promote_command(
    names: Annotated[list[str], typer.Argument(metavar="ID|FILE...", help="What to keep.")],
    folder: Annotated[
        Path, typer.Option("--to", help="Folder of the failures that must not come back.")
    ] = store.REGRESSIONS,
    force: Annotated[
        bool, typer.Option("--force", help="Also one that no second run has confirmed.")
    ] = False,
    out: Out = store.OUT,
) -> None:
    """Keep failures for ever: copy them to the folder of regressions."""
    console = report.make_console()
    for name in names:
        for path in store.find(name, folders(out)):
            kept = store.promote(path, folder, force=force)
            console.print(Text(f"kept as {kept}"), soft_wrap=True)


def _gpus(names: list[str] | None) -> tuple[Gpu, ...]:
    if names is None:
        return GPUS
    if names == ["none"]:
        return ()
    try:
        return tuple(dict.fromkeys(find_gpu(name) for name in names))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _compile_code(found: CompileReport) -> int:
    if found.errors or not found.kernels:
        return 2
    return 1 if any(failure(kernel) for kernel in found.kernels) else 0


def _write(result: GateResult) -> None:
    """The reports, beside the plan; and the summary where GitHub wants it."""
    summary = markdown(result)
    data = {"format": FORMAT, "exit_code": result.exit_code, **_plain(result)}
    for name, text in (
        ("result.json", json.dumps(data, indent=1) + "\n"),
        ("junit.xml", junit(result)),
        ("summary.md", summary),
    ):
        (result.out / name).write_text(text, encoding="utf-8")
    where = os.environ.get("GITHUB_STEP_SUMMARY")
    if where:
        with Path(where).open("a", encoding="utf-8") as file:
            file.write(summary)


def _plain(value: Any) -> Any:
    """Dataclasses as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
