"""What a failure of head is called, by what base makes of the same cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fuzz.case import Case, Launch
from fuzz.gating.trial import FLAKY_RUNS, KernelBench, classify
from fuzz.process.kernel_process import KernelProcessError
from fuzz.spec import ArgSpec, FlagSpec, Refusal, TargetSpec
from fuzz.verdict import Finding, Verdict
from oracle.arithmetic import Arithmetic
from tests.fuzz.gating.benches import CASE, FINDINGS, LARGER, MORE, SPEC, WANTED, Bench, failure


@pytest.mark.parametrize(
    ("on_head", "on_base", "kind", "detail"),
    [
        ("same", "pass", "introduced", "base passes"),
        ("same", "same", "pre-existing", "base fails in the same way"),
        ("same", "pass same pass", "pre-existing", "base fails in the same way in 5 of 15 runs"),
        (
            "same",
            "other",
            "changed signature",
            "base fails otherwise: layer_norm / redzones_intact / y / single / after",
        ),
        (
            "same",
            "elsewhere",
            "changed signature",
            "base fails otherwise: layer_norm / values_within_bound / y / single / tail columns",
        ),
        ("same", "it skips the case", "base cannot run", "on base: it skips the case"),
        # What comes and goes. An unconfirmed failure that shows each time is none of these.
        ("pass same pass", "pass", "flaky", "4 of 12 equal runs fail on head, 0 of 60 on base"),
        (
            "pass same pass",
            "pass pass elsewhere",
            "pre-existing",
            "4 of 12 equal runs fail on head, 4 of 12 on base",
        ),
        (
            "pass",
            "pass",
            "flaky",
            "failed once, then in 0 of 12 equal runs on head, 0 of 60 on base",
        ),
        (
            "pass same pass",
            "other",
            "changed signature",
            "4 of 12 equal runs fail on head, base fails otherwise: "
            "layer_norm / redzones_intact / y / single / after",
        ),
        (
            "pass same pass",
            "it died",
            "base cannot run",
            "4 of 12 equal runs fail on head, on base: it died",
        ),
        ("it died", "pass", "introduced", "base passes"),
    ],
)
def test_classify_calls_a_failure_by_what_base_does(
    on_head: str, on_base: str, kind: str, detail: str
) -> None:
    def bench(runs: str) -> Bench:
        words = runs.split()
        return Bench(*words) if set(words) <= FINDINGS.keys() else Bench(runs)

    # Nobody has confirmed it, so head is asked too.
    judged = classify(failure(confirmed=0, runs=0), MORE, bench(on_head), bench(on_base))
    assert (judged.kind, judged.detail) == (kind, detail)


def test_classify_asks_head_only_about_what_was_not_confirmed() -> None:
    head, base = Bench("same"), Bench("pass")
    assert classify(failure(), (), head, base).kind == "introduced"
    assert head.asked == []
    classify(failure(confirmed=2), (), head, base)
    assert head.asked == [(LARGER, FLAKY_RUNS, True)]
    # A replay knows better than the file does.
    head.usual = ("pass", "same")
    assert classify(failure(), (), head, base, certain=False).kind == "flaky"
    assert classify(failure(confirmed=1), (), head, base, certain=True).kind == "introduced"


def test_classify_of_a_target_that_base_does_not_have() -> None:
    nowhere = Bench("pass", spec=None)
    judged = classify(failure(), (), Bench("same"), nowhere)
    assert (judged.kind, judged.detail) == ("introduced", "base has no such target")
    judged = classify(failure(confirmed=0), (), Bench("pass", "same"), nowhere)
    assert (judged.kind, judged.detail) == (
        "flaky",
        "6 of 12 equal runs fail on head, base has no such target",
    )
    broken = Bench("pass", spec=None, absent="SyntaxError: invalid syntax")
    judged = classify(failure(), (), Bench("same"), broken)
    assert (judged.kind, judged.detail) == (
        "base cannot run",
        "on base: SyntaxError: invalid syntax",
    )


def test_classify_blocks_where_base_passes_a_single_case() -> None:
    base = Bench("same")
    base.of[MORE[1].case_id] = ("pass",)
    judged = classify(failure(), MORE, Bench("same"), base)
    assert (judged.kind, judged.detail) == ("introduced", "base passes 1 of 5 such cases")
    base.of[CASE.case_id] = ("it hangs",)
    judged = classify(failure(), MORE, Bench("same"), base)
    assert judged.detail == "base passes 1 of 4 such cases"


def test_classify_asks_of_one_case_once_and_of_a_hang_no_more() -> None:
    base = Bench("pass")
    classify(failure(original=CASE), (CASE, *MORE), Bench("same"), base)
    assert [case for case, *_ in base.asked] == [CASE, *MORE]
    base = Bench("pass")
    hang = replace(WANTED, check="survived", output="", region="timed_out")
    classify(failure(signature=hang), MORE, Bench("same"), base)
    assert [case for case, *_ in base.asked] == [CASE]


def test_classify_believes_a_failure_of_base_in_a_fresh_process_only() -> None:
    base = Bench("same")
    base.fresh[CASE.case_id] = ("pass",)
    judged = classify(failure(original=CASE), (), Bench("same"), base)
    assert (judged.kind, judged.detail) == ("introduced", "base passes")
    base = Bench("same")
    assert classify(failure(), MORE, Bench("same"), base).kind == "pre-existing"
    # Once is enough.
    assert [fresh for *_, fresh in base.asked] == [False, True, False, False, False, False]


def test_classify_asks_a_flaky_base_from_its_first_run_on() -> None:
    """What fails in a process's first run alone does so on base too."""
    base = Bench("pass")
    base.fresh[CASE.case_id] = ("same", *["pass"] * 11)
    judged = classify(failure(confirmed=1), (), Bench("same", "pass", "pass"), base)
    assert (judged.kind, judged.detail) == (
        "pre-existing",
        "4 of 12 equal runs fail on head, 1 of 12 on base",
    )
    assert base.asked == [(CASE, FLAKY_RUNS, True)]


