"""The connections of a port: what the kernel says of them, whose key each has proved to hold, and which have to go."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ostler.messaging.tcp.curve import KEY_LENGTH
from ostler.messaging.wire.peer_quotas import PeerQuotas, make_quotas
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.clock import Clock
    from ostler.log.rate_limit import RateLimitedLog
    from ostler.messaging.tcp.server import Backlog
    from ostler.messaging.wire.peer_quotas import MemoryAccount


CONGESTION_LIMIT = 1024 * 1024
"""Bytes that wait in ZeroMQ's queues for one connection, above which nothing more is made for it."""
CONNECTION_COST = 64 * 1024
"""Bytes that a connection is charged for itself, and for small messages that have not come whole."""
MIN_FRAME_OVERHEAD, MAX_FRAME_OVERHEAD = 35, 42
"""Bytes that CURVE and framing add to a message on the wire, at least and at most. What is counted wrong because of
that is put right when it is looked how much waits: the other way round it would add up."""
_HEARTBEAT_BYTES_PER_SECOND = 200
"""Bytes a second that heartbeats may add to what was received, beside messages."""
_MAX_CACHED_PEERS = 4096
_DISCONNECT_DELAY = 0.05
"""Seconds until a connection is cut whose peer has lost its role."""


class SessionOwner(Protocol):
    """The link that the messages of a session come over. Called on the loop's thread."""

    def on_session_gone(self, session: TcpSession) -> None:
        """Record that the connection has gone."""
        ...

    def on_session_drained(self, session: TcpSession) -> None:
        """Record that what is sent is read again."""
        ...


class TcpSession:
    """One connection that was let in. On the loop's thread only; `unsent_bytes` may be read on any.

    ZeroMQ does not say how much waits in its queues. The kernel says how much it has received and been given to send;
    what is missing of the messages that we have sent, and what there is beyond those that we have got, is in between.

    Args:
        session_id: Names it; no other has the same.
        peer: Whose key it has proved to hold.
        memory: Who is charged.
    """

    def __init__(self, session_id: int, peer: Peer, memory: MemoryAccount | None) -> None:
        self.session_id = session_id
        self.peer = peer
        self.account: Hashable = peer.account
        self.memory = memory
        self.connection: TcpConnection | None = None
        self.is_confirmed = False
        """Whether a message has come that says which connection it is; until then it may be another one's."""
        self.closed = memory is None
        self.is_cut = False
        self.owner: SessionOwner | None = None
        """The link that its messages come over; None until the first one."""
        self.routing_id: bytes | None = None
        """Its routing id."""
        self.backlog: Backlog | None = None
        """Where its messages wait for their turn."""
        self.queued_bytes = 0
        """Bytes that it is charged for messages that wait."""
        self.last_pass = 0
        """The pass of the reader in which something of this connection was left waiting last."""
        self.received_bytes = 0
        """Bytes on the wire of the messages that have come."""
        self.sent_bytes = 0
        """Bytes on the wire of the messages that were sent."""
        self.next_check_at_bytes = CONGESTION_LIMIT
        """How much may be `sent` until it is looked how much of it waits."""
        self.unsent_bytes = 0
        self.is_congested = False
        self.is_recheck_scheduled = False
        """Whether it will be looked soon if it is congested still."""
        self.stalled_since: float | None = None
        self.prefixes: dict[bytes, int] = {}
        """What it has subscribed to, with what that is charged."""
        self._sent_offset = 0
        self._last_acked = -1
        self._partial_checked_at = 0.0
        self._charged_in = 0
        self._charged_out = 0

    def update_unsent(self, traffic: ConnectionCounters) -> None:
        """Find out how much of what was sent waits, and charge it."""
        unsent = self.sent_bytes - (traffic.sent_bytes - self._sent_offset)
        if unsent < 0:  # heartbeats and the handshake are no messages of ours
            self._sent_offset -= unsent
            unsent = 0
        self.unsent_bytes = unsent
        self.next_check_at_bytes = self.sent_bytes - unsent + CONGESTION_LIMIT
        before, self.is_congested = self.is_congested, unsent > CONGESTION_LIMIT
        self._charged_out = self._adjust_charge(self._charged_out, unsent + traffic.unacked_bytes)
        if before and not self.is_congested and self.owner is not None:
            self.owner.on_session_drained(self)

    def stalled_time(self, traffic: ConnectionCounters, now: float) -> float:
        """Return for how many seconds the other side has taken nothing of what waits for it."""
        moved = traffic.sent_bytes - traffic.unacked_bytes
        if not traffic.unacked_bytes or moved != self._last_acked:
            self.stalled_since = now
        self._last_acked = moved
        return now - self.stalled_since if self.stalled_since is not None else 0.0

    def update_partial(self, traffic: ConnectionCounters, now: float) -> bool:
        """Find out how much has come of messages that are not here yet, and charge it; return whether there is room."""
        held = traffic.received_bytes - self.received_bytes
        slack = (
            int(_HEARTBEAT_BYTES_PER_SECOND * (now - self._partial_checked_at))
            if self._partial_checked_at
            else CONNECTION_COST // 2
        )
        self._partial_checked_at = now
        if held > 0:
            self.received_bytes += min(held, slack)
            held -= min(held, slack)
        else:
            self.received_bytes, held = traffic.received_bytes, 0
        more = held - self._charged_in
        room = more <= 0 or self.memory is None or self.memory.has_room(more)
        self._charged_in = self._adjust_charge(self._charged_in, held)
        return room

    def charge_prefix(self, prefix: bytes, cost: int) -> None:
        """Charge a subscription, once."""
        if self.memory is not None and prefix not in self.prefixes:
            self.prefixes[prefix] = cost
            self.memory.charge(cost)

    def release_prefix(self, prefix: bytes) -> None:
        """Take back the charge of a subscription."""
        cost = self.prefixes.pop(prefix, 0)
        if self.memory is not None and cost:
            self.memory.release(cost)

    def release(self) -> None:
        """Give back what it was charged. May be called twice."""
        self.closed = True
        memory, self.memory = self.memory, None
        if memory is None:
            return
        memory.release(CONNECTION_COST + self._charged_in + self._charged_out + sum(self.prefixes.values()))
        self._charged_in = self._charged_out = 0
        self.prefixes.clear()
        memory.close()

    def disconnect(self) -> None:
        """Cut the connection; what has come of it and was not handled yet is dropped."""
        self.is_cut = True
        if self.connection is not None:
            self.connection.shutdown()

    def _adjust_charge(self, before: int, now: int) -> int:
        if self.memory is None:
            return 0
        if now <= CONNECTION_COST:
            now = 0
        if now > before:
            self.memory.charge(now - before)
        elif now < before:
            self.memory.release(before - now)
        return now


