"""The client for programs with a loop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ostler.clock import Clock, SystemClock
from ostler.errors import CallCancelled, MessagingError
from ostler.messaging.address import transport_to
from ostler.messaging.call_methods import AsyncCallMethods
from ostler.messaging.call_options import DEFAULT_OPTIONS
from ostler.messaging.context import current_context
from ostler.messaging.elements import ANSWER_ELEMENTS
from ostler.messaging.envelope import MAX_SIZE
from ostler.messaging.rpc.core import Ask, ClientCore, Pending, allowed
from ostler.messaging.rpc.incoming import DEFAULT_CREDIT
from ostler.messaging.rpc.retry import Attempts, Retry
from ostler.messaging.rpc.sweeper import Sweeper
from ostler.messaging.transport import AsyncLink, Data, Transport
from ostler.types import CONTROL_TOPIC

if TYPE_CHECKING:  # what streams need is imported with the first of them: a daemon's own clients have none
    from ostler.messaging.async_item_stream import AsyncItemStream
    from ostler.messaging.events.async_stream import AsyncEventStream
    from ostler.messaging.events.replay import Since

_log = logging.getLogger(__name__)


class AsyncClient(AsyncCallMethods):
    """Talks to a daemon, from a program with a loop; any number of calls side by side. For one loop.

    A call whose task is cancelled is cancelled on the server as well. The connection is made with the first call, and
    made anew with the next one after it was lost. After a fork it may be used on a loop of the child as well, as a
    `Client` may.

    Args:
        address: The daemon's address, `ipc:///run/ostler/rpc.sock` or `tcp://node2:7890`; None for the one below
            `root`.
        root: The folder given to `ostler --root`; None for `OSTLER_ROOT`, else the usual places.
        timeout: Deadline in seconds of a call that names none; None for none.
        lenient: Whether texts may stand for numbers, booleans and structures, as on a command line.
        max_message_size: The size limit of requests in bytes.
        max_elements: How many elements (each text, number, list and map is one) an answer, or a message with items, may
            have; one with more ends its call with `MessageTooLarge` and is not decoded.
        retry: When calls, casts and fanouts that name no other policy are sent again; None for never.
        server_key: The public key of a daemon at a `tcp://` address.
        secret_key: The client's own secret key, for such an address: the key itself, or the `Path` of its file.
        transport: What carries the messages, for tests; it is not closed.
        clock: The source of time, for tests.
    """

    def __init__(  # noqa: PLR0913 - each is a word of its own
        self,
        address: str | None = None,
        *,
        root: str | None = None,
        timeout: float | None = 60.0,
        lenient: bool = False,
        max_message_size: int = MAX_SIZE,
        max_elements: int = ANSWER_ELEMENTS,
        retry: Retry | None = None,
        server_key: str | None = None,
        secret_key: str | Path | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._owned = transport is None
        self._transport = transport or transport_to(address, root, max_message_size, server_key, secret_key)
        self._core = ClientCore(
            self._clock,
            timeout=timeout, max_message_size=max_message_size, max_elements=max_elements, lenient=lenient,
        )  # fmt: skip
        self.options = DEFAULT_OPTIONS
        self._retry = retry
        self._timeout = timeout
        self._process = os.getpid()
        self._link: AsyncLink | None = None
        self._sweeper = Sweeper(self._clock, self._sweep)
        self._streams: set[AsyncEventStream] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    def events(
        self, *patterns: str, since: Since | None = None, last: bool = False, refetch: bool = False
    ) -> AsyncEventStream:
        """Return a stream of events; see `Client.events`. It is subscribed when it is awaited, entered or iterated."""
        from ostler.messaging.events.async_stream import AsyncEventStream
        from ostler.messaging.events.feed import subscription_to

        subscription, replay = subscription_to(patterns, since, self._timeout, last=last)
        stream = AsyncEventStream(
            self._transport, subscription, self._streams.discard,
            ask=self._ask_daemon, replay=replay, refetch=refetch,
        )  # fmt: skip
        self._streams.add(stream)
        return stream

    async def _ask_daemon(self, method: str, arguments: dict[str, Any], kind: Any) -> Any:
        return await self.ask(Ask(CONTROL_TOPIC, method, arguments, kind=kind))

    def ask(self, ask: Ask, retry: Retry | None = None) -> Coroutine[Any, Any, Any]:
        """See `AsyncCallMethods.ask`."""
        # Not a coroutine itself: each call would pay for one more.
        return self._ask(ask) if retry is None and self._retry is None else self._ask_again(ask, retry)

    async def attempt(self, ask: Ask, request_id: str) -> Any:
        """Send a request once that may come again under the same id: for who makes the attempts, at others too."""
        return await self._ask(ask, request_id)

    def ask_stream(self, ask: Ask, credit: int = DEFAULT_CREDIT) -> AsyncItemStream:
        """See `AsyncCallMethods.ask_stream`."""
        from ostler.messaging.async_item_stream import AsyncItemStream

        return AsyncItemStream(_Stream(self, ask, credit))

    async def close(self) -> None:
        """Cancel what is under way and close the connections. May be called twice."""
        self._check_process()
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

    async def _ask_again(self, ask: Ask, retry: Retry | None) -> Any:
        self._check_process()
        policy = retry or self._retry or Retry()
        attempts = Attempts(policy, self._clock, allowed(current_context(), ask.timeout, self._timeout))
        request_id = self._core.new_id()
        return await attempts.arun(lambda timeout: self._ask(ask._replace(timeout=timeout), request_id), asyncio.sleep)

    async def _ask(self, ask: Ask, request_id: str = "") -> Any:
        if self._process != os.getpid():
            self._renew()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        link = self._link
        if link is None:
            link = self._link = self._transport.connect_async(self._receive, self._lost)
        if request_id:
            pending, data = self._core.retry(ask, partial(_settle, future), request_id)
        else:
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

    def _check_process(self) -> None:
        if self._process != os.getpid():
            self._renew()

    def _renew(self) -> None:
        """Begin as a client of its own in a process that was forked; the loop of what is under way is the parent's."""
        link, self._link = self._link, None
        if link is not None:
            link.abandon()
        self._sweeper = Sweeper(self._clock, self._sweep)
        self._streams = set()
        self._process = os.getpid()
        self._core.renew(quietly=True)

    def _open(self, ask: Ask, credit: int, wake: Callable[[], None]) -> Pending:
        self._check_process()
        link = self._link
        if link is None:
            link = self._link = self._transport.connect_async(self._receive, self._lost)
        pending, data = self._core.stream(ask, credit, wake)
        try:
            link.send(data)
        except BaseException:
            self._cancel(pending)
            raise
        self._sweeper.wanted(self._core.due(pending))
        return pending

    def _take(self, pending: Pending) -> list[Any] | None:
        self._check_process()
        found, credit = self._core.take(pending)
        if credit is not None:
            self._send(credit)
        if pending.deadline is not None:
            self._sweeper.wanted(pending.deadline)
        return found

    def _leave(self, pending: Pending) -> None:
        pending.incoming.abandon()
        self._cancel(pending)

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
        self._check_process()
        data = self._core.cancel(pending)
        if data is not None:
            self._send(data)

    def _send(self, data: bytes) -> None:
        try:
            if self._link is not None:
                self._link.send(data)
        except MessagingError as error:
            _log.debug("a cancel could not be sent: %s", error)


class _Stream:
    """One stream of a client; see `AsyncSource`."""

    def __init__(self, client: AsyncClient, ask: Ask, credit: int) -> None:
        self._ask = ask
        self._credit = credit
        self._open, self.take, self.close = client._open, client._take, client._leave  # noqa: SLF001 - part of it

    def open(self, wake: Callable[[], None]) -> Pending:
        return self._open(self._ask, self._credit, wake)


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
