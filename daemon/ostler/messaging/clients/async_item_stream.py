"""The items of a method that yields, for programs with a loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from ostler.errors import Cancelled
from ostler.messaging.wire.request_context import current_context

P = TypeVar("P")


class AsyncStreamSource(Protocol[P]):
    """Where a stream comes from; `P` is what it knows an open one by. On the loop."""

    def open(self, on_ready: Callable[[], None]) -> P:
        """Ask for the stream; `on_ready` is told when there is something to take."""
        ...

    def take(self, handle: P) -> list[Any] | None:
        """Return the next items, an empty list when there are none yet, None at the end; raises what it ended with."""
        ...

    def close(self, handle: P) -> None:
        """Tell the server that nobody reads on; nothing when the stream has ended."""
        ...


class _AsyncStreamState:
    """Whether a stream is open.

    Apart from `AsyncItemStream`, so that a loop that is left behind is closed at once: the generator knows this, and
    not the object that holds the generator, and no collector is waited for.
    """

    def __init__(self, source: AsyncStreamSource[Any]) -> None:
        self._source = source
        self._handle: Any = None
        self._is_closed = False
        self._waiter: asyncio.Future[None] | None = None

    def open(self) -> None:
        if self._handle is None and not self._is_closed:
            self._handle = self._source.open(self._wake)

    def close(self) -> None:
        self._is_closed = True
        opened, self._handle = self._handle, None
        if opened is not None:
            self._source.close(opened)
            self._wake()

    async def read(self) -> AsyncGenerator[Any, None]:
        try:
            self.open()
            while (items := await self.take()) is not None:
                for item in items:
                    yield item
        finally:
            self.close()

    async def take(self) -> list[Any] | None:
        while not self._is_closed:
            found = self._source.take(self._handle)
            if found is None or found:
                return found
            self._waiter = asyncio.get_running_loop().create_future()
            forget = self._cancel_with_request(self._waiter)
            try:
                await self._waiter
            finally:
                forget()
        return None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _cancel_with_request(self, waits: asyncio.Future[None]) -> Callable[[], None]:
        """End the wait when the request that is being served is cancelled, on any thread."""
        context = current_context()
        if context is None:
            return _noop
        loop, error = waits.get_loop(), Cancelled("the stream was cancelled with the request that reads it")

        def stop() -> None:
            if not waits.done():
                waits.set_exception(error)

        def told() -> None:
            loop.call_soon_threadsafe(stop)

        return context.on_cancel(told)


class AsyncItemStream(AsyncIterator[Any]):
    """What a method yields, item by item; iterate it once. For one loop.

    It is asked for when it is entered or iterated. Leaving the block and `close` end the generator on the server, and
    so does the end of the loop (after a `break`, or when its task is cancelled, as soon as the iterator is forgotten).
    An error comes after all items that were made before it.

    Args:
        source: Where it comes from.
    """

    def __init__(self, source: AsyncStreamSource[Any]) -> None:
        self._state = _AsyncStreamState(source)
        self._items = self._state.read()

    async def __aenter__(self) -> Self:
        self._state.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[Any]:  # noqa: PYI034 - a generator is much faster than our own `next`
        return self._items

    async def __anext__(self) -> Any:
        return await anext(self._items)

    async def batch(self) -> list[Any] | None:
        """Return the next items that have come together, None at the end: for who hands them on.

        Those of the batch before count as read with this call.

        Raises:
            Exception: What the stream ended with.
        """
        self._state.open()
        return await self._state.take()

    def close(self) -> None:
        """End the stream. May be called twice."""
        self._state.close()


def _noop() -> None:
    """Do nothing; there is nothing to undo."""
