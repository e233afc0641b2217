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

from ostler.aio import LoopQueue
from ostler.clock import SystemClock
from ostler.errors import Busy, Conflict, ConnectionLost, DaemonNotRunning, NotPermitted
from ostler.messaging import Access, Dispatcher, RpcServer
from ostler.messaging.unix.async_link import AsyncUnixLink
from ostler.messaging.unix.protocol import encode_frame, greeting
from ostler.messaging.unix.publisher import UnixEventLink
from ostler.messaging.unix.server import UnixServerLink
from ostler.messaging.unix.sync_link import SyncUnixLink, connect
from ostler.messaging.wire.transport import ALLOW_ALL, Admission, LinkStats, TransportLimits
from ostler.types import Peer
from support.links import RecordingHandler
from support.waiting import until

# private: _socket: a process without descriptors, which the tests themselves need
# private: _count_by_process, _deferred, _groups: the moment at which connections wait, are grouped or forgotten
# private: _after, _before: what a closed server leaves behind


@pytest.fixture
def address(tmp_path):
    return f"ipc://{tmp_path}/rpc.sock"


class Served:
    """A server that answers each message with itself, and notes what it was told."""

    def __init__(self, address, limits=None, admission=ALLOW_ALL, **more):
        self.link = UnixServerLink(address, limits or TransportLimits(), **more)
        self.peers, self.received = set(), []
        self.handler = RecordingHandler(self.receive, admission)
        self.garbage, self.gone = self.handler.invalid, self.handler.gone
        self.link.start(self.handler)

    def receive(self, client, data, peer):
        self.peers.add(peer)
        self.received.append(bytes(data))
        self.link.send(client, bytes(data))


def exhaust(step):
    for _ in range(1000):
        step()


async def test_a_dealer_of_libzmq_is_understood_and_known_by_its_credentials(address):
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


@pytest.mark.parametrize("size", [0, 300, 70_000, 3_000_000])
def test_a_router_of_libzmq_is_understood(address, size):
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(address)

    def serve():
        router.send_multipart(router.recv_multipart())

    server = threading.Thread(target=serve)
    server.start()
    link = SyncUnixLink(address, TransportLimits())
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


async def test_what_is_sent_in_one_turn_of_the_loop_comes_whole_and_in_order(address):
    served = Served(address)
    got, lost = [], []
    link = AsyncUnixLink(address, TransportLimits(), got.append, lost.append)
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


async def test_a_client_that_does_not_read_loses_messages_and_nobody_else_does(address):
    served = Served(address, TransportLimits(stall_timeout=0.0))
    deaf = socket.socket(socket.AF_UNIX)
    deaf.connect(address.removeprefix("ipc://"))
    deaf.sendall(greeting(b"DEALER") + encode_frame(b"x"))
    await until(lambda: served.peers)
    for _ in range(40):
        assert served.link.send(1, b"y" * 1_000_000)
    assert served.link.dropped_count > 20
    got = []
    link = AsyncUnixLink(address, TransportLimits(), got.append, lambda error: None)
    link.send(b"well")
    await until(lambda: got)
    deaf.close()
    await until(lambda: 1 in served.gone)
    assert not served.link.send(1, b"z")
    link.close()
    served.link.close()


async def test_one_that_takes_nothing_is_not_told_for_ever_that_there_is_no_room(address):
    served, refused = Served(address, TransportLimits(stall_timeout=0.0)), []
    link = await asyncio.to_thread(SyncUnixLink, address, TransportLimits())
    await until(lambda: served.link.listener.clients)
    (client,) = served.link.listener.clients

    def refuse(*_):
        refused.append(1)
        served.link.send(client, b"there is no room")

    served.handler.on_unbuffered = refuse
    while not refused:
        served.link.send(client, bytes(2**20))
    assert refused == [1]
    link.close()
    served.link.close()


async def test_one_that_reads_gets_all_however_much_waits_for_it(address):
    served = Served(address)
    got = []
    link = AsyncUnixLink(address, TransportLimits(), got.append, lambda error: None)
    link.send(b"x")
    await until(lambda: got)
    for _ in range(40):
        assert served.link.send(1, b"y" * 1_000_000)
    await until(lambda: len(got) == 41)
    assert served.link.dropped_count == 0
    link.close()
    served.link.close()


