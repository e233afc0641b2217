"""The publisher's end of events on a unix socket: what ZeroMQ calls an XPUB."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

from ostler.aio.round_robin import TURN
from ostler.clock import Clock
from ostler.messaging.transport import CONTROL_PREFIX, EVERYBODY, Limits, OnGarbage, ignore_garbage
from ostler.messaging.zmtp.listener import Client, Listener
from ostler.messaging.zmtp.talk import LARGE, Part, frame, hello
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.shares import PeerShares

_log = logging.getLogger(__name__)
_PART = Part(hello(b"XPUB"), frozenset({b"SUB", b"XSUB"}))
_PREFIX_LIMIT = 512
_PREFIXES_LIMIT = 1024
_PREFIX_COST = 400
"""Bytes that a subscription takes beside its own."""
_BATCH = 32 * 1024
"""Bytes that are sent together at most: so a burst is on its way before it has ended."""
_UNSENT_MOST = 256 * 1024
"""Bytes that wait for a subscriber, above which its questions are left where they are."""
_QUEUE_BYTES = 16 * 1024 * 1024
"""Bytes that may wait for one subscriber, whatever the number of events."""


class Subscriber(Client):
    """One subscriber: what it wants, and what waits for it."""

    def __init__(self, listener: Listener[Client], connected: socket.socket, number: int, peer: Peer) -> None:
        self.group: Group | None = None
        self.prefixes: frozenset[bytes] = frozenset()
        self.lost = 0
        self.charged = 0
        """Bytes that its subscriptions are charged."""
        self._limit = listener.limits.queue
        self._queue: deque[tuple[bytes, int]] = deque()
        self._queued = 0
        self._bytes = 0
        self._turns = listener.shares.turns
        super().__init__(listener, connected, number, peer)

    def deliver(self, data: bytes, count: int) -> None:
        """Send so many messages; what does not fit into the queue of one that does not read is lost to it."""
        if not self._queue and not self.channel.waiting:
            self.channel.write(data)
        else:
            self._put(data, count)

    def deliver_own(self, data: bytes, count: int) -> None:
        """Deliver what was made for this subscriber alone, so that nobody shares the memory that it takes."""
        if self.memory.room(len(data)):
            self.deliver(data, count)
        else:
            self.lost += count

    def deliver_later(self, data: bytes, count: int) -> None:
        """Deliver in a turn of the subscriber's account, or when it has read what waits."""
        nothing_waits = not self._queue and not self.channel.waiting
        if not self.closed:
            self._put(data, count)
            if nothing_waits:
                self._turns.queue(_Sending(self))

    def _put(self, data: bytes, count: int) -> None:
        too_much = self._queued + count > self._limit or self._bytes + len(data) > _QUEUE_BYTES
        if too_much or not self.memory.room_for(data):
            self.lost += count
            return
        self._queue.append((data, count))
        self._queued += count
        self._bytes += len(data)
        self.memory.hold(data)

    def _take(self) -> bytes:
        data, count = self._queue.popleft()
        self._queued -= count
        self._bytes -= len(data)
        self.memory.let_go(data)
        return data

    @property
    def congested(self) -> bool:
        """See `Client.congested`."""
        return bool(self._queue) or self.channel.unsent > _UNSENT_MOST

    def drained(self) -> None:
        """Send what waits next; when nothing does, go on with what the subscriber wants."""
        while self._queue and not self.channel.waiting:
            self.channel.write(self._take())
        if not self.channel.waiting:
            super().drained()

    def close(self) -> None:
        """See `Client.close`."""
        if not self.closed:
            while self._queue:
                self._take()
            self.memory.release(self.charged)
            self.charged = 0
        super().close()


