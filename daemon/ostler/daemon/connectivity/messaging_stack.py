"""The daemon's sockets: listening, answering, and the self check."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from ostler.aio import LoopQueue
from ostler.aio.round_robin import DeficitRoundRobin
from ostler.clock import Clock, shared_boot_id
from ostler.config.paths import Paths
from ostler.daemon.connectivity.access_policy import make_access, make_policy
from ostler.daemon.connectivity.socket_monitor import SocketMonitor
from ostler.daemon.process.process_limits import (
    ConnectionLimits,
    connection_limits,
    descriptor_limit,
    set_mmap_threshold,
    trim_heap,
)
from ostler.messaging import Access, Dispatcher, Endpoint, LocalServiceClient, Publisher, RpcServer
from ostler.messaging.events.event_publisher import CompositeEventLink
from ostler.messaging.events.notifications import Notifications
from ostler.messaging.network.peer_identities import PeerIdentities
from ostler.messaging.network.routing import Router
from ostler.messaging.rpc.completion import DispatcherHooks
from ostler.messaging.rpc.dispatcher import DispatcherLimits
from ostler.messaging.rpc.rpc_server import DedupLimits, ServerLimits
from ostler.messaging.socket_transport import SocketTransport
from ostler.messaging.wire.peer_quotas import MemoryAccounts, PeerQuotas
from ostler.messaging.wire.transport import (
    EventLink,
    LinkStats,
    ServerLink,
    SupportsLinkStats,
    SupportsSocketMode,
    Transport,
    TransportLimits,
)
from ostler.service.event_journal import LazyJournal
from ostler.store.records.host_identity import machine_id
from ostler.types import CONTROL_TOPIC, HostIdentity, Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ostler.config.configuration import Configuration
    from ostler.config.core_sections import MessagingSection
    from ostler.daemon.connectivity.gateway_host import GatewayHost
    from ostler.daemon.connectivity.network_listener import NetworkListener
    from ostler.daemon.connectivity.peer_links import PeerLinks
    from ostler.messaging.access.tokens import TokenTable
    from ostler.messaging.gateway.gateway import Gateway
    from ostler.messaging.network.peers import OnPeerStateChange
    from ostler.messaging.network.relay import Relay
    from ostler.messaging.rpc.call import Call
    from ostler.messaging.rpc.completion import AuditObserver, RequestTracer
    from ostler.messaging.rpc.topic_registry import TopicRegistry
    from ostler.messaging.tcp.curve import CurveOptions
    from ostler.metrics.registry import MetricExporter
    from ostler.store import Store
    from ostler.types import Role

_log = logging.getLogger(__name__)
_TRIM_DELAY = 0.5


class MessagingStack:
    """The RPC server, the publisher and the dispatcher of one daemon, on one transport. On the loop.

    Args:
        configuration: The configuration to start with.
        transport: What carries the messages.
        clock: The source of time.
        loop_queue: Passes work from threads to the loop.
        registry: The open topics; None for an empty registry.
        audit: Records who did what; None without an audit log.
    """

    def __init__(
        self,
        configuration: Configuration,
        transport: Transport,
        clock: Clock,
        loop_queue: LoopQueue,
        registry: TopicRegistry | None = None,
        audit: AuditObserver | None = None,
    ) -> None:
        options, host = configuration.messaging, configuration.daemon.host
        self._options = options
        self.transport = transport
        self.quotas = PeerQuotas(
            DeficitRoundRobin(), MemoryAccounts(options.max_memory, set_mmap_threshold, schedule_heap_trim)
        )
        self.network_listener: NetworkListener | None = None
        self.peer_links: PeerLinks | None = None
        self.identities = PeerIdentities(
            HostIdentity(
                name=host,
                machine=machine_id() if configuration.network.secret_key is not None else "",
                boot=shared_boot_id(clock),
                instance=os.urandom(6).hex(),
            ),
            clock,
        )
        self._curve = curve_options(configuration)
        self._foreign_key_problem = foreign_key_problem(configuration, self._curve)
        self._make_peer_links: Callable[[Configuration], PeerLinks | None] = _no_peer_links
        self._loop_queue = loop_queue
        self._gateway_host: GatewayHost | None = None
        self._gateway_server: RpcServer | None = None
        self._gateway_lock = threading.Lock()
        self.dispatcher = self._make_dispatcher(configuration, clock, registry, audit)
        rpc_links, self._events_link = self._bind(configuration)
        self.publisher = self._make_publisher(options)
        self._servers = [self._make_server(link, options) for link in rpc_links]
        self.server = self._servers[0]
        """The server for calls from this host."""
        self.router = Router(host, self.dispatcher.registry.is_open)
        self.client = self._make_client(options)
        self.socket_monitor = SocketMonitor(transport, clock)
        self._event_journal: LazyJournal | None = None
        self._relay: Relay | None = None
        self.notifications = Notifications(self.publisher, clock, configuration.sections)

    def _make_access(self, configuration: Configuration) -> Access:
        return make_access(configuration, self._on_groups_known, self.identities.disputed_keys, self._token_role)

    def _token_role(self, name: str, proof: str) -> Role | None:
        """Return the role of a token, None when it is not valid any more. Any thread."""
        return self._gateway_host.tokens.role_of(name, proof) if self._gateway_host is not None else None

    def gateway_host(self, store: Store) -> GatewayHost:
        """Return the tokens, and the gateway for callers who have one. Any thread."""
        with self._gateway_lock:
            if self._gateway_host is None:
                # Only where somebody is let in another way than by a socket.
                from ostler.daemon.connectivity.gateway_host import GatewayHost

                self._gateway_host = GatewayHost(
                    store, self.dispatcher.clock, self.dispatcher.host, self._loop_queue.loop,
                    self._open_gateway, self.disconnect_unauthorised,
                )  # fmt: skip
        return self._gateway_host

    def _open_gateway(self, tokens: TokenTable) -> Gateway:
        from ostler.messaging.gateway.open_gateway import open_gateway  # as above

        options = self._options
        return open_gateway(
            self.dispatcher,
            self.publisher,
            self.quotas,
            tokens,
            self._add_gateway_server,
            own_uid=os.geteuid(),
            timeout=options.call_timeout,
            max_message_size=options.max_message_size,
            limits=server_limits(options),
        )

    def _add_gateway_server(self, server: RpcServer) -> None:
        self._gateway_server = server
        self._servers.append(server)

    def _publish_fanout(self, topic: str, method: str, request_id: str) -> None:
        self.publisher.publish_fanout(topic, method, request_id)

    def _redirect(self, call: Call) -> bool:
        """Make a request that is for other hosts one to `ostler.relay`; False when it is not, or there are no peers."""
        return self.peer_links is not None and self.relay.redirect(call)

    def _make_dispatcher(
        self, configuration: Configuration, clock: Clock, registry: TopicRegistry | None, audit: AuditObserver | None
    ) -> Dispatcher:
        tracer = make_tracer(configuration, clock, lambda: self.quotas.memory_accounts.held_bytes)
        dispatcher = Dispatcher(
            self._make_access(configuration),
            clock,
            self._loop_queue,
            host=configuration.daemon.host,
            limits=dispatcher_limits(configuration.messaging),
            turns=self.quotas.scheduler,
            registry=registry,
            hooks=DispatcherHooks(audit, tracer, self._publish_fanout, self._redirect),
        )
        dispatcher.registry.set_policy(make_policy(configuration))
        return dispatcher

    def _make_publisher(self, options: MessagingSection) -> Publisher:
        return Publisher(
            self._events_link,
            self.dispatcher.host,
            self.dispatcher.clock,
            self.dispatcher.access,
            self._loop_queue.post,
            max_message_size=options.max_message_size,
            record_refusal=self.dispatcher.record_refusal,
        )

    def _make_client(self, options: MessagingSection) -> LocalServiceClient:
        client = LocalServiceClient(
            self.dispatcher,
            self._loop_queue,
            self.publisher,
            topic=CONTROL_TOPIC,
            timeout=options.call_timeout,
            router=self.router,
        )
        client.upgrades.configure(options.rpc_pins, options.rpc_pin_grace)
        return client

    def _make_server(self, link: ServerLink, options: MessagingSection) -> RpcServer:
        return RpcServer(
            link,
            self.dispatcher,
            self._loop_queue,
            max_message_size=options.max_message_size,
            limits=server_limits(options),
        )

    def _bind(self, configuration: Configuration) -> tuple[list[ServerLink], EventLink]:
        """Bind the addresses of this host, and those of the network if there are any; return the ends of servers."""
        with ExitStack() as undo:
            rpc_link = self.transport.serve_rpc(self.quotas)
            undo.callback(rpc_link.close)
            events_link = self.transport.serve_events(self.quotas)
            undo.callback(events_link.close)
            if configuration.network.rpc and self._curve is not None:
                self.network_listener = self._listen_on_network(configuration, self._curve)
            undo.pop_all()
        if self.network_listener is None:
            return [rpc_link], events_link
        return [rpc_link, self.network_listener.rpc_link], CompositeEventLink(
            events_link, self.network_listener.events_link
        )

    def _listen_on_network(self, configuration: Configuration, curve: CurveOptions) -> NetworkListener:
        # libzmq, 15 ms: only with a network.
        from ostler.daemon.connectivity.network_listener import NetworkListener

        set_mmap_threshold()  # at once: ZeroMQ allocates what a peer announces before we are notified
        return NetworkListener(
            configuration,
            curve,
            self.dispatcher.clock,
            self.dispatcher.admission,
            lambda peer, error: self.dispatcher.record_refusal(peer, "connect", error),
            self.quotas,
        )

    def start(self, control: Any) -> None:
        """Open the control topic and start answering."""
        self.dispatcher.registry.add_endpoint(
            Endpoint(
                CONTROL_TOPIC,
                self.dispatcher.host,
                control,
                None,
                control.rpc_version,
                control.namespaces,
                trusted=True,
            )
        )
        self.publisher.start()
        for server in self._servers:
            server.start()
        self.socket_monitor.start()
        if self.network_listener is not None:
            self.network_listener.log_addresses()

    def enable_journal(self, store: Store, topics: Iterable[str], configuration: Configuration) -> None:
        """Store the events of journaled topics.

        Args:
            store: The database.
            topics: The topics whose managers request it.
            configuration: The topics that an operator requests, and how much is stored.
        """
        self._event_journal = LazyJournal(self.publisher, store, self.dispatcher.clock, topics)
        self._event_journal.apply(configuration.events)

    def connect_peers(
        self, store: Store, configuration: Configuration, on_state_change: OnPeerStateChange | None = None
    ) -> None:
        """Keep links to other daemons, if there are any in the configuration, now or after a reload.

        Args:
            store: The database, which keeps what services they have.
            configuration: Where they are.
            on_state_change: Called with each change of a peer.
        """
        self._make_peer_links = partial(self._create_peer_links, store, on_state_change)
        self._update_peer_links(configuration)

    def _update_peer_links(self, configuration: Configuration) -> None:
        if self.peer_links is not None:
            self.peer_links.apply(configuration)
        elif (links := self._make_peer_links(configuration)) is not None:
            self.peer_links = links

    def _create_peer_links(
        self, store: Store, on_state_change: OnPeerStateChange | None, configuration: Configuration
    ) -> PeerLinks | None:
        if not configuration.network.peers or self._curve is None:
            return None
        from ostler.daemon.connectivity.peer_links import PeerLinks  # libzmq, 12 ms: only when there are peers

        return PeerLinks(
            configuration,
            self._curve,
            self.router,
            store,
            self.dispatcher.clock,
            self.client.upgrades.invalidate,
            on_state_change,
            self.identities.own_identity,
        )

    async def wait_for_peers(self, timeout: float) -> None:
        """Wait until each peer is known to be reachable or not, and its services are known, for `timeout` at most."""
        if self.peer_links is not None:
            await self.peer_links.peers.wait_first_polls(timeout)

    def on_peer_call(self, host: str) -> None:
        """Record that the daemon of a host has called; ignores callers that are not hosts."""
        if self.peer_links is not None and host:
            self.peer_links.on_peer_call(host)

    async def exchange_identity(self, peer: Peer, identity: HostIdentity) -> HostIdentity:
        """Record the identity of another daemon, and return the identity of this one.

        Raises:
            Conflict: It is not the host that its key belongs to, or another daemon is.
        """
        if peer.key:
            host = self.dispatcher.access.keys.get(peer.key, "")
            if self.peer_links is not None:
                await self.peer_links.check_identity(self.identities, identity, peer.key, host)
            else:
                await self.identities.check_peer(identity, peer.key, host, None, _no_identity)
        return self.identities.own_identity

    def apply(self, configuration: Configuration, journaled_topics: Iterable[str] | None = None) -> None:
        """Apply what a reload may change: permissions, limits, keys, peers and journaled topics.

        Args:
            configuration: The new configuration.
            journaled_topics: The topics whose managers request a journal; None for the same as before.
        """
        options, access = configuration.messaging, self._make_access(configuration)
        self._options = options
        self.dispatcher.apply(access, dispatcher_limits(options))
        self.publisher.apply(access)
        self._foreign_key_problem = foreign_key_problem(configuration, self._curve)
        self.dispatcher.registry.set_policy(make_policy(configuration))
        self.quotas.memory_accounts.apply(options.max_memory)
        if isinstance(self.transport, SupportsSocketMode):
            self.transport.set_socket_mode(socket_mode(configuration))
        self.client.upgrades.configure(options.rpc_pins, options.rpc_pin_grace)
        for server in self._servers:
            server.apply(server_limits(options))
        if self.network_listener is not None:
            self.network_listener.apply(configuration)
        self.disconnect_unauthorised()
        self._update_peer_links(configuration)
        if self._event_journal is not None:
            if journaled_topics is not None:
                self._event_journal.set_topics(journaled_topics)
            self._event_journal.apply(configuration.events)

    def disconnect_unauthorised(self) -> None:
        """Check again, whenever roles may have changed, everything that was allowed before and is still in progress.

        Requests in progress (streams, relayed requests, queued requests) end with the reason; then peers without a role
        lose their connections, for calls and for events. A peer whose groups are being looked up keeps them until the
        groups are known.
        """
        access = self.dispatcher.access

        def allowed(peer: Peer) -> bool:
            return access.role_of(peer) is not None or access.is_pending(peer)

        self.dispatcher.cancel_unauthorised()
        self.publisher.link.disconnect_unless(allowed)
        for server in self._servers:
            server.link.disconnect_unless(allowed)

    def _on_groups_known(self) -> None:
        """Schedule another check after a group look-up; runs on the look-up's thread."""
        self._loop_queue.post(self.disconnect_unauthorised)

    @property
    def relay(self) -> Relay:
        """Forwards requests of local callers to other hosts."""
        if self._relay is None:
            from ostler.messaging.network.relay import Relay  # only when there are peers

            self._relay = Relay(self.router, self.dispatcher, self.client)
        return self._relay

    async def self_check(self) -> None:
        """Call this daemon over a new connection: evidence that a client can connect and is answered.

        Raises:
            MessagingError: It failed.
        """
        await self.socket_monitor.self_check()

    @property
    def network_address(self) -> str:
        """The address for calls of other hosts; empty without one."""
        return self.network_listener.address if self.network_listener is not None else ""

    def problems(self) -> list[str]:
        """Return a line for removed sockets, for each unreachable peer, and for each peer that is not watched."""
        lines = [*self.socket_monitor.problems(), *self.identities.problems()]
        if self._foreign_key_problem:
            lines.append(self._foreign_key_problem)
        if self.peer_links is None:
            return lines
        fleet = self.peer_links.peers
        return [
            *lines,
            *(peer.unreachable_error().message for peer in fleet.peers.values() if not peer.up),
            *fleet.problems(),
        ]

    def links(self) -> dict[str, object]:
        """Return the ends of servers by their addresses, for a dump."""
        return {
            **{f"calls at {server.address}": server.link for server in self._servers},
            **{f"events at {link.address}": link for link in self.publisher.links()},
        }

    def stats(self) -> dict[str, Any]:
        """Return the counters of the sockets and of every topic."""
        found = {
            "memory": self.quotas.memory_accounts.stats(),
            "rpc": self.server.stats(),
            "events": self.publisher.stats(),
            "notifications": self.notifications.stats(),
            "topics": self.dispatcher.stats(),
        }
        if self._gateway_server is not None:
            found["gateway"] = self._gateway_server.stats()
        if self.network_listener is not None:
            found["network"] = {**self.network_listener.stats(), "calls": self._servers[1].stats()}
        if self.peer_links is not None:
            found["peers"] = self.peer_links.stats()
        return found

    def link_stats(self) -> dict[str, LinkStats]:
        """Return the counters of the connections: `rpc` and `events` on this host, `network` for the port."""
        local = self._events_link
        while isinstance(local, CompositeEventLink):
            local = local.links[0]
        links = {"rpc": self.server.link, "events": local}
        found = {name: link.link_stats() for name, link in links.items() if isinstance(link, SupportsLinkStats)}
        if self.network_listener is not None:
            counted = self.network_listener.stats()
            found["network"] = LinkStats(counted["connections"], counted["unknown_keys"] + counted["too_many"])
        return found

    def invalid_messages(self) -> dict[str, int]:
        """Return how many messages of each kind could not be read, on all sockets."""
        found: Counter[str] = Counter(self.publisher.invalid_messages)
        for server in self._servers:
            found.update(server.invalid_messages)
        return found

    async def close(self) -> None:
        """Stop answering, and remove the sockets."""
        self.socket_monitor.close()
        if self._gateway_host is not None:
            await self._gateway_host.close()
        if self.peer_links is not None:
            await self.peer_links.close()
        for server in reversed(self._servers):
            server.close()
        if self.network_listener is not None:
            self.network_listener.close()
        self.notifications.close()
        if self._event_journal is not None:
            await self._event_journal.close()
        self.publisher.close()
        self.transport.close()


