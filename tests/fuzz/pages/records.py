"""Runs and failures as a history gives them, all but what a test is about."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from fuzz.history import FailureRecord, RunRecord
from fuzz.pages.nights import Night
from fuzz.verdict import Signature
from tests.fuzz.pages.example import story

REVISION = "0123456789abcdef"


def run_of(run_id: str, day: int = 19, hour: int = 22) -> RunRecord:
    began = f"2026-11-{day:02}T{hour:02}:00:00+00:00"
    return RunRecord(
        id=run_id,
        kind="night",
        shard=1,
        shards=1,
        started=began,
        ended=began.replace(":00:00+", ":30:00+"),
        outcome="ended",
        seed=7,
        device="cuda",
        device_name="NVIDIA H200",
        workers=8,
        versions={"triton": "3.6.0"},
        revision=REVISION,
        folder="runs/1",
        seconds=1800.0,
        executed=900,
        failed=0,
        skipped=0,
        faulty=0,
        keys=12,
        part_seconds={"kernel": 3.0, "oracle": 1.0},
        notes=(),
    )


def night_of(run_id: str, day: int = 19) -> Night:
    return Night((run_of(run_id, day),))


def failure_of(
    signature: str, *, region: str = "everywhere", failed_by: str = "y", **changes: Any
) -> FailureRecord:
    """A failure that was seen in the run r1 alone, and is open."""
    seen = "2026-11-19T22:10:00+00:00"
    failure = story()[0].failure
    kept = Signature(signature, failed_by, "values_within_bound", "half", region)
    record = FailureRecord(
        signature=signature,
        id=hashlib.sha256(signature.encode("utf-8", "replace")).hexdigest()[:12],
        target=signature,
        message="y[0]=1, but should be 2",
        first_seen=seen,
        first_run="r1",
        last_seen=seen,
        last_run="r1",
        times=1,
        fixed_seen=None,
        fixed_run=None,
        failure=replace(failure, signature=kept),
        map=None,
    )
    return replace(record, **changes)
