import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from ln_kernels import bench
from ln_kernels.benchmark import operations, results, traces
from ln_kernels.benchmark.operations import KERNELS, Kernel
from ln_kernels.benchmark.points import points
from ln_kernels.benchmark.results import Measured, Result
from ln_kernels.benchmark.session import Interrupted, Session
from ln_kernels.benchmark.sides import Field
from tests.ln_kernels import benchmarks

CPU = torch.device("cpu")
PLANNED = points(["layer_norm"], ["float32"], [("chosen", (4, 64)), ("chosen", (4, 100))])
COMMAND = [sys.executable, "-m", "ln_kernels.bench"]


def session_of(report, kernels=("layer_norm",), timer=None, **options):
    field = Field(kernels, ["eager"])
    timer = timer or benchmarks.InventedTimer()
    return Session(report, field, timer, device=CPU, interpreted=True, **options)


@pytest.fixture
def wrong_kernel(monkeypatch):
    def bind(inputs):
        right = KERNELS["layer_norm"].bind(inputs)
        return lambda: right() * 1.01

    kernel = Kernel(operations.OPERATIONS["layer_norm"], bind, ("y",))
    monkeypatch.setitem(KERNELS, "triton_layer_norm", kernel)
    return "triton_layer_norm"


def test_a_session_measures_every_point_and_saves_each():
    report = benchmarks.report()
    saved = []
    session = session_of(report, save=lambda: saved.append(len(report.results)))
    session.run(PLANNED)
    assert [r.point for r in report.results] == PLANNED
    assert saved == [1, 2, 2, 2]
    first = report.results[0]
    assert [(s.name, s.ours, s.status) for s in first.sides] == [
        ("layer_norm", True, "measured"),
        ("eager", False, "measured"),
    ]
    assert first.copy is not None
    assert [launches.ours for launches in report.launches] == [("layer_norm",)]
    # At the start and at the end.
    assert report.copies_gbps[1:] == [1000.0, 1000.0]


def test_a_wrong_result_has_no_speed_and_the_others_go_on(wrong_kernel):
    report, timer = benchmarks.report(), benchmarks.InventedTimer()
    session = session_of(report, ["layer_norm", wrong_kernel], timer=timer)
    session.run(PLANNED[:1])
    by_name = {side.name: side for side in report.results[0].sides}
    assert by_name[wrong_kernel].status == "wrong"
    assert by_name[wrong_kernel].timing is None
    assert "error/bound" in by_name[wrong_kernel].note
    assert timer.timed == [["layer_norm", "eager", "copy"]]
    assert by_name["layer_norm"].timing is not None
    assert by_name["eager"].timing is not None
    assert wrong_kernel not in report.launches[0].calls


def test_an_interrupted_session_keeps_what_it_has():
    report = benchmarks.report()
    saved = []

    def interrupt(result):
        raise Interrupted

    session_of(report, save=lambda: saved.append(len(report.results))).run(PLANNED, done=interrupt)
    assert report.interrupted
    assert len(report.results) == 1
    assert saved[-1] == 1


def test_a_competitor_that_is_not_installed_is_told_apart():
    field = Field(["layer_norm"], ["eager", "quack"])
    if "quack" not in field.absent:
        pytest.skip("QuACK is installed")
    inputs = operations.make_inputs(operations.OPERATIONS["layer_norm"], "float32", 2, 8, CPU)
    assert [side.name for side in field.sides("layer_norm", inputs)] == ["layer_norm", "eager"]


def test_traces_are_written_for_both_sides(tmp_path):
    field = Field(["layer_norm"], ["eager"])
    written = traces.write_traces(field, PLANNED[0], tmp_path, CPU)
    assert [path.name for path in written] == ["triton_profile.json", "pytorch_profile.json"]
    events = json.loads(written[1].read_text())["traceEvents"]
    assert any(event.get("name") == "aten::layer_norm" for event in events)


# --- the program ----------------------------------------------------------------------------------


