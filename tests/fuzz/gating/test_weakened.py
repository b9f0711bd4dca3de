"""What a weakened contract excuses, and what it is told with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuzz.contract import Change, differences
from fuzz.gating.outcome import GateFinding, Place
from fuzz.gating.weakened import Weakened
from fuzz.spec import TargetSpec
from oracle.arithmetic import Arithmetic
from tests.fuzz.gating.benches import CASE, SPEC, Bench, failure

LAX = replace(SPEC, arithmetic=Arithmetic(uniform=True, variance="one_pass"))
NARROW = replace(SPEC, space=replace(SPEC.space, max_cols=2))
PLACE = Place("norm.py", 7)


def weakened(now: TargetSpec) -> Weakened:
    found = Weakened()
    for change in differences(SPEC, now):
        found.add("layer_norm", change)
    return found


def told(weaker: Weakened) -> list[GateFinding]:
    return weaker.findings(lambda target: PLACE)


def test_weakened_contract_excuses_what_fails_by_base_s_contract_alone() -> None:
    weaker = weakened(LAX)
    head = Bench("pass", spec=LAX)
    assert weaker.excuses(failure(), head)
    assert head.asked == [(CASE, 1, False)]
    (found,) = told(weaker)
    assert found == GateFinding(
        "weakened contract",
        "layer_norm",
        "layer_norm / contract / arithmetic.variance",
        "arithmetic.variance two_pass -> one_pass: a running variance loses digits, one of a "
        "single pass cancels at large means",
        case=found.case,
        detail="by base's contract head fails: y[0]=1",
        failure=failure().id,
        place=PLACE,
    )
    assert found.case.startswith("layer_norm x[2, 3]")


@pytest.mark.parametrize("runs", [("same",), ("pass", "other"), ("it died",)])
def test_weakened_contract_excuses_nothing_that_shows_by_head_s_own(runs: tuple[str, ...]) -> None:
    weaker = weakened(LAX)
    assert not weaker.excuses(failure(), Bench(*runs, spec=LAX))
    assert told(weaker)[0].detail == "no case of the plan shows a difference"


def test_weakened_contract_excuses_nothing_of_head_s_contract_or_of_other_targets() -> None:
    weaker = weakened(LAX)
    assert not weaker.excuses(failure(contract=LAX), Bench("pass", spec=LAX))
    assert not weaker.excuses(failure(contract=None), Bench("pass", spec=LAX))
    assert not Weakened().excuses(failure(), Bench("pass", spec=LAX))


def test_weakened_contract_excuses_what_head_owes_nothing_for() -> None:
    weaker = weakened(NARROW)
    head = Bench("same", spec=NARROW)
    assert weaker.excuses(failure(), head)
    # It fails, as base's contract says: to ask again would say nothing.
    assert head.asked == []


def test_weakened_contract_does_not_excuse_what_neither_contract_draws() -> None:
    """Shrinking may leave what is drawn: that is no difference between the two."""
    weaker = weakened(NARROW)
    before = replace(SPEC, space=replace(SPEC.space, max_cols=1))
    assert not weaker.excuses(failure(contract=before), Bench("same", spec=NARROW))


def test_weakened_contract_has_a_finding_for_each_field_and_each_target_that_is_gone() -> None:
    weaker = weakened(replace(LAX, space=NARROW.space))
    weaker.gone("rms_norm")
    weaker.untried.add("layer_norm")
    assert [(f.signature, f.detail) for f in told(weaker)] == [
        ("rms_norm / contract / gone", ""),
        (
            "layer_norm / contract / arithmetic.variance",
            "head cannot be called with the cases that base's contract has",
        ),
        (
            "layer_norm / contract / space.max_cols",
            "head cannot be called with the cases that base's contract has",
        ),
    ]
    assert all(found.blocks and found.place == PLACE for found in told(weaker))


def test_weakened_contract_names_three_failures_at_most() -> None:
    weaker = Weakened({"layer_norm": [Change("a", "1", "2", True, "less")]})
    for _ in range(5):
        assert weaker.excuses(failure(), Bench("pass", spec=LAX))
    assert told(weaker)[0].detail == "by base's contract head fails: y[0]=1; y[0]=1; y[0]=1"
