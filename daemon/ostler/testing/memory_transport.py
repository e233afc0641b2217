"""The transport without sockets, for tests: held to the same contract as `zmq`, in one process, on any threads."""

from __future__ import annotations

import asyncio
import itertools
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

from ostler.errors import ConnectionLost, DaemonNotRunning
from ostler.messaging.wire.transport import (
    CONTROL_PREFIX,
    AsyncLink,
    ClientId,
    EventHandler,
    OnLost,
    OnMessage,
    ServerHandler,
    SyncLink,
    TransportLimits,
)
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.wire.peer_quotas import PeerQuotas


class MemoryTransport:
    """A transport within this process; its two addresses are the object itself.

    Args:
        peer: Who clients are; None for the user of this process.
        limits: How many messages wait for one receiver; the other limits have no meaning here.
    """

    def __init__(self, peer: Peer | None = None, limits: TransportLimits | None = None) -> None:
        uid = os.geteuid()
        self.peer = peer or Peer(uid, os.getegid(), os.getpid(), f"uid {uid}")
        self.limits = limits or TransportLimits()
        self._endpoints = _Endpoints()

    def as_peer(self, peer: Peer) -> MemoryTransport:
        """Return this transport as another user sees it; for clients."""
        other = MemoryTransport(peer, self.limits)
        other._endpoints = self._endpoints
        return other

    def serve_rpc(self, quotas: PeerQuotas | None = None) -> MemoryServerLink:
        """See `Transport.serve_rpc`; what waits here is bounded by the number of messages."""
        self._endpoints.rpc = MemoryServerLink()
        return self._endpoints.rpc

    def serve_events(self, quotas: PeerQuotas | None = None) -> MemoryEventLink:
        """See `Transport.serve_events`."""
        self._endpoints.events = MemoryEventLink()
        return self._endpoints.events

    def connect(self) -> SyncLink:
        """See `Transport.connect`."""
        return _attach_client(_SyncMemoryLink(self.limits.max_queued), self._endpoints.rpc, self.peer)

    def connect_async(self, on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """See `Transport.connect_async`."""
        return _attach_client(
            _AsyncMemoryLink(self.limits.max_queued, on_message, on_lost), self._endpoints.rpc, self.peer
        )

    def subscribe(self, prefixes: Iterable[bytes]) -> SyncLink:
        """See `Transport.subscribe`."""
        return _attach_subscriber(_SyncMemoryLink(self.limits.max_queued), self._endpoints.events, self.peer, prefixes)

    def subscribe_async(self, prefixes: Iterable[bytes], on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """See `Transport.subscribe_async`."""
        return _attach_subscriber(
            _AsyncMemoryLink(self.limits.max_queued, on_message, on_lost), self._endpoints.events, self.peer, prefixes
        )

    def close(self) -> None:
        """See `Transport.close`."""


class _Endpoints:
    """Where the two servers of a transport are found, whoever looks."""

    rpc: MemoryServerLink | None = None
    events: MemoryEventLink | None = None


class _ServerEnd(Protocol):
    """The server as a client's end knows it."""

    def receive(self, client: int, data: bytes, peer: Peer) -> None: ...

    def detach_client(self, client: int) -> None: ...


class _MemoryLink:
    """A client's end: what the server calls, on its thread."""

    def __init__(self) -> None:
        self.client_id = 0
        self.peer = Peer()
        self.server: _ServerEnd | None = None

    def deliver(self, data: bytes) -> None:
        raise NotImplementedError

    def notify_lost(self) -> None:
        raise NotImplementedError

    def attach(self, server: _ServerEnd, client_id: int, peer: Peer) -> None:
        self.server, self.client_id, self.peer = server, client_id, peer

    def is_alive(self) -> bool:
        """See `SyncLink.alive`."""
        return self.server is not None

    def send(self, data: bytes, timeout: float | None = None) -> None:
        """See `SyncLink.send`; it is handed over at once or not at all."""
        host = self.server
        if host is None:
            raise _lost_error()
        host.receive(self.client_id, data, self.peer)

    def close(self) -> None:
        """See `SyncLink.close`."""
        host, self.server = self.server, None
        if host is not None:
            host.detach_client(self.client_id)

    def close_after_fork(self) -> None:
        """See `SyncLink.close_after_fork`."""
        self.server = None


EndT = TypeVar("EndT", bound=_MemoryLink)


class _SyncMemoryLink(_MemoryLink):
    def __init__(self, max_message_size: int) -> None:
        super().__init__()
        self._max_message_size = max_message_size
        self._inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._is_lost = False

    def deliver(self, data: bytes) -> None:
        if self._inbox.qsize() < self._max_message_size:
            self._inbox.put(data)

    def notify_lost(self) -> None:
        self.server = None
        self._inbox.put(None)

    def receive_briefly(self) -> list[bytes]:
        """See `SyncLink.receive_briefly`."""
        return [] if self._is_lost else self.receive(0.01)

    def receive(self, timeout: float) -> list[bytes]:
        """See `SyncLink.receive`."""
        if self._is_lost:
            raise _lost_error()
        found: list[bytes] = []
        try:
            item = self._inbox.get(timeout=timeout) if timeout > 0 else self._inbox.get_nowait()
            while item is not None:
                found.append(item)
                item = self._inbox.get_nowait()
        except queue.Empty:
            return found
        self._is_lost = True
        if not found:
            raise _lost_error()
        return found


class _AsyncMemoryLink(_MemoryLink):
    def __init__(self, max_message_size: int, on_message: OnMessage, on_lost: OnLost) -> None:
        super().__init__()
        self._max_message_size = max_message_size
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes | None] = deque()
        self._closed = False

    def deliver(self, data: bytes) -> None:
        if len(self._waiting) < self._max_message_size:
            self._post(data)

    def notify_lost(self) -> None:
        self.server = None
        self._post(None)

    def _post(self, item: bytes | None) -> None:
        self._waiting.append(item)
        _call_in_loop(self._loop, self._deliver_next)

    def _deliver_next(self) -> None:
        item = self._waiting.popleft()
        if self._closed:
            return
        if item is None:
            self._on_lost(_lost_error())
        else:
            self._on_message(item)

    def close(self) -> None:
        self._closed = True
        super().close()


class MemoryServerLink:
    """The server's end of the memory transport."""

    address = "memory"
    can_send_from_thread = False
    is_core_free = True

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._links: dict[int, _MemoryLink] = {}
        self._client_ids = itertools.count(1)
        self._handler: ServerHandler | None = None
        self._early: deque[tuple[int, bytes, Peer]] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def start(self, handler: ServerHandler) -> None:
        """See `ServerLink.start`."""
        self._handler = handler
        while self._early:
            handler.on_message(*self._early.popleft())

    def send(self, client: object, data: bytes) -> bool:
        """See `ServerLink.send`."""
        end = self._links.get(client) if isinstance(client, int) else None
        if end is None:
            return False
        end.deliver(data)
        return True

    def is_congested(self, client: ClientId) -> bool:
        """See `ServerLink.is_congested`; what waits here is bounded by the number of messages."""
        return False

    def memory_account(self, client: ClientId) -> None:
        """See `ServerLink.memory`."""

    def report_invalid(self, client: ClientId) -> None:
        """See `ServerLink.garbage`."""

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `ServerLink.disconnect_unless`."""
        for number, end in list(self._links.items()):
            if not allowed(end.peer):
                self._on_detached(number)
                end.notify_lost()

    def send_from_thread(self, client: ClientId, data: bytes, claim: Callable[[], bool]) -> bool:
        """See `ServerLink.send_from_thread`; here only the loop sends."""
        return False

    def cork(self) -> None:
        """See `ServerLink.hold`; it would save nothing here."""

    def uncork(self) -> None:
        """See `ServerLink.uncork`."""

    def close(self) -> None:
        """See `ServerLink.close`."""
        with self._lock:
            self._closed = True
            ends, self._links = self._links, {}
        for end in ends.values():
            end.notify_lost()

    def attach_client(self, end: _MemoryLink, peer: Peer) -> None:
        """Take a client in. Any thread."""
        with self._lock:
            if self._closed:
                raise _not_running_error()
            number = next(self._client_ids)
            self._links[number] = end
        end.attach(self, number, peer)

    def receive(self, client: int, data: bytes, peer: Peer) -> None:
        """Take a message of a client. Any thread."""
        _call_in_loop(self._loop, self._on_received, client, bytes(data), peer)

    def detach_client(self, client: int) -> None:
        """Let a client go, after what it has sent. Any thread."""
        _call_in_loop(self._loop, self._on_detached, client)

    def _on_detached(self, client: int) -> None:
        if self._links.pop(client, None) is not None and self._handler is not None:
            self._handler.on_client_gone(client)

    def _on_received(self, client: int, data: bytes, peer: Peer) -> None:
        if self._closed:
            return
        if self._handler is None:
            self._early.append((client, data, peer))
        else:
            self._handler.on_message(client, data, peer)


class MemoryEventLink:
    """The publisher's end of the memory transport."""

    address = "memory"

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._links: dict[int, tuple[_MemoryLink, list[bytes]]] = {}
        self._client_ids = itertools.count(1)
        self._handler: EventHandler | None = None
        self._early: deque[tuple[int, bytes, Peer]] = deque()
        self._closed = False

    @property
    def has_subscribers(self) -> bool:
        """See `EventLink.subscribers`."""
        return bool(self._links)

    def start(self, handler: EventHandler) -> None:
        """See `EventLink.start`."""
        self._handler = handler
        while self._early:
            self._on_subscribed(*self._early.popleft())

    def publish(self, data: bytes) -> None:
        """See `EventLink.publish`."""
        for end, prefixes in list(self._links.values()):
            if data.startswith(tuple(prefixes)):
                end.deliver(data)

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `EventLink.disconnect_unless`."""
        for number, (end, prefixes) in list(self._links.items()):
            if prefixes and not allowed(end.peer):
                del self._links[number]
                end.notify_lost()

    def close(self) -> None:
        """See `EventLink.close`."""
        self._closed = True
        ends, self._links = self._links, {}
        for end, _ in ends.values():
            end.notify_lost()

    def attach_client(self, end: _MemoryLink, peer: Peer, prefixes: Iterable[bytes]) -> None:
        """Take a subscriber in. Any thread."""
        if self._closed:
            raise _not_running_error()
        number = next(self._client_ids)
        self._links[number] = (end, [])
        end.attach(self, number, peer)
        for prefix in prefixes:
            _call_in_loop(self._loop, self._on_subscribed, number, bytes(prefix), peer)

    def receive(self, client: int, data: bytes, peer: Peer) -> None:
        """Drop what a subscriber sends."""

    def detach_client(self, client: int) -> None:
        """Let a subscriber go. Any thread."""
        _call_in_loop(self._loop, self._links.pop, client, None)

    def _on_subscribed(self, number: int, prefix: bytes, peer: Peer) -> None:
        if self._handler is None:
            self._early.append((number, prefix, peer))
        elif (found := self._links.get(number)) is None:
            return
        elif prefix.startswith(CONTROL_PREFIX):
            for part in self._handler.answer_question(peer, prefix):
                found[0].deliver(prefix + b"\0" + part)
        elif self._handler.may_subscribe(peer):
            found[1].append(prefix)


def _attach_client(end: EndT, server: MemoryServerLink | None, peer: Peer) -> EndT:
    if server is None:
        raise _not_running_error()
    server.attach_client(end, peer)
    return end


def _attach_subscriber(end: EndT, events: MemoryEventLink | None, peer: Peer, prefixes: Iterable[bytes]) -> EndT:
    if events is None:
        raise _not_running_error()
    events.attach_client(end, peer, prefixes)
    return end


def _lost_error() -> ConnectionLost:
    return ConnectionLost("the server has gone")


def _not_running_error() -> DaemonNotRunning:
    return DaemonNotRunning("no server is attached to this transport", hint="start the server first")


def _call_in_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *values: object) -> None:
    try:
        loop.call_soon_threadsafe(function, *values)
    except RuntimeError:  # the loop has closed; whoever it belonged to has gone
        pass
