"""The JUnit file is one that CI systems read, and tells what the gate found."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from fuzz.gating.junit import JOB, junit
from fuzz.gating.outcome import Affected, GateResult
from tests.fuzz.gating.examples import (
    PLAN,
    UNTOUCHED,
    blocked,
    compile_report,
    finding,
    pre_existing,
    result,
    weakened,
)

# What the schema allows that Jenkins checks such a file against, as far as it is used here.
ATTRIBUTES = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, set()),
    "testsuite": (
        {"name", "time", "tests", "failures", "errors", "skipped"},
        {"name", "tests", "failures", "errors"},
    ),
    "properties": (set(), set()),
    "property": ({"name", "value"}, {"name", "value"}),
    "testcase": ({"name", "classname", "time"}, {"name"}),
    "failure": ({"message", "type"}, set()),
    "error": ({"message", "type"}, set()),
    "skipped": ({"message", "type"}, set()),
    "system-out": (set(), set()),
}
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase"},
    "properties": {"property"},
    "testcase": {"failure", "error", "skipped", "system-out"},
}
ENDS = ("failure", "error", "skipped")


def read(shown: GateResult) -> ElementTree.Element:
    """The file parsed, once it is seen to keep the schema's rules and its own sums."""
    text = junit(shown)
    root = ElementTree.fromstring(text.encode("utf-8"))
    assert root.tag == "testsuites"
    for element in root.iter():
        allowed, required = ATTRIBUTES[element.tag]
        assert required <= element.attrib.keys() <= allowed, element.tag
        assert {child.tag for child in element} <= CHILDREN.get(element.tag, set())
        time = element.get("time")
        assert time is None or re.fullmatch(r"\d+\.\d{3}", time)
    for part in (root, *root.iter("testsuite")):
        cases = list(part.iter("testcase"))
        counts = {"tests": len(cases), "failures": 0, "errors": 0, "skipped": 0}
        for case in cases:
            ends = [child.tag for child in case if child.tag in ENDS]
            assert len(ends) <= 1
            for end in ends:
                counts[{"failure": "failures", "error": "errors"}.get(end, end)] += 1
        for name, count in counts.items():
            assert part.get(name, str(count)) == str(count)
    names = [suite.get("name") for suite in root]
    assert len(names) == len(set(names))
    return root


def case(root: ElementTree.Element, suite: str, name: str) -> ElementTree.Element:
    (found,) = root.findall(f"testsuite[@name='{suite}']/testcase[@name='{name}']")
    assert found.get("classname") == suite
    return found


def ended(root: ElementTree.Element, suite: str, name: str) -> str:
    return next((c.tag for c in case(root, suite, name) if c.tag in ENDS), "passed")


def test_junit_has_a_suite_for_each_target() -> None:
    root = read(blocked())
    assert [suite.get("name") for suite in root] == [
        JOB,
        "layer_norm",
        "native_layer_norm",
        "layer_norm_residual",
        "fused_bias_layer_norm",
    ]
    for suite in root[1:]:
        names = [test.get("name") for test in suite.iter("testcase")]
        assert names == ["values", "contract", "compile", "regressions"]


def test_junit_tells_blocking_findings_as_failures_of_their_test() -> None:
    root = read(blocked())
    failure = case(root, "layer_norm", "values").find("failure")
    assert failure is not None and failure.text is not None
    assert failure.get("message") == f"2 introduced: {finding().message}"
    for words in ("replay: ln-fuzz replay 3f9ac2d41b07", "replay: ln-fuzz replay 90b1c2d3e4f5"):
        assert words in failure.text
    assert "at ln_kernels/layer_norm.py:88" in failure.text
    contract = case(root, "layer_norm", "contract").find("failure")
    assert contract is not None
    assert contract.get("message") == f"1 weakened contract: {weakened().message}"
    assert ended(root, JOB, "job") == "passed"
    for other in ("native_layer_norm", "layer_norm_residual"):
        assert ended(root, other, "values") == ended(root, other, "contract") == "passed"
        assert case(root, other, "compile").find("system-out") is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("introduced", "values"),
        ("flaky", "values"),
        ("regression", "regressions"),
        ("weakened contract", "contract"),
        ("does not compile", "compile"),
    ],
)
def test_junit_tells_a_finding_in_the_test_of_its_kind(kind: str, name: str) -> None:
    root = read(result(finding(kind), compiled=compile_report()))
    for test in ("values", "contract", "compile", "regressions"):
        assert (ended(root, "layer_norm", test) == "failure") == (test == name)


def test_junit_tells_what_does_not_block_as_output_of_a_passed_test() -> None:
    accepted = finding("accepted", signature="layer_norm / contract / atol", message="accepted so")
    root = read(result(pre_existing(), accepted))
    assert ended(root, "layer_norm", "values") == "passed"
    assert "pre-existing: " in (case(root, "layer_norm", "values").findtext("system-out") or "")
    assert ended(root, "layer_norm", "contract") == "passed"
    assert "accepted so" in (case(root, "layer_norm", "contract").findtext("system-out") or "")


def test_junit_skips_what_was_not_looked_at_and_says_why() -> None:
    root = read(result(affected=(Affected("t", False, UNTOUCHED), Affected("u", True, "it"))))
    (skipped,) = case(root, "t", "values")
    assert skipped.get("message") == f"not affected: {UNTOUCHED}"
    assert ended(root, "u", "values") == "passed"
    assert ended(root, "u", "compile") == "skipped"
    assert ended(root, "u", "regressions") == "passed"
    root = read(result(executed=0, regressions=0, affected=(Affected("u", True, "it"),)))
    assert ended(root, "u", "values") == "skipped"
    assert ended(root, "u", "regressions") == "skipped"


def test_junit_of_a_gate_without_a_verdict_has_an_error() -> None:
    root = read(result(errors=["no base\nwhere", "and no head"], notes=["a note"]))
    (error, output) = case(root, JOB, "job")
    assert (error.tag, error.get("message")) == ("error", "no base")
    assert error.text == "no base\nwhere\n\nand no head"
    assert output.text == "NO VERDICT: no base (and 1 more error)\na note"


def test_junit_names_plan_commits_device_and_versions() -> None:
    for suite in read(blocked()):
        said = {p.get("name"): p.get("value") for p in suite.iter("property")}
        assert said["plan_hash"] == PLAN
        assert said["seed"] == "7"
        assert said["head"] == "HEAD (0123456789, with uncommitted changes)"
        assert said["base_sha"] == "fedcba9876543210fedcba9876543210fedcba98"
        assert (said["device"], said["device_name"]) == ("cuda", "NVIDIA H200")
        assert said["version_triton"] == "3.6.0"


def test_junit_replaces_what_no_xml_can_hold() -> None:
    bad = "a\x00b\x1b[31m\x0b\ud800\uffff <&\"'>]]> \u00e9\U0001f600"
    good = "a\ufffdb\ufffd[31m\ufffd\ufffd\ufffd <&\"'>]]> \u00e9\U0001f600"
    shown = result(
        finding(message=bad, target=bad, case=f"{bad}\ttab"),
        pre_existing(),
        errors=[bad],
        notes=[bad],
        device_name=bad,
        versions={"torch": bad},
    )
    root = read(shown)
    suite = next(s for s in root if s.get("name") == good)
    failure = suite.find("testcase/failure")
    assert failure is not None and failure.text is not None
    assert failure.get("message") == f"1 introduced: {good}"
    assert f"{good}\ttab" in failure.text
    (error, _) = case(root, JOB, "job")
    assert error.text == good
