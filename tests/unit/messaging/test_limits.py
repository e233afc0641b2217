"""Bounds of what is under way, and fairness between those who want more than there is."""

import asyncio
import threading

from ostler.messaging import Context, exposed
from ostler.messaging.envelope import CAST, VERSION, Failure, Reply, Request, encode_request
from ostler.messaging.spin_backoff import SpinBackoff
from ostler.types import Peer

GREEDY, MODEST = Peer(0, 0, 10, "uid 0"), Peer(0, 0, 20, "uid 0")


def request(number, method):
    return encode_request(Request(VERSION, number, "mill", method, {}, None))


async def settled(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


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


def test_one_with_ten_thousand_calls_does_not_starve_one_with_a_single_call(on_bench):
    async def test(bench):
        mill = Mill()
        bench.add("mill", mill)
        for number in range(10_000):
            bench.send(request(number, "grind"), client="greedy", peer=GREEDY)
        bench.send(request(1, "grind"), client="modest", peer=MODEST)
        busy = [answer for answer in bench.answers("greedy") if isinstance(answer, Failure)]
        assert len(busy) > 9000, "what does not fit is refused at once"
        assert {answer.names[0] for answer in busy} == {"ostler.Busy"}
        assert all(answer.facts["retry_after"] > 0 for answer in busy)
        mill.gate.set()
        await settled(lambda: bench.answers("modest"))
        assert isinstance(bench.answers("modest")[0], Reply)
        assert mill.order.index(MODEST.pid) <= 2 * bench.pool.size + 1
        await settled(lambda: bench.dispatcher.in_flight("mill") == 0)

    on_bench(test, max_in_flight_per_peer=20_000)


def test_a_service_takes_no_more_at_once_than_its_limit(on_bench):
    async def test(bench):
        bench.add("mill", Mill())
        (endpoint,) = bench.dispatcher.endpoints()
        endpoint.max_in_flight = 3
        for number in range(5):
            bench.send(request(number, "rest"))
        refused = bench.answers()
        assert [(answer.id, answer.names[0], answer.facts["limit"]) for answer in refused] == [
            (3, "ostler.Busy", 3),
            (4, "ostler.Busy", 3),
        ]
        assert "mill has 3 requests under way" in refused[0].message

    on_bench(test)


def test_a_wait_in_vain_is_not_soon_tried_again():
    backoff = SpinBackoff()
    tried = 0
    for _ in range(10_000):
        if backoff.left():
            tried += 1
            backoff.learn(came=False)
    assert tried < 60
    while not backoff.left():
        pass
    backoff.learn(came=True)
    assert backoff.left()


def test_casts_count_against_whoever_sent_them_over_whatever_connections(on_bench):
    async def test(bench):
        bench.add("mill", Mill())
        for number in range(6):
            cast = Request(VERSION, number, "mill", "rest", {}, None, flags=CAST)
            bench.send(encode_request(cast), client=f"connection {number}", peer=GREEDY)
        refused = [message for _, message in bench.wire.sent if isinstance(message, Failure)]
        assert [(answer.names[0], answer.facts["limit"]) for answer in refused] == [("ostler.Busy", 4)] * 2
        bench.send(request(1, "rest"), client="modest", peer=MODEST)
        assert bench.answers("modest") == []
        assert bench.dispatcher.in_flight("mill") == 5
        for call in list(bench.dispatcher._under_way):
            bench.dispatcher.cancel(call)
        await settled(lambda: bench.dispatcher.in_flight("mill") == 0)
        assert not bench.server._casts

    on_bench(test, max_in_flight_per_peer=4)
