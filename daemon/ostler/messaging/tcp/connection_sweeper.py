"""Measures periodically how much memory ZeroMQ holds for connections, which it does not report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostler.clock import Clock
    from ostler.log.rate_limit import RateLimitedLog
    from ostler.messaging.tcp.connections import ConnectionCounters, TcpConnection
    from ostler.messaging.tcp.sessions import TcpSession

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