async def test_pings_of_one_that_does_not_read_are_not_answered_for_ever(address):
    served = Served(address, TransportLimits(stall_timeout=0.0, max_buffered_bytes=10_000))
    deaf = socket.socket(socket.AF_UNIX)
    deaf.connect(address.removeprefix("ipc://"))
    deaf.sendall(greeting(b"DEALER") + encode_frame(b"x"))
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
    assert client.channel.buffered_bytes < 100_000
    deaf.close()
    served.link.close()


class Stranger(list):
    """Everybody who connects to what reads its peers here is the last of these; a test may add another."""

    def __call__(self, connected):
        return self[-1]


@pytest.fixture
def stranger():
    return Stranger([Peer(4711, 4711, 1, "uid 4711")])


def linked(address, got):
    link = AsyncUnixLink(address, TransportLimits(), got.append, lambda error: None)
    link.send(b"in")
    return link


def refused(address):
    link = SyncUnixLink(address, TransportLimits())
    try:
        with pytest.raises(Busy, match="has reached its limit of clients"):
            exhaust(lambda: link.receive(5))
    finally:
        link.close()


async def test_one_client_too_many_is_told_so_and_the_others_stay(address, stranger, caplog):
    served, got = Served(address, TransportLimits(max_connections=4), read_peer=stranger), []
    links = [linked(address, got) for _ in range(2)]
    await until(lambda: len(got) == 2)
    await asyncio.to_thread(refused, address)  # the same process already has half of them
    assert [(peer.uid, type(error)) for peer, error in served.handler.refused] == [(4711, Busy)]
    stranger.append(Peer(4713, 4713, 2, "uid 4713"))
    links.append(linked(address, got))
    await until(lambda: len(got) == 3)
    await asyncio.to_thread(refused, address)
    assert served.link.listener.refused_count == 2
    links[0].close()
    await until(lambda: served.gone)
    links.append(linked(address, got))
    await until(lambda: len(got) == 4)
    for link in links:
        link.close()
    served.link.close()
    assert caplog.text.count("one client too many") == 2  # once for each user


async def test_root_and_our_own_user_get_in_when_all_places_are_taken(address, stranger):
    served, got = Served(address, TransportLimits(max_connections=1), read_peer=stranger), []
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


async def test_who_says_nothing_is_sent_away(address):
    served = Served(address, TransportLimits(handshake_timeout=0.05))
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(address.removeprefix("ipc://"))
    await until(lambda: served.garbage == ["handshake"])
    assert not served.link.listener.clients
    silent.settimeout(5)
    while await asyncio.to_thread(silent.recv, 4096):
        pass
    silent.close()
    served.link.close()


@pytest.mark.failure_mode("Machine", "no descriptors left")
async def test_no_descriptors_left_for_another_client(address, caplog):
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

    served = Served(address)
    served.link.listener._socket = full = Full(served.link.listener._socket)
    got = []
    link = AsyncUnixLink(address, TransportLimits(), got.append, lambda error: None)
    link.send(b"x")
    await until(lambda: "cannot accept another client" in caplog.text)
    full.full = False
    await until(lambda: got == [b"x"])
    link.close()
    served.link.close()


def test_a_server_that_was_never_met_is_not_running(address):
    path = address.removeprefix("ipc://")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    link = SyncUnixLink(address, TransportLimits())
    assert link.is_alive()
    listener.accept()[0].close()
    listener.close()
    assert not link.is_alive()
    with pytest.raises(DaemonNotRunning, match="before it had accepted anything"):
        link.receive(1)
    link.close()
    with pytest.raises(DaemonNotRunning, match="nothing listens"):
        SyncUnixLink(address, TransportLimits())


def test_a_server_that_does_not_read_is_busy(address):
    limits = TransportLimits(stall_timeout=0.05)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address.removeprefix("ipc://"))
    listener.listen()
    link = SyncUnixLink(address, limits)
    with pytest.raises(Busy, match="does not read"):  # not even a greeting yet
        exhaust(lambda: link.send(b"x" * 100_000))
    link.close()
    stopped = SyncUnixLink(address, limits)
    listener.accept()[0].close()
    accepted, _ = listener.accept()
    accepted.sendall(greeting(b"ROUTER"))
    stopped.receive(5)
    with pytest.raises(Busy, match="does not read"):
        exhaust(lambda: stopped.send(b"x" * 100_000))
    stopped.close()
    accepted.close()
    listener.close()


async def test_an_address_is_taken_once_and_left_clean(address):
    served = Served(address)
    with pytest.raises(Conflict):
        UnixServerLink(address, TransportLimits())
    served.link.close()
    served.link.close()
    assert not Path(address.removeprefix("ipc://")).exists()


