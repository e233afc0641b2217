"""What one key, one address or somebody without a key can make a port do and hold."""

import asyncio
import socket
import struct
import threading
import time
from contextlib import ExitStack, suppress

import pytest
import zmq

from ostler.aio.round_robin import HIGH_RANK, DeficitRoundRobin
from ostler.clock import SystemClock
from ostler.errors import Busy, ConnectionLost, NotPermitted
from ostler.messaging.socket_transport import SocketTransport
from ostler.messaging.tcp.authenticator import Authenticator
from ostler.messaging.tcp.curve import CurveOptions, generate_keys
from ostler.messaging.wire.peer_quotas import MemoryAccounts, PeerQuotas
from ostler.messaging.wire.transport import Admission, TransportLimits
from support.links import RecordingHandler
from support.waiting import until

# private: _prefixes_by_account: what libzmq keeps shows in nothing else

MIB = 1024 * 1024


class Port:
    """A server at a port that knows Ann and Eve, and keeps what it is sent."""

    def __init__(self, memory=256 * MIB, limits=None, **options):
        self.server, self.ann, self.eve = generate_keys(), generate_keys(), generate_keys()
        self.roles = {self.ann.public, self.eve.public}
        self.quotas = PeerQuotas(DeficitRoundRobin(), MemoryAccounts(memory))
        admission = Admission(lambda peer: peer.key in self.roles, lambda peer: False, lambda peer: False)
        self.authenticator = Authenticator(
            SystemClock(),
            key_names={self.ann.public: "ann", self.eve.public: "eve"},
            admission=admission,
            quotas=self.quotas,
            **options,
        )
        network = CurveOptions(self.server, connect_timeout=1.0)
        self.transport = SocketTransport(
            "tcp://127.0.0.1:0", "tcp://127.0.0.1:0", limits=limits, curve=network, authenticator=self.authenticator
        )
        self.link, self.events = self.transport.serve_rpc(), self.transport.serve_events()
        self.received_bytes = []
        self.refused_heads = []
        self.handle = lambda client, data, peer: self.link.send(client, data)
        self.handler = RecordingHandler(self._receive, admission, lambda peer, question: [bytes(100_000)] * 10)
        self.handler.on_unbuffered = lambda client, head, peer: self.refused_heads.append((peer.name, bytes(head)))
        self.garbage, self.drained = self.handler.invalid, self.handler.drained
        self.link.start(self.handler)
        self.events.start(self.handler)
        self.context = zmq.Context()

    def _receive(self, client, data, peer):
        self.received_bytes.append((client, peer.name))
        self.handle(client, data, peer)

    def socket(self, keys, kind=zmq.DEALER, address="", **options):
        made = self.context.socket(kind)
        made.linger, made.reconnect_ivl = 0, 3_600_000
        made.curve_publickey, made.curve_secretkey = keys.public.encode(), keys.secret.encode()
        made.curve_serverkey = self.server.public.encode()
        for name, value in options.items():
            setattr(made, name, value)
        made.connect(address or (self.link if kind == zmq.DEALER else self.events).address)
        return made

    def transport_of(self, keys):
        network = CurveOptions(keys, self.server.public, connect_timeout=2.0)
        return SocketTransport(self.link.address, self.events.address, curve=network)

    def held(self, name):
        return self.quotas.memory_accounts.stats()["accounts"].get(f"key:{name}", 0)

    def names(self):
        return {session.peer.name for session in self.authenticator.sessions.by_user_id.values()}

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_error):
        self.link.close()
        self.events.close()
        self.context.destroy(linger=0)
        await asyncio.to_thread(self.transport.close)


class BusyAdmin:
    """A flow of a privileged account that always has work."""

    account, rank = "admin", HIGH_RANK
    is_busy = True

    def run(self, until):
        time.sleep(max(0.0, until - time.monotonic()))
        return self.is_busy


@pytest.mark.failure_mode("RPC", "a uid without a role")
async def test_a_key_without_a_role_is_told_so_and_gets_nothing_handled(caplog):
    async with Port() as port:
        port.roles.discard(port.eve.public)
        for _ in range(3):
            transport = port.transport_of(port.eve)
            lost = asyncio.get_running_loop().create_future()
            link = transport.connect_async(lambda data: None, lost.set_result)
            link.send(b"x")
            assert isinstance(await asyncio.wait_for(lost, 5), NotPermitted)
            link.close()
            await asyncio.to_thread(transport.close)
        assert not port.received_bytes
        assert port.authenticator.denied_count == 3
    assert len([record for record in caplog.records if "key:eve has no role here" in record.message]) == 1


