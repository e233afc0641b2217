"""The service that is attacked: a method of each kind; named in the configuration by import path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from ostler import Context, Manager, exposed


class AttackedManager(Manager):
    """Does what callers ask for, as much of it as they ask for."""

    @exposed(role="viewer", changes=False)
    def echo(self, ctx: Context, text: str = "") -> str:
        """Return the text, from a thread."""
        return text

    @exposed(role="viewer", changes=False)
    async def echo_async(self, ctx: Context, text: str = "") -> str:
        """Return the text, from the loop."""
        return text

    @exposed(role="viewer", changes=False)
    def big(self, ctx: Context, size: int) -> bytes:
        """Return so many bytes."""
        return bytes(size)

    @exposed(role="viewer", changes=False)
    async def asleep(self, ctx: Context, seconds: float = 60.0) -> str:
        """Return later, without a thread."""
        await asyncio.sleep(seconds)
        return "rested"

    @exposed(role="viewer", changes=False)
    async def ticks(self, ctx: Context, size: int = 0, spacing: float = 0.0) -> AsyncIterator[bytes]:
        """Yield without end, on the loop."""
        while True:
            yield bytes(size)
            await asyncio.sleep(spacing)

    @exposed(role="viewer", changes=False)
    def counts(self, ctx: Context, size: int = 0) -> Iterator[bytes]:
        """Yield without end, from a thread."""
        while True:
            yield bytes(size)

    @exposed(role="operator", changes=False)
    async def publish(self, ctx: Context, count: int, size: int = 0, names: int = 1) -> int:
        """Publish so many events, under so many names in turn."""
        for number in range(count):
            self.client.publish(f"event{number % names}", "x" * size)
        return count
