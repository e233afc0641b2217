import asyncio
import threading

import msgspec
import pytest

from ostler.aio import LoopQueue
from ostler.clock import FakeClock
from ostler.errors import Busy, Conflict, NotPermitted, ServiceNotFound
from ostler.messaging import Access, Context, Dispatcher, Endpoint, exposed
from ostler.messaging.clients.local_client import LocalServiceClient
from ostler.messaging.wire.envelope import (
    CAST,
    FANOUT,
    PROTOCOL_VERSION,
    Accepted,
    Failure,
    Reply,
    Request,
    encode_request,
)
from ostler.messaging.wire.request_context import Relayed
from ostler.types import Peer, Role
from support.waiting import until

# private: _check_deadlines: as the timer calls it, which does not go by the test's clock


class Shop:
    rpc_version = "1.0"

    def __init__(self):
        self.go_on = threading.Event()
        self.ran = []

    @exposed(role="viewer")
    async def echo(self, ctx: Context, text: str = "") -> str:
        """Return the text."""
        return text

    @exposed()
    def work(self, ctx: Context) -> int:
        self.ran.append(ctx.request_id)
        self.go_on.wait(10)
        return 1

    @exposed()
    async def value_error(self, ctx: Context) -> None:
        raise ValueError

    @exposed()
    async def cancels_itself(self, ctx: Context) -> None:
        raise asyncio.CancelledError


def ask(method, *, number=1, topic="shop", flags=0, timeout=None, request_id="r-1"):
    return encode_request(Request(PROTOCOL_VERSION, number, topic, method, {}, timeout, request_id, flags))


def names(bench):
    return [answer.names[0].partition(".")[2] if isinstance(answer, Failure) else type(answer).__name__
            for answer in bench.answers()]  # fmt: skip


async def test_topics_are_opened_closed_and_described(bench):
    bench.add("shop", Shop())
    with pytest.raises(Conflict, match="already open"):
        bench.add("shop", Shop())
    assert bench.dispatcher.registry.topics() == ["shop"]
    assert [each.method for each in bench.dispatcher.registry.describe("shop")] == [
        "cancels_itself", "echo", "value_error", "work",
    ]  # fmt: skip
    bench.dispatcher.registry.remove_endpoint("shop")
    bench.dispatcher.registry.remove_endpoint("shop")
    bench.dispatcher.set_draining("shop", "gone")
    assert bench.dispatcher.in_flight("shop") == 0
    with pytest.raises(ServiceNotFound):
        bench.dispatcher.registry.describe("shop")
    bench.send(ask("echo"))
    assert names(bench) == ["ServiceNotFound"]


async def test_requests_that_find_no_open_topic_are_counted_by_known_topics(bench):
    bench.dispatcher.registry.mark_starting("shop")
    for topic in ("shop", *(f"hostile{number}" for number in range(100))):
        bench.send(ask("echo", topic=topic))
    assert bench.dispatcher.stray_refusals == {("shop", "Busy"): 1, ("", "ServiceNotFound"): 100}


async def test_whoever_wants_to_know_is_told_of_a_topic_that_closes(bench):
    closed = []
    bench.dispatcher.registry.on_close = closed.append
    bench.add("shop", Shop())
    bench.dispatcher.registry.remove_endpoint("shop")
    bench.dispatcher.registry.remove_endpoint("shop")
    assert [endpoint.topic for endpoint in closed] == ["shop"]


async def test_everything_is_counted(bench):
    shop = Shop()
    bench.add("shop", shop)
    shop.go_on.set()
    for number, method in enumerate(["echo", "echo", "nothing", "value_error", "work"]):
        bench.send(ask(method, number=number))
    while bench.dispatcher.in_flight("shop"):
        await asyncio.sleep(0.002)
    assert bench.dispatcher.stats() == {
        "shop": {
            "requests": 4, "replies": 3, "errors": {"MethodNotFound": 1, "InternalError": 1}, "refused": 1,
            "in_flight": 0, "queued": 0,
        }
    }  # fmt: skip


async def test_a_method_that_says_it_was_cancelled_is_an_internal_error(bench, caplog):
    bench.add("shop", Shop())
    await bench.send_from_callback(ask("cancels_itself"))
    assert names(bench) == ["InternalError"]
    assert [record.request_id for record in caplog.records] == ["r-1"]


async def test_an_expired_request_in_the_queue_is_never_begun(bench):
    shop = Shop()
    bench.add("shop", shop)
    for number in range(4):
        bench.send(ask("work", number=number, timeout=5.0, request_id=f"r-{number}"))
    while len(shop.ran) < 2:
        await asyncio.sleep(0.002)
    bench.clock.advance(5)
    bench.dispatcher._check_deadlines(bench.clock.monotonic())
    assert names(bench) == ["DeadlineExceeded"] * 4
    shop.go_on.set()
    while bench.dispatcher.in_flight("shop"):
        await asyncio.sleep(0.002)
    assert len(shop.ran) == 2


