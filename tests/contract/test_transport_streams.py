"""Streams, on every transport: what a method yields, under credit, and how it ends."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from ostler.errors import (
    Busy,
    Cancelled,
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    Draining,
    EncodeError,
    InternalError,
    InvalidArguments,
    InvalidInput,
    MalformedMessage,
    MessageTooLarge,
    NotExposed,
    WrongCallKind,
)
from ostler.messaging import Context, current_context, exposed
from ostler.messaging.rpc.dispatcher import DispatcherLimits
from support.async_tests import loop_fixture
from support.waiting import until

# private: _link: a connection that is cut, which no method of a client does
# private: _core, _keepalive_interval, _keepalive_timer: a server that falls silent, and a client that soon notices

ON_LOOP_AND_IN_THREAD = pytest.mark.parametrize("method", ["count", "acount"])


class Lamp(msgspec.Struct):
    name: str
    on: bool = False


class Source:
    """A manager with generators of both kinds."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = threading.Event()
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.saw_cancel = False
        self.inner: list[str] = []

    @exposed()
    def count(self, ctx: Context, items: int = 10, fail: bool = False) -> Iterator[int]:
        """Count."""
        try:
            for number in range(items):
                assert current_context() is ctx
                self.made += 1
                yield number
                self.begun.set()
            if fail:
                raise Conflict("enough", size=items)
        finally:
            self.saw_cancel = ctx.cancelled
            self.closed.set()

    @exposed()
    async def acount(self, ctx: Context, items: int = 10, fail: bool = False) -> AsyncIterator[int]:
        try:
            for number in range(items):
                assert current_context() is ctx
                self.made += 1
                yield number
                self.begun.set()
            if fail:
                raise Conflict("enough", size=items)
        finally:
            await asyncio.sleep(0)
            self.saw_cancel = ctx.cancelled
            self.closed.set()

    @exposed()
    def lamps(self, ctx: Context) -> Iterator[Lamp]:
        lamp = Lamp("same")
        for number in range(5):
            lamp.name = f"l{number}"
            yield lamp

    @exposed()
    async def slowly(self, ctx: Context, before: int = 1) -> AsyncIterator[int]:
        """Yield some, then nothing more until told."""
        try:
            for number in range(before):
                yield number
            self.begun.set()
            while not self.go_on.is_set():
                await asyncio.sleep(0.005)
            yield -1
        finally:
            self.closed.set()

    @exposed()
    def slowly_in_thread(self, ctx: Context, before: int = 1) -> Iterator[int]:
        try:
            yield from range(before)
            self.begun.set()
            while not self.go_on.wait(0.01):
                ctx.check()
            yield -1
        finally:
            self.closed.set()

    @exposed()
    def blobs(self, ctx: Context, items: int, size: int) -> Iterator[bytes]:
        for _ in range(items):
            self.made += 1
            yield bytes(size)

    @exposed()
    async def ablobs(self, ctx: Context, items: int, size: int) -> AsyncIterator[bytes]:
        for _ in range(items):
            self.made += 1
            yield bytes(size)

    @exposed()
    def unfit(self, ctx: Context) -> Iterator[int]:
        yield 1
        yield object()  # type: ignore[misc]

    @exposed()
    async def aunfit(self, ctx: Context) -> AsyncIterator[int]:
        yield 1
        yield object()  # type: ignore[misc]

    @exposed()
    def odd(self, ctx: Context, how: str) -> Iterator[int]:
        yield 1
        raise {"value": ValueError("bad luck"), "exit": SystemExit(3), "interrupt": KeyboardInterrupt()}[how]

    @exposed()
    async def aodd(self, ctx: Context, how: str) -> AsyncIterator[int]:
        yield 1
        raise {"value": ValueError("bad luck"), "exit": SystemExit(3), "interrupt": KeyboardInterrupt()}[how]

    @exposed()
    async def plain(self, ctx: Context) -> int:
        return 5

    async def hidden(self, ctx: Context) -> AsyncIterator[int]:
        yield 1


async def into(found: list, stream, each=lambda: None) -> None:
    async for item in stream:
        found.append(item)
        each()