def _wide(spec: TargetSpec) -> TargetSpec:
    return replace(spec, space=replace(spec.space, max_cols=2))


def _without(name: str) -> Callable[[TargetSpec], TargetSpec]:
    return lambda spec: replace(spec, args=tuple(a for a in spec.args if a.name != name))


@pytest.mark.parametrize(
    ("less", "words"),
    [
        (_wide, "n_cols=3, at most 2"),
        (_without("bias"), "it takes no bias"),
        (
            lambda spec: replace(spec, args=(*spec.args, ArgSpec("input_bias", shape="cols"))),
            "it needs input_bias",
        ),
    ],
)
def test_classify_takes_no_excuse_from_where_base_owes_nothing(
    less: Callable[[TargetSpec], TargetSpec], words: str
) -> None:
    base = Bench("same", spec=less(SPEC))
    judged = classify(failure(original=CASE), (), Bench("same"), base)
    assert (judged.kind, judged.detail) == ("introduced", f"base owes nothing there: {words}")
    assert base.asked == []
    judged = classify(failure(confirmed=0, original=CASE), (), Bench("pass", "same"), base)
    assert judged.kind == "flaky"


def test_classify_takes_no_excuse_from_what_base_need_not_refuse() -> None:
    strict = replace(SPEC, refuses=(Refusal("x_int64", "TypeError", "x"),))
    case = replace(CASE, refusal="x_int64")
    judged = classify(failure(case, original=case), (), Bench("same", spec=strict), Bench("same"))
    assert (judged.kind, judged.detail) == (
        "introduced",
        "base owes nothing there: it need not refuse x_int64",
    )


def test_classify_lets_base_answer_for_a_case_that_neither_contract_draws() -> None:
    """Shrinking may leave what is drawn; a fault that both have must not block by that."""
    base = Bench("same", spec=_wide(SPEC))
    judged = classify(failure(original=CASE), (), Bench("same", spec=_wide(SPEC)), base)
    assert judged.kind == "pre-existing"


def test_classify_asks_base_as_base_can_be_asked() -> None:
    """A flag that head alone has is no reason to forget what both do without it."""
    head = replace(SPEC, flags=(FlagSpec("is_rms_norm", (False, True)),))
    plain, rms = (replace(CASE, flags={"is_rms_norm": value}) for value in (False, True))
    base = Bench("same")
    judged = classify(failure(plain, original=plain), (), Bench("same", spec=head), base)
    assert judged.kind == "pre-existing"
    assert base.asked[0][0] == CASE
    base = Bench("same")
    judged = classify(failure(rms, original=rms), (), Bench("same", spec=head), base)
    assert (judged.kind, judged.detail) == (
        "introduced",
        "base owes nothing there: it has no is_rms_norm=True",
    )


