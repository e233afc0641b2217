"""A transport between the daemon's loop and other loops of the same process.

Messages are those of the wire, so that all rules of the wire hold: sizes, deadlines, credit, duplicates. They go over
by two `LoopQueue`s, the daemon's and one of each other loop, which wake a loop up once for all that has come together.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ostler.aio import LoopQueue
from ostler.errors import ConnectionLost, DaemonNotRunning, MessagingError, NotPermitted
from ostler.messaging.events.event import KEY_TERMINATOR
from ostler.messaging.wire.transport import (
    CONTROL_PREFIX,
    ClientId,
    Data,
    EventHandler,
    OnLost,
    OnMessage,
    ServerHandler,
)
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.wire.peer_quotas import MemoryAccount, PeerQuotas

_MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Bytes that may wait for a loop which does not run; its calls end then."""
_CONGESTED_BYTES = 4 * 1024 * 1024
"""Bytes that wait for a loop from which on no more items of streams are made for it."""
_MAX_WAITING_EVENTS = 10_000
"""Events that may wait for a loop which does not run; further ones are dropped, and seen as a gap."""
_ROLE_HINT = "an administrator makes tokens, and grants roles in [access]"


def _stopping_error() -> ConnectionLost:
    return ConnectionLost("the daemon is stopping", hint="make the request again when it has started")


class _ServerEnd(Protocol):
    """The daemon's end, as a link knows it. Any thread."""

    def post_attach(self, link: ForeignLink) -> None: ...

    def post_message(self, link: ForeignLink, data: bytes) -> None: ...

    def post_detach(self, link: ForeignLink) -> None: ...


class ForeignLink:
    """The other loop's end of a link; implements `AsyncLink`. On that loop's thread, except for `deliver` and `lose`.

    Args:
        server: The daemon's end.
        peer: Who it is for.
        queue: Passes what comes to the loop of this end.
        on_message: Called with each message.
        on_lost: Called when the daemon's end has gone.
    """

    def __init__(
        self, server: _ServerEnd, peer: Peer, queue: LoopQueue, on_message: OnMessage, on_lost: OnLost
    ) -> None:
        self.peer = peer
        self.number = 0
        """What the daemon's end knows it by; 0 before and after."""
        self.waiting_count = 0
        self.waiting_bytes = 0
        self._server = server
        self._queue = queue
        self._on_message = on_message
        self._on_lost = on_lost
        self._is_closed = False
        self._lock = threading.Lock()
        """Guards what waits: the loop of this end, the daemon's, and its threads count there."""
        server.post_attach(self)

    @property
    def is_gone(self) -> bool:
        """Whether nobody receives what is delivered. Any thread."""
        return self._is_closed or self._queue.loop.is_closed()

    def deliver(self, data: bytes) -> None:
        """Pass a message to this end. Any thread."""
        with self._lock:
            self.waiting_count += 1
            self.waiting_bytes += len(data)
        self._queue.post(partial(self._receive, data))

    def lose(self, error: MessagingError) -> None:
        """Tell this end that the daemon's has gone, after everything that was delivered before. Any thread."""
        self._queue.post(partial(self._report_lost, error))

    def send(self, data: bytes) -> None:
        """See `AsyncLink.send`."""
        if self._is_closed:
            raise ConnectionLost("the link to the daemon is closed", hint="make the request again")
        self._server.post_message(self, data)

    def close(self) -> None:
        """See `AsyncLink.close`."""
        if not self._is_closed:
            self._is_closed = True
            self._server.post_detach(self)

    def close_after_fork(self) -> None:
        """See `AsyncLink.close_after_fork`."""
        self._is_closed = True

    def _receive(self, data: bytes) -> None:
        with self._lock:
            self.waiting_count -= 1
            self.waiting_bytes -= len(data)
        if not self._is_closed:
            self._on_message(data)

    def _report_lost(self, error: MessagingError) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._on_lost(error)


