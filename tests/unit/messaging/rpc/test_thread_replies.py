"""Replies that a thread of the pool sends by itself: who answers, in which order, and when it is counted."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from ostler.clock import FakeClock
from ostler.errors import Cancelled
from ostler.messaging import Context, exposed
from ostler.messaging.rpc.call import Call
from ostler.messaging.wire.envelope import (
    CAST,
    PROGRESS,
    PROTOCOL_VERSION,
    RETRY,
    STREAM,
    Accepted,
    Cancel,
    Failure,
    Items,
    ProgressReport,
    Reply,
    Request,
    encode_message,
    encode_request,
)
from ostler.types import Peer
from support.async_tests import loop_fixture
from support.waiting import until

# private: _check_deadlines: as the timer calls it, which does not go by the test's clock
# private: _timer: a timer that is not needed shows in nothing else


class Shop:
    def __init__(self):
        self.go_on = threading.Event()
        self.runs = 0

    @exposed()
    def quick(self, ctx: Context, text: str = "") -> str:
        self.runs += 1
        return text

    @exposed()
    def held(self, ctx: Context) -> str:
        self.go_on.wait(10)
        return "held"

    @exposed()
    def steps(self, ctx: Context) -> str:
        for step in range(5):
            ctx.progress(step, 5)
        return "done"

    @exposed()
    def items(self, ctx: Context) -> Iterator[int]:
        yield from range(3)

    @exposed()
    def wrong(self, ctx: Context) -> None:
        raise Cancelled("not today")

    @exposed()
    def unfit(self, ctx: Context) -> Any:
        return object()


def request(number, method, flags=0, timeout=None, credit=0, request_id=""):
    return encode_request(
        Request(PROTOCOL_VERSION, number, "shop", method, {}, timeout, request_id, flags=flags, credit=credit)
    )


class Line:
    """Makes the wire of a bench one that threads may send on, and stops them where a test wants to step in."""

    def __init__(self, bench):
        self.bench, self.loop = bench, asyncio.get_running_loop()
        self.by_threads = 0
        self.before = self.between = lambda: None
        bench.wire.can_send_from_thread = True
        bench.wire.send_from_thread = self.send

    def send(self, client, data, claim):
        assert threading.current_thread() is not threading.main_thread()
        self.on_loop(self.before)
        if not claim():
            return False
        self.by_threads += 1
        self.on_loop(self.between)
        return self.bench.wire.send(client, data)

    def on_loop(self, what):
        async def step():
            what()

        asyncio.run_coroutine_threadsafe(step(), self.loop).result(5)


class Audit:
    def __init__(self):
        self.seen = []

    def record(self, call, error):
        self.seen.append((call.request.id, error))


@loop_fixture
async def shop(bench):
    made = Shop()
    bench.add("shop", made)
    try:
        yield made
    finally:
        made.go_on.set()


@loop_fixture
async def line(bench, shop):
    """Have a wire that threads may send on."""
    yield Line(bench)


def test_of_all_who_want_to_answer_one_may():
    for _ in range(50):
        call = Call(Request(PROTOCOL_VERSION, 1, "shop", "quick", {}, None), Peer(), FakeClock())
        call.reply_lock = threading.Lock()
        barrier, won = threading.Barrier(8), []

        def claim(call=call, barrier=barrier, won=won):
            barrier.wait()
            won.append(call.claim_reply())

        threads = [threading.Thread(target=claim) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == [False] * 7 + [True]
        assert call.is_answered


async def test_a_reply_goes_out_while_the_loop_stands(bench, line):
    out = threading.Event()

    def send(client, data, claim):
        assert claim()
        out.set()
        return bench.wire.send(client, data)

    bench.wire.send_from_thread = send
    bench.send(request(1, "quick"))
    assert out.wait(5)  # on the loop's thread


async def test_it_is_counted_before_the_next_message_is_looked_at(bench, line):
    line.on_loop = lambda what: None
    for answers in (1, 2, 3):
        bench.send(request(7, "quick"))
        bench.dispatcher.spin_for_threads()
        until = time.monotonic() + 5
        while len(bench.answers()) < answers and time.monotonic() < until:
            time.sleep(0.001)  # as a client that waits for its answer; the loop has no turn
    assert len(bench.answers()) == 3
    assert bench.server.invalid_messages == {}, "whoever was answered may use its number again"
    assert bench.server.stats()["in_flight"] == 0
    assert bench.dispatcher.stats()["shop"]["replies"] == 3


async def test_the_loop_counts_it_by_itself_soon_also_after_long_work(bench, line, shop):
    bench.send(request(1, "quick"))
    await until(lambda: not bench.dispatcher.in_flight("shop"))
    bench.send(request(2, "held"))
    await until(lambda: bench.dispatcher.thread_replies._timer is None)
    shop.go_on.set()
    await until(lambda: not bench.dispatcher.in_flight("shop"))
    assert line.by_threads == 2
    assert bench.dispatcher.in_flight("shop") == 0


@pytest.mark.failure_mode("RPC", "a thread and the loop that write to one connection")
@pytest.mark.parametrize("how", ["cancel", "deadline", "gone", "close"])
@pytest.mark.parametrize("when", ["before", "between"])
async def test_a_thread_and_the_loop_want_to_answer_at_once(bench, line, how, when):
    bench.audit = audit = Audit()

    def step_in():
        if how == "cancel":
            bench.send(encode_message(Cancel(PROTOCOL_VERSION, 1)))
        elif how == "deadline":
            bench.clock.advance(60)
            bench.dispatcher._check_deadlines(bench.clock.monotonic())
        elif how == "gone":
            bench.server.on_client_gone("client")
        else:
            bench.dispatcher.close()

    setattr(line, when, step_in)
    bench.send(request(1, "quick", timeout=30))
    await until(lambda: not bench.pool.in_flight_numbers() and not bench.dispatcher.in_flight("shop"))
    stats = bench.dispatcher.stats()["shop"]
    answers = bench.answers()
    if when == "between":
        assert [type(answer) for answer in answers] == [Reply]
        assert (line.by_threads, stats["replies"], sum(stats["errors"].values())) == (1, 1, 0)
        assert audit.seen == [(1, None)]
    else:
        assert [type(answer) for answer in answers] == ([] if how == "gone" else [Failure])
        assert (line.by_threads, stats["replies"]) == (0, 0)
        assert len(audit.seen) == 1
    assert stats["in_flight"] == 0


async def test_progress_goes_out_before_the_reply(bench, line):
    bench.send(request(1, "steps", flags=PROGRESS))
    await until(lambda: len(bench.answers()) and type(bench.answers()[-1]) is Reply)
    assert {type(answer) for answer in bench.answers()[:-1]} == {ProgressReport}
    assert line.by_threads == 0
    bench.send(request(2, "quick", flags=PROGRESS))
    await until(lambda: line.by_threads == 1)


async def test_casts_streams_and_what_may_come_again_go_through_the_loop(bench, line, shop):
    bench.send(request(1, "quick", flags=CAST))
    bench.send(request(2, "items", flags=STREAM, credit=100))
    bench.send(request(3, "quick", flags=RETRY, request_id="r"))
    await until(lambda: sum(isinstance(answer, Reply) for answer in bench.answers()) == 2)
    bench.send(request(4, "quick", flags=RETRY, request_id="r"))
    kinds = [type(answer) for answer in bench.answers()]
    assert kinds.count(Accepted) == 1
    assert kinds.index(Items) < kinds.index(Reply, kinds.index(Items))
    assert [answer.id for answer in bench.answers()][-1] == 4, "the repeat has the answer that was kept"
    assert (shop.runs, line.by_threads) == (2, 0)


async def test_errors_and_results_that_cannot_be_sent_go_through_the_loop(bench, line):
    bench.send(request(1, "wrong"))
    bench.send(request(2, "unfit"))
    await until(lambda: len(bench.answers()) == 2)
    assert {answer.names[0] for answer in bench.answers()} == {"ostler.Cancelled", "ostler.EncodeError"}
    assert line.by_threads == 0


async def test_with_a_tracer_calls_end_on_the_loop(open_bench):
    ended = []
    tracer = SimpleNamespace(
        begin=lambda call: nullcontext(), end=lambda call, error: ended.append(error), refused=None
    )
    async with open_bench(tracer=tracer) as bench:
        bench.add("shop", Shop())
        line = Line(bench)
        bench.send(request(1, "quick"))
        await until(lambda: len(bench.answers()) == 1)
        assert (ended, line.by_threads) == ([None], 0)


async def test_the_time_that_is_counted_ends_with_the_reply(bench, line):
    line.between = lambda: bench.clock.advance(100)
    bench.send(request(1, "quick"))
    await until(lambda: line.by_threads == 1 and not bench.dispatcher.in_flight("shop"))
    (method,) = [m for m in bench.dispatcher.endpoints()[0].methods.values() if m.name == "quick"]
    assert method.stats.total_seconds < 1


async def test_a_transport_whose_sockets_are_the_loops_is_not_asked(bench):
    bench.add("shop", Shop())
    bench.wire.send_from_thread = None
    bench.send(request(1, "quick"))
    await until(lambda: len(bench.answers()) == 1)
    assert bench.dispatcher.thread_replies._timer is None
