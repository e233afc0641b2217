"""The publisher's end of events on a unix socket: what ZeroMQ calls an XPUB."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

from ostler.aio.round_robin import TURN_TIME
from ostler.messaging.unix.listener import ClientConnection, UnixListener, read_peer
from ostler.messaging.unix.protocol import LARGE_MESSAGE_SIZE, SocketRole, encode_frame, greeting
from ostler.messaging.wire.transport import CONTROL_PREFIX, EventHandler, TransportLimits
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.wire.peer_quotas import PeerQuotas

_log = logging.getLogger(__name__)
_ROLE = SocketRole(
    greeting(b"XPUB"),
    frozenset({b"SUB", b"XSUB"}),
    hard_size_limit=LARGE_MESSAGE_SIZE,  # no subscription is that large
)
_MAX_PREFIX_SIZE = 512
_MAX_PREFIXES = 1024
_PREFIX_COST = 400
"""Bytes that a subscription takes beside its own."""
_BATCH_SIZE = 32 * 1024
"""Bytes that are sent together at most: so a burst is on its way before it has ended."""
_MAX_BUFFERED_ANSWERS = 256 * 1024
"""Bytes that wait for a subscriber, above which its questions are left where they are."""
_MAX_QUEUE_BYTES = 16 * 1024 * 1024
"""Bytes that may wait for one subscriber, whatever the number of events."""


class Subscriber(ClientConnection):
    """One subscriber: what it wants, and what waits for it."""

    def __init__(
        self, listener: UnixListener[ClientConnection], connected: socket.socket, connection_id: int, peer: Peer
    ) -> None:
        self.group: SubscriberGroup | None = None
        self.prefixes: frozenset[bytes] = frozenset()
        self.lost_count = 0
        self.charged_bytes = 0
        """Bytes that its subscriptions are charged."""
        self._max_queued = listener.limits.max_queued
        self._queue: deque[tuple[bytes, int]] = deque()
        self._queued = 0
        self._queued_bytes = 0
        self._scheduler = listener.quotas.scheduler
        super().__init__(listener, connected, connection_id, peer)

    def deliver(self, data: bytes, count: int) -> None:
        """Send so many messages; what does not fit into the queue of one that does not read is lost to it."""
        if not self._queue and not self.channel.has_buffered:
            self.channel.write(data)
        else:
            self._enqueue(data, count)

    def deliver_unshared(self, data: bytes, count: int) -> None:
        """Deliver what was made for this subscriber alone, so that nobody shares the memory that it takes."""
        if self.memory.has_room(len(data)):
            self.deliver(data, count)
        else:
            self.lost_count += count

    def deliver_deferred(self, data: bytes, count: int) -> None:
        """Deliver in a turn of the subscriber's account, or when it has read what waits."""
        nothing_waits = not self._queue and not self.channel.has_buffered
        if not self.closed:
            self._enqueue(data, count)
            if nothing_waits:
                self._scheduler.enqueue(_DeferredDelivery(self))

    def _enqueue(self, data: bytes, count: int) -> None:
        too_much = self._queued + count > self._max_queued or self._queued_bytes + len(data) > _MAX_QUEUE_BYTES
        if too_much or not self.memory.has_room_for(data):
            self.lost_count += count
            return
        self._queue.append((data, count))
        self._queued += count
        self._queued_bytes += len(data)
        self.memory.charge_shared(data)

    def _dequeue(self) -> bytes:
        data, count = self._queue.popleft()
        self._queued -= count
        self._queued_bytes -= len(data)
        self.memory.release_shared(data)
        return data

    @property
    def is_congested(self) -> bool:
        """See `Client.is_congested`."""
        return bool(self._queue) or self.channel.buffered_bytes > _MAX_BUFFERED_ANSWERS

    def on_drained(self) -> None:
        """Send what waits next; when nothing does, go on with what the subscriber wants."""
        while self._queue and not self.channel.has_buffered:
            self.channel.write(self._dequeue())
        if not self.channel.has_buffered:
            super().on_drained()

    def close(self) -> None:
        """See `Client.close`."""
        if not self.closed:
            while self._queue:
                self._dequeue()
            self.memory.release(self.charged_bytes)
            self.charged_bytes = 0
        super().close()


