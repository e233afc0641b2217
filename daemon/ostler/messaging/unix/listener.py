"""Accepts clients on a unix socket, user by user: identifies them, limits their number, and checks the protocol."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from time import monotonic
from typing import Generic, Protocol, TypeVar

from ostler.aio.round_robin import HIGH_RANK, NORMAL_RANK, DeficitRoundRobin
from ostler.clock import SystemClock
from ostler.errors import Busy, NotPermitted
from ostler.files import make_directory
from ostler.log.rate_limit import RateLimitedLog
from ostler.messaging.unix.bind import BoundUnixSocket, InheritedSocket, socket_path
from ostler.messaging.unix.protocol import (
    REASON_BUSY,
    REASON_NOT_PERMITTED,
    ProtocolError,
    SocketRole,
    ZmtpConnection,
    encode_refusal,
)
from ostler.messaging.unix.socket_stream import CHUNK_SIZE, CONGESTION_LIMIT, SharedBuffers, SocketStream
from ostler.messaging.wire.peer_quotas import PeerQuotas, RateLimiter, make_quotas
from ostler.messaging.wire.transport import Admission, LinkHandler, TransportLimits
from ostler.time_text import format_seconds
from ostler.types import Peer

OpenConnection = Callable[[socket.socket, Peer], None]


class AcceptQueue:
    """The accepted connections of all users, opened in turn with what else each of them wants.

    To open a connection costs ten times what it costs to accept it. Who connects a thousand times at once has its own
    connections wait, and not those that stand behind them in the kernel's queue.

    Args:
        scheduler: Who is served when.
        open_connection: Opens a connection, or refuses it.
    """

    def __init__(self, scheduler: DeficitRoundRobin, open_connection: OpenConnection) -> None:
        self._scheduler = scheduler
        self._open_connection = open_connection
        self._queues: dict[Hashable, _AccountQueue] = {}

    def __len__(self) -> int:
        return sum(len(flow.waiting) for flow in self._queues.values())

    def add(self, connected: socket.socket, peer: Peer) -> None:
        """Open a connection at once when nobody waits, else when it is the turn of its user."""
        flow = self._queues.get(peer.account)
        if flow is None:
            flow = self._queues[peer.account] = _AccountQueue(peer.account, self._open_connection, self._forget)
        flow.waiting.append((connected, peer))
        self._scheduler.run_or_queue(flow)

    def close(self) -> None:
        """Close those that wait."""
        for flow in list(self._queues.values()):
            self._scheduler.remove(flow)
            for connected, _ in flow.waiting:
                connected.close()
        self._queues.clear()

    def _forget(self, account: Hashable) -> None:
        self._queues.pop(account, None)


class _AccountQueue:
    """The connections of one user; see `Flow`."""

    rank = NORMAL_RANK

    def __init__(
        self, account: Hashable, open_connection: OpenConnection, on_empty: Callable[[Hashable], None]
    ) -> None:
        self.account = account
        self.waiting: deque[tuple[socket.socket, Peer]] = deque()
        self._open_connection = open_connection
        self._on_empty = on_empty

    def run(self, until: float) -> bool:
        """Open connections until this moment; return whether there are more."""
        while self.waiting:
            self._open_connection(*self.waiting.popleft())
            if monotonic() >= until and self.waiting:
                return True
        self._on_empty(self.account)
        return False


_log = logging.getLogger(__name__)
_BUSY_ERROR = encode_refusal(REASON_BUSY)
_NO_ROLE_ERROR = encode_refusal(REASON_NOT_PERMITTED)
_HARD_SIZE_FACTOR = 2
"""A message above the limit is refused by name; one above this many times the limit costs its sender the connection."""
_CONNECTION_COST = 64 * 1024
"""Bytes that a connection is charged for what it may have sent of a small message, and for itself."""
_ACCEPT_TIME = 0.002
"""Seconds for which connections are accepted in one turn of the loop."""
_MAX_FRAMES = 64
"""Frames that are taken apart at once."""
_CONNECT_RATE, _CONNECT_BURST = 200.0, 400.0
"""Connections of one user each second, and at once; root and the daemon's own user are not held to that."""
_INVALID_RATE, _INVALID_BURST = 20.0, 200.0
"""Invalid messages of one user each second, and at once; one more costs the connection."""
_RESERVED_CONNECTIONS = 16
"""Connections beyond the limit for those who may do everything anyhow."""
_MAX_PENDING = 64
"""Connections that wait for the user database to say which groups their users have."""
_PENDING_RETRY_DELAY = 0.02
_NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_DELAY = 0.5
_CREDENTIALS = struct.Struct("3i")


