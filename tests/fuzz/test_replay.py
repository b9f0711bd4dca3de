"""A stored failure replays as what it is now, and is never called fixed for want of trying."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fuzz import store
from fuzz.case import Case, Launch, Recipe, TensorCase, contiguous_strides
from fuzz.checks import signature
from fuzz.contract import to_data
from fuzz.inputs import digest, make_values
from fuzz.jobs.failures import SHRINK_SECONDS, Investigator, signatures
from fuzz.jobs.script import MAX_EMBEDDED, ScriptError, data_file, make_script
from fuzz.process.kernel_process import KernelProcess
from fuzz.replay import Replayed, exit_code, replay
from fuzz.report import print_replayed
from fuzz.runner import Runner
from fuzz.spec import ArgSpec, FlagSpec, OutputSpec, Refusal, TargetSpec
from fuzz.store import Failure, TargetFile
from fuzz.verdict import Finding
from oracle.arithmetic import Arithmetic
from tests.fuzz import contract_backend
from tests.fuzz.fake_backend import BACKEND, UNFIT_BACKEND, case_of, spec_of

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
    newer.write_text(newer.read_text().replace(f'"format": {store.FORMAT}', '"format": 99', 1))
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
        (["FIXED", "ERROR"], 2),
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


# --- files ----------------------------------------------------------------------------------------


def test_replay_goes_on_past_files_that_were_changed(tmp_path: Path) -> None:
    contract = spec_of("right")
    paths = [
        store.write(failure_of(case_of("right", seed=seed), contract=contract), tmp_path)
        for seed in range(5)
    ]
    for path, field, value in zip(
        paths,
        ("id", "case_id", "contract_digest"),
        ("0" * 12, "0" * 12, "0" * 16),
        strict=False,
    ):
        data = json.loads(path.read_text())
        data[field] = value
        path.write_text(json.dumps(data))
    paths[3].write_text(paths[3].read_text()[:-100])
    seen = list(replay(tuple(paths), backend=BACKEND))
    assert [item.path for item in seen] == paths
    assert [item.outcome for item in seen] == ["ERROR"] * 4 + ["FIXED"]
    words = ("id='0", "case_id='0", "contract_digest='0", "not valid JSON at line")
    for item, says in zip(seen, words, strict=False):
        assert item.detail.startswith(f"{item.path}: {says}")
    assert exit_code(seen) == 2


def test_replay_sees_a_mended_kernel_by_files_of_every_format(tmp_path: Path) -> None:
    files = sorted((Path(__file__).parent / "data").glob("failure-format-*.json"))
    seen = list(replay(tuple(Path(shutil.copy(file, tmp_path)) for file in files)))
    assert [item.label for item in seen] == ["FIXED"] * store.FORMAT
    assert exit_code(seen) == 0


def test_failure_keeps_the_contract_that_it_was_judged_by() -> None:
    spec = spec_of("wrong_tail").fixed({"n_rows": 4})
    case = case_of("wrong_tail")
    with KernelProcess("cpu", backend=BACKEND) as kernel:
        runner = Runner(kernel)
        verdict = runner.judge_one(spec, case)
        (wanted,) = signatures(case, verdict)
        investigator = Investigator(runner, deadline=None)
        assert investigator.investigate(spec, case, wanted, verdict).contract == spec
        assert investigator.as_found(spec, case, wanted, verdict).contract == spec


def test_failure_is_shrunk_in_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def look(case: Case, *_: object, seconds: float, **how: object) -> Case:
        given.append(seconds)
        return case

    monkeypatch.setattr("fuzz.jobs.failures.shrink", look)
    spec, case = spec_of("wrong_tail"), case_of("wrong_tail")
    with KernelProcess("cpu", backend=BACKEND) as kernel:
        runner = Runner(kernel)
        verdict = runner.judge_one(spec, case)
        (wanted,) = signatures(case, verdict)
        for left in (None, 5.0, 1000.0):
            deadline = None if left is None else time.monotonic() + left
            found = Investigator(runner, deadline=deadline).investigate(spec, case, wanted, verdict)
            assert found.confirmed == found.confirm_runs > 0
        late = Investigator(runner, deadline=time.monotonic())
        assert late.investigate(spec, case, wanted, verdict).confirm_runs == 0
    assert given[::2] == [SHRINK_SECONDS, SHRINK_SECONDS]
    assert 4.0 < given[1] <= 5.0


# --- contracts ------------------------------------------------------------------------------------


@pytest.fixture
def today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with what the target promises today."""
    path = tmp_path / "today"
    monkeypatch.setenv(contract_backend.CONTRACT_FILE, str(path))
    return path


