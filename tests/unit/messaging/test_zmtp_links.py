"""The three ends of a unix socket, beside those of libzmq where both must understand each other."""

import asyncio
import contextlib
import itertools
import os
import socket
import threading
from pathlib import Path

import pytest
import zmq

from ostler.aio import Inbox
from ostler.clock import SystemClock
from ostler.errors import Busy, Conflict, ConnectionLost, NotRunning
from ostler.messaging import Access, Dispatcher, RpcServer
from ostler.messaging.transport import Limits
from ostler.messaging.zmtp import channel, listener
from ostler.messaging.zmtp.blocking import BlockingUnixLink
from ostler.messaging.zmtp.events import UnixEventLink
from ostler.messaging.zmtp.loop import LoopUnixLink
from ostler.messaging.zmtp.server import UnixServerLink
from ostler.messaging.zmtp.talk import frame, hello, subscription
from ostler.types import Peer


@pytest.fixture
def address(tmp_path):
    return f"ipc://{tmp_path}/rpc.sock"


class Served:
    """A server that answers each message with itself, and notes what it was told."""

    def __init__(self, address, limits=None):
        self.link = UnixServerLink(address, limits or Limits())
        self.garbage, self.gone, self.peers = [], [], set()
        self.link.on_garbage = lambda peer, reason, what: self.garbage.append(reason)
        self.link.on_gone = self.gone.append
        self.link.start(self.receive)

    def receive(self, client, data, peer):
        self.peers.add(peer)
        self.link.send(client, bytes(data))


def exhaust(step):
    for _ in range(1000):
        step()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


def test_a_dealer_of_libzmq_is_understood_and_known_by_its_credentials(address):
    async def test():
        served = Served(address)
        context = zmq.Context()
        dealer = context.socket(zmq.DEALER)
        dealer.set(zmq.HEARTBEAT_IVL, 20)
        dealer.connect(address)
        for size in (0, 3, 300, 70_000, 3_000_000):
            dealer.send(b"x" * size)
            assert await asyncio.to_thread(dealer.recv) == b"x" * size
        dealer.send_multipart([b"", b"two frames"])
        await until(lambda: served.garbage == ["frames"])
        await asyncio.sleep(0.1)  # some of its pings
        dealer.send(b"still there")
        assert await asyncio.to_thread(dealer.recv) == b"still there"
        (peer,) = served.peers
        assert (peer.uid, peer.gid, peer.pid) == (os.getuid(), os.getgid(), os.getpid())
        context.destroy(linger=0)
        await until(lambda: len(served.gone) == 1)
        served.link.close()

    asyncio.run(test())


@pytest.mark.parametrize("size", [0, 300, 70_000, 3_000_000])
def test_a_router_of_libzmq_is_understood(address, size):
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(address)

    def serve():
        router.send_multipart(router.recv_multipart())

    server = threading.Thread(target=serve)
    server.start()
    link = BlockingUnixLink(address, Limits())
    link.send(b"x" * size)
    found = []
    while not found:
        found = link.receive(5)
    assert found == [b"x" * size]
    server.join()
    context.destroy(linger=0)
    with pytest.raises(ConnectionLost):
        exhaust(lambda: link.receive(5))
    link.close()


def test_what_is_sent_in_one_turn_of_the_loop_comes_whole_and_in_order(address):
    async def test():
        served = Served(address)
        got, lost = [], []
        link = LoopUnixLink(address, Limits(), got.append, lost.append)
        sent = [bytes([number % 256]) * (number * 37 % 9000) for number in range(500)]
        for message in sent:
            link.send(message)
        await until(lambda: len(got) == len(sent))
        assert got == sent
        served.link.close()
        await until(lambda: lost)
        assert isinstance(lost[0], ConnectionLost)
        with pytest.raises(ConnectionLost):
            link.send(b"late")

    asyncio.run(test())


def test_a_client_that_does_not_read_loses_messages_and_nobody_else_does(address, monkeypatch):
    import ostler.messaging.zmtp.channel as module

    monkeypatch.setattr(module, "_PATIENCE", 0.0)

    async def test():
        served = Served(address)
        deaf = socket.socket(socket.AF_UNIX)
        deaf.connect(address.removeprefix("ipc://"))
        deaf.sendall(hello(b"DEALER") + frame(b"x"))
        await until(lambda: served.peers)
        for _ in range(40):
            assert served.link.send(1, b"y" * 1_000_000)
        assert served.link.dropped > 20
        got = []
        link = LoopUnixLink(address, Limits(), got.append, lambda error: None)
        link.send(b"well")
        await until(lambda: got)
        deaf.close()
        await until(lambda: 1 in served.gone)
        assert not served.link.send(1, b"z")
        link.close()
        served.link.close()

    asyncio.run(test())


