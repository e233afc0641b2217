"""A hostile server against the core that both clients share, the links and a subscription: each ends, by name."""

import asyncio
import socket
import threading
import time
import tracemalloc

import msgspec
import pytest

from ostler.clock import FakeClock
from ostler.errors import Busy, ConnectionLost, DaemonNotRunning, DeadlineExceeded, MalformedMessage, MessageTooLarge
from ostler.messaging import AsyncClient, Client
from ostler.messaging.clients.client_core import ClientCore
from ostler.messaging.clients.retry import Retry, RetryAttempts
from ostler.messaging.clients.stream_buffer import StreamBuffer
from ostler.messaging.events import Subscription
from ostler.messaging.events.subscription import MAX_EARLY_BYTES
from ostler.messaging.unix.protocol import ProtocolError, ZmtpConnection, encode_frame, greeting
from ostler.messaging.unix.sync_link import SyncUnixLink, closed_error
from ostler.messaging.wire.client_errors import lost_call_error
from ostler.messaging.wire.envelope import MAX_REPLY_ELEMENTS, Items, Keepalive, encode_message, encode_reply
from ostler.messaging.wire.request import CallRequest
from ostler.messaging.wire.transport import TransportLimits

# private: _protocol: the end of the handshake

ROUTER = greeting(b"ROUTER")
BOMB = b"\xdd\x00\xe0\x00\x00" + b"\x90" * 0xE00000
NEST = b"\x91" * 900_000 + b"\xc0"


def head(kind, number=1, size=4):
    return bytes((0x90 + size, kind, 1, number))


class Caller:
    def __init__(self, **options):
        self.clock = FakeClock()
        self.core = ClientCore(self.clock, **options)
        self.ends = []

    def ask(self, **options):
        pending, _ = self.core.start_call(
            CallRequest("lamp", "switch", {}, **options), lambda value, error: self.ends.append(error or value)
        )
        return pending


@pytest.mark.failure_mode("RPC", "an oversized message")
@pytest.mark.parametrize("data", [head(10) + BOMB, head(11, size=6) + BOMB, head(15, size=5) + b"\x00" + BOMB])
def test_a_bomb_as_an_answer_ends_the_call_and_is_not_decoded(data):
    caller = Caller()
    caller.ask()
    tracemalloc.start()
    began = time.perf_counter()
    (cancel,) = caller.core.receive(data)
    assert time.perf_counter() - began < 1
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert msgspec.msgpack.decode(cancel)[0] == 2
    (error,) = caller.ends
    assert type(error) is MessageTooLarge
    assert (error.max_elements, error.method) == (MAX_REPLY_ELEMENTS, "lamp.switch")
    assert "more than 1000000 elements" in str(error)
    assert caller.core.pending_calls == []


def test_a_bomb_for_nobody_is_counted_and_forgotten():
    caller = Caller()
    caller.ask()
    for data in (head(10, 9) + BOMB, head(14, size=4) + BOMB, BOMB):
        assert caller.core.receive(data) == ()
    assert (caller.core.invalid_messages, caller.ends) == (3, [])


