"""The file of accepted failures is read strictly, and accepts what it names and no more."""

from __future__ import annotations

from datetime import date

import pytest

from fuzz.gating.accepted import Entry, apply, read
from fuzz.gating.outcome import BLOCKING, GateFinding, Kind
from fuzz.jobs.setup import UsageError

TODAY = date(2026, 11, 21)
SIGNATURE = "layer_norm / values_within_bound / y / half / everywhere"


def entry_text(
    signature: str = f'"{SIGNATURE}"',
    reason: str = '"The old mask."',
    link: str = '"https://example.org/12"',
    expires: str = "2027-01-31",
) -> str:
    return (
        f"[[accepted]]\nsignature = {signature}\nreason = {reason}\n"
        f"link = {link}\nexpires = {expires}\n"
    )


def entry(signature: str = SIGNATURE, expires: date = TODAY) -> Entry:
    return Entry(signature, "The old mask.", "https://example.org/12", expires, "a.toml, entry 1")


def finding(kind: Kind = "introduced", signature: str = SIGNATURE, detail: str = "") -> GateFinding:
    return GateFinding(kind, "layer_norm", signature, "y[0]=1, but should be 2", detail=detail)


def judged(*findings: GateFinding, by: Entry, ran: tuple[str, ...] = ("layer_norm",)):
    return apply([by], findings, today=TODAY, ran_targets=ran)


# --- reading --------------------------------------------------------------------------------------


def test_file_is_read_entry_by_entry(tmp_path):
    path = tmp_path / "accepted.toml"
    path.write_text(
        "# Reviewed.\n"
        + entry_text(reason='"""The old\n   mask."""')
        + entry_text(signature="'a.py:f / compile / cuda 80'", link='"http://x"')
    )
    first, second = read(path, today=TODAY)
    assert first == Entry(
        SIGNATURE,
        "The old mask.",
        "https://example.org/12",
        date(2027, 1, 31),
        f"{path}, entry 1",
    )
    assert (second.signature, second.link) == ("a.py:f / compile / cuda 80", "http://x")


def test_file_that_is_missing_or_empty_accepts_nothing(tmp_path):
    assert read(tmp_path / "missing.toml", today=TODAY) == ()
    (tmp_path / "empty.toml").write_text("# Nothing yet.\n")
    assert read(tmp_path / "empty.toml", today=TODAY) == ()


GOOD = entry_text(signature="'another'")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (GOOD + entry_text() + "until = 2027-01-31\n", "entry 2: until=.* is not known, must be"),
        (GOOD + "[[accepted]]\nreason = 'x'\n", "entry 2: signature is missing"),
        (entry_text().replace("reason", "# "), "entry 1: reason is missing"),
        (entry_text().replace("link", "# "), "entry 1: link is missing"),
        (entry_text().replace("expires", "# "), "entry 1: expires is missing"),
        (GOOD + entry_text(reason="' '"), "entry 2: reason=' ', must be a text that is not empty"),
        (entry_text(signature="''"), "entry 1: signature='', must be a text"),
        (entry_text(signature="3"), "entry 1: signature=3, must be a text"),
        (entry_text(signature="'layer_norm / *'"), r"signature='layer_norm / \*', .* no wildcards"),
        (entry_text(link="'example.org/12'"), "link='example.org/12', must begin with http"),
        (entry_text(link="'ftp://example.org'"), "link='ftp://example.org', must begin with http"),
        (entry_text(link="'https://'"), "link='https://', must begin with http"),
        (entry_text(expires="'2027-01-31'"), "expires='2027-01-31', must be a date without quotes"),
        (entry_text(expires="2027-01-31T10:00:00"), "expires=.*, must be a date"),
        (entry_text(expires="2027-11-23"), "expires='2027-11-23', .* at most: 2027-11-22"),
        (GOOD + GOOD, "entry 2: signature='another', is that of .*accepted.toml, entry 1 too"),
        ("accepted = 'all'\n", r"accepted must be entries that begin with \[\[accepted\]\]"),
        ("[accepted]\nsignature = 'x'\n", r"accepted must be entries that begin with"),
        ("accepted = ['all']\n", r"entry 1: 'all', must begin with \[\[accepted\]\]"),
        ("[[ignored]]\n", r"'ignored' is not known, entries begin with \[\[accepted\]\]"),
        (GOOD + "reason\n", r"not valid TOML: .*\(at line 6"),
        (entry_text(expires="2027-02-30"), r"not valid TOML: .*\(at line 5"),
        (b"# ok\n\xff", r"not UTF-8 text \(byte 5\)"),
    ],
)
def test_file_at_fault_is_refused_by_place_and_rule(tmp_path, text, error):
    path = tmp_path / "accepted.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=error) as raised:
        read(path, today=TODAY)
    assert str(raised.value).startswith(str(path))