async def test_raw_garbage_ends_its_own_connection_only(address):
    served = Served(address)
    got = []
    link = AsyncUnixLink(address, TransportLimits(), got.append, lambda error: None)
    for junk in (
        b"GET / HTTP/1.0\r\n\r\n",
        b"\xff" * 64,
        greeting(b"SUB"),
        greeting(b"DEALER") + b"\x02" + b"\xff" * 8,
    ):
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


async def talking(address, kind=b"DEALER"):
    """Return a plain socket that has said READY."""
    plain = socket.socket(socket.AF_UNIX)
    plain.setblocking(False)
    plain.connect(address.removeprefix("ipc://"))
    await asyncio.get_running_loop().sock_sendall(plain, greeting(kind))
    return plain


def admission(knows=lambda peer: True, undecided=lambda peer: False, is_admin=lambda peer: False):
    return Admission(knows, undecided, is_admin)


async def test_a_peer_without_a_role_is_told_so_and_nothing_that_it_sends_is_decoded(address, stranger):
    served = Served(address, admission=admission(knows=lambda peer: False), read_peer=stranger)
    link = await asyncio.to_thread(SyncUnixLink, address, TransportLimits())
    with pytest.raises(NotPermitted, match="has no role here"):
        await asyncio.to_thread(lambda: exhaust(lambda: link.receive(5)))
    link.close()
    assert [(peer.uid, type(error)) for peer, error in served.handler.refused] == [(4711, NotPermitted)]
    assert not served.peers
    assert not served.link.listener.clients
    served.link.close()


async def test_a_user_whose_groups_are_unknown_waits_unread_and_is_let_in_when_known(address, stranger):
    got, known = [], []
    rules = admission(lambda peer: bool(known), lambda peer: not known)
    served = Served(address, admission=rules, read_peer=stranger)
    link = linked(address, got)
    await until(lambda: served.link.listener._deferred)
    assert not served.peers
    known.append(True)
    await until(lambda: got)
    link.close()
    served.link.close()


async def test_who_loses_its_role_is_disconnected_and_the_others_stay(address, stranger):
    served, got = Served(address, read_peer=stranger), []
    links = [linked(address, got)]
    await until(lambda: got)
    stranger.append(Peer(4712, 4712, 2, "uid 4712"))
    links.append(linked(address, got))
    await until(lambda: len(got) == 2)
    served.link.disconnect_unless(lambda peer: peer.uid == 4712)
    assert [client.peer.uid for client in served.link.listener.clients.values()] == [4712]
    for link in links:
        link.close()
    served.link.close()


async def test_who_sends_too_many_invalid_messages_loses_the_connection(address, stranger):
    served, loop = Served(address, read_peer=stranger), asyncio.get_running_loop()
    with await talking(address) as rude:
        await loop.sock_sendall(rude, b"\1\1x\0\1x" * 1000)  # messages of two frames
        while await loop.sock_recv(rude, 4096):
            pass
    assert 200 <= served.garbage.count("frames") <= 264
    served.link.close()


async def test_who_connects_too_often_is_refused_and_root_is_not(address, stranger):
    served = Served(address, read_peer=stranger)
    for _ in range(450):
        (await talking(address)).close()
    await until(lambda: served.link.listener.refused_count)
    refused_ = served.link.listener.refused_count
    stranger.append(Peer(0, 0, 3, "uid 0"))
    for _ in range(450):
        (await talking(address)).close()
    await until(lambda: not served.link.listener.clients)
    assert served.link.listener.refused_count == refused_
    served.link.close()


async def test_one_user_gets_half_of_the_connections_however_many_processes_they_start(address):
    pids, others = itertools.count(100), []

    def read_peer(connected):
        return others[-1] if others else Peer(4001, 4001, next(pids), "uid 4001")

    served = Served(address, TransportLimits(max_connections=20), read_peer=read_peer)
    with contextlib.ExitStack() as open_ones:
        for _ in range(15):
            open_ones.enter_context(await talking(address))
        await until(lambda: served.link.listener.refused_count == 5)
        assert len(served.link.listener.clients) == 10
        others.append(Peer(4002, 4002, 7, "uid 4002"))
        for _ in range(5):
            open_ones.enter_context(await talking(address))
        await until(lambda: len(served.link.listener.clients) == 15)
    await until(lambda: not served.link.listener.clients)
    assert not served.link.listener._count_by_process
    served.link.close()