async def test_a_cast_has_no_deadline_for_its_work(bench):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(ask("work", flags=CAST, timeout=5.0))
    bench.clock.advance(100)
    assert bench.dispatcher._check_deadlines(bench.clock.monotonic()) is None
    shop.go_on.set()
    while bench.dispatcher.in_flight("shop"):
        await asyncio.sleep(0.002)
    assert bench.answers() == [Accepted(PROTOCOL_VERSION, 1, 1)]


async def test_fanouts_are_told_when_they_were_accepted(bench):
    bench.add("shop", Shop())
    bench.send(ask("echo", flags=CAST | FANOUT))
    bench.send(ask("echo", topic="nowhere", flags=CAST | FANOUT, number=2))
    assert bench.answers() == [Accepted(PROTOCOL_VERSION, 1, 1), Accepted(PROTOCOL_VERSION, 2, 0)]
    assert bench.fanouts == [("shop", "echo", "r-1")]


async def test_what_is_under_way_at_the_end_is_answered_draining(bench):
    shop = Shop()
    bench.add("shop", shop)
    bench.send(ask("work"))
    bench.dispatcher.close()
    assert names(bench) == ["Draining"]
    shop.go_on.set()


async def test_roles_follow_a_reload(bench):
    bench.add("shop", Shop())
    stranger = Peer(4242, 4242, 1, "uid 4242")
    await bench.send_from_callback(ask("echo"), peer=stranger)
    bench.apply(access=Access(viewer=["4242"], own_uid=0))
    await bench.send_from_callback(ask("echo"), peer=stranger)
    assert names(bench) == ["NotPermitted", "Reply"]
    assert isinstance(bench.answers()[1], Reply)


async def test_a_defect_of_ours_is_an_internal_error_and_not_the_end(bench, caplog):
    bench.add("shop", Shop())
    bench.access.role_of = lambda peer: 1 / 0
    await bench.send_from_callback(ask("echo"))
    del bench.access.role_of
    await bench.send_from_callback(ask("echo"))
    assert names(bench) == ["InternalError", "Reply"]
    assert "ZeroDivisionError" in caplog.text


async def test_an_endpoint_without_threads_needs_none():
    class Quick:
        @exposed()
        async def echo(self, ctx: Context) -> None: ...

    dispatcher = Dispatcher(Access(), FakeClock(), LoopQueue(asyncio.get_running_loop()), host="here")
    dispatcher.registry.add_endpoint(Endpoint("quick", "here", Quick(), None))
    assert dispatcher.stats()["quick"]["queued"] == 0


async def test_topics_that_start_failed_were_stopped_or_do_not_exist_differ(bench):
    def said():
        bench.send(ask("echo"))
        failure = bench.answers()[-1]
        return failure.names[0].partition(".")[2], failure.message, failure.details

    bench.dispatcher.registry.mark_starting("shop")
    name, message, facts = said()
    assert (name, message, facts["retry_after"]) == ("Busy", f"shop on {bench.dispatcher.host} is starting", 1.0)
    with pytest.raises(Busy, match="is starting"):
        bench.dispatcher.registry.describe("shop")
    bench.dispatcher.registry.mark_unavailable("shop", "no disk")
    name, message, facts = said()
    assert (name, facts["state"]) == ("ServiceNotFound", "failed")
    assert message == f"shop on {bench.dispatcher.host} could not be started: no disk"
    bench.add("shop", Shop())
    await bench.send_from_callback(ask("echo"))
    assert names(bench)[-1] == "Reply"
    bench.dispatcher.registry.remove_endpoint("shop")
    assert "service 'shop' not found" in said()[1]
    bench.dispatcher.registry.mark_unavailable("shop", "")
    assert said()[:2] == ("Draining", f"shop on {bench.dispatcher.host} has been stopped")


class Desk:
    @exposed(role="operator")
    async def whose(self, ctx: Context) -> str:
        return ctx.host

    @exposed(role="operator")
    async def speak(self, ctx: Context, on_host: str) -> None:
        ctx.check_host(on_host)


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        (Peer(0, 0, 1, "uid 0"), "here"),
        (Peer(4003, 4003, 1, "uid 4003"), "here"),
        (Peer(4001, 4001, 1, "uid 4001"), ""),
        (Peer(name="key:node2", key="2" * 40), "node2"),
        (Peer(name="key:boss", key="3" * 40), "boss"),
    ],
)
async def test_a_request_carries_the_host_for_which_its_caller_speaks(bench, peer, host):
    bench.apply(Access(
        own_uid=0, operator=["4001", "key:node2"], admin=["4003", "key:boss"],
        keys={"2" * 40: "node2", "3" * 40: "boss"},
    ))  # fmt: skip
    bench.add("desk", Desk())
    await bench.send_from_callback(encode_request(Request(PROTOCOL_VERSION, 1, "desk", "whose", {})), peer=peer)
    (reply,) = bench.answers()
    assert msgspec.msgpack.decode(reply.result) == host
    for number, (name, right) in enumerate({"node1": False, host or "nobody": bool(host)}.items(), 2):
        request = Request(PROTOCOL_VERSION, number, "desk", "speak", {"on_host": name})
        await bench.send_from_callback(encode_request(request), peer=peer)
        assert isinstance(bench.answers()[-1], Reply if right else Failure)
    assert "must not call desk.speak on behalf of host node1" in bench.answers()[1].message