class _Sending:
    """A turn of a subscriber's account, in which it is sent what waits: a `Flow`."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.account = subscriber.account
        self.rank = subscriber.rank
        self._subscriber = subscriber

    def run(self, _until: float) -> bool:
        if not self._subscriber.closed:
            self._subscriber.drained()
        return False


class Group:
    """All subscribers who want the same: what is for one is for all of them, and is put together once."""

    __slots__ = ("held", "members", "size")

    def __init__(self) -> None:
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
        shares: What its connections share with those of the daemon's other sockets.

    Raises:
        OstlerError: The address cannot be taken; see `BoundSocket`.
    """

    def __init__(
        self,
        address: str,
        limits: Limits,
        fd: int | None = None,
        clock: Clock | None = None,
        shares: PeerShares | None = None,
    ) -> None:
        self.address = address
        self.on_garbage: OnGarbage = ignore_garbage
        self.admission = EVERYBODY
        self.listener: Listener[Subscriber] = Listener(address, limits, fd, _PART, Subscriber, clock, shares)
        self._loop = asyncio.get_running_loop()
        self._groups: dict[frozenset[bytes], Group] = {}
        self._by_prefix: dict[bytes, dict[Group, None]] = {}
        self._lengths: Counter[int] = Counter()
        """How many prefixes there are of each length: an event is looked up once for each, however many there are."""
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
        listener.admission = self.admission
        listener.largest = LARGE  # no subscription is
        listener.on_gone = self._leave
        listener.on_garbage = self.on_garbage
        listener.start()

    def publish(self, data: bytes) -> None:
        """See `EventLink.publish`."""
        framed = b""
        for group in self._wanting(data):
            framed = framed or frame(data)
            group.held.append(framed)
            group.size += len(framed)
            if group.size >= _BATCH:
                self._send(group)
            elif not self._posted:
                self._posted = True
                self._loop.call_soon(self._flush)

    def _wanting(self, data: bytes) -> Iterable[Group]:
        """Return the groups with a prefix that these bytes begin with, each once."""
        by_prefix = self._by_prefix
        if len(self._lengths) == 1:
            return by_prefix.get(data[: next(iter(self._lengths))], ())
        found: dict[Group, None] = {}
        for length in self._lengths:
            if (groups := by_prefix.get(data[:length])) is not None:
                found.update(groups)
        return found

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `EventLink.disconnect_unless`."""
        self.listener.disconnect_unless(allowed)

    def close(self) -> None:
        """See `EventLink.close`."""
        if not self.listener.closed:
            self._flush()
            self.listener.close()
            self._groups.clear()
            self._by_prefix.clear()
            self._lengths.clear()

    def _flush(self) -> None:
        self._posted = False
        for group in self._groups.values():
            if group.held:
                self._send(group)

    def _send(self, group: Group) -> None:
        held, group.held, group.size = group.held, [], 0
        data, count = b"".join(held), len(held)
        members = list(group.members)
        until = monotonic() + TURN
        for index, member in enumerate(members):
            member.deliver(data, count)
            if not index & 15 and monotonic() >= until:
                for later in members[index + 1 :]:
                    later.deliver_later(data, count)
                return

    def _arrived(self, subscriber: Subscriber, messages: list[bytes], until: float) -> int:
        # What was published before somebody subscribed is not for them.
        self._flush()
        count = 0
        for message in messages:
            count += 1
            try:
                self._subscription(subscriber, message[:1], message[1:])
            except Exception:  # noqa: BLE001 - a defect of ours must not take the publisher down
                _log.exception("a subscription could not be handled")
            if monotonic() >= until or subscriber.closed or subscriber.congested:
                break
        return count

    def _subscription(self, subscriber: Subscriber, verb: bytes, prefix: bytes) -> None:
        if verb not in (b"\0", b"\1"):
            self.listener.garbage(subscriber, "kind" if verb else "empty", f"{len(prefix) + len(verb)} bytes")
        elif len(prefix) > _PREFIX_LIMIT:
            text = f"a subscription of {len(prefix)} bytes, the limit is {_PREFIX_LIMIT}"
            self.listener.garbage(subscriber, "large", text)
        elif verb == b"\0":
            if prefix in subscriber.prefixes:
                subscriber.charged -= _cost(prefix)
                subscriber.memory.release(_cost(prefix))
                self._join(subscriber, subscriber.prefixes - {prefix})
        elif prefix.startswith(CONTROL_PREFIX):
            head, parts = prefix + b"\0", self._answer(subscriber.peer, prefix)
            subscriber.deliver_own(b"".join([frame(head + part) for part in parts]), len(parts))
        elif prefix not in subscriber.prefixes:
            self._subscribe(subscriber, prefix)

    def _subscribe(self, subscriber: Subscriber, prefix: bytes) -> None:
        cost = _cost(prefix)
        if len(subscriber.prefixes) >= _PREFIXES_LIMIT:
            self.listener.garbage(subscriber, "many", f"one subscription more than {_PREFIXES_LIMIT}")
        elif not subscriber.memory.room(cost):
            error = subscriber.memory.full("a subscription")
            self.listener.garbage(subscriber, "memory", error.message)
        elif self._admit(subscriber.peer):
            subscriber.charged += cost
            subscriber.memory.add(cost)
            self._join(subscriber, subscriber.prefixes | {prefix})

    def _join(self, subscriber: Subscriber, prefixes: frozenset[bytes]) -> None:
        """Put a subscriber among those who want the same; nothing is held at this moment."""
        old, before = subscriber.group, subscriber.prefixes
        subscriber.prefixes = prefixes
        group = self._groups.get(prefixes)
        if group is None and prefixes and old is not None and len(old.members) == 1:
            # It is alone, and stays so: the group changes, which costs as much as the difference.
            self._groups[prefixes] = self._groups.pop(before)
            self._index(old, prefixes - before)
            self._forget(old, before - prefixes)
            return
        if old is not None:
            self._leave_group(subscriber, old, before)
        if not prefixes:
            return
        if group is None:
            group = self._groups[prefixes] = Group()
            self._index(group, prefixes)
        group.members[subscriber] = None
        subscriber.group = group

    def _index(self, group: Group, prefixes: Iterable[bytes]) -> None:
        for prefix in prefixes:
            if (groups := self._by_prefix.get(prefix)) is None:
                groups = self._by_prefix[prefix] = {}
                self._lengths[len(prefix)] += 1
            groups[group] = None

    def _forget(self, group: Group, prefixes: Iterable[bytes]) -> None:
        for prefix in prefixes:
            groups = self._by_prefix[prefix]
            del groups[group]
            if not groups:
                del self._by_prefix[prefix]
                self._lengths[len(prefix)] -= 1
                if not self._lengths[len(prefix)]:
                    del self._lengths[len(prefix)]

    def _leave(self, subscriber: Subscriber) -> None:
        if subscriber.group is not None:
            self._leave_group(subscriber, subscriber.group, subscriber.prefixes)

    def _leave_group(self, subscriber: Subscriber, group: Group, prefixes: frozenset[bytes]) -> None:
        subscriber.group = None
        del group.members[subscriber]
        if not group.members:
            self._groups.pop(prefixes, None)
            self._forget(group, prefixes)


def _cost(prefix: bytes) -> int:
    return len(prefix) + _PREFIX_COST


def _nobody(_peer: Peer) -> bool:
    return False


def _no_answer(_peer: Peer, _question: bytes) -> list[bytes]:
    return []
