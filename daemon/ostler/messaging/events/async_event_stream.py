"""The events of one subscription for programs with a loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ostler.errors import MessagingError, OstlerError
from ostler.messaging.events.event import Event, Gap, Watermark
from ostler.messaging.events.subscription import MAX_WAITING_EVENTS, EventFeed, Subscription
from ostler.messaging.wire.client_errors import forked_client_error
from ostler.messaging.wire.transport import AsyncLink, AsyncTransport, Data

if TYPE_CHECKING:
    from ostler.messaging.events.replay import Replay

AsyncCallMethod: TypeAlias = Callable[[str, dict[str, Any], Any], Awaitable[Any]]
"""Calls a method of the daemon: its name, its arguments, the type of its result."""


class AsyncEventStream(AsyncIterator[Event | Gap]):
    """The events of one subscription, as they come; a `Gap` replaces those that are missing. For one loop.

    `await stream` (or `async with stream`) returns when the subscription is established: everything published after
    that is seen. Iterating does so automatically; it ends when the stream is closed.
    """

    def __init__(
        self,
        transport: AsyncTransport,
        subscription: Subscription,
        on_closed: Any,
        *,
        call_method: AsyncCallMethod | None = None,
        replay: Replay | None = None,
        refetch: bool = False,
        max_waiting_events: int = MAX_WAITING_EVENTS,
    ) -> None:
        self._transport = transport
        self._feed = EventFeed(subscription, replay, refetch=refetch and call_method is not None)
        self._on_closed = on_closed
        self._max_waiting_events = max_waiting_events
        self._call_method = call_method
        self._link: AsyncLink | None = None
        self._error: OstlerError | None = None
        self._changed = asyncio.Event()
        self._closed = False
        self._pid = 0

    def __await__(self) -> Generator[Any, None, Self]:
        return self._subscribe().__await__()

    async def __aenter__(self) -> Self:
        return await self._subscribe()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    async def __anext__(self) -> Event | Gap:
        if self._link is not None and self._pid != os.getpid():
            raise forked_client_error()
        if not self._feed.subscription.is_admitted and not self._closed:
            await self._subscribe()
        while (item := self._feed.pop()) is None:
            if await self._read_journal():
                continue
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StopAsyncIteration
            await self._wait()
        return item

    def close(self) -> None:
        """Unsubscribe. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._feed.stop_requests()
        if self._link is not None and self._pid == os.getpid():
            self._link.close()
        elif self._link is not None:
            self._link.close_after_fork()
        self._changed.set()
        self._on_closed(self)

    async def aclose(self) -> None:
        """Do what `close` does; for who closes any asynchronous iterator."""
        self.close()

    @property
    def waiting_count(self) -> int:
        """How many events wait for the reader."""
        return self._feed.waiting_count

    def positions(self) -> list[Watermark]:
        """Return the last number of each topic that the reader is done with, matching or not; empty if some wait."""
        return self._feed.positions()

    async def _read_journal(self) -> bool:
        """Read a page of the journal if that is due; return whether it was."""
        question = self._feed.next_request() if self._call_method is not None else None
        if self._call_method is None or question is None:
            return False
        try:
            answer = await self._call_method(*question)
        except OstlerError as error:
            self._feed.apply_error(error)
        else:
            self._feed.apply_reply(answer)
        return True

    async def _subscribe(self) -> Self:
        subscription = self._feed.subscription
        try:
            if self._link is None:
                self._pid = os.getpid()
                self._link = self._transport.subscribe_async(subscription.prefixes, self._on_message, self._on_lost)
            async with asyncio.timeout(subscription.admission_timeout):
                while not subscription.is_admitted and self._error is None and not self._closed:
                    await self._wait()
        except TimeoutError:
            self._error = self._feed.unanswered_error()
        except BaseException:
            self.close()
            raise
        if self._error is not None:
            self.close()
            raise self._error
        return self

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _on_message(self, data: Data) -> None:
        if self._feed.waiting_count >= self._max_waiting_events:
            return  # the numbers of what comes when there is room again tell what is missing
        try:
            self._feed.receive(data)
        except OstlerError as error:
            self._error = error
        self._changed.set()

    def _on_lost(self, error: MessagingError) -> None:
        self._error = error
        self._changed.set()
