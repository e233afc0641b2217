"""`Connections`: all connections of a service, their number and their time limits."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import partial

from uvicorn.config import Config
from uvicorn.server import ServerState

from ostler_http.asgi import Receive, Scope, Send
from ostler_http.options import LimitOptions
from ostler_http.server.connection import HttpConnection, Phase
from ostler_http.server.counters import Counters
from ostler_http.server.peers import ConnectionPeer, peer_of

Handle = Callable[[HttpConnection, Scope, Receive, Send], Awaitable[None]]
_MAX_SWEEP_INTERVAL = 1.0
"""Seconds between two looks at the time that clients take."""
_PING_INTERVAL = 20.0


class _State(ServerState):
    """uvicorn's shared state; its date is made when it is asked for, not by a timer."""

    def __init__(self) -> None:
        self._second, self._headers = 0, list[tuple[bytes, bytes]]()
        super().__init__()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every response."""
        second = int(time.time())
        if second != self._second:
            self._second, self._headers = second, [(b"date", formatdate(second, usegmt=True).encode())]
        return self._headers

    @default_headers.setter
    def default_headers(self, _headers: list[tuple[bytes, bytes]]) -> None:
        """Ignore what uvicorn sets at first."""


class Connections:
    """All connections of a service. All methods run on its loop.

    Args:
        handle: Gets every request, with its connection.
        limits: The limits; may be replaced, and applies to what is open as well.
        counters: Counts what is refused.
    """

    def __init__(self, handle: Handle, limits: LimitOptions, counters: Counters) -> None:
        self.loop = asyncio.get_running_loop()
        self.handle = handle
        self.counters = counters
        self.state = _State()
        self.tls: ssl.SSLContext | None = None
        """For connections that are accepted from now on, on addresses with a port."""
        self.limits = limits
        self.config = self._make_config(limits)
        self._open: dict[HttpConnection, None] = {}
        self._handshakes: dict[asyncio.Task[None], HttpConnection] = {}
        self._pending = 0
        """Connections that were accepted and are not open yet."""
        self._by_client: Counter[str] = Counter()
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._change = asyncio.Event()

    @staticmethod
    def _make_config(limits: LimitOptions) -> Config:
        config = Config(
            "", http=HttpConnection, ws="none", lifespan="off", interface="asgi3", log_config=None, access_log=False,
            proxy_headers=False, server_header=False,
            ws_max_size=limits.max_websocket_message, ws_ping_interval=_PING_INTERVAL,
            ws_ping_timeout=limits.send_timeout, ws_per_message_deflate=False,
        )  # fmt: skip
        # Loaded without an application of its own: each connection brings what it enters.
        config.loaded, config.loaded_app = True, None
        config.ws_protocol_class = None
        return config

    def set_limits(self, limits: LimitOptions) -> None:
        """Put other limits in effect."""
        self.limits, self.config = limits, self._make_config(limits)

    def __len__(self) -> int:
        return len(self._open) + self._pending

    # Accepting ------------------------------------------------------------------------------------------------------

    def accept(self, accepted: socket.socket, *, is_tls: bool) -> None:
        """Take over a connection, or close it when there are too many."""
        try:
            accepted.setblocking(False)
            if accepted.family != socket.AF_UNIX:
                # asyncio does it for sockets that know their protocol, which accepted ones do not. Without it every
                # response waits 40 ms between its headers and its body.
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = peer_of(accepted)
        except OSError:  # gone already
            accepted.close()
            return
        self.counters.accept()
        if self._is_closed or not self._has_room(peer):
            self.counters.refuse("connections")
            accepted.close()
            return
        self._by_client[peer.client] += 1
        self.counters.open()
        self._pending += 1
        connection = HttpConnection(self, peer)
        task = self.loop.create_task(self._shake_hands(accepted, connection, self.tls if is_tls else None))
        self._handshakes[task] = connection
        # Not in the task: one that the stop cancels before its first step would do nothing at all.
        task.add_done_callback(partial(self._on_handshake_end, accepted, connection))
        if self._sweep is None:
            self._sweep = self.loop.call_later(self._sweep_interval(), self._check_times)

    def _has_room(self, peer: ConnectionPeer) -> bool:
        if self._by_client[peer.client] >= self.limits.max_connections_per_client:
            return self._evict(peer.client)
        return len(self) < self.limits.max_connections or self._evict("")

    def _evict(self, client: str) -> bool:
        """Close the oldest connection without a request in progress, of one client or of any; return whether one was.

        Otherwise whoever opens many and says nothing would keep everybody else out.
        """
        for phase in (Phase.LINGER, Phase.IDLE):
            if self._evict_open(phase, client):
                return True
        return self._evict_handshake(client) or self._evict_open(Phase.HEAD, client)

    def _evict_open(self, phase: Phase, client: str) -> bool:
        for connection in self._open:
            if connection.phase is phase and client in ("", connection.peer.client):
                connection.abort("evicted")
                self.on_lost(connection)
                return True
        return False

    def _evict_handshake(self, client: str) -> bool:
        for task, connection in self._handshakes.items():
            if not connection.was_opened and client in ("", connection.peer.client):
                self.counters.refuse("evicted")
                connection.was_opened = True  # what follows its end is done here
                self._forget_pending(connection)
                task.cancel()
                return True
        return False

    def _forget_pending(self, connection: HttpConnection) -> None:
        self._pending -= 1
        self._forget(connection.peer)

    async def _shake_hands(
        self, accepted: socket.socket, connection: HttpConnection, tls: ssl.SSLContext | None
    ) -> None:
        timeouts = {"ssl_handshake_timeout": self.limits.header_timeout} if tls is not None else {}
        try:
            await self.loop.connect_accepted_socket(lambda: connection, accepted, ssl=tls, **timeouts)
        except (OSError, TimeoutError, ssl.SSLError):
            self.counters.refuse("tls_handshake" if tls is not None else "malformed")

    def _on_handshake_end(self, accepted: socket.socket, connection: HttpConnection, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)
        if not connection.was_opened:
            self._forget_pending(connection)
        if connection not in self._open:
            accepted.close()
        self._change.set()

    def on_open(self, connection: HttpConnection) -> None:
        """Record that the handshake of a connection is over."""
        if connection.was_opened:  # it has given its place to another just now
            connection.transport.abort()
            return
        connection.was_opened = True
        self._pending -= 1
        self._open[connection] = None

    def on_lost(self, connection: HttpConnection) -> None:
        """Record that a connection has ended."""
        if connection in self._open:
            del self._open[connection]
            self._forget(connection.peer)
            self._change.set()

    def _forget(self, peer: ConnectionPeer) -> None:
        self.counters.close()
        self._by_client[peer.client] -= 1
        if self._by_client[peer.client] <= 0:
            del self._by_client[peer.client]

    # Time and end ---------------------------------------------------------------------------------------------------

    def _check_times(self) -> None:
        now = self.loop.time()
        for connection in list(self._open):
            connection.check_time(now)
        self._sweep = self.loop.call_later(self._sweep_interval(), self._check_times) if len(self) else None

    def _sweep_interval(self) -> float:
        limits = self.limits
        shortest = min(limits.header_timeout, limits.idle_timeout, limits.body_timeout, limits.send_timeout)
        return min(_MAX_SWEEP_INTERVAL, shortest / 4)

    async def close(self, timeout: float) -> int:
        """End all connections: idle ones at once, others with their response, all when the time is up.

        WebSockets get a close frame, event streams an end, after half of the time: applications say goodbye before.

        Args:
            timeout: Seconds.

        Returns:
            How many were cut.
        """
        self._is_closed = True
        until = self.loop.time() + timeout
        for task in list(self._handshakes):
            task.cancel()
        for each in list(self.state.connections):
            each.shutdown()
        cut = 0
        try:
            await self._wait_until_empty(timeout / 2)
            for connection in list(self._open):
                connection.tell_stop()
            await self._wait_until_empty(until - self.loop.time())
        finally:  # also when whoever stops the service gives up on a loop that is late: nothing stays open behind it
            cut = self.cut()
        return cut

    async def _wait_until_empty(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, timeout)):
                while len(self):
                    self._change.clear()
                    await self._change.wait()

    def cut(self) -> int:
        """Close all connections at once; return how many there were."""
        self._is_closed = True
        for task in list(self._handshakes):
            task.cancel()
        left = list(self._open)
        for connection in left:
            connection.transport.abort()
        for task in list(self.state.tasks):
            task.cancel()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        return len(left)