async def test_the_daemon_itself_speaks_for_its_own_host(bench):
    bench.add("desk", Desk())
    client = LocalServiceClient(bench.dispatcher, bench.inbox, topic="other")
    assert await client.acall("desk", "whose") == "here"
    with pytest.raises(NotPermitted, match="on behalf of host node2"):
        await client.acall("desk", "speak", on_host="node2")


class Works:
    def __init__(self):
        self.cancelled = []
        self.gate = threading.Event()
        self.ran = 0

    @exposed(role="operator")
    async def work(self, ctx: Context) -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled.append(ctx.peer.uid)
            raise
        return "done"

    @exposed(role="operator")
    def wait(self, ctx: Context) -> None:
        self.ran += 1
        self.gate.wait(10)

    @exposed(role="viewer")
    async def relay(self, ctx: Context) -> None:
        ctx.relayed = Relayed("node2", "lamp.dim", Role.OPERATOR)
        await asyncio.sleep(3600)


ANN, BEN = Peer(4001, 4001, 1, "uid 4001"), Peer(4002, 4002, 2, "uid 4002")


def wire(method, number=1, flags=0):
    return encode_request(Request(PROTOCOL_VERSION, number, "works", method, {}, None, flags=flags))


async def test_what_is_relayed_ends_when_its_caller_has_become_viewer(bench):
    bench.apply(access=Access(own_uid=0, operator=["4001", "4002"]))
    bench.add("works", Works())
    for peer in (ANN, BEN):
        bench.send(wire("relay"), client=peer.uid, peer=peer)
    await asyncio.sleep(0)
    bench.dispatcher.cancel_unauthorised()
    assert bench.answers(4001) == []
    bench.apply(access=Access(own_uid=0, operator=["4002"], viewer=["4001"]))
    bench.dispatcher.cancel_unauthorised()
    (end,) = bench.answers(4001)
    assert end.names[0] == "ostler.NotPermitted"
    assert "lamp.dim on node2 needs the role operator, uid 4001 has viewer here" in end.message
    assert bench.answers(4002) == []


async def test_work_that_was_begun_is_left_to_end_unless_its_caller_has_no_role_at_all(bench):
    works = Works()
    bench.apply(access=Access(own_uid=0, operator=["4001"]))
    bench.add("works", works)
    bench.send(wire("work"), client=4001, peer=ANN)
    await asyncio.sleep(0)
    bench.apply(access=Access(own_uid=0, viewer=["4001"]))
    bench.dispatcher.cancel_unauthorised()
    await asyncio.sleep(0)
    assert bench.answers(4001) == []
    bench.apply(access=Access(own_uid=0))
    bench.dispatcher.cancel_unauthorised()
    assert "uid 4001 has no role here" in bench.answers(4001)[0].message
    await until(lambda: works.cancelled == [4001])


@pytest.mark.parametrize("flags", [0, CAST])
async def test_work_that_waits_for_a_thread_is_not_begun_for_one_who_has_lost_the_role(bench, flags):
    works = Works()
    bench.apply(access=Access(own_uid=0, operator=["4001", "4002"]))
    bench.add("works", works)
    for number in range(bench.pool.size):
        bench.send(wire("wait", number), client=4002, peer=BEN)
    await until(lambda: works.ran == bench.pool.size)
    bench.send(wire("wait", flags=flags), client=4001, peer=ANN)
    bench.apply(access=Access(own_uid=0, operator=["4002"], viewer=["4001"]))
    bench.dispatcher.cancel_unauthorised()
    works.gate.set()
    await until(lambda: bench.dispatcher.in_flight("works") == 0)
    assert works.ran == bench.pool.size
    assert bench.answers(4001)[-1].names[0] == "ostler.NotPermitted" if not flags else True


async def test_nobody_is_judged_while_the_groups_that_decide_are_looked_up(bench):
    found, told = threading.Event(), []

    def groups_of(peer):
        found.wait(10)
        return frozenset({77})

    bench.apply(access=Access(own_uid=0, operator=["4001"]))
    bench.add("works", Works())
    bench.send(wire("relay"), client=4001, peer=ANN)
    await asyncio.sleep(0)
    bench.apply(
        Access(own_uid=0, operator=["@78"], viewer=["@77"], groups_of=groups_of, on_groups_found=lambda: told.append(1))
    )
    bench.dispatcher.cancel_unauthorised()
    assert bench.answers(4001) == []
    found.set()
    await until(lambda: told == [1])
    bench.dispatcher.cancel_unauthorised()
    assert bench.answers(4001)[0].names[0] == "ostler.NotPermitted"