def test_one_that_reads_gets_all_however_much_waits_for_it(address):
    async def test():
        served = Served(address)
        got = []
        link = LoopUnixLink(address, Limits(), got.append, lambda error: None)
        link.send(b"x")
        await until(lambda: got)
        for _ in range(40):
            assert served.link.send(1, b"y" * 1_000_000)
        await until(lambda: len(got) == 41)
        assert served.link.dropped == 0
        link.close()
        served.link.close()

    asyncio.run(test())


def test_pings_of_one_that_does_not_read_are_not_answered_for_ever(address, monkeypatch):
    import ostler.messaging.zmtp.channel as module

    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    monkeypatch.setattr(module, "_STUCK", 10_000)

    async def test():
        served = Served(address)
        deaf = socket.socket(socket.AF_UNIX)
        deaf.connect(address.removeprefix("ipc://"))
        deaf.sendall(hello(b"DEALER") + frame(b"x"))
        await until(lambda: served.peers)
        deaf.setblocking(False)
        ping = b"\x04\x17\x04PING\0\0" + b"c" * 16
        for _ in range(300):
            try:
                deaf.send(ping * 1000)
            except BlockingIOError:
                pass
            await asyncio.sleep(0)
        (client,) = served.link.listener.clients.values()
        assert len(client.channel._waiting) < 100_000
        deaf.close()
        served.link.close()

    asyncio.run(test())


@pytest.fixture
def stranger(monkeypatch):
    """Everybody who connects is this user and process; a test may change them."""
    import ostler.messaging.zmtp.listener as module

    peers = [Peer(4711, 4711, 1, "uid 4711")]
    monkeypatch.setattr(module, "_peer_of", lambda connected: peers[-1])
    return peers


def linked(address, got):
    link = LoopUnixLink(address, Limits(), got.append, lambda error: None)
    link.send(b"in")
    return link


def refused(address):
    link = BlockingUnixLink(address, Limits())
    try:
        with pytest.raises(Busy, match="as many clients as it may have"):
            exhaust(lambda: link.receive(5))
    finally:
        link.close()


def test_one_client_too_many_is_told_so_and_the_others_stay(address, stranger, caplog):
    async def test():
        served, got, told = Served(address, Limits(connections=4)), [], []
        served.link.listener.on_refused = lambda peer, error: told.append((peer.uid, type(error)))
        links = [linked(address, got) for _ in range(2)]
        await until(lambda: len(got) == 2)
        await asyncio.to_thread(refused, address)  # the same process already has half of them
        assert told == [(4711, Busy)]
        stranger.append(Peer(4711, 4711, 2, "uid 4711"))
        links.append(linked(address, got))
        await until(lambda: len(got) == 3)
        await asyncio.to_thread(refused, address)
        assert served.link.listener.refused == 2
        links[0].close()
        await until(lambda: served.gone)
        links.append(linked(address, got))
        await until(lambda: len(got) == 4)
        for link in links:
            link.close()
        served.link.close()

    asyncio.run(test())
    assert caplog.text.count("one client too many") == 1


def test_root_and_our_own_user_get_in_when_all_places_are_taken(address, stranger):
    async def test():
        served, got = Served(address, Limits(connections=1)), []
        links = [linked(address, got)]
        await until(lambda: len(got) == 1)
        await asyncio.to_thread(refused, address)
        stranger.append(Peer(0, 0, 3, "uid 0"))
        links.append(linked(address, got))
        stranger.append(Peer(os.geteuid(), 0, 4, "ourselves"))
        links.append(linked(address, got))
        await until(lambda: len(got) == 3)
        for link in links:
            link.close()
        served.link.close()

    asyncio.run(test())


def test_who_says_nothing_is_sent_away(address, monkeypatch):
    import ostler.messaging.zmtp.listener as module

    monkeypatch.setattr(module, "_HANDSHAKE", 0.05)

    async def test():
        served = Served(address)
        silent = socket.socket(socket.AF_UNIX)
        silent.connect(address.removeprefix("ipc://"))
        await until(lambda: served.garbage == ["handshake"])
        silent.close()
        served.link.close()

    asyncio.run(test())


