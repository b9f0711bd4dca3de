"""Faults as the page shows them: what is new, what is open, what is mended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from fuzz.case import describe
from fuzz.history import FailureRecord
from fuzz.pages import failure_map, words
from fuzz.pages.data import PageData
from fuzz.store import Failure

MOST_OPEN, MOST_LINES, MOST_FIXED = 40, 100, 20
"""Open faults that are shown in full, those beyond that have a line each, and fixed ones."""

PICTURE_BYTES = 400_000
"""Of all pictures together. One of noise has 40 kB, an ordinary one 3."""

MOST_WORDS = 600
"""Characters of a message or a case."""

MOST_NAME = 100
"""Characters of a target's name: it may be the path of a file."""

SHORT_ID = 6
"""Digits of an id at least, as ``ln-fuzz replay`` takes them."""


@dataclass(frozen=True)
class Shown:
    """One fault. ``state`` is new, open or fixed; ``since`` tells the revisions it came between.

    ``doubt`` says that it does not come back each time. ``picture`` is None where there is none;
    ``summary`` then says why.
    """

    state: str
    target: str
    place: str
    message: str
    case: str
    replay: str
    first: str
    since: str
    last: str
    times: int
    fixed: str
    device: str
    doubt: str
    picture: Markup | None
    about: str
    summary: str


@dataclass(frozen=True)
class Failures:
    """All of them: open ones, new first; those of them that have a line alone; fixed ones."""

    open: tuple[Shown, ...]
    lines: tuple[Shown, ...]
    fixed: tuple[Shown, ...]
    n_open: int
    n_new: int
    n_fixed: int

    @property
    def left_out(self) -> int:
        """Open ones that are not on the page."""
        return self.n_open - len(self.open) - len(self.lines)


def failures_of(data: PageData) -> Failures:
    """The faults, those first that a reader should look at first."""
    seen_last = sorted(data.failures, key=lambda f: f.last_seen, reverse=True)
    still = sorted((f for f in seen_last if f.is_open), key=lambda f: not is_new(f, data))
    fixed = sorted(
        (f for f in seen_last if not f.is_open), key=lambda f: f.fixed_seen or "", reverse=True
    )
    show = _Show(data)
    return Failures(
        open=tuple(show(f) for f in still[:MOST_OPEN]),
        fixed=tuple(show(f) for f in fixed[:MOST_FIXED]),
        lines=tuple(show.brief(f) for f in still[MOST_OPEN : MOST_OPEN + MOST_LINES]),
        n_open=len(still),
        n_new=sum(is_new(f, data) for f in still),
        n_fixed=len(fixed),
    )


def short_id(failure_id: str, others: Iterable[str]) -> str:
    """The shortest beginning of an id, of SHORT_ID digits or more, that no other one shares."""
    others = [other for other in others if other != failure_id]
    for length in range(SHORT_ID, len(failure_id)):
        if not any(other.startswith(failure_id[:length]) for other in others):
            return failure_id[:length]
    return failure_id


def is_new(failure: FailureRecord, data: PageData) -> bool:
    """Whether it was first seen in the last night."""
    return bool(data.nights) and data.nights[-1].has(failure.first_run)


class _Show:
    """Shows one fault after the other, and pictures as long as there is room for them."""

    def __init__(self, data: PageData) -> None:
        self._data = data
        self._runs = data.runs
        self._ids = [failure.id for failure in data.failures]
        self._room = PICTURE_BYTES

    def brief(self, failure: FailureRecord) -> Shown:
        """A fault without its picture."""
        return self._shown(failure, None, "")

    def __call__(self, failure: FailureRecord) -> Shown:
        """A fault with its picture, if it has one."""
        if failure.map is None:
            return self._shown(failure, None, "No picture: this fault is not about elements.")
        picture = failure_map.draw(failure.map)
        if len(picture.encode()) > self._room:
            return self._shown(failure, None, "No picture: the page has too many of them.")
        self._room -= len(picture.encode())
        summary = failure_map.summary(failure.map)
        return self._shown(failure, picture, f"{summary[0].upper()}{summary[1:]}.")

    def _shown(self, failure: FailureRecord, picture: Markup | None, summary: str) -> Shown:
        kept = failure.failure
        signature = kept.signature
        parts = (signature.check, signature.output, signature.dtype_class, signature.region)
        state = "new" if is_new(failure, self._data) else "open"
        return Shown(
            state=state if failure.is_open else "fixed",
            target=words.clipped(failure.target, MOST_NAME),
            place=words.clipped(" / ".join(part for part in parts if part), MOST_NAME),
            message=words.clipped(failure.message, MOST_WORDS),
            case=words.clipped(describe(kept.case), MOST_WORDS),
            replay=f"ln-fuzz replay {short_id(failure.id, self._ids)}",
            first=self._when(failure.first_seen, failure.first_run),
            since=self._since(failure.first_run),
            last=self._when(failure.last_seen, failure.last_run),
            times=failure.times,
            fixed="" if failure.is_open else self._when(failure.fixed_seen, failure.fixed_run),
            device=words.clipped(kept.device_name, MOST_NAME),
            doubt=doubt(kept),
            picture=picture,
            about="" if failure.map is None else words.clipped(failure.map.about, MOST_NAME),
            summary=summary,
        )

    def _when(self, seen: str | None, run_id: str | None) -> str:
        """A time, and what was tested then."""
        run = self._runs.get(run_id or "")
        at = f" at {words.revision(run.revision)}" if run is not None and run.revision else ""
        return f"{words.minute(seen)}{at}"

    def _since(self, first_run: str) -> str:
        """The revision before the one that it was first seen at, if that was tested."""
        nights = self._data.nights
        place = next((i for i, night in enumerate(nights) if night.has(first_run)), 0)
        if not place:
            return ""
        before, after = nights[place - 1].revisions, nights[place].revisions
        if not before or not after or before == after:
            return ""
        return (
            f"the night before, at {words.listed(map(words.revision, before), 2)}, did not see it"
        )


def doubt(failure: Failure) -> str:
    """What speaks against it, empty where nothing does."""
    if not failure.confirm_runs:
        return "neither shrunk nor confirmed in a fresh process"
    if failure.confirmed < failure.confirm_runs:
        return f"flaky: {failure.confirmed} of {failure.confirm_runs} runs in a fresh process"
    return ""
