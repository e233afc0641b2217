"""The daemon's links to other daemons, and the records of their services in the database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import zmq

from ostler.aio import TaskOwner
from ostler.clock import Clock
from ostler.errors import OstlerError, StoreError, error_line
from ostler.messaging.network.peers import OnPeerStateChange, PeerAddress, PeerDaemon, PeerSet
from ostler.messaging.network.routing import Router
from ostler.messaging.socket_transport import SocketTransport
from ostler.messaging.tcp.bind import next_port
from ostler.messaging.wire.transport import Transport, TransportLimits
from ostler.store import Store
from ostler.store.records.remote_services import RemoteServices
from ostler.types import HostIdentity, ServiceStatus

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.messaging.network.peer_identities import PeerIdentities
    from ostler.messaging.tcp.curve import CurveOptions

_log = logging.getLogger(__name__)
_REFRESH_TIMEOUT = 2.0
"""Seconds that a peer has to report its services, or its identity."""


class PeerLinks:
    """Maintains a link to each peer of the configuration, and its rows in the services table. On the loop.

    Args:
        configuration: Where the peers are, and their public keys.
        curve: Our own secret key, and the times of connections.
        router: Routes requests to them.
        store: The database.
        clock: The source of time.
        on_update: Called after the known state of a peer has changed.
        on_state_change: Called with each change of a peer.
        own_identity: The identity of this daemon.
    """

    def __init__(
        self,
        configuration: Configuration,
        curve: CurveOptions,
        router: Router,
        store: Store,
        clock: Clock,
        on_update: Callable[[], None],
        on_state_change: OnPeerStateChange | None = None,
        own_identity: HostIdentity | None = None,
    ) -> None:
        # A context of its own: resolving the name of a host may take long and must not delay others.
        self._context = zmq.Context()
        self._configuration = configuration
        self._curve = curve
        self._router = router
        self._remote_services = RemoteServices(store, clock)
        self._store = store
        self._write_tasks = TaskOwner("services of peers")
        self._on_update = on_update
        self.peers = PeerSet(
            self._make_transport,
            clock,
            configuration.messaging.call_timeout,
            self._on_peer_update,
            on_state_change,
            own_identity,
            lambda: router.forced_down,
        )
        self.apply(configuration)
        router.peers = self.peers  # assigned: the router is older, and a reload may bring the first peers

    def apply(self, configuration: Configuration) -> None:
        """Apply the addresses and keys of the peers."""
        options = configuration.network
        self._configuration = configuration
        addresses = {
            host: PeerAddress(peer.rpc, tuple(options.public_keys(host)))
            for host, peer in options.peers.items()
            if host != self._router.host
        }
        self.peers.configure(addresses, options.poll_interval)

    async def check_identity(self, identities: PeerIdentities, identity: HostIdentity, key: str, host: str) -> None:
        """Record the identity of a daemon; raises as `PeerIdentities.greet`."""
        peer = self.peers.peers.get(host)
        linked = peer.peer_identity if peer is not None and peer.up else None

        async def ask() -> HostIdentity | None:
            assert peer is not None  # noqa: S101 - asked only when there is a link
            try:
                async with asyncio.timeout(_REFRESH_TIMEOUT):
                    peer.peer_identity = await peer.exchange_identity()
                    return peer.peer_identity
            except (OstlerError, TimeoutError):
                return None

        await identities.check_peer(identity, key, host, linked, ask)

    def has_service(self, host: str, topic: str) -> bool:
        """Return whether a reachable peer has a service on a topic."""
        peer = self.peers.peers.get(host)
        return peer is not None and peer.up and peer.runs(topic)

    async def refresh(self, host: str) -> None:
        """Ask a peer for its services now, and store them; on failure they come with the next poll.

        Used after an operation there, so that the next caller here does not see, or get, the state before it.
        """
        peer = self.peers.peers.get(host)
        if peer is None or not peer.up:
            return
        try:
            async with asyncio.timeout(_REFRESH_TIMEOUT):
                await peer.refresh()
        except (OstlerError, TimeoutError) as error:
            _log.debug("could not ask %s for its services: %s", host, error_line(error))

    def stats(self) -> dict[str, Any]:
        """Return what is known of each peer."""
        return self.peers.stats()

    async def close(self) -> None:
        """End all links."""
        self._router.peers = None
        await self.peers.close()
        await self._write_tasks.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self._context.term)

    def _make_transport(self, address: PeerAddress, key: str) -> Transport:
        messaging = self._configuration.messaging
        limits = TransportLimits(max_message_size=messaging.max_message_size, max_queued=messaging.event_queue)
        network = self._curve._replace(server_key=key)
        events_address = next_port(address.rpc_address)
        return SocketTransport(address.rpc_address, events_address, limits=limits, curve=network, context=self._context)

    def on_peer_call(self, host: str) -> None:
        """Record that another daemon has called: one that was unreachable is polled at once."""
        peer = self.peers.peers.get(host)
        if peer is not None:
            peer.retry_now()

    def _on_peer_update(self, peer: PeerDaemon) -> None:
        self._on_update()
        host, rows = peer.host, list(peer.services.values())
        if peer.up and self._remote_services.needs_write(host, rows):
            self._write_tasks.spawn(self._store_services(host, rows), name=f"store the services of {host}")

    async def _store_services(self, host: str, rows: Sequence[ServiceStatus]) -> None:
        try:
            await self._store.awrite(lambda: self._remote_services.save(host, rows), label=f"services of {host}")
        except StoreError as error:
            _log.debug("the services of %s were not stored: %s", host, error_line(error))
