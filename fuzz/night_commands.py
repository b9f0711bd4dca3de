"""The commands of nights: ln-fuzz night, merge, report."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fuzz import night, report, store
from fuzz.display import StagedDisplay
from fuzz.history import HISTORY, HistoryError
from fuzz.jobs.setup import UsageError
from fuzz.night_fleet import run_on_ray
from fuzz.nights.merge import merge_shards
from fuzz.nights.outcome import WHOLE
from fuzz.nights.screen import print_merge, print_night
from fuzz.nights.shards import parse_shard
from fuzz.options import (
    Device,
    DeviceOption,
    Out,
    Targets,
    check_at_least,
    check_writable,
    parse_seconds,
)
from fuzz.pages.data import read
from fuzz.pages.issue import issue_text
from fuzz.pages.page import write_report

commands = typer.Typer()


class Engine(enum.StrEnum):
    """What runs the shards of a night on other machines."""

    RAY = "ray"


@commands.command("night")
def night_command(
    time: Annotated[
        str | None,
        typer.Option(
            help="Length, with everything: 30m, 8h. Cases under way are waited for, and a failure "
            "found in the end is shrunk: that may add 20s. [default: 2h]"
        ),
    ] = None,
    cases: Annotated[int | None, typer.Option(help="Stop after this many cases.")] = None,
    target: Targets = None,
    shard: Annotated[
        str | None, typer.Option(help="Which of several parts this is, as 2/8.")
    ] = None,
    engine: Annotated[
        Engine | None,
        typer.Option(
            help="Hand out shards, a GPU each, to the machines of a Ray cluster. --time and "
            "--cases are those of each shard."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Repeat a night's seeds.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of runners, on a CPU.")] = None,
    workers_per_gpu: Annotated[
        int | None, typer.Option(help="Number of runners for each GPU.")
    ] = None,
    device: DeviceOption = Device.AUTO,
    regressions: Annotated[
        Path, typer.Option(help="Folder of the failures that must not come back.")
    ] = store.REGRESSIONS,
    out: Out = store.OUT,
) -> None:
    """Fuzz for long, where it was tried least, and keep what is learnt in the history."""
    check_at_least(1, cases=cases, workers=workers, workers_per_gpu=workers_per_gpu)
    check_at_least(0, seed=seed)
    seconds = parse_seconds(time) if time is not None else None
    if seconds is None and cases is None:
        seconds = parse_seconds("2h")
    if engine is not None and shard is not None:
        raise UsageError(
            f"engine={engine.value!r}, but shard={shard!r} is given too: it hands out all shards"
        )
    settings = night.NightSettings(
        seconds=seconds,
        cases=cases,
        targets=tuple(target or ()),
        device=device.value,
        shard=WHOLE if shard is None else parse_shard(shard),
        seed=seed,
        workers=workers,
        workers_per_gpu=workers_per_gpu,
        out=out,
        regressions=regressions,
    )
    console = report.make_console()
    display = StagedDisplay(console, seconds=seconds, cases=cases)
    if engine is Engine.RAY:
        with display:
            merged = run_on_ray(settings, display)
        print_merge(console, merged)
        raise typer.Exit(merged.exit_code)
    with display:
        result = night.run(settings, display)
    print_night(console, result)
    raise typer.Exit(result.exit_code)


@commands.command("merge")
def merge_command(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Shards' folders.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that they are joined in.")] = store.OUT,
) -> None:
    """Join the shards of a night: exit 2 where one is missing, truncated or unfinished."""
    try:
        result = merge_shards(folders, out)
    except HistoryError as error:
        raise UsageError(str(error)) from error
    print_merge(report.make_console(), result)
    raise typer.Exit(result.exit_code)


@commands.command("report")
def report_command(
    page: Annotated[Path, typer.Option("--out", help="The file that is written.")] = Path(
        "report.html"
    ),
    history: Annotated[Path, typer.Option(help="What nights have left.")] = store.OUT / HISTORY,
    issue: Annotated[
        Path | None,
        typer.Option(
            "--issue-text",
            help="Write what is new since the night before as Markdown; empty if nothing is.",
        ),
    ] = None,
) -> None:
    """Write what the nights have shown as one HTML file, which needs nothing else."""
    check_writable(page, "out")
    if issue is not None:
        check_writable(issue, "issue-text")
    try:
        write_report(history, page)
        if issue is not None:
            issue.write_text(issue_text(read(history)), encoding="utf-8")
    except HistoryError as error:
        raise UsageError(str(error)) from error
    report.make_console().print(Text(f"written: {page}"), soft_wrap=True)
