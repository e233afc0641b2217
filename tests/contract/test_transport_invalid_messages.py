"""What strangers send, on every transport: counted, answered where that can be, and nobody else notices."""

import asyncio
import random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ostler.messaging import Context, exposed
from ostler.messaging.wire.envelope import Failure, decode_to_client, encode_message
from support.links import FakeServerLink

# private: _core, _link, _receive: messages that no server and no client of ours sends


class Shop:
    @exposed()
    async def echo(self, ctx: Context, text: str = "") -> str:
        return text


SEEDS = [
    [1, 1, 7, "shop", "echo", {"text": "x"}, 1.0, "id", 0, "", ""],
    [1, 1, 7, "shop", "echo", {"text": "x"}],
    [2, 1, 7],
    [10, 1, 7, None],
    [14, 1, [1, 2], 1.0],
    [1, 2, 7, "shop"],
]
ODD = [
    b"", b"\x00", b"\xc1", b"\x91" * 5000, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\x93\x01\x01\xcf\xff\xff\xff\xff\xff\xff\xff\xff", msgspec.msgpack.encode([1, 1, 7, "shop", "echo", 5]),
    msgspec.msgpack.encode([1, 1, 7, "shop", "echo", {"text": "x"}, float("nan")]),
    msgspec.msgpack.encode([1, 1, 7, "shop", "echo", {"text": "x"}, float("inf")]),
    msgspec.msgpack.encode([1, 1, 7, "shop", "echo", {1: 2}]),
    msgspec.msgpack.encode([1, 1, 7, "s" * 300, "echo", {}]),
    b"\x96\x01\x01\x07\xa4shop\xa4echo\x81\xa4text" + b"\x91" * 3000,
    b"\x96\x01\x01\x07\xa4shop\xa4echo\x81\xa4text\xa2\xff\xfe",
    b"\x96\x01\x01\x07\xa2\xff\xfe\xa4echo\x80",
]  # fmt: skip


def mutated(random_: random.Random) -> bytes:
    data = bytearray(msgspec.msgpack.encode(random_.choice(SEEDS)))
    for _ in range(random_.randint(0, 6)):
        place = random_.randrange(len(data) + 1)
        match random_.randrange(4):
            case 0 if data:
                del data[place:]
            case 1:
                data[place:place] = random_.randbytes(random_.randint(1, 4))
            case 2 if place < len(data):
                data[place] = random_.randrange(256)
            case _ if place < len(data):
                del data[place]
    return bytes(data)


@pytest.mark.failure_mode("RPC", "garbage frames, truncated and random (fuzzed)")
async def test_garbage_frames_truncated_and_random(world_of, caplog):
    async with world_of(max_message_size=100_000) as world:
        world.add("shop", Shop())
        honest = world.client()
        answers = []
        rude = world.transport.connect_async(answers.append, lambda error: None)
        random_ = random.Random(20)
        for number in range(3000):
            rude.send(ODD[number] if number < len(ODD) else mutated(random_))
            if number % 100 == 0:
                assert await honest.on(timeout=5).call("shop", "echo", text="well") == "well"
        assert await honest.on(timeout=5).call("shop", "echo", text="well") == "well"
        garbage = world.server.invalid_messages
        assert {"empty", "msgpack", "shape", "version", "kind"} <= set(garbage)
        assert sum(garbage.values()) > 1000
        for answer in answers:
            decode_to_client(answer)
        named = {decode_to_client(answer).names[0] for answer in answers if _is_failure(answer)}
        assert "ostler.MalformedMessage" in named
        rude.close()
    lines = [record for record in caplog.records if "sent an invalid request" in record.message]
    assert len(lines) == len({record.message.split("(")[1].split(")")[0] for record in lines}), (
        "once a minute of a kind"
    )
    assert not [record for record in caplog.records if record.exc_info]


def _is_failure(answer: bytes) -> bool:
    return isinstance(decode_to_client(answer), Failure)


async def test_messages_of_the_wrong_state_are_ignored(world_of):
    async with world_of() as world:
        world.add("shop", Shop())
        client = world.client()
        assert await client.call("shop", "echo", text="a") == "a"
        client._link.send(encode_message([2, 1, 999]))  # cancel of what is not there
        client._receive(encode_message([10, 1, 999, "a reply to nobody"]))
        client._receive(encode_message([14, 1, [999], 1.0]))
        client._receive(encode_message([13, 1, 999, 1.0, 2.0, ""]))
        client._receive(encode_message([11, 1, None, [], "to nobody", "", {}]))
        client._receive(b"garbage")
        assert client._core.invalid_messages == 1
        assert await client.call("shop", "echo", text="b") == "b"


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.recursive(
    st.one_of(st.none(), st.integers(-2**63, 2**64 - 1), st.floats(), st.text(max_size=20), st.binary(max_size=20)),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=4), inner, max_size=4), max_leaves=20,
).map(msgspec.msgpack.encode)))  # fmt: skip
def test_no_bytes_whatever_end_the_server(data):
    from ostler.aio import LoopQueue
    from ostler.clock import FakeClock
    from ostler.messaging import Access, Dispatcher, Endpoint, RpcServer

    async def test():
        inbox = LoopQueue(asyncio.get_running_loop())
        dispatcher = Dispatcher(Access(), FakeClock(), inbox, host="here")
        dispatcher.registry.add_endpoint(Endpoint("shop", "here", Shop(), None))
        wire = FakeServerLink()
        server = RpcServer(wire, dispatcher, inbox)
        server.start()
        from ostler.types import Peer

        wire.take(b"c", data, Peer(0, 0, 1, "uid 0"))
        assert len(wire.sent) + sum(server.invalid_messages.values()) > 0 or data[1:2] == b"\x02"
        server.close()

    asyncio.run(test())  # Hypothesis runs an example as a function