@pytest.mark.failure_mode("RPC", "one peer that takes the room of the others")
async def test_only_connections_of_a_key_that_loses_its_role_are_cut():
    async with Port() as port:
        transports = [port.transport_of(keys) for keys in (port.ann, port.eve)]
        lost = {"ann": [], "eve": []}
        links = []
        for transport, name in zip(transports, lost, strict=True):
            links.append(transport.connect_async(lambda data: None, lost[name].append))
            links.append(transport.subscribe_async([b"x"], lambda data: None, lost[name].append))
            links[-2].send(b"x")
        silent = port.socket(port.eve)  # has been let in, and has never said anything
        await until(lambda: len(port.authenticator.sessions) == 5 and len(port.received_bytes) == 2)
        await until(lambda: sum(s.is_confirmed for s in port.authenticator.sessions.by_user_id.values()) == 4)
        port.roles.discard(port.eve.public)
        for link in (port.link, port.events):
            link.disconnect_unless(lambda peer: peer.key in port.roles)
        await until(lambda: len(lost["eve"]) == 2 and port.names() == {"key:ann"})
        assert all(isinstance(error, ConnectionLost) for error in lost["eve"])
        assert lost["ann"] == []
        assert port.held("eve") == 0
        silent.close()
        for link in links:
            link.close()
        for transport in transports:
            await asyncio.to_thread(transport.close)


@pytest.mark.failure_mode("RPC", "one peer that takes the room of the others")
async def test_one_key_gets_no_more_connections_than_are_free():
    async with Port(max_connections=40) as port:
        with ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(port.socket(port.eve)).send(b"x")
            await until(lambda: port.authenticator.busy_count == 20 and len(port.received_bytes) == 20)
            stack.enter_context(port.socket(port.ann)).send(b"x")
            await until(lambda: port.received_bytes[-1][1] == "key:ann")
        await until(lambda: not port.authenticator.sessions and not port.quotas.memory_accounts.held_bytes)


@pytest.mark.failure_mode("RPC", "one peer that takes the room of the others")
async def test_who_sends_garbage_without_end_alone_loses_the_connection():
    async with Port() as port:
        port.handle = lambda client, data, peer: port.link.report_invalid(client) if data == b"?" else None
        with port.socket(port.ann) as ann, port.socket(port.eve) as eve:
            ann.send(b"x")
            await until(lambda: port.received_bytes)
            for _ in range(300):
                eve.send_multipart([b"?", b"?"])
                eve.send(b"?")
            await until(lambda: port.garbage and port.names() == {"key:ann"})
            assert set(port.garbage) == {"frames"}
            ann.send(b"x")
            await until(lambda: port.received_bytes[-1][1] == "key:ann")


@pytest.mark.failure_mode("RPC", "one peer that takes the room of the others")
async def test_what_one_key_has_sent_does_not_delay_another():
    async with Port() as port:

        def work(client, data, peer):
            if peer.name == "key:eve":
                end = time.monotonic() + 0.001
                while time.monotonic() < end:
                    pass
            port.link.send(client, data)

        port.handle = work
        with ExitStack() as stack:
            eves = [stack.enter_context(port.socket(port.eve)) for _ in range(20)]
            ann = stack.enter_context(port.socket(port.ann))
            for client in (ann, *eves):
                client.send(b"x")
            await until(lambda: len(port.received_bytes) == 21)
            for client in eves:
                for _ in range(150):
                    client.send(b"x")
            await until(lambda: len(port.received_bytes) > 100)
            ann.send(b"y")
            await until(
                lambda: (
                    port.received_bytes[-1][1] == "key:ann" or ("key:ann" in [n for _, n in port.received_bytes[21:]])
                )
            )
            assert len(port.received_bytes) < 1500  # the most of Eve's waits still
            await until(lambda: len(port.received_bytes) == 21 + 1 + 20 * 150, 20)
            assert not port.refused_heads
            held = 22 * 64 * 1024
            await until(lambda: port.held("eve") + port.held("ann") <= held)


