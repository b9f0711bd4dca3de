"""The table of rates: what limits them, and one way through all of it in the interpreter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ci import night_rates
from ci.night_rates import compiling, costs, limit, on
from fuzz.jobs.setup import Setup
from fuzz.process.kernel_worker import DeviceInfo


def report(**changes: Any) -> dict[str, Any]:
    """Two runners that do 500 cases/s each, whose engines wait for a quarter of the time."""
    warm = {
        "executed": 10_000,
        "cases_per_second": 1000.0,
        "cases_per_second_a_runner": 500.0,
        "waited": 0.25,
        "kernel_process": {"busy": 1.0, "launched": 0.25},
    }
    cold = {"executed": 1400, "seconds": 5.6}
    return {"cold": cold, "warm": {**warm, **changes}, "cores_busy": 0.5}


def test_compiling_is_what_a_warm_pass_does_not_take() -> None:
    # 1.4 s of 5.6 would have done.
    assert compiling(report()) == pytest.approx(0.75)
    assert compiling(report(cases_per_second=100.0)) == 0.0


def test_slower_side_is_the_limit() -> None:
    assert costs(report()) == pytest.approx((1.5, 1.0, 0.25))
    assert limit(report()) == "engine"
    assert limit(report(waited=0.9)) == "kernel process"
    assert limit({**report(), "cores_busy": 0.95}) == "cores"


def test_runners_are_so_many_on_each_of_the_first_gpus() -> None:
    setup = Setup(DeviceInfo("cuda", "GPU", ("0", "1", "2")), (), 1)
    some = on(setup, 2, 4)
    assert (some.workers, some.info.gpus) == (8, ("0", "1"))
    cpu = on(Setup(DeviceInfo("cpu", "interpreter"), (), 1), 0, 4)
    assert (cpu.workers, cpu.info.gpus) == (4, ())


@pytest.mark.slow
def test_rates_are_measured_in_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "as before")
    path = tmp_path / "rates.json"
    options = ["--device", "cpu", "--target", "layer_norm", "--runners", "1", "2", "--cases", "32"]
    assert night_rates.main([*options, "--seconds", "4", "--json", str(path)]) == 0
    lines = json.loads(path.read_text(encoding="utf-8"))
    assert [(line["gpus"], line["runners"]) for line in lines] == [(0, 1), (0, 2)]
    for line in lines:
        assert line["cold"]["executed"] > 20
        assert line["warm"]["executed"] > 0
        assert line["warm"]["faults"] == []
        assert 3.0 < line["warm"]["seconds"] < 60.0
        assert 0.0 < line["warm"]["waited"] < 1.0
    # A heading, and two lines each.
    assert len(capsys.readouterr().out.splitlines()) == 2 + 2 * 2
