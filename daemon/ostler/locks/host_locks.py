"""The locks of one host, handed to its services."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ostler.aio import LoopQueue, TaskOwner
from ostler.clock import Clock
from ostler.errors import StoreError
from ostler.locks.lock_table import LockTable
from ostler.locks.locks import Locks
from ostler.manager_types import LockStatus
from ostler.store import Store

if TYPE_CHECKING:
    from ostler.locks.cluster_locks import StoredLocks

_log = logging.getLogger(__name__)


class HostLocks:
    """The locks of all services of a host, and those that it shares with others by the database.

    Args:
        host: This host's name.
        clock: The source of time.
        store: The database.
        loop_queue: Passes work from threads to the loop.
        owner: Owns the tasks of locks that are shared with other hosts.
    """

    def __init__(self, host: str, clock: Clock, store: Store, loop_queue: LoopQueue, owner: TaskOwner) -> None:
        self._host = host
        self._clock = clock
        self._store = store
        self._loop_queue = loop_queue
        self._owner = owner
        self.table = LockTable(clock)
        self._cluster: StoredLocks | None = None

    def for_service(self, topic: str) -> Locks:
        """Return the locks of a service."""
        return Locks(self.table, topic, self._host, self._cluster_locks)

    def _cluster_locks(self) -> StoredLocks:
        """Return what shares locks with other hosts. Any thread."""
        from ostler.locks.cluster_locks import StoredLocks  # 1 ms, for what few managers use

        with self.table.mutex:  # one for all threads: it counts what is held
            if self._cluster is None:
                self._cluster = StoredLocks(self._store, self._clock, self._host, self._loop_queue, self._owner)
            return self._cluster

    def release_service(self, topic: str) -> None:
        """Release the locks of a service that has stopped: of threads that hang, and requests that were given up."""
        for line in self.table.release_service(topic):
            _log.warning("service %s has stopped, released a lock that was still held: %s", topic, line)

    async def list(self, service: str = "") -> list[LockStatus]:
        """Return who holds locks and who waits, here, and who holds those of the cluster elsewhere.

        Args:
            service: The topic whose locks are wanted; empty for all.
        """
        rows = self.table.list(self._host, service)
        if self._cluster is not None:
            try:
                rows += [row for row in await self._cluster.list() if service in ("", row.service)]
            except StoreError:  # what is held here is known all the same
                return rows
        return rows
