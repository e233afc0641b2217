"""Stores what is known of periodic tasks, so that it lasts over restarts: records, pauses and histories."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress

from msgspec.structs import replace

from ostler.aio import TaskOwner
from ostler.clock import Clock
from ostler.errors import StoreError, error_line
from ostler.periodic_tasks import PeriodicScheduler
from ostler.service.store_outage import StoreOutage
from ostler.store import PeriodicRecords, Store
from ostler.store.records.periodic_records import RunEntry, recent_runs
from ostler.types import PeriodicHistory, PeriodicRunStatus, PeriodicStatus

_log = logging.getLogger(__name__)
_RECORDS_INTERVAL = 30.0
"""Seconds between two writes of the records of periodic tasks; a crash loses no more than that."""
_MIN_INTERVAL = 5.0
"""Seconds between two writes of records that say what need not be run again: sooner than the others."""
_HISTORY_INTERVAL = 300.0
"""Seconds between two writes of the history of periodic tasks; a crash loses no more than that."""
_HISTORY_BATCH = 200
"""Tasks whose history is written in one transaction: others must not wait for all of 10,000."""
_PRUNE_INTERVAL = 86400.0
_RECORD_LIFETIME = 400 * 86400.0
"""Seconds after which the record of a task that did nothing is removed: longer than the spacing of any."""
_Histories = Mapping[tuple[str, str], list[RunEntry]]


class PeriodicSaver:
    """Stores the records of the periodic tasks of all services, and changes those that must last. On the loop.

    Args:
        store: The database.
        records: The records in it.
        clock: The source of time.
        owner: Owns the runs of the tasks.
    """

    def __init__(self, store: Store, records: PeriodicRecords, clock: Clock, owner: TaskOwner) -> None:
        self._store = store
        self._records = records
        self._outage = StoreOutage(store, "writing the table of periodic runs", clock)
        self._record_due = asyncio.Event()
        self._lock = asyncio.Lock()
        self.scheduler = PeriodicScheduler(clock=clock, owner=owner, on_record_due=self._record_due.set)

    async def restore(self) -> None:
        """Hand the stored records to the scheduler; before the services start."""
        try:
            self.scheduler.restore(await self._store.aread(self._records.list))
        except StoreError as error:
            self._outage.failed(error)

    async def run(self) -> None:
        """Store what has changed, again and again."""
        loop = asyncio.get_running_loop()
        history_at, prune_at = loop.time() + _HISTORY_INTERVAL, loop.time() + _HISTORY_INTERVAL
        while True:
            await asyncio.sleep(_MIN_INTERVAL)
            with suppress(TimeoutError):
                async with asyncio.timeout(_RECORDS_INTERVAL - _MIN_INTERVAL):
                    await self._record_due.wait()
            await self._save_records()
            if loop.time() >= history_at:
                await self._save_history()
                history_at = loop.time() + _HISTORY_INTERVAL
            if loop.time() >= prune_at:
                await self._prune()
                prune_at = loop.time() + _PRUNE_INTERVAL

    async def save(self) -> None:
        """Store everything that has changed: at the stop."""
        await self._save_records()
        await self._save_history()

    async def pause(self, service: str, task: str, by: str, reason: str) -> PeriodicStatus:
        """Pause a task, and store that; the status says if it could not be stored yet.

        Args:
            service: The topic of the service.
            task: The name of the task.
            by: Who pauses it.
            reason: Why.

        Raises:
            NotFound: There is no such task.
        """
        self.scheduler.pause(service, task, by=by, reason=reason)
        unsaved = await self._save_records()
        return replace(self.scheduler.status(service, task), unsaved=unsaved)

    async def resume(self, service: str, task: str) -> PeriodicStatus:
        """Resume a task, and store that; see `pause`."""
        self.scheduler.resume(service, task)
        unsaved = await self._save_records()
        return replace(self.scheduler.status(service, task), unsaved=unsaved)

    async def history(self, service: str, task: str) -> PeriodicHistory:
        """Return a task with its last runs, oldest first.

        Raises:
            NotFound: There is no such task.
            StoreError: The database cannot be read.
        """
        self.scheduler.status(service, task)
        async with self._lock:  # what is being written is in neither of both
            stored = await self._store.aread(lambda: self._records.history(service, task))
            runs = recent_runs([*stored, *self.scheduler.unsaved_history(service, task)])
        rows = [PeriodicRunStatus(started=run.started, seconds=run.seconds, error=run.error) for run in runs]
        return PeriodicHistory(task=self.scheduler.status(service, task), runs=rows)

    async def _save_records(self) -> str:
        """Store the records that have changed; return why they could not be stored, empty when they are."""
        self._record_due.clear()
        async with self._lock:
            runs = self.scheduler.pop_changed_runs()
            if not runs:
                return ""
            try:
                await self._store.awrite(lambda: self._records.save(runs), label="periodic runs")
            except BaseException as error:  # also when the wait is cancelled: it may not have been written
                self.scheduler.put_back_runs(runs)
                if not isinstance(error, StoreError):
                    raise
                self._outage.failed(error)
                return error_line(error)
            self._outage.worked()
            return ""

    async def _save_history(self) -> None:
        async with self._lock:
            runs = self.scheduler.pop_history()
            for batch in _batches(runs):
                try:
                    await self._store.awrite(
                        lambda batch=batch: self._records.add_history(batch),  # type: ignore[misc]
                        label="history of periodic runs",
                    )
                except StoreError as error:
                    self._outage.failed(error)
                    break
                for name in batch:
                    del runs[name]
            self.scheduler.put_back_history(runs)

    async def _prune(self) -> None:
        ages = self._store.retention_clock
        try:
            await self._store.awrite(
                lambda: self._records.prune(ages, ages.now() - _RECORD_LIFETIME), label="old periodic tasks"
            )
        except StoreError as error:
            _log.debug("records of old periodic tasks were not removed: %s", error)


def _batches(runs: _Histories) -> Iterator[_Histories]:
    names = list(runs)
    for begin in range(0, len(names), _HISTORY_BATCH):
        yield {name: runs[name] for name in names[begin : begin + _HISTORY_BATCH]}