def read_peer(connected: socket.socket) -> Peer:
    """Return who is at the other end of a unix socket, as the kernel recorded it."""
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(uid, gid, pid, f"uid {uid}")


class ClientConnection:
    """One connection: a flow that reads, takes apart and has handled what its peer sends. On the loop's thread.

    Args:
        listener: Who accepted it.
        connected: Its socket.
        connection_id: Names it; no other has the same.
        peer: Who it is.
    """

    def __init__(
        self, listener: UnixListener[ClientConnection], connected: socket.socket, connection_id: int, peer: Peer
    ) -> None:
        self.connection_id = connection_id
        self.peer = peer
        self.account: Hashable = peer.account
        self.rank = HIGH_RANK if listener.is_privileged(peer) else NORMAL_RANK
        memory = listener.quotas.memory_accounts
        self.memory = memory.open(self.account, peer, privileged=self.rank == HIGH_RANK)
        self.memory.charge(_CONNECTION_COST)
        self._listener = listener
        self._protocol = ZmtpConnection(listener.role.peer_types, listener.hard_size_limit, self._reserve_memory)
        self._messages: list[bytes] = []
        self._has_read_all = True
        self._is_scheduled = False
        self._closed = False
        self.channel = SocketStream(
            connected,
            _ignore_data,
            self.disconnect,
            listener.buffers,
            self.on_drained,
            memory=self.memory,
            on_readable=self._on_readable,
            limits=listener.limits,
        )
        self.channel.write(listener.role.greeting)
        self._handshake_timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(
            listener.limits.handshake_timeout, self._on_handshake_timeout
        )

    def close(self) -> None:
        """Close the connection. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None
        self._messages.clear()
        self._listener.quotas.scheduler.remove(self)
        self.channel.close()
        self._protocol.close()  # at once: this object is part of a cycle, and may live on for long
        self.memory.release(_CONNECTION_COST + self._protocol.pop_unreserved(include_reserved=True))
        self.memory.close()

    def set_rank(self, rank: int) -> None:
        """Serve it before others, or no more."""
        if rank != self.rank:
            turns = self._listener.quotas.scheduler
            turns.remove(self)
            self.rank = rank
            self.memory.is_privileged = rank == HIGH_RANK
            if self._is_scheduled:
                turns.enqueue(self)

    def disconnect(self) -> None:
        """Close the connection, and have it forgotten."""
        self.close()
        self._listener.remove_client(self)

    def on_drained(self) -> None:
        """Record that all that was sent is in the kernel's hands: go on with what was left until then."""
        self._schedule()
        self._listener.owner.on_drained(self)

    @property
    def is_congested(self) -> bool:
        """Whether so much waits for this peer that what it sends is left where it is."""
        return self.channel.buffered_bytes > CONGESTION_LIMIT

    @property
    def closed(self) -> bool:
        """Whether the connection has been closed."""
        return self._closed

    # ---------------------------------------------------------------- a flow

    def run(self, until: float) -> bool:
        """Handle what this peer has sent, until this moment; return whether there is more. See `Flow`."""
        if self._is_scheduled:
            self._is_scheduled = False
            if self.channel.has_hung_up():
                self.disconnect()  # nobody waits for the answers to the rest of what it sent
                return False
        while not self._closed:
            if self.is_congested:
                self.channel.pause()
                return False  # `drained` goes on
            if self._messages:
                self._handle_messages(until)
            elif self._protocol.has_more or not self._has_read_all:
                self._receive()
            else:
                self.channel.resume()
                return False
            if monotonic() >= until and (self._messages or self._protocol.has_more or not self._has_read_all):
                self._is_scheduled = not self._closed
                return self._is_scheduled
        return False

    def _on_readable(self) -> None:
        self._has_read_all = False
        if self._listener.quotas.scheduler.run_or_queue(self):
            self._is_scheduled = True
            self.channel.pause()

    def _schedule(self) -> None:
        if not self._closed and self.channel.is_paused:
            self._is_scheduled = True
            self._listener.quotas.scheduler.enqueue(self)

    def _handle_messages(self, until: float) -> None:
        messages = self._messages
        count = self._listener.on_messages(self, messages, until)
        if count >= len(messages):
            self._messages = []
        else:
            del messages[:count]
        if self._protocol.unreserved_bytes and not self._messages:
            self.memory.release(self._protocol.pop_unreserved())

    def _receive(self) -> None:
        """Take apart what comes next."""
        talk, data = self._protocol, b""
        if not talk.has_more:
            read = self.channel.read()
            self._has_read_all = read is None or len(read) < CHUNK_SIZE
            if read == b"":
                self.disconnect()
            if not read:
                return
            data = read
        try:
            self._messages = talk.receive_data(data, _MAX_FRAMES)
        except MemoryError:
            # A part of its data is missing, and what follows would be misread.
            _log.warning("closed a connection: out of memory for its messages")
            self.disconnect()
            return
        except ProtocolError as error:
            self._listener.handler.on_invalid_message(self.peer, error.reason, error.message)
            self.disconnect()
            return
        if self._handshake_timer is not None and talk.is_ready:
            self._handshake_timer.cancel()
            self._handshake_timer = None
        if talk.to_send or talk.multipart_count or talk.refused_heads:
            self._send_answers(talk)

    def _send_answers(self, talk: ZmtpConnection) -> None:
        if talk.to_send and not self.channel.is_blocked:
            self.channel.write(b"".join(talk.to_send))
        talk.to_send.clear()
        several, talk.multipart_count = talk.multipart_count, 0
        for _ in range(several):
            self._listener.report_invalid(self, "frames", "a message of several frames")
        for head in talk.refused_heads:
            self._listener.owner.on_no_room(self, head)
        talk.refused_heads.clear()

    def _reserve_memory(self, size: int) -> bool:
        if not self.memory.has_room(size):
            return False
        self.memory.charge(size)
        return True

    def _on_handshake_timeout(self) -> None:
        self._handshake_timer = None
        limit = self._listener.limits.handshake_timeout
        self._listener.handler.on_invalid_message(
            self.peer, "handshake", f"no handshake within {format_seconds(limit)}"
        )
        self.disconnect()


