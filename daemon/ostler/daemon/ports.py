"""The daemon's ports on the network: calls and events of other hosts, and the exchange of the daemon's key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ostler.clock import Clock
from ostler.daemon.limits import connection_limits, descriptor_limit
from ostler.errors import OstlerError
from ostler.messaging.event_links import EventLinks
from ostler.messaging.transport import EventLink, Limits, OnRefused, ServerLink
from ostler.messaging.zmq import ZmqTransport
from ostler.messaging.zmq.curve import Network, keys_of
from ostler.messaging.zmq.server import RouterLink
from ostler.messaging.zmq.tcp import next_port
from ostler.messaging.zmq.zap import Door

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.messaging import RpcServer
    from ostler.messaging.shares import PeerShares
    from ostler.messaging.zmq.events import XPubLink

_log = logging.getLogger(__name__)
_LOOK_EVERY = 2.0
"""Seconds between two looks whether anybody still has a connection that was made with the key before."""
_LET_GO = 0.5
"""Seconds that a closed port may take until the kernel has let go of it."""


class _Generation(NamedTuple):
    """What listens with one key."""

    rpc: RouterLink
    server: RpcServer
    events: XPubLink

    def connections(self) -> int:
        watches = (self.rpc.entrance.watch, self.events.entrance.watch)
        return sum(len(watch.connections) for watch in watches if watch is not None)


class Ports:
    """Listens on the network, always with CURVE. On the loop's thread only.

    A new secret key is for new connections; those that stand go on with the key they were made with, until they end or
    the key changes once more.

    Args:
        configuration: Addresses, keys and limits.
        clock: The source of time.
        make_server: Makes what answers the calls of a link.
        shares: What connections share with those of the unix sockets.

    Raises:
        OstlerError: An address cannot be used.
    """

    def __init__(
        self,
        configuration: Configuration,
        clock: Clock,
        make_server: Callable[[ServerLink], RpcServer],
        shares: PeerShares | None = None,
    ) -> None:
        options, messaging = configuration.network, configuration.messaging
        self._secret = secret_of(configuration)
        limits = connection_limits(
            messaging.max_connections, descriptor_limit(), network=True, peers=len(options.peers)
        )
        self._door = Door(clock, limits.network, options.names(), handshake=options.silence)
        self._transport = ZmqTransport(
            options.rpc,
            options.events or next_port(options.rpc),
            limits=Limits(max_message_size=messaging.max_message_size, queue=messaging.event_queue),
            network=network_of(configuration),
            door=self._door,
        )
        self._transport.shares = shares
        self._make_server = make_server
        self._links: EventLinks | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._generations: list[_Generation] = []
        try:
            self._generations.append(self._open(None))
        except BaseException:
            self._transport.close()
            raise

    @property
    def events_link(self) -> XPubLink:
        """The publisher's end for subscribers on other hosts."""
        return self._generations[-1].events

    @property
    def servers(self) -> list[RpcServer]:
        """What answers calls from other hosts."""
        return [generation.server for generation in self._generations]

    def tell_refused(self, told: OnRefused) -> None:
        """Tell of each connection that is not let in."""
        self._door.on_refused = told

    def start(self, links: EventLink) -> None:
        """Begin to answer; `links` is where the publisher's ends are."""
        self._links = links if isinstance(links, EventLinks) else None
        self._generations[-1].server.start()
        where = f"{self._transport.rpc}, events on {self._transport.events}"
        _log.info("other hosts reach this daemon on %s, its public key is %s", where, keys_of(self._secret).public)

    def apply(self, configuration: Configuration) -> None:
        """Take over who may connect, and a new secret key."""
        self._door.admit_only(configuration.network.names())
        secret = secret_of(configuration)
        if secret == self._secret:
            return
        self._secret = secret
        self._transport.network = network_of(configuration)
        waits = len(self._generations) > 1
        while len(self._generations) > 1:
            self._retire(self._generations[0])
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_LET_GO if waits else 0.0, self._exchange)

    @property
    def address(self) -> str:
        """Where other hosts send calls."""
        return self._transport.rpc

    def stats(self) -> dict[str, Any]:
        """Return where we listen, and the counters of the door and of calls."""
        rows = [server.stats() for server in self.servers]
        return {"rpc": self._transport.rpc, "events": self._transport.events, **self._door.stats(), "calls": rows}

    def close(self) -> None:
        """Listen no more, and end all connections."""
        if self._timer is not None:
            self._timer.cancel()
        for generation in self._generations:
            generation.server.close()
            generation.events.close()
        self._transport.close()

    def _open(self, before: _Generation | None) -> _Generation:
        rpc = self._transport.serve_rpc_port(before.rpc if before is not None else None)
        try:
            events = self._transport.serve_events_port(before.events if before is not None else None)
        except BaseException:
            rpc.close()
            raise
        return _Generation(rpc, self._make_server(rpc), events)

    def _exchange(self) -> None:
        """Have new connections come to sockets with the new key."""
        try:
            fresh = self._open(self._generations[-1])
        except OstlerError as error:
            _log.error("the new secret key is not in force, connections are still made with the old one: %s", error)
            return
        self._generations.append(fresh)
        if self._links is not None:
            self._links.add(fresh.events)
        fresh.server.start()
        _log.info("new connections are made with the public key %s", keys_of(self._secret).public)
        self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._look)

    def _look(self) -> None:
        """Retire what listens with the key before, as soon as nobody is left there."""
        self._timer = None
        if len(self._generations) < 2:
            return
        if self._generations[0].connections():
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._look)
        else:
            self._retire(self._generations[0])

    def _retire(self, generation: _Generation) -> None:
        self._generations.remove(generation)
        generation.server.close()
        if self._links is not None:
            self._links.remove(generation.events)


def secret_of(configuration: Configuration) -> str:
    """Return this daemon's secret key; there is one wherever something on the network is configured."""
    secret = configuration.network.secret_key
    assert secret is not None  # noqa: S101 - held by the cross-check of the section
    return secret.get_secret_value()


def network_of(configuration: Configuration) -> Network:
    """Return the keys and times of connections between hosts."""
    options = configuration.network
    return Network(keys_of(secret_of(configuration)), heartbeat=options.heartbeat, silence=options.silence)
