"""The client for ordinary programs: it blocks, and needs no loop. Imports no asyncio."""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ostler.clock import Clock, SystemClock
from ostler.errors import CallCancelled, ConnectionLost, MessagingError, NotRunning
from ostler.messaging.address import transport_to
from ostler.messaging.call_methods import SyncCallMethods
from ostler.messaging.call_options import DEFAULT_OPTIONS
from ostler.messaging.context import Context, current_context
from ostler.messaging.elements import ANSWER_ELEMENTS
from ostler.messaging.envelope import MAX_SIZE
from ostler.messaging.events.feed import subscription_to
from ostler.messaging.events.stream import EventStream
from ostler.messaging.item_stream import ItemStream
from ostler.messaging.pausing import nothing, pause
from ostler.messaging.rpc.core import Ask, ClientCore, Pending, allowed
from ostler.messaging.rpc.incoming import DEFAULT_CREDIT
from ostler.messaging.rpc.retry import Attempts, Retry
from ostler.messaging.transport import Link, Transport
from ostler.types import CONTROL_TOPIC

if TYPE_CHECKING:
    from ostler.messaging.events.replay import Since

_LOOK = 0.25
"""Seconds between two looks whether the client is closed, or the request that is being served was taken back."""
_FOR_EVER = 3600.0


