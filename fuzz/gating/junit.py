"""The gate's result as JUnit XML, which every CI system can show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from fuzz.gating import wording
from fuzz.gating.outcome import GateFinding, GateResult, Kind

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML 1.0 file can hold, not even as a reference."""

JOB = "ln-fuzz gate"
"""Name of the whole, and of the suite that tells whether the gate could do its job."""

ASPECTS: dict[Kind, str] = {
    "regression": "regressions",
    "weakened contract": "contract",
    "does not compile": "compile",
    "spills more": "compile",
}
"""The test that a finding of this kind is told in; "values" for the others."""

Status = Literal["passed", "failure", "error", "skipped"]


@dataclass(frozen=True)
class _Test:
    """One test of a suite. ``output`` is what it has to say besides what it ended with."""

    name: str
    status: Status = "passed"
    message: str = ""
    detail: str = ""
    output: str = ""
    seconds: float = 0.0


def junit(result: GateResult) -> str:
    """A suite for the gate itself, and one a target: values, contract, compile, regressions.

    Characters that XML cannot hold become U+FFFD.
    """
    targets = [target.target for target in result.affected]
    targets += [finding.target for finding in result.findings]
    if result.compiled is not None:
        targets += [kernel.target for kernel in result.compiled.kernels]
    suites = {JOB: [_job(result)]}
    suites |= {target: _tests(target, result) for target in dict.fromkeys(targets)}
    every = [test for tests in suites.values() for test in tests]
    sums = _sums(every)
    # The one sum that the root must not have in the schema that Jenkins checks against.
    del sums["skipped"]
    root = ElementTree.Element("testsuites", {"name": JOB, **sums})
    for name, tests in suites.items():
        suite = ElementTree.SubElement(root, "testsuite", {"name": _clean(name), **_sums(tests)})
        properties = ElementTree.SubElement(suite, "properties")
        for key, value in _properties(result).items():
            said = {"name": _clean(key), "value": _clean(value)}
            ElementTree.SubElement(properties, "property", said)
        for test in tests:
            _append(suite, name, test)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _properties(result: GateResult) -> dict[str, str]:
    return {
        "head": str(result.head),
        "head_sha": result.head.sha,
        "base": str(result.base),
        "base_sha": result.base.sha,
        "plan_hash": result.plan_hash,
        "seed": str(result.seed),
        "planned": str(result.planned),
        "executed": str(result.executed),
        "device": result.device,
        "device_name": result.device_name,
        **{f"version_{name}": version for name, version in result.versions.items()},
    }


def _job(result: GateResult) -> _Test:
    """Whether the gate could do its job, and what it has to say of no target."""
    output = "\n".join([wording.verdict(result), *result.notes])
    if not result.errors:
        return _Test("job", output=output, seconds=result.seconds)
    message, detail = wording.first_line(result.errors[0]), "\n\n".join(result.errors)
    return _Test("job", "error", message, detail, output, result.seconds)


def _tests(target: str, result: GateResult) -> list[_Test]:
    included = {t.target: t for t in result.affected}.get(target)
    reasons = {"values": "", "contract": "", "compile": "", "regressions": ""}
    if included is not None and not included.included:
        reasons["values"] = f"not affected: {included.reason}"
    elif not result.executed:
        reasons["values"] = "no case was executed"
    if result.compiled is None or all(k.target != target for k in result.compiled.kernels):
        reasons["compile"] = "nothing of it was compiled"
    if not result.regressions:
        reasons["regressions"] = "no stored failure was replayed"
    return [_test(aspect, target, result, why) for aspect, why in reasons.items()]


def _test(aspect: str, target: str, result: GateResult, skipped: str) -> _Test:
    """What was found of one aspect of a target. ``skipped``: why it was not looked at, if so."""
    findings = [
        finding
        for finding in wording.ordered(result.findings)
        if finding.target == target and _aspect(finding) == aspect
    ]
    blocking = [finding for finding in findings if finding.blocks]
    said = [_words(finding, result) for finding in findings if not finding.blocks]
    if aspect == "compile" and result.compiled is not None:
        concerns = wording.concerns(result.compiled)
        said += [concern.message for concern in concerns if concern.kernel.target == target]
    output = "\n\n".join(said)
    if blocking:
        # One failure a test: readers of these files show the first alone.
        message = f"{wording.counted(blocking)}: {blocking[0].message}"
        detail = "\n\n".join(_words(finding, result) for finding in blocking)
        return _Test(aspect, "failure", message, detail, output)
    if skipped:
        return _Test(aspect, "skipped", skipped, output=output)
    return _Test(aspect, output=output)


def _aspect(finding: GateFinding) -> str:
    if finding.kind in ASPECTS:
        return ASPECTS[finding.kind]
    # What was accepted has lost its kind, but not its signature: target / contract / field.
    _, _, rest = finding.signature.partition(" / ")
    named = rest.partition(" / ")[0]
    return named if named in ("contract", "compile") else "values"


def _words(finding: GateFinding, result: GateResult) -> str:
    command = wording.replay_command(finding, result.store)
    lines = (
        f"{finding.kind}: {finding.signature}",
        finding.message,
        finding.case,
        finding.detail,
        f"at {finding.place}" if finding.place is not None else "",
        f"replay: {command}" if command else "",
    )
    return "\n".join(filter(None, lines))


def _append(suite: ElementTree.Element, suite_name: str, test: _Test) -> None:
    said = {"name": test.name, "classname": _clean(suite_name), "time": f"{test.seconds:.3f}"}
    element = ElementTree.SubElement(suite, "testcase", said)
    if test.status != "passed":
        said = {"message": _clean(test.message), "type": test.status}
        ElementTree.SubElement(element, test.status, said).text = _clean(test.detail)
    if test.output:
        ElementTree.SubElement(element, "system-out").text = _clean(test.output)


def _sums(tests: Sequence[_Test]) -> dict[str, str]:
    return {
        "tests": str(len(tests)),
        "failures": _count(tests, "failure"),
        "errors": _count(tests, "error"),
        "skipped": _count(tests, "skipped"),
        "time": f"{sum(test.seconds for test in tests):.3f}",
    }


def _count(tests: Iterable[_Test], status: Status) -> str:
    return str(sum(test.status == status for test in tests))


def _clean(text: str) -> str:
    return NOT_XML.sub("\ufffd", text)
