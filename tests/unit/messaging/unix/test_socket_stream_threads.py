"""A channel that threads write to as well: what goes out first, what is left over, and who closes the socket."""

import asyncio
import os
import random
import socket
import threading

import pytest

from ostler.messaging.unix.protocol import ZmtpConnection, encode_frame, greeting
from ostler.messaging.unix.socket_stream import SharedBuffers, SocketStream
from support.async_tests import loop_fixture


class SlowSocket:
    """A socket whose `send` on other threads waits until the test lets it go on, and then sends no more than it may."""

    def __init__(self, real):
        self._real_selector = real
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.most = 1 << 30
        self.closed_by = None

    def send(self, data):
        if threading.current_thread() is threading.main_thread():
            return self._real_selector.send(data)
        self.inside.set()
        assert self.go_on.wait(5)
        return self._real_selector.send(memoryview(data)[: self.most])

    def close(self):
        self.closed_by = threading.current_thread()
        self._real_selector.close()

    def __getattr__(self, name):
        return getattr(self._real_selector, name)


class Pair:
    """A channel and the other end of its socket."""

    def __init__(self):
        ours, self.other = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.socket = SlowSocket(ours)
        self.shared = SharedBuffers()
        self.channel = SocketStream(self.socket, lambda data: None, lambda: None, self.shared)
        self.asked = 0

    def claim_reply(self):
        self.asked += 1
        return True

    async def write(self, data, claim=None):
        """Write from a thread that is not held up."""
        self.socket.go_on.set()
        return await asyncio.to_thread(self.channel.write_from_thread, data, claim or self.claim_reply)

    def begin(self, data):
        """Begin to write from a thread; returns when it is inside `send`."""
        thread = threading.Thread(target=self.channel.write_from_thread, args=(data, self.claim_reply))
        thread.start()
        assert self.socket.inside.wait(5)
        return thread

    async def end(self, thread):
        self.socket.go_on.set()
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive()

    async def received(self, size):
        found = b""
        self.other.settimeout(5)
        while len(found) < size and (more := await asyncio.to_thread(self.other.recv, 65536)):
            found += more
        return found


@loop_fixture
async def pair():
    made = Pair()
    try:
        yield made
    finally:
        made.socket.go_on.set()
        made.channel.close()
        made.other.close()


async def test_what_a_thread_writes_goes_out_at_once(pair):
    assert await pair.write(b"one")
    assert await pair.received(3) == b"one"


async def test_nothing_is_sent_that_was_not_claimed(pair):
    assert not await pair.write(b"one", lambda: False)
    pair.channel.write(b"two")
    assert await pair.received(3) == b"two"


@pytest.mark.parametrize("why", ["held", "waiting", "closed", "another thread"])
async def test_a_thread_does_not_write_past_what_is_to_go_out_before(pair, why):
    thread = None
    if why == "held":
        pair.channel.cork()
        pair.channel.write(b"before")
    elif why == "waiting":
        pair.channel.write(bytes(1_000_000))
        assert pair.channel.has_buffered
    elif why == "closed":
        pair.channel.close()
    else:
        thread = pair.begin(b"before")
        pair.asked = 0
    assert not await asyncio.to_thread(pair.channel.write_from_thread, b"late", pair.claim_reply)
    assert pair.asked == 0, "the answer is still the loop's to give"
    if thread is not None:
        await pair.end(thread)


async def test_a_channel_that_holds_nothing_yet_may_be_written_to(pair):
    pair.channel.cork()
    assert await pair.write(b"one")
    pair.channel.write(b"two")
    pair.channel.uncork()
    assert await pair.received(6) == b"onetwo"


@pytest.mark.failure_mode("RPC", "a thread and the loop that write to one connection")
async def test_the_loop_does_not_wait_for_a_thread_that_sends(pair):
    thread = pair.begin(b"thread")
    pair.channel.write(b"loop 1")
    pair.channel.write(b"loop 2")
    assert not pair.socket.go_on.is_set()
    await pair.end(thread)
    assert await pair.received(18) == b"threadloop 1loop 2"


async def test_the_loop_sends_the_rest_of_what_a_thread_could_not(pair):
    data = os.urandom(1_000_000)
    assert await pair.write(data)
    pair.channel.write(b"after")
    assert await pair.received(1_000_005) == data + b"after"
    await asyncio.sleep(0)
    assert (pair.channel.has_buffered, pair.channel.buffered_bytes) == (False, 0)


@pytest.mark.failure_mode("RPC", "a thread and the loop that write to one connection")
async def test_the_rest_goes_out_before_what_the_loop_wrote_meanwhile(pair):
    pair.socket.most = 2
    thread = pair.begin(b"thread")
    pair.channel.write(b"loop")
    await pair.end(thread)
    assert await pair.received(10) == b"threadloop"


@pytest.mark.failure_mode("RPC", "a thread and the loop that write to one connection")
async def test_a_descriptor_is_not_closed_while_a_thread_writes_to_it(pair):
    thread = pair.begin(b"last words")
    pair.channel.write(b", and more")
    pair.channel.close()
    assert pair.socket.closed_by is None
    assert pair.socket.fileno() >= 0, "its number is nobody else's yet"
    await pair.end(thread)
    assert await pair.received(100) == b"last words, and more"
    assert pair.socket.closed_by is not None
    assert not await pair.write(b"late")


def test_a_thread_closes_the_socket_when_the_loop_is_not_there_any_more():
    pair = None

    async def main():
        nonlocal pair
        pair = Pair()
        thread = pair.begin(b"last")
        pair.channel.close()
        return thread

    thread = asyncio.run(main())
    pair.socket.go_on.set()
    thread.join(5)
    assert pair.socket.closed_by is thread
    pair.other.close()


async def test_whoever_has_gone_costs_nothing(pair):
    pair.other.close()
    assert await pair.write(b"one"), "it was claimed, and there is nobody to send it to"
    assert not pair.channel.has_buffered


@pytest.mark.parametrize("seed", range(3))
async def test_what_threads_and_the_loop_write_at_once_arrives_whole_and_once(seed):
    """Four threads and the loop, a receiver that reads by fits and starts, messages of all sizes."""
    dice = random.Random(seed)
    messages = [b"%d:" % n + bytes(dice.choice((0, 10, 300, 9000, 70_000))) for n in range(400)]
    got = []

    ours, other = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    channel = SocketStream(ours, lambda data: None, lambda: None, SharedBuffers())
    loop = asyncio.get_running_loop()

    def read():
        talk = ZmtpConnection(frozenset({b"DEALER"}), 1_000_000)
        talk.receive_data(greeting(b"DEALER"))
        while len(got) < len(messages) and (data := other.recv(50_000)):
            got.extend(bytes(message) for message in talk.receive_data(data))

    def write(mine):
        for message in mine:
            if not channel.write_from_thread(encode_frame(message), lambda: True):
                loop.call_soon_threadsafe(channel.write, encode_frame(message))

    def hold(left):
        channel.cork()
        loop.call_soon(channel.uncork)
        if left:
            loop.call_later(0.0005, hold, left - 1)

    hold(50)
    other.settimeout(10)
    work = [asyncio.to_thread(write, messages[part::5]) for part in range(4)]
    reader = asyncio.create_task(asyncio.to_thread(read))
    for message in messages[4::5]:
        channel.write(encode_frame(message))
        await asyncio.sleep(0)
    await asyncio.gather(*work)
    await reader
    channel.close()
    other.close()
    assert sorted(got) == sorted(messages)
    own = [message for message in got if message in set(messages[4::5])]
    assert own == messages[4::5], "those of the loop are in their order"
