"""The request that a method serves: the caller, the deadline, progress reports, and the trace it belongs to."""

from __future__ import annotations

import contextvars
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import msgspec

from ostler.bounds import NAME_LIMIT, TEXT_LIMIT, truncate
from ostler.clock import Clock, SystemClock
from ostler.errors import Cancelled, DeadlineExceeded, InvalidInput, NotPermitted
from ostler.redaction import SECRETS, Value
from ostler.types import LOCAL_PEER, Peer, Role

if TYPE_CHECKING:
    from ostler.log import LogFields


_callbacks_lock = threading.Lock()
"""Held for the moment in which a list of those to be told is replaced; one for all, as it is never waited for long."""


class Relayed(msgspec.Struct, frozen=True):
    """What is called on another host for the caller of a request, the role it needs, whether it changes anything."""

    host: str
    full_name: str
    role: Role
    changes: bool = True


class Progress(NamedTuple):
    """How far a call is: `done` of `total` in a unit of the method's choice (bytes, steps), `total` 0 when unknown."""

    done: float
    total: float
    text: str


T = TypeVar("T")


class RunningOperation(Protocol):
    """The operation that a request is an attempt of. Any thread, except where a method is a coroutine."""

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        ...

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier attempt was cut off by the end of the daemon."""
        ...

    @property
    def is_handed_over(self) -> bool:
        """Whether this attempt was asked to stop because its service stops, and the next start continues it."""
        ...

    def is_recorded(self, name: str) -> bool:
        """Whether the result of a step was recorded, in an earlier attempt or outside of a write in this one."""
        ...

    def step(self, context: Context, name: str, function: Callable[[], T], result_type: Any) -> T:
        """Return the recorded result of a step, or run it and record that."""
        ...

    async def astep(self, context: Context, name: str, function: Callable[[], Awaitable[T]], result_type: Any) -> T:
        """Do what `step` does, on the loop."""
        ...


class Context:
    """The request that an exposed method or periodic task serves.

    Args:
        topic: The topic the request came on.
        method: The method's name.
        request_id: The id that every log line of this request carries.
        peer: Who asks.
        role: The highest role of who asks.
        deadline: Moment of the monotonic clock after which the result is not needed; None for no limit.
        clock: The source of time.
        on_progress: Receives each progress report, on the thread that made it.

    `host` is the host in whose name the caller may report something: of another daemon that whose name its key has in
    `[network.keys]`; this host for the daemon itself and for local callers with the role admin; empty for everybody
    else. `check_host` refuses those who say they are another.

    `trace` is the W3C `traceparent` that the request came with, or that a tracer gave it; empty when nobody traces.
    `relayed` is there in a request that is passed on to another host: its caller has to keep the role for as long as it
    lasts. `secrets` are texts that may stand in nothing that is written or sent of this request. `parent` is the
    request that this one was made in, when both are served by this daemon. `operation` is the operation that the
    request is an attempt of; None for a request that is none. `caller` is the task or thread of `parent` that waits for
    this request, noted only where the parent has called `on_end`; `end_callbacks` is what `on_end` was given.
    """

    __slots__ = (
        "_cancelled", "_clock", "_on_cancel", "_on_progress", "caller", "deadline", "end_callbacks", "host",
        "last_progress", "method", "operation", "parent", "peer", "relayed", "request_id", "role", "secrets", "topic",
        "trace",
    )  # fmt: skip

    def __init__(
        self,
        topic: str,
        method: str,
        *,
        request_id: str = "",
        peer: Peer = LOCAL_PEER,
        role: Role = Role.ADMIN,
        deadline: float | None = None,
        clock: Clock | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.topic = topic
        self.method = method
        self.request_id = request_id
        self.peer = peer
        self.role = role
        self.deadline = deadline
        self.host = ""
        self.trace = ""
        self.secrets: tuple[Value, ...] = ()
        self.parent: Context | None = None
        self.operation: RunningOperation | None = None
        self.relayed: Relayed | None = None
        self.last_progress = 0.0
        self.caller: object = None
        self.end_callbacks: dict[object, Callable[[Context], None]] | None = None
        self._clock = clock or SystemClock()
        self._on_progress = on_progress
        self._on_cancel: list[Callable[[], None]] | None = None
        self._cancelled = False

    def inherit(self, parent: Context) -> None:
        """Record the request that this one was made in; what that keeps secret, this one does as well."""
        self.parent = parent
        self.secrets = parent.secrets

    @property
    def cancelled(self) -> bool:
        """Whether the caller cancelled the request, or its service is being stopped.

        Any thread; a long `def` method looks at it between steps.
        """
        return self._cancelled

    def cancel(self) -> None:
        """Mark the request as cancelled and call the registered callbacks. Any thread."""
        self._cancelled = True
        for told in self._on_cancel or ():
            told()

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when the request is cancelled, at once if it already was; return a function that undoes this.

        It is called on the thread that cancels, must not block and must not raise. Any thread.
        """
        # A method may make calls on several threads at once (`asyncio.to_thread`, threads of a pool).
        with _callbacks_lock:
            self._on_cancel = [*(self._on_cancel or ()), callback]
        if self._cancelled:
            callback()

        def forget() -> None:
            with _callbacks_lock:
                self._on_cancel = [other for other in self._on_cancel or () if other is not callback]

        return forget

    def on_end(self, key: object, callback: Callable[[Context], None]) -> None:
        """Call `callback` once when the work of the request has really ended, which may be after its reply. Any thread.

        Args:
            key: Who asks; a second callback of the same replaces the first.
            callback: Called with this context; it must not block and must not raise.
        """
        with _callbacks_lock:
            self.end_callbacks = {**(self.end_callbacks or {}), key: callback}

    def end(self) -> None:
        """Call what `on_end` was given. For whoever runs the work, after its end."""
        with _callbacks_lock:
            callbacks, self.end_callbacks = self.end_callbacks, None
        for told in (callbacks or {}).values():
            told(self)

    def check_host(self, host: str) -> None:
        """Refuse a caller that acts for another host than its own; for methods by which hosts report on themselves.

        Any thread. A context that was created by hand, as in a test or a periodic task, may act for every host.

        Args:
            host: The host that the caller claims to act for.

        Raises:
            NotPermitted: It is not the host whose key the caller has.
        """
        if host == self.host or (self.peer is LOCAL_PEER and not self.host):
            return
        where, mine = f"{self.topic}.{self.method}", f"only for {self.host}" if self.host else "for no host"
        raise NotPermitted(
            f"{self.peer.name} must not call {where} on behalf of host {truncate(host, NAME_LIMIT)}, it may act {mine}",
            hint="a peer acts for the host that its key belongs to: list the key in [network.keys] under the host's "
            "name (`host` in its [daemon])",
            host=host, speaks_for=self.host, method=where,
        )  # fmt: skip

    def remaining(self) -> float | None:
        """Return the seconds until the deadline (0 when it has passed), None when there is none. Any thread."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - self._clock.monotonic())

    def check(self) -> None:
        """Raise if the request was cancelled or its deadline has passed; for loops of long methods. Any thread.

        Raises:
            Cancelled: The caller cancelled the request.
            DeadlineExceeded: The deadline has passed.
        """
        if self._cancelled:
            raise Cancelled(f"{self.topic}.{self.method} was cancelled by its caller", request_id=self.request_id)
        if self.deadline is not None and self._clock.monotonic() >= self.deadline:
            raise DeadlineExceeded(f"the deadline of {self.topic}.{self.method} has passed", request_id=self.request_id)

    def step(self, name: str, function: Callable[..., T], /, *args: Any, type: Any = None) -> T:  # noqa: A002 - as in `client.on(type=…)`
        """Run a part of a durable method once: record its result, and return the recorded one when it is repeated.

        When the daemon ends in the midst of an operation that is resumed, the method runs again, and the steps that
        were recorded before are not. The result is on disk when this returns. Between the end of `function` and the
        commit the daemon may be killed, so the function must be one that may run twice. In a request that is no
        operation the function is called, and nothing is recorded. Inside `store.write` what the function writes and the
        result are committed together, and the step counts as recorded from the next attempt on. Blocks; in `async def`
        methods use `astep`.

        Args:
            name: The name of the step; each in a method has another.
            function: What to do.
            args: Its arguments.
            type: The type that a recorded result is decoded to; plain values by default.

        Raises:
            Cancelled: The operation was cancelled, or continues elsewhere.
            StoreError: The result could not be recorded.
            EncodeError: The result cannot be stored.
            Exception: What the function raised; nothing is recorded then.
        """
        if self.operation is None:
            return function(*args)
        return self.operation.step(self, name, lambda: function(*args), type)

    def is_recorded(self, name: str) -> bool:
        """Return whether a step of this operation was done before; False in a request that is no operation."""
        return self.operation is not None and self.operation.is_recorded(name)

    async def astep(self, name: str, function: Callable[..., Awaitable[T]], /, *args: Any, type: Any = None) -> T:  # noqa: A002 - as in `client.on(type=…)`
        """Do what `step` does, in an `async def` method; the function is one too."""
        if self.operation is None:
            return await function(*args)
        return await self.operation.astep(self, name, lambda: function(*args), type)

    def progress(self, done: float, total: float = 0, text: str = "") -> None:
        """Report progress to the caller, and that the work is not stuck. Any thread.

        Args:
            done: How much is done, in bytes, steps or whatever the method counts.
            total: How much there is, 0 when that is not known.
            text: What is being done now; what is longer than 1,000 characters is cut.

        Raises:
            TypeError: An argument is of another type. Raised here, where the mistake is, and not where it is sent.
        """
        if isinstance(text, str):
            text = truncate(SECRETS.redact(text, arguments=False, extra_values=self.secrets), TEXT_LIMIT)
        _check_progress(done, total, text)
        self.last_progress = self._clock.monotonic()
        if self._on_progress is not None:
            self._on_progress(Progress(done, total, text))


def _check_progress(done: object, total: object, text: object) -> None:
    if not isinstance(done, int | float) or not isinstance(total, int | float) or not isinstance(text, str):
        raise TypeError(f"progress takes two numbers and a text, got {done!r}, {total!r}, {text!r}")
    try:
        float(done), float(total), text.encode()
    except (OverflowError, UnicodeError) as error:
        raise TypeError(f"this progress cannot be encoded: {error}") from None


_current: contextvars.ContextVar[Context | None] = contextvars.ContextVar("ostler_context", default=None)


def current_context() -> Context | None:
    """Return the request that this thread or task is serving, None outside of one."""
    return _current.get()


def current_account() -> Hashable:
    """Return the account behind the request that this thread or task is serving; None for the daemon's own.

    See `Peer.account`. What is shared by all callers is shared by this.
    """
    context = _current.get()
    if context is None:
        return None
    peer, parent = context.peer, context.parent
    while peer is LOCAL_PEER and parent is not None:
        peer, parent = parent.peer, parent.parent
    return None if peer is LOCAL_PEER else peer.account


def describe_current_request() -> str:
    """Return which request this thread or task is serving and for whom, for messages; empty when it serves none."""
    context = _current.get()
    if context is None:
        return ""
    request = f" (request {truncate(context.request_id, NAME_LIMIT)})" if context.request_id else ""
    return f"{context.topic}.{context.method} of {context.peer.name}{request}"


def request_log_fields() -> LogFields | None:
    """Return what every log line of this thread or task has to say of the request that is served here."""
    context = _current.get()
    if context is None:
        return None
    fields = {"request_id": context.request_id}
    if context.trace:
        fields["trace_id"] = context.trace[3:35]
    from ostler.log import LogFields  # 7 ms: a client logs nothing

    return LogFields(fields, context.secrets)


def set_current_context(context: Context) -> None:
    """Make `context` the current one for good; for work that has a copy of the context variables to itself."""
    _current.set(context)


@contextmanager
def serving(context: Context) -> Iterator[Context]:
    """Make `context` the current one inside the block."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


