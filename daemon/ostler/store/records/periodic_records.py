"""The records of periodic tasks, stored across restarts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ostler.store.models import PeriodicHistoryRow, PeriodicRow
from ostler.store.session import current_session
from ostler.store.store import Store

if TYPE_CHECKING:
    import builtins
    import sqlite3

    from ostler.store.retention_clock import RetentionClock

KEPT_RUNS = 20
"""The most runs of a task that are kept, the newest."""
KEPT_FAILURES = 10
"""The most failed runs that are kept beyond those."""
ENTRY_ERROR_LIMIT = 300
"""The most characters of an error in the history."""


class Pause(NamedTuple):
    """Since when a task is paused (wall time), by whom, and why."""

    at: float
    by: str
    reason: str


class RunEntry(NamedTuple):
    """One run in the history of a task: wall time of its start, seconds, error text or empty."""

    started: float
    seconds: float
    error: str


class PeriodicRun(NamedTuple):
    """The record of a periodic task: its counts, its last run (wall time, seconds, error text or empty), its pause.

    All due times up to `last_due` have been run or skipped.
    """

    service: str
    task: str
    runs: int = 0
    errors: int = 0
    last_run: float = 0.0
    last_seconds: float = 0.0
    last_error: str = ""
    last_due: float = 0.0
    paused_at: float = 0.0
    paused_by: str = ""
    pause_reason: str = ""


def recent_runs(entries: Sequence[RunEntry]) -> list[RunEntry]:
    """Return what is kept of a history, oldest first: the newest runs, and the newest failures among the older."""
    older = [entry for entry in entries[:-KEPT_RUNS] if entry.error]
    return [*older[-KEPT_FAILURES:], *entries[-KEPT_RUNS:]]


_COLUMNS = ("host", *PeriodicRun._fields)
_REPLACE_RUNS = (
    f"INSERT OR REPLACE INTO periodic_runs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - our own words
)
_REPLACE_HISTORY = "INSERT OR REPLACE INTO periodic_history (host, service, task, runs) VALUES (?, ?, ?, ?)"
_SELECT_HISTORY = "SELECT runs FROM periodic_history WHERE host = ? AND service = ? AND task = ?"


class PeriodicRecords:
    """The rows of this host's periodic tasks. The methods block: on the loop hand them to `store.awrite` or `aread`.

    Args:
        store: Where they are stored.
        host: This host's name.
    """

    def __init__(self, store: Store, host: str) -> None:
        self._store = store
        self._host = host

    def save(self, runs: Sequence[PeriodicRun]) -> None:
        """Store the records of these tasks, in one write.

        Raises:
            StoreUnavailable: It cannot be written now.
        """
        if not runs:
            return
        rows = [(self._host, *run) for run in runs]
        # Not through the model, which takes a quarter of a millisecond for each of maybe 10,000 rows.
        self._store.write(lambda: _connection().executemany(_REPLACE_RUNS, rows), label="periodic runs")

    def list(self, service: str = "") -> list[PeriodicRun]:
        """Return the stored records of one service, or of all."""

        def read() -> list[PeriodicRun]:
            columns = [getattr(PeriodicRow, name) for name in PeriodicRun._fields]
            query: Any = PeriodicRow.select(*columns).where(PeriodicRow.host == self._host)
            if service:
                query = query.where(PeriodicRow.service == service)
            return [PeriodicRun(*row) for row in query.order_by(PeriodicRow.service, PeriodicRow.task).tuples()]

        return self._store.read(read)

    def add_history(self, runs: Mapping[tuple[str, str], Sequence[RunEntry]]) -> None:
        """Add runs to the stored histories of tasks, in one write, and remove what is more than is kept.

        Args:
            runs: The new runs of each task (service and name), oldest first.

        Raises:
            StoreUnavailable: It cannot be written now.
        """
        self._store.write(lambda: self._extend(runs), label="history of periodic runs")

    def _extend(self, runs: Mapping[tuple[str, str], Iterable[RunEntry]]) -> None:
        rows = []
        for (service, task), entries in runs.items():
            kept = recent_runs([*self._history(service, task), *entries])
            text = msgspec.json.encode(kept).decode()
            rows.append((self._host, service, task, text))
        _connection().executemany(_REPLACE_HISTORY, rows)

    def history(self, service: str, task: str) -> Sequence[RunEntry]:
        """Return the stored history of a task, oldest first; empty when there is none, or it is damaged."""
        return self._store.read(lambda: self._history(service, task))

    def _history(self, service: str, task: str) -> Sequence[RunEntry]:
        row = _connection().execute(_SELECT_HISTORY, (self._host, service, task)).fetchone()
        if row is None:
            return []
        try:
            return msgspec.json.decode(row[0], type=tuple[RunEntry, ...])
        except (msgspec.DecodeError, ValueError):
            return []

    def prune(self, ages: RetentionClock, before: float) -> int:
        """Remove the records of tasks that did nothing since a wall time and are not paused; return how many.

        Args:
            ages: Says how many may be removed now.
            before: The wall time.
        """
        mine = PeriodicRow.host == self._host
        is_old = (PeriodicRow.last_run < before) & (PeriodicRow.last_due < before) & (PeriodicRow.paused_at == 0)

        def remove() -> int:
            rows: Any = PeriodicRow.select(PeriodicRow.service, PeriodicRow.task).where(mine & is_old)
            due: builtins.list[tuple[str, str]] = list(rows.order_by(PeriodicRow.last_run).tuples())
            total = PeriodicRow.select().where(mine).count()
            due = due[: ages.removal_limit("records of periodic tasks", len(due), total, before)]
            for service, task in due:
                self.forget(service, task)
            return len(due)

        return self._store.write(remove, label="forget old periodic tasks")

    def forget(self, service: str, task: str) -> None:
        """Remove the record of a task that no longer exists."""

        def remove() -> None:
            for row in (PeriodicRow, PeriodicHistoryRow):
                is_it = (row.host == self._host) & (row.service == service) & (row.task == task)
                row.delete().where(is_it).execute()

        self._store.write(remove, label="forget a periodic task")


def _connection() -> sqlite3.Connection:
    here = current_session()
    assert here is not None  # noqa: S101 - the store runs this
    connection: sqlite3.Connection = here.database.connection()
    return connection
