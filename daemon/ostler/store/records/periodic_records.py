"""The records of periodic tasks, stored across restarts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ostler.store.models import PeriodicRow
from ostler.store.store import Store


class PeriodicRun(NamedTuple):
    """The record of a periodic task: its counts, and its last run (wall time, seconds, error text or empty)."""

    service: str
    task: str
    runs: int = 0
    errors: int = 0
    last_run: float = 0.0
    last_seconds: float = 0.0
    last_error: str = ""


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
        rows = [{"host": self._host, **run._asdict()} for run in runs]
        self._store.write(lambda: PeriodicRow.replace_many(rows).execute(), label="periodic runs")

    def list(self, service: str = "") -> list[PeriodicRun]:
        """Return the stored records of one service, or of all."""

        def read() -> list[PeriodicRun]:
            columns = [getattr(PeriodicRow, name) for name in PeriodicRun._fields]
            query: Any = PeriodicRow.select(*columns).where(PeriodicRow.host == self._host)
            if service:
                query = query.where(PeriodicRow.service == service)
            return [PeriodicRun(*row) for row in query.order_by(PeriodicRow.service, PeriodicRow.task).tuples()]

        return self._store.read(read)

    def forget(self, service: str, task: str) -> None:
        """Remove the record of a task that no longer exists."""
        mine = (PeriodicRow.host == self._host) & (PeriodicRow.service == service) & (PeriodicRow.task == task)
        self._store.write(lambda: PeriodicRow.delete().where(mine).execute(), label="forget a periodic task")
