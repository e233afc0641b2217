"""The events of one subscription for programs with a loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ostler.errors import MessagingError, OstlerError
from ostler.messaging.events.event import Event, Gap
from ostler.messaging.events.feed import EventFeed
from ostler.messaging.events.subscription import Subscription
from ostler.messaging.rpc.losses import of_other_process
from ostler.messaging.transport import AsyncLink, Data, Transport

if TYPE_CHECKING:
    from ostler.messaging.events.replay import Replay

AsyncAsk: TypeAlias = Callable[[str, dict[str, Any], Any], Awaitable[Any]]
"""Calls a method of the daemon: its name, its arguments, the type of its result."""
_WAITING = 20_000
"""Events that wait for who iterates; more are dropped, and seen as a gap."""


class AsyncEventStream(AsyncIterator[Event | Gap]):
    """The events of one subscription, as they come; a `Gap` stands where some are missing. For one loop.

    `await stream` (or `async with stream`) returns when the subscription stands: everything published after that is
    seen. Iterating does so by itself; it ends when the stream is closed.
    """

    def __init__(
        self,
        transport: Transport,
        subscription: Subscription,
        closed: Any,
        *,
        ask: AsyncAsk | None = None,
        replay: Replay | None = None,
        refetch: bool = False,
    ) -> None:
        self._transport = transport
        self._feed = EventFeed(subscription, replay, refetch=refetch and ask is not None)
        self._told_closed = closed
        self._ask = ask
        self._link: AsyncLink | None = None
        self._error: OstlerError | None = None
        self._changed = asyncio.Event()
        self._closed = False
        self._process = 0

    def __await__(self) -> Generator[Any, None, Self]:
        return self._subscribe().__await__()

    async def __aenter__(self) -> Self:
        return await self._subscribe()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    async def __anext__(self) -> Event | Gap:
        if self._link is not None and self._process != os.getpid():
            raise of_other_process()
        if not self._feed.subscription.admitted and not self._closed:
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
        self._feed.ask_no_more()
        if self._link is not None and self._process == os.getpid():
            self._link.close()
        elif self._link is not None:
            self._link.abandon()
        self._changed.set()
        self._told_closed(self)

    async def _read_journal(self) -> bool:
        """Read a page of the journal if that is due; return whether it was."""
        question = self._feed.question() if self._ask is not None else None
        if self._ask is None or question is None:
            return False
        try:
            answer = await self._ask(*question)
        except OstlerError as error:
            self._feed.fail(error)
        else:
            self._feed.answer(answer)
        return True

    async def _subscribe(self) -> Self:
        subscription = self._feed.subscription
        try:
            if self._link is None:
                self._process = os.getpid()
                self._link = self._transport.subscribe_async(subscription.prefixes, self._receive, self._lost)
            async with asyncio.timeout(subscription.patience):
                while not subscription.admitted and self._error is None and not self._closed:
                    await self._wait()
        except TimeoutError:
            self._error = self._feed.unanswered()
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

    def _receive(self, data: Data) -> None:
        if self._feed.waiting >= _WAITING:
            return  # the numbers of what comes when there is room again tell what is missing
        try:
            self._feed.receive(data)
        except OstlerError as error:
            self._error = error
        self._changed.set()

    def _lost(self, error: MessagingError) -> None:
        self._error = error
        self._changed.set()
