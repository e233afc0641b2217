"""What a client keeps of the calls it has made. No I/O, no threads, no loop: the sync and the async client share it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec
from msgspec.msgpack import Decoder

from ostler.clock import Clock
from ostler.errors import BadEnvelope, CallCancelled, ConnectionLost, MessageTooLarge, OstlerError
from ostler.messaging.context import Context, Progress, current_context
from ostler.messaging.elements import ANSWER_ELEMENTS, check_elements
from ostler.messaging.envelope import (
    CAST,
    FANOUT,
    LENIENT,
    MAX_SIZE,
    PROGRESS,
    RETRY,
    STREAM,
    VERSION,
    Accepted,
    Advance,
    Beat,
    Cancel,
    Credit,
    Failure,
    Items,
    Reply,
    Request,
    answered,
    decode_to_client,
    encode_message,
    encode_request,
    error_of,
)
from ostler.messaging.rpc.incoming import Incoming
from ostler.messaging.rpc.losses import late, lost_call, of_other_process, silent, unusable
from ostler.messaging.rpc.watch import ClientTracer
from ostler.messaging.tracing import outgoing_trace
from ostler.messaging.transport import Data

MISSED_BEATS = 4
"""After so many intervals without a sign of life a server counts as dead."""
_FIRST_INTERVAL = 1.0
"""The interval of the beats in seconds until the server has told its own."""
_LONGEST_INTERVAL = 60.0
"""No server beats more seldom (`beat_interval`); what says it does must not be waited for without end."""
_DECODERS_LIMIT = 256
_RANDOM_BYTES = 16
_INSIDE = 128
"""Characters of the request that is served, at the beginning of the id of one that is made within."""
_GRACE = 0.25
"""Seconds beyond a deadline that the server's own answer may take; it says more than ours."""

Settle = Callable[[Any, "Exception | None"], None]
OnProgress = Callable[[Progress], None]


def _new_prefix() -> str:
    return os.urandom(_RANDOM_BYTES).hex() + "-"


class Ask(NamedTuple):
    """What a caller wants: `kind` is the type that the result is decoded to, None for plain values."""

    topic: str
    method: str
    arguments: Mapping[str, Any]
    host: str | None = None
    timeout: float | None = None
    kind: Any = None
    on_progress: OnProgress | None = None
    flags: int = 0
    version: str = ""


