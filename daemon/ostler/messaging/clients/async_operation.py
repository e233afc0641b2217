"""A submitted operation as its caller on a loop sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, Unpack

from ostler.errors import DeadlineExceeded
from ostler.messaging.clients.operation import AWAY_ERRORS, FIRST_PAUSE, MAX_PAUSE, OperationView, time_left
from ostler.types import CONTROL_TOPIC, OperationStatus

if TYPE_CHECKING:
    from ostler.messaging.clients.async_item_stream import AsyncItemStream
    from ostler.messaging.clients.call_methods import CallKeywords


class AsyncCalls(Protocol):
    """The part of a client that an `AsyncOperation` uses."""

    def on(self, **options: Unpack[CallKeywords]) -> AsyncCalls:
        """See `AsyncClient.on`."""
        ...

    def call(self, topic: str, method: str, /, **arguments: Any) -> Coroutine[Any, Any, Any]:
        """See `AsyncClient.call`."""
        ...

    def stream(self, topic: str, method: str, /, **arguments: Any) -> AsyncItemStream:
        """See `AsyncClient.stream`."""
        ...


class AsyncOperation(OperationView):
    """A submitted operation, for a loop; see `Operation`.

    Args:
        client: Reaches the daemon.
        status: What is known of it.
        result_type: The type that the result is decoded to; None for plain values.
    """

    def __init__(self, client: AsyncCalls, status: OperationStatus, result_type: Any = None) -> None:
        super().__init__(status)
        self._client = client.on(type=OperationStatus, host=status.host or None)
        self._result_type = result_type

    async def refresh(self) -> OperationStatus:
        """Ask for the status, and return it; see `Operation.refresh`."""
        self.status = await self._client.call(CONTROL_TOPIC, "operation.show", operation=self.id)
        return self.status

    async def inspect(self) -> OperationStatus:
        """Ask for the status with arguments and result, and return it; see `Operation.inspect`."""
        if (await self.refresh()).is_hidden:
            self.status = await self._client.call(CONTROL_TOPIC, "operation.inspect", operation=self.id)
        return self.status

    async def watch(self, timeout: float | None = None) -> AsyncIterator[OperationStatus]:
        """Yield the status: now, and after each change, until the end; see `Operation.watch`."""
        ends = None if timeout is None else monotonic() + timeout
        pause = FIRST_PAUSE
        if self.status.state.is_final:
            yield self.status
        while not self.status.state.is_final:
            try:
                async with self._client.on(timeout=time_left(ends, self)).stream(
                    CONTROL_TOPIC, "operation.watch", operation=self.id
                ) as stream:
                    async for status in stream:
                        self.status, pause = status, FIRST_PAUSE
                        yield status
            except DeadlineExceeded:
                if ends is None:
                    raise
            except AWAY_ERRORS:
                pass
            time_left(ends, self)
            if not self.status.state.is_final:  # the daemon is away, or has ended the stream too early
                await asyncio.sleep(pause)
                pause = min(MAX_PAUSE, pause * 2)

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the end, and return the result; see `Operation.result`."""
        async for _ in self.watch(timeout):
            pass
        if self.status.is_hidden:
            self.status = await self._client.call(CONTROL_TOPIC, "operation.inspect", operation=self.id)
        return self.final_result(self._result_type)

    async def cancel(self) -> OperationStatus:
        """Cancel it; see `Operation.cancel`."""
        self.status = await self._client.call(CONTROL_TOPIC, "operation.cancel", operation=self.id)
        return self.status

    async def retry(self) -> OperationStatus:
        """Queue it again; see `Operation.retry`."""
        self.status = await self._client.call(CONTROL_TOPIC, "operation.retry", operation=self.id)
        return self.status