def test_classify_tells_configurations_apart_that_have_one_index() -> None:
    def tuned(*blocks: int) -> TargetSpec:
        configs = tuple((("BLOCK", block),) for block in blocks)
        return replace(SPEC, launch=replace(SPEC.launch, configs=configs))

    case = replace(CASE, launch=Launch(config=1))
    head = Bench("same", spec=tuned(64, 256))
    for blocks, words in (
        ((64, 128), "it has another launch.config=1"),
        ((64,), "it has no launch.config=1"),
    ):
        base = Bench("same", spec=tuned(*blocks))
        judged = classify(failure(case, original=case), (), head, base)
        assert (judged.kind, judged.detail) == ("introduced", f"base owes nothing there: {words}")
    judged = classify(failure(case, original=case), (), head, Bench("same", spec=tuned(64, 256)))
    assert judged.kind == "pre-existing"


def test_classify_says_where_base_was_judged_by_another_contract() -> None:
    lax = replace(SPEC, arithmetic=Arithmetic(uniform=True, variance="one_pass"))
    judged = classify(failure(), (), Bench("same"), Bench("pass", spec=lax))
    assert judged.detail == "base passes by its own contract (other arithmetic.variance)"


def test_classify_calls_a_stored_failure_that_base_passes_as_it_is_told() -> None:
    judged = classify(failure(), (), Bench("same"), Bench("pass"), when_back="regression")
    assert judged.kind == "regression"
    judged = classify(failure(), (), Bench("same"), Bench("same"), when_back="regression")
    assert judged.kind == "pre-existing"


# --- a bench with a kernel process ----------------------------------------------------------------


class FakeRunner:
    """Judges by a list of verdicts, and counts the processes that were begun."""

    def __init__(self, *verdicts: Verdict | Exception) -> None:
        self.verdicts = list(verdicts)
        self.kernel = self
        self.processes = 1
        self.contracts: list[TargetSpec] = []

    def replace(self) -> None:
        self.processes += 1

    def judge_one(self, spec: TargetSpec, case: Case) -> Verdict:
        self.contracts.append(spec)
        verdict = self.verdicts.pop(0)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict


PASS = Verdict("", "pass")
FAIL = Verdict("", "fail", FINDINGS["same"])
HANG = Verdict("", "fail", (Finding("survived", "base", "", "hangs", "timed_out"),))


def bench_of(*verdicts: Verdict | Exception) -> tuple[KernelBench, FakeRunner]:
    runner = FakeRunner(*verdicts)
    bench = KernelBench(runner)  # type: ignore[arg-type]
    bench.specs["layer_norm"] = SPEC
    return bench, runner


def test_bench_runs_as_often_as_it_is_asked_to() -> None:
    bench, runner = bench_of(*[PASS, PASS, FAIL] * 4)
    seen = bench.run(CASE, WANTED, at_least=FLAKY_RUNS)
    assert not isinstance(seen, str)
    assert (seen.failed, seen.runs, runner.verdicts) == (4, 12, [])


def test_bench_waits_for_one_hang_only() -> None:
    bench, runner = bench_of(PASS, HANG, PASS)
    seen = bench.run(CASE, WANTED, at_least=FLAKY_RUNS)
    assert not isinstance(seen, str)
    assert (seen.failed, seen.runs, len(runner.verdicts)) == (1, 2, 1)


def test_bench_says_why_a_case_cannot_be_run() -> None:
    bench, _ = bench_of(Verdict("", "skip", reason="no such operation"))
    assert bench.run(CASE, WANTED, at_least=FLAKY_RUNS) == "it skips the case: no such operation"
    bench, _ = bench_of(KernelProcessError("Traceback:\n  line\nSyntaxError: invalid syntax\n"))
    assert bench.run(CASE, WANTED) == "SyntaxError: invalid syntax"
    del bench.specs["layer_norm"]
    assert bench.run(CASE, WANTED) == "it has no such target"
    bench.absent["layer_norm"] = "it is broken"
    assert bench.run(CASE, WANTED) == "it is broken"


def test_bench_begins_a_process_only_where_another_case_was_run() -> None:
    bench, runner = bench_of(*[PASS] * 9)
    bench.run(CASE, WANTED, fresh=True)
    assert runner.processes == 1
    bench.run(CASE, WANTED, fresh=True)
    assert runner.processes == 2
    other = replace(SPEC, arithmetic=Arithmetic())
    bench.run(CASE, WANTED, contract=other)
    assert runner.processes == 2
    assert runner.contracts[-1] is other
    assert runner.contracts[0] is SPEC
