"""The command line: exit codes, one-line errors, and one real way through the house."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fuzz import cli
from fuzz.jobs.setup import UsageError

ROOT = Path(__file__).resolve().parents[2]

KERNEL = '''
"""A layer norm whose padded lanes are not masked again before the variance."""
import os

import torch
import triton
import triton.language as tl

from fuzz.targets import target


@triton.jit
def _kernel(x, weight, bias, y, n_cols, eps, BLOCK: tl.constexpr, FIXED: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    mask = cols < n_cols
    value = tl.load(x + row * n_cols + cols, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(value, axis=0) / n_cols
    centred = value - mean
    if FIXED:
        centred = tl.where(mask, centred, 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centred * centred, axis=0) / n_cols + eps)
    w = tl.load(weight + cols, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(bias + cols, mask=mask, other=0.0).to(tl.float32)
    out = centred * rstd * w + b
    tl.store(y + row * n_cols + cols, out.to(y.dtype.element_ty), mask=mask)


@target(dtypes=("float32",), blocks=(64, 128), whole_row=True, num_warps=(1,), max_cols=128)
def my_layer_norm(x, weight, bias, *, eps, block, num_warps):
    """A kernel from outside."""
    y = torch.empty_like(x)
    n_cols = x.shape[-1]
    _kernel[(x.numel() // n_cols,)](
        x, weight, bias, y, n_cols, eps, BLOCK=block, FIXED=FIXED, num_warps=num_warps
    )
    return y


FIXED = False
'''


def ln_fuzz(folder: Path, *arguments: str, code: int) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == code, said
    assert "resource_tracker" not in done.stderr, said
    # Of this tool, that is; a user's own file may have one.
    assert "fuzz/cli.py" not in done.stderr, said
    return done


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("75s", 75)]
)
def test_cli_reads_lengths_of_time(text: str, seconds: float) -> None:
    assert cli.parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-5", "5d", "s", "1m30s", "inf", "nan"])
def test_cli_refuses_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"time={text!r}, must be a length > 0")):
        cli.parse_seconds(text)


def test_cli_reads_fixes() -> None:
    assert cli.parse_fixes(["n_cols=4097", "dtype=bfloat16"]) == {
        "n_cols": "4097",
        "dtype": "bfloat16",
    }


@pytest.mark.parametrize("item", ["n_cols", "=5", "n_cols=", ""])
def test_cli_refuses_what_is_no_fix(item: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"fix={item!r}, must be NAME=VALUE")):
        cli.parse_fixes([item])


def test_cli_refuses_two_values_of_one_fix() -> None:
    with pytest.raises(UsageError, match="n_cols is fixed to 3 already"):
        cli.parse_fixes(["n_cols=3", "n_cols=4"])


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of the program, run in this process."""
    monkeypatch.setattr(sys, "argv", ["ln-fuzz", *arguments])
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as caught:
            cli.main()
    finally:
        signal.signal(signal.SIGINT, before)
    code = caught.value.code
    return code if isinstance(code, int) else 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--cases", "0"], "cases=0, must be >= 1"),
        (["run", "--workers", "0"], "workers=0, must be >= 1"),
        (["run", "--seed", "-1"], "seed=-1, must be >= 0"),
        (["run", "--time", "soon"], "time='soon', must be a length > 0"),
        (["run", "--fix", "n_cols"], "fix='n_cols', must be NAME=VALUE"),
        (["run", "--cases", "1", "--json", "/no/such/folder/x"], "json='/no/such/folder/x'"),
        (["run", "--device", "tpu"], "--device"),
        (["run", "--cases", "many"], "--cases"),
        (["replay", "0123"], "id='0123': no such failure in .ln-fuzz/failures, ci/regressions"),
        (["replay", "none.json"], "'none.json': no such file or folder"),
        (["show", "zzz"], "'zzz': no such file or folder, nor the id of a failure"),
        (["replay"], "Missing argument"),
        (["nonsense"], "No such command"),
    ],
)
def test_cli_wrong_argument_is_one_message_and_exit_code_2(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_cli_fault_of_its_own_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise LookupError("unforeseen")

    monkeypatch.setattr(cli.campaign, "run", broken)
    # 1 would mean that a kernel is wrong.
    assert main(monkeypatch, "run", "--cases", "1") == 2
    assert "unforeseen" in capsys.readouterr().err


def test_cli_ctrl_c_before_a_campaign_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    monkeypatch.setattr(cli.campaign, "run", interrupted)
    assert main(monkeypatch, "run", "--cases", "1") == 2
    assert capsys.readouterr().err == "ln-fuzz: interrupted\n"


# --- the whole way, with torch and Triton ---------------------------------------------------------


def test_cli_finds_replays_shows_and_sees_a_fault_fixed(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(KERNEL)
    run = ["run", "--target", "mine.py", "--cases", "24", "--seed", "5", "--device", "cpu"]
    done = ln_fuzz(tmp_path, *run, "--workers", "1", "--json", "result.json", code=1)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["exit_code"] == 1
    assert result["planned"] == 24 == result["executed"]
    assert "24 planned = 24 executed + 0 skipped + 0 not reached" in done.stdout
    assert "--seed 5" in done.stdout

    match = re.search(
        r"FAIL mine\.py:my_layer_norm / values_within_bound / y / single.*\n"
        r"  y\[.*error/bound.*\n"
        r"  mine\.py:my_layer_norm x\[.*\n"
        r"  replay: ln-fuzz replay ([0-9a-f]{6,})",
        done.stdout,
    )
    assert match, done.stdout
    name = match[1]

    done = ln_fuzz(tmp_path, "replay", name, code=1)
    assert re.search(rf"REPRODUCED +{name} 3 of 3", done.stdout)
    done = ln_fuzz(tmp_path, "show", name, code=0)
    for word in ("mine.py:my_layer_norm", "launch      block", "confirmed   3 of 3", "float32["):
        assert word in done.stdout

    done = ln_fuzz(tmp_path, "show", name, "--script", code=0)
    script = tmp_path / "shown.py"
    script.write_text(done.stdout)
    shown = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "(error " in shown.stdout, shown.stdout + shown.stderr

    file.write_text(KERNEL.replace("FIXED = False", "FIXED = True"))
    done = ln_fuzz(tmp_path, "replay", str(tmp_path / ".ln-fuzz" / "failures"), code=0)
    assert "REPRODUCED" not in done.stdout
    assert f"FIXED      {name} 3 of 3 runs pass" in done.stdout
    assert "note: mine.py has changed since" in done.stdout
    done = ln_fuzz(tmp_path, *run, code=0)
    assert "No failure in 24 cases." in done.stdout


def test_cli_kernel_that_cannot_be_imported_is_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import no_such_module\n")
    done = ln_fuzz(tmp_path, "run", "--target", "mine.py", "--cases", "1", code=2)
    assert "no_such_module" in done.stderr
    assert done.stderr.startswith("ln-fuzz: target='mine.py'")


def test_cli_lists_targets(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(KERNEL)
    done = ln_fuzz(tmp_path, "targets", "--target", "mine.py", "--target", "layer_norm", code=0)
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    cells = {row[1].strip(): [cell.strip() for cell in row[2:-1]] for row in rows}
    assert cells["mine.py:my_layer_norm"] == [
        "cpu, cuda",
        "float32",
        "yes",
        "A kernel from outside.",
    ]
    assert "bfloat16" in cells["layer_norm"][1]


def test_cli_fuzzes_every_builtin_target(tmp_path: Path) -> None:
    done = ln_fuzz(tmp_path, "run", "--cases", "7", "--seed", "1", "--device", "cpu", code=0)
    for name in ("layer_norm", "layernorm_fn", "fused_bias_layer_norm"):
        assert re.search(rf"{name} ", done.stdout)
    assert "torch.compile" not in done.stdout
