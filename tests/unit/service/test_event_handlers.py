from __future__ import annotations

import asyncio
from types import SimpleNamespace

from ostler.aio import TaskOwner, WorkerPool
from ostler.clock import SystemClock
from ostler.errors import DaemonNotRunning
from ostler.manager.on_event import on_event
from ostler.messaging import Access, Publisher
from ostler.messaging.events import Gap
from ostler.messaging.events.async_event_stream import AsyncEventStream
from ostler.messaging.events.event import JournalPage
from ostler.messaging.events.subscription import make_subscription
from ostler.service.event_handlers.event_handlers import EventHandlers
from ostler.store import Store
from ostler.testing import FakeClock
from ostler.testing.memory_transport import MemoryTransport
from support.waiting import until


class Watcher:
    def __init__(self):
        self.seen = []
        self.gate = asyncio.Event()
        self.gate.set()

    @on_event("lamp")
    async def on_lamp(self, ctx, event):
        self.seen.append((event.host, event.last if isinstance(event, Gap) else event.payload))
        await self.gate.wait()


class OtherDaemon:
    """Another daemon as its peer sees it: it publishes, has no journal, and can go away."""

    def __init__(self, loop):
        transport = MemoryTransport()
        access = Access(own_uid=transport.peer.uid)
        post = loop.call_soon_threadsafe
        self.publisher = Publisher(transport.serve_events(), "node2", SystemClock(), access, post)
        self.publisher.start()
        self._transport = transport
        self.client = self
        self.up = True

    def unreachable_error(self):
        return DaemonNotRunning("node2 is unreachable")

    def events(self, *patterns, since, refetch, max_waiting):
        assert refetch
        subscription, replay = make_subscription(patterns, since, last=False)
        self._stream = AsyncEventStream(
            self._transport, subscription, lambda _stream: None,
            call_method=self._read_journal, replay=replay, max_waiting_events=max_waiting,
        )  # fmt: skip
        return self._stream

    async def _read_journal(self, method, arguments, _kind):
        assert (method, arguments["positions"]) == ("events_since", [])
        return JournalPage([], [], more=False)

    def on(self, **_options):
        return self

    async def call(self, topic, method, **_arguments):
        assert (topic, method) == ("ostler", "event_topics")
        return []

    def lose(self):
        self.up = False
        self._stream.close()


class Parts:
    def __init__(self, path, clock=None):
        loop = asyncio.get_running_loop()
        clock, transport = clock or SystemClock(), MemoryTransport()
        access = Access(own_uid=transport.peer.uid)
        self.store = Store.open(path / "ostler.db", clock=clock, synchronous="OFF")
        self.publisher = Publisher(transport.serve_events(), "node1", clock, access, loop.call_soon_threadsafe)
        self.publisher.start()
        self.router = SimpleNamespace(peers=None)
        self.owner = TaskOwner("test")
        self.pool = WorkerPool("test", 2)
        self.handlers = EventHandlers(self.publisher, self.router, self.store, clock, self.owner)
        self.watcher = Watcher()

    async def start(self):
        self.handlers.add("sink", self.watcher, self.pool)
        await until(lambda: "node1" in self.hosts())

    def hosts(self):
        return [host for status in self.handlers.statuses() for host in status.hosts]

    def problems(self):
        return [line for handler in self.handlers.all_handlers() for line in handler.problems()]

    async def close(self):
        await self.handlers.stop("sink")
        await self.owner.cancel()
        self.pool.close()
        self.publisher.close()
        await asyncio.to_thread(self.store.close, 5)


async def test_events_of_other_hosts_come_and_a_lost_host_is_followed_again(tmp_path):
    parts = Parts(tmp_path)
    other = OtherDaemon(asyncio.get_running_loop())
    parts.router.peers = SimpleNamespace(peers={"node2": other})
    try:
        await parts.start()
        await until(lambda: "node2" in parts.hosts())
        other.publisher.publish("lamp", "on", 1)
        parts.publisher.publish("lamp", "on", 2)
        await until(lambda: len(parts.watcher.seen) == 2)
        assert sorted(parts.watcher.seen) == [("node1", 2), ("node2", 1)]
        other.lose()
        await until(parts.problems)
        assert parts.problems() == [
            "event handler on_lamp of sink cannot follow the events of node2: node2 is unreachable"
        ]
        other.up = True
        await until(lambda: "node2" in parts.hosts())
        assert parts.problems() == []
        other.publisher.publish("lamp", "on", 3)
        await until(lambda: ("node2", 3) in parts.watcher.seen)
    finally:
        await parts.close()


async def test_a_host_that_is_no_peer_any_more_is_not_followed(tmp_path):
    parts = Parts(tmp_path)
    other = OtherDaemon(asyncio.get_running_loop())
    parts.router.peers = SimpleNamespace(peers={"node2": other})
    try:
        await parts.start()
        await until(lambda: "node2" in parts.hosts())
        parts.router.peers = SimpleNamespace(peers={})
        await until(lambda: parts.hosts() == ["node1"])
    finally:
        await parts.close()


async def test_a_stopped_service_follows_nothing_and_a_second_one_goes_on(tmp_path):
    parts = Parts(tmp_path)
    try:
        await parts.start()
        await parts.handlers.stop("sink")
        parts.publisher.publish("lamp", "on", 1)
        await parts.start()
        parts.publisher.publish("lamp", "on", 2)
        await until(lambda: parts.watcher.seen)
        assert parts.watcher.seen == [("node1", 2)]  # a plain topic: what came in between is nobody's
    finally:
        await parts.close()


async def test_a_handler_that_does_not_return_makes_its_service_degraded(tmp_path):
    clock = FakeClock()
    parts = Parts(tmp_path, clock)
    try:
        await parts.start()
        parts.watcher.gate.clear()
        parts.publisher.publish("lamp", "on", 1)
        await until(lambda: parts.watcher.seen)
        clock.advance(60)
        assert parts.handlers.unhealthy("sink") == {}
        clock.advance(1)
        text = "event handler on_lamp of sink has been handling lamp.node1.on for longer than 1min"
        assert parts.handlers.unhealthy("sink") == {"on_lamp": text}
        assert parts.problems() == ["event handler on_lamp of sink has been handling lamp.node1.on for 1min 1s"]
        parts.watcher.gate.set()
        await until(lambda: not parts.handlers.unhealthy("sink"))
    finally:
        await parts.close()


async def test_an_unreachable_host_is_shown_beside_failing_calls(tmp_path):
    parts = Parts(tmp_path)
    other = OtherDaemon(asyncio.get_running_loop())
    parts.router.peers = SimpleNamespace(peers={"node2": other})
    try:
        await parts.start()
        await until(lambda: "node2" in parts.hosts())
        other.lose()
        await until(parts.problems)
        (handler,) = parts.handlers.all_handlers()
        assert handler.problems(with_health=False) == parts.problems()
    finally:
        await parts.close()