class _DaemonEnd:
    """What both ends of the daemon share: who is connected. On the daemon's loop, but for the methods `post_…`.

    Args:
        loop_queue: Passes what comes to the daemon's loop.
    """

    def __init__(self, loop_queue: LoopQueue) -> None:
        self.is_closed = False
        self._loop_queue = loop_queue
        self._links: dict[int, ForeignLink] = {}
        self._numbers = itertools.count(1)

    def post_attach(self, link: ForeignLink) -> None:
        """Take a link in. Any thread.

        Raises:
            DaemonNotRunning: The daemon is stopping.
        """
        if self.is_closed:
            raise DaemonNotRunning("the daemon is stopping", hint="try again when it has started")
        self._loop_queue.post(partial(self._attach, link))

    def post_message(self, link: ForeignLink, data: bytes) -> None:
        """Take a message of a link. Any thread."""
        self._loop_queue.post(partial(self._handle, link, data))

    def post_detach(self, link: ForeignLink) -> None:
        """Let a link go. Any thread."""
        self._loop_queue.post(partial(self._on_detach_posted, link))

    def _on_detach_posted(self, link: ForeignLink) -> None:
        self._detach(link)

    def _attach(self, link: ForeignLink) -> None:
        if self.is_closed:
            link.lose(_stopping_error())
            return
        link.number = next(self._numbers)
        self._links[link.number] = link

    def _handle(self, link: ForeignLink, data: bytes) -> None:
        raise NotImplementedError

    def _detach(self, link: ForeignLink) -> bool:
        number, link.number = link.number, 0
        return self._links.pop(number, None) is not None

    def peers(self) -> list[Peer]:
        """See `SupportsPeers.peers`."""
        return [link.peer for link in self._links.values()]

    def drop_closed_loops(self) -> None:
        """Let go the links of loops that have been closed."""
        for link in [link for link in self._links.values() if link.is_gone]:
            self._detach(link)

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `ServerLink.disconnect_unless` and `EventLink.disconnect_unless`."""
        self.drop_closed_loops()
        for link in list(self._links.values()):
            if not allowed(link.peer):
                self._detach(link)
                link.lose(NotPermitted(f"{link.peer.name} has no role here any more", hint=_ROLE_HINT))

    def close(self) -> None:
        """See `ServerLink.close` and `EventLink.close`."""
        self.is_closed = True
        links, self._links = self._links, {}
        for link in links.values():
            link.number = 0
            link.lose(_stopping_error())


class GatewayServerLink(_DaemonEnd):
    """The daemon's end of the links for calls; implements `ServerLink`.

    Args:
        loop_queue: Passes what comes to the daemon's loop.
        quotas: What its links share with those of the sockets.
        is_privileged: Returns whether a peer may use all of the memory that is left.
    """

    address = "gateway"
    can_send_from_thread = True
    is_core_free = False

    def __init__(self, loop_queue: LoopQueue, quotas: PeerQuotas, is_privileged: Callable[[Peer], bool]) -> None:
        super().__init__(loop_queue)
        self._quotas = quotas
        self._is_privileged = is_privileged
        self._accounts: dict[int, MemoryAccount] = {}
        self._handler: ServerHandler | None = None
        self._has_received = False

    def start(self, handler: ServerHandler) -> None:
        """See `ServerLink.start`."""
        self._handler = handler

    def send(self, client: ClientId, data: bytes) -> bool:
        """See `ServerLink.send`."""
        link = self._links.get(client) if isinstance(client, int) else None
        if link is None:
            return False
        if link.is_gone:
            self._detach(link)
            return False
        if link.waiting_bytes > _MAX_WAITING_BYTES:
            self._detach(link)
            link.lose(ConnectionLost("the loop of this client does not take what is sent to it"))
            return False
        link.deliver(data)
        return True

    def is_congested(self, client: ClientId) -> bool:
        """See `ServerLink.is_congested`."""
        link = self._links.get(client) if isinstance(client, int) else None
        return link is not None and link.waiting_bytes > _CONGESTED_BYTES

    def memory_account(self, client: ClientId) -> MemoryAccount | None:
        """See `ServerLink.memory_account`."""
        return self._accounts.get(client) if isinstance(client, int) else None

    def report_invalid(self, client: ClientId) -> None:
        """See `ServerLink.report_invalid`; what comes here was encoded by this process."""

    def send_from_thread(self, client: ClientId, data: bytes, claim: Callable[[], bool]) -> bool:
        """See `ServerLink.send_from_thread`."""
        link = self._links.get(client) if isinstance(client, int) else None
        if link is None or link.is_gone or link.waiting_bytes > _MAX_WAITING_BYTES or not claim():
            return False
        link.deliver(data)
        return True

    def cork(self) -> None:
        """See `ServerLink.cork`; the queue of the other loop gathers what is sent."""

    def uncork(self) -> None:
        """Tell the handler that all messages which came together were handed over."""
        if self._has_received and self._handler is not None:
            self._has_received = False
            self._handler.on_batch_end()

    def _attach(self, link: ForeignLink) -> None:
        super()._attach(link)
        if link.number:
            account = self._quotas.memory_accounts.open(
                link.peer.account, link.peer, privileged=self._is_privileged(link.peer)
            )
            self._accounts[link.number] = account

    def _handle(self, link: ForeignLink, data: Data) -> None:
        if link.number and self._handler is not None:
            self._has_received = True
            self._handler.on_message(link.number, data, link.peer)

    def _detach(self, link: ForeignLink) -> bool:
        number = link.number
        if not super()._detach(link):
            return False
        if self._handler is not None:
            self._handler.on_client_gone(number)  # before its account is closed: what is in progress is charged there
        self._accounts.pop(number).close()
        return True

    def close(self) -> None:
        """See `ServerLink.close`."""
        super().close()
        accounts, self._accounts = self._accounts, {}
        for account in accounts.values():
            account.close()


class GatewayEventLink(_DaemonEnd):
    """The publisher's end of the links for events; implements `EventLink`.

    Args:
        loop_queue: Passes what comes to the daemon's loop.
    """

    address = "gateway"

    def __init__(self, loop_queue: LoopQueue) -> None:
        super().__init__(loop_queue)
        self._prefixes: dict[int, tuple[bytes, ...]] = {}
        self._handler: EventHandler | None = None

    @property
    def has_subscribers(self) -> bool:
        """See `EventLink.has_subscribers`."""
        return bool(self._links)

    def start(self, handler: EventHandler) -> None:
        """See `EventLink.start`."""
        self._handler = handler

    def publish(self, data: bytes) -> None:
        """See `EventLink.publish`."""
        for number, prefixes in list(self._prefixes.items()):
            if not data.startswith(prefixes):
                continue
            link = self._links[number]
            if link.is_gone:
                self._detach(link)
            elif link.waiting_count < _MAX_WAITING_EVENTS:
                link.deliver(data)

    def _handle(self, link: ForeignLink, data: Data) -> None:
        """Take a subscription, or a question."""
        prefix, handler = bytes(data), self._handler
        if not link.number or handler is None:
            return
        if prefix.startswith(CONTROL_PREFIX):
            for part in handler.answer_question(link.peer, prefix):
                link.deliver(prefix + KEY_TERMINATOR + part)
        elif handler.may_subscribe(link.peer):
            self._prefixes[link.number] = (*self._prefixes.get(link.number, ()), prefix)

    def _detach(self, link: ForeignLink) -> bool:
        self._prefixes.pop(link.number, None)
        return super()._detach(link)

    def close(self) -> None:
        """See `EventLink.close`."""
        super().close()
        self._prefixes.clear()


class GatewayTransport:
    """The transport of one peer on one loop; implements `AsyncTransport`.

    Args:
        server: The daemon's end for calls.
        events: The publisher's end.
        peer: Who it is for.
        queue: Passes what comes to the loop.
    """

    def __init__(self, server: GatewayServerLink, events: GatewayEventLink, peer: Peer, queue: LoopQueue) -> None:
        self._server = server
        self._events = events
        self._peer = peer
        self._queue = queue

    def connect_async(self, on_message: OnMessage, on_lost: OnLost) -> ForeignLink:
        """See `AsyncTransport.connect_async`."""
        return ForeignLink(self._server, self._peer, self._queue, on_message, on_lost)

    def subscribe_async(self, prefixes: Iterable[bytes], on_message: OnMessage, on_lost: OnLost) -> ForeignLink:
        """See `AsyncTransport.subscribe_async`."""
        link = ForeignLink(self._events, self._peer, self._queue, on_message, on_lost)
        for prefix in prefixes:
            link.send(prefix)
        return link

    def close(self) -> None:
        """See `AsyncTransport.close`: links share nothing."""
