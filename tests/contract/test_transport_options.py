"""The options of a call and the arguments of a method do not get in each other's way, on every transport."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from ostler import RpcApi, remote
from ostler.errors import DeadlineExceeded, EncodeError, InvalidArguments, InvalidInput
from ostler.messaging import Context, exposed
from ostler.messaging.clients.retry import Retry
from support.async_tests import loop_fixture
from support.waiting import until

GIVEN = {
    "host": "a", "timeout": 1.5, "retry": True, "type": "x", "on_progress": "y", "credit": 3, "topic": "t",
    "method": "m", "ask": "q", "options": "o", "args": [1],
}  # fmt: skip


class Planner:
    """Methods whose arguments have the names of everything a client could have for itself."""

    def __init__(self) -> None:
        self.got: list[dict] = []

    @exposed(role="viewer")
    async def plan(
        self, ctx: Context, host: str, timeout: float, retry: bool, type: str, on_progress: str,  # noqa: A002
        credit: int, topic: str, method: str, ask: str, options: str, args: list[int],
    ) -> dict:  # fmt: skip
        """Return its arguments; all of them may be given by position."""
        return self._note(locals())

    @exposed(role="viewer")
    def plan_in_thread(
        self, ctx: Context, *, host: str, timeout: float, retry: bool, type: str, on_progress: str,  # noqa: A002
        credit: int, topic: str, method: str, ask: str, options: str, args: list[int],
    ) -> dict:  # fmt: skip
        """Return its arguments; all of them have to be named."""
        return self._note(locals())

    @exposed(role="viewer")
    async def plans(self, ctx: Context, host: str, timeout: float, credit: int) -> AsyncIterator[list]:
        """Yield its arguments."""
        yield [host, timeout, credit]

    @exposed(role="viewer")
    async def plain(self, ctx: Context, name: str = "") -> str:
        """Return the name."""
        return name

    @exposed(role="viewer")
    async def hang(self, ctx: Context) -> None:
        """Take for ever."""
        await asyncio.sleep(3600)

    def _note(self, found: dict) -> dict:
        arguments = {name: found[name] for name in GIVEN}
        self.got.append(arguments)
        return arguments


class PlannerApi(RpcApi):
    topic = "planner"

    @remote()
    def plan(
        self, host: str, timeout: float, retry: bool, type: str, on_progress: str, credit: int,  # noqa: A002
        topic: str, method: str, ask: str, options: str, args: list[int],
    ) -> dict: ...  # fmt: skip

    @remote()
    def plans(self, host: str, timeout: float, credit: int) -> Iterator[list]: ...

    @remote()
    def plain(self, name: str = "") -> str: ...


METHODS = pytest.mark.parametrize("method", ["plan", "plan_in_thread"])
STREAMED = {"host": "a", "timeout": 1.5, "credit": 3}


@pytest.fixture
def planner():
    return Planner()


@loop_fixture
async def world(world_of, planner):
    """Open a world of the transport under test that serves the planner."""
    async with world_of() as opened:
        opened.add("planner", planner)
        yield opened


@METHODS
async def test_no_argument_name_is_reserved_for_any_client(world, method):
    client, sync, local = world.client(), world.sync_client(), world.local()
    for clients in ((client, sync, local), (client.on(timeout=9), sync.on(timeout=9), local.on(host="here"))):
        on_loop, blocking, inside = clients
        assert await on_loop.call("planner", method, **GIVEN) == GIVEN
        assert await asyncio.to_thread(blocking.call, "planner", method, **GIVEN) == GIVEN
        assert await inside.acall("planner", method, **GIVEN) == GIVEN
        assert await asyncio.to_thread(inside.call, "planner", method, **GIVEN) == GIVEN


@METHODS
async def test_no_argument_name_is_reserved_for_casts_and_fanouts(world, planner, method):
    client, sync, local = world.client(), world.sync_client(), world.local()
    await client.cast("planner", method, **GIVEN)
    await asyncio.to_thread(sync.cast, "planner", method, **GIVEN)
    await local.acast("planner", method, **GIVEN)
    await asyncio.to_thread(local.cast, "planner", method, **GIVEN)
    assert await client.fanout("planner", method, **GIVEN) == 1
    assert await asyncio.to_thread(sync.fanout, "planner", method, **GIVEN) == 1
    assert await local.afanout("planner", method, **GIVEN) == 1
    assert await asyncio.to_thread(local.fanout, "planner", method, **GIVEN) == 1
    await until(lambda: len(planner.got) == 8)
    assert all(got == GIVEN for got in planner.got)


async def test_no_argument_name_is_reserved_for_streams(world):
    client, sync, local = world.client(), world.sync_client(), world.local()
    expected = [list(STREAMED.values())]
    assert [item async for item in client.on(credit=1).stream("planner", "plans", **STREAMED)] == expected
    assert [item async for item in local.on(credit=1).astream("planner", "plans", **STREAMED)] == expected
    for blocking in (sync.on(credit=1), local.on(credit=1)):
        assert await asyncio.to_thread(lambda b=blocking: list(b.stream("planner", "plans", **STREAMED))) == expected


async def test_no_argument_name_is_reserved_for_typed_clients(world):
    client, sync, local = world.client(), world.sync_client(), world.local()
    for plans in (PlannerApi(client), PlannerApi(local), PlannerApi(client).on(timeout=9)):
        assert await plans.plan.acall(**GIVEN) == GIVEN
        assert [item async for item in await plans.plans.astream(**STREAMED)] == [list(STREAMED.values())]
    for plans in (PlannerApi(sync), PlannerApi(local), PlannerApi(sync).on(timeout=9)):
        assert await asyncio.to_thread(plans.plan, **GIVEN) == GIVEN
        assert await asyncio.to_thread(plans.plan, *GIVEN.values()) == GIVEN
        assert await asyncio.to_thread(lambda p=plans: list(p.plans(**STREAMED))) == [list(STREAMED.values())]


async def test_an_option_that_is_given_as_an_argument_is_told_to_be_one(world):
    client, sync, local = world.client(), world.sync_client(), world.local()
    for ask in (
        lambda **a: client.call("planner", "plain", **a),
        lambda **a: asyncio.to_thread(sync.call, "planner", "plain", **a),
        lambda **a: local.acall("planner", "plain", **a),
    ):
        with pytest.raises(
            InvalidArguments, match=r"no argument 'timeout'; call options .* with client\.on\(timeout=…\)"
        ):
            await ask(timeout=5)
        with pytest.raises(EncodeError, match=r"call options are set with client\.on\(retry=…\)"):
            await ask(retry=Retry(on=(ValueError,)))
        with pytest.raises(EncodeError, match="use plain values"):
            await ask(name=object())


async def test_views_have_one_connection_and_options_of_their_own(world):
    client, sync = world.client(), world.sync_client()
    quick = client.on(timeout=0.05)
    with pytest.raises(DeadlineExceeded):
        await quick.call("planner", "hang")
    with pytest.raises(DeadlineExceeded):
        await asyncio.to_thread(sync.on(type=str).on(timeout=0.05).call, "planner", "hang")
    with pytest.raises(DeadlineExceeded):
        await world.local().on(timeout=0.05).acall("planner", "hang")
    assert await client.call("planner", "plain", name="a") == "a"
    assert await quick.on(timeout=5).call("planner", "plain", name="b") == "b"


async def test_a_fanout_for_one_host_is_refused_by_every_client(world):
    client, sync, local = world.client(), world.sync_client(), world.local()
    with pytest.raises(InvalidInput, match="goes to every host, but the option host is 'here'"):
        await client.on(host="here").fanout("planner", "plain")
    with pytest.raises(InvalidInput, match="goes to every host"):
        sync.on(host="here").fanout("planner", "plain")
    with pytest.raises(InvalidInput, match="goes to every host"):
        await local.on(host="here").afanout("planner", "plain")
    with pytest.raises(InvalidInput, match="goes to every host"):
        await PlannerApi(client).on(host="here").plain.afanout()
