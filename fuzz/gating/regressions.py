"""Stored failures that must not come back: which can be run here, and what their replay means."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from fuzz.checks import sanitizer_of
from fuzz.contract import Change, differences
from fuzz.gating.covers import asked
from fuzz.gating.sides import Side
from fuzz.gating.trial import Judged, classify
from fuzz.jobs.failures import signatures
from fuzz.replay import Replayed
from fuzz.spec import TargetSpec
from fuzz.store import Failure, StoreError, read
from fuzz.verdict import Signature


def split(paths: Iterable[Path], head: Side, device: str) -> tuple[tuple[Path, ...], list[str]]:
    """The files that can be replayed on this device, and notes on the others.

    What a file suffers from is for its replay to say.
    """
    kept, notes = [], []
    for path in paths:
        needs = _needs(path, head, device)
        if needs:
            notes.append(f"{path}: was not replayed: {needs}")
        else:
            kept.append(path)
    return tuple(kept), notes


def judge_replay(
    item: Replayed, stored: Failure, head: Side, base: Side, *, affected: bool
) -> Judged | None:
    """What a replay on head means for the change; None: nothing.

    ``affected``: the change can have to do with the target; only then is base asked for what it
    has mended.
    """
    target = stored.case.target
    head.need(target)
    base.need(target)
    if item.changes:
        return _passes_by_contract(item.changes, stored, head, base)
    if not item.is_fixed:
        failure = dataclasses.replace(stored, signature=_signature_now(stored, head))
        certain = item.outcome == "REPRODUCED"
        return classify(
            failure, (), head.bench, base.bench, certain=certain, when_back="regression"
        )
    before = base.bench.specs.get(target)
    question = asked(before, stored.case) if affected and before is not None else ""
    if isinstance(question, str):
        return None
    seen = base.bench.run(question, stored.signature)
    if isinstance(seen, str) or not seen.failed:
        return None
    return Judged("fixed", f"{seen.failed} of {seen.runs} runs fail on base, none on head")


def _needs(path: Path, head: Side, device: str) -> str:
    """What it takes to replay a file that is not here; empty where nothing is known to lack."""
    try:
        stored = read(path)
    except StoreError:
        return ""
    tool = sanitizer_of(stored.signature)
    if tool is not None and device != "cuda":
        return f"it takes {tool}, and with it a GPU"
    head.need(stored.case.target)
    spec = head.bench.specs.get(stored.case.target)
    if spec is not None and device not in spec.devices:
        return f"its target runs on {', '.join(spec.devices)}, not on {device}"
    return ""


def _signature_now(stored: Failure, head: Side) -> Signature:
    """The stored signature, or the one that the same case fails by today."""
    seen = head.bench.run(stored.case, stored.signature)
    if isinstance(seen, str) or seen.same or not seen.failed:
        return stored.signature
    return next(s for verdict in seen.verdicts for s in signatures(stored.case, verdict))


def _passes_by_contract(
    changes: tuple[Change, ...], stored: Failure, head: Side, base: Side
) -> Judged:
    """Of what passes for no other reason than that less is promised than once was."""
    target = stored.case.target
    told = "; ".join(str(change) for change in changes)
    before, now = base.bench.specs.get(target), head.bench.specs.get(target)
    if before is not None and now is not None and not _weaker(before, now):
        # Then it was not this change.
        return Judged("pre-existing", f"passes by a changed contract alone, as on base: {told}")
    judged = classify(stored, (), head.bench, base.bench, certain=True, when_back="regression")
    if judged.kind == "pre-existing":
        return judged
    return Judged("regression", f"passes by a changed contract alone: {told}")


def _weaker(before: TargetSpec, now: TargetSpec) -> bool:
    return any(change.weaker for change in differences(before, now))
