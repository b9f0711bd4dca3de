"""The text of an issue on what the last night has found that no night before it had open."""

from __future__ import annotations

from fuzz.case import describe
from fuzz.history import FailureRecord
from fuzz.jobs.markdown import code, plain, size
from fuzz.pages import words
from fuzz.pages.data import PageData
from fuzz.pages.failures import doubt, is_new

MAX_BYTES = 60_000
"""GitHub refuses a body of more than 65,536 characters."""

SPARE = 200
"""Bytes that are kept for the line that says what was left out."""


def issue_text(data: PageData) -> str:
    """Markdown, at most MAX_BYTES of UTF-8; empty where the last night found nothing of the kind.

    What is open since an earlier night has its issue already.
    """
    new = [f for f in data.failures if f.is_open and is_new(f, data)]
    back = [f for f in data.failures if f.is_open and f.signature in data.back]
    if not new and not back:
        return ""
    counts = [words.plural(len(new), "new failure")] if new else []
    counts += [f"{words.plural(len(back), 'failure')} back that had passed"] if back else []
    page = f"## ln-fuzz night: {', '.join(counts)}\n\n{plain(_night(data))}\n"
    items = [_item("NEW", failure) for failure in new]
    items += [_item("BACK", failure) for failure in back]
    for number, item in enumerate(items):
        if size(page) + size(item) + SPARE > MAX_BYTES:
            return f"{page}\n{len(items) - number:,} more are in the report.\n"
        page += item
    return page


def _night(data: PageData) -> str:
    """When, where and how much."""
    night = data.nights[-1]
    said = f"The night of {words.minute(night.started)}"
    if night.revisions:
        said += f" at {words.listed(map(words.revision, night.revisions), 2)}"
    cases = words.plural(night.executed, "case")
    said += f" on {words.listed(night.devices, 3)}: {words.number(night.failed)} of {cases} fail"
    return f"{said}; {words.plural(night.missing, 'shard')} missing" if night.missing else said


def _item(word: str, failure: FailureRecord) -> str:
    """One failure. Two spaces at the end of a line are a break."""
    lines = [
        plain(failure.message),
        plain(describe(failure.failure.case)),
        plain(doubt(failure.failure)),
        f"replay: {code(f'ln-fuzz replay {failure.id}.json')}",
    ]
    return f"\n### {word} {plain(failure.signature)}\n\n" + "  \n".join(filter(None, lines)) + "\n"