@asynccontextmanager
async def case(world_of, **options):
    """Open a world of the transport under test, with a source of streams; none may be open at the end."""
    async with world_of(**options) as world:
        source = Source()
        world.add("source", source)
        yield world, source, world.client(timeout=5)
        await until(lambda: world.dispatcher.in_flight("source") == 0)
        assert world.dispatcher.streams is None or world.dispatcher.streams.open_count == 0


@loop_fixture
async def parts(world_of):
    async with case(world_of) as opened:
        yield opened


@loop_fixture
async def source(parts):
    yield parts[1]


@ON_LOOP_AND_IN_THREAD
@pytest.mark.parametrize(("items", "credit"), [(0, 8), (1, 1), (10, 1), (10, 3), (1000, 64), (5000, 1024)])
async def test_all_items_come_in_their_order_and_then_the_end(world, source, client, method, items, credit):
    async with client.on(credit=credit, type=int).stream("source", method, items=items) as stream:
        assert [item async for item in stream] == list(range(items))
    assert source.closed.is_set()
    assert not source.saw_cancel
    assert world.dispatcher.in_flight("source") == 0


@ON_LOOP_AND_IN_THREAD
async def test_the_sync_client_reads_a_stream_and_may_call_meanwhile(world, method):
    sync = world.sync_client(timeout=5)

    def work():
        found = []
        with sync.on(credit=16).stream("source", method, items=300) as stream:
            for item in stream:
                found.append(item)
                if item % 50 == 0:
                    assert sync.call("source", "plain") == 5
        return found

    assert await asyncio.to_thread(work) == list(range(300))


async def test_items_are_of_the_type_asked_for_and_as_they_were_when_yielded(client):
    found = [lamp async for lamp in client.on(type=Lamp).stream("source", "lamps")]
    assert found == [Lamp(f"l{number}") for number in range(5)]
    with pytest.raises(MalformedMessage, match=r"an item of source\.lamps does not have the type"):
        [lamp async for lamp in client.on(type=int).stream("source", "lamps")]


@ON_LOOP_AND_IN_THREAD
async def test_an_error_comes_after_the_items_before_it(client, method):
    found = []
    with pytest.raises(Conflict, match="enough") as caught:
        await into(found, client.stream("source", method, items=100, fail=True))
    assert found == list(range(100))
    assert caught.value.size == 100


@pytest.mark.failure_mode("RPC", "a reply that cannot be encoded")
@pytest.mark.parametrize("method", ["unfit", "aunfit"])
async def test_an_item_that_cannot_be_encoded(client, method):
    found = []
    with pytest.raises(EncodeError, match=rf"item 1 of source\.{method} cannot be encoded"):
        await into(found, client.stream("source", method))
    assert found == [1]


@pytest.mark.failure_mode("RPC", "an oversized message")
@pytest.mark.parametrize("method", ["blobs", "ablobs"])
async def test_an_item_that_is_too_large(world_of, method):
    async with case(world_of, max_message_size=100000) as (_, _, client):
        sizes = [len(item) async for item in client.on(type=bytes).stream("source", method, items=50, size=90_000)]
        assert sizes == [90_000] * 50
        with pytest.raises(MessageTooLarge, match=rf"item 0 of source\.{method} has 200005 bytes"):
            [item async for item in client.stream("source", method, items=1, size=200_000)]


@pytest.mark.failure_mode("Life", "a manager that raises `SystemExit` or `KeyboardInterrupt`")
@pytest.mark.parametrize("method", ["odd", "aodd"])
@pytest.mark.parametrize("how", ["value", "exit", "interrupt"])
async def test_a_generator_that_raises_what_it_should_not(client, caplog, method, how):
    found = []
    with pytest.raises(InternalError):
        await into(found, client.stream("source", method, how=how))
    assert found == [1]
    assert await client.call("source", "plain") == 5


@ON_LOOP_AND_IN_THREAD
async def test_a_slow_reader_holds_up_only_its_own_stream_and_no_thread(world, source, client, method):
    eager = client.on(credit=8)
    streams = [eager.stream("source", method, items=10**9) for _ in range(6)]  # the pool has 4 threads
    for stream in streams:
        assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
    await until(lambda: source.made == 6 * 8 and not world.pool.running_jobs())
    assert [item async for item in client.stream("source", "count", items=100)] == list(range(100))
    for stream in streams:
        stream.close()


