"""A campaign's runs told to a history as they happen."""

from __future__ import annotations

from pathlib import Path

from fuzz.history.history import History
from fuzz.jobs.maps import FailureMap
from fuzz.jobs.totals import Totals
from fuzz.process.journal import Mark
from fuzz.store import Failure


class Recording:
    """The recorder of one run that a history has begun."""

    def __init__(self, history: History, run_id: str) -> None:
        self._history = history
        self._run_id = run_id

    def started(self, folder: Path) -> None:
        """The folder of the journals is there, and no runner yet.

        Raises: HistoryError, as all of these.
        """
        self._history.set_folder(self._run_id, folder)

    def reported(self, runner: int, totals: Totals, mark: Mark) -> None:
        """What a runner did since it reported last, and up to where its journal holds it."""
        self._history.add(self._run_id, runner, totals, mark)

    def found(self, failure: Failure, where: FailureMap | None) -> None:
        """A failure was written; where its wrong elements sit, if it is about elements."""
        self._history.found(self._run_id, failure, where)
