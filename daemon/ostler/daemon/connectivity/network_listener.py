"""The daemon's ports on the network: calls and events of other hosts."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ostler.clock import Clock
from ostler.daemon.process.process_limits import connection_limits, descriptor_limit
from ostler.messaging.socket_transport import SocketTransport
from ostler.messaging.tcp.authenticator import Authenticator
from ostler.messaging.tcp.bind import next_port
from ostler.messaging.wire.transport import Admission, OnRefused, TransportLimits

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.messaging.tcp.curve import CurveOptions
    from ostler.messaging.wire.peer_quotas import PeerQuotas

_log = logging.getLogger(__name__)


class NetworkListener:
    """Listens on the network, always with CURVE. On the loop's thread only.

    Args:
        configuration: Addresses, public keys and limits.
        curve: The secret key, and the times of connections.
        clock: The source of time.
        admission: Who may connect.
        on_refused: Called for each refused connection.
        quotas: Limits shared with connections of the unix sockets.

    Raises:
        OstlerError: An address cannot be used.
    """

    def __init__(
        self,
        configuration: Configuration,
        curve: CurveOptions,
        clock: Clock,
        admission: Admission,
        on_refused: OnRefused | None = None,
        quotas: PeerQuotas | None = None,
    ) -> None:
        options, messaging = configuration.network, configuration.messaging
        self._public_key = curve.key_pair.public
        limits = connection_limits(
            messaging.max_connections, descriptor_limit(), network=True, peers=len(options.peers)
        )
        self._authenticator = Authenticator(
            clock,
            limits.network,
            options.names_by_key(),
            handshake_timeout=options.heartbeat_timeout,
            admission=admission,
            on_refused=on_refused,
            quotas=quotas,
        )
        self._transport = SocketTransport(
            options.rpc,
            options.events or next_port(options.rpc),
            limits=TransportLimits(max_message_size=messaging.max_message_size, max_queued=messaging.event_queue),
            curve=curve,
            authenticator=self._authenticator,
        )
        with ExitStack() as undo:
            undo.callback(self._transport.close)
            self.rpc_link = self._transport.serve_rpc()
            """The server's end for callers on other hosts."""
            undo.callback(self.rpc_link.close)
            self.events_link = self._transport.serve_events()
            """The publisher's end for subscribers on other hosts."""
            undo.pop_all()

    def log_addresses(self) -> None:
        """Log where it listens, and with which key."""
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
        """Return the addresses, and the counters of the authenticator."""
        return {"rpc": self._transport.rpc, "events": self._transport.events, **self._authenticator.stats()}

    def close(self) -> None:
        """Stop listening, and close all connections."""
        self.rpc_link.close()
        self.events_link.close()
        self._transport.close()
