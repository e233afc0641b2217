"""The calls that a client has made. No I/O, no threads, no loop: the sync and the async client share it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import msgspec
from msgspec.msgpack import Decoder

from ostler.clock import Clock
from ostler.errors import Cancelled, ConnectionLost, MalformedMessage, MessageTooLarge, OstlerError
from ostler.messaging.clients.stream_buffer import StreamBuffer
from ostler.messaging.wire.client_errors import (
    forked_client_error,
    lost_call_error,
    no_reply_error,
    silent_server_error,
    undecodable_reply_error,
)
from ostler.messaging.wire.envelope import (
    LENIENT,
    MAX_MESSAGE_SIZE,
    MAX_REPLY_ELEMENTS,
    PROGRESS,
    PROTOCOL_VERSION,
    RETRY,
    STREAM,
    Accepted,
    Cancel,
    Credit,
    Failure,
    Items,
    Keepalive,
    ProgressReport,
    Reply,
    Request,
    check_elements,
    decode_to_client,
    encode_message,
    encode_request,
    error_from_failure,
    peek_reply_id,
)
from ostler.messaging.wire.request import CallRequest, ClientTracer, ResultCallback
from ostler.messaging.wire.request_context import Context, Progress, current_context, outgoing_trace
from ostler.messaging.wire.transport import Data

MAX_MISSED_KEEPALIVES = 4
"""After so many intervals without a message a server counts as stopped."""
_MIN_KEEPALIVE_INTERVAL = 1.0
"""The interval of the beats in seconds until the server has told its own."""
_MAX_KEEPALIVE_INTERVAL = 60.0
"""No server sends keepalives less often (`keepalive_interval`): a longer one must not make a client wait forever."""
_MAX_CACHED_DECODERS = 256
_CLIENT_ID_BYTES = 16
_MAX_PARENT_ID_LENGTH = 128
"""Characters of the served request's id that the id of a nested request begins with."""
_DEADLINE_GRACE = 0.25
"""Seconds beyond a deadline within which the server's own error may arrive; it is more precise than ours."""


def _new_id_prefix() -> str:
    return os.urandom(_CLIENT_ID_BYTES).hex() + "-"


_SentRequest: TypeAlias = "tuple[int, CallRequest, float | None, ResultCallback, float]"
"""What a `PendingCall` is made of."""


class PendingCall:
    """A call that has no answer yet.

    Args:
        number: Its number on the link.
        request: What was asked.
        timeout: Seconds it may take, None for no limit.
        on_result: Told result or error, once.
        last_seen_at: The moment of the monotonic clock when the server was last known to be alive: now.
    """

    __slots__ = (
        "deadline",
        "is_retryable",
        "last_seen_at",
        "number",
        "on_result",
        "request",
        "timeout",
    )

    def __init__(
        self, number: int, request: CallRequest, timeout: float | None, on_result: ResultCallback, last_seen_at: float
    ) -> None:
        self.is_retryable = False
        self.number = number
        self.request = request
        self.timeout = timeout
        self.on_result = on_result
        self.deadline = None if timeout is None else last_seen_at + timeout + _DEADLINE_GRACE
        self.last_seen_at = last_seen_at

    @property
    def full_name(self) -> str:
        """`topic.method`, for messages."""
        return f"{self.request.topic}.{self.request.method}"


class PendingStream(PendingCall):
    """A stream that has not ended.

    Args:
        sent: Number, request, timeout, callback and moment as `PendingCall` takes them.
        buffer: Its items.
        parent_context: The request that it is read in: it says how much time there is, again for each item when it is
            a stream too.
    """

    __slots__ = ("buffer", "parent_context")

    def __init__(self, sent: _SentRequest, buffer: StreamBuffer, parent_context: Context | None) -> None:
        super().__init__(*sent)
        self.buffer = buffer
        self.parent_context = parent_context
        self.deadline = None  # the time is for each item, and runs while somebody waits for it


