"""A server on each transport, with clients of both kinds: what passes here passes on every transport."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

import pytest
from msgspec.structs import replace

from ostler.aio import LoopQueue, WorkerPool
from ostler.clock import SystemClock
from ostler.errors import ConnectionLost, NotPermitted, OstlerError
from ostler.messaging import Access, AsyncClient, Client, Dispatcher, Endpoint, LocalServiceClient, Publisher, RpcServer
from ostler.messaging.events.event_publisher import EventLimits
from ostler.messaging.gateway.links import GatewayEventLink, GatewayServerLink, GatewayTransport
from ostler.messaging.rpc.completion import DispatcherHooks
from ostler.messaging.rpc.rpc_server import ServerLimits
from ostler.messaging.socket_transport import SocketTransport
from ostler.messaging.tcp.authenticator import Authenticator
from ostler.messaging.tcp.curve import CurveOptions, generate_keys
from ostler.messaging.wire.peer_quotas import make_quotas
from ostler.messaging.wire.transport import ALLOW_ALL, Transport, TransportLimits
from ostler.testing.memory_transport import MemoryTransport
from ostler.types import Peer
from support.async_tests import loop_fixture


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of the blocking client by the gateway, which is for loops alone."""
    ours = (item for item in items if Path(__file__).parent in item.path.parents)  # this is called with all there are
    left_out = [item for item in ours if isinstance(item, pytest.Function) and needs_a_blocking_gateway(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def needs_a_blocking_gateway(item: pytest.Function) -> bool:
    """Return whether a test is of the gateway and uses a blocking client: by its code, or by the case it is given."""
    values = item.callspec.params if hasattr(item, "callspec") else {}
    is_blocking = makes_blocking_client(item.function) or any(
        each in ("sync_client", "sync_stream") for each in values.values()
    )
    return values.get("make_transport") == "gateway" and is_blocking


def makes_blocking_client(function: Callable[..., object]) -> bool:
    """Return whether the code of a function, or of one within it, names what only a blocking client has."""
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        if "sync_client" in code.co_names or "connect" in code.co_names:
            return True
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
    return False


@dataclass
class ServerUnderTest:
    """One daemon's messaging, without the daemon."""

    transport: Transport
    dispatcher: Dispatcher
    server: RpcServer
    publisher: Publisher
    inbox: LoopQueue
    pool: WorkerPool
    clients: list[AsyncClient] = field(default_factory=list)
    sync_clients: list[Client] = field(default_factory=list)

    @property
    def uid(self) -> int:
        """What a server knows a client of this transport by: on a network it has a key and no uid."""
        return -1 if isinstance(self.transport, SocketTransport) and self.transport.curve else os.geteuid()

    @property
    def expulsion_error(self) -> type[OstlerError]:
        """What a client gets whose role was taken away: a link without a socket can still say why it ends."""
        return NotPermitted if isinstance(self.transport, LoopsTransport) else ConnectionLost

    def add(self, topic: str, target: object, **options) -> Endpoint:
        endpoint = Endpoint(topic, "here", target, self.pool, **options)
        self.dispatcher.registry.add_endpoint(endpoint)
        return endpoint

    def client(self, **options) -> AsyncClient:
        client = AsyncClient(transport=options.pop("transport", self.transport), **options)
        self.clients.append(client)
        return client

    def sync_client(self, **options) -> Client:
        client = Client(transport=self.transport, **options)
        self.sync_clients.append(client)
        return client

    def local(self, topic: str = "tests", **options) -> LocalServiceClient:
        return LocalServiceClient(self.dispatcher, self.inbox, self.publisher, topic=topic, **options)


KEYS = generate_keys()
"""The key pair of the server, and of its clients as well."""


def access_on(transport: Transport, **members) -> Access:
    """Return who may do what: as ever, and on a network whoever has the key."""
    if not isinstance(transport, SocketTransport) or transport.curve is None:
        return Access(**members)
    return Access(keys={KEYS.public: "me"}, **{"admin": ["key:me"], **members})


def serve(
    transport: Transport,
    *,
    access: Access | None = None,
    watermark_interval: float = 3.0,
    server_limits: ServerLimits = ServerLimits(),  # noqa: B008 - frozen
    keepalive_interval: float = 1.0,
    **options,
) -> ServerUnderTest:
    clock = SystemClock()
    inbox = current_queue()
    access = access or access_on(transport)
    limits = EventLimits(watermark_interval=watermark_interval)
    publisher = Publisher(transport.serve_events(), "here", clock, access, inbox.post, limits=limits)
    hooks = DispatcherHooks(on_fanout=publisher.publish_fanout)
    dispatcher = Dispatcher(access, clock, inbox, host="here", hooks=hooks)
    served = replace(server_limits, keepalive_interval=keepalive_interval)
    server = RpcServer(transport.serve_rpc(), dispatcher, inbox, limits=served, **options)
    server.start()
    publisher.start()
    return ServerUnderTest(transport, dispatcher, server, publisher, inbox, WorkerPool("tests", 4))


async def stop(world: ServerUnderTest) -> None:
    for client in world.clients:
        await client.close()
    for client in world.sync_clients:
        await asyncio.to_thread(client.close)
    world.dispatcher.close()
    world.server.close()
    world.publisher.close()
    world.pool.close()
    await asyncio.to_thread(world.transport.close)
    assert world.pool.join(5) == []


class LoopsTransport:
    """The links of the gateway, all of them on one loop; implements `Transport` as far as it can.

    Its daemon's ends want no limits but their own, and there is no blocking client.
    """

    curve = None

    def __init__(self, peer: Peer | None = None) -> None:
        self.peer = peer or Peer(os.geteuid(), os.getegid(), os.getpid(), f"uid {os.geteuid()}")
        self._ends: list[GatewayServerLink | GatewayEventLink | None] = [None, None]

    def as_peer(self, peer: Peer) -> "LoopsTransport":
        other = LoopsTransport(peer)
        other._ends = self._ends
        return other

    def serve_rpc(self, quotas=None) -> GatewayServerLink:
        server = GatewayServerLink(current_queue(), quotas or make_quotas(), lambda peer: peer.uid == os.geteuid())
        self._ends[0] = server
        return server

    def serve_events(self, quotas=None) -> GatewayEventLink:
        events = self._ends[1] = GatewayEventLink(current_queue())
        return events

    def connect(self):
        raise AssertionError("no blocking client comes by the gateway")

    def subscribe(self, prefixes):
        raise AssertionError("no blocking client comes by the gateway")

    def _transport(self) -> GatewayTransport:
        return GatewayTransport(*self._ends, self.peer, current_queue())

    def connect_async(self, on_message, on_lost):
        return self._transport().connect_async(on_message, on_lost)

    def subscribe_async(self, prefixes, on_message, on_lost):
        return self._transport().subscribe_async(prefixes, on_message, on_lost)

    def close(self) -> None:
        """Do nothing: links share nothing."""


def current_queue() -> LoopQueue:
    """Return a queue to the loop of the test, the same each time: the daemon has one, too."""
    loop = asyncio.get_running_loop()
    if QUEUES.get("loop") is None or QUEUES["loop"].loop is not loop:
        QUEUES["loop"] = LoopQueue(loop)
    return QUEUES["loop"]


QUEUES: dict[str, LoopQueue] = {}


@pytest.fixture(params=["memory", "unix", "tcp", "gateway"])
def make_transport(request, tmp_path_factory) -> Iterator[Callable[..., Transport]]:
    def make(limits: TransportLimits | None = None, access: Access | None = None) -> Transport:
        if request.param == "memory":
            return MemoryTransport(limits=limits)
        if request.param == "gateway":
            return LoopsTransport()
        if request.param == "tcp":
            admission = Access.admission(lambda: access) if access is not None else ALLOW_ALL
            door = Authenticator(SystemClock(), key_names={KEYS.public: "me"}, admission=admission)
            network = CurveOptions(KEYS, KEYS.public)
            return SocketTransport(
                "tcp://127.0.0.1:0", "tcp://127.0.0.1:0", limits=limits, curve=network, authenticator=door
            )
        folder = tmp_path_factory.mktemp("run")
        return SocketTransport(f"ipc://{folder}/rpc.sock", f"ipc://{folder}/events.sock", limits=limits)

    return make


@pytest.fixture
def keys() -> dict[str, str]:
    """Return the public keys of the clients on a network, with their names."""
    return {KEYS.public: "me"}


@pytest.fixture
def world_of(make_transport):
    """Open a world on the transport under test: `async with world_of() as world`."""

    @asynccontextmanager
    async def open_world(limits: TransportLimits | None = None, **options) -> AsyncIterator[ServerUnderTest]:
        world = serve(make_transport(limits, options.get("access")), **options)
        try:
            yield world
        finally:
            await stop(world)

    return open_world


@loop_fixture
async def world(parts):
    """Return the world of `parts`, which a test file opens: a world, what it serves, and a client."""
    yield parts[0]


@loop_fixture
async def client(parts):
    yield parts[2]
