"""The events of one subscription for ordinary programs: it blocks, and needs no loop. Imports no asyncio."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ostler.clock import Clock
from ostler.errors import OstlerError
from ostler.messaging.events.event import Event, Gap
from ostler.messaging.events.feed import EventFeed
from ostler.messaging.events.subscription import Subscription
from ostler.messaging.rpc.losses import of_other_process
from ostler.messaging.transport import Transport

if TYPE_CHECKING:
    from ostler.messaging.events.replay import Replay

Ask: TypeAlias = Callable[[str, dict[str, Any], Any], Any]
"""Calls a method of the daemon: its name, its arguments, the type of its result."""
_FOR_EVER = 3600.0


class EventStream(Iterator[Event | Gap]):
    """The events of one subscription, as they come; a `Gap` stands where some are missing. One thread at a time.

    Iterating blocks until the next event; it ends when the stream is closed.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        subscription: Subscription,
        closed: Any,
        *,
        ask: Ask | None = None,
        replay: Replay | None = None,
        refetch: bool = False,
    ) -> None:
        self._clock = clock
        self._feed = EventFeed(subscription, replay, refetch=refetch and ask is not None)
        self._told_closed = closed
        self._ask = ask
        self._open = True
        self._process = os.getpid()
        self._link = transport.subscribe(subscription.prefixes)
        try:
            self._be_admitted()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __next__(self) -> Event | Gap:
        while self._open:
            found = self.next(timeout=_FOR_EVER)
            if found is not None:
                return found
        raise StopIteration

    def next(self, timeout: float) -> Event | Gap | None:
        """Return the next event, None when none has come within `timeout` seconds.

        Raises:
            ConnectionLost: The daemon has gone.
            OstlerError: The journal was asked for, and could not be read.
        """
        if self._process != os.getpid():
            raise of_other_process()
        until = self._clock.monotonic() + timeout
        while self._open:
            if (item := self._feed.pop()) is not None:
                return item
            if self._read_journal():
                continue
            left = until - self._clock.monotonic()
            self._take(max(0.0, left))
            if left <= 0 and not self._feed.waiting:
                break
        return self._feed.pop()

    def close(self) -> None:
        """Unsubscribe. May be called twice."""
        if self._open:
            self._open = False
            self._feed.ask_no_more()
            if self._process == os.getpid():
                self._link.close()
            else:
                self._link.abandon()
            self._told_closed(self)

    def _read_journal(self) -> bool:
        """Read a page of the journal if that is due; return whether it was."""
        question = self._feed.question() if self._ask is not None else None
        if self._ask is None or question is None:
            return False
        try:
            answer = self._ask(*question)
        except OstlerError as error:
            self._feed.fail(error)
        else:
            self._feed.answer(answer)
        return True

    def _take(self, timeout: float) -> None:
        for data in self._link.receive(timeout):
            self._feed.receive(data)

    def _be_admitted(self) -> None:
        subscription = self._feed.subscription
        until = self._clock.monotonic() + subscription.patience
        while not subscription.admitted:
            left = until - self._clock.monotonic()
            if left <= 0:
                raise self._feed.unanswered()
            self._take(left)
