"""A stored failure replays as what it is now, and is never called fixed for want of trying."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fuzz import store
from fuzz.case import Case, Launch, Recipe, TensorCase, contiguous_strides
from fuzz.checks import signature
from fuzz.inputs import digest, make_values
from fuzz.jobs.script import MAX_EMBEDDED, ScriptError, data_file, make_script
from fuzz.replay import Replayed, exit_code, replay
from fuzz.store import Failure, TargetFile
from fuzz.verdict import Finding
from tests.fuzz.fake_backend import BACKEND, UNFIT_BACKEND, case_of

ROOT = Path(__file__).resolve().parents[2]


def failure_of(case: Case, **how: Any) -> Failure:
    finding = Finding(
        "values_within_bound", "base", "y", "y[0, 0]=2 (float32)", "everywhere", 9.0, (0, 0)
    )
    usual = Failure(
        signature=signature(case, finding),
        case=case,
        original=case,
        inputs_digest=digest(make_values(case)),
        findings=(finding,),
        device="cpu",
        device_name="Triton interpreter",
        versions={},
        first_seen="2026-01-01T00:00:00+00:00",
    )
    return replace(usual, **how)


def replay_one(tmp_path: Path, failure: Failure, **how: Any) -> Replayed:
    path = store.write(failure, tmp_path)
    (item,) = replay((path,), **{"backend": BACKEND, **how})
    return item


@pytest.fixture
def fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that mends the target "shifted"."""
    path = tmp_path / "fixed"
    monkeypatch.setenv("LN_FUZZ_TEST_FIXED", str(path))
    return path


# --- outcomes -------------------------------------------------------------------------------------


def test_replay_reproduces_and_then_sees_it_fixed(tmp_path: Path, fixed: Path) -> None:
    failure = failure_of(case_of("shifted"))
    item = replay_one(tmp_path, failure)
    assert (item.outcome, item.detail) == ("REPRODUCED", "3 of 3")
    assert item.message.startswith("y[")
    fixed.touch()
    item = replay_one(tmp_path, failure)
    assert (item.outcome, item.detail) == ("FIXED", "3 of 3 runs pass")


def test_replay_says_that_the_signature_is_another(tmp_path: Path, fixed: Path) -> None:
    case = case_of("shifted")
    other = replace(signature(case, failure_of(case).findings[0]), region="one row")
    item = replay_one(tmp_path, failure_of(case, signature=other))
    assert item.outcome == "REPRODUCED"
    assert (
        "with another signature: shifted / values_within_bound / y / single / ever" in item.detail
    )


def test_replay_counts_what_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "left"
    monkeypatch.setenv("LN_FUZZ_TEST_FLAKY", str(left))
    left.write_text("2")
    failure = failure_of(case_of("flaky", relations=()))
    item = replay_one(tmp_path, failure)
    assert (item.outcome, item.detail) == ("FLAKY", "2 of 3")
    assert item.message.startswith("y[")


def test_replay_believes_no_process_that_others_have_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "left"
    monkeypatch.setenv("LN_FUZZ_TEST_FLAKY", str(left))
    paths = (
        store.write(failure_of(case_of("right")), tmp_path),
        store.write(failure_of(case_of("flaky", relations=())), tmp_path),
    )
    # It fails in the process that has run the other file, and never again.
    left.write_text("3")
    seen = list(replay(paths, backend=BACKEND))
    assert [(item.outcome, item.detail) for item in seen] == [
        ("FIXED", "3 of 3 runs pass"),
        ("FLAKY", "3 of 6"),
    ]
    # It fails there, and in the fresh one.
    left.write_text("6")
    seen = list(replay(paths, backend=BACKEND))
    assert [(item.outcome, item.detail) for item in seen][1] == ("REPRODUCED", "3 of 3")


def test_replay_of_a_crash_is_a_result(tmp_path: Path) -> None:
    case = case_of("segfault")
    finding = Finding("survived", "base", "", "crashed", "crashed SIGSEGV")
    failure = failure_of(case, findings=(finding,), signature=signature(case, finding))
    item = replay_one(tmp_path, failure)
    assert (item.outcome, item.detail) == ("REPRODUCED", "3 of 3")


def test_replay_refuses_other_inputs(tmp_path: Path) -> None:
    item = replay_one(tmp_path, failure_of(case_of("right"), inputs_digest="0" * 16))
    assert item.outcome == "ERROR"
    assert "makes other inputs" in item.detail


