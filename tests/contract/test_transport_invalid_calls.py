"""What callers of every kind get wrong, on every transport: refused by name, and nothing is left of it."""

import asyncio
import contextlib
import threading

import pytest

from ostler.errors import (
    Busy,
    DeadlineExceeded,
    InvalidArguments,
    MethodNotFound,
    NotExposed,
    UnsupportedVersion,
)
from ostler.messaging import Context, exposed
from ostler.messaging.wire.envelope import Failure, Reply, decode_to_client, encode_message
from ostler.messaging.wire.request import CallRequest
from ostler.messaging.wire.transport import TransportLimits
from support.descriptors import open_descriptors

# private: _link: a connection that is cut, which no method of a client does
# private: _keepalive_timer: a server that falls silent, as one that is stopped does


class Shop:
    """Counts what gets through."""

    def __init__(self) -> None:
        self.runs = 0
        self.ended = asyncio.Event()

    @exposed()
    async def sell(self, ctx: Context, what: str, count: int = 1) -> str:
        self.runs += 1
        return what * count

    @exposed()
    def sell_in_thread(self, ctx: Context, what: str, count: int = 1) -> str:
        self.runs += 1
        return what * count

    @exposed()
    async def wait(self, ctx: Context) -> None:
        self.runs += 1
        try:
            await asyncio.sleep(60)
        finally:
            self.ended.set()

    def hidden(self, ctx: Context) -> str:
        self.runs += 1
        return "never"

    def _private(self, ctx: Context) -> str:
        self.runs += 1
        return "never"


@pytest.mark.failure_mode("RPC", "a method that is not exposed")
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("hidden", NotExposed), ("_private", MethodNotFound), ("__init__", MethodNotFound),
        ("__class__", MethodNotFound), ("runs", MethodNotFound), ("sell.__call__", MethodNotFound),
    ],
)  # fmt: skip
async def test_a_method_that_is_not_exposed(world_of, name, error):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        client = world.client()
        for ask in (client.call, client.cast, client.fanout, world.local().acall):
            with pytest.raises(error) as caught:
                await ask("shop", name)
            assert type(caught.value) is error
        assert shop.runs == 0
        assert await client.call("shop", "sell", what="a") == "a"


@pytest.mark.failure_mode("RPC", "arguments of the wrong type, too many, too few, unknown")
@pytest.mark.parametrize("method", ["sell", "sell_in_thread"])
@pytest.mark.parametrize(
    ("arguments", "argument", "words"),
    [
        ({"what": 5}, "what", "must be str, not int"),
        ({"what": "a", "count": "2"}, "count", "must be int, not str"),
        ({"what": "a", "count": 1.5}, "count", "must be int, not float"),
        ({"what": "a", "count": None}, "count", "must be int, not null"),
        ({"what": "a", "count": 1, "size": 3}, "size", "takes no argument 'size'"),
        ({"wath": "a"}, "wath", "did you mean 'what'"),
        ({}, "what", "needs the argument 'what'"),
        ({"ctx": 1, "what": "a"}, "ctx", "takes no argument 'ctx'"),
    ],
)
async def test_arguments_of_the_wrong_type_too_many_too_few_unknown(world_of, method, arguments, argument, words):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        client = world.client()
        for ask in (client.call, client.cast, client.fanout, world.local().acall):
            with pytest.raises(InvalidArguments, match=words) as caught:
                await ask("shop", method, **arguments)
            assert caught.value.argument == argument
        assert shop.runs == 0
        assert world.dispatcher.in_flight("shop") == 0
        assert await client.call("shop", method, what="a", count=2) == "aa"


