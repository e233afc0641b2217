"""Streams of managers: within their daemon directly through the dispatcher, with credit and endings as on the wire.

A stream of another host that a thread reads goes over the loop.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from ostler.aio import LoopQueue, waiting_for
from ostler.clock import Clock
from ostler.errors import Cancelled, OstlerError, from_wire, to_wire
from ostler.messaging.clients.async_item_stream import AsyncItemStream
from ostler.messaging.clients.client_core import effective_timeout
from ostler.messaging.clients.local_client import (
    DEADLINE_GRACE,
    FIRST_WAIT,
    RECHECK_INTERVAL,
    RequestRouter,
    blocked_loop_error,
    id_prefix,
    raise_if_on_loop,
    run_from_thread,
)
from ostler.messaging.clients.retry import noop
from ostler.messaging.clients.stream_buffer import StreamBuffer
from ostler.messaging.clients.sync_item_stream import ItemStream
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.dispatcher import Dispatcher
from ostler.messaging.wire.envelope import (
    MAX_MESSAGE_SIZE,
    PROTOCOL_VERSION,
    STREAM,
    Request,
    encode_arguments,
    encode_array,
    encode_item,
)
from ostler.messaging.wire.request import CallRequest
from ostler.messaging.wire.request_context import Context, Progress, current_context, outgoing_trace
from ostler.types import LOCAL_PEER


class LocalStreams:
    """Opens the streams that a manager reads.

    Args:
        dispatcher: Where the services are.
        inbox: Brings requests from threads to the loop.
        topic: The topic of the service that reads them.
    """

    def __init__(self, dispatcher: Dispatcher, inbox: LoopQueue, topic: str) -> None:
        self.dispatcher = dispatcher
        self.inbox = inbox
        self._topic = topic
        self._numbers = itertools.count(1)

    def stream(self, request: CallRequest, credit: int) -> ItemStream:
        """See `ServiceClient.stream`; within this daemon."""
        return ItemStream(_SyncLocalStream(self, request, credit))

    def remote_stream(self, router: RequestRouter, request: CallRequest, credit: int) -> ItemStream:
        """Return what a method on another host yields, for a thread.

        Args:
            router: Brings the request there.
            request: The request.
            credit: The most items that are on their way or wait for the reader.
        """
        return ItemStream(_SyncRemoteStream(router, self.inbox, request, credit))

    def astream(self, request: CallRequest, credit: int) -> AsyncItemStream:
        """See `ServiceClient.astream`; within this daemon."""
        return AsyncItemStream(_AsyncLocalStream(self, request, credit))

    def make_call(self, call_request: CallRequest, credit: int, on_ready: Callable[[], None]) -> _LocalStreamCall:
        """Return a request for a stream, ready to be dispatched."""
        where = f"{call_request.topic}.{call_request.method}"
        incoming = StreamBuffer(where, call_request.result_type, credit, on_ready)
        context = current_context()
        number = next(self._numbers)
        request = Request(
            PROTOCOL_VERSION, number, call_request.topic, call_request.method,
            msgspec.Raw(encode_arguments(call_request.arguments, where)), effective_timeout(context,
            call_request.timeout, None),
            f"{id_prefix(context, self._topic)}.s{number}", call_request.flags | STREAM, call_request.host or "",
            call_request.version, outgoing_trace(context), credit,
        )  # fmt: skip
        call = _LocalStreamCall(request, incoming, self.dispatcher.clock)
        call.parent = context
        return call

    def add_credit(self, call: _LocalStreamCall, credit: int) -> None:
        """Give a stream credit. On the loop."""
        if self.dispatcher.streams is not None:
            self.dispatcher.streams.add_credit(call, credit)

    def close_stream(self, call: _LocalStreamCall) -> None:
        """Tell a stream that nobody reads on. On the loop."""
        if not call.is_recorded:
            self.dispatcher.cancel(call, Cancelled(f"{call.full_name} has no reader any more"))


class _LocalStreamCall(Call):
    """A request for a stream from within the daemon. Its lock guards what the loop puts in and a thread takes out."""

    def __init__(self, request: Request, buffer: StreamBuffer, clock: Clock) -> None:
        super().__init__(request, LOCAL_PEER, clock)
        self.buffer = buffer
        self.changed = threading.Condition()
        self.is_recorded = False

    def pack(self, _result: object) -> bytes:
        """See `Call.pack`; the end of a stream has no value."""
        return b""

    def pack_item(self, item: object, number: int) -> bytes:
        """See `Call.pack_item`."""
        return encode_item(item, number, MAX_MESSAGE_SIZE, self.full_name)

    def send_items(self, first: int, items: list[bytes]) -> None:
        """See `Call.items`."""
        with self.changed:
            try:
                self.buffer.feed(first, encode_array(items))
            except OstlerError as error:  # of another type than the reader asked for
                self.buffer.end(None, error)

    def send_reply(self, _packed: bytes) -> None:
        """See `Call.reply`."""
        self._end(None)

    def send_error(self, error: OstlerError) -> None:
        """See `Call.fail`."""
        self._end(from_wire(to_wire(error)))

    def send_accepted(self, _reached: int) -> None:
        """See `Call.accepted`; a stream is not cast."""
        self._end(None)

    def send_progress(self, _progress: Progress) -> None:
        """Ignore progress: no caller in this daemon listens to it."""

    def _end(self, error: OstlerError | None) -> None:
        self.is_recorded = True
        with self.changed:
            self.buffer.end(None, error)


class _AsyncLocalStream:
    """A stream that is read on the loop; see `AsyncStreamSource`."""

    def __init__(self, streams: LocalStreams, request: CallRequest, credit: int) -> None:
        self._streams = streams
        self._request = request
        self._credit = credit

    def open(self, wake: Callable[[], None]) -> _LocalStreamCall:
        call = self._streams.make_call(self._request, self._credit, wake)
        self._streams.dispatcher.dispatch(call)
        return call

    def take(self, call: _LocalStreamCall) -> list[Any] | None:
        found = call.buffer.pop()
        if credit := call.buffer.credit_due():
            self._streams.add_credit(call, credit)
        return found

    def close(self, call: _LocalStreamCall) -> None:
        call.buffer.discard()
        self._streams.close_stream(call)


class _SyncLocalStream:
    """A stream that is read on a thread of a pool; see `StreamSource`."""

    def __init__(self, streams: LocalStreams, request: CallRequest, credit: int) -> None:
        self._streams = streams
        self._request = request
        self._credit = credit

    def open(self) -> _LocalStreamCall:
        raise_if_on_loop(self._request, "`astream`")
        streams = self._streams
        call = streams.make_call(self._request, self._credit, noop)
        call.buffer.on_ready = call.changed.notify
        streams.inbox.post(partial(streams.dispatcher.dispatch, call))
        return call

    def take(self, call: _LocalStreamCall) -> list[Any] | None:
        context, began = current_context(), self._now()
        with call.changed:
            while True:
                found = call.buffer.pop()
                if credit := call.buffer.credit_due():
                    self._streams.inbox.post(partial(self._streams.add_credit, call, credit))
                if found is None or found:
                    return found
                self._raise_if_overdue(call, context, began)
                if not call.changed.wait(FIRST_WAIT):
                    with waiting_for(call.full_name):
                        call.changed.wait(RECHECK_INTERVAL)

    def close(self, call: _LocalStreamCall) -> None:
        with call.changed:
            call.buffer.discard()
        self._streams.inbox.post(partial(self._streams.close_stream, call))

    def _raise_if_overdue(self, call: _LocalStreamCall, context: Context | None, began: float) -> None:
        if context is not None:
            context.check()
        timeout = call.request.timeout
        if timeout is not None and self._now() > began + timeout + DEADLINE_GRACE:
            raise blocked_loop_error("item of", call.full_name)

    def _now(self) -> float:
        return self._streams.dispatcher.clock.monotonic()


class _SyncRemoteStream:
    """A stream of another host that is read on a thread; see `StreamSource`.

    Nothing is read ahead: what the loop takes from the link is what the reader asks for, so that the credit that the
    other host has is that of this reader.
    """

    def __init__(self, router: RequestRouter, inbox: LoopQueue, request: CallRequest, credit: int) -> None:
        self._router = router
        self._inbox = inbox
        self._request = request
        self._credit = credit
        self._full_name = f"{request.topic}.{request.method}"

    def open(self) -> AsyncItemStream:
        raise_if_on_loop(self._request, "`astream`")
        stream: AsyncItemStream = self._wait(self._open())
        return stream

    def take(self, stream: AsyncItemStream) -> list[Any] | None:
        found: list[Any] | None = self._wait(stream.batch())
        return found

    def close(self, stream: AsyncItemStream) -> None:
        self._inbox.post(partial(stream.close))

    async def _open(self) -> AsyncItemStream:
        return await self._router.open_stream(
            await self._router.wait_reachable(self._request), self._credit
        ).__aenter__()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            limit = effective_timeout(current_context(), self._request.timeout, None)
        except BaseException:
            work.close()
            raise
        return run_from_thread(self._inbox, work, limit, self._full_name)
