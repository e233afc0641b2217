"""A server end that is held by the test, for what no real transport can show on demand."""

import asyncio

import pytest

from ostler.aio import Inbox, WorkerPool
from ostler.clock import FakeClock
from ostler.messaging import Access, Dispatcher, Endpoint, RpcServer
from ostler.messaging.envelope import decode_to_client
from ostler.types import Peer

ROOT = Peer(0, 0, 1, "uid 0")


class Wire:
    """A server's link whose client is the test."""

    address = "fake"
    threads_send = False
    core_is_ours = True

    def __init__(self):
        self.sent = []
        self.gone = set()
        self.closed = 0

    def start(self, receive):
        self.take = receive

    def send(self, client, data):
        if client in self.gone:
            return False
        self.sent.append((client, decode_to_client(data)))
        return True

    def congested(self, client):
        return False

    def memory(self, client):
        return None

    def garbage(self, client):
        pass

    def hold(self):
        pass

    def let_go(self):
        pass

    def close(self):
        self.closed += 1


class Bench:
    """A dispatcher and a server on a wire, with a clock that the test sets."""

    def __init__(self, **options):
        self.clock = FakeClock()
        self.wire = Wire()
        self.inbox = Inbox(asyncio.get_running_loop())
        self.access = Access(own_uid=0)
        self.dispatcher = Dispatcher(self.access, self.clock, self.inbox, host="here")
        self.server = RpcServer(self.wire, self.dispatcher, self.inbox, **options)
        self.pool = WorkerPool("bench", 2)
        self.server.start()

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
def on_bench():
    """Run `test(bench)` on a loop."""

    def run(test, **options):
        async def main():
            bench = Bench(**options)
            try:
                await test(bench)
            finally:
                bench.dispatcher.close()
                bench.server.close()
                bench.pool.close()
                assert await asyncio.to_thread(bench.pool.join, 5) == []

        asyncio.run(main())

    return run
