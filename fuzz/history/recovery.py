"""What the journals of a run hold that nobody has reported."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

from fuzz.case import canonical_json, from_json
from fuzz.history.records import RunRecord
from fuzz.inputs import digest, make_values
from fuzz.jobs.failures import target_file
from fuzz.jobs.totals import Totals
from fuzz.process.journal import (
    JournalError,
    Mark,
    entries_since,
    finding_data,
    finding_of,
    journals,
)
from fuzz.runner import Result
from fuzz.store import Failure
from fuzz.verdict import Signature

CHUNK = 500
"""Cases that are added at once: a kill while a history is being recovered costs none either."""

_FAULT = "internal error ("
"""How the reason of a skip begins that is an error of the harness; a journal says no more of it."""

Sighting = tuple[str, str, str]
"""Signature, case and findings of a failing case, each as JSON."""


def unreported(path: Path, mark: Mark) -> Iterator[tuple[Totals, Mark]]:
    """The verdicts of a journal behind a mark as sums, each with the mark behind them.

    Raises: JournalError, after what could be read.
    """
    totals, count = Totals(), 0
    try:
        for entry in entries_since(path, mark):
            reason = entry.verdict.reason
            fault = reason if reason.startswith(_FAULT) else ""
            totals.add(Result(entry.case, entry.verdict, fault=fault))
            mark = entry.mark
            count += 1
            if count % CHUNK == 0:
                yield totals, mark
                totals = Totals()
    except JournalError:
        yield totals, mark
        raise
    yield totals, mark


def last_word(folder: Path) -> datetime.datetime | None:
    """When a journal in a folder was last written to, None where there is none."""
    times = [path.stat().st_mtime for path in journals(folder).values() if path.exists()]
    return datetime.datetime.fromtimestamp(max(times), datetime.UTC) if times else None


def sighting_of(signature: Signature, result: Result) -> Sighting:
    """What must be kept of a failing case until its failure is told."""
    return (
        json.dumps(vars(signature)),
        canonical_json(result.case),
        json.dumps([finding_data(finding) for finding in result.verdict.findings]),
    )


def failure_of(sighting: Sighting, seen: str, run: RunRecord) -> Failure:
    """The failure behind a case that nobody came to shrink or to confirm."""
    signature, text, findings = sighting
    case = from_json(json.loads(text))
    return Failure(
        signature=Signature(**json.loads(signature)),
        case=case,
        original=case,
        inputs_digest=digest(make_values(case)),
        findings=tuple(finding_of(finding) for finding in json.loads(findings)),
        device=run.device,
        device_name=run.device_name,
        versions=run.versions,
        first_seen=seen,
        target_file=target_file(case.target),
    )
