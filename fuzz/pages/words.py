"""Numbers, times and foreign text, as people read them."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable

CONTROL = re.compile(
    # No text: HTML has no place for them.
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
    # The last two of each further plane are no characters either.
    + "".join(
        f"{chr(plane * 0x10000 + 0xFFFE)}{chr(plane * 0x10000 + 0xFFFF)}" for plane in range(1, 17)
    )
    # Marks that turn the direction of what follows: a target's name must not rewrite the page.
    + "\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

TIMES = "\N{MULTIPLICATION SIGN}"
NOTHING = "\N{EN DASH}"
"""Stands where there is no number."""

UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))

LARGE = 1e5
SMALL = 1e-3
"""Ratios from and below these are written with a power of ten."""


def clean(text: str) -> str:
    """Text without what a page cannot hold; whatever stood there is marked."""
    return CONTROL.sub("\ufffd", text)


def clipped(text: str, most: int) -> str:
    """At most so many characters, and a mark where there were more."""
    return text if len(text) <= most else f"{text[: most - 2]} …"


def number(value: float) -> str:
    """1,024,512."""
    return f"{value:,.0f}"


def plural(count: int, thing: str) -> str:
    """1 night, 2 nights."""
    return f"{number(count)} {thing}{'' if count == 1 else 's'}"


def short(value: float) -> str:
    """A count in at most four characters: 940, 1.2k, 15k, 1.2M."""
    for unit, letter in UNITS:
        # 999.6 k would be written as 1000k.
        if value >= 0.9995 * unit:
            scaled = value / unit
            return f"{scaled:.1f}{letter}" if scaled < 9.95 else f"{scaled:.0f}{letter}"
    return f"{value:.0f}"


def ratio(value: float, digits: int = 3) -> str:
    """An error/bound in so many digits, more where they would hide that it exceeds 1."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞"
    if value and not SMALL <= value < LARGE:
        return power_of_10(value)
    while value > 1 and float(f"{value:.{digits}g}") == 1 and digits < 9:
        digits += 1
    if float(f"{value:.{digits}g}") in (0, 1):
        return f"{value:.0f}"
    # Fixed digits stand below each other: 0.90, 0.62.
    decimals = max(0, digits - 1 - math.floor(math.log10(value)))
    return f"{value:,.{decimals}f}"


def power_of_10(value: float) -> str:
    """1.3 times 10 to the 5 with signs for both; the power alone where it is that."""
    mantissa, exponent = f"{value:.1e}".split("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPT)}"
    return power if mantissa == "1.0" else f"{mantissa}{TIMES}{power}"


def share(part: float, whole: float) -> str:
    """A percentage; what is more than nothing is not written as 0 %."""
    if not whole:
        return NOTHING
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.1f} %"


def rate(cases: float, seconds: float) -> str:
    """Cases a second."""
    if not seconds:
        return NOTHING
    value = cases / seconds
    return f"{number(value)} cases/s" if value >= 10 else f"{value:.2g} cases/s"


def duration(seconds: float) -> str:
    """2 h 5 min, 12 min, 40 s."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(text: str | None) -> datetime.datetime | None:
    """An ISO 8601 time in UTC; None where it is none."""
    try:
        parsed = datetime.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    if parsed.tzinfo is None:
        return parsed.replace(tzinfo=datetime.UTC)
    return parsed.astimezone(datetime.UTC)


def day(text: str | None) -> str:
    """20 Nov; what is no time is shown as it is."""
    at = moment(text)
    return f"{at.day} {at:%b}" if at else text or NOTHING


def minute(text: str | None) -> str:
    """20 Nov 2026, 22:00 UTC; what is no time is shown as it is."""
    at = moment(text)
    return f"{at.day} {at:%b %Y, %H:%M} UTC" if at else text or NOTHING


def listed(words: Iterable[str], most: int) -> str:
    """Words with commas, the first of them where there are many."""
    all_of = list(words)
    more = f" and {len(all_of) - most} more" if len(all_of) > most else ""
    return ", ".join(all_of[:most]) + more


def revision(text: str) -> str:
    """A revision as short as people write it; a mark behind it (-dirty, +) is kept."""
    match = re.fullmatch(r"([0-9a-f]{12,64})(\W.*)?", text)
    return match[1][:9] + (match[2] or "") if match else text
