"""One event handler: a method of a manager, and how far it is with the events of each host."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ostler import fork
from ostler.errors import Busy, DaemonNotRunning, Draining, OstlerError, error_line, is_a, is_expected
from ostler.manager_types import EventHandlerStatus
from ostler.messaging.events.event import JOURNALED, Event, Gap, JournalTopic, Watermark
from ostler.messaging.events.subscription import Subscription
from ostler.messaging.wire.request_context import Context, serving_to_end
from ostler.printable import printable
from ostler.store.records.position_records import EventPosition
from ostler.time_text import format_duration, format_seconds

if TYPE_CHECKING:
    from ostler.aio import WorkerPool
    from ostler.clock import Clock
    from ostler.manager.on_event import EventHandlerSettings
    from ostler.messaging.events.async_event_stream import AsyncEventStream
    from ostler.service.event_handlers.event_sources import EventSource

_log = logging.getLogger(__name__)
_MIN_RETRY_DELAY = 0.25
_MAX_RETRY_DELAY = 15.0
"""Seconds between two tries to subscribe, at first and later."""
_BUSY_DELAY = 0.2
"""Seconds after which an event is tried again for which the pool of the service had no room."""
_SLOW_AFTER = 60.0
"""Seconds after which a call that has not returned is reported."""
_FAILING_EVENTS = 3
"""A handler that failed with its last events, this many in a row, makes its service degraded."""
_MAX_TOPICS = 1000
"""Topics of one host of which positions are kept; the journal takes no more positions in one question."""


class HandlerEnvironment(NamedTuple):
    """What all handlers of a host use.

    Args:
        clock: The source of time.
        on_moved: Called with each new position that is to be stored.
    """

    clock: Clock
    on_moved: Callable[[EventPosition], None]


class EventHandler:
    """Calls one method with the events of all hosts that it follows, one at a time for each host. On the loop.

    Args:
        service: The topic of its service.
        name: The name of the method.
        method: The method, bound.
        settings: The arguments of the decorator.
        pool: The threads of the service, for a `def`.
        environment: What all handlers use.
    """

    def __init__(
        self,
        service: str,
        name: str,
        method: Callable[..., Any],
        settings: EventHandlerSettings,
        pool: WorkerPool,
        environment: HandlerEnvironment,
    ) -> None:
        self.service = service
        self.name = name
        self.settings = settings
        self.is_stopping = False
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        """The tasks that follow a host, by its name."""
        self.is_following = asyncio.Event()
        """Set once it gets what a host publishes: its own, if it follows that one."""
        self._method = method
        self._is_async = inspect.iscoroutinefunction(method)
        self._pool = pool
        self._clock, self._on_moved = environment
        self._positions: dict[tuple[str, str], Event] = {}
        self._known_hosts: set[str] = set()
        self._running: dict[str, tuple[Context, float, str]] = {}
        self._streams: dict[str, AsyncEventStream] = {}
        self._unreachable: dict[str, str] = {}
        self._logged_errors: set[str] = set()
        self._handled = self._errors = self._failures = self._gaps = self._runs = 0
        self._last_error = ""

    # ---------------------------------------------------------------- following

    def restore(self, positions: Iterable[EventPosition]) -> None:
        """Continue from stored positions; before it follows any host."""
        for position in positions:
            self._known_hosts.add(position.source)
            if position.topic:
                self._set_position(position.source, position.topic, position.sequence, position.epoch)

    async def follow(self, source: EventSource) -> None:
        """Follow the events of a host until the handler stops; what fails is retried."""
        delay = _MIN_RETRY_DELAY
        while not self.is_stopping:
            try:
                stream = await self._open(source)
                if self._unreachable.pop(source.host, None) is not None:
                    _log.info("event handler %s of %s follows %s again", self.name, self.service, source.host)
                delay = _MIN_RETRY_DELAY
                await self._consume(source.host, stream)
            except OstlerError as error:
                self._note_unreachable(source.host, error)
            finally:
                if (opened := self._streams.pop(source.host, None)) is not None:
                    opened.close()
            if not self.is_stopping:
                await asyncio.sleep(delay)
                delay = min(_MAX_RETRY_DELAY, delay * 2)

    async def _open(self, source: EventSource) -> AsyncEventStream:
        topics: list[JournalTopic] = await source.request("event_topics", {}, list[JournalTopic])
        wanted = Subscription(self.settings.patterns)
        for topic in [topic for topic in topics if wanted.covers(topic.topic)][:_MAX_TOPICS]:
            if (source.host, topic.topic) in self._positions:
                continue
            # One that appeared after the handler was first started is read from its beginning.
            known = source.host in self._known_hosts
            self._move(source.host, topic.topic, *((0, 0) if known else (topic.last, topic.epoch)))
        if source.host not in self._known_hosts:
            self._known_hosts.add(source.host)
            self._on_moved(EventPosition(self.service, self.name, source.host, "", 0, 0))
        since = [event for (host, _), event in self._positions.items() if host == source.host]
        since = [event for event in since if wanted.covers(event.topic)]
        stream = await source.open(self.settings.patterns, since, self.settings.queue)
        self._streams[source.host] = stream
        self.is_following.set()  # its own host comes first
        return stream

    async def _consume(self, host: str, stream: AsyncEventStream) -> None:
        async for item in stream:
            await self._handle(host, item)
            self._record(host, item)
            if self.is_stopping:
                return
            self.note_progress(host)

    def note_progress(self, host: str) -> None:
        """Move on past events that did not match, once the handler is done with all that did."""
        if host in self._running or (stream := self._streams.get(host)) is None:
            return
        for place in stream.positions():
            self._record_watermark(place)

    def note_all_progress(self) -> None:
        """Do what `note_progress` does, for every host."""
        for host in list(self._streams):
            self.note_progress(host)

    def _note_unreachable(self, host: str, error: OstlerError) -> None:
        if host not in self._unreachable:
            # The link to the host says itself that it is down, once for everybody.
            level = logging.DEBUG if is_a(error, DaemonNotRunning) else logging.WARNING
            text = "event handler %s of %s cannot follow the events of %s, retrying: %s"
            _log.log(level, text, self.name, self.service, host, error_line(error))
        self._unreachable[host] = printable(error.message)

    # ---------------------------------------------------------------- positions

    def _record(self, host: str, item: Event | Gap) -> None:
        if isinstance(item, Event):
            if item.journaled:
                self._move(host, item.topic, item.sequence, item.epoch)
            else:
                self._positions[host, item.topic] = item
        elif item.last and (host, item.topic) in self._positions and self._positions[host, item.topic].journaled:
            self._move(host, item.topic, item.last, 0)

    def _record_watermark(self, place: Watermark) -> None:
        seen = self._positions.get((place.host, place.topic))
        if seen is not None and (seen.sequence, bool(seen.journaled)) == (place.sequence, bool(place.journaled)):
            return
        if place.journaled:
            self._move(place.host, place.topic, place.sequence, place.epoch)
        else:
            self._positions[place.host, place.topic] = Event(
                place.topic, place.host, "", None, place.sequence, place.epoch, 0.0
            )

    def _move(self, host: str, topic: str, sequence: int, epoch: int) -> None:
        self._set_position(host, topic, sequence, epoch)
        self._on_moved(EventPosition(self.service, self.name, host, topic, sequence, epoch))

    def _set_position(self, host: str, topic: str, sequence: int, epoch: int) -> None:
        self._positions[host, topic] = Event(topic, host, "", None, sequence, epoch, 0.0, journaled=JOURNALED)

    # ---------------------------------------------------------------- calls

    async def _handle(self, host: str, item: Event | Gap) -> None:
        context = self._make_context(item)
        key = item.key if isinstance(item, Event) else f"gap of {item.topic}.{item.host}"
        self._running[host] = (context, self._clock.monotonic(), key)
        error: BaseException | None = None
        try:
            await self._call(context, item)
        except asyncio.CancelledError:
            raise
        except BaseException as raised:  # noqa: BLE001 - SystemExit of a plugin must not stop the loop
            error = raised
        finally:
            fork.exit_if_child(error)
            self._running.pop(host, None)
        if error is not None:
            self._judge(context, error, key)
            return
        self._handled += 1
        self._failures = 0
        self._gaps += isinstance(item, Gap)
        if self._last_error:
            self._last_error = ""
            self._logged_errors.clear()
            _log.info("event handler %s of %s works again", self.name, self.service)

    async def _call(self, context: Context, item: Event | Gap) -> None:
        if self._is_async:
            with serving_to_end(context):
                await self._method(context, item)
            return

        def work() -> None:
            with serving_to_end(context):
                result = self._method(context, item)
            if fork.in_child:
                fork.exit_child()
            if asyncio.iscoroutine(result):
                result.close()
                raise TypeError(f"{self.name} is a `def` that returned a coroutine; make it `async def`")

        await self._run_in_pool(work)

    async def _run_in_pool(self, work: Callable[[], None]) -> None:
        """Run it on a thread; wait while the pool of the service has no room."""
        began = False

        def run() -> None:
            nonlocal began
            began = True
            work()

        while True:
            try:
                await self._pool.run(run, label=f"{self.service}.{self.name}")
            except Busy:
                if began:
                    raise
                await asyncio.sleep(_BUSY_DELAY)
            else:
                return

    def _make_context(self, item: Event | Gap) -> Context:
        self._runs += 1
        context = Context(self.service, self.name, request_id=f"{self.name}-{self._runs}", clock=self._clock)
        if isinstance(item, Event):
            context.trace = item.trace
        return context

    def _judge(self, context: Context, error: BaseException, key: str) -> None:
        """Count and log an error; the event is done with, unless the service stops.

        Raises:
            CancelledError: The service stops: the next start begins with this event.
        """
        if self.is_stopping and (context.cancelled or is_a(error, Draining)):
            raise asyncio.CancelledError
        self._errors += 1
        self._failures += 1
        self._last_error = f"{key}: {error_line(error)}"
        text = error_line(error)
        if text not in self._logged_errors and len(self._logged_errors) < 100:
            self._logged_errors.add(text)
            _log.error(
                "event handler %s of %s failed for %s: %s", self.name, self.service, printable(key), text,
                exc_info=None if is_expected(error) else error,
            )  # fmt: skip

    # ---------------------------------------------------------------- stop and status

    def stop(self) -> None:
        """Take no further events; a call in progress continues to its end."""
        self.is_stopping = True
        for host, task in self.tasks.items():
            if host not in self._running:
                task.cancel()

    def cancel(self) -> None:
        """Take no further events, and cancel the calls in progress."""
        self.stop()
        for context, _, _ in list(self._running.values()):
            context.cancel()
        for task in self.tasks.values():
            task.cancel()

    @property
    def is_running(self) -> bool:
        """Whether a call is in progress."""
        return bool(self._running)

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"event handler {self.name} of {self.service}"

    def health(self) -> str:
        """Return for which reason its service is degraded; empty when it is not."""
        if slow := self._slow_calls():
            limit = format_seconds(_SLOW_AFTER)
            return f"{self.label} has been handling {printable(slow[0][1])} for longer than {limit}"
        if self._failures >= _FAILING_EVENTS:
            error = printable(self._last_error)
            return f"{self.label} failed {_FAILING_EVENTS} times in a row or more often: {error}"
        return ""

    def _slow_calls(self) -> list[tuple[float, str]]:
        """Return since when it has been handling an event for too long, and which one, the longest first."""
        earliest = self._clock.monotonic() - _SLOW_AFTER
        return sorted((since, key) for _, since, key in self._running.values() if since < earliest)

    def problems(self, *, with_health: bool = True) -> list[str]:
        """Return what is wrong with it, a line each.

        Args:
            with_health: Whether failed and slow calls are wanted too; not where `health` is shown.
        """
        unreachable = [
            f"{self.label} cannot follow the events of {host}: {why}" for host, why in self._unreachable.items()
        ]
        return [*self._call_problems(), *unreachable] if with_health else unreachable

    def _call_problems(self) -> list[str]:
        lines = []
        if self._last_error:
            lines.append(f"{self.label} failed, {self._errors} errors: {printable(self._last_error)}")
        now = self._clock.monotonic()
        lines += [
            f"{self.label} has been handling {printable(key)} for {format_duration(now - since)}"
            for since, key in self._slow_calls()
        ]
        return lines

    def status(self) -> EventHandlerStatus:
        """Return it as an operator sees it."""
        _, since, key = min(self._running.values(), key=lambda row: row[1], default=(None, 0.0, ""))
        return EventHandlerStatus(
            service=self.service,
            handler=self.name,
            patterns=list(self.settings.patterns),
            hosts=sorted(self._streams),
            unreachable=dict(sorted(self._unreachable.items())),
            handled=self._handled,
            errors=self._errors,
            gaps=self._gaps,
            waiting=sum(stream.waiting_count for stream in self._streams.values()),
            handling=key,
            handling_since=self._clock.wall() - (self._clock.monotonic() - since) if key else 0.0,
            last_error=self._last_error,
        )
