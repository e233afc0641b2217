"""Requests of managers for services on other hosts: streams and retries, between two daemons' worth of parts."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from ostler.aio import LoopQueue, WorkerPool
from ostler.clock import SystemClock
from ostler.errors import (
    Cancelled,
    Conflict,
    ConnectionLost,
    DaemonNotRunning,
    DeadlineExceeded,
    Draining,
    InvalidInput,
    ServiceNotFound,
)
from ostler.messaging import Access, AsyncClient, Context, Dispatcher, Endpoint, LocalServiceClient, RpcServer, exposed
from ostler.messaging.clients.client_adapters import adapter_of
from ostler.messaging.clients.retry import Retry
from ostler.messaging.network.routing import Router
from ostler.messaging.rpc.rpc_server import ServerLimits
from ostler.messaging.wire.request import CallRequest
from ostler.messaging.wire.request_context import serving
from ostler.testing.memory_transport import MemoryTransport
from ostler.types import ServiceStatus
from support.async_tests import loop_fixture
from support.waiting import until

# private: _link, _on_lost: a connection that is cut, which no method of a client does
# private: _dispatcher: the daemon of the client that the fixture opens

SOON = Retry(attempts=50, backoff=0.01, max_backoff=0.02, on=(Draining, DaemonNotRunning, ConnectionLost))
BOTH = pytest.mark.parametrize("method", ["count", "acount"])


class Shop:
    """A service on another host."""

    def __init__(self):
        self.made = 0
        self.ids = []
        self.closed = threading.Event()
        self.gate = asyncio.Event()

    @exposed()
    def count(self, ctx: Context, items: int = 10, fail: bool = False) -> Iterator[int]:
        try:
            for number in range(items):
                self.made += 1
                yield number
            if fail:
                raise Conflict("enough")
        finally:
            self.closed.set()

    @exposed()
    async def acount(self, ctx: Context, items: int = 10, fail: bool = False) -> AsyncIterator[int]:
        try:
            for number in range(items):
                self.made += 1
                yield number
            if fail:
                raise Conflict("enough")
        finally:
            self.closed.set()

    @exposed()
    async def never(self, ctx: Context) -> AsyncIterator[int]:
        try:
            yield 0
            await asyncio.sleep(60)
        finally:
            self.closed.set()

    @exposed()
    async def buy(self, ctx: Context, what: str) -> str:
        self.ids.append(ctx.request_id)
        await self.gate.wait()
        return what

    @exposed()
    def ready(self, ctx: Context) -> None:
        self.ids.append(ctx.request_id)


class Far:
    """One other daemon: a dispatcher and a server of its own, on a transport without sockets."""

    def __init__(self, host, inbox):
        self.host, self.up, self.back = host, True, False
        self.transport = MemoryTransport()
        self.dispatcher = Dispatcher(Access(), SystemClock(), inbox, host=host)
        self.pool, self.shop = WorkerPool(f"shop on {host}", 2), Shop()
        self.dispatcher.registry.add_endpoint(Endpoint("shop", host, self.shop, self.pool))
        limits = ServerLimits(keepalive_interval=0.05)
        self.server = RpcServer(self.transport.serve_rpc(), self.dispatcher, inbox, limits=limits)
        self.server.start()
        self.client = AsyncClient(transport=self.transport, timeout=5)

    def runs(self, topic):
        return topic == "shop"

    def accepts(self, topic):
        return self.up and topic == "shop"

    def is_available(self, topic):
        return self.accepts(topic)

    def status_of(self, topic):
        return ServiceStatus(topic=topic, host=self.host, link="" if self.up else self.unreachable_error().message)

    def unreachable_error(self):
        return DaemonNotRunning(f"{self.host} cannot be reached")

    async def wait_reachable(self, patience):
        if not self.back:
            raise self.unreachable_error()
        self.up = True
        return 0.0

    async def close(self):
        await self.client.close()
        self.server.close()
        self.dispatcher.close()
        self.pool.close()
        assert await asyncio.to_thread(self.pool.join, 5) == []


class Fleet:
    def __init__(self, *fars):
        self.peers = {far.host: far for far in fars}

    def peers_with(self, topic):
        return [far for far in self.peers.values() if far.runs(topic)]


@asynccontextmanager
async def world(*hosts):
    inbox = LoopQueue(asyncio.get_running_loop())
    dispatcher = Dispatcher(Access(), SystemClock(), inbox, host="here")
    router = Router("here", dispatcher.registry.is_open)
    client = LocalServiceClient(dispatcher, inbox, topic="other", timeout=5, router=router)
    fars = [Far(host, inbox) for host in hosts]
    router.peers = Fleet(*fars)
    try:
        yield client, *fars
    finally:
        for far in fars:
            await far.close()
        dispatcher.close()


@loop_fixture
async def parts():
    async with world("there") as opened:
        yield opened


@loop_fixture
async def client(parts):
    yield parts[0]


@loop_fixture
async def far(parts):
    yield parts[1]


def in_thread(work):
    return asyncio.to_thread(work)


# -------------------------------------------------------------------- streams


@BOTH
@pytest.mark.parametrize(("count", "credit"), [(0, 4), (5, 1), (300, 16), (3000, 1024)])
async def test_items_come_from_another_host_in_order_on_threads_and_on_the_loop(client, method, count, credit):
    typed = client.on(credit=credit, type=int)
    assert await in_thread(lambda: list(typed.stream("shop", method, items=count))) == list(range(count))
    assert [item async for item in typed.astream("shop", method, items=count)] == list(range(count))
    ask = CallRequest("shop", method, {"items": 3}, "there")
    assert await in_thread(lambda: list(client.open_stream(ask))) == [0, 1, 2]
    assert [item async for item in client.open_astream(ask)] == [0, 1, 2], "as an `RpcApi` asks"


@BOTH
async def test_the_error_comes_after_all_items(client, method):
    found = []

    def read():
        found.extend(client.stream("shop", method, items=5, fail=True))

    with pytest.raises(Conflict, match="enough"):
        await in_thread(read)
    assert found == [0, 1, 2, 3, 4]


@BOTH
async def test_a_slow_reader_on_a_thread_holds_up_the_generator_there_and_nothing_else(client, far, method):
    read, go_on = threading.Event(), threading.Event()

    def reader():
        with client.on(credit=8).stream("shop", method, items=1000) as stream:
            first = next(stream)
            read.set()
            assert go_on.wait(5)
            return [first, *stream]

    reading = asyncio.ensure_future(in_thread(reader))
    await in_thread(lambda: read.wait(5))
    far.shop.gate.set()
    assert await client.acall("shop", "buy", what="meanwhile") == "meanwhile"
    assert [item async for item in client.astream("shop", method, items=5)] == [0, 1, 2, 3, 4]
    assert far.shop.made <= 8 + 5
    go_on.set()
    assert await reading == list(range(1000))


@BOTH
async def test_a_reader_on_a_thread_that_leaves_ends_the_generator_there(client, far, method):
    def reader():
        with client.on(credit=4).stream("shop", method, items=10**9) as stream:
            return next(stream)

    assert await in_thread(reader) == 0
    assert await in_thread(lambda: far.shop.closed.wait(5))


async def test_the_time_per_item_is_kept_there_and_that_of_the_request_goes_along(client, far):
    def reader(**options):
        return lambda: list(client.on(**options).stream("shop", "never"))

    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await in_thread(reader(timeout=0.1))
    assert await in_thread(lambda: far.shop.closed.wait(5))
    context = Context("other", "work", request_id="outer", deadline=SystemClock().monotonic() + 0.2)

    def inside():
        with serving(context):
            return reader()()

    with pytest.raises(DeadlineExceeded):
        await in_thread(inside)
    assert time.monotonic() - began < 4


async def test_a_stream_ends_with_the_request_that_reads_it(client, far):
    context, read = Context("other", "work", request_id="outer"), threading.Event()

    def reader():
        with serving(context):
            for _ in client.stream("shop", "never"):
                read.set()

    reading = asyncio.ensure_future(in_thread(reader))
    await in_thread(lambda: read.wait(5))
    context.cancel()
    with pytest.raises(Cancelled):
        await reading
    assert await in_thread(lambda: far.shop.closed.wait(5))


async def test_a_stream_ends_by_name_when_the_other_daemon_goes_away(client, far):
    read = threading.Event()

    def reader():
        for _ in client.stream("shop", "never"):
            read.set()

    reading = asyncio.ensure_future(in_thread(reader))
    await in_thread(lambda: read.wait(5))
    began = time.monotonic()
    far.server.close()
    with pytest.raises(ConnectionLost):
        await reading
    assert time.monotonic() - began < 5


async def test_a_stream_that_cannot_be_asked_for_is_refused_as_a_call_is(client, far):
    with pytest.raises(ServiceNotFound, match="host 'nowhere' not found"):
        await in_thread(lambda: list(client.on(host="nowhere").stream("shop", "count")))
    with pytest.raises(InvalidInput, match="credit"):
        await in_thread(lambda: list(client.on(credit=0).stream("shop", "count")))
    far.up = False
    with pytest.raises(DaemonNotRunning, match="there cannot be reached"):
        await in_thread(lambda: list(client.on(host="there").stream("shop", "count")))
    with pytest.raises(RuntimeError, match="use `astream`"):
        list(client.stream("shop", "count"))


async def test_the_time_of_an_item_is_not_that_of_a_stream_which_is_read_inside_another(client):
    now = SystemClock()
    context = Context("other", "work", request_id="outer", deadline=now.monotonic() + 0.3)

    async def handed_on():
        with serving(context):
            stream = client.on(credit=1).astream("shop", "acount", items=6)
            async for item in stream:
                yield item

    found = []
    async for item in handed_on():
        found.append(item)
        await asyncio.sleep(0.1)
        context.deadline = now.monotonic() + 0.3  # as of a stream whose next item is waited for now
    assert found == [0, 1, 2, 3, 4, 5]


# -------------------------------------------------------------------- retries


def ways(client):
    """Return how a request is sent: on the loop, and on a thread."""
    return client.acall, lambda *args, **arguments: in_thread(lambda: client.call(*args, **arguments))


async def test_a_request_that_was_refused_there_is_sent_again(client, far):
    far.shop.gate.set()
    for call in ways(client.on(retry=SOON)):
        far.dispatcher.set_draining("shop", "a moment")
        refused = far.dispatcher.stats()["shop"]["refused"]
        asking = asyncio.ensure_future(call("shop", "buy", what="lamp"))
        await until(lambda refused=refused: far.dispatcher.stats()["shop"]["refused"] > refused + 1)
        far.dispatcher.set_draining("shop", "")
        assert await asking == "lamp"
    far.dispatcher.set_draining("shop", "for long")
    for call in ways(client.on(retry=SOON._replace(attempts=3))):
        with pytest.raises(Draining) as caught:
            await call("shop", "buy", what="lamp")
        assert caught.value.attempts == 3
    for call in ways(client.on(retry=Retry())):
        with pytest.raises(Draining) as caught:
            await call("shop", "buy", what="lamp")
        assert "attempts" not in caught.value.details, "not one of those after which it is tried again"


async def test_a_cast_is_accepted_again_and_runs_once(client, far):
    for host in (None, "there"):
        await client.on(host=host, retry=SOON).acast("shop", "ready")
        await in_thread(lambda host=host: client.on(host=host, retry=SOON).cast("shop", "ready"))
    await until(lambda: len(far.shop.ids) == 4)
    assert len(set(far.shop.ids)) == 4


@pytest.mark.parametrize("way", [0, 1])
async def test_a_repeat_after_a_lost_connection_finds_the_work_where_it_was_begun(way):
    async with world("near", "there") as (client, *fars):
        asking = asyncio.ensure_future(ways(client.on(retry=SOON))[way]("shop", "buy", what="lamp"))
        await until(lambda: any(far.shop.ids for far in fars))
        (at,) = [far for far in fars if far.shop.ids]
        at.client._link.close()
        at.client._on_lost(ConnectionLost("cut"))
        await until(lambda: at.server.stats()["duplicates"]["joined"])
        at.shop.gate.set()
        assert await asking == "lamp"
        assert [len(far.shop.ids) for far in fars if far is not at] == [0], "nobody else is asked"
        assert len(at.shop.ids) == 1


@pytest.mark.parametrize("way", [0, 1])
async def test_a_repeat_goes_to_another_member_when_the_one_at_work_has_gone(way):
    async with world("near", "there") as (client, *fars):
        asking = asyncio.ensure_future(ways(client.on(retry=SOON))[way]("shop", "buy", what="lamp"))
        await until(lambda: any(far.shop.ids for far in fars))
        (at,), (other,) = [far for far in fars if far.shop.ids], [far for far in fars if not far.shop.ids]
        other.shop.gate.set()
        at.server.close()
        assert await asking == "lamp"
        assert other.shop.ids == at.shop.ids, "under the same id"


@pytest.mark.parametrize("way", [0, 1])
async def test_without_a_policy_that_names_it_a_lost_connection_is_told(way):
    async with world("near", "there") as (client, *fars):
        asking = asyncio.ensure_future(ways(client.on(retry=Retry()))[way]("shop", "buy", what="lamp"))
        await until(lambda: any(far.shop.ids for far in fars))
        for far in fars:
            far.shop.gate.set()
        (at,) = [far for far in fars if far.shop.ids]
        at.server.close()
        with pytest.raises(ConnectionLost):
            await asking
        assert sum(len(far.shop.ids) for far in fars) == 1


async def test_services_here_are_asked_again_too_and_through_a_typed_client(client):
    here = client._dispatcher
    shop, pool = Shop(), WorkerPool("lamp", 1)
    shop.gate.set()
    here.registry.add_endpoint(Endpoint("lamp", "here", shop, pool))
    view = adapter_of(client)
    ask = CallRequest("lamp", "buy", {"what": "bulb"})
    for call in (
        lambda: client.on(retry=SOON).acall("lamp", "buy", what="bulb"),
        lambda: in_thread(lambda: client.on(retry=SOON).call("lamp", "buy", what="bulb")),
        lambda: view.asend_request(ask, SOON),
        lambda: in_thread(lambda: view.send_request(ask, SOON)),
    ):
        here.set_draining("lamp", "a moment")
        refused = here.stats()["lamp"]["refused"]
        asking = asyncio.ensure_future(call())
        await until(lambda refused=refused: here.stats()["lamp"]["refused"] > refused + 1)
        here.set_draining("lamp", "")
        assert await asking == "bulb"
    with pytest.raises(RuntimeError, match="use `acall`"):
        client.on(retry=SOON).call("lamp", "buy", what="bulb")
    pool.close()


async def test_a_retry_ends_with_the_request_it_is_made_in(client, far):
    far.dispatcher.set_draining("shop", "for long")
    context = Context("other", "work", request_id="outer")

    def inside():
        with serving(context):
            client.on(timeout=1000, retry=Retry(attempts=9, backoff=60, max_backoff=60, on=(Draining,))).call(
                "shop", "buy", what="lamp"
            )

    asking = asyncio.ensure_future(in_thread(inside))
    await until(lambda: far.dispatcher.stats()["shop"]["refused"])
    context.cancel()
    with pytest.raises(Cancelled):
        await asking
