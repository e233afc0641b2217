"""The daemon's ports on the network: calls and events of other hosts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ostler.clock import Clock
from ostler.daemon.limits import connection_limits, descriptor_limit
from ostler.messaging.transport import Limits, OnRefused, ServerLink
from ostler.messaging.zmq import ZmqTransport
from ostler.messaging.zmq.tcp import next_port
from ostler.messaging.zmq.zap import Door

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.messaging import RpcServer
    from ostler.messaging.shares import PeerShares
    from ostler.messaging.zmq.curve import Network

_log = logging.getLogger(__name__)


class Ports:
    """Listens on the network, always with CURVE. On the loop's thread only.

    Args:
        configuration: Addresses, public keys and limits.
        network: The secret key, and the times of connections.
        clock: The source of time.
        make_server: Makes what answers the calls of a link.
        shares: What connections share with those of the unix sockets.

    Raises:
        OstlerError: An address cannot be used.
    """

    def __init__(
        self,
        configuration: Configuration,
        network: Network,
        clock: Clock,
        make_server: Callable[[ServerLink], RpcServer],
        shares: PeerShares | None = None,
    ) -> None:
        options, messaging = configuration.network, configuration.messaging
        self._public = network.keys.public
        limits = connection_limits(
            messaging.max_connections, descriptor_limit(), network=True, peers=len(options.peers)
        )
        self._door = Door(clock, limits.network, options.names(), handshake=options.silence)
        self._transport = ZmqTransport(
            options.rpc,
            options.events or next_port(options.rpc),
            limits=Limits(max_message_size=messaging.max_message_size, queue=messaging.event_queue),
            network=network,
            door=self._door,
        )
        self._transport.shares = shares
        try:
            link = self._transport.serve_rpc()
            try:
                self.events_link = self._transport.serve_events()
                """The publisher's end for subscribers on other hosts."""
            except BaseException:
                link.close()
                raise
        except BaseException:
            self._transport.close()
            raise
        self.server = make_server(link)
        """What answers calls from other hosts."""

    def tell_refused(self, told: OnRefused) -> None:
        """Tell of each connection that is not let in."""
        self._door.on_refused = told

    def start(self) -> None:
        """Begin to answer."""
        self.server.start()
        where = f"{self._transport.rpc}, events on {self._transport.events}"
        _log.info("other hosts reach this daemon on %s, its public key is %s", where, self._public)

    def apply(self, configuration: Configuration) -> None:
        """Take over who may connect."""
        self._door.admit_only(configuration.network.names())

    @property
    def address(self) -> str:
        """Where other hosts send calls."""
        return self._transport.rpc

    def stats(self) -> dict[str, Any]:
        """Return where we listen, and the counters of the door and of calls."""
        where = {"rpc": self._transport.rpc, "events": self._transport.events}
        return {**where, **self._door.stats(), "calls": self.server.stats()}

    def close(self) -> None:
        """Listen no more, and end all connections."""
        self.server.close()
        self.events_link.close()
        self._transport.close()
