import asyncio

import pytest

from ostler.aio import Inbox
from ostler.clock import SystemClock
from ostler.config import load_text, validate
from ostler.daemon.ports import Ports
from ostler.errors import Conflict
from ostler.messaging import Access, AsyncClient, Dispatcher, Endpoint, RpcServer, exposed
from ostler.messaging.context import Context
from ostler.messaging.zmq import ZmqTransport
from ostler.messaging.zmq.curve import Network, new_keys


class Echo:
    @exposed(role="viewer")
    async def echo(self, ctx: Context) -> str:
        """Return who asks."""
        return ctx.peer.name


class Bench:
    """Ports with a service behind them."""

    def __init__(self, folder):
        self.folder, self.mine = folder, new_keys()
        self.file, self.keys = folder / "key", new_keys()
        self.file.write_text(self.keys.secret)
        self.transports = []
        dispatcher = Dispatcher(
            Access(keys={self.mine.public: "me"}, viewer=["key:me"]),
            SystemClock(), Inbox(asyncio.get_running_loop()), host="here",
        )  # fmt: skip
        dispatcher.registry.add_endpoint(Endpoint("echo", "here", Echo(), None))

        def serve(link):
            return RpcServer(link, dispatcher, Inbox(asyncio.get_running_loop()))

        self.ports = Ports(self.configuration(), Network(self.keys), SystemClock(), serve)
        self.ports.start()

    def configuration(self, address="tcp://127.0.0.1:0"):
        text = f"[network]\nrpc = '{address}'\nsecret_key = {{file = '{self.file}'}}\n"
        return validate(load_text(f"{text}[network.keys]\nme = '{self.mine.public}'"), {}, {})

    def client(self):
        network = Network(self.mine, self.keys.public)
        self.transports.append(ZmqTransport(self.ports.stats()["rpc"], network=network))
        return AsyncClient(transport=self.transports[-1], timeout=5)

    async def close(self):
        self.ports.close()
        for transport in self.transports:
            await asyncio.to_thread(transport.close)


async def test_calls_are_answered_with_the_key_that_it_was_started_with(tmp_path):
    bench = Bench(tmp_path)
    client = bench.client()
    assert await client.call("echo", "echo") == "key:me"
    bench.file.write_text(new_keys().secret)
    bench.ports.apply(bench.configuration())
    again = bench.client()
    assert await again.call("echo", "echo") == "key:me"
    await client.close()
    await again.close()
    await bench.close()


async def test_a_port_that_is_taken_leaves_nothing_open(tmp_path):
    bench = Bench(tmp_path)
    with pytest.raises(Conflict, match="somebody else listens on tcp://127"):
        Ports(bench.configuration(bench.ports.stats()["rpc"]), Network(bench.keys), SystemClock(), lambda link: None)
    await bench.close()
