"""Managers for the benchmarks, named in the configuration by import path; they use what any plugin may use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from ostler import Context, Durable, Manager, exposed


class EchoManager(Manager):
    """Answers with what it is asked, and publishes when told to."""

    @exposed(role="operator", changes=False)
    async def echo_async(self, ctx: Context, text: str) -> str:
        """Return the text, on the loop."""
        return text

    @exposed(role="operator", changes=False)
    def echo_sync(self, ctx: Context, text: str) -> str:
        """Return the text, from the pool."""
        return text

    @exposed(role="operator", changes=False, durable=True)
    async def nothing(self, ctx: Context) -> None:
        """Do nothing, as an operation."""

    @exposed(role="operator", changes=False, durable=Durable(on_restart="resume"))
    async def resumable(self, ctx: Context) -> None:
        """Do nothing, as an operation that a start resumes."""

    @exposed(role="operator", changes=False)
    async def items_async(self, ctx: Context, count: int) -> AsyncIterator[bytes]:
        """Yield so many items, on the loop."""
        payload = b"x" * 64
        for _ in range(count):
            yield payload

    @exposed(role="operator", changes=False)
    def items_sync(self, ctx: Context, count: int) -> Iterator[bytes]:
        """Yield so many items, from the pool."""
        payload = b"x" * 64
        for _ in range(count):
            yield payload

    @exposed(role="operator", changes=False)
    async def publish_burst(self, ctx: Context, count: int) -> int:
        """Publish so many events."""
        for number in range(count):
            self.client.publish("tick", {"number": number, "text": "x" * 32})
        return count
