"""The daemon's sockets: what listens, what answers, and the proof that it does."""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from ostler.aio import Inbox
from ostler.aio.round_robin import DeficitRoundRobin
from ostler.clock import Clock, shared_boot_id
from ostler.config.paths import Paths
from ostler.daemon.keeping import EventKeeping
from ostler.daemon.limits import (
    ConnectionLimits,
    connection_limits,
    descriptor_limit,
    map_large_buffers,
    return_freed_memory,
)
from ostler.daemon.sockets import SocketWatch
from ostler.daemon.watching import make_tracer, policy_of
from ostler.errors import MessagingError, OstlerError
from ostler.files import make_directory
from ostler.messaging import Access, Dispatcher, Endpoint, LocalServiceClient, Publisher, RpcServer
from ostler.messaging.identities import HostIdentities
from ostler.messaging.memory_accounts import MemoryAccounts
from ostler.messaging.notify import Notifications
from ostler.messaging.rpc.dispatcher import DispatcherLimits
from ostler.messaging.rpc.keeping import Keeping
from ostler.messaging.shares import PeerShares
from ostler.messaging.transport import EventLink, Limits, ServerLink, SocketModes, Transport
from ostler.store.host_identity import machine_id
from ostler.types import CONTROL_TOPIC, HostIdentity, Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ostler.config.configuration import Configuration
    from ostler.config.core import MessagingSection
    from ostler.daemon.peers import PeerLinks
    from ostler.daemon.ports import Ports
    from ostler.messaging.peers import OnPeer
    from ostler.messaging.relay import Relay
    from ostler.messaging.zmq.curve import Network
    from ostler.store import Store

_log = logging.getLogger(__name__)
_TRIM_DELAY = 0.5