class Pending:
    """A call that has no answer yet.

    Args:
        number: Its number on the link.
        ask: What was asked.
        timeout: Seconds it may take, None for no limit.
        settle: Told result or error, once.
        seen: The moment of the monotonic clock when the server was last known to be alive: now.
    """

    __slots__ = ("again", "ask", "deadline", "incoming", "inside", "number", "seen", "settle", "timeout")

    incoming: Incoming
    """The items of a stream; there for streams only, as `inside` is."""
    inside: Context | None
    """The request that a stream is read in: it says how much time there is, anew for each item when it is one too."""

    def __init__(self, number: int, ask: Ask, timeout: float | None, settle: Settle, seen: float) -> None:
        self.again = False
        self.number = number
        self.ask = ask
        self.timeout = timeout
        self.settle = settle
        self.deadline = None if timeout is None else seen + timeout + _GRACE
        self.seen = seen

    @property
    def where(self) -> str:
        """`topic.method`, for messages."""
        return f"{self.ask.topic}.{self.ask.method}"


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
        max_message_size: int = MAX_SIZE,
        max_elements: int = ANSWER_ELEMENTS,
        lenient: bool = False,
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._limit = max_message_size
        self._max_elements = max_elements
        self._flags = LENIENT if lenient else 0
        self._numbers = itertools.count(1)
        self._prefix = _new_prefix()
        self._pending: dict[int, Pending] = {}
        self._interval = _FIRST_INTERVAL
        self._decoders: dict[Any, Decoder[Any]] = {}
        self.garbage = 0
        self.tracer: ClientTracer | None = None
        self.stray = 0
        """Items of streams that are not open: most of them came a moment after one was closed."""

    def renew(self, *, quietly: bool) -> None:
        """Begin as a client of its own, in a process that was forked: what is under way is the parent's.

        Args:
            quietly: Whether only streams are told; for calls whose futures belong to the parent's loop.
        """
        self._prefix = _new_prefix()
        if quietly:
            self._pending = {number: each for number, each in self._pending.items() if hasattr(each, "incoming")}
        self.lost(of_other_process())

    @property
    def pending(self) -> list[Pending]:
        """The calls that have no answer yet."""
        return list(self._pending.values())

    def request(self, ask: Ask, settle: Settle) -> tuple[Pending, bytes]:
        """Return a new call and what is to be sent for it; `settle` is told result or error, once.

        Raises:
            EncodeFailed: An argument cannot go over the wire.
            MessageTooLarge: The request is too large.
            CallCancelled: The request that is being served was taken back.
            DeadlineExceeded: Its deadline has passed.
        """
        # This runs for each call: attributes are read once, and the usual case comes first.
        topic, method, arguments, host, timeout, _, on_progress, flags, version = ask
        number = next(self._numbers)
        context = current_context()
        inside, trace = self._prefix, outgoing_trace(context)
        if context is not None:
            timeout = allowed(context, timeout, self._timeout)
            inside = f"{context.request_id}." if context.request_id else inside
        elif timeout is None:
            timeout = self._timeout
        flags |= self._flags if on_progress is None else self._flags | PROGRESS
        if self.tracer is not None:
            trace, settle = self.tracer.begin(ask, trace, settle)
        request = Request(
            VERSION, number, topic, method, cast("msgspec.Raw", arguments), timeout, f"{inside}{number}",
            flags, host or "", version, trace,
        )  # fmt: skip
        data = self._encoded(request, settle)
        pending = self._pending[number] = Pending(number, ask, timeout, settle, self._clock.monotonic())
        return pending, data

    def retry(self, ask: Ask, settle: Settle, request_id: str) -> tuple[Pending, bytes]:
        """Return a request that may be sent again, under the same id each time; as `request`."""
        pending, data = self._other(ask, settle, RETRY, 0, request_id)
        pending.again = True
        return pending, data

    def new_id(self) -> str:
        """Return an id for a request that may be sent again: no other client uses it, whatever request both serve."""
        context = current_context()
        # An id is unique by its prefix; what it begins with is for readers of logs, and a name has a longest length.
        inside = f"{context.request_id[:_INSIDE]}." if context is not None and context.request_id else ""
        return f"{inside}{self._prefix}{next(self._numbers)}"

    def stream(self, ask: Ask, credit: int, wake: Callable[[], None]) -> tuple[Pending, bytes]:
        """Return a new stream and what is to be sent for it; `wake` is told when there is something to take.

        Raises:
            InvalidInput: The credit is out of range.
            OstlerError: As `request`.
        """
        incoming = Incoming(f"{ask.topic}.{ask.method}", ask.kind, credit, wake)
        pending, data = self._other(ask._replace(kind=None), incoming.end, STREAM, credit, self.new_id())
        pending.incoming = incoming
        # The time is for each item, and runs while somebody waits for it.
        pending.inside, pending.deadline = current_context(), None
        return pending, data

    def _other(self, ask: Ask, settle: Settle, flags: int, credit: int, request_id: str) -> tuple[Pending, bytes]:
        """Return a request that is no plain one; as `request`."""
        number = next(self._numbers)
        context = current_context()
        timeout = allowed(context, ask.timeout, None if flags & STREAM else self._timeout)
        flags |= ask.flags | self._flags | (PROGRESS if ask.on_progress is not None else 0)
        trace = outgoing_trace(context)
        if self.tracer is not None:
            trace, settle = self.tracer.begin(ask, trace, settle)
        request = Request(
            VERSION, number, ask.topic, ask.method, cast("msgspec.Raw", ask.arguments), timeout,
            request_id, flags, ask.host or "", ask.version, trace, credit,
        )  # fmt: skip
        data = self._encoded(request, settle)
        pending = self._pending[number] = Pending(number, ask, timeout, settle, self._clock.monotonic())
        return pending, data

    def take(self, pending: Pending) -> tuple[list[Any] | None, bytes | None]:
        """Return the next items of a stream as `Incoming.take` does, and what is to be sent.

        Raises:
            Exception: What the stream ended with.
        """
        found = pending.incoming.take()
        if found == [] and pending.timeout is not None and pending.deadline is None:
            left = pending.inside.remaining() if pending.inside is not None else None
            seconds = pending.timeout if left is None else min(pending.timeout, left)
            pending.deadline = self._clock.monotonic() + seconds + _GRACE
        credit = pending.incoming.due()
        return found, encode_message(Credit(VERSION, pending.number, credit)) if credit else None

    def receive(self, data: Data) -> Sequence[bytes]:
        """Take what the server sent, and tell whoever waits for it; return what is to be sent."""
        try:
            if len(data) > self._max_elements:
                check_elements(data, self._max_elements)
            message = decode_to_client(data)
        except (BadEnvelope, MessageTooLarge) as error:
            return self._unusable(data, error)
        if type(message) is Reply:
            if (pending := self._pending.pop(message.id, None)) is not None:
                self._deliver(pending, message.result)
        elif type(message) is Items:
            return self._items(message)
        elif type(message) is Beat:
            self._beat(message)
        elif type(message) is Advance:
            return self._advance(message)
        elif type(message) is Failure:
            self._fail(message)
        elif type(message) is Accepted and (pending := self._pending.pop(message.id, None)) is not None:
            pending.settle(message.reached, None)
        return ()

    def cancel(self, pending: Pending) -> bytes | None:
        """Forget a call; return what is to be sent, None when it had its answer already."""
        if self._pending.pop(pending.number, None) is None:
            return None
        if self.tracer is not None:
            self.tracer.end(pending.settle, CallCancelled(f"{pending.where} was taken back"))
        return encode_message(Cancel(VERSION, pending.number))

    def _encoded(self, request: Request, settle: Settle) -> bytes:
        try:
            return encode_request(request, self._limit)
        except OstlerError as error:
            if self.tracer is not None:
                self.tracer.end(settle, error)
            raise

    def lost(self, error: OstlerError) -> None:
        """Tell everybody who waits that the server has gone."""
        waiting, self._pending = self._pending, {}
        self._interval = _FIRST_INTERVAL
        for pending in waiting.values():
            pending.settle(None, lost_call(pending.where, error))

    def due(self, pending: Pending) -> float:
        """Return the moment at which `sweep` has to look at a call."""
        silence = pending.seen + MISSED_BEATS * self._interval
        return silence if pending.deadline is None else min(silence, pending.deadline)

    def next_due(self) -> float | None:
        """Return the moment at which `sweep` has something to do, None when nobody waits."""
        return min(map(self.due, self._pending.values()), default=None)

    def sweep(self, now: float) -> list[bytes]:
        """End calls whose deadline has passed or whose server is silent; return what is to be sent."""
        out = []
        for pending in list(self._pending.values()):
            if pending.deadline is not None and pending.deadline <= now:
                error: OstlerError = late(pending.where, pending.timeout, item=bool(pending.ask.flags & STREAM))
            elif pending.seen + MISSED_BEATS * self._interval <= now:
                error = silent(pending.where, now - pending.seen)
            else:
                continue
            # One that may come again is not cancelled for the silence: its next attempt is to find the work going on.
            if not (type(error) is ConnectionLost and pending.again):
                out.append(encode_message(Cancel(VERSION, pending.number)))
            del self._pending[pending.number]
            pending.settle(None, error)
        return out

    def _deliver(self, pending: Pending, result: msgspec.Raw) -> None:
        kind = pending.ask.kind
        try:
            value = self._decoders[kind].decode(result)
        except (KeyError, TypeError, msgspec.DecodeError, ValueError, RecursionError):
            # The first of its kind, or one that does not fit.
            try:
                value = decode_result(result, kind, pending.where)
            except BadEnvelope as error:
                pending.settle(None, error)
                return
            self._keep_decoder(kind)
        pending.settle(value, None)

    def _keep_decoder(self, kind: Any) -> None:
        try:
            if len(self._decoders) < _DECODERS_LIMIT:
                self._decoders[kind] = Decoder(Any if kind is None else kind)
        except TypeError:  # a kind that cannot be a key is looked at anew each time
            pass

    def _fail(self, failure: Failure) -> None:
        pending = self._pending.pop(failure.id, None) if failure.id is not None else None
        if pending is not None:
            pending.settle(None, error_of(failure))

    def _items(self, message: Items) -> Sequence[bytes]:
        pending = self._pending.get(message.id)
        if pending is None or not hasattr(pending, "incoming"):
            self.stray += 1
            return ()
        pending.seen = self._clock.monotonic()
        try:
            if pending.incoming.put(message.first, message.items):
                pending.deadline = None
        except OstlerError as error:
            return self._give_up(pending, error)
        return ()

    def _unusable(self, data: Data, error: OstlerError) -> Sequence[bytes]:
        """End the call that an answer which is not decoded was for: it would wait for nothing until its deadline."""
        self.garbage += 1
        pending = self._pending.get(answered(data))
        return () if pending is None else self._give_up(pending, unusable(pending.where, error))

    def _give_up(self, pending: Pending, error: Exception) -> Sequence[bytes]:
        cancel = self.cancel(pending)
        pending.settle(None, error)
        return (cancel,) if cancel is not None else ()

    def _advance(self, advance: Advance) -> Sequence[bytes]:
        pending = self._pending.get(advance.id)
        if pending is None:
            return ()
        pending.seen = self._clock.monotonic()
        if pending.ask.on_progress is None:
            return ()
        try:
            pending.ask.on_progress(Progress(advance.done, advance.total, advance.text))
        except Exception as error:  # noqa: BLE001 - the caller's own; it ends the call and is raised from it
            return self._give_up(pending, error)
        return ()

    def _beat(self, beat: Beat) -> None:
        self._interval = min(max(beat.interval, _FIRST_INTERVAL), _LONGEST_INTERVAL)
        now = self._clock.monotonic()
        for number in beat.ids:
            if (pending := self._pending.get(number)) is not None:
                pending.seen = now


def allowed(context: Context | None, timeout: float | None, default: float | None) -> float | None:
    """Return the seconds that a call may take: what is asked for, but no more than is left of the request served now.

    Raises:
        CallCancelled: The request that is being served was taken back.
        DeadlineExceeded: Its deadline has passed.
    """
    if context is None:
        return default if timeout is None else timeout
    context.check()
    left = context.remaining()
    if left is None:
        return default if timeout is None else timeout
    return left if timeout is None else min(timeout, left)


FLAGS_OF_CAST = CAST
FLAGS_OF_FANOUT = CAST | FANOUT


def decode_result(result: msgspec.Raw | bytes, kind: Any, where: str) -> Any:
    """Return the result as `kind`.

    Raises:
        BadEnvelope: It is of another type.
    """
    try:
        if kind is None:
            return msgspec.msgpack.decode(result)
        return msgspec.msgpack.decode(result, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise BadEnvelope(
            f"the result of {where} is not what this client expects: {error}",
            hint="client and service may be of different versions",
            reason="result",
            method=where,
        ) from error
