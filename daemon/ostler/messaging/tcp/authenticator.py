"""Authenticates connections and limits their number. ZAP, answered on the loop."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import zmq

from ostler.errors import Busy, NotPermitted
from ostler.log.rate_limit import RateLimitedLog
from ostler.messaging.tcp.curve import encode_z85
from ostler.messaging.tcp.sessions import ConnectionSweeper, SessionRegistry, TcpConnection, TcpSession
from ostler.messaging.tcp.socket_options import NOBLOCK
from ostler.messaging.tcp.socket_reader import SocketReader
from ostler.messaging.wire.peer_quotas import PeerQuotas, RateLimiter
from ostler.messaging.wire.transport import ALLOW_ALL, Admission, OnRefused
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.clock import Clock
    from ostler.messaging.tcp.socket_options import Context, Socket

_log = logging.getLogger(__name__)
_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_EVENT_HEADER = struct.Struct("=Hi")
_MONITORED_EVENTS = int(zmq.Event.ACCEPTED | zmq.Event.DISCONNECTED)
_EVENT_ACCEPTED = int(zmq.Event.ACCEPTED)
_EXTRA_HANDSHAKES = 64
"""Connections in progress for which there is room beside twice `max_connections`; no more than that itself."""
_RESERVED_CONNECTIONS = 16
"""Connections beyond the limit for the keys of administrators."""
_ADDRESS_RATE, _ADDRESS_BURST = 500.0, 1000.0
"""Connections of one address each second, and at once: each costs the thread that does all the I/O a handshake."""
_KEY_RATE, _KEY_BURST = 100.0, 200.0
"""Connections of one key each second, and at once."""
ZAP_DENIED = 400
"""What a client is told whose key is not known, or has no role."""
ZAP_BUSY = 500
"""What a client is told for which there is no room."""


class Authenticator:
    """Decides on each new connection to the sockets of one ZeroMQ context. On the loop's thread only.

    Args:
        clock: The source of time.
        max_connections: Connections at once; one more is refused, and that is said once a minute. No key gets more than
            are free, so that one alone gets half of them.
        key_names: The public keys that may come in at all, with their names. One that has no role is refused as well.
        handshake_timeout: Seconds after which a connection has been admitted or is gone.
        admission: Who of them has a role, and who is an administrator.
        on_refused: Called for each connection that was not admitted; None for nobody.
        quotas: What the connections share with those of other sockets; None for quotas of their own.
    """

    def __init__(
        self,
        clock: Clock,
        max_connections: int = 1000,
        key_names: Mapping[str, str] | None = None,
        handshake_timeout: float = 5.0,
        admission: Admission = ALLOW_ALL,
        on_refused: OnRefused | None = None,
        quotas: PeerQuotas | None = None,
    ) -> None:
        self.max_connections = max_connections
        self.key_names = dict(key_names or {})
        self.denied_count = 0
        self.busy_count = 0
        self.sessions = SessionRegistry(self.key_names, quotas)
        self._admission = admission
        self._on_refused = on_refused
        self._clock = clock
        self._handshake_timeout = handshake_timeout
        self._admitted_at: list[float] = []
        self._monitors: list[ConnectionMonitor] = []
        self._handshakes: dict[str, dict[TcpConnection, None]] = {}
        """The connections of each address that have not been let in, oldest first."""
        self._address_rate = RateLimiter(_ADDRESS_RATE, _ADDRESS_BURST)
        self._key_rate = RateLimiter(_KEY_RATE, _KEY_BURST)
        self._rate_limited_log = RateLimitedLog(_log, clock)
        self._sweeper = ConnectionSweeper(clock, self._list_connections, self.on_authenticated, self._rate_limited_log)
        self._socket: Socket | None = None
        self._reader: SocketReader | None = None

    def start(self, context: Context) -> None:
        """Begin to answer. Before any socket of the context listens; twice is once."""
        if self._socket is not None:
            return
        self._socket = context.socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind(_ZAP_ENDPOINT)
        self._reader = SocketReader(self._socket, self._handle_request)

    def monitor(self, socket: Socket, address: str) -> ConnectionMonitor:
        """Count the connections of a socket, until it is closed. Before it listens at the address."""
        watch = ConnectionMonitor(socket, self._clock, self, address)
        self._monitors = [each for each in self._monitors if not each.closed]
        self._monitors.append(watch)
        return watch

    def set_authorised_keys(self, key_names: Mapping[str, str]) -> None:
        """Let in whoever has one of these keys, from now on; connections that stand are not touched."""
        self.key_names.clear()
        self.key_names.update(key_names)

    def close(self) -> None:
        """Stop deciding. May be called twice."""
        if self._reader is not None and self._socket is not None:
            self._reader.close()
            self._socket.close()
        self._reader = None
        self._sweeper.close()

    def connection_count(self) -> int:
        """Return how many connections there are, those whose handshake is in progress included."""
        return sum(len(watch.connections) for watch in self._monitors)

    def stats(self) -> dict[str, int]:
        """Return the counters: connections there are, refused for their key or role, for their number, cut."""
        return {
            "connections": self.connection_count(),
            "unknown_keys": self.denied_count,
            "too_many": self.busy_count,
            "cut": self._sweeper.cut_count,
        }

    # ---------------------------------------------------------------- what a watch tells

    def on_accepted(self, connection: TcpConnection, address: str) -> None:
        """Record a new connection; one too many of its address costs the oldest that was not let in yet.

        The oldest, because a client completes the handshake within milliseconds.
        """
        of_address = self._handshakes.setdefault(connection.address, {})
        of_address[connection] = None
        self._sweeper.start()
        free = 2 * self.max_connections + min(_EXTRA_HANDSHAKES, self.max_connections) - self.connection_count()
        if not self._address_rate.allows(connection.address):
            self._drop_connection(connection, f"{address}: {connection.address} connects too often")
        elif len(of_address) > max(free, 1):
            text = f"{address}: too many unauthenticated connections from {connection.address}"
            self._drop_connection(next(iter(of_address)), text)

    def on_authenticated(self, connection: TcpConnection) -> None:
        """Record that a connection has been let in, and has heard of it."""
        self._end_handshake(connection)
        self.sessions.on_admitted(connection)

    def confirm_session(self, session: TcpSession, connection: TcpConnection | None) -> None:
        """Record the connection that the first message of a session came over."""
        if connection is not None:
            self._end_handshake(connection)
        self.sessions.confirm_session(session, connection)

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """Cut the connections of peers that are not allowed any more."""
        for of_address in list(self._handshakes.values()):
            for connection in list(of_address):
                self._sweeper.check_connection(connection, self._clock.monotonic())
        self.sessions.disconnect_unless(allowed)

    def on_disconnected(self, connection: TcpConnection) -> None:
        """Record that a connection has gone."""
        self._end_handshake(connection)
        self.sessions.on_disconnected(connection, len(self._handshakes.get(connection.address, ())))

    def _end_handshake(self, connection: TcpConnection) -> None:
        of_address = self._handshakes.get(connection.address, {})
        of_address.pop(connection, None)
        if not of_address:
            self._handshakes.pop(connection.address, None)

    def _drop_connection(self, connection: TcpConnection, text: str) -> None:
        self.busy_count += 1
        self._end_handshake(connection)
        connection.shutdown()
        self._rate_limited_log.warning("flood", text)

    def _list_connections(self) -> list[TcpConnection]:
        return [connection for watch in self._monitors for connection in watch.connections.values()]

    # ---------------------------------------------------------------- who comes in

    def _handle_request(self) -> None:
        assert self._socket is not None  # noqa: S101 - only called while it is open
        frames = self._socket.recv_multipart(NOBLOCK)
        try:
            way, request = frames[: frames.index(b"") + 1], frames[frames.index(b"") + 1 :]
            code, text, user = self._authenticate(request[3].decode(), request[5], request[6:])
        except (ValueError, IndexError):  # no ZAP: libzmq itself is the only one who can reach this socket
            return
        answer = [b"1.0", request[1], str(code).encode(), text, user.encode(), b""]
        self._socket.send_multipart([*way, *answer], NOBLOCK)

    def _authenticate(self, address: str, mechanism: bytes, credentials: list[bytes]) -> tuple[int, bytes, str]:
        user = encode_z85(credentials[0]) if mechanism == b"CURVE" else ""
        if user not in self.key_names:
            return self._refuse(user, address, f"unknown key {user}" if user else "no key was given")
        peer = self.sessions.get_peer(user)
        if not self._admission.is_authorised(peer):
            return self._refuse(user, address, f"{peer.name} has no role here")
        privileged = self._admission.is_admin(peer)
        now = self._clock.monotonic()
        if not privileged and not self._key_rate.allows(user):
            return self._refuse_busy(peer, f"refused a connection from {address}: {peer.name} connects too often")
        free = self.max_connections + (_RESERVED_CONNECTIONS if privileged else 0) - self._count_admitted(now)
        if free <= 0 or (not privileged and self.sessions.count_by_key[user] >= free):
            text = f"refused a connection from {address}: {peer.name} already has {self.sessions.count_by_key[user]}"
            return self._refuse_busy(peer, f"{text}, and {max(free, 0)} are free; see `max_connections` in [messaging]")
        self._admitted_at.append(now)
        return 200, b"OK", self.sessions.admit(user, address, privileged=privileged)

    def _refuse(self, key: str, address: str, why: str) -> tuple[int, bytes, str]:
        self.denied_count += 1
        text = f"refused a connection from {address}: {why}"
        self._rate_limited_log.warning(f"key {key}" if key in self.key_names else "key", text)
        if self._on_refused is not None:
            self._on_refused(Peer(key=key, name=address), NotPermitted(text))
        return ZAP_DENIED, b"the key is not known, or has no role", ""

    def _refuse_busy(self, peer: Peer, text: str) -> tuple[int, bytes, str]:
        self.busy_count += 1
        self._rate_limited_log.warning(f"full {peer.key}", text)
        if self._on_refused is not None:
            self._on_refused(peer, Busy(text))
        return ZAP_BUSY, b"too many connections", ""

    def _count_admitted(self, now: float) -> int:
        """Return how many connections have been admitted.

        Those that say nothing, and are cut when the time of the handshake is over, must not keep others out.
        """
        youngest = now - self._handshake_timeout
        self._admitted_at = [at for at in self._admitted_at if at > youngest]
        old = sum(watch.count_older_than(youngest) for watch in self._monitors)
        return old + min(len(self._admitted_at), self.connection_count() - old)


class ConnectionMonitor:
    """The connections of one listening socket: descriptors, and when they were made. On the loop's thread only.

    Args:
        socket: The socket.
        clock: The source of time.
        authenticator: Told of each connection.
        listen_address: The address, for people.
    """

    def __init__(self, socket: Socket, clock: Clock, authenticator: Authenticator, listen_address: str) -> None:
        self.connections: dict[int, TcpConnection] = {}
        """By descriptor, oldest first."""
        self._clock = clock
        self._authenticator = authenticator
        self._listen_address = listen_address
        self._monitored = socket
        address = f"inproc://door-{id(self)}"
        socket.monitor(address, _MONITORED_EVENTS)
        self._socket = socket.context.socket(zmq.PAIR)
        # Without a limit: a full queue would hold up the thread that does all the I/O.
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.set(zmq.LINGER, 0)
        self._socket.connect(address)
        self._reader = SocketReader(self._socket, self._handle_event)

    def count_older_than(self, moment: float) -> int:
        """Return how many connections were made before a moment."""
        self.poll()
        young = 0
        for connection in reversed(self.connections.values()):
            if connection.opened_at <= moment:
                break
            young += 1
        return len(self.connections) - young

    @property
    def closed(self) -> bool:
        """Whether it counts no more."""
        return bool(self._socket.closed)

    def poll(self) -> None:
        """Take what has been told by now."""
        try:
            while True:
                self._handle_event()
        except zmq.Again:
            return

    def close(self) -> None:
        """Stop counting. Before the socket is closed. May be called twice."""
        if self._socket.closed:
            return
        for connection in self.connections.values():
            self._authenticator.on_disconnected(connection)
        self.connections.clear()
        self._reader.close()
        self._monitored.disable_monitor()
        self._socket.close()

    def _handle_event(self) -> None:
        event, descriptor = _EVENT_HEADER.unpack(self._socket.recv_multipart(NOBLOCK)[0][: _EVENT_HEADER.size])
        before = self.connections.pop(descriptor, None)
        if before is not None:
            self._authenticator.on_disconnected(before)
        if event == _EVENT_ACCEPTED:
            made = self.connections[descriptor] = TcpConnection(descriptor, self._clock.monotonic())
            self._authenticator.on_accepted(made, self._listen_address)
