"""The client for programs with a loop."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from types import TracebackType
from typing import Any, Self

from ostler.clock import Clock, SystemClock
from ostler.errors import CallCancelled, MessagingError
from ostler.messaging.address import transport_to
from ostler.messaging.context import current_context
from ostler.messaging.envelope import MAX_SIZE
from ostler.messaging.events import Subscription
from ostler.messaging.events.async_stream import AsyncEventStream
from ostler.messaging.rpc.core import FLAGS_OF_CAST, FLAGS_OF_FANOUT, Ask, ClientCore, OnProgress, Pending
from ostler.messaging.rpc.sweeper import Sweeper
from ostler.messaging.transport import AsyncLink, Data, Transport

_log = logging.getLogger(__name__)


class AsyncClient:
    """Talks to a daemon, from a program with a loop; any number of calls side by side. For one loop.

    A call whose task is cancelled is cancelled on the server as well. The connection is made with the first call, and
    made anew with the next one after it was lost.

    Args:
        address: The daemon's address, `ipc:///run/ostler/rpc.sock`; None for the one below `root`.
        root: The folder given to `ostler --root`; None for `OSTLER_ROOT`, else the usual places.
        timeout: Deadline in seconds of a call that names none; None for none.
        lenient: Whether texts may stand for numbers, booleans and structures, as on a command line.
        max_message_size: The size limit of requests in bytes.
        transport: What carries the messages, for tests; it is not closed.
        clock: The source of time, for tests.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        root: str | None = None,
        timeout: float | None = 60.0,
        lenient: bool = False,
        max_message_size: int = MAX_SIZE,
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._owned = transport is None
        self._transport = transport or transport_to(address, root, max_message_size)
        self._core = ClientCore(self._clock, timeout=timeout, max_message_size=max_message_size, lenient=lenient)
        self._link: AsyncLink | None = None
        self._sweeper = Sweeper(self._clock, self._sweep)
        self._streams: set[AsyncEventStream] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def call(
        self,
        topic: str,
        method: str,
        /,
        *,
        host: str | None = None,
        timeout: float | None = None,
        type: Any = None,  # noqa: A002 - the word that msgspec uses for the same thing
        on_progress: OnProgress | None = None,
        **arguments: Any,
    ) -> Any:
        """Call a method and wait for its result; arguments, result and errors as in `Client.call`."""
        return await self._ask(Ask(topic, method, arguments, host, timeout, type, on_progress))

    async def cast(
        self, topic: str, method: str, /, *, host: str | None = None, timeout: float | None = None, **arguments: Any
    ) -> None:
        """Have a method run; see `Client.cast`."""
        await self._ask(Ask(topic, method, arguments, host, timeout, flags=FLAGS_OF_CAST))

    async def fanout(self, topic: str, method: str, /, *, timeout: float | None = None, **arguments: Any) -> int:
        """Have every service on the topic run a method; see `Client.fanout`."""
        return int(await self._ask(Ask(topic, method, arguments, None, timeout, flags=FLAGS_OF_FANOUT)))

    def events(self, *patterns: str) -> AsyncEventStream:
        """Return a stream of events; see `Client.events`. It is subscribed when it is awaited, entered or iterated."""
        stream = AsyncEventStream(self._transport, Subscription(patterns), self._streams.discard)
        self._streams.add(stream)
        return stream

    async def close(self) -> None:
        """Cancel what is under way and close the connections. May be called twice."""
        for stream in list(self._streams):
            stream.close()
        for pending in self._core.pending:
            self._cancel(pending)
            pending.settle(None, CallCancelled(f"the client was closed before {pending.where} had ended"))
        self._sweeper.cancel()
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._owned:
            # It may wait for what was sent last, and the loop must not.
            await asyncio.get_running_loop().run_in_executor(None, self._transport.close)

    async def _ask(self, ask: Ask) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        link = self._link
        if link is None:
            link = self._link = self._transport.connect_async(self._receive, self._lost)
        pending, data = self._core.request(ask, partial(_settle, future))
        try:
            link.send(data)
            self._sweeper.wanted(self._core.due(pending))
            if (context := current_context()) is None:
                return await future
            forget = context.on_cancel(_stop_waiting(future, pending))
            try:
                return await future
            finally:
                forget()
        except BaseException:
            # Whatever ends the wait, nobody wants the answer any more, so the work is to stop.
            self._cancel(pending)
            raise

    def _receive(self, data: Data) -> None:
        for out in self._core.receive(data):
            self._send(out)

    def _lost(self, error: MessagingError) -> None:
        self._link = None
        self._core.lost(error)

    def _sweep(self, now: float) -> float | None:
        for out in self._core.sweep(now):
            self._send(out)
        return self._core.next_due()

    def _cancel(self, pending: Pending) -> None:
        data = self._core.cancel(pending)
        if data is not None:
            self._send(data)

    def _send(self, data: bytes) -> None:
        try:
            if self._link is not None:
                self._link.send(data)
        except MessagingError as error:
            _log.debug("a cancel could not be sent: %s", error)


def _settle(future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    """Bring the end of a call to its future."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _stop_waiting(future: asyncio.Future[Any], pending: Pending) -> Any:
    """Return what ends the wait when the request that is being served is taken back, on any thread."""
    error = CallCancelled(f"{pending.where} was cancelled with the request that called it")
    loop = future.get_loop()
    return lambda: loop.call_soon_threadsafe(_settle, future, None, error)
