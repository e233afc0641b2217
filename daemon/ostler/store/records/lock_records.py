"""The table of locks that daemons share: a lock is taken by one write that looks who holds it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from ostler.clock import Clock
from ostler.errors import StoreError
from ostler.store.session import current_session

LEASE_TIME = 30.0
"""Seconds for which a lock is held without being renewed."""


class LockRecord(NamedTuple):
    """One row: what one run of a daemon holds; the lease is the last moment at which it is held without a renewal."""

    service: str
    name: str
    run: str
    host: str
    shared: int
    method: str
    request_id: str
    since: float
    lease_boot_id: str = ""
    lease_boot: float = 0.0
    lease_wall: float = 0.0


_COLUMNS = ", ".join(LockRecord._fields)
_PLACEHOLDERS = ", ".join("?" * len(LockRecord._fields))
_INSERT = f"INSERT OR REPLACE INTO locks ({_COLUMNS}) VALUES ({_PLACEHOLDERS})"  # noqa: S608 - our own words


class LockRecords:
    """The locks of the cluster, as one run of a daemon sees them. Each method is for use inside a write or read.

    Args:
        clock: The source of time.
        host: This host's name: rows of other runs on it are of daemons that have ended.
        run: The id of this run.
        lease_time: Seconds for which a lock is held without being renewed.
    """

    def __init__(self, clock: Clock, host: str, run: str, lease_time: float = LEASE_TIME) -> None:
        self._clock = clock
        self._host = host
        self.run = run
        self.lease_time = lease_time
        self._has_pruned = False

    def take(self, record: LockRecord) -> LockRecord | None:
        """Take a lock for this run, and remove what is left of runs that have ended; return who prevents it."""
        database = _connection()
        if not self._has_pruned:
            # Once is enough: this run removes its own, so nothing is left of a run that was not killed.
            database.execute("DELETE FROM locks WHERE host = ? AND run <> ?", (self._host, self.run))
            self._has_pruned = True
        rows = database.execute(
            f"SELECT {_COLUMNS} FROM locks WHERE service = ? AND name = ? AND run <> ?",  # noqa: S608 - our own words
            (record.service, record.name, self.run),
        ).fetchall()
        for other in map(LockRecord._make, rows):
            if not self.is_live(other):
                self._delete(other)
            elif not (other.shared and record.shared):
                return other
        database.execute(_INSERT, record._replace(run=self.run, host=self._host)[:8] + self._lease())
        return None

    def release(self, keys: Iterable[tuple[str, str]]) -> None:
        """Remove locks of this run."""
        for service, name in keys:
            _connection().execute(
                "DELETE FROM locks WHERE service = ? AND name = ? AND run = ?", (service, name, self.run)
            )

    def renew(self) -> int:
        """Renew the lease of all locks of this run; return how many there are."""
        return _connection().execute(
            "UPDATE locks SET lease_boot_id = ?, lease_boot = ?, lease_wall = ? WHERE run = ?",
            (*self._lease(), self.run),
        ).rowcount  # fmt: skip

    def others(self, limit: int) -> list[LockRecord]:
        """Return what other runs hold."""
        rows = _connection().execute(
            f"SELECT {_COLUMNS} FROM locks WHERE run <> ? ORDER BY service, name LIMIT ?",  # noqa: S608 - our own words
            (self.run, limit),
        )
        return [row for row in map(LockRecord._make, rows) if self.is_live(row)]

    def is_live(self, row: LockRecord) -> bool:
        """Return whether another run may still hold its lock: it is of another host, and renews it."""
        if row.host == self._host:
            return False  # one daemon at a time has the database of a host
        if row.lease_boot_id == self._clock.boot_id():
            return self._clock.boot() < row.lease_boot
        return self._clock.wall() < row.lease_wall

    def _delete(self, row: LockRecord) -> None:
        _connection().execute(
            "DELETE FROM locks WHERE service = ? AND name = ? AND run = ?", (row.service, row.name, row.run)
        )

    def _lease(self) -> tuple[str, float, float]:
        return self._clock.boot_id(), self._clock.boot() + self.lease_time, self._clock.wall() + self.lease_time


def _connection() -> sqlite3.Connection:
    here = current_session()
    if here is None:
        raise StoreError("locks were used outside of store.read and store.write")
    connection: sqlite3.Connection = here.database.connection()
    return connection
