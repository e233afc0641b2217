"""The client that managers get: straight through the dispatcher, with the semantics of the wire."""

import asyncio
import threading

import msgspec
import pytest

from ostler.aio import LoopQueue, WorkerPool
from ostler.clock import SystemClock
from ostler.errors import (
    Cancelled,
    Conflict,
    DeadlineExceeded,
    InvalidArguments,
    MethodNotFound,
    NotExposed,
    ServiceNotFound,
)
from ostler.messaging import Context, LocalServiceClient, ServiceClient, exposed
from ostler.messaging.network.routing import Router
from ostler.messaging.wire.request_context import current_context, serving
from ostler.types import LOCAL_PEER
from support.async_tests import loop_fixture
from support.local import dispatching

# private: _topic: which topic events of a client come from, without events


class Lamp(msgspec.Struct):
    name: str
    tags: list[str] = []


class Shop:
    def __init__(self):
        self.kept = None
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    @exposed(role="admin")
    def keep(self, ctx: Context, lamp: Lamp) -> Lamp:
        assert ctx.peer is LOCAL_PEER
        self.kept = lamp
        return lamp

    @exposed()
    async def request_id(self, ctx: Context) -> str:
        return ctx.request_id

    @exposed()
    def fail(self, ctx: Context) -> None:
        self.error = Conflict("there", size=1)
        raise self.error

    @exposed()
    def wait(self, ctx: Context) -> None:
        self.begun.set()
        while not ctx.cancelled:
            self.cancelled.wait(0.01)
        self.cancelled.set()

    def hidden(self, ctx: Context) -> None: ...


@pytest.fixture
def shop():
    return Shop()


@loop_fixture
async def inbox():
    yield LoopQueue(asyncio.get_running_loop())


@loop_fixture
async def dispatcher(inbox, shop):
    async with dispatching("shop", shop, inbox) as made:
        yield made


@loop_fixture
async def router(dispatcher):
    yield Router("here", dispatcher.registry.is_open)


@loop_fixture
async def client(dispatcher, inbox, router):
    made: ServiceClient = LocalServiceClient(dispatcher, inbox, topic="other", timeout=5, router=router)
    yield made


async def test_values_are_converted_and_never_shared(client, shop):
    lamp = Lamp("a", ["x"])
    for found in (
        await client.on(type=Lamp).acall("shop", "keep", lamp=lamp),
        await asyncio.to_thread(client.on(type=Lamp).call, "shop", "keep", lamp=lamp),
    ):
        assert found == lamp
        assert found is not lamp
        assert shop.kept is not lamp
        shop.kept.tags.append("changed")
        assert lamp.tags == found.tags == ["x"]
    assert await client.acall("shop", "keep", lamp={"name": "a"}) == {"name": "a", "tags": []}


async def test_what_is_refused_on_the_wire_is_refused_here(client):
    for error, method, arguments in (
        (NotExposed, "hidden", {}), (MethodNotFound, "nothing", {}), (InvalidArguments, "keep", {"lamp": 5}),
    ):  # fmt: skip
        with pytest.raises(error):
            await client.acall("shop", method, **arguments)
        with pytest.raises(error):
            await asyncio.to_thread(client.call, "shop", method, **arguments)
    with pytest.raises(ServiceNotFound, match="this daemon is here"):
        await client.on(host="there").acall("shop", "keep")


async def test_a_thread_that_waits_for_another_service_is_replaced_in_its_own_pool(client, shop, dispatcher):
    mine = WorkerPool("mine", 1)
    waiting = [asyncio.ensure_future(mine.run(lambda: client.call("shop", "wait"), label="call")) for _ in range(2)]
    await asyncio.to_thread(shop.begun.wait, 5)
    assert await asyncio.wait_for(mine.run(lambda: 1, label="other"), 5) == 1
    dispatcher.cancel_contexts("shop")
    await asyncio.gather(*waiting)
    mine.close()


async def test_an_error_is_never_the_very_object_that_was_raised(client, shop):
    with pytest.raises(Conflict) as caught:
        await client.acall("shop", "fail")
    assert caught.value is not shop.error
    assert caught.value.details == {"size": 1}


async def test_the_blocking_calls_are_not_for_the_loop(client):
    for call in (client.call, client.cast, client.fanout):
        with pytest.raises(RuntimeError, match="use `acall`"):
            call("shop", "request_id")