def test_replay_error_is_never_a_pass(tmp_path: Path) -> None:
    right = case_of("right")
    broken = store.write(failure_of(right), tmp_path / "broken")
    broken.write_text(broken.read_text()[:100])
    newer = store.write(failure_of(right), tmp_path / "newer")
    newer.write_text(newer.read_text().replace('"format": 1', '"format": 2'))
    paths = {
        broken: "not valid JSON",
        newer: "newer version",
        store.write(failure_of(case_of("gone")), tmp_path): "target='gone'",
        store.write(failure_of(case_of("unsupported")), tmp_path): "not on this moon",
        store.write(failure_of(case_of("broken_harness")), tmp_path): "internal error",
    }
    seen = list(replay(tuple(paths), backend=BACKEND))
    assert [item.outcome for item in seen] == ["ERROR"] * len(paths)
    for item in seen:
        assert paths[item.path] in item.detail
    (unfit,) = replay((store.write(failure_of(right), tmp_path),), backend=UNFIT_BACKEND)
    assert (unfit.outcome, unfit.detail) == ("ERROR", "no module named 'a_dependency'")


def test_replay_of_a_gpu_failure_without_a_gpu_says_so(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    failure = failure_of(case_of("right"), device="cuda", device_name="NVIDIA H200")
    item = replay_one(tmp_path, failure)
    assert item.outcome == "ERROR"
    assert "found on NVIDIA H200, --device cpu tries the interpreter" in item.detail
    item = replay_one(tmp_path, failure, device="cpu")
    assert item.outcome == "FIXED"
    assert item.notes == ("found on cuda (NVIDIA H200), replayed on cpu",)


def test_replay_notes_that_the_file_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("new")
    was = TargetFile(str(file), hashlib.sha256(b"old").hexdigest())
    case = replace(case_of("right"), target=f"{file}:right")
    item = replay_one(tmp_path, failure_of(case, target_file=was))
    # The fake backend knows no files; what it says does not matter here.
    assert item.outcome == "ERROR"
    item = replay_one(tmp_path, failure_of(case_of("right"), target_file=was))
    assert item.notes == ()


def test_replay_fresh_process_is_a_fresh_one(tmp_path: Path) -> None:
    paths = (
        store.write(failure_of(case_of("ages", relations=())), tmp_path),
        store.write(failure_of(case_of("ages", relations=(), seed=2)), tmp_path),
    )
    seen = list(replay(paths, backend=BACKEND))
    assert [(item.outcome, item.detail) for item in seen] == [
        ("FIXED", "3 of 3 runs pass"),
        ("FLAKY", "3 of 6"),
    ]


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (["FIXED", "FIXED"], 0),
        (["FIXED", "REPRODUCED"], 1),
        (["FLAKY"], 1),
        (["REPRODUCED", "ERROR"], 2),
        ([], 2),
    ],
)
def test_replay_exit_code(outcomes: list[Any], code: int) -> None:
    assert exit_code([Replayed(Path("x"), outcome) for outcome in outcomes]) == code


def test_replay_serves_many_files_with_one_process(tmp_path: Path, fixed: Path) -> None:
    failures = [failure_of(case_of("shifted", seed=seed)) for seed in range(4)]
    paths = tuple(store.write(failure, tmp_path) for failure in failures)
    fixed.touch()
    seen = list(replay(paths, backend=BACKEND))
    assert [(item.path, item.outcome) for item in seen] == [(path, "FIXED") for path in paths]


# --- scripts --------------------------------------------------------------------------------------


def builtin_case(target: str, names: str, **flags: Any) -> Case:
    shape = (3, 40)
    tensors = []
    for name in names.split():
        is_row = name in ("x", "residual", "z", "out", "sum_out")
        tensor_shape = shape if is_row else shape[1:]
        strides = (64, 1) if name in ("x", "out") else contiguous_strides(tensor_shape)
        values = None if name.endswith("out") else Recipe("normal", mean=0.5)
        offset = 3 if is_row else 0
        tensors.append(TensorCase(name, "float32", tensor_shape, strides, offset, values))
    launch = Launch(32, 1, True) if target != "triton_layer_norm" else Launch(64, 1, True)
    return Case(target, shape, 1, tuple(tensors), flags, 1e-5, launch, 5, ("row_alone",))


BUILTIN = (
    builtin_case("layer_norm", "x weight bias out"),
    builtin_case("triton_layer_norm", "x weight"),
    builtin_case("native_layer_norm", "x weight bias"),
    builtin_case(
        "layer_norm_residual", "x input_bias residual weight bias out sum_out", return_sum=True
    ),
    builtin_case(
        "layernorm_fn",
        "x weight bias z out",
        group_size=20,
        norm_before_gate=False,
        is_rms_norm=False,
    ),
    builtin_case(
        "rmsnorm_fn", "x weight z", group_size=None, norm_before_gate=True, is_rms_norm=True
    ),
    builtin_case("fused_bias_layer_norm", "x input_bias weight bias"),
)