class _DeferredDelivery:
    """A turn of a subscriber's account, in which it is sent what waits: a `Flow`."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.account = subscriber.account
        self.rank = subscriber.rank
        self._subscriber = subscriber

    def run(self, _until: float) -> bool:
        if not self._subscriber.closed:
            self._subscriber.on_drained()
        return False


class SubscriberGroup:
    """All subscribers who want the same: what is for one is for all of them, and is put together once."""

    __slots__ = ("members", "pending", "pending_bytes")

    def __init__(self) -> None:
        self.members: dict[Subscriber, None] = {}
        self.pending: list[bytes] = []
        self.pending_bytes = 0


class UnixEventLink:
    """The publisher's end of all its subscribers. On the loop's thread.

    What is published in one turn of the loop goes out at its end, in one piece for each subscriber.

    Args:
        address: An `ipc://` address.
        limits: What the socket takes; `queue` messages wait for one subscriber.
        fd: A listening socket that was handed over; None to make one.
        quotas: What its connections share with those of the daemon's other sockets.
        read_peer: Returns who is at the other end of a socket.
        turn_time: Seconds of a turn of the loop that events may take.

    Raises:
        OstlerError: The address cannot be taken; see `BoundUnixSocket`.
    """

    _handler: EventHandler
    """From `start` on; nothing comes before that."""

    def __init__(
        self,
        address: str,
        limits: TransportLimits,
        fd: int | None = None,
        quotas: PeerQuotas | None = None,
        *,
        read_peer: Callable[[socket.socket], Peer] = read_peer,
        turn_time: float = TURN_TIME,
    ) -> None:
        self.address = address
        self.listener: UnixListener[Subscriber] = UnixListener(
            address, limits, fd, _ROLE, Subscriber, self, quotas, read_peer=read_peer
        )
        self._turn_time = turn_time
        self._loop = asyncio.get_running_loop()
        self._groups: dict[frozenset[bytes], SubscriberGroup] = {}
        self._groups_by_prefix: dict[bytes, dict[SubscriberGroup, None]] = {}
        self._prefix_lengths: Counter[int] = Counter()
        """How many prefixes there are of each length: an event is looked up once for each, however many there are."""
        self._is_flush_scheduled = False

    @property
    def has_subscribers(self) -> bool:
        """See `EventLink.subscribers`."""
        return bool(self._groups)

    def start(self, handler: EventHandler) -> None:
        """See `EventLink.start`."""
        self._handler = handler
        self.listener.start(handler)

    def publish(self, data: bytes) -> None:
        """See `EventLink.publish`."""
        framed = b""
        for group in self._matching_groups(data):
            framed = framed or encode_frame(data)
            group.pending.append(framed)
            group.pending_bytes += len(framed)
            if group.pending_bytes >= _BATCH_SIZE:
                self._flush_group(group)
            elif not self._is_flush_scheduled:
                self._is_flush_scheduled = True
                self._loop.call_soon(self._flush)

    def _matching_groups(self, data: bytes) -> Iterable[SubscriberGroup]:
        """Return the groups with a prefix that these bytes begin with, each once."""
        by_prefix = self._groups_by_prefix
        if len(self._prefix_lengths) == 1:
            return by_prefix.get(data[: next(iter(self._prefix_lengths))], ())
        found: dict[SubscriberGroup, None] = {}
        for length in self._prefix_lengths:
            if (groups := by_prefix.get(data[:length])) is not None:
                found.update(groups)
        return found

    def peers(self) -> list[Peer]:
        """See `SupportsPeers.peers`."""
        return [client.peer for client in self.listener.clients.values()]

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `EventLink.disconnect_unless`."""
        self.listener.disconnect_unless(allowed)

    def close(self) -> None:
        """See `EventLink.close`."""
        if not self.listener.closed:
            self._flush()
            self.listener.close()
            self._groups.clear()
            self._groups_by_prefix.clear()
            self._prefix_lengths.clear()

    def _flush(self) -> None:
        self._is_flush_scheduled = False
        for group in self._groups.values():
            if group.pending:
                self._flush_group(group)

    def _flush_group(self, group: SubscriberGroup) -> None:
        held, group.pending, group.pending_bytes = group.pending, [], 0
        data, count = b"".join(held), len(held)
        members = list(group.members)
        until = monotonic() + self._turn_time
        for index, member in enumerate(members):
            member.deliver(data, count)
            if not index & 15 and monotonic() >= until:
                for later in members[index + 1 :]:
                    later.deliver_deferred(data, count)
                return

    # ---------------------------------------------------------------- an owner of a listener

    def on_messages(self, client: Subscriber, messages: list[bytes], until: float) -> int:
        """See `ListenerOwner.on_messages`."""
        # What was published before somebody subscribed is not for them.
        self._flush()
        count = 0
        for message in messages:
            count += 1
            try:
                self._handle_subscription(client, message[:1], message[1:])
            except Exception:  # noqa: BLE001 - a bug in the daemon must not stop the publisher
                _log.exception("a subscription could not be handled")
            if monotonic() >= until or client.closed or client.is_congested:
                break
        return count

    def on_gone(self, client: Subscriber) -> None:
        """See `ListenerOwner.on_gone`."""
        if client.group is not None:
            self._remove_from_group(client, client.group, client.prefixes)

    def on_drained(self, client: Subscriber) -> None:
        """See `ListenerOwner.on_drained`; what waits for a subscriber goes out by itself."""

    def on_no_room(self, client: Subscriber, head: bytes) -> None:
        """See `ListenerOwner.on_no_room`; a subscription that large is not valid, and its sender waits for nothing."""

    # ---------------------------------------------------------------- subscriptions

    def _handle_subscription(self, subscriber: Subscriber, verb: bytes, prefix: bytes) -> None:
        if verb not in (b"\0", b"\1"):
            self.listener.report_invalid(subscriber, "kind" if verb else "empty", f"{len(prefix) + len(verb)} bytes")
        elif len(prefix) > _MAX_PREFIX_SIZE:
            text = f"a subscription of {len(prefix)} bytes, the limit is {_MAX_PREFIX_SIZE}"
            self.listener.report_invalid(subscriber, "large", text)
        elif verb == b"\0":
            if prefix in subscriber.prefixes:
                subscriber.charged_bytes -= _prefix_cost(prefix)
                subscriber.memory.release(_prefix_cost(prefix))
                self._add_to_group(subscriber, subscriber.prefixes - {prefix})
        elif prefix.startswith(CONTROL_PREFIX):
            head, parts = prefix + b"\0", self._handler.answer_question(subscriber.peer, prefix)
            subscriber.deliver_unshared(b"".join([encode_frame(head + part) for part in parts]), len(parts))
        elif prefix not in subscriber.prefixes:
            self._subscribe(subscriber, prefix)

    def _subscribe(self, subscriber: Subscriber, prefix: bytes) -> None:
        cost = _prefix_cost(prefix)
        if len(subscriber.prefixes) >= _MAX_PREFIXES:
            self.listener.report_invalid(subscriber, "many", f"too many subscriptions, the limit is {_MAX_PREFIXES}")
        elif not subscriber.memory.has_room(cost):
            error = subscriber.memory.no_room_error("a subscription")
            self.listener.report_invalid(subscriber, "memory", error.message)
        elif self._handler.may_subscribe(subscriber.peer):
            subscriber.charged_bytes += cost
            subscriber.memory.charge(cost)
            self._add_to_group(subscriber, subscriber.prefixes | {prefix})

    def _add_to_group(self, subscriber: Subscriber, prefixes: frozenset[bytes]) -> None:
        """Put a subscriber among those who want the same; nothing is held at this moment."""
        old, before = subscriber.group, subscriber.prefixes
        subscriber.prefixes = prefixes
        group = self._groups.get(prefixes)
        if group is None and prefixes and old is not None and len(old.members) == 1:
            # It is alone, and stays so: the group changes, which costs as much as the difference.
            self._groups[prefixes] = self._groups.pop(before)
            self._index_prefixes(old, prefixes - before)
            self._unindex_prefixes(old, before - prefixes)
            return
        if old is not None:
            self._remove_from_group(subscriber, old, before)
        if not prefixes:
            return
        if group is None:
            group = self._groups[prefixes] = SubscriberGroup()
            self._index_prefixes(group, prefixes)
        group.members[subscriber] = None
        subscriber.group = group

    def _index_prefixes(self, group: SubscriberGroup, prefixes: Iterable[bytes]) -> None:
        for prefix in prefixes:
            if (groups := self._groups_by_prefix.get(prefix)) is None:
                groups = self._groups_by_prefix[prefix] = {}
                self._prefix_lengths[len(prefix)] += 1
            groups[group] = None

    def _unindex_prefixes(self, group: SubscriberGroup, prefixes: Iterable[bytes]) -> None:
        for prefix in prefixes:
            groups = self._groups_by_prefix[prefix]
            del groups[group]
            if not groups:
                del self._groups_by_prefix[prefix]
                self._prefix_lengths[len(prefix)] -= 1
                if not self._prefix_lengths[len(prefix)]:
                    del self._prefix_lengths[len(prefix)]

    def _remove_from_group(self, subscriber: Subscriber, group: SubscriberGroup, prefixes: frozenset[bytes]) -> None:
        subscriber.group = None
        del group.members[subscriber]
        if not group.members:
            self._groups.pop(prefixes, None)
            self._unindex_prefixes(group, prefixes)


def _prefix_cost(prefix: bytes) -> int:
    return len(prefix) + _PREFIX_COST
