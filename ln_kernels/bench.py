"""The benchmark: python -m ln_kernels.bench. Right results first, then times side by side."""

from __future__ import annotations

import datetime
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated

import torch
import triton
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from ln_kernels.benchmark import choices, machine, markdown, plots, points, results, table, traces
from ln_kernels.benchmark.choices import Grid, UsageError
from ln_kernels.benchmark.competitors import COMPETITORS
from ln_kernels.benchmark.operations import DTYPES, KERNELS
from ln_kernels.benchmark.points import Point
from ln_kernels.benchmark.results import Report
from ln_kernels.benchmark.session import Interrupted, Session
from ln_kernels.benchmark.sides import Field
from ln_kernels.benchmark.timing import DeviceTimer

FAULTS, USAGE = 1, 2
"""Exit codes: a result is wrong; the benchmark could not do its job."""

DEFAULT_KERNELS = ["layer_norm", "triton_layer_norm"]
DEFAULT_DTYPES = ["bfloat16", "float32"]

SMOKE_DTYPES = ["float16", "float32"]
"""Triton's own interpreter truncates where it should round to bfloat16."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def bench(
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Repeatable: {', '.join(KERNELS)}; all. [default: {', '.join(DEFAULT_KERNELS)}]"
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="Repeatable: bf16, fp16, fp32; all. [default: bf16, fp32]"),
    ] = None,
    grid: Annotated[Grid, typer.Option(help="Which shapes.")] = Grid.DEFAULT,
    widths: Annotated[
        str | None, typer.Option(help="These widths instead of a grid: 256,1000,4096.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows, with --widths.")] = points.ROWS,
    competitor: Annotated[
        list[str] | None,
        typer.Option(help=f"Repeatable: {', '.join(COMPETITORS)}; all, none. [default: all]"),
    ] = None,
    time: Annotated[
        float, typer.Option(help="Milliseconds of measuring for each implementation and shape.")
    ] = 60.0,
    trace: Annotated[
        bool, typer.Option("--trace", help="Write Chrome traces of the first shape.")
    ] = False,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw bandwidth over width, and the roofline.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of traces and pictures.")] = Path(),
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the results here, as they come.")
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Write a page with the tables.")
    ] = None,
    from_files: Annotated[
        list[Path] | None,
        typer.Option("--from", help="Measure nothing: show these JSON files. Repeatable."),
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Judge small shapes in the interpreter; time nothing.")
    ] = False,
) -> None:
    """Measure this project's kernels against PyTorch and other libraries on a GPU."""
    if smoke:
        if trace or plot:
            raise UsageError("trace and plot show times, and --smoke measures none")
        interpret()
    if plot:
        choices.check_plots()
    if plot or trace:
        choices.check_folder(out)
    for what, path in (("json", json_file), ("markdown", markdown_file)):
        choices.check_file(what, path)
    console = table.make_console()
    if from_files:
        report = results.merged([results.read(path) for path in from_files])
    else:
        if time <= 0:
            raise UsageError(f"time={time:g}, must be > 0")
        dtypes = None if dtype is None else [choices.SHORT_DTYPES.get(d, d) for d in dtype]
        field, planned = plan(kernel, dtypes, grid, widths, rows, competitor, smoke=smoke)
        report = new_report(field, smoke=smoke)
        introduce(console, report, planned)
        timer = None if smoke else DeviceTimer(time)
        measure(console, report, field, timer, planned, json_file)
        if trace and not report.interrupted and not report.lost:
            for path in traces.write_traces(field, planned[0], out, torch.device("cuda")):
                console.print(f"wrote {path}")
    table.print_report(console, report)
    pictures = plots.draw(report, out) if plot else {}
    for path in pictures.values():
        console.print(f"wrote {path}")
    if markdown_file is not None:
        page = markdown.page(report, pictures, markdown_file)
        markdown_file.write_text(page, encoding="utf-8")
        console.print(f"wrote {markdown_file}")
    if report.interrupted:
        console.print(f"interrupted: {len(report.results)} of {report.planned} points measured")
    if report.faults or report.lost:
        raise typer.Exit(FAULTS)


def interpret() -> None:
    """Start again with Triton's interpreter, which is settled when a kernel is decorated."""
    if not triton.knobs.runtime.interpret:
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        arguments = [sys.executable, "-m", "ln_kernels.bench", *sys.argv[1:]]
        os.execve(sys.executable, arguments, environment)


def plan(
    kernel: list[str] | None,
    dtype: list[str] | None,
    grid: Grid,
    widths: str | None,
    rows: int,
    competitor: list[str] | None,
    *,
    smoke: bool,
) -> tuple[Field, list[Point]]:
    """Who takes part, and in what.

    Raises: UsageError.
    """
    kernels = choices.chosen("kernel", kernel, KERNELS, DEFAULT_KERNELS)
    usual = SMOKE_DTYPES if smoke else DEFAULT_DTYPES
    dtypes = choices.chosen("dtype", dtype, DTYPES, usual)
    rivals = [] if competitor == ["none"] else competitor
    rivals = choices.chosen("competitor", rivals, COMPETITORS, list(COMPETITORS))
    if smoke:
        if "bfloat16" in dtypes:
            raise UsageError("dtype='bfloat16': the interpreter does not round to it [--smoke]")
        shapes = [("smoke", shape) for shape in points.SMOKE]
        field = Field(kernels, [])
    else:
        if not torch.cuda.is_available():
            raise UsageError("no CUDA device; --smoke judges the kernels in the interpreter")
        shapes = choices.chosen_shapes(grid, widths, rows)
        field = Field(kernels, rivals)
    return field, points.points(field.operations, dtypes, shapes)


def new_report(field: Field, *, smoke: bool) -> Report:
    """A report of nothing yet: when, on what, with which versions."""
    return Report(
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        card={"name": "Triton's interpreter"} if smoke else machine.card(),
        versions=machine.versions(field.competitors),
        absent=field.absent,
    )


def introduce(console: Console, report: Report, planned: list[Point]) -> None:
    """What is measured, where, and with what."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    console.print(f"{report.card['name']}; {versions}")
    for name in report.absent:
        console.print(f"{name} is not installed; stored figures stand for it where there are any")
    console.print(f"{len(planned)} points")


def measure(
    console: Console,
    report: Report,
    field: Field,
    timer: DeviceTimer | None,
    planned: list[Point],
    json_file: Path | None,
) -> None:
    """Fill the report, with a bar, and a line for each point that is done."""

    def save() -> None:
        if json_file is not None:
            results.write(report, json_file)

    session = Session(
        report,
        field,
        timer,
        device=torch.device("cpu" if timer is None else "cuda"),
        interpreted=timer is None,
        save=save,
    )
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


def _interrupt(*_: object) -> None:
    raise Interrupted


def main() -> None:
    """The program. Exit codes: 0 all is right, 1 a result is wrong, 2 it could not do its job."""
    errors = Console(stderr=True, highlight=False)
    # A session ends in order and what it has is shown. Elsewhere these end the command, but not by
    # way of typer, whose exit code for Ctrl-C depends on the version: 1 in some.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        app()
    except (UsageError, results.ResultsError) as error:
        errors.print(Text(f"bench: {error}"), soft_wrap=True)
        sys.exit(USAGE)
    except Interrupted:
        errors.print("bench: interrupted")
        sys.exit(USAGE)
    except Exception:
        # Python would end with 1, which means that a result is wrong.
        traceback.print_exc()
        sys.exit(USAGE)


if __name__ == "__main__":
    main()
