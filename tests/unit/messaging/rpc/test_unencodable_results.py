"""What cannot be encoded on its way to a caller: an error by name, whichever way it goes; never a hung call."""

import asyncio
import dataclasses
import datetime as dt
import enum
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from ostler.bounds import MESSAGE_LIMIT
from ostler.errors import RequestError
from ostler.messaging import Context, exposed
from ostler.messaging.access.secret_arguments import SecretText
from ostler.messaging.wire.envelope import (
    CAST,
    PROGRESS,
    PROTOCOL_VERSION,
    RETRY,
    STREAM,
    Accepted,
    Failure,
    Reply,
    Request,
    encode_message,
    encode_request,
)
from ostler.redaction import SECRETS


class Odd(enum.Enum):
    THING = object()


class Rude:
    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __repr__


@dataclasses.dataclass
class Holder:
    inner: Any


class Part(msgspec.Struct):
    inner: Any


class Nowhere(dt.tzinfo):
    def utcoffset(self, at):
        raise RuntimeError("not now")


def cyclic():
    made: list[Any] = []
    made.append(made)
    return made


def deep():
    made: Any = []
    for _ in range(300_000):  # since Python 3.14 what the stack of a thread holds, some 150,000
        made = [made]
    return made


def half():
    made = Part(1)
    del made.inner
    return made


UNFIT = {
    "object": object, "number": lambda: 2**64, "surrogate": lambda: "\udc80", "cyclic": cyclic, "deep": deep,
    "keys": lambda: {object(): 1},
    "keys of list": lambda: {(1, object()): 1}, "enum": lambda: Odd.THING, "rude": Rude,
    "dataclass": lambda: Holder(object()), "struct": lambda: Part(Rude()),
    "half": half, "class": lambda: int, "function": lambda: cyclic, "generator": lambda: (x for x in ()),
    "key": lambda: {"\udc80": 1},
    "error": lambda: RequestError("x"), "large": lambda: "x" * 200_000, "complex": lambda: 1j,
}  # fmt: skip
EACH = pytest.mark.parametrize("what", UNFIT)
ANY = {**UNFIT, "time": lambda: dt.datetime(2026, 1, 1, tzinfo=Nowhere())}


class Shop:
    @exposed()
    async def on_loop(self, ctx: Context, what: str) -> Any:
        return ANY[what]()

    @exposed()
    async def on_loop_later(self, ctx: Context, what: str) -> Any:
        await asyncio.sleep(0)
        return ANY[what]()

    @exposed()
    def in_pool(self, ctx: Context, what: str) -> Any:
        return ANY[what]()

    @exposed()
    async def items_on_loop(self, ctx: Context, what: str) -> AsyncIterator[Any]:
        yield 1
        yield ANY[what]()

    @exposed()
    def items_in_pool(self, ctx: Context, what: str) -> Iterator[Any]:
        yield 1
        yield ANY[what]()

    @exposed()
    async def facts(self, ctx: Context, what: str) -> None:
        raise RequestError("refused", thing=UNFIT[what]())

    @exposed()
    async def later_facts(self, ctx: Context, what: str) -> None:
        error = RequestError("refused")
        error.details["thing"] = UNFIT[what]()
        raise error

    @exposed()
    def text(self, ctx: Context, what: str) -> None:
        raise RequestError(UNFIT[what](), hint=UNFIT[what]())

    @exposed()
    async def progress(self, ctx: Context, what: str) -> str:
        ctx.progress(0, 2, "the first goes out at once, what comes next a moment later")
        ctx.progress(1, 2, UNFIT[what]())
        return "well"

    @exposed()
    def progress_in_pool(self, ctx: Context, what: str) -> str:
        ctx.progress(0, 2)
        ctx.progress(10**400 if what == "number" else 1, 2, "" if what == "number" else UNFIT[what]())
        return "well"


async def ended(bench):
    async with asyncio.timeout(5):
        while not [a for a in bench.answers() if type(a) in (Reply, Failure, Accepted)] or bench.dispatcher.in_flight(
            "shop"
        ):
            await asyncio.sleep(0.001)


async def end_of(bench, method, what, flags=0):
    data = encode_request(
        Request(PROTOCOL_VERSION, 1, "shop", method, {"what": what}, None, "the-id", flags, credit=10)
    )
    await bench.send_from_callback(data)
    await ended(bench)
    (end,) = [answer for answer in bench.answers() if type(answer) in (Reply, Failure, Accepted)]
    assert bench.server.stats()["in_flight"] == 0
    return end


@pytest.mark.failure_mode("RPC", "a reply that cannot be encoded")
@EACH
@pytest.mark.parametrize("flags", [0, RETRY, STREAM])
@pytest.mark.parametrize("where", ["loop", "loop later", "pool"])
async def test_a_reply_or_item_that_cannot_be_encoded_is_an_error_by_name(what, where, flags, open_bench):
    method = (
        f"items_{'in_pool' if where == 'pool' else 'on_loop'}"
        if flags == STREAM
        else f"{'in' if where == 'pool' else 'on'}_{where.replace(' ', '_')}"
    )

    async with open_bench(max_message_size=100000) as bench:
        bench.add("shop", Shop())
        end = await end_of(bench, method, what, flags)
        assert type(end) is Failure
        assert end.names[0] == ("ostler.MessageTooLarge" if what == "large" else "ostler.EncodeError")
        assert f"shop.{method}" in end.message


