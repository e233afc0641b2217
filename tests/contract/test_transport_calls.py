"""Calls, casts and fanouts, on every transport."""

import asyncio
import gc
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import msgspec
import pytest

from ostler.clock import FakeClock
from ostler.errors import (
    Busy,
    Cancelled,
    Conflict,
    ConnectionLost,
    DaemonNotRunning,
    DeadlineExceeded,
    Draining,
    EncodeError,
    InternalError,
    InvalidArguments,
    MalformedMessage,
    MessageTooLarge,
    MethodNotFound,
    NotExposed,
    NotPermitted,
    ServiceNotFound,
    UnsupportedVersion,
)
from ostler.messaging import Access, Context, RpcServer, current_context, exposed
from ostler.messaging.rpc.rpc_server import ServerLimits
from ostler.messaging.wire.request import CallRequest

# private: _link: a connection that is cut, which no method of a client does
# private: _core: a message that is taken in later, as by a client in another process
# private: _check_deadlines: as the timer calls it, which does not go by the test's clock
# private: _members_by_role: a daemon whose own user is nobody special, as the tests run as root


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Size:
    width: int
    height: int = 1


class Lamp(msgspec.Struct):
    name: str
    on: bool = False


class Shop:
    """A manager with a method of every kind."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.ended = threading.Event()
        self.cancelled = threading.Event()
        self.runs = 0
        self.seen: list[str] = []

    @exposed(role="viewer")
    async def echo(self, ctx: Context, text: str = "") -> str:
        """Return the text."""
        return text

    @exposed(role="viewer")
    def echo_in_thread(self, ctx: Context, text: str = "") -> str:
        assert current_context() is ctx
        assert threading.current_thread().name.startswith("tests-")
        return text

    @exposed()
    async def types(
        self, ctx: Context, lamp: Lamp, size: Size, colour: Colour, when: datetime, blob: bytes, many: list[int | None]
    ) -> list[Lamp]:
        assert (type(lamp), type(size), colour, blob) == (Lamp, Size, Colour.BLUE, b"\0\xff")
        assert when.tzinfo is not None
        return [Lamp(name=lamp.name, on=not lamp.on) for _ in many]

    @exposed()
    async def who(self, ctx: Context) -> list[int | str]:
        return [ctx.peer.uid, str(ctx.role), ctx.topic, ctx.method]

    @exposed()
    def wait(self, ctx: Context, seconds: float = 30) -> str:
        self.begun.set()
        while not self.go_on.wait(0.01):
            if ctx.cancelled:
                self.cancelled.set()
                return "cancelled"
        self.ended.set()
        return "done"

    @exposed()
    async def await_(self, ctx: Context, seconds: float = 30) -> str:
        self.begun.set()
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "done"

    @exposed()
    async def in_two_steps(self, ctx: Context) -> str:
        await asyncio.sleep(0)
        assert current_context() is ctx
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            await group.create_task(asyncio.sleep(0.001))
        return "both"

    @exposed()
    async def timeout_in_first_step(self, ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(30)
        except TimeoutError:
            return "timed out"
        return "not"

    @exposed()
    def count(self, ctx: Context, text: str = "") -> int:
        self.runs += 1
        self.seen.append(text)
        return self.runs

    @exposed()
    def fail(self, ctx: Context, how: str) -> None:
        raise {
            "conflict": Conflict("it is there", hint="take another", name="a", size=3),
            "value": ValueError("bad luck"),
            "exit": SystemExit(3),
            "interrupt": KeyboardInterrupt(),
            "strange": StrangeError("odd", depth=2),
            "stop": StopIteration("x"),
        }[how]

    @exposed()
    async def fail_on_loop(self, ctx: Context, how: str) -> None:
        raise {"conflict": Conflict("it is there"), "exit": SystemExit(3), "interrupt": KeyboardInterrupt()}[how]

    @exposed()
    async def fail_later(self, ctx: Context, how: str) -> None:
        await asyncio.sleep(0)
        raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "value": ValueError("late")}[how]

    @exposed()
    def not_encodable(self, ctx: Context) -> list[int]:
        return [object()]  # type: ignore[list-item]

    @exposed()
    async def not_encodable_on_loop(self, ctx: Context) -> list[int]:
        return [object()]  # type: ignore[list-item]

    @exposed()
    async def big(self, ctx: Context, size: int) -> bytes:
        return bytes(size)

    @exposed()
    async def take(self, ctx: Context, blob: bytes) -> int:
        return len(blob)

    @exposed()
    def progress(self, ctx: Context, steps: int) -> str:
        for step in range(1, steps + 1):
            ctx.progress(step, steps, f"step {step}")
        return "done"

    @exposed()
    async def progress_on_loop(self, ctx: Context, steps: int) -> str:
        for step in range(1, steps + 1):
            ctx.progress(step, steps)
        return "done"

    @exposed()
    async def left(self, ctx: Context) -> float | None:
        return ctx.remaining()

    @exposed(role="admin")
    async def for_admins(self, ctx: Context) -> str:
        return "yes"

    def hidden(self, ctx: Context) -> str:
        return "never"


class StrangeError(Conflict):
    """An error of a plugin."""


async def test_a_call_returns_a_typed_result(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client = world.client()
        assert await client.call("shop", "echo", text="hello") == "hello"
        assert await client.call("shop", "echo_in_thread", text="hello") == "hello"
        lamps = await client.on(type=list[Lamp]).call(
            "shop", "types",
            lamp=Lamp("a", on=True), size=Size(2), colour=Colour.BLUE, when=datetime.now(UTC), blob=b"\0\xff",
            many=[1, None],
        )  # fmt: skip
        assert lamps == [Lamp("a", on=False)] * 2


async def test_the_sync_client_does_the_same_without_a_loop(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client = world.sync_client()

        def work():
            assert client.call("shop", "echo", text="a") == "a"
            assert client.call("shop", "echo_in_thread", text="b") == "b"
            with pytest.raises(Conflict):
                client.call("shop", "fail", how="conflict")
            assert client.cast("shop", "count") is None
            assert client.fanout("shop", "count") == 1
            return True

        assert await asyncio.to_thread(work)


async def test_an_async_method_may_wait_and_use_timeouts(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client = world.client()
        assert await client.call("shop", "in_two_steps") == "both"
        assert await client.call("shop", "timeout_in_first_step") == "timed out"


async def test_many_calls_side_by_side_each_get_their_own_answer(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client = world.client()
        methods = ["echo", "echo_in_thread"]
        calls = [client.call("shop", methods[n % 2], text=str(n)) for n in range(500)]
        assert await asyncio.gather(*calls) == [str(n) for n in range(500)]


async def test_the_method_knows_who_asks(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        assert await world.client().call("shop", "who") == [world.uid, "admin", "shop", "who"]


@pytest.mark.parametrize(
    ("method", "arguments", "error", "words"),
    [
        ("fail", {"how": "conflict"}, Conflict, "it is there; take another"),
        ("fail", {"how": "value"}, InternalError, "ValueError: bad luck"),
        ("not_encodable", {}, EncodeError, "the result of shop.not_encodable"),
        ("not_encodable_on_loop", {}, EncodeError, "the result of shop.not_encodable_on_loop"),
        ("hidden", {}, NotExposed, "shop.hidden"),
        ("ecko", {}, MethodNotFound, "did you mean 'echo'"),
        ("echo", {"text": 5}, InvalidArguments, "argument 'text' of shop.echo must be str, not int"),
        ("echo", {"txt": "a"}, InvalidArguments, "takes no argument 'txt'; did you mean 'text'"),
        ("echo", {"text": "a", "more": 1, "and": 2}, InvalidArguments, "takes no argument 'more' and 'and'"),
        ("take", {}, InvalidArguments, "needs the argument 'blob'"),
    ],
)
async def test_errors_come_back_typed_by_name(world_of, method, arguments, error, words):
    async with world_of() as world:
        world.add("shop", Shop())
        for call in (world.client().call, world.local().acall):
            with pytest.raises(error) as caught:
                await call("shop", method, **arguments)
            assert words in str(caught.value)
        assert await world.client().call("shop", "echo", text="well") == "well"


async def test_facts_travel_with_an_error(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        with pytest.raises(Conflict) as caught:
            await world.client().call("shop", "fail", how="conflict")
        assert caught.value.details == {"name": "a", "size": 3}


@pytest.mark.failure_mode("RPC", "an exception the client does not know")
async def test_an_exception_the_client_does_not_know(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client = world.client()
        strange, StrangeError.__module__ = StrangeError.__module__, "elsewhere.errors"
        real = client._core.receive

        def as_in_another_process(data):
            # There the class does not exist; only its name came over the wire.
            StrangeError.__module__ = strange
            return real(data)

        client._core.receive = as_in_another_process
        with pytest.raises(Conflict) as caught:
            await client.call("shop", "fail", how="strange")
        assert type(caught.value) is Conflict
        assert caught.value.details == {"depth": 2, "name": "elsewhere.StrangeError"}


@pytest.mark.failure_mode("Life", "a manager that raises `SystemExit` or `KeyboardInterrupt`")
@pytest.mark.parametrize("method", ["fail", "fail_on_loop", "fail_later"])
@pytest.mark.parametrize("how", ["exit", "interrupt"])
async def test_a_method_that_raises_system_exit_or_keyboard_interrupt(world_of, caplog, method, how):
    async with world_of() as world:
        world.add("shop", Shop())
        client = world.client()
        with pytest.raises(InternalError, match=r"SystemExit|KeyboardInterrupt"):
            await client.call("shop", method, how=how)
        assert await client.call("shop", "echo", text="alive") == "alive"
    record = next(record for record in caplog.records if "failed" in record.message)
    assert record.exc_info
    assert record.request_id in record.message


async def test_an_expected_error_leaves_no_traceback(world_of, caplog):
    async with world_of() as world:
        world.add("shop", Shop())
        with pytest.raises(Conflict):
            await world.client().call("shop", "fail", how="conflict")
    assert not [record for record in caplog.records if record.exc_info]


async def test_unknown_topics_and_hosts_are_errors_at_once(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client = world.client()
        with pytest.raises(ServiceNotFound, match="did you mean 'shop'"):
            await client.call("shap", "echo")
        with pytest.raises(ServiceNotFound, match="this daemon is here, the request is for shop on there"):
            await client.on(host="there").call("shop", "echo")
        assert await client.on(host="here").call("shop", "echo", text="x") == "x"


@pytest.mark.failure_mode("RPC", "10,000 calls to a missing method")
async def test_10000_calls_to_a_missing_method(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client = world.client()
        threads = threading.active_count()

        async def some(count):
            for _ in range(count // 100):
                found = await asyncio.gather(
                    *(client.call("shop", "missing") for _ in range(100)), return_exceptions=True
                )
                assert all(type(error) is MethodNotFound for error in found)

        await some(1000)
        gc.collect()
        objects = len(gc.get_objects())
        await some(9000)
        gc.collect()
        assert len(gc.get_objects()) < objects + 500
        assert threading.active_count() == threads
        assert world.dispatcher.stats()["shop"]["refused"] == 10_000
        assert len(asyncio.all_tasks()) == 1


async def test_a_newer_version_than_the_service_speaks_is_refused(world_of):
    async with world_of() as world:
        world.add("shop", Shop(), version="1.4")
        client = world.client()
        for version in ("1.0", "1.4", ""):
            assert await client.send_request(CallRequest("shop", "echo", {}, version=version)) == ""
        for version in ("1.5", "2.0", "0.9", "nonsense"):
            with pytest.raises(UnsupportedVersion, match=r"has version 1\.4"):
                await client.send_request(CallRequest("shop", "echo", {}, version=version))


# ---------------------------------------------------------------- deadlines and cancel


@pytest.mark.parametrize("method", ["wait", "await_"])
async def test_a_deadline_is_kept(world_of, method):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        with pytest.raises(DeadlineExceeded, match="100ms"):
            await world.client().on(timeout=0.1).call("shop", method)
        assert await asyncio.to_thread(shop.cancelled.wait, 5)


async def test_the_deadline_travels_and_nests(world_of):
    async with world_of() as world:
        world.add("shop", Shop())

        class Outer:
            @exposed()
            async def ask(self, ctx: Context) -> float:
                return await world.local().on(timeout=1000).acall("shop", "left")

            @exposed()
            def ask_from_thread(self, ctx: Context) -> float:
                return world.local().call("shop", "left")

        world.add("outer", Outer())
        client = world.client()
        assert 2 < await client.on(timeout=3).call("outer", "ask") <= 3
        assert 2 < await client.on(timeout=3).call("outer", "ask_from_thread") <= 3
        assert 50 < await client.call("shop", "left") <= 60


@pytest.mark.failure_mode("RPC", "a deadline that has passed before work begins")
async def test_a_deadline_that_has_passed_before_work_begins(world_of):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        client = world.client()
        busy = [asyncio.ensure_future(client.call("shop", "wait")) for _ in range(4)]
        await asyncio.to_thread(shop.begun.wait, 5)
        with pytest.raises(DeadlineExceeded, match="did not start"):
            await client.on(timeout=0.05).call("shop", "count")
        with pytest.raises(DeadlineExceeded):
            await client.on(timeout=0).call("shop", "count")
        shop.go_on.set()
        await asyncio.gather(*busy)
        assert await client.call("shop", "count") == 1


@pytest.mark.failure_mode("RPC", "cancel of a sync and of an async method")
@pytest.mark.parametrize("method", ["wait", "await_"])
async def test_cancel_of_a_sync_and_of_an_async_method(world_of, method):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        task = asyncio.ensure_future(world.client().call("shop", method))
        await asyncio.to_thread(shop.begun.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(shop.cancelled.wait, 5)
        assert world.dispatcher.stats()["shop"]["errors"] == {"Cancelled": 1}


async def test_cancel_reaches_what_the_method_called(world_of):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        stopped = []

        class Outer:
            @exposed()
            def ask(self, ctx: Context) -> None:
                try:
                    world.local().call("shop", "wait")
                except Cancelled:
                    stopped.append("thread")
                    raise

        world.add("outer", Outer())
        task = asyncio.ensure_future(world.client().call("outer", "ask"))
        await asyncio.to_thread(shop.begun.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(shop.cancelled.wait, 5)
        while world.dispatcher.in_flight("outer"):
            await asyncio.sleep(0.01)
        assert stopped == ["thread"]


async def test_closing_the_client_cancels_its_calls(world_of):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        client = world.client()
        task = asyncio.ensure_future(client.call("shop", "wait"))
        await asyncio.to_thread(shop.begun.wait, 5)
        await client.close()
        with pytest.raises(Cancelled, match="closed"):
            await task
        assert await asyncio.to_thread(shop.cancelled.wait, 5)


@pytest.mark.failure_mode("RPC", "a caller that goes away")
async def test_a_caller_that_goes_away(world_of):
    async with world_of(keepalive_interval=0.05) as world:
        shop = Shop()
        world.add("shop", shop)
        client, other = world.client(), world.client()
        running = [asyncio.ensure_future(client.call("shop", "wait")) for _ in range(4)]
        await asyncio.to_thread(shop.begun.wait, 5)
        queued = asyncio.ensure_future(client.call("shop", "count"))
        assert await other.call("shop", "echo", text="mine") == "mine"
        while world.dispatcher.in_flight("shop") < 5:
            await asyncio.sleep(0.01)
        client._link.close()  # no cancel: it vanishes
        assert await asyncio.to_thread(shop.cancelled.wait, 5)
        while world.dispatcher.in_flight("shop"):
            await asyncio.sleep(0.01)
        assert shop.runs == 0, "what was queued is dropped before it begins"
        stats = world.server.stats()
        assert (stats["garbage"], stats["clients"], stats["in_flight"], stats["vanished"]) == ({}, 0, 0, 1)
        assert await other.call("shop", "count") == 1
        for task in (*running, queued):
            task.cancel()


@pytest.mark.failure_mode("RPC", "a server that dies in the middle")
async def test_a_server_that_goes_away_is_known_at_once(world_of):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        client = world.client()
        task = asyncio.ensure_future(client.call("shop", "wait"))
        await asyncio.to_thread(shop.begun.wait, 5)
        sync = world.sync_client()
        waiting = asyncio.ensure_future(asyncio.to_thread(sync.call, "shop", "await_"))
        while world.dispatcher.in_flight("shop") < 2:
            await asyncio.sleep(0.01)
        world.server.link.close()
        async with asyncio.timeout(1):
            for lost in (task, waiting):
                with pytest.raises(ConnectionLost, match="may or may not have been executed"):
                    await lost
        with pytest.raises(DaemonNotRunning):
            await client.call("shop", "echo")


async def test_a_sync_client_that_is_closed_on_another_thread_cancels_its_calls_soon(world_of):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        sync = world.sync_client(timeout=None)
        calls = [asyncio.ensure_future(asyncio.to_thread(sync.call, "shop", "await_")) for _ in range(3)]
        await asyncio.to_thread(shop.begun.wait, 5)
        async with asyncio.timeout(3):
            await asyncio.to_thread(sync.close)
            assert await asyncio.to_thread(shop.cancelled.wait, 5)
            for call in calls:
                with pytest.raises(Cancelled, match="the client was closed"):
                    await call


@pytest.mark.failure_mode("RPC", "a server that dies in the middle")
async def test_a_server_that_falls_silent_is_known_before_the_deadline(world_of):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        world.server.send = lambda client, data: True  # it takes requests and never says a word
        clock = FakeClock()
        client = world.client(clock=clock)
        task = asyncio.ensure_future(client.call("shop", "await_"))
        await asyncio.to_thread(shop.begun.wait, 5)
        clock.advance(3.9)
        client._check_deadlines(clock.monotonic())
        assert not task.done()
        clock.advance(0.2)
        client._check_deadlines(clock.monotonic())
        with pytest.raises(ConnectionLost, match=r"no response from shop\.await_ for 4s"):
            await task


async def test_beats_keep_a_long_call_alive(world_of):
    async with world_of(keepalive_interval=0.02) as world:
        shop = Shop()
        world.add("shop", shop)
        client = world.client()
        task = asyncio.ensure_future(client.call("shop", "wait"))
        await asyncio.to_thread(shop.begun.wait, 5)
        pending = client._core.pending_calls[0]
        begun = pending.last_seen_at
        while pending.last_seen_at <= begun:
            await asyncio.sleep(0.01)
        shop.go_on.set()
        assert await task == "done"


# ---------------------------------------------------------------- progress, cast, fanout


@pytest.mark.parametrize("method", ["progress", "progress_on_loop"])
async def test_progress_reaches_the_caller_and_the_last_word_is_never_lost(world_of, method):
    async with world_of() as world:
        world.add("shop", Shop())
        found = []
        assert await world.client().on(on_progress=found.append).call("shop", method, steps=200) == "done"
        assert found[-1][:2] == (200, 200)
        assert len(found) < 20, "the newest report wins, at most twenty a second"


async def test_a_progress_callback_that_raises_ends_the_call(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client = world.client()

        def stop(progress):
            raise LookupError("enough")

        with pytest.raises(LookupError, match="enough"):
            await client.on(on_progress=stop).call("shop", "progress", steps=3)
        assert await client.call("shop", "echo", text="well") == "well"


async def test_a_cast_returns_when_it_is_accepted_and_runs_once(world_of):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        client = world.client()
        await client.cast("shop", "wait")
        await asyncio.to_thread(shop.begun.wait, 5)
        assert not shop.ended.is_set()
        await client.close()  # a cast is not the client's any more
        shop.go_on.set()
        assert await asyncio.to_thread(shop.ended.wait, 5)
        assert world.dispatcher.stats()["shop"]["requests"] == 1


async def test_a_cast_that_cannot_be_accepted_is_refused(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client = world.client()
        with pytest.raises(MethodNotFound):
            await client.cast("shop", "nothing")
        with pytest.raises(InvalidArguments):
            await client.cast("shop", "echo", text=1)


async def test_a_cast_that_fails_is_in_the_log(world_of, caplog):
    async with world_of() as world:
        world.add("shop", Shop())
        await world.client().cast("shop", "fail", how="conflict")
        await world.client().cast("shop", "fail_later", how="value")
        while len([record for record in caplog.records if "failed" in record.message]) < 2:
            await asyncio.sleep(0.01)
    records = {record.levelname: record for record in caplog.records if "failed" in record.message}
    assert records["WARNING"].exc_info is None
    assert records["ERROR"].exc_info


async def test_a_fanout_tells_how_many_it_reached_and_is_published(world_of):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        client = world.client()
        async with client.events("fanout.shop") as stream:
            assert await client.fanout("shop", "count") == 1
            event = await anext(stream)
            assert (event.topic, event.name) == ("fanout.shop", "count")
        assert await client.fanout("nowhere", "count") == 0
        with pytest.raises(MethodNotFound):
            await client.fanout("shop", "nothing")
        world.dispatcher.set_draining("shop", "it stops")
        assert await client.fanout("shop", "count") == 0
        assert await world.local().afanout("nowhere", "count") == 0


# ---------------------------------------------------------------- limits


async def test_a_draining_service_refuses_new_work_and_ends_the_old(world_of):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        client = world.client()
        task = asyncio.ensure_future(client.call("shop", "wait"))
        await asyncio.to_thread(shop.begun.wait, 5)
        world.dispatcher.set_draining("shop", "the daemon stops")
        with pytest.raises(Draining, match="the daemon stops"):
            await client.call("shop", "echo")
        assert world.dispatcher.in_flight("shop") == 1
        shop.go_on.set()
        assert await task == "done"
        assert world.dispatcher.in_flight("shop") == 0
        world.dispatcher.set_draining("shop", "")
        assert await client.call("shop", "echo", text="again") == "again"


@pytest.mark.failure_mode("RPC", "a full queue")
async def test_a_full_queue(world_of):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        world.pool.queue_limit = 3
        client = world.client()
        tasks = [asyncio.ensure_future(client.call("shop", "wait")) for _ in range(20)]
        with pytest.raises(Busy) as caught:
            await asyncio.gather(*tasks)
        assert caught.value.retry_after > 0
        shop.go_on.set()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} == {str, Busy}


async def test_one_connection_may_not_have_everything_and_control_is_always_answered(world_of):
    async with world_of(server_limits=ServerLimits(max_in_flight_per_peer=5)) as world:
        shop = Shop()
        world.add("shop", shop)
        world.add("ostler", shop)
        client, other = world.client(), world.client()
        tasks = [asyncio.ensure_future(client.call("shop", "await_")) for _ in range(5)]
        await asyncio.to_thread(shop.begun.wait, 5)
        with pytest.raises(Busy, match="this connection has 5 requests in progress"):
            await client.call("shop", "echo")
        assert await client.call("ostler", "echo", text="status") == "status"
        assert await other.call("shop", "echo", text="mine") == "mine"
        world.dispatcher.apply(
            world.dispatcher.access, msgspec.structs.replace(world.dispatcher.limits, max_in_flight=5)
        )
        with pytest.raises(Busy, match="this daemon has 5 requests in progress"):
            await other.call("shop", "echo")
        assert await other.call("ostler", "echo", text="status") == "status"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.failure_mode("RPC", "an oversized message")
async def test_an_oversized_message(world_of):
    async with world_of(max_message_size=50_000) as world:
        world.add("shop", Shop())
        wide, narrow = world.client(), world.client(max_message_size=50_000)
        with pytest.raises(MessageTooLarge, match=r"the request to shop\.take has 5"):
            await narrow.call("shop", "take", blob=bytes(50_001))
        with pytest.raises(MessageTooLarge, match="the limit is 50000"):
            await wide.call("shop", "take", blob=bytes(50_001))
        with pytest.raises(MessageTooLarge, match=r"the result of shop\.big"):
            await wide.call("shop", "big", size=50_001)
        assert await wide.call("shop", "take", blob=bytes(40_000)) == 40_000
        assert world.server.invalid_messages == {"large": 1}


@pytest.mark.failure_mode("RPC", "a reply that cannot be encoded")
async def test_a_reply_that_cannot_be_encoded(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client = world.client()
        for method in ("not_encodable", "not_encodable_on_loop"):
            with pytest.raises(EncodeError):
                await client.on(timeout=5).call("shop", method)


async def test_an_argument_that_cannot_be_encoded_is_said_before_anything_is_sent(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        with pytest.raises(EncodeError, match=r"an argument of shop\.echo"):
            await world.client().call("shop", "echo", text=object())


async def test_a_result_of_another_type_than_the_client_expects_is_an_error(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        with pytest.raises(MalformedMessage, match="does not have the type that this client expects"):
            await world.client().on(type=int).call("shop", "echo", text="x")


async def test_a_lenient_client_may_send_texts_for_everything(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client = world.client(lenient=True)
        assert await client.call("shop", "big", size="3") == b"\0\0\0"
        with pytest.raises(InvalidArguments, match="must be int, not str"):
            await client.call("shop", "big", size="three")
        with pytest.raises(InvalidArguments):
            await world.client().call("shop", "big", size="3")


@pytest.mark.failure_mode("RPC", "a uid without a role")
async def test_a_uid_without_a_role(world_of):
    access = Access(viewer=["4242"], own_uid=-5)
    access._members_by_role["admin"].uids.clear()
    async with world_of(access=access) as world:
        world.add("shop", Shop())
        client = world.client()
        if world.server.address.startswith("tcp:"):  # it is not even let in
            for _ in range(2):
                with pytest.raises(NotPermitted, match=r"does not know the key of .*, or grants it no role"):
                    await client.call("shop", "echo")
            return
        with pytest.raises(NotPermitted, match=r"shop\.echo needs the role viewer, .* has no role here") as caught:
            await client.call("shop", "echo")
        assert caught.value.needs == "viewer"
        with pytest.raises(NotPermitted, match=r"^(uid [0-9]+|key:\S+) has no role here"):
            await client.call("nowhere", "echo")
        with pytest.raises(NotPermitted, match="has no role here"):
            await client.events("shop")
        assert world.dispatcher.stats()["shop"]["requests"] == 0


async def test_each_method_needs_its_role(world_of, keys):
    access = Access(viewer=["*", "key:me"], own_uid=-5, keys=keys)
    access._members_by_role["admin"].uids.clear()
    async with world_of(access=access) as world:
        world.add("shop", Shop())
        client = world.client()
        assert await client.call("shop", "echo", text="look") == "look"
        with pytest.raises(
            NotPermitted, match=rf"shop\.count needs the role operator, (uid {os.geteuid()}|key:\S+) has viewer"
        ):
            await client.call("shop", "count")


async def test_after_the_server_was_started_anew_the_next_call_works(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client, sync = world.client(), world.sync_client()
        assert await client.call("shop", "echo", text="a") == "a"
        assert await asyncio.to_thread(sync.call, "shop", "echo", text="a") == "a"
        world.server.close()
        while client._link is not None or sync._link.is_alive():
            await asyncio.sleep(0.01)
        with pytest.raises(DaemonNotRunning):
            await client.call("shop", "echo")
        world.server = RpcServer(world.transport.serve_rpc(), world.dispatcher, world.inbox)
        world.server.start()
        assert await client.call("shop", "echo", text="b") == "b"
        assert await asyncio.to_thread(sync.call, "shop", "echo", text="b") == "b"


async def test_a_peer_that_is_not_allowed_any_more_loses_its_connection(world_of):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        client = world.client()
        assert await client.call("shop", "echo", text="a") == "a"
        world.server.link.disconnect_unless(lambda _peer: True)
        assert await client.call("shop", "echo", text="b") == "b"
        waiting = asyncio.ensure_future(client.call("shop", "await_"))
        await asyncio.to_thread(shop.begun.wait, 5)
        world.server.link.disconnect_unless(lambda _peer: False)
        with pytest.raises(world.expulsion_error):
            await waiting
