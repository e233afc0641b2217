"""What is particular to the transport in memory; its promises are in tests/contract."""

import asyncio
import threading

import pytest

from ostler.errors import ConnectionLost, DaemonNotRunning
from ostler.messaging.wire.transport import TransportLimits
from ostler.testing.memory_transport import MemoryTransport
from ostler.types import Peer
from support.links import RecordingHandler


async def test_nobody_there_is_not_running():
    transport = MemoryTransport()
    for open_link in (transport.connect, lambda: transport.subscribe([b""])):
        with pytest.raises(DaemonNotRunning):
            open_link()
    server = transport.serve_rpc()
    server.close()
    with pytest.raises(DaemonNotRunning):
        transport.connect()
    transport.close()


async def test_a_test_may_come_as_anybody():
    transport, found = MemoryTransport(), []
    nobody = transport.as_peer(Peer(65534, 65534, 1, "uid 65534"))
    server = transport.serve_rpc()
    nobody.connect().send(b"early")
    server.start(RecordingHandler(lambda client, data, peer: found.append((bytes(data), peer.uid))))
    transport.connect().send(b"mine")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert found[0] == (b"early", 65534)
    assert found[1][0] == b"mine"
    server.close()


async def test_what_a_receiver_does_not_take_is_dropped_above_the_limit():
    transport, clients = MemoryTransport(limits=TransportLimits(max_queued=3)), []
    server = transport.serve_rpc()
    server.start(RecordingHandler(lambda client, data, peer: clients.append(client)))
    link = transport.connect()
    link.send(b"hello")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for number in range(10):
        assert server.send(clients[0], bytes([number]))
    assert link.receive(0) == [b"\0", b"\1", b"\2"]
    server.close()
    with pytest.raises(ConnectionLost):
        link.receive(0)
    with pytest.raises(ConnectionLost):
        link.send(b"late")
    link.close()


def test_links_work_from_threads_after_the_loop_has_closed():
    async def test():
        transport = MemoryTransport()
        server = transport.serve_rpc()
        server.start(RecordingHandler(lambda client, data, peer: None))
        return transport.connect()

    link = asyncio.run(test())
    thread = threading.Thread(target=link.send, args=(b"nobody",))
    thread.start()
    thread.join()
    link.close()
    # Passing is the assertion: neither raises; what a thread raises is a warning, and warnings are errors here.
    link.close()
