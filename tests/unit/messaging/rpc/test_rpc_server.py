import asyncio
import threading

from ostler.messaging import Context, exposed
from ostler.messaging.rpc.rpc_server import ServerLimits
from ostler.messaging.wire.envelope import (
    CAST,
    PROGRESS,
    PROTOCOL_VERSION,
    Accepted,
    Cancel,
    Failure,
    Keepalive,
    ProgressReport,
    Reply,
    Request,
    encode_message,
    encode_request,
)
from support.waiting import until

# private: _check_deadlines, _send_keepalives: as the timer calls it, which does not go by the test's clock


class Shop:
    def __init__(self):
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.cancelled = 0
        self.runs = 0

    @exposed(role="viewer")
    async def echo(self, ctx: Context, text: str = "") -> str:
        return text

    @exposed()
    async def sleep(self, ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    @exposed()
    async def stubborn(self, ctx: Context) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return "late"

    @exposed()
    def work(self, ctx: Context) -> str:
        self.runs += 1
        self.begun.set()
        self.go_on.wait(10)
        return "done"

    @exposed()
    async def steps(self, ctx: Context) -> None:
        for step in range(5):
            ctx.progress(step, 5)
        await asyncio.sleep(0)
        ctx.progress(5, 5)


def request(number, method, flags=0, **options):
    return encode_request(
        Request(
            PROTOCOL_VERSION,
            number,
            "shop",
            method,
            options.pop("arguments", {}),
            options.pop("timeout", None),
            flags=flags,
        )
    )


async def test_what_ends_at_once_is_answered_at_once(bench):
    bench.add("shop", Shop())
    assert await bench.send_from_callback(request(1, "echo", arguments={"text": "a"})) == 1
    (answer,) = bench.answers()
    assert isinstance(answer, Reply)
    assert bytes(answer.result) == b"\xa1a"
    assert bench.server.stats()["in_flight"] == 0


async def test_each_client_that_waits_gets_one_beat_an_interval_with_all_its_calls(open_bench):
    async with open_bench(limits=ServerLimits(keepalive_interval=30.0)) as bench:
        bench.add("shop", Shop())
        for number in (1, 2):
            bench.send(request(number, "sleep"))
        bench.send(request(1, "sleep"), client="other")
        bench.clock.advance(1)
        bench.server._send_keepalives(bench.clock.monotonic())
        assert bench.answers() == [Keepalive(PROTOCOL_VERSION, [1, 2], 30.0)]
        assert bench.answers("other") == [Keepalive(PROTOCOL_VERSION, [1], 30.0)]
        bench.clock.advance(29)
        assert bench.server._send_keepalives(bench.clock.monotonic()) == bench.clock.monotonic() + 1
        bench.clock.advance(1)
        bench.server._send_keepalives(bench.clock.monotonic())
        assert len(bench.answers()) == 2


async def test_nobody_is_sent_beats_when_nobody_waits(bench):
    bench.add("shop", Shop())
    bench.send(request(1, "sleep"))
    bench.send(encode_message(Cancel(PROTOCOL_VERSION, 1)))
    await until(lambda: bench.dispatcher.in_flight("shop") == 0)
    assert bench.server._send_keepalives(bench.clock.monotonic() + 100) is None
    assert [type(answer) for answer in bench.answers()] == [Failure]


async def test_a_client_that_has_gone_is_found_out_by_a_beat_and_its_work_is_stopped(bench):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1, "sleep"))
    bench.send(request(1, "sleep"), client="other")
    bench.wire.gone.add("client")
    bench.clock.advance(1)
    bench.server._send_keepalives(bench.clock.monotonic())
    await until(lambda: shop.cancelled == 1)
    stats = bench.server.stats()
    assert (stats["garbage"], stats["clients"], stats["in_flight"], stats["vanished"]) == ({}, 1, 1, 1)


