import asyncio

import pytest

from ostler.aio import Inbox
from ostler.clock import SystemClock
from ostler.config import load_text, validate
from ostler.daemon import ports
from ostler.daemon.ports import Ports
from ostler.errors import Conflict
from ostler.messaging import Access, AsyncClient, Dispatcher, Endpoint, RpcServer, exposed
from ostler.messaging.context import Context
from ostler.messaging.event_links import EventLinks
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
        self.file = folder / "key"
        self.keys, self.transports = [], []
        self.new_key()
        dispatcher = Dispatcher(
            Access(keys={self.mine.public: "me"}, viewer=["key:me"]),
            SystemClock(), Inbox(asyncio.get_running_loop()), host="here",
        )  # fmt: skip
        dispatcher.registry.add_endpoint(Endpoint("echo", "here", Echo(), None))

        def serve(link):
            return RpcServer(link, dispatcher, Inbox(asyncio.get_running_loop()))

        self.ports = Ports(self.configuration(), SystemClock(), serve)
        self.links = EventLinks(self.ports.events_link)
        self.ports.start(self.links)

    def new_key(self):
        self.keys.append(new_keys())
        self.file.write_text(self.keys[-1].secret)

    def configuration(self, address="tcp://127.0.0.1:0"):
        text = f"[network]\nrpc = '{address}'\nsecret_key = {{file = '{self.file}'}}\n"
        return validate(load_text(f"{text}[network.keys]\nme = '{self.mine.public}'"), {}, {})

    def client(self):
        network = Network(self.mine, self.keys[-1].public)
        self.transports.append(ZmqTransport(self.ports.stats()["rpc"], network=network))
        return AsyncClient(transport=self.transports[-1], timeout=5)

    async def close(self):
        self.ports.close()
        self.links.close()
        for transport in self.transports:
            await asyncio.to_thread(transport.close)


async def until(seen):
    async with asyncio.timeout(5):
        while not seen():
            await asyncio.sleep(0.005)


def test_what_listens_with_the_old_key_goes_with_its_last_connection(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ports, "_LOOK_EVERY", 0.05)

    async def main():
        bench = Bench(tmp_path)
        old = bench.client()
        assert await old.call("echo", "echo") == "key:me"
        bench.new_key()
        bench.ports.apply(bench.configuration())
        bench.ports.apply(bench.configuration())  # the same key is no new one
        await until(lambda: len(bench.ports.servers) == 2)
        fresh = bench.client()
        assert await fresh.call("echo", "echo") == "key:me"
        assert await old.call("echo", "echo") == "key:me"
        await asyncio.sleep(0.2)
        assert len(bench.ports.servers) == 2, "somebody is still there"
        await old.close()
        await until(lambda: len(bench.ports.servers) == 1)
        assert await fresh.call("echo", "echo") == "key:me"
        await fresh.close()
        await bench.close()

    asyncio.run(main())


def test_a_port_that_is_taken_leaves_nothing_open(tmp_path):
    async def main():
        bench = Bench(tmp_path)
        with pytest.raises(Conflict, match="somebody else listens on tcp://127"):
            Ports(bench.configuration(bench.ports.stats()["rpc"]), SystemClock(), lambda link: None)
        await bench.close()

    asyncio.run(main())