@pytest.mark.failure_mode("RPC", "a full queue")
@pytest.mark.parametrize("method", ["blobs", "ablobs"])
async def test_a_slow_reader_of_large_items_costs_the_server_no_memory(world, source, client, method):
    stream = client.on(credit=64).stream("source", method, items=64, size=2**20)
    assert len(await anext(stream)) == 2**20
    await until(lambda: source.made >= 4 and not world.pool.running_jobs())
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert source.made <= 6
    assert len([item async for item in stream]) == 63


@ON_LOOP_AND_IN_THREAD
async def test_leaving_the_block_ends_the_generator(source, client, method):
    async with client.on(credit=4).stream("source", method, items=10**9) as stream:
        assert await anext(stream) == 0
    assert await asyncio.to_thread(source.closed.wait, 5)
    assert source.saw_cancel


@ON_LOOP_AND_IN_THREAD
async def test_a_break_ends_the_generator_in_the_sync_client_too(world, source, method):
    sync = world.sync_client(timeout=5)

    def work():
        for item in sync.on(credit=4).stream("source", method, items=10**9):
            if item == 9:
                break
        return sync.call("source", "plain")

    assert await asyncio.to_thread(work) == 5
    assert await asyncio.to_thread(source.closed.wait, 5)


@pytest.mark.parametrize("method", ["slowly", "slowly_in_thread"])
async def test_what_is_ready_does_not_wait_for_what_is_not(source, client, method):
    async with client.on(credit=100).stream("source", method, before=3) as stream:
        assert [await anext(stream) for _ in range(3)] == [0, 1, 2]
        assert not source.go_on.is_set()
        source.go_on.set()
        assert [item async for item in stream] == [-1]