async def test_casts_of_a_client_that_has_gone_go_on(bench):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1, "work", CAST))
    assert bench.answers() == [Accepted(PROTOCOL_VERSION, 1, 1)]
    bench.wire.gone.add("client")
    assert bench.server.stats()["in_flight"] == 0
    shop.go_on.set()
    await until(lambda: bench.dispatcher.in_flight("shop") == 0)
    assert shop.runs == 1
    assert bench.server.stats()["vanished"] == 0


async def test_a_cancelled_thread_is_left_out_of_beats_but_still_counts(bench):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1, "work"))
    await asyncio.to_thread(shop.begun.wait, 5)
    bench.send(encode_message(Cancel(PROTOCOL_VERSION, 1)))
    assert [answer.names[0] for answer in bench.answers()] == ["ostler.Cancelled"]
    bench.clock.advance(1)
    bench.server._send_keepalives(bench.clock.monotonic())
    assert bench.answers()[-1] == Keepalive(PROTOCOL_VERSION, [], 1.0)
    assert bench.dispatcher.in_flight("shop") == 1
    shop.go_on.set()
    await until(lambda: bench.dispatcher.in_flight("shop") == 0)
    assert len(bench.answers()) == 2, "the late result is nobody's"


async def test_a_method_that_refuses_to_be_cancelled_does_not_hold_its_caller(bench):
    bench.add("shop", Shop())
    bench.send(request(1, "stubborn", timeout=5.0))
    bench.clock.advance(5)
    bench.dispatcher._check_deadlines(bench.clock.monotonic())
    assert [answer.names[0] for answer in bench.answers()] == ["ostler.DeadlineExceeded"]
    await until(lambda: bench.dispatcher.in_flight("shop") == 0)
    assert len(bench.answers()) == 1


async def test_nobody_cancels_what_is_anothers(bench):
    bench.add("shop", Shop())
    bench.send(request(1, "sleep"))
    bench.send(encode_message(Cancel(PROTOCOL_VERSION, 1)), client="stranger")
    assert bench.dispatcher.in_flight("shop") == 1
    assert bench.answers() == []


async def test_a_number_that_is_used_twice_at_once_is_garbage(bench):
    bench.add("shop", Shop())
    bench.send(request(1, "sleep"))
    bench.send(request(1, "echo"))
    assert bench.answers() == []
    assert bench.server.invalid_messages == {"duplicate": 1}


async def test_progress_is_thinned_and_its_last_word_comes_before_the_result(bench):
    bench.add("shop", Shop())
    bench.send(request(1, "steps", PROGRESS))
    bench.send(request(2, "steps"))
    await until(lambda: len([a for a in bench.answers() if isinstance(a, Reply)]) == 2)
    mine = [answer for answer in bench.answers() if answer.id == 1]
    assert mine[0] == ProgressReport(PROTOCOL_VERSION, 1, 0.0, 5.0, "")
    assert mine[-2] == ProgressReport(PROTOCOL_VERSION, 1, 5.0, 5.0, "")
    assert len(mine) == 3
    assert [type(answer) for answer in bench.answers() if answer.id == 2] == [Reply], "nobody asked"


async def test_closing_stops_what_is_under_way(bench):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1, "sleep"))
    bench.server.close()
    await until(lambda: shop.cancelled == 1)
    bench.server.close()


async def test_the_end_of_a_cast_is_not_that_of_another_request_with_its_number(bench):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1, "work", CAST))
    await asyncio.to_thread(shop.begun.wait, 5)
    bench.send(request(1, "sleep"))
    shop.go_on.set()
    await until(lambda: bench.dispatcher.in_flight("shop") == 1)
    assert bench.server.stats()["in_flight"] == 1
    bench.send(encode_message(Cancel(PROTOCOL_VERSION, 1)))
    await until(lambda: shop.cancelled == 1)
    assert [type(answer) for answer in bench.answers()] == [Accepted, Failure]
