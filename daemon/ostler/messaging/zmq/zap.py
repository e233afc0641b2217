"""The door: who may connect, and how many. ZAP, answered on the loop."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import zmq

from ostler.errors import Busy, NotPermitted
from ostler.messaging.quiet import QuietLog
from ostler.messaging.transport import OnRefused, ignore_refused
from ostler.messaging.zmq.curve import z85
from ostler.messaging.zmq.drain import Drain
from ostler.messaging.zmq.options import NOBLOCK
from ostler.messaging.zmq.tcp import cut
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
REFUSED = 400
"""What a client is told whose key is not known."""
FULL = 500
"""What a client is told for which there is no room."""


class Door:
    """Decides on each new connection to the sockets of one ZeroMQ context. On the loop's thread only.

    Args:
        clock: The source of time.
        max_connections: Connections at once; one more is refused, and that is said once a minute.
        names: The public keys that may come in at all, with their names; what they may do is asked for each request.
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
        self._clock = clock
        self._handshake = handshake
        self._admitted: list[float] = []
        self._watches: list[Watch] = []
        self._quiet = QuietLog(_log, clock)
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
        watch = Watch(socket, self._clock, lambda descriptor: self._accepted(descriptor, address))
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

    def connections(self) -> int:
        """Return how many connections there are, those whose handshake is under way included."""
        return sum(len(watch.since) for watch in self._watches)

    def stats(self) -> dict[str, int]:
        """Return the counters: connections there are, refused for their key, refused because there were too many."""
        return {"connections": self.connections(), "unknown_keys": self.refused, "too_many": self.full}

    def _accepted(self, descriptor: int, address: str) -> None:
        # Connections that never say anything cost a descriptor each, until the time of the handshake is over.
        if self.connections() > 2 * self.max_connections + min(_SLACK, self.max_connections):
            self.full += 1
            cut(descriptor, address)
            self._quiet.warning("flood", f"{address}: too many connections that have not said who they are")

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
            self.refused += 1
            whose = f"nobody here has the key {user}" if user else "it proves no key"
            text = f"refused a connection from {address}: {whose}"
            self._quiet.warning("key", text)
            self.on_refused(Peer(key=user, name=address), NotPermitted(text))
            return REFUSED, b"the key is not known", ""
        now = self._clock.monotonic()
        if self._standing(now) >= self.max_connections:
            self.full += 1
            text = f"refused a connection from {address}: there are {self.max_connections} already"
            self._quiet.warning("full", f"{text}; see `max_connections` in [messaging]")
            self.on_refused(Peer(key=user, name=f"key:{self.names[user]}"), Busy(text))
            return FULL, b"too many connections", ""
        self._admitted.append(now)
        return 200, b"OK", user

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
        accepted: Told the descriptor of each new connection.
    """

    def __init__(self, socket: Socket, clock: Clock, accepted: Callable[[int], None]) -> None:
        self.since: dict[int, float] = {}
        self._clock = clock
        self._accepted = accepted
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
        for at in reversed(self.since.values()):
            if at <= moment:
                break
            young += 1
        return len(self.since) - young

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
        self.since.clear()
        self._drain.close()
        self._watched.disable_monitor()
        self._socket.close()

    def _take(self) -> None:
        event, descriptor = _EVENT.unpack(self._socket.recv_multipart(NOBLOCK)[0][: _EVENT.size])
        if event == _ACCEPTED:
            self.since.pop(descriptor, None)
            self.since[descriptor] = self._clock.monotonic()
            self._accepted(descriptor)
        else:
            self.since.pop(descriptor, None)