class SessionRegistry:
    """The connections that were let in at one door. On the loop's thread only.

    Each gets a name of its own as its user id, so that each message says which connection it came over: the routing id
    is what its client wishes it to be. Which descriptor it has is not known when it is let in. It is taken to be the
    next one from that address that was told so, until its first message says which it is.

    Args:
        key_names: The names of public keys; others are shown by their first characters.
        quotas: What the connections share with those of other sockets; None for quotas of their own.
    """

    def __init__(self, key_names: Mapping[str, str], quotas: PeerQuotas | None = None) -> None:
        self.quotas = quotas or make_quotas()
        self.count_by_key: Counter[str] = Counter()
        """How many connections each key has."""
        self._names = key_names
        self.by_user_id: dict[str, TcpSession] = {}
        """The connections that stand, by their user ids."""
        self._pending: dict[str, deque[TcpSession]] = {}
        self._peers_by_key: dict[str, Peer] = {}
        self._last_session_id = 0

    def __len__(self) -> int:
        return len(self.by_user_id)

    def admit(self, key: str, address: str, *, privileged: bool) -> str:
        """Take in a connection that has proved a key; return its user id."""
        self._last_session_id += 1
        peer = self.get_peer(key)
        memory = self.quotas.memory_accounts.open(peer.account, peer, privileged=privileged)
        memory.charge(CONNECTION_COST)
        session = TcpSession(self._last_session_id, peer, memory)
        user = f"{key}{self._last_session_id}"
        self.by_user_id[user] = session
        self.count_by_key[key] += 1
        self._pending.setdefault(address, deque()).append(session)
        return user

    def get_session(self, user: str) -> TcpSession:
        """Return the session of a message; that of one that has gone is created again, and closed."""
        found = self.by_user_id.get(user)
        if found is None:
            found = TcpSession(0, self.get_peer(user[:KEY_LENGTH]) if len(user) > KEY_LENGTH else _UNKNOWN_PEER, None)
        return found

    def get_peer(self, key: str) -> Peer:
        """Return who has a key."""
        found = self._peers_by_key.get(key)
        if found is None:
            if len(self._peers_by_key) >= _MAX_CACHED_PEERS:
                self._peers_by_key.clear()
            found = self._peers_by_key[key] = Peer(name=f"key:{self._names.get(key) or f'{key[:8]}…'}", key=key)
        return found

    def on_admitted(self, connection: TcpConnection) -> None:
        """Record a connection that was told that it has been let in."""
        pending = self._pending.get(connection.address)
        if not pending or connection.session is not None:
            return
        session = pending.popleft()
        connection.session, session.connection = session, connection
        if session.is_cut:  # it lost its role meanwhile
            session.disconnect()
        if not pending:
            del self._pending[connection.address]

    def confirm_session(self, session: TcpSession, connection: TcpConnection | None) -> None:
        """Record the connection that the first message of a session came over."""
        session.is_confirmed = True
        if connection is None or session.connection is connection:
            return
        other = connection.session
        if other is not None and other.is_confirmed:
            return  # the descriptor belongs to a later connection by now
        before = session.connection
        connection.session, session.connection = session, connection
        if before is not None:
            before.session = other
        else:
            self._replace_pending(connection.address, session, other)
        if other is not None:
            other.connection = before
        if session.is_cut:
            session.disconnect()

    def _replace_pending(self, address: str, session: TcpSession, other: TcpSession | None) -> None:
        """Look no more for the connection of a session, but for that of the other one that it was taken for."""
        pending = self._pending.get(address)
        if pending is None or session not in pending:
            return
        if other is not None:
            pending[pending.index(session)] = other
        else:
            pending.remove(session)
        if not pending:
            del self._pending[address]

    def on_disconnected(self, connection: TcpConnection, handshakes: int) -> None:
        """Forget a connection that has gone; `handshakes` are in progress from its address."""
        session = connection.session
        if session is not None:
            self._forget(session)
            return
        pending = self._pending.get(connection.address)
        while pending and len(pending) > handshakes:
            self._forget(pending.popleft())
        if pending is not None and not pending:
            del self._pending[connection.address]

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """Cut the connections of peers that are not allowed any more."""
        for session in list(self.by_user_id.values()):
            if not allowed(session.peer):
                session.is_cut = True
                # What it was told last is in ZeroMQ's queues still.
                asyncio.get_running_loop().call_later(_DISCONNECT_DELAY, session.disconnect)

    def _forget(self, session: TcpSession) -> None:
        key = session.peer.key
        if self.by_user_id.pop(f"{key}{session.session_id}", None) is None:
            return
        self.count_by_key[key] -= 1
        if not self.count_by_key[key]:
            del self.count_by_key[key]
        if session.owner is not None:
            session.owner.on_session_gone(session)
        session.release()


