"""The request that a method serves: who asks, until when, and how to tell how far it is."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ostler.bounds import NAME_LIMIT, TEXT_LIMIT, cut
from ostler.clock import Clock, SystemClock
from ostler.errors import CallCancelled, DeadlineExceeded, NotPermitted
from ostler.redaction import SECRETS, Value
from ostler.types import LOCAL_PEER, Peer, Role

if TYPE_CHECKING:
    from ostler.log import About


_registering = threading.Lock()
"""Held for the moment in which a list of those to be told is replaced; one for all, as it is never waited for long."""


class Relayed(msgspec.Struct, frozen=True):
    """What is called on another host for the caller of a request, the role it needs, whether it changes anything."""

    host: str
    where: str
    role: Role
    changes: bool = True


class Progress(NamedTuple):
    """How far a call is: `done` of `total` in a unit of the method's choice (bytes, steps), `total` 0 when unknown."""

    done: float
    total: float
    text: str


class Context:
    """What an exposed method or periodic task is told about the request that it serves.

    Args:
        topic: The topic the request came on.
        method: The method's name.
        request_id: The id that every log line of this request carries.
        peer: Who asks.
        role: The highest role of who asks.
        deadline: Moment of the monotonic clock after which nobody waits for the result; None for no limit.
        clock: The source of time.
        on_progress: Receives each progress report, on the thread that made it.

    `host` is the host in whose name the caller may report something: of another daemon that whose name its key has in
    `[network.keys]`; this host for the daemon itself and for local callers with the role admin; empty for everybody
    else. `check_host` refuses those who say they are another.

    `trace` is the W3C `traceparent` that the request came with, or that a tracer gave it; empty when nobody traces.
    `relayed` is there in a request that is passed on to another host: its caller has to keep the role for as long as it
    lasts. `secrets` are texts that may stand in nothing that is written or sent of this request. `parent` is the
    request that this one was made in, when both are served by this daemon.
    """

    __slots__ = (
        "_cancelled", "_clock", "_on_cancel", "_on_progress", "deadline", "host", "last_progress", "method", "parent",
        "peer", "relayed", "request_id", "role", "secrets", "topic", "trace",
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
        self.relayed: Relayed | None = None
        self.last_progress = 0.0
        self._clock = clock or SystemClock()
        self._on_progress = on_progress
        self._on_cancel: list[Callable[[], None]] | None = None
        self._cancelled = False

    def inherit(self, parent: Context) -> None:
        """Take note of the request that this one was made in; what that keeps secret, this one does as well."""
        self.parent = parent
        self.secrets = parent.secrets

    @property
    def cancelled(self) -> bool:
        """Whether the caller took the request back, or its service stops.

        Any thread; a long `def` method looks at it between steps.
        """
        return self._cancelled

    def cancel(self) -> None:
        """Mark the request as taken back, and tell who asked to hear of it. Any thread."""
        self._cancelled = True
        for told in self._on_cancel or ():
            told()

    def on_cancel(self, told: Callable[[], None]) -> Callable[[], None]:
        """Have `told` called when the request is taken back, at once if that has happened; returns what undoes this.

        It is called on the thread that cancels, must not block and must not raise. Any thread.
        """
        # A method may make calls on several threads at once (`asyncio.to_thread`, threads of a pool).
        with _registering:
            self._on_cancel = [*(self._on_cancel or ()), told]
        if self._cancelled:
            told()

        def forget() -> None:
            with _registering:
                self._on_cancel = [other for other in self._on_cancel or () if other is not told]

        return forget

    def check_host(self, host: str) -> None:
        """Refuse a caller that speaks for another host than its own; for methods by which hosts report of themselves.

        Any thread. A context that was made by hand, as in a test or a periodic task, speaks for every host.

        Args:
            host: The host that the caller says it speaks for.

        Raises:
            NotPermitted: It is not the host whose key the caller has.
        """
        if host == self.host or (self.peer is LOCAL_PEER and not self.host):
            return
        where, mine = f"{self.topic}.{self.method}", f"only for {self.host}" if self.host else "for no host"
        raise NotPermitted(
            f"{self.peer.name} may not call {where} in the name of the host {cut(host, NAME_LIMIT)}, it speaks {mine}",
            hint="who speaks for a host is its key: it stands in [network.keys] under the name that is `host` in its "
            "[daemon]",
            host=host, speaks_for=self.host, method=where,
        )  # fmt: skip

    def remaining(self) -> float | None:
        """Return the seconds until the deadline (0 when it has passed), None when there is none. Any thread."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - self._clock.monotonic())

    def check(self) -> None:
        """Raise if the work is no longer wanted; for loops of long methods. Any thread.

        Raises:
            CallCancelled: The caller took the request back.
            DeadlineExceeded: The deadline has passed.
        """
        if self._cancelled:
            raise CallCancelled(f"{self.topic}.{self.method} was cancelled by its caller", request_id=self.request_id)
        if self.deadline is not None and self._clock.monotonic() >= self.deadline:
            raise DeadlineExceeded(f"the deadline of {self.topic}.{self.method} has passed", request_id=self.request_id)

    def progress(self, done: float, total: float = 0, text: str = "") -> None:
        """Tell the caller how far the work is, and everybody else that it is alive. Any thread.

        Args:
            done: How much is done, in bytes, steps or whatever the method counts.
            total: How much there is, 0 when that is not known.
            text: What is being done now; what is longer than 1,000 characters is cut.

        Raises:
            TypeError: An argument is of another type. Said here, where the mistake is, and not where it is sent.
        """
        if isinstance(text, str):
            text = cut(SECRETS.redact(text, arguments=False, also=self.secrets), TEXT_LIMIT)
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
        raise TypeError(f"this progress cannot go over the wire: {error}") from None


_current: contextvars.ContextVar[Context | None] = contextvars.ContextVar("ostler_context", default=None)


def current_context() -> Context | None:
    """Return the request that this thread or task is serving, None outside of one."""
    return _current.get()


def current_account() -> Hashable:
    """Return the account of who is behind the request that this thread or task is serving; None for the daemon's own.

    See `Peer.account`. What is shared by all callers is shared by this.
    """
    context = _current.get()
    if context is None:
        return None
    peer, parent = context.peer, context.parent
    while peer is LOCAL_PEER and parent is not None:
        peer, parent = parent.peer, parent.parent
    return None if peer is LOCAL_PEER else peer.account


def about_request() -> About | None:
    """Return what every log line of this thread or task has to say of the request that is served here."""
    context = _current.get()
    if context is None:
        return None
    fields = {"request_id": context.request_id}
    if context.trace:
        fields["trace_id"] = context.trace[3:35]
    from ostler.log import About

    return About(fields, context.secrets)


def enter(context: Context) -> None:
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