def test_trap_no_descriptors_left_for_another_client(address, caplog):
    import errno

    class Full:
        """A listener in a process that has no descriptor left, and then has one."""

        def __init__(self, listener):
            self.listener = listener
            self.full = True

        def accept(self):
            if self.full:
                raise OSError(errno.EMFILE, "Too many open files")
            return self.listener.accept()

        def __getattr__(self, name):
            return getattr(self.listener, name)

    async def test():
        served = Served(address)
        served.link.listener._socket = full = Full(served.link.listener._socket)
        got = []
        link = LoopUnixLink(address, Limits(), got.append, lambda error: None)
        link.send(b"x")
        await until(lambda: "cannot take another client in" in caplog.text)
        full.full = False
        await until(lambda: got == [b"x"])
        link.close()
        served.link.close()

    asyncio.run(test())


def test_a_server_that_was_never_met_is_not_running(address):
    path = address.removeprefix("ipc://")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    link = BlockingUnixLink(address, Limits())
    assert link.alive()
    listener.accept()[0].close()
    listener.close()
    assert not link.alive()
    with pytest.raises(NotRunning, match="before it had taken anything"):
        link.receive(1)
    link.close()
    with pytest.raises(NotRunning, match="nobody listens"):
        BlockingUnixLink(address, Limits())


def test_a_server_that_does_not_read_is_busy(address, monkeypatch):
    import ostler.messaging.zmtp.blocking as module

    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address.removeprefix("ipc://"))
    listener.listen()
    link = BlockingUnixLink(address, Limits())
    with pytest.raises(Busy, match="does not take"):  # not even a greeting yet
        exhaust(lambda: link.send(b"x" * 100_000))
    link.close()
    stopped = BlockingUnixLink(address, Limits())
    listener.accept()[0].close()
    accepted, _ = listener.accept()
    accepted.sendall(hello(b"ROUTER"))
    stopped.receive(5)
    with pytest.raises(Busy, match="does not take"):
        exhaust(lambda: stopped.send(b"x" * 100_000))
    stopped.close()
    accepted.close()
    listener.close()


def test_an_address_is_taken_once_and_left_clean(address):
    async def test():
        served = Served(address)
        with pytest.raises(Conflict):
            UnixServerLink(address, Limits())
        served.link.close()
        served.link.close()
        assert not Path(address.removeprefix("ipc://")).exists()

    asyncio.run(test())


def test_raw_garbage_ends_its_own_connection_only(address):
    async def test():
        served = Served(address)
        got = []
        link = LoopUnixLink(address, Limits(), got.append, lambda error: None)
        for junk in (b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 64, hello(b"SUB"), hello(b"DEALER") + b"\x02" + b"\xff" * 8):
            rude = socket.socket(socket.AF_UNIX)
            rude.connect(address.removeprefix("ipc://"))
            rude.sendall(junk)
            rude.setblocking(False)
            loop = asyncio.get_running_loop()
            while await loop.sock_recv(rude, 4096):
                pass
            rude.close()
        assert sorted(served.garbage) == ["large", "protocol", "protocol", "protocol"]
        link.send(b"unharmed")
        await until(lambda: got == [b"unharmed"])
        link.close()
        served.link.close()

    asyncio.run(test())


async def talking(address, kind=b"DEALER"):
    """Return a plain socket that has said READY."""
    plain = socket.socket(socket.AF_UNIX)
    plain.setblocking(False)
    plain.connect(address.removeprefix("ipc://"))
    await asyncio.get_running_loop().sock_sendall(plain, hello(kind))
    return plain


def test_of_a_peer_without_a_role_little_is_kept_whatever_it_sends_and_does_not_read(address):
    async def test():
        served, loop = Served(address), asyncio.get_running_loop()
        served.link.knows = served.link.listener.knows = lambda peer: False
        with await talking(address) as deaf:
            for _ in range(200):
                await loop.sock_sendall(deaf, frame(b"x" * 60_000))
                await loop.sock_recv(deaf, 10)  # it reads, though hardly
            (client,) = served.link.listener.clients.values()
            assert client.channel.unsent <= 4 * 64 * 1024
            assert served.link.dropped
        with await talking(address) as large:
            await loop.sock_sendall(large, frame(b"x" * 65_537)[:100])
            await until(lambda: served.garbage == ["large"])
        await until(lambda: not served.link.listener.clients)
        served.link.close()

    asyncio.run(test())


