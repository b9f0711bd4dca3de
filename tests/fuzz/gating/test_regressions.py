"""Stored failures: which of them can be run, and what their replay says of a change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fuzz.contract import differences
from fuzz.gating.regressions import judge_replay, split
from fuzz.replay import Outcome, Replayed
from fuzz.spec import TargetSpec
from fuzz.store import write
from oracle.arithmetic import Arithmetic
from tests.fuzz.gating.benches import SPEC, WANTED, Bench, failure

LAX = replace(SPEC, arithmetic=Arithmetic(uniform=True, variance="one_pass"))
ON_GPUS = replace(SPEC, devices=("cuda",))


class Side:
    """A bench that knows its targets, or gets to know them where they are needed."""

    def __init__(self, *runs: str, spec: TargetSpec = SPEC) -> None:
        self.bench: Any = Bench(*runs, spec=None)
        self.needed: list[str] = []
        self._spec = spec

    def need(self, name: str) -> None:
        self.needed.append(name)
        self.bench.specs[name] = self._spec


def replayed(outcome: Outcome, **how: Any) -> Replayed:
    return Replayed(Path("a.json"), outcome, failure=failure(), **how)


def judged(item: Replayed, head: Side, base: Side, *, affected: bool = True) -> Any:
    found = judge_replay(item, failure(), head, base, affected=affected)  # type: ignore[arg-type]
    return None if found is None else (found.kind, found.detail)


def test_regressions_that_cannot_be_run_here_are_left_out_by_name(tmp_path: Path) -> None:
    report = replace(WANTED, check="no_sanitizer_report", region="memcheck write")
    plain = write(failure(), tmp_path)
    watched = write(failure(signature=report), tmp_path)
    cut = tmp_path / "cut.json"
    cut.write_text("{")
    paths = (plain, watched, cut)
    kept, notes = split(paths, Side(), "cpu")  # type: ignore[arg-type]
    # A file that cannot be read is for the replay to tell.
    assert kept == (plain, cut)
    assert notes == [f"{watched}: was not replayed: it takes memcheck, and with it a GPU"]
    assert split(paths, Side(), "cuda") == (paths, [])  # type: ignore[arg-type]
    kept, notes = split((plain,), Side(spec=ON_GPUS), "cpu")  # type: ignore[arg-type]
    assert kept == ()
    assert notes == [f"{plain}: was not replayed: its target runs on cuda, not on cpu"]


def test_regression_that_is_back_blocks_unless_base_has_it() -> None:
    item = replayed("REPRODUCED")
    head, base = Side("same"), Side("pass")
    assert judged(item, head, base) == ("regression", "base passes")
    # Whether or not the target is one that is compared.
    assert head.needed == base.needed == ["layer_norm"]
    assert judged(item, Side("same"), Side("same"), affected=False) == (
        "pre-existing",
        "base fails in the same way",
    )


def test_regression_is_told_by_what_it_fails_by_today() -> None:
    item = replayed("REPRODUCED")
    assert judged(item, Side("other"), Side("other"))[0] == "pre-existing"
    assert judged(item, Side("other"), Side("same"))[0] == "changed signature"


def test_regression_that_comes_and_goes_is_flaky_whatever_its_file_says() -> None:
    kind, detail = judged(replayed("FLAKY"), Side("pass", "same"), Side("pass"))
    assert kind == "flaky"
    assert detail.startswith("6 of 12 equal runs fail on head, 0 of ")
    assert judged(replayed("FLAKY"), Side("pass", "same"), Side("pass", "same"))[0] == (
        "pre-existing"
    )


def test_regression_that_head_has_mended_is_told_where_the_change_can_have_done_it() -> None:
    item = replayed("FIXED")
    told = ("fixed", "3 of 3 runs fail on base, none on head")
    assert judged(item, Side("pass"), Side("same")) == told
    assert judged(item, Side("pass"), Side("pass")) is None
    assert judged(item, Side("pass"), Side("it is broken")) is None
    base = Side("same")
    assert judged(item, Side("pass"), base, affected=False) is None
    assert base.bench.asked == []


def test_regression_that_passes_by_less_promised_blocks_the_change_that_did_it() -> None:
    item = replayed("FIXED", changes=differences(SPEC, LAX))
    words = "passes by a changed contract alone: arithmetic.variance two_pass -> one_pass"
    assert judged(item, Side("pass", spec=LAX), Side("pass")) == ("regression", words)
    # Base has the fault, by what it promised: head has nothing to do with it but the promise.
    assert judged(item, Side("pass", spec=LAX), Side("same"))[0] == "pre-existing"


def test_regression_that_passes_by_less_promised_on_base_too_blocks_nothing() -> None:
    item = replayed("FIXED", changes=differences(SPEC, LAX))
    assert judged(item, Side("pass", spec=LAX), Side("pass", spec=LAX)) == (
        "pre-existing",
        "passes by a changed contract alone, as on base: arithmetic.variance two_pass -> one_pass",
    )


@pytest.mark.parametrize("name", ["it takes no", "it needs"])
def test_regression_is_fixed_only_where_base_can_be_asked(name: str) -> None:
    args = SPEC.args[:1] if name == "it takes no" else (*SPEC.args, replace(SPEC.args[0], name="z"))
    base = Side("same", spec=replace(SPEC, args=args))
    assert judged(replayed("FIXED"), Side("pass"), base) is None
    assert base.bench.asked == []