@pytest.mark.parametrize("method", ["slowly", "slowly_in_thread"])
async def test_a_cancelled_reader_cancels_the_generator(source, client, method):
    async def read():
        async with client.stream("source", method) as stream:
            async for _ in stream:
                pass

    task = asyncio.ensure_future(read())
    await asyncio.to_thread(source.begun.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(source.closed.wait, 5)


@pytest.mark.parametrize("method", ["slowly", "slowly_in_thread"])
async def test_the_time_is_for_each_item_and_not_for_the_whole(source, client, method):
    found = []
    with pytest.raises(DeadlineExceeded) as caught:
        await into(found, client.on(timeout=0.2).stream("source", method, before=2))
    assert found == [0, 1]
    assert f"source.{method}" in str(caught.value)
    assert await asyncio.to_thread(source.closed.wait, 5)


@pytest.mark.parametrize("method", ["slowly", "slowly_in_thread"])
async def test_draining_ends_the_streams_of_a_topic_and_says_why(world, source, client, method):
    found = []
    with pytest.raises(Draining, match="stopped: the daemon stops"):
        await into(
            found,
            client.stream("source", method),
            lambda: world.dispatcher.set_draining("source", "the daemon stops"),
        )
    assert found == [0]
    assert await asyncio.to_thread(source.closed.wait, 5)


@ON_LOOP_AND_IN_THREAD
async def test_draining_ends_a_stream_that_waits_for_its_reader(world, source, client, method):
    stream = client.on(credit=2).stream("source", method, items=10**9)
    assert await anext(stream) == 0
    await until(lambda: source.made == 2 and not world.pool.running_jobs())
    world.dispatcher.set_draining("source", "the daemon stops")
    assert await asyncio.to_thread(source.closed.wait, 5)
    with pytest.raises(Draining):
        [item async for item in stream]


@pytest.mark.failure_mode("RPC", "a caller that goes away")
@pytest.mark.parametrize("method", ["count", "acount", "slowly", "slowly_in_thread"])
async def test_a_reader_that_goes_away(world_of, method):
    async with case(world_of, keepalive_interval=0.05) as (_, source, client):
        stream = client.on(credit=1).stream("source", method)
        assert await anext(stream) == 0
        client._link.close()
        client._link = None
        assert await asyncio.to_thread(source.closed.wait, 5)
        stream.close()
        gc.collect()


@pytest.mark.failure_mode("RPC", "a server that dies in the middle")
@pytest.mark.parametrize("method", ["slowly", "slowly_in_thread"])
async def test_a_server_that_dies_in_a_stream(world, client, method):
    found = []
    with pytest.raises(ConnectionLost, match=f"while source.{method} was in progress"):
        await into(found, client.stream("source", method), world.server.link.close)
    assert found == [0]
    world.server.close()


@pytest.mark.failure_mode("RPC", "a server that dies in the middle")
@pytest.mark.parametrize("method", ["slowly", "slowly_in_thread"])
async def test_a_server_that_falls_silent_in_a_stream(world, client, method):
    found = []
    client._core._keepalive_interval = 0.02
    with pytest.raises(ConnectionLost, match="no response"):
        await into(found, client.stream("source", method), world.server._keepalive_timer.cancel)
    assert found == [0]


async def test_a_method_is_asked_for_in_its_own_way(source, client):
    for wrong in (client.call("source", "count"), client.cast("source", "acount"), client.call("source", "acount")):
        with pytest.raises(WrongCallKind, match=r"yields, and cannot be called or cast; use `for item in client"):
            await wrong
    with pytest.raises(WrongCallKind, match=r"source\.plain does not yield, and cannot be streamed"):
        [item async for item in client.stream("source", "plain")]
    assert source.made == 0


async def test_what_is_refused_for_a_call_is_refused_for_a_stream(client):
    with pytest.raises(InvalidArguments, match="must be int"):
        [item async for item in client.stream("source", "count", items="many")]
    with pytest.raises(NotExposed):
        [item async for item in client.stream("source", "hidden")]
    for credit in (0, -1, 2**40, True, "7"):
        with pytest.raises(InvalidInput, match="must be a number from 1 to 65536"):
            [item async for item in client.on(credit=credit).stream("source", "count")]


@ON_LOOP_AND_IN_THREAD
async def test_the_number_of_open_streams_is_bounded_by_caller_and_in_all(world, client, method):
    world.dispatcher.apply(world.dispatcher.access, DispatcherLimits(max_streams=3, max_streams_per_peer=2))
    # Two connections of one uid.
    other = world.client()
    streams = [each.on(credit=1).stream("source", method, items=100) for each in (client, other)]
    for stream in streams:
        assert await anext(stream) == 0
    for each in (client, other):
        with pytest.raises(Busy, match="has 2 open streams, which is the limit") as caught:
            [item async for item in each.stream("source", method)]
        assert (caught.value.retry_after, caught.value.is_own_share) == (1.0, True)
    world.dispatcher.apply(world.dispatcher.access, DispatcherLimits(max_streams=2, max_streams_per_peer=3))
    with pytest.raises(Busy, match="this daemon has 2 open streams") as caught:
        [item async for item in other.stream("source", method)]
    assert not caught.value.is_own_share
    streams[0].close()
    await until(lambda: world.dispatcher.streams.open_count == 1)
    assert [item async for item in client.stream("source", method)] == list(range(10))
    for stream in streams:
        stream.close()


@ON_LOOP_AND_IN_THREAD
async def test_many_streams_side_by_side_each_get_their_own_items(client, method):
    async def read(items):
        return [item async for item in client.on(credit=7).stream("source", method, items=items)]

    counts = range(0, 200, 10)
    found = await asyncio.gather(*(read(items) for items in counts))
    assert found == [list(range(items)) for items in counts]


@ON_LOOP_AND_IN_THREAD
async def test_closing_the_client_ends_its_streams(source, client, method):
    stream = client.on(credit=2).stream("source", method, items=10**9)
    assert await anext(stream) == 0
    await client.close()
    assert await asyncio.to_thread(source.closed.wait, 5)
    with pytest.raises(Cancelled, match="the client was closed"):
        await into([], stream)


@pytest.mark.parametrize("method", ["slowly", "slowly_in_thread"])
async def test_a_thread_that_waits_for_an_item_lets_calls_of_other_threads_through(world, source, method):
    sync = world.sync_client(timeout=5)
    reading = asyncio.ensure_future(asyncio.to_thread(lambda: list(sync.stream("source", method))))
    await asyncio.to_thread(source.begun.wait, 5)
    for _ in range(3):
        assert await asyncio.to_thread(sync.call, "source", "plain") == 5
    source.go_on.set()
    assert await reading == [0, -1]