def test_whether_a_peer_is_known_is_asked_when_it_comes_and_when_it_sends_much(address):
    async def test():
        served, asked = Served(address, Limits(max_message_size=100_000)), []
        served.link.listener.knows = lambda peer: not asked.append(peer)
        with await talking(address) as plain:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(plain, frame(b"x" * 1000))
            await until(lambda: served.peers)
            assert len(asked) == 1
            asked.clear()
            await loop.sock_sendall(plain, frame(b"x" * 200_000))
            await loop.sock_sendall(plain, frame(b"x" * 200_001)[:100])
            await until(lambda: served.garbage == ["large"])
            assert set(asked) == served.peers
        served.link.close()

    asyncio.run(test())


def test_who_is_refused_and_does_not_read_that_is_not_answered_again(address):
    async def test():
        link, answered = UnixEventLink(address, Limits()), []
        link.start(lambda peer: False, lambda peer, question: answered.append(question) or [b"x" * 300])
        with await talking(address, b"SUB") as deaf:
            loop = asyncio.get_running_loop()
            for _ in range(100):
                await loop.sock_sendall(deaf, subscription(b"!0123456789abcdef") * 100)
            (client,) = link.listener.clients.values()
            await until(lambda: client.channel.waiting)
            known = len(answered)
            await loop.sock_sendall(deaf, subscription(b"!0123456789abcdef") * 100)
            await loop.sock_sendall(deaf, frame(b"the end"))
            over = []
            link.on_garbage = lambda *what: over.append(what)
            await until(lambda: over)
            assert len(answered) == known
        link.close()

    asyncio.run(test())


def test_those_who_are_nobody_share_half_of_the_connections_however_many_processes_they_start(address, monkeypatch):
    async def test():
        served, pids = Served(address, Limits(connections=20)), itertools.count(100)
        monkeypatch.setattr(listener, "_peer_of", lambda connected: Peer(4001, 4001, next(pids), "uid 4001"))
        served.link.knows = served.link.listener.knows = lambda peer: peer.uid != 4001
        with contextlib.ExitStack() as open_ones:
            for _ in range(15):
                open_ones.enter_context(await talking(address))
            await until(lambda: served.link.listener.refused == 5)
            assert len(served.link.listener.clients) == 10
            monkeypatch.setattr(listener, "_peer_of", lambda connected: Peer(4002, 4002, 7, "uid 4002"))
            for _ in range(5):
                open_ones.enter_context(await talking(address))
            await until(lambda: len(served.link.listener.clients) == 15)
        await until(lambda: not served.link.listener.clients)
        assert not served.link.listener._of_process
        served.link.close()

    asyncio.run(test())


def test_those_who_are_nobody_share_half_of_the_connections_for_events_as_well(address, monkeypatch):
    async def test():
        pids = itertools.count(100)
        monkeypatch.setattr(listener, "_peer_of", lambda connected: Peer(4001, 4001, next(pids), "uid 4001"))
        link = UnixEventLink(address, Limits(connections=20))
        link.knows = lambda peer: peer.uid != 4001
        link.start(lambda peer: True, lambda peer, question: [])
        with contextlib.ExitStack() as open_ones:
            for _ in range(15):
                open_ones.enter_context(await talking(address, b"SUB"))
            await until(lambda: link.listener.refused == 5)
            assert len(link.listener.clients) == 10
        await until(lambda: not link.listener.clients)
        link.close()

    asyncio.run(test())


def test_when_much_waits_for_all_together_nobody_gets_much_more(address, monkeypatch):
    monkeypatch.setattr(channel, "_STUCK", 100_000)
    monkeypatch.setattr(channel, "_ALL", 1_000_000)

    async def test():
        served = Served(address)
        with contextlib.ExitStack() as open_ones:
            for _ in range(4):
                open_ones.enter_context(await talking(address))
            await until(lambda: len(served.link.listener.clients) == 4)
            for _ in range(100):
                for number in list(served.link.listener.clients):
                    served.link.send(number, b"y" * 50_000)
            shared = served.link.listener.shared
            assert 1_000_000 < shared.unsent < 1_000_000 + 4 * 150_000
            assert served.link.dropped > 300
        await until(lambda: not served.link.listener.clients)
        assert shared.unsent == 0
        served.link.close()

    asyncio.run(test())


def test_a_server_that_is_closed_leaves_nothing_in_the_inbox(address):
    async def test():
        inbox = Inbox(asyncio.get_running_loop())
        dispatcher = Dispatcher(Access(), SystemClock(), inbox, host="here")
        for _ in range(2):
            server = RpcServer(UnixServerLink(address, Limits()), dispatcher, inbox)
            server.start()
            server.close()
            server.close()
        assert (inbox._before, inbox._after) == ([], [])

    asyncio.run(test())
