"""Text in Markdown as GitHub shows it: whatever it holds, it is shown and never obeyed."""

from __future__ import annotations

import re

MAX_TEXT = 600
"""Characters of one text: a message is one line, but a compiler's words may be a page."""

SPECIAL = re.compile(r"[&<>|`*_\[\]~\\#@$]")
"""What Markdown, HTML or GitHub's additions to it may take for more than text."""

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def plain(text: str) -> str:
    """Text that is shown as it is, cut where it is long; fit for the cell of a table."""
    text = text.strip()
    if len(text) > MAX_TEXT:
        text = f"{text[: MAX_TEXT - 3]}..."
    # What is written as a number is never markup.
    shown = SPECIAL.sub(lambda match: f"&#{ord(match[0])};", CONTROL.sub("\ufffd", text))
    return "<br>".join(shown.splitlines())


def code(words: object) -> str:
    """Words in the type of code. Not between backticks, which hold no backtick and no bar."""
    text = plain(str(words or ""))
    return text and f"<code>{text}</code>"


def size(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text.encode("utf-8"))
