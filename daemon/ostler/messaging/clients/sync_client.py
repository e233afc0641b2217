"""The client for ordinary programs: it blocks, and needs no loop. Imports no asyncio."""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ostler.clock import Clock, SystemClock
from ostler.errors import Cancelled, ConnectionLost, DaemonNotRunning, MessagingError
from ostler.messaging.clients.call_methods import DEFAULT_OPTIONS, SyncCallMethods
from ostler.messaging.clients.client_core import ClientCore, PendingCall, PendingStream, effective_timeout
from ostler.messaging.clients.retry import Retry, RetryAttempts, interruptible_sleep, noop
from ostler.messaging.clients.stream_buffer import DEFAULT_CREDIT
from ostler.messaging.clients.sync_item_stream import ItemStream
from ostler.messaging.events.subscription import make_subscription
from ostler.messaging.events.sync_event_stream import EventStream
from ostler.messaging.socket_transport import transport_to
from ostler.messaging.wire.envelope import MAX_MESSAGE_SIZE, MAX_REPLY_ELEMENTS
from ostler.messaging.wire.request import CallRequest
from ostler.messaging.wire.request_context import Context, current_context
from ostler.messaging.wire.transport import SyncLink, Transport
from ostler.types import CONTROL_TOPIC

if TYPE_CHECKING:
    from ostler.messaging.events.replay import Since

_POLL_INTERVAL = 0.25
"""Seconds between two looks whether the client is closed, or the request that is being served was cancelled."""
_NO_TIMEOUT = 3600.0