class Client(SyncCallMethods):
    """Talks to a daemon, from a program without a loop.

    Calls from several threads go one after the other; for calls side by side, make a client for each thread. Ctrl-C and
    `close` cancel the calls under way on the server. The connection is made with the first call, and made anew with the
    next one after it was lost.

    It may be made before a fork and used in both processes: each connects by itself. Calls, streams and subscriptions
    that are open at the fork are the parent's; in the child they raise `ConnectionLost`, and to close them there ends
    nothing.

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
        self._lock = threading.RLock()
        self._door = threading.Lock()
        self._process = os.getpid()
        self._renewals: dict[int, threading.Lock] = {}
        self._closed = 0  # how often: whoever waits on another thread looks whether that has changed
        self._link: Link | None = None
        self._streams: set[EventStream] = set()
        self._waiting: deque[bytes] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def events(
        self, *patterns: str, since: Since | None = None, last: bool = False, refetch: bool = False
    ) -> EventStream:
        """Subscribe to events; everything published after the return is seen.

        Args:
            patterns: Keys `topic.host.name` or their leading parts, with `*`; none for all events.
            since: Begin with what the journal has from this number on, of each topic; or with what came after this
                event (after each of these, one of a topic), as somebody does who was away. Live events follow without
                a seam. What the journal no longer has is a `Gap`.
            last: Begin with the last event of each key that fits.
            refetch: Fetch the events of a gap from the journal, where it has them.

        Raises:
            NotRunning: No daemon listens.
            NotPermitted: The socket may not be used, or a role is missing.
            InvalidInput: `since` and `last` were both given, or `since` is below 1.
        """
        subscription, replay = subscription_to(patterns, since, self._timeout, last=last)
        stream = EventStream(
            self._transport, self._clock, subscription, self._streams.discard,
            ask=self._ask_daemon, replay=replay, refetch=refetch,
        )  # fmt: skip
        self._streams.add(stream)
        return stream

    def _ask_daemon(self, method: str, arguments: dict[str, Any], kind: Any) -> Any:
        return self.ask(Ask(CONTROL_TOPIC, method, arguments, kind=kind))

    def ask(self, ask: Ask, retry: Retry | None = None) -> Any:
        """See `SyncCallMethods.ask`."""
        return self._ask(ask) if retry is None and self._retry is None else self._ask_again(ask, retry)

    def ask_stream(self, ask: Ask, credit: int = DEFAULT_CREDIT) -> ItemStream:
        """See `SyncCallMethods.ask_stream`."""
        return ItemStream(_Stream(self, ask, credit))

    def close(self) -> None:
        """Cancel what is under way and close the connections. May be called twice."""
        self._check_process()
        for stream in list(self._streams):
            stream.close()
        self._closed += 1
        with self._lock:
            for pending in self._core.pending:
                self._cancel(pending)
                pending.settle(None, CallCancelled(f"the client was closed before {pending.where} had ended"))
            self._drop_link()
            if self._owned:
                self._transport.close()

    def _ask_again(self, ask: Ask, retry: Retry | None) -> Any:
        self._check_process()
        policy = retry or self._retry or Retry()
        context = current_context()
        attempts = Attempts(policy, self._clock, allowed(context, ask.timeout, self._timeout))
        request_id = self._core.new_id()
        return attempts.run(
            lambda timeout: self._ask(ask._replace(timeout=timeout), request_id), lambda wait: pause(wait, context)
        )

    def _ask(self, ask: Ask, request_id: str = "") -> Any:
        if self._process != os.getpid():
            self._renew()
        outcome, closed, lock = Outcome(), self._closed, self._lock
        with self._door:
            lock.acquire()
        try:
            self._check_open(closed)
            link = self._connected()
            if request_id:
                pending, data = self._core.retry(ask, outcome.settle, request_id)
            else:
                pending, data = self._core.request(ask, outcome.settle)
            try:
                link.send(data, pending.timeout)
                self._wait(outcome, current_context(), closed)
            except BaseException:
                # Ctrl-C too: nobody waits for the answer any more, so the work is to stop.
                self._cancel(pending)
                raise
        finally:
            lock.release()
        return outcome.result()

    def _open(self, ask: Ask, credit: int) -> Pending:
        self._check_process()
        with self._lock:
            link = self._connected()
            pending, data = self._core.stream(ask, credit, nothing)
            try:
                link.send(data)
            except BaseException:
                self._cancel(pending)
                raise
        return pending

    def _take(self, pending: Pending) -> list[Any] | None:
        """Wait for the next items of a stream; a call on another thread may come in between."""
        context = current_context()
        while True:
            self._check_process()
            with self._door:
                pass  # whoever waits for the lock holds the door: here we let it go first
            with self._lock:
                found, credit = self._core.take(pending)
                if credit is not None:
                    self._send_credit(credit)
                if found is None or found:
                    return found
                if context is not None:
                    context.check()
                self._step(_LOOK)

    def _send_credit(self, credit: bytes) -> None:
        try:
            if self._link is not None:
                self._link.send(credit)
        except (ConnectionLost, NotRunning):
            pass  # the next look at the link says so, after what had come before

    def _leave(self, pending: Pending) -> None:
        """Close a stream."""
        self._check_process()
        with self._lock:
            pending.incoming.abandon()
            self._cancel(pending)

    def _check_process(self) -> None:
        if self._process != os.getpid():
            self._renew()

    def _renew(self) -> None:
        """Begin as a client of its own in a process that was forked. Any thread; the locks may be the parent's."""
        process = os.getpid()
        with self._renewals.setdefault(process, threading.Lock()):
            if self._process == process:
                return
            link, self._link = self._link, None
            if link is not None:
                link.abandon()
            self._lock, self._door = threading.RLock(), threading.Lock()
            self._streams, self._waiting = set(), deque()
            self._core.renew(quietly=False)
            self._process = process

    def _connected(self) -> Link:
        """Return a link to a server that lives: one that went while nobody called is no loss to the next call."""
        if self._link is not None and not self._core.pending and not self._link.alive():
            self._drop_link()
        if self._link is None:
            self._link = self._transport.connect()
        return self._link

    def _check_open(self, closed: int) -> None:
        if self._closed != closed:
            raise CallCancelled("the client was closed before this call had ended")

    def _wait(self, outcome: Outcome, context: Context | None, closed: int) -> None:
        if self._link is not None and not self._waiting:
            # The usual case: the answer comes before anything else has to be looked at.
            self._waiting.extend(self._link.receive_soon())
            self._digest()
        while not outcome.done:
            if context is not None and context.cancelled:
                context.check()
            self._check_open(closed)
            self._step(_LOOK)

    def _step(self, most: float) -> None:
        """Take what comes, waiting so many seconds for it at most."""
        self._check_process()
        due = self._core.next_due()
        left = _FOR_EVER if due is None else due - self._clock.monotonic()
        try:
            self._pump(min(left, most))
        except (ConnectionLost, NotRunning) as error:
            self._drop_link()
            self._core.lost(error)

    def _pump(self, timeout: float) -> None:
        """Take what comes; the rest of a batch is kept when somebody's `on_progress` ends this early."""
        if self._link is None:
            raise ConnectionLost("the connection was closed")
        if not self._waiting:
            self._waiting.extend(self._link.receive(timeout))
        self._digest()
        for out in self._core.sweep(self._clock.monotonic()):
            self._tell(out)

    def _digest(self) -> None:
        while self._waiting:
            for out in self._core.receive(self._waiting.popleft()):
                self._tell(out)

    def _cancel(self, pending: Pending) -> None:
        self._check_process()
        if (data := self._core.cancel(pending)) is not None:
            self._tell(data)

    def _tell(self, data: bytes) -> None:
        """Send what nobody waits for, a cancel."""
        try:
            if self._link is not None:
                self._link.send(data, _LOOK)
        except MessagingError:
            pass  # it has gone and the work with it, or does not read

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        self._waiting.clear()
        if link is not None:
            link.close()


class Outcome:
    """How one call of a blocking client ended; set on the thread that reads, asked by the one that waits."""

    def __init__(self) -> None:
        self.done = False
        self._value: Any = None
        self._error: Exception | None = None

    def settle(self, value: Any, error: Exception | None) -> None:
        """Take note of the end."""
        self.done, self._value, self._error = True, value, error

    def result(self) -> Any:
        """Return the result.

        Raises:
            Exception: What the call ended with instead.
        """
        if self._error is not None:
            raise self._error
        return self._value


class _Stream:
    """One stream of a client; see `Source`."""

    def __init__(self, client: Client, ask: Ask, credit: int) -> None:
        self._ask = ask
        self._credit = credit
        self._open, self.take, self.close = client._open, client._take, client._leave  # noqa: SLF001 - part of it

    def open(self) -> Pending:
        return self._open(self._ask, self._credit)
