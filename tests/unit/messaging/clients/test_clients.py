"""What both clients do without a server, and before and after one."""

import asyncio
import threading
from pathlib import Path

import pytest

from ostler.clock import SystemClock
from ostler.errors import Cancelled, DaemonNotRunning, DeadlineExceeded, InvalidInput
from ostler.messaging import AsyncClient, Client, Context, serving
from ostler.messaging.socket_transport import SocketTransport, transport_to
from ostler.testing.memory_transport import MemoryTransport


def test_without_a_daemon_it_is_said_at_once_with_what_to_do(tmp_path):
    with Client(root=str(tmp_path)) as client:
        for call in (lambda: client.call("ostler", "status"), lambda: client.cast("ostler", "status"), client.events):
            with pytest.raises(DaemonNotRunning) as caught:
                call()
            assert "ostler run" in caught.value.hint

    async def test():
        async with AsyncClient(root=str(tmp_path)) as client:
            with pytest.raises(DaemonNotRunning):
                await client.call("ostler", "status")
            with pytest.raises(DaemonNotRunning):
                await client.events("x")

    asyncio.run(test())


def test_the_root_the_environment_and_the_address_lead_to_the_sockets(tmp_path, monkeypatch):
    by_root = transport_to(None, str(tmp_path), 100)
    assert isinstance(by_root, SocketTransport)
    assert by_root.rpc == f"ipc://{tmp_path}/run/rpc.sock"
    monkeypatch.setenv("OSTLER_ROOT", str(tmp_path / "env"))
    by_environment = transport_to(None, None, 100)
    assert by_environment.events == f"ipc://{tmp_path}/env/run/events.sock"
    by_address = transport_to("ipc:///run/x/rpc.sock", str(tmp_path), 100)
    assert (by_address.rpc, by_address.events) == ("ipc:///run/x/rpc.sock", "ipc:///run/x/events.sock")
    with pytest.raises(InvalidInput):
        transport_to("tcp://host:1", None, 100)


class SilentLink:
    """A server's end that takes everything and says nothing."""

    def __init__(self):
        self.sent = []
        self.wake = threading.Event()
        self.close_count = 0

    def is_alive(self):
        return True

    def send(self, data, longest=None):
        self.sent.append(data)
        self.wake.set()

    def receive(self, timeout):
        return []

    def receive_briefly(self):
        return []

    def close(self):
        self.close_count += 1


def test_a_client_that_is_closed_twice_closes_its_link_once():
    transport, link = MemoryTransport(), SilentLink()
    transport.connect = lambda: link
    client = Client(transport=transport, timeout=0.01)
    with pytest.raises(DeadlineExceeded):
        client.call("lamp", "switch")
    for _ in range(2):
        client.close()
        assert link.close_count == 1


def test_a_blocking_call_stops_with_the_request_it_was_made_in():
    transport = MemoryTransport()
    link = SilentLink()
    transport.connect = lambda: link
    client = Client(transport=transport, timeout=30)
    context = Context("outer", "method", clock=SystemClock())
    ends = []

    def work():
        with serving(context):
            try:
                client.call("lamp", "switch")
            except Cancelled as error:
                ends.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert link.wake.wait(5)
    context.cancel()
    thread.join(5)
    assert len(ends) == 1
    assert len(link.sent) == 2, "the request, and its cancel"
    client.close()


def test_sockets_are_where_paths_says():
    assert transport_to(None, "/x", 5).rpc == f"ipc://{Path('/x/run/rpc.sock')}"