class Messages:
    """The RPC server, the publisher and the dispatcher of one daemon, on one transport. On the loop.

    Args:
        configuration: The configuration to start with.
        transport: What carries the messages.
        clock: The source of time.
        inbox: The way from threads to the loop.
    """

    def __init__(self, configuration: Configuration, transport: Transport, clock: Clock, inbox: Inbox) -> None:
        options, host = configuration.messaging, configuration.daemon.host
        self._inbox = inbox
        access = access_of(configuration, self._decided)
        self.transport = transport
        self.shares = transport.shares = PeerShares(
            DeficitRoundRobin(), MemoryAccounts(options.max_memory, map_large_buffers, trim_later)
        )
        self.dispatcher = Dispatcher(
            access, clock, inbox, host=host, limits=limits_of(options), turns=self.shares.turns
        )
        self.ports: Ports | None = None
        self.peers: PeerLinks | None = None
        self.identities = HostIdentities(
            HostIdentity(
                name=host,
                machine=machine_id() if configuration.network.secret_key is not None else "",
                boot=shared_boot_id(clock),
                instance=os.urandom(6).hex(),
            ),
            clock,
        )
        access.disputed = self.identities.disputed
        self._network = network_of(configuration)
        self._foreign = foreign_key(configuration, self._network)
        self.on_peer: OnPeer | None = None
        """Told what becomes of each peer; to be set before `reach_peers`."""
        self._store: Store | None = None
        rpc_link = transport.serve_rpc()
        try:
            self._events_link = self._serve_events(configuration)
        except BaseException:
            rpc_link.close()
            raise
        self.publisher = Publisher(
            self._events_link, host, clock, access, inbox.post, max_message_size=options.max_message_size
        )
        self.server = self._serve(rpc_link, options)
        self.dispatcher.registry.set_policy(policy_of(configuration))
        self.dispatcher.tracer = make_tracer(configuration, clock, lambda: self.shares.memory.held)
        self.dispatcher.on_fanout = self.publisher.tell_fanout
        self._keep_refusals()
        self.client = LocalServiceClient(
            self.dispatcher, inbox, self.publisher, topic=CONTROL_TOPIC, timeout=options.call_timeout
        )
        self.client.upgrades.configure(options.rpc_pins, options.rpc_grace)
        self.sockets = SocketWatch(transport, clock)
        self._keeping: EventKeeping | None = None
        self._relay: Relay | None = None
        self.notifications = Notifications(self.publisher, clock, configuration.sections)

    def _keep_refusals(self) -> None:
        """Have those in the audit log that are refused before they could ask for anything."""

        def keep(peer: Peer, error: OstlerError, what: str = "connect") -> None:
            if self.dispatcher.audit is not None:
                self.dispatcher.audit.refused(peer, CONTROL_TOPIC, what, error)

        self.transport.on_refused = keep
        self.publisher.on_refused = partial(keep, what="subscribe")
        if self.ports is not None:
            self.ports.tell_refused(keep)

    def _serve(self, link: ServerLink, options: MessagingSection) -> RpcServer:
        server = RpcServer(
            link,
            self.dispatcher,
            self._inbox,
            beat_interval=options.beat_interval,
            max_message_size=options.max_message_size,
            max_in_flight_per_peer=options.max_in_flight_per_peer,
        )
        server.keeping = keeping_of(options)
        server.max_elements = options.max_elements
        return server

    def _serve_events(self, configuration: Configuration) -> EventLink:
        """Take the addresses for events; those on the network, and those for calls there, if there are any."""
        here = self.transport.serve_events()
        if not configuration.network.rpc or self._network is None:
            return here
        from ostler.daemon.ports import Ports
        from ostler.messaging.event_links import EventLinks

        map_large_buffers()  # at once: ZeroMQ makes room for what a stranger announces before it is told to us
        try:
            self.ports = Ports(
                configuration,
                self._network,
                self.dispatcher.clock,
                lambda link: self._serve(link, configuration.messaging),
                self.shares,
            )
        except BaseException:
            here.close()
            raise
        return EventLinks(here, self.ports.events_link)

    def start(self, control: Any) -> None:
        """Open the control topic and begin to answer."""
        self.dispatcher.registry.add_endpoint(
            Endpoint(CONTROL_TOPIC, self.dispatcher.host, control, None, control.rpc_version, trusted=True)
        )
        self.publisher.start()
        self.server.start()
        self.sockets.start()
        if self.ports is not None:
            self.ports.start()

    def keep_events(self, store: Store, topics: Iterable[str], configuration: Configuration) -> None:
        """Keep the events of journaled topics in the store.

        Args:
            store: The database.
            topics: The topics whose managers ask for it.
            configuration: The topics that an operator asks for, and how much is kept.
        """
        self._keeping = EventKeeping(self.publisher, store, self.dispatcher.clock, topics)
        self._keeping.apply(configuration.events)

    def reach_peers(self, store: Store, configuration: Configuration) -> None:
        """Keep links to other daemons, if there are any in the configuration, now or after a reload.

        Args:
            store: The database, which keeps what services they have.
            configuration: Where they are.
        """
        self._store = store
        if self.peers is not None:
            self.peers.apply(configuration)
        elif configuration.network.peers and self._network is not None:
            from ostler.daemon.peers import PeerLinks

            self.peers = PeerLinks(
                configuration,
                self._network,
                self.client.router,
                store,
                self.dispatcher.clock,
                self.client.upgrades.forget,
                self.on_peer,
                self.identities.mine,
            )
            self.dispatcher.relay = self.relay.take

    async def know_peers(self, seconds: float) -> None:
        """Wait until it is known of each peer whether it is there, and what it has, for so many seconds at most."""
        if self.peers is not None:
            await self.peers.fleet.settled(seconds)

    def heard_from(self, host: str) -> None:
        """Take note that the daemon of a host has called; nothing for others."""
        if self.peers is not None and host:
            self.peers.heard_from(host)

    async def greet(self, peer: Peer, other: HostIdentity) -> HostIdentity:
        """Take note of a daemon that says who it is, and return who this one is.

        Raises:
            Conflict: It is not the host whose key it holds, or another daemon is.
        """
        if peer.key:
            host = self.dispatcher.access.keys.get(peer.key, "")
            if self.peers is not None:
                await self.peers.check(self.identities, other, peer.key, host)
            else:
                await self.identities.greet(other, peer.key, host, None, _nobody)
        return self.identities.mine

    def apply(self, configuration: Configuration) -> None:
        """Take over what a reload may change: who may do what, limits, keys and peers."""
        access = access_of(configuration, self._decided)
        access.disputed = self.identities.disputed
        self.dispatcher.access = self.publisher.access = access
        self._foreign = foreign_key(configuration, self._network)
        self.dispatcher.registry.set_policy(policy_of(configuration))
        self.shares.memory.limit = configuration.messaging.max_memory
        if isinstance(self.transport, SocketModes):
            self.transport.set_socket_mode(socket_mode_of(configuration))
        self.dispatcher.limits = limits_of(configuration.messaging)
        self.client.upgrades.configure(configuration.messaging.rpc_pins, configuration.messaging.rpc_grace)
        for server in self._servers():
            server.max_in_flight_per_peer = configuration.messaging.max_in_flight_per_peer
            server.keeping = keeping_of(configuration.messaging)
            server.max_elements = configuration.messaging.max_elements
        if self.ports is not None:
            self.ports.apply(configuration)
        self.judge_again()
        if self._store is not None:
            self.reach_peers(self._store, configuration)
        if self._keeping is not None:
            self._keeping.apply(configuration.events)

    def judge_again(self) -> None:
        """Judge everything again that somebody was allowed once and that goes on: whenever roles may have changed.

        Requests under way (streams, what is relayed, what waits for its turn) are told why they end; then those who
        have no role any more lose their connections, for calls and for events. One whose groups are being looked up is
        left in peace until they are known.
        """
        access = self.dispatcher.access

        def allowed(peer: Peer) -> bool:
            return access.role_of(peer) is not None or access.undecided(peer)

        self.dispatcher.judge_again()
        self._events_link.disconnect_unless(allowed)
        for server in self._servers():
            server.link.disconnect_unless(allowed)

    def _decided(self) -> None:
        """Take note, on the thread of a look-up, that somebody may be judged again."""
        self._inbox.post(self.judge_again)

    def _servers(self) -> list[RpcServer]:
        return [self.server] if self.ports is None else [self.server, self.ports.server]

    @property
    def relay(self) -> Relay:
        """What brings requests of callers here to other hosts."""
        if self._relay is None:
            from ostler.messaging.relay import Relay

            self._relay = Relay(self.client.router, self.dispatcher, self.client)
        return self._relay

    async def prove(self) -> None:
        """Call ourselves over a connection of its own: the evidence that a client can come and is answered.

        Raises:
            MessagingError: It was not.
        """
        await self.sockets.prove()

    @property
    def network(self) -> str:
        """Where other hosts send calls; empty when none can."""
        return self.ports.address if self.ports is not None else ""

    def trouble(self) -> list[str]:
        """Return a line for sockets that were removed, for each peer that is away, and each that is not watched."""
        lines = [*self.sockets.problems(), *self.identities.problems()]
        if self._foreign:
            lines.append(self._foreign)
        if self.peers is None:
            return lines
        fleet = self.peers.fleet
        return [*lines, *(peer.away().message for peer in fleet.peers.values() if not peer.up), *fleet.troubles()]

    def stats(self) -> dict[str, Any]:
        """Return the counters of the sockets and of every topic."""
        found = {
            "memory": self.shares.memory.stats(),
            "rpc": self.server.stats(),
            "events": self.publisher.stats(),
            "notifications": self.notifications.stats(),
            "topics": self.dispatcher.stats(),
        }
        if self.ports is not None:
            found["network"] = self.ports.stats()
        if self.peers is not None:
            found["peers"] = self.peers.stats()
        return found

    async def close(self) -> None:
        """Stop answering, and remove the sockets."""
        self.sockets.close()
        if self.peers is not None:
            await self.peers.close()
        if self.ports is not None:
            self.ports.close()
        self.server.close()
        self.notifications.close()
        if self._keeping is not None:
            await self._keeping.close()
        self.publisher.close()
        self.transport.close()


