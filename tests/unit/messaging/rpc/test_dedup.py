"""Requests that come again, on a wire that the test holds."""

import asyncio
import threading

import pytest

from ostler.errors import Busy
from ostler.messaging import Access, Context, exposed
from ostler.messaging.rpc.dedup import with_request_number
from ostler.messaging.rpc.rpc_server import DedupLimits, ServerLimits
from ostler.messaging.wire.envelope import (
    PROTOCOL_VERSION,
    RETRY,
    Cancel,
    Failure,
    Reply,
    Request,
    encode_failure,
    encode_message,
    encode_reply,
    encode_request,
    peek_header,
)
from ostler.types import Peer
from support.waiting import until

# private: _check_deadlines, _send_keepalives: as the timer calls it, which does not go by the test's clock


class Shop:
    def __init__(self):
        self.runs = 0
        self.cancelled = 0
        self.go_on = asyncio.Event()
        self.leave = threading.Event()

    @exposed()
    async def work(self, ctx: Context) -> int:
        self.runs += 1
        number = self.runs
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return number

    @exposed()
    def stuck(self, ctx: Context) -> int:
        self.runs += 1
        self.leave.wait(5)
        return self.runs

    @exposed(role="admin")
    async def close(self, ctx: Context) -> int:
        self.runs += 1
        return self.runs


def request(number, method="work", request_id="the-id", timeout=None):
    return encode_request(Request(PROTOCOL_VERSION, number, "shop", method, {}, timeout, request_id, RETRY))


def ends(bench, client="client"):
    return [message for message in bench.answers(client) if type(message) in (Reply, Failure)]


async def test_each_attempt_that_is_answered_is_answered_under_its_own_number(bench):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1))
    bench.send(request(7), client="another connection")
    assert bench.server.stats()["in_flight"] == 1
    shop.go_on.set()
    await until(lambda: ends(bench, "another connection"))
    bench.send(request(9))
    assert [message.id for message in ends(bench)] == [9]
    assert [message.id for message in ends(bench, "another connection")] == [7]
    assert shop.runs == 1


@pytest.mark.failure_mode("RPC", "the same request twice")
async def test_a_request_that_may_come_again_is_not_the_request_of_somebody_else(bench):
    bench.apply(access=Access(operator=["*", "key:me"], keys={"k" * 40: "me"}))
    shop = Shop()
    bench.add("shop", shop)
    shop.go_on.set()
    for number, peer in enumerate((Peer(1), Peer(2), Peer(1, key="k" * 40), Peer(1))):
        bench.send(request(number), peer=peer)
        await until(lambda: len(ends(bench)) == number + 1)  # noqa: B023 - waited for before the next one
    assert [bytes(message.result) for message in ends(bench)] == [b"\x01", b"\x02", b"\x03", b"\x01"]


async def test_who_has_lost_its_role_gets_no_answer_that_was_kept_and_joins_nothing(bench):
    shop, ann = Shop(), Peer(4001, 4001, 1, "uid 4001")
    bench.add("shop", shop)
    bench.apply(access=Access(own_uid=0, operator=["4001"]))
    bench.send(request(1, request_id="under way"), peer=ann)
    shop.go_on.set()
    bench.send(request(2, request_id="done"), peer=ann)
    await until(lambda: len(ends(bench)) == 2)
    shop.go_on.clear()
    bench.send(request(3, request_id="another"), peer=ann)
    bench.apply(access=Access(own_uid=0))
    for number, request_id in enumerate(("done", "another", "new"), 4):
        bench.send(request(number, request_id=request_id), client="again", peer=ann)
    assert [message.names[0] for message in ends(bench, "again")] == ["ostler.NotPermitted"] * 3
    assert bench.server.stats()["duplicates"]["ids"] == 3
    shop.go_on.set()
    await until(lambda: len(ends(bench)) == 3)


async def test_a_request_without_an_id_is_never_a_repeat(bench):
    shop = Shop()
    bench.add("shop", shop)
    shop.go_on.set()
    for number in range(2):
        bench.send(request(number, request_id=""))
    await until(lambda: len(ends(bench)) == 2)
    assert shop.runs == 2


async def test_the_role_is_asked_for_at_each_attempt_that_was_refused(bench):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1, "close"), peer=Peer(5))
    assert ends(bench)[0].names[0] == "ostler.NotPermitted"
    bench.apply(access=Access(admin=["*"]))
    bench.send(request(2, "close"), peer=Peer(5))
    await until(lambda: len(ends(bench)) == 2)
    assert bytes(ends(bench)[1].result) == b"\x01"


async def test_work_of_a_caller_that_has_gone_goes_on_for_the_grace_time_only(bench):
    bench.server.apply(ServerLimits(dedup=DedupLimits(orphan_grace=0.05)))
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1))
    bench.wire.gone.add("client")
    bench.clock.advance(1)
    bench.server._send_keepalives(bench.clock.monotonic())
    assert bench.server.stats()["in_flight"] == 0
    assert shop.cancelled == 0
    bench.send(request(2), client="another connection")
    assert bench.server.stats()["in_flight"] == 1
    await asyncio.sleep(0.1)
    assert shop.cancelled == 0, "it came back in time"
    bench.wire.gone.add("another connection")
    bench.clock.advance(10)
    bench.server._send_keepalives(bench.clock.monotonic())
    await until(lambda: shop.cancelled == 1)


