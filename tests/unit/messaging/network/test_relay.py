"""Requests over a socket that are for other hosts: they go where those of a manager go."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

from ostler.daemon.control.control_endpoint import ControlEndpoint
from ostler.daemon.control.monitoring_sources import MonitoringSources
from ostler.daemon.daemon_parts import DaemonParts
from ostler.errors import Busy, Conflict, ConnectionLost, DaemonNotRunning, Draining
from ostler.messaging import Access, Context, exposed
from ostler.messaging.clients.local_client import LocalServiceClient
from ostler.messaging.network.relay import Relay
from ostler.messaging.network.routing import Router
from ostler.messaging.wire.envelope import (
    CAST,
    FANOUT,
    LENIENT,
    PROTOCOL_VERSION,
    RETRY,
    STREAM,
    Accepted,
    Failure,
    Items,
    Reply,
    Request,
    encode_request,
)
from ostler.types import MethodDescription, Peer, ServiceState, ServiceStatus

ANN, BEN = Peer(4001, 4001, 1, "uid 4001"), Peer(4002, 4002, 2, "uid 4002")
DAEMON = Peer(key="K" * 40, name="key:node9")


class Other:
    """Another daemon with a service `lamp`, whose answers are those of the test, one after the other."""

    def __init__(self, host, *answers, up=True, role="viewer"):
        self.host, self.up, self.role = host, up, role
        self.answers, self.asked, self.ids = list(answers), [], []
        self.services = {"lamp": ServiceStatus(topic="lamp", host=host, state=ServiceState.UP)}
        self.client = self

    async def send_request(self, ask):
        self.asked.append(ask)
        answer = self.answers.pop(0) if self.answers else self.host
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def send_attempt(self, ask, request_id):
        self.ids.append(request_id)
        return await self.send_request(ask)

    def open_stream(self, ask, credit):
        self.asked.append(ask)

        class Stream:
            async def __aenter__(self):
                return self

            async def __aexit__(self, *_):
                pass

            async def __aiter__(self):
                for item in ("a", "b"):
                    yield item

        return Stream()

    def runs(self, topic):
        return topic in self.services

    def accepts(self, topic):
        return self.up and topic in self.services

    def is_available(self, topic):
        return True

    async def wait_reachable(self, timeout):
        if not self.up:
            raise self.unreachable_error()
        return 0.0

    def status_of(self, topic):
        return msgspec.structs.replace(self.services[topic], link="" if self.up else self.unreachable_error().message)

    def unreachable_error(self):
        return DaemonNotRunning(f"{self.host} has been unreachable for 7s")

    async def describe(self, topic, method):
        if not self.up:
            raise ConnectionLost("cut")
        return MethodDescription(
            topic=topic, method=method, role=self.role, version="1.0", changes=True, arguments=[], result="", doc=""
        )


class Others:
    def __init__(self, peers):
        self.peers = {peer.host: peer for peer in peers}

    def peers_with(self, topic):
        return [peer for peer in self.peers.values() if peer.runs(topic)]


class Audit:
    """Keeps what an audit log would, but for reading."""

    def __init__(self):
        self.kept = []

    def record(self, call, error):
        self.kept.append((call.request.topic, call.request.method, call.full_name))


class Lamp:
    rpc_version = "1.0"

    def __init__(self):
        self.switched = 0

    @exposed(role="viewer")
    async def switch(self, ctx: Context) -> str:
        self.switched += 1
        return "here"

    @exposed(role="admin")
    async def reset(self, ctx: Context) -> None:
        self.switched = 0


def joined(bench, *peers, local=None):
    """Let the daemon of a bench know others; return its audit log."""
    router = Router("here", bench.dispatcher.registry.is_open)
    router.peers = Others(peers)
    client = LocalServiceClient(bench.dispatcher, bench.inbox, topic="ostler", router=router)
    relay = Relay(router, bench.dispatcher, client)
    bench.relay = relay.redirect
    bench.audit = audit = Audit()
    messaging = SimpleNamespace(relay=relay, router=router, dispatcher=bench.dispatcher)
    parts = DaemonParts(store=None, messaging=messaging, audit_service=None, runtime=SimpleNamespace(operations=None))
    rest = dict.fromkeys(("plugins", "active", "reloader", "make_dump", "start_finished"))
    monitoring = MonitoringSources(status=None, stale_signals=list, loop_monitor=lambda: None, health=None)
    bench.apply(access=Access(own_uid=0, operator=["4002"], viewer=["4001"], keys={"K" * 40: "node9"}))
    bench.add("ostler", ControlEndpoint(parts, monitoring=monitoring, **rest))
    if local is not None:
        bench.add("lamp", local)
    return audit


def wire(method="switch", *, host="", flags=0, number=1, request_id="r-1", arguments=None, timeout=None, version=""):
    credit = 10 if flags & STREAM else 0
    return encode_request(
        Request(
            PROTOCOL_VERSION,
            number,
            "lamp",
            method,
            arguments or {},
            timeout,
            request_id,
            flags,
            host,
            version,
            credit=credit,
        )
    )


async def answer(bench, data, peer=ANN, client="client"):
    """Send a request, and return what ends it."""
    bench.wire.sent.clear()
    bench.send(data, client=client, peer=peer)
    async with asyncio.timeout(5):
        while not (ends := [each for each in bench.answers(client) if isinstance(each, Reply | Failure | Accepted)]):
            await asyncio.sleep(0.001)
    return ends[0]


def name_of(failure):
    return failure.names[0].partition(".")[2]


async def test_a_call_that_names_another_host_goes_there_as_it_is(bench):
    other = Other("node2", "lit", Conflict("it is lit already"))
    audit = joined(bench, other, local=Lamp())
    sent = wire(host="node2", arguments={"code": b"\0\1", "n": 2**40}, timeout=5.0, version="1.2")
    assert bytes((await answer(bench, sent)).result) == b"\xa3lit"
    (ask,) = other.asked
    assert (ask.topic, ask.method, ask.host, ask.version) == ("lamp", "switch", "node2", "1.2")
    assert (ask.arguments, ask.flags & LENIENT) == ({"code": b"\0\1", "n": 2**40}, 0)
    failed = await answer(bench, wire(host="node2", flags=LENIENT))
    assert (name_of(failed), failed.message) == ("Conflict", "it is lit already")
    assert other.asked[1].flags & LENIENT
    assert audit.kept == [("ostler", "relay", "lamp.switch")] * 2
    assert "host 'node7' not found" in (await answer(bench, wire(host="node7"))).message


async def test_a_call_for_no_host_stays_where_the_topic_is_or_goes_to_members_in_turns(bench):
    two, three = Other("node2", Busy("full")), Other("node3")
    joined(bench, two, three)
    assert bytes((await answer(bench, wire())).result) == b"\xa5node3", "node2 has surely not begun"
    found = [bytes((await answer(bench, wire())).result) for _ in range(2)]
    assert sorted(found) == [b"\xa5node2", b"\xa5node3"]
    two.answers = three.answers = [ConnectionLost("cut")]
    before = len(two.asked + three.asked)
    assert name_of(await answer(bench, wire())) == "ConnectionLost"
    assert len(two.asked + three.asked) == before + 1, "it may be at work, so nobody else is asked"
    bench.add("lamp", Lamp())
    assert bytes((await answer(bench, wire())).result) == b"\xa4here"


async def test_nobody_is_left_and_nobody_has_it_are_told_apart(bench):
    joined(bench, Other("node2", up=False))
    failed = await answer(bench, wire())
    assert (name_of(failed), failed.message) == (
        "DaemonNotRunning", "no host can serve lamp.switch now: node2 has been unreachable for 7s",
    )  # fmt: skip
    other = encode_request(Request(PROTOCOL_VERSION, 1, "none", "x", {}, None, "r", 0))
    assert name_of(await answer(bench, other)) == "ServiceNotFound"


async def test_a_cast_is_accepted_when_the_other_host_has_accepted_it(bench):
    other = Other("node2", 1, Draining("it stops"))
    joined(bench, other)
    assert await answer(bench, wire(host="node2", flags=CAST)) == Accepted(PROTOCOL_VERSION, 1, 1)
    assert other.asked[0].flags & CAST
    assert name_of(await answer(bench, wire(host="node2", flags=CAST))) == "Draining"


async def test_a_fanout_reaches_the_services_here_and_on_all_hosts_that_can_be_reached(bench):
    lamp, two, three = Lamp(), Other("node2", 1), Other("node3", ConnectionLost("cut"))
    joined(bench, two, three, Other("node4", up=False), local=lamp)
    assert await answer(bench, wire(flags=CAST | FANOUT)) == Accepted(PROTOCOL_VERSION, 1, 2)
    assert lamp.switched == 1
    assert two.asked[0].host == "node2", "it is meant by name, and brings it to nobody else"
    bench.dispatcher.registry.remove_endpoint("lamp")
    assert await answer(bench, wire(flags=CAST | FANOUT)) == Accepted(PROTOCOL_VERSION, 1, 0) or two.asked[1:]


async def test_a_fanout_that_came_from_another_daemon_is_not_brought_on(bench):
    lamp, two = Lamp(), Other("node2", 1)
    joined(bench, two, local=lamp)
    bench.apply(access=Access(own_uid=0, operator=["key:node9"], keys={"K" * 40: "node9"}))
    for host in ("here", ""):
        accepted = await answer(bench, wire(flags=CAST | FANOUT, host=host), peer=DAEMON)
        assert accepted == Accepted(PROTOCOL_VERSION, 1, 1)
    async with asyncio.timeout(5):
        while lamp.switched < 2:
            await asyncio.sleep(0)
    assert two.asked == []
    bench.dispatcher.registry.remove_endpoint("lamp")
    for host in ("node2", ""):
        assert name_of(await answer(bench, wire(host=host), peer=DAEMON)) == "ServiceNotFound"
    assert two.asked == []


async def test_the_caller_needs_the_role_here_that_the_method_asks_for_there(bench):
    lamp, two, three = Lamp(), Other("node2", role="operator"), Other("node3")
    joined(bench, two, three, local=lamp)
    for data in (wire(host="node2"), wire(host="node2", flags=CAST), wire(flags=CAST | FANOUT)):
        failed = await answer(bench, data)
        assert name_of(failed) == "NotPermitted"
        assert "lamp.switch on node2 needs the role operator, uid 4001 has viewer here" in failed.message
    assert (two.asked, three.asked, lamp.switched) == ([], [], 0), "a fanout that one may not take reaches nobody"
    assert isinstance(await answer(bench, wire(host="node2"), peer=BEN), Reply)
    failed = await answer(bench, wire("reset", flags=CAST | FANOUT), peer=BEN)
    assert "lamp.reset needs the role admin" in failed.message
    assert name_of(await answer(bench, wire(host="node2"), peer=Peer(4711, 1, 1, "uid 4711"))) == "NotPermitted"


async def test_what_a_manager_calls_here_is_not_relayed(bench):
    joined(bench, Other("node2"))
    client = LocalServiceClient(bench.dispatcher, bench.inbox, topic="house")
    with pytest.raises(Exception, match="service 'lamp' not found"):
        await client.acall("lamp", "switch")  # it has no router, and knows no others


async def test_a_stream_comes_from_another_host(bench):
    other = Other("node2")
    joined(bench, other)
    for host in ("node2", ""):
        bench.wire.sent.clear()
        assert isinstance(await answer(bench, wire(host=host, flags=STREAM)), Reply)
        came = b"".join(bytes(each.items) for each in bench.answers() if isinstance(each, Items))
        assert [letter for letter in (b"\xa1a", b"\xa1b") if letter in came] == [b"\xa1a", b"\xa1b"]
    assert [ask.host for ask in other.asked] == ["node2", "node2"]


async def test_a_repeat_goes_under_its_id_to_the_host_at_which_the_first_was_lost(bench):
    two, three = Other("node2", ConnectionLost("cut"), "lit"), Other("node3", ConnectionLost("cut"), "lit")
    joined(bench, two, three)
    assert name_of(await answer(bench, wire(flags=RETRY))) == "ConnectionLost"
    (lost,) = [peer for peer in (two, three) if peer.ids]
    assert bytes((await answer(bench, wire(flags=RETRY, number=2))).result) == b"\xa3lit"
    assert len(lost.ids) == 2
    assert len(set(lost.ids)) == 1
    assert bytes((await answer(bench, wire(flags=RETRY, number=3))).result) == b"\xa3lit"
    assert len(two.ids + three.ids) == 2, "what was answered is answered from here"
    await answer(bench, wire(flags=RETRY, host=lost.host), peer=BEN)
    assert lost.ids[2] != lost.ids[0], "nobody comes to the answers of another caller by its id"


async def test_a_repeat_while_the_first_is_under_way_joins_it(bench):
    go_on, other = asyncio.Event(), Other("node2")

    async def slow(ask):
        other.asked.append(ask)
        await go_on.wait()
        return 1

    other.send_request = slow
    joined(bench, other)
    bench.send(wire(flags=RETRY | CAST, host="node2", number=1), peer=ANN)
    while not other.asked:
        await asyncio.sleep(0.001)
    bench.send(wire(flags=RETRY | CAST, host="node2", number=7), client="again", peer=ANN)
    go_on.set()
    while not bench.answers("again"):
        await asyncio.sleep(0.001)
    assert bench.answers("again") == [Accepted(PROTOCOL_VERSION, 7, 1)]
    assert (len(other.asked), bench.server.stats()["in_flight"]) == (1, 0)
