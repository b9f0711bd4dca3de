"""What is known of all runs: one SQLite file, written so that a kill loses no verdict."""

from fuzz.history.database import HistoryError
from fuzz.history.history import HISTORY, History, new_run_id
from fuzz.history.recording import Recording
from fuzz.history.records import FailureRecord, Merged, RowSum, RunInfo, RunRecord, SpreadSum

__all__ = [
    "HISTORY",
    "FailureRecord",
    "History",
    "HistoryError",
    "Merged",
    "Recording",
    "RowSum",
    "RunInfo",
    "RunRecord",
    "SpreadSum",
    "new_run_id",
]
