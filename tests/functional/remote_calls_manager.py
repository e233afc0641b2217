"""A manager that talks to services on other hosts; named in configurations by import path."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator

import msgspec

from ostler import Context, Manager, Retry, exposed
from ostler.errors import Busy, Conflict, ConnectionLost, DaemonNotRunning, Draining, OstlerError


class CallerReport(msgspec.Struct):
    host: str
    pid: int
    request_id: str = ""
    left: float = 0.0
    who: str = ""


class RemoteCallsManager(Manager):
    """Says where it runs, and has others say so."""

    @exposed(role="viewer", changes=False)
    async def where(self, ctx: Context) -> CallerReport:
        """Say where this is, and what came with the request."""
        return CallerReport(self.host, os.getpid(), ctx.request_id, ctx.remaining() or 0.0, ctx.peer.name)

    @exposed(role="operator")
    def work(self, ctx: Context, seconds: float) -> str:
        """Work for a while, until it is cancelled."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if ctx.cancelled:
                self.log.info("work was cancelled")
            ctx.check()
            time.sleep(0.01)
        return self.host

    @exposed(role="operator")
    def ask(self, ctx: Context, what: str, at: str = "", wait: float = 0.0, limit: float = 30.0) -> CallerReport:
        """Ask a service on another host, from a thread: where it is, after some work."""
        if wait:
            self.client.on(host=at or None, timeout=limit).call(what, "work", seconds=wait)
        return self.client.on(host=at or None, type=CallerReport, timeout=limit).call(what, "where")

    @exposed(role="operator")
    async def aask(self, ctx: Context, what: str, at: str = "") -> CallerReport:
        """Ask a service on another host, on the loop."""
        return await self.client.on(host=at or None, type=CallerReport).acall(what, "where")

    @exposed(role="operator")
    def tell_all(self, ctx: Context, what: str) -> int:
        """Have all services on a topic say where they are."""
        return self.client.fanout(what, "where")

    @exposed(role="viewer", changes=False)
    async def numbers(self, ctx: Context) -> AsyncIterator[int]:
        """Yield numbers until nobody reads on."""
        for number in itertools.count():
            yield number

    @exposed(role="operator", changes=False)
    async def orders(self, ctx: Context) -> AsyncIterator[int]:
        """Yield numbers that only an operator may read."""
        for number in itertools.count():
            yield number

    @exposed(role="viewer", changes=False)
    async def fill(self, ctx: Context, size: int) -> bytes:
        """Return many bytes."""
        return bytes(size)

    @exposed(role="operator")
    async def fetch(self, ctx: Context, what: str, at: str, count: int, size: int) -> list[int]:
        """Fetch bytes from another host, many times at once; return how many came each time."""
        calls = [self.client.on(host=at, type=bytes).acall(what, "fill", size=size) for _ in range(count)]
        return [len(found) for found in await asyncio.gather(*calls)]

    @exposed(role="operator")
    async def count_to(self, ctx: Context, what: str, most: int) -> list[int]:
        """Read the numbers of a service on another host."""
        found: list[int] = []
        async with self.client.on(type=int).astream(what, "numbers") as stream:
            async for number in stream:
                found.append(number)
                if len(found) == most:
                    break
        return found

    @exposed(role="operator")
    def count_slowly(self, ctx: Context, what: str, at: str, most: int) -> list[int]:
        """Read the numbers of a service on another host from a thread."""
        found: list[int] = []
        with self.client.on(host=at, type=int, credit=4).stream(what, "numbers") as stream:
            for number in stream:
                found.append(number)
                if len(found) == most:
                    break
        return found

    @exposed(role="operator", secret=["code"])
    async def unlock(self, ctx: Context, code: str, name: str) -> str:
        """Refuse, and say why in words that hold a secret."""
        raise Conflict(f"{name} does not open with {code}")

    @exposed(role="operator")
    def patiently(self, ctx: Context, what: str, at: str) -> CallerReport:
        """Ask a service on another host, and again while that is away or starting."""
        retry = Retry(attempts=100, max_backoff=0.5, on=(Busy, DaemonNotRunning, Draining, ConnectionLost))
        return self.client.on(host=at, type=CallerReport, timeout=30, retry=retry).call(what, "where")

    @exposed(role="operator")
    def went(self, ctx: Context, what: str, at: str = "", wait: float = 30.0) -> tuple[str, float, str]:
        """Return what became of a call to another host: the error's name, seconds, and its sentence."""
        began = time.monotonic()
        try:
            self.client.on(host=at or None, timeout=60).call(what, "work", seconds=wait)
        except OstlerError as error:
            return type(error).__name__, time.monotonic() - began, str(error)
        return "", time.monotonic() - began, ""
