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

from ostler.errors import ConnectionLost, NotRunning
from ostler.messaging.transport import (
    CONTROL_PREFIX,
    EVERYBODY,
    AsyncLink,
    ClientId,
    Limits,
    Link,
    OnGarbage,
    OnLost,
    OnMessage,
    OnRefused,
    OnUnkept,
    Receive,
    ignore_batch,
    ignore_garbage,
    ignore_gone,
    ignore_refused,
    ignore_unkept,
)
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.shares import PeerShares


class MemoryTransport:
    """A transport within this process; its two addresses are the object itself.

    Args:
        peer: Who clients are; None for the user of this process.
        limits: How many messages wait for one receiver; the other limits have no meaning here.
    """

    def __init__(self, peer: Peer | None = None, limits: Limits | None = None) -> None:
        uid = os.geteuid()
        self.peer = peer or Peer(uid, os.getegid(), os.getpid(), f"uid {uid}")
        self.limits = limits or Limits()
        self.on_refused: OnRefused = ignore_refused
        self.shares: PeerShares | None = None
        self._hall = _Hall()

    def as_peer(self, peer: Peer) -> MemoryTransport:
        """Return this transport as another user sees it; for clients."""
        other = MemoryTransport(peer, self.limits)
        other._hall = self._hall
        return other

    def serve_rpc(self) -> MemoryServerLink:
        """See `Transport.serve_rpc`."""
        self._hall.rpc = MemoryServerLink()
        return self._hall.rpc

    def serve_events(self) -> MemoryEventLink:
        """See `Transport.serve_events`."""
        self._hall.events = MemoryEventLink()
        return self._hall.events

    def connect(self) -> Link:
        """See `Transport.connect`."""
        return _connected(_BlockingEnd(self.limits.queue), self._hall.rpc, self.peer)

    def connect_async(self, on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """See `Transport.connect_async`."""
        return _connected(_LoopEnd(self.limits.queue, on_message, on_lost), self._hall.rpc, self.peer)

    def subscribe(self, prefixes: Iterable[bytes]) -> Link:
        """See `Transport.subscribe`."""
        return _subscribed(_BlockingEnd(self.limits.queue), self._hall.events, self.peer, prefixes)

    def subscribe_async(self, prefixes: Iterable[bytes], on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """See `Transport.subscribe_async`."""
        return _subscribed(_LoopEnd(self.limits.queue, on_message, on_lost), self._hall.events, self.peer, prefixes)

    def close(self) -> None:
        """See `Transport.close`."""


class _Hall:
    """Where the two servers of a transport are found, whoever looks."""

    rpc: MemoryServerLink | None = None
    events: MemoryEventLink | None = None


class _Host(Protocol):
    """The server as a client's end knows it."""

    def take(self, client: int, data: bytes, peer: Peer) -> None: ...

    def leave(self, client: int) -> None: ...


class _End:
    """A client's end: what the server calls, on its thread."""

    def __init__(self) -> None:
        self.number = 0
        self.peer = Peer()
        self.host: _Host | None = None

    def deliver(self, data: bytes) -> None:
        raise NotImplementedError

    def lost(self) -> None:
        raise NotImplementedError

    def attach(self, host: _Host, number: int, peer: Peer) -> None:
        self.host, self.number, self.peer = host, number, peer

    def alive(self) -> bool:
        """See `Link.alive`."""
        return self.host is not None

    def send(self, data: bytes, longest: float | None = None) -> None:
        """See `Link.send`; it is handed over at once or not at all."""
        host = self.host
        if host is None:
            raise _lost()
        host.take(self.number, data, self.peer)

    def close(self) -> None:
        """See `Link.close`."""
        host, self.host = self.host, None
        if host is not None:
            host.leave(self.number)

    def abandon(self) -> None:
        """See `Link.abandon`."""
        self.host = None


EndT = TypeVar("EndT", bound=_End)


class _BlockingEnd(_End):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._is_lost = False

    def deliver(self, data: bytes) -> None:
        if self._inbox.qsize() < self._limit:
            self._inbox.put(data)

    def lost(self) -> None:
        self.host = None
        self._inbox.put(None)

    def receive_soon(self) -> list[bytes]:
        """See `Link.receive_soon`."""
        return [] if self._is_lost else self.receive(0.01)

    def receive(self, timeout: float) -> list[bytes]:
        """See `Link.receive`."""
        if self._is_lost:
            raise _lost()
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
            raise _lost()
        return found


class _LoopEnd(_End):
    def __init__(self, limit: int, on_message: OnMessage, on_lost: OnLost) -> None:
        super().__init__()
        self._limit = limit
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes | None] = deque()
        self._closed = False

    def deliver(self, data: bytes) -> None:
        if len(self._waiting) < self._limit:
            self._post(data)

    def lost(self) -> None:
        self.host = None
        self._post(None)

    def _post(self, item: bytes | None) -> None:
        self._waiting.append(item)
        _call_on(self._loop, self._next)

    def _next(self) -> None:
        item = self._waiting.popleft()
        if self._closed:
            return
        if item is None:
            self._on_lost(_lost())
        else:
            self._on_message(item)

    def close(self) -> None:
        self._closed = True
        super().close()


class MemoryServerLink:
    """The server's end of the memory transport."""

    address = "memory"
    threads_send = False
    core_is_ours = True

    def __init__(self) -> None:
        self.on_garbage: OnGarbage = ignore_garbage
        self.may_linger: Callable[[], bool] = lambda: False
        self.on_batch: Callable[[], None] = ignore_batch
        self.on_gone: Callable[[ClientId], None] = ignore_gone
        self.on_drained: Callable[[ClientId], None] = ignore_gone
        self.on_unkept: OnUnkept = ignore_unkept
        self.admission = EVERYBODY
        self._loop = asyncio.get_running_loop()
        self._ends: dict[int, _End] = {}
        self._numbers = itertools.count(1)
        self._receive: Receive | None = None
        self._early: deque[tuple[int, bytes, Peer]] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def start(self, receive: Receive) -> None:
        """See `ServerLink.start`."""
        self._receive = receive
        while self._early:
            receive(*self._early.popleft())

    def send(self, client: object, data: bytes) -> bool:
        """See `ServerLink.send`."""
        end = self._ends.get(client) if isinstance(client, int) else None
        if end is None:
            return False
        end.deliver(data)
        return True

    def congested(self, client: ClientId) -> bool:
        """See `ServerLink.congested`; what waits here is bounded by the number of messages."""
        return False

    def memory(self, client: ClientId) -> None:
        """See `ServerLink.memory`."""

    def garbage(self, client: ClientId) -> None:
        """See `ServerLink.garbage`."""

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `ServerLink.disconnect_unless`."""
        for number, end in list(self._ends.items()):
            if not allowed(end.peer):
                self._left(number)
                end.lost()

    def send_from_thread(self, client: ClientId, data: bytes, claim: Callable[[], bool]) -> bool:
        """See `ServerLink.send_from_thread`; here only the loop sends."""
        return False

    def hold(self) -> None:
        """See `ServerLink.hold`; it would save nothing here."""

    def let_go(self) -> None:
        """See `ServerLink.let_go`."""

    def close(self) -> None:
        """See `ServerLink.close`."""
        with self._lock:
            self._closed = True
            ends, self._ends = self._ends, {}
        for end in ends.values():
            end.lost()

    def join(self, end: _End, peer: Peer) -> None:
        """Take a client in. Any thread."""
        with self._lock:
            if self._closed:
                raise _not_running()
            number = next(self._numbers)
            self._ends[number] = end
        end.attach(self, number, peer)

    def take(self, client: int, data: bytes, peer: Peer) -> None:
        """Take a message of a client. Any thread."""
        _call_on(self._loop, self._arrived, client, bytes(data), peer)

    def leave(self, client: int) -> None:
        """Let a client go, after what it has sent. Any thread."""
        _call_on(self._loop, self._left, client)

    def _left(self, client: int) -> None:
        if self._ends.pop(client, None) is not None:
            self.on_gone(client)

    def _arrived(self, client: int, data: bytes, peer: Peer) -> None:
        if self._closed:
            return
        if self._receive is None:
            self._early.append((client, data, peer))
        else:
            self._receive(client, data, peer)


class MemoryEventLink:
    """The publisher's end of the memory transport."""

    address = "memory"

    def __init__(self) -> None:
        self.on_garbage: OnGarbage = ignore_garbage
        self.admission = EVERYBODY
        self._loop = asyncio.get_running_loop()
        self._ends: dict[int, tuple[_End, list[bytes]]] = {}
        self._numbers = itertools.count(1)
        self._admit: Callable[[Peer], bool] | None = None
        self._answer: Callable[[Peer, bytes], list[bytes]] | None = None
        self._early: deque[tuple[int, bytes, Peer]] = deque()
        self._closed = False

    @property
    def subscribers(self) -> bool:
        """See `EventLink.subscribers`."""
        return bool(self._ends)

    def start(self, admit: Callable[[Peer], bool], answer: Callable[[Peer, bytes], list[bytes]]) -> None:
        """See `EventLink.start`."""
        self._admit, self._answer = admit, answer
        while self._early:
            self._subscribed(*self._early.popleft())

    def publish(self, data: bytes) -> None:
        """See `EventLink.publish`."""
        for end, prefixes in list(self._ends.values()):
            if data.startswith(tuple(prefixes)):
                end.deliver(data)

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `EventLink.disconnect_unless`."""
        for number, (end, prefixes) in list(self._ends.items()):
            if prefixes and not allowed(end.peer):
                del self._ends[number]
                end.lost()

    def close(self) -> None:
        """See `EventLink.close`."""
        self._closed = True
        ends, self._ends = self._ends, {}
        for end, _ in ends.values():
            end.lost()

    def join(self, end: _End, peer: Peer, prefixes: Iterable[bytes]) -> None:
        """Take a subscriber in. Any thread."""
        if self._closed:
            raise _not_running()
        number = next(self._numbers)
        self._ends[number] = (end, [])
        end.attach(self, number, peer)
        for prefix in prefixes:
            _call_on(self._loop, self._subscribed, number, bytes(prefix), peer)

    def take(self, client: int, data: bytes, peer: Peer) -> None:
        """Drop what a subscriber sends."""

    def leave(self, client: int) -> None:
        """Let a subscriber go. Any thread."""
        _call_on(self._loop, self._ends.pop, client, None)

    def _subscribed(self, number: int, prefix: bytes, peer: Peer) -> None:
        if self._admit is None or self._answer is None:
            self._early.append((number, prefix, peer))
        elif (found := self._ends.get(number)) is None:
            return
        elif prefix.startswith(CONTROL_PREFIX):
            for part in self._answer(peer, prefix):
                found[0].deliver(prefix + b"\0" + part)
        elif self._admit(peer):
            found[1].append(prefix)


def _connected(end: EndT, server: MemoryServerLink | None, peer: Peer) -> EndT:
    if server is None:
        raise _not_running()
    server.join(end, peer)
    return end


def _subscribed(end: EndT, events: MemoryEventLink | None, peer: Peer, prefixes: Iterable[bytes]) -> EndT:
    if events is None:
        raise _not_running()
    events.join(end, peer, prefixes)
    return end


def _lost() -> ConnectionLost:
    return ConnectionLost("the server has gone")


def _not_running() -> NotRunning:
    return NotRunning("nobody serves this transport", hint="start the server first")


def _call_on(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *values: object) -> None:
    try:
        loop.call_soon_threadsafe(function, *values)
    except RuntimeError:  # the loop has closed; whoever it belonged to has gone
        pass