def replay_under(today: Path, now: TargetSpec, failure: Failure) -> Replayed:
    (item,) = replay_all_under(today, now, failure)
    return item


def replay_all_under(today: Path, now: TargetSpec, *failures: Failure) -> list[Replayed]:
    today.write_text(json.dumps(to_data(now)))
    paths = tuple(store.write(failure, today.parent / "failures") for failure in failures)
    assert len(set(paths)) == len(failures)
    return list(replay(paths, backend=contract_backend.BACKEND))


def shown(item: Replayed) -> str:
    stream = io.StringIO()
    print_replayed(Console(file=stream, width=500), item)
    return stream.getvalue()


def far_from_zero(name: str, **how: Any) -> Case:
    case = case_of(name, **how)
    return case.replace_tensor(replace(case.tensors[0], values=Recipe("normal", mean=1000.0)))


TWO_PASS = spec_of("one_pass")
ONE_PASS = replace(TWO_PASS, arithmetic=Arithmetic(variance="one_pass"))


def test_replay_of_a_fault_that_is_promised_now_says_so(today: Path) -> None:
    failure = failure_of(far_from_zero("one_pass"), contract=TWO_PASS)
    assert replay_under(today, TWO_PASS, failure).outcome == "REPRODUCED"
    item = replay_under(today, ONE_PASS, failure)
    assert (item.outcome, item.label) == ("FIXED", "FIXED (contract changed)")
    assert item.detail == (
        "3 of 3 runs pass, but 3 of 3 fail by the contract that it was found by: "
        "arithmetic.variance two_pass -> one_pass"
    )
    # What is wrong by the contract of before.
    assert item.message.startswith("y[")
    assert "but should be" in item.message
    assert shown(item).startswith(
        f"FIXED (contract changed) {failure.id[:6]} 3 of 3 runs pass, but"
    )
    assert [change.field for change in item.changes] == ["arithmetic.variance"]
    assert item.notes == ()
    assert not item.is_fixed
    # It is not gone, and whoever meant it takes the file away.
    assert exit_code([item]) == 1


def test_replay_of_a_fault_that_is_gone_notes_that_the_contract_has_changed(today: Path) -> None:
    # Near zero a single pass is as good as two.
    failure = failure_of(case_of("one_pass"), contract=TWO_PASS)
    item = replay_under(today, ONE_PASS, failure)
    assert (item.label, item.detail) == ("FIXED", "3 of 3 runs pass")
    assert item.notes == (
        "its contract has changed since: arithmetic.variance two_pass -> one_pass",
    )
    assert item.is_fixed
    assert exit_code([item]) == 0


def test_replay_of_a_fault_that_is_still_there_notes_that_the_contract_has_changed(
    today: Path,
) -> None:
    failure = failure_of(far_from_zero("one_pass"), contract=TWO_PASS)
    looser = replace(TWO_PASS, arithmetic=Arithmetic(rsqrt_error=9.0))
    item = replay_under(today, looser, failure)
    assert (item.label, item.detail) == ("REPRODUCED", "3 of 3")
    assert item.notes == ("its contract has changed since: arithmetic.rsqrt_error 8.0 -> 9.0",)


def test_replay_without_a_known_contract_goes_by_todays(today: Path) -> None:
    item = replay_under(today, ONE_PASS, failure_of(far_from_zero("one_pass")))
    assert (item.label, item.detail, item.notes) == ("FIXED", "3 of 3 runs pass", ())


def test_replay_is_not_concerned_with_what_only_draws_cases(today: Path) -> None:
    failure = failure_of(case_of("right"), contract=spec_of("right").fixed({"n_cols": 20}))
    now = replace(
        spec_of("right"), default=False, description="other words", devices=("cpu", "cuda")
    )
    item = replay_under(today, now, failure)
    assert (item.label, item.notes) == ("FIXED", ())


