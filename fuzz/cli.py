"""The command line: ln-fuzz run, replay, show, targets, power; the gate's own beside it."""

from __future__ import annotations

import json
import secrets
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from fuzz import campaign, replay, report, store
from fuzz.display import Display
from fuzz.gate_commands import commands as gate_commands
from fuzz.jobs import script
from fuzz.jobs.setup import Settings, UsageError
from fuzz.night_commands import commands as night_commands
from fuzz.options import (
    Device,
    DeviceOption,
    Out,
    SanitizerOption,
    Targets,
    check_at_least,
    check_writable,
    folders,
    parse_fixes,
    parse_seconds,
)
from fuzz.power import job as power_job
from fuzz.power import picture as power_picture
from fuzz.power import show as power_show
from fuzz.power.catalogue import CATALOGUE
from fuzz.power.judges import JUDGES
from fuzz.process.kernel_process import KernelProcess, KernelProcessError
from fuzz.process.sanitizer import SanitizerError
from fuzz.spec import TargetSpec

DEFAULT_SECONDS = 75.0
"""Of `run` without a limit: with its start and end under 2 minutes on a machine of 2 cores."""

USAGE = 2
"""Exit code where the tool could not do its job."""

app = typer.Typer(
    help="Fuzz layer-normalisation kernels against an oracle with derived bounds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(gate_commands)
app.add_typer(night_commands)


@app.command()
def run(
    target: Targets = None,
    cases: Annotated[int | None, typer.Option(help="Stop after this many cases.")] = None,
    time: Annotated[
        str | None, typer.Option(help="Stop after this long: 90, 90s, 5m, 8h. [default: 75s]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draw the same cases again.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of runners.")] = None,
    device: DeviceOption = Device.AUTO,
    fix: Annotated[
        list[str] | None,
        typer.Option("--fix", help="Hold a dimension, as n_cols=4097. Repeatable."),
    ] = None,
    sanitizer: SanitizerOption = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result to a file.")
    ] = None,
    out: Out = store.OUT,
) -> None:
    """Fuzz targets: all built-in ones, or those named."""
    check_at_least(1, cases=cases, workers=workers)
    check_at_least(0, seed=seed)
    seconds = None if time is None else parse_seconds(time)
    if cases is None and seconds is None:
        seconds = DEFAULT_SECONDS
    settings = Settings(
        targets=tuple(target or ()),
        device=device.value,
        cases=cases,
        seconds=seconds,
        # Short enough to be typed again.
        seed=secrets.randbelow(10**9) if seed is None else seed,
        workers=workers,
        fixes=parse_fixes(fix or []),
        out=out,
        sanitizer=None if sanitizer is None else sanitizer.value,
    )
    if json_file is not None:
        # Before the work, not after it.
        check_writable(json_file)
    console = report.make_console()
    with Display(console, settings) as display:
        result = campaign.run(settings, display)
    report.print_result(console, result)
    if json_file is not None:
        text = json.dumps(report.result_json(result, settings), indent=1)
        json_file.write_text(text + "\n", encoding="utf-8")
    raise typer.Exit(result.exit_code)


@app.command("replay")
def replay_command(
    names: Annotated[list[str], typer.Argument(metavar="ID|FILE|DIR...", help="What to replay.")],
    device: Annotated[
        Device | None, typer.Option("--device", help="[default: where it was found]")
    ] = None,
    sanitizer: SanitizerOption = None,
    out: Out = store.OUT,
) -> None:
    """Run stored failures again: REPRODUCED, FIXED, FLAKY k of n, or ERROR."""
    paths = tuple(path for name in names for path in store.find(name, folders(out)))
    console = report.make_console()
    replayed = []
    for item in replay.replay(
        paths,
        device=None if device is None else device.value,
        sanitizer=None if sanitizer is None else sanitizer.value,
    ):
        report.print_replayed(console, item)
        replayed.append(item)
    raise typer.Exit(replay.exit_code(replayed))


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="ID|FILE", help="The failure to show.")],
    as_script: Annotated[
        bool, typer.Option("--script", help="A script with torch and the kernel alone.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option("--save", help="Write the script to this file.")
    ] = None,
    out: Out = store.OUT,
) -> None:
    """Show a stored failure in words, or as a script that needs nothing of this tool."""
    paths = store.find(name, folders(out))
    if len(paths) != 1:
        raise UsageError(f"{name!r} holds {len(paths)} failures, must be one")
    failure = store.read(paths[0])
    if not as_script and save is None:
        report.print_case(report.make_console(), failure, paths[0])
        return
    made = script.make_script(failure, path=save)
    if save is None:
        sys.stdout.write(made.text)
        return
    save.write_text(made.text, encoding="utf-8")
    if made.data:
        script.data_file(save).write_bytes(made.data)


