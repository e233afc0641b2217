"""Streams between managers of one daemon, on the loop and on threads."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from ostler.aio import LoopQueue
from ostler.clock import SystemClock
from ostler.errors import (
    Cancelled,
    Conflict,
    DeadlineExceeded,
    EncodeError,
    InvalidArguments,
    MalformedMessage,
    WrongCallKind,
)
from ostler.messaging import Context, LocalServiceClient, exposed, serving
from support.async_tests import loop_fixture
from support.local import dispatching
from support.waiting import until

# private: _local_streams: a loop that hangs only after the stream was open

BOTH = pytest.mark.parametrize("method", ["count", "acount"])


class Lamp(msgspec.Struct):
    name: str


class Shop:
    def __init__(self):
        self.made = 0
        self.closed = threading.Event()
        self.lamp = Lamp("a")

    @exposed()
    def count(self, ctx: Context, items: int = 10, fail: bool = False) -> Iterator[int]:
        try:
            for number in range(items):
                self.made += 1
                yield number
            if fail:
                self.error = Conflict("enough")
                raise self.error
        finally:
            self.closed.set()

    @exposed()
    async def acount(self, ctx: Context, items: int = 10, fail: bool = False) -> AsyncIterator[int]:
        try:
            for number in range(items):
                self.made += 1
                yield number
            if fail:
                self.error = Conflict("enough")
                raise self.error
        finally:
            self.closed.set()

    @exposed()
    async def lamps(self, ctx: Context) -> AsyncIterator[Lamp]:
        yield self.lamp

    @exposed()
    async def never(self, ctx: Context) -> AsyncIterator[int]:
        try:
            await asyncio.sleep(60)
            yield 1
        finally:
            self.closed.set()

    @exposed()
    async def unfit(self, ctx: Context) -> AsyncIterator[int]:
        yield object()

    @exposed()
    async def plain(self, ctx: Context) -> int:
        return 1


@pytest.fixture
def shop():
    return Shop()


@loop_fixture
async def inbox():
    yield LoopQueue(asyncio.get_running_loop())


@loop_fixture
async def dispatcher(inbox, shop):
    """Serve the shop; after a test that passes no stream may be open."""
    async with dispatching("shop", shop, inbox) as made:
        yield made
        await until(lambda: not made.in_flight("shop"))
        assert made.streams.open_count == 0


@loop_fixture
async def client(dispatcher, inbox):
    yield LocalServiceClient(dispatcher, inbox, topic="other", timeout=5)


async def items(client, method, **arguments):
    """Read a stream in both ways; both see the same."""
    on_loop = [item async for item in client.astream("shop", method, **arguments)]
    assert await asyncio.to_thread(lambda: list(client.stream("shop", method, **arguments))) == on_loop
    return on_loop


@BOTH
@pytest.mark.parametrize(("count", "credit"), [(0, 4), (5, 1), (1000, 16), (3000, 1024)])
async def test_all_items_come_in_their_order(client, method, count, credit):
    assert await items(client.on(credit=credit, type=int), method, items=count) == list(range(count))


async def test_items_are_converted_and_never_shared(client, shop):
    (found,) = await items(client.on(type=Lamp), "lamps")
    assert found == shop.lamp
    assert found is not shop.lamp
    assert await items(client, "lamps") == [{"name": "a"}]
    with pytest.raises(MalformedMessage):
        await items(client.on(type=int), "lamps")


@BOTH
async def test_an_error_comes_after_the_items_and_is_never_the_very_object(client, shop, method):
    found = []

    def read():
        found.extend(client.stream("shop", method, fail=True))

    with pytest.raises(Conflict, match="enough") as caught:
        await asyncio.to_thread(read)
    assert found == list(range(10))
    assert caught.value is not shop.error
    with pytest.raises(Conflict, match="enough"):
        [item async for item in client.astream("shop", method, fail=True)]


@BOTH
async def test_a_reader_that_is_slow_or_leaves_holds_up_nothing(client, shop, method):
    stream = client.on(credit=8).astream("shop", method, items=10**9)
    assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
    async with asyncio.timeout(5):
        while shop.made < 8:
            await asyncio.sleep(0.002)
    assert shop.made == 8
    stream.close()
    assert await asyncio.to_thread(shop.closed.wait, 5)
    shop.closed.clear()

    def read():
        for item in client.on(credit=8).stream("shop", method, items=10**9):
            if item == 20:
                break

    await asyncio.to_thread(read)
    assert await asyncio.to_thread(shop.closed.wait, 5)


async def test_a_stream_has_what_is_left_of_the_request_that_reads_it(client):
    clock = SystemClock()
    with serving(Context("outer", "method", deadline=clock.monotonic() + 0.1)), pytest.raises(DeadlineExceeded):
        await asyncio.to_thread(lambda: list(client.stream("shop", "never")))
    with serving(Context("outer", "method", deadline=clock.monotonic() + 0.1)), pytest.raises(DeadlineExceeded):
        [item async for item in client.on(timeout=50).astream("shop", "never")]


async def test_a_stream_ends_with_the_request_that_reads_it(client, dispatcher):
    context = Context("outer", "method")
    with serving(context):
        reads = [
            asyncio.ensure_future(asyncio.to_thread(lambda: list(client.stream("shop", "never")))),
            asyncio.ensure_future(anext(client.astream("shop", "never"))),
        ]
    async with asyncio.timeout(5):
        while dispatcher.in_flight("shop") < 2:
            await asyncio.sleep(0.002)
    context.cancel()
    for read in reads:
        with pytest.raises(Cancelled):
            await read


async def test_what_is_refused_on_the_wire_is_refused_here(client):
    for error, method, arguments in (
        (WrongCallKind, "plain", {}), (InvalidArguments, "count", {"items": "x"}), (EncodeError, "unfit", {}),
    ):  # fmt: skip
        with pytest.raises(error):
            [item async for item in client.astream("shop", method, **arguments)]
        with pytest.raises(error):
            await asyncio.to_thread(lambda: list(client.stream("shop", method, **arguments)))  # noqa: B023
    with pytest.raises(WrongCallKind):
        await client.acall("shop", "count")
    with pytest.raises(RuntimeError, match="use `astream`"):
        list(client.stream("shop", "count"))
    with pytest.raises(EncodeError):
        await asyncio.to_thread(lambda: list(client.stream("shop", "count", items=object())))


async def test_a_loop_that_hangs_does_not_hold_a_thread_beyond_its_time(client):
    assert await items(client, "count")
    client._local_streams.inbox = type("Deaf", (), {"post": lambda self, call: None})()
    with pytest.raises(DeadlineExceeded, match="event loop is blocked"):
        await asyncio.to_thread(lambda: list(client.on(timeout=0.01).stream("shop", "count")))
