"""A manager that publishes what it is told to; named in configurations by import path."""

from __future__ import annotations

from ostler import Context, Manager, exposed


class PublishingManager(Manager):
    """Publishes."""

    @exposed(role="operator")
    async def tell(self, ctx: Context, count: int, name: str = "told", size: int = 0, begin: int = 0) -> int:
        """Publish so many events."""
        for number in range(begin, begin + count):
            self.client.publish(name, {"n": number, "text": "x" * size})
        return count

    @exposed(role="operator")
    def tell_from_thread(self, ctx: Context, count: int) -> int:
        """Publish so many events, from the pool."""
        for number in range(count):
            self.client.publish("told", {"n": number})
        return count

    @exposed(role="operator")
    def notify(self, ctx: Context, priority: str) -> None:
        """Tell a notification."""
        self.notifier.notify(priority, "thing.happened", {"what": "a thing"})


class JournaledPublishingManager(PublishingManager):
    """Publishes what is journaled unless configured otherwise."""

    journal_events = True