def curve_options(configuration: Configuration) -> CurveOptions | None:
    """Return the secret key and the timeouts of connections between hosts; None without a key."""
    options = configuration.network
    if options.secret_key is None:
        return None
    from ostler.messaging.tcp.curve import CurveOptions, keys_from_secret  # libzmq, 12 ms: only with a network

    keys = keys_from_secret(options.secret_key.get_secret_value())
    return CurveOptions(keys, heartbeat_interval=options.heartbeat, heartbeat_timeout=options.heartbeat_timeout)


def foreign_key_problem(configuration: Configuration, curve: CurveOptions | None) -> str:
    """Return what is wrong with the keys under the name of this host, and log it; empty when nothing is."""
    options, host = configuration.network, configuration.daemon.host
    known = options.public_keys(host)
    if not known or curve is None or curve.key_pair.public in known:
        return ""
    text = (
        f"[network.keys] has the key of another host under {host}, the name of this host: that key is ignored. "
        "If another host has that name, choose another name for it"
    )
    _log.warning("%s", text)
    return text


def _no_peer_links(_configuration: Configuration) -> None:
    """Have no links: the start has not come to them yet."""


async def _no_identity() -> HostIdentity | None:
    return None


def schedule_heap_trim() -> None:
    """Schedule the return of freed memory to the system, after the objects released just now have been freed."""
    asyncio.get_running_loop().call_later(_TRIM_DELAY, trim_heap)


