"""The server's end of calls on a unix socket: what ZeroMQ calls a ROUTER.

It keeps the loop awake for a moment after a message, where that saves time.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from ostler.aio.spin_backoff import SpinBackoff
from ostler.messaging.unix.listener import ClientConnection, UnixListener, read_peer
from ostler.messaging.unix.protocol import LARGE_MESSAGE_SIZE, SocketRole, encode_frame, encode_frame_header, greeting
from ostler.messaging.unix.socket_stream import CONGESTION_LIMIT
from ostler.messaging.wire.transport import ClientId, OnClientMessage, ServerHandler, TransportLimits
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.wire.peer_quotas import MemoryAccount, PeerQuotas


_SPIN_TIME = 50e-6
"""Seconds for which the loop stays awake after a message; as long as the kernel advises for its own busy polling."""
_PREEMPTION_TIME = 25e-6
"""Seconds between two turns of a loop that does nothing, after which somebody else has run on its core."""
_SLOW_SEND_TIME = 30e-6
"""Seconds that a send may take, unless whoever is woken up by it runs on the same core, and at once."""
_BACKOFF_TOLERANCE = 8
"""Another process may come in between now and then; whoever shares the core with its callers is put aside each time."""


class SpinWait:
    """Has the loop look for more instead of going to sleep: a wake-up costs more than a short call.

    On a core that its callers run on as well, it is they who pay for it. A loop that was put aside while it spins, or a
    thread while it sends, finds out by the clock, and the loop backs off. On the loop's thread, but for `record_send`.

    Args:
        can_spin: Asked each time. Not while threads have work: they need what the loop would use up.

    Attributes:
        is_spinning: Whether it keeps the loop awake now.
    """

    def __init__(self, can_spin: Callable[[], bool]) -> None:
        self.backoff = SpinBackoff(_BACKOFF_TOLERANCE)
        self._can_spin = can_spin
        self._loop = asyncio.get_running_loop()
        self._deadline = 0.0
        self._last_turn = 0.0
        self.is_spinning = False
        self._was_send_slow = False

    def record_send(self, seconds: float) -> None:
        """Record how long a send took. Any thread."""
        if seconds > _SLOW_SEND_TIME:
            self._was_send_slow = True

    def start(self) -> None:
        """Spin for a moment from now on; after a message."""
        if not self._can_spin():
            return
        if self._was_send_slow:
            self._was_send_slow = False
            self.backoff.record_wait(succeeded=False)
        elif self.is_spinning:
            self.backoff.record_wait(succeeded=True)
        if not self.is_spinning and self.backoff.should_wait():
            self.is_spinning = True
            self._loop.call_soon(self._spin)
        self._last_turn = now = self._loop.time()
        self._deadline = now + _SPIN_TIME

    def _spin(self) -> None:
        now = self._loop.time()
        preempted = now - self._last_turn > _PREEMPTION_TIME
        if preempted:
            self.backoff.record_wait(succeeded=False)
        if preempted or now >= self._deadline or not self._can_spin():
            self.is_spinning = False
            return
        self._last_turn = now
        self._loop.call_soon(self._spin)


_log = logging.getLogger(__name__)
_ROLE = SocketRole(greeting(b"ROUTER"), frozenset({b"DEALER", b"REQ"}))
_HEAD_SIZE = 256
"""Bytes of a message that say which request it is about."""
_SMALL_MESSAGE_SIZE = 4096
"""Bytes of a message that always finds room: it may be the one that says that there is none."""


class UnixServerLink:
    """The server's end of all its clients. On the loop's thread.

    Args:
        address: An `ipc://` address.
        limits: What the socket takes.
        fd: A listening socket that was handed over; None to make one.
        quotas: What its connections share with those of the daemon's other sockets.
        read_peer: Returns who is at the other end of a socket.

    Raises:
        OstlerError: The address cannot be taken; see `BoundUnixSocket`.
    """

    can_send_from_thread = True
    # From `start` on; nothing comes before that.
    _handler: ServerHandler
    _on_message: OnClientMessage

    def __init__(
        self,
        address: str,
        limits: TransportLimits,
        fd: int | None = None,
        quotas: PeerQuotas | None = None,
        *,
        read_peer: Callable[[socket.socket], Peer] = read_peer,
    ) -> None:
        self.address = address
        self.dropped_count = 0
        self.listener: UnixListener[ClientConnection] = UnixListener(
            address, limits, fd, _ROLE, ClientConnection, self, quotas, read_peer=read_peer
        )
        self._loop = asyncio.get_running_loop()
        self._corked: dict[ClientConnection, None] | None = None
        self._spin_wait = SpinWait(lambda: not self.listener.closed and self._handler.can_spin())

    def start(self, handler: ServerHandler) -> None:
        """See `ServerLink.start`."""
        self._handler = handler
        self._on_message = handler.on_message
        self.listener.start(handler)

    def send(self, client: ClientId, data: bytes) -> bool:
        """See `ServerLink.send`."""
        found = self.listener.clients.get(client)  # type: ignore[call-overload]  # whatever it is, we gave it away
        if found is None:
            return False
        channel = found.channel
        if (channel.buffered_bytes or len(data) > CONGESTION_LIMIT) and not self._can_buffer(found, len(data)):
            self.dropped_count += 1
            if (
                len(data) > _SMALL_MESSAGE_SIZE
            ):  # a small one may be what says that there is no room, and has none itself
                self._handler.on_unbuffered(client, data[:_HEAD_SIZE], found.peer)
            return True
        if self._corked is not None and found not in self._corked:
            self._corked[found] = None
            channel.cork()
        try:
            if len(data) >= LARGE_MESSAGE_SIZE:
                channel.write_large(encode_frame_header(len(data)), data)
            else:
                channel.write(encode_frame(data))
        except MemoryError:
            self._loop.call_soon(found.disconnect)  # its answer is lost: it is to know that at once
            return True
        if len(data) > CONGESTION_LIMIT:
            channel.uncork()  # so that what it takes is known before more is made for it
        return True

    def _can_buffer(self, client: ClientConnection, size: int) -> bool:
        """Return whether something may wait for a client that does not read at the moment."""
        if client.channel.is_blocked:
            return False
        return size <= _SMALL_MESSAGE_SIZE or client.memory.has_room(size)

    def is_congested(self, client: ClientId) -> bool:
        """See `ServerLink.is_congested`."""
        found = self.listener.clients.get(client)  # type: ignore[call-overload]  # whatever it is, we gave it away
        return found is not None and (found.channel.buffered_bytes > CONGESTION_LIMIT or not found.memory.has_room(0))

    def memory_account(self, client: ClientId) -> MemoryAccount | None:
        """See `ServerLink.memory`."""
        found = self.listener.clients.get(client)  # type: ignore[call-overload]  # whatever it is, we gave it away
        return found.memory if found is not None else None

    def report_invalid(self, client: ClientId) -> None:
        """See `ServerLink.garbage`."""
        found = self.listener.clients.get(client)  # type: ignore[call-overload]  # whatever it is, we gave it away
        if found is not None:
            self.listener.count_invalid(found)

    def peers(self) -> list[Peer]:
        """See `SupportsPeers.peers`."""
        return [client.peer for client in self.listener.clients.values()]

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `ServerLink.disconnect_unless`."""
        self.listener.disconnect_unless(allowed)

    @property
    def is_core_free(self) -> bool:
        """See `ServerLink.is_core_free`."""
        return self._spin_wait.backoff.should_wait()

    def send_from_thread(self, client: ClientId, data: bytes, claim: Callable[[], bool]) -> bool:
        """See `ServerLink.send_from_thread`."""
        found = self.listener.clients.get(client)  # type: ignore[call-overload]  # as above
        if found is None or (found.channel.buffered_bytes and not found.memory.has_room(len(data))):
            return False
        began = monotonic()
        sent: bool = found.channel.write_from_thread(encode_frame(data), claim)
        self._spin_wait.record_send(monotonic() - began)
        return sent

    def cork(self) -> None:
        """See `ServerLink.hold`."""
        self._corked = {}

    def uncork(self) -> None:
        """See `ServerLink.uncork`."""
        held, self._corked = self._corked, None
        for client in held or ():
            client.channel.uncork()
        if held:
            self._spin_wait.start()

    def close(self) -> None:
        """See `ServerLink.close`."""
        self.listener.close()

    # ---------------------------------------------------------------- an owner of a listener

    def on_messages(self, client: ClientConnection, messages: list[bytes], until: float) -> int:
        """See `ListenerOwner.on_messages`; what the client is sent meanwhile goes out together."""
        number, peer, channel = client.connection_id, client.peer, client.channel
        count = 0
        channel.cork()
        try:
            for message in messages:
                count += 1
                self._on_message(number, message, peer)
                if monotonic() >= until or channel.buffered_bytes > CONGESTION_LIMIT or client.closed:
                    break
            self._handler.on_batch_end()
        except Exception:  # noqa: BLE001 - a bug in the daemon must not stop the server
            _log.exception("a message could not be handled")
        finally:
            channel.uncork()
        self._spin_wait.start()
        return count

    def on_gone(self, client: ClientConnection) -> None:
        """See `ListenerOwner.on_gone`."""
        self._handler.on_client_gone(client.connection_id)

    def on_drained(self, client: ClientConnection) -> None:
        """See `ListenerOwner.on_drained`."""
        self._handler.on_client_drained(client.connection_id)

    def on_no_room(self, client: ClientConnection, head: bytes) -> None:
        """See `ListenerOwner.on_no_room`."""
        self._handler.on_unbuffered(client.connection_id, head, client.peer)