@pytest.mark.failure_mode("RPC", "10,000 calls to a missing method")
async def test_10000_calls_to_a_missing_method_leave_no_descriptor_and_no_thread(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client, sync = world.client(), world.sync_client()

        async def some(count):
            for _ in range(count // 100):
                found = await asyncio.gather(
                    *(client.call("shop", "missing") for _ in range(100)), return_exceptions=True
                )
                assert all(type(error) is MethodNotFound for error in found)

        def blocking(count):
            for _ in range(count):
                with pytest.raises(MethodNotFound):
                    sync.call("shop", "missing")

        await some(100)
        await asyncio.to_thread(blocking, 10)
        before = open_descriptors(), threading.active_count()
        await some(9000)
        await asyncio.to_thread(blocking, 1000)
        assert (open_descriptors(), threading.active_count()) == before
        assert world.server.stats()["clients"] == 0


@pytest.mark.failure_mode("RPC", "a deadline that has passed before work begins")
@pytest.mark.parametrize("method", ["sell", "sell_in_thread"])
async def test_a_deadline_that_had_passed_when_the_request_came(world_of, method):
    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop)
        answers = asyncio.Queue()
        raw = world.transport.connect_async(lambda data: answers.put_nowait(decode_to_client(data)), lambda error: None)
        raw.send(encode_message([1, 1, 7, "shop", method, {"what": "a"}, 0.0]))
        async with asyncio.timeout(5):
            answer = await answers.get()
        assert (type(answer), answer.names[0]) == (Failure, "ostler.DeadlineExceeded")
        with pytest.raises(DeadlineExceeded):
            await world.client().on(timeout=0).call("shop", method, what="a")
        assert await world.client().call("shop", method, what="a") == "a"
        assert shop.runs == 1
        raw.close()


@pytest.mark.failure_mode("RPC", "a client of an older and of a newer version")
async def test_a_client_of_an_older_and_of_a_newer_version(world_of):
    """Of the service, of the fields of a message, and of its whole format."""

    async with world_of() as world:
        shop = Shop()
        world.add("shop", shop, version="1.4")
        client = world.client()
        for version in ("1.0", "1.4", ""):
            assert await client.send_request(CallRequest("shop", "sell", {"what": "a"}, version=version)) == "a"
        for version in ("1.5", "2.0", "0.9"):
            with pytest.raises(UnsupportedVersion, match=r"has version 1\.4") as caught:
                await client.send_request(CallRequest("shop", "sell", {"what": "a"}, version=version))
            assert caught.value.offered == "1.4"

        answers = asyncio.Queue()
        raw = world.transport.connect_async(lambda data: answers.put_nowait(decode_to_client(data)), lambda error: None)
        older = [1, 1, 7, "shop", "sell", {"what": "old"}]
        newer = [1, 1, 8, "shop", "sell", {"what": "new"}, 5.0, "id", 0, "", "", "", 0, "a field", ["another"]]
        other_format = [1, 2, 9, "shop", "sell", {"what": "another"}]
        for message in (older, newer, other_format):
            raw.send(encode_message(message))
        async with asyncio.timeout(5):
            found = [await answers.get() for _ in range(3)]
        assert [type(answer) for answer in found] == [Reply, Reply, Failure]
        assert [answer.id for answer in found] == [7, 8, 9]
        assert found[2].details["reason"] == "version"
        assert shop.runs == 3 + 2
        raw.close()


@pytest.mark.failure_mode("RPC", "a client of an older and of a newer version")
async def test_a_client_that_hears_of_fields_it_does_not_know(world_of):
    """A newer server says more than this client knows; the client takes what it does know."""

    async with world_of() as world:
        world.add("shop", Shop())
        client = world.client()
        real = world.server.link.send

        def more(to, data):
            return real(to, _longer(data))

        world.server.link.send = more
        assert await client.call("shop", "sell", what="a") == "a"
        with pytest.raises(MethodNotFound):
            await client.call("shop", "missing")
        assert await client.cast("shop", "sell", what="a") is None


@pytest.mark.failure_mode("RPC", "a caller that goes away")
async def test_a_caller_that_goes_away_is_known_before_the_next_beat(world_of):
    """On a network it is not: there the next message finds out."""

    async with world_of(keepalive_interval=60.0) as world:
        shop = Shop()
        world.add("shop", shop)
        client = world.client()
        call = asyncio.ensure_future(client.call("shop", "wait"))
        while not shop.runs:
            await asyncio.sleep(0.01)
        world.server._keepalive_timer.cancel()  # the first one would come within a second
        client._link.close()
        if world.uid >= 0:
            async with asyncio.timeout(5):
                await shop.ended.wait()
            assert world.server.stats()["vanished"] == 1
        call.cancel()


@pytest.mark.failure_mode("RPC", "a caller that goes away")
async def test_a_caller_that_does_not_read_holds_up_nobody(world_of):
    """It asks for forty megabytes and takes none of them: what it sends is left where it is, or answered in vain."""

    async with world_of(limits=TransportLimits(max_queued=50)) as world:
        shop = Shop()
        world.add("shop", shop)
        rude = await asyncio.to_thread(world.transport.connect)
        honest = world.client()
        asked = encode_message([1, 1, 0, "shop", "sell", {"what": "x" * 1000, "count": 100}])
        rude.send(asked)
        while not await asyncio.to_thread(rude.receive, 5):
            pass
        with contextlib.suppress(Busy):  # what it sends is not taken any more
            for number in range(400):
                await asyncio.to_thread(rude.send, asked)
                if number % 20 == 0:
                    assert await honest.on(timeout=5).call("shop", "sell", what="a") == "a"
        assert await honest.on(timeout=5).call("shop", "sell", what="a") == "a"
        rude.close()


def _longer(data: bytes) -> bytes:
    """Return a message with a field more at its end."""
    assert data[0] & 0xF0 == 0x90
    return bytes((data[0] + 1,)) + data[1:] + b"\xa5newer"
