"""The event journal of a daemon: which topics are stored, where, and how they are read again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from ostler.errors import InvalidInput
from ostler.messaging.events.event import JournalPage, JournalStart, JournalTopic, TopicPatterns
from ostler.store.outage import Outage

if TYPE_CHECKING:
    from ostler.clock import Clock
    from ostler.config.core_sections import EventsSection
    from ostler.messaging import Publisher
    from ostler.messaging.events.event import Event, JournalPosition
    from ostler.messaging.events.event_publisher import EventTemplate, TopicState
    from ostler.messaging.events.journal import Journal
    from ostler.store import Store

_log = logging.getLogger(__name__)
_MAX_PAGE_EVENTS = 1000
_MAX_POSITIONS = 1000


class LazyJournal:
    """Creates the journal with the first event of a journaled topic, and applies what a reload changes.

    Until then it stands in for the journal: a daemon that publishes nothing has no cost. On the loop.

    Args:
        publisher: Sends the events.
        store: Where they are stored.
        clock: The source of time.
        topics: The topics whose managers ask for a journal.
    """

    def __init__(self, publisher: Publisher, store: Store, clock: Clock, topics: Iterable[str]) -> None:
        self._publisher = publisher
        self._store = store
        self._clock = clock
        self._topics = sorted(topics)
        self._journal: Journal | None = None
        self._limits = (0, 0.0)

    def apply(self, options: EventsSection) -> None:
        """Apply what is configured; at the start and after a reload."""
        self._publisher.last_values.set_limits(options.last_value_keys, options.last_value_size)
        self._limits = (options.journal_count, options.journal_age)
        if self._journal is not None:
            self._journal.set_limits(*self._limits)
        fits = TopicPatterns([*self._topics, *options.journal]).matches
        self._publisher.set_journal(self._journal or self, fits)

    def set_topics(self, topics: Iterable[str]) -> None:
        """Change the topics whose managers ask for a journal; `apply` puts them in effect."""
        self._topics = sorted(topics)

    def append(self, template: EventTemplate, packed: bytes, at: float, tail: bytes) -> None:
        """Create the journal, and pass it its first event."""
        self._journal = self._publisher.journal = self._make_journal()
        self._journal.append(template, packed, at, tail)

    def stop_journaling(self, topic: TopicState) -> None:
        """Stop journaling a topic that has had no event."""
        topic.is_journaled = False

    def stats(self) -> dict[str, int]:
        """Return no counters yet."""
        return {}

    def _make_journal(self) -> Journal:
        # 1.5 ms and their memory: most daemons journal nothing.
        from ostler.messaging.events.journal import Journal, JournalLimits
        from ostler.store.records.journal_records import JournalRecords

        records = JournalRecords(self._store, self._clock, self._publisher.host)
        trouble = Outage(_log, "writing to the event journal", self._clock)
        return Journal(self._publisher, records, self._clock, trouble, JournalLimits(*self._limits))

    async def close(self) -> None:
        """Write the queued events, within a short time."""
        if self._journal is not None:
            await self._journal.close()


async def journal_topics(store: Store, clock: Clock, host: str) -> list[JournalTopic]:
    """Return the topics of the journal.

    Raises:
        StoreError: It cannot be read.
    """
    from ostler.store.records.journal_records import JournalRecords  # 1 ms, as below: only where events are journaled

    found = await JournalRecords(store, clock, host).topics()
    return [JournalTopic(row.topic, host, row.first, row.last, row.epoch) for row in found]


async def journal_page(
    store: Store, clock: Clock, host: str, positions: Sequence[JournalPosition], limit: int
) -> JournalPage:
    """Return the next events of the journal after some positions.

    Raises:
        InvalidInput: Too many positions, or an invalid limit.
        StoreError: It cannot be read.
    """
    from ostler.store.records.journal_records import JournalRecords  # as above

    if not 1 <= limit <= _MAX_PAGE_EVENTS or len(positions) > _MAX_POSITIONS:
        raise InvalidInput(
            f"the event journal can be read for at most {_MAX_POSITIONS} topics and {_MAX_PAGE_EVENTS} events at once, "
            f"not for {len(positions)} and {limit}"
        )
    wanted = [(place.topic, place.after, place.epoch) for place in positions]
    starts, events, more = await JournalRecords(store, clock, host).since(wanted, limit)
    # They have the same form on the wire as in the store.
    packed = cast("list[Event]", [msgspec.Raw(data) for data in events])
    found = [JournalStart(start.topic, host, start.after, start.last, start.is_reset) for start in starts]
    return JournalPage(found, packed, more)