def test_file_may_accept_for_a_year(tmp_path):
    path = tmp_path / "accepted.toml"
    path.write_text(entry_text(expires="2027-11-22"))
    assert read(path, today=TODAY)[0].expires == date(2027, 11, 22)


def test_folder_in_the_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="Is a directory"):
        read(tmp_path, today=TODAY)


# --- accepting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BLOCKING)
def test_entry_accepts_whatever_blocks(kind):
    (found,), notes = judged(finding(kind, detail="2 of 3 runs fail"), by=entry())
    assert found.kind == "accepted"
    assert not found.blocks
    assert found.detail == (
        f"{kind}, 2 of 3 runs fail; accepted until 2026-11-21: The old mask. https://example.org/12"
    )
    assert (found.signature, found.message) == (SIGNATURE, "y[0]=1, but should be 2")
    assert notes == ()


def test_entry_accepts_every_finding_of_its_signature_and_no_other():
    other = finding(signature=SIGNATURE + " too")
    found, _ = judged(finding(), other, finding("flaky"), by=entry())
    assert [f.kind for f in found] == ["accepted", "introduced", "accepted"]
    assert found[1] is other


def test_entry_leaves_what_does_not_block():
    before = finding("pre-existing")
    assert judged(before, by=entry()) == ((before,), ())


def test_entry_accepts_to_the_end_of_its_day_and_is_told_of_after():
    assert judged(finding(), by=entry(expires=TODAY))[0][0].kind == "accepted"
    expired = entry(expires=date(2026, 11, 20))
    (found,), notes = judged(finding(), by=expired)
    assert found == finding()
    assert notes == (
        f"a.toml, entry 1: '{SIGNATURE}' expired on 2026-11-20: it accepts nothing any more",
    )
    # Its target did not run, but the file is out of date all the same.
    assert judged(by=expired, ran=()) == ((), notes)


def test_entry_that_was_not_seen_is_told_of():
    assert judged(by=entry())[1] == (f"a.toml, entry 1: '{SIGNATURE}' was not seen: remove it?",)


def test_entry_of_what_is_fixed_was_not_seen():
    fixed = finding("fixed")
    found, notes = judged(fixed, by=entry())
    assert found == (fixed,)
    assert notes == (f"a.toml, entry 1: '{SIGNATURE}' was not seen: remove it?",)


def test_entry_that_expired_and_was_not_seen_is_told_of_once():
    (note,) = judged(by=entry(expires=date(2026, 1, 1)))[1]
    assert "expired on 2026-01-01" in note
    assert note.endswith("and was not seen: remove it?")


@pytest.mark.parametrize("ran", [(), ("layer", "layer_norm_residual", "residual")])
def test_entry_of_a_target_that_did_not_run_is_left_alone(ran):
    assert judged(by=entry(), ran=ran) == ((), ())


def test_entry_of_a_target_in_a_file_belongs_to_it():
    by = entry("my_norm.py:norm / contract / dtypes")
    assert judged(by=by, ran=("my_norm.py:norm",))[1] != ()
    assert judged(by=by, ran=("my_norm.py:norm_2",))[1] == ()
