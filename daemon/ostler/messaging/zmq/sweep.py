"""Looks from time to time what connections to our ports make ZeroMQ hold, which it does not say by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostler.clock import Clock
    from ostler.messaging.quiet import QuietLog
    from ostler.messaging.zmq.connections import Connection, Traffic
    from ostler.messaging.zmq.sessions import Session

_INTERVAL = 0.1
"""Seconds between two looks: what comes in between is what one account may hold beyond its share."""
_AT_ONCE = 128
"""Connections that are looked at in one turn of the loop; each takes 10 µs."""
_HANDSHAKE_BYTES = 16 * 1024
"""Bytes that a connection may send before it has proved a key; a handshake takes a few hundred."""
_LET_IN_BYTES = 270
"""More bytes than that are sent to one that was let in, and to no other; ZeroMQ does not say which it was."""
_STALL_TIMEOUT = 5.0
"""Seconds without any progress after which a connection is cut whose account has no room left."""


class Sweep:
    """Charges accounts for what their connections make ZeroMQ hold, and cuts those for which there is no room.

    It runs while there are connections. On the loop's thread only.

    Args:
        clock: The source of time.
        connections: Returns all connections.
        let_in: Told of each connection that turns out to have been let in.
        quiet: Where it is said that a connection was cut.
    """

    def __init__(
        self,
        clock: Clock,
        connections: Callable[[], list[Connection]],
        let_in: Callable[[Connection], None],
        quiet: QuietLog,
    ) -> None:
        self.cut = 0
        """How many connections were cut."""
        self._clock = clock
        self._connections = connections
        self._let_in = let_in
        self._quiet = quiet
        self._left: list[Connection] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look, if there was nothing to look at until now."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._look)

    def close(self) -> None:
        """Look no more. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._left.clear()

    def _look(self) -> None:
        self._timer = None
        if not self._left:
            self._left = self._connections()
        if not self._left:
            return
        now = self._clock.monotonic()
        self._left, part = self._left[_AT_ONCE:], self._left[:_AT_ONCE]
        delay = _INTERVAL / 10 if self._left else _INTERVAL
        self._timer = asyncio.get_running_loop().call_later(delay, self._look)  # first: whatever comes next
        for connection in part:
            self.look_at(connection, now)

    def look_at(self, connection: Connection, now: float) -> None:
        """Charge for one connection, or cut it."""
        traffic = connection.traffic()
        if traffic is None:
            return
        if connection.session is None and traffic.taken > _LET_IN_BYTES:
            self._let_in(connection)
        session = connection.session
        if session is None:
            if traffic.received > _HANDSHAKE_BYTES:
                self._cut(connection, f"{connection.address} sent {traffic.received} bytes and did not say who it is")
        elif not session.measure_partial(traffic, now):
            self._cut_session(session, "sent more than there is room for")
        else:
            self._look_at_sent(session, traffic, now)

    def _look_at_sent(self, session: Session, traffic: Traffic, now: float) -> None:
        stalled = session.stalls(traffic, now)
        session.measure(traffic)
        if stalled >= _STALL_TIMEOUT and session.memory is not None and not session.memory.room(0):
            self._cut_session(session, "does not read, and there is no room for what waits for it")

    def _cut_session(self, session: Session, why: str) -> None:
        self.cut += 1
        session.end()
        self._quiet.warning(f"cut {session.peer.key}", f"cut a connection of {session.peer.name}: it {why}")

    def _cut(self, connection: Connection, text: str) -> None:
        self.cut += 1
        connection.shut_down()
        self._quiet.warning("cut", f"cut a connection: {text}")
