"""The server's end of calls on a unix socket: what ZeroMQ calls a ROUTER."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from ostler.clock import Clock
from ostler.messaging.transport import (
    EVERYBODY,
    ClientId,
    Limits,
    OnGarbage,
    OnUnkept,
    Receive,
    ignore_batch,
    ignore_garbage,
    ignore_gone,
    ignore_unkept,
)
from ostler.messaging.zmtp.channel import CONGESTED
from ostler.messaging.zmtp.listener import Client, Listener
from ostler.messaging.zmtp.spin import SpinWait
from ostler.messaging.zmtp.talk import LARGE, Part, frame, frame_head, hello
from ostler.types import Peer

if TYPE_CHECKING:
    from ostler.messaging.memory_accounts import MemoryAccount
    from ostler.messaging.shares import PeerShares

_log = logging.getLogger(__name__)
_PART = Part(hello(b"ROUTER"), frozenset({b"DEALER", b"REQ"}))
_HEAD_SIZE = 256
"""Bytes of a message that say which request it is about."""
_SMALL = 4096
"""Bytes of a message that always finds room: it may be the one that says that there is none."""


class UnixServerLink:
    """The server's end of all its clients. On the loop's thread.

    Args:
        address: An `ipc://` address.
        limits: What the socket takes.
        fd: A listening socket that was handed over; None to make one.
        clock: The source of time.
        shares: What its connections share with those of the daemon's other sockets.

    Raises:
        OstlerError: The address cannot be taken; see `BoundSocket`.
    """

    threads_send = True

    def __init__(
        self,
        address: str,
        limits: Limits,
        fd: int | None = None,
        clock: Clock | None = None,
        shares: PeerShares | None = None,
    ) -> None:
        self.address = address
        self.dropped = 0
        self.on_garbage: OnGarbage = ignore_garbage
        self.on_batch: Callable[[], None] = ignore_batch
        self.on_gone: Callable[[ClientId], None] = ignore_gone
        self.admission = EVERYBODY
        self.on_drained: Callable[[ClientId], None] = ignore_gone
        self.on_unkept: OnUnkept = ignore_unkept
        self.may_linger: Callable[[], bool] = lambda: True
        self.listener: Listener[Client] = Listener(address, limits, fd, _PART, Client, clock, shares)
        self._loop = asyncio.get_running_loop()
        self._held: dict[Client, None] | None = None
        self._receive: Receive = _ignore
        self._spin = SpinWait(lambda: self.may_linger() and not self.listener.closed)

    def start(self, receive: Receive) -> None:
        """See `ServerLink.start`."""
        self._receive = receive
        listener = self.listener
        listener.receive = self._arrived
        listener.admission = self.admission
        listener.on_gone = lambda client: self.on_gone(client.number)
        listener.on_drained = lambda client: self.on_drained(client.number)
        listener.no_room = lambda client, head: self.on_unkept(client.number, head, client.peer)
        listener.on_garbage = self.on_garbage
        listener.start()

    def send(self, client: ClientId, data: bytes) -> bool:
        """See `ServerLink.send`."""
        found = self.listener.clients.get(client)  # type: ignore[call-overload]  # whatever it is, we gave it away
        if found is None:
            return False
        channel = found.channel
        if (channel.unsent or len(data) > CONGESTED) and not self._may_wait(found, len(data)):
            self.dropped += 1
            if len(data) > _SMALL:  # a small one may be what says that there is no room, and has none itself
                self.on_unkept(client, data[:_HEAD_SIZE], found.peer)
            return True
        if self._held is not None and found not in self._held:
            self._held[found] = None
            channel.hold()
        try:
            if len(data) >= LARGE:
                channel.write_large(frame_head(len(data)), data)
            else:
                channel.write(frame(data))
        except MemoryError:
            self._loop.call_soon(found.ended)  # its answer is lost: it is to know that at once
            return True
        if len(data) > CONGESTED:
            channel.let_go()  # so that what it takes is known before more is made for it
        return True

    def _may_wait(self, client: Client, size: int) -> bool:
        """Return whether something may wait for a client that does not read at the moment."""
        if client.channel.stuck:
            return False
        return size <= _SMALL or client.memory.room(size)

    def congested(self, client: ClientId) -> bool:
        """See `ServerLink.congested`."""
        found = self.listener.clients.get(client)  # type: ignore[call-overload]  # whatever it is, we gave it away
        return found is not None and (found.channel.unsent > CONGESTED or not found.memory.room(0))

    def memory(self, client: ClientId) -> MemoryAccount | None:
        """See `ServerLink.memory`."""
        found = self.listener.clients.get(client)  # type: ignore[call-overload]  # whatever it is, we gave it away
        return found.memory if found is not None else None

    def garbage(self, client: ClientId) -> None:
        """See `ServerLink.garbage`."""
        found = self.listener.clients.get(client)  # type: ignore[call-overload]  # whatever it is, we gave it away
        if found is not None:
            self.listener.count_garbage(found)

    def disconnect_unless(self, allowed: Callable[[Peer], bool]) -> None:
        """See `ServerLink.disconnect_unless`."""
        self.listener.disconnect_unless(allowed)

    @property
    def core_is_ours(self) -> bool:
        """See `ServerLink.core_is_ours`."""
        return self._spin.backoff.left()

    def send_from_thread(self, client: ClientId, data: bytes, claim: Callable[[], bool]) -> bool:
        """See `ServerLink.send_from_thread`."""
        found = self.listener.clients.get(client)  # type: ignore[call-overload]  # as above
        if found is None or (found.channel.unsent and not found.memory.room(len(data))):
            return False
        began = monotonic()
        sent: bool = found.channel.write_from_thread(frame(data), claim)
        self._spin.sent(monotonic() - began)
        return sent

    def hold(self) -> None:
        """See `ServerLink.hold`."""
        self._held = {}

    def let_go(self) -> None:
        """See `ServerLink.let_go`."""
        held, self._held = self._held, None
        for client in held or ():
            client.channel.let_go()
        if held:
            self._spin.begin()

    def close(self) -> None:
        """See `ServerLink.close`."""
        self.listener.close()

    def _arrived(self, client: Client, messages: list[bytes], until: float) -> int:
        """Hand over what a client sent, until this moment; what it is sent meanwhile goes out together.

        Returns how many were handed over.
        """
        number, peer, channel = client.number, client.peer, client.channel
        count = 0
        channel.hold()
        try:
            for message in messages:
                count += 1
                self._receive(number, message, peer)
                if monotonic() >= until or channel.unsent > CONGESTED or client.closed:
                    break
            self.on_batch()
        except Exception:  # noqa: BLE001 - a defect of ours must not take the server down
            _log.exception("a message could not be handled")
        finally:
            channel.let_go()
        self._spin.begin()
        return count


def _ignore(_client: ClientId, _data: object, _peer: object) -> None:
    """Stand in until the server has started."""