@pytest.mark.failure_mode("RPC", "one peer that takes the room of the others")
async def test_what_finds_no_room_to_wait_is_refused_by_name():
    async with Port(memory=16 * MIB) as port:
        # What the administrators do comes first, so that nothing of Eve is handled, however slow the machine is.
        admin = BusyAdmin()
        port.quotas.scheduler.enqueue(admin)
        with ExitStack() as stack:
            eves = [stack.enter_context(port.socket(port.eve, sndhwm=0)) for _ in range(2)]
            for client in eves:
                for number in range(2500):  # small: they may be many, and little is on the wire
                    client.send(b"%d" % number)
            await until(lambda: len(port.refused_heads) > 10, 40)
            assert port.refused_heads[0][0] == "key:eve"
            assert port.quotas.memory_accounts.held_bytes <= 16 * MIB
            assert not port.received_bytes
            admin.is_busy = False
        await until(lambda: not port.quotas.memory_accounts.held_bytes)
        assert len(port.received_bytes) <= 5000 - len(port.refused_heads)


@pytest.mark.failure_mode("RPC", "one peer that takes the room of the others")
async def test_who_sends_more_than_there_is_room_for_is_cut():
    async with Port(memory=MIB) as port:
        admin = BusyAdmin()
        port.quotas.scheduler.enqueue(admin)
        with ExitStack() as stack:
            eves = [stack.enter_context(port.socket(port.eve, sndhwm=0)) for _ in range(2)]
            for client in eves:
                for number in range(1500):
                    client.send(b"%d" % number + bytes(2000))
            await until(lambda: port.authenticator.sessions)
            await until(lambda: not port.authenticator.sessions, 20)
            assert port.quotas.memory_accounts.held_bytes <= MIB
            admin.is_busy = False
        await until(lambda: not port.quotas.memory_accounts.held_bytes)


@pytest.mark.failure_mode("RPC", "one peer that takes the room of the others")
async def test_answers_that_nobody_reads_are_bounded_and_go_on_when_they_are_read():
    async with Port(memory=32 * MIB) as port:
        with port.socket(port.eve, rcvhwm=1, rcvbuf=65536) as eve:
            eve.send(b"x")
            await until(lambda: port.received_bytes)
            client = port.received_bytes[0][0]
            for _ in range(200):
                assert port.link.send(client, bytes(MIB))
                await asyncio.sleep(0)
            assert port.link.is_congested(client)
            assert port.link.memory_account(client).name == "key:eve"
            assert len(port.refused_heads) > 150
            await until(lambda: 5 * MIB < port.held("eve") < 17 * MIB)
            read = 0
            while read < 200 - len(port.refused_heads):
                await asyncio.to_thread(eve.poll, 5000)
                with suppress(zmq.Again):
                    while eve.recv(zmq.NOBLOCK):
                        read += 1
            await until(lambda: not port.link.is_congested(client) and port.held("eve") == 64 * 1024)
            assert port.drained[-1] == client


async def test_an_answer_for_which_there_is_no_room_is_refused_by_name():
    async with Port(memory=4 * MIB) as port, asyncio.timeout(5):
        with port.socket(port.eve) as eve:
            eve.send(b"x")
            await until(lambda: port.received_bytes)
            assert port.link.send(port.received_bytes[0][0], b"head" + bytes(8 * MIB))
            assert port.refused_heads[0][1].startswith(b"head")
            assert isinstance(port.link.memory_account(port.received_bytes[0][0]).no_room_error("it"), Busy)


class Relay(threading.Thread):
    """Forwards connections to a port, and of each only so many bytes: what comes then never comes whole."""

    def __init__(self, address, most):
        super().__init__(daemon=True)
        self.target = ("127.0.0.1", int(address.rpartition(":")[2]))
        self.most = most
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.server.getsockname()[1]}"
        self.sockets = [self.server]
        self.start()

    def run(self):
        with suppress(OSError):
            while True:
                near, _ = self.server.accept()
                far = socket.create_connection(self.target)
                self.sockets += [near, far]
                threading.Thread(target=self.forward, args=(near, far, self.most), daemon=True).start()
                threading.Thread(target=self.forward, args=(far, near, 2**60), daemon=True).start()

    def close(self):
        for each in self.sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.join()

    @staticmethod
    def forward(source, target, most):
        with suppress(OSError):
            while most > 0 and (data := source.recv(min(most, 65536))):
                target.sendall(data)
                most -= len(data)