def test_replay_counts_what_fails_by_the_contract_of_before(
    today: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = today.parent / "left"
    monkeypatch.setenv("LN_FUZZ_TEST_FLAKY", str(left))
    contract = spec_of("flaky")
    # At this mean a single pass owes nothing of y.
    free = replace(contract, arithmetic=Arithmetic(variance="one_pass"))
    cases = [far_from_zero("flaky", relations=(), seed=seed) for seed in (1, 2)]
    failures = [failure_of(case, contract=contract) for case in cases]
    # Off by one in the first of three runs.
    left.write_text("1")
    item = replay_under(today, free, failures[0])
    assert item.label == "FIXED (contract changed)"
    assert item.detail.startswith("3 of 3 runs pass, but 1 of 3 fail by the contract")
    # The verdicts on one file are not those on another.
    paths = tuple(store.write(failure, today.parent / "both") for failure in failures)
    left.write_text("3")
    first, second = replay(paths, backend=contract_backend.BACKEND)
    assert "but 3 of 3 fail" in first.detail
    assert second.label == "FIXED"


@pytest.mark.parametrize(
    ("change", "label", "told"),
    [
        # An output that it has no more is missing by the contract of before.
        (
            {"outputs": (OutputSpec("y"),)},
            "FIXED (contract changed)",
            "outputs.mean shape rows, dtype float32 -> absent",
        ),
        # One that is new owes nothing by it.
        ({"outputs": (OutputSpec("y"), OutputSpec("mean", "rows", "float32"))}, "REPRODUCED", ""),
    ],
)
def test_replay_with_other_outputs(
    today: Path, change: dict[str, Any], label: str, told: str
) -> None:
    with_mean = replace(
        spec_of("right"), outputs=(OutputSpec("y"), OutputSpec("mean", "rows", "float32"))
    )
    finding = Finding("shape_and_dtype", "base", "mean", "mean is missing")
    case = case_of("right")
    failure = failure_of(
        case, findings=(finding,), signature=signature(case, finding), contract=with_mean
    )
    item = replay_under(today, replace(spec_of("right"), **change), failure)
    assert item.label == label
    assert told in item.detail
    assert item.message == "mean is missing, must be float32[4]"


def test_replay_where_what_happened_is_not_watched_any_more(today: Path) -> None:
    finding = Finding("inputs_unchanged", "base", "x", "4 bytes of input x changed")
    case = case_of("stores_to_x")
    contract = spec_of("stores_to_x")
    failure = failure_of(
        case, findings=(finding,), signature=signature(case, finding), contract=contract
    )
    assert replay_under(today, contract, failure).outcome == "REPRODUCED"
    (x,) = contract.args
    now = replace(contract, args=(replace(x, role="inout"),))
    # What becomes of x says nothing of another tensor, nor of another check.
    others = (replace(finding, output="weight"), replace(finding, check="survived"))
    elsewhere = [replace(failure, signature=signature(case, other)) for other in others]
    item, *rest = replay_all_under(today, now, failure, *elsewhere)
    assert (item.outcome, item.label) == ("FIXED", "FIXED (contract changed)")
    assert item.detail == (
        "3 of 3 runs pass, but what it did is not watched any more: args.x.role in -> inout"
    )
    assert exit_code([item]) == 1
    assert [other.label for other in rest] == ["FIXED", "FIXED"]
    for other in rest:
        assert other.notes == ("its contract has changed since: args.x.role in -> inout",)


def test_replay_where_programs_may_read_what_others_wrote(today: Path) -> None:
    finding = Finding("no_conflicting_writes", "base", "y", "y[0] is read", "kernel")
    case, contract = case_of("reads_others"), spec_of("reads_others")
    failure = failure_of(
        case, findings=(finding,), signature=signature(case, finding), contract=contract
    )
    assert replay_under(today, contract, failure).outcome == "REPRODUCED"
    item = replay_under(today, replace(contract, reads_after_atomics=True), failure)
    assert item.label == "FIXED (contract changed)"
    assert item.detail.endswith("not watched any more: reads_after_atomics False -> True")


def test_replay_of_a_refusal_that_is_declared_no_longer(today: Path) -> None:
    refusal = Refusal("x_float64", "TypeError", "x")
    contract = replace(spec_of("right"), refuses=(refusal,))
    case = replace(case_of("right", relations=()), refusal="x_float64")
    finding = Finding("rejects_bad_input", "base", "", "x_float64: accepted", "x_float64")
    failure = failure_of(
        case, findings=(finding,), signature=signature(case, finding), contract=contract
    )
    assert replay_under(today, contract, failure).outcome == "REPRODUCED"
    other = replace(failure, case=replace(case, seed=2), contract=None)
    unknown = replace(other, inputs_digest=digest(make_values(other.case)))
    item, without = replay_all_under(today, spec_of("right"), failure, unknown)
    assert item.label == "FIXED (contract changed)"
    assert item.detail == (
        "3 of 3 runs owe nothing, but 3 of 3 fail by the contract that it was found by: "
        "refuses.x_float64 error TypeError, argument x -> absent"
    )
    assert without.outcome == "ERROR"
    assert without.detail.startswith(
        "refusal='x_float64' is declared no longer, and it is not known"
    )


def test_replay_of_a_target_that_is_called_otherwise_is_no_pass(today: Path) -> None:
    now = replace(
        spec_of("right"),
        args=(ArgSpec("x"), ArgSpec("z"), ArgSpec("weight", optional=True)),
        flags=(FlagSpec("is_rms_norm", (False,)),),
    )

    def case(names: str, *flags: str) -> Case:
        (x,) = case_of("right").tensors
        tensors = tuple(replace(x, name=name) for name in names.split())
        return replace(case_of("right"), tensors=tensors, flags=dict.fromkeys(flags, False))

    cases = {
        "needs an argument z": case("x", "is_rms_norm"),
        "takes no argument residual": case("x z residual", "is_rms_norm"),
        "needs a flag is_rms_norm": case("x z"),
        "takes no flag return_sum": case("x z", "is_rms_norm", "return_sum"),
        "": case("x z", "is_rms_norm"),
    }
    *seen, last = replay_all_under(today, now, *map(failure_of, cases.values()))
    for says, item in zip(cases, seen, strict=False):
        assert item.outcome == "ERROR"
        assert item.detail == f"the target now {says}, unlike the case: it would be another test"
    # It is called as ever, though the fake target knows nothing of z.
    assert last.outcome == "REPRODUCED"


def test_replay_of_a_configuration_that_has_another_index_is_no_pass(today: Path) -> None:
    def with_configs(*blocks: int) -> TargetSpec:
        configs = tuple((("BLOCK", block), ("num_warps", 1)) for block in blocks)
        spec = spec_of("right")
        return replace(spec, launch=replace(spec.launch, blocks=(), configs=configs))

    contracts = (with_configs(32, 64), with_configs(16, 32, 64), None)
    failures = [
        failure_of(replace(case_of("right", seed=seed), launch=Launch(config=1)), contract=contract)
        for seed, contract in enumerate(contracts)
    ]
    moved, same, unknown = replay_all_under(today, with_configs(64, 32), *failures)
    assert moved.outcome == "ERROR"
    assert moved.detail.startswith("launch.config=1 stands for another configuration now")
    assert (same.label, unknown.label) == ("FIXED", "FIXED")
    for item in replay_all_under(today, with_configs(32), *failures):
        assert item.outcome == "ERROR"
        assert item.detail.startswith("launch.config=1 stands for another configuration now")


def test_replay_by_a_contract_that_it_cannot_judge_by_is_no_pass(today: Path) -> None:
    odd = Arithmetic(compute="float8")
    first, second = (
        failure_of(case_of(name), contract=replace(spec_of(name), arithmetic=odd))
        for name in ("right", "wrong_tail")
    )
    item, failing = replay_all_under(today, spec_of("right"), first, second)
    assert item.outcome == "ERROR"
    assert item.detail.startswith("it cannot be judged by the stored contract: ValueError(")
    assert "float8" in item.detail
    # What fails today needs no other contract.
    assert failing.outcome == "REPRODUCED"


def test_replay_of_a_contract_that_is_no_plain_data_is_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of("right")
    listed = replace(spec, devices=["cpu"])
    monkeypatch.setattr(KernelProcess, "specs", lambda self, name: (listed,))
    item = replay_one(tmp_path, failure_of(case_of("right"), contract=spec))
    assert item.outcome == "ERROR"
    says = "what the target promises today: contract.devices=['cpu'], must be a tuple"
    assert item.detail == says


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
