"""Journaled topics: an event is committed to the store before it goes out, and goes out even if that cannot be."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ostler.clock import Clock
from ostler.errors import OstlerError, describe, is_expected
from ostler.messaging.events.event import KEPT, LATE, encoder
from ostler.messaging.events.publisher import Publisher, Route, body_of
from ostler.messaging.quiet import QuietLog

if TYPE_CHECKING:
    from ostler.messaging.events.publisher import Topic

_log = logging.getLogger(__name__)
_KEPT, _LATE = encoder.encode(KEPT), encoder.encode(LATE)
_BATCH = 1000
_PATIENCE = 2.0
"""Seconds that an event waits for the store before it goes out without it."""
_AGAIN = 1.0
"""Seconds between two tries to write while the store cannot be written."""
_LATE_COUNT = 10_000
_LATE_SIZE = 16 * 1024 * 1024
"""What is kept in memory while the store cannot be written; more than that is missing in the journal."""
_TRIM_EVERY = 3600.0
_LAST_WRITES = 2.0
_START = 2
"""Bytes of a message before the event itself: an array of two, and the version."""


class Row(NamedTuple):
    """One event for the journal; `data` is the event as msgpack."""

    topic: str
    epoch: int
    number: int
    at: float
    data: bytes


class EventRecords(Protocol):
    """The store as the journal knows it; each method fails with an `OstlerError`."""

    async def numbers(self) -> tuple[dict[str, int], int]:
        """Return the last number of each topic, and the highest epoch there was."""
        ...

    async def append(self, rows: Sequence[Row]) -> None:
        """Write events, in one commit; those that are there already are written again."""
        ...

    async def trim(self, count: int, age: float) -> None:
        """Remove what is above `count` for each topic, or older than `age` seconds."""
        ...


class Trouble(Protocol):
    """Says once that something does not go, and once that it does again."""

    def failed(self, error: BaseException) -> object:
        """Take note that it failed."""
        ...

    def worked(self) -> object:
        """Take note that it works."""
        ...


class JournalLimits(NamedTuple):
    """How many events of each topic are kept, and for how many seconds."""

    events: int = 10_000
    age: float = 7 * 86400.0


class Entry:
    """One event on its way through the journal."""

    __slots__ = ("body", "live", "number", "route", "row")

    def __init__(self, route: Route, number: int, at: float, body: bytes) -> None:
        self.route = route
        self.number = number
        self.body = body
        self.live = False
        self.row = Row(route.topic.name, route.topic.epoch, number, at, body[_START:])


class Journal:
    """Keeps the events of journaled topics, and sends them when they are kept, in the order of their numbers.

    While one commit is under way the next events gather, so that there is one write at a time and the store's commits
    are shared. When the store takes too long or fails, events go out without waiting (`Event.kept` says so), stay in
    memory up to a limit and are written when that goes again. Beyond the limit the oldest are missing in the journal,
    which whoever reads it sees as a `Gap`.

    Each run of the daemon is an epoch of its own, numbers go on from the last one in the store: so a number that was
    given by a run whose last writes were lost is not taken for the same number given again.

    On the loop. The store is first asked when the first event of a journaled topic is published.

    Args:
        publisher: What sends the events.
        records: The store.
        clock: The source of time.
        trouble: Says that the journal cannot be written.
        limits: How much is kept.
    """

    def __init__(
        self, publisher: Publisher, records: EventRecords, clock: Clock, trouble: Trouble, limits: JournalLimits
    ) -> None:
        self.limits = limits
        self.lost = 0
        self.kept = 0
        self._publisher = publisher
        self._records = records
        self._clock = clock
        self._trouble = trouble
        self._quiet = QuietLog(_log, clock)
        self._last: dict[str, int] | None = None
        self._epoch = 0
        self._unnumbered: list[tuple[Route, bytes, float, bytes]] = []
        self._held: list[Entry] = []
        self._writing: list[Entry] = []
        self._late: deque[Entry] = deque()
        self._late_size = 0
        self._overdue = False
        self._retiring: list[Topic] = []
        self._closed = False
        self._since_trim = 0
        self._trim_at = clock.monotonic() + _TRIM_EVERY
        self._worker: asyncio.Task[None] | None = None
        self._hourly: asyncio.TimerHandle | None = None

    def stats(self) -> dict[str, int]:
        """Return the counters: events kept, events that wait for the store, events that are missing in it."""
        waiting = len(self._unnumbered) + len(self._held) + len(self._writing) + len(self._late)
        return {"kept": self.kept, "waiting": waiting, "lost": self.lost}

    def take(self, route: Route, packed: bytes, at: float, tail: bytes) -> None:
        """Number an event, keep it, and send it. Never waits."""
        if self._last is None:
            self._unnumbered.append((route, packed, at, tail))
        else:
            self._number(self._last, route, packed, at, tail)
        self._wake()

    def limit(self, events: int, age: float) -> None:
        """Take other limits, as a reload does."""
        self.limits = JournalLimits(events, age)

    def retire(self, topic: Topic) -> None:
        """Keep no more events of a topic: from now on, or when those that wait have gone out."""
        if self._worker is None:
            topic.journaled = False
        else:
            self._retiring.append(topic)

    async def close(self) -> None:
        """Write what waits, for a moment; what cannot be written goes out all the same."""
        self._closed = True
        if self._hourly is not None:
            self._hourly.cancel()
        if (worker := self._worker) is not None:
            await asyncio.wait([worker], timeout=_LAST_WRITES)
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        self._send_without_numbers()
        self._let_go()
        if self._late:
            _log.warning("the journal is missing the last %d events: the store could not be written", len(self._late))

    # ---------------------------------------------------------------- numbers

    def _number(self, last: dict[str, int], route: Route, packed: bytes, at: float, tail: bytes) -> None:
        topic = route.topic
        if topic.epoch != self._epoch:  # its first event in this run
            self._begin(topic, last)
        number = topic.number = topic.number + 1
        entry = Entry(route, number, at, body_of(route, packed, number, at, tail, _KEPT))
        if self._overdue:
            self._send_late(entry)
        else:
            self._held.append(entry)

    def _begin(self, topic: Topic, last: dict[str, int]) -> None:
        topic.number = last.get(topic.name, 0)
        topic.epoch = self._epoch
        topic.kept = KEPT

    def _send_without_numbers(self) -> None:
        """Send what was held for want of its number as events of a plain topic."""
        for waiting in self._unnumbered:
            self._publisher.send_plain(*waiting)
        self._unnumbered.clear()

    # ---------------------------------------------------------------- the store

    def _wake(self) -> None:
        if self._worker is None and not self._closed:
            # Not in the name of whose request published the first event: the journal is the daemon's own work.
            self._worker = asyncio.get_running_loop().create_task(
                self._work(), name="journal of events", context=contextvars.Context()
            )
            self._worker.add_done_callback(self._worker_ended)

    async def _work(self) -> None:
        try:
            await self._try()
            while self._unnumbered or self._held or self._late:
                await self._try()
        finally:
            # Here, and not when somebody is told of the end: what comes in between would wait for nobody.
            self._worker = None
            for topic in self._retiring:
                topic.journaled = self._publisher.journaled(topic.name)
            self._retiring.clear()

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        """Say why, and go on when somebody has cancelled all tasks that there are."""
        if not worker.cancelled() and (error := worker.exception()) is not None and not is_expected(error):
            _log.error("the journal of events failed: %s", describe(error), exc_info=error)
        if not self._closed and (self._unnumbered or self._held or self._late):
            self._wake()

    async def _try(self) -> None:
        timer = asyncio.get_running_loop().call_later(_PATIENCE, self._let_go)
        try:
            if self._last is None:
                await self._load()
            written = await self._write()
            await self._trim_if_due(written)
        except asyncio.CancelledError:
            if not self._closed:
                self._take_back()
            raise
        except Exception as error:
            self._trouble.failed(error)
            if not is_expected(error):
                _log.exception("the journal of events failed")
            self._take_back()
            self._let_go()
            if self._closed:
                raise
            await asyncio.sleep(_AGAIN)
        finally:
            timer.cancel()

    def _take_back(self) -> None:
        """Keep for later what could not be written, before all that came after it."""
        self._writing, failed = [], self._writing
        for entry in failed:
            self._send(entry, _LATE)
        self._late.extendleft(reversed(failed))
        self._late_size += sum(len(entry.body) for entry in failed)

    async def _load(self) -> None:
        self._last, epoch = await self._records.numbers()
        self._epoch = max(self._publisher.epoch, epoch) + 1
        for waiting in self._unnumbered:
            self._number(self._last, *waiting)
        self._unnumbered.clear()
        self._hourly = asyncio.get_running_loop().call_later(_TRIM_EVERY, self._trim_hourly)

    async def _write(self) -> int:
        batch = [self._late.popleft() for _ in range(min(len(self._late), _BATCH))]
        self._late_size -= sum(len(entry.body) for entry in batch)
        if not self._late:
            room = _BATCH - len(batch)
            batch += self._held[:room]
            del self._held[:room]
        if not batch:
            return 0
        self._writing = batch
        await self._records.append([entry.row for entry in batch])
        self._writing = []
        self.kept += len(batch)
        for entry in batch:
            self._send(entry, _KEPT)
        if not self._late:
            self._overdue = False
            self._trouble.worked()
        return len(batch)

    async def _trim_if_due(self, added: int) -> None:
        """Trim now and then: when a tenth of what is kept has been added, or an hour has gone."""
        self._since_trim += added
        now = self._clock.monotonic()
        if self._since_trim < max(100, self.limits.events // 10) and now < self._trim_at:
            return
        self._since_trim, self._trim_at = 0, now + _TRIM_EVERY
        try:
            await self._records.trim(self.limits.events, self.limits.age)
        except OstlerError as error:
            _log.debug("the journal of events was not trimmed: %s", describe(error))

    def _trim_hourly(self) -> None:
        """Trim by age, also where nothing is published any more."""
        self._hourly = asyncio.get_running_loop().call_later(_TRIM_EVERY, self._trim_hourly)
        self._trim_at = 0.0
        self._wake()

    # ---------------------------------------------------------------- live

    def _let_go(self) -> None:
        """Send all that waits: the store has taken too long, or failed."""
        if self._last is None:
            self._send_without_numbers()
            return
        if not (self._writing or self._held or self._late):
            return
        if not self._overdue:
            self._overdue = True
            self._quiet.warning("overdue", "the store keeps events waiting; they go out before they are kept")
        for entry in self._writing:
            self._send(entry, _LATE)
        held, self._held = self._held, []
        for entry in held:
            self._send_late(entry)

    def _send_late(self, entry: Entry) -> None:
        self._send(entry, _LATE)
        self._late.append(entry)
        self._late_size += len(entry.body)
        while len(self._late) > _LATE_COUNT or self._late_size > _LATE_SIZE:
            gone = self._late.popleft()
            self._late_size -= len(gone.body)
            self.lost += 1
            self._quiet.warning("lost", f"event {gone.number} of {gone.row.topic} will be missing in the journal")

    def _send(self, entry: Entry, kept: bytes) -> None:
        if not entry.live:
            entry.live = True
            self._publisher.send_body(entry.route, entry.number, entry.body[:-1] + kept)