def socket_mode(configuration: Configuration) -> int:
    """Return the mode of the socket files: as configured, or as `[access]` requires."""
    mode = configuration.messaging.socket_mode
    if mode != "auto":
        return int(mode, 8)
    access = configuration.access
    named = (*access.viewer, *access.operator, *access.admin)
    return 0o666 if any(not name.startswith(("key:", "cert:")) for name in named) else 0o600


def dispatcher_limits(options: MessagingSection) -> DispatcherLimits:
    """Return the limits above which requests are refused as busy."""
    return DispatcherLimits(
        max_in_flight=options.max_in_flight,
        max_streams=options.max_streams,
        max_streams_per_peer=options.max_streams_per_peer,
    )


def server_limits(options: MessagingSection) -> ServerLimits:
    """Return what a server takes from its clients, and how many results are retained for retried requests."""
    return ServerLimits(
        max_in_flight_per_peer=options.max_in_flight_per_peer,
        max_elements=options.max_elements,
        dedup=DedupLimits(options.dedup_results, options.dedup_size, options.dedup_ttl, options.orphan_grace),
        keepalive_interval=options.keepalive_interval,
    )


def configured_connection_limits(configuration: Configuration) -> ConnectionLimits:
    """Return how many connections to allow with the descriptor limit of this process."""
    network = configuration.network
    return connection_limits(
        configuration.messaging.max_connections,
        descriptor_limit(),
        network=bool(network.rpc),
        peers=len(network.peers),
    )


