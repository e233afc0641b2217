"""Calls inside calls, on every transport and by every client: what is left of the time, and the end of both."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from ostler.errors import Cancelled, DeadlineExceeded
from ostler.messaging import Context, exposed
from support.async_tests import loop_fixture

ON_LOOP = ["acall", "task", "group", "client", "stream"]
IN_THREAD = ["call", "sync_client", "sync_stream"]
FROM_LOOP_TO_THREAD = ["to_thread", "many_threads"]
EVERY_WAY = pytest.mark.parametrize("way", [*ON_LOOP, *IN_THREAD, *FROM_LOOP_TO_THREAD])


class Inner:
    """What is called from within a request."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.stopped = threading.Semaphore(0)

    @exposed()
    async def left(self, ctx: Context) -> float | None:
        return ctx.remaining()

    @exposed()
    async def lefts(self, ctx: Context) -> AsyncIterator[float | None]:
        yield ctx.remaining()

    @exposed()
    async def wait(self, ctx: Context) -> None:
        self.begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            assert ctx.cancelled
            self.stopped.release()

    @exposed()
    async def waits(self, ctx: Context) -> AsyncIterator[int]:
        await self.wait(ctx)
        yield 1


class Outer:
    """Calls `inner` in each of the ways in which a manager can."""

    def __init__(self, world) -> None:
        self.local = world.local("outer", timeout=1000)
        self.client = world.client(timeout=1000)
        self.sync = world.sync_client(timeout=1000)
        self.ended = threading.Event()
        self.error: BaseException | None = None

    @exposed()
    async def on_loop(self, ctx: Context, way: str, method: str) -> list[float | None]:
        return await self._noted(self._on_loop(way, method))

    @exposed()
    def in_thread(self, ctx: Context, way: str, method: str) -> list[float | None]:
        try:
            return self._in_thread(way, method)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended.set()

    async def _noted(self, work):
        try:
            return await work
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended.set()

    async def _on_loop(self, way: str, method: str) -> list[float | None]:
        match way:
            case "acall":
                return [await self.local.acall("inner", method)]
            case "task":
                return [await asyncio.create_task(self.local.acall("inner", method))]
            case "group":
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self.local.acall("inner", method)) for _ in range(3)]
                return [task.result() for task in tasks]
            case "client":
                return [await self.client.call("inner", method)]
            case "stream":
                return [item async for item in self.client.on(credit=1).stream("inner", f"{method}s")]
            case "to_thread":
                return [await asyncio.to_thread(self.local.call, "inner", method)]
            case _:
                calls = (asyncio.to_thread(self.local.call, "inner", method) for _ in range(3))
                return await asyncio.gather(*calls)

    def _in_thread(self, way: str, method: str) -> list[float | None]:
        match way:
            case "call":
                return [self.local.call("inner", method)]
            case "sync_client":
                return [self.sync.call("inner", method)]
            case _:
                return list(self.sync.on(credit=1).stream("inner", f"{method}s"))


@loop_fixture
async def world(world_of):
    """Open a world of the transport under test; nothing may be under way in it at the end."""
    async with world_of(keepalive_interval=0.05) as opened:
        yield opened
        async with asyncio.timeout(5):
            while opened.dispatcher.in_flight("inner") or opened.dispatcher.in_flight("outer"):
                await asyncio.sleep(0.002)


@loop_fixture
async def inner(world):
    made = Inner()
    world.add("inner", made)
    yield made


@loop_fixture
async def outer(world):
    made = Outer(world)
    world.add("outer", made)
    yield made


@loop_fixture
async def ask(world, way, inner, outer):
    method = "in_thread" if way in IN_THREAD else "on_loop"

    def ask_outer(what, **options):
        return world.client().on(**options).call("outer", method, way=way, method=what)

    yield ask_outer


@EVERY_WAY
async def test_a_call_inside_a_call_has_what_is_left_of_it(ask):
    found = await ask("left", timeout=30)
    assert found
    assert all(25 < left <= 30 for left in found)


@EVERY_WAY
async def test_a_call_inside_a_call_ends_with_its_deadline(inner, outer, ask):
    with pytest.raises(DeadlineExceeded):
        await ask("wait", timeout=0.3)
    assert await asyncio.to_thread(outer.ended.wait, 5)
    assert await asyncio.to_thread(inner.stopped.acquire, timeout=5)


@pytest.mark.failure_mode("RPC", "cancel of a sync and of an async method")
@EVERY_WAY
async def test_cancel_reaches_what_a_method_has_called(inner, outer, ask, way):
    calls = {"group": 3, "many_threads": 3}.get(way, 1)
    asked = asyncio.ensure_future(ask("wait", timeout=60))
    for _ in range(calls):
        assert await asyncio.to_thread(inner.begun.acquire, timeout=5)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await asyncio.to_thread(outer.ended.wait, 5)
    assert isinstance(outer.error, Cancelled | asyncio.CancelledError)
    for _ in range(calls):
        assert await asyncio.to_thread(inner.stopped.acquire, timeout=5)


async def test_a_stream_inside_a_stream_ends_with_it(world_of):
    class Relay:
        def __init__(self, world) -> None:
            self.local = world.local("relay")
            self.closed = threading.Event()

        @exposed()
        def relay(self, ctx: Context) -> Iterator[int]:
            with self.local.on(credit=4).stream("source", "numbers") as stream:
                yield from stream

        @exposed()
        async def arelay(self, ctx: Context) -> AsyncIterator[int]:
            async with self.local.on(credit=4).astream("source", "numbers") as stream:
                async for number in stream:
                    yield number

        @exposed()
        async def numbers(self, ctx: Context) -> AsyncIterator[int]:
            try:
                for number in range(10**9):
                    yield number
            finally:
                self.closed.set()

    async with world_of() as world:
        relay = Relay(world)
        world.add("relay", relay)
        world.add("source", relay)
        for method in ("relay", "arelay"):
            relay.closed.clear()
            async with world.client().on(credit=4).stream("relay", method) as stream:
                assert [await anext(stream) for _ in range(20)] == list(range(20))
            assert await asyncio.to_thread(relay.closed.wait, 5)
        async with asyncio.timeout(5):
            while world.dispatcher.streams.open_count:
                await asyncio.sleep(0.002)