_UNKNOWN_PEER = Peer()


_TCP_INFO_SIZE = 160
_COUNTERS_STRUCT = struct.Struct("=QQ")
_COUNTERS_OFFSET = 120
"""Where `struct tcp_info` has the bytes that were acknowledged, and those that were received."""
_SIOCOUTQ = 0x5411
"""The `ioctl` that says how many bytes the kernel holds because the other side has not acknowledged them."""


class ConnectionCounters(NamedTuple):
    """What has gone over a connection since it was made.

    Attributes:
        received_bytes: Bytes that came.
        sent_bytes: Bytes that the kernel was given to send.
        unacked_bytes: Those of them that the other side has not acknowledged yet.
    """

    received_bytes: int
    sent_bytes: int
    unacked_bytes: int


class TcpConnection:
    """One connection. On the loop's thread only.

    A descriptor may be closed and used again at any time, by ZeroMQ's own thread. So it is kept with what the kernel
    says of its far end, and looked at through a duplicate, which nobody else closes.

    Args:
        descriptor: The descriptor, which belongs to ZeroMQ.
        opened_at: When the connection was made, by the clock of who counts it.
    """

    __slots__ = ("descriptor", "opened_at", "remote_address", "session")

    def __init__(self, descriptor: int, opened_at: float) -> None:
        self.descriptor = descriptor
        self.opened_at = opened_at
        self.session: TcpSession | None = None
        """Whose connection it is; None until it has proved its key."""
        self.remote_address: Any = None
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            self.remote_address = connection.getpeername()

    @property
    def address(self) -> str:
        """The address of the far end; empty for a connection that had gone when it was looked at."""
        return str(self.remote_address[0]) if self.remote_address else ""

    def shutdown(self) -> None:
        """End the connection."""
        with suppress(OSError), self._duplicate_socket() as connection:
            connection.shutdown(socket.SHUT_RDWR)

    def read_counters(self) -> ConnectionCounters | None:
        """Return what has gone over it; None when it has gone."""
        try:
            with self._duplicate_socket() as connection:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
                waiting = array.array("i", [0])
                fcntl.ioctl(connection, _SIOCOUTQ, waiting)
        except OSError:
            return None
        if len(info) < _COUNTERS_OFFSET + _COUNTERS_STRUCT.size:
            return None
        acknowledged, received = _COUNTERS_STRUCT.unpack_from(info, _COUNTERS_OFFSET)
        return ConnectionCounters(received, acknowledged + waiting[0], waiting[0])

    @contextmanager
    def _duplicate_socket(self) -> Iterator[socket.socket]:
        with socket.socket(fileno=os.dup(self.descriptor)) as connection:
            if not self.remote_address or connection.getpeername() != self.remote_address:
                raise ConnectionResetError("the descriptor belongs to another connection now")
            yield connection