def make_socket_transport(paths: Paths, configuration: Configuration, fds: dict[str, int]) -> Transport:
    """Return the transport over this daemon's unix sockets.

    Args:
        paths: Where the sockets are.
        configuration: Their mode and limits.
        fds: Sockets that systemd handed over, by name: `rpc`, `events`.
    """
    options = configuration.messaging
    connections = configured_connection_limits(configuration)
    if connections.unix < options.max_connections:
        _log.warning(
            "open files are limited to %d (LimitNOFILE, `ulimit -n`): allowing %d connections on each unix socket "
            "and %d from the network, instead of the %d of `max_connections`",
            descriptor_limit(), connections.unix, connections.network, options.max_connections,
        )  # fmt: skip
    limits = TransportLimits(
        max_message_size=options.max_message_size,
        max_queued=options.event_queue,
        socket_mode=socket_mode(configuration),
        max_connections=connections.unix,
    )
    return SocketTransport(
        paths.rpc_address,
        paths.events_address,
        limits=limits,
        rpc_fd=fds.get("rpc"),
        events_fd=fds.get("events"),
    )


def make_metric_exporter(configuration: Configuration) -> MetricExporter | None:
    """Return what gets the metrics of managers and drivers for OpenTelemetry; None when it is off or not installed."""
    if not configuration.telemetry.otel:
        return None
    try:
        from ostler.metrics.opentelemetry import OtelMetrics  # an extra, which few install
    except ImportError:  # the tracer has warned
        return None
    return OtelMetrics()


def make_tracer(
    configuration: Configuration, clock: Clock, callers_memory: Callable[[], int] | None = None
) -> RequestTracer | None:
    """Return the tracer for spans and metrics of requests; None when it is off, or OpenTelemetry is not installed.

    Args:
        configuration: Whether it is on.
        clock: The source of time.
        callers_memory: Returns the bytes that the daemon holds for callers; also a metric, if given.
    """
    if not configuration.telemetry.otel:
        return None
    try:
        from ostler.messaging.observers.opentelemetry import OtelTracer  # an extra, which few install
    except ImportError as error:
        _log.warning(
            "[telemetry] otel is on, but OpenTelemetry is not installed: pip install 'ostler[otel]' (%s)", error
        )
        return None
    tracer = OtelTracer(clock)
    if callers_memory is not None:
        tracer.add_memory_gauge(callers_memory)
    return tracer
