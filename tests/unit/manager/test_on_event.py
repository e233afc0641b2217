from __future__ import annotations

import pytest

from ostler import Context, Event, Gap, Manager, on_event
from ostler.manager.on_event import EventHandlerSettings, event_handler_faults, event_handlers_of


class Base(Manager):
    @on_event("volume.*.created", queue=5)
    def on_created(self, ctx: Context, event: Event | Gap) -> None:
        """Handle one."""

    @on_event("lamp")
    async def on_lamp(self, ctx, event):
        """Handle one without types."""


class Derived(Base):
    @on_event("image", "volume.*.deleted")
    def on_created(self, ctx: Context, event: Event | Gap) -> None:
        """Handle others."""


def test_handlers_are_found_and_can_be_overridden():
    assert list(event_handlers_of(Base)) == ["on_created", "on_lamp"]
    assert event_handlers_of(Base)["on_created"].queue == 5
    assert event_handlers_of(Derived)["on_created"].patterns == ("image", "volume.*.deleted")
    assert list(event_handler_faults("volume", Derived)) == []


@pytest.mark.parametrize(
    ("pattern", "hosts"),
    [
        ("volume", "node1 node2 a.b"),
        ("volume.*.created", "node1 node2 a.b"),
        ("*", "node1 node2 a.b"),
        ("volume.node1.created", "node1"),
        ("volume.node1", "node1"),
        ("volume.node*.x", "node1 node2"),
        ("vol*.node1", "node1 node2 a.b"),
    ],
)
def test_a_pattern_says_whose_events_may_match(pattern, hosts):
    settings = EventHandlerSettings((pattern,), 1)
    assert [host for host in ("node1", "node2", "a.b") if settings.follows(host)] == hosts.split()


def refused(*patterns, queue=1000):
    def handle(self, ctx, event):
        pass

    return type("Wrong", (Manager,), {"handle": on_event(*patterns, queue=queue)(handle)})


@pytest.mark.parametrize(
    "manager",
    [refused(), refused(""), refused("a b"), refused(7), refused("a" * 300), refused(*["a"] * 21)]
    + [refused("a", queue=queue) for queue in (0, -1, 100_001, "7", True)],
)
def test_patterns_and_queues_that_cannot_be_are_faults(manager):
    (fault,) = event_handler_faults("volume", manager)
    assert fault.startswith("the event handler handle of volume cannot run: ")


def test_methods_that_cannot_be_called_are_faults():
    class Wrong(Manager):
        @on_event("a")
        def few(self, ctx):
            pass

        @on_event("a")
        def generates(self, ctx, event):
            yield 1

        @on_event("a")
        def no_gaps(self, ctx: Context, event: Event) -> None:
            pass

        @staticmethod
        @on_event("a")
        def static(ctx, event):
            pass

    faults = list(event_handler_faults("volume", Wrong))
    assert [line.split(": ", 1)[1][:20] for line in faults] == [
        "it must take two arg", "it is a generator, i", "it gets gaps as well", "it must be a method",
    ]  # fmt: skip
