"""Connections for reading, lent to one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ostler import fork
from ostler.errors import StoreUnavailable
from ostler.store.current import Database

IDLE_LIMIT = 8
"""Connections that are kept open when nobody reads."""


class Readers:
    """Lends read-only connections. Each reader sees one moment of the database, however long it takes.

    Connections are lent, not bound to threads: a thread that ends would leave its own open.

    Args:
        connect: Makes a connection.
    """

    def __init__(self, connect: Callable[[], Database]) -> None:
        self._connect = connect
        self._idle: list[Database] = []
        self._lock = threading.Lock()
        self._closed = False
        self._age = 0

    @contextmanager
    def borrow(self) -> Iterator[Database]:
        """Lend a connection that is inside a transaction for reading. Any thread.

        Raises:
            StoreUnavailable: The store is closed.
        """
        if fork.in_child:
            raise fork.not_here("the store")
        age = self._age
        database = self._get()
        try:
            with database.atomic():
                yield database
        except BaseException:
            # It may be the connection's fault; the next reader gets a fresh one.
            database.close()
            raise
        self._put(database, age)

    def _get(self) -> Database:
        with self._lock:
            if self._closed:
                raise StoreUnavailable("the store is closed", hint="the daemon is being stopped")
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _put(self, database: Database, age: int) -> None:
        with self._lock:
            if not self._closed and age == self._age and len(self._idle) < IDLE_LIMIT:
                self._idle.append(database)
                return
        database.close()

    def renew(self) -> None:
        """Lend no connection again that was made before: the files are others now. Any thread."""
        with self._lock:
            self._age += 1
            idle, self._idle = self._idle, []
        for database in idle:
            database.close()

    def close(self) -> None:
        """Close the idle connections, and the others when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for database in idle:
            database.close()
