"""How far the event handlers of this host are in journaled topics."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from ostler.errors import StoreError
from ostler.store.session import current_session
from ostler.store.store import Store


class EventPosition(NamedTuple):
    """The last event of a topic that a handler is done with; an empty topic says that the handler knows that host.

    Attributes:
        service: The topic of the handler's service.
        handler: The name of the method.
        source: The host whose events these are.
        topic: The topic of the events.
        sequence: The number of the event.
        epoch: The run that assigned the number; 0 for any.
    """

    service: str
    handler: str
    source: str
    topic: str
    sequence: int
    epoch: int


class PositionRecords:
    """The positions of one host. The methods are for the loop; the database works on the store's threads.

    Args:
        store: Where they are kept.
        host: This host's name.
    """

    def __init__(self, store: Store, host: str) -> None:
        self._store = store
        self._host = host

    async def load(self, service: str, handler: str) -> list[EventPosition]:
        """Return the positions of a handler.

        Raises:
            StoreError: They cannot be read.
        """

        def read() -> list[EventPosition]:
            rows = _connection().execute(
                "SELECT service, handler, source, topic, sequence, epoch FROM event_positions"
                " WHERE host = ? AND service = ? AND handler = ?",
                (self._host, service, handler),
            )
            return [EventPosition(*row) for row in rows]

        return await self._store.aread(read)

    async def save(self, positions: Iterable[EventPosition]) -> None:
        """Store positions, in one commit.

        Raises:
            StoreError: They cannot be written; none of them is stored.
        """
        rows = [(self._host, *position) for position in positions]

        def write() -> None:
            _connection().executemany("INSERT OR REPLACE INTO event_positions VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

        await self._store.awrite(write, label="positions of event handlers")


def _connection() -> sqlite3.Connection:
    here = current_session()
    if here is None:
        raise StoreError("positions were used outside of store.read and store.write")
    connection: sqlite3.Connection = here.database.connection()
    return connection
