"""What only real sockets can show: processes that die, other users, descriptors that are handed over."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
import zmq

from ostler.aio import LoopQueue
from ostler.clock import SystemClock
from ostler.errors import Conflict, ConnectionLost, DaemonNotRunning, NotPermitted
from ostler.messaging import Access, AsyncClient, Client, Context, Dispatcher, Endpoint, Publisher, RpcServer, exposed
from ostler.messaging.socket_transport import SocketTransport
from ostler.messaging.wire.transport import TransportLimits
from support.descriptors import open_descriptors

# private: _members_by_role: a daemon whose own user is nobody special, as the tests run as root

SERVER = textwrap.dedent("""
    import asyncio, sys
    from ostler.aio import LoopQueue
    from ostler.clock import SystemClock
    from ostler.messaging import Access, Context, Dispatcher, Endpoint, Publisher, RpcServer, exposed
    from ostler.messaging.socket_transport import SocketTransport

    class Shop:
        @exposed()
        async def wait(self, ctx: Context) -> None:
            publisher.publish("shop", "waits")
            await asyncio.sleep(60)

    async def main():
        global publisher
        inbox = LoopQueue(asyncio.get_running_loop())
        transport = SocketTransport(f"ipc://{sys.argv[1]}/rpc.sock", f"ipc://{sys.argv[1]}/events.sock")
        access = Access(viewer=["*"])
        dispatcher = Dispatcher(access, SystemClock(), inbox, host="child")
        dispatcher.registry.add_endpoint(Endpoint("shop", "child", Shop(), None))
        publisher = Publisher(transport.serve_events(), "child", SystemClock(), access, inbox.post)
        publisher.start()
        RpcServer(transport.serve_rpc(), dispatcher, inbox).start()
        print("ready", flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
""")


class Shop:
    @exposed(role="viewer")
    async def who(self, ctx: Context) -> list[int]:
        return [ctx.peer.uid, ctx.peer.gid, ctx.peer.pid]


@pytest.fixture
def folder():
    # The folders that pytest makes are closed to other users.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def child(folder):
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


class Here:
    """A server in this process."""

    def __init__(self, folder, access=None, **options):
        inbox = LoopQueue(asyncio.get_running_loop())
        access = access or Access()
        self.transport = SocketTransport(f"ipc://{folder}/rpc.sock", f"ipc://{folder}/events.sock", **options)
        self.dispatcher = Dispatcher(access, SystemClock(), inbox, host="here")
        self.dispatcher.registry.add_endpoint(Endpoint("shop", "here", Shop(), None))
        self.server = RpcServer(self.transport.serve_rpc(), self.dispatcher, inbox)
        self.publisher = Publisher(self.transport.serve_events(), "here", SystemClock(), access, inbox.post)
        self.server.start()
        self.publisher.start()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        self.server.close()
        self.publisher.close()
        await asyncio.to_thread(self.transport.close)


def address(folder):
    return f"ipc://{folder}/rpc.sock"


@pytest.mark.failure_mode("RPC", "a server that dies in the middle")
async def test_a_server_that_dies_in_the_middle_is_known_within_a_second(child, folder):
    async with AsyncClient(address(folder)) as client, client.events("shop") as stream:
        task = asyncio.ensure_future(client.call("shop", "wait"))
        await anext(stream)
        child.send_signal(signal.SIGKILL)
        begun = time.monotonic()
        with pytest.raises(ConnectionLost, match=r"lost the connection to the daemon while shop\.wait was in progress"):
            await task
        with pytest.raises(ConnectionLost):
            await anext(stream)
        assert time.monotonic() - begun < 1
        with pytest.raises(DaemonNotRunning):
            await client.call("shop", "wait")


@pytest.mark.failure_mode("RPC", "a server that dies in the middle")
def test_a_server_that_dies_is_known_to_the_sync_client_too(child, folder):
    with Client(address(folder)) as client:
        killed = []

        def kill(_signal, _frame):
            child.send_signal(signal.SIGKILL)
            killed.append(time.monotonic())

        before = signal.signal(signal.SIGALRM, kill)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(ConnectionLost):
                client.call("shop", "wait")
        finally:
            signal.signal(signal.SIGALRM, before)
        assert time.monotonic() - killed[0] < 1


def test_ctrl_c_in_the_sync_client_cancels_on_the_server(child, folder):
    def interrupt(_signal, _frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Client(address(folder)) as client:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                client.call("shop", "wait")
            with client.events() as stream:  # it still works after that
                client.cast("shop", "wait")
                assert next(stream).name == "waits"
                child.kill()
                with pytest.raises(ConnectionLost):
                    next(stream)
    finally:
        signal.signal(signal.SIGALRM, before)


async def test_a_server_that_is_stopped_is_known_by_its_silence(child, folder):
    async with AsyncClient(address(folder)) as client, client.events("shop") as stream:
        task = asyncio.ensure_future(client.call("shop", "wait"))
        await anext(stream)
        child.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(ConnectionLost, match="no response"):
            await task
        assert time.monotonic() - begun < 6
        child.send_signal(signal.SIGCONT)


async def test_the_peer_is_the_user_and_process_that_connected(folder):
    async with Here(folder), AsyncClient(address(folder)) as client:
        assert await client.call("shop", "who") == [os.geteuid(), os.getegid(), os.getpid()]


CLIENT = textwrap.dedent("""
    import os, sys
    os.setgid(65534); os.setgroups([]); os.setuid(65534)
    from ostler.errors import NotPermitted, OstlerError
    from ostler.messaging import Client
    with Client(sys.argv[1], timeout=5) as client:
        try:
            print(client.call("shop", "who"))
        except NotPermitted as error:
            print("refused:", error.message)
        try:
            with client.events("shop") as stream:
                print("subscribed")
        except NotPermitted as error:
            print("refused:", error.message)
""")


def run_as_nobody(folder):
    # Paths of the interpreter may be closed to others; what is imported is opened before the change of user.
    before = (
        "import ostler.messaging.socket_transport, ostler.messaging.clients.sync_client, "
        "ostler.messaging.socket_transport, ostler.messaging.unix.sync_link"
    )
    program = CLIENT.replace("os.setgid", f"{before}; os.setgid", 1)
    return asyncio.create_subprocess_exec(
        sys.executable, "-c", program, address(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.failure_mode("RPC", "a uid without a role")
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
async def test_a_uid_without_a_role_gets_nothing_on_a_real_socket(folder):
    async with Here(folder) as here:
        process = await run_as_nobody(folder)
        out, _ = await process.communicate()
        lines = out.decode().splitlines()
        assert lines == [
            "refused: uid 65534 has no role here",
            "refused: uid 65534 has no role here",
        ]
        assert here.server.link.listener.refused_count == here.publisher.link.listener.refused_count == 1


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
async def test_a_uid_with_a_role_gets_what_the_role_has(folder):
    async with Here(folder, Access(viewer=["nobody"])):
        process = await run_as_nobody(folder)
        out, _ = await process.communicate()
        lines = out.decode().splitlines()
        assert lines[0].startswith("[65534, 65534, ")
        assert lines[1] == "subscribed"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
async def test_a_socket_that_is_closed_to_a_user_is_not_permitted(folder):
    async with Here(folder, limits=TransportLimits(socket_mode=0o600)):
        process = await run_as_nobody(folder)
        out, _ = await process.communicate()
        lines = out.decode().splitlines()
        assert lines[0] == f"refused: this user is not allowed to use the socket {folder}/rpc.sock"


async def test_events_go_to_no_unpermitted_peer_even_if_it_ignores_the_answer(folder):
    access = Access(own_uid=-5)
    access._members_by_role["admin"].uids.clear()
    async with Here(folder, access) as here:
        context = zmq.Context()
        rude = context.socket(zmq.SUB)
        rude.set(zmq.SUBSCRIBE, b"")
        rude.set(zmq.SUBSCRIBE, b"!answer")
        rude.connect(f"ipc://{folder}/events.sock")
        answer = await asyncio.to_thread(rude.recv)
        assert answer.startswith(b"!answer\0")
        here.publisher.publish("shop", "secret")
        assert await asyncio.to_thread(rude.poll, 200) == 0
        rude.close(linger=0)
        context.term()


async def test_a_second_daemon_is_refused_and_the_first_one_goes_on(folder):
    async with Here(folder):
        second = SocketTransport(address(folder))
        with pytest.raises(Conflict, match="another daemon already listens"):
            second.serve_rpc()
        await asyncio.to_thread(second.close)
        async with AsyncClient(address(folder)) as client:
            assert await client.call("shop", "who")
    assert list(folder.iterdir()) == []


async def test_listening_descriptors_can_be_handed_over(folder):
    fds = {}
    for name in ("rpc", "events"):
        handed = socket.socket(socket.AF_UNIX)
        handed.bind(f"{folder}/{name}.sock")
        handed.listen()
        fds[f"{name}_fd"] = handed.detach()
    async with Here(folder, **fds), AsyncClient(address(folder)) as client:
        assert await client.call("shop", "who")
    assert len(list(folder.iterdir())) == 2, "what systemd made, systemd removes"


async def test_a_client_may_begin_before_the_server_has_been_started(folder):
    inbox = LoopQueue(asyncio.get_running_loop())
    transport = SocketTransport(address(folder), f"ipc://{folder}/events.sock")
    dispatcher = Dispatcher(Access(), SystemClock(), inbox, host="here")
    dispatcher.registry.add_endpoint(Endpoint("shop", "here", Shop(), None))
    server = RpcServer(transport.serve_rpc(), dispatcher, inbox)
    async with AsyncClient(address(folder)) as client:
        task = asyncio.ensure_future(client.call("shop", "who"))
        await asyncio.sleep(0.05)
        server.start()
        assert await task
    server.close()
    await asyncio.to_thread(transport.close)


async def test_messages_of_several_frames_are_dropped_and_others_go_on(folder):
    async with Here(folder) as here:
        context = zmq.Context()
        rude = context.socket(zmq.DEALER)
        rude.connect(address(folder))
        rude.send_multipart([b"a", b"b", b"c"])
        async with AsyncClient(address(folder)) as client:
            for _ in range(20):
                assert await client.call("shop", "who")
        while not here.server.stats()["garbage"].get("frames"):
            await asyncio.sleep(0.01)
        rude.close(linger=0)
        context.term()


async def test_clients_that_come_and_go_leave_no_descriptors(folder):
    async with Here(folder):

        async def visit():
            async with AsyncClient(address(folder)) as client:
                await client.call("shop", "who")

        await visit()
        before = open_descriptors()
        for _ in range(30):
            await visit()
        for _ in range(100):
            if open_descriptors() <= before + 2:
                break
            await asyncio.sleep(0.05)
        assert open_descriptors() <= before + 2


def test_not_permitted_has_its_exit_code():
    assert NotPermitted("x").exit_code == 4
