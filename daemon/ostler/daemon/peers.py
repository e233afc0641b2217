"""The daemon's links to other daemons, and what is kept of their services in the database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import zmq

from ostler.aio import TaskOwner
from ostler.clock import Clock
from ostler.errors import OstlerError, StoreError, describe
from ostler.messaging.peers import Fleet, OnPeer, PeerAddress, PeerDaemon
from ostler.messaging.routing import Router
from ostler.messaging.transport import Limits, Transport
from ostler.messaging.zmq import ZmqTransport
from ostler.store import Store
from ostler.store.observed import ObservedServices
from ostler.types import HostIdentity, ServiceStatus

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.messaging.identities import HostIdentities
    from ostler.messaging.zmq.curve import Network

_log = logging.getLogger(__name__)
_REFRESH = 2.0
"""Seconds that a peer has to say how its services are, or who it is."""


class PeerLinks:
    """Keeps a link to each peer of the configuration, and its services in the services table. On the loop.

    Args:
        configuration: Where the peers are, and their public keys.
        network: Our own secret key, and the times of connections.
        router: Brings requests to them.
        store: The database.
        clock: The source of time.
        on_news: Told after something has changed of what is known of a peer.
        on_change: Told what becomes of each peer.
        mine: Who this daemon is, for the others.
    """

    def __init__(
        self,
        configuration: Configuration,
        network: Network,
        router: Router,
        store: Store,
        clock: Clock,
        on_news: Callable[[], None],
        on_change: OnPeer | None = None,
        mine: HostIdentity | None = None,
    ) -> None:
        # A context of its own: to look up the name of a host may take its time, which is not to hold up others.
        self._context = zmq.Context()
        self._configuration = configuration
        self._network = network
        self._router = router
        self._observed = ObservedServices(store, clock)
        self._store = store
        self._writes = TaskOwner("services of peers")
        self._on_news = on_news
        self.fleet = Fleet(self._transport, clock, configuration.messaging.call_timeout, self._news)
        self.fleet.on_change = on_change
        self.fleet.mine = mine
        self.apply(configuration)
        router.fleet = self.fleet

    def apply(self, configuration: Configuration) -> None:
        """Take over where the peers are, and their keys."""
        options = configuration.network
        self._configuration = configuration
        addresses = {
            host: PeerAddress(peer.rpc, tuple(options.keys_of(host)))
            for host, peer in options.peers.items()
            if host != self._router.host
        }
        self.fleet.set(addresses, options.poll_interval)

    async def check(self, identities: HostIdentities, other: HostIdentity, key: str, host: str) -> None:
        """Take note of a daemon that says who it is; raises as `HostIdentities.greet`."""
        peer = self.fleet.peers.get(host)
        linked = peer.identity if peer is not None and peer.up else None

        async def ask() -> HostIdentity | None:
            assert peer is not None  # noqa: S101 - asked only when there is a link
            try:
                async with asyncio.timeout(_REFRESH):
                    peer.identity = await peer.introduce()
                    return peer.identity
            except (OstlerError, TimeoutError):
                return None

        await identities.greet(other, key, host, linked, ask)

    def reports(self, host: str, topic: str) -> bool:
        """Return whether a peer that can be reached has a service on a topic."""
        peer = self.fleet.peers.get(host)
        return peer is not None and peer.up and peer.has(topic)

    async def refresh(self, host: str) -> None:
        """Ask a peer for its services now, and keep what it says; what cannot be had comes with the next look.

        For what was just done there: who is here next is not to be shown, or given, what was before.
        """
        peer = self.fleet.peers.get(host)
        if peer is None or not peer.up:
            return
        try:
            async with asyncio.timeout(_REFRESH):
                await peer.refresh()
        except (OstlerError, TimeoutError) as error:
            _log.debug("%s was not asked for its services: %s", host, describe(error))

    def stats(self) -> dict[str, Any]:
        """Return what is known of each peer."""
        return self.fleet.stats()

    async def close(self) -> None:
        """End all links."""
        self._router.fleet = None
        await self.fleet.close()
        await self._writes.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self._context.term)

    def _transport(self, address: PeerAddress, key: str) -> Transport:
        messaging = self._configuration.messaging
        limits = Limits(max_message_size=messaging.max_message_size, queue=messaging.event_queue)
        network = self._network._replace(server=key)
        return ZmqTransport(address.rpc, limits=limits, network=network, context=self._context)

    def heard_from(self, host: str) -> None:
        """Take note that another daemon has called: one that was away is asked at once."""
        peer = self.fleet.peers.get(host)
        if peer is not None:
            peer.hurry()

    def _news(self, peer: PeerDaemon) -> None:
        self._on_news()
        host, rows = peer.host, list(peer.services.values())
        if peer.up and self._observed.is_news(host, rows):
            self._writes.spawn(self._keep(host, rows), name=f"keep the services of {host}")

    async def _keep(self, host: str, rows: Sequence[ServiceStatus]) -> None:
        try:
            await self._store.awrite(lambda: self._observed.keep(host, rows), label=f"services of {host}")
        except StoreError as error:
            _log.debug("the services of %s were not kept: %s", host, describe(error))