def test_a_large_answer_comes_through_and_more_where_the_client_says_so():
    rows = [["name", number, None, True] for number in range(MAX_REPLY_ELEMENTS // 5 - 1)]
    caller = Caller()
    caller.ask()
    caller.core.receive(encode_reply(1, rows, 2**30, "", ""))
    assert caller.ends == [rows]
    caller = Caller(max_elements=10)
    caller.ask()
    caller.core.receive(encode_reply(1, list(range(20)), 2**30, "", ""))
    assert type(caller.ends[0]) is MessageTooLarge
    caller = Caller(max_elements=2 * MAX_REPLY_ELEMENTS)
    caller.ask()
    caller.core.receive(encode_reply(1, [0] * (MAX_REPLY_ELEMENTS + 10), 2**30, "", ""))
    assert len(caller.ends[0]) == MAX_REPLY_ELEMENTS + 10


@pytest.mark.parametrize("data", [head(10) + NEST, head(10) + b"\xc1", head(11, size=6) + b"\x01", head(15, size=5)])
def test_an_answer_that_cannot_be_understood_ends_its_call_at_once(data):
    caller = Caller()
    caller.ask()
    caller.core.receive(data)
    assert type(caller.ends[0]) is MalformedMessage
    assert "invalid answer from lamp.switch" in str(caller.ends[0])


@pytest.mark.parametrize("data", [b"\x94\x10\x01\x01\xc0", head(13), head(14), b"", b"\xc1"])
def test_what_is_no_answer_ends_no_call(data):
    caller = Caller()
    caller.ask()
    caller.core.receive(data)
    assert (len(caller.core.pending_calls), caller.ends) == (1, [])


def test_beats_without_an_end_do_not_outlast_the_deadline():
    caller = Caller()
    caller.ask(timeout=5)
    for interval in [1e308, float("inf")] * 30:
        caller.core.receive(encode_message(Keepalive(1, [1], interval)))
        caller.clock.advance(0.1)
        caller.core.check_deadlines(caller.clock.monotonic())
    assert [type(error) for error in caller.ends] == [DeadlineExceeded]


def test_items_without_an_item_do_not_outlast_the_deadline():
    caller = Caller()
    pending, _ = caller.core.start_stream(CallRequest("lamp", "watch", {}, timeout=5), 10, lambda: None)
    assert caller.core.pop_items(pending)[0] == []
    for _ in range(60):
        caller.core.receive(encode_message(Items(1, pending.number, 0, msgspec.Raw(b"\x90"))))
        caller.clock.advance(0.1)
        caller.core.check_deadlines(caller.clock.monotonic())
    with pytest.raises(DeadlineExceeded):
        caller.core.pop_items(pending)


def test_items_that_nobody_reads_are_bounded_in_bytes_too():
    incoming = StreamBuffer("lamp.watch", None, 60_000, lambda: None)
    item = msgspec.msgpack.encode(["x" * 1_000_000])
    for number in range(9):
        incoming.feed(number, item)
    with pytest.raises(MalformedMessage, match="more bytes than this client buffers"):
        incoming.feed(9, item)


def test_items_that_are_read_are_not_bounded():
    incoming = StreamBuffer("lamp.watch", None, 60_000, lambda: None)
    item = msgspec.msgpack.encode(["x" * 1_000_000])
    for number in range(50):
        incoming.feed(number, item)
        assert len(incoming.pop()) == 1


def test_no_server_has_its_callers_wait_for_centuries():
    attempts = RetryAttempts(Retry(backoff=0.1), FakeClock(), None)
    assert attempts.delay_after(Busy("full", retry_after=1e18)) == 300
    assert RetryAttempts(Retry(backoff=0.1), FakeClock(), None).delay_after(Busy("full", retry_after=float("nan"))) < 1


def test_a_subscription_that_is_never_answered_is_bounded():
    subscription = Subscription(["volume"])
    data = b"volume.here.x\0" + b"x" * 16_000_000
    for _ in range(MAX_EARLY_BYTES // len(data)):
        subscription.receive(data)
    with pytest.raises(MessageTooLarge, match="before it had answered the subscription"):
        subscription.receive(data)


def test_an_event_with_too_many_elements_is_not_decoded():
    subscription = Subscription(["volume"])
    assert subscription.receive(b"volume.here.x\0" + BOMB) == []
    assert subscription.invalid_messages == 1


def test_an_answer_above_the_size_limit_is_said_as_such():
    talk = ZmtpConnection(frozenset({b"ROUTER"}), 1000)
    with pytest.raises(ProtocolError):
        talk.receive_data(greeting(b"ROUTER") + b"\x02" + (5000).to_bytes(8, "big"))
    error = lost_call_error("lamp.switch", closed_error(talk))
    assert type(error) is MessageTooLarge
    assert str(error).startswith(
        "no answer from lamp.switch: the daemon sent a message of 5000 bytes, this client accepts"
    )


class Server:
    """A unix socket whose connections a function serves; it ends with the test."""

    def __init__(self, path, serve, greeting=ROUTER):
        self._greeting = greeting
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        self._serve = serve
        self._open = []
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            connected, _ = self.socket.accept()
        except OSError:
            return
        self._open.append(connected)
        try:
            connected.sendall(self._greeting)
            self._serve(connected, self.over)
        except OSError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.over.set()
        for each in [self.socket, *self._open]:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        self._thread.join(5)


def answers(data):
    def serve(connected, over):
        connected.recv(65536)
        connected.sendall(encode_frame(data))
        over.wait(20)

    return serve


def floods(data):
    def serve(connected, over):
        while not over.is_set():
            connected.sendall(data)

    return serve


def reads_slowly(connected, over):
    while not over.wait(0.05):
        connected.recv(1000)


FLOODS = {
    "bomb": answers(head(10) + BOMB),
    "nest": answers(head(10) + NEST),
    "unrelated frames": floods(encode_frame(head(10, 9) + b"\xc0") * 1000),
    "garbage": floods(encode_frame(b"\xc1") * 1000),
    "beats": floods(encode_frame(encode_message(Keepalive(1, [1], 1e18))) * 1000),
    "pings": floods(b"\x04\x07\x04PING\0\0" * 1000),
    "silence": lambda connected, over: over.wait(20),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_blocking_call_ends_by_name_within_its_time_whatever_the_server_sends(tmp_path, kind):
    began = time.monotonic()
    with Server(tmp_path / "rpc.sock", FLOODS[kind]), Client(f"ipc://{tmp_path}/rpc.sock") as client:
        with pytest.raises((MessageTooLarge, MalformedMessage, DeadlineExceeded, ConnectionLost, Busy)):
            client.on(timeout=2).call("lamp", "switch")
        assert time.monotonic() - began < 3.5


@pytest.mark.parametrize("kind", FLOODS)
def test_a_call_on_a_loop_ends_by_name_within_its_time_whatever_the_server_sends(tmp_path, kind):
    async def ask():
        async with AsyncClient(f"ipc://{tmp_path}/rpc.sock") as client:
            with pytest.raises((MessageTooLarge, MalformedMessage, DeadlineExceeded, ConnectionLost, Busy)):
                await client.on(timeout=2).call("lamp", "switch")

    began = time.monotonic()
    with Server(tmp_path / "rpc.sock", FLOODS[kind]):
        asyncio.run(ask())
    assert time.monotonic() - began < 3.5


@pytest.mark.parametrize("greets", [True, False])
def test_a_subscription_that_is_not_answered_ends_within_the_time_of_its_client(tmp_path, greets):
    # The address of events is in the folder of that of calls.
    kind = greeting(b"XPUB") if greets else b""
    with Server(tmp_path / "events.sock", lambda connected, over: over.wait(20), kind):
        began = time.monotonic()
        with (
            Client(f"ipc://{tmp_path}/rpc.sock", timeout=1) as client,
            pytest.raises(ConnectionLost, match="within 1s"),
        ):
            client.events("volume")
        assert time.monotonic() - began < 2


def test_a_server_that_does_not_greet_is_silent(tmp_path):
    silent = Server(tmp_path / "rpc.sock", lambda connected, over: over.wait(20), b"")
    with silent, Client(f"ipc://{tmp_path}/rpc.sock", timeout=1) as client, pytest.raises(DeadlineExceeded):
        client.call("lamp", "switch")


def test_a_server_that_reads_bit_by_bit_does_not_hold_a_call_beyond_its_time(tmp_path):
    with Server(tmp_path / "rpc.sock", reads_slowly):
        link = SyncUnixLink(f"ipc://{tmp_path}/rpc.sock", TransportLimits())
        while not link._protocol.is_ready:
            link.receive(1)
        began = time.monotonic()
        with pytest.raises(Busy):
            link.send(b"x" * 10_000_000, 0.5)
        assert time.monotonic() - began < 1.5
        with pytest.raises((ConnectionLost, DaemonNotRunning)):
            link.send(b"x")
        link.close()
