"""The event journal: the events of journaled topics, by number."""

from __future__ import annotations

import heapq
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from ostler.clock import Clock
from ostler.errors import StoreError
from ostler.store.session import current_session
from ostler.store.store import Store

T = TypeVar("T")
_TRIM_BATCH_SIZE = 1000
"""The most rows that one write removes, so that others do not wait long for it."""
_MAX_PAGE_SIZE = 1024 * 1024
"""The size in bytes after which a page ends."""


class JournaledEvent(Protocol):
    """One event to store."""

    @property
    def topic(self) -> str:
        """Its topic."""
        ...

    @property
    def epoch(self) -> int:
        """The run that assigned the number."""
        ...

    @property
    def sequence(self) -> int:
        """Its number in the topic."""
        ...

    @property
    def at(self) -> float:
        """When it was published, wall time."""
        ...

    @property
    def data(self) -> bytes:
        """The event itself."""
        ...


class TopicSequences(NamedTuple):
    """A topic of the journal: the lowest stored number (above `last` when there is none), the last one, its epoch."""

    topic: str
    first: int
    last: int
    epoch: int


class TopicStart(NamedTuple):
    """Where reading of a topic starts: after `after`; `is_reset` says that the requested position is not known here."""

    topic: str
    after: int
    last: int
    is_reset: bool


class RecordPage(NamedTuple):
    """A part of the journal: where each topic starts, the next events in the order of time, whether there are more."""

    starts: list[TopicStart]
    events: list[bytes]
    more: bool