ClientT = TypeVar("ClientT", bound=ClientConnection)
ClientT_contra = TypeVar("ClientT_contra", bound=ClientConnection, contravariant=True)


class ListenerOwner(Protocol[ClientT_contra]):
    """What a listener serves its clients with. Called on the loop's thread."""

    def on_messages(self, client: ClientT_contra, messages: list[bytes], until: float) -> int:
        """Handle what a client has sent, until this moment; return how many messages were handled."""
        ...

    def on_gone(self, client: ClientT_contra) -> None:
        """Record that a client has gone."""
        ...

    def on_drained(self, client: ClientT_contra) -> None:
        """Record that nothing waits to be sent to a client any more."""
        ...

    def on_no_room(self, client: ClientT_contra, head: bytes) -> None:
        """Record that there was no memory for a message of a client, which begins with these bytes."""
        ...


class UnixListener(Generic[ClientT]):
    """A listening unix socket and its clients. On the loop's thread.

    Args:
        address: An `ipc://` address.
        limits: What the socket takes.
        fd: A listening socket that was handed over; None to make one.
        role: What the socket is.
        client_class: The class of its clients.
        owner: Handles what they send.
        quotas: What its connections share with those of the daemon's other sockets.
        read_peer: Returns who is at the other end of a socket.

    Raises:
        OstlerError: The address cannot be taken; see `BoundUnixSocket`.
    """

    # From `start` on; there is no client before that.
    handler: LinkHandler
    _admission: Admission

    def __init__(
        self,
        address: str,
        limits: TransportLimits,
        fd: int | None,
        role: SocketRole,
        client_class: type[ClientT],
        owner: ListenerOwner[ClientT],
        quotas: PeerQuotas | None = None,
        *,
        read_peer: Callable[[socket.socket], Peer] = read_peer,
    ) -> None:
        self.address = address
        self.limits = limits
        self.role = role
        self.owner = owner
        self.on_messages = owner.on_messages  # fetched once: it runs for each batch of messages
        self.hard_size_limit = role.hard_size_limit or limits.max_message_size * _HARD_SIZE_FACTOR
        self.buffers = SharedBuffers()
        self.quotas = quotas or make_quotas()
        self.refused_count = 0
        self.clients: dict[int, ClientT] = {}
        self.closed = False
        self._client_class = client_class
        self._read_peer = read_peer
        self._bound: BoundUnixSocket | None = None
        self._inherited: InheritedSocket | None = None
        self._mode = limits.socket_mode
        self._is_started = False
        if fd is None:
            self._bound = BoundUnixSocket(socket_path(address), limits.socket_mode)
            fd = self._bound.detach()
        else:
            self._inherited = InheritedSocket(fd)
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._count_by_process: Counter[Hashable] = Counter()
        self._count_by_account: Counter[Hashable] = Counter()
        self._deferred: list[tuple[socket.socket, Peer, float]] = []
        self._accept_queue = AcceptQueue(self.quotas.scheduler, self._admit_or_refuse)
        self._connect_rate = RateLimiter(_CONNECT_RATE, _CONNECT_BURST)
        self._invalid_rate = RateLimiter(_INVALID_RATE, _INVALID_BURST)
        self._own_uid = os.geteuid()
        self._connection_ids = itertools.count(1)
        self._rate_limited_log = RateLimitedLog(_log, SystemClock())

    def start(self, handler: LinkHandler) -> None:
        """Begin to take clients in."""
        self.handler = handler
        self._admission = handler.admission
        self._is_started = True
        self._loop.add_reader(self._socket.fileno(), self._accept_batch)

    def close(self) -> None:
        """Release the address and all clients. May be called twice."""
        if self.closed:
            return
        self.closed = True
        if self._bound is not None:
            self._bound.unlink()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._accept_queue.close()
        clients, self.clients = self.clients, {}
        for client in clients.values():
            client.close()

    def set_mode(self, mode: int) -> None:
        """Give the file of a socket that we made another mode."""
        self._mode = mode
        if self._bound is not None and not self.closed:
            self._bound.set_mode(mode)

    def restore(self, *, unreachable: bool = False) -> bool:
        """Bind the socket again if its file was removed or replaced; connections are not touched.

        Args:
            unreachable: Whether it is known that nobody can connect, whatever the file looks like.

        Returns:
            Whether it was bound again.

        Raises:
            Conflict: Another process listens there now.
            OstlerError: It cannot be bound; see `BoundUnixSocket`.
        """
        place = self._bound or self._inherited
        assert place is not None  # noqa: S101 - one of the two
        if self.closed or (place.is_in_place() and not unreachable):
            return False
        path = place.path
        if path is None:
            return False
        with suppress(OSError):  # what binds it says more
            make_directory(path.parent, 0o755)
        first = self._inherited
        bound = first.rebind(self._mode) if first is not None else BoundUnixSocket(path, self._mode)
        before, self._socket = self._socket, socket.socket(fileno=bound.detach())
        self._socket.setblocking(False)
        self._bound = bound
        self._loop.remove_reader(before.fileno())
        before.close()
        if self._is_started:
            self._loop.add_reader(self._socket.fileno(), self._accept_batch)
        return True

    def remove_client(self, client: ClientT) -> None:
        """Forget a client that has gone."""
        if self.clients.pop(client.connection_id, None) is None:
            return
        for counter, key in ((self._count_by_process, client.peer.pid), (self._count_by_account, client.account)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
        self.owner.on_gone(client)

    def is_privileged(self, peer: Peer) -> bool:
        """Return whether a peer is served before others: root, the daemon's own user, an administrator."""
        return peer.uid in (0, self._own_uid) or self._admission.is_admin(peer)

    def report_invalid(self, client: ClientT, reason: str, description: str) -> None:
        """Say and count that a client sent an invalid message."""
        self.handler.on_invalid_message(client.peer, reason, description)
        self.count_invalid(client)

    def count_invalid(self, client: ClientT) -> None:
        """Count an invalid message; whose user sends too many loses the connection."""
        if client.rank != HIGH_RANK and not client.closed and not self._invalid_rate.allows(client.account):
            client.disconnect()

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """End the connections of peers that are not allowed any more; the others are ranked again."""
        for client in list(self.clients.values()):
            if not allowed(client.peer):
                client.disconnect()
            else:
                client.set_rank(HIGH_RANK if self.is_privileged(client.peer) else NORMAL_RANK)

    # ---------------------------------------------------------------- accepting

    def _accept_batch(self) -> None:
        until = monotonic() + _ACCEPT_TIME
        while True:
            try:
                connected, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._on_accept_error(error)
                return
            self._throttle(connected, self._read_peer(connected))
            if monotonic() >= until:
                return

    def _on_accept_error(self, error: OSError) -> None:
        if error.errno not in _NO_RESOURCES:
            raise error
        self._rate_limited_log.warning("accept", f"{self.address} cannot accept another client: {error.strerror}")
        # The listener would be readable again at once, and indefinitely.
        self._loop.remove_reader(self._socket.fileno())
        self._loop.call_later(_RETRY_DELAY, self._resume_accepting)

    def _resume_accepting(self) -> None:
        if not self.closed:
            self._loop.add_reader(self._socket.fileno(), self._accept_batch)

    def _throttle(self, connected: socket.socket, peer: Peer) -> None:
        """Open a connection now or when it is the turn of its user, unless that one connects too often."""
        if self.is_privileged(peer):
            self._admit_or_refuse(connected, peer)
        elif self._connect_rate.allows(peer.account):
            self._accept_queue.add(connected, peer)
        else:
            self.refused_count += 1
            _send_and_close(connected, _BUSY_ERROR)
            self._rate_limited_log.warning(f"rate {peer.uid}", f"refused connections: {peer.name} connects too often")

    def _admit_or_refuse(self, connected: socket.socket, peer: Peer) -> None:
        privileged = self.is_privileged(peer)
        if not privileged and not self._admission.is_authorised(peer):
            if self._admission.is_pending(peer) and len(self._deferred) < _MAX_PENDING:
                self._defer(connected, peer)
            else:
                self._refuse(connected, peer, _NO_ROLE_ERROR, f"{peer.name} has no role here")
        elif not self._has_room(peer, privileged=privileged):
            text = f"{peer.name} (process {peer.pid}) is one client too many, {len(self.clients)} are connected"
            self._refuse(connected, peer, _BUSY_ERROR, f"{text}; see `max_connections` in [messaging]")
        else:
            self._open(connected, peer)

    def _open(self, connected: socket.socket, peer: Peer) -> None:
        number = next(self._connection_ids)
        client = self.clients[number] = self._client_class(self, connected, number, peer)  # type: ignore[arg-type]  # of ours
        self._count_by_process[peer.pid] += 1
        self._count_by_account[client.account] += 1

    def _refuse(self, connected: socket.socket, peer: Peer, answer: bytes, why: str) -> None:
        self.refused_count += 1
        _send_and_close(connected, answer)
        self._rate_limited_log.warning(f"refused {peer.uid} {answer is _NO_ROLE_ERROR}", f"refused a connection: {why}")
        self.handler.on_refused(peer, NotPermitted(why) if answer is _NO_ROLE_ERROR else Busy(why))

    def _defer(self, connected: socket.socket, peer: Peer) -> None:
        """Keep a connection, unread, until the groups of its user are known."""
        self._deferred.append((connected, peer, self._loop.time() + self.limits.handshake_timeout))
        if len(self._deferred) == 1:
            self._loop.call_later(_PENDING_RETRY_DELAY, self._retry_deferred)

    def _retry_deferred(self) -> None:
        waiting, self._deferred = self._deferred, []
        for connected, peer, until in waiting:
            if self.closed:
                connected.close()
            elif self._admission.is_authorised(peer):
                self._open(connected, peer)
            elif not self._admission.is_pending(peer):
                self._refuse(connected, peer, _NO_ROLE_ERROR, f"{peer.name} has no role here")
            elif self._loop.time() >= until:
                self._refuse(connected, peer, _BUSY_ERROR, f"the groups of {peer.name} are not known yet")
            else:
                self._deferred.append((connected, peer, until))
        if self._deferred:
            self._loop.call_later(_PENDING_RETRY_DELAY, self._retry_deferred)

    def _has_room(self, peer: Peer, *, privileged: bool) -> bool:
        """Return whether a client is accepted: no process, and no user, gets more connections than are free.

        So one alone gets half of them, however many processes it starts. Who may do everything has some more, so that
        an operator gets in whatever happens, and its processes share them, and not the user.
        """
        # Of few connections few: each costs a descriptor.
        reserved = min(_RESERVED_CONNECTIONS, 4 + self.limits.max_connections // 4) if privileged else 0
        free = self.limits.max_connections + reserved - len(self.clients)
        if free <= 0 or self._count_by_process[peer.pid] >= free:
            return False
        return privileged or self._count_by_account[peer.account] < free


def _send_and_close(connected: socket.socket, answer: bytes) -> None:
    connected.setblocking(False)
    try:
        connected.send(answer)
    except OSError:
        pass  # it has gone already
    connected.close()


def _ignore_data(_data: bytes) -> None:
    """Do nothing; a client reads on its own."""
