"""The door: who may connect, and how many. ZAP, answered on the loop."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import zmq

from ostler.errors import Busy, NotPermitted
from ostler.messaging.quiet import QuietLog
from ostler.messaging.shares import RateLimits
from ostler.messaging.transport import EVERYBODY, OnRefused, ignore_refused
from ostler.messaging.zmq.connections import Connection
from ostler.messaging.zmq.curve import z85
from ostler.messaging.zmq.drain import Drain
from ostler.messaging.zmq.options import NOBLOCK
from ostler.messaging.zmq.sessions import Session, Sessions
from ostler.messaging.zmq.sweep import Sweep
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.clock import Clock
    from ostler.messaging.zmq.options import Context, Socket

_log = logging.getLogger(__name__)
_ADDRESS = "inproc://zeromq.zap.01"
_EVENT = struct.Struct("=Hi")
_SEEN = int(zmq.Event.ACCEPTED | zmq.Event.DISCONNECTED)
_ACCEPTED = int(zmq.Event.ACCEPTED)
_SLACK = 64
"""Connections under way for which there is room beside twice `max_connections`; no more than that itself."""
_RESERVED = 16
"""Connections beyond the limit for the keys of administrators."""
_ADDRESS_RATE, _ADDRESS_BURST = 500.0, 1000.0
"""Connections of one address each second, and at once: each costs the thread that does all the I/O a handshake."""
_KEY_RATE, _KEY_BURST = 100.0, 200.0
"""Connections of one key each second, and at once."""
REFUSED = 400
"""What a client is told whose key is not known, or has no role."""
FULL = 500
"""What a client is told for which there is no room."""


class Door:
    """Decides on each new connection to the sockets of one ZeroMQ context. On the loop's thread only.

    Args:
        clock: The source of time.
        max_connections: Connections at once; one more is refused, and that is said once a minute. No key gets more than
            are free, so that one alone gets half of them.
        names: The public keys that may come in at all, with their names. One that has no role is refused as well.
        handshake: Seconds after which a connection has been admitted or is gone.
    """

    def __init__(
        self,
        clock: Clock,
        max_connections: int = 1000,
        names: Mapping[str, str] | None = None,
        handshake: float = 5.0,
    ) -> None:
        self.max_connections = max_connections
        self.names = dict(names or {})
        self.refused = 0
        self.full = 0
        self.on_refused: OnRefused = ignore_refused
        self.admission = EVERYBODY
        self.sessions = Sessions(self.names)
        self._clock = clock
        self._handshake = handshake
        self._admitted: list[float] = []
        self._watches: list[Watch] = []
        self._under_way: dict[str, dict[Connection, None]] = {}
        """The connections of each address that have not been let in, oldest first."""
        self._of_address = RateLimits(_ADDRESS_RATE, _ADDRESS_BURST)
        self._of_key = RateLimits(_KEY_RATE, _KEY_BURST)
        self._quiet = QuietLog(_log, clock)
        self._sweep = Sweep(clock, self._connections, self.let_in, self._quiet)
        self._socket: Socket | None = None
        self._drain: Drain | None = None

    def open(self, context: Context) -> None:
        """Begin to answer. Before any socket of the context listens; twice is once."""
        if self._socket is not None:
            return
        self._socket = context.socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind(_ADDRESS)
        self._drain = Drain(self._socket, self._take)

    def watch(self, socket: Socket, address: str) -> Watch:
        """Count the connections of a socket, until it is closed. Before it listens at the address."""
        watch = Watch(socket, self._clock, self, address)
        self._watches = [each for each in self._watches if not each.closed]
        self._watches.append(watch)
        return watch

    def admit_only(self, names: Mapping[str, str]) -> None:
        """Let in whoever has one of these keys, from now on; connections that stand are not touched."""
        self.names.clear()
        self.names.update(names)

    def close(self) -> None:
        """Decide no more. May be called twice."""
        if self._drain is not None and self._socket is not None:
            self._drain.close()
            self._socket.close()
        self._drain = None
        self._sweep.close()

    def connections(self) -> int:
        """Return how many connections there are, those whose handshake is under way included."""
        return sum(len(watch.connections) for watch in self._watches)

    def stats(self) -> dict[str, int]:
        """Return the counters: connections there are, refused for their key or role, for their number, cut."""
        return {
            "connections": self.connections(),
            "unknown_keys": self.refused,
            "too_many": self.full,
            "cut": self._sweep.cut,
        }

    # ---------------------------------------------------------------- what a watch tells

    def accepted(self, connection: Connection, address: str) -> None:
        """Take note of a new connection; one too many of its address costs the oldest that was not let in yet.

        The oldest, for whoever means to come in has done so within milliseconds.
        """
        of_address = self._under_way.setdefault(connection.address, {})
        of_address[connection] = None
        self._sweep.start()
        free = 2 * self.max_connections + min(_SLACK, self.max_connections) - self.connections()
        if not self._of_address.allows(connection.address):
            self._too_many(connection, f"{address}: {connection.address} connects too often")
        elif len(of_address) > max(free, 1):
            text = f"{address}: too many connections of {connection.address} that have not said who they are"
            self._too_many(next(iter(of_address)), text)

    def let_in(self, connection: Connection) -> None:
        """Take note that a connection has been let in, and has heard of it."""
        self._decided(connection)
        self.sessions.admitted(connection)

    def confirm(self, session: Session, connection: Connection | None) -> None:
        """Take note of the connection that the first message of a session came over."""
        if connection is not None:
            self._decided(connection)
        self.sessions.confirm(session, connection)

    def end_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """Cut the connections of peers that are not allowed any more."""
        for of_address in list(self._under_way.values()):
            for connection in list(of_address):
                self._sweep.look_at(connection, self._clock.monotonic())
        self.sessions.end_unless(allowed)

    def disconnected(self, connection: Connection) -> None:
        """Take note that a connection has gone."""
        self._decided(connection)
        self.sessions.disconnected(connection, len(self._under_way.get(connection.address, ())))

    def _decided(self, connection: Connection) -> None:
        of_address = self._under_way.get(connection.address, {})
        of_address.pop(connection, None)
        if not of_address:
            self._under_way.pop(connection.address, None)

    def _too_many(self, connection: Connection, text: str) -> None:
        self.full += 1
        self._decided(connection)
        connection.shut_down()
        self._quiet.warning("flood", text)

    def _connections(self) -> list[Connection]:
        return [connection for watch in self._watches for connection in watch.connections.values()]

    # ---------------------------------------------------------------- who comes in

    def _take(self) -> None:
        assert self._socket is not None  # noqa: S101 - only called while it is open
        frames = self._socket.recv_multipart(NOBLOCK)
        try:
            way, request = frames[: frames.index(b"") + 1], frames[frames.index(b"") + 1 :]
            code, text, user = self._decide(request[3].decode(), request[5], request[6:])
        except (ValueError, IndexError):  # no ZAP: libzmq itself is the only one who can reach this socket
            return
        answer = [b"1.0", request[1], str(code).encode(), text, user.encode(), b""]
        self._socket.send_multipart([*way, *answer], NOBLOCK)

    def _decide(self, address: str, mechanism: bytes, credentials: list[bytes]) -> tuple[int, bytes, str]:
        user = z85(credentials[0]) if mechanism == b"CURVE" else ""
        if user not in self.names:
            return self._refuse(user, address, f"nobody here has the key {user}" if user else "it proves no key")
        peer = self.sessions.peer_of(user)
        if not self.admission.knows(peer):
            return self._refuse(user, address, f"{peer.name} has no role here")
        privileged = self.admission.is_admin(peer)
        now = self._clock.monotonic()
        if not privileged and not self._of_key.allows(user):
            return self._full(peer, f"refused a connection from {address}: {peer.name} connects too often")
        free = self.max_connections + (_RESERVED if privileged else 0) - self._standing(now)
        if free <= 0 or (not privileged and self.sessions.of_key[user] >= free):
            text = f"refused a connection from {address}: {peer.name} has {self.sessions.of_key[user]} already"
            return self._full(peer, f"{text}, and {max(free, 0)} are free; see `max_connections` in [messaging]")
        self._admitted.append(now)
        return 200, b"OK", self.sessions.admit(user, address, privileged=privileged)

    def _refuse(self, key: str, address: str, why: str) -> tuple[int, bytes, str]:
        self.refused += 1
        text = f"refused a connection from {address}: {why}"
        self._quiet.warning(f"key {key}" if key in self.names else "key", text)
        self.on_refused(Peer(key=key, name=address), NotPermitted(text))
        return REFUSED, b"the key is not known, or has no role", ""

    def _full(self, peer: Peer, text: str) -> tuple[int, bytes, str]:
        self.full += 1
        self._quiet.warning(f"full {peer.key}", text)
        self.on_refused(peer, Busy(text))
        return FULL, b"too many connections", ""

    def _standing(self, now: float) -> int:
        """Return how many connections have been admitted.

        Those that say nothing, and are cut when the time of the handshake is over, must not keep others out.
        """
        youngest = now - self._handshake
        self._admitted = [at for at in self._admitted if at > youngest]
        old = sum(watch.older_than(youngest) for watch in self._watches)
        return old + min(len(self._admitted), self.connections() - old)


class Watch:
    """The connections of one listening socket: descriptors, and when they were made. On the loop's thread only.

    Args:
        socket: The socket.
        clock: The source of time.
        door: Told of each connection.
        listens_at: The address, for people.
    """

    def __init__(self, socket: Socket, clock: Clock, door: Door, listens_at: str) -> None:
        self.connections: dict[int, Connection] = {}
        """By descriptor, oldest first."""
        self._clock = clock
        self._door = door
        self._listens_at = listens_at
        self._watched = socket
        address = f"inproc://door-{id(self)}"
        socket.monitor(address, _SEEN)
        self._socket = socket.context.socket(zmq.PAIR)
        # Without a limit: a full queue would hold up the thread that does all the I/O.
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.set(zmq.LINGER, 0)
        self._socket.connect(address)
        self._drain = Drain(self._socket, self._take)

    def older_than(self, moment: float) -> int:
        """Return how many connections were made before a moment."""
        self.look()
        young = 0
        for connection in reversed(self.connections.values()):
            if connection.since <= moment:
                break
            young += 1
        return len(self.connections) - young

    @property
    def closed(self) -> bool:
        """Whether it counts no more."""
        return bool(self._socket.closed)

    def look(self) -> None:
        """Take what has been told by now."""
        try:
            while True:
                self._take()
        except zmq.Again:
            return

    def close(self) -> None:
        """Count no more. Before the socket is closed. May be called twice."""
        if self._socket.closed:
            return
        for connection in self.connections.values():
            self._door.disconnected(connection)
        self.connections.clear()
        self._drain.close()
        self._watched.disable_monitor()
        self._socket.close()

    def _take(self) -> None:
        event, descriptor = _EVENT.unpack(self._socket.recv_multipart(NOBLOCK)[0][: _EVENT.size])
        before = self.connections.pop(descriptor, None)
        if before is not None:
            self._door.disconnected(before)
        if event == _ACCEPTED:
            made = self.connections[descriptor] = Connection(descriptor, self._clock.monotonic())
            self._door.accepted(made, self._listens_at)