async def test_one_user_gets_half_of_the_connections_for_events_as_well(address):
    pids = itertools.count(100)
    link = UnixEventLink(
        address,
        TransportLimits(max_connections=20),
        read_peer=lambda connected: Peer(4001, 4001, next(pids), "uid 4001"),
    )
    link.start(RecordingHandler())
    with contextlib.ExitStack() as open_ones:
        for _ in range(15):
            open_ones.enter_context(await talking(address, b"SUB"))
        await until(lambda: link.listener.refused_count == 5)
        assert len(link.listener.clients) == 10
        assert link.link_stats() == LinkStats(connections=10, refused=5, lost=0)
    await until(lambda: not link.listener.clients)
    link.close()


async def test_events_that_a_subscriber_does_not_read_are_counted_also_when_it_has_gone(address, stranger):
    link = UnixEventLink(address, TransportLimits(max_queued=10), read_peer=stranger)
    link.start(RecordingHandler())
    with await talking(address, b"SUB") as plain:
        await asyncio.get_running_loop().sock_sendall(plain, encode_frame(b"\1a"))
        await until(lambda: link.has_subscribers)
        for _ in range(60):
            link.publish(b"a" + bytes(100_000))
            await asyncio.sleep(0)
        lost = link.link_stats().lost
        assert 10 < lost < 60
    await until(lambda: not link.listener.clients)
    assert link.link_stats() == LinkStats(connections=0, refused=0, lost=lost)
    link.close()


async def test_all_that_waits_is_bounded_and_who_is_refused_is_told_which_request(address, stranger):
    served, unkept = Served(address, read_peer=stranger), []
    memory = served.link.listener.quotas.memory_accounts
    memory.limit = 8_000_000
    served.handler.on_unbuffered = lambda client, head, peer: unkept.append((client, len(head), peer.uid))
    with contextlib.ExitStack() as open_ones:
        for _ in range(4):
            open_ones.enter_context(await talking(address))
        await until(lambda: len(served.link.listener.clients) == 4)
        for _ in range(100):
            for number in list(served.link.listener.clients):
                served.link.send(number, b"y" * 50_000)
        assert 3_000_000 < memory.held_bytes <= 4_000_000 + 50_000  # one user alone: half
        assert served.link.dropped_count > 300
        assert set(unkept) == {(number, 256, 4711) for number in served.link.listener.clients}
    await until(lambda: not served.link.listener.clients)
    assert memory.held_bytes == 0
    served.link.close()


async def test_a_large_message_without_room_is_skipped_and_what_follows_is_read(address, stranger):
    served, unkept = Served(address, read_peer=stranger), []
    served.link.listener.quotas.memory_accounts.limit = 1_000_000
    served.handler.on_unbuffered = lambda client, head, peer: unkept.append(head)
    with await talking(address) as plain:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(plain, encode_frame(b"l" * 900_000) + encode_frame(b"small"))
        await until(lambda: served.peers)
        await loop.sock_sendall(plain, encode_frame(b"k" * 300_000))
        await until(lambda: len(served.received) == 2)
    assert unkept == [b"l" * 256]
    assert [len(each) for each in served.received] == [5, 300_000]
    await until(lambda: not served.link.listener.clients)
    assert served.link.listener.quotas.memory_accounts.held_bytes == 0
    served.link.close()


async def test_what_one_that_does_not_read_sends_is_left_where_it_is(address, stranger):
    served = Served(address, read_peer=stranger)
    with await talking(address) as deaf:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(deaf, encode_frame(b"x"))
        await until(lambda: served.received)
        (client,) = served.link.listener.clients.values()
        served.link.send(client.connection_id, b"y" * 3_000_000)
        await loop.sock_sendall(deaf, encode_frame(b"x") * 10)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(served.received) == 1
        while len(served.received) < 11:
            await loop.sock_recv(deaf, 1 << 20)
            await asyncio.sleep(0)
    served.link.close()


async def test_what_one_has_sent_before_it_left_is_dropped_when_it_waits_for_its_turn(address, stranger):
    served = Served(address, read_peer=stranger)
    with await talking(address) as plain:
        await asyncio.get_running_loop().sock_sendall(plain, encode_frame(b"x" * 20) * 9000)
        await until(lambda: served.received)
    await until(lambda: not served.link.listener.clients)
    assert len(served.received) < 9000
    served.link.close()


async def test_a_server_that_is_closed_leaves_nothing_in_the_inbox(address):
    inbox = LoopQueue(asyncio.get_running_loop())
    dispatcher = Dispatcher(Access(), SystemClock(), inbox, host="here")
    for _ in range(2):
        server = RpcServer(UnixServerLink(address, TransportLimits()), dispatcher, inbox)
        server.start()
        server.close()
        server.close()
    assert (inbox._before, inbox._after) == ([], [])


