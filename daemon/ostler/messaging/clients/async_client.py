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
from ostler.errors import Cancelled, MessagingError
from ostler.messaging.clients.call_methods import DEFAULT_OPTIONS, AsyncCallMethods
from ostler.messaging.clients.client_core import ClientCore, PendingCall, PendingStream, effective_timeout
from ostler.messaging.clients.retry import Retry, RetryAttempts
from ostler.messaging.clients.stream_buffer import DEFAULT_CREDIT
from ostler.messaging.rpc.in_flight import DeadlineTimer
from ostler.messaging.socket_transport import transport_to
from ostler.messaging.wire.envelope import MAX_MESSAGE_SIZE, MAX_REPLY_ELEMENTS
from ostler.messaging.wire.request import CallRequest
from ostler.messaging.wire.request_context import current_context
from ostler.messaging.wire.transport import AsyncLink, AsyncTransport, Data
from ostler.types import CONTROL_TOPIC

if TYPE_CHECKING:  # what streams need is imported with the first of them: a daemon's own clients have none
    from ostler.messaging.clients.async_item_stream import AsyncItemStream
    from ostler.messaging.events.async_event_stream import AsyncEventStream
    from ostler.messaging.events.replay import Since

_log = logging.getLogger(__name__)


class AsyncClient(AsyncCallMethods):
    """Talks to a daemon, from a program with a loop; any number of calls side by side. For one loop.

    A call whose task is cancelled is cancelled on the server as well. The connection is made with the first call, and
    made again with the next one after it was lost. After a fork it may be used on a loop of the child as well, as a
    `Client` may.

    Args:
        address: The daemon's address, `ipc:///run/ostler/rpc.sock` or `tcp://node2:7890`; None for the one below
            `root`.
        root: The directory given to `ostler --root`; None for `OSTLER_ROOT`, else the usual places.
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
        max_message_size: int = MAX_MESSAGE_SIZE,
        max_elements: int = MAX_REPLY_ELEMENTS,
        retry: Retry | None = None,
        server_key: str | None = None,
        secret_key: str | Path | None = None,
        transport: AsyncTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._owns_transport = transport is None
        self._transport: AsyncTransport = transport or transport_to(
            address, root, max_message_size, server_key, secret_key
        )
        self._core = ClientCore(
            self._clock,
            timeout=timeout, max_message_size=max_message_size, max_elements=max_elements, lenient=lenient,
        )  # fmt: skip
        self.options = DEFAULT_OPTIONS
        self._retry = retry
        self._timeout = timeout
        self._pid = os.getpid()
        self._link: AsyncLink | None = None
        self._deadline_timer = DeadlineTimer(self._clock, self._check_deadlines)
        self._streams: set[AsyncEventStream] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    def events(
        self,
        *patterns: str,
        since: Since | None = None,
        last: bool = False,
        refetch: bool = False,
        max_waiting: int = 20_000,
    ) -> AsyncEventStream:
        """Return a stream of events; see `Client.events`. It is subscribed when it is awaited, entered or iterated.

        At most `max_waiting` events wait for the reader; more are dropped, and seen as a gap.
        """
        # Only for who reads events.
        from ostler.messaging.events.async_event_stream import AsyncEventStream
        from ostler.messaging.events.subscription import make_subscription

        subscription, replay = make_subscription(patterns, since, self._timeout, last=last)
        stream = AsyncEventStream(
            self._transport, subscription, self._streams.discard,
            call_method=self._call_daemon, replay=replay, refetch=refetch,
            max_waiting_events=max_waiting,
        )  # fmt: skip
        self._streams.add(stream)
        return stream

    async def _call_daemon(self, method: str, arguments: dict[str, Any], kind: Any) -> Any:
        return await self.send_request(CallRequest(CONTROL_TOPIC, method, arguments, result_type=kind))

    def send_request(self, request: CallRequest, retry: Retry | None = None) -> Coroutine[Any, Any, Any]:
        """See `AsyncCallMethods.send_request`."""
        # Not a coroutine itself: each call would pay for one more.
        return (
            self._send_once(request) if retry is None and self._retry is None else self._send_with_retry(request, retry)
        )

    async def send_attempt(self, request: CallRequest, request_id: str) -> Any:
        """Send one attempt of a request that may be retried under the same id, also at other hosts."""
        return await self._send_once(request, request_id)

    def open_stream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> AsyncItemStream:
        """See `AsyncCallMethods.open_stream`."""
        from ostler.messaging.clients.async_item_stream import AsyncItemStream  # only for who reads streams

        return AsyncItemStream(_AsyncClientStream(self, request, credit))

    async def close(self) -> None:
        """Cancel what is in progress and close the connections. May be called twice."""
        self._check_process()
        for stream in list(self._streams):
            stream.close()
        for pending in self._core.pending_calls:
            self._cancel(pending)
            pending.on_result(None, Cancelled(f"the client was closed before {pending.full_name} had completed"))
        self._deadline_timer.cancel()
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._owns_transport:
            # It may wait for what was sent last, and the loop must not.
            await asyncio.get_running_loop().run_in_executor(None, self._transport.close)

    @property
    def is_busy(self) -> bool:
        """Whether something is in progress: a call, a stream, a subscription."""
        return bool(self._core.pending_calls or self._streams)

    def disconnect(self) -> None:
        """Close the connection of a client that is not busy; the next call makes another."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    async def _send_with_retry(self, request: CallRequest, retry: Retry | None) -> Any:
        self._check_process()
        policy = retry or self._retry or Retry()
        attempts = RetryAttempts(
            policy, self._clock, effective_timeout(current_context(), request.timeout, self._timeout)
        )
        request_id = request.request_id or self._core.new_id()
        return await attempts.arun(
            lambda timeout: self._send_once(request._replace(timeout=timeout), request_id), asyncio.sleep
        )

    async def _send_once(self, request: CallRequest, request_id: str = "") -> Any:
        if self._pid != os.getpid():
            self._reset_after_fork()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        link = self._link
        if link is None:
            link = self._link = self._transport.connect_async(self._receive, self._on_lost)
        if request_id:
            pending, data = self._core.start_retryable_call(request, partial(_resolve_future, future), request_id)
        else:
            pending, data = self._core.start_call(request, partial(_resolve_future, future))
        try:
            link.send(data)
            self._deadline_timer.schedule(self._core.next_check_of(pending))
            if (context := current_context()) is None:
                return await future
            forget = context.on_cancel(_canceller_of(future, pending))
            try:
                return await future
            finally:
                forget()
        except BaseException:
            # Whatever ends the wait, the answer is not needed any more, so the work is to stop.
            self._cancel(pending)
            raise

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self._reset_after_fork()

    def _reset_after_fork(self) -> None:
        """Start over as a separate client in a forked process; what is in progress belongs to the parent's loop."""
        link, self._link = self._link, None
        if link is not None:
            link.close_after_fork()
        self._deadline_timer = DeadlineTimer(self._clock, self._check_deadlines)
        self._streams = set()
        self._pid = os.getpid()
        self._core.reset_after_fork(quietly=True)

    def _open_stream(self, request: CallRequest, credit: int, on_ready: Callable[[], None]) -> PendingStream:
        self._check_process()
        link = self._link
        if link is None:
            link = self._link = self._transport.connect_async(self._receive, self._on_lost)
        pending, data = self._core.start_stream(request, credit, on_ready)
        try:
            link.send(data)
        except BaseException:
            self._cancel(pending)
            raise
        self._deadline_timer.schedule(self._core.next_check_of(pending))
        return pending

    def _pop_items(self, pending: PendingStream) -> list[Any] | None:
        self._check_process()
        found, credit = self._core.pop_items(pending)
        if credit is not None:
            self._send(credit)
        if pending.deadline is not None:
            self._deadline_timer.schedule(pending.deadline)
        return found

    def _close_stream(self, pending: PendingStream) -> None:
        pending.buffer.discard()
        self._cancel(pending)

    def _receive(self, data: Data) -> None:
        for out in self._core.receive(data):
            self._send(out)

    def _on_lost(self, error: MessagingError) -> None:
        self._link = None
        self._core.fail_all(error)

    def _check_deadlines(self, now: float) -> float | None:
        for out in self._core.check_deadlines(now):
            self._send(out)
        return self._core.next_check()

    def _cancel(self, pending: PendingCall) -> None:
        self._check_process()
        data = self._core.cancel(pending)
        if data is not None:
            self._send(data)

    def _send(self, data: bytes) -> None:
        try:
            if self._link is not None:
                self._link.send(data)
        except MessagingError as error:
            _log.debug("could not send a cancellation: %s", error)


class _AsyncClientStream:
    """One stream of a client; see `AsyncStreamSource`."""

    def __init__(self, client: AsyncClient, request: CallRequest, credit: int) -> None:
        self._request = request
        self._credit = credit
        self._open, self.take, self.close = client._open_stream, client._pop_items, client._close_stream  # noqa: SLF001 - part of it

    def open(self, wake: Callable[[], None]) -> PendingStream:
        return self._open(self._request, self._credit, wake)


def _resolve_future(future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    """Resolve the future of a call."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _canceller_of(future: asyncio.Future[Any], pending: PendingCall) -> Any:
    """Return what ends the wait when the request that is being served is cancelled, on any thread."""
    error = Cancelled(f"{pending.full_name} was cancelled with the request that called it")
    loop = future.get_loop()
    return lambda: loop.call_soon_threadsafe(_resolve_future, future, None, error)