class ClientCore:
    """The calls of one client.

    Args:
        clock: The source of time.
        timeout: Deadline in seconds of a call that names none and is not made inside another.
        max_message_size: The size limit of requests in bytes.
        max_elements: The limit of elements of an answer; see `count_elements`.
        lenient: Whether texts may stand for numbers, booleans and structures.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        timeout: float | None = 60.0,
        max_message_size: int = MAX_MESSAGE_SIZE,
        max_elements: int = MAX_REPLY_ELEMENTS,
        lenient: bool = False,
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._max_message_size = max_message_size
        self._max_elements = max_elements
        self._flags = LENIENT if lenient else 0
        self._numbers = itertools.count(1)
        self._prefix = _new_id_prefix()
        self._pending_calls: dict[int, PendingCall] = {}
        self._keepalive_interval = _MIN_KEEPALIVE_INTERVAL
        self._decoders: dict[Any, Decoder[Any]] = {}
        self.invalid_messages = 0
        self.tracer: ClientTracer | None = None
        self.late_messages = 0
        """Items of streams that are not open: most of them came a moment after one was closed."""

    def reset_after_fork(self, *, quietly: bool) -> None:
        """Start over as a separate client in a forked process: what is in progress belongs to the parent.

        Args:
            quietly: Whether only streams are told; for calls whose futures belong to the parent's loop.
        """
        self._prefix = _new_id_prefix()
        if quietly:
            self._pending_calls = {
                number: each for number, each in self._pending_calls.items() if isinstance(each, PendingStream)
            }
        self.fail_all(forked_client_error())

    @property
    def pending_calls(self) -> list[PendingCall]:
        """The calls that have no answer yet."""
        return list(self._pending_calls.values())

    def start_call(self, call_request: CallRequest, on_result: ResultCallback) -> tuple[PendingCall, bytes]:
        """Return a new call and what is to be sent for it; `on_result` is told result or error, once.

        Raises:
            EncodeError: An argument cannot be encoded.
            MessageTooLarge: The request is too large.
            Cancelled: The request that is being served was cancelled.
            DeadlineExceeded: Its deadline has passed.
        """
        # This runs for each call: attributes are read once, and the usual case comes first.
        topic, method, arguments, host, timeout, _, on_progress, flags, version, _, given_id = call_request
        number = next(self._numbers)
        context = current_context()
        inside, trace = self._prefix, outgoing_trace(context)
        if context is not None:
            timeout = effective_timeout(context, timeout, self._timeout)
            inside = f"{context.request_id}." if context.request_id else inside
        elif timeout is None:
            timeout = self._timeout
        flags |= self._flags if on_progress is None else self._flags | PROGRESS
        if self.tracer is not None:
            trace, on_result = self.tracer.begin(call_request, trace, on_result)
        request = Request(
            PROTOCOL_VERSION, number, topic, method, cast("msgspec.Raw", arguments), timeout,
            given_id or f"{inside}{number}", flags, host or "", version, trace,
        )  # fmt: skip
        data = self._encode(request, on_result)
        pending = self._pending_calls[number] = PendingCall(
            number, call_request, timeout, on_result, self._clock.monotonic()
        )
        return pending, data

    def start_retryable_call(
        self, call_request: CallRequest, on_result: ResultCallback, request_id: str
    ) -> tuple[PendingCall, bytes]:
        """Return a request that may be sent again, under the same id each time; as `request`."""
        sent, data = self._start(call_request, on_result, RETRY, 0, request_id)
        pending = self._pending_calls[sent[0]] = PendingCall(*sent)
        pending.is_retryable = True
        return pending, data

    def new_id(self) -> str:
        """Return an id for a request that may be sent again: no other client uses it, whatever request both serve."""
        context = current_context()
        # An id is unique by its prefix; what it begins with is for readers of logs, and a name has a longest length.
        inside = f"{context.request_id[:_MAX_PARENT_ID_LENGTH]}." if context is not None and context.request_id else ""
        return f"{inside}{self._prefix}{next(self._numbers)}"

    def start_stream(
        self, call_request: CallRequest, credit: int, on_ready: Callable[[], None]
    ) -> tuple[PendingStream, bytes]:
        """Return a new stream and what is to be sent for it; `on_ready` is told when there is something to take.

        Raises:
            InvalidInput: The credit is out of range.
            OstlerError: As `request`.
        """
        incoming = StreamBuffer(
            f"{call_request.topic}.{call_request.method}", call_request.result_type, credit, on_ready
        )
        request_id = call_request.request_id or self.new_id()
        sent, data = self._start(call_request._replace(result_type=None), incoming.end, STREAM, credit, request_id)
        pending = PendingStream(sent, incoming, current_context())
        self._pending_calls[pending.number] = pending
        return pending, data

    def _start(
        self, call_request: CallRequest, on_result: ResultCallback, flags: int, credit: int, request_id: str
    ) -> tuple[_SentRequest, bytes]:
        """Return what is pending of a request that is no plain one, and what is to be sent for it; as `request`."""
        number = next(self._numbers)
        context = current_context()
        timeout = effective_timeout(context, call_request.timeout, None if flags & STREAM else self._timeout)
        flags |= call_request.flags | self._flags | (PROGRESS if call_request.on_progress is not None else 0)
        trace = outgoing_trace(context)
        if self.tracer is not None:
            trace, on_result = self.tracer.begin(call_request, trace, on_result)
        request = Request(
            PROTOCOL_VERSION, number, call_request.topic, call_request.method, cast("msgspec.Raw",
            call_request.arguments), timeout,
            request_id, flags, call_request.host or "", call_request.version, trace, credit, call_request.time_limit,
        )  # fmt: skip
        data = self._encode(request, on_result)
        return (number, call_request, timeout, on_result, self._clock.monotonic()), data

    def pop_items(self, pending: PendingStream) -> tuple[list[Any] | None, bytes | None]:
        """Return the next items of a stream as `StreamBuffer.take` does, and what is to be sent.

        Raises:
            Exception: What the stream ended with.
        """
        found = pending.buffer.pop()
        if found == [] and pending.timeout is not None and pending.deadline is None:
            left = pending.parent_context.remaining() if pending.parent_context is not None else None
            seconds = pending.timeout if left is None else min(pending.timeout, left)
            pending.deadline = self._clock.monotonic() + seconds + _DEADLINE_GRACE
        credit = pending.buffer.credit_due()
        return found, encode_message(Credit(PROTOCOL_VERSION, pending.number, credit)) if credit else None

    def receive(self, data: Data) -> Sequence[bytes]:
        """Process what the server sent, and notify the waiting calls; return what is to be sent."""
        try:
            if len(data) > self._max_elements:
                check_elements(data, self._max_elements)
            message = decode_to_client(data)
        except (MalformedMessage, MessageTooLarge) as error:
            return self._handle_undecodable(data, error)
        if type(message) is Reply:
            if (pending := self._pending_calls.pop(message.id, None)) is not None:
                self._deliver(pending, message.result)
        elif type(message) is Items:
            return self._handle_items(message)
        elif type(message) is Keepalive:
            self._handle_keepalive(message)
        elif type(message) is ProgressReport:
            return self._handle_progress(message)
        elif type(message) is Failure:
            self._handle_failure(message)
        elif type(message) is Accepted and (pending := self._pending_calls.pop(message.id, None)) is not None:
            pending.on_result(message.reached, None)
        return ()

    def cancel(self, pending: PendingCall) -> bytes | None:
        """Forget a call; return what is to be sent, None when it had its answer already."""
        if self._pending_calls.pop(pending.number, None) is None:
            return None
        if self.tracer is not None:
            self.tracer.end(pending.on_result, Cancelled(f"{pending.full_name} was cancelled"))
        return encode_message(Cancel(PROTOCOL_VERSION, pending.number))

    def _encode(self, request: Request, settle: ResultCallback) -> bytes:
        try:
            return encode_request(request, self._max_message_size)
        except OstlerError as error:
            if self.tracer is not None:
                self.tracer.end(settle, error)
            raise

    def fail_all(self, error: OstlerError) -> None:
        """Fail all waiting calls: the server has gone."""
        waiting, self._pending_calls = self._pending_calls, {}
        self._keepalive_interval = _MIN_KEEPALIVE_INTERVAL
        for pending in waiting.values():
            pending.on_result(None, lost_call_error(pending.full_name, error))

    def next_check_of(self, pending: PendingCall) -> float:
        """Return the moment at which `check_deadlines` has to look at a call."""
        silence = pending.last_seen_at + MAX_MISSED_KEEPALIVES * self._keepalive_interval
        return silence if pending.deadline is None else min(silence, pending.deadline)

    def next_check(self) -> float | None:
        """Return the moment at which `check_deadlines` has something to do, None when nobody waits."""
        return min(map(self.next_check_of, self._pending_calls.values()), default=None)

    def check_deadlines(self, now: float) -> list[bytes]:
        """End calls whose deadline has passed or whose server is silent; return what is to be sent."""
        out = []
        for pending in list(self._pending_calls.values()):
            if pending.deadline is not None and pending.deadline <= now:
                error: OstlerError = no_reply_error(
                    pending.full_name, pending.timeout, item=bool(pending.request.flags & STREAM)
                )
            elif pending.last_seen_at + MAX_MISSED_KEEPALIVES * self._keepalive_interval <= now:
                error = silent_server_error(pending.full_name, now - pending.last_seen_at)
            else:
                continue
            # A call that may be retried is not cancelled for the silence: its next attempt is to find the work in
            # progress.
            if not (type(error) is ConnectionLost and pending.is_retryable):
                out.append(encode_message(Cancel(PROTOCOL_VERSION, pending.number)))
            del self._pending_calls[pending.number]
            pending.on_result(None, error)
        return out

    def _deliver(self, pending: PendingCall, result: msgspec.Raw) -> None:
        kind = pending.request.result_type
        try:
            value = self._decoders[kind].decode(result)
        except (KeyError, TypeError, msgspec.DecodeError, ValueError, RecursionError):
            # The first of its kind, or one that does not fit.
            try:
                value = decode_result(result, kind, pending.full_name)
            except MalformedMessage as error:
                pending.on_result(None, error)
                return
            self._cache_decoder(kind)
        pending.on_result(value, None)

    def _cache_decoder(self, kind: Any) -> None:
        try:
            if len(self._decoders) < _MAX_CACHED_DECODERS:
                self._decoders[kind] = Decoder(Any if kind is None else kind)
        except TypeError:  # a kind that cannot be a key is checked each time
            pass

    def _handle_failure(self, failure: Failure) -> None:
        pending = self._pending_calls.pop(failure.id, None) if failure.id is not None else None
        if pending is not None:
            pending.on_result(None, error_from_failure(failure))

    def _handle_items(self, message: Items) -> Sequence[bytes]:
        pending = self._pending_calls.get(message.id)
        if not isinstance(pending, PendingStream):
            self.late_messages += 1
            return ()
        pending.last_seen_at = self._clock.monotonic()
        try:
            if pending.buffer.feed(message.first, message.items):
                pending.deadline = None
        except OstlerError as error:
            return self._abort(pending, error)
        return ()

    def _handle_undecodable(self, data: Data, error: OstlerError) -> Sequence[bytes]:
        """End the call that an answer which is not decoded was for: it would wait for nothing until its deadline."""
        self.invalid_messages += 1
        pending = self._pending_calls.get(peek_reply_id(data))
        return () if pending is None else self._abort(pending, undecodable_reply_error(pending.full_name, error))

    def _abort(self, pending: PendingCall, error: Exception) -> Sequence[bytes]:
        cancel = self.cancel(pending)
        pending.on_result(None, error)
        return (cancel,) if cancel is not None else ()

    def _handle_progress(self, advance: ProgressReport) -> Sequence[bytes]:
        pending = self._pending_calls.get(advance.id)
        if pending is None:
            return ()
        pending.last_seen_at = self._clock.monotonic()
        if pending.request.on_progress is None:
            return ()
        try:
            pending.request.on_progress(Progress(advance.done, advance.total, advance.text))
        except Exception as error:  # noqa: BLE001 - the caller's callback; its error ends the call
            return self._abort(pending, error)
        return ()

    def _handle_keepalive(self, beat: Keepalive) -> None:
        self._keepalive_interval = min(max(beat.interval, _MIN_KEEPALIVE_INTERVAL), _MAX_KEEPALIVE_INTERVAL)
        now = self._clock.monotonic()
        for number in beat.ids:
            if (pending := self._pending_calls.get(number)) is not None:
                pending.last_seen_at = now


def effective_timeout(context: Context | None, timeout: float | None, default: float | None) -> float | None:
    """Return the seconds that a call may take: what is asked for, but no more than is left of the request served now.

    Raises:
        Cancelled: The request that is being served was cancelled.
        DeadlineExceeded: Its deadline has passed.
    """
    if context is None:
        return default if timeout is None else timeout
    context.check()
    left = context.remaining()
    if left is None:
        return default if timeout is None else timeout
    return left if timeout is None else min(timeout, left)


def decode_result(result: msgspec.Raw | bytes, kind: Any, where: str) -> Any:
    """Return the result as `kind`.

    Raises:
        MalformedMessage: It is of another type.
    """
    try:
        if kind is None:
            return msgspec.msgpack.decode(result)
        return msgspec.msgpack.decode(result, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise MalformedMessage(
            f"the result of {where} does not have the type that this client expects: {error}",
            hint="client and service may have different versions",
            reason="result",
            method=where,
        ) from error
