"""The server's end of streams on a wire that the test holds: credit, in whatever order it comes, and bad input."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostler.errors import ContractError
from ostler.messaging import Access, Context, Endpoint, exposed
from ostler.messaging.access.policy import Policy
from ostler.messaging.clients.client_core import ClientCore
from ostler.messaging.rpc import server_streams
from ostler.messaging.wire.envelope import (
    CAST,
    PROTOCOL_VERSION,
    RETRY,
    STREAM,
    Cancel,
    Credit,
    Failure,
    Items,
    Reply,
    Request,
    decode_to_client,
    encode_failure,
    encode_items,
    encode_message,
    encode_reply,
    encode_request,
)
from ostler.messaging.wire.request import CallRequest
from ostler.types import Peer
from support.waiting import until

# private: _check_deadlines, _send_keepalives: as the timer calls it, which does not go by the test's clock
# private: _MAX_ITEMS_AHEAD: the limit that is kept

ROOT = Peer(0, 0, 1, "uid 0")
BOTH = pytest.mark.parametrize("method", ["count", "acount"])


class Shop:
    def __init__(self):
        self.made = 0
        self.closed = 0

    @exposed()
    def count(self, ctx: Context, items: int) -> Iterator[int]:
        try:
            for number in range(items):
                self.made += 1
                yield number
        finally:
            self.closed += 1

    @exposed()
    async def acount(self, ctx: Context, items: int) -> AsyncIterator[int]:
        try:
            for number in range(items):
                self.made += 1
                yield number
        finally:
            self.closed += 1

    @exposed()
    async def sleep(self, ctx: Context) -> None:
        await asyncio.Event().wait()


def request(number, method, credit, items=10**9, flags=STREAM, request_id=""):
    arguments = {} if method == "sleep" else {"items": items}
    return encode_request(
        Request(PROTOCOL_VERSION, number, "shop", method, arguments, None, request_id, flags, credit=credit)
    )


def send(bench, message, client="client"):
    bench.send(encode_message(message), client=client)


def count(bench, client="client"):
    return sum(len(_decoded(message)) for message in bench.answers(client) if type(message) is Items)


def _decoded(message):
    return msgspec.msgpack.decode(message.items)


async def quiet(bench):
    """Wait until nothing is done any more."""
    await until(lambda: not bench.pool.running_jobs() and not bench.pool.queued_count)
    for _ in range(3):
        await asyncio.sleep(0.001)


@BOTH
async def test_no_more_items_are_made_than_there_is_credit_for(bench, method):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1, method, 5))
    await until(lambda: count(bench) == 5)
    await quiet(bench)
    assert shop.made == count(bench) == 5
    send(bench, Credit(PROTOCOL_VERSION, 1, 3))
    await until(lambda: count(bench) == 8)
    await quiet(bench)
    assert shop.made == count(bench) == 8
    firsts = [message.first for message in bench.answers() if type(message) is Items]
    assert firsts == sorted(firsts)
    send(bench, Cancel(PROTOCOL_VERSION, 1))
    await until(lambda: shop.closed == 1)


@pytest.mark.failure_mode("RPC", "garbage frames, truncated and random (fuzzed)")
@BOTH
async def test_credit_that_is_none_negative_huge_or_for_no_stream(bench, method):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1, method, 0))
    bench.send(request(2, "sleep", 0, flags=0))
    await quiet(bench)
    assert count(bench) == 0
    send(bench, Credit(PROTOCOL_VERSION, 1, 0))
    send(bench, Credit(PROTOCOL_VERSION, 99, 5))  # no such request
    send(bench, Credit(PROTOCOL_VERSION, 2, 5))  # a call
    send(bench, Credit(PROTOCOL_VERSION, 1, 5), client="a stranger")
    bench.send(b"\x94\x03\x01\x01\xff")  # -1
    bench.send(b"\x94\x03\x01\x01\xcf\xff\xff\xff\xff\xff\xff\xff\xff")
    bench.send(b"\x94\x03\x01\x01\xa1x")
    await quiet(bench)
    assert count(bench) == 0
    assert bench.server.stats()["stray"] == {"credit": 3}
    assert bench.server.invalid_messages == {"shape": 3}
    send(bench, Credit(PROTOCOL_VERSION, 1, 2**31))
    await until(lambda: count(bench) >= 60_000)
    await quiet(bench)
    assert shop.made <= 65_536
    send(bench, Cancel(PROTOCOL_VERSION, 1))
    await until(lambda: shop.closed == 1)


@pytest.mark.failure_mode("RPC", "cancel of a sync and of an async method")
@BOTH
async def test_cancel_of_a_strangers_or_an_ended_stream(bench, method):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1, method, 5))
    bench.send(request(2, method, 50, items=3))
    await until(lambda: any(type(message) is Reply and message.id == 2 for message in bench.answers()))
    send(bench, Cancel(PROTOCOL_VERSION, 1), client="a stranger")
    for _ in range(3):
        send(bench, Cancel(PROTOCOL_VERSION, 2))
        send(bench, Credit(PROTOCOL_VERSION, 2, 5))
    assert bench.server.stats()["stray"] == {"cancel": 4, "credit": 3}
    send(bench, Cancel(PROTOCOL_VERSION, 1))
    await until(lambda: shop.closed == 2)
    send(bench, Credit(PROTOCOL_VERSION, 1, 5))
    await quiet(bench)
    ends = [message.id for message in bench.answers() if type(message) in (Reply, Failure)]
    assert sorted(ends) == [1, 2]
    assert bench.server.stats()["in_flight"] == 0


async def test_a_stream_is_neither_cast_nor_sent_again(bench):
    bench.add("shop", Shop())
    for number, flags in enumerate((STREAM | CAST, STREAM | RETRY, CAST, RETRY, 0)):
        bench.send(request(number, "count", 5, flags=flags, request_id="the-id"))
    assert [message.names[0] for message in bench.answers()] == ["ostler.WrongCallKind"] * 5
    assert bench.server.stats()["duplicates"]["ids"] == 0


async def test_beats_name_a_stream_that_waits_for_its_reader(bench):
    shop = Shop()
    bench.add("shop", shop)
    for number, method in enumerate(("count", "acount")):
        bench.send(request(number, method, 2))
    await until(lambda: count(bench) == 4)
    await quiet(bench)
    bench.clock.advance(1000)
    bench.server._send_keepalives(bench.clock.monotonic())
    bench.dispatcher._check_deadlines(bench.clock.monotonic())
    assert sorted(bench.answers()[-1].ids) == [0, 1]


class Crossing:
    """A stream between a real server and a real client, of which each step is taken by the test."""

    def __init__(self, bench, method, credit, items):
        self.bench = bench
        self.credit = credit
        self.core = ClientCore(bench.clock)
        self.arrived, self.going, self.read = [], [], []
        self.sent = self.done = self.taken = 0
        bench.add("shop", Shop())
        bench.wire.send = self.from_server
        self.pending, data = self.core.start_stream(CallRequest("shop", method, {"items": items}), credit, lambda: None)
        bench.send(data)

    def from_server(self, _client, data):
        if type(message := decode_to_client(data)) is Items:
            self.sent += len(_decoded(message))
        self.arrived.append(bytes(data))
        return True

    def deliver(self):
        if self.arrived:
            self.core.receive(self.arrived.pop(0))

    def grant(self):
        if self.going:
            self.bench.send(self.going.pop(0))

    def take(self):
        """Take what there is; return whether that was the end."""
        found, out = self.core.pop_items(self.pending)
        if out is not None:
            self.going.append(out)
        self.done, self.taken = self.done + self.taken, len(found or ())
        self.read.extend(found or ())
        return found is None

    def check(self):
        assert self.sent - self.done <= self.credit

    async def finish(self):
        async with asyncio.timeout(10):
            while not self.take():
                self.deliver()
                self.grant()
                await asyncio.sleep(0)
                self.check()


def test_items_cross_whatever_the_order_of_credit_reads_and_turns(open_bench):
    @settings(max_examples=40, deadline=None)
    @given(
        method=st.sampled_from(["count", "acount"]),
        credit=st.integers(1, 20),
        items=st.integers(0, 60),
        steps=st.lists(st.sampled_from(["deliver", "take", "grant", "turn"]), max_size=60),
    )
    def crosses(method, credit, items, steps):
        async def cross():  # on a loop of its own for each example, which Hypothesis runs as a function
            async with open_bench() as bench:
                crossing = Crossing(bench, method, credit, items)
                for step in steps:
                    if step == "turn":
                        await asyncio.sleep(0)
                    elif step != "take" or not crossing.pending.buffer.is_ended:
                        getattr(crossing, step)()
                    crossing.check()
                await crossing.finish()
                assert crossing.read == list(range(items))
                assert crossing.core.pending_calls == []

        asyncio.run(cross())

    crosses()


async def test_items_and_replies_for_nobody_and_a_second_end_are_counted_and_dropped(bench):
    core, woken = ClientCore(bench.clock), []
    pending, _ = core.start_stream(CallRequest("shop", "count", {}), 4, lambda: woken.append(1))
    core.start_call(CallRequest("shop", "sleep", {}), lambda value, error: woken.append(value))
    assert core.receive(encode_items(99, 0, [b"\x01"])) == ()
    number = pending.number
    assert core.receive(encode_items(number + 1, 0, [b"\x01"])) == ()  # for a call
    assert core.late_messages == 2
    assert woken == []
    core.receive(encode_items(number, 0, [b"\x01"]))
    core.receive(encode_reply(number, None, 1000, "shop", "count"))
    core.receive(encode_reply(number, None, 1000, "shop", "count"))
    core.receive(encode_failure(number, ContractError("late")))
    core.receive(encode_items(number, 1, [b"\x02"]))
    assert core.late_messages == 3
    assert core.pop_items(pending) == ([1], None)
    assert core.pop_items(pending) == (None, None)
    assert len(core.pending_calls) == 1


async def test_a_server_that_sends_more_than_it_may_is_cancelled(bench):
    core = ClientCore(bench.clock)
    pending, _ = core.start_stream(CallRequest("shop", "count", {}), 1, lambda: None)
    (out,) = core.receive(encode_items(pending.number, 0, [b"\x01", b"\x02"]))
    assert out == encode_message(Cancel(PROTOCOL_VERSION, pending.number))
    with pytest.raises(Exception, match="more items than it had credit for"):
        core.pop_items(pending)


async def test_a_generator_needs_threads_and_a_type_that_can_travel(bench):
    class Plain:
        @exposed()
        def count(self, ctx: Context) -> Iterator[int]:
            yield 1

    class Odd:
        @exposed()
        async def count(self, ctx: Context) -> AsyncIterator[object]:
            yield 1

    class NoIterator:
        @exposed()
        async def count(self, ctx: Context) -> int:
            yield 1

    with pytest.raises(ContractError, match="has no threads"):
        Endpoint("shop", "here", Plain(), None)
    for wrong in (Odd, NoIterator):
        with pytest.raises(ContractError, match=r"shop\.count"):
            Endpoint("shop", "here", wrong(), bench.pool)


def at_the_streams_timers(loop):
    return [timer for timer in loop._scheduled if not timer.cancelled() and "SyncServerStream" in repr(timer)]


async def test_credit_while_no_thread_is_free_waits_with_one_timer(bench):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1, "count", 1))
    await until(lambda: count(bench) == 1)
    await quiet(bench)
    free, bench.pool.queue_limit = bench.pool.queue_limit, 0
    for _ in range(1000):
        send(bench, Credit(PROTOCOL_VERSION, 1, 1))
    assert len(at_the_streams_timers(asyncio.get_running_loop())) == 1
    await asyncio.sleep(0.12)
    assert len(at_the_streams_timers(asyncio.get_running_loop())) == 1
    bench.pool.queue_limit = free
    await until(lambda: count(bench) == 1001)
    await until(lambda: not at_the_streams_timers(asyncio.get_running_loop()))


async def test_a_thread_makes_no_more_than_a_little_ahead_of_the_loop(bench):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1, "count", 10**6))
    # The loop does nothing meanwhile: what it has not seen, it cannot charge to anybody.
    until_still = time.monotonic() + 5
    while not shop.made or bench.pool.running_jobs():
        assert time.monotonic() < until_still
    made = shop.made
    assert 0 < made <= server_streams._MAX_ITEMS_AHEAD
    await until(lambda: shop.made > made)  # and goes on when the loop has taken it


async def test_streams_have_the_share_of_their_caller_in_the_queue_for_threads(bench):
    bench.add("shop", Shop())
    bench.pool.queue_limit = 10
    stop = threading.Event()
    for _ in range(bench.pool.size):
        bench.pool.submit(lambda: stop.wait(10), lambda *_: None, label="occupied")
    await until(lambda: len(bench.pool.running_jobs()) == bench.pool.size)
    for number in range(10):
        bench.send(request(number, "count", 1), client=number)
    refused = [message for number in range(10) for message in bench.answers(number)]
    assert [message.names[0] for message in refused] == ["ostler.Busy"] * 5
    bench.apply(access=Access(own_uid=0, operator=["4001"]))
    bench.send(request(1, "count", 1), client="of another", peer=Peer(4001, 4001, 2, "uid 4001"))
    assert bench.answers("of another") == []
    stop.set()


@BOTH
async def test_a_stream_ends_when_its_caller_loses_the_role_and_no_other_does(bench, method):
    shop, ann, ben = Shop(), Peer(4001, 4001, 1, "uid 4001"), Peer(4002, 4002, 2, "uid 4002")
    bench.apply(access=Access(own_uid=0, operator=["4001", "4002"]))
    bench.add("shop", shop)
    for peer in (ROOT, ann, ben):
        bench.send(request(1, method, 2), client=peer.uid, peer=peer)
    await until(lambda: all(count(bench, peer.uid) == 2 for peer in (ROOT, ann, ben)))
    await quiet(bench)
    bench.dispatcher.cancel_unauthorised()
    assert bench.dispatcher.streams.open_count == 3
    bench.apply(access=Access(own_uid=0, operator=["4002"]))
    bench.dispatcher.cancel_unauthorised()
    assert bench.answers(4001)[-1].names[0] == "ostler.NotPermitted"
    await until(lambda: shop.closed == 1)
    bench.dispatcher.registry.set_policy(Policy({"shop.*": "admin"}))
    bench.dispatcher.cancel_unauthorised()
    assert "needs the role admin, uid 4002 has operator" in bench.answers(4002)[-1].message
    await until(lambda: shop.closed == 2)
    assert bench.dispatcher.streams.open_count == 1
    send(bench, Cancel(PROTOCOL_VERSION, 1), client=0)
    await until(lambda: shop.closed == 3)