@app.command()
def targets(target: Targets = None, device: DeviceOption = Device.CPU) -> None:
    """List the targets: the built-in ones, or those of a file."""
    specs: list[TargetSpec] = []
    errors = []
    with KernelProcess(device.value) as kernel:
        for name in target or kernel.names():
            try:
                specs += kernel.specs(name)
            except KernelProcessError as error:
                errors.append(str(error))
    if specs:
        report.print_targets(report.make_console(), specs)
    if errors:
        raise UsageError("\n".join(errors))


@app.command()
def power(
    faults: Annotated[
        Path, typer.Option(help="The catalogue of planted faults, a Python file.")
    ] = CATALOGUE,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A fault's id. Repeatable.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--class", help="A class of faults. Repeatable.")
    ] = None,
    budget: Annotated[int, typer.Option(help="Cases of one judge and seed at most.")] = 300,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    judges: Annotated[str, typer.Option(help="What is compared, with commas.")] = ",".join(JUDGES),
    device: DeviceOption = Device.AUTO,
    workers: Annotated[int | None, typer.Option(help="Faults measured at a time.")] = None,
    shrink: Annotated[bool, typer.Option(help="Shrink what the first seed finds.")] = True,
    expect: Annotated[
        bool, typer.Option("--expect", help="Exit with 1 unless every fault is found.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result to a file.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Draw faults by judges to a file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the results, in which a second run goes on."),
    ] = None,
) -> None:
    """Measure after how many cases planted faults are found, by this tool and by other judges."""
    settings = power_job.PowerSettings(
        faults=faults,
        only=tuple(only or ()),
        kinds=tuple(kind or ()),
        budget=budget,
        seeds=seeds,
        judges=tuple(judges.split(",")),
        device=device.value,
        workers=workers,
        shrink=shrink,
        expect=expect,
        out=out,
    )
    if json_file is not None:
        check_writable(json_file)
    if picture is not None:
        power_picture.check_plots()
        check_writable(picture, "picture")
    console = report.make_console()
    with power_show.Show(console) as display:
        result = power_job.run(settings, display)
    power_show.print_power(console, result)
    if json_file is not None:
        text = json.dumps(power_show.result_json(result), indent=1, allow_nan=False)
        json_file.write_text(text + "\n", encoding="utf-8")
    if picture is not None:
        title = f"Planted faults on {result.info.device}, {settings.seeds} seeds"
        power_picture.draw(result.measured, settings.judges, title, picture)
    raise typer.Exit(result.exit_code)


class _Interrupted(Exception):
    """Ctrl-C or SIGTERM outside a campaign."""


def _interrupt(*_: object) -> None:
    raise _Interrupted


def main() -> None:
    """The program. Exit codes: 0 clean, 1 failures, 2 it could not do its job."""
    errors = Console(stderr=True, highlight=False)
    # A campaign counts Ctrl-C and ends in order. Elsewhere it ends the command, but not by way of
    # typer, whose exit code for it depends on the version: 1 in some.
    signal.signal(signal.SIGINT, _interrupt)
    # CI ends a job that takes too long with it.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except (
        UsageError,
        KernelProcessError,
        SanitizerError,
        store.StoreError,
        script.ScriptError,
    ) as error:
        errors.print(Text(f"ln-fuzz: {error}"), soft_wrap=True)
        sys.exit(USAGE)
    except _Interrupted:
        errors.print("ln-fuzz: interrupted")
        sys.exit(USAGE)
    except Exception:
        # Python would end with 1, which means that a kernel failed.
        traceback.print_exc()
        sys.exit(USAGE)
