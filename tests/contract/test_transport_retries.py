"""Requests that are sent again, on every transport."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from ostler.errors import (
    Busy,
    Cancelled,
    Conflict,
    ConnectionLost,
    DaemonNotRunning,
    DeadlineExceeded,
    Draining,
    ResultExpired,
)
from ostler.messaging import Context, exposed
from ostler.messaging.clients.retry import Retry
from ostler.messaging.rpc.rpc_server import DedupLimits, ServerLimits
from ostler.messaging.wire.request import CAST_FLAGS, CallRequest
from support.async_tests import loop_fixture
from support.waiting import until

# private: _link, _on_lost: a connection that is cut, which no method of a client does

AGAIN = Retry(attempts=5, backoff=0.01, on=(Busy, DaemonNotRunning, ConnectionLost))
BOTH = pytest.mark.parametrize("method", ["work", "awork"])


class Shop:
    def __init__(self) -> None:
        self.runs = 0
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.cancelled = threading.Event()
        self.busy = 0

    @exposed()
    def work(self, ctx: Context, text: str = "", wait: bool = True) -> str:
        self.runs += 1
        self.begun.set()
        while wait and not self.go_on.wait(0.005):
            if ctx.cancelled:
                self.cancelled.set()
                ctx.check()
        ctx.progress(1, 2, "half")
        return f"{text}{self.runs}"

    @exposed()
    async def awork(self, ctx: Context, text: str = "", wait: bool = True) -> str:
        self.runs += 1
        self.begun.set()
        try:
            while wait and not self.go_on.is_set():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        ctx.progress(1, 2, "half")
        return f"{text}{self.runs}"

    @exposed()
    async def fail(self, ctx: Context) -> None:
        self.runs += 1
        raise Conflict("no", size=self.runs)

    @exposed()
    async def full(self, ctx: Context) -> str:
        self.runs += 1
        if self.runs <= self.busy:
            raise Busy("full", retry_after=0.02)
        return "done"

    @exposed()
    async def big(self, ctx: Context) -> bytes:
        self.runs += 1
        return bytes(5000)


@asynccontextmanager
async def case(world_of, keeping=None, **options):
    """Open a world of the transport under test, with a shop; nothing may be under way at the end."""
    async with world_of(server_limits=ServerLimits(dedup=keeping or DedupLimits()), **options) as world:
        shop = Shop()
        world.add("shop", shop)
        yield world, shop, world.client(timeout=5)
        shop.go_on.set()
        await until(lambda: world.dispatcher.in_flight("shop") == 0)


@loop_fixture
async def parts(world_of):
    async with case(world_of) as opened:
        yield opened


@loop_fixture
async def shop(parts):
    yield parts[1]


def drop(client) -> None:
    """Have a client lose its connection, as a network does."""
    client._link.close()
    client._on_lost(ConnectionLost("the cable was pulled"))


@pytest.mark.failure_mode("RPC", "the same request twice")
@BOTH
async def test_the_same_request_twice(world, shop, client, method):
    first, second = (
        asyncio.ensure_future(client.send_attempt(CallRequest("shop", method, {"text": "a"}), "the-id"))
        for _ in range(2)
    )
    await asyncio.to_thread(shop.begun.wait, 5)
    shop.go_on.set()
    assert await second == "a1"
    assert await client.send_attempt(CallRequest("shop", method, {"text": "a"}), "the-id") == "a1"
    assert await world.client().send_attempt(CallRequest("shop", method, {"text": "a"}), "the-id") == "a1"
    assert shop.runs == 1
    stats = world.server.stats()["duplicates"]
    assert (stats["ids"], stats["under_way"], stats["joined"], stats["answered"]) == (1, 0, 1, 2)
    first.cancel()


@pytest.mark.failure_mode("RPC", "a caller that goes away")
@BOTH
async def test_a_connection_lost_while_a_request_that_may_come_again_is_served(world_of, method):
    async with case(world_of, keepalive_interval=0.02) as (world, shop, client):
        heard = []
        call = asyncio.ensure_future(
            client.on(retry=AGAIN, on_progress=lambda progress: heard.append(progress.text)).call(
                "shop", method, text="a"
            )
        )
        await asyncio.to_thread(shop.begun.wait, 5)
        drop(client)
        await until(lambda: world.server.dedup_cache.repeats_attached == 1)
        shop.go_on.set()
        assert await call == "a1"
        assert heard == ["half"]
        assert not shop.cancelled.is_set()


@BOTH
async def test_work_whose_caller_does_not_come_back_is_stopped_after_a_grace_time(world_of, method):
    async with case(world_of, keepalive_interval=0.02, keeping=DedupLimits(orphan_grace=0.1)) as (world, shop, client):
        call = asyncio.ensure_future(client.send_attempt(CallRequest("shop", method, {}), "the-id"))
        await asyncio.to_thread(shop.begun.wait, 5)
        drop(client)
        with pytest.raises(ConnectionLost):
            await call
        assert not shop.cancelled.is_set()
        assert await asyncio.to_thread(shop.cancelled.wait, 5)
        with pytest.raises(Cancelled, match="did not come back within"):
            await world.client().send_attempt(CallRequest("shop", method, {}), "the-id")
        assert shop.runs == 1


@BOTH
async def test_a_repeat_after_the_connection_was_known_to_be_lost_finds_the_work_going_on(world_of, method):
    async with case(world_of, keepalive_interval=0.02) as (world, shop, client):
        call = asyncio.ensure_future(client.send_attempt(CallRequest("shop", method, {}), "the-id"))
        await asyncio.to_thread(shop.begun.wait, 5)
        drop(client)
        with pytest.raises(ConnectionLost):
            await call
        await until(lambda: world.server.lost_clients == 1)
        again = asyncio.ensure_future(client.send_attempt(CallRequest("shop", method, {}), "the-id"))
        await until(lambda: world.server.dedup_cache.repeats_attached == 1)
        shop.go_on.set()
        assert await again == "1"


@BOTH
async def test_who_cancels_cancels_a_request_that_may_come_again_too(shop, client, method):
    call = asyncio.ensure_future(client.on(retry=AGAIN).call("shop", method))
    await asyncio.to_thread(shop.begun.wait, 5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(shop.cancelled.wait, 5)


async def test_errors_of_the_method_are_kept_as_results_are(client):
    for _ in range(2):
        with pytest.raises(Conflict) as caught:
            await client.send_attempt(CallRequest("shop", "fail", {}), "the-id")
        assert caught.value.size == 1


async def test_a_cast_that_comes_again_runs_once(shop, client):
    for _ in range(3):
        assert await client.send_attempt(CallRequest("shop", "work", {}, flags=CAST_FLAGS), "the-id") == 1
    await asyncio.to_thread(shop.begun.wait, 5)
    assert shop.runs == 1
    assert await client.on(retry=Retry()).cast("shop", "awork", wait=False) is None
    assert shop.runs == 2


async def test_refusals_are_not_kept(world, client):
    world.dispatcher.set_draining("shop", "for a test")
    with pytest.raises(Draining):
        await client.send_attempt(CallRequest("shop", "awork", {"wait": False}), "the-id")
    world.dispatcher.set_draining("shop", "")
    assert await client.send_attempt(CallRequest("shop", "awork", {"wait": False}), "the-id") == "1"


async def test_an_id_that_was_used_for_something_else_is_refused_by_name(shop, client):
    assert await client.send_attempt(CallRequest("shop", "awork", {"wait": False}), "the-id") == "1"
    for other in (
        CallRequest("shop", "work", {"wait": False}),
        CallRequest("shop", "awork", {"wait": False, "text": "b"}),
        CallRequest("shop", "awork", {"wait": False}, flags=CAST_FLAGS),
    ):
        with pytest.raises(Conflict, match="the request id the-id was already used for another request"):
            await client.send_attempt(other, "the-id")
    assert shop.runs == 1


async def test_what_is_kept_is_bounded_by_number_and_a_late_repeat_is_told(world_of):
    async with case(world_of, keeping=DedupLimits(max_results=4)) as (
        world,
        shop,
        client,
    ):  # one caller alone has half of them
        for number in range(30):
            await client.send_attempt(CallRequest("shop", "awork", {"wait": False}), f"id-{number}")
        stats = world.server.stats()["duplicates"]
        assert (stats["ids"], stats["answers"]) == (20, 2)
        assert await client.send_attempt(CallRequest("shop", "awork", {"wait": False}), "id-29") == "30"
        with pytest.raises(ResultExpired, match=r"shop\.awork was completed .* its answer is no longer stored"):
            await client.send_attempt(CallRequest("shop", "awork", {"wait": False}), "id-15")
        assert shop.runs == 30


async def test_what_is_kept_is_bounded_by_bytes(world_of):
    async with case(world_of, keeping=DedupLimits(max_bytes=44000)) as (world, _, client):
        for number in range(10):
            await client.send_attempt(CallRequest("shop", "big", {}), f"id-{number}")
        stats = world.server.stats()["duplicates"]
        assert stats["answers"] == 4
        assert stats["bytes"] <= 22_000
        world.server.apply(ServerLimits(dedup=DedupLimits(max_bytes=6000)))
        await client.send_attempt(CallRequest("shop", "big", {}), "too-large")
        with pytest.raises(ResultExpired):
            await client.send_attempt(CallRequest("shop", "big", {}), "too-large")


async def test_what_is_kept_is_bounded_by_age(world_of):
    async with case(world_of, keeping=DedupLimits(ttl=0.05)) as (world, _, client):
        assert await client.send_attempt(CallRequest("shop", "awork", {"wait": False}), "the-id") == "1"
        await until(lambda: world.server.stats()["duplicates"]["ids"] == 0)
        assert world.server.stats()["duplicates"]["bytes"] == 0
        assert await client.send_attempt(CallRequest("shop", "awork", {"wait": False}), "the-id") == "2"


async def test_a_busy_service_is_asked_again_when_it_said(world, client):
    class Full(Shop):
        pass

    endpoint = world.dispatcher.registry.endpoints_by_topic["shop"]
    real, refused = endpoint.get_method, []

    def method(name):
        if len(refused) < 2:
            refused.append(name)
            raise Busy("full", retry_after=0.02)
        return real(name)

    endpoint.get_method = method
    assert await client.on(retry=Retry(backoff=0.01)).call("shop", "full") == "done"
    refused.clear()
    sync = world.sync_client(retry=Retry(backoff=0.01))
    assert await asyncio.to_thread(sync.call, "shop", "full") == "done"
    refused.clear()
    with pytest.raises(Busy) as caught:
        await client.on(retry=Retry(attempts=2, backoff=0.01)).call("shop", "full")
    assert caught.value.attempts == 2
    refused.clear()
    with pytest.raises(Busy):
        await client.on(retry=Retry(backoff=10), timeout=1).call("shop", "full")


async def test_all_attempts_together_have_the_time_of_one_call(shop, client):
    began = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded):
        await client.on(retry=AGAIN, timeout=0.2).call("shop", "awork")
    assert asyncio.get_running_loop().time() - began < 2
    assert await asyncio.to_thread(shop.cancelled.wait, 5)


@BOTH
async def test_the_sync_client_finds_its_work_again(world_of, method):
    async with case(world_of, keepalive_interval=0.02) as (world, shop, _):
        sync = world.sync_client(timeout=5, retry=AGAIN)
        call = asyncio.ensure_future(asyncio.to_thread(sync.call, "shop", method, text="s"))
        await asyncio.to_thread(shop.begun.wait, 5)
        lost = ConnectionLost("the cable was pulled")

        def receive(*_):
            raise lost

        sync._link.receive, sync._link.receive_briefly = receive, list  # only `receive` says that it is lost
        await until(lambda: world.server.dedup_cache.repeats_attached == 1)
        shop.go_on.set()
        assert await call == "s1"