def network_of(configuration: Configuration) -> Network | None:
    """Return the secret key and the times of connections between hosts; None without a key: then there are none."""
    options = configuration.network
    if options.secret_key is None:
        return None
    from ostler.messaging.zmq.curve import Network, keys_of

    keys = keys_of(options.secret_key.get_secret_value())
    return Network(keys, heartbeat=options.heartbeat, silence=options.silence)


def foreign_key(configuration: Configuration, network: Network | None) -> str:
    """Return what is wrong with the keys under the name of this host, which is logged; empty when nothing is."""
    options, host = configuration.network, configuration.daemon.host
    known = options.keys_of(host)
    if not known or network is None or network.keys.public in known:
        return ""
    text = (
        f"[network.keys] has the key of another host under {host}, the name of this one: it speaks for no host. "
        "If there is another host of that name, give it a name of its own"
    )
    _log.warning("%s", text)
    return text


async def _nobody() -> HostIdentity | None:
    return None


def trim_later() -> None:
    """Have freed memory given back in a moment, when what was just let go of has really been freed."""
    asyncio.get_running_loop().call_later(_TRIM_DELAY, return_freed_memory)


def socket_mode_of(configuration: Configuration) -> int:
    """Return the mode of the sockets' files: as open as it is written, or as `[access]` makes necessary."""
    mode = configuration.messaging.socket_mode
    if mode != "auto":
        return int(mode, 8)
    access = configuration.access
    named = (*access.viewer, *access.operator, *access.admin)
    return 0o666 if any(not name.startswith("key:") for name in named) else 0o600


