"""The transport over ZeroMQ sockets: ROUTER and DEALER for calls, XPUB and SUB for events.

On unix sockets we speak its protocol ourselves (`ostler.messaging.zmtp`), and libzmq is not even loaded. On a network
(`tcp://`) libzmq speaks, and nobody talks without CURVE (`curve`); `zap` decides who may connect. A server's sockets
are driven from their descriptor by the loop: it is edge-triggered and means "look at the events", so everything is read
until nothing is left, and looked at again after each send. `server`, `events` and `loop` need asyncio, `blocking` does
not: the command imports only that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from ostler.messaging.transport import (
    AsyncLink,
    EventLink,
    Limits,
    Link,
    OnLost,
    OnMessage,
    OnRefused,
    ServerLink,
    ignore_refused,
)

if TYPE_CHECKING:
    import zmq

    from ostler.errors import OstlerError
    from ostler.messaging.shares import PeerShares
    from ostler.messaging.zmq.curve import Network
    from ostler.messaging.zmq.listen import Listening
    from ostler.messaging.zmq.zap import Door
    from ostler.messaging.zmtp.listener import Listener
    from ostler.types import Peer


class ZmqTransport:
    """Opens links over ZeroMQ.

    Args:
        rpc: The address for calls, `ipc:///run/ostler/rpc.sock` or `tcp://node1:7890`.
        events: The address for events.
        limits: What the sockets take.
        rpc_fd: A listening socket for calls that was handed over (socket activation); None to make one.
        events_fd: The same for events.
        network: The keys and times of `tcp://` addresses, which cannot do without.
        door: Decides who may connect to our own sockets; None to let in who can.
        context: The ZeroMQ context to use, which somebody else ends; None for one of our own.
    """

    def __init__(
        self,
        rpc: str,
        events: str = "",
        *,
        limits: Limits | None = None,
        rpc_fd: int | None = None,
        events_fd: int | None = None,
        network: Network | None = None,
        door: Door | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.rpc = rpc
        self.events = events
        self.limits = limits or Limits()
        self.network = network
        self.on_refused: OnRefused = ignore_refused
        self.shares: PeerShares | None = None
        self._listeners: list[Listener[Any]] = []
        self._rpc_fd = rpc_fd
        self._events_fd = events_fd
        self._door = door
        self._shared = context
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._of_process = 0
        self._of_parents: list[zmq.Context[zmq.Socket[bytes]]] = []

    def _zmq(self) -> zmq.Context[zmq.Socket[bytes]]:
        import zmq

        if self._context is not None and self._of_process != os.getpid():
            # Its threads are the parent's, and to end it would wait for them: it is kept and left alone.
            self._of_parents.append(self._context)
            self._context = None
        if self._context is None:
            self._context, self._of_process = self._shared or zmq.Context(), os.getpid()
        return self._context

    def serve_rpc(self) -> ServerLink:
        """See `Transport.serve_rpc`.

        Raises:
            Conflict: Another daemon listens there.
            NotPermitted: The folder of the socket may not be written, or the port not be used.
            InvalidInput: The address cannot be used.
        """
        if self.rpc.startswith("ipc:"):
            from ostler.messaging.zmtp.server import UnixServerLink

            link = UnixServerLink(self.rpc, self.limits, self._rpc_fd, shares=self.shares)
            link.listener.on_refused = self._refused
            self._listeners.append(link.listener)
            return link
        from ostler.messaging.zmq.server import RouterLink

        port = RouterLink(self._zmq(), self.rpc, self._listening())
        self.rpc = port.address  # port 0 has become a real one
        return port

    def serve_events(self) -> EventLink:
        """See `Transport.serve_events`; raises as `serve_rpc`."""
        if self.events.startswith("ipc:"):
            from ostler.messaging.zmtp.events import UnixEventLink

            link = UnixEventLink(self.events, self.limits, self._events_fd, shares=self.shares)
            link.listener.on_refused = self._refused
            self._listeners.append(link.listener)
            return link
        from ostler.messaging.zmq.events import XPubLink

        port = XPubLink(self._zmq(), self.events, self._listening())
        self.events = port.address
        return port

    def set_socket_mode(self, mode: int) -> None:
        """Give the files of the unix sockets that we made another mode, as a reload does."""
        self.limits = msgspec.structs.replace(self.limits, socket_mode=mode)
        for listener in self._listeners:
            listener.set_mode(mode)

    def restore_sockets(self, *, unreachable: bool = False) -> list[str]:
        """See `SocketFiles.restore_sockets`."""
        return [each.address for each in self._listeners if each.restore(unreachable=unreachable)]

    def _refused(self, peer: Peer, error: OstlerError) -> None:
        self.on_refused(peer, error)

    def _listening(self) -> Listening:
        from ostler.messaging.zmq.listen import Listening

        if self._door is not None:
            if self.shares is not None:
                self._door.sessions.shares = self.shares
            self._door.open(self._zmq())
        # The public key of the server is for its clients: with it, the socket would be one of theirs.
        network = self.network._replace(server="") if self.network is not None else None
        return Listening(self.limits, network, self._door)

    def connect(self) -> Link:
        """See `Transport.connect`."""
        if self.rpc.startswith("ipc:"):
            from ostler.messaging.zmtp.blocking import BlockingUnixLink

            return BlockingUnixLink(self.rpc, self.limits)
        from ostler.messaging.zmq.blocking import BlockingLink, dealer

        return BlockingLink(dealer(self._zmq(), self.rpc, self.limits, self.network))

    def connect_async(self, on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """See `Transport.connect_async`."""
        if self.rpc.startswith("ipc:"):
            from ostler.messaging.zmtp.loop import LoopUnixLink

            return LoopUnixLink(self.rpc, self.limits, on_message, on_lost)
        from ostler.messaging.zmq.blocking import dealer
        from ostler.messaging.zmq.loop import LoopLink

        return LoopLink(dealer(self._zmq(), self.rpc, self.limits, self.network), on_message, on_lost)

    def subscribe(self, prefixes: Iterable[bytes]) -> Link:
        """See `Transport.subscribe`."""
        if self.events.startswith("ipc:"):
            from ostler.messaging.zmtp.blocking import BlockingUnixLink

            return BlockingUnixLink(self.events, self.limits, prefixes)
        from ostler.messaging.zmq.blocking import BlockingLink, subscriber

        return BlockingLink(subscriber(self._zmq(), self.events, self.limits, prefixes, self.network))

    def subscribe_async(self, prefixes: Iterable[bytes], on_message: OnMessage, on_lost: OnLost) -> AsyncLink:
        """See `Transport.subscribe_async`."""
        if self.events.startswith("ipc:"):
            from ostler.messaging.zmtp.loop import LoopUnixLink

            return LoopUnixLink(self.events, self.limits, on_message, on_lost, prefixes)
        from ostler.messaging.zmq.blocking import subscriber
        from ostler.messaging.zmq.loop import LoopLink

        return LoopLink(subscriber(self._zmq(), self.events, self.limits, prefixes, self.network), on_message, on_lost)

    def close(self) -> None:
        """See `Transport.close`; waits for what was sent last, for as long as the sockets linger."""
        context, self._context = self._context, None
        if self._door is not None:
            self._door.close()
        if context is not None and context is not self._shared and self._of_process == os.getpid():
            context.term()
