"""Connections for reading, lent to one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ostler import fork
from ostler.errors import StoreUnavailable
from ostler.store.session import Database

MAX_IDLE_CONNECTIONS = 8
"""The most idle connections that are kept open."""


class ReaderPool:
    """Lends read-only connections. Each reader sees one snapshot of the database, however long it takes.

    Connections are lent, not bound to threads: a thread that ends would leave its own open.

    Args:
        connect: Makes a connection.
    """

    def __init__(self, connect: Callable[[], Database]) -> None:
        self._connect = connect
        self._idle: list[Database] = []
        self._lock = threading.Lock()
        self._is_closed = False
        self._generation = 0

    @contextmanager
    def borrow(self) -> Iterator[Database]:
        """Lend a connection that is inside a transaction for reading. Any thread.

        Raises:
            StoreUnavailable: The store is closed.
        """
        if fork.in_child:
            raise fork.forked_child_error("the store")
        age = self._generation
        database = self._get()
        try:
            with database.atomic():
                yield database
        except BaseException:
            # It may be the connection's fault; the next reader gets a new one.
            database.close()
            raise
        self._put(database, age)

    def _get(self) -> Database:
        with self._lock:
            if self._is_closed:
                raise StoreUnavailable("the store is closed", hint="the daemon is stopping")
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _put(self, database: Database, generation: int) -> None:
        with self._lock:
            if not self._is_closed and generation == self._generation and len(self._idle) < MAX_IDLE_CONNECTIONS:
                self._idle.append(database)
                return
        database.close()

    def invalidate(self) -> None:
        """Discard the existing connections: the files have been replaced. Any thread."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for database in idle:
            database.close()

    def close(self) -> None:
        """Close the idle connections, and the others when they are returned."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for database in idle:
            database.close()
