"""Numbers and times are written for people, and never say the opposite of what they are."""

from __future__ import annotations

import math

import pytest

from fuzz.pages import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.4956, "0.496"),
        (0.9, "0.900"),
        (1.0, "1"),
        (12.34, "12.3"),
        (159.2, "159"),
        (1585.0, "1,585"),
        (130_000.0, "1.3\N{MULTIPLICATION SIGN}10⁵"),
        (1e-9, "10⁻⁹"),
        (math.inf, "∞"),
        (math.nan, "NaN"),
    ],
)
def test_ratio_has_three_digits(value: float, text: str) -> None:
    assert words.ratio(value) == text


@pytest.mark.parametrize("value", [1.0004, 1.00000001])
def test_ratio_beyond_the_bound_does_not_look_like_the_bound(value: float) -> None:
    assert words.ratio(value) == str(value)
    assert words.ratio(value, 2) == str(value)


@pytest.mark.parametrize(
    ("count", "text"),
    [(7, "7"), (999, "999"), (1000, "1.0k"), (9_960, "10k"), (999_600, "1.0M"), (12e6, "12M")],
)
def test_short_count_has_four_characters(count: int, text: str) -> None:
    assert words.short(count) == text


def test_share_of_little_is_not_nothing() -> None:
    assert words.share(1, 1_000_000) == "< 0.1 %"
    assert words.share(0, 10) == "0 %"
    assert words.share(1, 3) == "33 %"
    assert words.share(0, 0) == words.NOTHING


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (600, "10 min"), (7200, "2 h 0 min"), (3590, "1 h 0 min")]
)
def test_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_times_are_told_in_one_zone() -> None:
    assert words.minute("2026-11-20T23:30:00+02:00") == "20 Nov 2026, 21:30 UTC"
    assert words.day("2026-11-20T23:30:00.123") == "20 Nov"
    assert words.minute("yesterday") == "yesterday"


def test_clipped_text_is_marked() -> None:
    assert words.clipped("abcdef", 6) == "abcdef"
    assert words.clipped("abcdefg", 6) == "abcd …"


def test_clean_text_keeps_what_is_text() -> None:
    assert words.clean("µ ≤ 10³\n漢字 🙂") == "µ ≤ 10³\n漢字 🙂"
    assert words.clean("a\x00b\u202ec\ud800\ufffed\U0001ffff") == "a\ufffdb\ufffdc" + (
        "\ufffd\ufffdd\ufffd"
    )


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("0123456789abcdef" * 2, "012345678"),
        ("0123456789ab-dirty", "012345678-dirty"),
        ("v1", "v1"),
    ],
)
def test_revision_is_as_short_as_people_write_it(text: str, short: str) -> None:
    assert words.revision(text) == short