_SWEEP_INTERVAL = 0.1
"""Seconds between two looks: what comes in between is what one account may hold beyond its share."""
_BATCH_SIZE = 128
"""Connections that are looked at in one turn of the loop; each takes 10 µs."""
_MAX_HANDSHAKE_BYTES = 16 * 1024
"""Bytes that a connection may send before it has proved a key; a handshake takes a few hundred."""
_AUTHENTICATED_BYTES = 270
"""More bytes than that are sent to one that was let in, and to no other; ZeroMQ does not say which it was."""
_STALL_TIMEOUT = 5.0
"""Seconds without any progress after which a connection is cut whose account has no room left."""


class ConnectionSweeper:
    """Charges accounts for what their connections make ZeroMQ hold, and cuts those for which there is no room.

    It runs while there are connections. On the loop's thread only.

    Args:
        clock: The source of time.
        list_connections: Returns all connections.
        on_authenticated: Told of each connection that turns out to have been let in.
        rate_limited_log: Where it is said that a connection was cut.
    """

    def __init__(
        self,
        clock: Clock,
        list_connections: Callable[[], list[TcpConnection]],
        on_authenticated: Callable[[TcpConnection], None],
        rate_limited_log: RateLimitedLog,
    ) -> None:
        self.cut_count = 0
        """How many connections were cut."""
        self._clock = clock
        self._list_connections = list_connections
        self._on_authenticated = on_authenticated
        self._rate_limited_log = rate_limited_log
        self._remaining: list[TcpConnection] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look, if there was nothing to look at until now."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SWEEP_INTERVAL, self._sweep_batch)

    def close(self) -> None:
        """Stop. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._remaining.clear()

    def _sweep_batch(self) -> None:
        self._timer = None
        if not self._remaining:
            self._remaining = self._list_connections()
        if not self._remaining:
            return
        now = self._clock.monotonic()
        self._remaining, part = self._remaining[_BATCH_SIZE:], self._remaining[:_BATCH_SIZE]
        delay = _SWEEP_INTERVAL / 10 if self._remaining else _SWEEP_INTERVAL
        self._timer = asyncio.get_running_loop().call_later(delay, self._sweep_batch)  # first: whatever comes next
        for connection in part:
            self.check_connection(connection, now)

    def check_connection(self, connection: TcpConnection, now: float) -> None:
        """Charge for one connection, or cut it."""
        traffic = connection.read_counters()
        if traffic is None:
            return
        if connection.session is None and traffic.sent_bytes > _AUTHENTICATED_BYTES:
            self._on_authenticated(connection)
        session = connection.session
        if session is None:
            if traffic.received_bytes > _MAX_HANDSHAKE_BYTES:
                self._cut(
                    connection, f"{connection.address} sent {traffic.received_bytes} bytes without identifying itself"
                )
        elif not session.update_partial(traffic, now):
            self._cut_session(session, "sent more than there is memory for")
        else:
            self._check_unsent(session, traffic, now)

    def _check_unsent(self, session: TcpSession, traffic: ConnectionCounters, now: float) -> None:
        stalled = session.stalled_time(traffic, now)
        session.update_unsent(traffic)
        if stalled >= _STALL_TIMEOUT and session.memory is not None and not session.memory.has_room(0):
            self._cut_session(session, "does not read, and there is no memory for its unread messages")

    def _cut_session(self, session: TcpSession, why: str) -> None:
        self.cut_count += 1
        session.disconnect()
        self._rate_limited_log.warning(
            f"cut {session.peer.key}", f"closed a connection of {session.peer.name}: it {why}"
        )

    def _cut(self, connection: TcpConnection, text: str) -> None:
        self.cut_count += 1
        connection.shutdown()
        self._rate_limited_log.warning("cut", f"closed a connection: {text}")
