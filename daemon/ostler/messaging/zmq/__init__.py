"""The transport over ZeroMQ sockets: ROUTER and DEALER for calls, XPUB and SUB for events.

A server's sockets are driven from their descriptor by the loop: it is edge-triggered and means "look at the events",
so everything is read until nothing is left, and looked at again after each send. `server`, `events` and `loop` need
asyncio, `blocking` does not: the command imports only that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ostler.messaging.transport import AsyncLink, Limits, Link, OnLost, OnMessage

if TYPE_CHECKING:
    import zmq

    from ostler.messaging.zmq.events import XPubLink
    from ostler.messaging.zmq.server import RouterLink


class ZmqTransport:
    """Opens links over ZeroMQ.

    Args:
        rpc: The address for calls, `ipc:///run/ostler/rpc.sock`.
        events: The address for events.
        limits: What the sockets take.
        rpc_fd: A listening socket for calls that was handed over (socket activation); None to make one.
        events_fd: The same for events.
    """

    def __init__(
        self,
        rpc: str,
        events: str = "",
        *,
        limits: Limits | None = None,
        rpc_fd: int | None = None,
        events_fd: int | None = None,
    ) -> None:
        self.rpc = rpc
        self.events = events
        self.limits = limits or Limits()
        self._rpc_fd = rpc_fd
        self._events_fd = events_fd
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None

    def _zmq(self) -> zmq.Context[zmq.Socket[bytes]]:
        import zmq

        if self._context is None:
            self._context = zmq.Context()
        return self._context

    def serve_rpc(self) -> RouterLink:
        """See `Transport.serve_rpc`.

        Raises:
            Conflict: Another daemon listens there.
            NotPermitted: The folder of the socket may not be written.
            InvalidInput: The address cannot be used.
        """
        from ostler.messaging.zmq.server import RouterLink

        return RouterLink(self._zmq(), self.rpc, self.limits, self._rpc_fd)

    def serve_events(self) -> XPubLink:
        """See `Transport.serve_events`; raises as `serve_rpc`."""
        from ostler.messaging.zmq.events import XPubLink

        return XPubLink(self._zmq(), self.events, self.limits, self._events_fd)

    def connect(self) -> Link:
        """See `Transport.connect`."""
        from ostler.messaging.zmq.blocking import BlockingLink, dealer

        return BlockingLink(dealer(self._zmq(), self.rpc, self.limits))

    def connect_async(self, on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """See `Transport.connect_async`."""
        from ostler.messaging.zmq.blocking import dealer
        from ostler.messaging.zmq.loop import LoopLink

        return LoopLink(dealer(self._zmq(), self.rpc, self.limits), on_message, on_lost)

    def subscribe(self, prefixes: Iterable[bytes]) -> Link:
        """See `Transport.subscribe`."""
        from ostler.messaging.zmq.blocking import BlockingLink, subscriber

        return BlockingLink(subscriber(self._zmq(), self.events, self.limits, prefixes))

    def subscribe_async(self, prefixes: Iterable[bytes], on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """See `Transport.subscribe_async`."""
        from ostler.messaging.zmq.blocking import subscriber
        from ostler.messaging.zmq.loop import LoopLink

        return LoopLink(subscriber(self._zmq(), self.events, self.limits, prefixes), on_message, on_lost)

    def close(self) -> None:
        """See `Transport.close`; waits for what was sent last, for as long as the sockets linger."""
        context, self._context = self._context, None
        if context is not None:
            context.term()