async def test_request_ids_say_where_a_call_came_from(client):
    assert (await client.acall("shop", "request_id")).startswith("other.")


async def test_deadlines_are_kept_on_threads_and_on_the_loop(client):
    with pytest.raises(DeadlineExceeded):
        await client.on(timeout=0.05).acall("shop", "wait")
    with pytest.raises(DeadlineExceeded):
        await asyncio.to_thread(client.on(timeout=0.05).call, "shop", "wait")


async def test_a_cancelled_wait_stops_the_work(client, shop):
    task = asyncio.ensure_future(client.acall("shop", "wait"))
    await asyncio.to_thread(shop.begun.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(shop.cancelled.wait, 5)


async def test_what_is_under_way_at_the_end_is_answered(client, shop, dispatcher):
    task = asyncio.ensure_future(client.acall("shop", "wait"))
    await asyncio.to_thread(shop.begun.wait, 5)
    dispatcher.close()
    with pytest.raises(Exception, match="the daemon stopped before"):
        await task


async def test_casts_and_fanouts_return_when_accepted(client):
    assert await client.acast("shop", "wait") is None
    assert await client.afanout("shop", "fail") == 1
    assert await client.afanout("nowhere", "fail") == 0
    assert await asyncio.to_thread(client.fanout, "shop", "fail") == 1
    await asyncio.to_thread(client.cast, "shop", "fail")
    client.publish("nobody-listens")
    assert client.for_topic("third")._topic == "third"


class Deaf:
    """The queue of a loop that does nothing any more."""

    def post(self, call):
        pass


async def test_a_loop_that_hangs_does_not_hold_a_thread_beyond_its_deadline(dispatcher):
    client = LocalServiceClient(dispatcher, Deaf(), topic="other", timeout=5)
    with pytest.raises(DeadlineExceeded, match="event loop is blocked"):
        await asyncio.to_thread(client.on(timeout=0.01).call, "shop", "wait")


def test_cancelled_is_for_the_nested_call_as_well():
    assert issubclass(Cancelled, Exception)


class Far:
    """Another daemon that answers with what was asked and by whom."""

    host, up = "there", True

    def __init__(self):
        self.asked = []
        self.client = self

    def runs(self, topic):
        return topic in ("shop", "far")

    accepts = runs

    def is_available(self, topic):
        return True

    async def send_request(self, ask):
        self.asked.append((ask, current_context()))
        if ask.method == "hang":
            await asyncio.Event().wait()
        return 1 if ask.flags else f"{ask.topic} there"


class Fleet:
    def __init__(self, far):
        self.peers = {"there": far}

    def peers_with(self, topic):
        return [far for far in self.peers.values() if far.runs(topic)]


async def test_what_is_elsewhere_is_asked_there_from_the_loop_and_from_threads(client, router):
    far = Far()
    router.peers = Fleet(far)
    assert await client.acall("far", "list") == "far there"
    assert await asyncio.to_thread(client.on(host="there").call, "shop", "list") == "shop there"
    with pytest.raises(RuntimeError, match="use `acall`"):
        client.call("far", "list")
    assert await client.for_topic("x").acall("far", "list") == "far there"
    with pytest.raises(ServiceNotFound, match="service 'nothing' not found on here"):
        await client.acall("nothing", "list")


async def test_a_fanout_reaches_the_service_here_and_those_elsewhere(client, router):
    far = Far()
    router.peers = Fleet(far)
    assert await client.afanout("shop", "request_id") == 2
    assert await asyncio.to_thread(client.fanout, "far", "list") == 1
    assert await client.afanout("nothing", "list") == 0


async def test_a_call_to_elsewhere_knows_its_request_and_ends_when_nobody_waits(client, router):
    far = Far()
    router.peers = Fleet(far)
    context = Context("shop", "wait", request_id="outer", deadline=SystemClock().monotonic() + 0.2)

    def work():
        with serving(context):
            client.call("far", "list")
            client.call("far", "hang")

    began = SystemClock().monotonic()
    with pytest.raises(DeadlineExceeded):
        await asyncio.to_thread(work)
    assert SystemClock().monotonic() - began < 10
    assert [context.request_id for _, context in far.asked] == ["outer", "outer"]
