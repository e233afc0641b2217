"""The events of one subscription for programs with a loop."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ostler.errors import ConnectionLost, MessagingError, OstlerError
from ostler.messaging.events import Event, Gap, Subscription
from ostler.messaging.rpc.losses import of_other_process
from ostler.messaging.transport import AsyncLink, Data, Transport

if TYPE_CHECKING:
    from ostler.messaging.events.replay import Refill, Replay

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
        self._subscription = subscription
        self._told_closed = closed
        self._ask = ask
        self._replay = replay
        self._refetch = refetch
        self._refill: Refill | None = None
        self._link: AsyncLink | None = None
        self._ready: deque[Event | Gap] = deque()
        self._found: deque[Event | Gap] = deque()
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
        if not self._subscription.admitted and not self._closed:
            await self._subscribe()
        while not self._ready:
            if await self._read_journal():
                continue
            if self._found:
                self._sort(self._found.popleft())
            elif self._error is not None:
                raise self._error
            elif self._closed:
                raise StopAsyncIteration
            else:
                await self._wait()
        return self._ready.popleft()

    def close(self) -> None:
        """Unsubscribe. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._link is not None and self._process == os.getpid():
            self._link.close()
        elif self._link is not None:
            self._link.abandon()
        self._changed.set()
        self._told_closed(self)

    def _sort(self, item: Event | Gap) -> None:
        """Give an item to the user, or fetch first what a gap stands for."""
        if self._refetch and isinstance(item, Gap) and item.kept:
            from ostler.messaging.events.replay import Refill

            self._refill = Refill(self._subscription, item)
        else:
            self._ready.append(item)

    async def _read_journal(self) -> bool:
        """Read a page of the journal if that is due; return whether it was."""
        if self._ask is None or self._closed:
            return False
        if self._replay is not None:
            if not self._replay.done:
                self._ready.extend(self._replay.take(await self._ask(*self._replay.ask())))
            if self._replay.done:
                self._replay = None
                self._found.extend(self._subscription.release())
            return True
        if self._refill is not None:
            await self._fill(self._ask, self._refill)
            return True
        return False

    async def _fill(self, ask: AsyncAsk, refill: Refill) -> None:
        try:
            self._ready.extend(refill.take(await ask(*refill.ask())))
        except OstlerError:  # the gap is no secret: it is seen, and can be asked for again
            self._ready.extend(refill.rest())
            self._refill = None
            return
        if refill.done:
            self._refill = None

    async def _subscribe(self) -> Self:
        try:
            if self._link is None:
                self._process = os.getpid()
                self._link = self._transport.subscribe_async(self._subscription.prefixes, self._receive, self._lost)
            async with asyncio.timeout(self._subscription.patience):
                while not self._subscription.admitted and self._error is None and not self._closed:
                    await self._wait()
        except TimeoutError:
            self._error = ConnectionLost(
                f"the daemon did not answer a subscription within {self._subscription.patience:g} s",
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
        if len(self._found) + self._subscription.held >= _WAITING:
            return  # the numbers of what comes when there is room again tell what is missing
        try:
            self._found.extend(self._subscription.receive(data))
        except OstlerError as error:
            self._error = error
        self._changed.set()

    def _lost(self, error: MessagingError) -> None:
        self._error = error
        self._changed.set()
