import asyncio

import pytest

from ostler.aio import LoopQueue
from ostler.clock import SystemClock
from ostler.config import load_text, validate
from ostler.daemon.connectivity.network_listener import NetworkListener
from ostler.errors import Conflict
from ostler.messaging import Access, AsyncClient, Dispatcher, Endpoint, RpcServer, exposed
from ostler.messaging.socket_transport import SocketTransport
from ostler.messaging.tcp.curve import CurveOptions, generate_keys
from ostler.messaging.wire.request_context import Context
from ostler.messaging.wire.transport import ALLOW_ALL


class Echo:
    @exposed(role="viewer")
    async def echo(self, ctx: Context) -> str:
        """Return who asks."""
        return ctx.peer.name


class Bench:
    """Ports with a service behind them."""

    def __init__(self, folder):
        self.directory, self.own_identity = folder, generate_keys()
        self.file, self.keys = folder / "key", generate_keys()
        self.file.write_text(self.keys.secret)
        self.transports = []
        dispatcher = Dispatcher(
            Access(keys={self.own_identity.public: "me"}, viewer=["key:me"]),
            SystemClock(), LoopQueue(asyncio.get_running_loop()), host="here",
        )  # fmt: skip
        dispatcher.registry.add_endpoint(Endpoint("echo", "here", Echo(), None))

        self.ports = NetworkListener(self.configuration(), CurveOptions(self.keys), SystemClock(), dispatcher.admission)
        self.server = RpcServer(self.ports.rpc_link, dispatcher, LoopQueue(asyncio.get_running_loop()))
        self.server.start()

    def configuration(self, address="tcp://127.0.0.1:0"):
        text = f"[network]\nrpc = '{address}'\nsecret_key = {{file = '{self.file}'}}\n"
        return validate(load_text(f"{text}[network.keys]\nme = '{self.own_identity.public}'"), {}, {})

    def client(self):
        network = CurveOptions(self.own_identity, self.keys.public)
        self.transports.append(SocketTransport(self.ports.stats()["rpc"], curve=network))
        return AsyncClient(transport=self.transports[-1], timeout=5)

    async def close(self):
        self.server.close()
        self.ports.close()
        for transport in self.transports:
            await asyncio.to_thread(transport.close)


async def test_calls_are_answered_with_the_key_that_it_was_started_with(tmp_path):
    bench = Bench(tmp_path)
    client = bench.client()
    assert await client.call("echo", "echo") == "key:me"
    bench.file.write_text(generate_keys().secret)
    bench.ports.apply(bench.configuration())
    again = bench.client()
    assert await again.call("echo", "echo") == "key:me"
    await client.close()
    await again.close()
    await bench.close()


async def test_a_port_that_is_taken_leaves_nothing_open(tmp_path):
    bench = Bench(tmp_path)
    with pytest.raises(Conflict, match=r"tcp://127.* is already in use"):
        NetworkListener(
            bench.configuration(bench.ports.stats()["rpc"]), CurveOptions(bench.keys), SystemClock(), ALLOW_ALL
        )
    await bench.close()
