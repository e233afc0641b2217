"""Journaled topics: an event is committed to the store before it is published, and published even if that fails."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ostler.clock import Clock
from ostler.errors import OstlerError, error_line, is_expected
from ostler.log.rate_limit import RateLimitedLog
from ostler.messaging.events.event import JOURNALED, JOURNALED_LATE, encoder
from ostler.messaging.events.event_publisher import EventTemplate, Publisher, encode_body

if TYPE_CHECKING:
    from ostler.messaging.events.event_publisher import TopicState

_log = logging.getLogger(__name__)
_JOURNALED, _JOURNALED_LATE = encoder.encode(JOURNALED), encoder.encode(JOURNALED_LATE)
_BATCH_SIZE = 1000
_WRITE_TIMEOUT = 2.0
"""Seconds that an event waits for the store before it goes out without it."""
_RETRY_DELAY = 1.0
"""Seconds between two tries to write while the store cannot be written."""
_MAX_LATE_EVENTS = 10_000
_MAX_LATE_BYTES = 16 * 1024 * 1024
"""What is kept in memory while the store cannot be written; more than that is missing in the journal."""
_TRIM_INTERVAL = 3600.0
_CLOSE_TIMEOUT = 2.0
_HEADER_SIZE = 2
"""Bytes of a message before the event itself: an array of two, and the version."""


class JournalRow(NamedTuple):
    """One event for the journal; `data` is the event as msgpack."""

    topic: str
    epoch: int
    sequence: int
    at: float
    data: bytes


class JournalStore(Protocol):
    """The store as the journal knows it; each method fails with an `OstlerError`."""

    async def last_sequences(self) -> tuple[dict[str, int], int]:
        """Return the last number of each topic, and the highest epoch there was."""
        ...

    async def append(self, rows: Sequence[JournalRow]) -> None:
        """Write events, in one commit; those that are there already are written again."""
        ...

    async def trim(self, count: int, age: float) -> None:
        """Remove what is above `count` for each topic, or older than `age` seconds."""
        ...


class OutageReporter(Protocol):
    """Reports once that something fails, and once that it works again."""

    def failed(self, error: BaseException) -> object:
        """Record that it failed."""
        ...

    def worked(self) -> object:
        """Record that it works."""
        ...


class JournalLimits(NamedTuple):
    """How many events of each topic are kept, and for how many seconds."""

    max_events: int = 10_000
    max_age: float = 7 * 86400.0


class JournalEntry:
    """One event on its way through the journal."""

    __slots__ = ("body", "is_sent", "row", "sequence", "template")

    def __init__(self, template: EventTemplate, sequence: int, at: float, body: bytes) -> None:
        self.template = template
        self.sequence = sequence
        self.body = body
        self.is_sent = False
        self.row = JournalRow(template.topic.name, template.topic.epoch, sequence, at, body[_HEADER_SIZE:])


class Journal:
    """Keeps the events of journaled topics, and sends them when they are kept, in the order of their numbers.

    While one commit is in progress the next events gather, so that there is one write at a time and the store's commits
    are shared. When the store takes too long or fails, events go out without waiting (`Event.kept` says so), stay in
    memory up to a limit and are written when that goes again. Beyond the limit the oldest are missing in the journal,
    which whoever reads it sees as a `Gap`.

    Each run of the daemon is an epoch of its own, numbers go on from the last one in the store: so a number that was
    given by a run whose last writes were lost is not taken for the same number given again.

    On the loop. The store is first asked when the first event of a journaled topic is published.

    Args:
        publisher: What sends the events.
        store: The store.
        clock: The source of time.
        outage: Says that the journal cannot be written.
        limits: How much is kept.
        max_late_events: How many events are kept in memory while the store cannot be written.
    """

    def __init__(
        self,
        publisher: Publisher,
        store: JournalStore,
        clock: Clock,
        outage: OutageReporter,
        limits: JournalLimits,
        *,
        max_late_events: int = _MAX_LATE_EVENTS,
    ) -> None:
        self.limits = limits
        self.lost_count = 0
        self.journaled_count = 0
        self._publisher = publisher
        self._store = store
        self._clock = clock
        self._outage = outage
        self._rate_limited_log = RateLimitedLog(_log, clock)
        self._last_sequences: dict[str, int] | None = None
        self._epoch = 0
        self._unnumbered: list[tuple[EventTemplate, bytes, float, bytes]] = []
        self._pending: list[JournalEntry] = []
        self._in_write: list[JournalEntry] = []
        self._late: deque[JournalEntry] = deque()
        self._late_bytes = 0
        self._max_late_events = max_late_events
        self._is_overdue = False
        self._stopping_topics: list[TopicState] = []
        self._closed = False
        self._added_since_trim = 0
        self._trim_at = clock.monotonic() + _TRIM_INTERVAL
        self._worker_task: asyncio.Task[None] | None = None
        self._trim_timer: asyncio.TimerHandle | None = None

    def stats(self) -> dict[str, int]:
        """Return the counters: events kept, events that wait for the store, events that are missing in it."""
        waiting = len(self._unnumbered) + len(self._pending) + len(self._in_write) + len(self._late)
        return {"kept": self.journaled_count, "waiting": waiting, "lost": self.lost_count}

    def append(self, template: EventTemplate, packed: bytes, at: float, tail: bytes) -> None:
        """Number an event, store it, and send it. Never waits."""
        if self._last_sequences is None:
            self._unnumbered.append((template, packed, at, tail))
        else:
            self._assign_sequence(self._last_sequences, template, packed, at, tail)
        self._start_worker()

    def set_limits(self, events: int, age: float) -> None:
        """Take other limits, as a reload does."""
        self.limits = JournalLimits(events, age)

    def stop_journaling(self, topic: TopicState) -> None:
        """Stop storing events of a topic: from now on, or when those that wait have gone out."""
        if self._worker_task is None:
            topic.is_journaled = False
        else:
            self._stopping_topics.append(topic)

    async def close(self) -> None:
        """Write what waits, for a moment; what cannot be written goes out all the same."""
        self._closed = True
        if self._trim_timer is not None:
            self._trim_timer.cancel()
        if (worker := self._worker_task) is not None:
            await asyncio.wait([worker], timeout=_CLOSE_TIMEOUT)
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        self._send_unnumbered()
        self._send_pending()
        if self._late:
            _log.warning("the event journal lacks the last %d events: the store could not be written", len(self._late))

    # ---------------------------------------------------------------- numbers

    def _assign_sequence(
        self, last: dict[str, int], template: EventTemplate, packed: bytes, at: float, tail: bytes
    ) -> None:
        topic = template.topic
        if topic.epoch != self._epoch:  # its first event in this run
            self._start_topic(topic, last)
        number = topic.last_sequence = topic.last_sequence + 1
        entry = JournalEntry(template, number, at, encode_body(template, packed, number, at, tail, _JOURNALED))
        if self._is_overdue:
            self._send_late(entry)
        else:
            self._pending.append(entry)

    def _start_topic(self, topic: TopicState, last: dict[str, int]) -> None:
        topic.last_sequence = last.get(topic.name, 0)
        topic.epoch = self._epoch
        topic.journal_state = JOURNALED

    def _send_unnumbered(self) -> None:
        """Send what was held for want of its number as events of a plain topic."""
        for waiting in self._unnumbered:
            self._publisher.send_unjournaled(*waiting)
        self._unnumbered.clear()

    # ---------------------------------------------------------------- the store

    def _start_worker(self) -> None:
        if self._worker_task is None and not self._closed:
            # Not in the context of the request that published the first event: the journal is the daemon's own work.
            self._worker_task = asyncio.get_running_loop().create_task(
                self._run_worker(), name="event journal", context=contextvars.Context()
            )
            self._worker_task.add_done_callback(self._on_worker_done)

    async def _run_worker(self) -> None:
        try:
            await self._write_or_retry()
            while self._unnumbered or self._pending or self._late:
                await self._write_or_retry()
        finally:
            # Here, and not in the done callback: an event that comes in between would not be written.
            self._worker_task = None
            for topic in self._stopping_topics:
                topic.is_journaled = self._publisher.is_journaled(topic.name)
            self._stopping_topics.clear()

    def _on_worker_done(self, worker: asyncio.Task[None]) -> None:
        """Log why, and restart when code has cancelled all tasks."""
        if not worker.cancelled() and (error := worker.exception()) is not None and not is_expected(error):
            _log.error("the event journal failed: %s", error_line(error), exc_info=error)
        if not self._closed and (self._unnumbered or self._pending or self._late):
            self._start_worker()

    async def _write_or_retry(self) -> None:
        timer = asyncio.get_running_loop().call_later(_WRITE_TIMEOUT, self._send_pending)
        try:
            if self._last_sequences is None:
                await self._load_sequences()
            written = await self._write_batch()
            await self._trim_if_due(written)
        except asyncio.CancelledError:
            if not self._closed:
                self._requeue_failed()
            raise
        except Exception as error:
            self._outage.failed(error)
            if not is_expected(error):
                _log.exception("the event journal failed")
            self._requeue_failed()
            self._send_pending()
            if self._closed:
                raise
            await asyncio.sleep(_RETRY_DELAY)
        finally:
            timer.cancel()

    def _requeue_failed(self) -> None:
        """Keep for later what could not be written, before all that came after it."""
        self._in_write, failed = [], self._in_write
        for entry in failed:
            self._send(entry, _JOURNALED_LATE)
        self._late.extendleft(reversed(failed))
        self._late_bytes += sum(len(entry.body) for entry in failed)

    async def _load_sequences(self) -> None:
        self._last_sequences, epoch = await self._store.last_sequences()
        self._epoch = max(self._publisher.epoch, epoch) + 1
        for waiting in self._unnumbered:
            self._assign_sequence(self._last_sequences, *waiting)
        self._unnumbered.clear()
        self._trim_timer = asyncio.get_running_loop().call_later(_TRIM_INTERVAL, self._on_trim_timer)

    async def _write_batch(self) -> int:
        batch = [self._late.popleft() for _ in range(min(len(self._late), _BATCH_SIZE))]
        self._late_bytes -= sum(len(entry.body) for entry in batch)
        if not self._late:
            room = _BATCH_SIZE - len(batch)
            batch += self._pending[:room]
            del self._pending[:room]
        if not batch:
            return 0
        self._in_write = batch
        await self._store.append([entry.row for entry in batch])
        self._in_write = []
        self.journaled_count += len(batch)
        for entry in batch:
            self._send(entry, _JOURNALED)
        if not self._late:
            self._is_overdue = False
            self._outage.worked()
        return len(batch)

    async def _trim_if_due(self, added: int) -> None:
        """Trim now and then: when a tenth of what is kept has been added, or an hour has gone."""
        self._added_since_trim += added
        now = self._clock.monotonic()
        if self._added_since_trim < max(100, self.limits.max_events // 10) and now < self._trim_at:
            return
        self._added_since_trim, self._trim_at = 0, now + _TRIM_INTERVAL
        try:
            await self._store.trim(self.limits.max_events, self.limits.max_age)
        except OstlerError as error:
            _log.debug("the event journal was not trimmed: %s", error_line(error))

    def _on_trim_timer(self) -> None:
        """Trim by age, also where nothing is published any more."""
        self._trim_timer = asyncio.get_running_loop().call_later(_TRIM_INTERVAL, self._on_trim_timer)
        self._trim_at = 0.0
        self._start_worker()

    # ---------------------------------------------------------------- live

    def _send_pending(self) -> None:
        """Send all that waits: the store has taken too long, or failed."""
        if self._last_sequences is None:
            self._send_unnumbered()
            return
        if not (self._in_write or self._pending or self._late):
            return
        if not self._is_overdue:
            self._is_overdue = True
            self._rate_limited_log.warning("overdue", "the store is slow; events are published before they are stored")
        for entry in self._in_write:
            self._send(entry, _JOURNALED_LATE)
        held, self._pending = self._pending, []
        for entry in held:
            self._send_late(entry)

    def _send_late(self, entry: JournalEntry) -> None:
        self._send(entry, _JOURNALED_LATE)
        self._late.append(entry)
        self._late_bytes += len(entry.body)
        while len(self._late) > self._max_late_events or self._late_bytes > _MAX_LATE_BYTES:
            gone = self._late.popleft()
            self._late_bytes -= len(gone.body)
            self.lost_count += 1
            self._rate_limited_log.warning(
                "lost", f"event {gone.sequence} of {gone.row.topic} will be missing from the journal"
            )

    def _send(self, entry: JournalEntry, kept: bytes) -> None:
        if not entry.is_sent:
            entry.is_sent = True
            self._publisher.send_encoded(entry.template, entry.sequence, entry.body[:-1] + kept)
