"""The daemon's ports on the network: calls and events of other hosts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ostler.clock import Clock
from ostler.daemon.process.process_limits import connection_limits, descriptor_limit
from ostler.messaging.socket_transport import SocketTransport
from ostler.messaging.tcp.authenticator import Authenticator
from ostler.messaging.tcp.bind import next_port
from ostler.messaging.wire.transport import OnRefused, ServerLink, TransportLimits

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.messaging import RpcServer
    from ostler.messaging.tcp.curve import CurveOptions
    from ostler.messaging.wire.peer_quotas import PeerQuotas

_log = logging.getLogger(__name__)


class NetworkListener:
    """Listens on the network, always with CURVE. On the loop's thread only.

    Args:
        configuration: Addresses, public keys and limits.
        curve: The secret key, and the times of connections.
        clock: The source of time.
        make_server: Creates the server for the calls of a link.
        quotas: Limits shared with connections of the unix sockets.

    Raises:
        OstlerError: An address cannot be used.
    """

    def __init__(
        self,
        configuration: Configuration,
        curve: CurveOptions,
        clock: Clock,
        make_server: Callable[[ServerLink], RpcServer],
        quotas: PeerQuotas | None = None,
    ) -> None:
        options, messaging = configuration.network, configuration.messaging
        self._public_key = curve.key_pair.public
        limits = connection_limits(
            messaging.max_connections, descriptor_limit(), network=True, peers=len(options.peers)
        )
        self._authenticator = Authenticator(
            clock, limits.network, options.names_by_key(), handshake_timeout=options.heartbeat_timeout
        )
        self._transport = SocketTransport(
            options.rpc,
            options.events or next_port(options.rpc),
            limits=TransportLimits(max_message_size=messaging.max_message_size, max_queued=messaging.event_queue),
            curve=curve,
            authenticator=self._authenticator,
        )
        self._transport.quotas = quotas
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
        """The server for calls from other hosts."""

    def set_on_refused(self, on_refused: OnRefused) -> None:
        """Set the callback for each refused connection."""
        self._authenticator.on_refused = on_refused

    def start(self) -> None:
        """Start answering."""
        self.server.start()
        where = f"{self._transport.rpc}, events on {self._transport.events}"
        _log.info("listening for other hosts on %s, public key %s", where, self._public_key)

    def apply(self, configuration: Configuration) -> None:
        """Apply who may connect."""
        self._authenticator.set_authorised_keys(configuration.network.names_by_key())

    @property
    def address(self) -> str:
        """The address for calls of other hosts."""
        return self._transport.rpc

    def stats(self) -> dict[str, Any]:
        """Return the address, and the counters of the authenticator and of calls."""
        where = {"rpc": self._transport.rpc, "events": self._transport.events}
        return {**where, **self._authenticator.stats(), "calls": self.server.stats()}

    def close(self) -> None:
        """Stop listening, and close all connections."""
        self.server.close()
        self.events_link.close()
        self._transport.close()