@contextmanager
def serving_to_end(context: Context) -> Iterator[Context]:
    """Do what `serving` does, for the whole work of the request: at the end of the block it has ended."""
    try:
        with serving(context):
            yield context
    finally:
        if context.end_callbacks is not None:
            context.end()


# Version ff is forbidden; a version above 00 may have more fields behind, of which nothing is known here.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?")
# What was chosen, and inside of which request: one that is served further down, in a copy of these context variables,
# has its own.
_trace_override: contextvars.ContextVar[tuple[str | None, Context | None]] = contextvars.ContextVar(
    "ostler_trace", default=(None, None)
)


def is_valid_traceparent(traceparent: str) -> bool:
    """Return whether a text is a W3C `traceparent`."""
    if len(traceparent) != 55 and not (len(traceparent) > 55 and traceparent[:2] > "00"):
        return False
    return _TRACEPARENT.fullmatch(traceparent) is not None


def current_trace() -> str:
    """Return the `traceparent` that work begun here belongs to, empty when nobody traces. Any thread.

    It is that of the block of `trace_context` here, else that of a span of OpenTelemetry that is current here, else
    that of the request that is served.
    """
    return outgoing_trace(current_context())


def outgoing_trace(context: Context | None) -> str:
    """Do what `current_trace` does, for who knows the request that is served. Any thread."""
    chosen, inside = _trace_override.get()
    if chosen is not None and inside is context:
        return chosen
    # Whoever has a span has imported this; a program that does not trace pays for one look into a dictionary.
    opentelemetry = sys.modules.get("opentelemetry.trace")
    if opentelemetry is not None and (found := _traceparent_of_span(opentelemetry)):
        return found
    return context.trace if context is not None else ""


@contextmanager
def trace_context(traceparent: str) -> Iterator[None]:
    """Have everything that is called, cast or published inside the block belong to a trace.

    Args:
        traceparent: As W3C writes it: `00-TRACE_ID-SPAN_ID-FLAGS`; empty to leave every trace.

    Raises:
        InvalidInput: It is not valid.
    """
    if traceparent and not is_valid_traceparent(traceparent):
        raise InvalidInput(
            f"{traceparent[:80]!r} is not a valid W3C traceparent",
            hint="it looks like 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
    token = _trace_override.set((traceparent, current_context()))
    try:
        yield
    finally:
        _trace_override.reset(token)


def format_traceparent(trace_id: int, span_id: int, flags: int) -> str:
    """Return the text for these numbers."""
    return f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"


def _traceparent_of_span(opentelemetry: Any) -> str:
    try:
        found = opentelemetry.get_current_span().get_span_context()
        return format_traceparent(found.trace_id, found.span_id, found.trace_flags) if found.is_valid else ""
    except AttributeError:  # it is being imported by another thread just now
        return ""
