"""The client for ordinary programs: it blocks, and needs no loop. Imports no asyncio."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType
from typing import Any, Self

from ostler.clock import Clock, SystemClock
from ostler.errors import CallCancelled, ConnectionLost, MessagingError, NotRunning
from ostler.messaging.address import transport_to
from ostler.messaging.context import Context, current_context
from ostler.messaging.envelope import MAX_SIZE
from ostler.messaging.events import Subscription
from ostler.messaging.events.stream import EventStream
from ostler.messaging.rpc.core import FLAGS_OF_CAST, FLAGS_OF_FANOUT, Ask, ClientCore, OnProgress, Pending
from ostler.messaging.transport import Link, Transport

_CANCEL_LOOK = 0.25
"""Seconds between two looks whether the request that is being served has been taken back."""
_FOR_EVER = 3600.0


class Client:
    """Talks to a daemon, from a program without a loop.

    Calls from several threads go one after the other; for calls side by side, make a client for each thread. Ctrl-C and
    `close` cancel the calls under way on the server. The connection is made with the first call, and made anew with the
    next one after it was lost. Not usable after a fork.

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
        self._lock = threading.RLock()
        self._link: Link | None = None
        self._streams: set[EventStream] = set()
        self._waiting: deque[bytes] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def call(
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
        """Call a method and wait for its result.

        Args:
            topic: The service's topic.
            method: The exposed method.
            host: The service's host; None for the daemon's own.
            timeout: Seconds to wait at most; None for what is left of the request being served, else the default.
            type: The type the result is decoded to; None for plain values.
            on_progress: Told how far the call is, on this thread. If it raises, the call is cancelled and raises that.
            arguments: The method's arguments, by name; `host_`, `timeout_` and `type_` for those whose names are words
                of this method.

        Returns:
            The result, as `type`.

        Raises:
            NotRunning: No daemon listens.
            NotPermitted: The socket may not be used, or a role is missing.
            ConnectionLost: The daemon died or fell silent; the work may or may not have been done.
            DeadlineExceeded: No answer came in time.
            MessagingError: The call did not go as asked; each kind has its class in `ostler.errors`.
            OstlerError: What the method raised.
        """
        return self._ask(Ask(topic, method, arguments, host, timeout, type, on_progress))

    def cast(
        self, topic: str, method: str, /, *, host: str | None = None, timeout: float | None = None, **arguments: Any
    ) -> None:
        """Have a method run; return when the daemon has accepted it. It runs at most once.

        Raises:
            OstlerError: It was not accepted; see `call`.
        """
        self._ask(Ask(topic, method, arguments, host, timeout, flags=FLAGS_OF_CAST))

    def fanout(self, topic: str, method: str, /, *, timeout: float | None = None, **arguments: Any) -> int:
        """Have every service on the topic run a method; return how many accepted it.

        Raises:
            OstlerError: It could not be sent, or its arguments do not fit; see `call`.
        """
        return int(self._ask(Ask(topic, method, arguments, None, timeout, flags=FLAGS_OF_FANOUT)))

    def events(self, *patterns: str) -> EventStream:
        """Subscribe to events; everything published after the return is seen.

        Args:
            patterns: Keys `topic.host.name` or their leading parts, with `*`; none for all events.

        Raises:
            NotRunning: No daemon listens.
            NotPermitted: The socket may not be used, or a role is missing.
        """
        stream = EventStream(self._transport, self._clock, Subscription(patterns), self._streams.discard)
        self._streams.add(stream)
        return stream

    def close(self) -> None:
        """Cancel what is under way and close the connections. May be called twice."""
        for stream in list(self._streams):
            stream.close()
        with self._lock:
            for pending in self._core.pending:
                self._cancel(pending)
                pending.settle(None, CallCancelled(f"the client was closed before {pending.where} had ended"))
            self._drop_link()
            if self._owned:
                self._transport.close()

    def _ask(self, ask: Ask) -> Any:
        outcome = _Outcome()
        with self._lock:
            link = self._connected()
            pending, data = self._core.request(ask, outcome.settle)
            try:
                link.send(data)
                self._wait(outcome, current_context())
            except BaseException:
                # Ctrl-C too: nobody waits for the answer any more, so the work is to stop.
                self._cancel(pending)
                raise
        return outcome.result()

    def _connected(self) -> Link:
        """Return a link to a server that lives: one that went while nobody called is no loss to the next call."""
        if self._link is not None and not self._core.pending and not self._link.alive():
            self._drop_link()
        if self._link is None:
            self._link = self._transport.connect()
        return self._link

    def _wait(self, outcome: _Outcome, context: Context | None) -> None:
        while not outcome.done:
            if context is not None and context.cancelled:
                context.check()
            due = self._core.next_due()
            left = _FOR_EVER if due is None else due - self._clock.monotonic()
            try:
                self._pump(min(left, _CANCEL_LOOK) if context is not None else left)
            except (ConnectionLost, NotRunning) as error:
                self._drop_link()
                self._core.lost(error)

    def _pump(self, timeout: float) -> None:
        """Take what comes; the rest of a batch is kept when somebody's `on_progress` ends this early."""
        if self._link is None:
            raise ConnectionLost("the connection was closed")
        if not self._waiting:
            self._waiting.extend(self._link.receive(timeout))
        while self._waiting:
            for out in self._core.receive(self._waiting.popleft()):
                self._link.send(out)
        for out in self._core.sweep(self._clock.monotonic()):
            self._link.send(out)

    def _cancel(self, pending: Pending) -> None:
        data = self._core.cancel(pending)
        if data is None or self._link is None:
            return
        try:
            self._link.send(data)
        except MessagingError:
            pass  # it has gone, and the work with it

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        self._waiting.clear()
        if link is not None:
            link.close()


class _Outcome:
    """The end of one call."""

    def __init__(self) -> None:
        self.done = False
        self._value: Any = None
        self._error: Exception | None = None

    def settle(self, value: Any, error: Exception | None) -> None:
        self.done, self._value, self._error = True, value, error

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value
