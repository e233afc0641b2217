"""Locks that daemons with one database share: rows in the store, with a lease that the daemon renews."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import Counter

from ostler.aio import LoopQueue, TaskOwner, waiting_for
from ostler.clock import Clock
from ostler.errors import Cancelled, DeadlineExceeded, LockTimeout, StoreError, error_line
from ostler.locks.lock_table import Holding, LockKey
from ostler.manager_types import LockStatus
from ostler.printable import printable
from ostler.store import Store
from ostler.store.records.lock_records import LockRecord, LockRecords
from ostler.time_text import format_duration, format_seconds

_log = logging.getLogger(__name__)
_MIN_POLL_INTERVAL = 0.05
_MAX_POLL_INTERVAL = 1.0
"""Seconds between two looks whether another host has released a lock, at first and later: nobody is told."""
_RETRY_DELAY = 1.0
"""Seconds between two tries to record that locks were released."""
_MAX_LISTED = 10_000


class StoredLocks:
    """The locks of the cluster, for one run of a daemon.

    Within the host the table of locks decides, before this is asked. A row counts for as long as its daemon renews it:
    one that is killed releases its locks in that way. Rows of earlier runs on this host do not count at all.

    Args:
        store: The database.
        clock: The source of time.
        host: This host's name.
        loop_queue: Passes work from threads to the loop.
        owner: Owns the tasks that renew and release.
        records: The table; by default that of a new run.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        host: str,
        loop_queue: LoopQueue,
        owner: TaskOwner,
        records: LockRecords | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._host = host
        self._loop_queue = loop_queue
        self._owner = owner
        self._records = records or LockRecords(clock, host, os.urandom(8).hex())
        self._mutex = threading.Lock()
        self._counts: Counter[LockKey] = Counter()
        self._released: set[LockKey] = set()
        self._release_task: asyncio.Task[None] | None = None
        self._renew_task: asyncio.Task[None] | None = None

    def acquire(self, holding: Holding, until: float) -> None:
        """See `ClusterLocks.acquire`."""
        self._count(holding.key, 1)
        try:
            pause = _MIN_POLL_INTERVAL
            while (other := self._store.write(lambda: self._take(holding), label="take a lock")) is not None:
                left = self._time_left(holding, other, until)
                with waiting_for(holding.key):
                    time.sleep(min(pause, left))
                pause = min(_MAX_POLL_INTERVAL, pause * 2)
        except BaseException:
            self.release(holding)
            raise
        self._loop_queue.post(self._begin_renewals)

    async def aacquire(self, holding: Holding, until: float) -> None:
        """See `ClusterLocks.aacquire`."""
        self._count(holding.key, 1)
        try:
            pause = _MIN_POLL_INTERVAL
            while (other := await self._store.awrite(lambda: self._take(holding), label="take a lock")) is not None:
                await asyncio.sleep(min(pause, self._time_left(holding, other, until)))
                pause = min(_MAX_POLL_INTERVAL, pause * 2)
        except BaseException:
            self.release(holding)
            raise
        self._loop_queue.post(self._begin_renewals)

    def release(self, holding: Holding) -> None:
        """See `ClusterLocks.release`. Until it is recorded, other hosts wait a moment longer."""
        self._count(holding.key, -1)
        with self._mutex:
            self._released.add(holding.key)
        self._loop_queue.post(self._begin_release)

    async def list(self) -> list[LockStatus]:
        """Return what other hosts hold.

        Raises:
            StoreError: The database cannot be read.
        """
        rows = await self._store.aread(lambda: self._records.others(_MAX_LISTED))
        return [
            LockStatus(
                service=row.service, name=row.name, is_held=True, is_shared=bool(row.shared), is_cluster=True,
                since=row.since, host=row.host, method=row.method, request_id=row.request_id,
            )
            for row in rows
        ]  # fmt: skip

    def _count(self, key: LockKey, change: int) -> None:
        # Before the write: a release that is on its way must not remove the row of one who comes after it.
        with self._mutex:
            self._counts[key] += change

    def _take(self, holding: Holding) -> LockRecord | None:
        key, owner = holding.key, holding.owner
        return self._records.take(
            LockRecord(
                key.service, key.name, "", "", int(holding.is_shared), owner.method, owner.request_id,
                holding.since_wall,
            )
        )  # fmt: skip

    def _time_left(self, holding: Holding, other: LockRecord, until: float) -> float:
        """Return the seconds for which to wait at most.

        Raises:
            LockTimeout: The time is over.
            DeadlineExceeded: That of the request is.
            Cancelled: The request was cancelled.
        """
        now, context = self._clock.monotonic(), holding.owner.context
        held_for = format_seconds(max(0.0, self._clock.wall() - other.since), units=1)
        request = f" (request {printable(other.request_id)})" if other.request_id else ""
        by = f"held by {printable(other.method)}{request} on host {printable(other.host)} for {held_for}"
        if context is not None and context.cancelled:
            raise Cancelled(
                f"{holding.owner.method} was cancelled while waiting for {holding.key}, {by}",
                request_id=holding.owner.request_id,
            )
        if now >= until:
            raise LockTimeout(
                f"{holding.key} could not be taken in time: {by}",
                hint="`ostler lock list` shows who holds it", lock=holding.key.name, service=holding.key.service,
            )  # fmt: skip
        deadline = until if context is None or context.deadline is None else context.deadline
        if now >= deadline:
            raise DeadlineExceeded(
                f"the deadline of {holding.owner.method} passed while it waited for {holding.key}: {by}",
                request_id=holding.owner.request_id,
            )
        return min(until, deadline) - now

    # ---------------------------------------------------------------- on the loop

    def _begin_release(self) -> None:
        if self._release_task is None:
            self._release_task = self._owner.spawn(self._record_releases(), name="release locks of the cluster")

    async def _record_releases(self) -> None:
        try:
            while self._released:
                try:
                    await self._store.awrite(self._delete_released, label="release locks")
                except StoreError as error:
                    _log.debug("released locks are still recorded as held, retrying: %s", error_line(error))
                    await asyncio.sleep(_RETRY_DELAY)
        finally:
            self._release_task = None

    def _delete_released(self) -> None:
        with self._mutex:
            free = [key for key in self._released if self._counts[key] <= 0]
            done = set(self._released)
        self._records.release(free)
        with self._mutex:
            self._released -= done
            self._counts += Counter()  # drops those that are at zero

    def _begin_renewals(self) -> None:
        if self._renew_task is None:
            self._renew_task = self._owner.spawn(self._renew(), name="renew locks of the cluster")

    async def _renew(self) -> None:
        failed_since = 0.0
        try:
            while +self._counts:
                await asyncio.sleep(self._records.lease_time / 3)
                try:
                    await self._store.awrite(self._records.renew, label="renew locks", urgent=True)
                    failed_since = 0.0
                except StoreError as error:
                    now = self._clock.monotonic()
                    failed_since = failed_since or now
                    text = "the locks of the cluster could not be renewed for %s, other hosts take them after %s: %s"
                    lease = format_seconds(self._records.lease_time)
                    _log.warning(text, format_duration(now - failed_since), lease, error_line(error))
        finally:
            self._renew_task = None
