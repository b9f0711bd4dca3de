"""The benchmark: python -m ln_kernels.bench. Right results first, then times and their reasons."""

from __future__ import annotations

import datetime
import enum
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import triton
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from ln_kernels.benchmark import machine, points, results, table
from ln_kernels.benchmark.competitors import COMPETITORS
from ln_kernels.benchmark.operations import DTYPES, KERNELS
from ln_kernels.benchmark.results import Report
from ln_kernels.benchmark.session import Session
from ln_kernels.benchmark.sides import Field
from ln_kernels.benchmark.timing import DeviceTimer

FAULTS, USAGE = 1, 2
"""Exit codes: a result is wrong; the benchmark could not do its job."""

DEFAULT_KERNELS = ["layer_norm", "triton_layer_norm"]
DEFAULT_DTYPES = ["bfloat16", "float32"]

SMOKE_DTYPES = ["float16", "float32"]
"""Triton's own interpreter truncates where it should round to bfloat16."""

SHORT_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


class UsageError(Exception):
    """The benchmark was asked for what it cannot do."""


class Grid(enum.StrEnum):
    """Groups of shapes."""

    DEFAULT = "default"
    FEW = "few"
    LARGE = "large"
    ALL = "all"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def bench(
    kernel: Annotated[
        list[str] | None,
        typer.Option(help=f"Repeatable: {', '.join(KERNELS)}, or all."),
    ] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="Repeatable: bf16, fp16, fp32.")] = None,
    grid: Annotated[Grid, typer.Option(help="Which shapes.")] = Grid.DEFAULT,
    widths: Annotated[
        str | None, typer.Option(help="These widths instead of a grid: 256,1000,4096.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows, with --widths.")] = points.ROWS,
    competitor: Annotated[
        list[str] | None,
        typer.Option(help=f"Repeatable: {', '.join(COMPETITORS)}, none. [default: all]"),
    ] = None,
    time: Annotated[
        float, typer.Option(help="Milliseconds of measuring for each implementation and shape.")
    ] = 60.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the results here, as they come.")
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Judge small shapes in the interpreter; time nothing.")
    ] = False,
) -> None:
    """Measure this project's kernels against PyTorch and other libraries on a GPU."""
    if smoke:
        interpret()
    kernels = chosen("kernel", kernel, KERNELS, DEFAULT_KERNELS)
    dtypes = chosen(
        "dtype",
        None if dtype is None else [SHORT_DTYPES.get(name, name) for name in dtype],
        DTYPES,
        SMOKE_DTYPES if smoke else DEFAULT_DTYPES,
    )
    names = chosen("competitor", competitor, COMPETITORS, list(COMPETITORS))
    if time <= 0:
        raise UsageError(f"time={time:g}, must be > 0")
    if smoke and "bfloat16" in dtypes:
        raise UsageError(
            "dtype='bfloat16': the interpreter does not round to it; leave out --smoke"
        )
    if not smoke and not torch.cuda.is_available():
        raise UsageError("no CUDA device; --smoke judges the kernels in the interpreter")
    shapes = smoke_shapes() if smoke else chosen_shapes(grid, widths, rows)

    field = Field(kernels, [] if smoke else names)
    planned = points.points(field.operations, dtypes, shapes)
    report = Report(
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        card={"name": "interpreter"} if smoke else machine.card(),
        versions=machine.versions(names),
        absent=field.absent,
    )
    console = table.make_console()
    introduce(console, report, planned)
    session = Session(
        report,
        field,
        None if smoke else DeviceTimer(time),
        device=torch.device("cpu" if smoke else "cuda"),
        interpreted=smoke,
        save=saver(report, json_file),
    )
    follow(console, session, planned, report)
    table.print_report(console, report)
    if report.interrupted:
        console.print(
            f"interrupted: {len(report.results)} of {report.planned} points were measured"
        )
    if report.faults or report.lost:
        raise typer.Exit(FAULTS)


def interpret() -> None:
    """Start again with Triton's interpreter, which is settled when a kernel is decorated."""
    if not triton.knobs.runtime.interpret:
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        arguments = [sys.executable, "-m", "ln_kernels.bench", *sys.argv[1:]]
        os.execve(sys.executable, arguments, environment)


def chosen(what: str, names: list[str] | None, known: object, default: list[str]) -> list[str]:
    """The names that were asked for, each once: all, none, or some of the known ones.

    Raises: UsageError.
    """
    every = list(known)  # type: ignore[call-overload]
    if names is None:
        return default
    if names == ["all"]:
        return every
    if names == ["none"] and what == "competitor":
        return []
    for name in names:
        if name not in every:
            raise UsageError(f"{what}={name!r}, must be one of {', '.join(every)}")
    return list(dict.fromkeys(names))


def chosen_shapes(grid: Grid, widths: str | None, rows: int) -> list[tuple[str, points.Shape]]:
    """The shapes of a grid, or those that were asked for by their widths.

    Raises: UsageError.
    """
    if rows < 1:
        raise UsageError(f"rows={rows}, must be >= 1")
    if widths is None:
        return points.grid_shapes(grid.value)
    shapes: list[tuple[str, points.Shape]] = []
    for word in widths.split(","):
        if not word.strip().isdecimal() or int(word) < 1:
            raise UsageError(f"widths={widths!r}, must be numbers >= 1 such as 256,1000")
        shapes.append(("chosen", (rows, int(word))))
    return shapes


def smoke_shapes() -> list[tuple[str, points.Shape]]:
    """The shapes that the interpreter can do."""
    return [("smoke", shape) for shape in points.SMOKE]


def saver(report: Report, path: Path | None) -> Callable[[], None]:
    """What writes the report; it is called once now, so that a wrong path is told before the work.

    Raises: UsageError.
    """
    if path is None:
        return lambda: None
    try:
        results.write(report, path)
    except OSError as error:
        raise UsageError(f"json={str(path)!r}: {error.strerror}") from error
    return lambda: results.write(report, path)


def introduce(console: Console, report: Report, planned: list[points.Point]) -> None:
    """What is measured, where, and with what."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    console.print(f"{report.card['name']}; {versions}")
    for name in report.absent:
        console.print(f"{name} is not installed; stored figures stand for it where there are any")
    console.print(f"{len(planned)} points")


def follow(console: Console, session: Session, planned: list[points.Point], report: Report) -> None:
    """Run with a bar, and a line for each point that is done."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(planned))

        def done(result: results.Result) -> None:
            bar.advance(task)
            console.print(table.line(result, report.copy_gbps), soft_wrap=True)

        session.run(planned, progress=lambda text: bar.update(task, description=text), done=done)


def main() -> None:
    """The program. Exit codes: 0 all is right, 1 a result is wrong, 2 it could not do its job."""
    errors = Console(stderr=True, highlight=False)
    try:
        app()
    except (UsageError, results.ResultsError) as error:
        errors.print(Text(f"bench: {error}"), soft_wrap=True)
        sys.exit(USAGE)
    except Exception:
        # Python would end with 1, which means that a result is wrong.
        traceback.print_exc()
        sys.exit(USAGE)


if __name__ == "__main__":
    main()
