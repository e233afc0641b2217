from __future__ import annotations

from ostler.manager.on_event import on_event
from ostler.service.service_events import ServiceEvents


class Handlers:
    def __init__(self):
        self.calls = []

    def add(self, topic, manager, pool):
        self.calls.append(("add", topic, pool))

    def remove(self, topic):
        self.calls.append(("remove", topic))

    async def stop(self, topic):
        self.calls.append(("stop", topic))

    def unhealthy(self, _topic):
        return {"on_lamp": "it fails"}

    def running(self, _topic):
        return ["on_lamp"]


class Watcher:
    @on_event("lamp")
    def on_lamp(self, ctx, event):
        """Handle one."""


async def test_a_service_with_handlers_starts_drains_and_stops_them():
    handlers = Handlers()
    events = ServiceEvents("sink", lambda: handlers, "pool")
    events.start(Watcher())
    assert events.in_progress() == {"on_lamp"}
    assert events.unhealthy() == {"on_lamp": "it fails"}
    events.drain()
    events.start(Watcher())
    await events.stop(1.0)
    assert [call[0] for call in handlers.calls] == ["add", "remove", "add", "stop"]
    assert handlers.calls[0] == ("add", "sink", "pool")


async def test_a_service_without_handlers_never_asks_for_what_runs_them():
    def fail():
        raise AssertionError

    events = ServiceEvents("sink", fail, "pool")
    events.start(object())
    events.drain()
    await events.stop()
    assert (events.in_progress(), events.unhealthy()) == (set(), {})


async def test_a_host_without_events_runs_no_handlers():
    events = ServiceEvents("sink", lambda: None, "pool")
    events.start(Watcher())
    assert events.in_progress() == set()