class JournalRecords:
    """The journal of one host. The methods are for the loop; the database works on the store's threads.

    Args:
        store: Where it is kept.
        clock: The source of time.
        host: This host's name.
    """

    def __init__(self, store: Store, clock: Clock, host: str) -> None:
        self._store = store
        self._clock = clock
        self._host = host

    async def last_sequences(self) -> tuple[dict[str, int], int]:
        """Return the last number of each topic, and the highest epoch there was.

        Raises:
            StoreError: It cannot be read.
        """

        def read(database: sqlite3.Connection) -> tuple[dict[str, int], int]:
            last = dict(database.execute("SELECT topic, last FROM event_topics WHERE host = ?", (self._host,)))
            return last, database.execute("SELECT ifnull(max(epoch), 0) FROM event_epochs").fetchone()[0]

        return await self._read(read)

    async def append(self, rows: Sequence[JournaledEvent]) -> None:
        """Write events, in one commit; existing ones are overwritten.

        Raises:
            StoreError: It cannot be written; none of the events is stored.
        """
        await self._store.awrite(lambda: self._insert(_current_connection(), rows), label="event journal")

    def _insert(self, database: sqlite3.Connection, rows: Sequence[JournaledEvent]) -> None:
        ids: dict[str, int] = {}
        begun: dict[tuple[str, int], int] = {}
        last: dict[str, int] = {}
        for row in rows:
            begun.setdefault((row.topic, row.epoch), row.sequence)
            last[row.topic] = row.sequence
        for topic, number in last.items():
            ids[topic] = database.execute(
                "INSERT INTO event_topics (host, topic, last) VALUES (?, ?, ?)"
                " ON CONFLICT (host, topic) DO UPDATE SET last = max(last, excluded.last) RETURNING id",
                (self._host, topic, number),
            ).fetchone()[0]
        first = [(ids[topic], epoch, number) for (topic, epoch), number in begun.items()]
        database.executemany("INSERT OR IGNORE INTO event_epochs VALUES (?, ?, ?)", first)
        events = [(ids[row.topic], row.sequence, row.at, row.data) for row in rows]
        database.executemany("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?)", events)

    async def topics(self) -> list[TopicSequences]:
        """Return the stored topics.

        Raises:
            StoreError: It cannot be read.
        """

        def read(database: sqlite3.Connection) -> list[TopicSequences]:
            found = database.execute(
                "SELECT topic, ifnull((SELECT min(number) FROM events WHERE topic_id = id), last + 1), last,"
                " ifnull((SELECT max(epoch) FROM event_epochs WHERE topic_id = id), 0)"
                " FROM event_topics WHERE host = ? ORDER BY topic",
                (self._host,),
            )
            return [TopicSequences(*row) for row in found]

        return await self._read(read)

    async def since(self, positions: Iterable[tuple[str, int, int]], limit: int) -> RecordPage:
        """Return the next events after some positions.

        Args:
            positions: For each topic: its name, the number after which to start, and the epoch that assigned the number
                (0 for any).
            limit: The most events.

        Raises:
            StoreError: It cannot be read.
        """
        return await self._read(lambda database: self._read_page(database, list(positions), limit))

    def _read_page(self, database: sqlite3.Connection, positions: list[tuple[str, int, int]], limit: int) -> RecordPage:
        starts, found = [], []
        for topic, after, epoch in positions:
            known = database.execute(
                "SELECT id, last FROM event_topics WHERE host = ? AND topic = ?", (self._host, topic)
            ).fetchone()
            if known is None:
                starts.append(TopicStart(topic, 0, 0, after > 0 or epoch > 0))
                continue
            epochs = database.execute(
                "SELECT epoch, first FROM event_epochs WHERE topic_id = ? ORDER BY epoch", (known[0],)
            ).fetchall()
            begin, anew = start_after(after, epoch, known[1], epochs)
            starts.append(TopicStart(topic, begin, known[1], anew))
            found.append(
                database.execute(
                    "SELECT at, data FROM events WHERE topic_id = ? AND number > ? ORDER BY number LIMIT ?",
                    (known[0], begin, limit + 1),
                )
            )
        # By time, but in the order of each topic, even when the clock was set back.
        return _make_page(starts, heapq.merge(*found, key=lambda row: row[0]), limit)

    async def trim(self, count: int, age: float) -> None:
        """Remove events above `count` for each topic, or older than `age` seconds; in small writes.

        If more than half of a topic has expired at once only a part is removed: the clock may be wrong.

        Raises:
            StoreError: It cannot be written.
        """
        before = self._store.retention_clock.now() - age
        for topic in await self.topics():
            most = await self._removal_limit(topic.topic, before)
            while (gone := await self._trim_batch(topic, count, before, most)) is not None:
                most -= gone

    async def _removal_limit(self, topic: str, before: float) -> int:
        """Return how many events of a topic may be removed because of their age."""

        def read(database: sqlite3.Connection) -> tuple[int, int]:
            found: tuple[int, int] = database.execute(
                "SELECT count(*), ifnull(sum(at < ?), 0) FROM events"
                " WHERE topic_id = (SELECT id FROM event_topics WHERE host = ? AND topic = ?)",
                (before, self._host, topic),
            ).fetchone()
            return found

        total, due = await self._read(read)
        return self._store.retention_clock.removal_limit(f"events of {topic} in the event journal", due, total, before)

    async def _trim_batch(self, topic: TopicSequences, count: int, before: float, most: int) -> int | None:
        return await self._store.awrite(
            lambda: self._remove_oldest(_current_connection(), topic.topic, topic.last - count, before, most),
            label="trim the event journal",
        )

    def _remove_oldest(
        self, database: sqlite3.Connection, topic: str, number: int, before: float, most: int
    ) -> int | None:
        """Remove the oldest events up to a number or a time, and epochs without events.

        Returns:
            How many were removed because of their age, when there may be more to remove; else None.
        """
        (number_of,) = database.execute(
            "SELECT id FROM event_topics WHERE host = ? AND topic = ?", (self._host, topic)
        ).fetchone()
        oldest = database.execute(
            "SELECT number, at FROM events WHERE topic_id = ? ORDER BY number LIMIT ?", (number_of, _TRIM_BATCH_SIZE)
        ).fetchall()
        gone = by_age = 0
        for event, at in oldest:
            if event > number:
                if at >= before or by_age >= most:
                    break
                by_age += 1
            gone += 1
        if not gone:
            return None
        up_to = oldest[gone - 1][0]
        database.execute("DELETE FROM events WHERE topic_id = ? AND number <= ?", (number_of, up_to))
        database.execute(
            "DELETE FROM event_epochs WHERE topic_id = ? AND epoch < (SELECT max(epoch) FROM event_epochs"
            " WHERE topic_id = ? AND first <= ?)",
            (number_of, number_of, up_to + 1),
        )
        return by_age if gone == _TRIM_BATCH_SIZE else None

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await self._store.aread(lambda: read(_current_connection()))


def start_after(after: int, epoch: int, last: int, epochs: Sequence[tuple[int, int]]) -> tuple[int, bool]:
    """Return the number after which a reader continues, and whether it knows events that this journal does not.

    Args:
        after: The last number that the reader has seen.
        epoch: The run that assigned that number; 0 for any.
        last: The last number in the journal.
        epochs: The known runs, in order, each with its first number.
    """
    if not epoch:
        return min(after, last), after > last
    starts = [run for run, _ in epochs]
    place = bisect_right(starts, epoch)  # the known runs up to that one
    end = epochs[place][1] - 1 if place < len(epochs) else last
    known = place > 0 and starts[place - 1] == epoch
    if place == 0 or known:
        # A run before all known ones was trimmed; its numbers belong to the same sequence.
        return min(after, end), after > end
    return end, True


def _make_page(starts: list[TopicStart], rows: Iterable[tuple[float, bytes]], limit: int) -> RecordPage:
    events: list[bytes] = []
    size = 0
    for _, data in rows:
        if len(events) >= limit or size > _MAX_PAGE_SIZE:
            return RecordPage(starts, events, True)
        events.append(data)
        size += len(data)
    return RecordPage(starts, events, False)


def _current_connection() -> sqlite3.Connection:
    here = current_session()
    if here is None:
        raise StoreError("the event journal was used outside of store.read and store.write")
    connection: sqlite3.Connection = here.database.connection()
    return connection
