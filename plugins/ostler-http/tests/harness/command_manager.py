"""A manager with methods of every kind, for the command over HTTP; named in configurations by import path."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import msgspec

from ostler import Busy, Context, Durable, InvalidInput, Manager, NotFound, exposed


class Echo(msgspec.Struct):
    text: str
    count: int
    image: bytes
    tags: list[str]
    request_id: str
    trace: str


class WrongColour(InvalidInput):
    """Raised when a colour does not exist; clients know its base alone."""


class CommandManager(Manager):
    """Methods of every kind."""

    journal_events = True

    def init_host(self, service_id: int, added_to_cluster: bool) -> None:
        self.counts: Counter[str] = Counter()

    @exposed(role="viewer", changes=False)
    def echo(self, ctx: Context, text: str, count: int = 1, image: bytes = b"", tags: list[str] | None = None) -> Echo:
        """Return what came."""
        return Echo(text, count, image, tags or [], ctx.request_id, ctx.trace)

    @exposed()
    def bump(self, ctx: Context, name: str) -> int:
        """Count."""
        self.counts[name] += 1
        return self.counts[name]

    @exposed(role="viewer", changes=False)
    def count_of(self, ctx: Context, name: str) -> int:
        """Return a count."""
        return self.counts[name]

    @exposed()
    def fail(self, ctx: Context, kind: str) -> None:
        """Fail in one of several ways."""
        if kind == "missing":
            raise NotFound("lamp x not found", hint="see `ostler lamp list`", lamp="x", since=1800000000.0)
        if kind == "busy":
            raise Busy("too many lamps", retry_after=0.25)
        if kind == "own":
            raise WrongColour("there is no colour x", colour="x")
        raise ValueError("of the inside")

    @exposed(role="admin")
    def destroy(self, ctx: Context) -> str:
        """Destroy all."""
        return "destroyed"

    @exposed()
    async def slowly(self, ctx: Context, steps: int) -> str:
        """Report progress."""
        for step in range(steps):
            ctx.progress(step + 1, steps, f"step {step + 1}")
            await asyncio.sleep(0)
        return "done"

    @exposed()
    async def wait(self, ctx: Context, name: str) -> None:
        """Wait until the caller leaves."""
        self.log.info("wait %s has begun", name)
        ctx.progress(1, 2, "waiting")
        try:
            await asyncio.Event().wait()
        finally:
            self.log.info("wait %s was cancelled", name)

    @exposed()
    async def numbers(self, ctx: Context, to: int, name: str = "numbers", fail: bool = False) -> AsyncIterator[int]:
        """Yield numbers."""
        self.counts[name] += 1
        try:
            for number in range(to):
                yield number
        finally:
            self.log.info("the reader of %s has left", name)
        if fail:
            raise NotFound("there is no more")

    @exposed(role="viewer", changes=False)
    async def tick(self, ctx: Context, name: str) -> AsyncIterator[int]:
        """Yield once, and then nothing until the reader leaves."""
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            self.log.info("the reader of %s has left", name)

    @exposed()
    async def tell(self, ctx: Context, name: str, value: int = 0) -> None:
        """Publish an event."""
        self.client.publish(name, {"value": value})

    @exposed(durable=Durable(on_restart="retry"))
    def build(self, ctx: Context, name: str) -> str:
        """Build something, as an operation."""
        self.counts[name] += 1
        ctx.progress(1, 2, "half")
        return f"{name} is built"

    @exposed(durable=Durable(on_restart="retry"))
    async def hold(self, ctx: Context, name: str) -> None:
        """Work until it is cancelled."""
        self.log.info("hold %s has begun", name)
        await asyncio.Event().wait()