def test_a_blocking_client_waits_in_line_when_more_connect_than_the_kernel_keeps(tmp_path):
    path = str(tmp_path / "s")
    others = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    with socket.socket(socket.AF_UNIX) as crowded, contextlib.ExitStack() as closed:
        crowded.bind(path)
        crowded.listen(0)
        for other in others:
            closed.enter_context(other)
            other.setblocking(False)
            other.connect_ex(path)
        with pytest.raises(Busy, match="is not accepting connections"):
            connect(f"ipc://{path}")
        with pytest.raises(Busy, match="is not accepting connections"):
            connect(f"ipc://{path}", timeout=0.01)
        taking = threading.Thread(target=lambda: closed.enter_context(crowded.accept()[0]))
        taking.start()
        connected = closed.enter_context(connect(f"ipc://{path}", timeout=5.0))
        taking.join()
        assert connected.gettimeout() == 0.0


async def test_events_for_many_subscribers_are_no_more_than_a_turn_of_the_loop_at_once(address, stranger):
    """An event of half a megabyte takes the kernel some time for each; the rest is sent as the turns come."""

    link = UnixEventLink(address, TransportLimits(max_connections=100), read_peer=stranger, turn_time=0.0)
    link.start(RecordingHandler())
    readers = []
    for _ in range(40):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("ipc://"))
        writer.write(greeting(b"SUB") + encode_frame(b"\1a"))
        await writer.drain()
        readers.append((reader, writer))
    await until(lambda: sum(len(group.members) for group in link._groups.values()) == 40)
    event = encode_frame(b"a" + bytes(500_000))
    link.publish(b"a" + bytes(500_000))
    await asyncio.sleep(0)
    waits = [client for client in link.listener.clients.values() if client.is_congested]
    assert len(waits) > 20
    assert (
        link.listener.quotas.memory_accounts.held_bytes < 10_000_000
    )  # all hold the same bytes, which are charged once
    for reader, _ in readers:
        async with asyncio.timeout(5):
            came = await reader.readuntil(event[:9])
            came = await reader.readexactly(len(event) - 9)
        assert came == event[9:]
    await until(lambda: link.listener.quotas.memory_accounts.held_bytes <= 40 * 70_000)
    for _, writer in readers:
        writer.close()
    link.close()
    assert link.listener.quotas.memory_accounts.held_bytes == 0


def crowd(path, closed):
    """Have more connections wait for a listener than the kernel keeps; return the listener."""
    crowded = closed.enter_context(socket.socket(socket.AF_UNIX))
    crowded.bind(path)
    crowded.listen(0)
    for _ in range(4):
        other = closed.enter_context(socket.socket(socket.AF_UNIX))
        other.setblocking(False)
        other.connect_ex(path)
    return crowded


def test_a_client_on_a_loop_waits_in_line_and_what_it_sends_meanwhile_comes(tmp_path):
    async def test(crowded):
        lost = []
        link = AsyncUnixLink(f"ipc://{tmp_path}/s", TransportLimits(), lambda data: None, lost.append)
        link.send(b"early")
        came = b""
        crowded.setblocking(False)
        async with asyncio.timeout(5):
            while not came.endswith(encode_frame(b"early")):
                await asyncio.sleep(0)
                try:
                    accepted, _ = crowded.accept()
                except BlockingIOError:
                    continue
                accepted.settimeout(0.0)
                accepted.send(greeting(b"ROUTER"))
                for _ in range(20):
                    await asyncio.sleep(0)
                with contextlib.closing(accepted), contextlib.suppress(BlockingIOError):
                    came = accepted.recv(4096)
        await until(lambda: lost)
        link.close()

    with contextlib.ExitStack() as closed:
        asyncio.run(test(crowd(f"{tmp_path}/s", closed)))


def test_a_client_on_a_loop_does_not_wait_in_line_for_ever(tmp_path):
    async def test():
        lost = []
        link = AsyncUnixLink(
            f"ipc://{tmp_path}/s", TransportLimits(), lambda data: None, lost.append, connect_timeout=0.02
        )
        await until(lambda: lost)
        assert isinstance(lost[0], Busy)
        with pytest.raises(DaemonNotRunning):
            link.send(b"x")

    with contextlib.ExitStack() as closed:
        crowd(f"{tmp_path}/s", closed)
        asyncio.run(test())