class Client(SyncCallMethods):
    """Talks to a daemon, from a program without a loop.

    Calls from several threads go one after the other; for calls side by side, make a client for each thread. Ctrl-C and
    `close` cancel the calls in progress on the server. The connection is made with the first call, and made again with
    the next one after it was lost.

    It may be made before a fork and used in both processes: each connects by itself. Calls, streams and subscriptions
    that are open at the fork are the parent's; in the child they raise `ConnectionLost`, and to close them there ends
    nothing.

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
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._owns_transport = transport is None
        self._transport = transport or transport_to(address, root, max_message_size, server_key, secret_key)
        self._core = ClientCore(
            self._clock,
            timeout=timeout, max_message_size=max_message_size, max_elements=max_elements, lenient=lenient,
        )  # fmt: skip
        self.options = DEFAULT_OPTIONS
        self._retry = retry
        self._timeout = timeout
        self._lock = threading.RLock()
        self._turnstile = threading.Lock()
        self._pid = os.getpid()
        self._fork_locks: dict[int, threading.Lock] = {}
        self._close_count = 0  # how often: whoever waits on another thread looks whether that has changed
        self._link: SyncLink | None = None
        self._streams: set[EventStream] = set()
        self._received: deque[bytes] = deque()

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
                event (after each of these, one of a topic), as somebody does who was away. Live events follow without a
                gap or overlap. What the journal no longer has is a `Gap`.
            last: Begin with the last event of each key that fits.
            refetch: Fetch the events of a gap from the journal, where it has them.

        Raises:
            DaemonNotRunning: No daemon listens.
            NotPermitted: This user is not allowed to use the socket, or lacks a role.
            InvalidInput: `since` and `last` were both given, or `since` is below 1.
        """
        subscription, replay = make_subscription(patterns, since, self._timeout, last=last)
        stream = EventStream(
            self._transport, self._clock, subscription, self._streams.discard,
            call_method=self._call_daemon, replay=replay, refetch=refetch,
        )  # fmt: skip
        self._streams.add(stream)
        return stream

    def _call_daemon(self, method: str, arguments: dict[str, Any], kind: Any) -> Any:
        return self.send_request(CallRequest(CONTROL_TOPIC, method, arguments, result_type=kind))

    def send_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """See `SyncCallMethods.send_request`."""
        return (
            self._send_once(request) if retry is None and self._retry is None else self._send_with_retry(request, retry)
        )

    def open_stream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> ItemStream:
        """See `SyncCallMethods.open_stream`."""
        return ItemStream(_SyncClientStream(self, request, credit))

    def close(self) -> None:
        """Cancel what is in progress and close the connections. May be called twice."""
        self._check_process()
        for stream in list(self._streams):
            stream.close()
        self._close_count += 1
        with self._lock:
            for pending in self._core.pending_calls:
                self._cancel(pending)
                pending.on_result(None, Cancelled(f"the client was closed before {pending.full_name} had completed"))
            self._drop_link()
            if self._owns_transport:
                self._transport.close()

    def _send_with_retry(self, request: CallRequest, retry: Retry | None) -> Any:
        self._check_process()
        policy = retry or self._retry or Retry()
        context = current_context()
        attempts = RetryAttempts(policy, self._clock, effective_timeout(context, request.timeout, self._timeout))
        request_id = request.request_id or self._core.new_id()
        return attempts.run(
            lambda timeout: self._send_once(request._replace(timeout=timeout), request_id),
            lambda wait: interruptible_sleep(wait, context),
        )

    def _send_once(self, request: CallRequest, request_id: str = "") -> Any:
        if self._pid != os.getpid():
            self._reset_after_fork()
        outcome, closed, lock = Outcome(), self._close_count, self._lock
        with self._turnstile:
            lock.acquire()
        try:
            self._check_open(closed)
            link = self._ensure_connected()
            if request_id:
                pending, data = self._core.start_retryable_call(request, outcome.settle, request_id)
            else:
                pending, data = self._core.start_call(request, outcome.settle)
            try:
                link.send(data, pending.timeout)
                self._wait_for_result(outcome, current_context(), closed)
            except BaseException:
                # Ctrl-C too: the answer is not needed any more, so the work is to stop.
                self._cancel(pending)
                raise
        finally:
            lock.release()
        return outcome.result()

    def _open_stream(self, request: CallRequest, credit: int) -> PendingStream:
        self._check_process()
        with self._lock:
            link = self._ensure_connected()
            pending, data = self._core.start_stream(request, credit, noop)
            try:
                link.send(data)
            except BaseException:
                self._cancel(pending)
                raise
        return pending

    def _pop_items(self, pending: PendingStream) -> list[Any] | None:
        """Wait for the next items of a stream; a call on another thread may come in between."""
        context = current_context()
        while True:
            self._check_process()
            with self._turnstile:
                pass  # the lock is not fair: let a waiting thread take it first
            with self._lock:
                found, credit = self._core.pop_items(pending)
                if credit is not None:
                    self._send_credit(credit)
                if found is None or found:
                    return found
                if context is not None:
                    context.check()
                self._poll(_POLL_INTERVAL)

    def _send_credit(self, credit: bytes) -> None:
        try:
            if self._link is not None:
                self._link.send(credit)
        except (ConnectionLost, DaemonNotRunning):
            pass  # the next look at the link says so, after what had come before

    def _close_stream(self, pending: PendingStream) -> None:
        """Close a stream."""
        self._check_process()
        with self._lock:
            pending.buffer.discard()
            self._cancel(pending)

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self._reset_after_fork()

    def _reset_after_fork(self) -> None:
        """Start over as a separate client in a forked process. Any thread; the locks may be held by the parent."""
        process = os.getpid()
        with self._fork_locks.setdefault(process, threading.Lock()):
            if self._pid == process:
                return
            link, self._link = self._link, None
            if link is not None:
                link.close_after_fork()
            self._lock, self._turnstile = threading.RLock(), threading.Lock()
            self._streams, self._received = set(), deque()
            self._core.reset_after_fork(quietly=False)
            self._pid = process

    def _ensure_connected(self) -> SyncLink:
        """Return a link to a running server; one that stopped between calls is not an error of the next call."""
        if self._link is not None and not self._core.pending_calls and not self._link.is_alive():
            self._drop_link()
        if self._link is None:
            self._link = self._transport.connect()
        return self._link

    def _check_open(self, close_count: int) -> None:
        if self._close_count != close_count:
            raise Cancelled("the client was closed before this call had completed")

    def _wait_for_result(self, result: Outcome, context: Context | None, close_count: int) -> None:
        if self._link is not None and not self._received:
            # The usual case: the answer comes before anything else has to be looked at.
            self._received.extend(self._link.receive_briefly())
            self._process_received()
        while not result.done:
            if context is not None and context.cancelled:
                context.check()
            self._check_open(close_count)
            self._poll(_POLL_INTERVAL)

    def _poll(self, timeout: float) -> None:
        """Take what comes, waiting so many seconds for it at most."""
        self._check_process()
        due = self._core.next_check()
        left = _NO_TIMEOUT if due is None else due - self._clock.monotonic()
        try:
            self._receive(min(left, timeout))
        except (ConnectionLost, DaemonNotRunning) as error:
            self._drop_link()
            self._core.fail_all(error)

    def _receive(self, timeout: float) -> None:
        """Take what comes; the rest of a batch is kept when somebody's `on_progress` ends this early."""
        if self._link is None:
            raise ConnectionLost("the connection was closed")
        if not self._received:
            self._received.extend(self._link.receive(timeout))
        self._process_received()
        for out in self._core.check_deadlines(self._clock.monotonic()):
            self._send_best_effort(out)

    def _process_received(self) -> None:
        while self._received:
            for out in self._core.receive(self._received.popleft()):
                self._send_best_effort(out)

    def _cancel(self, pending: PendingCall) -> None:
        self._check_process()
        if (data := self._core.cancel(pending)) is not None:
            self._send_best_effort(data)

    def _send_best_effort(self, data: bytes) -> None:
        """Send a cancellation; its answer is not waited for."""
        try:
            if self._link is not None:
                self._link.send(data, _POLL_INTERVAL)
        except MessagingError:
            pass  # the server has gone and the work with it, or does not read

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        self._received.clear()
        if link is not None:
            link.close()


class Outcome:
    """The result of one call of a blocking client; set on the thread that reads, read by the one that waits."""

    def __init__(self) -> None:
        self.done = False
        self._value: Any = None
        self._error: Exception | None = None

    def settle(self, value: Any, error: Exception | None) -> None:
        """Record the end."""
        self.done, self._value, self._error = True, value, error

    def result(self) -> Any:
        """Return the result.

        Raises:
            Exception: What the call ended with instead.
        """
        if self._error is not None:
            raise self._error
        return self._value


class _SyncClientStream:
    """One stream of a client; see `StreamSource`."""

    def __init__(self, client: Client, request: CallRequest, credit: int) -> None:
        self._request = request
        self._credit = credit
        self._open, self.take, self.close = client._open_stream, client._pop_items, client._close_stream  # noqa: SLF001 - part of it

    def open(self) -> PendingStream:
        return self._open(self._request, self._credit)
