"""A server end that is held by the test, for what no real transport can show on demand."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from ostler.aio import LoopQueue, WorkerPool
from ostler.clock import FakeClock
from ostler.messaging import Access, Dispatcher, Endpoint, RpcServer
from ostler.messaging.rpc.completion import DispatcherHooks
from ostler.types import Peer
from support.async_tests import loop_fixture
from support.links import FakeServerLink

ROOT = Peer(0, 0, 1, "uid 0")


class Bench:
    """A dispatcher and a server on a wire, with a clock that the test sets."""

    def __init__(self, tracer=None, **options):
        self.audit = self.relay = None
        self.fanouts = []
        self.clock = FakeClock()
        self.wire = FakeServerLink()
        self.inbox = LoopQueue(asyncio.get_running_loop())
        self.access = Access(own_uid=0)
        hooks = DispatcherHooks(self, tracer, lambda *fanout: self.fanouts.append(fanout), self._redirect)
        self.dispatcher = Dispatcher(self.access, self.clock, self.inbox, host="here", hooks=hooks)
        self.server = RpcServer(self.wire, self.dispatcher, self.inbox, **options)
        self.pool = WorkerPool("bench", 2)
        self.server.start()

    def record(self, call, error):
        """Hand what the audit log is told to the audit of a test, if it has one."""
        if self.audit is not None:
            self.audit.record(call, error)

    def _redirect(self, call):
        return self.relay is not None and self.relay(call)

    def apply(self, access=None, limits=None):
        """Put other rules or limits in force, as a reload does."""
        self.dispatcher.apply(access or self.dispatcher.access, limits or self.dispatcher.limits)

    def add(self, topic, target):
        self.dispatcher.registry.add_endpoint(Endpoint(topic, "here", target, self.pool))

    def send(self, data, client="client", peer=ROOT):
        self.wire.take(client, data, peer)

    async def send_from_callback(self, data, client="client", peer=ROOT):
        """Send as a transport does: not from within a task, so that the first step runs at once."""
        sent = asyncio.get_running_loop().create_future()

        def send():
            self.send(data, client, peer)
            sent.set_result(len(self.wire.sent))

        asyncio.get_running_loop().call_soon(send)
        return await sent

    def answers(self, client="client"):
        return [message for whose, message in self.wire.sent if whose == client]


@pytest.fixture
def open_bench():
    """Open a bench with options of the server: `async with open_bench(max_message_size=4096) as bench`."""

    @asynccontextmanager
    async def opened(**options):
        bench = Bench(**options)
        try:
            yield bench
        finally:
            bench.dispatcher.close()
            bench.server.close()
            bench.pool.close()
            assert await asyncio.to_thread(bench.pool.join, 5) == []

    return opened


@loop_fixture
async def bench(open_bench):
    async with open_bench() as opened:
        yield opened
