"""The server's end of calls on a unix socket: what ZeroMQ calls a ROUTER."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from ostler.clock import Clock
from ostler.messaging.transport import (
    ClientId,
    Limits,
    OnGarbage,
    Receive,
    ignore_batch,
    ignore_garbage,
    ignore_gone,
    take_for_known,
)
from ostler.messaging.zmtp.listener import STRANGERS_SHARE, Client, Listener
from ostler.messaging.zmtp.spin import SpinWait
from ostler.messaging.zmtp.talk import Part, frame, hello
from ostler.types import Peer

_log = logging.getLogger(__name__)
_PART = Part(hello(b"ROUTER"), frozenset({b"DEALER", b"REQ"}))


class UnixServerLink:
    """The server's end of all its clients. On the loop's thread.

    Args:
        address: An `ipc://` address.
        limits: What the socket takes.
        fd: A listening socket that was handed over; None to make one.
        clock: The source of time.

    Raises:
        OstlerError: The address cannot be taken; see `BoundSocket`.
    """

    threads_send = True

    def __init__(self, address: str, limits: Limits, fd: int | None = None, clock: Clock | None = None) -> None:
        self.address = address
        self.dropped = 0
        self.on_garbage: OnGarbage = ignore_garbage
        self.on_batch: Callable[[], None] = ignore_batch
        self.on_gone: Callable[[ClientId], None] = ignore_gone
        self.knows: Callable[[Peer], bool] = take_for_known
        self.may_linger: Callable[[], bool] = lambda: True
        self.listener: Listener[Client] = Listener(address, limits, fd, _PART, Client, clock)
        self._held: dict[Client, None] | None = None
        self._receive: Receive = _ignore
        self._spin = SpinWait(lambda: self.may_linger() and not self.listener.closed)

    def start(self, receive: Receive) -> None:
        """See `ServerLink.start`."""
        self._receive = receive
        listener = self.listener
        listener.receive = self._arrived
        listener.knows = self.knows
        listener.on_gone = lambda client: self.on_gone(client.number)
        listener.on_garbage = self.on_garbage
        listener.start()

    def send(self, client: ClientId, data: bytes) -> bool:
        """See `ServerLink.send`."""
        found = self.listener.clients.get(client)  # type: ignore[call-overload]  # whatever it is, we gave it away
        if found is None:
            return False
        channel = found.channel
        if channel.unsent > STRANGERS_SHARE and (channel.stuck or not self.knows(found.peer)):
            self.dropped += 1  # it does not read; its calls will see that they have been forgotten
            return True
        if self._held is not None and found not in self._held:
            self._held[found] = None
            channel.hold()
        channel.write(frame(data))
        return True

    @property
    def core_is_ours(self) -> bool:
        """See `ServerLink.core_is_ours`."""
        return self._spin.backoff.left()

    def send_from_thread(self, client: ClientId, data: bytes, claim: Callable[[], bool]) -> bool:
        """See `ServerLink.send_from_thread`."""
        found = self.listener.clients.get(client)  # type: ignore[call-overload]  # as above
        if found is None:
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

    def _arrived(self, client: Client, messages: list[bytes]) -> None:
        """Hand over what a client sent; what it is sent meanwhile goes out together."""
        number, peer, channel = client.number, client.peer, client.channel
        channel.hold()
        try:
            for message in messages:
                self._receive(number, message, peer)
            self.on_batch()
        except Exception:  # noqa: BLE001 - a defect of ours must not take the server down
            _log.exception("a message could not be handled")
        finally:
            channel.let_go()
        self._spin.begin()


def _ignore(_client: ClientId, _data: object, _peer: object) -> None:
    """Stand in until the server has started."""