def run_scripts(paths: list[Path]) -> list[str]:
    """What scripts print, run one after the other in one process that may not import this tool."""
    program = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})

class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("fuzz", "oracle"):
            raise ImportError(f"{{name}} is barred")

sys.meta_path.insert(0, Barred())
for path in {[str(path) for path in paths]!r}:
    print("===")
    runpy.run_path(path, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=paths[0].parent,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split("===\n")[1:]


def errors_in(text: str) -> list[float]:
    return [float(part.split(")")[0]) for part in text.split("(error ")[1:]]


def test_script_of_every_builtin_target_calls_it_right(tmp_path: Path) -> None:
    paths = []
    for case in BUILTIN:
        failure = failure_of(case)
        failure = replace(failure, findings=(replace(failure.findings[0], run="row_alone"),))
        path = tmp_path / f"{case.target}.py"
        path.write_text(make_script(failure).text)
        paths.append(path)
    for case, text in zip(BUILTIN, run_scripts(paths), strict=True):
        errors = errors_in(text)
        # Base run and row_alone, every output of each.
        assert len(errors) >= 2, text
        assert max(errors) < 1e-4, f"{case.target}: {text}"
        assert "0 of 40 elements differ from the base run" in text
        assert "changed" not in text


USER_FILE = """
import torch
from fuzz.spec import OutputSpec
from fuzz.targets import target
from oracle.arithmetic import Arithmetic


@target(returns=("y", OutputSpec("mean", "rows", "float32")), arithmetic=Arithmetic(), blocks=(32,))
def broken(x, weight, out=None, *, eps, block, unused=3):
    print("x at", x.data_ptr() % 64, x.stride())
    mean = x.float().mean(-1, keepdim=True)
    y = (x - mean) * torch.rsqrt(x.var(-1, keepdim=True) + eps) * weight
    y[0, 7] += 100
    weight += 1
    out.copy_(y)
    # One element behind the last row: outside the tensor, inside its storage.
    torch.as_strided(out, (1,), (1,), out.storage_offset() + 2 * 64 + 40).fill_(1)
    return out, mean[..., 0]
"""


def test_script_of_a_user_file_shows_its_fault(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(USER_FILE)
    case = builtin_case(f"{file}:broken", "x weight out")
    path = tmp_path / "shown.py"
    path.write_text(make_script(failure_of(case)).text)
    (text,) = run_scripts([path])
    assert "x at 12 (64, 1)" in text
    assert "found wrong: y[0, 0] = " in text
    assert "largest error: y[0, 7] = " in text
    assert errors_in(text)[1] == pytest.approx(100, abs=1)
    # The mean of it is right.
    assert errors_in(text)[2] < 1e-5
    assert "bytes of the input weight changed" in text
    assert "4 bytes of the memory around out changed" in text


def test_script_of_a_refusal_shows_what_is_accepted(tmp_path: Path) -> None:
    x = TensorCase("x", "float64", (2, 8), (8, 1), 0, Recipe("zeros"))
    case = Case(
        "layer_norm", (2, 8), 1, (x,), {}, 1e-5, Launch(32, 1, True), 5, refusal="float64_x"
    )
    path = tmp_path / "shown.py"
    path.write_text(make_script(failure_of(case)).text)
    (text,) = run_scripts([path])
    assert text.startswith("raised TypeError: x.dtype")


def test_script_keeps_large_values_beside_it(tmp_path: Path) -> None:
    shape = (2, 40000)
    x = TensorCase("x", "float32", shape, contiguous_strides(shape), 0, Recipe("normal"))
    case = Case("layer_norm", shape, 1, (x,), {}, 1e-5, Launch(8192, 4, True), 5)
    failure = failure_of(case)
    with pytest.raises(ScriptError, match="too large to print"):
        make_script(failure)
    path = tmp_path / "shown.py"
    made = make_script(failure, path=path)
    assert len(made.data) > MAX_EMBEDDED
    path.write_text(made.text)
    data_file(path).write_bytes(made.data)
    (text,) = run_scripts([path])
    assert max(errors_in(text)) < 1e-4


def test_script_of_an_unknown_target_is_refused() -> None:
    with pytest.raises(ScriptError, match="not known how to call it"):
        make_script(failure_of(case_of("right")))


def test_script_holds_what_the_failure_says() -> None:
    failure = failure_of(BUILTIN[0])
    odd = replace(failure.findings[0], message='y = """ \\ and {braces}')
    text = make_script(replace(failure, findings=(odd,))).text
    compile(text, "script", "exec")
    assert "{braces}" in text
    assert json.dumps(failure.id)[1:-1] in text
