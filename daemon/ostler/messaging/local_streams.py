"""Streams between managers of one daemon: straight through the dispatcher, with the credit and the ends of the wire."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from ostler.aio import Inbox, waiting_for
from ostler.errors import CallCancelled, DeadlineExceeded, OstlerError, from_wire, to_wire
from ostler.messaging.async_item_stream import AsyncItemStream
from ostler.messaging.context import Context, Progress, current_context
from ostler.messaging.envelope import MAX_SIZE, STREAM, VERSION, Request, encode_arguments, encode_array, encode_item
from ostler.messaging.item_stream import ItemStream
from ostler.messaging.local import not_on_a_loop
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.core import Ask, allowed
from ostler.messaging.rpc.dispatcher import Dispatcher
from ostler.messaging.rpc.incoming import Incoming
from ostler.messaging.tracing import outgoing_trace
from ostler.types import LOCAL_PEER

_QUICK = 0.02
"""Real seconds after which a thread that waits for an item is replaced in its pool."""
_RECHECK = 0.25
_GRACE = 1.0
"""Real seconds beyond its time after which a waiting thread helps itself: a loop that hangs must not hold it."""


class LocalStreams:
    """Opens streams within this daemon.

    Args:
        dispatcher: Where the services are.
        inbox: Brings requests from threads to the loop.
        topic: The topic of the service that reads them.
    """

    def __init__(self, dispatcher: Dispatcher, inbox: Inbox, topic: str) -> None:
        self.dispatcher = dispatcher
        self.inbox = inbox
        self._topic = topic
        self._numbers = itertools.count(1)

    def stream(self, ask: Ask, credit: int) -> ItemStream:
        """See `ServiceClient.stream`."""
        return ItemStream(_FromThread(self, ask, credit))

    def astream(self, ask: Ask, credit: int) -> AsyncItemStream:
        """See `ServiceClient.astream`."""
        return AsyncItemStream(_OnLoop(self, ask, credit))

    def call(self, ask: Ask, credit: int, wake: Callable[[], None]) -> _StreamCall:
        """Return a request for a stream, ready to be dispatched."""
        where = f"{ask.topic}.{ask.method}"
        incoming = Incoming(where, ask.kind, credit, wake)
        context = current_context()
        inside = context.request_id if context is not None and context.request_id else self._topic
        number = next(self._numbers)
        request = Request(
            VERSION, number, ask.topic, ask.method,
            msgspec.Raw(encode_arguments(ask.arguments, where)), allowed(context, ask.timeout, None),
            f"{inside}.s{number}", ask.flags | STREAM, ask.host or "", ask.version, outgoing_trace(context), credit,
        )  # fmt: skip
        call = _StreamCall(request, incoming)
        call.parent = context
        return call

    def grant(self, call: _StreamCall, credit: int) -> None:
        """Give a stream credit. On the loop."""
        if self.dispatcher.streams is not None:
            self.dispatcher.streams.credit(call, credit)

    def leave(self, call: _StreamCall) -> None:
        """Tell a stream that nobody reads on. On the loop."""
        if not call.over:
            self.dispatcher.cancel(call, CallCancelled(f"nobody reads {call.where} any more"))


class _StreamCall(Call):
    """A request for a stream from within the daemon. Its lock guards what the loop puts in and a thread takes out."""

    def __init__(self, request: Request, incoming: Incoming) -> None:
        super().__init__(request, LOCAL_PEER)
        self.incoming = incoming
        self.changed = threading.Condition()
        self.over = False

    def pack(self, _result: object) -> bytes:
        """See `Call.pack`; the end of a stream has no value."""
        return b""

    def pack_item(self, item: object, number: int) -> bytes:
        """See `Call.pack_item`."""
        return encode_item(item, number, MAX_SIZE, self.where)

    def items(self, first: int, items: list[bytes]) -> None:
        """See `Call.items`."""
        with self.changed:
            try:
                self.incoming.put(first, encode_array(items))
            except OstlerError as error:  # of another type than the reader asked for
                self.incoming.end(None, error)

    def reply(self, _packed: bytes) -> None:
        """See `Call.reply`."""
        self._end(None)

    def fail(self, error: OstlerError) -> None:
        """See `Call.fail`."""
        self._end(from_wire(to_wire(error)))

    def accepted(self, _reached: int) -> None:
        """See `Call.accepted`; a stream is not cast."""
        self._end(None)

    def advance(self, _progress: Progress) -> None:
        """Let progress be: nobody in this daemon listens to it."""

    def _end(self, error: OstlerError | None) -> None:
        self.over = True
        with self.changed:
            self.incoming.end(None, error)


class _OnLoop:
    """A stream that is read on the loop; see `AsyncSource`."""

    def __init__(self, streams: LocalStreams, ask: Ask, credit: int) -> None:
        self._streams = streams
        self._ask = ask
        self._credit = credit

    def open(self, wake: Callable[[], None]) -> _StreamCall:
        call = self._streams.call(self._ask, self._credit, wake)
        self._streams.dispatcher.dispatch(call)
        return call

    def take(self, call: _StreamCall) -> list[Any] | None:
        found = call.incoming.take()
        if credit := call.incoming.due():
            self._streams.grant(call, credit)
        return found

    def close(self, call: _StreamCall) -> None:
        call.incoming.abandon()
        self._streams.leave(call)


class _FromThread:
    """A stream that is read on a thread of a pool; see `Source`."""

    def __init__(self, streams: LocalStreams, ask: Ask, credit: int) -> None:
        self._streams = streams
        self._ask = ask
        self._credit = credit

    def open(self) -> _StreamCall:
        not_on_a_loop(self._ask, "`astream`")
        streams = self._streams
        call = streams.call(self._ask, self._credit, _nothing)
        call.incoming.wake = call.changed.notify
        streams.inbox.post(partial(streams.dispatcher.dispatch, call))
        return call

    def take(self, call: _StreamCall) -> list[Any] | None:
        context, began = current_context(), self._now()
        with call.changed:
            while True:
                found = call.incoming.take()
                if credit := call.incoming.due():
                    self._streams.inbox.post(partial(self._streams.grant, call, credit))
                if found is None or found:
                    return found
                self._check(call, context, began)
                if not call.changed.wait(_QUICK):
                    with waiting_for(call.where):
                        call.changed.wait(_RECHECK)

    def close(self, call: _StreamCall) -> None:
        with call.changed:
            call.incoming.abandon()
        self._streams.inbox.post(partial(self._streams.leave, call))

    def _check(self, call: _StreamCall, context: Context | None, began: float) -> None:
        if context is not None:
            context.check()
        timeout = call.request.timeout
        if timeout is not None and self._now() > began + timeout + _GRACE:
            raise DeadlineExceeded(
                f"no item of {call.where} in time, not even that it is late: the daemon's loop hangs",
                hint="see `ostler dump`",
                method=call.where,
            )

    def _now(self) -> float:
        return self._streams.dispatcher.clock.monotonic()


def _nothing() -> None:
    """Stand in until there is somebody to wake."""
