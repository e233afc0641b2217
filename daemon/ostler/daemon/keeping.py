"""The journal of events in a daemon: which topics are kept, where, and how they are read again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

from ostler.errors import InvalidInput
from ostler.messaging.events.event import TopicPatterns

if TYPE_CHECKING:
    from ostler.clock import Clock
    from ostler.config.core import EventsSection
    from ostler.messaging import Publisher
    from ostler.messaging.events.event import Event, JournalPage, JournalTopic, Position
    from ostler.messaging.events.journal import Journal
    from ostler.messaging.events.publisher import Route, Topic
    from ostler.store import Store

_log = logging.getLogger(__name__)
_PAGE_LIMIT = 1000
_POSITIONS_LIMIT = 1000


class EventKeeping:
    """Makes the journal when the first event of a journaled topic comes, and brings it what a reload changes.

    Until then it stands in the journal's place: a daemon that publishes nothing pays nothing for it. On the loop.

    Args:
        publisher: What the events go out with.
        store: Where they are kept.
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
        """Take over what is configured; at the start and after a reload."""
        self._publisher.last.limit(options.last_count, options.last_size)
        self._limits = (options.journal_count, options.journal_age)
        if self._journal is not None:
            self._journal.limit(*self._limits)
        fits = TopicPatterns([*self._topics, *options.journal]).fits
        self._publisher.set_journal(self._journal or self, fits)

    def take(self, route: Route, packed: bytes, at: float, tail: bytes) -> None:
        """Make the journal, and hand it its first event."""
        self._journal = self._publisher.journal = self._make()
        self._journal.take(route, packed, at, tail)

    def retire(self, topic: Topic) -> None:
        """Keep no events of a topic of which none has come."""
        topic.journaled = False

    def stats(self) -> dict[str, int]:
        """Return no counters yet."""
        return {}

    def _make(self) -> Journal:
        from ostler.messaging.events.journal import Journal, JournalLimits
        from ostler.store.journal import EventRecords
        from ostler.store.outage import Outage

        records = EventRecords(self._store, self._clock, self._publisher.host)
        trouble = Outage(_log, "writing to the journal of events", self._clock)
        return Journal(self._publisher, records, self._clock, trouble, JournalLimits(*self._limits))

    async def close(self) -> None:
        """Write what waits, for a moment."""
        if self._journal is not None:
            await self._journal.close()


async def journal_topics(store: Store, clock: Clock, host: str) -> list[JournalTopic]:
    """Return the topics of the journal.

    Raises:
        StoreError: It cannot be read.
    """
    from ostler.messaging.events.event import JournalTopic
    from ostler.store.journal import EventRecords

    found = await EventRecords(store, clock, host).topics()
    return [JournalTopic(row.topic, host, row.first, row.last, row.epoch) for row in found]


async def journal_page(store: Store, clock: Clock, host: str, positions: Sequence[Position], limit: int) -> JournalPage:
    """Return the next events of the journal after some positions.

    Raises:
        InvalidInput: Too many positions, or no sensible limit.
        StoreError: It cannot be read.
    """
    import msgspec

    from ostler.messaging.events.event import JournalPage, JournalStart
    from ostler.store.journal import EventRecords

    if not 1 <= limit <= _PAGE_LIMIT or len(positions) > _POSITIONS_LIMIT:
        raise InvalidInput(
            f"the journal is read for at most {_POSITIONS_LIMIT} topics and {_PAGE_LIMIT} events at once, "
            f"not for {len(positions)} and {limit}"
        )
    wanted = [(place.topic, place.after, place.epoch) for place in positions]
    starts, events, more = await EventRecords(store, clock, host).since(wanted, limit)
    # They are on the wire as they are in the store.
    packed = cast("list[Event]", [msgspec.Raw(data) for data in events])
    found = [JournalStart(start.topic, host, start.after, start.last, start.anew) for start in starts]
    return JournalPage(found, packed, more)
