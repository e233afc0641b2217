"""Bounds of what is under way, and fairness between those who want more than there is."""

import asyncio
import threading

from ostler.aio.spin_backoff import SpinBackoff
from ostler.messaging import Access, Context, Endpoint, exposed
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.dispatcher import DispatcherLimits
from ostler.messaging.rpc.in_flight import MAX_CONTROL_REQUESTS
from ostler.messaging.rpc.rpc_server import ServerLimits
from ostler.messaging.wire.envelope import CAST, PROTOCOL_VERSION, Failure, Reply, Request, encode_request
from ostler.types import LOCAL_PEER, Peer
from support.waiting import until

# private: _casts: a cast that is never forgotten shows in nothing else

GREEDY, MODEST = Peer(0, 0, 10, "uid 0"), Peer(0, 0, 20, "uid 0")
OTHER, THIRD = Peer(4001, 4001, 30, "uid 4001"), Peer(4002, 4002, 40, "uid 4002")
EVERYBODY = Access(own_uid=0, admin=["*"])


def request(number, method):
    return encode_request(Request(PROTOCOL_VERSION, number, "mill", method, {}, None))


class Mill:
    def __init__(self):
        self.gate = threading.Event()
        self.order = []

    @exposed()
    def grind(self, ctx: Context) -> None:
        assert self.gate.wait(10)
        self.order.append(ctx.peer.pid)

    @exposed()
    async def rest(self, ctx: Context) -> None:
        await asyncio.sleep(3600)


async def test_one_with_ten_thousand_calls_does_not_starve_one_with_a_single_call(open_bench):
    async with open_bench(limits=ServerLimits(max_in_flight_per_peer=20000)) as bench:
        mill = Mill()
        bench.add("mill", mill)
        for number in range(10_000):
            bench.send(request(number, "grind"), client="greedy", peer=GREEDY)
        bench.send(request(1, "grind"), client="modest", peer=MODEST)
        busy = [answer for answer in bench.answers("greedy") if isinstance(answer, Failure)]
        assert len(busy) > 9000, "what does not fit is refused at once"
        assert {answer.names[0] for answer in busy} == {"ostler.Busy"}
        assert all(answer.details["retry_after"] > 0 for answer in busy)
        mill.gate.set()
        await until(lambda: bench.answers("modest"))
        assert isinstance(bench.answers("modest")[0], Reply)
        assert mill.order.index(MODEST.pid) <= 2 * bench.pool.size + 1
        await until(lambda: bench.dispatcher.in_flight("mill") == 0)


async def test_a_service_takes_no_more_at_once_than_its_limit(bench):
    bench.apply(access=EVERYBODY)
    bench.add("mill", Mill())
    (endpoint,) = bench.dispatcher.endpoints()
    endpoint.max_in_flight = 3
    for number, peer in enumerate((GREEDY, OTHER, THIRD, GREEDY, OTHER)):
        bench.send(request(number, "rest"), peer=peer)
    refused = bench.answers()
    assert [(answer.id, answer.names[0], answer.details["limit"]) for answer in refused] == [
        (3, "ostler.Busy", 3),
        (4, "ostler.Busy", 3),
    ]
    assert "mill has 3 requests in progress" in refused[0].message


async def test_one_uid_cannot_take_all_requests_of_a_service_whatever_its_connections(bench):
    bench.apply(access=EVERYBODY)
    bench.add("mill", Mill())
    (endpoint,) = bench.dispatcher.endpoints()
    endpoint.max_in_flight = 10
    for number in range(20):
        peer = Peer(4001, 4001, number, "uid 4001")
        bench.send(request(number, "rest"), client=f"process {number}", peer=peer)
    refused = [message for _, message in bench.wire.sent]
    assert len(refused) == 15
    assert "uid 4001 has used its share of the 10 requests" in refused[0].message
    assert refused[0].details["reason"] == "share"
    bench.send(request(1, "rest"), client="modest", peer=THIRD)
    assert bench.answers("modest") == []


async def test_one_uid_cannot_take_all_requests_that_the_daemon_may_have_under_way(bench):
    bench.apply(access=EVERYBODY)
    bench.apply(limits=DispatcherLimits(max_in_flight=10))
    bench.add("mill", Mill())
    for number in range(20):
        bench.send(request(number, "rest"), peer=OTHER)
    assert len(bench.answers()) == 15
    bench.send(request(1, "rest"), client="modest", peer=THIRD)
    assert bench.answers("modest") == []


class Clerk:
    @exposed(role="viewer")
    async def rest(self, ctx: Context) -> None:
        await asyncio.sleep(3600)

    @exposed(role="viewer")
    async def echo(self, ctx: Context) -> int:
        return 1


async def test_the_topic_of_the_daemon_has_a_limit_of_requests_under_way_for_each_account(bench):
    bench.apply(access=EVERYBODY)
    bench.dispatcher.registry.add_endpoint(Endpoint("ostler", "here", Clerk(), None))
    for number in range(MAX_CONTROL_REQUESTS + 2):
        message = Request(PROTOCOL_VERSION, number, "ostler", "rest", {}, None)
        bench.send(encode_request(message), peer=OTHER)
    assert len(bench.answers()) == 2
    bench.send(encode_request(Request(PROTOCOL_VERSION, 1, "ostler", "echo", {}, None)), client="root", peer=GREEDY)
    await until(lambda: bench.answers("root"))
    assert isinstance(bench.answers("root")[0], Reply)


async def test_work_within_a_request_counts_for_who_made_that_request(bench):
    call = Call(Request(PROTOCOL_VERSION, 1, "mill", "grind", {}, None), LOCAL_PEER, bench.clock)
    assert call.account == "local"
    call.parent = Context("outer", "grind", peer=OTHER)
    assert call.account == ("local", 4001)
    within = Context("inner", "grind")
    within.parent = call.parent
    call.parent = within
    assert call.account == ("local", 4001)


def test_a_wait_in_vain_is_not_soon_tried_again():
    backoff = SpinBackoff()
    tried = 0
    for _ in range(10_000):
        if backoff.should_wait():
            tried += 1
            backoff.record_wait(succeeded=False)
    assert tried < 60
    while not backoff.should_wait():
        pass
    backoff.record_wait(succeeded=True)
    assert backoff.should_wait()


async def test_casts_count_against_whoever_sent_them_over_whatever_connections(open_bench):
    async with open_bench(limits=ServerLimits(max_in_flight_per_peer=4)) as bench:
        bench.add("mill", Mill())
        for number in range(6):
            cast = Request(PROTOCOL_VERSION, number, "mill", "rest", {}, None, flags=CAST)
            bench.send(encode_request(cast), client=f"connection {number}", peer=GREEDY)
        refused = [message for _, message in bench.wire.sent if isinstance(message, Failure)]
        assert [(answer.names[0], answer.details["limit"]) for answer in refused] == [("ostler.Busy", 4)] * 2
        bench.send(request(1, "rest"), client="modest", peer=MODEST)
        assert bench.answers("modest") == []
        assert bench.dispatcher.in_flight("mill") == 5
        for call in list(bench.dispatcher.in_flight_since(0.0)):
            bench.dispatcher.cancel(call)
        await until(lambda: bench.dispatcher.in_flight("mill") == 0)
        assert not bench.server._casts


def test_some_waits_in_vain_are_put_up_with_when_most_are_not():
    backoff = SpinBackoff(tolerance=8)
    for turn in range(1000):
        backoff.record_wait(succeeded=turn % 5 != 0)
        assert backoff.should_wait()
    for _ in range(9):
        backoff.record_wait(succeeded=False)
    assert not backoff.should_wait()
