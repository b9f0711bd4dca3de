"""The command line: ln-fuzz run, replay, show, targets."""

from __future__ import annotations

import enum
import json
import os
import re
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
from fuzz.jobs import script
from fuzz.jobs.setup import Settings, UsageError
from fuzz.process.kernel_process import KernelProcess, KernelProcessError
from fuzz.spec import TargetSpec

DEFAULT_SECONDS = 75.0
"""Of `run` without a limit: with its start and end under 2 minutes on a machine of 2 cores."""

USAGE = 2
"""Exit code where the tool could not do its job."""

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

app = typer.Typer(
    help="Fuzz layer-normalisation kernels against an oracle with derived bounds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Device(enum.StrEnum):
    """Where kernels run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


Targets = Annotated[
    list[str] | None,
    typer.Option("--target", help="A target's name, or path/to/file.py[:function]. Repeatable."),
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="cpu is Triton's interpreter; auto takes a GPU if any.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder of journals and failures.")]


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
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result to a file.")
    ] = None,
    out: Out = store.OUT,
) -> None:
    """Fuzz targets: all built-in ones, or those named."""
    if cases is not None and cases < 1:
        raise UsageError(f"cases={cases}, must be >= 1")
    if workers is not None and workers < 1:
        raise UsageError(f"workers={workers}, must be >= 1")
    if seed is not None and seed < 0:
        raise UsageError(f"seed={seed}, must be >= 0")
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
    out: Out = store.OUT,
) -> None:
    """Run stored failures again: REPRODUCED, FIXED, FLAKY k of n, or ERROR."""
    paths = tuple(path for name in names for path in store.find(name, folders(out)))
    console = report.make_console()
    replayed = []
    for item in replay.replay(paths, device=None if device is None else device.value):
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


def folders(out: Path) -> tuple[Path, ...]:
    """Where failures are looked for by their id."""
    return (out / store.FAILURES, store.REGRESSIONS)


def parse_seconds(text: str) -> float:
    """A length of time such as 90, 90s, 5m or 8h.

    Raises: UsageError.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None or float(match[1]) == 0:
        raise UsageError(f"time={text!r}, must be a length > 0 such as 90s, 5m or 8h")
    return float(match[1]) * UNITS[match[2]]


def parse_fixes(items: list[str]) -> dict[str, str]:
    """NAME=VALUE items by name; what they mean is for the target to say.

    Raises: UsageError.
    """
    fixes: dict[str, str] = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not separator or not name or not value:
            raise UsageError(f"fix={item!r}, must be NAME=VALUE")
        if name in fixes:
            raise UsageError(f"fix={item!r}, but {name} is fixed to {fixes[name]} already")
        fixes[name] = value
    return fixes


def check_writable(path: Path) -> None:
    """Fail early where a result could not be written.

    Raises: UsageError.
    """
    place = path if path.exists() else path.parent
    if path.is_dir() or not os.access(place, os.W_OK):
        raise UsageError(f"json={str(path)!r}, must be a file that can be written")


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
    except (UsageError, KernelProcessError, store.StoreError, script.ScriptError) as error:
        errors.print(Text(f"ln-fuzz: {error}"), soft_wrap=True)
        sys.exit(USAGE)
    except _Interrupted:
        errors.print("ln-fuzz: interrupted")
        sys.exit(USAGE)
    except Exception:
        # Python would end with 1, which means that a kernel failed.
        traceback.print_exc()
        sys.exit(USAGE)