def limits_of(options: MessagingSection) -> DispatcherLimits:
    """Return what is refused as busy."""
    return DispatcherLimits(
        max_in_flight=options.max_in_flight,
        max_streams=options.max_streams,
        max_streams_per_peer=options.max_streams_per_peer,
    )


def keeping_of(options: MessagingSection) -> Keeping:
    """Return how much is kept for requests that come again."""
    return Keeping(options.retry_answers, options.retry_size, options.retry_age, options.retry_grace)


def access_of(configuration: Configuration, on_decided: Callable[[], None] | None = None) -> Access:
    """Return who may do what; names that no user or group of this machine has are logged.

    Args:
        configuration: Whose `[access]` and `[network.keys]` these are.
        on_decided: Told, on any thread, that somebody who was judged without its groups may be judged again.
    """
    options = configuration.access
    access = Access(
        viewer=options.viewer,
        operator=options.operator,
        admin=options.admin,
        keys=configuration.network.names(),
        on_decided=on_decided,
    )
    access.own_host = configuration.daemon.host
    for name in access.unknown:
        what = "[network.keys] has no such key" if name.startswith("key:") else "this machine has no such user or group"
        _log.warning("[access] names %s, and %s", name, what)
    return access


def make_runtime_folder(folder: Path) -> None:
    """Make the folder of the sockets, which others may enter and not change, if it is not there.

    Raises:
        MessagingError: It cannot be made.
    """
    try:
        make_directory(folder, 0o755)
    except OSError as error:
        raise MessagingError(
            f"the folder of the sockets, {folder}, cannot be made: {error.strerror}",
            hint="make it for the daemon's user, or use another with `--root`",
            path=folder,
        ) from None


def connections_of(configuration: Configuration) -> ConnectionLimits:
    """Return how many connections there may be, with the descriptors that this process may have."""
    network = configuration.network
    return connection_limits(
        configuration.messaging.max_connections,
        descriptor_limit(),
        network=bool(network.rpc),
        peers=len(network.peers),
    )


def zmq_transport(paths: Paths, configuration: Configuration, fds: dict[str, int]) -> Transport:
    """Return the transport over this daemon's unix sockets.

    Args:
        paths: Where the sockets are.
        configuration: Their mode and limits.
        fds: Sockets that systemd handed over, by name: `rpc`, `events`.
    """
    from ostler.messaging.zmq import ZmqTransport

    options = configuration.messaging
    connections = connections_of(configuration)
    if connections.unix < options.max_connections:
        _log.warning(
            "only %d files may be open (LimitNOFILE, `ulimit -n`): there may be %d connections on each unix socket "
            "and %d from the network, instead of the %d of `max_connections`",
            descriptor_limit(), connections.unix, connections.network, options.max_connections,
        )  # fmt: skip
    limits = Limits(
        max_message_size=options.max_message_size,
        queue=options.event_queue,
        socket_mode=socket_mode_of(configuration),
        connections=connections.unix,
    )
    return ZmqTransport(
        paths.rpc_address,
        paths.events_address,
        limits=limits,
        rpc_fd=fds.get("rpc"),
        events_fd=fds.get("events"),
    )
