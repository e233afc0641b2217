"""What is fuzzed: a service with a method of each kind, and the messages that reach it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
from mutator import VALUES, Mutator, encode

from ostler.errors import RequestError
from ostler.messaging import Context, exposed
from ostler.messaging.wire.envelope import CAST, FANOUT, LENIENT, PROGRESS, RETRY, STREAM

MAX_STREAM_ITEMS = 2000
"""The most items of a stream: each is to end."""


class Item(msgspec.Struct):
    """What a typed argument is made of."""

    name: str
    size: int = 0
    parts: list[float] = []


class FuzzedService:
    """Answers at once, or soon."""

    @exposed(role="viewer")
    async def echo(self, ctx: Context, text: str = "") -> str:
        return text

    @exposed(role="viewer")
    async def typed(self, ctx: Context, item: Item, count: int, maybe: bytes | None = None, more: Any = None) -> Item:
        return item

    @exposed(role="admin")
    async def closed(self, ctx: Context) -> None:
        pass

    @exposed(role="viewer")
    async def steps(self, ctx: Context, done: float = 1.0, text: str = "") -> None:
        ctx.progress(done, 5.0, text)
        await asyncio.sleep(0)
        ctx.progress(done, 5.0, text)

    @exposed(role="viewer")
    async def refuses(self, ctx: Context, text: str = "") -> None:
        raise RequestError(f"not {text}", hint=text, text=text)

    @exposed(role="viewer")
    async def unfit(self, ctx: Context) -> Any:
        return object()

    @exposed(role="viewer")
    async def large(self, ctx: Context) -> str:
        return "x" * 100_000

    @exposed(role="viewer")
    def quick(self, ctx: Context, text: str = "") -> str:
        return text


class BlockingService:
    """Ends when it is let go; what is cast to it does not fill the daemon."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.waiting: dict[asyncio.Future[None], str] = {}
        self.is_open = False

    @exposed(role="viewer")
    async def hold(self, ctx: Context, text: str = "") -> str:
        if not self.is_open:
            future = asyncio.get_running_loop().create_future()
            self.waiting[future] = text
            try:
                await future
            finally:
                del self.waiting[future]
        return text

    @exposed(role="viewer")
    def work(self, ctx: Context, text: str = "") -> str:
        self.gate.wait()
        return text

    @exposed(role="viewer")
    def count(self, ctx: Context, items: int = 10) -> Iterator[int]:
        yield from range(min(items, MAX_STREAM_ITEMS))

    @exposed(role="viewer")
    async def acount(self, ctx: Context, items: int = 10) -> AsyncIterator[int]:
        for number in range(min(items, MAX_STREAM_ITEMS)):
            yield number

    def release_all(self) -> None:
        """Let everything end, now and from now on."""
        self.is_open = True
        self.gate.set()
        self.release_one(*self.waiting.values())

    def release_one(self, *texts: str) -> None:
        """Let those end that hold with one of these texts."""
        for future, text in self.waiting.items():
            if text in texts and not future.done():
                future.set_result(None)

    def block_again(self) -> None:
        """Hold back again what comes from now on."""
        self.is_open = False
        self.gate.clear()


_STREAMS = ("count", "acount")
_FLAGS = [0, 0, 0, 0, 0, CAST, CAST | FANOUT, FANOUT, PROGRESS, LENIENT, RETRY, RETRY | CAST, STREAM, -1, 63, 2**64 - 1]
_TIMEOUTS = [None, None, None, 1.0, 60.0, 0.01, 0, 0.0, 1e300, 2**40, float("inf")]
_NAMES = [("shop", name) for name in ("echo", "echo", "echo", "typed", "closed", "steps", "refuses", "unfit", "quick")]
_NAMES += [("slow", name) for name in ("hold", "hold", "work", "count", "acount")]
_NAMES += [
    ("shop", "large"),
    ("shop", "nothing"),
    ("nowhere", "x"),
    ("ostler", "status"),
    ("shop", "_Shop__x"),
    ("", ""),
]
IDS = 60
"""Numbers of requests: few enough that cancels, credit and repeats meet what is there."""


def request(mutator: Mutator) -> list[Any]:
    """Return the fields of a request that fits, most of the time."""
    topic, method = mutator.one_of(_NAMES)
    flags = mutator.one_of(_FLAGS)
    if method in _STREAMS:
        arguments: Any = {"items": mutator.number(40)}
        flags = STREAM if mutator.dice.random() < 0.9 else flags
    elif method == "typed":
        arguments = {"item": {"name": "a", "size": mutator.one_of(VALUES)}, "count": mutator.one_of(VALUES)}
    else:
        arguments = {"text": "some text"}
    how = mutator.dice.random()
    if how < 0.1:
        arguments = mutator.one_of(VALUES)
    elif how < 0.2:
        arguments = {**arguments, mutator.one_of(("text", "item", "items", "ctx", "x")): mutator.one_of(VALUES)}
    fields = [1, 1, mutator.number(IDS), topic, method, arguments]
    how = mutator.dice.random()
    if how < 0.3:
        return fields
    again = f"{method}-{flags}-{mutator.number(4)}" if how < 0.95 else mutator.one_of(VALUES)
    timeout = mutator.one_of(_TIMEOUTS) if how < 0.9 else mutator.one_of(VALUES)
    fields += [timeout, again, flags]
    if flags == STREAM or how > 0.8:
        host, version = (
            mutator.one_of(("", "", "", "here", "there")),
            mutator.one_of(("", "", "1.0", "1.9", "²", "9.9.9")),
        )
        trace = mutator.one_of(("", "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "junk"))
        fields += [host, version, trace, mutator.one_of((0, 1, 3, 16, 1024, 2**31))]
    return fields


def to_server(mutator: Mutator) -> list[Any]:
    """Return the fields of a message for a server, now and then of one that is not."""
    how = mutator.dice.random()
    if how < 0.7:
        return request(mutator)
    number = mutator.number(IDS)
    if how < 0.82:
        return [2, 1, number]
    if how < 0.94:
        return [3, 1, number, mutator.one_of((0, 1, 3, 100, 2**31))]
    return to_client(mutator, number)


def to_client(mutator: Mutator, number: int) -> list[Any]:
    """Return the fields of a message for a client."""
    kind = mutator.number(7)
    if kind == 0:
        return [10, 1, number, mutator.one_of(VALUES)]
    if kind == 1:
        names = mutator.one_of(
            (["ostler.Busy", "ostler.MessagingError"], ["x.Unknown"], [], ["ostler.ConfigurationError"])
        )
        return [
            11,
            1,
            mutator.one_of((number, number, None)),
            names,
            "text",
            "hint",
            {"hint": 1, "args": [], "x": DEEPER},
        ]
    if kind == 2:
        return [12, 1, number, mutator.one_of((0, 1, -1, 2**40))]
    if kind == 3:
        return [13, 1, number, mutator.one_of((0, 1, 0.5, 1e300)), 5.0, "text"]
    if kind == 4:
        return [14, 1, [number, mutator.number(IDS), 10**6], mutator.one_of((0, 0.1, 1.0, 1e300, float("inf")))]
    return [
        15,
        1,
        number,
        mutator.one_of((0, 0, 1, 2, 2**62)),
        mutator.one_of(([1, 2], [], [None], ["x"], [1] * 300, 5)),
    ]


DEEPER: Any = {"a": {"b": [{"c": []}]}}


def corpus(seed: str, make: Any, size: int = 300) -> list[bytes]:
    """Return real messages, encoded."""
    mutator = Mutator(f"corpus of {seed}")
    return [encode(make(mutator)) for _ in range(size)]
