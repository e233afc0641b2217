"""The events of one subscription for programs with a loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Generator
from types import TracebackType
from typing import Any, Self

from ostler.errors import ConnectionLost, MessagingError, OstlerError
from ostler.messaging.events import Event, Gap, Subscription
from ostler.messaging.transport import AsyncLink, Data, Transport

_ADMISSION = 10.0


class AsyncEventStream(AsyncIterator[Event | Gap]):
    """The events of one subscription, as they come; a `Gap` stands where some are missing. For one loop.

    `await stream` (or `async with stream`) returns when the subscription stands: everything published after that is
    seen. Iterating does so by itself; it ends when the stream is closed.
    """

    def __init__(self, transport: Transport, subscription: Subscription, closed: Any) -> None:
        self._transport = transport
        self._subscription = subscription
        self._told_closed = closed
        self._link: AsyncLink | None = None
        self._found: deque[Event | Gap] = deque()
        self._error: OstlerError | None = None
        self._changed = asyncio.Event()
        self._closed = False

    def __await__(self) -> Generator[Any, None, Self]:
        return self._subscribe().__await__()

    async def __aenter__(self) -> Self:
        return await self._subscribe()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    async def __anext__(self) -> Event | Gap:
        if not self._subscription.admitted and not self._closed:
            await self._subscribe()
        while not self._found:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StopAsyncIteration
            await self._wait()
        return self._found.popleft()

    def close(self) -> None:
        """Unsubscribe. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._link is not None:
            self._link.close()
        self._changed.set()
        self._told_closed(self)

    async def _subscribe(self) -> Self:
        try:
            if self._link is None:
                self._link = self._transport.subscribe_async(self._subscription.prefixes, self._receive, self._lost)
            async with asyncio.timeout(_ADMISSION):
                while not self._subscription.admitted and self._error is None and not self._closed:
                    await self._wait()
        except TimeoutError:
            self._error = ConnectionLost(
                f"the daemon did not answer a subscription within {_ADMISSION:g} s",
                hint="see `systemctl status ostler` and the daemon's log",
            )
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
        try:
            self._found.extend(self._subscription.receive(data))
        except OstlerError as error:
            self._error = error
        self._changed.set()

    def _lost(self, error: MessagingError) -> None:
        self._error = error
        self._changed.set()