async def test_a_thread_that_does_not_end_does_not_make_a_repeat_wait_for_it(bench):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(request(1, "stuck"))
    await until(lambda: shop.runs == 1)
    bench.send(encode_message(Cancel(PROTOCOL_VERSION, 1)))
    bench.send(request(2, "stuck"))
    assert [message.names[0] for message in ends(bench)] == ["ostler.Cancelled"] * 2
    shop.leave.set()
    await until(lambda: bench.dispatcher.in_flight("shop") == 0)
    assert shop.runs == 1
    assert len(ends(bench)) == 2


@pytest.mark.parametrize(
    "message", [encode_reply(1, [1, "x"], 1000, "a", "b"), encode_failure(1, Busy("full", retry_after=1))]
)
def test_an_answer_is_addressed_anew_without_a_change(message):
    assert with_request_number(message, 1) is message
    other = with_request_number(message, 2**40)
    assert peek_header(other)[2] == 2**40
    assert with_request_number(other, 1) == message


async def test_all_attempts_together_have_the_time_of_the_first(bench):
    bench.add("shop", Shop())
    bench.send(request(1, timeout=5.0))
    bench.send(request(2), client="another connection")
    bench.clock.advance(5)
    bench.dispatcher._check_deadlines(bench.clock.monotonic())
    (end,) = ends(bench, "another connection")
    assert (end.names[0], end.id) == ("ostler.DeadlineExceeded", 2)
    assert "within 5s" in end.message


class Till:
    """Counts how often each request was really run."""

    def __init__(self):
        self.runs = 0

    @exposed(role="viewer")
    async def ring(self, ctx: Context) -> int:
        self.runs += 1
        return self.runs


async def test_a_viewer_with_many_requests_cannot_have_the_answer_of_another_forgotten(bench):
    till, ann, ben = Till(), Peer(4001, 4001, 1, "uid 4001"), Peer(4002, 4002, 2, "uid 4002")
    bench.apply(access=Access(own_uid=0, viewer=["4001", "4002"]))
    bench.server.apply(ServerLimits(dedup=DedupLimits(max_results=20)))
    bench.add("shop", till)
    await bench.send_from_callback(request(1, "ring", "precious"), peer=ben)
    for number in range(300):
        peer = Peer(4001, 4001, number, "uid 4001")
        await bench.send_from_callback(request(number, "ring", f"cheap {number}"), f"process {number}", peer)
    await bench.send_from_callback(request(2, "ring", "precious"), peer=ben)
    first, again = ends(bench)
    assert (bytes(first.result), bytes(again.result), till.runs) == (b"\x01", b"\x01", 301)
    stats = bench.server.dedup_cache.stats()
    assert stats["answers"] <= 20
    assert stats["ids"] <= 200
    await bench.send_from_callback(request(3, "ring", "cheap 299"), "process 299", ann)
    assert till.runs == 301, "its own newest are kept"
    await bench.send_from_callback(request(3, "ring", "cheap 0"), "process 0", ann)
    assert till.runs == 302, "its own oldest went"


async def test_a_request_that_could_not_be_remembered_is_refused_and_not_run(bench):
    till = Till()
    bench.apply(access=Access(own_uid=0, viewer=["*"]))
    bench.server.apply(ServerLimits(dedup=DedupLimits(max_results=1)))  # ten ids
    bench.add("shop", till)
    for uid in range(4001, 4011):
        await bench.send_from_callback(request(1, "ring"), uid, Peer(uid, uid, 1, f"uid {uid}"))
    assert till.runs == 10
    await bench.send_from_callback(request(1, "ring"), "late", Peer(5000, 5000, 1, "uid 5000"))
    (refused,) = ends(bench, "late")
    assert refused.names[0] == "ostler.Busy"
    assert till.runs == 10


async def test_lower_limits_take_effect_with_the_next_answer(bench):
    till = Till()
    bench.add("shop", till)
    bench.server.apply(ServerLimits(dedup=DedupLimits(max_results=100)))
    for number in range(40):
        await bench.send_from_callback(request(number, "ring", f"id {number}"))
    assert bench.server.dedup_cache.stats()["answers"] == 40
    bench.server.apply(ServerLimits(dedup=DedupLimits(max_results=2)))
    await bench.send_from_callback(request(99, "ring", "the last"))
    stats = bench.server.dedup_cache.stats()
    assert stats["answers"] <= 2
    assert stats["ids"] <= 20


class Watch:
    """An audit that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def record(self, call, error):
        self.lines.append((call.request.method, type(error).__name__ if error is not None else "done"))


async def test_repeats_are_one_line_of_the_audit_and_those_that_are_refused_are_in_it(bench):
    shop, audit = Shop(), Watch()
    bench.add("shop", shop)
    bench.audit = audit
    bench.send(request(1))
    bench.send(request(2), client="another connection")
    await until(lambda: shop.runs == 1)
    shop.go_on.set()
    await until(lambda: ends(bench, "another connection"))
    bench.send(request(3))
    assert len(ends(bench)) == 1
    assert audit.lines == [("work", "done")]
    bench.send(request(4, "stuck"))
    assert audit.lines[1:] == [("stuck", "Conflict")], "another request under the same id"


async def test_requests_above_the_limit_of_a_connection_are_in_the_audit_and_counted(open_bench):
    async with open_bench(limits=ServerLimits(max_in_flight_per_peer=1)) as bench:
        shop, audit = Shop(), Watch()
        bench.add("shop", shop)
        bench.audit = audit
        bench.send(request(1, request_id="a"))
        bench.send(request(2, request_id="b"))
        assert ends(bench)[0].names[0] == "ostler.Busy"
        assert audit.lines == [("work", "Busy")]
        assert bench.dispatcher.stats()["shop"]["refused"] == 1
        shop.go_on.set()