@pytest.fixture
def program(monkeypatch, capsys):
    """Run the program in this process: (exit code, stdout, stderr)."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            bench.main()
        return ended.value.code or 0, *capsys.readouterr()

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def report_file(tmp_path):
    path = tmp_path / "report.json"
    report = benchmarks.report(
        benchmarks.result(4096, 256, {"layer_norm": 1.0, "eager": 1.5, "fla": 0.9}),
        benchmarks.result(4096, 1000, {"layer_norm": 2.0, "eager": 2.5}),
        benchmarks.result(65536, 4096, {"layer_norm": 3.0}, dtype="float32"),
    )
    results.write(report, path)
    return path


def test_a_file_is_shown_as_table_page_and_pictures(program, report_file, tmp_path):
    page = tmp_path / "speed.md"
    pictures = tmp_path / "pictures"
    code, out, _ = program("--from", report_file, "--plot", "--out", pictures, "--markdown", page)
    assert code == 0
    assert "layer_norm, bfloat16" in out
    assert "MISSED" in out
    for name in ("speed-layer_norm.png", "roofline.png"):
        assert (pictures / name).stat().st_size > 10_000
    text = page.read_text()
    assert "Measured 2026-11-30 07:00 UTC on a card; python 3, torch 2, triton 3." in text
    assert "](pictures/roofline.png)" in text
    row = "| 4096x256 | layer_norm | 1.000 | 2% | 4 | 0.00 | 1.00 | 1.50 | 0.90 | fla |"
    assert row in text


def test_a_wrong_result_ends_with_1(program, report_file):
    report = results.read(report_file)
    first = report.results[0]
    wrong = Measured("layer_norm", True, "wrong", note="y[0, 0]=1, but should be 2")
    report.results[0] = Result(**{**vars(first), "sides": (wrong, *first.sides[1:])})
    results.write(report, report_file)
    code, out, _ = program("--from", report_file)
    assert code == 1
    assert "WRONG: layer_norm, layer_norm bfloat16 4096x256: y[0, 0]=1, but should be 2" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kernel", "norm"], "kernel='norm', must be one of layer_norm, "),
        (["--dtype", "fp64"], "dtype='fp64', must be one of bfloat16, "),
        (["--competitor", "apex"], "competitor='apex', must be one of eager, "),
        (["--time", "0"], "time=0, must be > 0"),
        (["--from", "none.json"], "none.json: "),
        (["--json", "no/such/folder.json"], "json='no/such/folder.json': No such file"),
        (["--smoke", "--trace"], "trace and plot show times"),
    ],
)
def test_wrong_usage_is_named_and_ends_with_2(program, arguments, message):
    code, _, errors = program(*arguments)
    assert code == 2
    assert message in errors


@pytest.mark.parametrize(
    ("widths", "rows", "message"),
    [
        ("256,x", 8, "widths='256,x', must be numbers >= 1"),
        ("0", 8, "widths='0', must be numbers >= 1"),
        ("256", 0, "rows=0, must be >= 1"),
        (None, 8, "rows=8, is for --widths"),
    ],
)
def test_wrong_shapes_are_named(widths, rows, message):
    with pytest.raises(bench.UsageError, match=message):
        bench.choices.chosen_shapes(bench.Grid.DEFAULT, widths, rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_and_ends_with_2(program):
    code, _, errors = program()
    assert code == 2
    assert "no CUDA device; --smoke" in errors


def test_smoke_judges_the_kernels_in_the_interpreter(tmp_path):
    path = tmp_path / "smoke.json"
    # The program itself chooses the interpreter.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    ended = subprocess.run(
        [*COMMAND, "--smoke", "--kernel", "layer_norm", "--dtype", "fp32", "--json", path],
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    report = results.read(path)
    assert [r.point.operation for r in report.results] == ["layer_norm"] * report.planned
    assert all(side.status == "measured" for r in report.results for side in r.sides)


def test_sigterm_ends_in_order_with_what_was_measured(tmp_path):
    path = tmp_path / "smoke.json"
    process = subprocess.Popen(
        [*COMMAND, "--smoke", "--kernel", "all", "--json", path], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    report = results.read(path)
    assert report.interrupted
    assert 0 < len(report.results) < report.planned
    assert f"interrupted: {len(report.results)} of {report.planned} points" in out


@pytest.mark.gpu
def test_it_measures_on_a_gpu(tmp_path):
    path = tmp_path / "gpu.json"
    arguments = ["--widths", "256,1000", "--rows", "64", "--competitor", "eager", "--time", "5"]
    ended = subprocess.run(
        [*COMMAND, *arguments, "--json", path], capture_output=True, text=True, timeout=110
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = results.read(path)
    assert report.copy_gbps > 50
    for result in report.results:
        assert all(side.timing.ms > 0 for side in result.sides)