@pytest.mark.parametrize("method", ["on_loop", "on_loop_later", "in_pool", "items_on_loop", "items_in_pool"])
async def test_what_raises_anything_while_it_is_encoded_holds_up_no_call(bench, method):
    bench.add("shop", Shop())
    end = await end_of(bench, method, "time", STREAM if method.startswith("items") else 0)
    assert end.names[0] == "ostler.InternalError"
    assert "not now" in end.message


@pytest.mark.failure_mode("RPC", "a reply that cannot be encoded")
@EACH
@pytest.mark.parametrize("method", ["facts", "later_facts", "text"])
async def test_an_error_that_cannot_be_encoded_is_an_error_all_the_same(bench, method, what):
    bench.add("shop", Shop())
    end = await end_of(bench, method, what)
    assert type(end) is Failure
    assert end.names[0] in ("ostler.RequestError", "ostler.EncodeError", "ostler.InternalError")


@pytest.mark.failure_mode("RPC", "a reply that cannot be encoded")
@EACH
@pytest.mark.parametrize("method", ["progress", "progress_in_pool"])
async def test_progress_that_cannot_be_encoded_holds_up_no_call(bench, method, what):
    bench.add("shop", Shop())
    end = await end_of(bench, method, what, PROGRESS)
    assert type(end) in (Reply, Failure)


@EACH
@pytest.mark.parametrize("method", ["on_loop", "in_pool", "on_loop_later", "facts", "later_facts", "text", "progress"])
async def test_what_a_cast_returns_or_raises_is_nobodys(bench, method, what):
    bench.add("shop", Shop())
    assert type(await end_of(bench, method, what, CAST)) is Accepted


@EACH
@pytest.mark.parametrize("flags", [0, CAST])
async def test_where_there_are_secrets_what_cannot_be_told_has_one_end_as_well(bench, what, flags):
    SECRETS.add("a-secret-value")
    bench.add("shop", Shop())
    assert type(await end_of(bench, "later_facts", what, flags)) is (Accepted if flags else Failure)


class Shouter:
    @exposed()
    async def ours(self, ctx: Context, size: int) -> None:
        raise RequestError("E" * size, hint="H" * size, what="F" * size)

    @exposed()
    def theirs(self, ctx: Context, size: int) -> None:
        raise ValueError("V" * size)

    @exposed()
    async def secretly(self, ctx: Context, code: SecretText) -> None:
        raise RequestError("x" * (MESSAGE_LIMIT - 3) + code)

    @exposed()
    async def progress(self, ctx: Context, size: int) -> None:
        ctx.progress(1, 2, "P" * size)


@pytest.mark.failure_mode("Plugins", "errors that are very large, endless or cannot be described")
@pytest.mark.parametrize(("method", "name"), [("ours", "ostler.RequestError"), ("theirs", "ostler.InternalError")])
async def test_an_error_of_many_megabytes_is_an_error_that_is_cut(bench, method, name):
    bench.add("shop", Shouter())
    data = encode_request(Request(PROTOCOL_VERSION, 1, "shop", method, {"size": 15_000_000}, None))
    await bench.send_from_callback(data)
    await ended(bench)
    (end,) = bench.answers()
    assert end.names[0] == name
    assert "more characters)" in end.message
    assert len(encode_message(end)) < 60_000


async def test_an_error_that_is_too_large_for_a_small_wire_keeps_its_name(open_bench):
    async with open_bench(max_message_size=4096) as bench:
        bench.add("shop", Shouter())
        await bench.send_from_callback(
            encode_request(Request(PROTOCOL_VERSION, 1, "shop", "ours", {"size": 5000}, None))
        )
        await ended(bench)
        (end,) = bench.answers()
        assert end.names[0] == "ostler.RequestError"
        assert len(encode_message(end)) <= 4096


async def test_no_half_of_a_secret_is_left_where_an_error_is_cut(bench):
    bench.add("shop", Shouter())
    await bench.send_from_callback(
        encode_request(Request(PROTOCOL_VERSION, 1, "shop", "secretly", {"code": "hush-hush"}, None))
    )
    await ended(bench)
    (end,) = bench.answers()
    assert "hus" not in end.message
    assert "more characters)" in end.message


async def test_progress_of_many_megabytes_is_cut(bench):
    bench.add("shop", Shouter())
    data = encode_request(Request(PROTOCOL_VERSION, 1, "shop", "progress", {"size": 9_000_000}, None, flags=PROGRESS))
    await bench.send_from_callback(data)
    await ended(bench)
    first = bench.answers()[0]
    assert len(first.text) < 1100