@pytest.mark.failure_mode("RPC", "one peer that takes the room of the others")
async def test_messages_never_whole_are_charged_and_cut_when_there_is_no_room():
    async with Port(memory=40 * MIB) as port:
        relay = Relay(port.link.address, 8 * MIB)
        with ExitStack() as stack:
            eves = [stack.enter_context(port.socket(port.eve, address=relay.address)) for _ in range(10)]
            for client in eves:
                client.send(b"x")
            await until(lambda: len(port.received_bytes) == 10)
            for client in eves:
                client.send(bytes(16 * MIB))
            await until(lambda: port.authenticator.stats()["cut"] >= 7, 10)
            await until(lambda: port.held("eve") <= 21 * MIB)
            with port.socket(port.ann) as ann:
                ann.send(b"x")
                await until(lambda: port.received_bytes[-1][1] == "key:ann")
        await asyncio.to_thread(relay.close)
        await until(lambda: not port.held("eve"))


@pytest.mark.failure_mode("RPC", "one peer that takes the room of the others")
async def test_who_has_proved_no_key_cannot_have_a_large_message_kept():
    async with Port() as port:
        where = ("127.0.0.1", int(port.link.address.rpartition(":")[2]))
        with await asyncio.to_thread(socket.create_connection, where) as stranger:
            greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
            stranger.sendall(greeting + b"\x06" + struct.pack(">Q", 31 * MIB) + bytes(64 * 1024))
            await until(lambda: port.authenticator.stats()["cut"] == 1 and not port.authenticator.connection_count())


@pytest.mark.failure_mode("RPC", "one peer that takes the room of the others")
async def test_subscriptions_and_questions_of_one_key_are_bounded():
    async with Port() as port:
        with port.socket(port.eve, zmq.SUB, sndhwm=0) as eve:
            for number in range(1100):
                eve.subscribe(b"p%d" % number)
            await until(lambda: "many" in port.garbage)
            (session,) = port.authenticator.sessions.by_user_id.values()
            assert len(session.prefixes) == 1024
            for number in range(10):
                eve.unsubscribe(b"p%d" % number)
            await until(lambda: len(session.prefixes) == 1014)
            del port.garbage[:]
        await until(lambda: not port.authenticator.sessions and not port.quotas.memory_accounts.held_bytes)
        with port.socket(port.eve, zmq.XSUB, rcvhwm=1, rcvbuf=65536) as eve:
            for number in range(1000):
                eve.send(b"\1!%d" % number)
            await until(lambda: len(port.garbage) > 50 and not port.authenticator.connection_count(), 20)
            assert set(port.garbage) == {"unread"}


@pytest.mark.failure_mode("RPC", "one peer that takes the room of the others")
async def test_questions_count_as_subscriptions_over_all_connections_of_a_key():
    """ZeroMQ keeps the prefix of a question until its subscriber goes, and takes all out in one call when it does."""
    async with Port(limits=TransportLimits(max_prefixes_per_account=150)) as port:
        port.handler.answer_question = lambda peer, question: [b"short"]
        with ExitStack() as stack:
            eves = [stack.enter_context(port.socket(port.eve, zmq.SUB, sndhwm=0)) for _ in range(2)]
            for number in range(100):
                for eve in eves:
                    eve.subscribe(b"!%d" % number)
            await until(lambda: len(port.garbage) >= 50)
            assert set(port.garbage) == {"many"}
            assert list(port.events._prefixes_by_account.values()) == [150]
        await until(lambda: not port.events._prefixes_by_account)
        assert not port.quotas.memory_accounts.held_bytes


@pytest.mark.parametrize("keys", ["eve", "ann"])
async def test_a_cast_of_one_who_leaves_at_once_is_handled(keys):
    async with Port() as port:
        with port.socket(getattr(port, keys), linger=1000) as client:
            client.send(b"x")
        await until(lambda: [name for _, name in port.received_bytes] == [f"key:{keys}"])
        await until(lambda: not port.authenticator.connection_count() and not port.quotas.memory_accounts.held_bytes)
