"""The publisher's end of events on a unix socket: what ZeroMQ calls an XPUB."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable

from ostler.clock import Clock
from ostler.messaging.transport import CONTROL_PREFIX, Limits, OnGarbage, ignore_garbage, take_for_known
from ostler.messaging.zmtp.listener import STRANGERS_SHARE, Client, Listener
from ostler.messaging.zmtp.talk import Part, frame, hello
from ostler.types import Peer

_log = logging.getLogger(__name__)
_PART = Part(hello(b"XPUB"), frozenset({b"SUB", b"XSUB"}))
_PREFIX_LIMIT = 512
_PREFIXES_LIMIT = 1024
_BATCH = 32 * 1024
"""Bytes that are sent together at most: so a burst is on its way before it has ended."""
_QUEUE_BYTES = 16 * 1024 * 1024
"""Bytes that may wait for one subscriber, whatever the number of events."""


class Subscriber(Client):
    """One subscriber: what it wants, and what waits for it."""

    def __init__(self, listener: Listener[Client], connected: socket.socket, number: int, peer: Peer) -> None:
        self.group: Group | None = None
        self.prefixes: frozenset[bytes] = frozenset()
        self.lost = 0
        self._limit = listener.limits.queue
        self._queue: deque[tuple[bytes, int]] = deque()
        self._queued = 0
        self._bytes = 0
        super().__init__(listener, connected, number, peer)

    def deliver(self, data: bytes, count: int) -> None:
        """Send so many messages; what does not fit into the queue of one that does not read is lost to it."""
        if not self._queue and not self.channel.waiting:
            self.channel.write(data)
        elif self._queued + count > self._limit or self._bytes + len(data) > _QUEUE_BYTES:
            self.lost += count
        else:
            self._queue.append((data, count))
            self._queued += count
            self._bytes += len(data)

    def drained(self) -> None:
        """Send what waits next."""
        while self._queue and not self.channel.waiting:
            data, count = self._queue.popleft()
            self._queued -= count
            self._bytes -= len(data)
            self.channel.write(data)


class Group:
    """All subscribers who want the same: what is for one is for all of them, and is put together once."""

    __slots__ = ("held", "members", "prefixes", "size")

    def __init__(self, prefixes: frozenset[bytes]) -> None:
        self.prefixes = tuple(prefixes)
        self.members: dict[Subscriber, None] = {}
        self.held: list[bytes] = []
        self.size = 0


class UnixEventLink:
    """The publisher's end of all its subscribers. On the loop's thread.

    What is published in one turn of the loop goes out at its end, in one piece for each subscriber.

    Args:
        address: An `ipc://` address.
        limits: What the socket takes; `queue` messages wait for one subscriber.
        fd: A listening socket that was handed over; None to make one.
        clock: The source of time.

    Raises:
        OstlerError: The address cannot be taken; see `BoundSocket`.
    """

    def __init__(self, address: str, limits: Limits, fd: int | None = None, clock: Clock | None = None) -> None:
        self.address = address
        self.on_garbage: OnGarbage = ignore_garbage
        self.knows: Callable[[Peer], bool] = take_for_known
        self.listener: Listener[Subscriber] = Listener(address, limits, fd, _PART, Subscriber, clock)
        self._loop = asyncio.get_running_loop()
        self._groups: dict[frozenset[bytes], Group] = {}
        self._posted = False
        self._admit: Callable[[Peer], bool] = _nobody
        self._answer: Callable[[Peer, bytes], list[bytes]] = _no_answer

    @property
    def subscribers(self) -> bool:
        """See `EventLink.subscribers`."""
        return bool(self._groups)

    def start(self, admit: Callable[[Peer], bool], answer: Callable[[Peer, bytes], list[bytes]]) -> None:
        """See `EventLink.start`."""
        self._admit, self._answer = admit, answer
        listener = self.listener
        listener.receive = self._arrived
        listener.knows = self.knows
        listener.largest = STRANGERS_SHARE  # no subscription is large
        listener.on_gone = self._leave
        listener.on_garbage = self.on_garbage
        listener.start()

    def publish(self, data: bytes) -> None:
        """See `EventLink.publish`."""
        framed = b""
        for group in self._groups.values():
            if not data.startswith(group.prefixes):
                continue
            framed = framed or frame(data)
            group.held.append(framed)
            group.size += len(framed)
            if group.size >= _BATCH:
                self._send(group)
            elif not self._posted:
                self._posted = True
                self._loop.call_soon(self._flush)

    def keep_only(self, allowed: Callable[[Peer], bool]) -> None:
        """See `EventLink.keep_only`."""
        self.listener.keep_only(allowed)

    def close(self) -> None:
        """See `EventLink.close`."""
        if not self.listener.closed:
            self._flush()
            self.listener.close()
            self._groups.clear()

    def _flush(self) -> None:
        self._posted = False
        for group in self._groups.values():
            if group.held:
                self._send(group)

    def _send(self, group: Group) -> None:
        held, group.held, group.size = group.held, [], 0
        data = b"".join(held)
        for member in list(group.members):
            member.deliver(data, len(held))

    def _arrived(self, subscriber: Subscriber, messages: list[bytes]) -> None:
        # What was published before somebody subscribed is not for them.
        self._flush()
        for message in messages:
            try:
                self._subscription(subscriber, message[:1], message[1:])
            except Exception:  # noqa: BLE001 - a defect of ours must not take the publisher down
                _log.exception("a subscription could not be handled")

    def _subscription(self, subscriber: Subscriber, verb: bytes, prefix: bytes) -> None:
        peer = subscriber.peer
        if verb not in (b"\0", b"\1"):
            self.on_garbage(peer, "kind" if verb else "empty", f"{len(prefix) + len(verb)} bytes")
        elif len(prefix) > _PREFIX_LIMIT:
            self.on_garbage(peer, "large", f"a subscription of {len(prefix)} bytes, the limit is {_PREFIX_LIMIT}")
        elif verb == b"\0":
            self._join(subscriber, subscriber.prefixes - {prefix})
        elif prefix.startswith(CONTROL_PREFIX):
            if subscriber.channel.waiting and not subscriber.prefixes:
                return  # it was refused, does not read that, and asks again
            for part in self._answer(peer, prefix):
                subscriber.deliver(frame(prefix + b"\0" + part), 1)
        elif len(subscriber.prefixes) >= _PREFIXES_LIMIT:
            self.on_garbage(peer, "many", f"one subscription more than {_PREFIXES_LIMIT}")
        elif self._admit(peer):
            self._join(subscriber, subscriber.prefixes | {prefix})

    def _join(self, subscriber: Subscriber, prefixes: frozenset[bytes]) -> None:
        """Put a subscriber among those who want the same; nothing is held at this moment."""
        self._leave(subscriber)
        subscriber.prefixes = prefixes
        if not prefixes:
            return
        group = self._groups.get(prefixes)
        if group is None:
            group = self._groups[prefixes] = Group(prefixes)
        group.members[subscriber] = None
        subscriber.group = group

    def _leave(self, subscriber: Subscriber) -> None:
        group, subscriber.group = subscriber.group, None
        if group is None:
            return
        del group.members[subscriber]
        if not group.members:
            self._groups.pop(subscriber.prefixes, None)


def _nobody(_peer: Peer) -> bool:
    return False


def _no_answer(_peer: Peer, _question: bytes) -> list[bytes]:
    return []
