"""The events of one subscription for ordinary programs: it blocks, and needs no loop. Imports no asyncio."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ostler.clock import Clock
from ostler.errors import OstlerError
from ostler.messaging.events.event import Event, Gap
from ostler.messaging.events.subscription import EventFeed, Subscription
from ostler.messaging.wire.client_errors import forked_client_error
from ostler.messaging.wire.transport import Transport

if TYPE_CHECKING:
    from ostler.messaging.events.replay import Replay

CallMethod: TypeAlias = Callable[[str, dict[str, Any], Any], Any]
"""Calls a method of the daemon: its name, its arguments, the type of its result."""
_NO_TIMEOUT = 3600.0


class EventStream(Iterator[Event | Gap]):
    """The events of one subscription, as they come; a `Gap` replaces those that are missing. One thread at a time.

    Iterating blocks until the next event; it ends when the stream is closed.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        subscription: Subscription,
        on_closed: Any,
        *,
        call_method: CallMethod | None = None,
        replay: Replay | None = None,
        refetch: bool = False,
    ) -> None:
        self._clock = clock
        self._feed = EventFeed(subscription, replay, refetch=refetch and call_method is not None)
        self._on_closed = on_closed
        self._call_method = call_method
        self._is_open = True
        self._pid = os.getpid()
        self._link = transport.subscribe(subscription.prefixes)
        try:
            self._wait_until_admitted()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __next__(self) -> Event | Gap:
        while self._is_open:
            found = self.next(timeout=_NO_TIMEOUT)
            if found is not None:
                return found
        raise StopIteration

    def next(self, timeout: float) -> Event | Gap | None:
        """Return the next event, None when none has come within `timeout` seconds.

        Raises:
            ConnectionLost: The daemon has gone.
            OstlerError: The journal was asked for, and could not be read.
        """
        if self._pid != os.getpid():
            raise forked_client_error()
        until = self._clock.monotonic() + timeout
        while self._is_open:
            if (item := self._feed.pop()) is not None:
                return item
            if self._read_journal():
                continue
            left = until - self._clock.monotonic()
            self._receive_events(max(0.0, left))
            if left <= 0 and not self._feed.waiting_count:
                break
        return self._feed.pop()

    def close(self) -> None:
        """Unsubscribe. May be called twice."""
        if self._is_open:
            self._is_open = False
            self._feed.stop_requests()
            if self._pid == os.getpid():
                self._link.close()
            else:
                self._link.close_after_fork()
            self._on_closed(self)

    def _read_journal(self) -> bool:
        """Read a page of the journal if that is due; return whether it was."""
        question = self._feed.next_request() if self._call_method is not None else None
        if self._call_method is None or question is None:
            return False
        try:
            answer = self._call_method(*question)
        except OstlerError as error:
            self._feed.apply_error(error)
        else:
            self._feed.apply_reply(answer)
        return True

    def _receive_events(self, timeout: float) -> None:
        for data in self._link.receive(timeout):
            self._feed.receive(data)

    def _wait_until_admitted(self) -> None:
        subscription = self._feed.subscription
        until = self._clock.monotonic() + subscription.admission_timeout
        while not subscription.is_admitted:
            left = until - self._clock.monotonic()
            if left <= 0:
                raise self._feed.unanswered_error()
            self._receive_events(left)
